"""One request, as it is put to one deployment: an attempt of the Router's own, alone, with a copy of what LiteLLM writes into."""

import asyncio
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from litellm.types.utils import ModelResponse

from langchain_resilient.engine.effects import Begun
from langchain_resilient.engine.errors import IneligibleError
from langchain_resilient.engine.policy import Target
from litellm_hooks.deployments import Candidate
from litellm_hooks.upstream import RouterUpstream
from tests.litellm_hooks.test_chunks import chunk
from tests.litellm_hooks.world import MESSAGES, WAYS


class Streamed(list):
    """A stream of a Router that notes its end."""

    closed = 0

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1

    def __aiter__(self) -> Any:
        return self._chunks()

    async def _chunks(self) -> Any:
        for one in self:
            yield one


class Asked:
    """A Router's own calls: what they were asked, and what they answer."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.told: list[Any] = []
        self.within = False

    @contextmanager
    def chosen(self, candidate: Candidate) -> Iterator[None]:
        self.told.append(candidate.deployment)
        self.within = True
        yield
        self.within = False

    def call(self, **asked: Any) -> Any:
        assert self.within
        self.asked.append(asked)
        return self.answers.pop(0)

    async def acall(self, **asked: Any) -> Any:
        return self.call(**asked)

    def upstream(self, granted: Any = None, **request: Any) -> RouterUpstream:
        given = {"model": "main", "messages": MESSAGES, "stream": False, **request}
        return RouterUpstream(self.call, self.acall, self.chosen, given, lambda: 0.0, granted=granted)


def target(name: str = "a", group: str = "main", **overrides: Any) -> Target:
    """A deployment of a group."""
    return Target(name, name, name, Candidate(group, {"model_info": {"id": name}}, overrides))


async def attempted(upstream: RouterUpstream, way: str, of: Target) -> None:
    """One attempt, in one of the four ways."""
    if way == "async":
        await upstream.acall(of)
    elif way == "async stream":
        [one async for one in upstream.astream(of)]
    elif way == "sync":
        await asyncio.to_thread(upstream.call, of)
    else:
        await asyncio.to_thread(lambda: list(upstream.stream(of)))


def unsure(name: str = "a") -> Target:
    """One of whom LiteLLM has not said yet that it may answer."""
    return Target(name, name, name, Candidate("main", {"model_info": {"id": name}}, {}, sure=False))


@pytest.mark.parametrize("way", WAYS)
async def test_whom_the_filters_leave_out_is_not_asked(way: str):
    """A candidate that turns out to be none is no attempt: nothing is sent, and nothing is counted."""

    async def nobody(candidate: Candidate) -> None:
        return None

    router = Asked("x")
    upstream = router.upstream(nobody)
    with pytest.raises(IneligibleError, match="main: LiteLLM's filters leave deployment a out"):
        await attempted(upstream, way, unsure())
    assert (router.asked, upstream.attempts) == ([], 0)


@pytest.mark.parametrize("way", WAYS)
async def test_the_router_is_told_what_it_handed_out_itself(way: str):
    """For a candidate that may answer the Router is told the deployment that its filters gave, as it was then."""

    async def granted(candidate: Candidate) -> dict[str, Any]:
        return {"model_info": {"id": candidate.id}, "fresh": True}

    router = Asked(Streamed() if "stream" in way else "x")
    await attempted(router.upstream(granted), way, unsure())
    assert router.told == [{"model_info": {"id": "a"}, "fresh": True}]


async def test_an_attempt_is_alone():
    """Retries and fallbacks of LiteLLM's own are off, in calls and in streams, sync and async."""
    router = Asked("x", "x", Streamed(), Streamed())
    upstream = router.upstream(num_retries=5, fallbacks=["spare"], max_retries=3)
    upstream.call(target())
    await upstream.acall(target())
    list(upstream.stream(target()))
    [one async for one in upstream.astream(target())]
    for asked in router.asked:
        assert (asked["num_retries"], asked["max_retries"], asked["disable_fallbacks"]) == (0, 0, True)
        assert [asked[f"{name}fallbacks"] for name in ("", "context_window_", "content_policy_")] == [[], [], []]
    assert [asked["stream"] for asked in router.asked] == [False, False, True, True]
    assert upstream.attempts == 4


def test_a_fallback_group_is_asked_under_its_own_name():
    """A fallback's deployment is asked under its group with what its entry says beside; a pin is the first group's."""
    router = Asked("x")
    router.upstream(temperature=1.0, specific_deployment=True).call(target("b", "spare", temperature=0.0))
    assert (router.asked[0]["model"], router.asked[0]["temperature"]) == ("spare", 0.0)
    assert "specific_deployment" not in router.asked[0]


def test_each_attempt_has_its_own_of_what_litellm_writes_into():
    """Metadata is a copy for each attempt, the caller's request stays as it was, and a logging object is the first attempt's."""
    router = Asked("x", "x")
    request = {"metadata": {"user": "ann"}, "litellm_metadata": {"k": 1}, "litellm_logging_obj": object()}
    before = {**request, "metadata": copy.deepcopy(request["metadata"])}
    upstream = router.upstream(**request)
    for _ in range(2):
        upstream.call(target())
        router.asked[-1]["metadata"]["model_group"] = "main"
    assert request == before
    assert router.asked[0]["metadata"] is not router.asked[1]["metadata"]
    assert ["litellm_logging_obj" in asked for asked in router.asked] == [True, False]


def test_the_rest_of_an_answer_is_asked_for():
    """A stream that goes on with a begun answer asks for the rest, and the caller's messages stay as they were."""
    router = Asked(Streamed())
    list(router.upstream().stream(target(), Begun("It rai", None)))
    assert router.asked[0]["messages"] == [*MESSAGES, {"role": "assistant", "content": "It rai", "prefix": True}]
    assert len(MESSAGES) == 1


async def test_a_stream_that_is_left_is_closed():
    """Whoever stops reading, sync or async, lets go of the provider once."""
    streams = Streamed(["a", "b"]), Streamed(["a", "b"])
    upstream = Asked(*streams).upstream()
    sync = upstream.stream(target())
    next(sync)
    sync.close()
    reading = upstream.astream(target())
    await anext(reading)
    await reading.aclose()
    assert [stream.closed for stream in streams] == [1, 1]


def test_a_sync_stream_without_close_is_closed_by_what_it_reads_from():
    """Older LiteLLM's streams have no `close`; what they read from has one."""

    class Old:
        def __init__(self) -> None:
            self.completion_stream = Streamed()

        def __iter__(self) -> Any:
            return iter(["a", "b"])

    old = Old()
    reading = Asked(old).upstream().stream(target())
    next(reading)
    reading.close()
    assert old.completion_stream.closed == 1


def test_the_source_of_an_answer_is_whoever_said_it():
    """Of two that race, the source is the one whose chunk is shown first."""
    one, other = Streamed([chunk(content="a")]), Streamed([chunk(content="b")])
    upstream = Asked(one, other).upstream()
    first, second = target("a"), target("b")
    list(upstream.stream(first))
    list(upstream.stream(second))
    assert upstream.source_of(one[0]).source is one
    assert upstream.source_of(other[0]).target is second


def test_the_prompt_is_counted_once(monkeypatch):
    """The estimate of a prompt's tokens is LiteLLM's and a tenth more, and is made once; what was counted before is not counted at all."""
    counts = []
    monkeypatch.setattr("litellm.token_counter", lambda messages, **_: counts.append(messages) or 100)
    upstream = Asked().upstream()
    assert (upstream.input_tokens(), upstream.input_tokens()) == (111, 111)
    assert counts == [MESSAGES]
    assert RouterUpstream(print, print, print, {"messages": MESSAGES}, float, tokens=7).input_tokens() == 7
    assert counts == [MESSAGES]


def test_limits_are_read_from_the_headers():
    """What a provider's headers say of its limits is read from LiteLLM's hidden params; without headers nothing is."""
    answer = ModelResponse()
    assert Asked().upstream().headroom(answer) == ()
    answer._hidden_params = {"headers": {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "7"}}
    assert [(found.dimension, found.remaining) for found in Asked().upstream().headroom(answer)] == [("requests", 7)]


@pytest.mark.parametrize(
    ("request_", "shown", "continues"),
    [
        ({}, {"content": "a"}, True),
        ({"response_format": {"type": "json_object"}}, {"content": "a"}, False),
        ({}, {"refusal": "no"}, False),
    ],
)
def test_what_can_be_continued(request_: dict[str, Any], shown: dict[str, Any], continues: bool):
    """Text can be gone on with unless it was to be JSON; what is no text can't."""
    assert (Asked().upstream(**request_).continuation([chunk(**shown)]) is not None) is continues


def test_a_stream_read_in_secret_is_a_whole_answer():
    """The chunks of an unstreamed call that was streamed inside are one answer."""
    said = [chunk(role="assistant", content="It "), chunk(content="rains."), chunk("stop")]
    answer = Asked().upstream().whole(target(), said)
    assert answer.choices[0].message.content == "It rains."
    assert answer.choices[0].finish_reason == "stop"


def test_the_source_of_a_whole_answer_is_whose_chunks_it_is_made_of():
    """Of two that are streamed in secret the source is the one whose chunks became the answer, though the other began later."""
    one, other = [Streamed([chunk(role="assistant", content="a"), chunk("stop")]) for _ in range(2)]
    upstream = Asked(one, other).upstream(metadata={})
    first = target("a")
    list(upstream.stream(first))
    list(upstream.stream(target("b")))
    came = upstream.source_of(upstream.whole(first, list(one)))
    assert (came.source, came.target) == (one, first)

"""The seam between ours and the inner model: what an inner model was set to is honoured, and what it can't is not advertised."""

import asyncio
import copy
import pickle
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.tracers.context import collect_runs
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI

from langchain_resilient import (
    Provider,
    RateLimitedError,
    ResilientChatModel,
    Retry,
    StreamInterruptedError,
    Timeouts,
    capture_decisions,
)
from langchain_resilient.testing import Fault, FaultServer, ScriptedChatModel
from tests.clients import ANSWER, MADE, WAYS, WIRES, BusyError, ask, failure, fresh, instance, resilient, scripted, spec


class Counting(BaseRateLimiter):
    """Counts who asked."""

    def __init__(self) -> None:
        self.asked = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.asked += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        self.asked += 1
        return True


class Unstreamed(BaseChatModel):
    """A model that can't stream, as many fakes can't."""

    said: str = ANSWER

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.said))])

    @property
    def _llm_type(self) -> str:
        return "unstreamed"


@pytest.mark.parametrize("way", WAYS)
async def test_an_inner_rate_limiter_is_asked_once_per_attempt(way: str):
    """The limiter of an inner model is asked before each attempt there, in streams too."""
    limiter = Counting()
    model = resilient(scripted("one", rate_limiter=limiter))
    await ask(model, way)
    await ask(model, way)
    assert limiter.asked == 2


class Full(Counting):
    """Has no place until so many have asked."""

    def __init__(self, until: int) -> None:
        super().__init__()
        self.until = until

    def acquire(self, *, blocking: bool = True) -> bool:
        assert not blocking, "nobody knows how long this would take"
        super().acquire()
        return self.asked > self.until

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire(blocking=blocking)


@pytest.mark.parametrize("way", WAYS)
async def test_an_inner_limiter_is_waited_for_where_nobody_else_can_answer(way: str):
    """A provider alone waits for its limiter; beside another one it does not, and is not blamed."""
    assert await ask(resilient(scripted("one", rate_limiter=Full(3))), way) == ANSWER
    first = scripted("one", "First.", rate_limiter=Full(10**9))
    model = resilient(first, scripted("two"))
    with capture_decisions() as decisions:
        assert await ask(model, way) == ANSWER
    assert [attempt.kind for attempt in decisions[0].attempts] == ["rate_limited", "ok"] and first.calls == []
    assert model.status()["scripted/one"]["failures_in_a_row"] == 0


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_sent_after_the_wait_for_a_limiter_was_given_up(way: str):
    """The wait for an inner limiter ends before the attempt does: as a used-up limit, not as the provider's timeout."""
    limiter = Full(10**9)
    inner = scripted("one", rate_limiter=limiter)
    model = resilient(inner, timeouts=Timeouts(response=0.4, first_token=0.4), max_retries=0)
    with capture_decisions() as decisions:
        error = await failure(model, way)
        assert isinstance(error, RateLimitedError) and "the model's own rate limiter has no place" in str(error)
        assert [attempt.kind for attempt in decisions[0].attempts] == ["rate_limited"]
    status = model.status()["scripted/one"]
    assert (status["circuit"], status["failures_in_a_row"], status["in_flight"]) == ("closed", 0, 0)
    asked, limiter.until = limiter.asked, 0
    await asyncio.sleep(0.3)
    assert (limiter.asked, inner.calls) == (asked, [])
    late = resilient(scripted("late", rate_limiter=Full(10**9)))
    assert isinstance(await failure(late, way, config={"configurable": {"deadline": 0.3}}), RateLimitedError)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_inner_cache_is_asked_before_the_limiter(way: str):
    """What an inner cache knows takes no place of the limiter."""
    limiter = Counting()
    model = resilient(scripted("one", rate_limiter=limiter, cache=InMemoryCache()))
    assert [await ask(model, way) for _ in range(2)] == [ANSWER] * 2 and limiter.asked == 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_inner_cache_is_used(way: str):
    """The cache of an inner model answers the second time; the model itself is asked once."""
    inner = scripted("one", cache=InMemoryCache())
    model = resilient(inner)
    assert await ask(model, way) == await ask(model, way) == ANSWER
    assert len(inner.calls) == 1


def test_our_own_cache_answers_without_an_attempt():
    """A cache on the wrapper answers before the engine is asked."""
    inner = scripted()
    model = resilient(inner, cache=InMemoryCache())
    with capture_decisions() as decisions:
        model.invoke("hi")
        model.invoke("hi")
    assert len(decisions) == len(inner.calls) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_an_inner_output_version_is_kept(wire: str, way: str):
    """`output_version="v1"` of the inner model gives content blocks, in answers and in streams."""
    with FaultServer() as server:
        inner = instance(server, wire, output_version="v1")
        model = resilient(inner)
        assert model.output_version == "v1"
        if way in {"invoke", "ainvoke"}:
            answer = model.invoke("hi") if way == "invoke" else await model.ainvoke("hi")
        else:
            chunks = list(model.stream("hi")) if way == "stream" else [chunk async for chunk in model.astream("hi")]
            answer = sum(chunks[1:], chunks[0])
        assert isinstance(answer.content, list) and answer.content[0]["type"] == "text"
        assert answer.text == "Hello from the fault server."


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_an_inner_model_that_always_streams(wire: str, way: str):
    """`streaming=True` on the inner model works in each way, and asks its provider once."""
    with FaultServer() as server:
        model = resilient(instance(server, wire, streaming=True))
        assert await ask(model, way) == "Hello from the fault server."
        assert [request.stream for request in server.requests] == [True]


class Tokens(BaseCallbackHandler):
    """Keeps the tokens it is shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.shown += [token] if token else []


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_callbacks_see_the_answering_provider_alone(way: str):
    """With `streaming=True` on the inner models, callbacks are shown the tokens of the one that answered."""
    with FaultServer() as first, FaultServer() as second:
        first.always(Fault.truncate(chunks=0))
        second.answer("It is well.")
        inner = [instance(server, "openai", name, streaming=True) for server, name in ((first, "one"), (second, "two"))]
        model, tokens = resilient(*inner), Tokens()
        assert await ask(model, way, config={"callbacks": [tokens]}) == "It is well." == "".join(tokens.shown)
        assert model.streaming and len(tokens.shown) > 1 and inner[0].streaming is True


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_inner_model_that_always_streams_is_not_cut_unnoticed(way: str):
    """An unstreamed answer is never put together from a stream of the inner model's, which may end too early."""
    with FaultServer() as first, FaultServer() as second:
        first.always(Fault.truncate(chunks=2))
        second.answer("It is well.")
        inner = [instance(server, "openai", name, streaming=True) for server, name in ((first, "one"), (second, "two"))]
        tokens = Tokens()
        assert await ask(resilient(*inner, streaming=False), way, config={"callbacks": [tokens]}) == "It is well."
        assert tokens.shown == [] and not first.requests[0].stream
        assert isinstance(await failure(resilient(*inner), way), StreamInterruptedError)


async def test_streaming_on_the_wrapper():
    """`streaming=True` on the wrapper makes `invoke` stream inside, so handlers hear tokens."""
    tokens = Tokens()
    model = resilient(scripted(), streaming=True)
    with capture_decisions() as decisions:
        assert model.invoke("hi", {"callbacks": [tokens]}).text == ANSWER
    assert decisions[0].stream and tokens.shown == ["All", " is", " well."]


@pytest.mark.parametrize("way", WAYS)
async def test_a_model_that_cannot_stream(way: str):
    """Without any provider that streams, streaming is switched off, and `stream` yields the whole as the bare model would."""
    model = resilient(Unstreamed())
    assert model.disable_streaming is True
    assert await ask(model, way) == ANSWER
    assert resilient(Unstreamed(), scripted()).disable_streaming is False


class Tooled(ScriptedChatModel):
    """Takes tools as the real clients do."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_streams_that_are_off_for_tools_alone(way: str):
    """`disable_streaming="tool_calling"` of the first provider holds for ours, and of a fallback for its own answers."""
    first = resilient(Tooled(script=[ANSWER], disable_streaming="tool_calling"))
    assert first.disable_streaming == "tool_calling"
    tokens = Tokens()
    assert await ask(first.bind_tools([add]), way, config={"callbacks": [tokens]}) == ANSWER
    assert tokens.shown == []
    fallback = Tooled(model_name="two", script=[ANSWER], disable_streaming="tool_calling")
    model = resilient(Tooled(model_name="one", script=[BusyError(), BusyError()]), fallback)
    assert await chunks_with_text(model.bind_tools([add]), way) == 1
    assert await chunks_with_text(model, way) == 3


async def chunks_with_text(model: Any, way: str) -> int:
    """How many chunks of a stream say something."""
    if way == "stream":
        return sum(bool(chunk.text) for chunk in model.stream("hi"))
    return sum([bool(chunk.text) async for chunk in model.astream("hi")])


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_streams_that_are_switched_off_on_the_model(way: str):
    """`streaming=False`, said of a provider's model, holds: its stream is one chunk, as the bare model's."""
    with FaultServer() as server:
        server.answer("It is well with us.")
        bare, inner = (instance(server, "openai", "one", streaming=False) for _ in range(2))
        ours = resilient(inner)
        for model in (bare, ours):
            assert await chunks_with_text(model, way) == 1
        assert [request.stream for request in server.requests] == [False, False]


async def test_what_the_first_model_tells_its_callbacks_and_traces():
    """Callbacks, tags and metadata given to the first model hold for ours, unless ours were given its own."""
    heard = Tokens()
    inner = scripted(callbacks=[heard], tags=["of the model"], metadata={"team": "a"})
    model = resilient(inner)
    with collect_runs() as runs:
        [chunk async for chunk in model.astream("hi")]
    assert heard.shown == ["All", " is", " well."]
    assert "of the model" in runs.traced_runs[0].tags
    assert runs.traced_runs[0].extra["metadata"]["team"] == "a"
    assert resilient(inner, tags=["ours"]).tags == ["ours"]


def test_a_deep_copy_of_a_used_model_answers():
    """It carries the settings; what calls run on is built anew. A pickle would hold keys: there is none."""
    model = ResilientChatModel([Provider(Unstreamed(), name="one"), Provider(Unstreamed(), name="two")])
    assert model.invoke("hi").text == ANSWER
    twin = copy.deepcopy(model)
    assert twin.invoke("hi").text == ANSWER
    assert list(twin.status()) == list(model.status())


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_fallback_that_cannot_stream_yields_one_chunk(way: str):
    """In a stream, a fallback that can't stream gives its whole answer as one chunk that says it is the last."""
    model = resilient(scripted("one", BusyError()), Unstreamed(said="The whole."))
    chunks = list(model.stream("hi")) if way == "stream" else [chunk async for chunk in model.astream("hi")]
    assert [chunk.text for chunk in chunks if chunk.text] == ["The whole."]
    assert chunks[-1].chunk_position == "last"


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("wire", WIRES)
async def test_leaving_a_stream_closes_its_connection(wire: str, way: str):
    """A caller that stops reading frees the provider as well: the server sees the client go."""
    with FaultServer() as server:
        server.answer("word " * 200, chunk_delay=0.02)
        model = resilient(spec(server, wire))
        if way == "stream":
            chunks = model.stream("hi")
            next(chunks)
            chunks.close()
        else:
            achunks = model.astream("hi")
            await anext(achunks)
            await achunks.aclose()
        [request] = server.requests
        assert await asyncio.to_thread(request.wait_ended) and request.disconnected
        assert model.status()[f"{wire}/one"]["in_flight"] == 0


# ── LangChain's standard parameters ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["spec", "instance"])
@pytest.mark.parametrize("wire", WIRES)
async def test_standard_parameters_reach_every_provider(wire: str, how: str):
    """temperature, max_tokens and stop arrive in the request, under the name that each provider has for them."""
    with FaultServer() as server:
        provider = spec(server, wire) if how == "spec" else instance(server, wire)
        model = ResilientChatModel(
            providers=[provider], namespace=fresh(), temperature=0.25, max_tokens=77, stop=["END"]
        )
        model.invoke("hi")
        body = server.requests[0].body
    if wire == "ollama":
        assert {name: body["options"][name] for name in ("temperature", "num_predict", "stop")} == {
            "temperature": 0.25,
            "num_predict": 77,
            "stop": ["END"],
        }
        return
    assert body["temperature"] == 0.25
    assert (body.get("max_tokens") or body.get("max_completion_tokens")) == 77
    assert body["stop" if wire == "openai" else "stop_sequences"] == ["END"]


@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("way", WAYS)
async def test_parameters_of_a_call_reach_a_fallback(way: str, how: str):
    """What a call sets reaches the fallback under its own names, beside what the fallback was set to."""
    with FaultServer() as first, FaultServer() as second:
        first.always(Fault.status(503))
        own = {"top_k": 7}
        fallback = spec(second, "ollama", model_kwargs=own) if how == "spec" else instance(second, "ollama", **own)
        model = resilient(spec(first, "openai"), fallback)
        await ask(model.bind(max_tokens=5, temperature=0.1, top_p=0.5), way, stop=["END"])
        assert second.requests[-1].body["options"] == {
            "num_predict": 5, "temperature": 0.1, "top_p": 0.5, "top_k": 7, "stop": ["END"],
        }  # fmt: skip
        await ask(model, way, max_completion_tokens=6, options={"top_k": 9, "seed": 3})
        assert second.requests[-1].body["options"] == {"num_predict": 6, "top_k": 9, "seed": 3}
        await ask(model, way)
        assert second.requests[-1].body["options"] == {"top_k": 7}


@pytest.mark.parametrize("way", WAYS)
async def test_newer_names_of_a_call_reach_a_fallback(way: str):
    """OpenAI's newer word for the most tokens is put in the fallback's own."""
    with FaultServer() as first, FaultServer() as second:
        first.always(Fault.status(503))
        model = resilient(spec(first, "openai"), spec(second, "anthropic"))
        await ask(model, way, max_completion_tokens=5)
        assert second.requests[-1].body["max_tokens"] == 5


def test_standard_parameters_leave_the_users_instance_alone():
    """Parameters are set on a copy: the model that the user made stays as it was."""
    with FaultServer() as server:
        inner = instance(server, "openai")
        ResilientChatModel(providers=[inner], namespace=fresh(), temperature=0.25)
        assert inner.temperature is None


def test_stop_of_the_call_wins():
    """Stop words of one call replace the model's own."""
    with FaultServer() as server:
        model = ResilientChatModel(providers=[spec(server, "openai")], namespace=fresh(), stop=["A"])
        model.invoke("hi", stop=["B"])
        assert server.requests[0].body["stop"] == ["B"]


def test_timeout_and_max_retries_set_the_policy():
    """`timeout` is the deadline over all attempts, `max_retries` the retries."""
    model = resilient(scripted(), timeout=12.5, max_retries=1)
    assert (model._engine.policy.total, model._engine.policy.retry.max_retries) == (12.5, 1)


# ── What others read of it ───────────────────────────────────────────────────────────────────────────────────────────


def cache_key(*providers: Any, **settings: Any) -> str:
    """The part of LangChain's cache keys that tells models apart."""
    return ResilientChatModel(providers=list(providers), namespace=fresh(), **settings)._get_llm_string()


def test_cache_keys_tell_models_apart_and_hold_no_secret():
    """Other providers, another order, another temperature or endpoint: another key. The same again: the same key."""
    with FaultServer() as server, FaultServer() as other:
        one, two = spec(server, "openai", "one"), spec(server, "openai", "two")
        keys = [
            cache_key(one),
            cache_key(two),
            cache_key(one, two),
            cache_key(two, one),
            cache_key(one, temperature=0.1),
            cache_key(one, temperature=0.2),
            cache_key(one, max_tokens=5),
            cache_key(one, stop=["x"]),
            cache_key(spec(other, "openai", "one")),
            cache_key(instance(server, "openai", "one", top_p=0.3)),
        ]
        assert len(set(keys)) == len(keys)
        assert cache_key(one, two) == keys[2]
        assert not any("sk-test" in key for key in keys)


def test_it_speaks_for_the_first_provider():
    """Model name, tracing parameters and token counts are the first provider's; its profile is what all can do."""
    first = scripted("one", profile={"max_input_tokens": 1000, "tool_calling": True, "image_inputs": True})
    second = scripted("two", profile={"max_input_tokens": 500, "tool_calling": True, "image_inputs": False})
    model = resilient(first, second)
    assert model.model_name == "one"
    assert model._get_ls_params()["ls_provider"] == "scripted"
    assert model.profile == {"max_input_tokens": 500, "tool_calling": True, "image_inputs": False}
    assert resilient(second).profile == second.profile
    assert resilient(first, scripted("none")).profile is None


def test_ls_params_honour_the_call():
    """A model named with the call, and the stop words in force, show in the tracing parameters."""
    model = ResilientChatModel(
        providers=[ChatOpenAI(model="gpt-4.1", api_key="x", max_retries=0)], namespace=fresh(), stop=["S"]
    )
    assert model._get_ls_params(model="other")["ls_model_name"] == "other"
    assert model._get_ls_params()["ls_stop"] == ["S"]


SECRET = "sk-very-secret-0123456789"


async def test_secrets_show_nowhere(caplog: pytest.LogCaptureFixture):
    """A key is in no repr, status, dump, log line, decision record, error or cache key, also when the provider refuses it."""
    caplog.set_level("DEBUG", "langchain_resilient")
    with FaultServer() as server:
        given = spec(server, "openai", model_kwargs={"api_key": SECRET})
        model = ResilientChatModel(
            providers=[given, Provider("anthropic:two", model_kwargs={"api_key": SECRET, "base_url": server.url})],
            namespace=fresh(),
            retry=Retry(base_delay=0.0),
        )
        with capture_decisions() as decisions:
            await model.ainvoke("hi")
        shown = [repr(given), repr(model), str(model), repr(model.status()), repr(dumpd(model)), repr(decisions)]
        shown += [model._get_llm_string(), caplog.text, repr(model._engine.policy.targets[0])]
        shown += [repr(dict(model._identifying_params)), str(model.model_dump()), model.model_dump_json()]
        with pytest.raises(TypeError) as unpicklable:
            pickle.dumps(model)
        shown += [str(unpicklable.value)]
        assert model.model_dump()["providers"] == ["openai/one", "anthropic/two"]
    assert not [text for text in shown if SECRET in text]


def test_scripted_is_a_drop_in_for_these_tests():
    """The fake used here goes through the same seam as a real client: inline, with a run manager."""
    client = resilient(ScriptedChatModel())._engine.policy.targets[0].client
    assert client.plain and client.takes_run_manager and client.streams

"""How what a request took is settled, on every way that it can go: real Routers over real HTTP, and no Proxy."""

import asyncio
import contextvars
import gc
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import litellm
import pytest

from langchain_resilient.testing import Fault
from litellm_hooks import charging, readers
from litellm_hooks.callbacks import ResilientCallbacks
from litellm_hooks.charging import Meter
from litellm_hooks.expecting import prompt_tokens
from litellm_hooks.installing import installed_on
from litellm_hooks.settings import read
from tests.litellm_hooks.books import DAY, Books, who
from tests.litellm_hooks.world import MESSAGES, TEXT, force
from tests.servers import until

pytestmark = pytest.mark.e2e
ME = who(token="me")
USED = (1, 40)
"""One request of 30 and 10 tokens."""
MOST = 5000
"""Tokens that a request allows, far more than it uses."""


class Gateway:
    """What the Proxy does with a request, as far as its limits see it.

    Args:
        world: Where its Router comes from.
        deployments: Of the Router.
        settings: Of it and of the engine.
    """

    def __init__(self, world: Any, *deployments: dict[str, Any], fallbacks: Any = (), **settings: Any) -> None:
        told = {"namespace": world.namespace, "retry": {"base_delay": 0.0}, "tenants": {"key": DAY}, **settings}
        self.router = world.router(*deployments, fallbacks=list(fallbacks))
        self.callbacks = ResilientCallbacks(lambda: read(told, "test"), lambda: self.router)
        self.books = Books(world.namespace)
        self._calls = 0

    async def comes(self, call_type: str = "acompletion", **asked: Any) -> dict[str, Any]:
        """A request comes, and is let in."""
        self._calls += 1
        data = {
            "model": "main", "messages": MESSAGES, "max_tokens": MOST, "metadata": {}, "litellm_call_id": str(self._calls), **asked,
        }  # fmt: skip
        await self.callbacks.async_pre_call_hook(ME, None, data, call_type)
        return data

    async def asked(self, **asked: Any) -> Any:
        """It comes, and is routed."""
        data = await self.comes(**asked)  # first: with it the Router is made resilient
        return await self.router.acompletion(**data)

    @property
    def taken(self) -> tuple[int, int]:
        """Requests and tokens."""
        return self.books.taken("me")


@pytest.fixture(autouse=True)
def _alone() -> None:
    """Each test is a request of its own."""
    charging.put(None)


def answering(world: Any) -> Any:
    """A server whose answers take 30 and 10 tokens."""
    server = world.server()
    server.answer(TEXT, input_tokens=30, output_tokens=10)
    return server


async def drained(stream: AsyncIterator[Any]) -> str:
    """What a stream says."""
    return "".join([(chunk.choices[0].delta.content or "") if chunk.choices else "" async for chunk in stream])


# ── Answered ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_is_settled_with_what_it_used(world):
    """While it runs all that it may take is taken; when it is answered only what it used is."""
    server = answering(world)
    gateway = Gateway(world, world.deployment(server))
    data = await gateway.comes()
    requests, tokens = gateway.taken
    assert requests == 1 and MOST < tokens < MOST + 50
    await gateway.router.acompletion(**data)
    assert gateway.taken == USED


@pytest.mark.parametrize("whole", [False, True])
async def test_a_stream_is_settled_when_it_ends(world, whole: bool):
    """A stream whose usage is reported is settled with it at its end, and not before, also where the engine reads it to make one answer."""
    server = answering(world)
    timeouts = {"watch_calls": True} if whole else {}
    gateway = Gateway(world, world.deployment(server), timeouts=timeouts)
    if whole:
        await gateway.asked()
        assert server.requests[0].stream
        assert gateway.taken[0] == 1 and 20 < gateway.taken[1] < 60
        return
    stream = await gateway.asked(stream=True, stream_options={"include_usage": True})
    assert gateway.taken[1] > MOST
    assert await drained(stream) == TEXT
    assert gateway.taken == USED


async def test_a_stream_that_reports_nothing_is_counted(world):
    """Where no usage is reported the words count: the prompt's, and the answer's."""
    gateway = Gateway(world, world.deployment(answering(world)))
    assert await drained(await gateway.asked(stream=True)) == TEXT
    requests, tokens = gateway.taken
    words = litellm.token_counter(text=TEXT)
    assert requests == 1 and words + 5 < tokens < words + 30


async def test_what_a_provider_reports_unasked_counts(world):
    """A stream's usage that LiteLLM keeps from a client who did not ask for it goes before any counting."""
    server = answering(world)
    told = {"model": "anthropic/claude-sonnet-4-5", "api_base": server.base_url("anthropic"), "api_key": "k"}
    gateway = Gateway(world, {"model_name": "main", "litellm_params": told, "model_info": {"id": "claude"}})
    assert await drained(await gateway.asked(stream=True)) == TEXT
    assert gateway.taken == USED


async def test_a_streamed_tool_call_is_counted(world):
    """What is no text counts too, where no usage is reported."""
    server = world.server()
    server.answer()  # a call of the tool that the question names
    gateway = Gateway(world, world.deployment(server))
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    said = [{"role": "user", "content": "get_weather"}]
    assert await drained(await gateway.asked(stream=True, messages=said, tools=[tool])) == ""
    assert gateway.taken[1] > prompt_tokens({"messages": said})


async def test_two_attempts_are_one_request(world):
    """What a fallback answers is charged as if it had been asked alone."""
    broken, well = world.server(), answering(world)
    broken.always(Fault.status(503))
    gateway = Gateway(
        world, world.deployment(broken, "a"), world.deployment(well, "b", "spare"), fallbacks=[{"main": ["spare"]}]
    )
    await gateway.asked()
    assert broken.count and gateway.taken == USED


# ── Failed, refused, left ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failure_gives_its_output_back(world):
    """Where every provider failed the request and its prompt stay charged, and nothing else."""
    server = world.server()
    server.always(Fault.status(400))
    gateway = Gateway(world, world.deployment(server))
    with pytest.raises(litellm.BadRequestError):
        await gateway.asked()
    requests, tokens = gateway.taken
    assert server.count == 1 and requests == 1 and 5 < tokens < 50


async def test_who_was_never_asked_costs_nothing(world):
    """A request that the engine refuses, as every circuit is open, is handed back whole."""
    server = answering(world)
    gateway = Gateway(world, world.deployment(server, "a"))
    await gateway.asked()
    force(gateway.router, "a", "forced_open")
    with pytest.raises(litellm.ServiceUnavailableError):
        await gateway.asked()
    assert server.count == 1 and gateway.taken == USED


@pytest.mark.parametrize("close", [True, False])
async def test_a_stream_that_is_left_or_breaks_costs_what_was_shown(world, close: bool):
    """Who hangs up in the middle of a stream, or whose stream breaks for good, pays the prompt and the words that came."""
    server = answering(world)
    server.always(Fault.slow(0, chunk_delay=0.02) if close else Fault.reset_after(3))
    gateway = Gateway(world, world.deployment(server), on_interruption="raise", retry={"max_retries": 0})
    stream = await gateway.asked(stream=True)
    if close:
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
    else:
        with pytest.raises(litellm.APIConnectionError):
            await drained(stream)
    requests, tokens = gateway.taken
    assert requests == 1 and 8 < tokens < litellm.token_counter(text=TEXT)


async def test_a_stream_that_a_guardrail_ends_costs_what_was_shown(world):
    """The Proxy tells of the failure before it closes the stream: the words that came are charged all the same."""
    gateway = Gateway(world, world.deployment(answering(world)))
    data = await gateway.comes()
    stream = await gateway.router.acompletion(**data, stream=True)
    for _ in range(15):
        await anext(stream)
    await gateway.callbacks.async_post_call_failure_hook(data, ValueError("blocked"), ME)
    await stream.aclose()
    requests, tokens = gateway.taken
    assert requests == 1 and prompt_tokens(data) + 10 < tokens < litellm.token_counter(text=TEXT) + prompt_tokens(data)


async def test_a_stream_that_nobody_reads_is_settled(world):
    """Who drops a stream without a word, as the Proxy does where a callback fails before the first chunk, pays what had come."""
    gateway = Gateway(world, world.deployment(answering(world)))
    data = await gateway.comes()
    stream = await gateway.router.acompletion(**data, stream=True)
    charge = charging.present()
    await gateway.callbacks.async_post_call_failure_hook(data, ValueError("blocked"), ME)
    del stream
    gc.collect()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not charge.open:
            break
    requests, tokens = gateway.taken
    assert requests == 1 and prompt_tokens(data) <= tokens < 30


async def test_a_cancelled_call_keeps_its_prompt(world):
    """Who leaves while a provider is working pays the request and the prompt: the provider has it."""
    server = world.server()
    server.always(Fault.hang())
    gateway = Gateway(world, world.deployment(server))
    task = asyncio.create_task(gateway.asked())
    await asyncio.to_thread(until, lambda: server.count == 1, "the provider is asked", 10.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    requests, tokens = gateway.taken
    assert requests == 1 and 5 < tokens < 50


@pytest.mark.parametrize("stream", [False, True])
async def test_another_chain_is_the_same_request(world, stream: bool):
    """A prompt that is too long for the first group, and is answered by the group for long ones, is settled once, with that answer, at its end."""
    short, long = world.server(), answering(world)
    short.always(Fault.context_overflow())
    gateway = Gateway(world, world.deployment(short, "a"), world.deployment(long, "b", "long"))
    gateway.router.context_window_fallbacks = [{"main": ["long"]}]
    if stream:
        opened = await gateway.asked(stream=True, stream_options={"include_usage": True})
        assert gateway.taken[1] > MOST
        assert await drained(opened) == TEXT
    else:
        await gateway.asked()
    assert (short.count, long.count) == (1, 1) and gateway.taken == USED


async def test_a_chain_that_fails_too_costs_the_prompt(world):
    """Where the group for long prompts is not asked, as its circuit is open, the first group's attempt stays charged."""
    short, long = world.server(), answering(world)
    short.always(Fault.context_overflow())
    gateway = Gateway(world, world.deployment(short, "a"), world.deployment(long, "b", "long"))
    gateway.router.context_window_fallbacks = [{"main": ["long"]}]
    await gateway.asked()
    force(gateway.router, "b", "forced_open", "long")
    with pytest.raises(litellm.ServiceUnavailableError):
        await gateway.asked()
    requests, tokens = gateway.taken
    assert (short.count, long.count, requests) == (2, 1, 2) and 45 < tokens < 60


# ── Several models at once ───────────────────────────────────────────────────────────────────────────────────────────


async def batch(gateway: Gateway, models: str, **asked: Any) -> list[Any]:
    """What the Proxy makes of a list of models: one request, which the Router is called for as often as there are models."""
    data = await gateway.comes(model=models, **asked)
    data.pop("model")
    return await gateway.router.abatch_completion(models=models.split(","), **data)


async def test_several_models_are_charged_for_together(world):
    """A request for three models takes what all three answers may take, and costs what they took, though one of them is the first to come."""
    quick, slow = answering(world), answering(world)
    slow.always(Fault.slow(0.2))
    gateway = Gateway(world, world.deployment(quick), world.deployment(slow, "b", "other"))
    asking = asyncio.create_task(batch(gateway, "other,main,main"))
    await asyncio.to_thread(until, lambda: quick.count == 2 and slow.count == 1, "all are asked", 10.0)
    assert gateway.taken[1] > 3 * MOST
    assert [one.usage.total_tokens for one in await asking] == [40] * 3
    assert gateway.taken == (1, 120)


async def test_several_streams_are_charged_for_together(world):
    """Of several streams the last one that ends settles the request, with what all of them used."""
    gateway = Gateway(world, world.deployment(answering(world)), world.deployment(answering(world), "b", "other"))
    one, two = await batch(gateway, "main,other", stream=True, stream_options={"include_usage": True})
    await drained(one)
    assert gateway.taken[1] > 2 * MOST
    await drained(two)
    await asyncio.sleep(0)
    assert gateway.taken == (1, 80)


async def test_a_model_that_litellm_serves_alone_does_not_keep_the_others_open(world, monkeypatch: pytest.MonkeyPatch):
    """Where one of several models is none of the engine's the request is settled with what the others used, when all are over."""
    gateway = Gateway(world, world.deployment(answering(world)), world.deployment(answering(world), "b", "other"))
    await gateway.comes()  # with it the Router is made resilient
    candidates = installed_on(gateway.router)._candidates
    of = candidates.of

    async def none_of_others(request: dict[str, Any]) -> Any:
        return None if request["model"] == "other" else await of(request)

    monkeypatch.setattr(candidates, "of", none_of_others)
    for models in ("other,main", "main,other"):
        before = gateway.taken[1] if gateway.taken[1] < MOST else 0
        await batch(gateway, models)
        await asyncio.sleep(0)
        assert gateway.taken[1] == before + 40


async def test_a_model_that_fails_at_once_does_not_end_the_others(world):
    """A group that nobody knows, or that is refused, at the head of the list neither settles the request nor costs anything."""
    refused = answering(world)
    gateway = Gateway(world, world.deployment(answering(world)), world.deployment(refused, "b", "other"))
    await gateway.asked()
    force(gateway.router, "b", "forced_open", "other")
    failures = await batch(gateway, "nobody,other,main")
    assert [isinstance(one, Exception) for one in failures] == [True, True, False]
    await asyncio.sleep(0)
    assert (refused.count, gateway.taken) == (0, (2, 80))


async def test_several_models_that_all_fail_at_once_cost_nothing(world):
    """Where no model of the list was asked the request is handed back."""
    gateway = Gateway(world, world.deployment(world.server()))
    await batch(gateway, "nobody,nobody else")
    await asyncio.sleep(0)
    assert gateway.taken == (0, 0)


# ── Never routed ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refusal_behind_us_hands_all_back(world):
    """A request that another callback, or a budget, refuses before it was sent costs nothing."""
    gateway = Gateway(world, world.deployment(world.server()))
    data = await gateway.comes()
    await gateway.callbacks.async_post_call_failure_hook(data, ValueError("no"), ME)
    assert gateway.taken == (0, 0)
    await gateway.callbacks.async_post_call_failure_hook(data, ValueError("no"), ME)
    assert gateway.taken == (0, 0)


@pytest.mark.parametrize(("call_type", "kept"), [("acompletion", 0), ("pass_through_endpoint", 1)])
async def test_what_is_forgotten_comes_back(world, call_type: str, kept: int):
    """A request that ends without a word is handed back, unless it is of a kind of which nobody tells when it was sent."""
    gateway = Gateway(world, world.deployment(world.server()))
    await asyncio.create_task(gateway.comes(call_type), context=contextvars.copy_context())
    await asyncio.sleep(0)  # the loop still holds the task that has just ended
    gc.collect()
    assert gateway.taken[0] == kept


async def test_the_same_request_comes_twice(world):
    """The Proxy may ask for one request again, for another model: it is charged once."""
    gateway = Gateway(world, world.deployment(answering(world)))
    await gateway.comes()
    first = charging.present()
    await gateway.asked()
    assert gateway.taken == USED and not first.open


async def test_what_the_router_turns_down_costs_nothing(world):
    """A request for a group that there is not is handed back when the Router says so."""
    gateway = Gateway(world, world.deployment(world.server()))
    data = await gateway.comes(model="nobody")
    charge = charging.present()
    with pytest.raises(litellm.BadRequestError):
        await gateway.router.acompletion(**data)
    assert gateway.taken == (0, 0) and not charge.open


async def test_a_call_inside_of_a_request_is_not_its_end(world):
    """What a guardrail asks the Router for while a request is under way neither settles nor charges it."""
    gateway = Gateway(world, world.deployment(answering(world)))
    data = await gateway.comes()
    await gateway.router.acompletion(model="main", messages=MESSAGES, litellm_call_id="a guardrail's")
    assert gateway.taken[1] > MOST
    charge = charging.present()
    with charge.routed():
        await gateway.callbacks.async_pre_call_hook(ME, None, {**data, "litellm_call_id": "a tool's"}, "acompletion")
        assert gateway.taken[0] == 1
    assert charging.present() is charge
    await gateway.router.acompletion(**data)
    assert gateway.taken == USED


@pytest.mark.parametrize(
    ("inner", "call_type"),
    [({"input": ["x"]}, "aembedding"), ({"messages": MESSAGES}, "acompletion"), ({"litellm_call_id": "a tool's"}, "call_mcp_tool")],
)  # fmt: skip
async def test_a_call_before_it_is_routed_is_not_its_end(world, inner: dict[str, Any], call_type: str):
    """What another callback asks for before the request is routed (an embedding of the prompt, a tool) neither hands its charge back nor charges again."""
    gateway = Gateway(world, world.deployment(answering(world)))
    data = await gateway.comes()
    charge = charging.present()
    await gateway.callbacks.async_pre_call_hook(ME, None, {"model": "inner", **inner}, call_type)
    assert charging.present() is charge and gateway.taken[0] == 1 and gateway.taken[1] > MOST
    await gateway.router.acompletion(**data)
    assert gateway.taken == USED


async def test_a_call_before_the_request_itself_is_a_part_of_it(world):
    """What another callback asks for before we are told of the request does not stand in its place: the request is charged, and once."""
    gateway = Gateway(world, world.deployment(answering(world)))
    await gateway.callbacks.async_pre_call_hook(ME, None, {"model": "inner", "input": ["x"]}, "aembedding")
    await gateway.asked()
    assert gateway.taken == USED


async def test_a_prompt_is_counted_once(world, monkeypatch: pytest.MonkeyPatch):
    """Where users and deployments have limits of tokens, what was counted for the one is taken for the other."""
    counted: list[Any] = []
    monkeypatch.setattr("litellm_hooks.upstream.prompt_tokens", lambda data: counted.append(data) or 1)
    gateway = Gateway(world, world.deployment(answering(world), tpm=100_000))
    await gateway.asked()
    assert (gateway.taken, counted) == (USED, [])


# ── What a stream says that is never reported ────────────────────────────────────────────────────────────────────────


def event(kind: str, **told: Any) -> bytes:
    """One of Anthropic's."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **told})}\n\n".encode()


def used(reader: Any, shown: list[Any], *, outcome: str = "answered", reported: Any = None) -> int:
    """What a stream of these chunks costs whose prompt was counted as 500 tokens."""
    meter = Meter(reader, streams=True)
    for chunk in shown:
        meter.reader.usage(chunk)
    return meter.used(SimpleNamespace(usage=reported, outcome=outcome, continued=0), 500)


START = event("message_start", message={"usage": {"input_tokens": 2000, "output_tokens": 1}})
THINKS = event("content_block_delta", delta={"type": "thinking_delta", "thinking": "word " * 100})
CALLS = event("content_block_delta", delta={"type": "input_json_delta", "partial_json": "word " * 10})
SAYS = event("content_block_delta", delta={"type": "text_delta", "text": "word " * 10})
STOP = event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 3000})


def test_a_message_is_charged_by_both_its_reports():
    """Anthropic tells the prompt's tokens at a stream's beginning, and the answer's at its end: both count, and no word is counted beside."""
    assert used(readers.MESSAGES, [START, THINKS, SAYS, STOP]) == 5000


@pytest.mark.parametrize(
    ("shown", "least", "most"),
    [
        ([START, THINKS], 2095, 2110),
        ([START, CALLS, CALLS], 2015, 2030),
        ([THINKS, SAYS], 605, 620),
        ([START], 2000, 2000),
        ([], 500, 500),
        ([START, STOP, START, SAYS], 2008, 2015),  # another attempt's
    ],
)
def test_a_message_that_is_left_is_charged_by_what_came(shown: list[bytes], least: int, most: int):
    """Without a report at the end thoughts and calls of tools count as text does, behind the prompt as it was reported, or else estimated."""
    assert least <= used(readers.MESSAGES, shown, outcome="cancelled") <= most


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("response.output_text.delta", True), ("response.function_call_arguments.delta", True), ("response.reasoning_text.delta", True),
        ("response.reasoning_summary_text.delta", True), ("response.audio.delta", False), ("response.output_text.done", False),
    ],
)  # fmt: skip
def test_a_response_that_is_left_is_charged_by_what_came(kind: str, counts: bool):
    """Arguments and thoughts count as text does; sounds, and what repeats a whole, do not."""
    shown = [SimpleNamespace(type=kind, delta="word " * 100)]
    assert 95 <= used(readers.RESPONSES, shown, outcome="cancelled") - 500 <= 110 or not counts
    assert counts or used(readers.RESPONSES, shown, outcome="cancelled") == 500


async def test_a_message_s_stream_is_settled_with_what_it_reports(world):
    """A stream of Anthropic's route costs what both its reports say, and who leaves it what came until then."""
    server = answering(world)
    told = {"model": "anthropic/claude-sonnet-4-5", "api_base": server.base_url("anthropic"), "api_key": "k"}
    gateway = Gateway(world, {"model_name": "main", "litellm_params": told, "model_info": {"id": "claude"}})
    data = await gateway.comes("anthropic_messages")
    stream = await gateway.router.aanthropic_messages(**data, stream=True)
    assert [chunk async for chunk in stream]
    assert gateway.taken == USED


# ── Routes that the engine does not serve ────────────────────────────────────────────────────────────────────────────


async def test_other_routes_are_settled_by_what_is_logged(world):
    """On a route that is LiteLLM's own what was used is what its log event tells; another call's event changes nothing."""
    gateway = Gateway(world, world.deployment(world.server()))
    data = await gateway.comes("aembedding", input="hello", messages=None)
    mine = {"litellm_call_id": data["litellm_call_id"]}
    answer = SimpleNamespace(usage=SimpleNamespace(total_tokens=7))
    callbacks = gateway.callbacks
    await callbacks.async_pre_call_deployment_hook(mine, "aembedding")
    await callbacks.async_log_success_event({"litellm_call_id": "other"}, answer, None, None)
    await callbacks.async_log_success_event(mine, SimpleNamespace(), None, None)
    assert gateway.taken[1] > MOST
    for _ in range(2):
        await callbacks.async_log_success_event(mine, answer, None, None)
        assert gateway.taken == (1, 7)


async def test_what_is_logged_was_sent(world):
    """An answer is charged also where nobody said that it was asked for; a usage without a sum is added up."""
    gateway = Gateway(world, world.deployment(world.server()))
    data = await gateway.comes("aembedding", input="hello", messages=None)
    usage = SimpleNamespace(total_tokens=0, prompt_tokens=7, completion_tokens=None)
    await gateway.callbacks.async_log_success_event(data, SimpleNamespace(usage=usage), None, None)
    assert gateway.taken == (1, 7)


@pytest.mark.parametrize("said", [-5, 10**30])
async def test_an_absurd_report_hurts_nobody(world, said: int):
    """A provider that reports nonsense is answered for all the same."""
    server = world.server()
    server.answer(TEXT, input_tokens=said, output_tokens=0)
    gateway = Gateway(world, world.deployment(server))
    await gateway.asked()
    assert gateway.taken == ((1, 0) if said < 0 else (1, DAY["tpd"]))


async def test_a_failure_of_another_route_keeps_its_prompt(world):
    """Once LiteLLM has begun an attempt a failure gives only the output back."""
    gateway = Gateway(world, world.deployment(world.server()))
    data = await gateway.comes("aembedding", input="hello", messages=None)
    await gateway.callbacks.async_pre_call_deployment_hook(data, "aembedding")
    await gateway.callbacks.async_post_call_failure_hook(data, ValueError("down"), ME)
    requests, tokens = gateway.taken
    assert requests == 1 and 1 < tokens < 20


async def test_the_engine_s_word_goes_before_the_log(world):
    """What LiteLLM logs of one attempt does not settle a request that the engine serves."""
    gateway = Gateway(world, world.deployment(answering(world)))
    stream = await gateway.asked(stream=True, stream_options={"include_usage": True})
    answer = SimpleNamespace(usage=SimpleNamespace(total_tokens=7))
    await gateway.callbacks.async_log_success_event({"litellm_call_id": "1"}, answer, None, None)
    await drained(stream)
    assert gateway.taken == USED

"""`ResilientChatModel` as a caller sees it: ways to ask, one run per call, messages, decision records, per-call options."""

import asyncio
import contextvars
import threading
from typing import Any, get_type_hints

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers.context import collect_runs

from langchain_resilient import (
    AllProvidersFailedError,
    DeadlineExceededError,
    ResilientChatModel,
    SettingsError,
    capture_decisions,
)
from langchain_resilient.testing import ScriptedChatModel
from tests.clients import ANSWER, WAYS, BusyError, ask, failure, resilient, scripted

# ── The ways to ask ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_answers_and_falls_over(way: str):
    """Each way to ask gives the first provider's answer, or the second's if the first fails."""
    assert await ask(resilient(), way) == ANSWER
    failing = resilient(scripted("one", BusyError()), scripted("two", "Second."))
    assert await ask(failing, way) == "Second."


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_batches_keep_order_and_return_exceptions(way: str):
    """A batch answers in the order of its inputs, and `return_exceptions` puts a failure in its own place."""

    def parrot(messages: list) -> str:
        text = messages[-1].text
        if text == "2":
            message = "not this one"
            raise ValueError(message)
        return f"<{text}>"

    model = resilient(scripted("one", parrot))
    inputs, config = ["0", "1", "2", "3"], {"max_concurrency": 2}
    if way == "batch":
        answers = model.batch(inputs, config, return_exceptions=True)
    else:
        answers = await model.abatch(inputs, config, return_exceptions=True)
    assert [answer.text for answer in answers if isinstance(answer, AIMessage)] == ["<0>", "<1>", "<3>"]
    assert isinstance(answers[2], ValueError)
    with pytest.raises(ValueError, match="not this one"):
        model.batch(inputs) if way == "batch" else await model.abatch(inputs)


def test_a_batch_keeps_max_concurrency():
    """`max_concurrency` bounds the threads of a batch."""
    lock, running, most = threading.Lock(), 0, 0
    meeting = threading.Barrier(2, timeout=5)

    def note(messages: list) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait()  # two at a time do meet
        with lock:
            running -= 1
        return "x"

    resilient(scripted("one", note)).batch(["a"] * 6, {"max_concurrency": 2})
    assert most == 2


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_leaving_a_stream_early_settles_it(way: str):
    """A caller that stops reading is no failure: the stream is closed, nothing stays in flight, and the record says cancelled."""
    model = resilient(scripted("one", "one two three four"))
    with capture_decisions() as decisions:
        if way == "stream":
            chunks = model.stream("hi")
            assert next(chunks).text == "one"
            chunks.close()
        else:
            async for chunk in (achunks := model.astream("hi")):
                assert chunk.text == "one"
                break
            await achunks.aclose()
    assert [decision.outcome for decision in decisions] == ["cancelled"]
    status = model.status()["scripted/one"]
    assert (status["in_flight"], status["failures_in_a_row"], status["circuit"]) == (0, 0, "closed")


async def test_a_cancelled_call_is_neutral():
    """A cancelled task is neither success nor failure, and no other provider is asked."""
    started = asyncio.Event()

    class Waits(ScriptedChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            started.set()
            await asyncio.Event().wait()

    second = scripted("two")
    model = resilient(Waits(model_name="one"), second)
    with capture_decisions() as decisions:
        task = asyncio.create_task(model.ainvoke("hi"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [decision.outcome for decision in decisions] == ["cancelled"]
    status = model.status()["scripted/one"]
    assert (status["in_flight"], status["failures_in_a_row"]) == (0, 0)
    assert second.calls == []


# ── One run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_one_run_and_tokens_counted_once(way: str):
    """A call with a failed attempt is one run without children, and its tokens are counted once."""
    model = resilient(scripted("one", BusyError()), scripted("two", "Two words"))
    with collect_runs() as runs, get_usage_metadata_callback() as usage:
        assert await ask(model, way) == "Two words"
    [run] = runs.traced_runs
    assert run.child_runs == [] and run.run_type == "llm"
    assert usage.usage_metadata == {"two": {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}}


@pytest.mark.parametrize("way", WAYS)
async def test_callbacks_hear_one_start_and_one_end(way: str):
    """Handlers given with the call or with the model hear one start and one end."""

    class Heard(BaseCallbackHandler):
        def __init__(self) -> None:
            self.words: list[str] = []

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.words.append("start")

        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            self.words.append("end")

        def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
            self.words.append("error")

    given, own = Heard(), Heard()
    model = resilient(scripted("one", BusyError()), scripted("two"), callbacks=[own])
    await ask(model, way, config={"callbacks": [given]})
    assert given.words == own.words == ["start", "end"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_further_attempts_are_retry_events_of_the_run(way: str):
    """A trace shows each further attempt as an `on_retry` event, without a child run."""

    class Retries(BaseCallbackHandler):
        def __init__(self) -> None:
            self.seen: list[tuple[int, str]] = []

        def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
            self.seen.append((retry_state.attempt_number, type(retry_state.outcome.exception()).__name__))

    heard = Retries()
    model = resilient(scripted("one", BusyError()), scripted("two"))
    with collect_runs() as runs:
        await ask(model, way, config={"callbacks": [heard]})
    assert heard.seen == [(2, "BusyError")]
    assert "retry" in [event["name"] for event in runs.traced_runs[0].events]


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_messages_equal_the_bare_models():
    """An answer, and each chunk of a stream, equals the bare model's: nothing is stamped on it."""
    bare, model = scripted(), resilient(scripted())

    def plain(message: AIMessage) -> dict:
        return message.model_dump(exclude={"id"})

    assert plain(model.invoke("hi")) == plain(bare.invoke("hi"))
    assert plain(await model.ainvoke("hi")) == plain(await bare.ainvoke("hi"))
    assert [plain(chunk) for chunk in model.stream("hi")] == [plain(chunk) for chunk in bare.stream("hi")]
    theirs = [plain(chunk) async for chunk in bare.astream("hi")]
    assert [plain(chunk) async for chunk in model.astream("hi")] == theirs


@pytest.mark.parametrize("way", WAYS)
async def test_include_decision(way: str):
    """With `include_decision` the answer, or the merged stream, carries its record as plain data."""
    model = resilient(scripted("one", BusyError()), scripted("two"), include_decision=True)
    if way == "invoke":
        answer: Any = model.invoke("hi")
    elif way == "ainvoke":
        answer = await model.ainvoke("hi")
    else:
        chunks = list(model.stream("hi")) if way == "stream" else [chunk async for chunk in model.astream("hi")]
        answer = sum(chunks[1:], chunks[0])
    record = answer.response_metadata["resilience"]
    assert answer.text == ANSWER and record["provider"] == "scripted/two" and record["fallback"] is True
    assert [attempt["kind"] for attempt in record["attempts"]] == ["overloaded", "ok"]
    assert record["usage"] == {"input": 10, "output": 3, "cached_input": 0} and record["outcome"] == "answered"


# ── Decision records ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_captures_nest():
    """An inner block sees its own calls, the outer one sees all."""
    model = resilient()
    with capture_decisions() as outer:
        model.invoke("1")
        with capture_decisions() as inner:
            await model.ainvoke("2")
        list(model.stream("3"))
    model.invoke("4")
    assert (len(outer), len(inner)) == (3, 1)
    assert inner[0] is outer[1] and outer[2].stream


async def test_captures_follow_batches_and_tasks_and_never_leak():
    """Threads and tasks begun inside are seen; a caller elsewhere is not, even at the same time."""
    model = resilient()
    with capture_decisions() as decisions:
        model.batch(["a", "b", "c"])
        await model.abatch(["d", "e"])
        await asyncio.gather(*(model.ainvoke("x") for _ in range(4)))
        elsewhere = contextvars.Context()
        thread = threading.Thread(target=lambda: elsewhere.run(model.invoke, "other"))
        thread.start()
        thread.join()
    assert len(decisions) == 3 + 2 + 4

    async def one(count: int) -> int:
        with capture_decisions() as own:
            for _ in range(count):
                await model.ainvoke("x")
                await asyncio.sleep(0)
        return len(own)

    assert await asyncio.gather(*(one(count) for count in (1, 2, 3))) == [1, 2, 3]


@pytest.mark.parametrize("way", WAYS)
async def test_a_failed_call_has_a_record(way: str):
    """A call that nobody answered tells who was tried and why."""
    model = resilient(scripted("one", BusyError()), scripted("two", BusyError()), max_retries=0)
    with capture_decisions() as decisions:
        error = await failure(model, way)
    assert isinstance(error, AllProvidersFailedError) and len(error.exceptions) == 2
    [decision] = decisions
    assert (decision.outcome, decision.provider, decision.fallback) == ("failed", None, False)
    assert [(item.provider, item.kind, item.status) for item in decision.attempts] == [
        ("scripted/one", "overloaded", 503),
        ("scripted/two", "overloaded", 503),
    ]


# ── Options of one call ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_configurable_options_reach_the_call(way: str, chained: bool):
    """`deadline`, `tenant` and `lane` arrive from the config, directly or through a chain around the model."""
    model: Any = resilient()
    question: Any = "hi"
    if chained:
        model, question = ChatPromptTemplate.from_messages([("human", "{text}")]) | model, {"text": "hi"}
    config = {"configurable": {"tenant": "acme", "lane": "batch", "deadline": 7}}
    with capture_decisions() as decisions:
        await ask(model, way, question, config=config)
        await ask(model, way, question)
    assert [(item.tenant, item.lane) for item in decisions] == [("acme", "batch"), (None, "interactive")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("deadline", [0, -1.0])
async def test_a_deadline_already_past_is_an_error_at_once(way: str, deadline: float):
    """A deadline in the past raises before anybody is asked."""
    inner = scripted()
    model = resilient(inner)
    with capture_decisions() as decisions:
        error = await failure(model, way, config={"configurable": {"deadline": deadline}})
    assert isinstance(error, DeadlineExceededError) and f"got {deadline!r}" in str(error)
    assert inner.calls == [] and decisions[0].attempts == ()


BAD_OPTIONS = [
    ({"deadline": "soon"}, "configurable.deadline: got 'soon'; give seconds from now > 0"),
    ({"deadline": True}, "configurable.deadline: got True"),
    ({"deadline": float("nan")}, "configurable.deadline: got nan"),
    ({"tenant": 7}, "configurable.tenant: got 7"),
    ({"lane": "bach"}, "configurable.lane: got 'bach'; did you mean 'batch'?"),
    ({"lane": None}, "configurable.lane: got None"),
    ({"lane": ["batch"]}, "configurable.lane: got ['batch']"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
async def test_bad_options_of_a_call(way: str, options: dict, message: str):
    """A nonsensical option is an error that names it, and nobody is asked."""
    inner = scripted()
    error = await failure(resilient(inner), way, config={"configurable": options})
    assert isinstance(error, SettingsError) and message in str(error)
    assert inner.calls == []


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_options_of_each_input_of_a_batch(way: str):
    """In a batch each input has its own config."""
    model = resilient()
    configs = [{"configurable": {"tenant": name}} for name in ("a", "b", "c")]
    with capture_decisions() as decisions:
        model.batch(["1", "2", "3"], configs) if way == "batch" else await model.abatch(["1", "2", "3"], configs)
    assert sorted(decision.tenant for decision in decisions) == ["a", "b", "c"]


async def test_foreign_configurables_pass():
    """What others put in `configurable` (a thread id) is none of ours."""
    assert (await resilient().ainvoke("hi", {"configurable": {"thread_id": "7"}})).text == ANSWER


async def test_options_do_not_leak_out_of_a_stream():
    """While the caller has the word, between two chunks, other calls have their own options."""
    model = resilient(scripted("one", "a b c"))
    with capture_decisions() as decisions:
        for _ in model.stream("hi", {"configurable": {"tenant": "acme"}}):
            model.invoke("hi")
    assert {decision.tenant for decision in decisions if not decision.stream} == {None}
    assert [decision.tenant for decision in decisions if decision.stream] == ["acme"]


# ── Composition ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_composes_like_any_chat_model():
    """`with_retry`, `with_fallbacks`, `with_config`, `bind` and `configurable_fields` work around it."""
    assert resilient().with_retry(stop_after_attempt=2).invoke("hi").text == ANSWER
    failing = resilient(scripted("one", BusyError()), max_retries=0)
    assert failing.with_fallbacks([resilient(scripted("other", "Other."))]).invoke("hi").text == "Other."
    assert (await resilient().with_config(tags=["x"]).ainvoke("hi")).text == ANSWER
    assert resilient().bind(stop=["x"]).invoke("hi").text == ANSWER
    configurable = resilient().configurable_fields(temperature=ConfigurableField(id="temperature"))
    assert configurable.invoke("hi", {"configurable": {"temperature": 0.5}}).text == ANSWER


def test_type_hints_of_public_methods_resolve():
    """`typing.get_type_hints` works on every public method: LangChain's fallbacks call it."""
    for name in (
        "invoke",
        "ainvoke",
        "stream",
        "astream",
        "status",
        "override",
        "clear_override",
        "reset",
        "replay",
        "areplay",
        "from_yaml",
        "close",
    ):
        assert get_type_hints(getattr(ResilientChatModel, name))
    assert get_type_hints(ResilientChatModel)


def test_messages_of_every_input_form():
    """A string, messages and pairs are all taken, as by any chat model."""
    model = resilient(scripted("one", lambda messages: messages[-1].text))
    assert model.invoke("a").text == "a"
    assert model.invoke([HumanMessage("b")]).text == "b"
    assert model.invoke([("human", "c")]).text == "c"
    assert isinstance(next(model.stream("d")), AIMessageChunk)

"""What LangSmith is shown of a call: real tracers on a client that keeps what it would send."""

import copy
from uuid import uuid4

import pytest
from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, CallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.context import tracing_v2_callback_var
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langsmith import Client
from langsmith.run_helpers import tracing_context
from prometheus_client import CollectorRegistry

from langchain_resilient import Provider, ResilientChatModel, Retry
from langchain_resilient.engine.events import Attempt, Decision, Refusal
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.testing import ScriptedChatModel
from langchain_resilient.tracing import as_metadata, listener, run_of, streamed

DECISION = Decision(
    7, "anthropic/claude", "openai/gpt", "answered", 3.25, None,
    (Attempt("openai/gpt", "overloaded", 1.0), Attempt("anthropic/claude", "ok", 2.0, 0.25)),
    (Refusal("ollama/llama", "circuit_open", 12.0),), "closed", True, None, 0.004, False, "interactive", "acme",
)  # fmt: skip
SHOWN = {
    "resilience_outcome": "answered",
    "resilience_provider": "anthropic/claude",
    "resilience_first_choice": "openai/gpt",
    "resilience_fallback": True,
    "resilience_attempts": 2,
    "resilience_tried": "openai/gpt overloaded 1.00s, anthropic/claude ok 2.00s",
    "resilience_refused": "ollama/llama circuit_open",
    "resilience_seconds": 3.25,
    "resilience_waited": 0.25,
    "resilience_circuit": "closed",
    "resilience_lane": "interactive",
    "resilience_cost_usd": 0.004,
}


class KeptClient(Client):
    """Sends nothing; keeps what it was to send."""

    def __init__(self):
        super().__init__(api_url="http://127.0.0.1:9", api_key="fake", auto_batch_tracing=False)
        self.created, self.updated = [], []

    def create_run(self, *args, **kwargs):
        self.created.append(copy.deepcopy(kwargs.get("extra")))

    def update_run(self, *args, **kwargs):
        self.updated.append(copy.deepcopy(kwargs))


class Model(BaseChatModel):
    """Asks `listener` as `ResilientChatModel` does, and tells it of a decision before it answers, or fails."""

    kept: list
    fails: bool = False

    @property
    def _llm_type(self):
        return "told"

    def _tell(self, run_manager):
        listener(run_manager, self.kept.append)(DECISION)
        if self.fails:
            raise RuntimeError("nobody answered")

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self._tell(run_manager)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("hello"))])

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        return self._generate(messages, stop, run_manager)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        # As `Engine.call`: who is told is known before the first chunk.
        told = listener(run_manager, self.kept.append)
        yield ChatGenerationChunk(message=AIMessageChunk("hel"))
        told(DECISION)
        yield ChatGenerationChunk(message=AIMessageChunk("lo"))

    def stream(self, input, config=None, **kwargs):  # noqa: A002  # LangChain's name
        run = run_of(config, CallbackManager)
        chunks = super().stream(input, config if run is None else run.config, **kwargs)
        with streamed(run):
            first = next(chunks)
        yield first
        yield from chunks

    async def astream(self, input, config=None, **kwargs):  # noqa: A002  # as above
        run = run_of(config, AsyncCallbackManager)
        chunks = super().astream(input, config if run is None else run.config, **kwargs)
        with streamed(run):
            first = await anext(chunks)
        yield first
        async for chunk in chunks:
            yield chunk

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self._stream(messages, stop, run_manager):
            yield chunk


class Hearing(BaseCallbackHandler):
    """Keeps the metadata that any callback is given: the same object as the tracer's."""

    def on_chat_model_start(self, serialized, messages, *, metadata=None, **kwargs):
        self.metadata = metadata


def ours(metadata):
    """The part of a run's metadata that is ours."""
    return {name: value for name, value in metadata.items() if name.startswith("resilience_")}


async def ask(way, model, config):
    """The answer's text, in one of LangChain's four ways."""
    config = dict(config or {})
    if way == "invoke":
        return model.invoke("hi", config).text
    if way == "ainvoke":
        return (await model.ainvoke("hi", config)).text
    if way == "stream":
        return "".join([chunk.text for chunk in model.stream("hi", config)])
    return "".join([chunk.text async for chunk in model.astream("hi", config)])


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_run_shows_who_answered_and_what_was_tried(way):
    """What LangSmith is sent at a run's end holds the decision in plain words, beside the caller's own metadata."""
    client = KeptClient()
    config = {"callbacks": [LangChainTracer(client=client)], "metadata": {"mine": "kept"}}
    assert await ask(way, Model(kept=[]), config) == "hello"
    (sent,) = client.updated
    assert ours(sent["extra"]["metadata"]) == SHOWN
    assert sent["extra"]["metadata"]["mine"] == "kept"
    assert "acme" not in repr(client.updated), "whose request it was is not told"


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_run_inside_a_chain_shows_it_at_the_model_alone(way):
    """The chain's own run is left as it is, and the model's is still its child."""
    client = KeptClient()
    chain = RunnableLambda(lambda text: text) | Model(kept=[])
    assert await ask(way, chain, {"callbacks": [LangChainTracer(client=client)]}) == "hello"
    shown = {sent["name"]: sent for sent in client.updated}
    assert ours(shown["Model"]["extra"]["metadata"]) == SHOWN
    assert ours(shown["RunnableSequence"]["extra"].get("metadata", {})) == {}
    assert shown["Model"]["parent_run_id"] == shown["RunnableSequence"]["run_id"]
    assert len(client.updated) == 3, "each run once"


@pytest.mark.parametrize("way", ["invoke", "stream", "astream"])
async def test_tracing_that_the_environment_asks_for(way):
    """Where no tracer was given but LangSmith is switched on, its tracer is ours to amend too."""
    client = KeptClient()
    with tracing_context(enabled=True, client=client, project_name="test"):
        tracer = LangChainTracer(client=client)
        token = tracing_v2_callback_var.set(tracer)
        try:
            assert await ask(way, Model(kept=[]), None) == "hello"
        finally:
            tracing_v2_callback_var.reset(token)
    (sent,) = client.updated
    assert ours(sent["extra"]["metadata"]) == SHOWN


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_streams_run_is_as_the_caller_asked(way):
    """Its id, name and tags are the caller's, its callbacks hear of it once, and an id of our own where none was given."""
    client, collector, run_id = KeptClient(), RunCollectorCallbackHandler(), uuid4()
    config = {
        "callbacks": [LangChainTracer(client=client), collector],
        "run_id": run_id,
        "run_name": "mine",
        "tags": ["t"],
    }
    await ask(way, Model(kept=[]), config)
    (run,) = collector.traced_runs
    assert (run.id, run.name, run.tags) == (run_id, "mine", ["t"])
    assert [sent["run_id"] for sent in client.updated] == [run_id]
    first, second = (run_of({"callbacks": config["callbacks"]}, CallbackManager).id for _ in range(2))
    assert first != second


def test_a_failed_run_shows_it_too():
    """Where nobody answered the record says who was tried: that is when somebody looks."""
    client = KeptClient()
    with pytest.raises(RuntimeError):
        Model(kept=[], fails=True).invoke("hi", {"callbacks": [LangChainTracer(client=client)]})
    (sent,) = client.updated
    assert "nobody answered" in sent["error"]
    assert ours(sent["extra"]["metadata"]) == SHOWN


def test_nobody_else_sees_a_difference():
    """The caller's metadata, other callbacks' and other tracers' runs are as they would be."""
    mine, hearing, collector = {"mine": "kept"}, Hearing(), RunCollectorCallbackHandler()
    Model(kept=[]).invoke(
        "hi", {"callbacks": [LangChainTracer(client=KeptClient()), hearing, collector], "metadata": mine}
    )
    assert mine == {"mine": "kept"}
    assert ours(hearing.metadata) == {}
    assert ours(collector.traced_runs[0].metadata) == {}


def test_whoever_keeps_the_record_is_told_as_well():
    """Tracing takes nothing from `include_decision`."""
    model = Model(kept=[])
    model.invoke("hi", {"callbacks": [LangChainTracer(client=KeptClient())]})
    assert model.kept == [DECISION]


def test_untraced_calls_pay_nothing():
    """Without a tracer the call is as it was: whoever keeps the record is told directly, or nobody."""
    keep = [].append
    assert listener(None, keep) is keep
    assert listener(None, None) is None

    manager = CallbackManager([Hearing(), RunCollectorCallbackHandler()])
    assert listener(manager, None) is None
    for config in (None, {"callbacks": [Hearing()]}, {"callbacks": manager}):
        assert run_of(config, CallbackManager) is None


def test_what_says_nothing_is_left_out():
    """A healthy call's metadata is short."""
    healthy = DECISION._replace(
        provider="openai/gpt", attempts=(Attempt("openai/gpt", "ok", 1.0),), refusals=(), fallback=False, cost=None
    )
    assert set(as_metadata(healthy)) == set(SHOWN) - {
        "resilience_refused", "resilience_waited", "resilience_cost_usd",
    }  # fmt: skip
    assert "resilience_provider" not in as_metadata(healthy._replace(provider=None, outcome="failed"))


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_resilient_models_run_shows_a_fallback(way):
    """The whole way: the first provider fails, the second answers, and the run says so; the answer does not."""
    client = KeptClient()
    broken, fine = ScriptedChatModel(script=[RuntimeError("503")] * 3), ScriptedChatModel(script=["hello"])
    model = ResilientChatModel(providers=[Provider(broken, name="one"), Provider(fine, name="two")], retry=Retry(0))
    config = {"callbacks": [LangChainTracer(client=client)]}
    assert await ask(way, model, config) == "hello"
    (sent,) = client.updated
    shown = ours(sent["extra"]["metadata"])
    assert (shown["resilience_provider"], shown["resilience_fallback"], shown["resilience_attempts"]) == (
        "two",
        True,
        2,
    )
    assert "resilience" not in repr(sent["outputs"])


def test_an_override_shows_in_the_gauges():
    """As open, and by which mode, from the moment it is set until it is lifted."""
    registry = CollectorRegistry()
    model = ResilientChatModel(
        providers=[Provider(ScriptedChatModel(script=["x"]), name="one")], observers=[PrometheusObserver(registry)]
    )

    def shown():
        return [
            registry.get_sample_value(name, {"provider": "one"})
            for name in ("circuit_breaker_state", "llm_resilient_circuit_mode")
        ]

    model.invoke("hi")
    assert shown() == [0, 0]
    model.override("one", "forced_open")
    assert shown() == [2, 3]
    model.clear_override("one")
    assert shown() == [0, 0]

"""What leaves the chat model: ours and LangChain's at once, with cause, notes and members as they were."""

import copy
import pickle
import sys
import traceback
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core import exceptions as langchain
from langchain_core.messages import AIMessage, HumanMessage

from langchain_resilient import (
    AllProvidersFailedError,
    Circuit,
    CircuitOpenError,
    DeadlineExceededError,
    OverloadedError,
    Provider,
    RateLimitedError,
    RateLimits,
    RefusedError,
    ResilienceError,
    SettingsError,
    StreamInterruptedError,
)
from langchain_resilient.engine.errors import (
    AttemptTimeoutError,
    InvalidOutputError,
    LocalFaultError,
    TruncatedStreamError,
)
from langchain_resilient.engine.events import Decided
from langchain_resilient.raised import MATCHES, widen
from tests.clients import WAYS, BusyError, failure, resilient, scripted

ELSEWHERE = {"AttemptError", "IneligibleError", "BoxError", "BoxAwayError"}
"""Never raised as they are; said inside of the engine alone; said by `replay` and `letters`, which LangChain does not call."""
TABLE = [
    (CircuitOpenError("x"), "ModelAPIError", True),
    (OverloadedError("x"), "ModelAPIError", True),
    (RefusedError("x"), "ModelAPIError", True),
    (RateLimitedError("x", retry_after=3.0), "ModelRateLimitError", True),
    (RateLimitedError("x", never=True), "ModelRateLimitError", False),
    (DeadlineExceededError("x"), "ModelTimeoutError", False),
    (StreamInterruptedError("x", partial="a"), "ModelConnectionError", False),
    (AllProvidersFailedError("x", [OverloadedError("y")]), "ModelAPIError", True),
    (AllProvidersFailedError("x", [RateLimitedError("y", never=True)]), "ModelAPIError", False),
    (AttemptTimeoutError("idle", 3.0), "ModelTimeoutError", True),
    (TruncatedStreamError("x"), "ModelAPIError", True),
    (LocalFaultError("x"), "ModelConnectionError", True),
    (InvalidOutputError("x"), "ModelAPIError", True),
]


@pytest.mark.parametrize(("error", "theirs", "retryable"), TABLE)
def test_each_of_ours_is_also_langchains(error: ResilienceError, theirs: str, *, retryable: bool):
    """A widened error is the same object, still ours, also LangChain's, and judged retryable as ours says."""
    ours, text, state = type(error), str(error), dict(error.__dict__)
    widen(error)
    assert isinstance(error, ours) and isinstance(error, getattr(langchain, theirs))
    assert type(error).__name__ == ours.__name__ and type(error).__module__ == ours.__module__
    assert str(error) == text and error.__dict__ == state and error.is_retryable is retryable


@pytest.mark.parametrize(("error", "theirs", "retryable"), TABLE)
def test_a_widened_error_survives_pickling(error: ResilienceError, theirs: str, *, retryable: bool):
    """A process pool or a task queue brings a widened error back as it was, widened."""
    widen(error)
    for restored in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 -- our own bytes
        assert type(restored) is type(error) and str(restored) == str(error)
        assert restored.is_retryable is retryable and restored.retry_after == error.retry_after


def test_a_prompt_too_long_for_anybody_is_told_in_a_group_too():
    """One provider down, the prompt too long for the other: summarization reacts to `ContextOverflowError` alone, so the group is one."""
    group = AllProvidersFailedError("x", [BusyError("down"), langchain.ContextOverflowError("too long")])
    widen(group)
    assert isinstance(group, langchain.ContextOverflowError) and isinstance(group, AllProvidersFailedError)
    assert [type(error) for error in group.exceptions] == [BusyError, langchain.ContextOverflowError]
    restored = pickle.loads(pickle.dumps(group))  # noqa: S301 -- our own bytes
    assert isinstance(restored, langchain.ContextOverflowError)


def test_every_error_that_leaves_a_model_is_in_the_table():
    """Each class of ours except bases and settings has its match."""

    def leaves(base: type) -> set[type]:
        return {base}.union(
            *(leaves(sub) for sub in base.__subclasses__() if not issubclass(sub, langchain.ModelError))
        )

    bases = leaves(SettingsError) | {ResilienceError}  # raised at construction
    assert {item for item in leaves(ResilienceError) if item.__name__ not in ELSEWHERE} - bases == set(MATCHES)


def test_settings_errors_are_nobodys_model_errors():
    """A mistake in the settings is a `ValueError`, not something that a model did."""
    error = SettingsError("x")
    widen(error)
    assert isinstance(error, ValueError) and not isinstance(error, langchain.ModelError)


def test_cause_notes_and_traceback_stay():
    """Widening changes the class and nothing else; twice is the same as once."""
    error, cause = CircuitOpenError("open", provider="p", retry_after=3.0), BusyError("why")
    with pytest.raises(CircuitOpenError):
        raise error from cause
    error.add_note("a note")
    trace = error.__traceback__
    widen(error)
    widen(error)
    assert error.__cause__ is cause and error.__notes__ == ["a note"]
    assert error.__traceback__ is trace and (error.provider, error.retry_after) == ("p", 3.0)


@pytest.mark.parametrize("way", WAYS)
async def test_all_failed(way: str):
    """Members are the providers' own exceptions as they were; `except*`, `split` and `subgroup` reach them."""
    first, second = BusyError("first"), BusyError("second")
    model = resilient(scripted("one", first), scripted("two", second), max_retries=0)
    error = await failure(model, way)
    assert isinstance(error, AllProvidersFailedError) and isinstance(error, langchain.ModelAPIError)
    assert error.exceptions == (first, second) and error.is_retryable
    caught: list[AllProvidersFailedError] = []
    try:
        raise error
    except* BusyError as group:
        caught.append(group)
    assert isinstance(caught[0], AllProvidersFailedError)
    assert list(caught[0].exceptions) == [first, second]
    matched, rest = error.split(BusyError)
    assert matched.exceptions == (first, second) and rest is None
    assert error.subgroup(KeyError) is None


@pytest.mark.parametrize("way", WAYS)
async def test_a_group_names_refusals_too(way: str):
    """A candidate that was not tried is in the group as a refusal, with the soonest time at which it may be."""
    model = resilient(scripted("one", BusyError()), scripted("two"), max_retries=0)
    model.override("scripted/two", "forced_open")
    error = await failure(model, way)
    assert [type(item).__name__ for item in error.exceptions] == ["BusyError", "CircuitOpenError"]


@pytest.mark.parametrize("way", WAYS)
async def test_one_providers_own_exception_passes(way: str):
    """With one provider the caller gets its exception itself, with a note; as with the bare model."""
    own = BusyError("mine")
    error = await failure(resilient(scripted("one", own), max_retries=0), way)
    assert error is own and type(own) is BusyError
    assert "langchain_resilient tried scripted/one 1 time(s): overloaded after" in own.__notes__[0]


@pytest.mark.parametrize("way", WAYS)
async def test_refusals_are_langchains_rate_limit(way: str):
    """A limit of ours that is used up looks to LangChain like a provider's 429, with the time to wait."""
    model = resilient(Provider(scripted(), limits=RateLimits(rpm=1, burst=1, max_wait=0.0)))
    assert await failure(model, way) is None
    error = await failure(model, way)
    assert isinstance(error, RateLimitedError) and isinstance(error, langchain.ModelRateLimitError)
    assert 50 < error.retry_after <= 60


@pytest.mark.parametrize("way", WAYS)
async def test_with_fallbacks_catches_langchains_names(way: str):
    """`with_fallbacks` told to handle LangChain's model errors handles ours."""
    spare = scripted("spare", "Spare.")
    model = resilient(scripted("one", BusyError()), scripted("two", BusyError()), max_retries=0)
    chain: Any = model.with_fallbacks([spare], exceptions_to_handle=(langchain.ModelError,))
    assert await failure(chain, way) is None


def agent_over(model: Any, **settings: Any) -> Any:
    """An agent whose model calls LangChain's own middleware retries, without waiting."""
    fixed = {"max_retries": 2, "initial_delay": 0.0, "jitter": False, "on_failure": "error"}
    return create_agent(model, middleware=[ModelRetryMiddleware(**(fixed | settings))])


def test_langchains_retry_middleware_retries_what_may_pass():
    """An error of ours that may pass is retried by LangChain's `ModelRetryMiddleware`, and the next answer is used."""
    model = resilient(scripted("one", BusyError(), "Back."), scripted("two", BusyError()), max_retries=0)
    answer = agent_over(model).invoke({"messages": [HumanMessage("hi")]})
    assert isinstance(answer["messages"][-1], AIMessage) and answer["messages"][-1].text == "Back."


def test_langchains_retry_middleware_leaves_the_rest():
    """A request that can never fit its limit is not retried."""
    heard: list[Any] = []
    model = resilient(Provider(scripted(), limits=RateLimits(tpm=10)), observers=[heard.append])
    with pytest.raises(RateLimitedError):
        agent_over(model).invoke({"messages": [HumanMessage("word " * 100)]})
    assert len([event for event in heard if isinstance(event, Decided)]) == 1


def test_an_open_circuit_in_the_traceback():
    """A widened error prints under its own name and module, its cause before it."""
    model = resilient(scripted("one", BusyError("503")), circuit=Circuit(failure_threshold=1), max_retries=0)
    with pytest.raises(BusyError):
        model.invoke("hi")
    try:
        model.invoke("hi")
    except CircuitOpenError as error:
        printed = "".join(traceback.format_exception(error))
    assert "BusyError: 503" in printed and "langchain_resilient.engine.errors.CircuitOpenError: scripted/one" in printed
    assert sys.exc_info() == (None, None, None)

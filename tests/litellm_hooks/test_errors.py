"""Our refusals and failures as LiteLLM's exceptions, which its own retries leave alone."""

from typing import Any

import httpx
import litellm
import pytest

from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    AttemptTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    OverloadedError,
    RateLimitedError,
    StreamInterruptedError,
    TruncatedStreamError,
)
from litellm_hooks.errors import Translated, as_litellm, callers_patience

THEIRS = litellm.InternalServerError("boom", "openai", "m")


@pytest.mark.parametrize(
    ("ours", "expected", "status"),
    [
        (DeadlineExceededError("late"), litellm.Timeout, 408),
        (AttemptTimeoutError("idle", 3.0), litellm.Timeout, 408),
        (RateLimitedError("full"), litellm.RateLimitError, 429),
        (CircuitOpenError("open"), litellm.ServiceUnavailableError, 503),
        (OverloadedError("busy"), litellm.ServiceUnavailableError, 503),
        (TruncatedStreamError("cut"), litellm.APIConnectionError, 500),
    ],
)
def test_what_we_say_has_litellm_s_name_and_status(ours: Exception, expected: type[Exception], status: int):
    """Each of ours is LiteLLM's exception of the same meaning, with our words, for the group that was asked."""
    raised: Any = as_litellm(ours, "main")
    assert type(raised) is expected
    assert (raised.status_code, raised.model, raised.num_retries) == (status, "main", 0)
    assert str(ours) in str(raised)


def test_what_a_provider_said_is_raised_as_it_is():
    """LiteLLM's own exception is the very same object, told to be left alone."""
    assert as_litellm(THEIRS, "main") is THEIRS
    assert THEIRS.num_retries == 0


@pytest.mark.parametrize(
    "members",
    [
        [CircuitOpenError("open"), THEIRS],
        [CircuitOpenError("open"), AllProvidersFailedError("some", [CircuitOpenError("open"), THEIRS])],
    ],
)
def test_of_many_failures_the_first_provider_s_is_told(members: list[Exception]):
    """Where several failed the first that a provider said is raised, however deep it lies; refusals come behind."""
    assert as_litellm(AllProvidersFailedError("all", members), "main") is THEIRS


def test_where_all_refused_the_first_refusal_is_told():
    """Without a provider's word the first refusal is."""
    group = AllProvidersFailedError("all", [RateLimitedError("full"), CircuitOpenError("open")])
    assert isinstance(as_litellm(group, "main"), litellm.RateLimitError)


def test_how_long_to_wait_is_told_in_whole_seconds():
    """`retry-after` is rounded up, and a provider's own headers are left as they are."""
    assert as_litellm(CircuitOpenError("open", retry_after=1.2), "main").litellm_response_headers == {
        "retry-after": "2"
    }
    assert not getattr(as_litellm(CircuitOpenError("open"), "main"), "litellm_response_headers", None)
    told = litellm.RateLimitError("full", "openai", "m")
    told.litellm_response_headers = {"retry-after": "7"}
    told.retry_after = 1.0
    assert as_litellm(told, "main").litellm_response_headers == {"retry-after": "7"}


def test_a_broken_stream_is_told_by_what_broke_it():
    """An interruption that has a cause is raised as that cause."""
    broken = StreamInterruptedError("broken")
    broken.__cause__ = THEIRS
    assert as_litellm(broken, "main") is THEIRS


def test_ours_is_the_cause():
    """What is raised instead of ours has ours as its cause."""
    ours = CircuitOpenError("open")
    with pytest.raises(litellm.ServiceUnavailableError) as caught, Translated("main"):
        raise ours
    assert caught.value.__cause__ is ours


def test_causes_come_to_an_end():
    """What is raised in place of what it caused is not its own cause in turn."""
    ours = AttemptTimeoutError("deadline", 3.0)
    ours.__cause__ = litellm.Timeout("late", "m", "openai")
    with pytest.raises(litellm.Timeout) as caught, Translated("main"):
        raise ours
    assert caught.value.__cause__ is ours
    assert ours.__cause__ is None and ours.__context__ is None


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_failure_passes(error: type[BaseException]):
    """The end of a stream, and what ends a program, is raised as it is."""
    with pytest.raises(error) as caught, Translated("main"):
        raise error
    assert "num_retries" not in vars(caught.value)


LATE = litellm.Timeout("late", "m", "openai")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ({"timeout": 3}, 3.0),
        ({"request_timeout": 2.5}, 2.5),
        ({"timeout": httpx.Timeout(4.0)}, 4.0),
        ({"timeout": 3, "stream_timeout": 1, "stream": True}, 1.0),
        ({"timeout": "3"}, 0.0),
    ],
)
def test_a_caller_s_own_limit_is_the_engine_s_deadline(asked: dict[str, Any], seconds: float):
    """A timeout of a request that brings a limit is the engine's "deadline", and reaches the caller as the very same exception."""
    with pytest.raises(AttemptTimeoutError) as caught, callers_patience(asked):
        raise LATE
    assert (caught.value.limit, caught.value.seconds) == ("deadline", seconds)
    for told in (caught.value, AllProvidersFailedError("all", [CircuitOpenError("open"), caught.value])):
        assert as_litellm(told, "main") is LATE
    broken = StreamInterruptedError("broken")
    broken.__cause__ = caught.value
    assert as_litellm(broken, "main") is LATE


@pytest.mark.parametrize("asked", [{}, {"timeout": None}, {"timeout": 0}, {"stream_timeout": 1}])
def test_without_a_limit_of_the_caller_s_a_timeout_is_the_provider_s(asked: dict[str, Any]):
    """A timeout of a request that brings no limit, or another kind's, is LiteLLM's own, and all else always is."""
    with pytest.raises(litellm.Timeout), callers_patience(asked):
        raise LATE
    with pytest.raises(litellm.InternalServerError), callers_patience({"timeout": 3}):
        raise THEIRS

"""The tree of exceptions, what each carries, and the three helpers that check settings."""

import copy
import math
import pickle

import pytest

from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    AttemptError,
    AttemptTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    LocalFaultError,
    OverloadedError,
    RateLimitedError,
    RefusedError,
    ResilienceError,
    SettingsConflict,
    SettingsError,
    StreamInterruptedError,
    TruncatedStreamError,
    is_number,
    require,
    unknown_name,
)


@pytest.mark.parametrize(
    ("child", "parents"),
    [
        (CircuitOpenError, {RefusedError}),
        (RateLimitedError, {RefusedError}),
        (DeadlineExceededError, {RefusedError, TimeoutError}),
        (OverloadedError, {RefusedError}),
        (AllProvidersFailedError, {ExceptionGroup}),
        (StreamInterruptedError, set()),
        (AttemptTimeoutError, {AttemptError, TimeoutError}),
        (TruncatedStreamError, {AttemptError}),
        (LocalFaultError, {AttemptError}),
        (SettingsError, {ValueError}),
    ],
)
def test_the_tree_is_as_drawn(child, parents):
    """Every exception stands where the drawing puts it: "we refused" and "they failed" are different branches."""
    among = {RefusedError, AttemptError, TimeoutError, ExceptionGroup, ValueError}
    assert issubclass(child, ResilienceError)
    assert {parent for parent in among if issubclass(child, parent)} == parents


def test_a_conflict_of_settings_is_a_warning():
    """Two models that disagree warn; nothing fails for it."""
    assert issubclass(SettingsConflict, UserWarning)
    assert not issubclass(SettingsConflict, ResilienceError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CircuitOpenError("x"), "overloaded"),
        (RateLimitedError("x"), "rate_limited"),
        (DeadlineExceededError("x"), "timeout"),
        (OverloadedError("x"), "overloaded"),
        (AttemptError("x"), "unknown"),
        (AttemptTimeoutError("idle", 1.0), "timeout"),
        (TruncatedStreamError("x"), "stream_interrupted"),
        (LocalFaultError("x"), "local"),
    ],
)
def test_our_own_exceptions_name_their_kind(error, kind):
    """What we raise ourselves tells `classify` its kind, so that a model inside a model is judged rightly."""
    assert error.error_kind == kind


@pytest.mark.parametrize(
    "cls", [RefusedError, CircuitOpenError, RateLimitedError, DeadlineExceededError, OverloadedError]
)
def test_a_refusal_tells_of_whom_and_for_how_long(cls):
    """A refusal carries the provider and the soonest time, both None where unknown."""
    error = cls("used up", provider="openai/gpt-4.1", retry_after=2.5)
    assert (str(error), error.provider, error.retry_after) == ("used up", "openai/gpt-4.1", 2.5)
    bare = cls("used up")
    assert (bare.provider, bare.retry_after) == (None, None)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ResilienceError("x"), False),
        (CircuitOpenError("x"), True),
        (OverloadedError("x"), True),
        (DeadlineExceededError("x"), False),
        (RateLimitedError("x"), True),
        (RateLimitedError("x", never=True), False),
        (StreamInterruptedError("x"), False),  # part of it has been shown
        (AttemptTimeoutError("connect", 5.0), True),
        (SettingsError("x"), False),
    ],
)
def test_whether_the_same_request_may_succeed_later(error, retryable):
    """A refusal or a failed attempt may pass; a deadline, a shown stream, a request larger than its limit or a wrong setting won't."""
    assert error.is_retryable is retryable


def test_one_request_too_large_does_not_mark_the_others():
    """`never` belongs to the one error, not to the class."""
    RateLimitedError("too large", never=True)
    assert RateLimitedError("used up").is_retryable


def test_a_timeout_names_its_limit():
    """A time limit that fired says which and how long it was; a deadline always says "deadline"."""
    error = AttemptTimeoutError("first_token", 12.0)
    assert (error.limit, error.seconds) == ("first_token", 12.0)
    assert str(error) == "no answer within the first_token limit of 12 s"
    assert DeadlineExceededError("x").limit == "deadline"


def test_an_interruption_carries_what_was_shown():
    """The text shown so far and the usage reported so far travel with the exception; by default there is none."""
    error = StreamInterruptedError("cut", partial="Once upon", usage={"output": 2})
    assert (error.partial, error.usage) == ("Once upon", {"output": 2})
    assert (StreamInterruptedError("cut").partial, StreamInterruptedError("cut").usage) == ("", None)


def test_a_group_tells_the_soonest_time_of_its_members():
    """`retry_after` of all is the least that any member states; members without one don't count."""
    members = [CircuitOpenError("a", retry_after=30.0), ValueError("b"), RateLimitedError("c", retry_after=4.0)]
    assert AllProvidersFailedError("all failed", members).retry_after == 4.0
    assert AllProvidersFailedError("all failed", [ValueError("b")]).retry_after is None


def test_a_group_keeps_a_wait_of_zero():
    """A member that may be tried at once (0 s) is sooner than one with a wait, not one without a hint."""
    members = [CircuitOpenError("a", retry_after=0.0), RateLimitedError("c", retry_after=4.0)]
    assert AllProvidersFailedError("all failed", members).retry_after == 0.0


def test_a_group_is_retryable_if_any_member_is():
    """One member that may pass is enough; a provider's own exception, which doesn't say, counts as one that may."""
    final = RateLimitedError("too large", never=True)
    assert not AllProvidersFailedError("x", [final, DeadlineExceededError("late")]).is_retryable
    assert AllProvidersFailedError("x", [final, CircuitOpenError("open")]).is_retryable
    assert AllProvidersFailedError("x", [final, ConnectionError("reset")]).is_retryable


def test_except_star_reaches_the_members():
    """`except*` splits the group into groups of its own kind, each with its own soonest time."""
    caught = {}
    try:
        raise AllProvidersFailedError(
            "x", [CircuitOpenError("a", retry_after=30.0), RateLimitedError("c", retry_after=4.0)]
        )
    except* CircuitOpenError as group:
        caught["open"] = group
    except* RateLimitedError as group:
        caught["limited"] = group
    assert {name: type(group) for name, group in caught.items()} == dict.fromkeys(
        ("open", "limited"), AllProvidersFailedError
    )
    assert (caught["open"].retry_after, caught["limited"].retry_after) == (30.0, 4.0)
    assert caught["open"].message == "x"


@pytest.mark.parametrize(
    "error",
    [
        RateLimitedError("m", provider="p", retry_after=1.0, never=True),
        DeadlineExceededError("m", provider="p"),
        AttemptTimeoutError("idle", 15.0),
        StreamInterruptedError("m", partial="so far", usage=3),
        AllProvidersFailedError("m", [CircuitOpenError("a", retry_after=2.0)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_survive_pickle_and_copy(error):
    """A process pool or a task queue that pickles our exceptions gets the same one back (one that can't hangs a pool)."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301  # our own bytes
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        for name in ("retry_after", "is_retryable", "provider", "limit", "seconds", "partial", "usage"):
            assert getattr(twin, name, None) == getattr(error, name, None)


def test_require_names_field_given_and_fix():
    """A setting that makes no sense is refused with the field, what was given, and the fix; one that does, is not."""
    require(True, "Circuit.window", 60, "use a number of seconds > 0")
    with pytest.raises(SettingsError) as raised:
        require(False, "Circuit.window", -3, "use a number of seconds > 0")
    assert str(raised.value) == "Circuit.window: got -3; use a number of seconds > 0"


@pytest.mark.parametrize("value", [True, False, "5", None, math.nan, math.inf, -math.inf, 10**400, -(10**400), 5j, [5]])
def test_not_a_number(value):
    """A bool, a word, nothing, NaN, infinity and an integer beyond the floats are no numbers for a setting."""
    assert not is_number(value)


@pytest.mark.parametrize(
    ("value", "bounds", "ok"),
    [
        (0, {}, True),
        (-1.5, {}, True),
        (0, {"above": 0}, False),
        (1e-9, {"above": 0}, True),
        (1, {"least": 1}, True),
        (0.999, {"least": 1}, False),
        (1, {"most": 1}, True),
        (1.001, {"most": 1}, False),
        (0.5, {"above": 0, "most": 1}, True),
    ],
)
def test_number_within_bounds(value, bounds, ok):
    """`above` excludes its bound, `least` and `most` include theirs."""
    assert is_number(value, **bounds) is ok


def test_unknown_word_names_the_nearest():
    """A misspelt word gets the right one suggested, a strange one the sorted list."""
    near = unknown_name("Circuit.probe", "race", ["raced", "inline"])
    assert isinstance(near, SettingsError)
    assert str(near) == "Circuit.probe: got 'race'; did you mean 'raced'?"
    assert str(unknown_name("Circuit.probe", 7, ["raced", "inline"])) == "Circuit.probe: got 7; one of: inline, raced"

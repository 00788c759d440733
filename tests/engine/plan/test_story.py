"""The story of a request under both drivers: what follows each kind of failure, and what reaches the caller (DESIGN §4)."""

import pytest

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.classify import ErrorKind, Failure
from langchain_resilient.engine.errors import AllProvidersFailedError, CircuitOpenError, RateLimitedError, RefusedError
from langchain_resilient.engine.events import Retried
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import FAILURES, StatusError, status, target

K = ErrorKind
PROVEN = ["hello"] * 3
"""Answers after which a provider's timeouts count in full."""


# ------------------------------------------------------------------------------------------------------------ the table
@pytest.mark.parametrize(
    ("kind", "asked", "sleeps", "failures", "blocked"),
    [
        # rand 0.5: half of 0.5 s; five failures would open the circuit.
        (K.RATE_LIMITED, "ab", [], 0, ("blocked", 1.0)),
        (K.QUOTA_EXHAUSTED, "ab", [], 0, ("quota_exhausted", 3600.0)),
        (K.OVERLOADED, "ab", [], 1, (None, None)),
        (K.SERVER_ERROR, "aab", [0.25], 2, (None, None)),
        (K.TIMEOUT, "ab", [], 1, (None, None)),
        (K.STREAM_INTERRUPTED, "ab", [], 1, (None, None)),
        (K.AUTH, "ab", [], 0, ("auth", 300.0)),
        (K.PERMISSION, "ab", [], 0, (None, None)),
        (K.NOT_FOUND, "ab", [], 0, (None, None)),
        (K.CONTEXT_OVERFLOW, "ab", [], 0, (None, None)),
        (K.LOCAL, "aab", [], 0, (None, None)),
        (K.UNKNOWN, "ab", [], 0, (None, None)),
    ],
)
def test_what_follows_a_failure_with_another_provider_at_hand(world, kind, asked, sleeps, failures, blocked):
    """The other provider answers, after as many tries, with such a wait, and such a mark on the first, as the table says."""
    w = world({"a": [*PROVEN, FAILURES[kind]()], "b": ["from b"]})
    for _ in PROVEN:
        w.ask()
    outcome = w.ask()
    assert (outcome.text, "".join(w.asked[3:]), w.clock.sleeps) == ("from b", asked, sleeps)
    told = w.status("a")
    assert (told["failures_in_a_row"], (told["blocked"], told["blocked_for"])) == (failures, blocked)
    assert w.left_over() == {}


def unreadable_from(w, name):
    """A world in which what this provider says can't be read."""
    read = w.upstream.usage

    def usage(answer):
        if w.asked[-1] == name:
            raise IndexError("no choices")
        return read(answer)

    w.upstream.usage = usage
    return w


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_cannot_be_read_has_failed(world, stream):
    """Whatever reading it raises: it is an attempt that came to nothing, and somebody else is asked."""
    w = unreadable_from(world({"a": ["from a"], "b": ["from b"]}), "a")
    outcome = w.ask(stream=stream)
    assert (outcome.text, outcome.decision.outcome) == ("from b", "answered")
    assert [(one.provider, one.kind) for one in outcome.decision.attempts] == [("a", K.UNKNOWN), ("b", "ok")]
    assert w.left_over() == {}


def test_a_fault_of_a_plan_s_own_is_no_callers_leaving(world):
    """An exception that nobody foresaw is told as a failed request: who calls it cancelled hides it from every alert."""
    w = world({"a": ["from a"]})
    error = w.interrupt = (1, ZeroDivisionError())
    outcome = w.ask()
    assert (outcome.error, outcome.decision.outcome) == (error[1], "failed")
    assert w.left_over() == {}


@pytest.mark.parametrize("kind", [K.CONTENT_POLICY, K.CLIENT_ERROR])
def test_the_callers_own_fault_is_told_at_once(world, kind):
    """Nobody else is asked, the provider's own exception arrives as it is, and its circuit learns nothing."""
    error = FAILURES[kind]()
    w = world({"a": [error], "b": ["from b"]})
    outcome = w.ask()
    assert outcome.error is error
    assert (w.asked, w.status("a")["failures_in_a_row"], outcome.decision.outcome) == (["a"], 0, "failed")


@pytest.mark.parametrize(
    ("kind", "tries", "sleeps"),
    [
        (K.RATE_LIMITED, 4, [1.05, 2.1, 4.2]),  # its own blocks of 1, 2, 4 s, and half of a tenth
        (K.QUOTA_EXHAUSTED, 1, []),
        (K.OVERLOADED, 4, [0.25, 0.5, 1.0]),
        (K.SERVER_ERROR, 4, [0.25, 0.5, 1.0]),
        (K.TIMEOUT, 1, []),
        (K.STREAM_INTERRUPTED, 4, [0.25, 0.5, 1.0]),
        (K.AUTH, 1, []),
        (K.PERMISSION, 1, []),
        (K.NOT_FOUND, 1, []),
        (K.CONTEXT_OVERFLOW, 1, []),
        (K.CONTENT_POLICY, 1, []),
        (K.CLIENT_ERROR, 1, []),
        (K.LOCAL, 2, []),
        (K.UNKNOWN, 2, [0.25]),
    ],
)
def test_what_follows_a_failure_of_the_only_provider(world, kind, tries, sleeps):
    """It is asked again as often, and after such waits, as the table says; then its own exception arrives, with a note."""
    error = FAILURES[kind]()
    w = world({"a": [error]})
    outcome = w.ask()
    assert outcome.error is error
    assert (w.asked, w.clock.sleeps) == (["a"] * tries, pytest.approx(sleeps))
    assert w.left_over() == {}
    if kind not in {K.CONTEXT_OVERFLOW, K.CONTENT_POLICY, K.CLIENT_ERROR}:
        assert f"tried a {tries} time(s)" in error.__notes__[0]


def test_a_bug_is_not_retried(world):
    """A TypeError says nothing about the provider and would only be raised again."""
    w = world({"a": [TypeError("got None")]})
    assert isinstance(w.ask().error, TypeError)
    assert (w.asked, w.status("a")["failures_in_a_row"]) == (["a"], 0)


def test_a_retry_that_succeeds(world):
    """The only provider that fails once answers the second time, and the caller sees nothing of it."""
    w = world({"a": [status(500), "hello"]})
    outcome = w.ask()
    assert (outcome.text, outcome.error, w.asked) == ("hello", None, ["a", "a"])
    assert w.told(Retried) == [Retried("a", "server_error", 0.25)]


@pytest.mark.parametrize(
    ("retry_after", "asked", "sleeps"),
    [(2, "aa", [2.1]), (3, "ab", [])],
)
def test_retry_after_decides_between_waiting_here_and_going_on(world, retry_after, asked, sleeps):
    """A 429 that asks for at most `max_retry_after` (2 s) is waited for where it happened; above, the next is asked."""
    w = world({"a": [status(429, retry_after=retry_after), "from a"], "b": ["from b"]})
    outcome = w.ask()
    assert ("".join(w.asked), w.clock.sleeps) == (asked, pytest.approx(sleeps))
    assert outcome.text == f"from {asked[-1]}"
    assert (w.status("a")["blocked"] is None) is (asked == "aa")


def test_the_only_provider_is_waited_for_as_long_as_it_asks(world):
    """With nobody else, a Retry-After far above `max_retry_after` is slept: 20 s and half of the most jitter, 1 s."""
    w = world({"a": [status(429, retry_after=20), "hello"]})
    assert w.ask().text == "hello"
    assert w.clock.sleeps == [20.5]


def test_a_retry_after_beyond_max_delay_is_told_not_slept(world):
    """An hour's Retry-After goes to the caller at once."""
    error = status(429, retry_after=3600)
    w = world({"a": [error]})
    assert (w.ask().error, w.asked, w.clock.sleeps) == (error, ["a"], [])


def test_the_only_candidate_sleeps_to_the_end_of_a_block_that_another_call_caused(world):
    """A request that comes while the only provider is blocked for 4 s waits for what is left of them, and a jitter of a tenth."""
    w = world({"a": [status(429, retry_after=4), "hello"]}, retry=Retry(max_retries=0))
    w.ask()
    w.clock.advance(1.0)
    assert w.ask().text == "hello"
    assert w.clock.sleeps == pytest.approx([3.15])


def test_a_block_longer_than_the_patience_is_told_at_once(world):
    """Blocked for longer than `max_wait` (10 s), the request is refused with the time, caused by the last 429."""
    last = status(429, retry_after=30)
    w = world({"a": [last, "hello"]}, retry=Retry(max_retries=0))
    w.ask()
    refusal = w.ask().error
    assert isinstance(refusal, RateLimitedError)
    assert (refusal.retry_after, refusal.provider, refusal.__cause__) == (30.0, "a", last)
    assert (w.asked, w.clock.sleeps) == (["a"], [])


# ---------------------------------------------------------------------------------------------------------- how many
@pytest.mark.parametrize(("providers", "retries"), [(1, 0), (1, 3), (2, 0), (2, 1), (3, 3), (4, 2)])
def test_attempts_are_bounded(world, providers, retries):
    """At most one attempt per provider, and `max_retries` in all."""
    names = "abcd"[:providers]
    w = world({name: [status(503)] for name in names}, retry=Retry(max_retries=retries))
    error = w.ask().error
    assert isinstance(error, StatusError if providers == 1 else AllProvidersFailedError)
    assert len(w.asked) == providers + (retries if providers * retries >= retries else 0)
    assert w.asked[:providers] == list(names)


def test_local_faults_do_not_count(world):
    """A fault of this process is retried for nothing: the cap still allows the usual attempts."""
    w = world({"a": [FAILURES[K.LOCAL](), status(503)]}, retry=Retry(max_retries=1))
    w.ask()
    assert w.asked == ["a", "a", "a"]


def test_no_retries_means_none(world):
    """`max_retries=0` asks each provider once."""
    w = world({"a": [status(500)], "b": [status(500)]}, retry=Retry(max_retries=0))
    w.ask()
    assert w.asked == ["a", "b"]


def test_a_context_overflow_goes_to_the_largest_window_first(world):
    """What was too long for one is put to the provider that holds most."""
    sizes = {"a": 8_000, "b": 32_000, "c": 200_000}
    targets = [target(name, context_window=size) for name, size in sizes.items()]
    w = world({"a": [FAILURES[K.CONTEXT_OVERFLOW]()], "b": ["from b"], "c": ["from c"]}, targets)
    assert w.ask().text == "from c"


# ------------------------------------------------------------------------------------------------------------ budget
def drained(world, scripts, **settings):
    """A world in which the retry budgets of all providers are used up."""
    w = world(scripts, **settings)
    for item in w.targets:
        w.store._route(item).budget = 50.0
    return w


def test_a_used_up_budget_stops_retries(world):
    """With the budget at its floor the only provider is asked once."""
    w = drained(world, {"a": [status(503), "hello"]})
    w.ask()
    assert w.asked == ["a"]


def test_a_used_up_budget_spares_the_first_fallback(world):
    """The first fallback is what a second provider is for; the second one would be extra load."""
    w = drained(world, {"a": [status(503)], "b": [status(503)], "c": ["from c"]})
    error = w.ask().error
    assert w.asked == ["a", "b"]
    assert isinstance(error, AllProvidersFailedError)
    assert [type(item) for item in error.exceptions] == [StatusError, StatusError, RefusedError]


def test_budget_off(world):
    """`budget=False` lets retries and fallbacks go on."""
    w = drained(world, {"a": [status(503)], "b": [status(503)], "c": ["from c"]}, retry=Retry(budget=False))
    assert w.ask().text == "from c"


def test_extra_calls_debit_the_one_they_go_to(world):
    """A retry at `a` and the second fallback at `c` cost those a token; the first fallback is free; an answer earns 0.1."""
    w = world({"a": [status(500)], "b": [status(503)], "c": ["from c"]})
    w.ask()
    assert w.asked == ["a", "a", "b", "c"]
    assert [w.status(name)["retry_budget"] for name in "abc"] == [99.0, 100.0, 99.1]


# ------------------------------------------------------------------------------------------------- what reaches the caller
def test_several_failures_arrive_as_a_group_of_all_causes(world):
    """Every attempt's exception and a refusal for each candidate not tried, with the soonest time, and `except*` reaches them."""
    first, second = status(503), status(401)
    w = world({"a": [first], "b": [second], "c": ["hello"]}, retry=Retry(max_retries=0))
    w.open("c", seconds=20.0)
    error = w.ask().error
    assert isinstance(error, AllProvidersFailedError)
    assert error.exceptions[:2] == (first, second)
    assert isinstance(error.exceptions[2], CircuitOpenError)
    assert (error.retry_after, error.is_retryable) == (40.0, True)
    assert "tried: a (overloaded), b (auth)" in str(error)
    assert error.split(CircuitOpenError)[0].retry_after == 40.0


def test_all_refused_by_limits_is_one_rate_limit_error(world):
    """Nobody was asked and everybody is over a limit: one error with the soonest time."""
    w = world({"a": [status(429, retry_after=50)], "b": [status(429, retry_after=30)]}, retry=Retry(max_retries=0))
    w.ask()
    error = w.ask().error
    assert isinstance(error, RateLimitedError)
    assert (error.retry_after, error.is_retryable) == (30.0, True)
    assert w.asked == ["a", "b"]


def test_refused_for_different_reasons_is_a_group(world):
    """One open, one blocked: a group of both refusals, retryable after the sooner."""
    w = world({"a": ["hello"], "b": [status(429, retry_after=30)]}, retry=Retry(max_retries=0))
    w.open("a")
    w.ask()
    error = w.ask().error
    assert isinstance(error, AllProvidersFailedError)
    assert [type(item) for item in error.exceptions] == [CircuitOpenError, RateLimitedError]
    assert error.retry_after == 30.0


def test_context_overflow_everywhere_is_the_last_providers_own_error(world):
    """If the prompt is too long for all, the caller reads it in a provider's own words."""
    errors = [FAILURES[K.CONTEXT_OVERFLOW](), FAILURES[K.CONTEXT_OVERFLOW]()]
    w = world({"a": [errors[0]], "b": [errors[1]]})
    assert w.ask().error is errors[1]


def test_context_overflow_at_one_of_several_is_part_of_a_group(world):
    """Too long for one, while another failed otherwise: the caller sees both."""
    w = world({"a": [status(503)], "b": [FAILURES[K.CONTEXT_OVERFLOW]()]}, retry=Retry(max_retries=0))
    assert isinstance(w.ask().error, AllProvidersFailedError)


def test_a_client_error_after_a_fallback_is_raised_as_it_is(world):
    """The second provider's 400 reaches the caller, whatever the first one said."""
    error = status(400)
    w = world({"a": [status(503)], "b": [error], "c": ["hello"]})
    assert w.ask().error is error
    assert w.asked == ["a", "b"]


# ---------------------------------------------------------------------------------------------------------- classifier
def test_a_users_classifier_comes_first(world):
    """A kind of its own replaces ours; None leaves it to ours; a whole failure is taken as it is."""

    def classifier(error):
        return {418: K.OVERLOADED, 419: Failure(K.RATE_LIMITED, retry_after=7.0)}.get(error.status_code)

    w = world({"a": [status(418), status(419), status(401)], "b": ["from b"]}, classifier=classifier)
    assert [w.ask().text, w.status("a")["failures_in_a_row"]] == ["from b", 1]
    assert [w.ask().text, w.status("a")["blocked_for"]] == ["from b", 7.0]
    w.clock.advance(7.0)
    assert [w.ask().text, w.status("a")["blocked"]] == ["from b", "auth"]


def test_another_callers_own_error_explains_no_refusal(world):
    """A 400 may quote its prompt: a later refusal by our own limit has no cause, and one by the circuit has no frames."""
    w = world({"a": [status(400), "hello"]}, [target("a", limits=RateLimits(rpm=1, burst=1, max_wait=0.0))])
    w.ask()
    error = w.ask().error
    assert (type(error), error.__cause__) == (RateLimitedError, None)
    w = world({"a": [status(503)]}, retry=Retry(max_retries=0))
    for _ in range(5):
        w.ask()
    error = w.ask().error
    assert isinstance(error, CircuitOpenError)
    assert (error.__cause__.status_code, error.__cause__.__traceback__) == (503, None)


@pytest.mark.parametrize("answer", [ZeroDivisionError("mine"), "nonsense", 7])
def test_a_broken_classifier_does_not_replace_the_error(world, answer):
    """One that raises, or answers what is no kind, leaves the judgement to ours."""

    def classifier(error):
        if isinstance(answer, Exception):
            raise answer
        return answer

    w = world({"a": [status(503)], "b": ["from b"]}, classifier=classifier)
    assert w.ask().text == "from b"
    assert w.decisions[0].attempts[0].kind == "overloaded"

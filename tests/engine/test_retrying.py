"""`exponential_backoff`: retries for functions of any kind."""

import asyncio
import functools
import inspect
import logging

import pytest

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.retrying import exponential_backoff
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import GraphBubbleUp, status


class Flaky:
    """Raises its errors one after the other, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, word="hello"):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return word


def sync(flaky):
    """A plain function."""

    def function(word="hello"):
        return flaky(word)

    return function


def coroutine(flaky):
    """An async function."""

    async def function(word="hello"):
        await asyncio.sleep(0)
        return flaky(word)

    return function


def awaitable(flaky):
    """A plain function that returns an awaitable."""
    return lambda word="hello": coroutine(flaky)(word)


def call(function, *args):
    """Call it, and await what it returns if need be."""
    result = function(*args)

    async def waited():
        return await result

    return asyncio.run(waited()) if inspect.isawaitable(result) else result


@pytest.fixture(params=[sync, coroutine, awaitable])
def kind(request):
    """The test runs for functions of each kind."""
    return request.param


def retrying(clock, rand=0.5, **settings):
    """The decorator on a fake clock."""
    return exponential_backoff(clock=clock, rand=lambda: rand, **settings)


def test_it_retries_with_full_jitter(kind):
    """Half (rand 0.5) of 1, 2 and 4 s, then the answer."""
    clock, flaky = FakeClock(), Flaky(*[status(500) for _ in range(3)])
    assert call(retrying(clock)(kind(flaky)), "word") == "word"
    assert (flaky.calls, clock.sleeps) == (4, [0.5, 1.0, 2.0])


def test_it_gives_up_after_max_retries(kind):
    """The function's own last exception is raised as it is."""
    errors = [status(500) for _ in range(3)]
    clock, flaky = FakeClock(), Flaky(*errors)
    with pytest.raises(type(errors[0])) as caught:
        call(retrying(clock, max_retries=2)(kind(flaky)))
    assert (caught.value, flaky.calls) == (errors[2], 3)


@pytest.mark.parametrize(
    "error",
    [status(401), status(400), status(403), status(404), status(422), status(413), status(429, "insufficient_quota")],
    ids=str,
)
def test_what_cannot_succeed_by_trying_again_is_raised_at_once(kind, error):
    """A wrong key, a bad request, a used-up quota: one call, no wait."""
    clock, flaky = FakeClock(), Flaky(error)
    with pytest.raises(type(error)) as caught:
        call(retrying(clock)(kind(flaky)))
    assert (caught.value, flaky.calls, clock.sleeps) == (error, 1, [])


def test_an_interrupt_of_the_graph_is_raised_at_once(kind):
    """It is no failure."""
    clock, flaky = FakeClock(), Flaky(GraphBubbleUp())
    with pytest.raises(GraphBubbleUp):
        call(retrying(clock)(kind(flaky)))
    assert flaky.calls == 1


def test_a_retry_after_is_honoured(kind):
    """7 s and half of the most jitter (0.7 s), instead of the backoff."""
    clock, flaky = FakeClock(), Flaky(status(429, retry_after=7))
    assert call(retrying(clock)(kind(flaky))) == "hello"
    assert clock.sleeps == pytest.approx([7.35])


def test_a_retry_after_beyond_max_delay_is_raised(kind):
    """Nobody sleeps for an hour inside a decorator."""
    clock, flaky = FakeClock(), Flaky(status(429, retry_after=61))
    with pytest.raises(Exception, match="429"):
        call(retrying(clock)(kind(flaky)))
    assert clock.sleeps == []


def test_a_429_without_a_hint_doubles_the_base(kind):
    """The provider asked for less traffic."""
    clock, flaky = FakeClock(), Flaky(status(429), status(429))
    call(retrying(clock)(kind(flaky)))
    assert clock.sleeps == [1.0, 2.0]


@pytest.mark.parametrize(("rand", "delays"), [(0.0, [0.0] * 4), (0.999999, [1.0, 2.0, 3.0, 3.0])])
def test_jitter_stays_in_its_range(rand, delays):
    """From nothing to the backoff, and the cap comes before the jitter."""
    clock, flaky = FakeClock(), Flaky(*[status(500) for _ in range(4)])
    call(retrying(clock, rand, max_retries=4, max_delay=3.0)(sync(flaky)))
    assert clock.sleeps == pytest.approx(delays, rel=1e-5)


def test_only_the_named_exceptions_are_retried(kind):
    """Anything else passes."""
    clock, flaky = FakeClock(), Flaky(ConnectionError(), KeyError("x"))
    with pytest.raises(KeyError):
        call(retrying(clock, exceptions=(OSError,))(kind(flaky)))
    assert flaky.calls == 2


def test_a_bug_is_retried_only_by_name(kind):
    """A TypeError would only be raised again, unless the caller says that it passes."""
    clock, flaky = FakeClock(), Flaky(TypeError())
    with pytest.raises(TypeError):
        call(retrying(clock)(kind(flaky)))
    flaky = Flaky(TypeError())
    assert call(retrying(clock, exceptions=(TypeError,))(kind(flaky))) == "hello"


def test_a_coroutine_that_fails_is_no_success():
    """What a plain function returns is awaited inside the retry: its failures are seen, and each try calls anew."""
    clock, flaky = FakeClock(), Flaky(*[status(500) for _ in range(3)])
    result = retrying(clock)(awaitable(flaky))()
    assert inspect.isawaitable(result)
    assert (call(lambda: result), flaky.calls) == ("hello", 4)


def test_async_functions_in_disguise_stay_async():
    """A partial of a coroutine function, and an object with an async call, give coroutine functions."""

    class Caller:
        async def __call__(self):
            return "called"

    decorate = retrying(FakeClock())

    async def function(word):
        return word

    for item, expected in ((functools.partial(function, "word"), "word"), (Caller(), "called")):
        wrapped = decorate(item)
        assert inspect.iscoroutinefunction(wrapped)
        assert call(wrapped) == expected


def test_the_function_keeps_its_name():
    """Name, docstring and signature are those of the function."""

    @exponential_backoff()
    def answer(question: str) -> str:
        """Answer."""
        return question

    assert (answer.__name__, answer.__doc__, answer("x")) == ("answer", "Answer.", "x")
    assert list(inspect.signature(answer).parameters) == ["question"]


def test_calls_do_not_share_their_tries():
    """A second call of the decorated function begins afresh."""
    clock = FakeClock()
    flaky = Flaky(status(500), status(500))
    function = retrying(clock, max_retries=2)(sync(flaky))
    assert function() == "hello"
    flaky.errors = [status(500), status(500)]
    assert function() == "hello"
    assert clock.sleeps == [0.5, 1.0, 0.5, 1.0]


def test_no_retries(kind):
    """`max_retries=0` is one call."""
    flaky = Flaky(status(500))
    with pytest.raises(Exception, match="500"):
        call(retrying(FakeClock(), max_retries=0)(kind(flaky)))
    assert flaky.calls == 1


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"base_delay": -1.0}, "base_delay"),
        ({"max_delay": float("nan")}, "max_delay"),
        ({"exceptions": ()}, "exceptions"),
        ({"exceptions": ("ValueError",)}, "exceptions"),
        ({"exceptions": (KeyboardInterrupt,)}, "exceptions"),
    ],
)
def test_nonsensical_settings_are_refused(settings, field):
    """When the decorator is made, by name."""
    with pytest.raises(SettingsError, match=field):
        exponential_backoff(**settings)


def test_one_class_will_do():
    """`exceptions=OSError` is what it says."""
    flaky = Flaky(OSError())
    assert retrying(FakeClock(), exceptions=OSError)(sync(flaky))() == "hello"


def test_each_retry_is_logged_without_the_errors_text(caplog):
    """The number, the delay and the kind; an error's text may hold the prompt."""
    error = status(500)
    error.args = ("the secret prompt",)
    with caplog.at_level(logging.INFO, "langchain_resilient"):
        retrying(FakeClock())(sync(Flaky(error)))()
    assert [record.getMessage() for record in caplog.records] == ["retry 1 of 3 in 0.50 s after server_error"]


def test_a_generator_is_refused():
    """A function that yields has given results away before it fails, so it can't be tried again; that is said when it is decorated."""

    def numbers():
        yield 1

    async def later():
        yield 1

    for function in (numbers, later, functools.partial(numbers)):
        with pytest.raises(SettingsError, match=r"exponential_backoff: got .*; decorate a function that returns"):
            exponential_backoff()(function)
    with pytest.raises(SettingsError, match="exponential_backoff: got 5"):
        exponential_backoff()(5)

"""Whatever providers do, a request ends, keeps its bounds and leaves nothing behind; and both drivers tell the same story."""

from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_resilient.engine.backoff import Retry
from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.policy import Timeouts
from langchain_resilient.engine.quota import RateLimits
from tests.engine.harness import FAILURES, NEVER, STOP, Chunk, GraphBubbleUp, Step, World, status, target

SECONDS = st.sampled_from([0.0, 0.5, 3.0, 20.0])
FAILING = [*FAILURES.values(), lambda: status(429, retry_after=1), lambda: status(503, retry_after=30), GraphBubbleUp]
failures = st.sampled_from(FAILING).map(lambda make: make())
calls = st.one_of(
    st.just(NEVER),
    st.builds(Step, st.just("hello"), SECONDS),
    st.builds(Step, failures, SECONDS),
)
chunks = st.lists(st.builds(Chunk, st.sampled_from(["", "word"]), after=SECONDS), max_size=4)
streams = st.builds(
    lambda body, end, seconds: Step((*body, *end), seconds),
    chunks,
    st.one_of(st.just(()), st.just((STOP,)), failures.map(lambda error: (error,))),
    SECONDS,
)
limits = st.builds(
    RateLimits,
    rpm=st.sampled_from([None, 6, 60]),
    tpm=st.sampled_from([None, 6000]),
    concurrency=st.sampled_from([None, 1, 3]),
    on_limit=st.sampled_from(["next", "wait", "reject"]),
    max_wait=st.sampled_from([0.0, 3.0, 30.0]),
)


@st.composite
def scenarios(draw):
    """One to four providers with settings and scripts, and some requests with pauses in between."""
    names = "abcd"[: draw(st.integers(1, 4))]
    streamed = draw(st.booleans())
    steps = st.lists(streams if streamed else calls, min_size=1, max_size=6)
    targets = [
        target(
            name,
            limits=draw(limits),
            circuit=Circuit(
                failure_threshold=draw(st.sampled_from([1, 2, 5])), half_open_max_calls=draw(st.sampled_from([1, 3]))
            ),
            timeouts=Timeouts(response=10.0),
            max_latency=draw(st.sampled_from([None, 1.0])),
            sends_finish_reason=draw(st.booleans()),
        )
        for name in names
    ]
    policy = {
        "retry": Retry(max_retries=draw(st.integers(0, 3)), budget=draw(st.booleans())),
        "routing": draw(st.sampled_from(["priority", "latency"])),
        "races": draw(st.booleans()),
    }
    requests = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0.0, 6.0, 70.0]),
                st.sampled_from([None, 4.0, 60.0]),
                st.booleans(),
                st.sampled_from([None, 1]),
                st.one_of(st.none(), st.integers(0, 12)),
            ),
            min_size=1,
            max_size=8,
        )
    )
    return targets, {name: draw(steps) for name in names}, policy, requests, streamed


def play(colour, scenario):
    """Put the requests of a scenario under one driver; returns each one's record."""
    targets, scripts, policy, requests, streamed = scenario
    w = World(colour, scripts, targets, **policy)
    bubbling = "GraphBubbleUp" in repr(scripts)
    most = len(targets) + policy["retry"].max_retries
    for pause, deadline, landing, keep, interrupted in requests:
        w.clock.advance(pause)
        began = w.clock.now()
        w.seen.clear()
        # One way of going away at a time: a second one, amid the cleaning up, may leave what then lapses by itself.
        w.interrupt = None if interrupted is None or bubbling else (interrupted, KeyboardInterrupt())
        closing = keep if streamed and interrupted is None else None
        outcome = w.ask(stream=streamed, deadline=deadline, keep=closing, input_tokens=lambda: 50)
        w.interrupt = None
        assert not isinstance(outcome.error, RuntimeError | AssertionError | LookupError | TypeError), outcome.error
        counted = [attempt for attempt in outcome.decision.attempts if attempt.kind != "local"]
        assert len(counted) <= most
        if deadline is not None and not streamed:
            assert w.clock.now() - began <= deadline + 1e-6
        if landing:
            w.land()
            assert w.left_over() == {}
    w.land()
    assert w.upstream.all_closed()
    assert w.left_over() == {}
    # Not the refusals: whether a losing probe has come to its end yet is told there, and that is the only thing left to chance.
    return [decision._replace(request_id=0, refusals=()) for decision in w.decisions]


@settings(max_examples=250)
@given(scenarios())
def test_both_drivers_tell_the_same_story(scenario):
    """The same attempts, waits and outcomes, within the cap and the deadline, and nothing held at the end."""
    assert play("sync", scenario) == play("async", scenario)

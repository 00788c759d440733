"""The rehearsal plays every kind of failure, and what it foretells is what a real model does."""

import pytest

from langchain_resilient import Circuit, Provider, ResilientChatModel, Retry, Timeouts
from langchain_resilient.cli.rehearsal import OWN_ERROR, Act, Case, cases, rehearse
from langchain_resilient.cli.sources import policy_of
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.observe.capture import capture_decisions
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import fresh, scripted, spec

PLAYED = [kind for kind in ErrorKind if kind is not ErrorKind.CANCELLED]
FAULTS = {
    ErrorKind.RATE_LIMITED: Fault.rate_limited("none"),
    ErrorKind.QUOTA_EXHAUSTED: Fault.quota_exhausted(),
    ErrorKind.OVERLOADED: Fault.overloaded(),
    ErrorKind.SERVER_ERROR: Fault.status(500),
    ErrorKind.TIMEOUT: Fault.hang(),
    ErrorKind.STREAM_INTERRUPTED: Fault.truncate(0),
    ErrorKind.AUTH: Fault.status(401),
    ErrorKind.PERMISSION: Fault.status(403),
    ErrorKind.NOT_FOUND: Fault.status(404),
    ErrorKind.CONTEXT_OVERFLOW: Fault.context_overflow(),
    ErrorKind.CONTENT_POLICY: Fault.content_filter(),
    ErrorKind.CLIENT_ERROR: Fault.status(422),
}
"""How a real provider fails in each way; a fault of this process's own and the unknown have no wire format."""


def named(*names: str, **settings) -> ResilientChatModel:
    """A model over scripted providers of these names."""
    providers = [Provider(scripted(name), name=name) for name in names]
    return ResilientChatModel(providers=providers, namespace=fresh(), **settings)


def acts(*names: str, **settings) -> dict[tuple[str, Case], Act]:
    """What would happen, by provider and case."""
    return {(act.provider, act.case): act for act in rehearse(policy_of(named(*names, **settings)))}


@pytest.mark.parametrize("kind", PLAYED)
def test_every_kind_is_played_at_every_provider(kind: ErrorKind):
    """Each kind but a caller's own cancellation has its scenes: beside others for all but the last, alone for all."""
    found = acts("a", "b", "c")
    for name in "abc":
        act = found[name, Case(kind)]
        assert (act.beside is None) == (name == "c")
        first = (act.beside or act.alone).attempts[0]
        assert (first.provider, first.kind) == (name, kind)
        assert {attempt.provider for attempt in act.alone.attempts} == {name}


def test_only_a_cancelled_call_is_not_played():
    """The cases come from `ErrorKind` itself, so that a new kind can't be forgotten."""
    found = {case.kind for case in cases(policy_of(named("a")))}
    assert set(ErrorKind) - found == {ErrorKind.CANCELLED}


# (kind, attempts at the failing provider, who answers, what the caller gets, blocked for, opens after), by DESIGN section 4.
TABLE = [
    (ErrorKind.RATE_LIMITED, 1, "b", None, 1.0, None),
    (ErrorKind.QUOTA_EXHAUSTED, 1, "b", None, 3600.0, None),
    (ErrorKind.OVERLOADED, 1, "b", None, None, 5),
    (ErrorKind.SERVER_ERROR, 2, "b", None, None, 5),
    (ErrorKind.TIMEOUT, 1, "b", None, None, 5),
    (ErrorKind.STREAM_INTERRUPTED, 1, "b", None, None, 5),
    (ErrorKind.AUTH, 1, "b", None, 300.0, None),
    (ErrorKind.PERMISSION, 1, "b", None, 300.0, None),
    (ErrorKind.NOT_FOUND, 1, "b", None, None, None),
    (ErrorKind.CONTEXT_OVERFLOW, 1, "b", None, None, None),
    (ErrorKind.CONTENT_POLICY, 1, None, OWN_ERROR, None, None),
    (ErrorKind.CLIENT_ERROR, 1, None, OWN_ERROR, None, None),
    (ErrorKind.LOCAL, 2, "b", None, None, None),
    (ErrorKind.UNKNOWN, 1, "b", None, None, None),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_the_defaults_are_those_of_the_design(row):
    """With default settings each kind leads to what DESIGN section 4 says."""
    kind, times, answers, gets, blocked, opens = row
    scene = acts("a", "b")["a", Case(kind)].beside
    assert [attempt.provider for attempt in scene.attempts].count("a") == times
    assert (scene.answered_by, scene.caller_gets, scene.opens_after) == (answers, gets, opens)
    assert scene.blocked_for == (None if blocked is None else pytest.approx(blocked))
    assert scene.opens_for == (None if opens is None else pytest.approx(66.0, abs=0.01))


def test_three_refusals_in_a_row_block_the_credential():
    """A single 403 blocks nothing; the third in a row does, however soon a circuit would open."""
    impatient = acts("a", "b", circuit=Circuit(failure_threshold=1, minimum_calls=1))
    assert impatient["a", Case(ErrorKind.PERMISSION)].beside.blocked_after == 3
    found = acts("a", "b")
    assert found["a", Case(ErrorKind.PERMISSION)].beside.blocked_after == 3
    assert found["a", Case(ErrorKind.AUTH)].beside.blocked_after == 1


def test_settings_change_what_is_foretold():
    """Thresholds, blocks, retries and deadlines of the given policy are the ones that are played."""
    circuit = Circuit(failure_threshold=2, recovery_timeout=10.0, auth_block=7.0)
    found = acts("a", "b", circuit=circuit, retry=Retry(max_retries=1, base_delay=3.0, max_retry_after=0.0))
    assert found["a", Case(ErrorKind.OVERLOADED)].beside.opens_after == 2
    assert found["a", Case(ErrorKind.OVERLOADED)].beside.opens_for == pytest.approx(11.0, abs=0.01)
    assert found["a", Case(ErrorKind.AUTH)].beside.blocked_for == pytest.approx(7.0)
    assert [attempt.wait for attempt in found["a", Case(ErrorKind.SERVER_ERROR)].beside.attempts] == [
        0,
        pytest.approx(3.0),
        0,
    ]
    assert len(found["b", Case(ErrorKind.OVERLOADED)].alone.attempts) == 2


def test_a_hint_is_waited_for_up_to_the_setting():
    """A 429 that asks for little is waited out at the same provider; one that asks for much sends the request on."""
    found = acts("a", "b")
    short = found["a", Case(ErrorKind.RATE_LIMITED, 2.0)].beside
    assert [(attempt.provider, attempt.wait) for attempt in short.attempts] == [
        ("a", 0.0),
        ("a", pytest.approx(2.2)),
        ("b", 0.0),
    ]
    long = found["a", Case(ErrorKind.RATE_LIMITED, 60.0)].beside
    assert [attempt.provider for attempt in long.attempts] == ["a", "b"]
    assert long.blocked_for == pytest.approx(60.0)


def test_the_rate_rule_opens_where_the_row_is_longer():
    """With a threshold that nobody reaches the circuit opens by its failure rate: after `minimum_calls` failures."""
    found = acts("a", "b", circuit=Circuit(failure_threshold=500, minimum_calls=12))
    assert found["a", Case(ErrorKind.OVERLOADED)].beside.opens_after == 12


def test_a_silence_that_outlasts_the_deadline_leaves_nobody_time():
    """Where a provider may be silent for as long as the whole request takes, the rehearsal shows that nobody else is asked."""
    found = acts("a", "b", timeouts=Timeouts(response=60.0, total=30.0))
    scene = found["a", Case(ErrorKind.TIMEOUT)].beside
    assert [attempt.provider for attempt in scene.attempts] == ["a"]
    assert scene.caller_gets == "AllProvidersFailedError"
    assert scene.opens_after is None


@pytest.mark.parametrize("then", ["continue", "restart", "raise"])
def test_what_follows_a_break_after_content(then):
    """Another provider goes on or begins anew, or the caller is told; in any case it counts for the circuit."""
    scene = acts("a", "b", on_interruption=then)["a", Case(ErrorKind.STREAM_INTERRUPTED, midway=True)].beside
    gets = (None, "StreamInterruptedError") if then == "raise" else ("b", None)
    assert (scene.answered_by, scene.caller_gets, scene.opens_after) == (*gets, 5)


def test_a_single_provider_is_only_played_alone():
    """With one provider the caller gets its own exception, after the retries that only a single one gets."""
    act = acts("a")["a", Case(ErrorKind.OVERLOADED)]
    assert act.beside is None
    assert act.alone.caller_gets == OWN_ERROR
    assert [attempt.wait for attempt in act.alone.attempts] == [0, *map(pytest.approx, (0.5, 1.0, 2.0))]


@pytest.mark.parametrize("routing", ["latency", "cost", "weighted"])
def test_any_routing_can_be_played(routing):
    """Whoever a routing would ask before the provider is out, so that every provider has its scenes."""
    providers = [Provider(scripted(name), name=name, cost_per_1k=cost) for name, cost in (("a", 3), ("b", 1), ("c", 2))]
    policy = policy_of(ResilientChatModel(providers=providers, namespace=fresh(), routing=routing))
    found = {act.provider: act for act in rehearse(policy) if act.case == Case(ErrorKind.OVERLOADED)}
    assert all(act.alone.attempts[0].provider == name for name, act in found.items())
    assert sum(act.beside is None for act in found.values()) == 1
    if routing == "cost":
        assert [found[name].beside and found[name].beside.answered_by for name in "bca"] == ["c", "a", None]


def test_limits_do_not_get_in_the_way():
    """A provider that takes one request a day is played all the same."""
    from langchain_resilient import RateLimits

    providers = [
        Provider(scripted("a"), name="a", limits=RateLimits(rpd=1, on_limit="reject")),
        Provider(scripted("b"), name="b"),
    ]
    policy = policy_of(ResilientChatModel(providers=providers, namespace=fresh()))
    found = {act.provider: act for act in rehearse(policy) if act.case == Case(ErrorKind.OVERLOADED)}
    assert found["a"].beside.opens_after == 5


def test_nothing_real_is_touched():
    """The model's own store, observers and place for requests hear nothing of a rehearsal, and do not stand in its way."""
    told = []
    made = named("a", "b", observers=[told.append], max_pending=1)
    policy_of(made).gate.enter("interactive")
    told.clear()
    before = made.status()
    assert any(act.beside and act.beside.answered_by == "b" for act in rehearse(policy_of(made)))
    assert made.status() == before
    assert told == []


# ------------------------------------------------------------------------------------------------ rehearsal and reality
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("alone", [False, True], ids=["beside", "alone"])
def test_a_real_model_does_what_was_foretold(kind: ErrorKind, alone: bool):
    """Over real HTTP a failing provider leads to the attempts, the answer, the error, the block and the circuit that were played."""
    with FaultServer() as failing, FaultServer() as well:
        failing.always(FAULTS[kind])
        # Short limits and no backoff, so that a real silence is short; the same for the rehearsal.
        settings = {"retry": Retry(base_delay=0.0, max_retries=1), "timeouts": Timeouts(first_token=0.3, response=0.3)}
        providers = [spec(failing, "openai", "one")] + ([] if alone else [spec(well, "anthropic", "two")])
        real = ResilientChatModel(providers=providers, namespace=fresh(), **settings)
        act = next(act for act in rehearse(policy_of(real)) if act.case == Case(kind))
        foretold = act.alone if alone else act.beside
        streams = kind in {ErrorKind.STREAM_INTERRUPTED, ErrorKind.TIMEOUT}
        error = None
        with capture_decisions() as decisions:
            try:
                [*real.stream("hi")] if streams else real.invoke("hi")
            except Exception as raised:
                error = raised
        decision = decisions[0]
        assert [(attempt.provider, attempt.kind) for attempt in decision.attempts] == [
            (attempt.provider, attempt.kind) for attempt in foretold.attempts
        ]
        assert decision.provider == foretold.answered_by
        ours = error is not None and type(error).__module__.startswith("langchain_resilient.engine")
        own = error is not None and (not ours or kind in {ErrorKind.TIMEOUT, ErrorKind.STREAM_INTERRUPTED})
        assert (
            OWN_ERROR if own and alone else error and (type(error).__name__ if ours else OWN_ERROR)
        ) == foretold.caller_gets
        blocked = real.status()["openai/one"]["blocked_for"]
        if foretold.blocked_for is None or foretold.blocked_after > len(foretold.attempts):
            assert blocked is None
        else:
            assert foretold.blocked_for - 60 < blocked <= foretold.blocked_for + 1


@pytest.mark.parametrize("kind", [ErrorKind.OVERLOADED, ErrorKind.SERVER_ERROR, ErrorKind.AUTH, ErrorKind.PERMISSION])
def test_a_real_circuit_opens_when_it_was_foretold(kind: ErrorKind):
    """So many failures in a row as were foretold open the real circuit, or block the real credential; one fewer does not."""
    with FaultServer() as failing, FaultServer() as well:
        failing.always(FAULTS[kind])
        providers = [spec(failing, "openai", "one"), spec(well, "anthropic", "two")]
        settings = {"retry": Retry(base_delay=0.0), "circuit": Circuit(failure_threshold=3)}
        real = ResilientChatModel(providers=providers, namespace=fresh(), **settings)
        foretold = next(act for act in rehearse(policy_of(real)) if act.case == Case(kind)).beside
        needed = foretold.opens_after or foretold.blocked_after
        seen = 0
        while seen < 20:
            status = real.status()["openai/one"]
            if status["circuit"] == "open" or status["blocked"]:
                break
            real.invoke("hi")
            seen = failing.count
        assert seen == needed

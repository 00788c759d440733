"""The circuit breaker step by step; the store's time is a parameter, in microseconds. `S` is a second."""

import pytest

from langchain_resilient.engine.circuit import Circuit, CircuitState, Permit, enter, renew, report, wait_for_place
from langchain_resilient.engine.errors import SettingsError

S = 1_000_000
LEASE = 30 * S
DEFAULT = Circuit()
T0 = 1000 * S


def tell(state, outcome, now=T0, settings=DEFAULT, attempt=0, **rest):
    """Report under the present generation."""
    return report(state, settings, now, outcome, generation=state.generation, attempt=attempt, **rest)


def after(outcomes, settings=DEFAULT, now=T0, every=0, state=None):
    """The state after a string of outcomes: s(uccess), f(ailure), i(nterruption), n(eutral)."""
    words = {"s": "success", "f": "failure", "i": "interruption", "n": "neutral"}
    state = CircuitState() if state is None else state
    for number, letter in enumerate(outcomes):
        state = tell(state, words[letter], now + number * every, settings, attempt=number)
    return state


def opened(settings=DEFAULT, now=T0, **rest):
    """A circuit that has just opened by one failure too many, at `now`."""
    state = after("f" * (settings.failure_threshold - 1), settings, now)
    return tell(state, "failure", now, settings, **rest)


def half_open(settings=DEFAULT, now=T0, attempt=1, *, spaced=False):
    """A circuit with its first probe in flight, let in at `now`."""
    state = opened(settings, now - int(settings.recovery_timeout * 2 * S))
    return enter(state, now, attempt=attempt, lease=LEASE, spaced=spaced)


def place(state, now, settings=DEFAULT, *, raced=False, early=False):
    """The wait for a place."""
    return wait_for_place(state, settings, now, raced=raced, early=early)


# -------------------------------------------------------------------------------------------------------------- closed


def test_a_new_circuit_is_closed_and_lets_everybody_in():
    """Closed: no wait, whatever the time and the kind of call."""
    for raced in (False, True):
        for early in (False, True):
            assert place(CircuitState(), T0, raced=raced, early=early) == 0


def test_five_failures_in_a_row_open_it():
    """`failure_threshold` failures in a row open the circuit, not one fewer."""
    assert after("ffff").phase == "closed"
    assert after("fffff").phase == "open"


def test_a_success_between_starts_the_row_again():
    """Four failures, a success, four failures: no five in a row (and only nine calls, too few for the rate)."""
    assert after("ffffsffff").phase == "closed"


def test_failures_in_a_row_count_however_far_apart():
    """Five failures in a row over five hours open it, though the window holds only the last."""
    assert after("fffff", every=3600 * S).phase == "open"


def test_half_of_the_calls_failing_opens_it():
    """50 % failures never trip a consecutive counter; of 10 calls in the window, the 5th failure does."""
    assert after("sfsfsfsfs").phase == "closed"  # 4 of 9
    assert after("sfsfsfsfsf").phase == "open"  # 5 of 10


def test_fewer_than_the_minimum_of_calls_say_nothing():
    """The rate is looked at from `minimum_calls` on: 6 of 9 don't open it, and the next failure (7 of 10) does."""
    assert after("ffsffsffs").phase == "closed"
    assert after("ffsffsffsf").phase == "open"


def test_below_the_rate_it_stays_closed():
    """4 of 10, 8 of 20, and so on: 40 % failures for 1000 calls don't open it."""
    assert after("sfsfs" * 200).phase == "closed"


def test_only_a_bad_call_opens_it():
    """A success that completes the minimum does not open the circuit: it is news of health."""
    assert after("ffffsffffs").phase == "closed"  # 8 of 10, by a success
    assert after("ffffsffffsf").phase == "open"


@pytest.mark.parametrize("rate", [0.07, 0.14, 0.28, 0.55, 0.56])
def test_at_least_the_rate_means_exactly_the_rate_too(rate):
    """100 calls of which exactly the set share failed open it: 100 · 0.55 = 55.00000000000001 must not hide the 55th."""
    settings = Circuit(failure_threshold=1000, failure_rate=rate, minimum_calls=100)
    failures = round(rate * 100)
    assert after("s" * (100 - failures) + "f" * (failures - 1), settings).phase == "closed"
    assert after("s" * (100 - failures) + "f" * failures, settings).phase == "open"


def test_the_window_forgets():
    """Failures older than the window, to a tenth of it, don't count any more."""
    state = after("fsfsfsfsf", now=1200 * S)  # 5 of 9 in the bucket that begins at 1200 s
    assert after("f", now=1259 * S, state=state).phase == "open"  # bucket 9 after it: the tenth call, 6 of 10
    assert after("f", now=1260 * S, state=state).phase == "closed"  # bucket 10 after it: the first call of the window


def test_the_window_is_counted_in_ten_buckets():
    """Only slices that had calls are kept, oldest first, and at most ten of them."""
    state = after("s" * 40, every=3 * S, now=0)  # two calls in each 6 s
    assert [tuple(bucket[:3]) for bucket in state.buckets] == [(index, 2, 0) for index in range(10, 20)]


def test_a_call_out_of_order_counts_with_the_newest():
    """A report whose time lies before the newest bucket (a failover rewound the clock) is counted, not lost."""
    state = after("s", now=1200 * S)
    state = after("f", now=1100 * S, state=state)
    assert [tuple(bucket) for bucket in state.buckets] == [(200, 2, 1, 0)]


def test_neutral_moves_nothing_while_closed():
    """Cancelled calls, the caller's own mistakes and 429s are neither failure nor success: no count, no reset."""
    state = after("ffff")
    assert after("n" * 50, state=state) == state
    assert after("nf", state=state).phase == "open"


def test_an_interrupted_stream_is_a_failure():
    """Five streams in a row that break after their beginning open the circuit, and it remembers the kind of the last."""
    assert after("iiii").phase == "closed"
    assert (after("iiiii").phase, after("iiiii").broke_midway) == ("open", True)
    assert after("iiiif").broke_midway is False
    assert after("ffffi").broke_midway is True


def test_slow_successes_open_it_by_their_rate_alone():
    """Five slow of ten successes open it; slow ones in a row below the minimum don't, as they are no failures."""
    state = CircuitState()
    for number in range(9):
        state = tell(state, "success", slow=True, attempt=number)
    assert (state.phase, state.failures_in_a_row) == ("closed", 0)
    assert tell(state, "success", slow=False).phase == "closed"
    assert tell(state, "success", slow=True).phase == "open"


def test_slow_and_failed_are_two_rates():
    """4 failures and 4 slow successes of 12 are 33 % each, not 67 %."""
    state = after("sfsfsfsf")
    for number in range(4):
        state = tell(state, "success", slow=True, attempt=number)
    assert state.phase == "closed"
    assert [tuple(bucket[1:]) for bucket in state.buckets] == [(12, 4, 4)]


def test_a_slow_success_ends_a_row_of_failures():
    """Slow or not, an answer is an answer."""
    assert tell(after("ffff"), "success", slow=True).failures_in_a_row == 0


# ---------------------------------------------------------------------------------------------------------------- open


def test_open_refuses_until_its_time_and_asks_again_after_it():
    """An open circuit states the exact wait, and lets a probe through once it is over, even years later."""
    state = opened()
    assert place(state, T0) == 60 * S
    assert place(state, T0 + 59 * S) == S
    assert place(state, T0 + 60 * S - 1) == 1
    assert place(state, T0 + 60 * S) == 0
    assert place(state, T0 + 10**15) == 0


@pytest.mark.parametrize(("spread", "seconds"), [(-1000, 54), (0, 60), (500, 63), (1000, 66)])
def test_open_time_varies_by_a_tenth(spread, seconds):
    """`recovery_timeout` ± 10 %, so that a fleet does not probe in step."""
    assert opened(spread=spread).until == T0 + seconds * S


@pytest.mark.parametrize(
    ("floor", "spread", "seconds"), [(90 * S, 0, 90), (30 * S, 0, 60), (59 * S, -1000, 59), (90 * S, 1000, 90)]
)
def test_the_providers_own_retry_after_is_a_floor(floor, spread, seconds):
    """Whatever the jitter, an open circuit waits at least as long as the provider asked, and never shorter for it."""
    assert opened(floor=floor, spread=spread).until == T0 + seconds * S


def test_a_new_phase_forgets_the_counts():
    """What was counted before the circuit opened plays no part after it."""
    state = opened()
    assert (state.failures_in_a_row, state.buckets, state.permits, state.successes) == (0, (), (), 0)


@pytest.mark.parametrize("outcome", ["success", "failure", "interruption", "neutral"])
def test_nothing_moves_an_open_circuit(outcome):
    """No report closes an open circuit or prolongs it, not even one that bears its generation."""
    state = opened()
    assert tell(state, outcome, T0 + S) == state
    assert tell(state, outcome, T0 + 90 * S) == state


@pytest.mark.parametrize("outcome", ["success", "failure", "interruption", "neutral"])
@pytest.mark.parametrize("make", [opened, half_open])
def test_a_stale_report_changes_nothing(make, outcome):
    """A call admitted while closed that ends in a later phase decides nothing: not the recovery, not another opening."""
    state = make()
    for generation in (0, state.generation - 1, state.generation + 1):
        assert report(state, DEFAULT, T0 + S, outcome, generation=generation, attempt=1) == state


def test_a_stale_failure_does_not_open_a_circuit_that_has_recovered():
    """Five late failures from before the outage don't open the circuit that has closed since."""
    one = Circuit(half_open_max_calls=1)
    state = tell(half_open(one), "success", T0 + S, one, attempt=1)
    assert state.phase == "closed"
    for number in range(5):
        state = report(state, one, T0 + 2 * S, "failure", generation=0, attempt=number)
    assert (state.phase, state.failures_in_a_row) == ("closed", 0)


def test_each_phase_begins_a_generation():
    """Every change of phase has a new generation, at least the time in ms, so that a rewound store can't repeat one."""
    one = Circuit(half_open_max_calls=1)
    state = opened(one, T0)
    assert state.generation == 1_000_000  # 1000 s in ms
    probing = enter(state, T0 + 60 * S, attempt=1, lease=LEASE, spaced=False)
    assert probing.generation == 1_060_000
    closed = tell(probing, "success", T0 + 60 * S + 5, one, attempt=1)
    assert closed.generation == 1_060_001  # the same ms: one more
    rewound = opened(one, T0 - 500 * S)._replace(generation=5_000_000)
    assert enter(rewound, T0, attempt=1, lease=LEASE, spaced=False).generation == 5_000_001


def test_growth_multiplies_the_open_time_up_to_the_cap():
    """Failed probes lengthen the open time by `recovery_growth` each, up to `recovery_cap`: 10, 20, 40, 50, 50 s."""
    settings = Circuit(recovery_timeout=10.0, recovery_growth=2.0, recovery_cap=50.0)
    state, now, times = opened(settings), T0, []
    for _ in range(5):
        times.append((state.until - now) // S)
        now = state.until
        state = enter(state, now, attempt=1, lease=LEASE, spaced=False)
        state = tell(state, "failure", now, settings, attempt=1)
    assert times == [10, 20, 40, 50, 50]


def test_growth_starts_again_after_recovery():
    """A circuit that closed opens for the plain `recovery_timeout` the next time."""
    settings = Circuit(recovery_timeout=10.0, recovery_growth=2.0, half_open_max_calls=1)
    state = enter(opened(settings), T0 + 10 * S, attempt=1, lease=LEASE, spaced=False)
    state = tell(state, "failure", T0 + 10 * S, settings, attempt=1)
    assert (state.reopened, state.until) == (1, T0 + 30 * S)
    state = enter(state, T0 + 30 * S, attempt=2, lease=LEASE, spaced=False)
    assert state.reopened == 1
    state = tell(state, "success", T0 + 30 * S, settings, attempt=2)
    assert (state.phase, state.reopened) == ("closed", 0)
    state = after("fffff", settings, T0 + 40 * S, state=state)
    assert state.until == T0 + 50 * S


@pytest.mark.parametrize("growth", [2, 2.0, 1e300])
def test_an_outage_of_days_does_not_overflow(growth):
    """After 2000 failed probes the open time is still the cap."""
    settings = Circuit(recovery_growth=growth, failure_threshold=1)
    state = half_open(settings)._replace(reopened=2000)
    assert tell(state, "failure", T0, settings, attempt=1).until == T0 + 300 * S


def test_a_cap_below_the_timeout_does_not_shorten_it():
    """`recovery_timeout=600` with the default cap of 300 s opens for 600 s."""
    assert opened(Circuit(recovery_timeout=600.0)).until == T0 + 600 * S


# ----------------------------------------------------------------------------------------------------------- half-open


def test_half_open_is_not_unlimited():
    """Of 500 calls that arrive when the time is over, one passes."""
    state, admitted = opened(), 0
    for attempt in range(500):
        if place(state, T0 + 60 * S) == 0:
            state = enter(state, T0 + 60 * S, attempt=attempt, lease=LEASE, spaced=False)
            admitted += 1
    assert (admitted, state.phase) == (1, "half_open")


def test_trust_grows_as_it_is_earned():
    """One probe at a time, after a success two, then three; the third success closes the circuit."""
    state, now, attempt, places = half_open(attempt=0), T0, 0, []
    for _ in range(3):
        while place(state, now) == 0:
            attempt += 1
            state = enter(state, now, attempt=attempt, lease=LEASE, spaced=False)
        places.append(len(state.permits))
        state = tell(state, "success", now, attempt=state.permits[0].attempt)
        if state.phase == "closed":
            break
    assert (places, state.phase) == ([1, 2, 3], "closed")
    assert state == CircuitState(generation=state.generation)


def test_never_more_at_a_time_than_half_open_max_calls():
    """With `half_open_max_calls=1` one probe runs at a time, and one success closes."""
    one = Circuit(half_open_max_calls=1)
    state = half_open(one)
    assert place(state, T0, one) == LEASE
    assert tell(state, "success", settings=one, attempt=1).phase == "closed"


def test_one_failed_probe_opens_again():
    """A failure outweighs the successes before it."""
    state = tell(half_open(), "success", attempt=1)
    state = enter(state, T0 + S, attempt=2, lease=LEASE, spaced=False)
    state = tell(state, "failure", T0 + 2 * S, attempt=2)
    assert (state.phase, state.until, state.reopened, state.successes) == ("open", T0 + 62 * S, 1, 0)


@pytest.mark.parametrize(("outcome", "slow", "midway"), [("interruption", False, True), ("success", True, False)])
def test_a_broken_or_slow_probe_opens_again(outcome, slow, midway):
    """A stream that broke, or an answer slower than `slow_first_token`, is no recovery."""
    state = tell(half_open(), outcome, slow=slow, attempt=1)
    assert (state.phase, state.broke_midway) == ("open", midway)


def test_a_reopened_circuit_heeds_jitter_and_floor():
    """The second opening has its own jitter and the provider's floor."""
    assert tell(half_open(), "failure", attempt=1, spread=-1000).until == T0 + 54 * S
    assert tell(half_open(), "failure", attempt=1, floor=100 * S, spread=-1000).until == T0 + 100 * S


def test_that_streams_broke_midway_is_known_to_the_probes():
    """A circuit opened by interruptions says so while half-open (a first token is no proof), and forgets it when closed."""
    one = Circuit(half_open_max_calls=1)
    state = enter(after("iiiii", one), T0 + 60 * S, attempt=1, lease=LEASE, spaced=False)
    assert state.broke_midway
    assert not tell(state, "success", T0 + 60 * S, one, attempt=1).broke_midway


def test_a_neutral_probe_gives_its_place_back_and_decides_nothing():
    """A cancelled probe, or one that met a 429, neither closes nor reopens nor wedges: the next may go at once."""
    state = tell(half_open(), "neutral", T0 + S, attempt=1)
    assert (state.phase, state.successes, state.permits) == ("half_open", 0, ())
    assert place(state, T0 + S) == 0


def test_a_neutral_probe_frees_its_own_place_only():
    """The other probe in flight keeps its permit."""
    state = tell(half_open(), "success", attempt=1)
    for attempt in (2, 3):
        state = enter(state, T0, attempt=attempt, lease=LEASE, spaced=False)
    state = tell(state, "neutral", T0 + S, attempt=2)
    assert state.permits == (Permit(3, T0 + LEASE),)


def test_a_probe_that_crashed_does_not_wedge_the_circuit():
    """A permit lapses by itself: full until then, to the microsecond, and free after it."""
    state = half_open()
    assert place(state, T0 + LEASE - 1) == 1
    assert place(state, T0 + LEASE) == 0
    state = enter(state, T0 + LEASE, attempt=2, lease=LEASE, spaced=False)
    assert state.permits == (Permit(2, T0 + 2 * LEASE),)


def test_asking_does_not_keep_a_lost_permit_alive():
    """550 refused callers don't prolong the lease of the one that crashed: refusals write nothing."""
    state = half_open()
    waits = [place(state, T0 + second * S) for second in range(30)]
    assert waits == [(30 - second) * S for second in range(30)]


def test_the_wait_is_for_the_first_permit_that_lapses():
    """With two probes in flight, the wait is for the one that ends first, renewed or not."""
    state = tell(half_open(), "success", attempt=1)
    state = enter(state, T0, attempt=2, lease=LEASE, spaced=False)
    state = enter(state, T0 + 10 * S, attempt=3, lease=LEASE, spaced=False)
    assert place(state, T0 + 10 * S) == 20 * S
    state = renew(state, T0 + 20 * S, attempt=2, lease=LEASE)
    assert place(state, T0 + 20 * S) == 20 * S  # 3 lapses at 40 s, 2 at 50 s
    assert {permit.attempt for permit in state.permits} == {2, 3}


@pytest.mark.parametrize("outcome", ["success", "failure", "neutral"])
def test_a_probe_whose_permit_lapsed_has_no_say(outcome):
    """After its lease another may have its place: a late report of the old one changes nothing."""
    state = half_open()
    assert tell(state, outcome, T0 + LEASE, attempt=1) == state
    assert tell(state, outcome, T0 + LEASE - 1, attempt=1) != state


@pytest.mark.parametrize("outcome", ["success", "failure", "neutral"])
def test_only_a_probe_with_a_permit_has_a_say(outcome):
    """A second report of the same probe, or one of an attempt that holds no permit, changes nothing."""
    state = tell(half_open(), "success", attempt=1)
    state = enter(state, T0, attempt=2, lease=LEASE, spaced=False)
    assert tell(state, outcome, T0 + S, attempt=1) == state
    assert tell(state, outcome, T0 + S, attempt=99) == state


def test_a_permit_is_renewed_while_its_probe_lives():
    """A renewal counts from now; a lapsed permit stays lost, and a stranger's renewal does nothing."""
    state = half_open()
    assert renew(state, T0 + 29 * S, attempt=1, lease=LEASE).permits == (Permit(1, T0 + 59 * S),)
    assert renew(state, T0 + LEASE, attempt=1, lease=LEASE) == state
    assert renew(state, T0 + S, attempt=2, lease=LEASE) == state


def test_entering_drops_lapsed_permits():
    """What a crashed probe held is not carried along."""
    state = enter(half_open(), T0 + LEASE + S, attempt=2, lease=LEASE, spaced=False)
    assert [permit.attempt for permit in state.permits] == [2]


# ------------------------------------------------------------------------------------------------- raced and early probes


def test_raced_probes_are_spaced_by_five_seconds():
    """A raced probe costs a duplicated call: the next raced one waits 5 s, even where a place is free."""
    state = tell(half_open(spaced=True), "neutral", attempt=1)
    assert place(state, T0, raced=True) == 5 * S
    assert place(state, T0 + 5 * S - 1, raced=True) == 1
    assert place(state, T0 + 5 * S, raced=True) == 0
    assert place(state, T0, raced=False) == 0


def test_an_inline_probe_starts_no_pause():
    """A probe that was not raced holds up no raced one."""
    state = tell(half_open(spaced=False), "neutral", attempt=1)
    assert place(state, T0, raced=True) == 0


def test_the_pause_survives_a_change_of_phase():
    """A raced probe that failed and a circuit that is asked early don't get around the 5 s."""
    state = tell(half_open(spaced=True), "failure", attempt=1)
    assert place(state, T0 + S, early=True) == 4 * S
    assert place(state, T0 + 5 * S, early=True) == 0


def test_the_pause_survives_recovery():
    """A circuit that closed and opened again within 5 s keeps the spacing; counting while closed doesn't forget it."""
    one = Circuit(half_open_max_calls=1, failure_threshold=1, recovery_timeout=10.0)
    state = tell(half_open(one, spaced=True), "success", T0, one, attempt=1)
    state = after("sf", one, T0 + S, state=state)
    assert state.phase == "open"
    assert place(state, T0 + 2 * S, one, early=True) == 3 * S


def test_the_pause_is_no_longer_than_the_open_time():
    """With `recovery_timeout` below 5 s raced probes are spaced by it."""
    short = Circuit(recovery_timeout=1.0)
    state = enter(opened(short), T0 + 2 * S, attempt=1, lease=LEASE, spaced=True)
    state = tell(state, "neutral", T0 + 2 * S, short, attempt=1)
    assert place(state, T0 + 2 * S + S // 2, short, raced=True) == S // 2
    assert place(state, T0 + 3 * S, short, raced=True) == 0


def test_after_a_success_the_next_probe_need_not_wait():
    """One answer says that the provider is back: the pause was for those who hang."""
    state = enter(opened(), T0, attempt=1, lease=LEASE, spaced=True)
    assert place(state, T0 + S, raced=True) == 4 * S
    assert place(tell(state, "success", T0 + S, attempt=1), T0 + S, raced=True) == 0


@pytest.mark.parametrize(("history", "for_slowness"), [("s" * 10, True), ("f" * 5, False)])
def test_what_a_circuit_opened_for(history, for_slowness):
    """Whether for slow answers or for failures; a closed one has forgotten it."""
    state = CircuitState()
    for step in history:
        state = tell(state, "failure" if step == "f" else "success", T0, slow=step == "s", attempt=1)
    assert (state.phase, state.for_slowness) == ("open", for_slowness)
    state = enter(state, T0 + 100 * S, attempt=1, lease=LEASE, spaced=False)
    assert state.for_slowness == for_slowness
    one = Circuit(half_open_max_calls=1)
    assert not tell(state, "success", T0 + 100 * S, one, attempt=1).for_slowness


def test_early_asks_an_open_circuit_before_its_time():
    """When every candidate is open, one may be probed early: one permit at a time, two after its first answer."""
    state = opened()
    assert place(state, T0 + S, early=True) == 0
    state = enter(state, T0 + S, attempt=1, lease=LEASE, spaced=True)
    assert place(state, T0 + 2 * S, early=True) == 29 * S  # the permit lapses at 31 s
    state = tell(state, "success", T0 + 3 * S, attempt=1)
    for attempt in (2, 3):
        assert place(state, T0 + 3 * S, early=True) == 0
        state = enter(state, T0 + 3 * S, attempt=attempt, lease=LEASE, spaced=False)
    assert place(state, T0 + 3 * S, early=True) == 30 * S


def test_the_first_probe_of_all_is_not_spaced():
    """A store whose clock begins at 0 lets the first raced probe through."""
    state = opened(Circuit(recovery_timeout=1.0), 0)
    assert place(state, S, Circuit(recovery_timeout=1.0), raced=True) == 0


# ------------------------------------------------------------------------------------------------------------ settings


def test_defaults():
    """The defaults are those of DESIGN §1."""
    assert Circuit() == Circuit(
        failure_threshold=5, failure_rate=0.5, minimum_calls=10, window=60.0, recovery_timeout=60.0, recovery_growth=1.0,
        recovery_cap=300.0, half_open_max_calls=3, auth_block=300.0, slow_first_token=None, probe="raced",
    )  # fmt: skip


WHOLE, SECONDS = "use a whole number ≥ 1", "use a number of seconds > 0 (at least a microsecond)"


@pytest.mark.parametrize(
    ("field", "given", "fix"),
    [
        ("failure_threshold", 0, WHOLE),
        ("failure_threshold", 2.5, WHOLE),
        ("failure_threshold", True, WHOLE),
        ("minimum_calls", 0, WHOLE),
        ("minimum_calls", "10", WHOLE),
        ("half_open_max_calls", 0, WHOLE),
        ("half_open_max_calls", None, WHOLE),
        ("window", 0, SECONDS),
        ("window", 1e-9, SECONDS),  # a window of no microsecond would divide by zero
        ("window", float("inf"), SECONDS),
        ("recovery_timeout", 0, SECONDS),
        ("recovery_timeout", -60, SECONDS),
        ("auth_block", 0, SECONDS),
        ("auth_block", "5m", SECONDS),
        ("failure_rate", 0, "use a share: 0 < rate ≤ 1"),
        ("failure_rate", 50, "use a share: 0 < rate ≤ 1"),
        ("recovery_growth", 0.9, "use a factor ≥ 1"),
        ("recovery_cap", 0, "use a number of seconds > 0"),
        ("slow_first_token", 0, "use a number of seconds > 0, or None"),
        ("slow_first_token", "fast", "use a number of seconds > 0, or None"),
        ("probe", "race", "did you mean 'raced'?"),
        ("probe", None, "one of: inline, raced"),
        ("probe", ["raced"], "did you mean 'raced'?"),
    ],
)
def test_bad_settings(field, given, fix):
    """A setting that makes no sense is refused when made: the field, what was given, the fix."""
    with pytest.raises(SettingsError) as raised:
        Circuit(**{field: given})
    assert str(raised.value) == f"Circuit.{field}: got {given!r}; {fix}"


@pytest.mark.parametrize(
    "settings",
    [
        {"failure_threshold": 1, "minimum_calls": 1, "half_open_max_calls": 1},
        {"window": 1e-6, "recovery_timeout": 1e-6, "auth_block": 1e-6},
        {"failure_rate": 1, "recovery_growth": 1, "slow_first_token": 0.1, "probe": "inline"},
    ],
)
def test_settings_at_their_bounds(settings):
    """The least and most that a field's doc allows are allowed, and the circuit works with them."""
    made = Circuit(**settings)
    state = after("f" * 12, made, T0)
    assert state.phase == "open"

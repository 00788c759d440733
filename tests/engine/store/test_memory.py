"""The in-process store: one atomic step over the candidates, and nothing held for ever."""

import threading

import pytest

from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Look, Queued, Refused, Report, Ticket
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.events import CircuitChanged
from langchain_resilient.engine.policy import Price
from langchain_resilient.engine.quota import RateLimits
from langchain_resilient.engine.store.memory import MemoryStore, memory_store
from langchain_resilient.testing.clock import FakeClock
from tests.engine.harness import admitted, ask_for, left_over, queued, refused, settle, target
from tests.servers import until

K = ErrorKind


@pytest.fixture
def clock():
    """Begins at 1000 s."""
    return FakeClock()


@pytest.fixture
def store(clock):
    """Open times without jitter."""
    return MemoryStore(clock.now, lambda: 0.5)


def limited(name="a", **limits):
    """A provider with these limits."""
    return target(name, limits=RateLimits(**limits))


def opened(store, item):
    """Open a circuit."""
    for _ in range(item.circuit.failure_threshold):
        settle(store, admitted(store, item), K.SERVER_ERROR)
    assert store.status(item)["circuit"] == "open"


def test_a_circuit_can_be_read_in_the_middle_of_a_step(store):
    """Gauges are read without the store's turn, and a provider that nobody has asked yet is not made known by it."""
    a, b = target("a"), target("b")
    opened(store, a)
    phases = []
    with store._turn:
        reader = threading.Thread(target=lambda: phases.extend(map(store.phase, (a, b))))
        reader.start()
        reader.join(10.0)
    assert phases == ["open", "closed"]
    assert list(store._routes) == [a.route]
    assert (store.place, store.is_alone()) == ("", False)


# ------------------------------------------------------------------------------------------------------------- admission
def test_a_refusal_writes_nothing(store):
    """Refused by its tokens, a request has taken no request, no place and no money, however often it is asked again."""
    item = target("a", limits=RateLimits(rpm=60, tpm=600, concurrency=5, usd_per_day=1.0), price=Price(1.0, 1.0))
    admitted(store, item, input_tokens=100, max_output=0)
    before = store.status(item)
    for _ in range(10):
        assert refused(store, item, input_tokens=100, max_output=0) == [("tpm", pytest.approx(10.0))]
    assert store.status(item) == before


def test_the_first_that_can_take_it_takes_it(store):
    """In the order in which they are named; refusals come in that order too."""
    a, b = limited("a", rpm=1), limited("b", rpm=2, burst=1)
    assert [admitted(store, a, b).target.name for _ in range(2)] == ["a", "b"]
    assert refused(store, a, b) == [("rpm", 60.0), ("rpm", 30.0)]


def test_a_poller_is_not_starved(store, clock):
    """Asking ten times a second for two minutes gets a burst of 5 and one a second: 124 to 125 grants, not 5."""
    item = limited(rpm=60, burst=5)
    granted = 0
    for _ in range(1200):
        granted += isinstance(store.admit(ask_for(item)), Ticket)
        clock.advance(0.1)
    assert 124 <= granted <= 125


def test_a_prompt_beyond_the_limit_is_never_measured_against_a_cut_one(store, clock):
    """After a 429 the limit is cut to 800 a minute; 900 tokens still fit into the configured 1,000, and wait their turn."""
    item = limited(tpm=1000)
    settle(store, admitted(store, item, max_output=0), K.RATE_LIMITED, retry_after=1)
    clock.advance(120.0)
    assert isinstance(store.admit(ask_for(item, input_tokens=900, max_output=0)), Ticket)
    assert refused(store, item, input_tokens=1001, max_output=0) == [("tpm", None)]


def test_a_slow_one_is_explored_once_in_thirty_seconds(store, clock):
    """Of those who saw that it is due only the first looks, raced; the others go their way, and if it is open so does he."""
    a, b = target("a"), target("b")
    looks = [admitted(store, b, a, explore=a) for _ in range(3)]
    assert [(ticket.target.name, ticket.raced) for ticket in looks] == [("a", True), ("b", False), ("b", False)]
    clock.advance(30.0)
    store.override(a, "forced_open")
    assert admitted(store, b, a, explore=a).target is b
    store.override(a, None)
    assert admitted(store, b, a, explore=a).raced


def test_a_plain_ask_is_answered_only_if_nothing_is_the_matter(store):
    """Else the caller looks at all candidates first; a plain refusal writes nothing either."""
    a, b = limited("a", rpm=1), target("b")
    assert admitted(store, a, b, plainly=True).target is a
    reply = store.admit(ask_for(a, b, plainly=True))
    assert isinstance(reply, Refused) and reply.refusals == ()
    opened(store, b)
    assert isinstance(store.admit(ask_for(b, plainly=True)), Refused)
    store.override(b, "disabled")
    assert isinstance(store.admit(ask_for(b, plainly=True)), Refused)


def test_the_budget_is_asked_last(store):
    """A request that pays and is refused by a limit has not paid."""
    item = limited(rpm=1)
    admitted(store, item)
    assert refused(store, item, pays=True) == [("rpm", 60.0)]
    assert store.status(item)["retry_budget"] == 100.0
    store._route(item).budget = 50.0
    other = target("b", route="a", account="b")
    assert refused(store, other, pays=True) == [("budget", None)]


# -------------------------------------------------------------------------------------------------------------- circuits
def test_half_open_permits_are_bounded_with_24_threads_racing(store, clock):
    """However many ask at once: one probe, after its success two, after the second three."""
    item = target("a")
    opened(store, item)
    clock.advance(61.0)
    tickets, expected = [], [1, 2, 3]
    for most in expected:
        granted, barrier = [], threading.Barrier(24)

        def race(granted=granted, barrier=barrier):
            barrier.wait()
            granted.append(store.admit(ask_for(item)))

        threads = [threading.Thread(target=race) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tickets += [reply for reply in granted if isinstance(reply, Ticket)]
        assert len(tickets) == most
        assert {reply.refusals[0].reason for reply in granted if isinstance(reply, Refused)} == {"half_open"}
        settle(store, tickets.pop(0))
        for ticket in tickets:
            settle(store, ticket, K.CANCELLED)
        tickets.clear()
    assert store.status(item)["circuit"] == "closed"


def test_a_lost_probe_frees_its_permit_by_itself(store, clock):
    """A probe whose process died is replaced after its lease of 30 s, and what it says later changes nothing."""
    item = target("a")
    opened(store, item)
    clock.advance(61.0)
    lost = admitted(store, item)
    assert refused(store, item) == [("half_open", 30.0)]
    clock.advance(30.0)
    again = admitted(store, item)
    settle(store, lost, K.SERVER_ERROR)
    assert store.status(item)["circuit"] == "half_open"
    settle(store, again)
    assert store._route(item).circuit.successes == 1


def test_a_renewed_probe_keeps_its_permit(store, clock):
    """Renewed after 20 s for 30 s, it still counts after 45."""
    item = target("a")
    opened(store, item)
    clock.advance(61.0)
    probe = admitted(store, item)
    assert (probe.probe, probe.leased, probe.half_opens) == (True, True, True)
    clock.advance(20.0)
    store.renew(probe, 30.0)
    clock.advance(25.0)
    settle(store, probe)
    assert store._route(item).circuit.successes == 1
    assert admitted(store, item).half_opens is False


@pytest.mark.parametrize("kind", [None, K.SERVER_ERROR])
def test_a_report_of_another_generation_changes_no_circuit(store, clock, kind):
    """It was admitted while the circuit was closed; now it is open, or half-open: neither learns anything."""
    item = target("a")
    old, older = admitted(store, item), admitted(store, item)
    opened(store, item)
    before = store._route(item).circuit
    settle(store, old, kind)
    assert store._route(item).circuit == before
    clock.advance(61.0)
    admitted(store, item)
    before = store._route(item).circuit
    settle(store, older, kind)
    assert store._route(item).circuit == before


def test_what_belongs_to_a_provider_is_shared_by_its_accounts(store):
    """A second credential sees the circuit that the first one opened."""
    opened(store, target("a", account="one"))
    assert refused(store, target("a", account="two")) == [("circuit_open", 60.0)]


def test_all_open_probes_the_soonest_early(store, clock):
    """Only where that is wanted, once in 5 s and provider, and only if open circuits are all that is the matter."""
    a, b = target("a"), target("b")
    opened(store, b)
    clock.advance(10.0)
    opened(store, a)
    assert refused(store, a, b) == [("circuit_open", 60.0), ("circuit_open", 50.0)]
    early = admitted(store, a, b, looks_early=True)
    assert (early.target, early.probe) == (b, True)
    settle(store, early, K.SERVER_ERROR)
    settle(store, admitted(store, a, b, looks_early=True), K.SERVER_ERROR)
    assert {reason for reason, _ in refused(store, a, b, looks_early=True)} == {"circuit_open"}
    clock.advance(5.0)
    store.override(b, "forced_open")
    assert [reason for reason, _ in refused(store, a, b, looks_early=True)] == ["circuit_open", "forced_open"]


def test_a_reset_lets_requests_flow_at_once(store):
    """Open by itself and by hand, and its credential blocked: all of it is forgotten, and what ran before then counts no more."""
    item = target("a")
    late, refused_key = admitted(store, item), admitted(store, item)
    opened(store, item)
    settle(store, refused_key, K.AUTH)
    store.override(item, "forced_open")
    assert store.reset(item) == (CircuitChanged("a", "open", "closed", "reset"),)
    settle(store, late, K.SERVER_ERROR)
    status = store.status(item)
    assert (status["circuit"], status["override"], status["blocked"], status["failures_in_a_row"]) == (
        "closed", None, None, 0,
    )  # fmt: skip
    under_way = admitted(store, item)
    assert not under_way.probe
    assert store.reset(item) == ()
    settle(store, under_way, K.SERVER_ERROR)
    assert store.status(item)["failures_in_a_row"] == 0


def test_a_reset_of_the_circuit_alone_keeps_the_block(store):
    """Without `blocks` a refused key stays left alone: nobody has vouched for it."""
    item = target("a")
    settle(store, admitted(store, item), K.AUTH)
    store.reset(item, blocks=False)
    assert refused(store, item) == [("auth", 300.0)]


def test_an_unknown_override_names_the_right_ones(store):
    """An error at once, with the nearest word."""
    with pytest.raises(SettingsError, match="did you mean 'forced_open'"):
        store.override(target("a"), "force_open")


# ------------------------------------------------------------------------------------------------------------ concurrency
def test_concurrency_leases_lapse(store, clock):
    """Two of two places are held by calls that never report; after 30 s both are free."""
    item = limited(concurrency=2)
    admitted(store, item)
    clock.advance(10.0)
    admitted(store, item)
    assert refused(store, item) == [("concurrency", 20.0)]
    clock.advance(20.0)
    admitted(store, item)
    assert refused(store, item) == [("concurrency", 10.0)]


def test_concurrency_leases_are_renewed(store, clock):
    """A call that renews keeps its place; one that has lapsed does not get it back."""
    item = limited(concurrency=1)
    ticket = admitted(store, item)
    for _ in range(5):
        clock.advance(20.0)
        store.renew(ticket, 30.0)
    assert refused(store, item) == [("concurrency", 30.0)]
    clock.advance(30.0)
    store.renew(ticket, 30.0)
    admitted(store, item)


def test_lanes_leave_places_free(store):
    """Of ten places batch may hold six and replay five; interactive all."""
    item = limited(concurrency=10)
    for lane, most in (("replay", 5), ("batch", 6), ("interactive", 10)):
        while isinstance(store.admit(ask_for(item, lane=lane)), Ticket):
            pass
        assert store.status(item)["running"] == most


def test_a_lane_s_share_of_few_places_is_rounded_down(store, clock):
    """Of three places batch may hold one, whether or not lapsed leases are still counted."""
    item = limited(concurrency=3)
    lost = admitted(store, item)
    clock.advance(31.0)
    assert isinstance(store.admit(ask_for(item, lane="batch")), Ticket)
    assert store.admit(ask_for(item, lane="batch")).refusals[0].reason == "concurrency"
    settle(store, lost)
    assert store.admit(ask_for(item, lane="batch")).refusals[0].reason == "concurrency"


# ------------------------------------------------------------------------------------------------------------------ lines
def test_a_big_request_is_not_starved_by_small_ones(store, clock):
    """It waits for 500 tokens while small ones keep coming: they stand behind it, and it goes first."""
    item = limited(tpm=6000)  # 100 tokens a second, a bucket of 1,000
    admitted(store, item, input_tokens=1000, max_output=0)
    big = ask_for(item, input_tokens=500, max_output=0, patience=60.0)
    waiting = store.admit(big)
    assert isinstance(waiting, Queued) and waiting.seconds == pytest.approx(5.0)
    small = []
    for _ in range(49):
        clock.advance(0.1)
        small.append(ask_for(item, input_tokens=10, max_output=0, patience=60.0))
        assert isinstance(store.admit(small[-1]), Queued)
    clock.advance(0.2)
    assert isinstance(store.admit(small[0]), Queued)
    assert isinstance(store.admit(big), Ticket)
    assert store.status(item)["waiting"] == 49


def test_only_the_front_waits_for_a_time(store, clock):
    """The first is told when the limit lets it through; the others wait to be woken, or for their patience."""
    item = limited(rpm=10, burst=1)
    admitted(store, item)
    first, second, third = (queued(store, item) for _ in range(3))
    assert first.seconds == 6.0
    # The second would find out by itself if the first had died.
    assert (second.seconds, third.seconds) == (10.0, 10.0)


def test_whoever_becomes_the_front_is_woken(store):
    """When the front leaves, or gets its place, the next one is called."""
    item = limited(concurrency=1)
    running = admitted(store, item)
    woken = []
    asks = [ask_for(item, patience=60.0) for _ in range(3)]
    places = [store.admit(ask).place for ask in asks]
    for number, place in enumerate(places):
        place.wake = lambda number=number: woken.append(number)
    store.leave(places[0])
    assert woken == [1]
    settle(store, running)
    assert woken == [1, 1]
    running = store.admit(asks[1])
    assert isinstance(running, Ticket)
    assert woken == [1, 1, 2]
    settle(store, running)
    settle(store, store.admit(asks[2]))
    assert left_over(store) == {}


def test_the_places_of_the_dead_lapse(store, clock):
    """A front that vanished holds nobody up for longer than its own patience; those behind are woken past it."""
    item = limited(concurrency=1, max_wait=10.0)
    running = admitted(store, item)
    queued(store, item)
    clock.advance(4.0)
    alive = ask_for(item, patience=60.0)
    assert store.admit(alive).seconds == pytest.approx(6.0, abs=1e-3)
    clock.advance(6.001)
    woken = []
    store._account(item).line[1].wake = lambda: woken.append(1)
    settle(store, running)
    assert woken == [1]
    assert isinstance(store.admit(alive), Ticket)


def test_a_waiter_whose_patience_is_over_is_refused_and_leaves(store, clock):
    """Its own place lapses with it."""
    item = limited(concurrency=1, max_wait=10.0)
    admitted(store, item)
    ask = ask_for(item, patience=60.0)
    assert store.admit(ask).seconds == 10.0
    clock.advance(10.0)
    assert isinstance(store.admit(ask), Refused)
    assert store.status(item)["waiting"] == 0


def test_nobody_stands_in_two_lines(store, clock):
    """Waiting at `a`, a request that asks again is not put into `b`'s line as well, though that may be shorter by now."""
    a, b = limited("a", concurrency=1), limited("b", concurrency=1)
    running = admitted(store, a)
    clock.advance(1.0)
    admitted(store, b)
    ask = ask_for(a, b, patience=60.0)
    assert store.admit(ask).place.target is a
    store.renew(running, 60.0)
    assert store.admit(ask).place.target is a
    assert (store.status(a)["waiting"], store.status(b)["waiting"]) == (1, 0)


def test_the_impatient_are_refused(store):
    """Without patience nobody is put in a line."""
    item = limited(concurrency=1, on_limit="wait")
    admitted(store, item)
    assert refused(store, item) == [("concurrency", 30.0)]
    assert store.status(item)["waiting"] == 0


def test_a_line_bars_newcomers(store, clock):
    """Even when the limit has room again, who comes now stands behind those who wait."""
    item = limited(rpm=10, burst=1)
    admitted(store, item)
    queued(store, item)
    clock.advance(6.0)
    assert refused(store, item) == [("line", 0.0)]


def test_a_line_tells_the_wait_to_the_microsecond(store, clock):
    """Not one less, as seconds in a float would have it: 60 s / 7 are 8.571429 s, less what has passed."""
    item = limited(rpm=7, burst=1)
    admitted(store, item)
    queued(store, item)
    clock.advance(0.184)
    assert refused(store, item) == [("line", 8.387429)]


# ----------------------------------------------------------------------------------------------------------------- reports
def test_reports_are_idempotent(store):
    """A second report of the same attempt, of whatever kind, changes nothing (I6)."""
    item = limited(tpm=6000, concurrency=5)
    ticket = admitted(store, item, input_tokens=100, max_output=500)
    settle(store, ticket, K.SERVER_ERROR)
    after = store.status(item)
    for kind in (None, K.SERVER_ERROR, K.CANCELLED, K.AUTH):
        settle(store, ticket, kind, never_sent=True)
        store.opened(ticket, 1.0)
    assert store.status(item) == after


def test_first_contents_are_idempotent(store):
    """A second `opened` of a stream adds no second sample."""
    item = target("a")
    ticket = admitted(store, item, stream=True)
    for _ in range(3):
        store.opened(ticket, 1.0)
    assert store._route(item).latency.streams.summary.answers == 1
    settle(store, ticket, first_token=1.0)
    assert store._route(item).latency.streams.summary.answers == 1


def test_the_dead_report_nothing(store):
    """An attempt that this store never admitted is answered with the circuit's state, and leaves no trace."""
    item = target("a")
    stranger = admitted(MemoryStore(lambda: 0.0, lambda: 0.5), item)
    assert settle(store, stranger, K.SERVER_ERROR).phase == "closed"
    assert store.status(item)["failures_in_a_row"] == 0


# ------------------------------------------------------------------------------------------------------------------ views
def test_an_unknown_provider_is_calm(store):
    """Nothing is known, so nothing is the matter; and looking makes nothing."""
    (view,) = store.look(Look((target("a"),), stream=False, max_output=None))
    assert view == type(view)()
    assert store._routes == {}


def test_the_view_of_an_open_one(store, clock):
    """Not available until its time is over."""
    item = target("a")
    opened(store, item)
    assert not store.look(Look((item,), stream=False, max_output=None))[0].available
    clock.advance(60.0)
    assert store.look(Look((item,), stream=False, max_output=None))[0].available


@pytest.mark.parametrize(("mode", "available"), [("forced_open", False), ("disabled", True), ("metrics_only", True)])
def test_the_view_of_an_overridden_one(store, mode, available):
    """An override has the last word."""
    item = target("a")
    if available:
        opened(store, item)
    store.override(item, mode)
    assert store.look(Look((item,), stream=False, max_output=None))[0].available is available


def test_the_view_of_a_busy_one(store):
    """Its load is a share of its concurrency; its p50 that of its answers, once there are 20 of the last minute."""
    item = limited(concurrency=4)
    for _ in range(20):
        (view,) = store.look(Look((item,), stream=False, max_output=None))
        assert view.p50 is None
        settle(store, admitted(store, item), seconds=2.0)
    for _ in range(2):
        admitted(store, item)
    (view,) = store.look(Look((item,), stream=False, max_output=None))
    assert (view.load, view.p50) == (0.5, pytest.approx(2.0, rel=0.02))


def test_a_report_from_within_a_step_is_made_after_it(store):
    """The garbage collector may close a stream in the middle of a step: its report waits for the end, instead of for ever."""
    item = limited(concurrency=1)
    ticket = admitted(store, item)
    with store._turn:
        assert store.settle(ticket, Report()).changes == ()
        assert store._account(item).leases
    until(lambda: not store._account(item).leases, "it is made")
    assert admitted(store, item)


def test_whoever_gets_a_place_leaves_the_line(store, clock):
    """However it came by it: a request in line that is let in early, or to look at a slow provider, leaves no ghost behind."""
    item = limited(rpm=60, burst=1, on_limit="wait")
    admitted(store, item)
    place = queued(store, item, attempt=7, patience=5.0).place
    clock.advance(1.0)
    assert admitted(store, item, attempt=7, explore=item)
    assert place not in store._account(item).line


def test_a_forked_child_owes_nothing(store):
    """What runs and waits is the parent's, and nobody holds the lock."""
    item = limited(concurrency=1)
    admitted(store, item)
    store._turn.__enter__()
    store.forked()
    assert admitted(store, item)


# ------------------------------------------------------------------------------------------------------------------- people
def test_the_status_for_people(store, clock):
    """Seconds and shares, rounded where it helps."""
    item = target("a", limits=RateLimits(rpm=60, burst=10, concurrency=4), circuit=Circuit(failure_threshold=2))
    settle(store, admitted(store, item), seconds=2.0)
    admitted(store, item)
    status = store.status(item)
    assert {key: status[key] for key in ("circuit", "override", "probes_in", "in_flight", "running", "waiting")} == {
        "circuit": "closed", "override": None, "probes_in": None, "in_flight": 1, "running": 1, "waiting": 0,
    }  # fmt: skip
    assert (status["limits_free"], status["limits_scale"]) == ({"rpm": 0.8}, 1.0)
    opened(store, item)
    clock.advance(20.0)
    assert store.status(item)["probes_in"] == 40.0


def test_one_store_per_namespace():
    """Models of one process and namespace share it; another namespace is apart."""
    assert memory_store("test-one") is memory_store("test-one")
    assert memory_store("test-one") is not memory_store("test-two")


def test_conflicting_settings_are_noticed(store):
    """The first model's settings are remembered; another with the same is fine, one with others is told."""
    assert not store.conflicts(limited(rpm=10))
    assert not store.conflicts(limited(rpm=10))
    assert store.conflicts(limited(rpm=11))

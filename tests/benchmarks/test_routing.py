"""The simulation of `benchmarks/routing.py`: its time, its providers, the rules of others, and what ours must reach in it."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
from routings import scenario
from routings.providers import FLEET, Ask, Model, Server, traffic
from routings.rules import LiteLLM, LowestP99, LowestQuantile, Oracle, PeakEwma
from routings.scenario import PHASES, Fate, measured, run
from routings.timeline import LoopClock, VirtualLoop, simulate

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "routing.py"
ASK = Ask(0, 0.0, 100, 500, (1.0, 1.0))


# ---------------------------------------------------------------------------------------------------------------- time


def in_virtual_time(story):
    """Run a story that takes the loop; returns the simulated seconds it took."""
    loop = VirtualLoop()
    simulate(story(loop), loop)
    return loop.time()


def test_an_hour_passes_at_once():
    """Where everybody waits, time jumps to the next timer, in order."""
    seen = []

    async def story(loop):
        async def one(seconds):
            await asyncio.sleep(seconds)
            seen.append((seconds, loop.time()))

        await asyncio.gather(*[one(seconds) for seconds in (3600.0, 0.5, 60.0)])

    assert in_virtual_time(story) == pytest.approx(3600.0)
    assert seen == [(seconds, pytest.approx(seconds)) for seconds in (0.5, 60.0, 3600.0)]


def test_a_simulation_that_hangs_says_so():
    """Everybody waits for nothing: an error, not a test that never ends."""

    async def story(loop):
        await loop.create_future()

    loop = VirtualLoop()
    with pytest.raises(RuntimeError, match="hangs"):
        loop.run_until_complete(story(loop))


def test_the_clock_sleeps_in_the_loops_time():
    """`asleep` ends after its seconds, or when it is woken."""

    async def story(loop):
        clock, event = LoopClock(loop), asyncio.Event()
        await clock.asleep(5.0)
        loop.call_later(2.0, event.set)
        await clock.asleep(60.0, event)

    assert in_virtual_time(story) == pytest.approx(7.0)


# ----------------------------------------------------------------------------------------------------------- providers


def served(model, *works, slowdown=1.0):
    """When so many requests of so many seconds of work each end, all begun at once."""
    ends = [0.0] * len(works)

    async def story(loop):
        server = Server(model, loop)
        server.slowdown = slowdown

        async def one(number, seconds):
            await server.begin()
            await server.work(seconds)
            server.end()
            ends[number] = loop.time()

        await asyncio.gather(*[one(number, seconds) for number, seconds in enumerate(works)])
        assert server.present == 0

    in_virtual_time(story)
    return [pytest.approx(end) for end in ends]


TWO = Model("two", first=1.0, pace=0.01, knee=2, slots=4)


def test_up_to_the_knee_nobody_notices_the_others():
    """Two at a time run at full speed."""
    assert served(TWO, 3.0, 1.0) == [3.0, 1.0]


def test_beyond_the_knee_all_share():
    """Four that need 1 s each take 2 s where two run at full speed; if one needs 2 s, it runs alone from then on."""
    assert served(TWO, 1.0, 1.0, 1.0, 1.0) == [2.0] * 4
    assert served(TWO, 1.0, 1.0, 1.0, 2.0) == [2.0, 2.0, 2.0, 3.0]


def test_beyond_the_slots_they_stand_in_a_line():
    """The fifth begins when the first four end."""
    assert served(TWO, 1.0, 1.0, 1.0, 1.0, 1.0) == [2.0, 2.0, 2.0, 2.0, 3.0]


def test_a_brownout_slows_everybody():
    """Eight times slower: 1 s takes 8."""
    assert served(TWO, 1.0, slowdown=8.0) == [8.0]


def test_a_speed_that_changes_midway():
    """Half of the work before the brownout, half in it: 1 + 8 s."""
    ends = []

    async def story(loop):
        server = Server(TWO, loop)
        loop.call_later(1.0, setattr, server, "slowdown", 8.0)
        await server.begin()
        await server.work(2.0)
        server.end()
        ends.append(loop.time())

    in_virtual_time(story)
    assert ends == [pytest.approx(9.0)]


def test_who_gives_up_leaves_the_place_to_others():
    """One cancelled in the line is passed over, and one cancelled at work gives its place back."""

    async def story(loop):
        server = Server(Model("one", 1.0, 0.01, 1, 1), loop)
        order = []

        async def one(name):
            await server.begin()
            try:
                await server.work(10.0)
                order.append((name, loop.time()))
            finally:
                server.end()

        tasks = [asyncio.ensure_future(one(name)) for name in "abc"]
        await asyncio.sleep(1.0)
        tasks[1].cancel()
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [("c", pytest.approx(11.0))]
        assert server.present == 0

    in_virtual_time(story)


def test_traffic_is_what_the_docstring_says():
    """About `rate` a second, seven of ten short, none longer than allowed; the same for the same seed."""
    asks = traffic(random.Random(1), 14.0, 1000.0)
    assert asks == traffic(random.Random(1), 14.0, 1000.0)
    assert len(asks) == pytest.approx(14_000, rel=0.03)
    assert sum(ask.allowed == 500 for ask in asks) / len(asks) == pytest.approx(0.7, abs=0.02)
    assert all(5 <= ask.tokens <= ask.allowed for ask in asks)
    assert sum(model.capacity for model in FLEET) == pytest.approx(10_350, rel=0.01)


# --------------------------------------------------------------------------------------------------------------- rules


def rule(kind, *, stream=True, count=2, **settings):
    """A rule over so many providers that are not there."""
    made = kind([None] * count, random.Random(1), stream=stream)
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def chosen(made, now=0.0, times=20):
    """Whom it chooses, in so many choices."""
    return {made.choose(ASK, now) for _ in range(times)}


def test_litellm_takes_an_unused_one_for_instant():
    """Nothing known: any; one known: the other, until its first answer, however many are in flight there."""
    made = rule(LiteLLM)
    assert chosen(made) == {0, 1}
    made.ended(0, 0.01, 0.02, 100, 1.0)
    assert chosen(made, 1.0) == {1}


def test_litellm_goes_by_first_tokens_for_streams():
    """The mean of the last ten seconds to first tokens; the whole answer is no matter."""
    made = rule(LiteLLM)
    for _ in range(10):
        made.ended(0, 0.2, 99.0, 100, 1.0)
        made.ended(1, 0.3, 1.0, 100, 1.0)
    assert chosen(made, 1.0) == {0}
    made.ended(0, 1.3, 1.0, 100, 1.0)  # 0.31 on average
    assert chosen(made, 1.0) == {1}


def test_litellm_goes_by_seconds_a_token_otherwise():
    """10 s for 1000 tokens is faster than 2 s for 100."""
    made = rule(LiteLLM, stream=False)
    for _ in range(10):
        made.ended(0, 10.0, 10.0, 1000, 1.0)
        made.ended(1, 2.0, 2.0, 100, 1.0)
    assert chosen(made, 1.0) == {0}


def test_litellm_keeps_the_zero_of_one_that_was_unused():
    """Once looked at it holds a 0, which halves its first answer: 0.03 s a token counts 0.015 against 0.02."""
    made = rule(LiteLLM, stream=False)
    made.ended(0, 2.0, 2.0, 100, 1.0)
    chosen(made, 1.0)
    made.ended(1, 3.0, 3.0, 100, 1.0)
    assert chosen(made, 1.0) == {1}


def test_litellm_forgets_an_hour_after_the_last_answer():
    """The ttl is set anew at each answer, so with traffic nothing is ever forgotten."""
    made = rule(LiteLLM)
    made.ended(0, 0.1, 0.2, 100, 0.0)
    made.ended(1, 9.0, 9.0, 100, 3000.0)
    assert chosen(made, 6600.0) == {0}
    assert chosen(made, 6601.0) == {0, 1}


def test_peak_ewma_takes_a_peak_at_once_and_forgets_in_ten_seconds():
    """1 s, then a peak of 5 s counts as 5; ten seconds on it counts 5/e = 1.84, less than 2 · 1."""
    made = rule(PeakEwma)
    made.ended(0, 0.1, 1.0, 100, 0.0)
    made.ended(0, 0.1, 5.0, 100, 0.0)
    made.ended(1, 0.1, 2.0, 100, 0.0)
    assert chosen(made, 0.0) == {1}
    made.ended(1, 0.1, 2.0, 100, 10.0)
    assert chosen(made, 10.0) == {0}


def test_peak_ewma_counts_those_pending():
    """1 s with two pending is 3; 2 s idle is 2; an unknown one that is busy is avoided."""
    made = rule(PeakEwma, pending=[2, 0])
    made.ended(0, 0.1, 1.0, 100, 0.0)
    made.ended(1, 0.1, 2.0, 100, 0.0)
    assert chosen(made, 0.0) == {1}
    assert chosen(rule(PeakEwma, pending=[3, 0]), 0.0) == {1}


def test_lowest_quantiles():
    """Half 1 s and half 9 s has the p50 of 9 s and the p99 of 9 s; steady 5 s beats it by both, until 120 s have passed."""
    for kind in (LowestQuantile, LowestP99):
        made = rule(kind)
        for total in (1.0, 9.0):
            made.ended(0, 0.1, total, 100, 0.0)
        made.ended(1, 0.1, 5.0, 100, 0.0)
        assert chosen(made, 120.0) == {1}
        assert chosen(made, 121.0) == {0, 1}


def test_the_oracle_sees_crowds_and_brownouts():
    """100 tokens: 1.9 s at the first, 1.9 s at the second; a brownout, or a crowd of twice the knee, and it is the other."""
    loop = VirtualLoop()
    models = [Model("a", 1.0, 0.009, 2, 9), Model("b", 1.0, 0.01, 2, 9)]
    servers = [Server(model, loop) for model in models]
    oracle = Oracle(servers, random.Random(1), stream=True)
    assert oracle.choose(ASK, 0.0) == 0
    servers[0].slowdown = 8.0
    assert oracle.choose(ASK, 0.0) == 1
    loop.close()


# ------------------------------------------------------------------------------------------------------------ scenario


def test_numbers_by_hand():
    """Four requests in two windows of five seconds: shares, the largest share in a window, and how far they moved."""
    start = PHASES["calm"][0]
    fates = [
        Fate(start + 1, 0, 0.1, 1.0, crowded=True),
        Fate(start + 2, 0, 0.2, 2.0, crowded=False),
        Fate(start + 6, 0, 0.3, 3.0, crowded=False),
        Fate(start + 7, 1, 0.4, 4.0, crowded=False, extra=2),
        Fate(start - 1, 2, 9.0, 9.0, crowded=True),
    ]
    numbers = measured([fates], "calm")
    assert numbers == (4, 3.0, 4.0, 0.3, 0.4, (0.75, 0.25, 0.0), 1.0, 0.5, 0.25, 0.5)


@pytest.fixture(scope="module")
def fourteen():
    """Two rules through one seed at 14 requests a second, streamed."""
    return {name: run(name, 1, 14.0, stream=True) for name in ("LiteLLM latency", "ours: latency")}


def test_all_rules_meet_the_same_users(fourteen):
    """Every arrival is answered and counted, whoever routes."""
    arrivals = [sorted(fate.at for fate in fates) for fates in fourteen.values()]
    assert arrivals[0] == arrivals[1]
    assert len(arrivals[0]) == len(traffic(random.Random(1), 14.0, scenario.END))


def test_a_run_depends_on_its_seed_alone():
    """The same again, to the last digit."""
    assert run("random", 3, 6.0, stream=False) == run("random", 3, 6.0, stream=False)


@pytest.mark.parametrize(("phase", "most"), [("calm", 0.5), ("after", 0.5), ("brownout", 0.8), ("whole", 0.6)])
def test_our_p99_beside_litellms(fourteen, phase, most):
    """At 14 a second at most half of LiteLLM's when calm and after a brownout; in it, those sent before anybody could know count too."""
    theirs, ours = (measured([fourteen[name]], phase) for name in ("LiteLLM latency", "ours: latency"))
    assert ours.p99 <= most * theirs.p99
    assert ours.crowded <= 0.75 * theirs.crowded


def test_nobody_herds(fourteen):
    """Fewer change sides from one five seconds to the next than by LiteLLM's rule, and the best one is left again after the brownout."""
    theirs, ours = (measured([fourteen[name]], "calm") for name in ("LiteLLM latency", "ours: latency"))
    assert ours.swing <= 0.6 * theirs.swing
    assert ours.herd < 1.0
    assert measured([fourteen["ours: latency"]], "brownout").shares[0] < 0.1
    assert measured([fourteen["ours: latency"]], "after").shares[0] > 0.4


@pytest.mark.e2e
def test_the_command():
    """One command prints all rules' numbers as JSON."""
    command = [sys.executable, str(SCRIPT), "--rate", "2", "--seeds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.keys() == {"2"}
    assert set(found["2"]) == set(PHASES)
    assert {"LiteLLM latency", "oracle", "ours: latency", "ours: priority, max_latency"} <= set(found["2"]["calm"])
    assert done.stderr == ""

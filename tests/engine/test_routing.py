"""In which order the providers are asked; randomness is a parameter. At the end, the four modes on a store that learns."""

import math
import random
from collections import Counter
from itertools import product

import pytest

from langchain_resilient.engine.policy import Price
from langchain_resilient.engine.routing import CALM, ROUTINGS, Standing, View, rank
from tests.engine.harness import Chunk, Step, World, target

PLAIN = [Standing(priority, 1.0, 0.0) for priority in range(5)]


def never():
    """Random numbers that nobody may ask for."""
    raise AssertionError("this mode needs no randomness here")


def order(views, routing="priority", standings=PLAIN, rand=never, last=None):
    """The order for as many candidates as there are views."""
    return rank(standings[: len(views)], views, routing, rand, last).order


def taking(*numbers):
    """Random numbers, given out in turn."""
    return iter(numbers).__next__


def predicted(*seconds, **rest):
    """Views that differ in their prediction."""
    return [View(predicted=value, **rest) for value in seconds]


def test_the_modes():
    """The words of DESIGN §5."""
    assert ROUTINGS == ("priority", "latency", "cost", "weighted")


def test_priority_keeps_the_order():
    """In "priority" the healthy are asked as given, whatever their speed."""
    assert order(predicted(9.0, 1.0, None)) == (0, 1, 2)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("bad", [View(hot=True), View(slow=True), View(available=False)])
def test_the_unwell_come_last_in_every_mode(routing, bad):
    """A hot, slow, open or blocked one is asked after the healthy, and is never left out."""
    assert order([bad, CALM, CALM], routing, rand=taking(0.9, 0.5, 0.4)) == (1, 2, 0)


def test_three_tiers():
    """Healthy, then slow or hot (in their order), then what the store will refuse, even if that is slow too."""
    views = [View(available=False), View(hot=True), CALM, View(slow=True), View(available=False, slow=True)]
    assert order(views) == (2, 1, 3, 0, 4)


def test_if_all_are_unwell_all_are_asked():
    """An order is never a refusal."""
    assert order([View(available=False)] * 3) == (0, 1, 2)
    assert order([View(hot=True)]) == (0,)


@pytest.mark.parametrize(("routing", "preferred"), [("priority", 0), ("cost", 1)])
def test_a_fallback_is_a_fallback_from_the_one_preferred(routing, preferred):
    """`preferred` is the one that would be first if all were well."""
    standings = [Standing(0, 1.0, 0.03), Standing(1, 1.0, 0.01), Standing(2, 1.0, 0.02)]
    views = [View(available=False), View(hot=True), CALM]
    ranking = rank(standings, views, routing, never)
    assert (ranking.preferred, ranking.order[0]) == (preferred, 2)


# ---------------------------------------------------------------------------------------------------------------- cost


def test_the_cheapest_that_is_fast_enough():
    """In "cost" the cheapest comes first, unless it is too slow; equals keep their order."""
    standings = [Standing(0, 1.0, 0.03), Standing(1, 1.0, 0.01), Standing(2, 1.0, 0.03), Standing(3, 1.0, 0.0)]
    assert order([CALM] * 4, "cost", standings) == (3, 1, 0, 2)
    assert order([CALM, CALM, CALM, View(slow=True)], "cost", standings) == (1, 0, 2, 3)


def test_an_unknown_cost_is_not_a_low_one():
    """Whose cost nobody stated is asked after all whose cost is known, free ones included; if none is known, as given."""
    standings = [Standing(0, 1.0, math.inf), Standing(1, 1.0, 5.0), Standing(2, 1.0, 0.0), Standing(3, 1.0, math.inf)]
    assert order([CALM] * 4, "cost", standings) == (2, 1, 0, 3)
    assert order([CALM] * 2, "cost", [standings[0], standings[3]]) == (0, 1)


def test_the_cheapest_first_even_among_the_slow():
    """If nobody meets `max_latency` the cheapest is asked: it ranks, it refuses nobody."""
    standings = [Standing(0, 1.0, 0.03), Standing(1, 1.0, 0.01)]
    assert order([View(slow=True)] * 2, "cost", standings) == (1, 0)
    assert order([View(available=False), View(slow=True)], "cost", standings) == (1, 0)


# ------------------------------------------------------------------------------------------------------------- latency


def test_the_fastest_first_by_predicted_latency():
    """Up to three candidates are asked by predicted latency; the p50 alone decides nothing."""
    views = [View(predicted=3.0, p50=0.1), View(predicted=1.0, p50=0.9), View(predicted=2.0, p50=0.5)]
    assert order(views, "latency") == (1, 2, 0)


def test_load_counts():
    """Latency times (1 + load): 1.0 s at half load is 1.5, more than 1.4 s idle."""
    assert order([View(predicted=1.0, load=0.5), View(predicted=1.4)], "latency") == (1, 0)


def test_one_that_never_answered_is_tried():
    """Unknown is taken for instant, so that it becomes known."""
    assert order(predicted(1.0, None), "latency") == (1, 0)


def test_an_unknown_one_is_tried_by_one_request_at_a_time():
    """While somebody tries it, the others take it for as fast as the middle one (2 s) and fuller: 2.02 s."""
    views = [View(predicted=3.0), View(load=0.01), View(predicted=2.0), View(predicted=1.0, hot=True)]
    assert order(views, "latency") == (2, 1, 0, 3)


def test_of_those_nobody_knows_the_emptiest_is_tried():
    """At the start requests spread by how many are in flight, or the first would get all of them until its first answer."""
    assert order([View(load=0.02), View(load=0.01), View(load=0.03)], "latency") == (1, 0, 2)
    assert order([View(load=0.01), View(), View()], "latency") == (1, 2, 0)


@pytest.mark.parametrize(("other", "first"), [(0.95, 0), (0.901, 0), (0.9, 1), (0.5, 1), (1.5, 0)])
def test_hysteresis(other, first):
    """The last choice (1.0 s) is left only for one that is 10 % better."""
    assert order(predicted(1.0, other), "latency", last=0)[0] == first


def test_the_last_choice_is_kept_before_all_others():
    """The rest follow by latency."""
    assert order(predicted(0.97, 1.0, 0.95), "latency", last=1) == (1, 2, 0)


@pytest.mark.parametrize("unwell", [View(predicted=1.0, hot=True), View(predicted=1.0, available=False)])
def test_an_unwell_last_choice_is_left(unwell):
    """Hysteresis holds among the healthy only."""
    assert order([unwell, View(predicted=1.05)], "latency", last=0) == (1, 0)
    assert rank(PLAIN[:2], [unwell, View(predicted=0.99)], "latency", never, 0).preferred == 1


def test_a_last_choice_that_is_gone():
    """None or an index of no candidate changes nothing."""
    assert order(predicted(2.0, 1.0), "latency", last=None) == (1, 0)
    assert order(predicted(2.0, 1.0), "latency", last=7) == (1, 0)


def test_power_of_two_choices_from_four_on():
    """The better of two random ones comes first, the rest by latency: of by-speed places 3 and 1 it is place 1."""
    views = predicted(4.0, 3.0, 2.0, 1.0)  # by speed: 3, 2, 1, 0
    # 0.8 · 4 = place 3 (candidate 0); 0.5 · 3 = place 1 (candidate 2)
    assert order(views, "latency", rand=taking(0.8, 0.5)) == (2, 3, 1, 0)
    # 0.0 · 4 = place 0 (candidate 3), the fastest
    assert order(views, "latency", rand=taking(0.0, 0.9)) == (3, 2, 1, 0)


def test_the_two_are_never_the_same():
    """All 4 · 3 draws make each pair twice: the fastest wins 6 of 12, then 4, then 2, and the slowest none."""
    views = predicted(1.0, 2.0, 3.0, 4.0)
    draws = product([0.1, 0.3, 0.6, 0.9], [0.1, 0.5, 0.9])
    firsts = Counter(order(views, "latency", rand=taking(*pair))[0] for pair in draws)
    assert firsts == {0: 6, 1: 4, 2: 2}


def test_nobody_herds_on_the_single_fastest():
    """From four on, one that is fastest by a hair gets half of the requests, not all of them; last time plays no part."""
    views = predicted(1.0, 1.001, 1.002, 1.003)
    grid = [number / 16 + 0.01 for number in range(16)]
    firsts = Counter(order(views, "latency", rand=taking(*pair), last=0)[0] for pair in product(grid, grid))
    assert firsts[0] / 256 == pytest.approx(0.5, abs=0.05)
    assert firsts[1] / 256 == pytest.approx(1 / 3, abs=0.05)


def test_two_choices_are_made_among_the_healthy():
    """Three healthy of five: no draw, and hysteresis holds; four of five: the sick one is never drawn first."""
    assert order([*predicted(1.0, 2.0, 3.0), *predicted(0.1, 0.2, hot=True)], "latency", last=0) == (0, 1, 2, 3, 4)
    views = [View(predicted=0.1, hot=True), *predicted(1.0, 2.0, 3.0, 4.0)]
    for pair in product([0.0, 0.3, 0.6, 0.99], [0.0, 0.5, 0.99]):
        assert order(views, "latency", rand=taking(*pair))[-1] == 0


def test_the_two_are_drawn_from_the_healthy_alone():
    """One sick among five takes no draw from the four healthy: all 4 · 3 draws, and the fastest still wins 6 of 12, not 4 of them."""
    for sick in (View(predicted=0.1, hot=True), View(predicted=9.0, available=False)):
        views = [sick, *predicted(1.0, 2.0, 3.0, 4.0)]
        draws = product([0.1, 0.3, 0.6, 0.9], [0.1, 0.5, 0.9])
        firsts = Counter(order(views, "latency", rand=taking(*pair))[0] for pair in draws)
        assert firsts == {1: 6, 2: 4, 3: 2}


def test_load_decides_between_the_two():
    """The faster one at full load loses against a slower idle one."""
    views = [View(predicted=1.0, load=1.0), View(predicted=1.5), *predicted(9.0, 9.0)]
    # by score: 1 (1.5), 0 (2.0), 2, 3; places 0 and 1
    assert order(views, "latency", rand=taking(0.0, 0.0))[0] == 1


# ------------------------------------------------------------------------------------------------------------ weighted


def test_weights_are_shares():
    """A weight of three against one is first three times in four: P(u^(1/3) > v) = 3/4, on a grid of 100 by 100."""
    standings = [Standing(0, 3.0, 0.0), Standing(1, 1.0, 0.0)]
    grid = [(number + 0.5) / 100 for number in range(100)]
    firsts = Counter(order([CALM] * 2, "weighted", standings, taking(*pair))[0] for pair in product(grid, grid))
    assert firsts[0] / 10_000 == pytest.approx(0.75, abs=0.005)


def test_all_candidates_are_drawn():
    """Keys 0.5^(1/1), 0.5^(1/2), 0.9^(1/1) = 0.5, 0.707, 0.9: the largest first."""
    standings = [Standing(0, 1.0, 0.0), Standing(1, 2.0, 0.0), Standing(2, 1.0, 0.0)]
    assert order([CALM] * 3, "weighted", standings, taking(0.5, 0.5, 0.9)) == (2, 1, 0)


def test_a_weight_of_nothing_is_a_reserve():
    """Weight 0 is asked only after all others, even if those drew 0."""
    standings = [Standing(0, 0.0, 0.0), Standing(1, 1.0, 0.0)]
    assert order([CALM] * 2, "weighted", standings, taking(0.0)) == (1, 0)


def shares(weights, views, draws=10_000):
    """How often each is asked first, in 10,000 draws of one seed."""
    standings = [Standing(number, weight, 0.0) for number, weight in enumerate(weights)]
    source = random.Random(7)
    firsts = Counter(order(views, "weighted", standings, source.random)[0] for _ in range(draws))
    return [firsts[number] / draws for number in range(len(weights))]


def test_shares_over_ten_thousand_draws():
    """Weights 5, 3, 2 and 0 are shares of 50, 30, 20 and 0 %, within three standard deviations (1.5 %)."""
    assert shares([5.0, 3.0, 2.0, 0.0], [CALM] * 4) == pytest.approx([0.5, 0.3, 0.2, 0.0], abs=0.015)


@pytest.mark.parametrize("unwell", [View(available=False), View(hot=True), View(slow=True)])
def test_the_share_of_a_failing_one_goes_to_the_others(unwell):
    """Of 5, 3 and 2 the first fails: 3 and 2 share in proportion, 60 and 40 %; the reserve of weight 0 still gets nothing."""
    assert shares([5.0, 3.0, 2.0, 0.0], [unwell, CALM, CALM, CALM]) == pytest.approx([0, 0.6, 0.4, 0], abs=0.015)
    assert shares([5.0, 0.0], [unwell, CALM]) == [0.0, 1.0]


# ---------------------------------------------------------------------------------------------------------- on a store


def late(seconds, count=1):
    """Streams whose first content takes so long."""
    return [Step((Chunk("x"), Chunk(finish="stop")), seconds)] * count


def streamed(world, count=1):
    """Put so many streams one after the other; returns who was asked, but for those that raced."""
    before = len(world.asked)
    for _ in range(count):
        assert world.ask(stream=True).error is None
    return world.asked[before:]


def test_max_latency_is_held_against_first_tokens_of_streams():
    """Twenty streams whose first content took 2.5 s, within a minute, against 2 s: the 21st asks the other first; whole answers don't."""
    script = [*late(2.5, 20), "from a"]
    world = World("sync", {"a": script, "b": ["from b"]}, [target("a", max_latency=2.0), target("b")], races=False)
    assert streamed(world, 20) == ["a"] * 20
    assert streamed(world) == ["b"]
    assert world.ask().text == "from a"


def test_twenty_samples_in_a_minute_are_needed():
    """Nineteen say nothing yet, nor do any number that come too seldom: every 4 s there are 15 in a minute."""
    world = World("sync", {"a": late(2.5), "b": ["from b"]}, [target("a", max_latency=2.0), target("b")])
    assert streamed(world, 20) == ["a"] * 20
    seldom = World("sync", {"a": late(4.0), "b": ["from b"]}, [target("a", max_latency=2.0), target("b")])
    assert streamed(seldom, 100) == ["a"] * 100


def test_a_slow_one_returns_at_four_fifths_and_is_looked_at_once_in_thirty_seconds():
    """Looks that take 1.7 s (of 2) leave it out, half a minute apart; at 1.5 s they follow one another and bring it back."""
    # The harness counts a losing probe from when the race was won, half a second in.
    script = [*late(2.5, 20), *late(0.5 + 1.7, 3), *late(0.5 + 1.5, 9)]
    world = World("sync", {"a": script, "b": late(0.5)}, [target("a", max_latency=2.0), target("b")])
    streamed(world, 20)

    def look():
        """One request that looks, its user answered by the other, and three that don't; then half a minute."""
        races = world.seen.count("Race")
        assert world.ask(stream=True).decision.provider == "b"
        world.land()
        assert streamed(world, 3) == (["a"] if not world.status("a")["slow"] else ["b"]) * 3
        assert world.seen.count("Race") == races + 1
        world.clock.advance(30.0)
        return world.status("a")["slow"]

    assert [look() for _ in range(3)] == [True] * 3
    # At 1.5 s the next look need not wait. The three slow ones weigh 0.35 + 0.5 + 0.71 = 1.56 by now, so two fast ones outweigh them.
    looks = 0
    while world.status("a")["slow"]:
        world.ask(stream=True)
        world.land()
        looks += 1
    assert looks == 2
    assert streamed(world) == ["a"]


def test_the_cheapest_is_asked_until_it_is_too_slow():
    """In "cost" the order is by price; one that is slower than its `max_latency` comes after those that are not."""
    cheap, dear = Price(1.0, 1.0), Price(3.0, 3.0)
    targets = [target("dear", price=dear), target("cheap", price=cheap, max_latency=2.0)]
    scripts = {"dear": late(0.5), "cheap": late(2.5)}
    world = World("sync", scripts, targets, routing="cost", races=False)
    assert streamed(world, 21) == ["cheap"] * 20 + ["dear"]


def test_equal_costs_keep_the_given_order():
    """Ties are settled by priority."""
    price = Price(1.0, 1.0)
    targets = [target("b", price=price), target("a", price=price)]
    assert streamed(World("sync", {"a": late(0.1), "b": late(0.1)}, targets, routing="cost"), 3) == ["b"] * 3


def test_the_fastest_is_found_and_kept():
    """In "latency" each is tried once, and then the fastest is asked: the others look again after half a minute without an answer."""
    world = World("sync", {"a": late(3.0), "b": late(1.0), "c": late(2.0)}, routing="latency")
    assert streamed(world, 3) == ["a", "b", "c"]
    assert streamed(world, 20) == ["b"] * 20


@pytest.mark.parametrize("routing", ["priority", "latency", "cost", "weighted"])
def test_a_lower_rung_goes_first_whatever_the_mode(routing):
    """Among those of one rung the mode decides; one that is well further down goes before one that is slow."""
    standings = [Standing(0, 1.0, 0.01, rung=1), Standing(1, 9.0, 0.02, rung=0), Standing(2, 1.0, 0.03, rung=0)]
    views = [CALM, CALM, CALM]
    order, preferred = rank(standings, views, routing, lambda: 0.5)
    assert order[-1] == 0 and preferred == order[0]
    slow = [CALM, View(slow=True), View(slow=True)]
    assert rank(standings, slow, routing, lambda: 0.5).order[0] == 0

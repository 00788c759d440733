"""In which order the providers are asked.

Rules of this file: pure; it sees one frozen view per candidate and returns an order, never a refusal: what may not be asked is decided by
the store, atomically, when the request is admitted. Randomness is a parameter.

Theory: in every mode the healthy come first, then those too slow or *hot* (silent), then those that are blocked or open, which the
store will refuse unless nothing else is left. Within that, "priority" keeps the given order; "latency" compares predicted latency times
load with 10 % hysteresis, and from four candidates on takes the better of two random ones (Mitzenmacher's power of two choices): the
single fastest would be chosen by everybody at once and stop being the fastest. "cost" asks the cheapest that is fast enough; those of
unknown cost come after all whose cost is known, and equals keep the given order.

Where candidates stand on different rungs (LiteLLM's `order`, and its fallback groups), the mode decides among those of one rung.

One that nobody knows, or has heard of lately, is tried by one request at a time: all others take it for as fast as the others usually are,
and fuller, until it has answered. Taken for instant by everybody, it would get every request until its first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

Routing = Literal["priority", "latency", "cost", "weighted"]
ROUTINGS: tuple[Routing, ...] = ("priority", "latency", "cost", "weighted")
HYSTERESIS = 0.9
MANY = 4


class View(NamedTuple):
    """What the store last knew of one candidate."""

    available: bool = True
    """Neither open nor blocked nor forced open, as far as is known."""
    hot: bool = False
    """Silent: see `latency`."""
    slow: bool = False
    """Its p50 exceeds `max_latency`."""
    explorable: bool = False
    """Slow, and due for the one request in 30 s that looks whether it still is."""
    p50: float | None = None
    """Seconds: to first token for streams, else in total; None unless there are enough fresh samples to go by."""
    predicted: float | None = None
    """Seconds to a whole answer; None: not known, or not any more."""
    load: float = 0.0
    """Requests in flight over the concurrency limit (or over 100 where there is none)."""
    tail: float | None = None
    """Seconds to first token at the quantile that was asked for; None unless there are enough fresh samples to go by."""
    late: bool = False
    """Whether many streams at once are later than 95 % of them were."""
    why: str = ""
    """Why it is not available."""

    @property
    def passed_over(self) -> str:
        """Why it is asked later than it would be; "" if it isn't."""
        return (
            (self.why or "unavailable") if not self.available else "silent" if self.hot else "slow" if self.slow else ""
        )


class Standing(NamedTuple):
    """What the settings say of one candidate."""

    priority: int
    weight: float
    cost: float
    """US dollars per 1000 tokens (≥ 0); `math.inf` where unknown."""
    rung: int = 0
    """Lower ones are asked earlier in every mode."""


CALM = View()
_T = TypeVar("_T")


class Ranking(NamedTuple):
    """In which order to ask."""

    order: tuple[int, ...]
    """The candidates' indices."""
    preferred: int
    """The one that would be first if all were well: what a fallback is a fallback from."""


def rank(
    standings: Sequence[Standing],
    views: Sequence[View],
    routing: Routing,
    rand: Callable[[], float],
    last: int | None = None,
) -> Ranking:
    """The order in which to ask the candidates.

    Args:
        standings: The settings of each candidate, sorted by priority already.
        views: What is known of each.
        routing: The mode.
        rand: Uniform in [0, 1).
        last: The first choice of the request before, which "latency" leaves only for one that is 10 % better.
    """
    order = list(range(len(standings)))
    if routing == "latency":
        order = _by_latency(order, views, rand, last)
    elif routing == "cost":
        order.sort(key=lambda index: standings[index].cost)
    elif routing == "weighted":
        order = _by_weight(order, standings, rand)
    if any(standing.rung for standing in standings):
        order.sort(key=lambda index: standings[index].rung)
    tiers = [_tier(view) for view in views]
    preferred = order[0]
    if any(tiers):
        order.sort(key=tiers.__getitem__)
    return Ranking(tuple(order), preferred)


def _tier(view: View) -> int:
    return 2 if not view.available else 1 if view.hot or view.slow else 0


def _scores(views: Sequence[View]) -> list[float]:
    """Per candidate the seconds to compare, lower is better."""
    known = sorted([view.predicted for view in views if view.predicted is not None])
    usual = known[len(known) // 2] if known else 1.0
    scores = []
    for view in views:
        seconds = view.predicted
        if seconds is None:
            seconds = 0.0 if view.load == 0.0 else usual
        scores.append(seconds * (1.0 + view.load))
    return scores


def _by_latency(order: list[int], views: Sequence[View], rand: Callable[[], float], last: int | None) -> list[int]:
    scores = _scores(views)
    by_score = sorted(order, key=scores.__getitem__)
    healthy = [index for index in by_score if _tier(views[index]) == 0]
    if len(healthy) >= MANY:
        first, second = _two_of(healthy, rand)
        best = min(first, second, key=scores.__getitem__)
    elif last in healthy and scores[healthy[0]] > HYSTERESIS * scores[last]:
        best = last
    else:
        return by_score
    return [best, *(index for index in by_score if index != best)]


def _two_of(items: Sequence[_T], rand: Callable[[], float]) -> tuple[_T, _T]:
    first = int(rand() * len(items))
    second = int(rand() * (len(items) - 1))
    return items[first], items[second + (second >= first)]


def _by_weight(order: list[int], standings: Sequence[Standing], rand: Callable[[], float]) -> list[int]:
    # Efraimidis & Spirakis: sorting by u^(1/w) draws without replacement in proportion to the weights.
    keys = {
        index: rand() ** (1.0 / standings[index].weight) if standings[index].weight > 0 else -1.0 for index in order
    }
    return sorted(order, key=lambda index: -keys[index])

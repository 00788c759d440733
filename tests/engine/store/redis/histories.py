"""Generated histories of a fleet: what is asked, reported, lost and restored, as plain records.

A step names what it is about by a number; whoever plays it takes that number modulo what there is. So every history can be played, and a
smaller one that still fails is found by leaving steps out.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.classify.headroom import Headroom
from langchain_resilient.engine.effects import Report
from langchain_resilient.engine.events import Usage
from langchain_resilient.engine.policy import Price, Target
from langchain_resilient.engine.quota import RateLimits

S = 1_000_000
DAY = 86_400 * S
FEWEST, MOST = 30, 32
"""Steps of one history."""


# --------------------------------------------------------------------------------------------------------------- steps
class Passes(NamedTuple):
    """Time passes."""

    us: int


class Reaches(NamedTuple):
    """Time passes to one of the moments at which something changes by itself, or a microsecond before or after it."""

    which: int
    off: int


class StepsBack(NamedTuple):
    """The server's clock is set back."""

    us: int


class Asks(NamedTuple):
    """Requests of one kind ask for a place."""

    targets: tuple[int, ...]
    manner: str
    """"all", "plain" or "spare"."""
    times: int
    stream: bool
    lane: str
    tokens: tuple[int, int | None]
    """In the prompt; allowed in the answer."""
    pays: bool
    patience: float
    races: bool
    looks_early: bool
    explore: int | None


class AsksAgain(NamedTuple):
    """One who stands in a line asks again."""

    which: int
    patience: float


class Leaves(NamedTuple):
    """One who stands in a line gives up."""

    which: int


class Opens(NamedTuple):
    """A stream's first content comes; maybe not for the first time, or to one that has ended."""

    which: int
    seconds: float


class Ends(NamedTuple):
    """An attempt ends; maybe late, or once more."""

    which: int
    report: Report


class Renews(NamedTuple):
    """An attempt's leases are kept alive."""

    which: int
    seconds: float


class Crashes(NamedTuple):
    """An attempt's process is gone, without a word."""

    which: int


class Serves(NamedTuple):
    """A target gets so many requests, and all end alike."""

    target: int
    times: int
    report: Report
    stream: bool


class Slackens(NamedTuple):
    """A target is slow so often that it counts as slow, and then an extra call is asked for there."""

    target: int
    stream: bool


class Recovers(NamedTuple):
    """When an open circuit's time is over it gets requests one after the other, and all end alike."""

    target: int
    times: int
    report: Report
    stream: bool
    races: bool


class Together(NamedTuple):
    """What travels in one batch."""

    steps: tuple[Asks | Ends | Opens | Renews | Leaves, ...]


class Overrides(NamedTuple):
    """Somebody sets a circuit aside, or lets it rule again."""

    target: int
    mode: str | None


class Resets(NamedTuple):
    """Somebody vouches for a provider, and maybe for the credential."""

    target: int
    blocks: bool


class FlushesScripts(NamedTuple):
    """The server forgets the script."""


class Loses(NamedTuple):
    """The server loses keys."""

    what: str
    target: int


class Remembers(NamedTuple):
    """A replica has got so far."""


class FailsOver(NamedTuple):
    """The replica takes over: the fleet is where it was then."""


Step = (
    Passes | Reaches | StepsBack | Asks | AsksAgain | Leaves | Opens | Ends | Renews | Crashes | Serves | Recovers | Together | Overrides | Resets
    | FlushesScripts | Loses | Remembers | FailsOver
)  # fmt: skip


class History(NamedTuple):
    """All that happens to one fleet."""

    start: int
    """µs that the server's clock shows at first."""
    ahead: int
    """µs that it is ahead of the process's own."""
    budget: float
    """Of retries, at each provider."""
    targets: tuple[Target, ...]
    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        """Without the steps in which nothing happens."""
        rows = [f"start {self.start}, ahead {self.ahead}, budget {self.budget}"]
        for item in self.targets:
            rows.append(f"{item.name} {item.route} {item.account}: {item.circuit} {item.limits} {item.price}")
        return "\n".join([*rows, *[repr(step) for step in self.steps if step != NOTHING]])


NOTHING = Passes(0)

# ------------------------------------------------------------------------------------------------------------ settings
CIRCUITS = st.builds(
    Circuit,
    failure_threshold=st.sampled_from([2, 1, 3, 5]),
    failure_rate=st.sampled_from([0.5, 1.0, 1 / 3, 0.07, 0.3]),
    minimum_calls=st.sampled_from([3, 1, 2, 10]),
    window=st.sampled_from([60.0, 1e-5, 0.0123457, 1.1, 86400.0]),
    recovery_timeout=st.sampled_from([1.0, 1e-6, 0.0123457, 4.35, 60.0, 259200.0]),
    recovery_growth=st.sampled_from([1.0, 1.5, 2.0, 1.1]),
    recovery_cap=st.sampled_from([300.0, 2.7, 864000.0]),
    half_open_max_calls=st.sampled_from([2, 1, 3]),
    auth_block=st.sampled_from([300.0, 0.0000014, 1.1]),
    slow_first_token=st.sampled_from([None, 1.0]),
    probe=st.sampled_from(["raced", "inline"]),
)
PRICES = [Price(1.0, 3.0), Price(0.15, 0.6, 0.075), Price(0.0, 1e3)]
MAYBE = st.sampled_from([False, True])
SOME = st.integers(0, 11)
SECONDS = st.sampled_from([0.2, 0.5, 1.0, 1.5, 30.0])


@st.composite
def limits(draw):
    """Limits of an account: mostly one or two."""
    chosen = draw(st.sampled_from([(), ("rpm",), ("tpm",), ("concurrency",), ("rpm", "tpm", "concurrency"), ("itpm", "otpm"),
                                   ("rpd", "tpd"), ("usd_per_day",), ("rpm", "usd_per_day"), ("concurrency", "rpm")]))  # fmt: skip
    values = {
        "rpm": [1, 2, 7, 60, 499], "tpm": [100, 1303, 7001, 1_000_000], "itpm": [77, 3333], "otpm": [50, 997],
        "rpd": [2, 97, 100_000], "tpd": [640, 8641, 2_000_000_000], "usd_per_day": [0.0864, 0.01, 0.077, 12_345.678901],
        "concurrency": [1, 2, 3, 7],
    }  # fmt: skip
    found = {name: draw(st.sampled_from(values[name])) for name in chosen}
    if "rpm" in found:
        found["burst"] = draw(st.sampled_from([None, 1, 3, 9]))
    if found:
        found["on_limit"] = draw(st.sampled_from(["next", "wait", "reject"]))
        found["max_wait"] = draw(st.sampled_from([10.0, 0.0, 0.29, 100_000.0]))
    return RateLimits(**found), draw(st.sampled_from([None, *PRICES] if "usd_per_day" not in found else PRICES))


@st.composite
def fleets(draw):
    """One to three accounts, two of them at one provider perhaps."""
    found = []
    routes = draw(st.sampled_from([("a",), ("a", "b"), ("a", "a"), ("a", "b"), ("a", "b", "c"), ("a",)]))
    for place, route in enumerate(routes):
        limited, price = draw(limits())
        slow = draw(st.sampled_from([None, None, 0.6]))
        found.append(
            Target(
                route, route, f"{route}:{place}", limits=limited, price=price, circuit=draw(CIRCUITS), max_latency=slow
            )
        )
    return tuple(found)


# ------------------------------------------------------------------------------------------------------------- reports
KINDS = [
    None,
    None,
    None,
    None,
    None,
    None,
    None,
    ErrorKind.SERVER_ERROR,
    ErrorKind.RATE_LIMITED,
    ErrorKind.STREAM_INTERRUPTED,
    *ErrorKind,
]
ROOMS = st.builds(
    Headroom,
    st.sampled_from(["requests", "tokens", "input_tokens", "output_tokens"]),
    st.none(), st.sampled_from([None, 0, 1, 5, 400, 100_000]), st.none(),
)  # fmt: skip


def report(kind, seconds, first_token, details, rooms):
    """One report; `details` counts through what is seldom said."""
    pause, sent, used, limit = details % 7, details // 7 % 5, details // 35 % 6, details // 210
    return Report(
        kind,
        seconds if kind is None else None,
        first_token if kind in {None, ErrorKind.STREAM_INTERRUPTED} else None,
        None if kind is None else (None, None, None, 1.0, 0.0000004, 4.350001, 200_000.7)[pause],
        {ErrorKind.TIMEOUT: (None, "first_token", "deadline")[limit]}.get(kind),
        kind is not None and sent == 4,
        (None, None, Usage(10, 5), Usage(300, 40, 100), Usage(1, 0), Usage(0, 1500))[used],
        rooms,
        kind is None and sent == 3,
        kind is None and sent == 2,
        first_token if kind is ErrorKind.CANCELLED and sent > 1 else None,
    )


REPORTS = st.builds(
    report, st.sampled_from(KINDS), SECONDS, st.sampled_from([0.2, 0.9, 1.2]), st.integers(0, 629),
    st.one_of(st.just(()), st.just(()), st.just(()), st.tuples(ROOMS), st.tuples(ROOMS, ROOMS)),
)  # fmt: skip

# --------------------------------------------------------------------------------------------------------------- steps
TIMES = st.one_of(
    st.sampled_from([0, 1, 999, 1000, 300_000, S, 5 * S, 10 * S, 30 * S, 60 * S, 3600 * S, DAY, 9 * DAY]),
    st.integers(0, 2 * S),
    st.integers(0, 70 * S),
)
PATIENCE = st.sampled_from([0.0, 30.0, 0.0, 0.29, 4.35, 1.1, 100_000.0])


@st.composite
def asks(draw):
    """A request, or several of one kind."""
    order = draw(st.sampled_from([(0,), (0, 1), (1, 0), (0, 1, 2), (2, 1, 0), (1,)]))
    manner = draw(st.sampled_from(["all", "all", "all", "all", "plain", "spare"]))
    flags = draw(st.integers(0, 63))
    return Asks(
        order, manner, draw(st.sampled_from([1, 1, 2, 4])), bool(flags & 1),
        ("interactive", "interactive", "batch", "replay")[flags >> 1 & 3],
        (draw(st.sampled_from([0, 10, 50, 400, 9000])), draw(st.sampled_from([None, 0, 20, 600]))),
        draw(st.integers(0, 5)) == 5, draw(PATIENCE), bool(flags & 8), bool(flags & 16),
        draw(st.integers(0, 2)) if flags >= 48 else None,
    )  # fmt: skip


SERVES = st.builds(Serves, st.integers(0, 2), st.sampled_from([2, 3, 5, 1, 22]), REPORTS, MAYBE)
FINE = Report(seconds=0.2, first_token=0.2)
RECOVERS = st.builds(
    Recovers, st.integers(0, 2), st.sampled_from([3, 1, 2, 4]), st.one_of(st.just(FINE), REPORTS), MAYBE, st.sampled_from([False, False, True])
)  # fmt: skip
ENDS = st.builds(Ends, SOME, REPORTS)
OPENS = st.builds(Opens, SOME, st.sampled_from([0.2, 1.2]))
RENEWS = st.builds(Renews, SOME, st.sampled_from([30.0, 0.5, 7200.0]))
LEAVES = st.builds(Leaves, SOME)
STEPS = {
    "passes": (8, st.builds(Passes, TIMES)),
    "reaches": (12, st.builds(Reaches, st.integers(0, 29), st.sampled_from([0, -1, 1]))),
    "asks": (24, asks()),
    "ends": (16, ENDS),
    "serves": (9, SERVES),
    "slackens": (2, st.builds(Slackens, st.integers(0, 2), MAYBE)),
    "recovers": (6, RECOVERS),
    "opens": (7, OPENS),
    "again": (7, st.builds(AsksAgain, SOME, st.sampled_from([30.0, 4.35, 0.29, 1e-6]))),
    "leaves": (2, LEAVES),
    "renews": (3, RENEWS),
    "crashes": (1, st.builds(Crashes, SOME)),
    "together": (7, st.builds(Together, st.lists(st.one_of(asks(), ENDS, ENDS, OPENS, RENEWS, LEAVES), min_size=2, max_size=4).map(tuple))),
    "overrides": (4, st.builds(Overrides, st.integers(0, 2), st.sampled_from([None, "forced_open", "disabled", "metrics_only", None]))),
    "resets": (2, st.builds(Resets, st.integers(0, 2), MAYBE)),
    "steps back": (2, st.builds(StepsBack, TIMES)),
    "flushes": (1, st.just(FlushesScripts())),
    "loses": (2, st.builds(Loses, st.sampled_from(["route", "account", "leases", "line", "meta", "all"]), st.integers(0, 2))),
    "remembers": (3, st.just(Remembers())),
    "fails over": (2, st.just(FailsOver())),
}  # fmt: skip
"""By name: how often, of a hundred or so, and what."""
_DRAWN = [strategy for often, strategy in STEPS.values() for _ in range(often)]
_CHOICE = st.integers(0, len(_DRAWN) - 1)


@st.composite
def steps(draw):
    """What happens next."""
    return draw(_DRAWN[draw(_CHOICE)])


HISTORIES = st.builds(
    History,
    st.sampled_from([1000 * S, 1_790_000_000 * S + 123_457, 1, 1_799_999_999 * S + 999_999]),
    st.sampled_from([0, 0, 0, 7_000_001]),
    st.sampled_from([100.0, 51.05]),
    fleets(),
    st.lists(steps(), min_size=FEWEST, max_size=MOST).map(tuple),
)

"""How the shared store is asked: operations as flat words, and replies read back.

Rules of this file: pure; no clock, no lock, no client. It writes what `lua/main.lua` reads, in the same order. What follows from settings
alone (a cost's increment, a bucket's room) is computed here, so that the script only adds and compares. Redis keys hold a provider's name
and a hash of its endpoint and credential: never an address, a key or a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import NamedTuple

from langchain_resilient.engine import quota
from langchain_resilient.engine.circuit import RACED_PROBE_INTERVAL_US, CircuitState, Phase, slice_of
from langchain_resilient.engine.classify import ErrorKind
from langchain_resilient.engine.effects import Admit, Refused, Report, Ticket
from langchain_resilient.engine.errors import require
from langchain_resilient.engine.events import Refusal
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.quota import FULL, LANES, Cost, Lane
from langchain_resilient.engine.store.account import SECOND, wanted
from langchain_resilient.engine.store.state import LEASE_US, QUOTA_BLOCK_US, Override, Verdict, reconciled

SCHEMA = "lr1"
"""The version of what is kept in Redis; another one has keys of its own, so both run side by side."""
PARTS = ("lazily", "circuit", "quota", "state", "admit", "settle", "main")
NONE = -1
MOST_WRITTEN = 1000

Word = str | int


class Operation(NamedTuple):
    """One step of the script."""

    name: str
    keys: tuple[str, ...]
    """All of one hash slot."""
    words: tuple[Word, ...] = ()
    about: object = None
    """What whoever asks wants to have back with the reply; never sent."""


def script(*parts: str) -> str:
    """The Lua source of these files, as one script."""
    folder = files("langchain_resilient.engine.store.redis") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text() for part in parts)


def slot(namespace: str, part: str = "") -> str:
    """What all keys of a namespace begin with, or those of one part of it: braces make it one hash slot. Raises `SettingsError`."""
    require(not set("{}") & set(namespace), "namespace", namespace, "leave out { and }: they mark Redis's hash slot")
    return f"{{{SCHEMA}:{namespace}{part}}}"


class Keys:
    """The Redis keys of one namespace.

    Args:
        namespace: Any text without braces: they mark the hash slot. Raises `SettingsError`.
    """

    def __init__(self, namespace: str) -> None:
        self.prefix = slot(namespace)
        self.meta = f"{self.prefix}:m"
        self.channel = f"{self.meta}:news"
        self.processes = f"{self.prefix}:p"
        self._providers: dict[tuple[str, str], tuple[str, str, str, str]] = {}
        self._written: dict[tuple[Target, str], str] = {}
        """What never changes of a provider, by its use; forgotten now and then, as models come and go."""

    def of(self, target: Target) -> tuple[str, str, str, str]:
        """A provider's route, account, leases and line."""
        pair = (target.route, target.account)
        found = self._providers.get(pair)
        if found is None:
            if len(self._providers) >= MOST_WRITTEN:
                self._providers.clear()
            # Not its label, by which two users of one provider may call it differently; nor its address.
            readable = target.route.partition("@")[0][:80]
            route = f"{readable}:{_digest(target.route)}"
            account = f"{readable}:{_digest(target.account)}"
            found = self._providers[pair] = (
                f"{self.prefix}:r:{route}", f"{self.prefix}:a:{account}", f"{self.prefix}:c:{account}", f"{self.prefix}:l:{account}",
            )  # fmt: skip
        return found

    def settings(self, target: Target, lane: Lane, races: bool) -> str:  # a word, not a switch
        """What never changes of a candidate."""
        found = self._written.get((target, f"{lane}{races}"))
        if found is not None:
            return found
        limits, share = target.limits, LANES[lane]
        most = 0 if limits.concurrency is None else quota.places(limits.concurrency, lane)
        interval = min(RACED_PROBE_INTERVAL_US, int(target.circuit.recovery_timeout * SECOND))
        dimensions = [
            f'["{item.name}",{item.room if share == FULL else quota.capacity(item, FULL, share)},{quota.increment(item, 1)}]'
            for item in target.dimensions
        ]
        words = (
            f"{_bool(races and target.circuit.probe == 'raced')},{interval},{target.circuit.half_open_max_calls},{most},"
            f'"{limits.on_limit}",[{",".join(dimensions)}]'
        )
        return self._write(target, f"{lane}{races}", words)

    def circuit(self, target: Target) -> str:
        """A circuit's settings."""
        found = self._written.get((target, "circuit"))
        if found is not None:
            return found
        it = target.circuit
        words = (
            f"{int(it.auth_block * SECOND)},[{it.failure_threshold},{it.failure_rate!r},{it.minimum_calls},{slice_of(it)},"
            f"{it.recovery_timeout!r},{it.recovery_growth!r},{it.recovery_cap!r},{it.half_open_max_calls}]"
        )
        return self._write(target, "circuit", words)

    def _write(self, target: Target, use: str, words: str) -> str:
        if len(self._written) >= MOST_WRITTEN:
            self._written.clear()
        self._written[(target, use)] = words
        return words


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- admit
class Candidate(NamedTuple):
    """What this process adds to a candidate."""

    target: Target
    cost: Cost
    affords: bool
    """Whether its retry budget pays for the call, if it must."""
    unfit: bool
    """Whether it is too slow for an extra call."""


def admit(
    keys: Keys, ask: Admit, name: str, candidates: Sequence[Candidate], *, explore: int = 0, interval: int = 0,
    placed: int = 0, entry: str = "",
) -> Operation:  # fmt: skip
    """Ask for a place.

    Args:
        keys: The namespace's.
        ask: The request.
        name: The attempt, named so in the whole fleet.
        candidates: Those of `ask`, and behind them the one to explore, if it is none of them.
        explore: The place among the candidates of the one to explore, from 1; 0: none.
        interval: The least time since it was last explored, µs.
        placed: The place of the candidate in whose line the request stands, from 1; 0: none.
        entry: How that line names it.
    """
    mode = "plain" if ask.plainly else "spare" if ask.spare else "all"
    head = (
        f'["{mode}","{name}",{LEASE_US},{int(ask.patience * SECOND)},{_bool(ask.looks_early)},{explore},{interval},{placed},"{entry}",'
        f"{len(ask.targets)}]"
    )
    found: list[str] = [keys.meta]
    words = [head]
    for candidate in candidates:
        found += keys.of(candidate.target)
        words.append(_candidate(keys, candidate, ask))
    return Operation("admit", tuple(found), tuple(words))


def _candidate(keys: Keys, candidate: Candidate, ask: Admit) -> str:
    target = candidate.target
    longest = min(ask.patience, target.longest_wait)
    amounts, too_big = wanted(target, ask, candidate.cost)
    steps = [str(quota.increment(dimension, amount)) for dimension, amount in amounts]
    return (
        f'[{_bool(candidate.unfit)},{_bool(candidate.affords)},{int(longest * SECOND)},"{too_big}",[{",".join(steps)}],'
        f"{keys.settings(target, ask.lane, ask.races)}]"
    )


def _bool(value: object) -> str:
    return "true" if value else "false"


class Granted(NamedTuple):
    """A place at one candidate."""

    place: int
    """Its place among those asked, from 0."""
    generation: int
    probe: bool
    raced: bool
    half_opens: bool
    to_end: bool
    charged: tuple[int, ...]
    now: int
    """When, µs of the server's clock."""
    passed: tuple[tuple[str, int], ...]


class Booked(NamedTuple):
    """A place in a candidate's line."""

    place: int
    """Whose, from 0."""
    pause: int
    """µs."""
    entry: str


class Turned(NamedTuple):
    """Nobody could take it."""

    rejected: int
    """Whose limit ends the request, from 1; 0: nobody's."""
    refusals: tuple[tuple[str, int], ...]


def read_admit(reply: object) -> Granted | Booked | Turned | None:
    """What an `admit` came to; None: something is the matter with the first candidate, and it was plainly asked for."""
    words = text(reply).split(" ")
    kind = words[0]
    if kind == "granted":
        _, place, generation, probe, raced, half_opens, to_end, now, charged, passed = words
        return Granted(
            int(place) - 1, int(generation), probe == "1", raced == "1", half_opens == "1", to_end == "1",
            tuple([int(moved) for moved in charged.split(",")]) if charged else (), int(now), _refusals(passed),
        )  # fmt: skip
    if kind == "queued":
        return Booked(int(words[1]) - 1, int(words[2]), words[3])
    if kind == "refused":
        return Turned(int(words[1]), _refusals(words[2]))
    return None


def refused(turned: Turned, targets: Sequence[Target]) -> Refused:
    """A refusal in the plan's words."""
    named = refusals(turned.refusals, targets)
    return Refused(named, named[turned.rejected - 1] if turned.rejected else None)


def refusals(found: Sequence[tuple[str, int]], targets: Sequence[Target]) -> tuple[Refusal, ...]:
    """Refusals with their providers' names."""
    return tuple(
        Refusal(target.name, reason, None if wait == NONE else wait / SECOND)
        for target, (reason, wait) in zip(targets, found, strict=False)
    )


def _refusals(packed: str) -> tuple[tuple[str, int], ...]:
    if not packed:
        return ()
    words = packed.split(",")
    return tuple([(reason, int(wait)) for reason, wait in zip(words[::2], words[1::2], strict=True)])


# -------------------------------------------------------------------------------------------------------------- reports
class Told(NamedTuple):
    """What a report says to the fleet."""

    kind: str
    """"ok", "opened" (a stream's first content) or the `ErrorKind`."""
    verdict: Verdict | None
    """None: nothing of the circuit."""
    looks_again: bool
    floor: int = 0
    spread: int = 0


_NEUTRAL = Told(ErrorKind.CANCELLED, Verdict("neutral", slow=False, reason=""), looks_again=False)


def settle(keys: Keys, ticket: Ticket, name: str, told: Told, report: Report = Report()) -> Operation:  # noqa: B008  # frozen
    """Report an attempt's end, or a stream's first content."""
    target, verdict = ticket.target, told.verdict
    opened = told.kind == "opened"
    moves = []
    for dimension, moved, room in () if opened or not ticket.charged else reconciled(ticket, report):
        if moved or room is not None:
            per_unit = dimension.unit == "requests"
            left = max(0, room or 0)
            one = quota.increment(dimension, 1)
            each, times = (one, left) if per_unit else (quota.increment(dimension, left), 1)
            moves.append(
                f'["{dimension.name}",{moved},{_bool(room is not None)},{dimension.room},{one},{each},{times}]'
            )
    outcome, slow, reason = verdict or ("", False, "")
    leased = target.limits.concurrency is not None and not opened
    word = (
        f'["{told.kind}","{name}",{ticket.generation},{_bool(leased)},{ticket.granted},"{outcome}","{reason}",{int(slow)},{told.floor},'
        f"{told.spread},{_pause(told.kind, report)},{_bool(told.looks_again)},{_bool(target.dimensions)},{keys.circuit(target)},"
        f"[{','.join(moves)}]]"
    )
    return Operation("settle", (keys.meta, *keys.of(target)), (word,))


def give_back(keys: Keys, ticket: Ticket, name: str, report: Report = Report()) -> Operation:  # noqa: B008  # frozen
    """Free what an attempt holds, and say nothing of the provider."""
    return settle(keys, ticket, name, _NEUTRAL, report)


def _pause(kind: str, report: Report) -> int:
    if report.retry_after is not None:
        return int(report.retry_after * SECOND)
    return QUOTA_BLOCK_US if kind == ErrorKind.QUOTA_EXHAUSTED else NONE


def renew(keys: Keys, ticket: Ticket, name: str, lease: int) -> Operation:
    """Keep an attempt's leases alive for so long, µs."""
    generation = ticket.generation if ticket.probe else NONE
    return Operation("renew", (keys.meta, *keys.of(ticket.target)), (name, lease, generation))


def cancel(keys: Keys, targets: Sequence[Target], name: str) -> Operation:
    """Give back whatever was granted to an attempt that never heard of it, at any of these."""
    return Operation("cancel", (keys.meta, *[key for target in targets for key in keys.of(target)]), (name,))


def hold(keys: Keys, ticket: Ticket, name: str, lease: int) -> Operation:
    """Count an attempt that is under way, whether or not it was counted before; µs that its lease lives."""
    return Operation("hold", (keys.meta, *keys.of(ticket.target)), (name, lease))


def leave(keys: Keys, target: Target, entry: str) -> Operation:
    """Give up a place in a line."""
    return Operation("leave", (keys.meta, *keys.of(target)), (entry,))


def override(keys: Keys, target: Target, mode: Override | None) -> Operation:
    """Set a circuit aside for the whole fleet, or let it rule again."""
    return Operation("override", (keys.meta, *keys.of(target)), (mode or "",))


def reset(keys: Keys, target: Target, *, blocks: bool) -> Operation:
    """Have a provider asked again at once by the whole fleet; `blocks`: whatever is held against the credential too."""
    return Operation("reset", (keys.meta, *keys.of(target)), (int(blocks),))


def carry(keys: Keys, target: Target, generation: int, open_for: int, blocked_for: int, reason: str) -> Operation:
    """Tell the fleet what was found open or blocked while it could not be asked; µs that are left.

    A circuit that has changed in the fleet since, to a newer generation, is better known there.
    """
    return Operation("carry", (keys.meta, *keys.of(target)), (generation, open_for, blocked_for, reason))


def beat(keys: Keys, lease: int) -> Operation:
    """This process lives for so long, µs; the reply is how many do."""
    return Operation("beat", (keys.meta, keys.processes), (lease,))


def probe(keys: Keys) -> Operation:
    """Do what any operation may do, for nothing: whether this user is allowed to."""
    return Operation("probe", (keys.meta, *[f"{keys.meta}:probe:{kind}" for kind in ("places", "line", "counts")]))


def sketch(keys: Keys, target: Target, window: int, counts: Mapping[str, int]) -> Operation:
    """Add samples to a window of a provider's latencies; the reply is all that is in it."""
    words = [word for name, count in counts.items() for word in (name, count)]
    return Operation("sketch", (keys.meta, f"{keys.of(target)[0]}:{window}"), tuple(words))


def read_sketch(reply: Sequence[object]) -> dict[str, int]:
    """All samples of a window, by bucket."""
    words = [text(item) for item in reply]
    return {name: int(count) for name, count in zip(words[::2], words[1::2], strict=True)}


# ----------------------------------------------------------------------------------------------------------------- view
class Seen(NamedTuple):
    """What Redis keeps of one provider; times in µs of its clock."""

    circuit: CircuitState
    override: Override | None
    reason: str
    """Why the circuit last changed."""
    explored_at: int
    scale: quota.Scale
    blocked_until: int
    blocked_reason: str
    throttles: int
    throttled_at: int
    forbidden: int
    running: int
    waiting: int
    tats: tuple[int, ...]
    """By dimension, in the order of `DIMENSIONS`."""


DIMENSIONS = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "usd_per_day")


def view(keys: Keys, targets: Sequence[Target]) -> Operation:
    """Ask what is known of these."""
    return Operation("view", (keys.meta, *[key for target in targets for key in keys.of(target)]))


def read_view(reply: Sequence[object]) -> tuple[Seen, ...]:
    """What is known, in the order asked."""
    return tuple(_seen(_list(row)) for row in reply)


def _seen(row: Sequence[object]) -> Seen:
    words = [text(item) for item in row[:-1]]
    numbers = [int(word) if word.lstrip("-").isdigit() else 0 for word in words]
    phase: Phase = "open" if words[0] == "open" else "half_open" if words[0] == "half_open" else "closed"
    state = CircuitState(
        phase, numbers[1], numbers[2], (), numbers[4], numbers[5], numbers[6], (), numbers[8], bool(numbers[9]), bool(numbers[10])
    )  # fmt: skip
    mode: Override | None = next(
        (known for known in ("forced_open", "disabled", "metrics_only") if known == words[11]), None
    )
    return Seen(
        state, mode, words[12], numbers[13], quota.Scale(numbers[14], numbers[15]), numbers[16], words[17], numbers[18],
        numbers[19], numbers[20], numbers[21], numbers[22], tuple(int(text(item)) for item in _list(row[-1])),
    )  # fmt: skip


def text(item: object) -> str:
    """A word of a reply, whether the client decodes or not."""
    return item.decode() if isinstance(item, bytes) else str(item)


def _list(item: object) -> Sequence[object]:
    return item if isinstance(item, list) else []

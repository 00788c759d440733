"""What there is to see at one moment of the play.

Rules of this file: reads the play, changes nothing; a scene is values, so that a view can be tested without a play.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, cast

from langchain_resilient.chat_model import ResilientChatModel
from langchain_resilient.demo.afternoon import Phase
from langchain_resilient.demo.ledger import Figures
from langchain_resilient.demo.play import Play, Stream, Told

REMEMBERED = 8
"""The newest decisions and changes that a scene holds."""


class Standing(NamedTuple):
    """One of our providers, as our model sees it."""

    name: str
    truth: str
    """What its server really does: only the audience knows."""
    circuit: str
    """"closed", "half_open" or "open"."""
    probes_in: float | None
    """Seconds until an open circuit probes."""
    hot: bool
    """Silent: calls in flight for too long."""
    slow: bool
    blocked_for: float | None
    """Seconds that it asked to be left alone."""
    p50: float | None
    """Seconds of its answers, by what the model has learned."""
    p99: float | None
    share: float
    """Of the answers of the last seconds (0 – 1)."""
    in_flight: int


class Side(NamedTuple):
    """One contender so far."""

    name: str
    total: Figures
    recent: Figures
    """Its percentiles are of the last seconds."""
    calls: int
    """Requests that its servers have logged."""


class Scene(NamedTuple):
    """One moment."""

    elapsed: float
    seconds: float
    """How long questions arrive."""
    phase: Phase
    sides: tuple[Side, ...]
    standings: tuple[Standing, ...]
    told: tuple[Told, ...]
    """Oldest first."""
    stream: Stream | None


def look(play: Play) -> Scene:
    """What there is to see now."""
    since = play.elapsed - play.afternoon.window  # "now": shares of traffic, present waits
    return Scene(
        elapsed=play.elapsed,
        seconds=play.afternoon.seconds,
        phase=play.phase,
        sides=tuple(
            Side(
                contender.name,
                contender.ledger.figures(),
                contender.ledger.figures(since),
                sum(contender.stage.calls().values()),
            )
            for contender in play.contenders
        ),
        standings=_standings(play, since) if play.contenders else (),
        told=tuple(play.told)[-REMEMBERED:],
        stream=play.stream,
    )


def _standings(play: Play, since: float) -> tuple[Standing, ...]:
    model = cast("ResilientChatModel", play.ours.model)
    recent = Counter(fate.provider for fate in play.ours.ledger.fates if fate.at + fate.seconds >= since)
    answers = sum(recent.values()) or 1
    truths = {house.name: play.phase.of(house.wire).word for house in play.afternoon.houses}
    return tuple(_standing(name, truths[name], known, recent[name] / answers) for name, known in model.status().items())


def _standing(name: str, truth: str, known: dict[str, Any], share: float) -> Standing:
    return Standing(
        name=name,
        truth=truth,
        circuit=known["circuit"],
        probes_in=known["probes_in"],
        hot=known["hot"],
        slow=known["slow"],
        blocked_for=known["blocked_for"],
        p50=known["p50"],
        p99=known["p99"],
        share=share,
        in_flight=known["in_flight"],
    )

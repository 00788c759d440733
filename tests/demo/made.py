"""Scenes and results made by hand and by hypothesis, and a console to look at them."""

import io

from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from langchain_resilient.demo.afternoon import HEALTHY, Afternoon, Condition, House, Phase
from langchain_resilient.demo.contenders import BARE, FALLBACKS, NAMES, OURS
from langchain_resilient.demo.ledger import Fate, Figures, figures_of
from langchain_resilient.demo.play import Result, Score, Stream, Told
from langchain_resilient.demo.scene import Scene, Side, Standing
from langchain_resilient.engine.events import Attempt, CircuitChanged, Decision, Refusal
from langchain_resilient.testing.fault_server import Fault

OPENAI, ANTHROPIC, OLLAMA = "openai/gpt-4.1", "anthropic/claude-sonnet-4-5", "ollama/llama3.1"


def decision(provider, *attempts, refusals=(), first=OPENAI, outcome="answered", seconds=0.38) -> Decision:
    """A request that was done with."""
    return Decision(
        1, provider, first, outcome, seconds, None, attempts, refusals, "closed",
        provider != first, None, None, False, "interactive", None,
    )  # fmt: skip


def ok(provider=OPENAI, *, probe=False) -> Attempt:
    """An attempt that went well."""
    return Attempt(provider, "ok", 0.2, probe=probe)


def bad(provider=OPENAI, kind="overloaded", status=503, *, probe=False) -> Attempt:
    """An attempt that did not."""
    return Attempt(provider, kind, 0.2, probe=probe, status=status)


def changed(before, after, reason="overloaded", provider=OPENAI) -> CircuitChanged:
    """What a circuit did."""
    return CircuitChanged(provider, before, after, reason)


def standing(name=OPENAI, **values) -> Standing:
    """A provider that is well, but for what is given."""
    usual = Standing(name, "healthy", "closed", None, False, False, None, 0.25, 0.31, 0.0, 1)
    return usual._replace(**values)


def side(name, answered, failed, waiting, p50=0.4, p99=1.2, calls=100) -> Side:
    """A contender; present waits as all waits."""
    figures = Figures(answered + failed + waiting, answered, failed, waiting, p50, p99)
    return Side(name, figures, figures, calls)


def scene(**values) -> Scene:
    """A moment in the trouble, but for what is given."""
    usual = Scene(
        elapsed=14.2,
        seconds=60.0,
        phase=Phase("2:00 PM", "openai answers 503", 9.0, {}),
        sides=(
            side(BARE, 52, 31, 14, 1.92, 2.63, 148),
            side(FALLBACKS, 97, 0, 0, 0.44, 1.32, 131),
            side(OURS, 96, 0, 1, 0.38, 0.421, 102),
        ),
        standings=(
            standing(truth="503", circuit="open", probes_in=1.4),
            standing(ANTHROPIC, p50=0.35, p99=0.41, share=1.0),
            standing(OLLAMA, p50=None, p99=None),
        ),
        told=(
            Told(12.6, decision(ANTHROPIC, bad(), ok(ANTHROPIC), seconds=0.41)),
            Told(12.7, changed("closed", "open")),
            Told(13.0, decision(ANTHROPIC, ok(ANTHROPIC), refusals=(Refusal(OPENAI, "circuit_open"),))),
            Told(14.1, decision(ANTHROPIC, ok(ANTHROPIC), refusals=(Refusal(OPENAI, "circuit_open"),), seconds=0.5)),
        ),
        stream=Stream("What is full jitter?", "A wait drawn evenly between", None, over=False),
    )
    return usual._replace(**values)


DOWN = Condition("503", Fault.status(503))
AFTERNOON = Afternoon(
    phases=(
        Phase("1:59 PM", "all is well", 5.0, {}),
        Phase("2:00 PM", "openai answers 503", 5.0, {"openai": DOWN}),
        Phase("2:10 PM", "all is well again", 10.0, {}),
    ),
    houses=(House("openai", "gpt-4.1", 0.25, 0.03), House("anthropic", "claude-sonnet-4-5", 0.35, 0.03)),
)


def score(name, fates, *, waiting=0, calls=None, afternoon=AFTERNOON, errors=None) -> Score:
    """What some fates come to."""
    return Score(
        name=name,
        figures=figures_of(fates, waiting=waiting),
        calls=calls or {OPENAI: len(fates), ANTHROPIC: 0},
        outcomes={OPENAI: {"ok": len(fates)}, ANTHROPIC: {}},
        by_phase=tuple(
            figures_of([fate for fate in fates if begins <= fate.at < ends])
            for _, begins, ends in afternoon.timetable()
        ),
        errors=errors if errors is not None else {},
        fates=tuple(fates),
    )


def answered(number, at, seconds=0.3, provider=OPENAI) -> Fate:
    """A question with an answer."""
    return Fate(number, at, seconds, provider, None)


def failed(number, at, seconds=2.5, error="timeout") -> Fate:
    """A question with an error."""
    return Fate(number, at, seconds, None, error)


def result(**values) -> Result:
    """Four questions: one while all is well, two in the trouble, one after it."""
    usual = Result(
        seed=7,
        afternoon=AFTERNOON,
        seconds=21.0,
        complete=True,
        scores=(
            score(BARE, [answered(0, 1.0), failed(1, 6.0), failed(2, 7.0, error="overloaded"), answered(3, 11.0)],
                  calls={OPENAI: 8, ANTHROPIC: 0}, errors={"timeout": 1, "overloaded": 1}),
            score(FALLBACKS, [answered(0, 1.0), answered(1, 6.0, 0.9, ANTHROPIC), answered(2, 7.0, 0.8, ANTHROPIC),
                              answered(3, 11.0)], calls={OPENAI: 4, ANTHROPIC: 2}),
            score(OURS, [answered(0, 1.0), answered(1, 6.0, 0.5, ANTHROPIC), answered(2, 7.0, 0.4, ANTHROPIC),
                         answered(3, 11.0, 0.25)], calls={OPENAI: 3, ANTHROPIC: 2}),
        ),
        changes=(
            (6.2, changed("closed", "open")),
            (8.7, changed("open", "half_open", "probe")),
            (8.9, changed("half_open", "open")),
            (11.4, changed("open", "half_open", "probe")),
            (12.0, changed("half_open", "closed", "ok")),
        ),
    )  # fmt: skip
    return usual._replace(**values)


# ── generated ────────────────────────────────────────────────────────────────────────────────────────────────────────

TEXT = st.text(max_size=60)
SECONDS = st.floats(0, 99_999, allow_nan=False)
COUNT = st.integers(0, 99_999)
PROVIDER = st.sampled_from([OPENAI, ANTHROPIC, OLLAMA, "x", ""])
MAYBE = st.none() | SECONDS
FIGURES = st.builds(Figures, COUNT, COUNT, COUNT, COUNT, MAYBE, MAYBE)
KIND = st.sampled_from(["ok", "overloaded", "timeout", "rate_limited", "server_error", "unknown"])
ATTEMPT = st.builds(Attempt, PROVIDER, KIND, SECONDS, SECONDS, st.booleans(), st.none(), st.none() | st.just(503))
REFUSAL = st.builds(Refusal, PROVIDER, st.sampled_from(["circuit_open", "blocked", "rpm", "slow", "new_reason"]), MAYBE)
STATE = st.sampled_from(["closed", "half_open", "open", "forced_open"])
CHANGE = st.builds(CircuitChanged, PROVIDER, STATE, STATE, st.sampled_from(["overloaded", "ok", "timeout", "probe"]))
DECISION = st.builds(
    decision,
    st.none() | PROVIDER,
    refusals=st.lists(REFUSAL, max_size=3).map(tuple),
    first=PROVIDER,
    outcome=st.sampled_from(["answered", "failed", "refused", "interrupted", "new_outcome"]),
    seconds=SECONDS,
) | st.lists(ATTEMPT, max_size=4).map(lambda attempts: decision(OPENAI, *attempts))
PHASE = st.builds(Phase, TEXT, TEXT, st.floats(0.1, 1e4), st.just({}) | st.just({"openai": DOWN}))
STANDING = st.builds(
    Standing, PROVIDER, TEXT | st.just(HEALTHY.word), STATE, MAYBE, st.booleans(), st.booleans(), MAYBE, MAYBE, MAYBE,
    st.floats(0, 1), COUNT,
)  # fmt: skip
SCENES = st.builds(
    Scene,
    SECONDS,
    SECONDS,
    PHASE,
    st.tuples(*(st.builds(Side, st.just(name), FIGURES, FIGURES, COUNT) for name in NAMES)),
    st.lists(STANDING, max_size=4).map(tuple),
    st.lists(st.builds(Told, SECONDS, CHANGE | DECISION), max_size=12).map(tuple),
    st.none() | st.builds(Stream, TEXT, st.text(max_size=400), st.none() | PROVIDER, over=st.booleans()),
)
FATE = st.builds(answered, COUNT, SECONDS, SECONDS, st.none() | PROVIDER) | st.builds(
    failed, COUNT, SECONDS, SECONDS, TEXT
)


@st.composite
def _results(draw) -> Result:
    afternoon = AFTERNOON._replace(phases=tuple(draw(st.lists(PHASE, min_size=1, max_size=4))))
    scores = tuple(
        score(
            name,
            draw(st.lists(FATE, max_size=5)),
            waiting=draw(st.integers(0, 3)),
            calls={OPENAI: draw(COUNT)},
            afternoon=afternoon,
            errors=draw(st.dictionaries(TEXT, st.integers(1, 9), max_size=3)),
        )
        for name in NAMES
    )
    changes = tuple(draw(st.lists(st.tuples(SECONDS, CHANGE), max_size=8)))
    return Result(
        draw(COUNT), afternoon, draw(SECONDS), draw(st.booleans()), draw(st.sampled_from([scores, ()])), changes
    )


RESULTS = _results()


# ── to look at them ──────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(part, width, height=60, *, encoding="utf-8", colour=None) -> list[str]:
    """The lines that a console of this size prints, as they leave the process."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="\n")
    console = Console(file=file, width=width, height=height, color_system=colour, force_terminal=colour is not None)
    console.print(part)
    file.flush()
    lines = raw.getvalue().decode(encoding).split("\n")
    assert lines.pop() == ""
    return lines


def fits(lines, width, height=None) -> bool:
    """Whether they stay within a terminal: no line too wide, none too many, and nothing that moves the cursor."""
    narrow = all(cell_len(line) <= width for line in lines)
    return narrow and (height is None or len(lines) <= height) and all(line.isprintable() for line in lines)

"""The afternoon as a picture."""

import logging
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from PIL import Image

from langchain_resilient.demo.afternoon import Afternoon, two_pm
from langchain_resilient.demo.chart import Span, circuit_spans, draw, subtitle, title
from langchain_resilient.demo.contenders import BARE, FALLBACKS, NAMES, OURS
from langchain_resilient.demo.ledger import Fate, figures_of
from langchain_resilient.demo.play import Result, Score
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.events import CircuitChanged

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
OPENAI, ANTHROPIC, OLLAMA = "openai/gpt-4.1", "anthropic/claude-sonnet-4-5", "ollama/llama3.1"
ANSWERED = (Fate(0, 1.0, 0.5, OPENAI, None), Fate(1, 30.0, 2.0, ANTHROPIC, None), Fate(2, 59.0, 4.0, OLLAMA, None))
FAILED = (Fate(3, 30.0, 10.0, None, "timeout"), Fate(4, 40.0, 0.25, OPENAI, "cut short"))


def score(name: str, fates: Sequence[Fate], *, waiting: int = 0, calls: int = 7) -> Score:
    """A contender's score of these questions."""
    figures = figures_of(fates, waiting=waiting)
    return Score(name, figures, {OPENAI: calls}, {}, (), {}, tuple(fates))


def change(at: float, after: str, *, before: str = "closed", provider: str = OPENAI) -> tuple[float, CircuitChanged]:
    """A circuit's change of state."""
    return at, CircuitChanged(provider, before, after, "timeout")


def result(
    *scores: Score,
    changes: Sequence[tuple[float, CircuitChanged]] = (),
    afternoon: Afternoon | None = None,
    stopped: float | None = None,
) -> Result:
    """What a play of these scores came to."""
    afternoon = afternoon or two_pm()
    played = afternoon.seconds + 2.0 if stopped is None else stopped
    return Result(1, afternoon, played, stopped is None, scores, tuple(changes))


def usual() -> Result:
    """Three contenders, of whom one fails twice."""
    return result(score(BARE, FAILED + ANSWERED), score(FALLBACKS, ANSWERED), score(OURS, ANSWERED))


def drawn(what: Result, directory: Path) -> ET.Element:
    """The SVG."""
    return parsed(draw(what, directory)[1])


def parsed(svg: Path) -> ET.Element:
    """The root of a file, if it is well-formed."""
    return ET.parse(svg).getroot()  # noqa: S314  # we wrote it


def words(svg: ET.Element) -> str:
    """All of its text, each piece in a line of its own."""
    return "\n".join("".join(text.itertext()) for text in svg.iter(f"{SVG}text"))


def marks(svg: ET.Element, name: str) -> list[tuple[float, float]]:
    """Where one series has its marks."""
    return [
        (float(use.get("x", "")), float(use.get("y", "")))
        for group in svg.iter(f"{SVG}g")
        if group.get("id") == name
        for use in group.iter(f"{SVG}use")
    ]


def all_marks(svg: ET.Element) -> int:
    """How many marks all panels have."""
    ids = [group.get("id", "") for group in svg.iter(f"{SVG}g")]
    slugs = tuple(f"{name.lower().replace(' ', '-').replace('_', '-')}-" for name in NAMES)
    return sum(len(marks(svg, name)) for name in ids if name.startswith(slugs))


def path_of(svg: ET.Element, name: str) -> list[tuple[float, float]]:
    """The corners of a series that is one area."""
    group = next(group for group in svg.iter(f"{SVG}g") if group.get("id") == name)
    path = next(group.iter(f"{SVG}path")).get("d", "")
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)]


def shape(svg: ET.Element, name: str) -> tuple[bool, str]:
    """Whether a series' mark is round, and how it is painted."""
    group = next(group for group in svg.iter(f"{SVG}g") if group.get("id") == name)
    use = next(group.iter(f"{SVG}use"))
    defined = next(path for path in svg.iter(f"{SVG}path") if f"#{path.get('id')}" == use.get(HREF))
    return "C" in defined.get("d", ""), use.get("style", "")


def test_two_files_that_any_viewer_opens(tmp_path: Path):
    """The PNG is 1600 pixels wide, the SVG well-formed; the missing directory is made, and older files are replaced."""
    for _ in range(2):
        png, svg = draw(usual(), tmp_path / "new" / "directory")
        assert png == tmp_path / "new" / "directory" / "langchain-resilient-demo.png"
        assert svg == png.with_suffix(".svg")
        with Image.open(png) as picture:
            picture.verify()
            assert picture.format == "PNG" and picture.width == 1600
        assert parsed(svg).tag == f"{SVG}svg"


def test_what_is_said_is_computed(tmp_path: Path):
    """Title, subtitle and every contender's figures stand in the SVG, as text."""
    what = usual()
    assert title(what) == "ResilientChatModel answered 3 of 3 questions, p99 4.00 s"
    assert subtitle(what) == (
        "The same questions, to providers that fail alike:"
        " bare client answered 3, p99 10.0 s; with_fallbacks answered 3, p99 4.00 s."
    )
    said = words(drawn(what, tmp_path)).splitlines()
    assert title(what) in said and subtitle(what) in said
    assert "3 of 5" in said and "2 failed" in said and "4 calls wasted" in said
    assert said.count("3 of 3") == 2
    assert "p50 2.00 s, p99 10.0 s" in said and said.count("p50 2.00 s, p99 4.00 s") == 2
    for phase in two_pm().phases:
        assert phase.clock in said
        assert phase.title in words(drawn(what, tmp_path)).replace("\n", " ")


def test_every_question_is_a_mark(tmp_path: Path):
    """Each contender has a mark for each of its questions, in the series of who answered or of the failures."""
    svg = drawn(usual(), tmp_path)
    assert all_marks(svg) == 5 + 3 + 3
    assert len(marks(svg, "bare-client-failed")) == 2
    for name in ("bare-client", "with-fallbacks", "resilientchatmodel"):
        for provider in ("openai-gpt-4-1", "anthropic-claude-sonnet-4-5", "ollama-llama3-1"):
            assert len(marks(svg, f"{name}-{provider}")) == 1


def test_a_mark_stands_where_the_question_was(tmp_path: Path):
    """Across is when it was asked, up is the wait: linear, from zero, and the same in all panels."""
    svg = drawn(usual(), tmp_path)
    # 36 points to the left of 554.4 that are 60 seconds
    [(early, low)] = marks(svg, "bare-client-openai-gpt-4-1")
    [(half, middle)] = marks(svg, "bare-client-anthropic-claude-sonnet-4-5")
    [(late, high)] = marks(svg, "bare-client-ollama-llama3-1")
    assert (early, half, late) == pytest.approx((36 + 9.24, 36 + 277.2, 36 + 545.16))
    second = (low - middle) / 1.5
    assert second > 5 and low - high == pytest.approx(3.5 * second, abs=1e-3)
    [(_, ours)] = marks(svg, "resilientchatmodel-anthropic-claude-sonnet-4-5")
    [(_, theirs)] = marks(svg, "with-fallbacks-anthropic-claude-sonnet-4-5")
    assert ours - theirs == pytest.approx(theirs - middle) == pytest.approx(72 * 1.81)  # a panel and a gap


def test_no_mark_leaves_its_panel(tmp_path: Path):
    """The scale reaches the longest wait of all contenders, so no mark stands in the next panel."""
    slow, quick = (Fate(0, 5.0, 15.0, OPENAI, None),), (Fate(0, 5.0, 0.0, OPENAI, None),)
    svg = drawn(result(score(BARE, quick), score(OURS, slow)), tmp_path)
    [(_, upper)], [(_, lower)] = (
        marks(svg, f"{name}-openai-gpt-4-1") for name in ("bare-client", "resilientchatmodel")
    )
    assert 72 * 0.36 < lower - upper < 72 * 0.6


def test_a_late_question_is_on_the_axis(tmp_path: Path):
    """A question that a busy machine asked after the afternoon's end stretches the time axis, which ends with it."""
    svg = drawn(result(score(OURS, [Fate(0, 60.5, 1.0, OPENAI, None)])), tmp_path)
    assert marks(svg, "resilientchatmodel-openai-gpt-4-1")[0][0] == pytest.approx(36 + 554.4)


def test_failures_differ_by_shape_and_colour(tmp_path: Path):
    """A failure is a cross in the one warm colour, an answer a dot in its provider's, and no two providers share one."""
    svg = drawn(usual(), tmp_path)
    assert shape(svg, "bare-client-failed")[0] is False
    assert "#d55e00" in shape(svg, "bare-client-failed")[1]
    styles = set()
    for provider in ("openai-gpt-4-1", "anthropic-claude-sonnet-4-5", "ollama-llama3-1"):
        round_, style = shape(svg, f"bare-client-{provider}")
        assert round_ and "#d55e00" not in style
        assert shape(svg, f"resilientchatmodel-{provider}") == (round_, style)
        styles.add(style)
    assert len(styles) == 3


def test_an_answer_of_nobody_known_is_drawn_too(tmp_path: Path):
    """Who is not among the providers answered all the same: a series and an entry of its own, which nobody else has."""
    fates = (Fate(0, 1.0, 0.5, None, None), Fate(1, 2.0, 0.5, "who/ever", None))
    svg = drawn(result(score(OURS, fates)), tmp_path)
    assert len(marks(svg, "resilientchatmodel-unknown")) == 2
    assert "unknown" in words(svg).splitlines()
    assert "unknown" not in words(drawn(usual(), tmp_path))


def test_the_strip_shows_shares(tmp_path: Path):
    """Who answered ours is stacked by time: half and half where two answered one each, and nothing where nobody asked."""
    fates = (Fate(0, 0.2, 1.0, OPENAI, None), Fate(1, 0.7, 1.0, None, "auth"), Fate(2, 1.5, 1.0, OPENAI, None))
    svg = drawn(result(score(OURS, fates)), tmp_path)
    openai, failed = path_of(svg, "share-openai-gpt-4-1"), path_of(svg, "share-failed")
    bottom = max(y for _, y in openai)
    width, height = 554.4 / 60, 72 * 0.6  # a step is a second: eight questions
    assert min(y for x, y in openai if x < 36 + width - 0.1) == pytest.approx(bottom - height / 2)
    assert min(y for x, y in openai) == pytest.approx(bottom - height)
    assert max(x for x, y in openai if y < bottom - 0.1) == pytest.approx(36 + 2 * width)
    assert min(y for _, y in failed if y) == pytest.approx(bottom - height)
    assert max(y for x, y in failed if x < 36 + width - 0.1) == pytest.approx(bottom - height / 2)
    assert {"openai 66 %", "failed 33 %"} <= set(words(svg).splitlines())


def test_circuits_are_spans_between_changes():
    """A circuit that is not closed is so until its next change, or until the end of the play; circuits do not mix."""
    changes = (
        change(8.0, "open"),
        change(9.0, "open", provider=OLLAMA),
        change(10.5, "half_open", before="open"),
        change(11.0, "open", before="half_open"),
        change(20.0, "half_open", before="open"),
        change(21.0, "closed", before="half_open"),
    )
    assert circuit_spans(result(changes=changes)) == [
        Span(OPENAI, "open", 8.0, 10.5),
        Span(OPENAI, "half_open", 10.5, 11.0),
        Span(OPENAI, "open", 11.0, 20.0),
        Span(OPENAI, "half_open", 20.0, 21.0),
        Span(OLLAMA, "open", 9.0, 62.0),
    ]


def test_circuits_that_opened_have_a_line_each(tmp_path: Path):
    """Only they are named; the words at the ends say what happened, and one that is still open has not closed."""
    changes = (change(8.0, "open"), change(10.0, "closed", before="open"), change(9.0, "open", provider=OLLAMA))
    svg = drawn(result(score(OURS, ANSWERED), changes=changes), tmp_path)
    said = words(svg).splitlines()
    assert {"circuit of openai", "circuit of ollama"} <= set(said) and "circuit of anthropic" not in said
    assert (said.count("opened"), said.count("closed")) == (2, 1)
    across = [x for x, _ in path_of(svg, "circuit-openai-gpt-4-1-open")]
    assert (min(across), max(across)) == pytest.approx((36 + 8 * 9.24, 36 + 10 * 9.24))


def test_a_stopped_play_says_so(tmp_path: Path):
    """Where it was stopped is marked, and the questions under way are counted."""
    stopped = words(drawn(result(score(OURS, ANSWERED[:1], waiting=2), stopped=20.0), tmp_path)).splitlines()
    assert {"stopped here", "1 of 3", "2 still waiting"} <= set(stopped)
    whole = words(drawn(usual(), tmp_path))
    assert "stopped here" not in whole and "still waiting" not in whole


ONE = two_pm()._replace(phases=two_pm().phases[:1])


@pytest.mark.parametrize(
    ("what", "said", "count"),
    [
        (result(stopped=0.0), "Nobody has asked anything", 0),
        (result(*(score(name, ()) for name in NAMES)), "Nobody has asked anything", 0),
        (result(score(BARE, ANSWERED)), "Nobody has asked anything", 3),
        (result(score(OURS, (), waiting=1), stopped=0.1), "ResilientChatModel answered 0 of 1 question", 0),
        (result(score(OURS, FAILED)), "ResilientChatModel answered 0 of 2 questions, p99 10.0 s", 2),
        (result(score(OURS, ANSWERED[:1]), afternoon=ONE), "ResilientChatModel answered 1 of 1 question, p99 0.50 s", 1),
        (result(score(OURS, ANSWERED), afternoon=ONE), "ResilientChatModel answered 3 of 3 questions, p99 4.00 s", 3),
        (result(score(OURS, ANSWERED), afternoon=two_pm(10)), "ResilientChatModel answered 3 of 3 questions, p99 4.00 s", 3),
        (result(score(OURS, [Fate(0, 0.0, 0.0, OPENAI, None)])), "ResilientChatModel answered 1 of 1 question, p99 0.00 s", 1),
    ],
    ids=["nothing", "no questions", "not ours", "too early", "failures", "one phase", "late", "fast", "at once"],
)  # fmt: skip  # a case a line
def test_whatever_the_play_came_to_is_drawn(
    tmp_path: Path, what: Result, said: str, count: int, recwarn: pytest.WarningsRecorder
):
    """A play without questions, answers, failures or a second phase is a picture too, and nobody is warned."""
    svg = drawn(what, tmp_path)
    assert said in words(svg).splitlines()
    assert all_marks(svg) == count
    assert [str(warning.message) for warning in recwarn] == []


def test_a_long_afternoon_stays_small(tmp_path: Path):
    """1500 questions are less than 300 kB of SVG."""
    fates = [Fate(n, n * 0.12, 0.2 + n % 7, (OPENAI, OLLAMA)[n % 2], None if n % 3 else "timeout") for n in range(500)]
    svg = draw(result(*(score(name, fates) for name in NAMES)), tmp_path)[1]
    assert all_marks(parsed(svg)) == 1500
    assert svg.stat().st_size < 300_000


def test_text_is_drawn_as_it_stands(tmp_path: Path):
    """A dollar is not mathematics, and an ampersand not markup; fonts end in one that every machine has."""
    phase = two_pm().phases[0]._replace(title="costs $5 & $6")
    svg = drawn(result(afternoon=two_pm()._replace(phases=(phase,))), tmp_path)
    assert "costs $5 & $6" in words(svg)
    styles = [text.get("style", "") for text in svg.iter(f"{SVG}text")]
    assert styles and all("sans-serif" in style for style in styles)


def test_one_result_is_one_picture(tmp_path: Path):
    """The same result gives the same bytes, whatever matplotlib's settings are, and leaves those as they were."""
    first = [path.read_bytes() for path in draw(usual(), tmp_path / "a")]
    mine = {
        "axes.facecolor": "black",
        "svg.fonttype": "path",
        "font.size": 30,
        "savefig.bbox": "tight",
        "font.family": "serif",
    }
    with mpl.rc_context(mine):
        before = dict(mpl.rcParams)
        assert [path.read_bytes() for path in draw(usual(), tmp_path / "b")] == first
        assert dict(mpl.rcParams) == before
    assert b"<dc:date>" not in first[1]


def test_logging_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The logger of matplotlib is silent while a picture is drawn and not a moment longer, even when drawing fails."""
    logger = logging.getLogger("matplotlib")
    monkeypatch.setattr(logger, "level", logging.INFO)
    draw(usual(), tmp_path)
    assert logger.level == logging.INFO
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError):
        draw(usual(), tmp_path)
    assert logger.level == logging.INFO


def test_without_matplotlib_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A missing package is a setting that makes no sense, with the command that adds it; nothing is written."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError, match=r"needs matplotlib .*: pip install 'langchain-resilient\[demo\]'"):
        draw(usual(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "below"])
def test_a_directory_that_cannot_be_written_to_is_named(tmp_path: Path, below: str):
    """The error says which directory, why, and what to do."""
    directory = tmp_path / "taken" / below
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(
        OSError, match=r"no chart in '.*taken.*' \((File exists|Not a directory)\): name a directory that"
    ):
        draw(usual(), directory)
    assert (tmp_path / "taken").read_text() == "a file"


ALONE = """
import pickle, sys
import langchain_resilient.demo, langchain_resilient.demo.chart as chart
from pathlib import Path
assert "matplotlib" not in sys.modules
chart.draw(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
assert "matplotlib.pyplot" not in sys.modules
assert not any(name.startswith(("tkinter", "PyQt", "gi.")) for name in sys.modules)
"""


@pytest.mark.parametrize("writable", [True, False])
def test_a_first_run_is_silent(tmp_path: Path, writable: bool):
    """In a fresh home, with or without a place for caches, nothing is printed, pyplot stays out, and the bytes are the same."""
    (tmp_path / "result").write_bytes(pickle.dumps(usual()))
    home = tmp_path / "home"
    home.mkdir() if writable else home.write_text("not a directory")
    variables = {name: str(home / "config") for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONHASHSEED": "7", **variables}
    command = [sys.executable, "-c", ALONE, str(tmp_path / "result"), str(tmp_path / "out")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    here = [path.read_bytes() for path in draw(usual(), tmp_path / "here")]
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == here


def test_lines_of_figures_do_not_touch(tmp_path: Path):
    """A contender with every figure there is keeps them apart, and within its panel's height."""
    svg = drawn(result(score(OURS, FAILED + ANSWERED, waiting=2), stopped=20.0), tmp_path)
    said = {"".join(text.itertext()): float(text.get("y", "0")) for text in svg.iter(f"{SVG}text")}
    rows = [
        said[row]
        for row in ("3 of 7", "answered", "2 failed", "2 still waiting", "p50 2.00 s, p99 10.0 s", "4 calls wasted")
    ]
    assert all(below - above >= 12 for above, below in pairwise(rows))
    assert rows[-1] - rows[0] < 72 * 1.45

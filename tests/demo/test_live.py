"""A frame fits whatever terminal there is and says everything without colour; the terminal is as it was afterwards."""

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from langchain_resilient.demo.afternoon import Phase, two_pm
from langchain_resilient.demo.contenders import NAMES
from langchain_resilient.demo.live import render, show
from langchain_resilient.demo.play import Play, Stream, Told
from langchain_resilient.demo.words import LABELS
from tests.demo.made import ANTHROPIC, SCENES, changed, decision, drawn, fits, ok, scene, standing

FRAME = """\
 2:00 PM  openai answers 503                                       14 s of 60 s
 ━━━━━━━━━━━━━━━━━━╸───────────────────────────────────────────────────────────

 the same questions  answered  failed  waiting  p50 now  p99 now  calls
 bare client               52      31       14   1.92 s   2.63 s    148
 with_fallbacks            97       0        0   0.44 s   1.32 s    131
 ResilientChatModel        96       0        1   0.38 s   0.42 s    102

 our providers  really            as the model knows it              p99  share
 openai         503               × open, probe in 1.4 s          0.31 s    0 %
 anthropic      healthy           ● closed                        0.41 s  100 %
 ollama         healthy           ● closed                             –    0 %

 What is full jitter?                                                 streaming
   A wait drawn evenly between▌


 last decisions
  14.1 s  · openai is open: anthropic answered ×2 in 0.38–0.50 s
  12.7 s  × circuit of openai opened (overloaded)
  12.6 s  · openai 503 → anthropic 0.41 s"""


def frame(width, height, seen=None, **how) -> list[str]:
    """The lines of a frame."""
    seen = seen or scene()
    return drawn(render(seen, width=width, height=height), width, height, **how)


def text(width, height, seen=None, **how) -> str:
    """A frame without blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in frame(width, height, seen, **how))


@given(SCENES, st.integers(30, 220), st.integers(8, 60), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_no_scene_overflows_a_terminal_and_all_counts_are_on_it(seen, width, height, encoding):
    """Any scene at any size: no line too wide, none too many, none that moves the cursor; each contender's three counts."""
    lines = frame(width, height, seen, encoding=encoding)
    assert fits(lines, width, height)
    for name, each in zip(NAMES, seen.sides, strict=True):
        row = next(line for line in lines if line.strip().startswith((name, LABELS[name])))
        counts = [str(number) for number in (each.total.answered, each.total.failed, each.total.waiting)]
        assert counts == row.replace(name, "").replace(LABELS[name], "").split()[:3]


def test_a_frame_of_80_by_24():
    """All parts have room on the smallest usual terminal."""
    assert text(80, 24) == FRAME


def test_a_scene_is_drawn_as_it_is_and_changed_by_nothing():
    """A view is values in, lines out: the same scene and size are the same frame."""
    assert text(100, 30) == text(100, 30, scene())


@pytest.mark.parametrize(("width", "bars"), [(100, True), (120, True), (80, False), (60, False)])
def test_bars_are_drawn_where_there_is_room(width, bars):
    """Shares have figures everywhere, and bars on wide terminals."""
    shown = text(width, 30)
    assert ("█" in shown) is bars
    assert "100 %" in shown


def test_on_a_narrow_terminal_columns_go_and_counts_stay():
    """At 40 columns the tables lose p50 and p99 of the providers, not who answered and what the model knows."""
    shown = text(40, 15)
    assert "bare        52   31   14  2.63 s   148" in shown
    assert "openai    503       × open, 1.4 s    0 %" in shown
    assert "p50" not in shown


def test_what_has_no_room_goes_by_importance():
    """Row by row less: the stream goes first, then the news, then our providers; the contenders stay."""
    parts = {
        "stream": "full jitter",
        "news": "last decisions",
        "ours": "as the model knows it",
        "counts": "bare client",
    }
    seen = {
        height: {name for name, words in parts.items() if words in text(80, height)}
        for height in (24, 13, 12, 10, 8, 4)
    }
    assert seen == {
        24: {"stream", "news", "ours", "counts"},
        13: {"news", "ours", "counts"},
        12: {"news", "ours", "counts"},
        10: {"ours", "counts"},
        8: {"news", "counts"},
        4: {"counts"},
    }


def test_news_fill_what_is_left_newest_first():
    """The more rows the more news; on few rows the newest are the ones that stay."""
    told = tuple(Told(float(number), changed("closed", "open", provider=f"p{number}/m")) for number in range(20))
    many, few = text(80, 40, scene(told=told)), text(80, 22, scene(told=told))
    assert many.count("opened") == 20
    assert "p19" in few and "p0 " not in few
    assert few.index("p19") < few.index("p18")


@pytest.mark.parametrize(
    ("known", "wide", "narrow"),
    [
        ({}, "● closed", "● closed"),
        ({"circuit": "open", "probes_in": 1.4}, "× open, probe in 1.4 s", "× open, 1.4 s"),
        ({"circuit": "open", "probes_in": 0.0}, "× open, probe due", "× open, probe…"),
        ({"circuit": "half_open"}, "◐ half-open", "◐ half-open"),
        ({"hot": True}, "● closed, silent", "● silent"),
        ({"slow": True}, "● closed, slow", "● slow"),
        ({"blocked_for": 3.24}, "● closed, blocked 3.2 s", "● blocked 3.2…"),
        ({"circuit": "forced_open"}, "! forced_open", "! forced_open"),
    ],
)
def test_every_state_is_told_in_words_and_signs(known, wide, narrow):
    """No colour is needed to know what a circuit does and why a provider is passed over."""
    seen = scene(standings=(standing(**known),))
    assert f" {wide} " in text(80, 24, seen)
    assert f" {narrow} " in text(40, 15, seen)


@pytest.mark.parametrize(
    ("stream", "state"),
    [
        (Stream("Q?", "half an", None, over=False), "streaming"),
        (Stream("Q?", "an answer", ANTHROPIC, over=True), "from anthropic"),
        (Stream("Q?", "half an", None, over=True), "broken off"),
    ],
)
def test_a_stream_says_how_it_stands(stream, state):
    """Under way, answered and by whom, or broken off."""
    shown = text(80, 24, scene(stream=stream))
    assert state in shown
    assert stream.text in shown


def test_what_is_below_a_stream_stays_where_it_is():
    """A longer answer moves nothing: its lines are kept free from the beginning."""
    short, long = Stream("Q?", "A", None, over=False), Stream("Q?", "word " * 26, None, over=False)
    rows = [frame(80, 24, scene(stream=stream)) for stream in (short, long)]
    places = [next(index for index, row in enumerate(lines) if "last decisions" in row) for lines in rows]
    assert places[0] == places[1]


def test_columns_stay_where_they_are_as_states_change():
    """The same terminal has the same columns, whatever a circuit does."""
    calm = frame(80, 24, scene(standings=(standing(),)))
    wild = frame(
        80, 24, scene(standings=(standing(circuit="open", probes_in=9.9, hot=True, slow=True, truth="a" * 40),))
    )
    header = next(line for line in calm if "our providers" in line)
    assert header in wild


def test_what_came_from_elsewhere_moves_no_cursor():
    """Control characters in an answer are blanks."""
    stream = Stream("Q\x1b[2J?", "red \x1b[31m\r\nfish", None, over=False)
    lines = frame(80, 24, scene(stream=stream))
    assert fits(lines, 80, 24)
    assert "red  [31m" not in "\n".join(lines) and "red [31m fish" in "\n".join(lines)


def test_before_the_beginning_and_after_the_end():
    """No contender yet is no error; past the last question the last answers are waited for."""
    early = scene(elapsed=0.0, sides=(), standings=(), told=(), stream=None)
    assert frame(80, 24, early)[0].strip().startswith("2:00 PM")
    assert "the last answers" in text(80, 24, scene(elapsed=61.0))


def test_without_unicode_it_is_ascii_of_the_same_shape():
    """An encoding that knows no more gets other signs in the same places."""
    plain, full = frame(100, 24, encoding="ascii"), frame(100, 24)
    assert "\n".join(plain).isascii()
    assert [len(line) for line in plain] == [len(line) for line in full]
    assert any("x open, probe in 1.4 s" in line and "....." in line for line in plain)
    assert any("=====>-----" in line for line in plain)


def test_without_colour_no_colour_is_sent(monkeypatch):
    """NO_COLOR keeps bold and dim, and no colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    shown = "\n".join(frame(80, 24, colour="standard"))
    assert not any(f"\x1b[{code}m" in shown or f";{code}m" in shown for code in range(30, 38))
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[31m" in "\n".join(frame(80, 24, colour="standard"))


# ── while a play goes on ─────────────────────────────────────────────────────────────────────────────────────────────


def short_play() -> Play:
    """A second of an afternoon, in two phases."""
    phases = (Phase("1:59 PM", "all is well", 0.7, {}), two_pm(10).phases[1]._replace(seconds=0.7))
    return Play(two_pm(10)._replace(phases=phases), seed=2)


class Screen(io.StringIO):
    """What a terminal was sent, and whether a frame with the contenders was among it."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = asyncio.Event()

    def write(self, text: str) -> int:
        if "ResilientChatModel" in text:
            self.drawn.set()
        return super().write(text)


def terminal(term="xterm-256color") -> Console:
    """A terminal that keeps what it is sent."""
    return Console(file=Screen(), force_terminal=True, width=80, height=40, _environ={"TERM": term})


ON, OFF, HIDDEN, SHOWN = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"
real = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")


async def watched(play, console) -> None:
    """Plays and shows, as the command does."""
    async with asyncio.TaskGroup() as group:
        group.create_task(show(play, console))
        await play.run()


@real
@pytest.mark.e2e
async def test_a_play_is_shown_on_the_other_screen_to_its_end():
    """Frames of what happens, the last one after the end; then the terminal is as it was."""
    play, console = short_play(), terminal()
    await watched(play, console)
    written = console.file.getvalue()
    assert written.count(ON) == written.count(OFF) == 1
    assert written.rindex(OFF) > written.rindex("ResilientChatModel")
    assert written.rindex(SHOWN) > written.rindex(HIDDEN)
    assert "all is well" in written and "openai answers 503" in written
    assert f"{play.ours.ledger.figures().answered}" in written[written.rindex("ResilientChatModel") :]


@real
@pytest.mark.e2e
async def test_cancelled_the_terminal_is_as_it_was():
    """Ctrl-C at any moment: the cursor is back, and so is the screen that was there before."""
    play, console = short_play(), terminal()
    task = asyncio.create_task(watched(play, console))
    await console.file.drawn.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    written = console.file.getvalue()
    assert written.rindex(OFF) > written.rindex("ResilientChatModel")
    assert written.rindex(SHOWN) > written.rindex(HIDDEN)
    assert play.over


class Over:
    """A play that is over before anybody looks."""

    over, elapsed, contenders, told, changes, stream = True, 1.0, (), (), (), None
    afternoon = two_pm()
    phase = afternoon.phases[0]


async def test_a_terminal_that_can_not_move_its_cursor_gets_lines():
    """TERM=dumb: log lines, without a single control character."""
    console = terminal("dumb")
    await show(Over(), console)
    assert console.file.getvalue() == "[  1.0s] 1:59 PM: all is well\n"


async def test_no_terminal_gets_lines():
    """Into a file or a pipe: the same lines."""
    console = Console(file=io.StringIO(), width=30)
    await show(Over(), console)
    assert console.file.getvalue() == "[  1.0s] 1:59 PM: all is well\n"


async def test_news_on_the_screen_reach_further_back_than_a_scene():
    """A circuit's change is still to be read after a second of answers."""

    class Busy(Over):
        told = (Told(0.0, changed("closed", "open")), *(Told(float(n), decision(f"p{n}/m", ok())) for n in range(12)))

    console = terminal()
    await show(Busy(), console)
    assert "circuit of openai opened" not in text(80, 50, scene(told=Busy.told[-8:]))
    assert "circuit of openai opened" in console.file.getvalue()

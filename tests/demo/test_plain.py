"""A log of the play that any CI system can keep."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_resilient.demo.afternoon import Phase, two_pm
from langchain_resilient.demo.contenders import BARE, FALLBACKS, OURS
from langchain_resilient.demo.plain import WIDEST, Log, follow, line_of
from langchain_resilient.demo.play import Play
from tests.demo.made import CHANGE, SCENES, SECONDS, changed, scene, side

FIRST, SECOND = Phase("1:59 PM", "all is well", 7.0, {}), Phase("2:00 PM", "…and openai is 8 × slower → 503", 9.0, {})


def told(log, at, **values) -> list[str]:
    """What a log has to say of a moment."""
    changes = values.pop("changes", ())
    over = values.pop("over", False)
    return log.lines(scene(elapsed=at, **values), changes, over=over)


@given(st.lists(st.tuples(SCENES, st.lists(st.tuples(SECONDS, CHANGE), max_size=3)), max_size=5))
def test_no_scene_makes_a_line_that_a_log_could_not_keep(seen):
    """Any scenes in any order: ASCII of at most 120 columns, no control characters, and the time before each."""
    log, changes = Log(), []
    for moment, more in seen:
        changes += more
        for line in log.lines(moment, changes):
            assert line.isascii() and line.isprintable() and len(line) <= 120
            assert line.startswith("[") and "s]" in line[:12]


@given(SCENES)
def test_counts_are_never_cut(seen):
    """However large they are, a line of counts holds all nine."""
    line = Log().lines(seen, (), over=True)[-1]
    for each in seen.sides:
        assert f" {each.total.answered}/{each.total.failed}/{each.total.waiting}" in line


def test_a_phase_is_told_when_it_changes():
    """Once each; in ASCII whatever its title holds."""
    log = Log()
    assert told(log, 0.0, phase=FIRST) == ["[  0.0s] 1:59 PM: all is well"]
    assert told(log, 0.1, phase=FIRST) == []
    assert told(log, 0.2, phase=SECOND) == ["[  0.2s] 2:00 PM: ...and openai is 8 x slower -> 503"]


def test_counts_are_told_once_a_second():
    """A second after the beginning, and a second after the last time, however long the process paused."""
    log, sides = Log(), (side(BARE, 52, 31, 14), side(FALLBACKS, 97, 0, 1), side(OURS, 98, 0, 0))
    moments = (0.0, 0.9, 1.0, 1.9, 2.05, 2.9, 9.0, 9.5, 10.0)
    lines = {at: told(log, at, phase=FIRST, sides=sides)[at == 0.0 :] for at in moments}
    assert [at for at in moments if lines[at]] == [1.0, 2.05, 9.0, 10.0]
    assert lines[9.0] == [
        "[  9.0s] answered/failed/waiting: bare client 52/31/14  | with_fallbacks 97/0/1    | ResilientChatModel 98/0/0"
    ]


def test_the_last_counts_are_told_at_the_end():
    """The numbers that the summary goes by are in the log."""
    log = Log()
    told(log, 1.0)
    assert told(log, 1.1) == []
    assert len(told(log, 1.2, over=True)) == 1


def test_a_circuits_change_is_told_once_with_its_own_time():
    """Each change of ours, when it happened and not when it was seen, before what was seen later."""
    log, changes = Log(), [(9.21, changed("closed", "open"))]
    told(log, 9.0, phase=FIRST)
    assert told(log, 9.3, phase=SECOND, changes=changes)[0] == "[  9.2s] ours: circuit of openai opened (overloaded)"
    assert told(log, 9.4, phase=SECOND, changes=changes) == []
    changes += [(11.7, changed("open", "half_open", "probe")), (12.1, changed("half_open", "closed", "ok"))]
    assert told(log, 12.2, phase=SECOND, changes=changes)[:2] == [
        "[ 11.7s] ours: circuit of openai half-open: probing",
        "[ 12.1s] ours: circuit of openai closed again",
    ]


def test_a_line_that_is_too_long_ends_in_dots():
    """120 columns, and it is to be seen that something is missing."""
    line = line_of(14.2, "x" * 300)
    assert len(line) == WIDEST == 120
    assert line.startswith("[ 14.2s] xxx") and line.endswith("x...")


def short_play() -> Play:
    """A second of an afternoon, in two phases."""
    afternoon = two_pm(10)
    return Play(afternoon._replace(phases=(FIRST._replace(seconds=0.6), SECOND._replace(seconds=0.8))), seed=2)


real = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")


async def followed(play, write) -> None:
    """Plays and follows, as the command does."""
    async with asyncio.TaskGroup() as group:
        group.create_task(follow(play, write))
        await play.run()


@real
@pytest.mark.e2e
async def test_a_play_is_followed_to_its_end():
    """Its phases in their order, and last of all what it came to."""
    play, lines = short_play(), []
    await followed(play, lines.append)
    phases = [line for line in lines if "PM:" in line]
    assert [line.split("] ")[1][:7] for line in phases] == ["1:59 PM", "2:00 PM"]
    times = [float(line[1:].partition("s]")[0]) for line in lines]
    assert times == sorted(times)
    figures = play.ours.ledger.figures()
    assert figures.waiting == 0
    assert lines[-1].endswith(f"{OURS} {figures.answered}/{figures.failed}/0")


@real
@pytest.mark.e2e
async def test_cancelled_it_writes_nothing_more():
    """Ctrl-C ends the lines with the play."""
    play, lines, begun = short_play(), [], asyncio.Event()
    task = asyncio.create_task(followed(play, lambda line: (lines.append(line), begun.set())))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    written = len(lines)
    await asyncio.sleep(0.25)
    assert play.over
    assert len(lines) == written


@real
@pytest.mark.e2e
async def test_a_reader_that_has_gone_ends_the_play():
    """A broken pipe is raised, and the servers are stopped."""

    def gone(line):
        raise BrokenPipeError

    play = short_play()
    with pytest.raises(ExceptionGroup) as raised:
        await followed(play, gone)
    assert raised.value.subgroup(BrokenPipeError)
    assert not play.complete

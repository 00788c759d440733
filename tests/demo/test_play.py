"""Nothing is scripted: what the play reports is what happened, by the servers' own logs."""

import asyncio
import random
import threading
from collections import Counter
from itertools import pairwise

import pytest

from langchain_resilient.demo.afternoon import HEALTHY, Afternoon, Phase, two_pm
from langchain_resilient.demo.contenders import FALLBACKS, NAMES, OURS
from langchain_resilient.demo.ledger import figures_of
from langchain_resilient.demo.play import Play
from langchain_resilient.demo.scene import look
from langchain_resilient.demo.stage import prompt_of
from langchain_resilient.demo.traffic import FAQ
from langchain_resilient.engine.events import Admitted, Attempted, Decision

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("much_of_the_machine"),
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]


def calm(seconds: float) -> Afternoon:
    """An afternoon of which nobody has anything to tell. Not faster than twice: a busy machine alone would be slower than a limit."""
    return two_pm(2.0)._replace(phases=(Phase("1:59 PM", "all is well", seconds, {}),), rate=10.0)


class Watched(Play):
    """Keeps every place that our model reports as taken, and every attempt that it gave up."""

    def __init__(self, *arguments, **settings) -> None:
        super().__init__(*arguments, **settings)
        self.admitted: list[Admitted] = []
        self.given_up: list[Attempted] = []

    def _hear(self, event) -> None:
        super()._hear(event)
        if isinstance(event, Admitted):
            self.admitted.append(event)
        elif isinstance(event, Attempted) and event.kind in {"cancelled", "timeout"}:
            self.given_up.append(event)


@pytest.fixture(scope="module")
def played(much_of_the_machine: None) -> Watched:
    """The whole afternoon, four times as fast."""
    play = Watched(two_pm(4.0), seed=3)
    asyncio.run(play.run())
    return play


def test_every_question_has_one_fate_with_each_contender(played: Watched):
    """What was asked is answered or failed, for all three the same questions at the same instants."""
    result = played.result()
    assert result.complete
    assert [score.name for score in result.scores] == list(NAMES)
    for score in result.scores:
        assert [fate.number for fate in score.fates] == [question.number for question in played.questions]
        assert score.figures == figures_of(score.fates)
        assert score.figures.asked == len(played.questions) == score.figures.answered + score.figures.failed
        assert sum(figures.asked for figures in score.by_phase) == score.figures.asked
        assert sum(score.errors.values()) == score.figures.failed
    instants = [[fate.at for fate in score.fates] for score in result.scores]
    assert instants[0] == instants[1] == instants[2]


def test_calls_and_wasted_calls_are_the_servers_own_counts(played: Watched):
    """Requests in the logs; those that answered nobody are wasted; an answer has a request that a server answered in full."""
    for contender, score in zip(played.contenders, played.result().scores, strict=True):
        logs = {house.name: contender.stage.servers[house.wire].requests for house in played.afternoon.houses}
        assert score.calls == {name: len(log) for name, log in logs.items()}
        assert score.wasted == sum(map(len, logs.values())) - score.figures.answered
        kept = {
            prompt_of(record)
            for log in logs.values()
            for record in log
            if record.outcome == "ok" and not record.disconnected
        }
        answered = {f"[{fate.number}]" for fate in score.fates if fate.answered}
        assert answered <= {prompt.split()[0] for prompt in kept}


def test_who_answered_is_who_answered(played: Watched):
    """By each provider's log: nobody is named more often than it has answered in full."""
    for contender, score in zip(played.contenders, played.result().scores, strict=True):
        named = Counter(fate.provider for fate in score.fates if fate.answered)
        assert None not in named
        for name, outcomes in contender.stage.outcomes().items():
            assert named[name] <= outcomes.get("ok", 0)


def test_our_models_own_account_agrees_with_the_logs(played: Watched):
    """Every request that a server logged is a place that our model reported as taken, and the other way round, but for what was given up unread."""
    reported = Counter(admitted.provider for admitted in played.admitted)
    logged = Counter(played.ours.stage.calls())
    assert logged <= reported
    assert reported - logged <= Counter(attempted.provider for attempted in played.given_up)


def test_the_story_is_the_one_that_was_announced(played: Watched):
    """A bare client fails users, fallbacks answer at the price of many calls, and ours answers at the price of few."""
    bare, fallbacks, ours = played.result().scores
    assert bare.figures.failed > 0
    assert (fallbacks.name, ours.name) == (FALLBACKS, OURS)
    # Not all of them: four times as fast, a busy machine alone may be slower than a limit.
    assert bare.figures.answered < 0.95 * ours.figures.asked <= ours.figures.answered
    assert ours.wasted < fallbacks.wasted < bare.wasted
    changes = [change for _, change in played.changes]
    assert changes[0].provider == "openai/gpt-4.1"
    assert (changes[0].before, changes[0].after) == ("closed", "open")


async def test_a_server_that_dies_when_nobody_was_told_is_noticed():
    """Killed at an instant that only chance chose: ours answers all, the stream too that it was reading, and uses the revived one again."""
    play = Play(calm(5.0), seed=5)
    instant = random.uniform(0.6, 1.4)
    playing = asyncio.create_task(play.run())
    await asyncio.sleep(instant)
    for contender in play.contenders:
        contender.stage.servers["openai"].kill()
    await asyncio.sleep(0.8)
    before = play.ours.stage.calls()["openai/gpt-4.1"]
    for contender in play.contenders:
        contender.stage.servers["openai"].start()
    await playing
    scores = {score.name: score for score in play.result().scores}
    assert scores[OURS].figures.asked == len(play.questions)
    assert [fate.error for fate in scores[OURS].fates if not fate.answered] == []
    assert scores[OURS].calls["anthropic/claude-sonnet-4-5"] > 0
    assert scores[OURS].calls["openai/gpt-4.1"] > before
    assert any(change.after == "open" for _, change in play.changes)
    assert all(play.phase.of(house.wire) is HEALTHY for house in play.afternoon.houses)


class Seen(Play):
    """Keeps every state of the answer on screen."""

    def __setattr__(self, name, value) -> None:
        super().__setattr__(name, value)
        if name == "stream" and value is not None:
            self.__dict__.setdefault("seen", []).append(value)


async def test_the_stream_on_screen_is_one_answer_at_a_time():
    """It grows word by word to the whole answer and says who gave it, before another begins."""
    play = Seen(calm(5.0), seed=2)
    await play.run()
    ended = [stream for stream in play.seen if stream.over]
    assert len(ended) >= 3
    assert {(stream.text, stream.provider) for stream in ended} <= {(reply, "openai/gpt-4.1") for reply in FAQ.values()}
    for earlier, later in pairwise(play.seen):
        assert earlier.over or (later.question == earlier.question and later.text.startswith(earlier.text))


async def test_a_play_that_is_stopped_leaves_nothing_behind():
    """Cancelled midway: no task, no server, no thread of it is left, and what was counted so far stands."""
    threads = set(threading.enumerate())
    tasks = asyncio.all_tasks()
    play = Play(two_pm(4.0), seed=1)
    playing = asyncio.create_task(play.run())
    await asyncio.sleep(3.0)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    result = play.result()
    assert play.over and not result.complete
    assert 0.0 < result.seconds < play.afternoon.seconds
    for score in result.scores:
        assert 0 < score.figures.answered <= score.figures.asked < len(play.questions)
    assert asyncio.all_tasks() <= tasks
    for contender in play.contenders:
        for server in contender.stage.servers.values():
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", server.port)
    left = [thread for thread in set(threading.enumerate()) - threads if "asyncio" not in thread.name]
    assert not left


async def test_a_play_may_be_looked_at_before_during_and_after():
    """A scene counts what the ledgers count, and shares add up to one."""
    play = Play(calm(1.0), seed=1)
    first = look(play)
    assert (first.elapsed, first.sides, first.standings, first.stream) == (0.0, (), (), None)
    playing = asyncio.create_task(play.run())
    await asyncio.sleep(0.6)
    during = look(play)
    await playing
    last = look(play)
    assert 0.0 < during.elapsed < last.elapsed
    assert [side.name for side in last.sides] == list(NAMES)
    for side, score in zip(last.sides, play.result().scores, strict=True):
        assert (side.total, side.calls) == (score.figures, sum(score.calls.values()))
    assert sum(standing.share for standing in last.standings) == pytest.approx(1.0)
    assert [standing.name for standing in last.standings] == [house.name for house in play.afternoon.houses]
    assert {standing.circuit for standing in last.standings} == {"closed"}
    assert all(isinstance(told.event, Decision) for told in last.told)

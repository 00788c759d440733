"""Rules for who asks what, and what the right answer is, in `benchmarks/outage.py`."""

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from outages.stage import HOUSES
from outages.traffic import answer_to, arrivals, number_in, prompt_of, reply_to, usual_time


def _user(text):
    return {"role": "user", "content": text}


def test_the_same_seed_is_the_same_traffic():
    """Arrivals are a function of seed, rate and length alone, so every contender meets the same."""
    assert arrivals(seed=7, rate=20, seconds=5) == arrivals(seed=7, rate=20, seconds=5)
    assert arrivals(seed=7, rate=20, seconds=5) != arrivals(seed=8, rate=20, seconds=5)


def test_a_longer_run_begins_with_the_shorter_one():
    """Nothing that comes later changes what came before."""
    short = arrivals(seed=7, rate=20, seconds=5)
    assert arrivals(seed=7, rate=20, seconds=9)[: len(short)] == short


def test_the_rate_is_about_kept_and_the_numbers_count_up():
    """A thousand seconds at two a second are two thousand requests, give or take three standard deviations."""
    due = arrivals(seed=1, rate=2, seconds=1000)
    assert 2000 - 135 < len(due) < 2000 + 135
    assert [arrival.number for arrival in due] == list(range(len(due)))
    assert all(earlier.at < later.at for earlier, later in pairwise(due))


def test_an_answer_takes_its_time_by_request_and_provider():
    """Whoever asks, and whenever: the same draw; another provider's draw is its own."""
    first, second = HOUSES[0].name, HOUSES[1].name
    assert usual_time(1, first, 5) == usual_time(1, first, 5)
    assert usual_time(1, first, 5) != usual_time(1, second, 5)
    middle = sorted(usual_time(1, first, number) for number in range(1001))[500]
    assert 0.27 < middle < 0.33


def test_the_answer_to_a_question_is_all_of_it():
    """Every word says whose it is and which."""
    assert number_in([_user(prompt_of(17))]) == 17
    assert answer_to([_user(prompt_of(17))]) == reply_to(17)
    assert reply_to(17).split()[:2] == ["17-1", "17-2"]
    assert len(set(reply_to(17).split())) == len(reply_to(17).split())


def test_a_beginning_is_continued():
    """Shown a beginning, as a prefill or in an instruction, a model says the rest: together they are the answer to the letter."""
    shown = "17-1 17-2 17-3"
    prefill = [_user(prompt_of(17)), {"role": "assistant", "content": [{"type": "text", "text": shown}]}]
    quoted = [_user(prompt_of(17)), _user(f"Continue exactly where this ends: {shown}")]
    for messages in (prefill, quoted):
        assert shown + answer_to(messages) == reply_to(17)


def test_a_word_is_a_whole_word():
    """The word 17-1 is no beginning of 17-12, and a number elsewhere is none either."""
    assert answer_to([_user(prompt_of(17)), _user("17-12")]) == reply_to(17)

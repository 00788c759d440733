"""The same traffic for everybody."""

from itertools import pairwise

import pytest

from langchain_resilient.demo.traffic import FAQ, STREAM_EVERY, arrivals, reply_to, usual_time


def test_one_seed_is_one_traffic():
    """A seed fixes every instant and every word; another seed another."""
    assert arrivals(seed=7, rate=8.0, seconds=60.0) == arrivals(seed=7, rate=8.0, seconds=60.0)
    assert arrivals(seed=7, rate=8.0, seconds=60.0) != arrivals(seed=8, rate=8.0, seconds=60.0)


@pytest.mark.parametrize("seed", range(5))
def test_questions_come_steadily_until_the_end(seed: int):
    """About `rate` a second, each gap half to one and a half of the usual, numbered as they come, the last before the end."""
    questions = arrivals(seed=seed, rate=8.0, seconds=60.0)
    times = [question.at for question in questions]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert 0 <= times[0] < 0.125 and 59.8 < times[-1] < 60.0
    assert all(0.0625 <= gap <= 0.1875 for gap in gaps)
    assert 440 < len(questions) < 520
    assert [question.number for question in questions] == list(range(len(questions)))


def test_streams_and_every_topic_are_asked():
    """Every third is a stream, and no topic is left out."""
    questions = arrivals(seed=1, rate=8.0, seconds=10.0)
    assert [question.stream for question in questions] == [index % STREAM_EVERY == 0 for index in range(len(questions))]
    assert {question.text for question in questions} == set(FAQ)


def test_an_answer_fits_its_question():
    """A provider finds the question in a prompt; nonsense gets an answer too."""
    question = arrivals(seed=1, rate=8.0, seconds=1.0)[3]
    assert question.prompt == f"[3] {question.text}"
    assert reply_to(question.prompt) == FAQ[question.text]
    assert reply_to("nonsense") == "Ask me about resilience."


def test_a_providers_speed_depends_on_the_prompt_and_not_on_who_asks():
    """Drawn from seed, provider and prompt, within 0.75 – 1.15 of the usual."""
    drawn = [usual_time(1, "openai", f"[{number}] x") for number in range(200)]
    assert drawn == [usual_time(1, "openai", f"[{number}] x") for number in range(200)]
    assert 0.75 <= min(drawn) < 0.77 and 1.13 < max(drawn) <= 1.15
    assert usual_time(1, "anthropic", "[0] x") != drawn[0] != usual_time(2, "openai", "[0] x")

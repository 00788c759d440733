"""A contender's three providers."""

import pytest

from langchain_resilient.demo.afternoon import Condition, Phase, two_pm
from langchain_resilient.demo.contenders import bare, resilient, with_fallbacks
from langchain_resilient.demo.stage import Stage
from langchain_resilient.demo.traffic import FAQ
from langchain_resilient.testing.fault_server import Fault
from tests.clients import instance

QUESTION = "What is full jitter?"
CALM = Phase("1:59 PM", "all is well", 1.0, {})


@pytest.fixture
def stage():
    """Fast providers, all well."""
    with Stage(two_pm(10.0), seed=1) as stage:
        stage.set(CALM)
        yield stage


@pytest.mark.parametrize("wire", ["openai", "anthropic", "ollama"])
def test_each_provider_answers_the_question_on_its_own_wire(stage: Stage, wire: str):
    """In full, streamed or not, and the server's log counts both."""
    model = instance(stage.servers[wire], wire)
    assert model.invoke(f"[1] {QUESTION}").text == FAQ[QUESTION]
    assert "".join(chunk.text for chunk in model.stream(f"[2] {QUESTION}")) == FAQ[QUESTION]
    name = next(house.name for house in stage.houses if house.wire == wire)
    assert stage.calls() == {house.name: 2 if house.wire == wire else 0 for house in stage.houses}
    assert stage.outcomes()[name] == {"ok": 2}


def test_a_phase_holds_for_what_it_names_until_the_next(stage: Stage):
    """Its condition strikes the provider it names and no other, and the next phase ends it."""
    stage.set(Phase("2:00 PM", "trouble", 1.0, {"openai": Condition("503", Fault.status(503))}))
    with pytest.raises(Exception, match="503"):
        instance(stage.servers["openai"], "openai").invoke("[1] x")
    assert instance(stage.servers["anthropic"], "anthropic").invoke(f"[1] {QUESTION}").text == FAQ[QUESTION]
    stage.set(CALM)
    assert instance(stage.servers["openai"], "openai").invoke(f"[2] {QUESTION}").text == FAQ[QUESTION]
    assert stage.outcomes()["openai/gpt-4.1"] == {"status(503)": 1, "ok": 1}


def test_a_brownout_slows_that_provider_alone(stage: Stage):
    """A client that is patient enough for a healthy provider gives up on one that is a thousand times slower."""
    stage.set(Phase("2:05 PM", "slow", 1.0, {"openai": Condition("slow", slowdown=1000.0)}))
    with pytest.raises(Exception, match="timed out"):
        instance(stage.servers["openai"], "openai", timeout=0.3).invoke("[1] x")
    assert instance(stage.servers["ollama"], "ollama").invoke(f"[1] {QUESTION}").text == FAQ[QUESTION]


@pytest.mark.parametrize(("make", "asked"), [(bare, 3), (with_fallbacks, 1), (resilient, 1)])
async def test_each_contender_is_what_it_says(stage: Stage, make, asked: int):
    """The bare client retries twice at its one provider and fails; the others ask the next one and answer."""
    stage.set(Phase("2:00 PM", "down", 1.0, {"openai": Condition("503", Fault.status(503))}))
    model = make(stage, two_pm(10.0))
    if asked == 3:
        with pytest.raises(Exception, match="503"):
            await model.ainvoke(f"[1] {QUESTION}")
    else:
        assert (await model.ainvoke(f"[1] {QUESTION}")).text == FAQ[QUESTION]
    calls = list(stage.calls().values())
    assert calls == [asked, 0 if asked == 3 else 1, 0]


async def test_all_contenders_have_the_same_limit_for_an_attempt(stage: Stage):
    """A provider that hangs is given up by each of them, at the afternoon's limit and not at a default of minutes."""
    stage.set(Phase("2:01 PM", "hangs", 1.0, {"openai": Condition("hangs", Fault.hang())}))
    for make in (with_fallbacks, resilient):
        assert (await make(stage, two_pm(10.0)).ainvoke(f"[1] {QUESTION}")).text == FAQ[QUESTION]
    with pytest.raises(Exception, match="timed out"):
        await bare(stage, two_pm(10.0)).ainvoke(f"[1] {QUESTION}")
    assert stage.outcomes()["openai/gpt-4.1"] == {"hang": 5}

"""`reset`: a provider is asked again at once, and whoever watches hears of it."""

import pytest

from langchain_resilient import Circuit, SettingsError
from langchain_resilient.engine.events import CircuitChanged
from tests.clients import ANSWER, BusyError, resilient, scripted


def test_a_reset_provider_is_asked_at_once(namespace: str):
    """Its circuit, open by itself and by hand, is as new; an observer is told, so that a gauge does not stay open."""
    heard = []
    one, two = scripted("one", BusyError(), ANSWER), scripted("two", "Two.", "Two.")
    model = resilient(
        one, two, namespace=namespace, circuit=Circuit(failure_threshold=1), max_retries=0, observers=[heard.append]
    )
    name = next(iter(model.status()))
    assert model.invoke("hi").text == "Two."
    model.override(name, "forced_open")
    assert model.invoke("hi").text == "Two."
    model.reset(name)
    assert model.invoke("hi").text == ANSWER
    changes = [event for event in heard if isinstance(event, CircuitChanged)]
    assert changes[-1] == CircuitChanged(name, "open", "closed", "reset")
    assert len(changes) == 2


def test_an_unknown_provider_is_named(namespace: str):
    """As by `override`: the error names the nearest."""
    model = resilient(scripted("one"), namespace=namespace)
    with pytest.raises(SettingsError, match="provider: got 'on'; "):
        model.reset("on")

"""What users give as observers."""

import sys

import pytest

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.observe.given import WORDS, observer_of


def test_an_observer_stays_what_it_is():
    """Any function of an event will do."""
    assert observer_of(print) is print


@pytest.mark.parametrize(
    ("word", "name"), [("prometheus", "PrometheusObserver"), ("opentelemetry", "OpenTelemetryObserver")]
)
def test_a_word_stands_for_the_default(word, name):
    """On the default registry, or the global provider."""
    assert type(observer_of(word)).__name__ == name


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_missing_package_is_named(word, monkeypatch):
    """With the extra that brings it."""
    monkeypatch.setitem(sys.modules, f"langchain_resilient.engine.observe.{word}", None)
    with pytest.raises(SettingsError, match=rf"got '{word}'.*pip install 'langchain-resilient\[{word}\]'"):
        observer_of(word)


@pytest.mark.parametrize("given", ["promethius", 3, None])
def test_anything_else_is_refused(given):
    """The words are named."""
    with pytest.raises(SettingsError, match=r'observers: got .*"prometheus" or "opentelemetry"'):
        observer_of(given)

"""How many hedges may be sent."""

import pytest

from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.hedge import BURST, Allowance, Hedge


def test_a_share_of_the_requests():
    """At most 5 of 100, and none before the first 20."""
    allowance = Allowance(Hedge())
    sent = []
    for request in range(100):
        allowance.earn()
        if allowance.spend():
            sent.append(request)
    assert (len(sent), sent[0] >= 19) == (5, True)


def test_a_few_can_be_saved_up():
    """However many requests went without: three at once, and then none."""
    allowance = Allowance(Hedge(max_fraction=0.1))
    for _ in range(10_000):
        allowance.earn()
    assert [allowance.spend() for _ in range(int(BURST) + 1)] == [True, True, True, False]


@pytest.mark.parametrize(
    "settings",
    [
        {"quantile": 0.4},
        {"quantile": 1.0},
        {"quantile": "p95"},
        {"max_fraction": 0},
        {"max_fraction": 1.1},
        {"fraction": 0.1},
    ],
)
def test_nonsense_is_refused(settings):
    """When made, with the field's name and the fix."""
    with pytest.raises(SettingsError, match="Hedge"):
        Hedge(**settings)

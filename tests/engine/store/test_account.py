"""What a request wants of one credential's limits."""

import pytest

from langchain_resilient.engine.quota import Cost, RateLimits
from langchain_resilient.engine.store.account import wanted
from tests.engine.harness import ask_for, target


@pytest.mark.parametrize(
    ("limits", "output", "found"),
    [
        ({"rpm": 60, "tpm": 600}, 50, ({"rpm": 1, "tpm": 150}, "")),
        ({"rpm": 60, "tpm": 600}, 9000, ({"rpm": 1, "tpm": 600}, "")),  # only the guess of the answer is too much
        (
            {"tpm": 99, "rpm": 60, "itpm": 90},
            0,
            ({"rpm": 1, "tpm": 99, "itpm": 90}, "tpm"),
        ),  # the input alone is, for two: the first is named
    ],
)
def test_what_a_request_wants(limits, output, found):
    """Its estimate, at most the whole limit; what no waiting can cure is named."""
    item = target("a", limits=RateLimits(**limits))
    amounts, too_big = wanted(item, ask_for(item, input_tokens=100), Cost(1, 100, output))
    assert ({dimension.name: amount for dimension, amount in amounts}, too_big) == found

"""Operations as words, and replies read back."""

import json

import pytest

from langchain_resilient.engine.circuit import Circuit
from langchain_resilient.engine.errors import SettingsError
from langchain_resilient.engine.policy import Price
from langchain_resilient.engine.quota import Cost, RateLimits
from langchain_resilient.engine.store.redis import wire
from langchain_resilient.engine.store.redis.wire import Booked, Candidate, Granted, Keys, Turned
from tests.engine.harness import ask_for, target

KEYS = Keys("here")


def candidate(item, *costs):
    """A candidate of this process."""
    return Candidate(item, Cost(*costs), affords=True, unfit=False)


def test_keys_are_of_one_slot_and_hold_no_secret():
    """All keys of a namespace bear its hash tag; a credential's and an endpoint's part is a hash."""
    item = target("openai/gpt", route="openai/gpt@https://user:hidden@host", account="openai/gpt@sk-secret")
    found = KEYS.of(item)
    assert len(set(found)) == 4 and all(key.startswith("{lr1:here}:") for key in (*found, KEYS.meta, KEYS.processes))
    assert not [key for key in found for secret in ("hidden", "sk-secret", "host") if secret in key]
    other = target("openai/gpt", route=item.route, account="openai/gpt@sk-other")
    assert KEYS.of(other)[0] == found[0] and set(KEYS.of(other)[1:]).isdisjoint(found[1:])


def test_a_namespace_without_braces():
    """Braces would move the keys to other slots, so they are refused, by name."""
    with pytest.raises(SettingsError, match=r"namespace: got 'a\{b'; leave out"):
        Keys("a{b")


@pytest.mark.parametrize(
    ("costs", "steps", "too_big"),
    [
        ((1, 100, 50), [1_000_000, 15_000_000], ""),
        ((1, 100, 9000), [1_000_000, 60_000_000], ""),  # only the guess of the answer is too much
        ((1, 700, 0), [1_000_000, 60_000_000], "tpm"),
    ],
)
def test_what_a_cost_takes(costs, steps, too_big):
    """The increments are computed here; what no waiting could cure is named."""
    item = target("a", limits=RateLimits(rpm=60, tpm=600))
    ask = ask_for(item, input_tokens=costs[1], patience=3.0)
    words = json.loads(wire.admit(KEYS, ask, "p:1", [candidate(item, *costs)]).words[1])
    assert words[:5] == [False, True, 3_000_000, too_big, steps]


def test_a_lane_has_its_share():
    """Room and places are those of the lane."""
    item = target("a", limits=RateLimits(rpm=60, concurrency=10))
    rooms = []
    for lane in ("interactive", "batch", "replay"):
        words = json.loads(wire.admit(KEYS, ask_for(item, lane=lane), "p:1", [candidate(item, 1)]).words[1])
        rooms.append((words[8], words[10][0][1]))
    assert rooms == [(10, 10_000_000), (6, 6_000_000), (5, 5_000_000)]


def test_settings_are_written_once_and_forgotten_in_time(monkeypatch):
    """What never changes is kept for each provider, for so many at most."""
    monkeypatch.setattr(wire, "MOST_WRITTEN", 3)
    keys, item = Keys("x"), target("a", circuit=Circuit(failure_threshold=7))
    assert keys.circuit(item) is keys.circuit(item) and "[7,0.5," in keys.circuit(item)
    assert keys.settings(item, "batch", True) != keys.settings(item, "batch", False)
    for number in range(10):
        keys.circuit(target(str(number)))
    assert len(keys._written) <= 3


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        (b"granted 2 1795255200000 1 0 1 0 1795255200000123 1000000,60000000 rpm,500", Granted(1, 1795255200000, True, False, True, False, (1_000_000, 60_000_000), 1795255200000123, (("rpm", 500),))),
        ("granted 1 0 0 0 0 1 5  ", Granted(0, 0, False, False, False, True, (), 5, ())),
        (b"queued 3 2500000 p:1|99", Booked(2, 2_500_000, "p:1|99")),
        (b"refused 0 circuit_open,60000000,forced_open,-1", Turned(0, (("circuit_open", 60_000_000), ("forced_open", -1)))),
        (b"refused 2 rpm,1,tpm,2", Turned(2, (("rpm", 1), ("tpm", 2)))),
        (b"ruffled", None),
    ],
)  # fmt: skip
def test_what_an_admission_came_to(reply, read):
    """Every reply of the script is read, whether the client decodes or not."""
    assert wire.read_admit(reply) == read


def test_a_refusal_in_the_plans_words():
    """Microseconds are seconds, -1 is never, and whose limit ended the request is named."""
    found = wire.refused(Turned(2, (("circuit_open", 1_500_000), ("tpm", -1))), [target("a"), target("b")])
    assert [tuple(refusal) for refusal in found.refusals] == [("a", "circuit_open", 1.5), ("b", "tpm", None)]
    assert found.rejected == found.refusals[1]


def test_dollars_are_counted_in_millionths():
    """A limit in dollars takes what the price says."""
    item = target("a", price=Price(2.0, 8.0), limits=RateLimits(usd_per_day=1.0))
    cost = item.cost(1000, 500)
    words = json.loads(
        wire.admit(KEYS, ask_for(item, input_tokens=1000), "p:1", [Candidate(item, cost, True, False)]).words[1]
    )
    assert words[4] == [6000 * 86_400]


def test_a_window_of_samples():
    """A hash's fields and values, as a dictionary."""
    assert wire.read_sketch([b"c5", b"2", b"s7", b"1"]) == {"c5": 2, "s7": 1}

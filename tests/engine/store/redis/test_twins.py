"""The twin proof: memory and a real server give equal answers, whatever happens to them; and a script that is wrong is found out."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, seed, settings

from langchain_resilient.engine.store.redis import wire
from tests.engine.store.redis.histories import HISTORIES
from tests.engine.store.redis.straight import Talk
from tests.engine.store.redis.twins import Differ, Twins
from tests.servers import Server, binary_or_skip, valkey_binary

PARTS, EACH, AT_ONCE = 8, 125, 25
"""1,000 histories of 30 to 36 steps; in parts, so that several processes share them."""
FIRST = 10_000 * int(redis.__version__.partition(".")[0])
"""The first seed: each redis-py plays histories of its own."""
MOST = 2 * PARTS * EACH
"""Histories within which every case is reached, and every broken script found."""


@pytest.fixture(scope="session")
def talk():
    """A connection to a server of this test process's own, or to REDIS_URL's."""
    if url := os.environ.get("REDIS_URL"):
        talk = Talk(url)
        yield talk
        talk.close()
        return
    with Server(binary_or_skip(valkey_binary), unix=True) as server:
        talk = Talk(server.url)
        yield talk
        talk.close()


def play(talk, number, part, reached=None, enough=lambda: False, phases=(Phase.generate, Phase.shrink)):
    """Play so many histories, or until it is enough. Raises `Differ`.

    Those of one part are the same each time in the same process, and others where other modules were imported before: hypothesis draws some
    numbers from the sources of whatever is loaded. So nothing here may hang on what a certain seed leads to.
    """
    reached = Counter() if reached is None else reached

    @settings(
        max_examples=AT_ONCE, database=None, deadline=None, phases=phases, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(HISTORIES)
    def played(history):
        twins = Twins(history, talk)
        try:
            twins.play()
        finally:
            reached.update(twins.reached)
            reached["histories"] += 1

    # Anew after some: hypothesis stays near what it has tried, and far fewer cases would occur.
    for at in range(number // AT_ONCE):
        seed(FIRST + 100 * part + at)(played)()
        if enough():
            return


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_memory_and_redis_agree(talk, part):
    """After every step of every history both have given the same answers and keep the same state, and I2 holds."""
    play(talk, EACH, part)


CASES = """
step Passes, step Reaches, step StepsBack, step Asks, step AsksAgain, step Leaves, step Opens, step Ends, step Renews, step Crashes, step Serves, step Slackens,
step Recovers, step Together, step Overrides, step Resets, reset closed, reset half_open, reset open, block lifted, block kept, step FlushesScripts, step Loses, step Remembers, step FailsOver, failed over,
lost route, lost account, lost leases, lost line, lost meta, lost all,
granted, charged, leased, passed, finishes, probe, raced, inline probe, explored, half_opens, to_end, in spite of slowness,
queued first, queued second, asked again: granted, asked again: still waits, rejected, not plain,
refused rpm, refused tpm, refused itpm, refused otpm, refused rpd, refused tpd, refused usd_per_day, refused concurrency, refused line,
refused circuit_open, refused half_open, refused forced_open, refused blocked, refused auth, refused quota_exhausted, refused budget,
refused unwell, refused slow,
settled ok, settled rate_limited, settled quota_exhausted, settled overloaded, settled server_error, settled timeout, settled stream_interrupted,
settled auth, settled permission, settled not_found, settled context_overflow, settled content_policy, settled client_error,
settled invalid_output, settled cancelled, settled local, settled unknown, settled twice, settled late, opened late, never sent,
closed to open, half_open to open, half_open to closed, permit back settled, one success more opened, one success more settled
"""


@pytest.mark.timeout(300)
def test_the_histories_reach_every_case(talk):
    """The proof would be empty if something never happened: a part of it meets every kind of step, reply and report."""
    reached, cases = Counter(), [case.strip() for case in CASES.replace("\n", " ").split(",")]
    play(talk, MOST, PARTS, reached, enough=lambda: all(reached[case] for case in cases))
    assert [case for case in cases if not reached[case]] == []


BROKEN = {
    "a request is let in a microsecond too early": ("if ahead + step <= room then return 0", "if ahead + step <= room + 1 then return 0"),
    "refunds are forgotten": ("return math.max(now, tat + moved)", "return tat"),
    "generations are not compared": ('if generation ~= state.generation or state.phase == "open"', 'if state.phase == "open"'),
    "generations count up by one": ("math.max(state.generation + 1, math.floor(now / 1000)), failures", "state.generation + 1, failures"),
    "permits never lapse": ("if permit[2] > now then live[#live + 1] = permit end", "live[#live + 1] = permit"),
    "permits are not given back": ("state.permits, state.successes = others, state.successes + 1", "state.successes = state.successes + 1"),
    "time steps back": ("if now < known[1] then", "if false then"),
    "leases never lapse": ('redis.call("ZREMRANGEBYSCORE", it.leases, "-inf", text(now))', ""),
    "blocks are shortened": ("if til > account.blocked_until then", "if true then"),
    "the line is not respected": ("if front and front ~= ask.attempt then return", "if false then return"),
    "a reset goes on in the old generation": ('return begin(state, "closed", now, 0)\n  end\n\n  -- Micro', "return Circuit.new()\n  end\n\n  -- Micro"),
    "a reset keeps the override": ('it.route.override, it.route.dirty = "", true', "it.route.dirty = true"),
    "large numbers lose digits": ('return string.format("%.0f", number)', "return string.format('%.0f', tonumber(string.format('%.14g', number)))"),
    "limits recover too fast": ("(now - since) * 50 / MINUTE", "(now - since) * 60 / MINUTE"),
}  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_script_is_caught(talk, monkeypatch, record_property, name):
    """Within some histories."""
    right, wrong = BROKEN[name]
    source = wire.script(*wire.PARTS)
    assert source.count(right) == 1, "the script has changed: break it elsewhere"
    monkeypatch.setattr(wire, "script", lambda *parts: source.replace(right, wrong))
    reached = Counter()
    with pytest.raises(Differ):
        play(talk, MOST, 0, reached, phases=(Phase.generate,))
    record_property("histories", reached["histories"])

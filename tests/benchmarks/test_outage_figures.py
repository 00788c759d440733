"""Rules for the arithmetic of `benchmarks/outage.py`, with numbers verified by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
from outages.chart import draw
from outages.faults import Timeline
from outages.figures import Fate, Figures, Run, figures_of, quantile
from outages.promises import Verdict, verdicts
from outages.report import busy, plain, void
from outages.stage import Call

# Ten seconds each: the outage is [10, 20), the last five seconds are [25, 30).
TIMELINE = Timeline(10.0, 10.0, 10.0)


def _run_of(fates=(), calls=(), lag=0.001, machine=0.001):
    return Run("ours", "503", tuple(fates), tuple(calls), (lag, lag), machine, 0.0, {})


def _call(provider, at, *, answered=True, wasted=False):
    return Call(provider, at, answered, wasted)


def _fate(number, at, seconds, error=None):
    return Fate(number, at, seconds, error)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)], ids=["p50", "p99", "all", "least"]
)
def test_a_quantile_is_a_value_that_was_measured(share, expected):
    """The smallest of 1 … 100 that at least this share does not exceed."""
    assert quantile(range(1, 101), share) == expected


def test_no_values_have_no_quantile():
    """Nobody waited: there is nothing to say."""
    assert quantile([], 0.5) is None


def test_waits_are_of_those_who_arrived_in_the_outage():
    """Through their end, errors included; who came before or after does not count, nor whether it ended in the outage."""
    fates = [
        _fate(0, 9.9, 9.0),
        _fate(1, 10.0, 1.0),
        _fate(2, 15.0, 2.0, "Timeout"),
        _fate(3, 19.9, 7.0),
        _fate(4, 20.0, 9.0),
    ]
    figures = figures_of(_run_of(fates), TIMELINE)
    assert (figures.asked, figures.answered) == (3, 2)
    assert (figures.p50, figures.p99) == (2.0, 7.0)
    assert figures.errors == {"Timeout": 1}
    assert figures.answered_elsewhere == 1.0


def test_wasted_calls_are_those_of_the_outage():
    """A call that a sick provider failed counts if it began in the outage; a good one never does."""
    calls = [
        _call(0, 9.9, answered=False, wasted=True),
        _call(0, 10.0, answered=False, wasted=True),
        _call(0, 12.0),
        _call(1, 13.0),
        _call(1, 19.9, answered=False, wasted=True),
        _call(0, 20.0, answered=False, wasted=True),
    ]
    assert figures_of(_run_of(calls=calls), TIMELINE).wasted == 2


def test_used_again_is_the_first_answer_of_the_first_provider_after_healing():
    """Not a call that failed, not another provider's, not one that began before."""
    calls = [
        _call(0, 19.0),
        _call(1, 20.5),
        _call(0, 21.0, answered=False),
        _call(0, 23.5),
        _call(0, 26.0),
    ]
    figures = figures_of(_run_of([_fate(n, 25.0 + n, 0.3) for n in range(4)], calls), TIMELINE)
    assert figures.used_again == pytest.approx(3.5)
    assert figures.share_at_end == 0.25  # one of the four requests of the last five seconds


def test_a_provider_that_is_never_used_again_has_no_time():
    """None, never a large number."""
    assert figures_of(_run_of(calls=[_call(1, 25.0)]), TIMELINE).used_again is None


def test_amplification_is_calls_per_request_in_the_outage():
    """Five calls for two requests."""
    fates = [_fate(0, 11.0, 0.3), _fate(1, 12.0, 0.3), _fate(2, 5.0, 0.3)]
    calls = [_call(0, 5.0), *(_call(place, 11.0 + place) for place in (0, 1, 2, 0, 1))]
    assert figures_of(_run_of(fates, calls), TIMELINE).amplification == 2.5


def _figures(*, p50=0.3, p99=0.8, wasted=5, answered=100):
    return Figures(100, answered, p50, p99, wasted, 1.0, 1.0, 1.0, 1.0, {})


def test_a_promise_is_met_or_missed_by_the_ratio_to_the_oracle():
    """1.04 / 0.8 = 1.3 is met; 26 wasted calls are one too many; what was not run is not measured."""
    table = {("503", "oracle"): _figures(p99=0.8), ("503", "ours"): _figures(p99=1.04, wasted=26)}
    found = {verdict.what: verdict for verdict in verdicts(table, 5.0)}
    assert found["503: p99 / oracle"].word == "met"
    assert found["503: calls wasted"].word == "MISSED"
    assert found["429: p99 / oracle"].word == "not measured"


def test_streams_must_all_be_answered():
    """99 of 100 is missed."""
    table = {("cut", "ours"): _figures(answered=99), ("stalled", "ours"): _figures(answered=100)}
    found = {verdict.what: verdict for verdict in verdicts(table, 5.0)}
    assert found["stream cut: answered in full, %"].word == "MISSED"
    assert found["stream stalled: answered in full, %"].word == "met"


def test_the_limit_itself_will_do():
    """≤ and ≥ hold their own limit."""
    assert Verdict("", "", 2.0, 2.0).met
    assert Verdict("", "", 2.0, 2.0, least=True).met


def test_a_run_on_a_late_machine_is_void():
    """More than a tenth of a second in one of a hundred looks, of a loop with nothing to do."""
    assert void([_run_of(machine=0.1, lag=0.5)]) == []
    assert len(void([_run_of(machine=0.11)])) == 1


def test_a_loop_that_is_late_by_itself_is_named():
    """Only where the machine was not late: a system that burns its processor makes its own users wait."""
    assert busy([_run_of(lag=0.11)]) == ["ours under 503: 110 ms (p99)"]
    assert busy([_run_of(lag=0.1)]) == busy([_run_of(lag=0.5, machine=0.2)]) == []


def test_a_plain_table_lines_up():
    """Without rich the columns are padded to their widest cell."""
    assert plain(("a", "bb"), [("ccc", "d")]) == ["a    bb", "ccc  d"]


def test_a_chart_is_drawn(tmp_path):
    """One panel a fault; a system that was not run has no bar."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "chart.png"
    table = {("503", "oracle"): _figures(wasted=0), ("503", "ours"): _figures(answered=99), ("cut", "ours"): _figures()}
    draw(path, {"503": "503 storm", "cut": "stream cut"}, ["oracle", "ours"], table, "standard settings")
    assert path.read_bytes().startswith(b"\x89PNG")

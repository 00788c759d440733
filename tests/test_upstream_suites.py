"""What `make test-upstream` makes of two runs of the same tests."""

from pathlib import Path

import pytest

from scripts.upstream import outcomes
from scripts.upstream.outcomes import Change, Explained

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="passes"/>
<testcase classname="tests.a" name="fails"><failure message="m">text</failure></testcase>
<testcase classname="tests.a" name="breaks"><error message="m">text</error></testcase>
<testcase classname="tests.a" name="is_skipped"><skipped type="pytest.skip" message="m"/></testcase>
<testcase classname="tests.a" name="is_expected"><skipped type="pytest.xfail" message="m"/></testcase>
<testcase classname="tests.a" name="named[object at 0x7f8d4e6c4bd0]"/>
<testcase classname="tests.a" name="twice"/>
<testcase classname="tests.a" name="twice"><failure message="m">text</failure></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read_by_name(tmp_path: Path):
    """Each kind of outcome has its word, addresses are no part of a name, and one name may stand for several cases."""
    (tmp_path / "report.xml").write_text(REPORT)
    found = outcomes.read(tmp_path / "report.xml")
    assert found == {
        "tests.a::passes": "passed",
        "tests.a::fails": "failed",
        "tests.a::breaks": "error",
        "tests.a::is_skipped": "skipped",
        "tests.a::is_expected": "xfailed",
        "tests.a::named[object at 0x]": "passed",
        "tests.a::twice": "failed+passed",
    }
    assert outcomes.tally(found) == {"passed": 3, "failed": 2, "error": 1, "skipped": 1, "xfailed": 1}


@pytest.mark.parametrize(
    ("before", "after"),
    [("passed", "failed"), ("failed", "passed"), ("passed", "skipped"), ("passed", None), (None, "passed")],
)
def test_every_difference_is_a_change(before: str | None, after: str | None):
    """A test that is mended, skipped, gone or new changed as much as one that broke."""
    one, other = ({"same": "passed"} | ({"t": outcome} if outcome else {}) for outcome in (before, after))
    assert outcomes.changes(one, other, [], []) == [Change("t", before or "absent", after or "absent")]


def test_what_differs_without_us_is_left_out():
    """A test that two runs without us disagree about says nothing."""
    assert outcomes.differing({"a": "passed", "b": "passed"}, {"a": "failed", "b": "passed", "c": "error"}) == [
        "a",
        "c",
    ]
    assert outcomes.changes({"a": "passed"}, {"a": "failed"}, ["a"], []) == []


def test_an_explanation_is_for_one_case_or_for_all_of_a_test():
    """A name with parameters explains that case alone, a bare one every case; what is not named stays unexplained."""
    explained = [Explained("s", "t[1]", ("plain",), "one"), Explained("s", "u", ("plain",), "all")]
    names = ("t[1]", "t[2]", "u[1]", "u[2]", "u2")
    found = outcomes.changes(dict.fromkeys(names, "passed"), dict.fromkeys(names, "failed"), [], explained)
    assert {change.test: change.reason for change in found} == {
        "t[1]": "one",
        "t[2]": None,
        "u[1]": "all",
        "u[2]": "all",
        "u2": None,
    }


def test_an_explanation_of_nothing_is_named():
    """When a change no longer happens, its explanation is to be taken away."""
    explained = [Explained("s", name, ("plain",), "why") for name in ("t[1]", "u", "v")]
    found = [Change("t[1]", "passed", "failed", "why"), Change("u[2]", "passed", "failed", "why")]
    assert outcomes.unneeded(found, explained) == [explained[2]]

"""Columns give way by importance, and no line is wider than it was told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from langchain_resilient.demo.page import Column, Page, apart, ascii_of, bar, fitting, paragraph, progress, table
from tests.demo.made import drawn


def column(title, width, **how) -> Column:
    """A column of one row."""
    return Column(title, [Text("x")], width, **how)


def test_the_least_important_column_goes_first():
    """As many as there is room for; of equals the last; what must stay stays."""
    columns = [column("name", 10), column("a", 5, keep=2), column("b", 5, keep=1), column("c", 5, keep=1)]
    kept = {width: [each.title for each, _ in fitting(columns, width)] for width in (31, 30, 23, 16, 4)}
    assert kept == {31: ["name", "a", "b", "c"], 30: ["name", "a", "b"], 23: ["name", "a"], 16: ["name"], 4: ["name"]}

    assert len(fitting([column("name", 10), column("count", 10)], 4)) == 2


def test_a_column_that_may_shrink_does_before_one_goes():
    """It has what is left, between its least and its width."""
    columns = [column("name", 10), column("text", 20, least=5), column("b", 5, keep=1)]
    widths = {width: [cells for _, cells in fitting(columns, width)] for width in (60, 39, 30, 24, 23)}
    assert widths == {60: [10, 20, 5], 39: [10, 20, 5], 30: [10, 11, 5], 24: [10, 5, 5], 23: [10, 11]}


def test_cells_are_aligned_under_their_titles():
    """Words to the left, numbers to the right; a cell that is too long ends with an ellipsis."""
    words = Column("words", [Text("a"), Text("a long text")], 7, least=7)
    numbers = Column("n", [Text("1"), Text("23")], 4, right=True)
    assert [line.plain for line in table([words, numbers], 20)] == ["words       n", "a           1", "a long…    23"]


@given(st.floats(0, 1), st.integers(2, 80))
def test_a_bar_is_full_at_one_and_empty_at_nought_only(share, width):
    """Whoever reads the bar alone is told no other thing than the figure says."""
    shown = bar(share, width, "green").plain
    assert len(shown) == width
    assert ("░" not in shown) == (share == 1.0)
    assert ("█" not in shown) == (share == 0.0)


@pytest.mark.parametrize(("share", "line"), [(-1, "╸───"), (0, "╸───"), (0.5, "━━╸─"), (1, "━━━━"), (7, "━━━━")])
def test_progress(share, line):
    """As long as it was told, however far something is."""
    assert progress(share, 4).plain == line


@given(st.text(max_size=200), st.integers(2, 60))
def test_a_paragraph_keeps_every_sign_and_no_line_is_too_long(text, width):
    """Broken between words, or inside one that has no room on a line of its own."""
    lines = paragraph(text, width)
    assert all(cell_len(line) <= width for line in lines)
    kept = "".join(sign for sign in text if sign.isprintable() and not sign.isspace())
    assert "".join("".join(lines).split()) == kept


def test_a_number_and_its_unit_stay_together():
    """A line does not begin with the s of seconds."""
    assert paragraph("it took 2.50 s.", 12) == ["it took", "2.50 s."]


def test_two_ends_of_a_line_do_not_share_a_style():
    """The left text is cut for the right one, and neither gets the other's colour."""
    line = apart(Text("left " * 5, style="red"), Text("right", style="green"), 20)
    assert line.plain == "left left le…  right"
    assert line.style == ""


def test_a_page_is_cut_by_a_narrower_console():
    """It wraps nowhere, even where it was made for a wider one."""
    page = Page([Text("0123456789"), Text("short")])
    assert drawn(page, 6) == ["01234…", "short"]
    assert page.text() == "0123456789\nshort"


def test_signs_without_width_have_one_in_ascii_and_still_fit():
    """Found by hypothesis: a line that grew on its way to ASCII was cut with an ellipsis, which ASCII has not."""
    assert drawn(Page([Text("012\u0301345")]), 6, encoding="ascii") == ["012?34"]
    assert drawn(Page([Text("0123456789")]), 6, encoding="ascii") == ["01234."]


@given(st.text())
def test_ascii_is_sign_by_sign(text):
    """A line keeps its length."""
    assert ascii_of(text).isascii()
    assert len(ascii_of(text)) == len(text)

"""How things are laid out: at any width nothing is cut off."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from langchain_resilient.cli import circuits, letters, status
from langchain_resilient.cli.layout import pairs, table

IDS = ("01a1ff854817-0123456789abcdef", "01a1ff854818-fedcba9876543210")
LONG = "azure/a-deployment-with-a-rather-long-name-of-westeurope"
NOTE = "asked again in 12 min at the earliest, as nobody could be asked before that moment came and went"


def drawn(part, width):
    """Its lines, at that width."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(part)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def of_letters(name):
    """Two letters, as `dead-letters list` shows them."""
    return [
        (one, "3 min ago", "server_error", Text("waiting"), "4", "tenant-7", f"{name} and 2 more", NOTE) for one in IDS
    ]


@pytest.mark.parametrize("width", [40, 64, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("name", ["openai/gpt-4.1", LONG])
def test_every_id_and_name_is_whole(width, name):
    """Who copies one to `dead-letters show` or `circuits close` has all of it, on one line; and no other word is cut either."""
    tables = [
        (letters.HEADS, of_letters(name)),
        (circuits.HEADS, [(name, Text("open, probed in 12 min"), "forced_open", "quota_exhausted, for 1 h", "12", "7")] * 2),
        (status.HEADS, [(name, "half-open, to be probed", "", "", "1.4 s", "12 s to the first token", "rpm 45%, tpm 3%", "9")] * 2),
    ]  # fmt: skip
    for heads, rows in tables:
        lines = drawn(table(heads, rows, width), width)
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)
        words = " ".join(lines).split()
        for row in rows:
            for cell in row:
                if max(map(len, str(cell).split() or [""])) < width - 20:
                    assert set(str(cell).split()) <= set(words), (width, str(cell))
    lines = drawn(table(*tables[0], width), width)
    for one in IDS:
        assert sum(one in line for line in lines) == 1
    if len(name) + 9 < width:
        assert sum(name in line for line in lines) == len(IDS)


def test_columns_stand_side_by_side_where_words_fit():
    """A list is a table as long as it can be: a long note is broken between its words, beside ids that are whole."""
    lines = drawn(table(letters.HEADS, of_letters("openai/gpt-4.1"), 120), 120)
    assert lines[0].split() == list(letters.HEADS)
    assert lines[1].startswith(f"{IDS[0]}  3 min ago  server_error")


@pytest.mark.parametrize("width", [40, 64, 80, 120])
def test_a_pair_is_whole(width):
    """A word that does not fit beside its name stands below it; one that is longer than a line is broken, and nothing of it is lost."""
    for word in ("x" * 40, "q" * 70, "z" * 500):
        lines = drawn(pairs([("key", word), ("came", "3 min ago")], width), width)
        assert max(map(len, lines)) <= width
        assert "".join("".join(lines).split()).count(word[0]) == len(word)
        if len(word) + 3 < width:
            assert sum(word in line for line in lines) == 1

"""README's first screen is the demo's."""

import re
from pathlib import Path

from langchain_resilient.demo.afternoon import two_pm
from langchain_resilient.demo.contenders import NAMES

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_first_screen_is_the_final_view_of_the_present_demo():
    """Its phases, its contenders and its columns are those that the demo shows today, and its sums add up."""
    block = re.search(r"^```\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)[1]
    for phase in two_pm().phases:
        assert re.search(rf"^ {phase.clock}  {re.escape(phase.title)}  ", block, re.MULTILINE)
    for name in NAMES:
        row = re.search(rf"^{name} +(\d+) +(\d+) +(\d+) +[\d.]+ s +[\d.]+ s +(\d+) +(\d+)$", block, re.MULTILINE)
        asked, answered, failed, calls, wasted = map(int, row.groups())
        assert (asked, wasted) == (answered + failed, calls - answered)
        assert f"{answered} of {asked}" in block or f"{name} answered {answered}" in block

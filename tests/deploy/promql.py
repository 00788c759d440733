"""What a PromQL expression asks for, as far as tests need to know it.

Rules of this file: it reads names and matchers and judges nothing; whether an expression is PromQL at all, promtool and Prometheus say.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<name>[A-Za-z_:][\w:]*)|(?P<number>\d[\w.]*)|(?P<space>\s+|\[[^\]]*\])|(?P<sign>=~|!~|!=|==|>=|<=|.)',
    re.DOTALL,
)
_MADE = re.compile(r'label_replace\(.*?,\s*"(\w+)"\s*,', re.DOTALL)
_WORDS = {
    "and", "or", "unless", "on", "by", "without", "ignoring", "group_left", "group_right", "offset", "bool",
    "sum", "min", "max", "count", "avg", "topk", "inf", "nan",
}  # fmt: skip
_GROUPING = {"on", "by", "without", "ignoring", "group_left", "group_right"}


class Selector(NamedTuple):
    """A metric, and what is asked of its labels."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()
    """Label, operator, value."""


class Asked(NamedTuple):
    """What an expression names."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]
    """Labels that it groups or joins by."""
    made: frozenset[str] = frozenset()
    """Labels that it makes itself, of others."""


def asked(expression: str) -> Asked:
    """Read an expression. Functions and keywords are left out."""
    tokens = [match.group() for match in _TOKEN.finditer(expression) if match.lastgroup != "space"]
    selectors, labels, at = [], set(), 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        at += 1
        if not re.fullmatch(r"[A-Za-z_:][\w:]*", token):
            continue
        if token in _GROUPING:
            end = tokens.index(")", at)
            labels |= {word for word in tokens[at + 1 : end] if word != ","}
            at = end + 1
        elif token in _WORDS or following == "(":
            continue
        elif following == "{":
            end = tokens.index("}", at)
            inner = [word for word in tokens[at + 1 : end] if word != ","]
            found = [tuple(inner[i : i + 3]) for i in range(0, len(inner), 3)]
            selectors.append(Selector(token, tuple((label, sign, text[1:-1]) for label, sign, text in found)))
            at = end + 1
        else:
            selectors.append(Selector(token))
    return Asked(tuple(selectors), frozenset(labels), frozenset(_MADE.findall(expression)))

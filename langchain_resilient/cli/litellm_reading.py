"""Reads LiteLLM's file: without its secrets, one key after the other, and keeping account of what was not read.

Rules of this file: pure. Literal secrets are taken out (`cleaned`) before anything else looks at the content, so that none can be written
or said; what does not fit is no error but a remark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple, NoReturn

from langchain_resilient.cli.litellm_words import OTHERWISE, WHY, WORDS
from langchain_resilient.cli.redact import HIDDEN, LONG, Redactor, names_secret
from langchain_resilient.engine.errors import SettingsError, is_number, require

DEEPEST, MOST = 40, 100_000
"""Bounds of a file: YAML's aliases can make a small one endless."""
LARGEST = 2**53
"""Whole numbers beyond it are nobody's limit, and Python refuses to write the longest."""
_REFERENCE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_NO_CONTENT = (bool, type(None))


@dataclass(frozen=True)
class Hidden:
    """A literal secret that stood there."""

    number: int
    """Equal ones have the same."""


class Cleaned(NamedTuple):
    """A file's content without its secrets."""

    content: Any
    variables: frozenset[str]
    """The variables that it names."""


# -------------------------------------------------------------------------------------------------------- without secrets
def cleaned(content: Any, redactor: Redactor) -> Cleaned:
    """The content with strings for keys, `Hidden` for literal secrets, and nothing in any string that looks like one.

    Args:
        content: What the YAML holds.
        redactor: What hides secrets; it is told of all that are found.

    Raises:
        SettingsError: There is no end to it.
    """
    variables: set[str] = set()
    for place, (named, value) in enumerate(_walk(content, named=False, depth=0)):
        require(place < MOST, "config", f"more than {MOST} values", "write out what its aliases (`*name`) repeat")
        if not isinstance(value, str):
            continue
        if found := _REFERENCE.fullmatch(value):
            variables.add(found[1])
        elif named and len(value) >= LONG and value not in WORDS:
            redactor.add([value, value.removeprefix("Bearer ")])
    return Cleaned(_without(content, named=False, redactor=redactor, seen={}), frozenset(variables))


def _walk(value: Any, *, named: bool, depth: int) -> Iterator[tuple[bool, Any]]:
    """Every value, and whether it stands under a secret's name."""
    require(
        depth <= DEEPEST,
        "config",
        f"values nested deeper than {DEEPEST}",
        "write it flatter, without aliases to itself",
    )
    yield named, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, named=named or _is_secret(name), depth=depth + 1)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _walk(item, named=named, depth=depth + 1)


def _is_secret(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    return (names_secret(name) and "cost" not in name) or name == "aws_access_key_id"


def _without(value: Any, *, named: bool, redactor: Redactor, seen: dict[str, int]) -> Any:
    if isinstance(value, Mapping):
        return {
            _text(name, redactor): _without(item, named=named or _is_secret(name), redactor=redactor, seen=seen)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set):
        return [_without(item, named=named, redactor=redactor, seen=seen) for item in value]
    if isinstance(value, _NO_CONTENT):
        return value
    text = _text(value, redactor)
    if isinstance(value, str) and _REFERENCE.fullmatch(value) and text == value:
        return value
    if named:
        return Hidden(seen.setdefault(str(value) if isinstance(value, str) else text, len(seen)))
    is_usual = isinstance(value, int | float) and abs(value) <= LARGEST
    return value if is_usual else text


def _text(value: Any, redactor: Redactor) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a very large number"
    text = value if isinstance(value, str) else HIDDEN if isinstance(value, bytes) else str(value)
    return redactor.clean(text).encode(errors="replace").decode()


# ------------------------------------------------------------------------------------------------------------ kinds of value
class Unfit(ValueError):  # noqa: N818  # it is caught by `Section.take`, which remarks on it
    """A value is not of the kind that is wanted; the message says what would be."""


def unfit(fix: str) -> NoReturn:
    """Raise `Unfit`, where a statement can't stand."""
    raise Unfit(fix)


def number(value: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf) -> float:
    """A number; YAML takes `1e-6` for a string."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            unfit("write a number")
    if not is_number(value, least=least, above=above, most=most):
        unfit("write a number that makes sense there")
    return value  # type: ignore[no-any-return]  # `is_number` has looked


def whole(value: Any, *, least: int = 0) -> int:
    """A whole number."""
    found = number(value)
    if found != int(found) or not least <= found <= LARGEST:
        unfit(f"write a whole number ≥ {least}")
    return int(found)


def text(value: Any) -> str:
    """A text; a reference to the environment in our spelling."""
    if not isinstance(value, str) or not value.strip():
        unfit("write a text" if not isinstance(value, Hidden) else "a secret is written as os.environ/NAME")
    if HIDDEN in value:
        unfit("it looks like it holds a secret: write os.environ/NAME")
    found = _REFERENCE.fullmatch(value)
    return f"${{{found[1]}}}" if found else value


def words(value: Any) -> list[str]:
    """One text or several."""
    return [text(item) for item in (value if isinstance(value, list) else [value])]


def yes_or_no(value: Any) -> bool:
    """True or False."""
    return value if isinstance(value, bool) else unfit("write true or false")


def lines(value: Any) -> dict[str, Any]:
    """Values by name, as they are."""
    return value if isinstance(value, dict) else unfit("write `name: value` lines")


def mapping(value: Any) -> dict[str, Any]:
    """Plain values by name."""
    return {text(name): _plain(item) for name, item in lines(value).items()}


def texts(value: Any) -> dict[str, str]:
    """Texts by name."""
    return {text(name): text(item) for name, item in lines(value).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return mapping(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | None) or value == "" else text(value)


# --------------------------------------------------------------------------------------------------------------- keeping account
class Remarks:
    """What could not be carried, and why; what is said of several places is said once."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], list[str]] = {}

    def add(self, place: str, name: str, why: str) -> None:
        """Say why something is not as it was.

        Args:
            place: Where it stands, such as "model_list[0].litellm_params".
            name: Its key, "" for the place itself.
            why: The rest of the sentence.
        """
        self._places.setdefault((name, why), []).append(place)

    def lines(self) -> list[str]:
        """Each remark as a line."""
        return [
            f"{'.'.join(part for part in (places[0], name) if part)}"
            f"{f' (and in {len(places) - 1} more places)' if len(places) > 1 else ''}: {why}"
            for (name, why), places in self._places.items()
        ]


class Section:
    """A mapping of the file, read key by key.

    Args:
        place: Where it stands.
        content: It.
        remarks: Where to say what could not be read.
    """

    def __init__(self, place: str, content: Mapping[str, Any], remarks: Remarks) -> None:
        self.place = place
        self.content = {name: value for name, value in content.items() if value is not None}
        self._left = dict.fromkeys(self.content)
        self._remarks = remarks

    def take(self, name: str, read: Callable[[Any], Any]) -> Any:
        """A key's value; None where it is not there or is unfit, which is remarked on."""
        if name not in self._left:
            return None
        del self._left[name]
        try:
            return read(self.content[name])
        except Unfit as unfit:
            self.remark(name, f"not carried: {unfit}")
        except SettingsError as error:
            self.remark(name, f"not carried: {error}")
        return None

    def pass_over(self, *names: str) -> None:
        """Leave keys to somebody else, or to nobody, without a word."""
        for name in names:
            self._left.pop(name, None)

    def remark(self, name: str, why: str) -> None:
        """Say something of a key."""
        self._remarks.add(self.place, name, why)

    def leave_rest(self) -> None:
        """Remark on every key that nobody took."""
        for name in self._left:
            self.remark(name, f"not carried: {WHY.get(name, OTHERWISE)}")
        self._left.clear()


def first(sections: Iterable[Section], name: str, read: Callable[[Any], Any]) -> Any:
    """What the first section says that has the key; what later ones say otherwise is remarked on."""
    found = None
    for section in sections:
        value = section.take(name, read)
        if found is None:
            found = value
        elif value not in (None, found):
            section.remark(name, "not carried: it is said otherwise elsewhere in the file, and that holds in LiteLLM")
    return found

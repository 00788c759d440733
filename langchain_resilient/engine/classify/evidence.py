"""What an exception has to say: its links, and of each link the status, codes, text, body, hints and frames.

Rules of this file:

1. Exceptions are foreign code: a property may raise, a body may be huge or hold itself, `str` may build a gigabyte. Every
   read goes through `attribute`, every walk is bounded, and no more than 4 kB of text is looked at.
2. Nothing is read from the network: of a response, only what is in memory already.
3. It judges nothing.
"""

from __future__ import annotations

import json
import re
from collections import deque
from itertools import islice
from traceback import walk_tb
from typing import Any, Final, NamedTuple

from langchain_resilient.engine.classify.hint_headers import TEXT_LIMIT, Hints, select_hints
from langchain_resilient.engine.classify.kinds import ErrorKind

__all__ = [
    "Evidence",
    "attribute",
    "causes",
    "class_names",
    "frames",
    "package",
    "read_evidence",
    "said",
    "stated_kind",
    "unwrap",
]

_CHAIN_LIMIT: Final = 8  # links of a chain that are looked at
_FRAME_LIMIT: Final = 16  # frames of a traceback that are looked at
_PATH_LIMIT: Final = 1000  # frames of a traceback that are compared with another's
_NODE_LIMIT: Final = 64  # parts of a body that are looked at
_BODY_KEYS: Final = frozenset(
    {"error", "errors", "Error", "details", "innererror", "inner_error", "violations", "ResponseMetadata"}
)
_CODE_KEYS: Final = ("error_code", "code", "Code", "reason", "type", "status", "quotaId", "quota_id")
_IDENTIFIER: Final = re.compile(r"(?!sk-)[A-Za-z][A-Za-z0-9_.\-]{1,63}", re.ASCII)


class Evidence(NamedTuple):
    """What one link says."""

    status: int | None
    codes: tuple[str, ...]
    text: str
    """In lower case."""
    body: object
    hints: Hints

    @property
    def shown_code(self) -> str | None:
        """The code to show where none decided: one identifier, as message text or a key may stand in a code's place."""
        code = next((c for c in self.codes if c != "error"), "")
        return code if _IDENTIFIER.fullmatch(code) else None


# --------------------------------------------------------------------------------------------------- links of a chain


def unwrap(error: BaseException) -> BaseException:
    """Go to what happened: an exception group's first member, and what LiteLLM wrapped before a stream's first chunk."""
    for _ in range(_CHAIN_LIMIT):
        if isinstance(error, BaseExceptionGroup) and stated_kind(error) is None:
            members = error.exceptions
            error = next((m for m in members if isinstance(m, Exception)), members[0])
        elif attribute(error, "is_pre_first_chunk") is True and isinstance(
            inner := attribute(error, "original_exception"), BaseException
        ):
            error = inner
        else:
            break
    return error


def causes(head: BaseException, *, hidden: bool = False) -> list[tuple[BaseException, bool]]:
    """List the head and its causes, each with whether it was named as the cause (`raise … from`).

    Args:
        head: Where the chain begins.
        hidden: Also what `raise … from None` hides, as httpcore's pools do with each connection that breaks.
    """
    chain, seen = [(head, True)], {id(head)}
    link = head
    while len(chain) < _CHAIN_LIMIT:
        explicit = link.__cause__ is not None
        inner = link.__cause__
        if inner is None and (hidden or not link.__suppress_context__):
            inner = _handled_within(link)
        if inner is None or id(inner) in seen:
            break
        seen.add(id(inner))
        link = unwrap(inner)
        chain.append((link, explicit))
    return chain


def _handled_within(link: BaseException) -> BaseException | None:
    """Give the context, unless the link passed through no frame of it: who asks a model inside an `except` handles that himself."""
    context = link.__context__
    if context is None or context.__traceback__ is None or link.__traceback__ is None:
        return context
    passed = {frame for frame, _ in islice(walk_tb(link.__traceback__), _PATH_LIMIT)}
    own = any(frame in passed for frame, _ in islice(walk_tb(context.__traceback__), _PATH_LIMIT))
    return context if own else None


def stated_kind(link: BaseException) -> ErrorKind | None:
    """Recognise what our drivers raise by a class attribute: importing the classes would tie this file to them."""
    kind = attribute(type(link), "error_kind")
    try:
        return ErrorKind(kind) if isinstance(kind, str) else None
    except ValueError:
        return None


def class_names(link: BaseException) -> tuple[str, ...]:
    """Name the link's classes, the most derived first."""
    return tuple(cls.__name__ for cls in type(link).__mro__)


def package(cls: type) -> str:
    """Name the top-level package of a class."""
    return str(cls.__module__).partition(".")[0]


def frames(link: BaseException) -> list[tuple[str, str]]:
    """List (top-level package, function) of the frames that the link was raised through, the innermost first."""
    innermost = deque((frame for frame, _ in walk_tb(link.__traceback__)), maxlen=_FRAME_LIMIT)
    return [(str(f.f_globals.get("__name__")).partition(".")[0], f.f_code.co_name) for f in reversed(innermost)]


# --------------------------------------------------------------------------------------------------------- one link


def attribute(thing: object, name: str) -> Any:
    """Read an attribute that may be missing or raise."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  # a property may do anything
        return None


def read_evidence(link: BaseException) -> Evidence:
    """Gather what one link says."""
    response = attribute(link, "response")
    body = _body(link, response)
    nodes = _nodes(body)
    marks = [attribute(link, name) for name in ("error_code", "status_code", "code", "type", "status", "http_status")]
    marks.append(_grpc_code(link))
    marks += [attribute(response, "status_code"), attribute(response, "status")]
    marks += [node.get("HTTPStatusCode") for node in nodes]
    marks += [node.get(key) for node in nodes for key in _CODE_KEYS]
    statuses = [status for mark in marks if (status := _status(mark))]
    return Evidence(
        next((s for s in statuses if s >= 400), statuses[0] if statuses else None),
        tuple(dict.fromkeys(m[:65] for m in marks if isinstance(m, str) and m and not m.isdigit())),
        _text(link, nodes, body),
        body,
        _hints(link, response, nodes),
    )


def said(link: BaseException) -> str:
    """Read the link's own text, in lower case."""
    return _text(link, [], None)


def _status(mark: object) -> int | None:
    if isinstance(mark, str) and len(mark) == 3 and mark.isascii() and mark.isdigit():
        mark = int(mark)
    return int(mark) if isinstance(mark, int) and not isinstance(mark, bool) and 100 <= mark <= 599 else None


def _grpc_code(link: BaseException) -> object:
    code = attribute(link, "grpc_status_code")
    if code is None and any(package(cls) == "grpc" for cls in type(link).__mro__):
        code = attribute(link, "code")
        code = code() if callable(code) else None
    return attribute(code, "name")


def _args(link: BaseException) -> tuple[Any, ...]:
    args = attribute(link, "args")
    return args if isinstance(args, tuple) else ()


def _body(link: BaseException, response: object) -> object:
    """Find the body of the provider's answer; langchain-openai raises ValueError(body) for an error inside HTTP 200."""
    if isinstance(response, dict):  # botocore
        return response
    first = next(iter(_args(link)), None)
    members = attribute(first, "__dict__")  # OpenAI's Responses API: the error is an object of their model
    if isinstance(members, dict) and "message" in members and not isinstance(first, BaseException):
        first = members
    for body in (attribute(link, "body"), attribute(link, "details"), first, attribute(response, "_content")):
        if isinstance(body, (dict, list)) and body:
            return body
        if isinstance(body, (str, bytes)) and body is not first:  # a string as first argument is the message
            return _parsed(body[:TEXT_LIMIT])
    return None


def _parsed(body: str | bytes) -> object:
    try:
        return json.loads(body) if body[:1] in {"{", "[", b"{", b"["} else body
    except (ValueError, RecursionError):
        return body


def _nodes(body: object) -> list[dict[Any, Any]]:
    """List the parts of a body that may hold codes, the innermost first."""
    queue, found = [body], []
    for node in queue:
        if isinstance(node, dict):
            found.append(node)
            queue += [node[key] for key in _BODY_KEYS if isinstance(node.get(key), (dict, list))]
        elif isinstance(node, list):
            queue += islice(node, 16)
        if len(queue) > _NODE_LIMIT:
            break
    return found[::-1]


def _text(link: BaseException, nodes: list[dict[Any, Any]], body: object) -> str:
    """Gather what was said, in lower case; `str(link)` only where nothing else is there, as it may build a huge repr."""
    words = [attribute(link, "message"), *_args(link)[:4]]
    words += [node.get(key) for node in nodes for key in ("message", "Message", "detail")]
    parts = [part[:TEXT_LIMIT] for part in words if isinstance(part, str)]
    if isinstance(body, (str, bytes)):
        parts.append(body if isinstance(body, str) else body.decode("utf-8", "replace"))
    if not parts:
        parts.append(_str(link))
    return "\n".join(dict.fromkeys(parts))[:TEXT_LIMIT].lower()


def _str(link: BaseException) -> str:
    try:
        return str(link)[:TEXT_LIMIT]
    except Exception:  # noqa: BLE001  # as `attribute`
        return ""


def _hints(link: BaseException, response: object, nodes: list[dict[Any, Any]]) -> Hints:
    """Read the first headers that hold a hint: LiteLLM's own come first, as its response's are empty."""
    sources = [attribute(link, "litellm_response_headers"), attribute(response, "headers"), attribute(link, "headers")]
    sources += [attribute(attribute(link, "raw_response"), "headers"), *(node.get("HTTPHeaders") for node in nodes)]
    return next((hints for source in sources if source is not None and (hints := select_hints(source))), Hints())

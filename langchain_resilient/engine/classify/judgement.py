"""What went wrong with an attempt: any exception in, one `Failure` of a closed vocabulary out.

Rules of this file:

1. Pure: no clock (`wall` comes in), no SDK import, no `isinstance` on a provider's class. Classes count by name.
2. `classify` never raises, whatever the exception's attributes do.
3. Words are in `tables`, reading is in `evidence`; here is only which of them speaks first.

Theory. An exception is the head of a chain (`__cause__`, else `__context__` unless suppressed or handled by who asked). What
this process did to itself is looked for first, behind `from None` too: an HTTP pool hides so that no file could be opened.
Then each link is judged alone, and its verdict has a rank: FIRM (a status, a provider's code, a transport error), LOOSE (a
class that says little: APIConnectionError, ModelRateLimitError) or SPOKEN (only its text says something). The firmest verdict
wins, the link nearest to the head among equals: so OpenAIConnectionError ← APIConnectionError ← httpx2.ConnectTimeout is a
connect timeout, while a ConnectError that was raised while a 429 was being handled stays a ConnectError.

Within a link: our own classes; transport errors (which have no status); classes and codes that say more than a status can
(429 insufficient_quota, 400 content_filter); the status; codes that only repeat a status, for errors inside a stream, which
have none; loose classes; and an integration that broke while it read the response, which its traceback tells. The text
refines last, and only within what the verdict so far allows (`NEEDLES`): "prompt is too long" makes a 400 a context overflow,
but not a 429.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final, NamedTuple

from langchain_resilient.engine.classify.evidence import (
    Evidence,
    attribute,
    causes,
    class_names,
    frames,
    package,
    read_evidence,
    said,
    stated_kind,
    unwrap,
)
from langchain_resilient.engine.classify.headroom import read_headroom
from langchain_resilient.engine.classify.hint_headers import Hints
from langchain_resilient.engine.classify.kinds import ErrorKind, Failure
from langchain_resilient.engine.classify.retry_after import read_retry_after
from langchain_resilient.engine.classify.tables import (
    BUGS,
    CANCEL_CLASSES,
    CLOSED_HERE,
    GEMINI_QUOTA,
    LIMIT_REQUESTED,
    LOCAL_ERRNOS,
    LOCAL_NEEDLES,
    LOOSE_CLASSES,
    LOOSE_TRANSPORT,
    MALFORMED_NEEDLES,
    NEEDLES,
    OUT_OF_QUOTA,
    PLAIN_CODES,
    READER_PACKAGES,
    RESPONSE_READERS,
    SELECTOR_LOST,
    SHARP_CLASSES,
    SHARP_CODES,
    STATUSES,
    STORE_ROOTS,
    TRANSPORT,
    TRANSPORT_ROOTS,
    UNREACHED,
    UNREACHED_ERRNOS,
    VAGUE_CLASSES,
)

_K: Final = ErrorKind
_HINTED: Final = frozenset({
    _K.RATE_LIMITED, _K.QUOTA_EXHAUSTED, _K.OVERLOADED, _K.SERVER_ERROR, _K.TIMEOUT, _K.STREAM_INTERRUPTED, _K.UNKNOWN,
})  # fmt: skip


class _Rank(IntEnum):
    FIRM = 0
    LOOSE = 1
    SPOKEN = 2


class _Verdict(NamedTuple):
    rank: _Rank
    failure: Failure
    evidence: Evidence | None = None


def classify(error: BaseException, *, wall: float) -> Failure:
    """Judge an exception.

    Args:
        error: What an attempt raised.
        wall: Seconds since the epoch, for hints that are written as dates; the response's own Date is preferred.

    Returns:
        What is known of it. Never raises: what cannot be judged is UNKNOWN.
    """
    try:
        return _classify(unwrap(error), wall)
    except Exception:  # noqa: BLE001  # an exception's properties are foreign code, and this is the error path
        return Failure(_K.UNKNOWN)


def classify_error(error: BaseException) -> ErrorKind:
    """Judge an exception: its kind alone, which no clock can change."""
    return classify(error, wall=0.0).kind


def _classify(head: BaseException, wall: float) -> Failure:
    if not isinstance(head, Exception) or not CANCEL_CLASSES.isdisjoint(class_names(head)):
        return Failure(_K.CANCELLED)
    if any(_is_local(link) for link, _ in causes(head, hidden=True)):
        return Failure(_K.LOCAL)
    chain = causes(head)
    best, best_index = None, 0
    for index, (link, _) in enumerate(chain):
        verdict = _judge(link)
        if verdict and (best is None or verdict.rank < best.rank):
            best, best_index = verdict, index
        if best and best.rank is _Rank.FIRM:
            break
        if index == 0 and best is None and isinstance(head, BUGS):
            return Failure(_K.UNKNOWN, bug=True)  # what it was handling when it broke is not what reached us
    if best is None:
        return Failure(_K.UNKNOWN, bug=any(isinstance(link, BUGS) for link, _ in chain))
    return _complete(best, chain[best_index:], wall)


def _complete(verdict: _Verdict, chain: list[tuple[BaseException, bool]], wall: float) -> Failure:
    """Add what only headers, bodies and deeper links know."""
    failure, evidence = verdict.failure, verdict.evidence
    if failure.kind is _K.TIMEOUT and failure.limit is None:
        deeper = (_transport(link) for link, _ in chain[1:])
        failure = next((f for f in deeper if f and f.limit), failure)._replace(status=failure.status, code=failure.code)
    if evidence is None:
        return failure
    if not evidence.hints:  # Google: the class and the status are on the head, the headers on its cause
        explicit = [link for link, explicit in chain[1:] if explicit]
        inner = next((found for link in explicit if (found := read_evidence(link)).hints), evidence)
        evidence = evidence._replace(hints=inner.hints, body=evidence.body or inner.body)
    return failure._replace(
        retry_after=failure.retry_after or _wait(failure.kind, evidence, chain[0][0], wall),
        headroom=read_headroom(evidence.hints, wall=wall),
    )


def _wait(kind: ErrorKind, evidence: Evidence, link: BaseException, wall: float) -> float | None:
    if kind not in _HINTED:
        return None
    hints = evidence.hints
    if kind not in {_K.RATE_LIMITED, _K.QUOTA_EXHAUSTED}:  # there, an empty bucket is not why it failed
        hints = Hints((k, v) for k, v in hints.items() if "ratelimit" not in k)
    return read_retry_after(hints, evidence.body, evidence.text, wall=wall) or _own_wait(link)


def _own_wait(link: BaseException) -> float | None:
    wait = attribute(link, "retry_after")
    return float(wait) if type(wait) in {int, float} and 0 < wait < math.inf else None


# ------------------------------------------------------------------------------------------------- judging one link


def _judge(link: BaseException) -> _Verdict | None:
    if own := _own(link):
        return _Verdict(_Rank.FIRM, own)
    names = class_names(link)
    if failure := _transport(link):
        return _Verdict(_Rank.FIRM, failure)
    evidence = read_evidence(link)
    sharp = next((SHARP_CLASSES[n] for n in names if n in SHARP_CLASSES), None)
    code, by_code = _by_code(evidence.codes, sharp=True)
    kind = sharp or by_code or _by_status(evidence.status)
    if kind is None:
        code, kind = _by_code(evidence.codes, sharp=False)
    rank = _Rank.FIRM
    if kind is None:
        rank, kind = _Rank.LOOSE, next((LOOSE_CLASSES[n] for n in names if n in LOOSE_CLASSES), None)
    if kind is not None:
        return _Verdict(rank, _failure(_refine(kind, evidence), evidence, code), evidence)
    return _judge_vague(link, names, evidence)


def _judge_vague(link: BaseException, names: tuple[str, ...], evidence: Evidence) -> _Verdict | None:
    """Judge a link whose class, status and codes say nothing."""
    malformed = any(needle in evidence.text for needle in MALFORMED_NEEDLES)
    kind = (
        _K.UNKNOWN if malformed else _refine(_K.UNKNOWN, evidence)
    )  # a malformed page is quoted, and may say anything
    if malformed or not VAGUE_CLASSES.isdisjoint(names) or _broke_reading(link):
        kind = kind if kind is not _K.UNKNOWN else _K.SERVER_ERROR
        return _Verdict(_Rank.FIRM, _failure(kind, evidence, None), evidence)
    if failure := _transport(link, loose=True):
        # Ollama's client hides the refused connection (`from None`) and keeps only these words.
        return _Verdict(_Rank.LOOSE, failure._replace(never_sent="failed to connect" in evidence.text))
    if kind is _K.UNKNOWN or isinstance(link, BUGS):
        return None
    return _Verdict(_Rank.SPOKEN, _failure(kind, evidence, None), evidence)


def _broke_reading(link: BaseException) -> bool:
    """Tell whether an integration stumbled over the response: no frame further in may be anybody else's, least a user's."""
    for name, function in frames(link):
        if name not in READER_PACKAGES and not name.startswith("langchain_"):
            return False
        if function in RESPONSE_READERS:
            return True
    return False


def _own(link: BaseException) -> Failure | None:
    """Take what our drivers raise at its word."""
    kind = stated_kind(link)
    if kind is None:
        return None
    limit = attribute(link, "limit")
    limit = limit if kind is _K.TIMEOUT and isinstance(limit, str) else None
    # Before `connect` was over, nothing was sent.
    return Failure(kind, retry_after=_own_wait(link), limit=limit, never_sent=limit == "connect")


def _transport(link: BaseException, *, loose: bool = False) -> Failure | None:
    table = LOOSE_TRANSPORT if loose else TRANSPORT
    for cls in type(link).__mro__:
        if cls.__name__ in table and package(cls) in TRANSPORT_ROOTS:
            return table[cls.__name__]
    if isinstance(link, OSError) and link.errno in UNREACHED_ERRNOS and not loose:
        return UNREACHED
    return None


def _is_local(link: BaseException) -> bool:
    if isinstance(link, RuntimeError):
        text = said(link)
        return any(needle in text for needle in LOCAL_NEEDLES)
    if isinstance(link, OSError) and link.errno in LOCAL_ERRNOS:
        return True
    if isinstance(link, KeyError) and link.args and isinstance(link.args[0], str):
        return SELECTOR_LOST.fullmatch(link.args[0]) is not None
    if (package(type(link)), type(link).__name__) == CLOSED_HERE:
        return True
    return any(package(cls) in STORE_ROOTS for cls in type(link).__mro__)


def _by_status(status: int | None) -> ErrorKind | None:
    if status is None or status < 400:
        return None
    return STATUSES.get(status) or (_K.CLIENT_ERROR if status < 500 else _K.SERVER_ERROR)


def _by_code(codes: tuple[str, ...], *, sharp: bool) -> tuple[str | None, ErrorKind | None]:
    table = SHARP_CODES if sharp else PLAIN_CODES
    found = [(code, table[code.lower()]) for code in codes if code.lower() in table]
    # "invalid_request_error" is also the type of errors whose code knows better.
    return next((hit for hit in found if hit[1] is not _K.CLIENT_ERROR), found[0] if found else (None, None))


def _refine(kind: ErrorKind, evidence: Evidence) -> ErrorKind:
    """Let the text speak last, within what the verdict so far allows."""
    text = evidence.text
    if kind is _K.RATE_LIMITED:
        found = LIMIT_REQUESTED.search(text)
        if found and _digits(found[2]) > _digits(found[1]):
            return _K.CONTEXT_OVERFLOW
        if any("perday" in code.lower() for code in evidence.codes):
            return _K.QUOTA_EXHAUSTED
        if OUT_OF_QUOTA in text and not any(needle in text for needle in GEMINI_QUOTA):
            return _K.QUOTA_EXHAUSTED
    for refined, bases, needles in NEEDLES:
        if kind in bases and any(needle in text for needle in needles):
            return refined
    return kind


def _digits(number: str) -> int:
    return int(number.replace(",", "") or "0")


def _failure(kind: ErrorKind, evidence: Evidence, code: str | None) -> Failure:
    return Failure(kind, status=evidence.status, code=code or evidence.shown_code)

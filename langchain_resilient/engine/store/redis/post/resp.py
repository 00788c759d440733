"""RESP2, as it is written to Redis and read from it.

Rules of this file: pure, and fast: it runs for every word of every batch. redis-py's own writer and parser take longer, for a batch of 64, than
all else. An error inside a reply is a value; what is no RESP2 is a broken connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_resilient.engine.store.redis.post.troubles import Trouble, meaning

CRLF = b"\r\n"


def packed(words: Sequence[str]) -> bytes:
    """A command as it goes over the wire."""
    text = "".join([f"${len(word)}\r\n{word}\r\n" for word in words])
    if text.isascii():
        return b"*%d\r\n%b" % (len(words), text.encode())
    parts = []
    for word in words:
        # A lone surrogate in a user's name must not take the batch down with it; Redis does not care what bytes are.
        raw = word.encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"*%d\r\n%b" % (len(words), b"".join(parts))


_SHORT: dict[bytes, int] = {b"$%d" % size: size for size in range(64)}
_SMALL: dict[bytes, int] = {b":%d" % number: number for number in range(-1, 1000)}


def unpacked(lines: Iterator[bytes]) -> Any:
    """One reply, of the lines that came so far; raises `StopIteration` where there is more to come. An error is a `Trouble`, not raised."""
    line = next(lines)
    # What scripts answer with comes first, and is looked up rather than worked out: this runs for every word of every reply.
    if (small := _SMALL.get(line)) is not None:
        return small
    if (size := _SHORT.get(line)) is not None:
        value = next(lines)
        return value if len(value) == size else _pieced(value, size, lines)
    kind, rest = line[:1], line[1:]
    if kind == b"*":
        found: list[Any] = []
        for _ in range(int(rest)):
            value = unpacked(lines)  # in no comprehension or extend(): they would take the StopIteration for their own
            found += (value,)
        return None if rest == b"-1" else found
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else _pieced(next(lines), int(rest), lines)
    if kind == b"+":
        return rest
    if kind == b"-":
        text = rest.decode("utf-8", "replace")
        return Trouble(meaning(text), text)
    raise Trouble("lost", "the server answered what is no RESP2")


def _pieced(value: bytes, size: int, lines: Iterator[bytes]) -> bytes:
    while len(value) < size:
        value += CRLF + next(lines)
    if len(value) > size:
        raise Trouble("lost", "the server's answer is longer than it says")
    return value

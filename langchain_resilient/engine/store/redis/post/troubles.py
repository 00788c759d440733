"""What went wrong on a connection to Redis, whoever says so: the server, redis-py, or the system.

Rules of this file
------------------
* Pure. What a server answers is told by its first word, what redis-py raises (it cuts that word off) by the names of the class and its bases:
  so redis-py need not be here, and each of its versions will do.
* A text that a server or redis-py wrote is passed on as it is; neither quotes a password.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["timeout", "lost", "outage", "denied", "noscript", "script"]


class Trouble(Exception):  # noqa: N818  # not every kind of it is an error
    """What went wrong on a connection.

    Args:
        kind: "timeout": no answer in time. "lost": refused or broken off. "outage": the server answers that it can't. "denied": it answers
            that we may not. "noscript": it does not have the script. "script": the script failed.
        text: For people; holds no secret.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


CODES: dict[str, Kind] = {
    "NOSCRIPT": "noscript",
    "NOAUTH": "denied", "WRONGPASS": "denied", "NOPERM": "denied",
    "MOVED": "lost", "ASK": "lost",
    "OOM": "outage", "READONLY": "outage", "LOADING": "outage", "MASTERDOWN": "outage", "CLUSTERDOWN": "outage", "TRYAGAIN": "outage",
    "MISCONF": "outage", "NOREPLICAS": "outage", "BUSY": "outage",
}  # fmt: skip
"""By the first word of a server's error."""
PHRASES: dict[str, Kind] = {
    "invalid password": "denied",
    "without any password configured": "denied",
    "ACL failure in script": "denied",
    "The user executing the script": "denied",
    "max number of clients": "outage",
    "DB index is out of range": "denied",
    "invalid DB index": "denied",
    "SELECT is not allowed in cluster mode": "denied",
}
"""Where the first word is only ERR: servers differ, and Redis 6.2 wraps what a script's own command met."""
NAMES: dict[str, Kind] = {
    "NoScriptError": "noscript",
    "AuthenticationError": "denied", "AuthorizationError": "denied", "NoPermissionError": "denied",
    "AuthenticationWrongNumberOfArgsError": "denied",
    "MovedError": "lost", "AskError": "lost",
    "OutOfMemoryError": "outage", "ReadOnlyError": "outage", "BusyLoadingError": "outage", "ClusterError": "outage",
    "ClusterDownError": "outage", "TryAgainError": "outage", "MaxClientsError": "outage",
    "TimeoutError": "timeout", "ConnectionError": "lost", "OSError": "lost",
}  # fmt: skip
"""redis-py's exceptions (it cuts the first word off), the standard library's, by the name of their class or its bases."""


def meaning(text: str) -> Kind:
    """What an error means that a server answered, as it was sent."""
    code = text.partition(" ")[0].removeprefix("-")
    if code in CODES:
        return CODES[code]
    for phrase, kind in PHRASES.items():
        if phrase in text:
            return kind
    for code, kind in CODES.items():
        if f"-{code} " in text:
            return kind
    return "script"


def trouble(error: BaseException) -> Trouble:
    """Any error of a connection as what it means."""
    if isinstance(error, Trouble):
        return error
    text = str(error) or type(error).__name__
    kind = meaning(text)
    if kind == "script":
        names = [base.__name__ for base in type(error).__mro__]
        kind = next((NAMES[name] for name in names if name in NAMES), kind)
    return Trouble(kind, text)

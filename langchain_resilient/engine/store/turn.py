"""One thread at a time in a store, whatever the garbage collector or a signal does meanwhile.

Rules of this file
------------------
* A signal's handler may raise between any two instructions of Python (Ctrl-C, a soft time limit of Celery). So taking the turn and giving it
  back has none: `__enter__` and `__exit__` are C's own, and between them and the `with` block's protection the interpreter looks for no
  signals. A `__exit__` in Python, even one that only calls C's, would leave the store locked for ever now and then.
* The collector may run at any allocation, in the middle of a store's step, and close a stream that somebody dropped; its plan then reports to
  the very store whose turn this thread has. Such a report is made by a thread of its own, which waits for the step's end like any other: made
  at once it would run in the middle of the step's arithmetic.
* What needs an answer can't wait for its own thread: a handler that asks a model while it interrupts a step of the same store is let in. That
  may cost one request too many, or a count; a lock that is not re-entrant would stop the thread for ever.
"""

from __future__ import annotations

from _thread import RLock, start_new_thread  # `threading.RLock` is a function: it can't be derived from
from collections.abc import Callable


class Turn(RLock):  # type: ignore[misc]  # final in typeshed only
    """A lock that knows whether this thread holds it, and has done what came in between afterwards."""

    __slots__ = ()

    def postponed(self, step: Callable[[], object]) -> bool:
        """Whether this thread is in the middle of a step; then `step` is done after it, by another thread."""
        if not self._is_owned():  # type: ignore[attr-defined]  # no typeshed has it; `threading.Condition` lives on it
            return False
        try:
            start_new_thread(step, ())
        except RuntimeError:  # no thread is to be had, or the interpreter ends: rather in between than never
            return False
        return True

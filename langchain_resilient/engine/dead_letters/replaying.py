"""Asks dead letters again, and keeps what is answered.

Rules of this file
------------------
* An answer is written by its idempotency key before the letter goes, in one step of the box: whoever is killed at any instant leaves a letter
  that is asked again, or an answer; never both written twice, and never neither.
* Where nobody may be asked now (circuits, limits), it does not count as a delivery, and nobody else is claimed before the time that was said;
  unless others are being asked, as a half-open circuit refuses whoever comes beside its probes: then the letter comes back a second later.
* What nobody will ever answer is parked at once; what fails is put off, longer each time, and parked when it has been delivered too often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from langchain_resilient.engine.backoff import full_jitter
from langchain_resilient.engine.classify import classify
from langchain_resilient.engine.dead_letters.box import Box, BoxError
from langchain_resilient.engine.dead_letters.letter import MOST_DELIVERIES, Letter
from langchain_resilient.engine.errors import (
    AllProvidersFailedError,
    DeadlineExceededError,
    RefusedError,
    ResilienceError,
    SettingsError,
    is_number,
    require,
)
from langchain_resilient.engine.events import Observer, Replayed
from langchain_resilient.engine.plan.course import COURSES
from langchain_resilient.engine.policy import Clock, SystemClock

_T = TypeVar("_T")
LOGGER = logging.getLogger("langchain_resilient")
LEASE = 120.0
"""Seconds for which a claimed letter is held; renewed while it is being asked."""
RENEWALS = 3
"""How often a lease is renewed before it would lapse."""
PUT_OFF = 30.0
"""Seconds: the base of the backoff between two deliveries of one letter."""
LONGEST = 3600.0
"""Seconds that a letter is put off at most by our own backoff."""
SHORTEST_PAUSE = 1.0
"""Seconds after a refusal that says no time, and between two looks at an empty box."""
GOES_ON = 60.0
"""Seconds after the last end for which letters that are refused beside others come back: as long as a slow probe may take."""
BOX_THREADS = 2
WRITES = 6
"""How often an answer is tried to be written: it has been paid for."""

Ask = Callable[[Letter], Awaitable[object]]


class ReplayReport(NamedTuple):
    """What became of the letters that were claimed."""

    answered: int = 0
    failed: int = 0
    """They go back, and are asked again later."""
    parked: int = 0
    """They are handed out no more; see their `parked`."""
    refused: int = 0
    """Nobody could be asked: circuits or limits. They go back uncounted."""
    retry_after: float | None = None
    """Seconds after which those that were refused may be asked."""


class Verdict(NamedTuple):
    """What an error means for a letter."""

    outcome: str
    """"refused", "failed" or "parked"."""
    wait: float | None
    """Seconds after which another try may succeed; None: nobody said."""
    why: str


def judged(error: Exception, wall: float) -> Verdict:
    """What an error means for the letter that was asked; `wall` is the time, in seconds since the epoch."""
    if isinstance(error, SettingsError):
        return Verdict("parked", None, "it can't be asked as it is written")
    if isinstance(error, DeadlineExceededError):
        return Verdict("refused", None, "too little time was left to ask anybody")
    if isinstance(error, ResilienceError):
        members = error.exceptions if isinstance(error, AllProvidersFailedError) else (error,)
        if not error.is_retryable:
            return Verdict("parked", None, f"nobody will ever answer it ({type(members[0]).__name__})")
        if all(isinstance(member, RefusedError) for member in members):
            return Verdict("refused", error.retry_after, "nobody could be asked")
        return Verdict("failed", error.retry_after, "every provider failed")
    failure = classify(error, wall=wall)
    if not COURSES[failure.kind].later:
        return Verdict("parked", None, f"its own fault ({failure.kind})")
    return Verdict("failed", failure.retry_after, str(failure.kind))


class Replayer:
    """Asks the letters of a box again.

    Args:
        box: The letters.
        ask: Asks one; returns its answer as JSON has it. Its exceptions decide: see `judged`.
        observe: Told of each letter's end (`Replayed`).
        concurrency: Letters that are asked at a time (≥ 1). Default: 4.
        most: Letters that are asked at all (≥ 1); None: as long as one is due.
        wait: Whether to go on for ever, until it is cancelled; default: until no letter is due, or nobody can be asked.
        lease: Seconds for which a letter is held (≥ 1).
        clock: Time.
        rand: Uniform in [0, 1).

    Raises:
        SettingsError: For numbers that can't be meant.
    """

    def __init__(
        self,
        box: Box,
        ask: Ask,
        *,
        observe: Observer,
        rand: Callable[[], float],
        concurrency: int = 4,
        most: int | None = None,
        wait: bool = False,
        lease: float = LEASE,
        clock: Clock | None = None,
    ) -> None:
        ok = isinstance(concurrency, int) and is_number(concurrency, least=1)
        require(ok, "replay.concurrency", concurrency, "use a whole number ≥ 1")
        ok = most is None or (isinstance(most, int) and is_number(most, least=1))
        require(ok, "replay.most", most, "use a whole number ≥ 1, or None for all that are due")
        require(is_number(lease, least=1), "replay.lease", lease, "use a number of seconds ≥ 1")
        self._box = box
        self._ask = ask
        self._observe = observe
        self._rand = rand
        self._concurrency = concurrency
        self._left = most
        self._wait = wait
        self._lease = lease
        self._clock = clock or SystemClock()
        self._report = ReplayReport()
        self._held: dict[asyncio.Task[None], Letter] = {}
        self._pause_until: float | None = None
        self._refused: set[str] = set()
        self._asking: set[str] = set()
        """Letters that somebody is being asked at this moment."""
        self._ended_at = self._clock.now()
        self._comes_back = False
        """Whether somebody was refused who will be asked again by this run."""
        self._threads = ThreadPoolExecutor(BOX_THREADS, "langchain_resilient_replay")

    async def run(self) -> ReplayReport:
        """Ask them. Raises `BoxError` where no letter can be claimed. Cancelled, it gives back what it holds, uncounted."""
        renewing = asyncio.create_task(self._renew_all())
        try:
            while True:
                if self._may_claim():
                    await self._claim()
                if self._held:
                    soon = SHORTEST_PAUSE if self._may_claim() else None  # another letter may become due
                    await asyncio.wait(self._held, timeout=soon, return_when=asyncio.FIRST_COMPLETED)
                elif self._comes_back and self._pause_until is None:
                    self._comes_back = False
                    await self._clock.asleep(SHORTEST_PAUSE)
                elif not self._wait or self._left == 0:
                    return self._report._replace(refused=len(self._refused))
                else:
                    await self._clock.asleep(self._pause())
        finally:
            renewing.cancel()
            await self._let_go()
            self._threads.shutdown(wait=False)

    # ------------------------------------------------------------------------------------------------------------ claiming
    def _may_claim(self) -> bool:
        if self._pause_until is not None and self._wait and self._clock.now() >= self._pause_until:
            self._pause_until = None
        return self._pause_until is None and self._left != 0 and len(self._held) < self._concurrency

    def _pause(self) -> float:
        until = self._pause_until
        return SHORTEST_PAUSE if until is None else max(until - self._clock.now(), 0.0)

    async def _claim(self) -> None:
        room = self._concurrency - len(self._held)
        most = room if self._left is None else min(room, self._left)
        for letter in await self._at_box(partial(self._box.claim, most, self._lease)):
            if self._left is not None:
                self._left -= 1
            task = asyncio.create_task(self._replay(letter))
            self._held[task] = letter
            task.add_done_callback(self._held.pop)

    async def _renew_all(self) -> None:
        while True:
            await self._clock.asleep(self._lease / RENEWALS)
            held = list(self._held.values())
            try:
                if held:
                    await self._at_box(partial(self._box.renew, held, self._lease))
            except Exception as error:  # noqa: BLE001  # if this task ended, every letter that takes long would be asked twice
                LOGGER.warning("dead letters: %d claims could not be renewed (%s)", len(held), type(error).__name__)

    async def _let_go(self) -> None:
        held = dict(self._held)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        for letter in held.values():
            try:
                await self._at_box(partial(self._box.release, letter, 0.0, counted=False))
            except BoxError:
                return  # their leases lapse

    async def _at_box(self, step: Callable[[], _T]) -> _T:
        # Not the loop's own threads: those may be full of providers that hang.
        return await asyncio.get_running_loop().run_in_executor(self._threads, step)

    # ------------------------------------------------------------------------------------------------------------ one letter
    async def _replay(self, letter: Letter) -> None:
        began = self._clock.now()
        try:
            value = await self._asked(letter)
        except Exception as error:  # noqa: BLE001  # whatever it is, the letter goes back or is parked
            outcome = await self._settled(letter, judged(error, self._clock.wall()))
        else:
            outcome = await self._written(letter, value)
        if outcome == "refused":
            self._refused.add(letter.id)
        else:
            self._ended_at = self._clock.now()
            self._refused.discard(letter.id)
            self._report = self._report._replace(**{outcome: getattr(self._report, outcome) + 1})
        self._observe(Replayed(letter.id, outcome, self._clock.now() - began))

    async def _asked(self, letter: Letter) -> object:
        self._asking.add(letter.id)
        try:
            return await self._ask(letter)
        finally:
            self._asking.discard(letter.id)

    async def _written(self, letter: Letter, value: Any) -> str:
        for again in range(WRITES):
            try:
                await self._at_box(partial(self._box.finish, letter, value))
                return "answered"
            except BoxError as error:
                LOGGER.warning("dead letter %s: its answer could not be written (%s)", letter.id, type(error).__name__)
            except (TypeError, ValueError) as error:
                why = f"its answer can't be written as JSON ({type(error).__name__})"
                return await self._settled(letter, Verdict("parked", None, why))
            await self._clock.asleep(SHORTEST_PAUSE * 2**again)
        return "failed"  # its lease lapses

    async def _settled(self, letter: Letter, verdict: Verdict) -> str:
        outcome, wait, why = verdict
        if outcome == "failed" and letter.deliveries >= MOST_DELIVERIES:
            outcome, why = "parked", f"delivered {letter.deliveries} times: {why}"
        try:
            await self._at_box(self._back(letter, outcome, wait, why))
        except BoxError as error:
            LOGGER.warning("dead letter %s could not be given back (%s)", letter.id, type(error).__name__)
        return outcome

    def _back(self, letter: Letter, outcome: str, wait: float | None, why: str) -> Callable[[], None]:
        """How the box is told."""
        if outcome == "parked":
            return partial(self._box.park, letter, why)
        if outcome == "refused" and self._asking and self._clock.now() - self._ended_at < GOES_ON:
            wait, self._comes_back = SHORTEST_PAUSE, True
            self._left = None if self._left is None else self._left + 1
        elif outcome == "refused":
            wait = max(wait or 0.0, SHORTEST_PAUSE)
            self._pause_until = self._clock.now() + wait
            self._report = self._report._replace(retry_after=wait)
        else:
            own = full_jitter(letter.deliveries - 1, base=PUT_OFF, cap=LONGEST, rand=self._rand())
            wait = max(wait or 0.0, own)
        return partial(self._box.release, letter, self._clock.wall() + wait, counted=outcome == "failed")

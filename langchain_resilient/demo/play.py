"""Plays the afternoon: the same questions at the same instants to every contender, while the servers do as the hour says.

Rules of this file: nothing here knows a result before a server or a model gave it; what is counted is counted from what came back, and
calls from the servers' own logs. One task a question; the tasks end with the play.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import ExitStack
from typing import Any, NamedTuple

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable

from langchain_resilient.demo.afternoon import Afternoon, Phase
from langchain_resilient.demo.contenders import BARE, FALLBACKS, NAMES, OURS, bare, resilient, with_fallbacks
from langchain_resilient.demo.ledger import Fate, Figures, Ledger, figures_of
from langchain_resilient.demo.stage import Stage
from langchain_resilient.demo.traffic import Question, arrivals, reply_to
from langchain_resilient.engine.classify import classify_error
from langchain_resilient.engine.events import CircuitChanged, Decided, Decision, Event
from langchain_resilient.engine.policy import Clock, SystemClock

STRAGGLERS = 15.0
"""Seconds that the last questions are waited for, at any speed, as clients' own backoffs know none; then they count as failed."""


class Told(NamedTuple):
    """Something that our model told its observer."""

    at: float
    """Seconds from the beginning."""
    event: CircuitChanged | Decision


class Stream(NamedTuple):
    """One answer as it comes."""

    question: str
    text: str
    provider: str | None
    """Known at the end."""
    over: bool


class Score(NamedTuple):
    """What one contender made of the afternoon."""

    name: str
    figures: Figures
    calls: dict[str, int]
    """Requests that each provider's server has logged."""
    outcomes: dict[str, dict[str, int]]
    """The same by what the server did with them."""
    by_phase: tuple[Figures, ...]
    """Of the questions asked in each phase."""
    errors: dict[str, int]
    """The failures by their kind."""
    fates: tuple[Fate, ...]

    @property
    def wasted(self) -> int:
        """Calls that answered nobody."""
        return sum(self.calls.values()) - self.figures.answered


class Result(NamedTuple):
    """All that a play came to."""

    seed: int
    afternoon: Afternoon
    seconds: float
    """How long it was played."""
    complete: bool
    """False: it was stopped."""
    scores: tuple[Score, ...]
    changes: tuple[tuple[float, CircuitChanged], ...]
    """What our circuits did, and when."""


class Contender:
    """One of the systems, with its own providers and its own ledger."""

    def __init__(self, name: str, model: Runnable[Any, Any], stage: Stage) -> None:
        self.name = name
        self.model = model
        self.stage = stage
        self.ledger = Ledger()

    def score(self, afternoon: Afternoon) -> Score:
        """What it came to so far."""
        fates = tuple(sorted(self.ledger.fates))
        return Score(
            name=self.name,
            figures=self.ledger.figures(),
            calls=self.stage.calls(),
            outcomes=self.stage.outcomes(),
            by_phase=tuple(
                figures_of([fate for fate in fates if begins <= fate.at < ends])
                for _, begins, ends in afternoon.timetable()
            ),
            errors=dict(Counter(fate.error for fate in fates if fate.error)),
            fates=fates,
        )


class Play:
    """One afternoon, to be played once.

    Args:
        afternoon: What the providers do.
        seed: Of the traffic and of the providers' speeds.
        clock: Time.
    """

    def __init__(self, afternoon: Afternoon, *, seed: int, clock: Clock | None = None) -> None:
        self.afternoon = afternoon
        self.seed = seed
        self.questions = arrivals(seed=seed, rate=afternoon.rate, seconds=afternoon.seconds)
        self.told: deque[Told] = deque(maxlen=50)
        self.changes: list[tuple[float, CircuitChanged]] = []
        self.stream: Stream | None = None
        """The answer on screen: one stream is followed to its end before the next."""
        self.phase: Phase = afternoon.phases[0]
        self.complete = False
        self._clock = clock or SystemClock()
        self._began: float | None = None
        self._ended: float | None = None
        stages = {name: Stage(afternoon, seed) for name in NAMES}
        self._stages = stages
        self._by_model = {house.model: house.name for house in afternoon.houses}
        self.contenders: tuple[Contender, ...] = ()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        if self._began is None:
            return 0.0
        return (self._clock.now() if self._ended is None else self._ended) - self._began

    @property
    def ours(self) -> Contender:
        """The contender that is ours."""
        return next(contender for contender in self.contenders if contender.name == OURS)

    @property
    def over(self) -> bool:
        """Whether it has ended, or was stopped."""
        return self._ended is not None

    async def run(self) -> None:
        """Play it to its end. Cancelled, it stops the servers and what is under way; what was counted so far stands."""
        with ExitStack() as stack:
            for stage in self._stages.values():
                stack.enter_context(stage)
            ours = resilient(self._stages[OURS], self.afternoon, (self._hear,))
            models: dict[str, Runnable[Any, Any]] = {
                BARE: bare(self._stages[BARE], self.afternoon),
                FALLBACKS: with_fallbacks(self._stages[FALLBACKS], self.afternoon),
                OURS: ours,
            }
            self.contenders = tuple(Contender(name, models[name], self._stages[name]) for name in NAMES)
            self._began = self._clock.now()
            director = asyncio.create_task(self._direct())
            asking: set[asyncio.Task[None]] = set()
            try:
                await self._put(asking)
                await director
                await self._wait_for_stragglers(asking)
                self.complete = True
            finally:
                self._ended = self._clock.now()
                for task in (director, *asking):
                    task.cancel()
                await asyncio.gather(director, *asking, return_exceptions=True)
                await ours.aclose()

    async def _until(self, at: float) -> None:
        await self._clock.asleep(max(0.0, at - self.elapsed))

    async def _direct(self) -> None:
        for phase, begins, _ in self.afternoon.timetable():
            await self._until(begins)
            self.phase = phase
            for stage in self._stages.values():
                stage.set(phase)
        await self._until(self.afternoon.seconds)

    async def _put(self, asking: set[asyncio.Task[None]]) -> None:
        await self._clock.asleep(0)  # the director sets the first phase
        for question in self.questions:
            await self._until(question.at)
            asked = self.elapsed
            for contender in self.contenders:
                contender.ledger.ask(question.number, asked)
                task = asyncio.create_task(self._ask(contender, question))
                asking.add(task)
                task.add_done_callback(asking.discard)

    async def _wait_for_stragglers(self, asking: set[asyncio.Task[None]]) -> None:
        if asking:
            await asyncio.wait(set(asking), timeout=STRAGGLERS)
        for contender in self.contenders:
            for number in contender.ledger.waiting:
                contender.ledger.close(number, self.elapsed, error="no answer in time")

    async def _ask(self, contender: Contender, question: Question) -> None:
        try:
            message = await (
                self._streamed(contender, question) if question.stream else self._whole(contender, question)
            )
        except Exception as error:  # noqa: BLE001  # every failure is a result here
            contender.ledger.close(question.number, self.elapsed, error=str(classify_error(error)))
            return
        short = message.text != reply_to(question.prompt)
        metadata = message.response_metadata
        provider = self._by_model.get(str(metadata.get("model_name") or metadata.get("model")))
        contender.ledger.close(question.number, self.elapsed, provider=provider, error="cut short" if short else None)

    @staticmethod
    async def _whole(contender: Contender, question: Question) -> BaseMessage:
        message: BaseMessage = await contender.model.ainvoke(question.prompt)
        return message

    async def _streamed(self, contender: Contender, question: Question) -> BaseMessage:
        shown = contender.name == OURS and (self.stream is None or self.stream.over)
        if shown:
            self.stream = Stream(question.text, "", None, over=False)
        whole = AIMessageChunk(content="")
        try:
            async for chunk in contender.model.astream(question.prompt):
                whole += chunk
                if shown:
                    self.stream = Stream(question.text, whole.text, None, over=False)
        finally:
            if shown:
                metadata = whole.response_metadata
                provider = self._by_model.get(str(metadata.get("model_name") or metadata.get("model")))
                self.stream = Stream(question.text, whole.text, provider, over=True)
        return whole

    def _hear(self, event: Event) -> None:
        if isinstance(event, CircuitChanged):
            self.changes.append((self.elapsed, event))
            self.told.append(Told(self.elapsed, event))
        elif isinstance(event, Decided):
            self.told.append(Told(self.elapsed, event.decision))

    def result(self) -> Result:
        """What it has come to so far."""
        return Result(
            seed=self.seed,
            afternoon=self.afternoon,
            seconds=self.elapsed,
            complete=self.complete,
            scores=tuple(contender.score(self.afternoon) for contender in self.contenders),
            changes=tuple(self.changes),
        )

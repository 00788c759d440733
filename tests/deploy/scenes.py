"""What goes wrong for each alert: pods with real providers' clients, the fault that is played, and how it is mended.

Rules of this file: a scene is one application (one `job`), so that no alert can be another scene's. `begin` plays the fault, `heal` ends it. The
rates keep shares above their 20 requests in a scaled window, with a margin for a slow machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI

from langchain_resilient import Circuit, Hedge, KeyedRateLimiter, Price, Provider, RateLimits, Retry
from langchain_resilient.engine.dead_letters.letter import Letter
from langchain_resilient.letters import content_of
from langchain_resilient.testing import Fault, FaultServer
from tests.deploy.pods import Pod, asked, provider, streamed
from tests.servers import Server

BUSY = 8.0
"""Questions a second where an alert's share needs traffic."""
QUIET = 2.0
"""Where it must have too little: with this rate an application has half of the 20 that a share wants."""
PROBING = Circuit(recovery_timeout=1.0, recovery_cap=10.0)
"""Probes within the scaled window for which an open circuit counts, as the defaults' are within the shipped one."""
NEVER_OPENS = Circuit(failure_threshold=1_000_000, failure_rate=1.0, minimum_calls=1_000_000)
SLOW = 10.5
"""Seconds: over the threshold of the p99, which no scaling changes."""


@dataclass
class Scene:
    """One application, and what happens to it."""

    job: str
    alerts: frozenset[str]
    """All that fire; no other may, unless it is `eventful`."""
    pods: list[Pod]
    begin: Callable[[], object]
    heal: Callable[[], object]
    eventful: bool = False
    """Whether others may fire too: so much goes on in it that its shares depend on the machine."""


class Broken(ChatOpenAI):
    """An application's own client with a bug in it, for answers that are not as somebody thought."""

    async def _agenerate(self, *arguments: Any, **keywords: Any) -> ChatResult:
        result = await super()._agenerate(*arguments, **keywords)
        return {"All is well.": result}[result.generations[0].text]


def _pair(stack: ExitStack) -> tuple[FaultServer, FaultServer]:
    """Two providers, well."""
    servers = stack.enter_context(FaultServer()), stack.enter_context(FaultServer())
    for server in servers:
        server.answer("All is well.")
    return servers


def _scene(
    stack: ExitStack,
    job: str,
    alerts: set[str],
    fault: Fault,
    *,
    rate: float,
    circuit: Circuit = PROBING,
    second: bool = True,
    **settings: Any,
) -> Scene:
    """The first provider misbehaves; the second, if there is one, is well."""
    first, other = _pair(stack)
    others = [provider(other, "second")] if second else []
    pod = Pod(provider(first, "first", circuit=circuit), *others, rate=rate, **settings)
    stack.callback(pod.close)
    return Scene(job, frozenset(alerts), [pod], lambda: first.always(fault), lambda: first.always(Fault.ok()))


def outage(stack: ExitStack) -> Scene:
    """The only process's first provider answers 503."""
    alerts = {"LLMCircuitOpen", "LLMCircuitOpenEverywhere", "LLMFallbackShareHigh", "LLMFallbackShareVeryHigh"}
    return _scene(stack, "outage", alerts, Fault.status(503), rate=BUSY)


def one_of_two(stack: ExitStack) -> Scene:
    """One process of two can't reach its first provider."""
    sick = _scene(stack, "one-of-two", {"LLMCircuitOpen"}, Fault.reset(), rate=QUIET / 2)
    sick.pods += _scene(stack, "", set(), Fault.ok(), rate=QUIET / 2).pods
    return sick


def slow(stack: ExitStack) -> Scene:
    """Every answer takes longer than ten seconds."""
    return _scene(stack, "slow", {"LLMSlowAnswers"}, Fault.slow(SLOW), rate=BUSY, second=False)


def failing(stack: ExitStack) -> Scene:
    """The only provider answers 503, each request is sent several times, and no circuit stops that: the budget does."""
    return _scene(
        stack, "failing", {"LLMErrorRateHigh", "LLMRetryBudgetEmpty"}, Fault.status(503), rate=BUSY, circuit=NEVER_OPENS, second=False,
        retry=Retry(base_delay=0.01),
    )  # fmt: skip


def bad_key(stack: ExitStack) -> Scene:
    """The first provider refuses the key, once: then it is left alone."""
    return _scene(stack, "bad-key", {"LLMAuthFailing"}, Fault.status(401), rate=QUIET)


def no_credit(stack: ExitStack) -> Scene:
    """The first provider's quota is used up. Mended as it is in life: new pods replace this one, as the window is longer than the test."""
    scene = _scene(stack, "no-credit", {"LLMQuotaExhausted"}, Fault.quota_exhausted(), rate=QUIET)
    scene.heal = scene.pods[0].close
    return scene


def bug(stack: ExitStack) -> Scene:
    """Our own code breaks at some of the first provider's answers."""
    first, other = _pair(stack)
    client = Broken(model="first", base_url=first.base_url("openai"), api_key="sk-test", max_retries=0)
    pod = Pod(Provider(client, name="first"), provider(other, "second"), rate=QUIET)
    stack.callback(pod.close)
    return Scene(
        "bug", frozenset({"LLMUnclassifiedErrors"}), [pod],
        lambda: first.always(Fault.ok("Something unforeseen.")), lambda: first.always(Fault.ok()),
    )  # fmt: skip


def store_away(stack: ExitStack, server: Server) -> Scene:
    """The shared store is killed, and started again."""
    scene = _scene(stack, "store-away", {"LLMStoreDegraded"}, Fault.ok(), rate=QUIET, backend=server.url)
    scene.begin, scene.heal = server.kill, server.restart
    return scene


def letters(stack: ExitStack) -> Scene:
    """Nobody answers, and one of two pods has lost its disk: letters come, one is old, one is parked by a replay, the other pod's are lost."""
    alerts = {"LLMDeadLettersLost", "LLMDeadLettersGrowing", "LLMDeadLettersOld", "LLMDeadLettersParked"}
    folder = Path(stack.enter_context(TemporaryDirectory()))
    _, server = _pair(stack)

    async def question(model: Any) -> None:
        # Each is another one: the same question again would be the same letter.
        await model.ainvoke("Who answers?", config={"configurable": {"idempotency_key": uuid4().hex}})

    def pod(name: str) -> Pod:
        made = Pod(
            provider(server, "first"), rate=QUIET / 2, question=question, circuit=NEVER_OPENS, retry=Retry(max_retries=0),
            dead_letters=str(folder / f"{name}.db"),
        )  # fmt: skip
        stack.callback(made.close)
        return made

    kept, diskless = pod("kept"), pod("diskless")

    def begin() -> None:
        asked = content_of([HumanMessage("Who answered two hours ago?")], None, {}, None)
        for name in ("refused-for-good", "old"):
            kept.model.letters.put(Letter(f"0-{name}", name, time.time() - 7200, "timeout", (), asked))
        server.always(Fault.status(400))
        assert kept.model.replay(most=1).parked == 1
        diskless.model.letters.close()
        server.always(Fault.status(503))

    def heal() -> None:
        server.always(Fault.ok("I do."))
        assert kept.model.letters.purge(state="parked") == 1
        assert kept.model.replay(concurrency=8).answered >= 1

    return Scene("letters", frozenset(alerts), [kept, diskless], begin, heal)


def well(stack: ExitStack) -> Scene:
    """Nothing happens."""
    return _scene(stack, "well", set(), Fault.ok(), rate=BUSY)


def varied(stack: ExitStack) -> Scene:
    """Something for every panel: streams that break and go on, hedges, limits, prices, users beyond their limit."""
    first, other = _pair(stack)
    first.always(Fault.flaky(0.05, Fault.truncate(chunks=2), seed=1))
    first.answer("All is well, and goes on for quite a while.", delay=_sometimes_late())
    pod = Pod(
        provider(first, "first", price=Price(1.0, 2.0)), provider(other, "second", price=Price(1.0, 2.0)),
        rate=6.0, question=streamed, hedge=Hedge(quantile=0.5, max_fraction=1.0),
    )  # fmt: skip
    limiter = KeyedRateLimiter(
        "memory://", RateLimits(rpm=60, burst=1), user_type="free", namespace="deploy", observers=[pod.observe]
    )

    async def question(model: Any) -> None:
        limiter.try_acquire("somebody")
        await streamed(model)

    async def two(model: Any) -> None:
        await asyncio.gather(asked(model), asked(model))

    pod.question = question
    # Of two questions at once one has to wait for its turn, or is refused.
    narrow, strict = (
        Pod(provider(other, how, limits=RateLimits(rpm=240, burst=1, on_limit=how)), rate=1.0, question=two)
        for how in ("wait", "reject")
    )
    for each in (pod, narrow, strict):
        stack.callback(each.close)
    return Scene(
        "varied", frozenset(), [pod, narrow, strict], lambda: None, lambda: first.always(Fault.ok()), eventful=True
    )


def _sometimes_late() -> Callable[[Any], float]:
    """Every tenth answer begins late: what a hedge is for."""
    asked_for = 0

    def delay(record: Any) -> float:
        nonlocal asked_for
        asked_for += 1
        return 0.6 if asked_for % 10 == 0 else 0.01

    return delay

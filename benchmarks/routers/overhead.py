"""What a healthy call costs through the bare Router and through ours: `python -m routers.overhead ROUNDS`, in a process of its own.

Rules of this file: the provider answers at once, from another process. Three Routers of the same settings take turns in every round: the bare
one, the bare one again, and ours. What the first two differ by is noise; ours is compared with both of the same round.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from outages.cell import own_stdout
from outages.contenders import Contender, NotHereError, Setting
from outages.figures import quantile
from outages.stage import HOUSES
from outages.traffic import answer_to, prompt_of

from langchain_resilient.testing.fault_server import FaultServer, RecordedRequest, WireName
from routers.contenders import alone, resilient
from routers.faults import SECONDS, faults, timeline_of

CALLS = 20
"""Calls of a Router in a round."""
WARM_UP = 40
NOISE = 0.9
"""The quantile of what two bare Routers of a round differ by."""
MEDIAN_ERROR = 1.25
"""How far medians of n values scatter, times √n, in the scatter of the values."""
BARE, AGAIN, OURS = "bare", "again", "ours"


class Costs(NamedTuple):
    """What one kind of request costs: milliseconds a call, the median of the rounds."""

    streamed: bool
    bare: float
    ours: float
    bare_cpu: float
    ours_cpu: float
    ratio: float
    """Ours to the bare Routers of the same round: the median."""
    noise: float
    """What the medians of as many rounds of two bare Routers differ by: the greater to the smaller, nine times in ten."""


class Round(NamedTuple):
    """Milliseconds a call in one round, by Router."""

    wall: dict[str, float]
    """The median of its calls."""
    cpu: dict[str, float]
    """The mean: of this process, LiteLLM's work in the background included."""


class Remote:
    """A provider that is in another process, in the place of `outages.stage.Stage`."""

    def __init__(self, addresses: dict[WireName, str]) -> None:
        self._addresses = addresses

    def base_url(self, provider: int) -> str:
        """What a client of this provider takes as base URL."""
        return self._addresses[HOUSES[provider].wire]


def costs_of(rounds: Sequence[Round], *, streamed: bool) -> Costs:
    """What the rounds come to."""
    bare = [(one.wall[BARE] + one.wall[AGAIN]) / 2 for one in rounds]
    apart = sorted(max(one.wall[BARE], one.wall[AGAIN]) / min(one.wall[BARE], one.wall[AGAIN]) for one in rounds)
    return Costs(
        streamed=streamed,
        bare=statistics.median(bare),
        ours=statistics.median(one.wall[OURS] for one in rounds),
        bare_cpu=statistics.median((one.cpu[BARE] + one.cpu[AGAIN]) / 2 for one in rounds),
        ours_cpu=statistics.median(one.cpu[OURS] for one in rounds),
        ratio=statistics.median(one.wall[OURS] / usual for one, usual in zip(rounds, bare, strict=True)),
        noise=1.0 + ((quantile(apart, NOISE) or 1.0) - 1.0) * MEDIAN_ERROR / math.sqrt(len(rounds)),
    )


def turns(number: int) -> tuple[str, ...]:
    """Who goes first, second and third in a round: everybody is everywhere equally often."""
    names = (BARE, AGAIN, OURS)
    first = number % len(names)
    order = (*names[first:], *names[:first])
    return order if number % 2 else order[::-1]


def serve(pipe: Connection) -> None:
    """The provider's process: it ends when the other end of the pipe does."""
    with FaultServer() as server:
        server.answer(_said)
        pipe.send({wire: server.base_url(wire) for wire in ("openai", "anthropic")})
        try:
            pipe.recv()
        except EOFError:
            return


def _said(record: RecordedRequest) -> str:
    messages = record.body.get("messages")
    return answer_to(messages if isinstance(messages, list) else [])


async def _ask(contender: Contender, number: int, *, streamed: bool) -> None:
    if streamed:
        async for _ in contender.stream(prompt_of(number)):
            pass
    else:
        await contender.ask(prompt_of(number))


async def _round(number: int, routers: dict[str, Contender], *, streamed: bool) -> Round:
    found = Round({}, {})
    for name in turns(number):
        took: list[float] = []
        used = time.process_time()
        for call in range(CALLS):
            began = time.perf_counter()
            await _ask(routers[name], number * CALLS + call, streamed=streamed)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0)  # what LiteLLM does in the background is done in its caller's turn
        found.wall[name] = 1000 * statistics.median(took)
        found.cpu[name] = 1000 * (time.process_time() - used) / CALLS
    return found


async def measure(rounds: int, addresses: dict[WireName, str]) -> list[Costs]:
    """All kinds of requests."""
    setting = Setting(Remote(addresses), faults(0)["503"], timeline_of(SECONDS))  # type: ignore[arg-type]  # its address is all that is asked
    routers = {
        BARE: alone(setting, tuned=True),
        AGAIN: alone(setting, tuned=True),
        OURS: resilient(setting, tuned=True),
    }
    found = []
    for streamed in (False, True):
        for contender in routers.values():
            for number in range(WARM_UP):
                await _ask(contender, number, streamed=streamed)
        seen = [await _round(number, routers, streamed=streamed) for number in range(rounds)]
        found.append(costs_of(seen, streamed=streamed))
    return found


def main(rounds: int) -> dict[str, Any]:
    """What it comes to, or why it does not."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    provider = context.Process(target=serve, args=(theirs,), daemon=True)
    provider.start()
    theirs.close()
    try:
        return {"costs": asyncio.run(measure(rounds, ours.recv()))}
    except NotHereError as error:
        return {"missing": str(error)}
    finally:
        ours.close()
        provider.join(5)


if __name__ == "__main__":
    out = own_stdout()
    print(json.dumps(main(int(sys.argv[1]))), file=out, flush=True)
    os._exit(0)  # a library's threads and late callbacks are not waited for

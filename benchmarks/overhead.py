"""What a call costs beyond the bare model, in microseconds: bare, `with_retry`, `with_fallbacks` and ours, in one shuffled run.

    python benchmarks/overhead.py [--calls 3000] [--json]

Every variant asks the same fake model, which answers at once; variants take turns in random order, so that whatever else the machine does
hits all alike. Read the ratios within one run, not the microseconds; the last column is what the variant adds, over what `with_fallbacks`
adds. Metrics are on in all of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from langchain_resilient import Provider, RateLimits, ResilientChatModel
from langchain_resilient.engine.effects import Admit, Report
from langchain_resilient.engine.observe.opentelemetry import OpenTelemetryObserver
from langchain_resilient.engine.observe.prometheus import PrometheusObserver
from langchain_resilient.engine.policy import Target
from langchain_resilient.engine.store.memory import MemoryStore

ROUND = 25
"""Calls of one variant in a row: long enough to be its own cache state, short enough to be shuffled finely."""


class Instant(BaseChatModel):
    """Answers at once."""

    model_name: str = "instant"
    total_timeout: float | None = 30.0
    """Said to give up by itself, so that sync calls run in the caller's thread. None: as a client over HTTP, in a thread of its own."""

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
        message = AIMessage("Hello there.", usage_metadata=usage, response_metadata={"finish_reason": "stop"})
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages, stop)

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="instant", ls_model_name=self.model_name, ls_model_type="chat")


def ours(providers: int, limits: RateLimits | None = None, total_timeout: float | None = 30.0) -> ResilientChatModel:
    """Our model over so many instant ones, with metrics on."""
    models = [
        Provider(Instant(model_name=f"{index}", total_timeout=total_timeout), limits=limits)
        for index in range(providers)
    ]
    namespace = f"overhead-{providers}-{limits is not None}-{total_timeout}"
    return ResilientChatModel(
        providers=models, namespace=namespace, observers=[PrometheusObserver(CollectorRegistry())]
    )


def watched(providers: int, folder: Path) -> ResilientChatModel:
    """The same with all observers: Prometheus, OpenTelemetry's SDK, decision records in the answers; and with dead letters kept."""
    meters = MeterProvider([InMemoryMetricReader()])
    return ResilientChatModel(
        providers=[Instant(model_name=f"{index}") for index in range(providers)],
        namespace="overhead-watched",
        observers=[PrometheusObserver(CollectorRegistry()), OpenTelemetryObserver(meters)],
        include_decision=True,
        dead_letters=str(folder / "letters.db"),
    )


def variants(folder: Path) -> dict[str, Any]:
    """What is compared."""
    bare = Instant()
    limits = RateLimits(rpm=100_000_000, tpm=2_000_000_000, concurrency=1000)
    return {
        "bare": bare,
        "with_retry": bare.with_retry(),
        "with_fallbacks": bare.with_fallbacks([Instant()]),
        "ours, 1 provider": ours(1),
        "ours, 3 providers": ours(3),
        "ours, 10 providers": ours(10),
        "ours, 3 providers, limits": ours(3, limits),
        "ours, 3 providers, in a thread": ours(3, total_timeout=None),
        "ours, 3 providers, all observers": watched(3, folder),
    }


def measure(calls: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Microseconds per call, per colour and variant."""
    models = variants(folder)
    messages = [HumanMessage("Hello")]
    seconds: dict[str, dict[str, list[float]]] = {
        "invoke": {name: [] for name in models},
        "ainvoke": {name: [] for name in models},
    }

    def sync_round(name: str) -> None:
        model = models[name]
        for _ in range(ROUND):
            began = time.perf_counter()
            model.invoke(messages)
            seconds["invoke"][name].append((time.perf_counter() - began) * 1e6)

    async def async_round(name: str) -> None:
        model = models[name]
        for _ in range(ROUND):
            began = time.perf_counter()
            await model.ainvoke(messages)
            seconds["ainvoke"][name].append((time.perf_counter() - began) * 1e6)

    def shuffled() -> list[str]:
        names = [name for name in models for _ in range(calls // ROUND)]
        random.shuffle(names)
        return names

    async def all_async() -> None:
        for name in shuffled():
            await async_round(name)

    for name in models:
        sync_round(name)
    gc.collect()
    gc.disable()
    for name in shuffled():
        sync_round(name)
    asyncio.run(all_async())
    gc.enable()
    return seconds


def table(seconds: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Medians, and what each variant adds."""
    rows = []
    for colour, times in seconds.items():
        medians = {name: statistics.median(values) for name, values in times.items()}
        bare, fallbacks = medians["bare"], medians["with_fallbacks"] - medians["bare"]
        rows += [
            {
                "call": colour,
                "variant": name,
                "median_us": round(median, 1),
                "of_bare": round(median / bare, 2),
                "adds_us": round(median - bare, 1),
                "of_with_fallbacks": round((median - bare) / fallbacks, 2),
            }
            for name, median in medians.items()
        ]
    return rows


def decisions(calls: int) -> list[dict[str, Any]]:
    """Microseconds of one local decision (circuit + rpm + tpm + concurrency), early and late, after so many candidates that refuse."""
    limits = RateLimits(rpm=100_000_000, tpm=2_000_000_000, concurrency=1000)
    rows = []
    for refusing in (0, 1, 4):
        store = MemoryStore(time.monotonic, random.random)
        full = [target(f"full-{index}", RateLimits(rpm=1, burst=1)) for index in range(refusing)]
        for one in full:
            store.admit(ask(0, (one,)))
        candidates = (*full, target("roomy", limits))
        for when in ("first", "after 20000 more"):
            times = [admit_and_settle(store, candidates) for _ in range(calls)]
            rows.append({"refusing_before": refusing, "when": when, "admit_us": round(statistics.median(times), 2)})
            for _ in range(20_000):
                admit_and_settle(store, candidates)
    return rows


def bindings(calls: int) -> list[dict[str, Any]]:
    """Microseconds of binding ten tools, and of binding them and calling, as an agent does on every turn."""
    bare = Binding(model="x", api_key="x", max_retries=0)
    other = Binding(model="y", api_key="x", max_retries=0)
    models: dict[str, Any] = {
        "bare": bare,
        "ours, 1 provider": ResilientChatModel(providers=[bare], namespace="bindings-1"),
        "ours, 3 providers": ResilientChatModel(
            providers=[bare, other, Binding(model="z", api_key="x", max_retries=0)], namespace="bindings-3"
        ),
    }
    messages = [HumanMessage("Hello")]
    steps: dict[str, Callable[[Any], object]] = {
        "bind": lambda model: model.bind_tools(TOOLS),
        "bind and call": lambda model: model.bind_tools(TOOLS).invoke(messages),
    }
    times: dict[tuple[str, str], list[float]] = {(step, name): [] for step in steps for name in models}
    rounds = [key for key in times for _ in range(calls // ROUND)]
    random.shuffle(rounds)
    gc.disable()
    for step, name in rounds:
        for _ in range(ROUND):
            began = time.perf_counter()
            steps[step](models[name])
            times[step, name].append((time.perf_counter() - began) * 1e6)
    gc.enable()
    medians = {key: statistics.median(values) for key, values in times.items()}
    return [
        {
            "step": step,
            "variant": name,
            "median_us": round(median, 1),
            "adds_us": round(median - medians[step, "bare"], 1),
        }
        for (step, name), median in medians.items()
    ]


class Binding(ChatOpenAI):
    """OpenAI's own way to bind tools, and an answer at once."""

    total_timeout: float | None = 30.0

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return Instant()._generate(messages)


def _tool(number: int) -> StructuredTool:
    def look_up(city: str, days: int = 1) -> str:
        """Look up the weather of a city for some days."""
        return f"{city} {days}"

    return StructuredTool.from_function(look_up, name=f"look_up_{number}")


TOOLS = [_tool(number) for number in range(10)]
ATTEMPTS = itertools.count(1)


def target(name: str, limits: RateLimits) -> Target:
    """A provider that nobody calls."""
    return Target(name, name, name, limits=limits)


def ask(attempt: int, candidates: tuple[Target, ...]) -> Admit:
    """A request of 100 tokens."""
    return Admit(attempt, candidates, stream=False, lane="interactive", input_tokens=100, max_output=100)


def admit_and_settle(store: MemoryStore, candidates: tuple[Target, ...]) -> float:
    """Microseconds of the admission alone."""
    wanted = ask(next(ATTEMPTS), candidates)
    began = time.perf_counter()
    ticket = store.admit(wanted)
    took = (time.perf_counter() - began) * 1e6
    store.settle(ticket, Report(None, 0.01))
    return took


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    print("  ".join(key.ljust(width) for key, width in widths.items()))
    for row in rows:
        print("  ".join(str(row[key]).ljust(width) for key, width in widths.items()))
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000, help="calls per variant and colour (default 3000)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    with TemporaryDirectory() as letters:
        calls = table(measure(options.calls, Path(letters)))
    result = {
        "calls": calls,
        "bindings": bindings(options.calls // 3),
        "decisions": decisions(options.calls),
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result["calls"])
        show(result["bindings"])
        show(result["decisions"])

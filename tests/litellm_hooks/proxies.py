"""Real Proxies for the tests of `litellm_hooks`: `litellm --config` on a free port of 127.0.0.1, fake providers behind it.

A start takes seconds, so tests share one, and each has model groups of its own there: a `Pair` is a group with one deployment and a spare
group behind it, of a model that nobody else asks for, so that circuits and logs are its own although two servers play all providers.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import openai
import yaml
from prometheus_client.parser import text_string_to_metric_families

from langchain_resilient.testing import Fault, FaultServer
from langchain_resilient.testing.fault_server import RecordedRequest
from tests.servers import free_port

ROOT = Path(__file__).parent.parent.parent
HANDLER = "litellm_hooks.proxy.handler"
QUICK = {"first_token": 1.0, "idle": 1.0, "response": 1.0}
"""Limits that are meant to fire."""
BOUNDS = 120.0
"""Seconds that a start, or an answer, is given on a busy machine."""


class NotStartedError(Exception):
    """A Proxy that ended (with `code`), or was not there in time (None); its message is what it printed."""

    def __init__(self, printed: str, code: int | None) -> None:
        super().__init__(printed)
        self.code = code


class Proxy:
    """A running `litellm --config`: started by the constructor, gone after `close`.

    Args:
        config: What its `config.yaml` says: a mapping, or the file itself.
        folder: Where the file and the log are put.
        environment: Variables beside the tests' own.
    """

    def __init__(self, config: Mapping[str, Any] | Path, folder: Path, **environment: str) -> None:
        self.key = f"sk-{secrets.token_hex(16)}"  # a weak one stops the start
        self.url = f"http://127.0.0.1:{free_port()}"
        if isinstance(config, Path):
            file = config
        else:
            file = folder / "config.yaml"
            file.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        self._log = folder / "proxy.log"
        told = os.environ | {
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            # A newer LiteLLM may be a directory that comes first.
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
        }
        command = [sys.executable, "-c", "from litellm import run_server; run_server()", "--config", str(file)]
        command += ["--host", "127.0.0.1", "--port", self.url.rpartition(":")[2]]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=told | environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=BOUNDS)
        # A real client, that never asks twice by itself.
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=BOUNDS)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def _wait(self) -> None:
        deadline = time.monotonic() + BOUNDS
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NotStartedError(self.log, self._process.poll())
            time.sleep(0.1)

    def _is_up(self) -> bool:
        try:
            return self.http.get("/health/liveliness", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """End it, by its id; twice does no harm."""
        self.http.close()
        self.client.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def metrics(self) -> str:
        """What Prometheus reads of it."""
        return self.http.get("/metrics/").raise_for_status().text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        samples = [one for family in text_string_to_metric_families(self.metrics()) for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


class Answer(NamedTuple):
    """What a client of a Proxy read."""

    text: str
    headers: Mapping[str, str]
    chunks: Sequence[Any] = ()
    """Of a stream."""
    last: str = ""
    """The last line of a stream."""

    @property
    def attempts(self) -> int:
        """What it was told of them."""
        return int(self.headers["x-resilience-attempts"])

    @property
    def provider(self) -> str:
        """The deployment that it was told of."""
        return self.headers["x-resilience-provider"].partition("#")[2]


QUESTION = [{"role": "user", "content": "What happened?"}]


def ask(proxy: Proxy, model: str, *, stream: bool = False, **asked: Any) -> Answer:
    """Ask with a real client and read all of it; raises what that client raises."""
    raw = proxy.client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, stream=stream, **asked)
    if not stream:
        return Answer(raw.parse().choices[0].message.content or "", raw.headers)
    came: list[bytes] = []
    pieces = raw.http_response.iter_bytes()
    # The client reads the end mark and does not tell of it, so what it reads is kept.
    raw.http_response.iter_bytes = lambda: (came.append(piece) or piece for piece in pieces)
    chunks = list(raw.parse())
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    return Answer("".join(texts), raw.headers, chunks, b"".join(came).decode().split("\n\n")[-2])


def is_clean(answer: Answer) -> None:
    """See that a stream reads as one answer of one model, with its end mark."""
    assert answer.last == "data: [DONE]"
    assert len({chunk.id for chunk in answer.chunks}) == 1
    assert len({chunk.model for chunk in answer.chunks}) == 1
    said = [chunk.choices[0] for chunk in answer.chunks if chunk.choices]
    assert [choice.delta.role for choice in said if choice.delta.role] == ["assistant"]
    finishes = [choice.finish_reason for choice in said]
    assert finishes[-1] == "stop" and not any(finishes[:-1])


# ── Many groups behind one Proxy ─────────────────────────────────────────────────────────────────────────────────────


def deployment(server: FaultServer, name: str, group: str, model: str, **params: Any) -> dict[str, Any]:
    """An entry of a `model_list`."""
    told = {"model": f"openai/{model}", "api_base": server.base_url("openai"), "api_key": "test", **params}
    return {"model_name": group, "litellm_params": told, "model_info": {"id": name}}


class Pair:
    """A group with one deployment, `<name>-a`, and the group behind it, `<name>-spare` with `<name>-b`; their servers are well at first.

    Args:
        name: Of the group.
        first: Plays its deployment.
        second: Plays the spare one.
    """

    def __init__(self, name: str, first: FaultServer, second: FaultServer) -> None:
        self.name = name
        self.first = first
        self.second = second

    def entries(self, **params: Any) -> list[dict[str, Any]]:
        """Its part of the `model_list`; `params` are of its first deployment."""
        spare = f"{self.name}-spare"
        return [
            deployment(self.first, f"{self.name}-a", self.name, f"model-{self.name}", **params),
            deployment(self.second, f"{self.name}-b", spare, f"spare-{self.name}"),
        ]

    @property
    def asked(self) -> list[RecordedRequest]:
        """What its first deployment was asked."""
        return [request for request in self.first.requests if request.model == f"model-{self.name}"]

    @property
    def counts(self) -> tuple[int, int]:
        """How often its first and its spare deployment were asked."""
        spared = [request for request in self.second.requests if request.model == f"spare-{self.name}"]
        return len(self.asked), len(spared)


class Proxied:
    """A Proxy with pairs to be taken, each once.

    Args:
        proxy: The Proxy.
        kinds: The pairs by kind.
        first: Plays every pair's first deployment.
        second: Plays every spare one.
    """

    def __init__(self, proxy: Proxy, kinds: Mapping[str, list[Pair]], first: FaultServer, second: FaultServer) -> None:
        self.proxy = proxy
        self.first = first
        self.second = second
        self._kinds = kinds

    def heal(self) -> None:
        """Both servers answer again."""
        for server in (self.first, self.second):
            server.always(Fault.ok())

    def pair(self, kind: str = "plain") -> Pair:
        """One that nobody had."""
        return self._kinds[kind].pop()


@contextmanager
def proxied(folder: Path, kinds: Mapping[str, tuple[int, dict[str, Any]]], text: str) -> Iterator[Proxied]:
    """A Proxy with so many pairs of each kind, with these parameters of their first deployments.

    Pairs of a kind whose name begins with "quick" have limits that are meant to fire, at their first deployment.
    """
    with ExitStack() as stack:
        first, second = (stack.enter_context(FaultServer()) for _ in range(2))
        for server in (first, second):
            server.answer(text)
        pairs = {
            kind: [Pair(f"{kind}{number}", first, second) for number in range(count)]
            for kind, (count, _) in kinds.items()
        }
        every = [(kind, pair) for kind, several in pairs.items() for pair in several]
        tagged = [
            deployment(server, f"tagged-{tag}", "tagged", "model-tagged", tags=[tag])
            for server, tag in ((first, "free"), (second, "paid"))
        ]
        config = {
            "model_list": [*(entry for kind, pair in every for entry in pair.entries(**kinds[kind][1])), *tagged],
            "router_settings": {
                "fallbacks": [{pair.name: [f"{pair.name}-spare"]} for _, pair in every],
                "enable_tag_filtering": True,
            },
            "litellm_settings": {
                "resilience": {
                    "retry": {"base_delay": 0.0},
                    "deployments": {
                        f"{pair.name}-a": {"timeouts": QUICK} for kind, pair in every if kind.startswith("quick")
                    },
                },
                "callbacks": ["prometheus", HANDLER],
            },
            "general_settings": {"cancel_on_disconnect": True},
        }
        there = Proxied(stack.enter_context(Proxy(config, folder)), pairs, first, second)
        warm = there.pair()
        for stream in (False, True):  # the first call of each way takes longer than any limit of a test
            ask(there.proxy, warm.name, stream=stream)
        yield there

"""A world for the tests of `litellm_hooks`: fake providers over HTTP, real Routers over them, and a look at what is held."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import litellm

from langchain_resilient.engine.effects import Later, Ticket
from langchain_resilient.engine.events import Decision
from langchain_resilient.testing import FaultServer
from litellm_hooks import Installed, install
from litellm_hooks.deployments import Candidate
from litellm_hooks.installing import installed_on
from tests.engine.harness import left_over
from tests.servers import until

MESSAGES = [{"role": "user", "content": "What happened?"}]
TEXT = "The rain had stopped by noon. Nobody went out, though; the streets were empty, and the dog slept on. Someone laughed."
WAYS = ("async", "async stream", "sync", "sync stream")
MODEL = "openai/gpt-4.1"


class Answer(NamedTuple):
    """What a caller read."""

    text: str
    response: Any
    """The answer; None: it was a stream."""
    chunks: Sequence[Any] = ()


def read(chunks: Sequence[Any]) -> Answer:
    """A stream that has ended."""
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    return Answer("".join(texts), None, chunks)


class Counted:
    """A store that counts how often each ticket is granted and settled."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.granted: Counter[int] = Counter()
        self.settled: Counter[int] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def admit(self, ask: Any) -> Any:
        reply = self._store.admit(ask)
        assert not isinstance(reply, Later), "a store in memory answers at once"
        if isinstance(reply, Ticket):
            self.granted[reply.attempt] += 1
        return reply

    def settle(self, ticket: Ticket, report: Any) -> Any:
        self.settled[ticket.attempt] += 1
        return self._store.settle(ticket, report)


class World:
    """Providers and Routers.

    Args:
        stack: Ends them.
        namespace: Of the engine's state.
    """

    def __init__(self, stack: ExitStack, namespace: str) -> None:
        self._stack = stack
        self.namespace = namespace

    def server(self, text: str = TEXT) -> FaultServer:
        """A provider that is well."""
        server = self._stack.enter_context(FaultServer())
        server.answer(text)
        return server

    @staticmethod
    def deployment(server: FaultServer, name: str = "a", group: str = "main", **params: Any) -> dict[str, Any]:
        """An entry of a Router's `model_list`."""
        told = {"model": MODEL, "api_base": server.base_url("openai"), "api_key": "test", **params}
        return {"model_name": group, "litellm_params": told, "model_info": {"id": name}}

    def router(self, *deployments: dict[str, Any], **settings: Any) -> litellm.Router:
        """A bare Router."""
        router = litellm.Router(model_list=list(deployments), **settings)
        self._stack.callback(router.retire if hasattr(router, "retire") else router.discard)
        return router

    def install(self, router: litellm.Router, **settings: Any) -> Installed:
        """Put the engine on a Router; its retries do not wait, unless `retry` says so."""
        installed = install(router, **({"namespace": self.namespace, "retry": {"base_delay": 0.0}} | settings))
        installed.assembly.store = Counted(installed.assembly.store)
        return installed

    def resilient(self, *deployments: dict[str, Any], **settings: Any) -> litellm.Router:
        """A Router with the engine on it."""
        router = self.router(*deployments, **settings)
        self.install(router)
        return router

    @staticmethod
    async def ask(router: litellm.Router, way: str = "async", model: str = "main", **asked: Any) -> Answer:
        """Ask in one of `WAYS`, and read all of the answer."""
        request = {"model": model, "messages": MESSAGES, **asked}
        if way == "async stream":
            return read([chunk async for chunk in await router.acompletion(**request, stream=True)])
        if way == "sync stream":
            return read(await asyncio.to_thread(lambda: list(router.completion(**request, stream=True))))
        asking = router.acompletion(**request) if way == "async" else asyncio.to_thread(router.completion, **request)
        response = await asking
        return Answer(response.choices[0].message.content or "", response)


def force(router: litellm.Router, deployment: str, mode: str | None, group: str = "main") -> None:
    """Force a deployment's circuit, as an operator does."""
    installed_on(router).assembly.store.override(target_of(router, deployment, group), mode)


def target_of(router: litellm.Router, deployment: str, group: str = "main") -> Any:
    """The engine's target for a deployment."""
    found = next(one for one in router.get_model_list(model_name=group) if one["model_info"]["id"] == deployment)
    policy = installed_on(router).assembly.policy(((Candidate(group, found, {}),),))
    return policy.targets[0]


def held(router: litellm.Router) -> dict[str, Any]:
    """What is still held on a Router's behalf."""
    assembly = installed_on(router).assembly
    return left_over(assembly.store._store, assembly._gate)


async def nothing_held(router: litellm.Router) -> None:
    """Wait until nothing is held, and see that each ticket was settled once."""
    store = installed_on(router).assembly.store
    await asyncio.to_thread(until, lambda: store.granted == store.settled, "each ticket is settled once", 5.0)
    await asyncio.to_thread(until, lambda: not held(router), "nothing is held", 5.0)


def asked_of(decisions: Sequence[Decision]) -> Counter[str]:
    """How many attempts were recorded, by deployment."""
    return Counter(attempt.provider.partition("#")[2] for decision in decisions for attempt in decision.attempts)


def is_clean(answer: Answer) -> None:
    """See that it reads as one answer of one model."""
    if answer.response is not None:
        assert answer.response.choices[0].finish_reason == "stop"
        return
    said = [chunk for chunk in answer.chunks if chunk.choices]
    assert len({chunk.id for chunk in answer.chunks}) == 1
    assert len({chunk.model for chunk in answer.chunks}) == 1
    assert [chunk.choices[0].delta.role for chunk in said if chunk.choices[0].delta.role] == ["assistant"]
    finishes = [chunk.choices[0].finish_reason for chunk in said]
    assert finishes[-1] == "stop" and not any(finishes[:-1])

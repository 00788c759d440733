"""`install`: a Router whose chat completions the engine makes.

Rules of this file: the Router's `completion` and `acompletion` are replaced on this one Router object, by ones of the same signature; all
else of it (embeddings, images, health checks, settings) is untouched, and `remove` puts back what was there. One plan serves sync and async,
calls and streams: what differs is the driver.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any

from litellm.litellm_core_utils.asyncify import run_async_function

from langchain_resilient.engine.drive import AsyncHands, Hands, arun, astream, run, stream
from langchain_resilient.engine.effects import Plan, Request
from langchain_resilient.engine.errors import require
from langchain_resilient.engine.plan import answer
from litellm_hooks.assembly import Assembly
from litellm_hooks.candidates import OTHER_CHAINS, Candidates, Lineup
from litellm_hooks.charging import Leg, Meter, of_call
from litellm_hooks.errors import Translated, soonest
from litellm_hooks.expecting import most_tokens
from litellm_hooks.readers import ROUTES
from litellm_hooks.router import WRITTEN, RouterFace, rebound, undeprecated
from litellm_hooks.settings import Settings, read
from litellm_hooks.strategy import ResilientStrategy, chosen
from litellm_hooks.upstream import NOTE, Came, RouterUpstream

_REQUESTS = count(1)
MARK = "_resilience"
"""Under which a Router knows what is installed on it."""
SYNC = "acompletion"
"""The route whose answers the one sync method gives."""
OTHERS_MAY_ANSWER = tuple(OTHER_CHAINS)
Plans = list[RouterUpstream]
"""Of one request: its plan, and one more where another chain's groups are asked."""


def install(router: Any, **settings: Any) -> Installed:
    """Make a Router's chat completions resilient.

    Args:
        router: A `litellm.Router`. One that is installed already gets the new settings.
        settings: See `Settings`; sections may be mappings, as in a YAML file.

    Returns:
        What is installed: `remove()` takes it off again.

    Raises:
        SettingsError: For anything unknown or nonsensical; it names the field, what was given and the fix.

    Example:
        >>> install(router, backend="redis://localhost:6379/0", timeouts={"first_token": 5.0})  # doctest: +SKIP
    """
    require(
        hasattr(router, "acompletion") and hasattr(router, "completion"),
        "router",
        type(router).__name__,
        "give a litellm.Router",
    )
    told = read(settings, "install")
    require(
        not told.tenants,
        "tenants",
        sorted(told.tenants),
        "leave it out: only the Proxy knows who asks; here give each user a KeyedRateLimiter's place before you call the Router",
    )
    return install_with(router, told)


def install_with(router: Any, settings: Settings) -> Installed:
    """The same with settings that are read already."""
    before = installed_on(router)
    if before is not None:
        before.remove()
    return Installed(router, settings)


def installed_on(router: Any) -> Installed | None:
    """What is installed on a Router."""
    found: Installed | None = vars(router).get(MARK)
    return found if found is not None and found.is_on(router) else None


class Installed:
    """The engine on a Router.

    Args:
        router: LiteLLM's.
        settings: The user's.
    """

    def __init__(self, router: Any, settings: Settings) -> None:
        self.settings = settings
        self.assembly = Assembly(settings)
        self._router = router
        self._face = RouterFace(router)
        self._call, self._acalls = _own_calls(router)
        self.strategy = ResilientStrategy.held(router)
        self._candidates = Candidates(self._face)
        router.completion, router.acompletion = self.completion, self.acompletion
        router.aanthropic_messages, router.aresponses = self.aanthropic_messages, self.aresponses
        vars(router)[MARK] = self

    def is_on(self, router: Any) -> bool:
        """Whether it is this Router's: a copy of a Router has the original's too, among all else."""
        return self._router is router

    def own_calls_of(self, router: Any) -> tuple[Any, dict[str, Any]]:
        """What a copy of this Router answers by itself, sync and async."""
        call, acalls = self._call, self._acalls
        return rebound(call, self._router, router), {
            route: rebound(acall, self._router, router) for route, acall in acalls.items()
        }

    def remove(self) -> None:
        """Put back what was there; where something else is installed by now, that stays."""
        if installed_on(self._router) is not self:
            return
        with undeprecated():
            self._router.completion = self._call
            for route, own in self._acalls.items():
                setattr(self._router, route, own)
            self.strategy.release()
        vars(self._router).pop(MARK, None)

    # ----------------------------------------------------------------------------------------------------------- async
    async def acompletion(self, model: str, messages: Any, stream: bool = False, **kwargs: Any) -> Any:
        """As `Router.acompletion`."""
        return await self._arouted("acompletion", {**kwargs, "model": model, "messages": messages, "stream": stream})

    async def aanthropic_messages(self, **kwargs: Any) -> Any:
        """As `Router.aanthropic_messages`, Anthropic's `/v1/messages`. A stream that breaks after its first content is an error."""
        return await self._arouted("aanthropic_messages", kwargs)

    async def aresponses(self, **kwargs: Any) -> Any:
        """As `Router.aresponses`, OpenAI's `/v1/responses`. A stream that breaks after its first content is an error."""
        return await self._arouted("aresponses", kwargs)

    async def _arouted(self, route: str, request: dict[str, Any]) -> Any:
        charge = of_call(request.get("litellm_call_id"))
        if charge is None:
            return await self._aserved(route, request, None)
        with charge.routed() as leg:
            return await self._aserved(route, request, leg)

    async def _aserved(self, route: str, request: dict[str, Any], leg: Leg | None) -> Any:
        lineup = await self._candidates.of(request)
        if lineup is None:
            return await self._acalls[route](**request)
        plans: Plans = []
        try:
            return await self._aanswer(route, request, lineup, plans, leg)
        except OTHERS_MAY_ANSWER as error:
            others = await self._candidates.others(request, _chain_for(error))
            if others is None:
                raise
        return await self._aanswer(route, _once_more(request), others, plans, leg)

    async def _aanswer(
        self, route: str, request: Mapping[str, Any], lineup: Lineup, plans: Plans, leg: Leg | None
    ) -> Any:
        upstream, plan = self._plan(route, request, lineup, plans, leg)
        hands = AsyncHands(self.assembly.store, upstream, self.assembly.clock)
        with Translated(request["model"], partial(_note_failure, request, plans)):
            if not request.get("stream"):
                whole = await arun(plan, hands)
                _noted(request, plans, whole)
                return whole
            chunks = astream(plan, hands)
            first = await anext(chunks)
        came = _noted(request, plans, first)
        return ROUTES[route].stream(chunks, first, came.source, request["model"])

    # ------------------------------------------------------------------------------------------------------------ sync
    def completion(self, model: str, messages: Any, **kwargs: Any) -> Any:
        """As `Router.completion`."""
        request = {"stream": False, **kwargs, "model": model, "messages": messages}
        lineup = run_async_function(self._candidates.of, request)
        if lineup is None:
            return self._call(model=model, messages=messages, **kwargs)
        plans: Plans = []
        try:
            return self._answer(request, lineup, plans)
        except OTHERS_MAY_ANSWER as error:
            others = run_async_function(self._candidates.others, request, _chain_for(error))
            if others is None:
                raise
        return self._answer(_once_more(request), others, plans)

    def _answer(self, request: Mapping[str, Any], lineup: Lineup, plans: Plans) -> Any:
        upstream, plan = self._plan(SYNC, request, lineup, plans)
        hands = Hands(self.assembly.store, upstream, self.assembly.clock)
        with Translated(request["model"], partial(_note_failure, request, plans)):
            if not request["stream"]:
                whole = run(plan, hands)
                _noted(request, plans, whole)
                return whole
            chunks = stream(plan, hands)
            first = next(chunks)
        came = _noted(request, plans, first)
        return ROUTES[SYNC].stream(chunks, first, came.source, request["model"])

    # ------------------------------------------------------------------------------------------------------------ both
    def _plan(
        self, route: str, request: Mapping[str, Any], lineup: Lineup, plans: Plans, leg: Leg | None = None
    ) -> tuple[RouterUpstream, Plan]:
        assembly, reader = self.assembly, ROUTES[route]
        streams = bool(request.get("stream"))
        whole = assembly.whole and not streams and reader.builds
        meter = None if leg is None else Meter(reader, streams=streams or whole)
        upstream = RouterUpstream(
            self._call, self._acalls[route], partial(chosen, self._router), request, assembly.clock.wall, reader if meter is None else meter.reader, lineup.deployment,
            None if leg is None else leg.prompt or None,
        )  # fmt: skip
        plans.append(upstream)
        asked = Request(
            next(_REQUESTS), upstream, streams or whole, max_output=most_tokens(request), input_tokens=upstream.input_tokens, whole=whole,
            told=None if leg is None or meter is None else leg.listener(meter, upstream), unsure=True,
        )  # fmt: skip
        return upstream, answer(asked, assembly.policy(lineup.rungs))


def _own_calls(router: Any) -> tuple[Any, dict[str, Any]]:
    """What a Router answers by itself, sync and async."""
    original: Installed | None = vars(router).get(MARK)
    if original is not None:
        return original.own_calls_of(router)
    return router.completion, {route: getattr(router, route) for route in ROUTES}


def _once_more(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request for its second plan: what LiteLLM logs with has told of the first one's failure already (see `RouterUpstream`)."""
    return {name: told for name, told in request.items() if name != "litellm_logging_obj"}


def _noted(request: Mapping[str, Any], plans: Plans, first: Any) -> Came:
    """Tell the request's metadata who answered."""
    came = plans[-1].source_of(first)
    for name, written in came.written.items():
        request[name].update(written)  # as if there had been this attempt alone
    _note(request, {"provider": came.target.name, "attempts": _attempts_of(plans)})
    return came


def _note_failure(request: Mapping[str, Any], plans: Plans, error: Exception) -> None:
    note: dict[str, Any] = {"attempts": _attempts_of(plans)}
    wait = soonest(error)
    if wait is not None:
        note["retry_after"] = math.ceil(wait)
    _note(request, note)


def _attempts_of(plans: Plans) -> int:
    return sum(upstream.attempts for upstream in plans)


def _note(request: Mapping[str, Any], note: dict[str, Any]) -> None:
    metadata = next((told for name in WRITTEN if isinstance(told := request.get(name), dict)), None)
    if metadata is not None:
        metadata[NOTE] = note


def _chain_for(error: Exception) -> str:
    return next(chain for kind, chain in OTHER_CHAINS.items() if isinstance(error, kind))

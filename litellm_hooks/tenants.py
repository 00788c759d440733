"""Limits for the Proxy's users: who asks, what that takes, and what a refusal says.

Rules of this file: LiteLLM has said who it is (virtual key, user, team, end user) before we are asked; who has no such name has no such limit.
All limits are asked, or none is charged: what one gave is handed back where another refuses. A key, or anybody's name, is told to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from langchain_resilient.admission import Admission
from langchain_resilient.engine import quota
from langchain_resilient.keyed import KeyedRateLimiter
from litellm_hooks.charging import Charge, Taken, present, put
from litellm_hooks.expecting import models_of, most_tokens, prompt_tokens
from litellm_hooks.settings import KINDS, Settings

NAMES = {"key": ("token", "api_key"), "user": ("user_id",), "team": ("team_id",), "end_user": ("end_user_id",)}
"""What LiteLLM calls whom we limit; of a key both are hashes."""
CALLED = {"key": "virtual key", "user": "user", "team": "team", "end_user": "end user"}
HEARD = frozenset({"acompletion", "atext_completion", "aembedding", "aresponses", "anthropic_messages"})
"""Calls of which LiteLLM says when they are sent. All others count as sent when they are let in."""


class Tenants:
    """The limits of all kinds of users.

    Args:
        settings: Where they stand: `tenants`, with the backend, namespace and observers of all.
    """

    def __init__(self, settings: Settings) -> None:
        limits = settings.tenants
        # Whoever refuses at once is asked first: nobody is to wait for one limit to be refused by another.
        self._patient = {kind: limits[kind].on_limit == "wait" for kind in KINDS if kind in limits}
        self._limiters = {
            kind: KeyedRateLimiter(
                settings.backend, limits[kind], user_type=kind, namespace=settings.namespace, observers=settings.observers
            )
            for kind in sorted(self._patient, key=self._patient.__getitem__)
        }  # fmt: skip
        self._counting = frozenset(kind for kind, limit in limits.items() if quota.counts_tokens(limit))

    async def admit(self, who: Any, data: Mapping[str, Any], call_type: str) -> None:
        """Take a request, and the tokens that it is expected to take, of every limit of whoever asks.

        Raises:
            HTTPException: 429 where a limit is used up, 413 where the request alone exceeds it.
        """
        before = present()
        if before is not None and before.open:
            if before.calling or (not before.sent and _is_inside(before, data, call_type)):
                return  # a call inside of a request is a part of it
            if not before.sent:
                before.end(0)  # the Proxy asks again for the same request, with another model
        put(None)
        kinds = list(self._kinds(who))
        prompt = prompt_tokens(data) if any(kind in self._counting for kind, _ in kinds) else 0
        models = models_of(data) if call_type == "acompletion" else 1
        expected = models * (prompt + (most_tokens(data) or 0))
        taken: list[Taken] = []
        try:
            for kind, name in kinds:
                limiter = self._limiters[kind]
                admission = await limiter.aadmit(name, tokens=expected, wait=self._patient[kind])
                if not admission:
                    _refuse(kind, admission)
                taken.append(Taken(limiter, admission))
        except BaseException:
            for limiter, admission in taken:
                limiter.refund(admission)
            raise
        if taken:
            call, sent = data.get("litellm_call_id"), call_type not in HEARD
            put(Charge(call, taken, prompt, sent=sent, several=models > 1))

    def _kinds(self, who: Any) -> Iterator[tuple[str, str]]:
        """The limits that whoever asks has, and under what name."""
        for kind in self._limiters:
            name = next((str(told) for field in NAMES[kind] if (told := getattr(who, field, None))), None)
            if name is not None:
                yield kind, name


def _is_inside(before: Charge, data: Mapping[str, Any], call_type: str) -> bool:
    """Whether it is a call that another callback makes for a request which was not sent yet.

    Such a call has no id, or is none that is routed (a tool). A request that the Proxy asks again has an id, and it may be another one.
    """
    return before.call is not None and (data.get("litellm_call_id") is None or call_type not in HEARD)


def _refuse(kind: str, admission: Admission) -> NoReturn:
    from fastapi import HTTPException  # the Proxy's own, and nobody else comes here

    limit = f"{admission.dimension} = {admission.limit} for this {CALLED[kind]}"
    wait = admission.retry_after
    told = f"{limit}: this request alone takes more" if wait is None else f"{limit}: used up for {wait:.3f} s"
    detail = {
        "error": told,
        "user_type": kind,
        "limit": admission.dimension,
        "quota": admission.limit,
        "retry_after": wait,
    }
    raise HTTPException(413 if wait is None else 429, detail, admission.headers)

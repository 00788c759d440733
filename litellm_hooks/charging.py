"""What a request of the Proxy took of its users' limits, and how that is settled: once, whatever becomes of it.

Rules of this file: a charge goes with its request in a context variable, so that no client can name it and nobody logs it. The first who
knows how the request went settles it, all later ones change nothing:

    answered              what it really used
    failed, or left       the request and its prompt stay charged, and what was answered until then; the rest comes back
    never sent            all of it comes back, the request too
    nobody says a word    as long as it was not sent: all of it, when the request is forgotten; once it was sent: nothing

The engine knows of the routes that it serves; of all others LiteLLM's own callbacks tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_resilient.admission import Admission
from langchain_resilient.engine.events import Decision, Usage
from langchain_resilient.keyed import KeyedRateLimiter
from litellm_hooks.chunks import delta_of
from litellm_hooks.expecting import counted
from litellm_hooks.readers import Reader
from litellm_hooks.upstream import RouterUpstream

MINUTE, DAY = 60.0, 86_400.0


class Taken(NamedTuple):
    """One limiter's part of a charge."""

    limiter: KeyedRateLimiter
    admission: Admission


class Charge:
    """What one request has taken.

    Args:
        call: LiteLLM's id of the request: a call inside of it (a guardrail's, say) has another, or none.
        taken: Of which limiters.
        prompt: Its tokens, by a local estimate; 0: nobody counts them.
        sent: Whether it counts as sent from the beginning, as nobody would tell.
    """

    def __init__(self, call: object, taken: Sequence[Taken], prompt: int, *, sent: bool = False) -> None:
        self.call = call
        self.taken = tuple(taken)
        self.prompt = prompt
        self.sent = sent
        """Whether it may have reached a provider."""
        self.served = False
        """Whether the engine serves it, and tells of its end."""
        self.open = True
        """Whether it is still to be settled."""
        self._calling = 0
        self._used: int | None = None

    def __del__(self) -> None:
        # Refused by somebody behind us, or its client left before it was routed: nobody is told of that.
        if self.open and not self.sent:
            self.end(0)

    @property
    def calling(self) -> bool:
        """Whether the Router is being called for it at this moment."""
        return self._calling > 0

    @property
    def nearest(self) -> Admission:
        """Of the limits that it took of, the one that is nearest to its end."""
        return min((one.admission for one in self.taken), key=_share_left)

    def end(self, tokens: int) -> None:
        """Settle it: it used so many tokens; one that was not sent is handed back whole."""
        if not self.open:
            return
        self.open = False
        for limiter, admission in self.taken:
            if self.sent:
                limiter.settle(admission, tokens=max(0, tokens))
            else:
                limiter.refund(admission)

    def answered(self, tokens: int) -> None:
        """It was answered."""
        self.sent = True
        self.end(tokens)

    def failed(self) -> None:
        """It came to nothing."""
        self.end(self.prompt)

    @contextmanager
    def routed(self) -> Iterator[None]:
        """Around the Router's call: what failed in it, or was answered whole, is over when it returns; a stream is not."""
        self._calling += 1
        try:
            yield
        except BaseException:
            self.end(self.prompt if self._used is None else self._used)
            raise
        finally:
            self._calling -= 1
            if self._used is not None:
                self.end(self._used)

    def listener(self, meter: Meter, upstream: RouterUpstream) -> Callable[[Decision], None]:
        """What is to be told how a plan of the engine's ended: from now on the engine serves it."""
        self.served = True

        def told(decision: Decision) -> None:
            self.sent = self.sent or upstream.attempts > 0
            self._used = meter.used(decision, self.prompt)
            if not self.calling:  # inside of the call a failure may be followed by another plan
                self.end(self._used)

        return told


def _share_left(admission: Admission) -> float:
    """What is left of the burst of its tightest limit, 0 … 1: `reset` says what is missing."""
    period = DAY if admission.dimension.endswith("d") else MINUTE
    return admission.remaining / max(1.0, admission.remaining + admission.reset * admission.limit / period)


class Meter:
    """Reads off an answer what it used.

    Args:
        reader: How answers are read.
        streams: Whether they come in chunks.
    """

    def __init__(self, reader: Reader, *, streams: bool) -> None:
        self._usage, self._text = reader.usage, reader.text
        self.reader = reader._replace(usage=self._read) if streams else reader
        """The same, for the engine, which asks it for the usage of each chunk once."""
        self._said: list[str] = []
        self._last: Any = None

    def _read(self, chunk: Any) -> Usage | None:
        self._said += [self._text(chunk), *_besides_text(chunk)]
        self._last = chunk
        return self._usage(chunk)

    def used(self, decision: Decision, prompt: int) -> int:
        """The tokens of a request that is over: as reported to us, else to LiteLLM, else by what was said."""
        if decision.usage is not None:
            return decision.usage.input + decision.usage.output
        whole = decision.outcome == "answered" and not decision.continued
        noted = _noted_by_litellm(self._last) if whole else None
        if noted is not None:
            return noted
        said = "".join(self._said)
        return prompt + (counted(text=said) if said else 0)


def _besides_text(chunk: Any) -> Iterator[str]:
    """What else a chat's chunk says: thoughts, and calls of tools."""
    delta = delta_of(chunk)
    calls = [call.function for call in getattr(delta, "tool_calls", None) or ()]
    for said in (
        getattr(delta, "reasoning_content", None),
        *(part for call in calls for part in (call.name, call.arguments)),
    ):
        if isinstance(said, str):
            yield said


def _noted_by_litellm(last: Any) -> int | None:
    """What LiteLLM notes at a stream's last chunk: what the provider reported, though its client did not ask for it."""
    return _total((getattr(last, "_hidden_params", None) or {}).get("usage"))


def tokens_of(answer: Any) -> int | None:
    """The tokens that an answer of any route reports; None: none."""
    return _total(getattr(answer, "usage", None))


def _total(usage: Any) -> int | None:
    told = [getattr(usage, name, None) for name in ("total_tokens", "prompt_tokens", "completion_tokens")]
    total, paid, got = [one if isinstance(one, int) else 0 for one in told]
    return max(total, paid + got) or None  # not every route's usage has a sum


_PRESENT: ContextVar[Charge | None] = ContextVar("litellm_hooks_charge", default=None)


def present() -> Charge | None:
    """The charge of the request that this code runs for."""
    return _PRESENT.get()


def put(charge: Charge | None) -> None:
    """Let a request have this charge, from here on and in all tasks that it begins."""
    _PRESENT.set(charge)


def of_call(call: object) -> Charge | None:
    """The charge of this request, if this call is the request itself, and none that is made inside of it."""
    charge = present()
    return charge if charge is not None and charge.open and charge.call is not None and charge.call == call else None

"""What a request of the Proxy took of its users' limits, and how that is settled: once, whatever becomes of it.

Rules of this file: a charge goes with its request in a context variable, so that no client can name it and nobody logs it. For a request of
several models the Router is called several times: the last of these calls that is over settles it with the sum. Otherwise the first who knows
how the request went settles it; all later ones change nothing:

    answered              what it really used
    failed, or left       the request and its prompt stay charged, and what was answered until then; the rest comes back
    never sent            all of it comes back, the request too
    nobody says a word    as long as it was not sent: all of it, when the request is forgotten; once it was sent: nothing

The engine knows of the routes that it serves; of all others LiteLLM's own callbacks tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_resilient.admission import Admission
from langchain_resilient.engine.events import Decision, Usage
from langchain_resilient.keyed import KeyedRateLimiter
from litellm_hooks.expecting import counted
from litellm_hooks.readers import Reader, Report
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
        several: Whether the Router will be called for it several times at once.
    """

    def __init__(
        self, call: object, taken: Sequence[Taken], prompt: int, *, sent: bool = False, several: bool = False
    ) -> None:
        self.call = call
        self.taken = tuple(taken)
        self.prompt = prompt
        self.sent = sent
        """Whether it may have reached a provider."""
        self.served = False
        """Whether the engine serves it, and tells of its end."""
        self.open = True
        """Whether it is still to be settled."""
        self._several = several
        self._legs: set[Leg] = set()
        self._used = 0

    def __del__(self) -> None:
        # Refused by somebody behind us, or its client left before it was routed: nobody is told of that.
        if self.open and not self.sent:
            self.end(0)

    @property
    def calling(self) -> bool:
        """Whether the Router is being called for it at this moment."""
        return any(leg.calling for leg in self._legs)

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
    def routed(self) -> Iterator[Leg]:
        """Around a call of the Router: what failed in it, or was answered whole, is over when it returns; a stream is not."""
        leg = Leg(self)
        self._legs.add(leg)
        try:
            yield leg
        except BaseException:
            leg.returned(failed=True)
            raise
        leg.returned()

    def over(self, leg: Leg, used: int | None) -> None:
        """A call of the Router is over; None: it went on without the engine, and LiteLLM tells of its end, where all did."""
        if leg not in self._legs:  # it failed, and its plan is told of later
            return
        self._legs.remove(leg)
        self._used += used or 0
        if not self.served and used is None:
            return
        if self._several:
            # One that fails at once is over before the others have begun, which the loop has in hand already.
            asyncio.get_running_loop().call_soon(self._end_of_all)
        else:
            self._end_of_all()

    def _end_of_all(self) -> None:
        if not self._legs:
            self.end(self._used)


class Leg:
    """One call of the Router, which may be followed by a stream.

    Args:
        charge: Whose.
    """

    def __init__(self, charge: Charge) -> None:
        self._charge = charge
        self._used: int | None = None
        self._telling = False
        """Whether a plan of the engine's is under way."""
        self.calling = True
        """Whether the call has not returned yet."""

    @property
    def prompt(self) -> int:
        """The request's tokens, by a local estimate; 0: nobody has counted them."""
        return self._charge.prompt

    def returned(self, *, failed: bool = False) -> None:
        """The call has returned; `failed`: it raised, and there is nothing more to come."""
        self.calling = False
        if failed:
            self._telling = False
            if self._used is None:
                self._used = self.prompt if self._charge.sent else 0
        self._look()

    def listener(self, meter: Meter, upstream: RouterUpstream) -> Callable[[Decision], None]:
        """What is to be told how a plan of the engine's ended: from now on the engine serves it. Of several plans the last that asked anybody counts."""
        self._charge.served = self._telling = True

        def told(decision: Decision) -> None:
            if upstream.attempts > 0:
                self._charge.sent = True
                self._used = meter.used(decision, self.prompt)
            elif self._used is None:
                self._used = 0
            self._telling = False
            self._look()

        return told

    def _look(self) -> None:
        if not self.calling and not self._telling:
            self._charge.over(self, self._used)


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
        self._besides, self._report = reader.besides, reader.report
        self._said: list[str] = []
        self._reported = Report()
        self._last: Any = None

    def _read(self, chunk: Any) -> Usage | None:
        self._said += [self._text(chunk), *self._besides(chunk)]
        self._last = chunk
        paid, got = self._report(chunk)
        if paid is not None:
            self._reported = Report(paid, got)
        elif got is not None:
            self._reported = self._reported._replace(got=got)
        return self._usage(chunk)

    def used(self, decision: Decision, prompt: int) -> int:
        """The tokens of a request that is over: as reported to us, else to LiteLLM, else by what was said."""
        if decision.usage is not None:
            return decision.usage.input + decision.usage.output
        whole = decision.outcome == "answered" and not decision.continued
        noted = _noted_by_litellm(self._last) if whole else None
        if noted is not None:
            return noted
        paid, got = self._reported
        return (prompt if paid is None else paid) + (self._counted() if got is None else got)

    def _counted(self) -> int:
        said = "".join(self._said)
        return counted(said) if said else 0


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

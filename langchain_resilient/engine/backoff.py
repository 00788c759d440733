"""How long to wait before a retry: full jitter, and the provider's own Retry-After.

Rules of this file: randomness is a parameter (`rand`, uniform in [0, 1)); jitter is applied after the clamp, because clamping a
jittered delay makes every capped client wake together; all times are seconds.

Theory: `delay = U(0, min(cap, base · 2ⁿ))` does the least work in total for about the same completion time (Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015). A stated Retry-After is a minimum: `ra + U(0, min(1 s, ra / 10))`, or everyone who
was refused together comes back together.
"""

from __future__ import annotations

from dataclasses import dataclass

from langchain_resilient.engine.errors import checked, is_number, require

THROTTLED_BASE = 1.0
"""Base delay in seconds after a 429 without a hint: at least this, as the provider asked for less traffic."""


@checked
@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often the same request is sent again. Checked when made: raises `SettingsError`."""

    max_retries: int = 3
    """Attempts of one request beyond one per provider (≥ 0)."""
    base_delay: float = 0.5
    """Seconds, the upper bound of the first backoff (≥ 0)."""
    max_delay: float = 60.0
    """Seconds, the longest backoff, and the longest wait for a provider's Retry-After (≥ 0)."""
    max_retry_after: float = 2.0
    """A 429 that asks for at most this many seconds is waited for; above, the next provider is asked (≥ 0)."""
    budget: bool = True
    """Whether retries and fallbacks are paid from a success-funded budget (see `budget`)."""

    def __post_init__(self) -> None:
        ok = isinstance(self.max_retries, int) and is_number(self.max_retries, least=0)
        require(ok, "Retry.max_retries", self.max_retries, "use a whole number ≥ 0 (0: never retry)")
        for name in ("base_delay", "max_delay", "max_retry_after"):
            value = getattr(self, name)
            require(is_number(value, least=0), f"Retry.{name}", value, "use a number of seconds ≥ 0")
        require(isinstance(self.budget, bool), "Retry.budget", self.budget, "use True or False")


def full_jitter(retry: int, *, base: float, cap: float, rand: float) -> float:
    """Seconds before retry number `retry` (0 = the first)."""
    # 2.0**1024 overflows; long before that the cap decides.
    return rand * min(cap, base * 2.0 ** min(retry, 64))


def after_hint(retry_after: float, rand: float) -> float:
    """Seconds before a retry that the provider put off by `retry_after` seconds."""
    return retry_after + rand * min(1.0, 0.1 * retry_after)

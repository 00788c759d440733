"""The retry budget of one provider in one process: extra calls are paid for by successes.

Rules of this file: pure; a full budget has 100 tokens, a success adds 0.1, an extra call (a retry, a hedge, every fallback after a
request's first) takes 1 from the provider it goes to; at 50 or below none is left to take.

Theory: extra load must shrink when successes do, or a brownout becomes a storm. A limit on the share of *concurrent* retries does not
do that: they stay in flight longest exactly when the provider is slow. This is gRPC's retry throttling (proposal A6) with the numbers
of DESIGN §5: at total failure extra calls stop after 50; in health one is earned by ten answers.
"""

from __future__ import annotations

FULL = 100.0
FLOOR = 50.0
EARN = 0.1
PRICE = 1.0


def earn(tokens: float) -> float:
    """The tokens after a success."""
    return min(FULL, tokens + EARN)


def spend(tokens: float) -> float | None:
    """The tokens after an extra call; None: it can't be afforded."""
    return tokens - PRICE if tokens > FLOOR else None

"""Every fault of a provider, in every way to ask, behind a sibling and behind a fallback group: the caller reads one whole, clean answer."""

from collections import Counter
from itertools import product
from typing import Any

import pytest

from langchain_resilient import capture_decisions
from langchain_resilient.testing import Fault
from tests.litellm_hooks.world import TEXT, WAYS, asked_of, is_clean, nothing_held

pytestmark = pytest.mark.e2e

FAULTS = {
    "ok": Fault.ok(),
    "slow": Fault.slow(0.02),
    "status": Fault.status(500),
    "refuses the key": Fault.status(401),
    "knows no such model": Fault.status(404),
    "rate_limited": Fault.rate_limited("seconds", 30.0),
    "quota_exhausted": Fault.quota_exhausted(),
    "overloaded": Fault.overloaded(),
    "hang": Fault.hang(),
    "hang_after": Fault.hang_after(4),
    "keepalive": Fault.keepalive(0.03),
    "reset": Fault.reset(),
    "reset_after": Fault.reset_after(4),
    "close_after": Fault.close_after(4),
    "closes before it speaks": Fault.close_after(0),
    "truncate": Fault.truncate(4),
    "no_done": Fault.no_done(),
    "malformed": Fault.malformed(4),
    "in_band_error": Fault.in_band_error(4),
    "flaky": Fault.flaky(1.0, Fault.status(503)),
}
ELSEWHERE = {
    "context_overflow": "another chain of fallbacks: test_installing.py",
    "content_filter": "another chain of fallbacks: test_installing.py",
}
"""Constructors of `Fault` that are no row of this matrix, and where they are tested."""
SILENT = {"hang", "hang_after", "keepalive"}
"""Faults that only a limit ends."""
LAYOUTS = ("sibling", "fallback")
CELLS = list(product(FAULTS, WAYS, LAYOUTS))


def layout(world: Any, name: str, first: Any, second: Any) -> Any:
    """A Router over two providers."""
    if name == "sibling":
        return world.router(world.deployment(first, "a", order=1), world.deployment(second, "b", order=2))
    return world.router(
        world.deployment(first, "a"), world.deployment(second, "b", "spare"), fallbacks=[{"main": ["spare"]}]
    )


async def hidden_by_litellm(world: Any, server: Any, way: str) -> bool:
    """Whether LiteLLM itself tells its user of a cut stream that it was whole: then nobody behind it can know."""
    bare = world.router(world.deployment(server, "bare"), num_retries=0)
    try:
        answer = await world.ask(bare, way)
    except Exception:
        return False
    finally:
        server.reset_log()
    return answer.text != TEXT and answer.chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(("fault", "way", "name"), CELLS)
async def test_every_fault_is_survived(world, fault: str, way: str, name: str):
    """The caller reads the whole answer as one; each attempt is one request, and is settled once."""
    first, second = world.server(), world.server()
    first.always(FAULTS[fault])
    hidden = fault == "truncate" and "stream" in way and await hidden_by_litellm(world, first, way)
    router = layout(world, name, first, second)
    quick = {"first_token": 0.8, "idle": 0.8, "response": 0.8} if fault in SILENT else {}
    world.install(router, deployments={"a": {"timeouts": quick}})
    with capture_decisions() as decisions:
        answer = await world.ask(router, way)
    if hidden:
        assert answer.text and TEXT.startswith(answer.text)
    else:
        assert answer.text == TEXT
    is_clean(answer)
    assert len(decisions) == 1
    assert asked_of(decisions) == Counter({key: n for key, n in (("a", first.count), ("b", second.count)) if n})
    await nothing_held(router)


def test_no_cell_is_missing():
    """Each way for `Fault` to misbehave is a row, or is tested elsewhere by name; each row is run in every way and layout."""
    (mark,) = test_every_fault_is_survived.pytestmark
    assert set(mark.args[1]) == {(fault, way, name) for fault in FAULTS for way in WAYS for name in LAYOUTS}
    constructors = {name for name, member in vars(Fault).items() if isinstance(member, classmethod)}
    played = {fault.name.partition("(")[0] for fault in FAULTS.values()}
    assert constructors == played | set(ELSEWHERE)

"""The story of the product: three providers die one by one over real HTTP and come back, and every question is answered."""

import asyncio
import time

import pytest

from langchain_resilient import Circuit, Provider, ResilientChatModel, Retry, Timeouts, capture_decisions
from langchain_resilient.testing import Fault, FaultServer
from tests.clients import WAYS, WIRES, ask, fresh, instance, spec


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["specs", "instances"])
async def test_a_program_keeps_answering_while_its_providers_die_and_come_back(how: str):
    """Every question is answered, in each of the four ways, as long as one provider lives; and the first choice comes back."""
    with FaultServer() as first, FaultServer() as second, FaultServer() as third:
        servers = dict(zip(WIRES, (first, second, third), strict=True))
        for wire, server in servers.items():
            server.answer(f"I am {wire}.")
        make = spec if how == "specs" else lambda server, wire: Provider(instance(server, wire, timeout=0.3))
        model = ResilientChatModel(
            providers=[make(server, wire) for wire, server in servers.items()],
            namespace=fresh(),
            # Raced probes are five seconds apart, which is right for users and long for a test.
            circuit=Circuit(failure_threshold=3, recovery_timeout=0.1, half_open_max_calls=1, probe="inline"),
            retry=Retry(base_delay=0.0),
            timeouts=Timeouts(connect=0.3, response=0.3, first_token=0.3, idle=0.3),
        )

        async def every_way(wire: str) -> None:
            """Ask six times in each way: this provider answers each of them."""
            assert {await ask(model, way) for _ in range(6) for way in WAYS} == {f"I am {wire}."}

        async def comes_back(wire: str) -> None:
            """Ask until this provider answers again; somebody answers each time."""
            until = time.monotonic() + 5.0
            while await ask(model, "ainvoke") != f"I am {wire}.":
                assert time.monotonic() < until
                await asyncio.sleep(0.02)

        with capture_decisions() as decisions:
            await every_way("openai")
            first.kill()
            await every_way("anthropic")
            second.always(Fault.status(503))
            await every_way("ollama")
            first.start()
            await comes_back("openai")
            await every_way("openai")
            second.always(Fault.ok())
            third.always(Fault.rate_limited("seconds", 1))
            first.always(Fault.hang())
            await every_way("anthropic")
            third.always(Fault.ok())
            second.always(Fault.reset())
            await every_way("ollama")
            first.always(Fault.ok())
            await comes_back("openai")
            await every_way("openai")
        assert len(decisions) >= 7 * 24
        assert {decision.outcome for decision in decisions} == {"answered"}
        assert all(server.count >= 24 for server in servers.values())
        assert first.count + second.count + third.count < 1.5 * len(decisions)

"""LangChain's own standard tests: a healthy first provider, and one that always fails before it, look the same from outside.

Tools and structured output are a later issue, so `has_tool_calling` and `has_structured_output` say False by themselves
(`bind_tools` and `with_structured_output` are the base class's), and the standard classes skip their tests of them.
"""

from collections.abc import Iterator
from itertools import count

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_resilient import Circuit, ResilientChatModel, Retry
from langchain_resilient.testing import Fault, FaultServer

NAMESPACES = count(1)
MODEL = "gpt-4.1"


def openai(url: str, model: str = MODEL) -> ChatOpenAI:
    """The real client, its own retries off."""
    return ChatOpenAI(model=model, base_url=url, api_key="test", max_retries=0, stream_usage=True)


class _Healthy:
    """One provider that answers."""

    chat_model_class = ResilientChatModel
    supports_json_mode = False
    model_override_value = "gpt-other"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _running(cls) -> Iterator[None]:
        with FaultServer() as server:
            cls.server = server
            yield

    @property
    def chat_model_params(self) -> dict:
        """A namespace of its own: what other tests did to a provider of the same name is unknown here."""
        return {
            "providers": [openai(self.server.base_url("openai"))],
            "namespace": f"standard-{next(NAMESPACES)}",
        }


class _AfterADeadOne(_Healthy):
    """A provider that always says 503, and then one that answers.

    The dead one's circuit never opens, so that every single test goes through a fallback.
    """

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _dead(cls) -> Iterator[None]:
        with FaultServer() as dead:
            dead.always(Fault.status(503))
            cls.dead = dead
            yield
            assert dead.count >= 1 or not issubclass(cls, ChatModelIntegrationTests)

    @property
    def chat_model_params(self) -> dict:
        """As above, with the dead one first."""
        never = Circuit(failure_threshold=10_000, failure_rate=1.0, minimum_calls=10_000)
        dead, healthy = openai(self.dead.base_url("openai")), openai(self.server.base_url("openai"), "gpt-4.1-mini")
        return {
            "providers": [dead, healthy],
            "circuit": never,
            "retry": Retry(base_delay=0.0),
            "namespace": f"standard-{next(NAMESPACES)}",
        }


class _WithoutOneKey:
    @property
    def standard_chat_model_params(self) -> dict:
        """LangChain's standard parameters except `api_key`: each provider has its own key, and one for all is refused."""
        return {"temperature": 0, "max_tokens": 100, "timeout": 60, "stop": [], "max_retries": 2}


class TestUnit(_WithoutOneKey, _Healthy, ChatModelUnitTests):
    """The standard unit tests with a healthy provider."""


class TestUnitAfterADeadOne(_WithoutOneKey, _AfterADeadOne, ChatModelUnitTests):
    """The standard unit tests with a dead provider before the healthy one."""


class TestIntegration(_Healthy, ChatModelIntegrationTests):
    """The standard integration tests with a healthy provider."""


class TestIntegrationAfterADeadOne(_AfterADeadOne, ChatModelIntegrationTests):
    """The standard integration tests with a dead provider before the healthy one."""

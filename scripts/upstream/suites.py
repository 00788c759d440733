"""Which upstream tests are run, with what, and what is known of the outcomes that change.

Rules of this file: data only. A version is raised here and nowhere else; after that, run with `rm -rf .upstream`, look at every change, and
set the least numbers anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from upstream.outcomes import Explained


@dataclass(frozen=True, eq=False)
class Suite:
    """Tests of one upstream package."""

    name: str
    version: str | None
    """Its tests are those of this version's sdist; None: the sdists hold none, and a checkout is named by the user."""
    paths: tuple[str, ...]
    venv: str
    """The environment in `.upstream`; deepagents has its own, as its tests want other versions."""
    least: Mapping[str, int]
    """Models wrapped in each mode, and failures injected: with less, a run proves nothing. About nine tenths of what was counted."""
    ignore: tuple[str, ...] = ()

    @property
    def distribution(self) -> str:
        """The stem of its sdist's name."""
        return self.name.replace("-", "_")


SUITES = (
    Suite(
        "langchain",
        "1.4.7",  # the newest that installs: 1.4.8 and later need a core whose floor on certifi no index here reaches
        ("tests/unit_tests/agents",),
        "agents",
        {"models wrapped": 430, "failures injected": 620},
    ),
    Suite(
        "langgraph-prebuilt",
        "1.1.2",
        ("tests/test_react_agent.py", "tests/test_react_agent_graph.py"),  # the others make no agent of a model
        "agents",
        {"models wrapped": 118, "failures injected": 115},
    ),
    Suite(
        "deepagents",
        None,
        ("tests/unit_tests",),
        "deepagents",
        {"models wrapped": 385, "failures injected": 430},
        ignore=("tests/unit_tests/smoke_tests",),  # snapshots of prompts, for the versions of one lock file
    ),
)

PINS = {
    "agents": ("langchain==1.4.7", "langgraph==1.2.22", "langgraph-prebuilt==1.1.2"),
    "deepagents": ("langgraph==1.2.22",),
}
"""What each environment is pinned to beside the suites' own packages; the rest is the newest that fits."""

OURS = ("pytest-xdist>=3.6", "pytest-socket>=0.6", "pytest-timeout>=2.3", "pytest-benchmark>=5.1")
"""What the options of our runs need, in case a suite's own list lacks it."""

NOT_NEEDED = frozenset({"build", "fastmcp", "pytest-watcher", "ruff", "twine", "ty"})
"""Of the suites' own test requirements: tools for people, and MCP, which other tests than these use."""

BOTH, FALLBACK = ("plain", "fallback"), ("fallback",)
HOOKS = "tests.unit_tests.agents.middleware.core.test_framework."
CALLS = "tests.unit_tests.agents.middleware.core.test_wrap_model_call."
RETRY = "tests.unit_tests.agents.middleware.implementations.test_model_retry::"

BLOCKS = (
    "a sync call made on an event loop's own thread: ours waits for the thread that makes it, which blockbuster sees; a real client would "
    "block on its socket, the fake model on nothing"
)
ALL_FAIL = (
    "the model under test fails too, so all have failed: AllProvidersFailedError says so, in place of the last one's own exception (README, "
    "'How to read a decision')"
)
LEFT_ALONE = "a provider that answered 429 is left alone for a while where there is another: the middleware's retries meet our refusal, not it"
NOT_ANTHROPIC = (
    "deepagents marks memory for Anthropic's cache only if the model is an instance of ChatAnthropic, which no wrapper is; an agent that needs "
    "the mark takes ResilientModelMiddleware"
)
OUR_FRAME = "a warning's file name: the plugin's own function stands between the test and the function that warns"

EXPLAINED = (
    *(
        Explained("langchain", f"{HOOKS}{test}", BOTH, BLOCKS)
        for test in (
            "TestAgentHooksCombined::test_execution_order[False]",
            "TestAgentMiddlewareHooks::test_hook_execution[after-False]",
            "TestAgentMiddlewareHooks::test_hook_execution[before-False]",
            "TestAgentMiddlewareHooks::test_hook_with_class_inheritance[after-False]",
            "TestAgentMiddlewareHooks::test_hook_with_class_inheritance[before-False]",
        )
    ),
    *(
        Explained("langchain", test, FALLBACK, ALL_FAIL)
        for test in (
            f"{CALLS}TestErrorHandling::test_selective_error_handling",
            f"{CALLS}TestRetryLogic::test_max_attempts_limit",
            f"{CALLS}TestRetryLogic::test_max_retries",
            f"{CALLS}TestRetryLogic::test_no_retry_propagates_error",
            f"{RETRY}test_model_retry_async_failing_model",
            f"{RETRY}test_model_retry_async_non_retryable_exception_reraises",
            f"{RETRY}test_model_retry_custom_exception_filter",
            f"{RETRY}test_model_retry_custom_failure_formatter",
            f"{RETRY}test_model_retry_failing_model_raises",
            f"{RETRY}test_model_retry_failing_model_returns_message",
            f"{RETRY}test_model_retry_non_retryable_exception_reraises",
            f"{RETRY}test_model_retry_reraises_non_retryable_model_error",
        )
    ),
    Explained(
        "langchain", f"{RETRY}test_model_retry_retries_retryable_errors[ModelRateLimitError]", FALLBACK, LEFT_ALONE
    ),
    Explained(
        "deepagents",
        "tests.unit_tests.middleware.test_memory_middleware::test_create_deep_agent_wires_cache_control_for_anthropic_memory",
        BOTH,
        NOT_ANTHROPIC,
    ),
    Explained(
        "deepagents",
        "tests.unit_tests.test_graph.TestModelNoneDeprecationWarning::test_model_none_emits_deprecation_warning",
        BOTH,
        OUR_FRAME,
    ),
    Explained(
        "deepagents",
        "tests.unit_tests.test_deep_agent_streaming.TestCreateDeepAgentAstreamV2::test_subagent_error_surfaces_failed_status",
        FALLBACK,
        ALL_FAIL,
    ),
)
"""By suite and test; a change that is not here fails the run."""

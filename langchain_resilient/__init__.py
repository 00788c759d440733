"""LLM applications that keep answering while providers fail.

The names below are resolved on first use (PEP 562): importing the package imports neither LangChain nor anything else that is heavy.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from langchain_resilient.admission import Admission as Admission
    from langchain_resilient.chat_model import ResilientChatModel as ResilientChatModel
    from langchain_resilient.config import Provider as Provider
    from langchain_resilient.engine.backoff import Retry as Retry
    from langchain_resilient.engine.circuit import Circuit as Circuit
    from langchain_resilient.engine.classify import ErrorKind as ErrorKind
    from langchain_resilient.engine.classify import classify_error as classify_error
    from langchain_resilient.engine.dead_letters.opening import DeadLetters as DeadLetters
    from langchain_resilient.engine.dead_letters.replaying import ReplayReport as ReplayReport
    from langchain_resilient.engine.errors import AllProvidersFailedError as AllProvidersFailedError
    from langchain_resilient.engine.errors import CircuitOpenError as CircuitOpenError
    from langchain_resilient.engine.errors import DeadlineExceededError as DeadlineExceededError
    from langchain_resilient.engine.errors import OverloadedError as OverloadedError
    from langchain_resilient.engine.errors import RateLimitedError as RateLimitedError
    from langchain_resilient.engine.errors import RefusedError as RefusedError
    from langchain_resilient.engine.errors import ResilienceError as ResilienceError
    from langchain_resilient.engine.errors import SettingsConflict as SettingsConflict
    from langchain_resilient.engine.errors import SettingsError as SettingsError
    from langchain_resilient.engine.errors import StreamInterruptedError as StreamInterruptedError
    from langchain_resilient.engine.hedge import Hedge as Hedge
    from langchain_resilient.engine.observe.capture import capture_decisions as capture_decisions
    from langchain_resilient.engine.policy import Price as Price
    from langchain_resilient.engine.policy import Timeouts as Timeouts
    from langchain_resilient.engine.quota import RateLimits as RateLimits
    from langchain_resilient.engine.retrying import exponential_backoff as exponential_backoff
    from langchain_resilient.keyed import KeyedRateLimiter as KeyedRateLimiter
    from langchain_resilient.middleware import ResilientModelMiddleware as ResilientModelMiddleware

__version__ = "0.1.0"

_HOMES = {
    "ResilientChatModel": "chat_model",
    "ResilientModelMiddleware": "middleware",
    "Provider": "config",
    "KeyedRateLimiter": "keyed",
    "Admission": "admission",
    "Circuit": "engine.circuit",
    "Retry": "engine.backoff",
    "Hedge": "engine.hedge",
    "Timeouts": "engine.policy",
    "Price": "engine.policy",
    "RateLimits": "engine.quota",
    "DeadLetters": "engine.dead_letters.opening",
    "ReplayReport": "engine.dead_letters.replaying",
    "ErrorKind": "engine.classify",
    "classify_error": "engine.classify",
    "exponential_backoff": "engine.retrying",
    "capture_decisions": "engine.observe.capture",
    "ResilienceError": "engine.errors",
    "RefusedError": "engine.errors",
    "CircuitOpenError": "engine.errors",
    "RateLimitedError": "engine.errors",
    "DeadlineExceededError": "engine.errors",
    "OverloadedError": "engine.errors",
    "AllProvidersFailedError": "engine.errors",
    "StreamInterruptedError": "engine.errors",
    "SettingsError": "engine.errors",
    "SettingsConflict": "engine.errors",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  # the names are strings, in a dict that says where each lives


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Fakes that we test with, shipped so that you can test with them: a provider over real HTTP, a scripted chat model, time.

Resolved on first use, as `FaultServer` needs the standard library only and `ScriptedChatModel` needs LangChain.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from langchain_resilient.testing.clock import FakeClock as FakeClock
    from langchain_resilient.testing.fault_server import Fault as Fault
    from langchain_resilient.testing.fault_server import FaultServer as FaultServer
    from langchain_resilient.testing.fault_server import Refuse as Refuse
    from langchain_resilient.testing.fault_server import Repeat as Repeat
    from langchain_resilient.testing.scripted import ScriptedChatModel as ScriptedChatModel

_HOMES = {
    "FakeClock": "clock",
    "Fault": "fault_server",
    "FaultServer": "fault_server",
    "Refuse": "fault_server",
    "Repeat": "fault_server",
    "ScriptedChatModel": "scripted",
}
__all__ = list(_HOMES)  # the names, with the file each lives in


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

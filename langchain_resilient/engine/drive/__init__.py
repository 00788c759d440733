"""The two drivers: what performs a plan's effects, for sync and for async callers.

Rules of this file: a driver decides nothing; it performs an effect and sends the reply back. A provider's failure is a reply; anything
else that is raised (a cancelled task, Ctrl-C, a closed generator) is thrown into the plan, which settles what is open.

Sync calls run in the caller's thread where the client itself keeps time; otherwise, and for streams and races, in a daemon thread, because
a blocked socket can't be interrupted. A thread whose call outlives its limit is abandoned; at most 64 may be, then attempts fail as
`local` rather than pile up.
"""

from langchain_resilient.engine.drive.awaiting import AsyncHands, arun, astream, drain
from langchain_resilient.engine.drive.blocking import Hands, run, stream

__all__ = ["AsyncHands", "Hands", "arun", "astream", "drain", "run", "stream"]

"""One Router under one fault, in a process of its own: `python -m routers.cell SPEC`; see `outages.cell`."""

from __future__ import annotations

from outages.cell import Play, perform

from routers.contenders import SYSTEMS
from routers.faults import faults
from routers.stage import RemoteStage

if __name__ == "__main__":
    perform(Play(SYSTEMS, faults, RemoteStage))

"""Asks dead letters again, for as long as it runs: `python replay.py`, one or several, beside the workers.

Rules of this file: the engine decides when somebody may be asked (circuits, limits) and keeps each answer by its job's id; app.py looks there.
Each delivery asks every provider at most once, a letter is delivered at most five times, and one that is killed meanwhile is delivered again.
"""

import asyncio

from model import extraction, model

if __name__ == "__main__":
    with asyncio.Runner() as runner:
        runner.run(model.areplay(through=extraction(0), wait=True))

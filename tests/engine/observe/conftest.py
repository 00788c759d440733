"""Places for letters are counted in threads: a busy machine gets the time that they need.

Rules of this file: who tests what becomes of a place that hangs says so itself.
"""

import pytest

from langchain_resilient.engine.observe import levels


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that answers is never taken for one that hangs."""
    monkeypatch.setattr(levels, "PATIENCE", 20.0)

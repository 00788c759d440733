"""What the courier's owner is told may raise."""

import pytest

from tests.engine.store.redis.post.office import Box, incr, key


def test_a_callback_that_raises_breaks_nothing(box: Box, made, caplog: pytest.LogCaptureFixture):
    """What adopt() raises is logged, and the asker gets the reply."""
    courier, name = made(box, adopt=lambda *_: 1 / 0), key()
    assert courier.ask(incr(name)).result() == 1
    assert "ZeroDivisionError" in caplog.text

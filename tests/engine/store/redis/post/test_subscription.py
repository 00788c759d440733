"""What others publish is heard, and a gap is told."""

import pytest

from langchain_resilient.engine.store.redis.post.courier import Operation
from tests.engine.store.redis.post.office import Box, until


@pytest.mark.e2e
def test_what_is_published_is_heard_and_a_gap_is_told(hurt: Box, made):
    """Messages arrive in order; when the subscription breaks `gone` is told, when it is back `lost`, and then messages again."""
    heard: list[bytes] = []
    courier = made(hurt.start(), channel="news", heard=heard.append)
    courier.check()
    until(lambda: courier.ask(Operation("publish", (), ("news", "ready"))).result() == 1)
    for number in range(20):
        courier.tell(Operation("publish", (), ("news", number)))
    until(lambda: b"19" in heard)
    assert [each for each in heard if each != b"ready"] == [b"%d" % number for number in range(20)]
    heard.clear()
    hurt.kill()
    hurt.start()
    until(lambda: courier.up and courier.ask(Operation("publish", (), ("news", "again"))).result() == 1)
    until(lambda: b"again" in heard)
    assert [each for each in heard if each != b"again"] == [b"gone", b"lost"]

"""What a plan may ask of its driver."""

import asyncio

from langchain_resilient.engine.effects import Later


class Soon(Later):
    """A reply that comes a moment later."""

    def result(self):
        """At once, in a thread."""
        return 7

    def __await__(self):
        """At the loop's next turn."""
        yield
        return 7


def test_a_later_reply_is_read_alike_in_both_colours():
    """What is made of a reply is made when it has come, once, for whoever waits: thread or task; and may be read on."""
    read = []

    def doubled(reply):
        read.append(reply)
        return 2 * reply

    async def wait():
        return await Soon().then(doubled).then(str)

    later = Soon().then(doubled)
    assert read == []
    assert later.result() == 14
    assert asyncio.run(wait()) == "14"
    assert read == [7, 7]

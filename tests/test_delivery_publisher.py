"""The publisher's answers to subscriptions, and their end."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from daemon.delivery.publisher import Publisher
from daemon.host.access import Access


def subscribed(context: "zmq.Context[zmq.Socket[bytes]]", address: str) -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.SUB)
    socket.subscribe(b"")
    socket.connect(address)
    return socket


@pytest.mark.parametrize("watched", [True, False])
def test_a_subscription_is_answered_until_the_publisher_is_no_longer_watched(
    tmp_path: Path, watched: bool
) -> None:
    address = f"ipc://{tmp_path}/publish"

    async def answered_twice() -> bool:
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        with (
            closing(Access()) as access,
            closing(Publisher(address, access)) as publisher,
            zmq.Context() as context,
        ):
            publisher.watch(loop, answered.set)
            with subscribed(context, address):
                await asyncio.wait_for(answered.wait(), 10)
                answered.clear()
                # Its answer is due a tenth of a second after the first one: the daemon may stop meanwhile.
                with subscribed(context, address):
                    if not watched:
                        publisher.unwatch()
                    try:
                        await asyncio.wait_for(answered.wait(), 10 if watched else 0.5)
                    except TimeoutError:
                        return False
                    return True

    assert asyncio.run(answered_twice()) == watched

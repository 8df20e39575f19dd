"""Channels through pika, whose own channel is real here and speaks to a server of the test's."""

import asyncio

import pytest

from pwf_core.errors import BrokerUnavailableError
from pwf_rabbit.ledger import Ack
from pwf_rabbit.link import Sent

pytest.importorskip("pika")

from pika import callback, channel, exceptions, frame, spec

from pwf_rabbit.link_pika import _PikaChannel

ACKS = [Ack(1, multiple=False)]


class Server:
    """What pika's channel wants of a connection; the server answers when the test says so."""

    publisher_confirms = basic_nack = True

    def __init__(self):
        self.callbacks = callback.CallbackManager()
        self.sent = []

    def channel(self, on_open_callback):
        self.theirs = channel.Channel(self, 1, on_open_callback)
        self.theirs.open()
        return self.theirs

    def _send_method(self, _number, method, _content=None):
        self.sent.append(type(method))

    def _on_channel_cleanup(self, _channel):
        pass

    def say(self, method):
        self.callbacks.process(1, type(method), self, frame.Method(1, method))


async def opened(server, *, publishes=False):
    ours = _PikaChannel("mq:5672")
    opening = asyncio.create_task(ours.open(server, publishes=publishes))
    await asyncio.sleep(0)
    server.say(spec.Channel.OpenOk())
    if publishes:
        await asyncio.sleep(0)
        server.say(spec.Confirm.SelectOk())
    await opening
    return ours


async def closing(server, *, publishes=False):
    """Return a channel that pika is closing, as it does for all when their connection is closed."""
    ours = await opened(server, publishes=publishes)
    server.theirs.close()
    server.sent.clear()
    return ours


class TestChannel:
    """A server that is gone without a word never says that a channel is closed."""

    def test_is_not_open_once_its_connection_is_being_closed(self):
        async def main():
            ours = await closing(Server())
            return ours.is_open, ours.is_consuming

        assert asyncio.run(main()) == (False, False)

    def test_drops_acks_once_its_connection_is_being_closed(self):
        """They are of an epoch that is over."""

        async def main():
            server = Server()
            await (await closing(server)).ack(ACKS)
            return server.sent

        assert asyncio.run(main()) == []

    def test_knows_nothing_of_what_is_published_once_its_connection_is_being_closed(self):
        async def main():
            async with asyncio.timeout(10):
                return await (await closing(Server(), publishes=True)).publish("queue", b"body", {})

        assert asyncio.run(main()) is Sent.UNKNOWN

    def test_is_closed_at_once_if_its_connection_is_being_closed(self):
        async def main():
            server = Server()
            await (await closing(server)).close()
            return server.sent

        assert asyncio.run(main()) == []

    def test_says_in_our_words_that_it_cannot_ack(self):
        async def main():
            server = Server()
            ours = await opened(server)
            server.theirs.basic_ack = refuse
            with pytest.raises(BrokerUnavailableError, match="mq:5672 cannot be used now"):
                await ours.ack(ACKS)

        asyncio.run(main())

    def test_is_given_up_once_it_cannot_publish(self):
        """The server has not counted that message, so its confirms would be taken for others."""

        async def main():
            server = Server()
            ours = await opened(server, publishes=True)
            before = ours.publish("queue", b"body", {})
            server.theirs.basic_publish = refuse
            after = ours.publish("queue", b"body", {})
            async with asyncio.timeout(10):
                return (await before, await after), ours.is_open, server.sent[-1]

        unknown = (Sent.UNKNOWN, Sent.UNKNOWN)

        assert asyncio.run(main()) == (unknown, False, spec.Channel.Close)

    def test_that_is_given_up_while_it_opens_is_closed(self):
        """Nobody else has it, so it would stay for as long as its connection."""

        async def main():
            server = Server()
            opening = asyncio.create_task(_PikaChannel("mq:5672").open(server, publishes=False))
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            server.say(spec.Channel.OpenOk())  # late
            server.say(spec.Channel.CloseOk())
            return server.sent, server.theirs.is_closed

        sent, is_closed = asyncio.run(main())

        assert sent == [spec.Channel.Open, spec.Channel.Close]
        assert is_closed


def refuse(*_, **__):
    raise exceptions.ChannelWrongStateError("Channel is closing.")

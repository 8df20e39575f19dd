"""A line of the Redis adapter: replies go to who asked, or the line is given up."""

import asyncio
import socket
import types
from contextlib import suppress

import pytest

pytest.importorskip("hiredis")
from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError
from redis.exceptions import ConnectionError as DriverConnectionError

from pwf_redis.lines import BlockingLine, Line
from pwf_redis.links import Links


class _Transport(asyncio.Transport):
    """The other end, which says what a test has it say."""

    def __init__(self):
        super().__init__()
        self.sent = b""
        self.aborted = 0

    def set_protocol(self, protocol):
        self.protocol = protocol

    def write(self, data):
        self.sent += data

    def is_closing(self):
        return self.aborted > 0

    def abort(self):
        self.aborted += 1
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class _Connection:
    """The driver's, as far as a line uses it."""

    def __init__(self):
        self.is_connected = False
        self.stays = True
        self.transport = _Transport()

    @property
    def _writer(self):
        return self

    async def connect(self):
        self.is_connected = self.stays

    async def disconnect(self, nowait):
        self.is_connected = False


async def opened():
    connection = _Connection()
    line = Line(connection)
    await line.open(asyncio.get_running_loop().time() + 5)
    return line, connection.transport


async def asked(line, *commands, seconds=5.0):
    """Ask, in a task of its own that waits for the answer now."""
    deadline = asyncio.get_running_loop().time() + seconds
    task = asyncio.create_task(line.ask(commands, deadline))
    await asyncio.sleep(0)
    return task


class TestLine:
    def test_replies_come_in_pieces(self):
        async def main():
            line, transport = await opened()
            answer = await asked(line, ("GET", "a"), ("GET", b"b"))
            assert transport.sent == b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n"
            for piece in (b"$2\r\nx", b"y\r\n$-1", b"\r\n"):
                assert not answer.done()
                line.data_received(piece)
            assert await answer == [b"xy", None]

        asyncio.run(main())

    def test_one_round_trip_after_the_other(self):
        async def main():
            line, _ = await opened()
            for number in range(3):
                answer = await asked(line, ("PING",))
                line.data_received(b":%d\r\n" % number)
                assert await answer == [number]

        asyncio.run(main())

    def test_an_error_is_a_reply(self):
        async def main():
            line, transport = await opened()
            answer = await asked(line, ("EVALSHA", "0"), ("PING",))
            line.data_received(b"-NOSCRIPT No matching script.\r\n+PONG\r\n")
            error, pong = await answer
            assert isinstance(error, NoScriptError)
            assert pong == b"PONG"
            assert not transport.aborted

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("said", "error"),
        [
            (b"-LOADING Redis is loading the dataset in memory\r\n", BusyLoadingError),
            (b"HTTP/1.1 400 Bad Request\r\n", InvalidResponse),
        ],
    )
    def test_a_server_that_does_not_serve(self, said, error):
        async def main():
            line, transport = await opened()
            answer = await asked(line, ("PING",), ("PING",))
            line.data_received(said)
            with pytest.raises(error):
                await answer
            assert transport.aborted

        asyncio.run(main())

    @pytest.mark.parametrize(
        "said",
        [
            [b":1\r\n:2\r\n"],
            [b":1\r\n:", b"2\r\n"],
            [b":1\r\n", b":"],
        ],
    )
    def test_what_nobody_asked_for_answers_nobody(self, said):
        """It would be taken for the next answer, and each answer for the one after it."""

        async def main():
            line, transport = await opened()
            answer = await asked(line, ("PING",))
            for piece in said:
                line.data_received(piece)
            with suppress(DriverConnectionError):
                assert await answer == [1]
            assert transport.aborted
            with pytest.raises(DriverConnectionError):
                await (await asked(line, ("PING",)))

        asyncio.run(main())

    @pytest.mark.parametrize("why", [None, ConnectionResetError("reset by peer")])
    def test_a_connection_that_is_lost(self, why):
        async def main():
            line, _ = await opened()
            answer = await asked(line, ("PING",))
            line.connection_lost(why)
            with pytest.raises(DriverConnectionError, match=str(why or "closed by server")):
                await answer

        asyncio.run(main())

    def test_an_answer_that_takes_too_long(self):
        async def main():
            line, transport = await opened()
            answer = await asked(line, ("PING",), seconds=0.01)
            with pytest.raises(TimeoutError):
                await answer
            assert transport.aborted

        asyncio.run(main())

    def test_an_answer_that_nobody_waits_for_any_more(self):
        async def main():
            line, transport = await opened()
            answer = await asked(line, ("PING",))
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            line.data_received(b"+PONG\r\n")
            assert transport.aborted  # else it would answer the next one

        asyncio.run(main())

    def test_closed_it_is_closed_for_good(self):
        """What the transport says afterwards concerns nobody; and it is ended once."""

        async def main():
            line, transport = await opened()
            answer = await asked(line, ("PING",))
            await line.close()
            line.connection_lost(None)
            with pytest.raises(DriverConnectionError):
                await answer
            assert not line.is_open
            assert transport.aborted == 1

        asyncio.run(main())

    def test_closed_while_it_opens_it_is_not_open(self):
        async def main():
            connection = _Connection()
            connection.stays = False
            line = Line(connection)
            await line.open(asyncio.get_running_loop().time() + 5)
            assert not line.is_open
            with pytest.raises(DriverConnectionError):
                await (await asked(line, ("PING",)))

        asyncio.run(main())


class _Parting(_Transport):
    """A server that answers and hangs up, before anybody has read the answer."""

    def write(self, data):
        def part():
            self.protocol.data_received(b"+PONG\r\n")
            self.protocol.connection_lost(None)

        asyncio.get_running_loop().call_soon(part)


def test_what_is_lost_after_its_answer_is_closed():
    async def main():
        connection = _Connection()
        connection.transport = _Parting()
        target = types.SimpleNamespace(timeout=5, where="here", connection=lambda: connection)
        assert await Links(target).ask([("PING",)]) == [b"PONG"]
        assert not connection.is_connected

    asyncio.run(main())


class _BlockingConnection:
    """The driver's, as far as a line for threads uses it: one end of a pair of sockets."""

    def __init__(self):
        self._sock = None

    def connect(self):
        self._sock, self.other = socket.socketpair()
        self._sock.settimeout(0.2)

    def disconnect(self):
        self._sock.close()
        self._sock = None


@pytest.fixture
def blocking():
    """Give a line that is open, and what is at its other end."""
    line = BlockingLine(_BlockingConnection())
    line.open()
    with line.connection.other as other:
        yield line, other
        if line.is_open:
            line.close()


class TestBlockingLine:
    def test_one_round_trip_after_the_other(self, blocking):
        line, other = blocking
        for number in range(3):
            other.sendall(b":%d\r\n$2\r\nxy\r\n" % number)
            assert line.ask([("PING",), ("GET", "a")]) == [number, b"xy"]
        assert other.recv(16) == b"*1\r\n$4\r\nPING\r\n*2"

    def test_an_error_is_a_reply(self, blocking):
        line, other = blocking
        other.sendall(b"-NOSCRIPT No matching script.\r\n+PONG\r\n")
        error, pong = line.ask([("EVALSHA", "0"), ("PING",)])
        assert isinstance(error, NoScriptError)
        assert pong == b"PONG"

    @pytest.mark.parametrize(
        ("said", "error"),
        [
            (b"-LOADING Redis is loading the dataset in memory\r\n", BusyLoadingError),
            (b"HTTP/1.1 400 Bad Request\r\n", InvalidResponse),
            (b"+PONG\r\n+PONG\r\n", DriverConnectionError),
        ],
    )
    def test_a_server_that_does_not_serve(self, blocking, said, error):
        line, other = blocking
        other.sendall(said)
        with pytest.raises(error):
            line.ask([("PING",)])

    def test_a_connection_that_is_lost(self, blocking):
        line, other = blocking
        other.close()
        with pytest.raises(DriverConnectionError):
            line.ask([("PING",)])

    def test_a_connection_that_another_thread_ends(self, blocking):
        line, _ = blocking
        line.hang_up()
        with pytest.raises(DriverConnectionError):
            line.ask([("PING",)])

    def test_an_answer_that_takes_too_long(self, blocking):
        line, _ = blocking
        with pytest.raises(TimeoutError):
            line.ask([("PING",)])

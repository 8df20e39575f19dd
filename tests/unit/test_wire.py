"""The broker's message: what is read, and what is refused, whatever the bytes."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwf_core.commands import Message
from pwf_core.errors import CodecError
from pwf_core.ids import CallId, RunId
from pwf_core.wire import decode_messages, encode_messages

pack = msgspec.msgpack.encode
RUN, CALL = RunId("0" * 32), CallId("f" * 32)
ids = st.text("0123456789abcdef", min_size=32, max_size=32)
messages = st.builds(
    Message,
    ids.map(RunId),
    ids.map(CallId),
    st.integers(0, 2**53),
    st.sampled_from(["a.b", "users.größe 🎉", f"{'x' * 100}.{'y' * 100}"]),
)


@given(st.lists(messages, min_size=1, max_size=40))
def test_messages_make_the_round_trip(sent):
    """What was encoded is decoded, in order."""
    assert sent == decode_messages(encode_messages(sent))


def test_format_never_changes():
    """Messages of older versions wait in queues: these bytes are for ever."""
    body = bytes.fromhex("920194d920") + RUN.encode() + b"\xd9\x20" + CALL.encode() + b"\x03\xa3a.b"

    assert body == encode_messages([Message(RUN, CALL, 3, "a.b")])
    assert [Message(RUN, CALL, 3, "a.b")] == decode_messages(body)


def test_later_fields_are_ignored():
    """What a newer version appends to an entry does not disturb this one."""
    assert [Message(RUN, CALL, 3, "a.b")] == decode_messages(
        pack([1, [RUN, CALL, 3, "a.b", "new"]])
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        pack({}),
        pack([]),
        pack([1]),
        pack(["1", [RUN, CALL, 0, "a.b"]]),
        pack([2, [RUN, CALL, 0, "a.b"]]),
        pack([1, [RUN, CALL, 0]]),
        pack([1, [RUN, CALL, -1, "a.b"]]),
        pack([1, [RUN, CALL, 2**53 + 1, "a.b"]]),
        pack([1, [RUN, CALL, "0", "a.b"]]),
        pack([1, ["x" * 32, CALL, 0, "a.b"]]),
        pack([1, [RUN.upper() + "A", CALL, 0, "a.b"]]),
        pack([1, [f"{RUN}\n", CALL, 0, "a.b"]]),
        pack([1, [RUN, "*", 0, "a.b"]]),
        pack([1, [RUN, CALL, 0, "nodot"]]),
        pack([1, [RUN, CALL, 0, "a.b.c"]]),
        pack([1, [RUN, CALL, 0, "a\n.b"]]),
        pack([1, [RUN, CALL, 0, f"{'x' * 200}.y"]]),
        b"\x91" * 100_000,
    ],
)
def test_anything_else_is_refused(body):
    """What is not one of ours is one kind of error."""
    with pytest.raises(CodecError):
        decode_messages(body)


@given(st.binary(max_size=200))
def test_garbage_is_refused(body):
    """No bytes raise anything but a CodecError."""
    with suppress(CodecError):
        decode_messages(body)


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_damaged_messages_are_refused_or_read(sent, data):
    """A message with a byte changed or cut off is read as something, or refused; no more."""
    body = bytearray(encode_messages(sent))
    position = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        body[position] = data.draw(st.integers(0, 255))
    else:
        del body[position:]
    with suppress(CodecError):
        decode_messages(bytes(body))

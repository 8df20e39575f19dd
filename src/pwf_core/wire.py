"""What a broker's message looks like: a version, and the names of the calls that travel in it.

    msgpack array [1, [run_id, call_id, generation, address], ...]

Bodies stay in the store. Fields that a later version appends to an entry are ignored here; another
version number is an error, and the message is set aside, not dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pwf_core.commands import Message
from pwf_core.errors import CodecError, DefinitionError
from pwf_core.ids import CallId, RunId
from pwf_core.names import check_address

__all__ = ["VERSION", "decode_messages", "encode_messages"]

VERSION = 1

_Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]  # "$" would let a line break through
_Generation = Annotated[int, Meta(ge=0, le=2**53)]


class _Entry(msgspec.Struct, array_like=True):
    run_id: _Id
    call_id: _Id
    generation: _Generation
    address: Annotated[str, Meta(min_length=3, max_length=201)]


_outer = msgspec.msgpack.Decoder(list[msgspec.Raw])
_version = msgspec.msgpack.Decoder(int)
_entry = msgspec.msgpack.Decoder(_Entry)
_encoder = msgspec.msgpack.Encoder()


def encode_messages(messages: Sequence[Message]) -> bytes:
    """Return *messages* as the body of one broker message."""
    entries: list[Any] = [VERSION]
    entries.extend((one.run_id, one.call_id, one.generation, one.address) for one in messages)
    return _encoder.encode(entries)


def decode_messages(body: bytes) -> list[Message]:
    """Return the messages in *body*.

    Raises:
        CodecError: Whatever is wrong with it; nothing else is ever raised.
    """
    try:
        head, *rest = _outer.decode(body)
        version = _version.decode(head)
        if version != VERSION:
            raise CodecError("Broker message", f"version {version} is not known, only {VERSION}")
        entries = [_entry.decode(one) for one in rest]
        if not entries:
            raise CodecError("Broker message", "names no call")
        for one in entries:
            check_address(one.address)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if isinstance(error, CodecError) and not isinstance(error, DefinitionError):
            raise
        raise CodecError("Broker message", str(error)) from error
    return [
        Message(RunId(one.run_id), CallId(one.call_id), one.generation, one.address)
        for one in entries
    ]

"""What a broker's message looks like: a version, and the names of the calls that travel in it.

    msgpack array [1, [run_id, call_id, generation, address], ...]
    msgpack array [2, signature, body]      body: one of the above, as bytes; see `signing`

Bodies of calls stay in the store. Fields that a later version appends to an entry are ignored here;
another version number is an error, and the message is set aside, not dropped. Whoever has keys reads
only what is signed, and nobody else reads that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pwf_core.commands import Message
from pwf_core.errors import CodecError, DefinitionError
from pwf_core.ids import CallId, RunId
from pwf_core.names import check_address, service_of
from pwf_core.signing import Signer
from pwf_core.values import DECODE_ERRORS

__all__ = ["SIGNED", "VERSION", "decode_messages", "encode_messages"]

VERSION = 1
SIGNED = 2

_Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]  # "$" would let a line break through
_RunId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}(-[0-9]{1,4})?\Z")]  # see ids.placed
_Generation = Annotated[int, Meta(ge=0, le=2**53)]


class _Entry(msgspec.Struct, array_like=True):
    run_id: _RunId
    call_id: _Id
    generation: _Generation
    address: Annotated[str, Meta(min_length=3, max_length=201)]


_outer = msgspec.msgpack.Decoder(list[msgspec.Raw])
_version = msgspec.msgpack.Decoder(int)
_entry = msgspec.msgpack.Decoder(_Entry)
_bytes = msgspec.msgpack.Decoder(bytes)
_encoder = msgspec.msgpack.Encoder()


def encode_messages(messages: Sequence[Message], signer: Signer | None = None) -> bytes:
    """Return *messages* as the body of one broker message.

    Args:
        messages: All for one service.
        signer: Signs it for the queue of that service.
    """
    entries: list[Any] = [VERSION]
    entries.extend((one.run_id, one.call_id, one.generation, one.address) for one in messages)
    body = _encoder.encode(entries)
    if signer is None:
        return body
    signature = signer.sign(body, service_of(messages[0].address))
    return _encoder.encode((SIGNED, signature, body))


def decode_messages(body: bytes, signer: Signer | None = None, service: str = "") -> list[Message]:
    """Return the messages in *body*.

    Args:
        body: As it came.
        signer: Must find it genuine; None where messages are not signed.
        service: In whose queue it was found.

    Raises:
        CodecError: Whatever is wrong with it; nothing else is ever raised.
    """
    try:
        version, rest = _split(body)
        if signer is not None or version == SIGNED:
            version, rest = _split(_verified(version, rest, signer, service))
        if version != VERSION:
            raise CodecError("Broker message", f"version {version} is not known, only {VERSION}")
        entries = [_entry.decode(one) for one in rest]
        if not entries:
            raise CodecError("Broker message", "names no call")
        for one in entries:
            check_address(one.address)
    except DECODE_ERRORS as error:
        if isinstance(error, CodecError) and not isinstance(error, DefinitionError):
            raise
        raise CodecError("Broker message", str(error)) from error
    return [
        Message(RunId(one.run_id), CallId(one.call_id), one.generation, one.address)
        for one in entries
    ]


def _split(body: bytes) -> tuple[int, list[msgspec.Raw]]:
    head, *rest = _outer.decode(body)
    return _version.decode(head), rest


def _verified(
    version: int,
    rest: Sequence[msgspec.Raw],
    signer: Signer | None,
    service: str,
) -> bytes:
    """Return the body inside a signed one."""
    if signer is None:
        raise CodecError(
            "Broker message",
            "it is signed, and there are no keys here. Pass signing_keys to connect, or set "
            "PWF_SIGNING_KEYS, to what its sender has",
        )
    if version != SIGNED:
        raise CodecError(
            "Broker message",
            "it is not signed, and there are keys here. It is a stranger's, or its sender lacks "
            "signing_keys (PWF_SIGNING_KEYS)",
        )
    signature, body = (_bytes.decode(one) for one in rest)
    if not signer.is_genuine(body, service, signature):
        raise CodecError(
            "Broker message",
            f"none of the keys here has signed it for service {service!r}. It is forged, changed "
            "or moved, or its sender signs with a key that is missing here",
        )
    return body

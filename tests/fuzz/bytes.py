"""Makes the bytes: by chance, by damage to what is right, and by malice."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import msgspec

from pwf_core.commands import Message
from pwf_core.ids import CallId, RunId
from pwf_core.signing import Signer
from pwf_core.wire import encode_messages

__all__ = ["SERVICE", "SIGNER", "bodies"]

SERVICE = "work"
SIGNER = Signer("live", (b"sixteen bytes or", b"more is what a key needs"))

_LARGEST = 1024 * 1024
_VALUES: list[object] = [
    None, 0, -1, 2**63, 1.5, float("nan"), float("-inf"), "", "é\x00\U0001f600", b"\x00\xff", [], {},
    [[[1], {"a": [2]}]], {"a": 1, "b": {"c": None}}, {1: 2, "x": "y"}, "x" * 300, list(range(100)),
]  # fmt: skip


def bodies(seed: int) -> Iterator[bytes]:
    """Yield bytes without end, the same for the same seed; every 5,000th is huge."""
    chance = random.Random(seed)
    right = [msgspec.msgpack.encode(value) for value in _VALUES]
    for number in (1, 2, 40):
        messages = _messages(chance, number)
        right += [encode_messages(messages), encode_messages(messages, SIGNER)]
    bombs = list(_bombs())
    number = 0
    while True:
        number += 1
        if number % 5_000 == 0:
            yield chance.choice(bombs)
        elif number % 3 == 0:
            yield chance.randbytes(chance.randint(0, 64))
        else:
            yield _damaged(chance, bytearray(chance.choice(right)), right)


def _messages(chance: random.Random, number: int) -> list[Message]:
    def an_id() -> str:
        return f"{chance.getrandbits(128):032x}"

    return [
        Message(RunId(an_id()), CallId(an_id()), generation, f"{SERVICE}.task")
        for generation in range(number)
    ]


def _damaged(chance: random.Random, body: bytearray, right: list[bytes]) -> bytes:
    """Flip, cut, insert, double; a few times."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(6):
            case 0 if at < len(body):
                body[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(body):
                body[at] = chance.choice(
                    b"\x80\x90\xa0\xc0\xc1\xc6\xc9\xca\xcb\xcf\xd9\xdb\xdd\xdf\xff"
                )
            case 2:
                del body[at:]
            case 3:
                body[at:at] = chance.randbytes(chance.randint(1, 8))
            case 4:
                body[at:at] = chance.choice(right)
            case _:
                body += body[: chance.randint(0, 64)]
    return bytes(body)


def _bombs() -> Iterator[bytes]:
    """Yield what is small and wants to be large, or large and wants to be slow."""
    for depth in (100, 1_000, 100_000, _LARGEST):
        yield b"\x91" * depth + b"\xc0"  # lists in lists
        yield b"\x81\xa0" * (depth // 2) + b"\xc0"  # maps in maps
        yield b"\x92\x90" * (depth // 2) + b"\xc0"
    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
        yield head + struct.pack(">I", 2**32 - 1)  # four billion of something, and then nothing
        yield head + struct.pack(">I", 2**31) + b"\x00" * 1_000
    yield b"\xdf" + struct.pack(">I", 100_000) + b"\xa1a\x01" * 100_000  # one key, ever again
    yield (
        b"\xdf"
        + struct.pack(">I", 1_000)
        + b"".join(b"\xcb" + struct.pack(">d", float("nan")) + b"\x01" for _ in range(1_000))
    )
    yield b"\x81\x91\x90\x01"  # keys that are lists
    yield b"\x81\x81\x01\x02\x01"  # keys that are maps
    yield b"\xa3\xed\xa0\x80"  # a lone surrogate
    yield b"\xd6\xff\xff\xff\xff\xff"  # a time stamp, the last there is
    yield b"\xc7\x0c\xff" + b"\xff" * 12
    yield b"\x00" * _LARGEST
    yield b"\xdb" + struct.pack(">I", _LARGEST) + b"\xff" * _LARGEST
    yield b"\xdd" + struct.pack(">I", _LARGEST) + b"\xc0" * _LARGEST

"""Failures of gathered members, in the form in which they stand among results: a msgpack extension."""

from __future__ import annotations

import struct

__all__ = ["LONGEST", "encode", "reason_in"]

LONGEST = 4096  # bytes of a reason: the end of a traceback, and not all of its frames
_HEADER = struct.Struct(">BIb")
_EXT32, _TYPE = 0xC9, 80


def encode(reason: str) -> bytes:
    """Return what stands for a member that failed for *reason*."""
    text = reason.encode(errors="backslashreplace")[-LONGEST:]
    return _HEADER.pack(_EXT32, len(text), _TYPE) + text


def reason_in(result: bytes | None) -> str | None:
    """Return why a member failed; None if *result* is a value, or nothing."""
    if result is None or len(result) < _HEADER.size:
        return None
    if result[0] != _EXT32 or result[5] != _TYPE:
        return None
    return result[_HEADER.size :].decode(errors="ignore")

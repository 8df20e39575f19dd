"""Ids. Those of follow-up calls are a pure function of the parent and the decision.

The same decision gives the same ids on any machine and in any retry, without a round trip. The
ordinal counts the directives of one kind to one address, so that adding a publish to one task
moves no id of another.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NewType

__all__ = ["CallId", "ClaimId", "RunId", "derive_call_id", "fraction", "root_call_id"]

RunId = NewType("RunId", str)
CallId = NewType("CallId", str)
ClaimId = NewType("ClaimId", str)

_BYTES = 16  # 128 bits: a collision among 10^15 calls has a chance of about 10^-9


def derive_call_id(parent: str, kind: str, address: str, ordinal: int) -> CallId:
    """Return the id of the call that *parent*'s decision makes, as 32 hex digits.

    Args:
        parent: Call id of the deciding call (for a member of a gather: the gather's id).
        kind: "publish", "join", "gather" or "member".
        address: The task that will run.
        ordinal: 0 for the first directive of that kind to that address.
    """
    # Neither a kind nor an ordinal has a NUL, and addresses refuse it: no two inputs collide.
    data = f"{parent}\0{kind}\0{address}\0{ordinal}".encode()
    return CallId(blake2b(data, digest_size=_BYTES).hexdigest())


def root_call_id(run_id: RunId, address: str) -> CallId:
    """Return the id of a run's first call."""
    return derive_call_id(run_id, "root", address, 0)


def fraction(*parts: str) -> float:
    """Return a number in [0, 1) drawn by hashing *parts*: chance without a random generator."""
    digest = blake2b("\0".join(parts).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)

"""Ids. Those of follow-up calls are a pure function of the parent and the decision.

The same decision gives the same ids on any machine and in any retry, without a round trip. The
ordinal counts the directives of one kind to one address, so that adding a publish to one task
moves no id of another.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NewType

__all__ = [
    "CallId",
    "ClaimId",
    "RunId",
    "claim_id_of",
    "derive_call_id",
    "fraction",
    "home_of",
    "place_in",
    "placed",
    "root_call_id",
    "session_of",
    "worker_of",
]

RunId = NewType("RunId", str)
CallId = NewType("CallId", str)
ClaimId = NewType("ClaimId", str)

_PLACED = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,3})")
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


def home_of(text: str, partitions: int) -> int:
    """Return which of so many partitions a key's run is in; any text, in fact."""
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def placed(run_id: RunId, partition: int) -> RunId:
    """Return *run_id*, of 32 hex digits, so that it says in which partition the run is."""
    found = _PLACED.fullmatch(run_id)
    return RunId(f"{found[1] if found else run_id}-{partition}")


def place_in(run_id: RunId) -> int | None:
    """Return the partition that `placed` has put into a run's id; None if it says none."""
    found = _PLACED.fullmatch(run_id)
    return int(found[2]) if found else None


def claim_id_of(worker: str, lane: int, number: int) -> ClaimId:
    """Return the id under which a worker claims calls in one of its exchanges.

    Args:
        worker: Its name; never used before.
        lane: Which of the exchanges that it may have under way at a time.
        number: Never used before by this worker.
    """
    return ClaimId(f"{worker}.{lane}:{number}")


def session_of(claim_id: ClaimId) -> str:
    """Return whose exchanges come one after the other: a lane of a worker."""
    return claim_id.partition(":")[0]


def worker_of(claim_id: ClaimId) -> str:
    """Return the worker that claims."""
    return session_of(claim_id).partition(".")[0]


def fraction(*parts: str) -> float:
    """Return a number in [0, 1) drawn by hashing *parts*: chance without a random generator."""
    digest = blake2b("\0".join(parts).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)

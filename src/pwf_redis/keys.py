"""Every key and channel of the adapter. The Lua files have the same names, said in their headers.

All keys of a partition share the hash tag `{namespace:partition}`, so that on a cluster they lie in
one slot and one script can reach them.
"""

from __future__ import annotations

import attrs

from pwf_core.errors import ConfigurationError
from pwf_core.ids import CallId, RunId

__all__ = ["KEY_GRACE_MS", "UNDECODABLE_MAX", "Keys", "parse_member"]

# A key outlives its run by this, so that a client that repeats its start late starts nothing twice.
KEY_GRACE_MS = 3600 * 1000
UNDECODABLE_MAX = 1000  # kept for people to look at; older ones go


def _prefix(namespace: str) -> str:
    if not namespace or not namespace.isprintable() or set(namespace) & set("{}"):
        raise ConfigurationError(
            f"The namespace {namespace!r} cannot be part of a Redis key here: it is empty, or has "
            "control characters or braces.",
        )
    # LIMIT: one partition. More need a layout version in the tag and a reader per partition.
    return f"pwf:{{{namespace}:0}}:"


@attrs.frozen
class Keys:
    """The keys of one namespace."""

    prefix: str = attrs.field(converter=_prefix)

    @property
    def due(self) -> str:
        """Sorted set of timers by due time; also the key that stands for all others in scripts."""
        return f"{self.prefix}due"

    @property
    def dead(self) -> str:
        """Sorted set of dead letters by time of death."""
        return f"{self.prefix}dead"

    @property
    def undecodable(self) -> str:
        """List of what was found in a queue or an index and is not ours."""
        return f"{self.prefix}undecodable"

    @property
    def format(self) -> str:
        """String that says who may write here, and in which format."""
        return f"{self.prefix}format"

    def run(self, run_id: str) -> str:
        """Hash of a run."""
        return f"{self.prefix}run:{run_id}"

    def key(self, key: str) -> str:
        """String that points from a user's key to its run."""
        return f"{self.prefix}key:{key}"

    def queue(self, service: str) -> str:
        """Stream of a service's messages (fused)."""
        return f"{self.prefix}queue:{service}"

    def wake(self, service: str) -> str:
        """List with a token for one idle worker of a service (fused)."""
        return f"{self.prefix}wake:{service}"

    def done(self, run_id: str) -> str:
        """Channel that hears how a run ended."""
        return f"{self.prefix}done:{run_id}"

    def stream(self, service: str) -> str:
        """Stream of a service's messages (the plain broker)."""
        return f"{self.prefix}stream:{service}"

    def ready(self, service: str) -> str:
        """List with a token for one idle consumer of a stream (the plain broker)."""
        return f"{self.prefix}ready:{service}"

    @property
    def rejected(self) -> str:
        """List of what the plain broker was told to set aside."""
        return f"{self.prefix}rejected"


def parse_member(member: bytes) -> tuple[RunId, CallId, str]:
    """Return run, call and service of a member of `due` or `dead`."""
    run_id, _, rest = member.decode().partition(":")
    call_id, _, service = rest.partition(":")
    return RunId(run_id), CallId(call_id), service

"""Every key and channel of the adapter. The Lua files have the same names, said in their headers.

All keys of a partition share the hash tag `{namespace:partition}`, so that on a cluster they lie in
one slot and one script can reach them.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache
from itertools import count

import attrs

from pwf_core.errors import ConfigurationError
from pwf_core.ids import CallId, RunId

__all__ = ["KEY_GRACE_MS", "MOST_PARTITIONS", "UNDECODABLE_MAX", "Keys", "parse_member"]

MOST_PARTITIONS = 256
_SLOTS = 16_384  # of a cluster, whatever its size

# A key outlives its run by this, so that a client that repeats its start late starts nothing twice.
KEY_GRACE_MS = 3600 * 1000
UNDECODABLE_MAX = 1000  # kept for people to look at; older ones go


def _slot(tag: str) -> int:
    """Return the slot of what has *tag* in its braces.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.
    """
    return crc_hqx(tag.encode(), 0) % _SLOTS


@cache
def _tag(namespace: str, partition: int) -> str:
    """Return what the keys of a partition have in braces.

    Nodes of a cluster have ranges of slots. So that each gets as many partitions as the next one,
    however many there are of both, partitions halve the gaps between those before them: tags are
    tried until one falls into the right place.
    """
    if not namespace or not namespace.isprintable() or set(namespace) & set("{}"):
        raise ConfigurationError(
            f"The namespace {namespace!r} cannot be part of a Redis key here: it is empty, or has "
            "control characters or braces.",
        )
    first = f"{namespace}:0"
    if partition == 0:
        return first
    fraction = int(f"{partition:08b}"[::-1], 2) / MOST_PARTITIONS
    begin = int(_slot(first) + fraction * _SLOTS)
    width = _SLOTS // MOST_PARTITIONS
    tags = (f"{namespace}:{partition}.{number}" for number in count())
    return next(tag for tag in tags if (_slot(tag) - begin) % _SLOTS < width)


@attrs.frozen
class Keys:
    """The keys of one partition of a namespace.

    Raises:
        ConfigurationError: If *namespace* cannot be part of a key.
    """

    namespace: str
    partition: int = 0
    is_spread: bool = False  # over the nodes of a cluster
    prefix: str = attrs.field(
        default=attrs.Factory(
            lambda self: f"pwf:{{{_tag(self.namespace, self.partition)}}}:", takes_self=True
        ),
        init=False,
    )

    @property
    def slot(self) -> int:
        """Where all of them lie on a cluster."""
        return _slot(_tag(self.namespace, self.partition))

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

    @property
    def never(self) -> str:
        """What is never there; see `rounds.call`."""
        return f"{self.prefix}never"

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

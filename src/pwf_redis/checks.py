"""Start-up checks: can this server carry the promises? Loud and exact, before any work is accepted.

What cannot be asked, because the user may not run INFO or CONFIG, is noted and not taken for a fault.
`NEEDED` is the least that a user must be allowed.
"""

from __future__ import annotations

import logging
import warnings

import attrs

from pwf_core.adapters import Durability
from pwf_core.errors import ConfigurationError, PwfError
from pwf_core.steps import Steps
from pwf_redis.errors import NotAllowedError
from pwf_redis.rounds import CONFIRM, Round, ask

__all__ = [
    "NEEDED",
    "NEEDED_BY_CLUSTERS",
    "NEEDED_BY_FSYNC",
    "NEEDED_BY_SENTINELS",
    "NEEDED_BY_STREAMS",
    "USED_IF_ALLOWED",
    "DurabilityWarning",
    "Facts",
    "check",
]

logger = logging.getLogger("pwf_redis")

# For `ACL SETUSER … ~pwf:{namespace:*}:* resetchannels &pwf:{namespace:*}:*`, with a "+" before each.
NEEDED = (
    *("ping", "select", "info", "config|get", "time", "eval", "evalsha"),
    *("get", "set", "pexpire", "unlink"),
    *("hset", "hget", "hmget", "hdel", "hlen", "hkeys", "hscan"),
    *("zadd", "zrem", "zrange", "zrangebyscore", "lpush", "llen", "ltrim", "blpop"),
    *("xadd", "xrange", "xrevrange", "xdel", "xlen", "publish", "subscribe", "unsubscribe"),
)
# And for the streams as a plain broker.
NEEDED_BY_STREAMS = ("xgroup", "xreadgroup", "xack", "xautoclaim", "xinfo", "xpending")

# With these, scripts begin faster, on Redis 7.0 and later. Who may load libraries can change what others
# run under their own names: it is for users who trust each other.
USED_IF_ALLOWED = ("fcall", "function|load")

# And for durability="fsync", unless the server has `appendfsync always`.
NEEDED_BY_FSYNC = ("waitaof",)

# And where sentinels say which server it is; what goes without it is said there.
NEEDED_BY_SENTINELS = ("role",)

# And where the nodes of a cluster say which of them has what.
NEEDED_BY_CLUSTERS = ("cluster|slots",)

_UNKNOWN = (0, 0)
_OLDEST = (6, 2)  # XAUTOCLAIM, exclusive ranges, LPOP with a count
_FLAGS = (7, 0)  # `#!lua flags=…`, and functions
_WAITAOF = (7, 2)


class DurabilityWarning(UserWarning):
    """The server may lose work that it has acknowledged."""


@attrs.define
class Facts:
    """What is known about one server.

    Attributes:
        where: Its name for people.
        durability: What the deployment wants.
        version: (major, minor); (0, 0) before the check, and if the server does not say it.
        knows_flags: Whether scripts may begin with `#!lua`.
        keeps_functions: Whether scripts may be kept as functions, as far as is known.
        waits_for_disk: Whether the server is to be asked after each write whether it is on disk.
    """

    where: str
    durability: Durability = Durability.STANDARD
    version: tuple[int, int] = _UNKNOWN
    knows_flags: bool = True
    keeps_functions: bool = True
    waits_for_disk: bool = False


def check(facts: Facts) -> Steps[Round, None]:
    """Look at the server, fill in *facts*, and refuse what would lose work.

    Args:
        facts: What is wanted; and what was found, afterwards.

    Raises:
        ConfigurationError: If the server cannot carry the promises.
    """
    yield from _check_version(facts)
    settings = yield from _settings(facts)
    _check_memory(facts, settings)
    _check_disk(facts, settings)
    if facts.waits_for_disk:
        yield from _check_waiting(facts)


def _check_version(facts: Facts) -> Steps[Round, None]:
    version = yield from _version()
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        logger.warning("Redis at %s does not say its version; taking it for a new one", facts.where)
        return
    facts.version = (major, minor)
    facts.knows_flags = facts.keeps_functions = facts.version >= _FLAGS
    if facts.version < _OLDEST:
        raise ConfigurationError(
            f"Redis at {facts.where} is version {version}; pwf needs 6.2 or later, or Valkey.",
        )


def _version() -> Steps[Round, str]:
    """Return which Redis the server says to be, or to be like; "" if it does not."""
    try:
        reply = yield from ask("INFO", "server")
    except NotAllowedError:
        words = yield from ask("HELLO")  # which nobody can be refused
        version: bytes = dict(zip(words[::2], words[1::2], strict=True)).get(b"version", b"")
        return version.decode(errors="replace")
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return lines.get("redis_version", "")  # Valkey says here which Redis it is compatible with


def _settings(facts: Facts) -> Steps[Round, dict[str, str]]:
    found: dict[str, str] = {}
    for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
        try:
            reply = yield from ask("CONFIG", "GET", name)
        except PwfError as error:
            logger.info(
                "Redis at %s does not let its settings be read (%s); make sure that it has "
                "appendonly yes and maxmemory-policy noeviction",
                facts.where,
                error,
            )
            return {}
        found.update({reply[n].decode(): reply[n + 1].decode() for n in range(0, len(reply), 2)})
    return found


def _check_memory(facts: Facts, settings: dict[str, str]) -> None:
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy == "noeviction":
        return
    if settings.get("maxmemory", "0") != "0":
        raise ConfigurationError(
            f"Redis at {facts.where} has maxmemory-policy {policy}: when its memory is full it "
            "deletes runs and queues. Set `maxmemory-policy noeviction`.",
        )
    # Without a limit nothing is evicted; a limit set later would change that.
    logger.warning(
        "Redis at %s has maxmemory-policy %s, which will delete work as soon as a maxmemory is set; "
        "set noeviction",
        facts.where,
        policy,
    )


def _check_disk(facts: Facts, settings: dict[str, str]) -> None:
    appendonly = settings.get("appendonly", "")
    fsync = settings.get("appendfsync", "")
    if facts.durability is Durability.FSYNC:
        is_old = _UNKNOWN < facts.version < _WAITAOF
        facts.waits_for_disk = fsync != "always" and not is_old
        enough = {"", "always"} if is_old else {"", "always", "everysec"}
        if appendonly == "no" or fsync not in enough:
            raise ConfigurationError(
                "durability='fsync' needs `appendonly yes` and `appendfsync always` (from Redis 7.2 "
                f"on, everysec will do, more slowly); Redis at {facts.where} has appendonly "
                f"{appendonly} and appendfsync {fsync}.",
            )
        if not fsync and not facts.waits_for_disk:
            logger.warning("Redis at %s does not say how it writes to disk", facts.where)
        return
    if appendonly == "no":
        message = (
            f"Redis at {facts.where} has appendonly no: work that it has accepted is lost when it "
            "stops. Set `appendonly yes`."
        )
        warnings.warn(message, DurabilityWarning, stacklevel=2)


def _check_waiting(facts: Facts) -> Steps[Round, None]:
    try:
        yield from ask(*CONFIRM)
    except PwfError as error:
        raise ConfigurationError(
            f"durability='fsync' needs `appendfsync always`, or the command WAITAOF; at {facts.where} "
            f"neither is to be had. {error}",
        ) from error

"""What the driver raises, as core errors: one table, at the edge.

Nothing of redis-py crosses a port. `NoScriptError` alone stays as it is on its way to those who
answer it by sending the script.
"""

from __future__ import annotations

import re
import ssl

import redis.exceptions as driver

from pwf_core.errors import (
    ConfigurationError,
    PwfError,
    StoreFullError,
    StoreUnavailableError,
)

__all__ = [
    "GroupExistsError",
    "NoFunctionError",
    "NoGroupError",
    "NotAllowedError",
    "is_demoted",
    "translate",
    "words_of",
]


class NoGroupError(PwfError):
    """A stream has no consumer group (yet, or any more); answered by making it."""


class GroupExistsError(PwfError):
    """Somebody else has just made the group."""


class NoFunctionError(PwfError):
    """The server does not have the function (yet, or any more); answered by loading its library."""


class NotAllowedError(ConfigurationError):
    """The user may not do this, or nobody may: the server does not know how."""


# First words of error replies that the driver has no class for, or not in every version.
_WORDS: tuple[tuple[str, type[PwfError], str], ...] = (
    ("OOM", StoreFullError, "is full (maxmemory)"),
    ("MISCONF", StoreFullError, "cannot write to its disk"),
    ("NOAUTH", ConfigurationError, "wants a user or password"),
    ("WRONGPASS", ConfigurationError, "refuses the user or password"),
    ("NOPERM", NotAllowedError, "does not allow this user to do what pwf needs"),
    ("LOADING", StoreUnavailableError, "is still loading its data"),
    ("BUSY ", StoreUnavailableError, "is busy with a script"),
    ("READONLY", StoreUnavailableError, "is a replica and takes no writes; a failover is going on"),
    ("MASTERDOWN", StoreUnavailableError, "is a replica without its master"),
    ("UNBLOCKED", StoreUnavailableError, "has become a replica; a failover is going on"),
    ("NOREPLICAS", StoreUnavailableError, "has too few replicas to take writes"),
    (
        "This instance has cluster support disabled",
        ConfigurationError,
        "is no node of a cluster: connect to redis://…",
    ),
    ("unknown command", NotAllowedError, "does not know what pwf needs"),
    ("Function not found", NoFunctionError, "has no such function"),
    ("NOGROUP", NoGroupError, "has no such group"),
    ("BUSYGROUP", GroupExistsError, "has that group"),
)

_UNREACHABLE = "cannot be reached"
_ADVICE = "Is it running, and is that where it listens?"

# Subclasses before their bases.
_CLASSES: tuple[tuple[type[Exception], type[PwfError], str], ...] = (
    (driver.AuthenticationError, ConfigurationError, "refuses the user or password"),
    (driver.AuthorizationError, ConfigurationError, "refuses the user"),
    (driver.OutOfMemoryError, StoreFullError, "is full (maxmemory)"),
    (driver.NoPermissionError, NotAllowedError, "does not allow this user to do what pwf needs"),
    (driver.ReadOnlyError, StoreUnavailableError, "is a replica and takes no writes"),
    (driver.MasterDownError, StoreUnavailableError, "is a replica without its master"),
    (driver.ClusterDownError, StoreUnavailableError, "is part of a cluster that is down"),
    (driver.TryAgainError, StoreUnavailableError, "is moving the slot to another node"),
    (driver.MovedError, ConfigurationError, "is a node of a cluster: connect to redis+cluster://…"),
    (driver.AskError, StoreUnavailableError, "is moving the slot to another node"),
    (driver.ConnectionError, StoreUnavailableError, _UNREACHABLE),
    (driver.TimeoutError, StoreUnavailableError, "did not answer in time"),
    (TimeoutError, StoreUnavailableError, "did not answer in time"),
    (OSError, StoreUnavailableError, _UNREACHABLE),
    (UnicodeError, ConfigurationError, "has a name that is none in the DNS"),
)


# What Redis 6.2 puts before the error of a command within a script; later ones answer with that error.
_IN_A_SCRIPT = re.compile(r"^Error running script \(call to \w+\): (@user_script: ?\d+: )+-?")


def words_of(error: Exception) -> str:
    """Return what an error of the driver says, but for what must not be told."""
    # Of a command that it does not know, the server repeats the arguments: payloads, say.
    text = str(error).partition(", with args beginning with")[0]
    return _IN_A_SCRIPT.sub("", text)


def is_demoted(reply: object) -> bool:
    """Whether a reply says that a server has lost its role, or its replicas."""
    if not isinstance(reply, driver.ResponseError):
        return False
    if isinstance(reply, driver.ReadOnlyError | driver.MasterDownError):
        return True
    return words_of(reply).startswith(("READONLY", "MASTERDOWN", "NOREPLICAS"))


def translate(error: Exception, where: str) -> Exception:
    """Return the core's error for one of the driver; any other error as it is.

    Args:
        error: What was raised.
        where: The server, for people; without its password.
    """
    if isinstance(error, PwfError | driver.NoScriptError):
        return error
    text = words_of(error)
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        # It may pass: a server whose certificate has run out gets a new one, and work goes on.
        return StoreUnavailableError(
            f"The certificate of Redis at {where} cannot be trusted: {error.__context__}. A private "
            "authority is trusted by naming its file: ca_certs= in the URL, or $SSL_CERT_FILE.",
        )
    if isinstance(error, driver.ResponseError):
        for word, kind, says in _WORDS:
            if text.startswith(word):
                return kind(f"Redis at {where} {says}: {text}")
    for cause, kind, says in _CLASSES:
        if isinstance(error, cause):
            text = text.rstrip(".") or type(error).__name__
            advice = f". {_ADVICE}" * (says is _UNREACHABLE)
            return kind(f"Redis at {where} {says}: {text}{advice}")
    if isinstance(error, driver.RedisError):
        return PwfError(f"Redis at {where} gave an answer that pwf does not expect: {text}")
    return error

"""What becomes of the drivers' errors: the one place that knows them.

aiormq and pika wrap the server's own words differently, but both keep them ("ACCESS_REFUSED - …"),
so the table below goes by those. Whatever is not in it is taken for trouble that may pass.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from pwf_core.errors import BrokerUnavailableError, ConfigurationError, PwfError
from pwf_rabbit.topology import Queue

__all__ = ["AccessRefusedError", "QueueMissingError", "translate"]


class AccessRefusedError(ConfigurationError):
    """The server knows the user, or does not, and refuses what was asked."""


class QueueMissingError(BrokerUnavailableError):
    """A queue is not there (any more)."""


_INEQUIVALENT = re.compile(
    r"PRECONDITION_FAILED - inequivalent arg '([^']+)' for queue[^:]*: ?(.*)"
)

# In the order in which they are looked for.
_WORDS: tuple[tuple[str, type[PwfError], str], ...] = (
    ("ACCESS_REFUSED", AccessRefusedError, "Check user, password and permissions."),
    ("NOT_ALLOWED", ConfigurationError, "Check the virtual host in the URL's path."),
    ("RESOURCE_LOCKED", ConfigurationError, "Another connection has a queue for itself."),
    ("NOT_IMPLEMENTED", ConfigurationError, "RabbitMQ 3.10 or newer is needed."),
    ("NOT_FOUND", QueueMissingError, ""),
)


_ADVICE = "Is it running, and is that where it listens?"


def translate(
    error: BaseException,
    where: str,
    queue: Queue | None = None,
    *,
    connecting: bool = False,
) -> PwfError:
    """Return what *error* of a driver means to users; raise it from *error*.

    Args:
        error: What a driver raised, or reported in a callback.
        where: Host and port.
        queue: What it was about.
        connecting: Whether there was no connection yet.
    """
    if isinstance(error, PwfError):
        return error
    chain = list(_chain(error))
    # The server's words alone, if they are somewhere; else whatever holds them.
    texts = [one for part in chain for one in part.args if isinstance(one, str)]
    texts += map(str, chain)
    if queue is not None:
        for text in texts:
            if found := _INEQUIVALENT.search(text):
                return _mismatch(queue, where, found[1], found[2])
    if any(isinstance(part, ssl.SSLCertVerificationError) for part in chain):
        return ConfigurationError(
            f"The certificate of RabbitMQ at {where} cannot be trusted: {_last_words(chain)}. A "
            "private authority is trusted by naming its file: ca_certs= in the URL, or $SSL_CERT_FILE.",
        )
    for words, kind, advice in _WORDS:
        for text in texts:
            if words in text:
                said = text[text.index(words) :].rstrip("'\").")
                return kind(f"RabbitMQ at {where} refused: {said}. {advice}".strip())
    advice = f" {_ADVICE}" * connecting
    if isinstance(error, TimeoutError):
        return BrokerUnavailableError(f"RabbitMQ at {where} did not answer in time.{advice}")
    problem = "cannot be reached" if connecting else "cannot be used now"
    about = f" (queue {queue.name!r})" if queue is not None else ""
    said = _last_words(chain).rstrip(".")
    return BrokerUnavailableError(f"RabbitMQ at {where} {problem}{about}: {said}.{advice}")


def _mismatch(queue: Queue, where: str, argument: str, detail: str) -> ConfigurationError:
    # The server cuts what it says at 255 bytes.
    found = f": {detail}" if "current is" in detail else ""
    return ConfigurationError(
        f"Queue {queue.name!r} of RabbitMQ at {where} exists with another {argument!r}{found}. pwf "
        "deletes no queue. Use it as it is (?queue=classic or ?queue=quorum in the URL), or "
        "another namespace, or empty and delete it yourself.",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and what it was made of: causes, and errors among its arguments."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, (list, tuple)):
            waiting.extend(part)
        elif isinstance(part, BaseException) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [part.args, getattr(part, "exceptions", ()), part.__cause__]
            waiting.append(getattr(part, "exception", None))


def _last_words(chain: list[BaseException]) -> str:
    return next((str(one) for one in reversed(chain) if str(one)), type(chain[-1]).__name__)

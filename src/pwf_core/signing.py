"""Signatures of broker messages, for brokers that others can write to as well.

A signature is HMAC-SHA256 over the message's body together with where it belongs: the namespace and
the service. So nobody without a key can make a message, change one, or move one to another queue or
deployment. A copy that is sent again is genuine, and runs nothing: the store knows the generation.

Nothing here, nor in any error, shows a key.
"""

from __future__ import annotations

import hmac

import attrs
import msgspec

from pwf_core.errors import ConfigurationError

__all__ = ["LEAST_BYTES", "Signer", "read_keys"]

# Half of what SHA-256 can use; RFC 2104 discourages keys far below the hash's own size, and short
# ones can be guessed offline by whoever reads one message.
LEAST_BYTES = 16

_HASH = "sha256"
_LABEL = "pwf message"  # so that a key that signs other things, too, never signs one of ours
_encoder = msgspec.msgpack.Encoder()


def read_keys(keys: object, source: str = "signing_keys") -> tuple[bytes, ...]:
    """Return signing keys as bytes, in order.

    Args:
        keys: A list of strings or bytes.
        source: Where they come from, for the error.

    Raises:
        ConfigurationError: If there is none, or one is too short or no key at all.
    """
    if not isinstance(keys, list | tuple):  # of a string, every character would be a key
        raise ConfigurationError(f"{source}: a list of keys is expected, not {_kind(keys)}.")
    if not keys:
        raise ConfigurationError(f"{source} holds no key. {_GOOD}")
    return tuple(_read_key(key, f"{source}: key {n}") for n, key in enumerate(keys, start=1))


_GOOD = (
    f"A key has at least {LEAST_BYTES} bytes; this prints a good one: "
    "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
)


def _read_key(key: object, name: str) -> bytes:
    if isinstance(key, str):
        try:
            key = key.encode()
        except UnicodeEncodeError:  # which would show it
            raise ConfigurationError(f"{name} has characters that UTF-8 does not know.") from None
    if not isinstance(key, bytes):
        raise ConfigurationError(f"{name} is {_kind(key)}, not a string or bytes.")
    if len(key) < LEAST_BYTES:
        raise ConfigurationError(f"{name} has {len(key)} bytes. {_GOOD}")
    return key


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


@attrs.frozen
class Signer:
    """Signs the messages of one deployment, and tells which are genuine.

    Attributes:
        namespace: The deployment.
        keys: The first one signs, all of them verify, so that keys can be replaced one after the
            other.
    """

    namespace: str
    keys: tuple[bytes, ...] = attrs.field(repr=False, converter=read_keys)

    def sign(self, body: bytes, service: str) -> bytes:
        """Return the signature of *body* for the queue of *service*: 32 bytes."""
        return hmac.digest(self.keys[0], self._signed(body, service), _HASH)

    def is_genuine(self, body: bytes, service: str, signature: bytes) -> bool:
        """Whether one of the keys has signed *body* for the queue of *service*."""
        signed = self._signed(body, service)
        return any(
            hmac.compare_digest(hmac.digest(key, signed, _HASH), signature) for key in self.keys
        )

    def _signed(self, body: bytes, service: str) -> bytes:
        # An encoded list: where one part ends and the next begins is part of what is signed.
        return _encoder.encode((_LABEL, self.namespace, service, body))

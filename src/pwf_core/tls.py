"""Which files a URL names for TLS, and what they are for: the same options for every adapter.

Adapters bring the context that reads them. There is no option that switches verification off, and
none may be added: a server whose certificate is not checked can be anybody, and is told the password.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from pwf_core.adapters import Url
from pwf_core.errors import ConfigurationError

__all__ = ["TLS_OPTIONS", "TlsContext", "TlsFiles"]

TLS_OPTIONS = ("ca_certs", "certfile", "keyfile")


class TlsContext(Protocol):
    """The slice of `ssl.SSLContext` that reads files."""

    def load_verify_locations(self, cafile: str) -> None:
        """Trust the authorities in a file."""
        ...

    def load_cert_chain(self, certfile: str, keyfile: str | None, password: str) -> None:
        """Show a certificate to servers that ask for one."""
        ...


@attrs.frozen(kw_only=True)
class TlsFiles:
    """Files in PEM format; "" where the URL names none.

    Attributes:
        ca_certs: Authorities that are trusted beside those of the system.
        certfile: Our own certificate, for servers that want one.
        keyfile: Its key, unless that is in the same file.
    """

    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""

    @classmethod
    def read(cls, url: Url, secure: str) -> TlsFiles:
        """Return the files that *url* names.

        Args:
            url: Its options.
            secure: The scheme of URLs whose connections are encrypted.

        Raises:
            ConfigurationError: If there are any without encryption, or a key without a certificate.
        """
        found = {name: url.query[name] for name in TLS_OPTIONS if name in url.query}
        for name, path in found.items():
            if url.scheme != secure:
                raise ConfigurationError(f"{url}: {name}= is for {secure}:// only.")
            if not path:
                raise ConfigurationError(f"{url}: {name}= names no file.")
        if "keyfile" in found and "certfile" not in found:
            raise ConfigurationError(f"{url}: keyfile= needs certfile= beside it.")
        return cls(**found)

    def load_into(self, context: TlsContext) -> None:
        """Have *context* read them.

        Raises:
            ConfigurationError: If one cannot be used.
        """
        try:
            if self.ca_certs:
                context.load_verify_locations(self.ca_certs)
        except OSError as error:  # errors of OpenSSL are such, too
            raise ConfigurationError(
                f"ca_certs={self.ca_certs!r} cannot be used: {error}"
            ) from error
        try:
            if self.certfile:
                # Without a password, OpenSSL would ask for that of an encrypted key at the terminal.
                context.load_cert_chain(self.certfile, self.keyfile or None, "")
        except OSError as error:
            key = f", keyfile={self.keyfile!r}" * bool(self.keyfile)
            raise ConfigurationError(
                f"certfile={self.certfile!r}{key} cannot be used: {error}"
            ) from error

"""Throw-away certificates: an authority that nobody trusts, and what it signs."""

import shutil
import subprocess

from pwf.testing.plugin import go_without
from pwf.testing.servers import LOOPBACK

_REQUEST = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"


class Authority:
    """Makes files in *folder*: its own certificate `ca.pem`, and pairs of certificate and key."""

    def __init__(self, folder):
        if shutil.which("openssl") is None:
            go_without("openssl is not installed, which makes the certificates.")
        self.folder = folder
        self.ca, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl("-subj", "/CN=nobody trusts us", "-out", self.ca, "-keyout", self._key)

    def sign(self, name, *, host=LOOPBACK):
        """Return the paths of a certificate for the address *host*, and of its key."""
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        _openssl(
            *("-CA", self.ca, "-CAkey", self._key, "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=IP:{host}", "-addext", "basicConstraints=CA:false"),
            *("-out", paths[0], "-keyout", paths[1]),
        )
        return paths


def _openssl(*arguments):
    subprocess.run([*_REQUEST.split(), *arguments], check=True, capture_output=True)

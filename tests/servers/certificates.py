"""A certificate authority of one's own, and a certificate of it for 127.0.0.1, made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.packages import program


@dataclass(frozen=True)
class Certificates:
    """Files in PEM."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Made in that folder, readable for a server that runs as nobody. Raises `Unavailable` without openssl."""
    openssl = str(program("openssl", "openssl"))
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server-key.pem")
    new = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    authority = [*new, "-keyout", str(folder / "ca-key.pem"), "-out", str(made.authority), "-subj", "/CN=test CA"]
    server = [*new, "-keyout", str(made.key), "-out", str(made.certificate), "-subj", "/CN=127.0.0.1"]
    signed = ["-CA", str(made.authority), "-CAkey", str(folder / "ca-key.pem")]
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    for command in (authority, [*server, *signed, *named]):
        subprocess.run(command, check=True, capture_output=True)
    made.key.chmod(0o644)
    return made

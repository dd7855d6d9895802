"""An operator, an account and a user of NATS, signed as `nsc` does it: for the decentralised way to let clients in."""

import base64
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

nkeys: Any = import_module("nkeys")
"""Of the extra [nats], and untyped."""
JETSTREAM = ("mem_storage", "disk_storage", "streams", "consumer")
ANYTHING = dict.fromkeys(
    (
        "subs",
        "data",
        "payload",
        "imports",
        "exports",
        "conn",
        "leaf",
        *JETSTREAM,
    ),
    -1,
)


class Signed(NamedTuple):
    """What a server is told, and what a client gets."""

    settings: dict[str, str]
    credentials: str


class _Key:
    def __init__(self, kind: int) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), kind)
        self.pair = nkeys.from_seed(self.seed)
        self.public = self.pair.public_key.decode()

    def sign(self, name: str, subject: str, nats: dict[str, Any]) -> str:
        claims = {"jti": name, "iat": int(time.time()), "iss": self.public, "name": name, "sub": subject}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, {**claims, "nats": {**nats, "version": 2}}]
        text = b".".join(_base64(msgspec.json.encode(part)) for part in parts)
        return (text + b"." + _base64(self.pair.sign(text))).decode()


def signed(folder: Path) -> Signed:
    """A user "worker" of an account that may use JetStream, and another account for the system."""
    operator, system = _Key(nkeys.PREFIX_BYTE_OPERATOR), _Key(nkeys.PREFIX_BYTE_ACCOUNT)
    account, user = _Key(nkeys.PREFIX_BYTE_ACCOUNT), _Key(nkeys.PREFIX_BYTE_USER)
    terms = {"type": "operator", "system_account": system.public}
    limits = {**ANYTHING, "wildcards": True}
    # The system's account may not have JetStream.
    accounts = {
        each.public: operator.sign(name, each.public, {"type": "account", "limits": limits | more})
        for name, each, more in (("system", system, dict.fromkeys(JETSTREAM, 0)), ("shop", account, {}))
    }
    preload = "\n".join(f"{key}: {text}" for key, text in accounts.items())
    settings = {
        "operator": operator.sign("operator", operator.public, terms),
        "system_account": system.public,
        "resolver": "MEMORY",
        "resolver_preload": f"{{ {preload} }}",
    }
    rights = {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
    ticket = account.sign("worker", user.public, rights)
    path = folder / "worker.creds"
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{ticket}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return Signed(settings, str(path))


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

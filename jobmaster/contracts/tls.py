"""The option `tls` of stores: what it may say, and what the `ssl` module makes of it."""

import ssl
from collections.abc import Mapping

from jobmaster.model.errors import ConfigurationError, quoted

Tls = ssl.SSLContext | Mapping[str, str] | bool | None
"""True: the authorities that the system trusts. A table: `ca`, a file of others instead; `cert` and `key`, files with a
certificate of one's own. A context: taken as it is. None or false: nothing is asked for."""

_KNOWN = ("ca", "cert", "key")


def tls_context(tls: Tls, whose: str) -> ssl.SSLContext | None:
    """Names and certificates are checked unless a context says otherwise. Raises `ConfigurationError`, which begins
    with `whose`, for what is no such option, and for files that can't be used."""
    if isinstance(tls, ssl.SSLContext):
        return tls
    if tls is None or tls is False:
        return None
    given = {} if tls is True else tls
    if not isinstance(given, Mapping) or set(given) - set(_KNOWN) or ("key" in given and "cert" not in given):
        raise ConfigurationError([f"{whose}: tls={quoted(tls)}; expected true, or a table of {', '.join(_KNOWN)}"])
    try:
        context = ssl.create_default_context(cafile=given.get("ca"))
        if "cert" in given:
            context.load_cert_chain(given["cert"], given.get("key"))
    except OSError as error:
        files = ", ".join(map(repr, given.values()))
        raise ConfigurationError([f"{whose}: tls: can't use {files}: {error}"]) from error
    return context

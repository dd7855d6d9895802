"""The portable-JSON gate: what passes here, every store keeps and gives back byte for byte.

Data, results and metadata are UTF-8 JSON without NUL, lone surrogates, non-finite numbers, whole numbers of 2**63 or
more, duplicate keys, or more than 30 levels, up to a size. Each of these is something one store accepts and another
refuses, or changes silently.

The gate is on the hot path, so it is two quick passes: a walk that knows eight exact types (msgspec alone would turn
NaN into null and a datetime into text without a word), then msgspec and a search for escaped NULs. Whatever they
refuse goes to `data_faults`, which explains, or finds that it was fine after all.
"""

import json
import re
from typing import Any

import msgspec

from jobmaster.model.data_faults import INTEGER_LIMIT, MOST_DEPTH, duplicate_keys, plain_copy, too_large
from jobmaster.model.errors import DataInvalid, Problem

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_NUL = b"\\u0000"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SURROGATES = re.compile("[\ud800-\udfff]")


def encode(value: object, *, limit: int, what: str = "data") -> bytes:
    """The value as compact JSON of at most `limit` bytes; `decode` gives it back equal, tuples as lists.

    Raises `DataInvalid` with paths and remedies; `what` names the value in its message.
    """
    if not _is_plain(value, limit):
        value = plain_copy(value, limit=limit, what=what)
    try:
        raw = _encode(value)
    except UnicodeEncodeError:
        raw = _encode(plain_copy(value, limit=limit, what=what))
    if len(raw) > limit:
        raise too_large(len(raw), limit, what)
    if _NUL in raw:
        # Either a NUL, or the harmless text of a backslash followed by u0000: the copy raises for the first.
        plain_copy(value, limit=limit, what=what)
    return raw


def check(raw: bytes, *, limit: int, what: str = "data") -> bytes:
    """The same bytes, if they are portable JSON of at most `limit` bytes; raises `DataInvalid` otherwise."""
    if len(raw) > limit:
        raise too_large(len(raw), limit, what)
    try:
        value = _decode(raw)
    except _UNREADABLE as error:
        raise _unreadable(raw, error, limit, what) from None
    again = encode(value, limit=8 * limit + 64, what=what)
    # Bytes that the encoder itself would write cannot hold a key twice; only others pay for a second parser.
    if again != raw:
        faults = duplicate_keys(raw.decode())
        if faults:
            raise DataInvalid(faults, what)
    return raw


def screen(raw: bytes, *, limit: int, what: str = "data") -> bytes:
    """The same bytes, which must come from an encoder of typed values; checks only what types leave open.

    That is size, NUL, depth, and whole numbers. Raises `DataInvalid`.
    """
    if len(raw) > limit:
        raise too_large(len(raw), limit, what)
    # 31 levels take 62 bytes at the least.
    deep = len(raw) > 2 * MOST_DEPTH and raw.count(b"[") + raw.count(b"{") > MOST_DEPTH
    if deep or _NUL in raw or _LONG_NUMBER.search(raw):
        encode(decode(raw, what=what), limit=limit, what=what)
    return raw


def decode(raw: bytes, *, what: str = "data") -> Any:
    """The value of bytes that passed the gate; raises `DataInvalid` for bytes that cannot be read."""
    try:
        return _decode(raw)
    except _UNREADABLE as error:
        raise _unreadable(raw, error, len(raw), what) from None


def sanitize_text(text: object, limit_bytes: int, *, keep_end: bool = False) -> str:
    """Text any store keeps, of at most `limit_bytes` bytes of UTF-8; what is cut away is said. Never raises.

    For error messages, tracebacks and log lines. `keep_end` cuts at the front, for text that matters most at its end.
    """
    try:
        clean = text if isinstance(text, str) else str(text)
        clean = clean[:]
    except Exception:
        clean = f"<{type(text).__name__} whose text cannot be made>"
    raw = _SURROGATES.sub("\ufffd", clean).replace("\x00", "\ufffd").encode()
    if len(raw) <= limit_bytes:
        return raw.decode()
    # The marker is as long as its longest form, so that the result stays under the limit whatever the numbers are.
    total = f"{len(raw):,}"
    kept = limit_bytes - len(f"… [cut: kept {total} of {total} bytes]".encode())
    if kept <= 0:
        return raw[: max(limit_bytes, 0)].decode(errors="ignore")
    part = (raw[-kept:] if keep_end else raw[:kept]).decode(errors="ignore")
    marker = f"[cut: kept {len(part.encode()):,} of {total} bytes]"
    return f"{marker} …{part}" if keep_end else f"{part}… {marker}"


def _is_plain(value: object, limit: int) -> bool:
    """Whether all of it is of exact JSON types, in range and not too deep; text is left to the encoder."""
    kind = type(value)
    level: list[Any] = [value] if kind is dict or kind is list or kind is tuple else [(value,)]
    depth = 0 if kind is dict or kind is list or kind is tuple else -1
    elements = 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            return False
        below: list[Any] = []
        for container in level:
            # Every element takes a byte and a separator, so a structure that multiplies is caught before it is built.
            elements += len(container)
            if elements > limit:
                return False
            if type(container) is dict:
                for key in container:
                    if type(key) is not str:
                        return False
                container = container.values()
            for item in container:
                kind = type(item)
                if kind is str or kind is bool or item is None:
                    continue
                if kind is int:
                    if not -INTEGER_LIMIT < item < INTEGER_LIMIT:
                        return False
                elif kind is float:
                    # Only a finite number minus itself is zero.
                    if item - item != 0.0:
                        return False
                elif kind is dict or kind is list or kind is tuple:
                    below.append(item)
                else:
                    return False
        level = below
    return True


def _unreadable(raw: bytes, error: Exception, limit: int, what: str) -> DataInvalid:
    if isinstance(error, UnicodeDecodeError):
        try:
            raw.decode()
        except UnicodeDecodeError as located:
            return DataInvalid((Problem("$", f"is not UTF-8 (byte {located.start}); encode it as UTF-8"),), what)
    if isinstance(error, RecursionError):
        return DataInvalid((Problem("$", f"is nested deeper than {MOST_DEPTH} levels; flatten it"),), what)
    try:
        # The standard parser lets pass what JSON does not have (NaN, 1e400, lone surrogates), so it finds their paths.
        plain_copy(json.loads(raw.decode()), limit=limit, what=what)
    except DataInvalid as explained:
        return explained
    except (ValueError, RecursionError):
        pass
    return DataInvalid((Problem("$", f"is not JSON: {error}"),), what)

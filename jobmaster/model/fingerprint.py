"""Fingerprints of errors: jobs that failed for what looks like the same cause have the same one."""

import re
from hashlib import blake2b

from jobmaster.model.states import FailReason

_VARYING = re.compile(
    r"""
    '(?:[^'\\]|\\.){0,200}' | "(?:[^"\\]|\\.){0,200}"   # what is quoted
    | \b0x[0-9a-fA-F]+\b
    | \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
    | \d+
    """,
    re.VERBOSE,
)
LONGEST = 2_000


def pattern(error: str | None) -> str:
    """The error's line without what differs from job to job: numbers, ids, addresses, quoted text."""
    return _VARYING.sub("#", (error or "")[:LONGEST])


def fingerprint(handler: str, reason: FailReason | None, error: str | None) -> str:
    """Twelve hexadecimal digits that stand for handler, reason and the pattern of the error."""
    text = f"{handler}\x00{reason}\x00{pattern(error)}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()

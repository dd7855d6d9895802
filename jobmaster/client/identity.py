"""Ids as callers give them: a `UUID`, or its text in any form."""

from uuid import UUID

from jobmaster.model.ids import parse_id

JobId = str | UUID


def job_id_of(value: object) -> str:
    """The canonical text. Raises `NameInvalid`."""
    return parse_id(str(value) if isinstance(value, UUID) else value)

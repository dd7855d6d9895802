"""Why there is no server."""


class Unavailable(Exception):  # noqa: N818
    """A server of this kind can't be had here; the text says why and what would help."""

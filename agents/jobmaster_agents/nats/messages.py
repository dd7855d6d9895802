"""Messages: what came on an inbox, as the wire has it. What is looked at of most of them is little."""

_STATUS = b"NATS/1.0 "


class Message:
    """One message. Its names are decoded, and its headers read, when asked for."""

    __slots__ = ("_headers", "data", "head", "on", "to")

    def __init__(self, on: bytes, to: bytes, data: bytes, head: bytes | None) -> None:
        self.on = on
        """Its subject, as the wire has it."""
        self.to = to
        """Where it is answered, as the wire has it."""
        self.data = data
        self.head = head
        self._headers: dict[str, str] | None = None

    @property
    def subject(self) -> str:
        return self.on.decode()

    @property
    def reply(self) -> str:
        return self.to.decode()

    @property
    def headers(self) -> dict[str, str]:
        if self._headers is None:
            self._headers = parse_head(self.head) if self.head else {}
        return self._headers

    def field(self, name: bytes) -> str:
        """One header's value, found without reading the others. Raises `KeyError`."""
        _, found, rest = (self.head or b"").rpartition(b"\r\n%b: " % name)
        if not found:
            raise KeyError(name)
        return rest[: rest.index(b"\r")].decode()

    @property
    def status(self) -> str | None:
        """The code of a message that only reports one."""
        head = self.head
        return head[9:12].decode() if head is not None and head.startswith(_STATUS) else None


def parse_head(head: bytes) -> dict[str, str]:
    """The headers of a block; a status line's code as `Status`."""
    lines = head.decode("utf-8", "replace").split("\r\n")
    found = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found[name] = value.strip()
    if lines[0].startswith("NATS/1.0 "):
        found["Status"] = lines[0][9:12]
        found["Description"] = lines[0][12:].strip()
    return found

"""Hostile and careless input, as data: names, keys and payloads that other systems were seen to trip over.

Each list is used by whatever takes such input: a bad one is refused with an error that names it, or stored and given
back intact. `NAMES_TEXT` are not names, though many of them are fine as keys, titles and tags.
"""

import base64
import datetime
import decimal
import enum
import json
import math
import pickle
import uuid
from typing import Any


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


NAMES_TEXT: dict[str, str] = {
    "empty": "",
    "blank": " ",
    "trailing space": "a ",
    "upper case": "A",
    "accent": "\u00e1",
    "accent composed": "caf\u00e9",
    "accent decomposed": "cafe\u0301",
    "line break in HTTP and NATS": "a\r\nPUB x 0",
    "line break": "a\nb",
    "trailing line break": "a\n",
    "nul": "a\x00b",
    "star": "*",
    "greater": ">",
    "star token": "a.*.b",
    "dots": "..",
    "path": "../../etc/passwd",
    "double dot": "a..b",
    "leading dot": ".a",
    "trailing dot": "a.",
    "jetstream api": "$JS.API.STREAM.DELETE.X",
    "system account": "$SYS.>",
    "inbox": "_INBOX.x",
    "65 characters": "x" * 65,
    "255 characters": "x" * 255,
    "256 characters": "x" * 256,
    "5000 characters": "x" * 5_000,
    "a million characters": "x" * 1_000_000,
    "a million four-byte characters": "\U0001f600" * 1_000_000,
    "sql": "'; DROP TABLE jobs;--",
    "sql or": '" OR 1=1',
    "backtick": "`; ",
    "brackets": "[a]",
    "percent": "%",
    "backslash at the end": "a\\",
    "template": "{{7*7}}",
    "jndi": "${jndi:ldap://x}",
    "ruby template": "#{1}",
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "javascript link": "javascript:alert(1)",
    "right to left": "a\u202eb",
    "ansi": "\x1b[2J",
    "osc 8 link": "\x1b]8;;http://x\x07y\x1b]8;;\x07",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "four bytes": "\U00010348",
    "dunder": "__proto__",
    "popen": "subprocess:Popen",
    "handlers path": "../handlers",
    "80 characters, equal in the first 63, one": "x" * 63 + "a" * 17,
    "80 characters, equal in the first 63, two": "x" * 63 + "b" * 17,
    "lone surrogate": "a\ud800b",
    "arabic digit": "\u0663",
    "c1 control": "a\x85b",
}
"""Refused as a name of every kind."""

NAMES_ODD_BUT_ALLOWED: list[str] = ["null", "default", "all", "a", "0", "constructor", "none", "true", "x" * 48]
"""Reserved or suspicious somewhere else; allowed here as a name of every kind."""

NAMES_DOTTED_ONLY: list[str] = ["os.system", "builtins.eval", "a.b", "x" * 64]
"""Allowed for handlers and profiles alone; naming something importable grants nothing."""

NAMES_NOT_TEXT: list[object] = [None, 5, True, 2.5, b"a", ["a"], ("a",), {"a": 1}, object()]

KEYS_REFUSED: dict[str, object] = {
    **{name: NAMES_TEXT[name] for name in ("empty", "nul", "line break", "trailing line break")},
    **{name: NAMES_TEXT[name] for name in ("ansi", "osc 8 link", "lone surrogate", "c1 control")},
    "line break in HTTP and NATS": NAMES_TEXT["line break in HTTP and NATS"],
    **{name: NAMES_TEXT[name] for name in ("256 characters", "5000 characters", "a million characters")},
    "256 bytes in 128 characters": "\u00e9" * 128,
    "delete": "a\x7f",
    "bytes": b"a",
    "number": 5,
    "nothing": None,
}

KEYS_ALLOWED: dict[str, str] = {
    name: value for name, value in NAMES_TEXT.items() if name not in KEYS_REFUSED and len(value) < 255
} | {"255 bytes": "x" * 255, "254 bytes in 127 characters": "\u00e9" * 127}
"""Stored and compared as bytes: composed and decomposed accents are two keys."""


def nested(depth: int) -> bytes:
    """Arrays in arrays, as raw JSON."""
    return b"[" * depth + b"]" * depth


RAW_REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" ",
    "not json": b"not json",
    "python": b"{'a': 1}",
    "trailing comma": b'{"a":1,}',
    "two values": b"1 2",
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "utf-16": '{"a":1}'.encode("utf-16"),
    "utf-16 without mark": '{"a":1}'.encode("utf-16-le"),
    "latin-1": '{"a":"\u00e9"}'.encode("latin-1"),
    "bad byte": b'{"a":"\xff"}',
    "bad byte in a key": b'{"\xff":1}',
    "overlong": b'{"a":"\xc0\xaf"}',
    "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "escaped high surrogate": b'{"a":"\\ud800"}',
    "escaped low surrogate": b'{"a":"\\udc00 b"}',
    "surrogates in the wrong order": b'{"a":"\\udc00\\ud800"}',
    "escaped surrogate in a key": b'{"\\ud800":1}',
    "escaped nul": b'{"a":"x\\u0000"}',
    "escaped nul in a key": b'{"a\\u0000":1}',
    "escaped nul after a backslash": b'{"a":"\\\\\\u0000"}',
    "bare nul": b'{"a":"\x00"}',
    "bare control": b'{"a":"\x01"}',
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":Infinity}',
    "minus infinity": b'{"a":-Infinity}',
    "overflow": b'{"a":1e400}',
    "minus overflow": b'{"a":-1e400}',
    "5000 digits": b'{"a":' + b"9" * 5_000 + b"}",
    "two to the 63": b'{"a":9223372036854775808}',
    "minus two to the 63": b'{"a":-9223372036854775808}',
    "below minus two to the 63": b'{"a":-9223372036854775809}',
    "two to the 64": b'{"a":18446744073709551616}',
    "duplicate key": b'{"a":1,"a":2}',
    "duplicate key, equal values": b'{"a":1,"a":1}',
    "duplicate key, escaped": b'{"a":1,"\\u0061":2}',
    "duplicate key, deep": b'{"x":[{"y":{"a":1,"b":2,"a":3}}]}',
    "depth 31": nested(31),
    "depth 32": nested(32),
    "depth 600": nested(600),
    "depth 2000": nested(2_000),
    "depth 100000": nested(100_000),
    "depth 100000, unfinished": b"[" * 100_000,
    "pickle": pickle.dumps({"a": 1}),
    "yaml object": b"!!python/object:os.system {}",
}
"""Refused as a payload, a result or metadata."""

RAW_ALLOWED: dict[str, bytes] = {
    "empty object": b"{}",
    "white space": b' { "a" : [ 1 , 2 ] } \n',
    "minus zero": b'{"a":-0,"b":-0.0}',
    "underflow": b'{"a":1e-400}',
    "beyond 2 to the 53": b'{"a":9007199254740993}',
    "largest whole number": b'{"a":9223372036854775807}',
    "smallest whole number": b'{"a":-9223372036854775807}',
    "a float beyond the whole numbers": b'{"a":9223372036854775808.0,"b":1e30}',
    "digits in text": b'{"a":"99999999999999999999999999"}',
    "depth 30": nested(30),
    "brackets in text": b'{"a":"' + b"[" * 100 + b'"}',
    "an escaped backslash before u0000": b'{"a":"\\\\u0000"}',
    "escaped pair": b'{"a":"\\ud83d\\ude00"}',
    "line separators": '{"a":"\u2028\u2029"}'.encode(),
    "base64 pickle": json.dumps({"a": base64.b64encode(pickle.dumps(1)).decode()}).encode(),
    "py/object": b'{"py/object":"os.system","__class__":"x","__reduce__":["os.system"]}',
    "celery exception": b'{"exc_module":"os","exc_type":"system"}',
    "mass assignment": b'{"role":"admin","cluster_id":"x","state":"succeeded","token":1,"attempts":-1}',
    "prototype": b'{"__proto__":{"admin":true},"constructor":{}}',
    "same key at two levels": b'{"a":{"a":{"a":1}},"b":{"a":2}}',
    "escaped slash": b'{"a":"\\/"}',
}
"""Kept byte for byte."""


def _circular() -> list[Any]:
    circle: list[Any] = []
    circle.extend((circle, circle))
    return circle


def _bomb() -> list[Any]:
    value: list[Any] = [1] * 10
    for _ in range(28):
        value = [value, value]
    return value


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _deep_mappings(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


VALUES_REFUSED: dict[str, tuple[Any, str]] = {
    "datetime": ({"a": [{"b": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)}]}, "$.a[0].b"),
    "naive datetime": ({"a": datetime.datetime(2024, 1, 1)}, "$.a"),  # noqa: DTZ001 - naive on purpose
    "date": ({"a": datetime.date(2024, 1, 1)}, "$.a"),
    "time": ({"a": datetime.time(1)}, "$.a"),
    "timedelta": ({"a": datetime.timedelta(1)}, "$.a"),
    "uuid": ({"a": uuid.UUID(int=1)}, "$.a"),
    "decimal": ({"a": decimal.Decimal("1.10")}, "$.a"),
    "bytes": ({"a": b"x"}, "$.a"),
    "bytearray": ({"a": bytearray(b"x")}, "$.a"),
    "text enum": ({"a": Colour.RED}, "$.a"),
    "number enum": ({"a": Level.LOW}, "$.a"),
    "set": ({"a": {1}}, "$.a"),
    "frozenset": ({"a": frozenset({1})}, "$.a"),
    "object": ({"a": object()}, "$.a"),
    "class": ({"a": dict}, "$.a"),
    "function": ({"a": nested}, "$.a"),
    "complex": ({"a": 1j}, "$.a"),
    "nan": ({"a": {"b.c": math.nan}}, '$.a["b.c"]'),
    "infinity": ({"a": math.inf}, "$.a"),
    "minus infinity": ([1, -math.inf], "$[1]"),
    "two to the 63": ({"a": 2**63}, "$.a"),
    "minus two to the 63": ({"a": -(2**63)}, "$.a"),
    "5000 digits": ({"a": 10**5_000}, "$.a"),
    "nul": ({"a": "x\x00"}, "$.a"),
    "nul in a key": ({"a\x00": 1}, '$["a\\u0000"]'),
    "lone surrogate": ({"a": "\ud800"}, "$.a"),
    "lone surrogate in a key": ({"a": {"\ud800": 1}}, '$.a["\\ud800"]'),
    "number as key": ({"a": {1: 2}}, "$.a"),
    "number and text as equal keys": ({1: 2, "1": 3}, "$"),
    "nothing as key": ({None: 1}, "$"),
    "tuple as key": ({(1, 2): 1}, "$"),
    "enum as key": ({Colour.RED: 1}, "$"),
    "depth 31": (_deep(31), "$" + "[0]" * 30),
    "depth 2000": (_deep(2_000), "$" + "[0]" * 30),
    "depth 31 of mappings": (_deep_mappings(31), "$" + ".a" * 30),
    "circular": (_circular(), "$" + "[0]" * 30),
    "billion laughs": (_bomb(), "$"),
}
"""Refused as untyped data or result, at this path."""

VALUES_ALLOWED: dict[str, Any] = {
    "nothing": None,
    "truth": True,
    "text": "caf\u00e9 \U0001f600",
    "empty": {},
    "list": [1, 2.5, "x", None, False, [], {}],
    "depth 30": _deep(30),
    "beyond 2 to the 53": 2**53 + 1,
    "largest": 2**63 - 1,
    "smallest": -(2**63) + 1,
    "backslash u0000": "\\u0000",
    "many keys": {str(number): number for number in range(1_000)},
    "sql": {"a": NAMES_TEXT["sql"], NAMES_TEXT["script"]: NAMES_TEXT["attribute"]},
    "empty key": {"": 1},
}
"""Given back equal."""

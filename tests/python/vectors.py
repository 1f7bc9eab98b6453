"""The records in tests/fixtures/vectors, as Python values."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
import struct
from datetime import datetime, timedelta
from pathlib import Path

import zstandard

DIRECTORY = Path(__file__).parents[1] / "fixtures" / "vectors"


class UnknownTagError(Exception):
    """A tagged value that no test here needs."""


@functools.cache
def records(family: str) -> list[dict]:
    with (DIRECTORY / f"{family}.jsonl.zst").open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file).read().decode("ascii")
    return [json.loads(line) for line in io.StringIO(text)]


def case(record: dict) -> str:
    return record["id"].split("/", 3)[3]


def release(record: dict) -> tuple[int, int]:
    major, minor = record["django_version"].split(".")[:2]
    return int(major), int(minor)


def secret(value):
    return plain(value)


def stored_text(record: dict) -> str | bytes:
    value = record["stored"]["value"]
    return value if record["stored"]["encoding"] == "text" else base64.b64decode(value)


def plain(value):
    """Undo the tagged form."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("__type__")
    if kind is None:
        return {key: plain(item) for key, item in value.items()}
    try:
        return TAGS[kind](value)
    except KeyError:
        raise UnknownTagError(kind) from None


def whole_number(text: str) -> int:
    """An integer of any length, past the limit that Python sets for conversions."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    number = 0
    for start in range(0, len(digits), 4000):
        part = digits[start : start + 4000]
        number = number * 10 ** len(part) + int(part)
    return sign * number


def nest(value):
    inner = plain(value["leaf"])
    for step in reversed(value["steps"]):
        inner = [inner] if step == "l" else {"k": inner}
    return inner


TAGS = {
    "bytes": lambda v: bytes.fromhex(v["hex"]),
    "datetime": lambda v: datetime.fromisoformat(v["value"]),
    "dict": lambda v: {plain(key): plain(item) for key, item in v["items"]},
    "float": lambda v: struct.unpack(">d", bytes.fromhex(v["bits"]))[0],
    "int": lambda v: whole_number(v["value"]),
    "nest": nest,
    "str": lambda v: bytes.fromhex(v["wtf8_hex"]).decode("utf-8", "surrogatepass"),
    "str_repeat": lambda v: v["char"] * v["count"],
    "timedelta": lambda v: timedelta(**{key: item for key, item in v.items() if key != "__type__"}),
    "tuple": lambda v: tuple(plain(item) for item in v["items"]),
}


def bits(number: float) -> bytes:
    return struct.pack(">d", number)


def same(one, other) -> bool:
    """Equal in type, in the bits of floats and in the order of keys, at any depth."""
    pairs = [(one, other)]
    while pairs:
        a, b = pairs.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, dict):
            if list(a) != list(b):
                return False
            pairs.extend(zip(a.values(), b.values(), strict=True))
        elif isinstance(a, (list, tuple)):
            if len(a) != len(b):
                return False
            pairs.extend(zip(a, b, strict=True))
        elif isinstance(a, float):
            if bits(a) != bits(b) and not (math.isnan(a) and math.isnan(b)):
                return False
        elif a != b:
            return False
    return True

"""The records in tests/fixtures/vectors, as Python values."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
import re
import struct
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta
from decimal import Decimal
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


def python2_str(value):
    """A Python 2 string as it is read here: text where it is ASCII."""
    found = bytes.fromhex(value["hex"])
    return found.decode("ascii") if found.isascii() else found


def whole_range(value):
    numbers = [int(number) for number in re.findall(r"-?\d+", value["repr"])]
    return range(*numbers)


TAGS = {
    "Decimal": lambda v: Decimal(v["value"]),
    "UUID": lambda v: uuid.UUID(v["value"]),
    "bytearray": lambda v: bytearray.fromhex(v["hex"]),
    "bytes": lambda v: bytes.fromhex(v["hex"]),
    "complex": lambda v: complex(plain(v["real"]), plain(v["imag"])),
    "date": lambda v: date.fromisoformat(v["value"]),
    "datetime": lambda v: datetime.fromisoformat(v["value"]),
    "dict": lambda v: {plain(key): plain(item) for key, item in v["items"]},
    "float": lambda v: struct.unpack(">d", bytes.fromhex(v["bits"]))[0],
    "int": lambda v: whole_number(v["value"]),
    "nest": nest,
    "py2str": python2_str,
    "range": whole_range,
    "str": lambda v: bytes.fromhex(v["wtf8_hex"]).decode("utf-8", "surrogatepass"),
    "str_repeat": lambda v: v["char"] * v["count"],
    "time": lambda v: time.fromisoformat(v["value"]),
    "timedelta": lambda v: timedelta(**{key: item for key, item in v.items() if key != "__type__"}),
    "tuple": lambda v: tuple(plain(item) for item in v["items"]),
}


def bits(number: float) -> bytes:
    return struct.pack(">d", number)


def same(one, other) -> bool:  # noqa: PLR0911 - one for each kind of difference
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
        elif isinstance(a, Decimal):
            # A Decimal that is no number is not equal to itself, and 1.0 is equal to 1.00.
            if str(a) != str(b):
                return False
        elif a != b:
            return False
    return True


# Pickles hold more than has an equal in the tagged form, so they are compared with it.

SAFE_STRINGS = {
    f"django.utils.safestring.{name}" for name in ("SafeString", "SafeText", "SafeUnicode")
}


def agrees(found, tagged, *, ordered=True) -> bool:
    """Whether a value out of `loads_safe` is what the tagged form says.

    Python 2 dicts are not `ordered`. An object of a class that is not imported has to be of that
    class, and a Python 2 string what the rule of `loads_safe` makes of it.
    """
    return Comparison(found, ordered).agrees(found, tagged)


class Comparison:
    def __init__(self, root, ordered):
        self.root = root
        self.ordered = ordered

    def agrees(self, found, tagged) -> bool:
        if isinstance(tagged, list):
            return type(found) is list and self.all_agree(found, tagged)
        if not isinstance(tagged, dict):
            return type(found) is type(tagged) and found == tagged
        kind = tagged.get("__type__")
        if kind is None:
            return type(found) is dict and self.pairs_agree(found, list(tagged.items()))
        if kind in ONE_BY_ONE:
            return getattr(self, f"{kind.lower()}_agrees")(found, tagged)
        return same(found, plain(tagged))

    def all_agree(self, found, tagged) -> bool:
        found = list(found)
        return len(found) == len(tagged) and all(map(self.agrees, found, tagged))

    def pairs_agree(self, found, pairs, *, ordered=None) -> bool:
        if len(found) != len(pairs):
            return False
        if self.ordered if ordered is None else ordered:
            items = zip(found.items(), pairs, strict=True)
            return all(
                self.agrees(key, name) and self.agrees(value, item)
                for (key, value), (name, item) in items
            )
        left = list(found.items())
        for name, item in pairs:
            for index, (key, value) in enumerate(left):
                if self.agrees(key, name) and self.agrees(value, item):
                    del left[index]
                    break
        return not left

    def dict_agrees(self, found, tagged) -> bool:
        return type(found) is dict and self.pairs_agree(found, tagged["items"])

    def ordereddict_agrees(self, found, tagged) -> bool:
        return type(found) is OrderedDict and self.pairs_agree(found, tagged["items"], ordered=True)

    def defaultdict_agrees(self, found, tagged) -> bool:
        factory = found.default_factory
        name = factory and f"builtins.{factory.__qualname__}"
        expected = tagged["factory"] and tagged["factory"].replace("__builtin__", "builtins")
        return (
            type(found) is defaultdict
            and name == expected
            and self.pairs_agree(found, tagged["items"])
        )

    def deque_agrees(self, found, tagged) -> bool:
        return (
            type(found) is deque
            and found.maxlen == tagged["maxlen"]
            and self.all_agree(found, tagged["items"])
        )

    def tuple_agrees(self, found, tagged) -> bool:
        return type(found) is tuple and self.all_agree(found, tagged["items"])

    def set_agrees(self, found, tagged, kind=set) -> bool:
        if type(found) is not kind or len(found) != len(tagged["items"]):
            return False
        return all(any(self.agrees(item, one) for item in found) for one in tagged["items"])

    def frozenset_agrees(self, found, tagged) -> bool:
        return self.set_agrees(found, tagged, frozenset)

    def nest_agrees(self, found, tagged) -> bool:
        for step in tagged["steps"]:
            if type(found) is not (list if step == "l" else dict) or len(found) != 1:
                return False
            found = found[0 if step == "l" else "k"]
        return self.agrees(found, tagged["leaf"])

    def ref_agrees(self, found, tagged) -> bool:
        return found is at(self.root, tagged["path"])

    def datetime_agrees(self, found, tagged, kind=datetime) -> bool:
        zone = tagged["tz"]
        if type(found) is not kind or found.fold != (tagged["fold"] or 0):
            return False
        if found.isoformat() != tagged["value"] or (found.tzinfo is None) is not (zone is None):
            return False
        if zone is None:
            return True
        name = f"{type(found.tzinfo).__module__}.{type(found.tzinfo).__qualname__}"
        if zone["class"] in {"datetime.timezone", "zoneinfo.ZoneInfo"}:
            return name == zone["class"] and getattr(found.tzinfo, "key", None) == zone.get("key")
        offset = timedelta(seconds=zone["utcoffset_seconds"])
        return name.endswith(".OpaqueTimezone") and found.utcoffset() == offset

    def time_agrees(self, found, tagged) -> bool:
        return self.datetime_agrees(found, tagged, time)

    def object_agrees(self, found, tagged) -> bool:
        if tagged["class"] == "collections.Counter":
            return type(found) is Counter and self.pairs_agree(found, tagged["items"])
        if tagged["class"] in SAFE_STRINGS:
            return type(found).__name__ == "SafeString" and str(found) == tagged["value"]
        if type(found).__name__ != "OpaqueObject":
            return False
        return found.class_ is None or f"{found.module}.{found.name}" in CALLED.get(
            tagged["class"], [tagged["class"].replace("exceptions.", "builtins.")]
        )

    def enum_agrees(self, found, tagged) -> bool:
        return self.object_agrees(found, tagged) and found.args == (plain(tagged["value"]),)

    def lazy_agrees(self, found, tagged) -> bool:
        return (found.module, found.name) == (
            "django.utils.functional",
            "_lazy_proxy_unpickle",
        )

    def global_agrees(self, found, tagged) -> bool:
        name = tagged["name"].replace("__builtin__", "builtins")
        return type(found).__name__ == "OpaqueGlobal" and f"{found.module}.{found.name}" == name


ONE_BY_ONE = {
    "OrderedDict",
    "datetime",
    "defaultdict",
    "deque",
    "dict",
    "enum",
    "frozenset",
    "global",
    "lazy",
    "nest",
    "object",
    "ref",
    "set",
    "time",
    "tuple",
}

# What a pickle calls where that is not the class itself.
CALLED = {
    "__builtin__.instance": ["pickmod.OldStyle"],
    "django.contrib.auth.models.User": ["django.db.models.base.model_unpickle"],
    "pickmod.Reduced": ["pickmod.rebuild"],
}


def at(root, path):
    """The value at a path like `$["a"][0]`."""
    for name, index in re.findall(r'\["([^"]*)"\]|\[(\d+)\]', path):
        root = root[int(index)] if index else root[name]
    return root

# ruff: noqa: BLE001, C901, DTZ001, PLR0911, RUF005, SIM905 - many kinds of values
"""Ours against Django on random sessions, both ways, and the length of what is stored.

The generator is seeded: a failure comes back. ``SESSIONS`` sessions go each way.
``make differential`` goes on with other seeds.
"""

import base64
import datetime
import decimal
import enum
import json
import math
import os
import random
import string
import uuid

import pytest
from conftest import frozen
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.contrib.sessions.serializers import JSONSerializer
from django.test import override_settings
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from vectors import same

from django_session_rs import DecodeError, SessionCodec
from django_session_rs.backends.db import SessionStore

SESSIONS = 20_000
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "20261121"))
CODEC = SessionCodec("any key")


class Colour(enum.IntEnum):
    RED = 3


class Word(enum.Enum):
    ONE = "one"


class Text(str):
    __slots__ = ()


class Mapping(dict):
    pass


class Whole(int):
    def __repr__(self):
        return "not this"


class Rows(list):
    pass


class Pair(tuple):
    __slots__ = ()


class Half(float):
    def __repr__(self):
        return "not this"


ODD = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    2.2250738585072014e-308,
    1e16,
    9999999999999998.0,
    1e-4,
    9.999e-5,
    1e22,
    1e23,
    123456789.123456789,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    10**40,
    True,
    False,
    None,
    "",
    "\x00\x1f\x7f\x80\xff",
    "\u2028\u2029\ufeff\ufffe",
    "\ud800",
    "\udc00\ud800",
    "\ud83d\ude00",
    "😀" * 3,
    '"\\/\b\f\n\r\t',
    mark_safe("<b>é</b>"),
    Colour.RED,
    Text("tëxt"),
    Whole(7),
    Half(2.5),
    Rows([1]),
    Pair((1, 2)),
    Mapping(a=1),
    (),
    [],
    {},
]
REFUSED = [
    b"bytes",
    {1, 2},
    datetime.datetime(2026, 1, 2),
    decimal.Decimal("1.5"),
    uuid.UUID(int=5),
    gettext_lazy("lazy"),
    object,
    1j,
    Word.ONE,
    range(3),
    {(1, 2): 3},
    {b"a": 1},
]
KEYS = [1, 0, -5, True, False, None, 1.5, math.nan, 10**25, Colour.RED, Text("k"), "1", "true", ""]
ALPHABETS = [
    string.ascii_letters,
    string.printable,
    "".join(map(chr, range(256))),
    "äöüßéèñçабвгд漢字かな",
    "😀🎉\U0010ffff\U00010000",
    '\\"',
]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def text(self):
        r = self.random
        if r.random() < 0.3:
            return "".join(chr(r.randrange(0x110000)) for _ in range(r.randrange(6)))
        alphabet = r.choice(ALPHABETS)
        return "".join(r.choices(alphabet, k=r.randrange(30)))

    def number(self):
        r = self.random
        kind = r.randrange(6)
        if kind == 0:
            return r.randrange(-1000, 1000)
        if kind == 1:
            return r.getrandbits(r.randrange(1, 200)) * r.choice((1, -1))
        if kind == 2:
            return r.uniform(-1e6, 1e6)
        if kind == 3:
            return float(r.randrange(-(10**20), 10**20))
        if kind == 4:
            return r.randrange(10**9) / 10 ** r.randrange(12)
        # Any bits at all, not-a-number among them.
        return memoryview(r.randbytes(8)).cast("d")[0]

    def value(self, depth=0):
        r = self.random
        kind = r.randrange(12)
        if kind < 3:
            return self.text()
        if kind < 6:
            return self.number()
        if kind == 6:
            return r.choice(ODD)
        if kind == 7 and r.random() < 0.02:
            return r.choice(REFUSED)
        if depth > 4 or kind < 9:
            return r.choice((None, True, False, 1, "a"))
        if kind == 9:
            return [self.value(depth + 1) for _ in range(r.randrange(6))]
        if kind == 10 and r.random() < 0.2:
            return tuple(self.value(depth + 1) for _ in range(r.randrange(4)))
        return self.mapping(depth + 1)

    def key(self):
        return self.random.choice(KEYS) if self.random.random() < 0.03 else self.text()

    def mapping(self, depth):
        return {self.key(): self.value(depth) for _ in range(self.random.randrange(7))}

    def nested(self):
        inner = self.value(4)
        for _ in range(self.random.choice((5, 150, 198, 199, 200, 201, 202, 300))):
            inner = [inner] if self.random.random() < 0.5 else {"k": inner}
        return inner

    def session(self):
        session = self.mapping(0)
        if self.random.random() < 0.01:
            session["deep"] = self.nested()
        return session


def outcome(function, *args):
    """What a call gives: the value, or the type and message of the exception."""
    try:
        return "gives", function(*args)
    except Exception as error:
        return "raises", type(error), str(error)


def test_sessions_of_ours_and_of_django_s_are_one():
    generator = Generator(SEED)
    ours, theirs = SessionStore(), DjangoStore()
    written = refused = 0
    for number in range(SESSIONS):
        data = generator.session()
        expected = outcome(theirs.encode, data)
        found = outcome(ours.encode, data)
        assert found[0] == expected[0], (number, data)
        if expected[0] == "raises":
            assert found == expected, (number, data)
            refused += 1
            continue
        written += 1
        payload = JSONSerializer().dumps(data)
        key = ours_codec().decode_bytes
        assert key(found[1]) == payload, (number, data)
        assert key(expected[1]) == payload
        meant = theirs.decode(expected[1])
        assert same(theirs.decode(found[1]), meant), (number, data)
        assert same(ours.decode(expected[1]), meant), (number, data)
        assert same(ours.decode(found[1]), meant), (number, data)
    assert written > SESSIONS * 0.8
    assert refused > SESSIONS * 0.005


def ours_codec():
    from conftest import SECRET_KEY

    return SessionCodec(SECRET_KEY)


FRAGMENTS = [
    *'{}[]:,"\\/ \t\n\r-+.eE0123456789',
    *["null", "true", "false", "NaN", "Infinity", "-Infinity", "\\u", "\\ud83d\\ude00", "\\n"],
    *["1.5", "-0", "1e400", "1E+2", "00", '"a":', '"a"', "[]", "{}", '{"a":1}', "\x00", "\x7f"],
    *["\xe9", "\xa0", "\ufeff".encode().decode("latin-1"), "9" * 30, "\\uD800", "\\u00zz", "''"],
]


def test_any_text_is_read_as_python_reads_it():
    r = random.Random(SEED)
    read = 0
    for _ in range(SESSIONS):
        if r.random() < 0.5:
            text = "".join(r.choices(FRAGMENTS, k=r.randrange(1, 9)))
        else:
            # A valid text with one change.
            text = json.dumps(Generator(r.random()).value(2), default=str, skipkeys=True)
            at = r.randrange(len(text) + 1)
            text = text[:at] + r.choice([*FRAGMENTS, ""]) + text[at + r.randrange(2) :]
        payload = text.encode("latin-1")
        expected = outcome(json.loads, text)
        found = outcome(CODEC.decode_any, CODEC.encode_bytes(payload))
        if expected[0] == "gives":
            read += 1
            assert found[0] == "gives", text
            assert same(found[1], expected[1]), text
        else:
            assert found[:2] == ("raises", DecodeError), text
    assert read > SESSIONS * 0.1


@pytest.mark.parametrize("depth", [1, 199, 200, 201, 500, 900])
def test_depth(depth):
    for build in (lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,)):
        value = 1
        for _ in range(depth):
            value = build(value)
        payload = json.dumps(value, separators=(",", ":")).encode()
        text = CODEC.encode(value)
        assert CODEC.decode_bytes(text) == payload
        assert same(CODEC.decode_any(text), json.loads(payload))


def test_what_json_refuses_is_refused_the_same_way():
    circle = []
    circle.append(circle)
    ring = {}
    ring["a"] = {"b": [ring]}
    deep = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, ring, deep, *REFUSED, {"a": [1, {2}]}, {(1,): 1}):
        expected = outcome(JSONSerializer().dumps, value)
        assert expected[0] == "raises"
        assert outcome(CODEC.encode, value) == expected
    # Not a comparison with a warm stack: only that the depth is an error and no crash.
    with pytest.raises(RecursionError):
        CODEC.encode(deep)
    with pytest.raises(DecodeError) as caught:
        CODEC.decode_any(CODEC.encode_bytes(b"[" * 200_000))
    assert caught.value.reason == "json"
    while isinstance(deep, list):
        deep = deep[0]


def test_keys_that_look_alike_stay_apart():
    """The reader remembers keys by a few of their bytes."""
    names = ["a" * length for length in range(50)]
    names += [f"field_{number:05}" for number in range(3000)]
    names += ["\\u00e9", "é", "a\x7f", 'a"b', "a\\b"]
    data = {name: index for index, name in enumerate(names)}
    for _ in range(2):
        assert same(CODEC.decode(CODEC.encode(data)), data)
    rows = [{name: 1} for name in names for _ in range(2)]
    assert same(CODEC.decode_any(CODEC.encode(rows)), rows)


def test_results_are_the_caller_s_own():
    text = CODEC.encode({"a": [], "b": {}})
    first = CODEC.decode(text)
    first["a"].append(1)
    first["b"]["c"] = 1
    assert CODEC.decode(text) == {"a": [], "b": {}}


# The length of what is stored.

WORDS = (
    "the of and to in is that it was for on are as with his they at be this have from or one had "
    "by word but not what all were we when your can said there use an each which she do how their "
    "if will up other about out many then them these so some her would make like him into time"
).split()


def corpus():
    """Kinds of text, each in sizes from two bytes to a megabyte."""
    r = random.Random(11)
    sizes = [2, 10, 20, 40, 60, 80, 100, 130, 171, 250, 400, 600, 900, 1400, 2000, 3000, 4000]
    sizes += [4090, 4100, 4200, 5000, 7000, 10_000, 20_000, 50_000, 200_000, 1_000_000]
    sizes += [r.randrange(2, 8000) for _ in range(40)]

    def words(size):
        text = ""
        while len(text) < size:
            text += " ".join(r.choices(WORDS, k=12)).capitalize() + ". "
        return text[:size]

    def cart(size):
        rows, length = [], 0
        while length < size:
            rows.append(
                {
                    "product_id": r.randrange(10**5),
                    "quantity": r.randrange(1, 9),
                    "price": f"{r.randrange(10**4) / 100:.2f}",
                    "name": " ".join(r.choices(WORDS, k=3)),
                }
            )
            length += len(json.dumps(rows[-1], separators=(",", ":"))) + 1
        return rows

    def nested(size):
        value = []
        for number in range(size // 6):
            value = [number % 7, value] if number < 60 else [*value[:1], value[1], number % 10]
            if number >= 60:
                value = value[:2] + [[number % 10] * (size // 4)]
                break
        return value

    def phrase(length):
        return lambda size: ("".join(r.choices(string.printable, k=length)) * size)[:size]

    def emails(size):
        text = ""
        while len(text) < size:
            text += f"{r.choice(WORDS)}.{r.choice(WORDS)}{r.randrange(99)}@example.com,"
        return text[:size]

    kinds = {
        "all the same": lambda size: "a" * size,
        "base64": lambda size: base64.b64encode(r.randbytes(size)).decode()[:size],
        "cart": cart,
        "digits": lambda size: "".join(r.choices("0123456789", k=size)),
        "emails": emails,
        "empty strings": lambda size: [""] * (size // 3),
        "english": words,
        "floats": lambda size: [r.random() for _ in range(size // 20)],
        "hex": lambda size: r.randbytes(size).hex()[:size],
        "integers": lambda size: [r.randrange(10**6) for _ in range(size // 7)],
        "letters of two": lambda size: "".join(r.choices("ab", k=size)),
        "login": lambda size: {
            "_auth_user_id": str(r.randrange(10**6)),
            "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
            "_auth_user_hash": r.randbytes(32).hex(),
            "more": words(size)[: max(size - 174, 0)],
        },
        "nested": nested,
        "non-ASCII": lambda size: "".join(r.choices("äöüßéабвгд漢字", k=size // 6)),
        "nulls": lambda size: [None] * (size // 5),
        "phrase of 3": phrase(3),
        "phrase of 10": phrase(10),
        "phrase of 50": phrase(50),
        "phrase of 300": phrase(300),
        "printable": lambda size: "".join(r.choices(string.printable, k=size)),
        "true and false": lambda size: [r.random() < 0.5 for _ in range(size // 6)],
        "uuids": lambda size: [str(uuid.UUID(int=r.getrandbits(128))) for _ in range(size // 39)],
    }
    for kind, build in kinds.items():
        for size in sizes:
            yield kind, size, {"data": build(size)}


def test_what_is_stored_is_not_much_longer_than_django_s():
    """At most 1.3 times as long. With "small" hardly longer: 1.045 times where a text repeats
    itself so much that nothing is left of it (4 characters of 96), 1.02 times otherwise.
    """
    ours, theirs = SessionStore(), DjangoStore()
    ratios = {"fast": [], "small": []}
    totals = dict.fromkeys(("fast", "small", "django"), 0)
    with frozen(1_700_000_000):
        for kind, size, data in corpus():
            django = len(theirs.encode(data))
            totals["django"] += django
            for compression, found in ratios.items():
                with override_settings(SESSION_COMPRESSION=compression):
                    text = ours.encode(data)
                totals[compression] += len(text)
                found.append((len(text) / django, kind, size))
    assert max(ratios["fast"])[0] <= 1.3, max(ratios["fast"])
    assert max(ratios["small"])[0] <= 1.045, max(ratios["small"])
    beyond = [ratio for ratio, *_ in ratios["small"] if ratio > 1.02]
    assert len(beyond) <= len(ratios["small"]) * 0.03
    assert totals["small"] <= totals["django"]
    assert totals["fast"] <= totals["django"] * 1.05

"""`django_session_rs.pickle` against Python's `pickle` and what Django releases wrote."""

import base64
import collections
import copy
import datetime
import decimal
import enum
import fractions
import functools
import io
import pickle
import re
import sys
import threading
import types
import uuid
import warnings
import zoneinfo
from pathlib import Path

import pickmod
import pytest
from tally import each, no_bytes
from unpicklers import Symbolic, fingerprint, print_of
from vectors import agrees, at, case, records, same

from django_session_rs import DecodeError, PayloadTooLargeError
from django_session_rs._native import _rewrite_pickle
from django_session_rs.pickle import (
    OpaqueGlobal,
    OpaqueObject,
    OpaqueTimezone,
    PickleSerializer,
    dumps,
    loads_safe,
)

PROTOCOLS = (2, 3, 4, 5)


@pytest.fixture(scope="module", autouse=True)
def user_model():
    """The class of the recorded users, which is in no app of these tests."""
    from django.apps import apps
    from django.test.utils import modify_settings

    added = ["django.contrib.contenttypes", "django.contrib.auth"]
    with modify_settings(INSTALLED_APPS={"append": added}):
        assert apps.is_installed("django.contrib.auth")
        yield


def recorded():
    for record in records("pickle_types"):
        if "pickle_b64" in record:
            yield record, base64.b64decode(record["pickle_b64"])


@pytest.mark.vectors
def test_every_recorded_pickle_is_what_was_pickled():
    count = 0
    for record in records("pickle_types"):
        if "pickle_b64" not in record:
            no_bytes(record, "Python itself could not pickle it")
    for record in each(record for record, _ in recorded()):
        data = base64.b64decode(record["pickle_b64"])
        found = loads_safe(data)
        python2 = record["python_version"].startswith("2.")
        assert agrees(found, record["expected"], ordered=not python2), record["id"]
        for paths in record.get("identity", ()):
            one, *others = (at(found, path) for path in paths)
            assert all(other is one for other in others), record["id"]
        count += 1
    assert count == 3611


def test_python_makes_the_same_of_what_is_written_back():
    """Same types, values, order and identities, by the bytes of pickling both again."""
    compared, not_here = 0, set()
    with warnings.catch_warnings():
        # Of another release of Django.
        warnings.simplefilter("ignore", RuntimeWarning)
        for record, data in recorded():
            try:
                expected = fingerprint(data)
            except (ImportError, AttributeError):
                # pytz, and classes of Django releases that are gone.
                not_here.add(case(record).split("/")[0])
                continue
            protocol = max(record["protocol"], 2)
            assert fingerprint(dumps(loads_safe(data), protocol=protocol)) == expected, record["id"]
            assert fingerprint(_rewrite_pickle(data)) == expected, record["id"]
            compared += 1
    assert not_here <= {
        "datetime_django_fixed",
        "datetime_pytz",
        "datetime_pytz_utc",
        "datetime_utc_django",
        "lazy_string",
        "model_instance",
        "safe_text",
        "time_utc",
        "whole_session",
    }
    assert compared > 3400


def test_every_recorded_pickle_says_the_same_when_written_back():
    """The same for all of them, with stand-ins for classes that cannot be imported."""
    count = 0
    for record, data in recorded():
        expected = fingerprint(data, Symbolic)
        protocol = max(record["protocol"], 2)
        written = dumps(loads_safe(data), protocol=protocol)
        assert fingerprint(written, Symbolic) == expected, record["id"]
        assert fingerprint(_rewrite_pickle(data), Symbolic) == expected, record["id"]
        count += 1
    assert count == 3611


def test_any_protocol_can_be_written():
    for record, data in recorded():
        if record["protocol"] != 2:
            continue
        value = loads_safe(data)
        expected = {}
        for written_from in (value, loads_safe(dumps(value, protocol=3))):
            for protocol in PROTOCOLS:
                written = dumps(written_from, protocol=protocol)
                assert written[1] == protocol
                found = fingerprint(written, Symbolic)
                assert found == expected.setdefault(protocol, found), record["id"]


# What is read.


def python2(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text + b"."


def test_python_2_strings():
    assert loads_safe(python2(b"abc")) == "abc"
    assert loads_safe(python2(b"\xe9")) == b"\xe9"
    assert loads_safe(python2(b"abc"), encoding="bytes") == b"abc"
    assert loads_safe(python2(b"\xe9"), encoding="latin-1") == "é"
    assert loads_safe(python2("é".encode()), encoding="utf-8") == "é"
    with pytest.raises(DecodeError):
        loads_safe(python2(b"\xe9"), encoding="utf-8")
    with pytest.raises(LookupError, match="no such"):
        loads_safe(python2(b"\xe9"), encoding="no such")


def test_names_of_python_2_are_those_of_python_3():
    data = pickle.dumps(ValueError("a"), 2)
    assert b"exceptions" in data
    found = loads_safe(data)
    assert (found.module, found.name) == ("builtins", "ValueError")
    assert dumps(found, protocol=2).count(b"exceptions") == 1
    assert b"builtins" in dumps(found, protocol=4)
    assert loads_safe(b"cUserDict\nUserDict\n.") == OpaqueGlobal("collections", "UserDict")
    # From protocol 3 on a name is taken at its word.
    assert loads_safe(b"\x80\x03cUserDict\nUserDict\n.") == OpaqueGlobal("UserDict", "UserDict")


def test_only_harmless_factories_are_called():
    for factory in (None, list, dict, int, float, str, set, tuple, bool, bytes, frozenset):
        for protocol in range(6):
            value = collections.defaultdict(factory, a=1)
            found = loads_safe(pickle.dumps(value, protocol))
            assert type(found) is collections.defaultdict
            assert (found, found.default_factory) == (value, factory)
    for factory in (print, pickmod.Plain, collections.OrderedDict, functools.partial(int)):
        value = collections.defaultdict(factory, a=1)
        found = loads_safe(pickle.dumps(value))
        assert type(found) is OpaqueObject
        assert found.pairs == [("a", 1)]
        back = pickle.loads(dumps(found))
        assert back == value
        if factory is not functools.partial(int):
            assert repr(back.default_factory) == repr(factory)


def test_time_zones():
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    for zone in (
        datetime.timezone.utc,
        datetime.timezone(datetime.timedelta(hours=-3, microseconds=5), "name"),
        berlin,
    ):
        value = [datetime.datetime(2026, 11, 21, 9, 30, fold=1, tzinfo=zone), zone]
        for protocol in range(6):
            found = loads_safe(pickle.dumps(value, protocol))
            assert same(found, value)
            assert found[0].tzinfo is found[1]
            # Protocols 0 to 3 have no place for it.
            assert found[0].fold == pickle.loads(pickle.dumps(value, protocol))[0].fold
    assert loads_safe(pickle.dumps(berlin)) is berlin
    fresh = zoneinfo.ZoneInfo.no_cache("Europe/Berlin")
    assert loads_safe(pickle.dumps(fresh)) is not berlin


@pytest.mark.parametrize("key", ["Nowhere/Town", "../../etc/passwd", "os.path", "", "\x00"])
def test_a_time_zone_that_is_not_known_stays_data(key):
    data = pickle.dumps([zoneinfo.ZoneInfo("Europe/Berlin")], 2)
    data = data.replace(
        b"X\r\x00\x00\x00Europe/Berlin", b"X%c\x00\x00\x00" % len(key) + key.encode()
    )
    (found,) = loads_safe(data)
    assert type(found) is OpaqueObject
    assert found.args[0] == key
    assert key.encode() in dumps(found, protocol=2)


def test_a_zone_of_pytz_is_its_offset_and_goes_back_as_it_was():
    (data,) = (
        data
        for record, data in recorded()
        if record["id"] == "pickle_types/dj1.11.29/py3.6/datetime_pytz/pickle/p3"
    )
    found = loads_safe(data)
    assert found.isoformat() == "2031-05-06T07:08:09.123456+02:00"
    zone = found.tzinfo
    assert isinstance(zone, OpaqueTimezone)
    assert isinstance(zone, OpaqueObject)
    assert zone.args[0] == "Europe/Paris"
    assert zone.dst(found) is None
    assert zone.tzname(found) == "UTC+02:00"
    assert repr(zone) == "<OpaqueTimezone pytz._p>"
    utc = datetime.datetime(2031, 5, 6, 5, 8, 9, 123456, datetime.timezone.utc)
    assert found == utc
    assert hash(found) == hash(utc)
    moved = found + datetime.timedelta(days=1)
    assert fingerprint(dumps(moved), Symbolic) != fingerprint(dumps(found), Symbolic)
    assert fingerprint(dumps(found, protocol=3), Symbolic) == fingerprint(data, Symbolic)
    assert copy.deepcopy(found) == found
    assert copy.copy(zone) == zone


def test_a_datetime_of_another_zone_stays_data():
    value = datetime.datetime(2026, 11, 21, tzinfo=Zone())
    found = loads_safe(pickle.dumps([value, value]))
    assert type(found[0]) is OpaqueObject
    assert found[0] is found[1]
    assert found[0].args[1].name == "Zone"
    assert pickle.loads(dumps(found)) == [value, value]


class Zone(datetime.tzinfo):
    def utcoffset(self, dt):
        return datetime.timedelta(hours=1)

    def __eq__(self, other):
        return type(other) is Zone

    __hash__ = None


def test_lone_surrogates_and_large_numbers():
    for value in (
        "\ud800",
        "a\udfff\ud83d",
        2**64,
        -(2**63) - 1,
        10**4000,
        -(10**4000),
        1 << 20000,
    ):
        for protocol in range(6):
            # Text of more than 4300 digits is nothing that Python reads either.
            if protocol > 1 or not isinstance(value, int) or abs(value) < 10**4300:
                assert loads_safe(pickle.dumps(value, protocol)) == value
        for protocol in PROTOCOLS:
            assert pickle.loads(dumps(value, protocol=protocol)) == value


# Opaque objects.


def opaque(value, protocol=4):
    found = loads_safe(pickle.dumps(value, protocol))
    assert type(found) in {OpaqueObject, OpaqueGlobal}
    return found


def test_the_parts_of_an_opaque_object():
    found = opaque(pickmod.ReducedIters([9]))
    assert (found.module, found.name, found.made_by) == ("pickmod", "ReducedIters", "call")
    assert found.callable == found.class_ == OpaqueGlobal("pickmod", "ReducedIters")
    assert (found.args, found.kwargs, found.state) == ((), None, {"meta": "m"})
    assert (found.items, found.pairs) == ([1, 2, 3], [])
    assert [step[0] for step in found.steps] == ["append", "append", "append", "setstate"]
    with_kwargs = opaque(pickmod.NewArgsEx(1, kw=2))
    assert (with_kwargs.made_by, with_kwargs.args, with_kwargs.kwargs) == (
        "new_ex",
        (1,),
        {"kw": 2},
    )
    mapping = opaque(pickmod.DictSub(a=1))
    assert (mapping.made_by, mapping.pairs) == ("new", [("a", 1)])
    old = opaque(pickmod.Plain(), protocol=0)
    assert (old.made_by, old.callable.name, old.name) == ("call", "_reconstructor", "Plain")
    member = opaque(pickmod.Colour.RED)
    assert (member.name, member.args) == ("Colour", (1,))
    instance = loads_safe(b"(ipickmod\nOldStyle\n(dS'v'\nI7\nsb.")
    assert (instance.made_by, instance.name, instance.state) == ("instance", "OldStyle", {"v": 7})
    with pytest.raises(TypeError):
        OpaqueObject()


def test_an_opaque_object_shows_its_class_and_no_value():
    found = opaque(pickmod.Plain("hunter2", {"k": "hunter2"}))
    assert repr(found) == "<OpaqueObject pickmod.Plain>"
    assert repr(opaque(pickmod.rebuild)) == "<OpaqueGlobal pickmod.rebuild>"
    strange = loads_safe(b"\x80\x04\x8c\x04a\n\x1b[\x8c\x02\xc3\xa9\x93.")
    assert repr(strange) == "<OpaqueGlobal a\\n\\x1b[.\\xe9>"
    long = loads_safe(b"cm\n" + b"x" * 10_000 + b"\n.")
    assert len(repr(long)) < 300
    nameless = loads_safe(b"K\x01)R.")
    assert repr(nameless) == "<OpaqueObject of an unknown class>"
    assert nameless.module is nameless.name is None


def test_equality_is_by_parts_and_survives_cycles():
    def ring():
        value = pickmod.Plain()
        value.me = value
        value.all = [value, {"v": value}, (value,), collections.deque([value])]
        return value

    assert opaque(ring()) == opaque(ring())
    assert opaque(pickmod.Plain(1)) != opaque(pickmod.Plain(2))
    assert opaque(pickmod.Plain(1)) != opaque(pickmod.WithState(1))
    assert opaque(pickmod.Plain(1)) != 1
    assert opaque(pickmod.Plain([1, 2])) != opaque(pickmod.Plain([1, 2, 3]))
    assert opaque(pickmod.Plain({"a": 1})) != opaque(pickmod.Plain({"b": 1}))
    deep = None
    for _ in range(5000):
        deep = types.SimpleNamespace(inner=deep)
    sys.setrecursionlimit(100_000)
    try:
        data = dumps(deep)
    finally:
        sys.setrecursionlimit(1000)
    assert loads_safe(data) == loads_safe(data)


def test_opaque_objects_are_keys_and_members():
    one, two = pickmod.Plain(1), pickmod.Plain(1)
    value = {one: "one", two: "two", "set": {one, two}, (one, 1): frozenset([two])}
    for protocol in range(6):
        found = loads_safe(pickle.dumps(value, protocol))
        keys = list(found)
        assert len(keys) == 4
        assert keys[0] in found["set"]
        assert keys[3][0] is keys[0]
        assert keys[0] == keys[1]
        assert keys[0] is not keys[1]
        back = pickle.loads(dumps(found, protocol=max(protocol, 2)))
        assert list(back.values())[:2] == ["one", "two"]
        assert next(iter(back)) in back["set"]


def test_python_s_own_pickle_makes_the_real_object_of_an_opaque_one():
    for value in (pickmod.Plain(1, [2]), pickmod.Colour.RED, pickmod.rebuild, pickmod.Plain):
        for protocol in range(6):
            found = opaque(value)
            for dump in (pickle.dumps, pickle._dumps):
                back = pickle.loads(dump({"a": found}, protocol))["a"]
                assert type(back) is type(value)
                assert fingerprint(dumps(found)) == print_of(back)


def test_copies_of_opaque_objects_are_opaque():
    value = pickmod.Plain([1])
    value.me = value
    found = opaque(value)
    for copied in (copy.copy(found), copy.deepcopy(found)):
        assert type(copied) is OpaqueObject
        assert copied == found
        assert copied is not found
    deep = copy.deepcopy(found)
    assert deep.state["me"] is deep
    deep.state["a"].append(2)
    assert found.state["a"] == [1]
    name = opaque(pickmod.Plain)
    assert copy.copy(name) is name
    assert copy.deepcopy([name]) == [name]
    assert {name: 1}[OpaqueGlobal("pickmod", "Plain")] == 1


def test_an_opaque_object_can_be_changed():
    found = opaque(pickmod.Plain(1, "x"))
    found.state["a"] = datetime.date(2026, 11, 21)
    back = pickle.loads(dumps({"plain": found}))["plain"]
    assert (type(back), back.a, back.b) == (pickmod.Plain, datetime.date(2026, 11, 21), "x")


# What is written.


class Nested:
    class Inner:
        def method(self):
            return 1

    @classmethod
    def make(cls):
        return cls()


class Setter:
    """Its state is set by a function, as `__reduce__` may ask since Python 3.8."""

    def __init__(self, value=None):
        self.value = value

    def __reduce__(self):
        return Setter, (), {"value": self.value, "me": self}, None, None, set_state


def set_state(found, state):
    found.value = ("set", state["value"])
    found.me = state["me"]


class Registered:
    pass


class Frozen(frozenset):
    pass


class Rows(list):
    pass


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Stateless:
    def __getstate__(self):
        return None


class FalseState:
    def __getstate__(self):
        return 0

    def __setstate__(self, state):
        self.state = state


class Holder:
    """An object whose arguments lead back to it."""

    def __init__(self, items):
        self.items = items

    def __reduce__(self):
        return Holder, (self.items,)


def cyclic():
    items = [1]
    holder = Holder(items)
    items.append(holder)
    yield "an object in its own arguments", holder
    yield "those arguments", items
    ring = []
    ring.append((ring, {"ring": ring}))
    yield "a list in a tuple in a list", ring
    yield "that tuple", ring[0]
    mapping = {}
    mapping["me"] = mapping
    yield "a dict", mapping
    plain = pickmod.Plain()
    plain.a = {plain: [plain], "set": {plain}}
    yield "an object as a key of its own", plain
    members = set()
    member = pickmod.Plain()
    member.a = members
    members.add(member)
    yield "a set in its member", members
    frozen = frozenset([member])
    member.b = frozen
    yield "a frozenset in its member", frozen
    queue = collections.deque()
    queue.append(queue)
    yield "a deque", queue
    ordered = collections.OrderedDict()
    ordered["me"] = ordered
    yield "an OrderedDict", ordered
    defaults = collections.defaultdict(list)
    defaults["me"].append(defaults)
    yield "a defaultdict", defaults
    nested = pickmod.TupleState()
    nested.got = (nested,)
    yield "an object with a state of another kind", nested


def written():
    shared = ["shared"]
    text = "".join(["te", "xt"])  # noqa: FLY002 - an object of its own
    yield from (
        (repr(value)[:60], value)
        for value in (
            *(None, True, False, 0, 255, 256, 65536, -1, 2**31, -(2**31), 2**63, -(2**63), 2**64),
            *(1.5, float("inf"), float("nan"), -0.0, 1j, complex("nan")),
            *("", "a", "é", "\ud800", "😀", text * 300, b"", b"a", bytes(range(256)) * 300),
            *(bytearray(), bytearray(b"\xff\n"), [], (), {}, set(), frozenset()),
            *([1], (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1: 2}, {1, "a"}, frozenset([1, "b"])),
            *([*range(2500)], {str(n): n for n in range(2500)}, set(range(2500))),
            *(range(3), range(1, -5, -2), slice(1, 2), Ellipsis, NotImplemented),
            *(type(None), type(Ellipsis), type(NotImplemented), int, type, object),
            *(len, [].append, "a".upper, str.upper, dict.fromkeys, pickmod.rebuild, pickmod.Plain),
            *(
                Nested.Inner,
                Nested.Inner(),
                Nested.Inner().method,
                Nested.make,
                Nested.Inner.method,
            ),
            *(pickmod.Plain(), pickmod.Slots(), pickmod.WithState(2), pickmod.TupleState()),
            *(pickmod.Reduced(1, 2), pickmod.ReducedState("a"), pickmod.ReducedIters()),
            *(pickmod.NewArgs(1, 2), pickmod.NewArgsEx(1, kw=[2]), pickmod.StrSub("s")),
            *(pickmod.IntSub(5), pickmod.DictSub(a=1), pickmod.ListSub([1]), pickmod.OldStyle()),
            *(pickmod.Colour.RED, pickmod.Num.TWO, pickmod.Perm.R | pickmod.Perm.W),
            *(Setter(1), Registered(), Stateless(), FalseState(), Frozen([1]), Point(1, [2])),
            *(Level.LOW, Level.LOW | Level.HIGH, Level(0)),
            *(
                ValueError("a", 1),
                KeyError(),
                fractions.Fraction(1, 3),
                re.compile("a+", re.IGNORECASE),
            ),
            *(
                decimal.Decimal("1.50"),
                decimal.Decimal("NaN"),
                uuid.UUID(int=5),
                uuid.NAMESPACE_DNS,
            ),
            *(datetime.date(1, 1, 1), datetime.time(1, 2, fold=1), datetime.timedelta(-1, 5, 6)),
            *(datetime.datetime(2026, 11, 21), datetime.timezone.utc),  # noqa: DTZ001
            *(datetime.datetime(2026, 11, 21, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),),
            *(collections.deque([1], 5), collections.OrderedDict(b=1, a=2)),
            *(collections.Counter("aab"), collections.defaultdict(list, a=[1])),
            *(collections.ChainMap({"a": 1}), collections.UserDict(a=1)),
            *(functools.partial(int, base=2), types.SimpleNamespace(a=1), io.BytesIO(b"abc")),
            *(iter([1, 2]), enumerate("ab"), zip([1], [2], strict=False), Path("a/b"), array()),
            *([shared, shared, (shared,), {"k": shared}], [text, text, {text: text}]),
        )
    )
    yield from cyclic()


def array():
    import array

    return array.array("i", [1, 2])


@pytest.mark.parametrize(("name", "value"), [pytest.param(n, v, id=n) for n, v in written()])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_are_pickled_as_python_does(protocol, name, value):
    reference = copy.copy(value) if isinstance(value, (enumerate, zip, type(iter([])))) else value
    try:
        expected = fingerprint(pickle.dumps(reference, protocol))
    except RecursionError:
        # Python itself does not get through these; what it would make is known.
        pytest.fail("Python refuses it")
    ours = dumps(value, protocol=protocol)
    assert fingerprint(ours) == expected
    assert ours[:2] == bytes([0x80, protocol])
    # As data, and back.
    assert fingerprint(dumps(loads_safe(ours), protocol=protocol)) == expected
    assert fingerprint(_rewrite_pickle(ours)) == expected


def test_a_function_that_sets_the_state_is_kept():
    for protocol in PROTOCOLS:
        for data in (pickle.dumps([Setter(1)], protocol), dumps([Setter(1)], protocol=protocol)):
            (found,) = loads_safe(data)
            assert [step[0] for step in found.steps] == ["call"]
            assert found.state["value"] == 1
            assert found.state["me"] is found
            for again in (dumps([found], protocol=protocol), _rewrite_pickle(data)):
                (back,) = pickle.loads(again)
                assert back.value == ("set", 1)
                assert back.me is back


def test_reducers_that_were_registered_are_used(monkeypatch):
    import copyreg

    monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda _: (Point, (1, 2)))
    assert pickle.loads(dumps(Registered())) == Point(1, 2)


class Answer:
    def __init__(self, answer):
        self.answer = answer

    def __reduce_ex__(self, protocol):
        return self.answer


class Endless:
    def __reduce__(self):
        return Endless, (Endless(),)


class Moved:
    pass


Moved.__module__ = "no.such.module"


def refused():
    local = type("Local", (), {})
    yield from (
        (lambda: 1, pickle.PicklingError),
        (local, pickle.PicklingError),
        (local(), pickle.PicklingError),
        (Moved, pickle.PicklingError),
        (Moved(), pickle.PicklingError),
        ((n for n in ()), TypeError),
        (threading.Lock(), TypeError),
        (sys, TypeError),
        (memoryview(b""), TypeError),
        (Answer(5), pickle.PicklingError),
        (Answer(()), pickle.PicklingError),
        (Answer((1, 2, 3, 4, 5, 6, 7)), pickle.PicklingError),
        (Answer((int, [1])), pickle.PicklingError),
        (Answer((5, ())), pickle.PicklingError),
        (Answer("no.such.name"), pickle.PicklingError),
        (Answer("Answer"), pickle.PicklingError),
        (Endless(), RecursionError),
        (types.SimpleNamespace(a=[{"b": lambda: 1}]), pickle.PicklingError),
    )


@pytest.mark.parametrize(
    ("value", "error"), [pytest.param(v, e, id=repr(v)[:40]) for v, e in refused()]
)
def test_what_python_refuses_is_refused_the_same_way(value, error):
    for protocol in PROTOCOLS:
        # A local function is an AttributeError in Python before 3.14.
        with pytest.raises((error, AttributeError)):
            pickle.dumps(value, protocol)
        with pytest.raises(error):
            dumps(value, protocol=protocol)


def test_arguments():
    for protocol in (-1, 0, 1, 6, 256):
        with pytest.raises((ValueError, OverflowError)):
            dumps(1, protocol=protocol)
    for data in (b"N.", bytearray(b"N."), memoryview(b"N.")):
        assert loads_safe(data) is None
    for data in ("N.", None, 5, [78, 46]):
        with pytest.raises(TypeError, match="bytes"):
            loads_safe(data)
    with pytest.raises(PayloadTooLargeError):
        loads_safe(pickle.dumps("a" * 100), max_size=50)
    with pytest.raises(PayloadTooLargeError):
        loads_safe(pickle.dumps([1000, 2000, 3000, 4000] * 10), max_nodes=20)


def test_bytes_that_are_no_pickle():
    for data in (
        b"",
        b".",
        b"N",
        b"K",
        b"}",
        b"\x80\x06N.",
        b"\x80\x04\x95\xff\xff",
        b"(((",
        b"\xff",
    ):
        with pytest.raises(DecodeError) as caught:
            loads_safe(data)
        assert caught.value.reason == "pickle"
        assert caught.value.__cause__ is caught.value.__context__ is None


def test_what_python_cannot_hold_is_an_error_without_the_value():
    for data in (
        b"}](S'hunter2'\neK\x01s.",  # a list as a key
        b"\x8f(}S'hunter2'\nK\x01s\x90.",  # a dict in a set
        b"cdecimal\nDecimal\nS'hunter2'\n\x85R.",
        b"cbuiltins\nrange\n(K\x01K\x02K\x00tR.",
    ):
        with pytest.raises(DecodeError) as caught:
            loads_safe(data)
        assert caught.value.reason == "pickle"
        assert "hunter2" not in repr(caught.value)
        assert caught.value.__context__ is None


# The serializer.


def test_the_serializer_of_a_site():
    from django.contrib.sessions.backends.db import SessionStore
    from django.test import override_settings

    from django_session_rs.backends.db import SessionStore as Ours

    data = {"when": datetime.date(2026, 11, 21), "cart": pickmod.Plain(1), 5: {1, 2}}
    with override_settings(SESSION_SERIALIZER="django_session_rs.pickle.PickleSerializer"):
        for store in (SessionStore(), Ours()):
            found = store.decode(store.encode(data))
            assert type(found["cart"]) is OpaqueObject
            assert found == {**data, "cart": found["cart"]}
            again = store.decode(store.encode(found))
            assert again == found
    assert fingerprint(PickleSerializer(2).dumps(found)) == print_of(data)

"""`django_session_rs.pickle` against Python's `pickle` on random objects, pickles and bytes."""

import collections
import datetime
import decimal
import io
import pickle
import string
import zoneinfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from unpicklers import REAL, Python, print_of

from django_session_rs import DecodeError
from django_session_rs._native import _rewrite_pickle
from django_session_rs.pickle import OpaqueGlobal, OpaqueObject, dumps, loads_safe

PROTOCOLS = (2, 3, 4, 5)
ZONES = st.one_of(
    st.just(datetime.timezone.utc),
    st.builds(
        datetime.timezone,
        st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)),
        st.text(string.ascii_letters, max_size=3),
    ),
    st.sampled_from(["Europe/Berlin", "America/New_York"]).map(zoneinfo.ZoneInfo),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    # Lone surrogates too.
    st.text(st.characters(codec=None, categories=["Cs", "Lu"]), max_size=3),
    st.sampled_from(["", "a", "é", "x" * 256]),
)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 255, 256, 65536]),
    st.floats(),
    st.complex_numbers(),
    TEXTS,
    st.binary(max_size=300),
    st.binary(max_size=20).map(bytearray),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=st.one_of(st.none(), ZONES)),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)),
    ZONES,
)
KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    TEXTS,
    st.binary(max_size=5),
    st.dates(),
    st.tuples(st.integers(), TEXTS),
    st.frozensets(st.integers(), max_size=3),
)


def containers(inner):
    lists = st.lists(inner, max_size=5)
    mappings = st.dictionaries(KEYS, inner, max_size=5)
    return st.one_of(
        lists,
        lists.map(tuple),
        mappings,
        mappings.map(collections.OrderedDict),
        st.builds(collections.deque, lists, st.one_of(st.none(), st.integers(0, 9))),
        st.builds(collections.defaultdict, st.sampled_from([None, list, int, str, dict]), mappings),
        st.sets(KEYS, max_size=5),
        st.frozensets(KEYS, max_size=5),
        st.lists(TEXTS, max_size=5).map(collections.Counter),
        # The same object more than once.
        inner.map(lambda value: [value, value, (value,), {"again": value}]),
    )


VALUES = st.recursive(ATOMS, containers, max_leaves=25)
SETTINGS = settings(
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def same(one, other) -> bool:
    """Equal in type, value, order and identities."""
    return print_of(one) == print_of(other)


@SETTINGS
@given(VALUES, st.sampled_from(range(6)), st.booleans())
def test_what_python_pickles_is_read_as_python_reads_it(value, protocol, in_python):
    dump = pickle._dumps if in_python else pickle.dumps
    data = dump(value, protocol)
    expected = pickle.loads(data)
    found = loads_safe(data)
    assert same(found, expected)
    for written in (dumps(found, protocol=max(protocol, 2)), _rewrite_pickle(data)):
        assert same(pickle.loads(written), expected)


@SETTINGS
@given(VALUES, st.sampled_from(PROTOCOLS))
@example({bytes(bytearray(b"\xb6")): {b"\xb6"}}, 3)
def test_what_is_pickled_here_python_reads(value, protocol):
    data = dumps(value, protocol=protocol)
    expected = pickle.loads(pickle.dumps(value, protocol))
    assert same(pickle.loads(data), expected)
    assert same(pickle._loads(data), expected)
    assert same(loads_safe(data), expected)


class Harmless(Python):
    """Python's unpickler with only those classes that `loads_safe` makes."""

    def find_class(self, module, name):
        found = super_name(self.proto, module, name)
        if found not in REAL:
            raise pickle.UnpicklingError(name)
        return REAL[found]


def super_name(protocol, module, name):
    import _compat_pickle

    if protocol < 3:
        if (module, name) in _compat_pickle.NAME_MAPPING:
            return _compat_pickle.NAME_MAPPING[module, name]
        return _compat_pickle.IMPORT_MAPPING.get(module, module), name
    return module, name


def is_plain(value) -> bool:
    """Whether nothing opaque is in it."""
    seen, open_ = set(), [value]
    while open_:
        one = open_.pop()
        if isinstance(one, (OpaqueObject, OpaqueGlobal)):
            return False
        if isinstance(one, datetime.datetime | datetime.time) and one.tzinfo is not None:
            open_.append(one.tzinfo)
        if id(one) in seen:
            continue
        if isinstance(one, dict):
            seen.add(id(one))
            open_ += [*one, *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset, collections.deque)):
            seen.add(id(one))
            open_ += one
    return True


OPCODES = (
    b"(.012FIJKLMNPQRSTUVXabcdeghijloprstu})]q"
    b"\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8f\x90\x91\x92\x93\x94\x95"
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "swap", "copy"]),
        st.integers(0, 10_000),
        st.one_of(st.sampled_from(OPCODES), st.integers(0, 255)),
    ),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, changes) -> bytes:
    found = bytearray(data)
    for kind, where, byte in changes:
        at = where % (len(found) + 1)
        if kind == "replace":
            found[at : at + 1] = bytes([byte])
        elif kind == "insert":
            found.insert(at, byte)
        elif kind == "delete":
            del found[at : at + 1 + byte % 4]
        elif kind == "swap":
            found[at : at + 2] = found[at : at + 2][::-1]
        else:
            found[at:at] = found[at : at + byte % 32]
    return bytes(found)


COUNTS = collections.Counter()


@settings(SETTINGS, max_examples=3000)
@given(VALUES, st.sampled_from(range(6)), CHANGES)
def test_a_changed_pickle_is_read_as_python_reads_it_or_not_at_all(value, protocol, changes):
    data = changed(pickle.dumps(value, protocol), changes)
    try:
        found = loads_safe(data)
    except DecodeError:
        COUNTS["refused"] += 1
        return
    for written_in in PROTOCOLS:
        loads_safe(dumps(found, protocol=written_in))
    if not is_plain(found):
        COUNTS["opaque"] += 1
        return
    try:
        expected = Harmless(io.BytesIO(data)).load()
    except Exception:  # noqa: BLE001 - whatever Python finds wrong with it
        COUNTS["only here"] += 1
        return
    COUNTS["read"] += 1
    assert same(found, expected)
    assert same(Harmless(io.BytesIO(_rewrite_pickle(data))).load(), expected)


def test_changed_pickles_were_read():
    if not COUNTS:
        pytest.skip("runs after the test before it")
    assert COUNTS["read"] > 100
    assert COUNTS["refused"] > 100


@settings(SETTINGS, max_examples=3000)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from(OPCODES), max_size=60).map(bytes),
        st.lists(st.sampled_from(OPCODES), max_size=60).map(lambda ops: bytes(ops) + b"."),
    )
)
def test_any_bytes_are_data_or_an_error(data):
    try:
        found = loads_safe(data)
    except DecodeError as error:
        assert error.reason in {"pickle", "too_large"}  # noqa: PT017 - either way will do
        return
    assert isinstance(dumps(found), bytes)


@SETTINGS
@given(st.text(max_size=40))
def test_a_decimal_of_any_text_is_that_of_python(text):
    """The text of a Decimal goes to Python's own constructor."""
    data = b"\x80\x02cdecimal\nDecimal\nX%b%b\x85R." % (
        len(text.encode()).to_bytes(4, "little"),
        text.encode(),
    )
    try:
        expected = decimal.Decimal(text)
    except decimal.InvalidOperation:
        with pytest.raises(DecodeError):
            loads_safe(data)
        return
    assert str(loads_safe(data)) == str(expected)

"""Merging what two requests did to one session: the rules, as in src/session/merge.rs."""

import math
import pickle
import struct
from collections import OrderedDict

import pytest

from django_session_rs.merge import MISSING, merge, same_value


@pytest.mark.parametrize(
    ("loaded", "mine", "touched", "stored", "expected"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, {"b"}, {"a": 3}, {"a": 3, "b": 2}, id="names"),
        pytest.param({"a": 1}, {"a": 2}, {"a"}, {"a": 3}, {"a": 2}, id="the later save"),
        pytest.param({"a": 1}, {"a": 1}, {"a"}, {"a": 3}, {"a": 1}, id="set to what it was"),
        pytest.param(
            {"a": 1, "b": 2}, {"b": 2}, {"a"}, {"a": 1, "c": 3}, {"c": 3}, id="removed by both"
        ),
        pytest.param({"a": 1}, {}, {"a"}, {"a": 3}, {}, id="removed here, changed there"),
        pytest.param({"a": 1}, {"a": 2}, {"a"}, {}, {"a": 2}, id="changed here, removed there"),
        pytest.param(
            {"a": [1]},
            {"a": [1, 2]},
            (),
            {"a": [1], "b": 1},
            {"a": [1, 2], "b": 1},
            id="changed deep inside",
        ),
        pytest.param({}, {}, {"a"}, {"a": 1, "b": 2}, {"b": 2}, id="added and removed again"),
        pytest.param({"a": 1}, {"a": 1}, (), {"b": [9]}, {"b": [9]}, id="nothing was done here"),
        pytest.param({}, {"a": 1}, (), {"b": 2}, {"a": 1, "b": 2}, id="nothing was loaded"),
        pytest.param({"a": 1}, {"a": True}, (), {"a": 1, "b": 2}, {"a": True, "b": 2}, id="types"),
    ],
)
def test_both_sides_keep_what_they_changed(loaded, mine, touched, stored, expected):
    before = pickle.dumps((loaded, mine, stored))
    found = merge(loaded, mine, stored, touched=touched)
    assert same_value(found, expected)
    assert pickle.dumps((loaded, mine, stored)) == before


def test_a_merge_with_nothing_in_between_is_what_was_wanted():
    loaded = {"a": 1, "b": [1, {"c": 2}]}
    mine = {"b": [1, {"c": 3}], "d": None}
    assert merge(loaded, mine, loaded) == mine


def test_a_function_decides_what_both_have_changed():
    asked = []

    def resolve(name, loaded, mine, stored):
        asked.append((name, loaded, mine, stored))
        return {"same": 3, "sum": stored + 1, "stored": stored, "gone": MISSING}[name]

    loaded = {"mine": 1, "theirs": 1, "same": 1, "sum": 1, "stored": 1, "gone": 1, "none": 1}
    mine = {"mine": 2, "theirs": 1, "same": 2, "sum": 2, "stored": 2}
    stored = {"mine": 1, "theirs": 3, "same": 2, "sum": 5, "stored": 3, "gone": 3}
    found = merge(loaded, mine, stored, resolve=resolve)
    assert found == {"mine": 2, "theirs": 3, "same": 3, "sum": 6, "stored": 3}
    assert asked == [
        ("same", 1, 2, 2),
        ("sum", 1, 2, 5),
        ("stored", 1, 2, 3),
        ("gone", 1, MISSING, 3),
    ]


NAN = struct.unpack("d", struct.pack("Q", 0x7FF8000000000001))[0]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 1.0, False),
        (1, True, False),
        (0, False, False),
        (0.0, -0.0, False),
        (math.nan, float("nan"), True),
        (math.nan, NAN, False),
        ([math.nan], [float("nan")], True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({1: "a"}, {True: "a"}, False),
        ({1: "a"}, {1: "a"}, True),
        ({"a": None}, {"b": None}, False),
        ([1, 2], (1, 2), False),
        ([1, [2.0]], [1, [2]], False),
        ({}, OrderedDict(), False),
        ("é", "e\u0301", False),
        ({1, 2}, {2, 1}, True),
        (MISSING, None, False),
        (MISSING, MISSING, True),
        (10**30, 10**30, True),
    ],
)
def test_values_are_compared_strictly(one, other, expected):
    assert same_value(one, other) is expected
    assert same_value(other, one) is expected


def test_what_cannot_be_compared_is_another_value():
    class Odd:
        def __eq__(self, other):
            raise RuntimeError

        __hash__ = None

    odd = Odd()
    assert same_value(odd, odd)
    assert not same_value(odd, Odd())


def test_the_missing_value_stays_one_object():
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert repr(MISSING) == "MISSING"
    assert not MISSING

"""Two requests change one session: what becomes of it.

Django lets the last one win, with everything it has: what the other one did is lost. Here each
keeps what it did. The rule is per top-level name: what this side has set or removed since it loaded
the session wins, everything else stays as it is stored by now. These are pure functions of what was
loaded, what is wanted and what is stored; the engines read and write around them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["MISSING", "Missing", "merge", "same_value"]


@final
class Missing:
    """The type of ``MISSING``."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"


#: Stands for the value of a name that is not in a session.
MISSING: Final = Missing()


def merge(
    loaded: Mapping[Any, Any],
    mine: Mapping[Any, Any],
    stored: Mapping[Any, Any],
    *,
    touched: Collection[Any] = (),
    resolve: Callable[[Any, Any, Any, Any], Any] | None = None,
) -> dict[Any, Any]:
    """Return ``stored`` with what was changed between ``loaded`` and ``mine``.

    Names in ``touched`` were set or removed: they are changed even if the value is the one that
    was loaded. Values in which something was changed deep inside are found by comparing.

    ``resolve(name, loaded, mine, stored)`` is asked about each name that both sides have changed,
    also if they came to the same value, and returns the value it gets; ``MISSING`` stands for none.

    >>> merge({"a": 1}, {"a": 1, "b": 2}, {"a": 3})
    {'a': 3, 'b': 2}
    """
    merged = dict(stored)
    # A name that was added and removed again was never loaded, and is in neither.
    names = [*mine, *(name for name in (*loaded, *touched) if name not in mine)]
    for name in dict.fromkeys(names):
        before, wanted = loaded.get(name, MISSING), mine.get(name, MISSING)
        if name not in touched and same_value(before, wanted):
            continue
        if resolve is not None:
            found = stored.get(name, MISSING)
            # Of two that count, both may have come to the same number; what both have removed is
            # gone.
            is_gone = found is MISSING and wanted is MISSING
            if not is_gone and not same_value(found, before):
                wanted = resolve(name, before, wanted, found)
        if wanted is MISSING:
            merged.pop(name, None)
        else:
            merged[name] = wanted
    return merged


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same when they are stored.

    Stricter than ``==``: ``1``, ``1.0`` and ``True`` are three values, ``0.0`` is not ``-0.0``, and
    a NaN is itself. The order of a dictionary does not count.
    """
    if one is other or type(one) is not type(other):
        return one is other
    if type(one) is float:
        return struct.pack("d", one) == struct.pack("d", other)
    if type(one) is dict:
        return len(one) == len(other) and all(
            _same_name(name, other) and same_value(value, other[name])
            for name, value in one.items()
        )
    if type(one) in {list, tuple}:
        return len(one) == len(other) and all(map(same_value, one, other))
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - whatever a value of the project's own answers, it is no yes
        return False


def _same_name(name: Any, other: dict[Any, Any]) -> bool:
    if name not in other:
        return False
    # `1` finds `True`.
    return type(name) is str or any(same_value(name, found) for found in other)

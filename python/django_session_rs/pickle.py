"""Pickles as data: read without importing or calling anything that they name.

:func:`loads_safe` makes real objects of the harmless types that sessions hold, and an
:class:`OpaqueObject` or :class:`OpaqueGlobal` of everything else. :func:`dumps` writes both, and
Python's own ``pickle.loads`` then makes of an opaque object what it would have made in the first
place.

The types that become real: ``None``, ``bool``, ``int``, ``float``, ``complex``, ``str``,
``bytes``, ``bytearray``, ``list``, ``tuple``, ``dict``, ``set``, ``frozenset``, ``range``;
``OrderedDict``, ``Counter``, ``deque``, and ``defaultdict`` with a builtin type as its factory;
``datetime``, ``date``, ``time``, ``timedelta``, ``timezone``, and ``ZoneInfo`` of a key that this
machine knows; ``Decimal``, ``UUID``, Django's ``SafeString``. Not subclasses of them, and no enums,
whose classes would have to be imported. Objects that were one are one, and may contain themselves.

A zone of ``pytz`` and Django's own ``UTC`` and ``FixedOffset`` of old become an
:class:`OpaqueTimezone`, a ``tzinfo`` of their offset. A ``datetime`` with any other zone is opaque.

A Python 2 string becomes ``str`` if it is ASCII and ``bytes`` if not. Classes that moved in
Python 3 have the names of Python 3; protocol 2 is written with those of Python 2.
"""

from __future__ import annotations

import datetime
import pickle
import reprlib
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from django_session_rs._native import loads_safe
from django_session_rs._native import pickle_dumps as dumps

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "OpaqueGlobal",
    "OpaqueObject",
    "OpaqueTimezone",
    "PickleSerializer",
    "dumps",
    "loads_safe",
]

MISSING = object()
PARTS = ("made_by", "callable", "args", "kwargs", "steps")


class OpaqueGlobal:
    """A class or function, by its name alone.

    Two are equal, and one key in a dict, if their names are. Python's own ``pickle`` writes a call
    of ``pickle.loads``, so whoever loads that imports what is named.
    """

    __slots__ = ("module", "name")

    module: str
    """The module, ``"shop.models"``."""
    name: str
    """The qualified name in it, ``"Cart.Kind"``."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __eq__(self, other: object) -> bool:
        if type(other) is not OpaqueGlobal:
            return NotImplemented
        return (self.module, self.name) == (other.module, other.name)

    def __hash__(self) -> int:
        return hash((OpaqueGlobal, self.module, self.name))

    def __repr__(self) -> str:
        return f"<OpaqueGlobal {_shown(self)}>"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return pickle.loads, (dumps(self, protocol=max(2, int(protocol))),)

    def __copy__(self) -> OpaqueGlobal:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> OpaqueGlobal:
        return self


class OpaqueObject:
    """An instance of a class that is not known: what Python would do to make it.

    Its parts can be read, and changed in place. It is equal to an object with equal parts; as a key
    or in a set it is only itself. Copies are opaque too. Python's own ``pickle`` writes a call of
    ``pickle.loads``, so whoever loads that gets the real object; what it shared with objects
    outside of it is then no longer shared. :func:`dumps` keeps that.
    """

    __slots__ = ("args", "callable", "kwargs", "made_by", "steps")

    made_by: Literal["call", "new", "new_ex", "instance"]
    """``callable(*args)``; ``callable.__new__(callable, *args)``, with ``**kwargs`` for
    ``"new_ex"``; or an instance as Python 2 pickles old-style classes, which is not called where
    there are no arguments."""
    callable: Any
    """What would be called, usually an :class:`OpaqueGlobal`."""
    args: tuple[Any, ...]
    """The arguments."""
    kwargs: dict[str, Any] | None
    """The keyword arguments of ``"new_ex"``."""
    steps: list[tuple[Any, ...]]
    """What would then be done to it, in this order: ``("append", item)``, ``("add", item)``,
    ``("setitem", key, value)``, ``("setstate", state)``, and ``("call", call)`` for a function that
    gets the object and sets its state."""

    # Their contents come from `loads_safe`.
    def __init__(self) -> None:
        raise TypeError("an OpaqueObject comes out of a pickle")

    @property
    def class_(self) -> OpaqueGlobal | None:
        """The class or function that makes it, if it is called by its name."""
        made_by: Any = self.callable
        if type(made_by) is not OpaqueGlobal:
            return None
        # How protocols 0 and 1 write an instance.
        if (made_by.module, made_by.name) == ("copyreg", "_reconstructor") and self.args:
            made_by = self.args[0]
        return made_by if type(made_by) is OpaqueGlobal else None

    @property
    def module(self) -> str | None:
        """The module of that class or function."""
        return self.class_.module if self.class_ else None

    @property
    def name(self) -> str | None:
        """The qualified name of that class or function."""
        return self.class_.name if self.class_ else None

    @property
    def state(self) -> Any:
        """The state that would be set, usually a dict of attributes; ``None`` if there is none."""
        found = None
        for step in self.steps:
            if step[0] == "setstate":
                found = step[1]
            elif step[0] == "call":
                found = step[1].args[1]
        return found

    @property
    def items(self) -> list[Any]:
        """What would be appended or added to it."""
        return [step[1] for step in self.steps if step[0] in {"append", "add"}]

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        """What would be assigned to its keys."""
        return [(step[1], step[2]) for step in self.steps if step[0] == "setitem"]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OpaqueObject):
            return NotImplemented
        return _equal(self, other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_shown(self.class_)}>"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return pickle.loads, (dumps(self, protocol=max(2, int(protocol))),)

    def __copy__(self) -> OpaqueObject:
        copied = type(self).__new__(type(self))
        for name in _slots(self):
            setattr(copied, name, getattr(self, name))
        copied.steps = list(self.steps)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> OpaqueObject:
        from copy import deepcopy  # noqa: PLC0415 - rarely needed

        # By hand, since the usual way through `__reduce_ex__` would make the real object.
        copied = memo[id(self)] = type(self).__new__(type(self))
        for name in _slots(self):
            setattr(copied, name, deepcopy(getattr(self, name), memo))
        return copied


class OpaqueTimezone(OpaqueObject, datetime.tzinfo):
    """A time zone whose class is not imported, but whose offset is known.

    It stands for one zone of ``pytz`` at one offset, or for ``UTC`` and ``FixedOffset`` of
    ``django.utils.timezone``, which are gone. Written back, it is what it was.
    """

    __slots__ = ("offset",)

    offset: datetime.timedelta
    """The distance from UTC."""

    def __new__(cls) -> Self:
        """Return one without contents, which come from :func:`loads_safe`."""
        # Python would take that of the other base class, which refuses.
        return object.__new__(cls)

    def utcoffset(self, dt: datetime.datetime | None, /) -> datetime.timedelta:  # noqa: ARG002 - Python decides
        """Return the offset, whatever the time."""
        return self.offset

    def dst(self, dt: datetime.datetime | None, /) -> None:
        """Return nothing: how much of the offset is daylight saving time is not known."""

    def tzname(self, dt: datetime.datetime | None, /) -> str:
        """Return the offset as text, ``"UTC+01:00"``."""
        return datetime.timezone(self.offset).tzname(dt)


class PickleSerializer:
    """A ``SESSION_SERIALIZER`` that reads pickled sessions without executing them.

    Django's own was deprecated in 4.1 and is gone since 5.0, because whoever knows the secret key
    could run code with it. With ``django_session_rs.pickle.PickleSerializer`` a site of today keeps
    reading sessions of that time; what it writes, that serializer of Django reads.
    """

    def __init__(self, protocol: int = 4) -> None:
        self.protocol = protocol

    def dumps(self, obj: Any) -> bytes:
        """Return the pickle of a session."""
        return dumps(obj, protocol=self.protocol)

    def loads(self, data: bytes) -> Any:
        """Return the session of a pickle."""
        return loads_safe(data)


def _shown(name: OpaqueGlobal | None) -> str:
    """Return a name that came from outside, on one line and not too long."""
    if name is None:
        return "of an unknown class"
    shortened = reprlib.Repr()
    shortened.maxstring = 200
    text = shortened.repr(f"{name.module}.{name.name}")[1:-1]
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _slots(found: OpaqueObject) -> tuple[str, ...]:
    return (*PARTS, "offset") if isinstance(found, OpaqueTimezone) else PARTS


def _equal(one: Any, other: Any) -> bool:
    """Compare part by part, without recursion: objects may contain themselves, and nest deeply."""
    compared = set()
    pairs = [(one, other)]
    while pairs:
        a, b = pairs.pop()
        if a is b or (id(a), id(b)) in compared:
            continue
        parts = _parts(a, b)
        if parts is None:
            if a != b:
                return False
            continue
        compared.add((id(a), id(b)))
        ours, theirs = parts
        if len(ours) != len(theirs):
            return False
        pairs.extend(zip(ours, theirs, strict=True))
    return True


def _parts(a: Any, b: Any) -> tuple[list[Any], list[Any]] | None:
    """Return what has to be equal for these two to be equal; nothing if they have no such parts."""
    if isinstance(a, OpaqueObject) and isinstance(b, OpaqueObject):
        return [getattr(a, name) for name in PARTS], [getattr(b, name) for name in PARTS]
    if isinstance(a, dict) and isinstance(b, dict):
        # Keys are compared as Python does it; an object as a key is equal to itself only.
        return [len(a), *a.values()], [len(b), *(b.get(key, MISSING) for key in a)]
    for kind in (list, tuple, deque):
        if isinstance(a, kind) and isinstance(b, kind):
            return [*a], [*b]
    return None

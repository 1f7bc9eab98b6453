"""Python's own unpickler, with classes that cannot be imported as stand-ins.

What two pickles make is compared by pickling it again: the bytes show types, values, order, and
which objects are one.
"""

import _codecs
import _compat_pickle
import collections
import datetime
import decimal
import io
import pickle
import sys
import uuid
from typing import ClassVar

from django.utils.safestring import SafeString

# Harmless, and what `loads_safe` makes itself.
REAL = {
    **{("collections", n): getattr(collections, n) for n in ("Counter", "OrderedDict", "deque")},
    ("collections", "defaultdict"): collections.defaultdict,
    **{
        ("datetime", name): getattr(datetime, name)
        for name in ("date", "datetime", "time", "timedelta", "timezone")
    },
    ("decimal", "Decimal"): decimal.Decimal,
    ("uuid", "UUID"): uuid.UUID,
    ("_codecs", "encode"): _codecs.encode,
    **{
        ("builtins", kind.__name__): kind
        for kind in (
            *(bool, bytearray, bytes, complex, dict, float, frozenset),
            *(int, list, range, set, str, tuple, object),
        )
    },
    # One class under the names that it had.
    **{
        ("django.utils.safestring", name): SafeString
        for name in ("SafeString", "SafeText", "SafeUnicode")
    },
}


class Python(pickle._Unpickler):
    """Python's unpickler with the rule of `loads_safe` for Python 2 strings."""

    def _decode_string(self, value):
        return value.decode("ascii") if value.isascii() else value


class Symbolic(Python):
    """Calls nothing but what is in `REAL`."""

    def __init__(self, file):
        super().__init__(file)
        self.names = {}

    def find_class(self, module, name):
        if self.proto < 3:
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            else:
                module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        if (module, name) == ("copyreg", "_reconstructor"):
            return self.reconstructor
        if (module, name) in REAL:
            return REAL[module, name]
        return self.names.setdefault((module, name), Name(module, name))

    def reconstructor(self, cls, base, state):
        if isinstance(cls, Name):
            return Thing("call", Name("copyreg", "_reconstructor"), (cls, base, state), {})
        return cls(state) if base is not object else cls.__new__(cls)


class Name:
    """A class or function that is not imported."""

    def __new__(cls, *args, **kwargs):
        if isinstance(cls, Name):
            return Thing("new", cls, args, kwargs)
        return object.__new__(cls)

    def __init__(self, module, name):
        self.module = module
        self.name = name

    def __call__(self, *args):
        return Thing("call", self, args, {})

    def __reduce_ex__(self, protocol):
        # Another text each time: nobody sees which ones the pickle had.
        return Name, (f"{self.module} {self.name}",)


class Thing(datetime.tzinfo):
    """What such a class or function would have made."""

    def __new__(cls, *args):
        return super().__new__(cls)

    def __init__(self, how, callable, args, kwargs):  # noqa: A002
        self.parts = [how, callable, args, kwargs]

    def __call__(self, *args):
        return Thing("call", self, args, {})

    def __setstate__(self, state):
        self.parts.append(("state", state))

    def append(self, item):
        self.parts.append(("append", item))

    def extend(self, items):
        self.parts.extend(("append", item) for item in items)

    def add(self, item):
        self.parts.append(("add", item))

    def __setitem__(self, key, value):
        self.parts.append(("setitem", key, value))

    def __reduce_ex__(self, protocol):
        return Thing.__new__, (Thing,), self.parts

    def utcoffset(self, dt):
        return None


def shown(value) -> str:
    """As `repr`, where that depends on how a set was filled."""
    if isinstance(value, (set, frozenset, tuple)):
        parts = map(shown, value)
        return f"{type(value)}{list(parts) if isinstance(value, tuple) else sorted(parts)}"
    return repr(value)


SINGLE_BYTES = [bytes([byte]) for byte in range(256)]


class Orderly(pickle._Pickler):
    """Python's pickler, with sets in an order that does not depend on how they were filled.

    Python keeps byte strings of length one, and makes others only by accident, which its two
    unpicklers do not agree about. Here they are one.
    """

    def save_bytes(self, value):
        kept = SINGLE_BYTES[value[0]] if len(value) == 1 else value
        if kept is value:
            pickle._Pickler.save_bytes(self, value)
        else:
            self.save(kept)

    def save_set(self, value):
        self.save_reduce(type(value), (sorted(value, key=shown),), obj=value)

    dispatch: ClassVar = {
        **pickle._Pickler.dispatch,
        bytes: save_bytes,
        frozenset: save_set,
        set: save_set,
    }


def print_of(value) -> bytes:
    """Bytes that are equal for two objects of the same types, values, order and identities."""
    file = io.BytesIO()
    limit = sys.getrecursionlimit()
    # It recurses in Python, where `pickle` itself does in C.
    sys.setrecursionlimit(limit * 10)
    try:
        Orderly(file, 5).dump(value)
    finally:
        sys.setrecursionlimit(limit)
    return file.getvalue()


def fingerprint(data, unpickler=Python) -> bytes:
    """Bytes that are equal for two pickles if they make the same objects."""
    return print_of(unpickler(io.BytesIO(data)).load())

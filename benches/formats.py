"""Every form in which Django has stored a session: Python's way against this package's.

    python benches/formats.py [--rounds N] [--quick]

One process, the same data, rounds in turns; medians in microseconds and how many times faster ours
is. Where this Django no longer has the form, its side is the few lines that Django had for it. The
floor is what any decoder of that text has to do in Python: HMAC, base64, and inflation where it is
compressed, each by the C code of the standard library.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import decimal
import gc
import hashlib
import hmac
import json
import pickle
import sys
import tempfile
import uuid
import zlib
from functools import partial

from engines import PAYLOADS, Table, alternating, configure, timed

KEY = "a secret key for the benchmark, as long as they usually are"
LEGACY_SALT = "django.contrib.sessionsSessionStore"
SALT = "django.contrib.sessions.SessionStore"

# What pickled sessions hold and JSON does not.
TYPED = {
    **PAYLOADS["login only"],
    "seen": datetime.datetime(2026, 11, 21, 9, 30, tzinfo=datetime.timezone.utc),
    "total": decimal.Decimal("129.90"),
    "basket": uuid.UUID("1f0b0a6c-3f0e-4b1e-9a57-0d5f5a5d3c11"),
    "viewed": {1001, 1002, 1003},
    "recent": [(1001, datetime.date(2026, 11, 20)), (1002, datetime.date(2026, 11, 21))],
}


class PickleSerializer:
    """As Django had it until 4.2."""

    def dumps(self, obj):
        return pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)

    def loads(self, data):
        return pickle.loads(data)


def json_dumps(obj) -> bytes:
    return json.dumps(obj, separators=(",", ":")).encode("latin-1")


def json_loads(data: bytes):
    return json.loads(data.decode("latin-1"))


def legacy(dumps, loads):
    """`SessionBase` of Django 1.5 to 3.0."""
    from django.utils.crypto import constant_time_compare, salted_hmac

    def encode(obj) -> str:
        data = dumps(obj)
        found = salted_hmac(LEGACY_SALT, data, KEY).hexdigest()
        return base64.b64encode(found.encode() + b":" + data).decode("ascii")

    def decode(text: str):
        found, data = base64.b64decode(text.encode("ascii")).split(b":", 1)
        if not constant_time_compare(found, salted_hmac(LEGACY_SALT, data, KEY).hexdigest()):
            raise ValueError
        return loads(data)

    return encode, decode


def signed(serializer):
    from django.core import signing

    def encode(obj) -> str:
        return signing.dumps(obj, key=KEY, salt=SALT, serializer=serializer, compress=True)

    def decode(text: str):
        return signing.loads(text, key=KEY, salt=SALT, serializer=serializer)

    return encode, decode


def antique():
    """`SessionStore` of Django 1.0 to 1.2."""

    def encode(obj) -> str:
        data = pickle.dumps(obj, 2)
        digest = hashlib.md5(data + KEY.encode()).hexdigest()
        return base64.b64encode(data + digest.encode()).decode("ascii")

    def decode(text: str):
        decoded = base64.b64decode(text)
        data, digest = decoded[:-32], decoded[-32:]
        if hashlib.md5(data + KEY.encode()).hexdigest().encode() != digest:
            raise ValueError
        return pickle.loads(data)

    return encode, decode


def floor_of(text: str) -> float:
    """Microseconds for HMAC, base64 and inflation of a stored text, and nothing else."""
    key = b"k" * 32
    if text.count(":") < 2:
        data = text.encode("ascii")
        return timed(lambda: hmac.digest(key, base64.b64decode(data), "sha1"), 2000)
    value, _ = text.rsplit(":", 1)
    payload = value.rsplit(":", 1)[0]
    compressed = payload.startswith(".")
    armored = (payload.lstrip(".") + "=" * (-len(payload.lstrip(".")) % 4)).encode("ascii")
    inflate = zlib.decompress if compressed else bytes

    def run():
        hmac.digest(key, value.encode("ascii"), "sha256")
        inflate(base64.urlsafe_b64decode(armored))

    return timed(run, 2000)


def bench_text(rounds: int) -> None:
    from django.core.signing import JSONSerializer

    from django_session_rs import SessionCodec

    forms = {
        "signed, JSON": (signed(JSONSerializer), {}),
        "signed, pickle": (signed(PickleSerializer), {"serializer": "pickle"}),
        "legacy, JSON": (legacy(json_dumps, json_loads), {"format": "legacy"}),
        "legacy, pickle": (
            legacy(PickleSerializer().dumps, PickleSerializer().loads),
            {"format": "legacy", "serializer": "pickle"},
        ),
        "antique, pickle": (antique(), {"format": "antique", "serializer": "pickle"}),
    }
    table = Table("Stored text, microseconds; decode is of what Python wrote")
    for form, ((encode, decode), options) in forms.items():
        codec = SessionCodec(KEY, **options)
        payloads = dict(PAYLOADS)
        if "pickle" in form:
            payloads["typed"] = TYPED
        for name, data in payloads.items():
            theirs, ours = encode(data), codec.encode(data)
            if not decode(ours) == codec.decode(theirs) == data:
                sys.exit(f"{form}: the two do not read each other")
            count = 30 if len(theirs) > 5000 else 1000
            found = alternating(partial(encode, data), partial(codec.encode, data), count, rounds)
            table.row(f"{form}, {name}: encode", *found)
            found = alternating(
                partial(decode, theirs), partial(codec.decode, theirs), count, rounds
            )
            table.row(f"{form}, {name}: decode", *found)
            print(f"  {'':4}floor of decode {floor_of(theirs):.2f}")


def bench_pickle(rounds: int) -> None:
    from django_session_rs.pickle import dumps, loads_safe

    table = Table("Pickle alone, microseconds: `pickle.loads` executes what ours only reads")
    for name, data in {**PAYLOADS, "typed": TYPED}.items():
        written = pickle.dumps(data, 5)
        if loads_safe(written) != data or pickle.loads(dumps(data)) != data:
            sys.exit("pickle: the two do not read each other")
        count = 30 if len(written) > 5000 else 1000
        found = alternating(partial(pickle.dumps, data, 5), partial(dumps, data), count, rounds)
        table.row(f"{name}: dumps", *found)
        found = alternating(
            partial(pickle.loads, written), partial(loads_safe, written), count, rounds
        )
        table.row(f"{name}: loads", *found)


def bench_caches(rounds: int) -> None:
    from django.core.cache.backends.redis import RedisSerializer
    from django_redis import compressors, serializers

    from django_session_rs.cache_values import codec_of

    path = "django_redis"
    names = {
        "gzip": "gzip.GzipCompressor",
        "lz4": "lz4.Lz4Compressor",
        "lzma": "lzma.LzmaCompressor",
        "zlib": "zlib.ZlibCompressor",
        "zstd": "zstd.ZStdCompressor",
    }
    data = PAYLOADS["cart of 14"]
    table = Table(
        f"Cache values, microseconds: the cart of 14 ({len(pickle.dumps(data))} B pickled)"
    )

    def row(name, cache, theirs_dumps, theirs_loads):
        codec = codec_of(cache)
        written = theirs_dumps(data)
        if codec.decode(written) != data or theirs_loads(codec.encode(data)) != data:
            sys.exit(f"{name}: the two do not read each other")
        found = alternating(partial(theirs_dumps, data), partial(codec.encode, data), 300, rounds)
        table.row(f"{name}: encode", *found)
        found = alternating(
            partial(theirs_loads, written), partial(codec.decode, written), 300, rounds
        )
        table.row(f"{name}: decode", *found)

    own = RedisSerializer()
    backend = "django.core.cache.backends.redis.RedisCache"
    row("RedisCache", {"BACKEND": backend}, own.dumps, own.loads)
    from importlib import import_module

    for kind, name in {
        "json": "json.JSONSerializer",
        "msgpack": "msgpack.MSGPackSerializer",
    }.items():
        module, attribute = name.split(".")
        serializer = getattr(import_module(f"{serializers.__name__}.{module}"), attribute)({})
        options = {"SERIALIZER": f"{path}.serializers.{name}"}
        cache = {"BACKEND": f"{path}.cache.RedisCache", "OPTIONS": options}
        row(f"django-redis, {kind}", cache, serializer.dumps, serializer.loads)
    for kind, name in names.items():
        module, attribute = name.split(".")
        try:
            loaded = import_module(f"{compressors.__name__}.{module}")
        except ImportError as missing:
            print(f"  django-redis, {kind}: {missing.name} is not installed")
            continue
        compressor = getattr(loaded, attribute)({})
        options = {"COMPRESSOR": f"{path}.compressors.{name}"}
        cache = {"BACKEND": f"{path}.cache.RedisCache", "OPTIONS": options}
        row(
            f"django-redis, pickle and {kind}",
            cache,
            lambda obj, compressor=compressor: compressor.compress(pickle.dumps(obj)),
            lambda value, compressor=compressor: pickle.loads(compressor.decompress(value)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it runs")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        configure(folder)
        gc.freeze()
        bench_text(rounds)
        bench_pickle(rounds)
        bench_caches(rounds)


if __name__ == "__main__":
    main()

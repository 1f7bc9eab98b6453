"""Django's session engine against this package's, in one process and on the same data.

    python benches/engines.py [--rounds N] [--quick]

The codec for three sizes of sessions, the signers, then each operation of the database engine,
synchronous and asynchronous, on SQLite in memory, on an SQLite file and, where
``TEST_POSTGRES_URL`` names one, on a PostgreSQL server, there of the native engine too. Rounds of
both engines alternate; the table shows medians in microseconds and how many times faster ours is.
A factor below 1.1 is marked: no gain there.

The floor above a table is the price of any statement. For a server it is mostly the waking of the
two processes, which differs from run to run with the cores they are on; ``taskset -c 0`` before
whatever starts both keeps them on one, and shows the engines themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import secrets
import statistics
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from asgiref.sync import sync_to_async

LOGIN = {
    "_auth_user_id": "1234",
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": "1ac81677f15a2b3f9b352ea8bc9dbe02110d2805919aa217df55b4ddabdad772",
}


def cart(rows: int) -> dict:
    names = ("Espresso cup", "Café filter", "Kettle 1.7 l", "Grinder", "Scale 0,1 g", "Tamper")
    return {
        **LOGIN,
        "cart": [
            {
                "product_id": 1000 + number * 7919 % 9001,
                "quantity": number % 4 + 1,
                "price": f"{number * 37 % 200}.{number * 13 % 100:02}",
                "weight": number * 1.25,
                "name": f"{names[number % 6]} no. {number * 31 % 97}",
                "gift": number % 5 == 0,
            }
            for number in range(rows)
        ],
    }


PAYLOADS = {"login only": LOGIN, "cart of 14": cart(14), "cart of 440": cart(440)}


def postgres() -> dict | None:
    if not os.environ.get("TEST_POSTGRES_URL"):
        return None
    url = urlsplit(os.environ["TEST_POSTGRES_URL"])
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.strip("/") or "postgres",
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname or "",
        "PORT": str(url.port or ""),
        # A schema of this run's own: nothing else in that database is touched.
        "OPTIONS": {"options": f"-c search_path={SCHEMA}"},
    }


SCHEMA = f"bench_{secrets.token_hex(4)}"


def configure(folder: str) -> None:
    sqlite = {"ENGINE": "django.db.backends.sqlite3"}
    wal = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}
    if not supports_init_command():
        wal = {}
    databases = {
        "default": {**sqlite, "NAME": ":memory:"},
        "file": {**sqlite, "NAME": str(Path(folder) / "db.sqlite3"), "OPTIONS": wal},
    }
    if found := postgres():
        databases["postgres"] = found
    # A settings module, as projects have one: `settings.configure` is slower to read from.
    module = ModuleType("bench_settings")
    module.SECRET_KEY = "a secret key for the benchmark, as long as they usually are"
    module.DATABASES = databases
    module.INSTALLED_APPS = ["django.contrib.sessions"]
    module.USE_TZ = True
    sys.modules[module.__name__] = module
    os.environ["DJANGO_SETTINGS_MODULE"] = module.__name__
    import django

    django.setup()


def driver_of_postgres() -> str:
    try:
        import psycopg
    except ImportError:
        return "PostgreSQL by psycopg2"
    # "c" and "binary" are compiled, "python" is several times slower.
    return f"PostgreSQL by psycopg {psycopg.__version__}, implementation {psycopg.pq.__impl__}"


def supports_init_command() -> bool:
    import django

    return django.VERSION >= (5, 1)


class Table:
    def __init__(self, title: str) -> None:
        print(f"\n{title}")
        print(f"  {'':34}{'Django':>10}{'ours':>10}{'times':>8}")

    def row(self, name: str, theirs: float, ours: float) -> None:
        note = "" if theirs / ours >= 1.1 else "   no gain"
        print(f"  {name:34}{theirs:10.2f}{ours:10.2f}{theirs / ours:7.1f}x{note}")


def timed(function, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count * 1e6


def alternating(theirs, ours, count: int, rounds: int) -> tuple[float, float]:
    """Medians of rounds that take turns, after one of each that does not count."""
    timed(theirs, count)
    timed(ours, count)
    found = [(timed(theirs, count), timed(ours, count)) for _ in range(rounds)]
    return statistics.median(a for a, _ in found), statistics.median(b for _, b in found)


def bench_codec(django_store, our_store, codec, rounds: int) -> None:
    table = Table("Codec, microseconds: SessionStore.encode and .decode; alone: SessionCodec's")
    theirs, ours = django_store(), our_store()
    for name, data in PAYLOADS.items():
        by_theirs, by_ours = theirs.encode(data), ours.encode(data)
        if not theirs.decode(by_ours) == ours.decode(by_theirs) == data:
            sys.exit("the engines do not read each other")
        count = 20 if len(by_theirs) > 5000 else 1000
        pairs = [
            ("encode", (theirs.encode, data), (ours.encode, data)),
            ("encode, alone", (theirs.encode, data), (codec.encode, data)),
            ("decode Django's", (theirs.decode, by_theirs), (ours.decode, by_theirs)),
            ("decode Django's, alone", (theirs.decode, by_theirs), (codec.decode, by_theirs)),
            ("decode its own", (theirs.decode, by_theirs), (ours.decode, by_ours)),
            ("decode its own, alone", (theirs.decode, by_theirs), (codec.decode, by_ours)),
        ]
        for step, one, other in pairs:
            found = alternating(partial(*one), partial(*other), count, rounds)
            table.row(f"{name}: {step}", *found)
        ratio = len(by_ours) / len(by_theirs)
        print(f"  {'':4}stored {len(by_theirs)} and {len(by_ours)} characters ({ratio:.2f})")


def bench_signing(rounds: int) -> None:
    table = Table("Signing, microseconds: a short text, and the login above as an object")
    from django.core import signing as django_s

    from django_session_rs import signing as our_s

    def calls(signing) -> dict:
        keys = {"key": "a secret key for the benchmark", "fallback_keys": []}
        signer = signing.TimestampSigner(**keys, salt="bench")
        text, signed = signer.sign("hello world"), signer.sign_object(LOGIN)
        key = keys["key"]
        dumped = signing.dumps(LOGIN, key=key)
        return {
            "sign": lambda: signer.sign("hello world"),
            "unsign with max_age": lambda: signer.unsign(text, max_age=86400),
            "sign_object": lambda: signer.sign_object(LOGIN),
            "unsign_object": lambda: signer.unsign_object(signed),
            "dumps": lambda: signing.dumps(LOGIN, key=key),
            "dumps, compressed": lambda: signing.dumps(LOGIN, key=key, compress=True),
            "loads": lambda: signing.loads(dumped, **keys),
        }

    ours = calls(our_s)
    for name, theirs in calls(django_s).items():
        table.row(name, *alternating(theirs, ours[name], 2000, rounds))


def steps(store_class) -> dict:
    """Functions that do one operation each, and keep what the next call needs."""
    keys: list[str] = []

    def create():
        store = store_class()
        store._session_cache = dict(LOGIN)
        store.create()
        keys.append(store.session_key)

    create()
    kept = keys.pop()
    rotated = [kept]

    def rotate():
        store = store_class(rotated[0])
        store.cycle_key()
        rotated[0] = store.session_key

    def save():
        store = store_class(rotated[0])
        store._session_cache = dict(LOGIN)
        store.save()

    return {
        "create": create,
        "load": lambda: store_class(rotated[0]).load(),
        "save": save,
        "rotate (cycle_key)": rotate,
        "exists": lambda: store_class().exists(rotated[0]),
        # Each deletes what one `create` before made.
        "delete": lambda: store_class(keys.pop()).delete(),
    }


def floor(rounds: int, count: int) -> tuple[float, float]:
    """What one statement costs that touches no table: by Django's cursor, and by the driver's."""
    from django.db import connections

    connection = connections["default"]

    def by_django():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()

    def by_driver():
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()

    return alternating(by_django, by_driver, count, rounds)


def bench_engine(alias: str, django_store, our_store, rounds: int, count: int) -> None:
    table = Table(f"Engine {alias}, microseconds")
    django_cursor, driver = floor(rounds, count)
    print(f"  floor: SELECT 1 by Django's cursor {django_cursor:.1f}, by the driver {driver:.1f}")
    theirs, ours = steps(django_store), steps(our_store)
    for name in ("create", "load", "save", "rotate (cycle_key)", "exists"):
        table.row(name, *alternating(theirs[name], ours[name], count, rounds))
    for functions in (theirs, ours):
        timed(functions["create"], count)
    table.row("delete", *alternating(theirs["delete"], ours["delete"], count, rounds))


async def atimed(function, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        await function()
    return (time.perf_counter() - start) / count * 1e6


async def atimed_together(function, count: int) -> float:
    """The time of each, of 16 at a time."""

    async def several() -> None:
        for _ in range(count):
            await function()

    start = time.perf_counter()
    await asyncio.gather(*(several() for _ in range(TOGETHER)))
    return (time.perf_counter() - start) / (count * TOGETHER) * 1e6


async def atimed_anew(function, count: int) -> float:
    """The time of each, with Django's connection closed as by the request before (CONN_MAX_AGE)."""
    from django.db import connections

    found = 0.0
    for _ in range(count):
        await sync_to_async(connections.close_all)()
        start = time.perf_counter()
        await function()
        found += time.perf_counter() - start
    return found / count * 1e6


TOGETHER = 16


def forget_connection() -> None:
    """Let this thread, which is that of all event loops, connect to what is the default now."""
    from django.db import connections

    if hasattr(connections._connections, "default"):
        connections["default"].close()
        del connections["default"]


async def bench_async(alias: str, django_store, our_store, rounds: int, count: int) -> None:
    table = Table(f"Engine {alias}, asynchronous, microseconds")
    await sync_to_async(forget_connection)()

    async def functions(store_class):
        keys: list[str] = []

        async def create():
            store = store_class()
            store._session_cache = dict(LOGIN)
            await store.acreate()
            keys.append(store.session_key)

        await create()
        rotated = [keys.pop()]

        async def load():
            await store_class(rotated[0]).aload()

        async def save():
            store = store_class(rotated[0])
            store._session_cache = dict(LOGIN)
            await store.asave()

        async def rotate():
            store = store_class(rotated[0])
            await store.acycle_key()
            rotated[0] = store.session_key

        async def delete():
            await store_class(keys.pop()).adelete()

        return {"acreate": create, "aload": load, "asave": save, "acycle_key": rotate}, delete

    (theirs, their_delete), (ours, our_delete) = (
        await functions(django_store),
        await functions(our_store),
    )
    rows = [(name, atimed, theirs[name], ours[name]) for name in theirs]
    load = theirs["aload"], ours["aload"]
    rows.insert(2, (f"aload, {TOGETHER} at a time", atimed_together, *load))
    rows.insert(3, ("aload, the first of a request", atimed_anew, *load))
    rows.append(("adelete", atimed, their_delete, our_delete))
    for name, by, one, other in rows:
        if name == "adelete":
            await atimed(theirs["acreate"], count)
            await atimed(ours["acreate"], count)
        await by(one, count)
        await by(other, count)
        found = [(await by(one, count), await by(other, count)) for _ in range(rounds)]
        table.row(
            name, statistics.median(a for a, _ in found), statistics.median(b for _, b in found)
        )


def main() -> None:  # noqa: PLR0915 - one table after the other
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it runs")
    options = parser.parse_args()
    rounds, count = (3, 20) if options.quick else (options.rounds, 200)

    with tempfile.TemporaryDirectory() as folder:
        configure(folder)
        import django
        from django.conf import settings
        from django.contrib.sessions.backends.base import SessionBase
        from django.contrib.sessions.backends.db import SessionStore as DjangoStore
        from django.core.management import call_command
        from django.db import connections

        import django_session_rs
        from django_session_rs import SessionCodec
        from django_session_rs.backends.db import SessionStore
        from django_session_rs.backends.native import SessionStore as NativeStore

        versions = f"Django {django.get_version()}, ours {django_session_rs.__version__}"
        python = f"{platform.python_implementation()} {platform.python_version()}"
        print(f"{versions}, {python}, {platform.machine()} with {os.cpu_count()} cores")
        codec = SessionCodec(settings.SECRET_KEY)
        bench_codec(DjangoStore, SessionStore, codec, rounds)
        bench_signing(rounds)

        own = connections["default"]
        if "postgres" in connections.databases:
            with connections["postgres"].cursor() as cursor:
                cursor.execute(f"CREATE SCHEMA {SCHEMA}")
            print(f"\n{driver_of_postgres()}")
        else:
            print("\nTEST_POSTGRES_URL is not set: PostgreSQL is not measured.")
        try:
            for alias in connections.databases:
                connections["default"] = own if alias == "default" else connections[alias]
                call_command("migrate", verbosity=0)
                name = "SQLite in memory" if alias == "default" else alias
                bench_engine(f"db on {name}", DjangoStore, SessionStore, rounds, count)
                if alias == "postgres":
                    bench_engine(f"native on {name}", DjangoStore, NativeStore, rounds, count)
            # Threads have connections of their own, so not in memory.
            for alias in connections.databases:
                if alias == "default" or not hasattr(SessionBase, "asave"):
                    continue
                connections["default"] = own
                with only(connections, alias):
                    stores = DjangoStore, SessionStore, rounds, count // 4
                    asyncio.run(bench_async(f"db on {alias}", *stores))
                    if alias == "postgres":
                        connections["default"] = connections[alias]
                        stores = DjangoStore, NativeStore, rounds, count // 4
                        asyncio.run(bench_async(f"native on {alias}", *stores))
        finally:
            if "postgres" in connections.databases:
                with connections["postgres"].cursor() as cursor:
                    cursor.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
            connections["default"] = own
            connections.close_all()


class only:  # noqa: N801 - read as a word
    """Make one database the default in every thread."""

    def __init__(self, connections, alias: str) -> None:
        self.databases, self.alias = connections.databases, alias

    def __enter__(self) -> None:
        self.default = self.databases["default"]
        self.databases["default"] = self.databases[self.alias]

    def __exit__(self, *_: object) -> None:
        self.databases["default"] = self.default


if __name__ == "__main__":
    main()

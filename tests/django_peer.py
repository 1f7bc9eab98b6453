"""The other side of the Rust differential tests: an installed Django with its session engines.

    django_peer.py write COUNT SEED   a line a session: {"stored": …, "json": …}
    django_peer.py read               reads such lines and says on which Django reads something else
    django_peer.py passwords CLASSES  checks or makes a password for each line, answers in a line
    django_peer.py engine SETTINGS    does with an engine what each line says, and answers in a line

``stored`` is what ``SessionStore.encode`` gives, ``json`` what its serializer writes. SETTINGS is a
JSON object of Django's settings, ``SESSION_ENGINE`` among them. CLASSES is a JSON object of
Django's password hashers, and of the parameters that they are to have.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import random
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECRET_KEY = "the secret of the differential test"


def text(rng: random.Random) -> str:
    kind = rng.random()
    length = rng.choice((0, 1, 3, 8, 20, 60))
    if kind < 0.5:
        return "".join(chr(rng.randrange(32, 127)) for _ in range(length))
    if kind < 0.6:
        return rng.choice(("_auth_user_id", "cart", "", "__type__", 'a"b\\c', "\x7f", "\x00\n\t"))
    if kind < 0.9:
        return "".join(
            chr(rng.choice((0xE9, 0x2603, 0x1F600, 0x80, 0xFFFF, 97))) for _ in range(length)
        )
    # Surrogates without their partner.
    return "".join(chr(rng.choice((0xD800, 0xDBFF, 0xDC00, 0xDFFF, 97))) for _ in range(length))


def number(rng: random.Random) -> int | float:
    kind = rng.random()
    if kind < 0.3:
        return rng.randrange(-100, 100)
    if kind < 0.5:
        return rng.randrange(-(10**40), 10**40)
    if kind < 0.9:
        # Any bits, not-a-number included.
        return float(struct.unpack("<d", rng.randbytes(8))[0])
    return rng.choice((0.0, -0.0, 1e16, 1e-5, 0.1, 5e-324, 1.7976931348623157e308, 2**63, -(2**63)))


def value(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.3:
        return text(rng)
    if kind < 0.6:
        return number(rng)
    if kind < 0.7:
        return rng.choice((None, True, False))
    if kind < 0.72:
        nested: Any = rng.choice((1, "leaf", None))
        for _ in range(rng.choice((20, 300, 850))):
            nested = rng.choice(([nested], {"k": nested}))
        return nested
    if kind < 0.85:
        return [value(rng, depth - 1) for _ in range(rng.randrange(6))]
    # Keys of other types become text, and may then be there twice.
    keys = (text(rng), rng.randrange(10), str(rng.randrange(10)), rng.choice((None, True, 1.5)))
    return {rng.choice(keys): value(rng, depth - 1) for _ in range(rng.randrange(6))}


def session(rng: random.Random) -> dict[str, Any]:
    return {text(rng): value(rng, 3) for _ in range(rng.choice((0, 1, 3, 8)))}


#: Sessions that were loaded by `hold`, and wait for `late`.
HELD: list[Any] = []


def beside(engine: Any, command: dict[str, Any]) -> dict[str, Any] | None:
    """Do what takes no session, or more than one."""
    from django.core.cache import caches
    from django.core.management import call_command

    op = command["op"]
    if op == "churn":
        return churn(engine, command["saves"])
    if op == "count":
        return count(engine, command["key"], range(*command["workers"]), command["rounds"])
    if op == "increment":
        return increment(engine, command)
    if op == "clear_expired":
        engine.SessionStore.clear_expired()
    elif op == "createcachetable":
        call_command("createcachetable", verbosity=0)
    elif op == "cache_set":
        # Past the key function: each key to itself.
        for key in command["keys"]:
            caches["default"]._cache.set(key, key)
    else:
        return None
    return {}


class Pausing:
    """A cache that says so before it sets a value, and waits for a line."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def get(self, key: str) -> Any:
        return self.cache.get(key)

    def set(self, key: str, value: Any, timeout: int) -> None:
        print(json.dumps({"paused": True}), flush=True)
        sys.stdin.readline()
        self.cache.set(key, value, timeout)


def answer(engine: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Do one thing with an engine, and say what a caller sees."""
    done = beside(engine, command)
    if done is not None:
        return done
    op = command["op"]
    store = engine.SessionStore(command.get("key"))
    found: Any = None
    if op == "exists":
        found = store.exists(command["key"])
    elif op == "expiry_date":
        data = dict(store.items())
        # Without a key it would look for the file of a new one.
        found = store._expiry_date(data) if store.session_key else None
        found = found.isoformat() if hasattr(found, "isoformat") else found
    elif op == "hold":
        HELD.append(store)
    elif op == "load and pause":
        store._cache = Pausing(store._cache)
    elif op == "repr":
        found = repr(dict(store.items()))
    elif op in ("change", "create", "late", "replace", "set"):
        store = HELD.pop() if op == "late" else store
        change(store, command)
    elif op in ("cycle_key", "flush", "delete", "save"):
        getattr(store, op)()
    elif op != "load":
        raise ValueError(op)
    data = None if op in ("delete", "exists") else dict(store.items())
    return {
        "found": found,
        "key": store.session_key,
        "json": None if data is None else json.dumps(data, separators=(",", ":")),
        "modified": store.modified,
    }


def change(store: Any, command: dict[str, Any]) -> None:
    """Change a session and save it."""
    if command["op"] == "replace":
        # Filled without being loaded: that the session is gone is then an error.
        store._session_cache = command["data"]
    else:
        store.update(command["data"])
        store.update(ast.literal_eval(command.get("literal", "{}")))
    for name in command.get("remove", ()):
        store.pop(name, None)
    if "age" in command:
        store.set_expiry(command["age"])
    if command["op"] == "create":
        store.create()
    # Where there is no session any more, saving makes a new one.
    elif command["op"] != "change" or "key" not in command or store.session_key:
        store.save()


def churn(engine: Any, saves: int) -> dict[str, Any]:
    """Make a session, save it again and again beside others, and delete it.

    Says its key at once, and in the end how many of the values that were saved were missing when
    the session was next loaded.
    """
    store = engine.SessionStore()
    store.create()
    print(json.dumps({"key": store.session_key}), flush=True)
    missing = 0
    for index in range(saves):
        store = engine.SessionStore(store.session_key)
        missing += sum(f"django_{before}" not in store for before in range(index))
        # What is missing comes back, so that it is counted once.
        store.update({f"django_{before}": before for before in range(index + 1)})
        store.save()
    store.delete()
    return {"missing": missing}


def count(engine: Any, key: str, workers: range, rounds: int) -> dict[str, Any]:
    """Let each worker, a thread, count a name of its own up in one session."""

    def work(name: str) -> None:
        for _ in range(rounds):
            store = engine.SessionStore(key)
            store[name] = store.get(name, 0) + 1
            store.save()
        connections.close_all()

    from django.db import connections

    names = [f"worker {worker}" for worker in workers]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, names))
    return {}


def increment(engine: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Count a name of a session up, each time as a request of its own would."""
    for _ in range(command["times"]):
        store = engine.SessionStore(command["key"])
        store[command["name"]] = store.get(command["name"], 0) + 1
        store.save()
    return {}


def serve(name: str) -> None:
    engine = importlib.import_module(name)
    for line in sys.stdin:
        try:
            said = answer(engine, json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is an answer
            said = {"raised": type(error).__name__}
        print(json.dumps(said), flush=True)


def passwords(classes: dict[str, dict[str, Any]]) -> None:
    from django.contrib.auth import hashers

    for name, parameters in classes.items():
        for parameter, number in parameters.items():
            setattr(getattr(hashers, name), parameter, number)
    for line in sys.stdin:
        command = json.loads(line)
        renewed: list[str] = []
        try:
            if "encoded" in command:
                is_correct = hashers.check_password(
                    command["password"], command["encoded"], renewed.append
                )
                said = {"check": is_correct, "renewed": bool(renewed)}
            else:
                hasher = command["algorithm"]
                said = {"encoded": hashers.make_password(command["password"], hasher=hasher)}
        except Exception as error:  # noqa: BLE001 - whatever Django raises is an answer
            said = {"raised": type(error).__name__}
        print(json.dumps(said), flush=True)


def configure(options: dict[str, Any]) -> None:
    """Set Django up as a settings module of these settings does."""
    import django
    from django.conf import settings

    if "mysql" in str(options.get("DATABASES")):
        import pymysql

        # PyMySQL stands in for mysqlclient, whose version Django checks.
        pymysql.version_info = (2, 2, 8, "final", 0)
        pymysql.__version__ = "2.2.8"
        pymysql.install_as_MySQLdb()
    settings.configure(**{"SECRET_KEY": SECRET_KEY, **options})
    if "TIME_ZONE" in options:
        os.environ["TZ"] = settings.TIME_ZONE
        time.tzset()
    django.setup()
    if "SESSION_TABLE" in options:
        from django.contrib.sessions.models import Session

        Session._meta.db_table = options["SESSION_TABLE"]


def main() -> None:
    import django
    from django.conf import settings

    if sys.argv[1] == "engine":
        configure(json.loads(sys.argv[2]))
        serve(settings.SESSION_ENGINE)
        return
    if sys.argv[1] == "passwords":
        classes = json.loads(sys.argv[2])
        configure({"PASSWORD_HASHERS": [f"django.contrib.auth.hashers.{name}" for name in classes]})
        passwords(classes)
        return
    settings.configure(SECRET_KEY=SECRET_KEY)
    django.setup()
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.serializers import JSONSerializer

    store = SessionStore()
    if sys.argv[1] == "write":
        rng = random.Random(int(sys.argv[3]))
        for _ in range(int(sys.argv[2])):
            # What Django itself reads back: names that are one name afterwards are one here too.
            data = json.loads(JSONSerializer().dumps(session(rng)))
            line = {"stored": store.encode(data), "json": JSONSerializer().dumps(data).decode()}
            print(json.dumps(line))
        return
    wrong = count = 0
    for line in sys.stdin:
        record = json.loads(line)
        count += 1
        read = JSONSerializer().dumps(store.decode(record["stored"])).decode()
        if read != record["json"]:
            wrong += 1
            print("differs:", record["stored"][:200], file=sys.stderr)
    print(json.dumps({"count": count, "wrong": wrong}))


if __name__ == "__main__":
    main()

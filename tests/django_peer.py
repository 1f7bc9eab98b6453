"""The other side of the Rust differential test: an installed Django that writes and reads sessions.

    django_peer.py write COUNT SEED   a line a session: {"stored": …, "json": …}
    django_peer.py read               reads such lines and says on which Django reads something else
    django_peer.py serve              settings in the first line, then a request a line: see `Server`

``stored`` is what ``SessionStore.encode`` gives, ``json`` what its serializer writes.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time
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


class Server:
    """Sessions of one engine, changed by requests of the other side.

    A request is an object with ``op``, the name of a method, and its arguments; the answer is what the
    method returns, or ``{"raises": …}``.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        import django
        from django.conf import settings

        if "mysql" in str(options.get("DATABASES")):
            import pymysql

            # PyMySQL stands in for mysqlclient, whose version Django checks.
            pymysql.version_info = (2, 2, 8, "final", 0)
            pymysql.__version__ = "2.2.8"
            pymysql.install_as_MySQLdb()
        settings.configure(SECRET_KEY=SECRET_KEY, **options)
        # As a settings module does, which `configure` does not.
        os.environ["TZ"] = settings.TIME_ZONE
        time.tzset()
        django.setup()
        from importlib import import_module

        self.store = import_module(settings.SESSION_ENGINE).SessionStore

    def createcachetable(self) -> None:
        from django.core.management import call_command

        call_command("createcachetable", verbosity=0)

    def create(self, data: dict[str, Any], age: int) -> str:
        session = self.store()
        session.set_expiry(age)
        session.update(data)
        session.create()
        return str(session.session_key)

    def load(self, key: str) -> dict[str, Any] | None:
        session = self.store(session_key=key)
        data = {name: value for name, value in session.items() if name != "_session_expiry"}
        return data if session.session_key else None

    def save(self, key: str, data: dict[str, Any], age: int) -> None:
        session = self.store(session_key=key)
        # Filled without being loaded: a session that is gone is then an error.
        session._session_cache = dict(data)
        session.set_expiry(age)
        session.save()

    def increment(self, key: str, name: str, times: int) -> None:
        for _ in range(times):
            session = self.store(session_key=key)
            session[name] = session.get(name, 0) + 1
            session.save()

    def exists(self, key: str) -> bool:
        return bool(self.store().exists(key))

    def delete(self, key: str) -> None:
        self.store().delete(key)

    def nodes(self, keys: list[str]) -> list[str]:
        """Return the server that pymemcache takes for each key."""
        from django.core.cache import caches

        return [caches["default"]._cache._get_client(key).server for key in keys]

    def set(self, keys: list[str]) -> None:
        """Set each key to itself, past the key function."""
        from django.core.cache import caches

        for key in keys:
            caches["default"]._cache.set(key, key)

    def run(self) -> None:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = getattr(self, request.pop("op"))(**request)
            except Exception as error:
                answer = {"raises": type(error).__name__, "message": str(error)}
            print(json.dumps(answer), flush=True)


def main() -> None:
    if sys.argv[1] == "serve":
        Server(json.loads(sys.stdin.readline())).run()
        return

    import django
    from django.conf import settings

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

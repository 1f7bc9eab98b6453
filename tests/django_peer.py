"""The other side of the Rust differential test: an installed Django that writes and reads sessions.

    django_peer.py write COUNT SEED   a line a session: {"stored": …, "json": …}
    django_peer.py read               reads such lines and says on which Django reads something else
    django_peer.py cache CACHE        answers each line, a step on the cache engine, by one

``stored`` is what ``SessionStore.encode`` gives, ``json`` what its serializer writes. ``CACHE`` is
the entry of ``CACHES`` in JSON; the steps are the methods of ``Engine``.
"""

from __future__ import annotations

import json
import random
import struct
import sys
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


class Engine:
    """Sessions as a view of the site would use them, each step in a request of its own."""

    def __init__(self) -> None:
        from django.contrib.sessions.backends.cache import SessionStore

        self._store = SessionStore
        self._held: Any = None

    def _found(self, key: str) -> Any:
        """Return the session, or None if there is none."""
        store = self._store(key)
        # Loading a session that is not there takes the key away.
        store.get("")
        return store if store.session_key == key else None

    def create(self, data: dict[str, Any], age: int | None) -> str:
        store = self._store()
        store.update(data)
        store.set_expiry(age)
        store.save()
        return str(store.session_key)

    def load(self, key: str) -> dict[str, Any] | None:
        store = self._found(key)
        return None if store is None else dict(store.items())

    def save(self, key: str, data: dict[str, Any], remove: list[str], age: int | None) -> bool:
        """Return whether there was a session to save."""
        store = self._found(key)
        if store is None:
            return False
        store.update(data)
        for name in remove:
            store.pop(name, None)
        store.set_expiry(age)
        store.save()
        return True

    def hold(self, key: str) -> bool:
        """Load a session and return whether there is one; `late` saves it."""
        self._held = self._found(key)
        return self._held is not None

    def late(self, data: dict[str, Any]) -> bool:
        """Return whether the session that was held is still there to be saved."""
        from django.contrib.sessions.backends.base import UpdateError

        self._held.update(data)
        try:
            self._held.save()
        except UpdateError:
            return False
        return True

    def exists(self, key: str) -> bool:
        return bool(self._store().exists(key))

    def delete(self, key: str) -> None:
        self._store().delete(key)

    def cycle(self, key: str) -> str | None:
        store = self._found(key)
        if store is None:
            return None
        store.cycle_key()
        # The engine writes the data when the response is made.
        store.save()
        return str(store.session_key)

    def flush(self, key: str) -> None:
        self._store(key).flush()


def main() -> None:
    import django
    from django.conf import settings

    caches = {"default": json.loads(sys.argv[2])} if sys.argv[1] == "cache" else {}
    settings.configure(SECRET_KEY=SECRET_KEY, **({"CACHES": caches} if caches else {}))
    django.setup()
    if caches:
        engine = Engine()
        for line in sys.stdin:
            step = json.loads(line)
            answer = getattr(engine, step.pop("step"))(**step)
            print(json.dumps(answer), flush=True)
        return
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

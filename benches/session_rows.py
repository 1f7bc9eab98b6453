"""Rows of ``django_session`` as a large site has them, the same ones for the same seed.

    python benches/session_rows.py URL [--rows 5000000] [--seed 1]

writes them, with their users, into an empty database at an address such as
``sqlite:/tmp/x.sqlite3``, ``postgres://user:password@host:port/name`` or ``mysql://…``. Nine of ten
are expired; two thirds of the live ones belong to users. They are in four forms (JSON and pickle,
each in today's form and in that before Django 3.1), signed with three keys, and hold from some 60
bytes to 50 kB.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings

#: The primary key first. They are of no account anywhere else.
KEYS = ["the key of today", "the key of last year", "the key of the year before"]
USERS = 5_000
#: How many different sessions there are; more rows repeat their data under other keys.
TEMPLATES = 20_000
#: Where in time the rows are seen from.
NOW = datetime.now(UTC).replace(microsecond=0)
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

CREATE = """
CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY,
 session_data {text} NOT NULL, expire_date {time} NOT NULL);
CREATE INDEX django_session_expire_date_a5c62663 ON django_session (expire_date);
CREATE TABLE auth_user (id integer NOT NULL PRIMARY KEY, password varchar(128) NOT NULL,
 username varchar(150) NOT NULL UNIQUE, is_active bool NOT NULL)
"""

Row = tuple[str, str, datetime]


def password(user: int) -> str:
    """What the column ``password`` of a user has."""
    return f"pbkdf2_sha256$1000000$salt{user}$hash{user}="


def _configure() -> None:
    if not settings.configured:
        settings.configure(SECRET_KEY=KEYS[0], USE_TZ=True)
        django.setup()


def _templates(seed: int) -> list[tuple[str, int]]:
    """Texts of sessions with their users; 0 is nobody."""
    import base64
    import hashlib
    import hmac
    import pickle

    from django.core import signing
    from django.core.signing import TimestampSigner
    from django.utils.crypto import salted_hmac

    class Pickled:
        def dumps(self, obj: object) -> bytes:
            return pickle.dumps(obj, 4)

        def loads(self, data: bytes) -> object:
            raise NotImplementedError

    def legacy(payload: bytes, key: str) -> str:
        made = hashlib.sha1(b"django.contrib.sessionsSessionStore" + key.encode()).digest()
        digest = hmac.new(made, payload, hashlib.sha1).hexdigest()
        return base64.b64encode(digest.encode() + b":" + payload).decode()

    draw = random.Random(seed)
    salt = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"
    hashes = {
        (user, key): salted_hmac(salt, password(user), secret=key, algorithm="sha256").hexdigest()
        for user in range(1, USERS + 1)
        for key in KEYS
    }
    serializer = signing.JSONSerializer()
    out = []
    for _ in range(TEMPLATES):
        key = draw.choices(KEYS, [80, 15, 5])[0]
        user = draw.randint(1, USERS) if draw.random() < 0.66 else 0
        data: dict[str, object] = {}
        if user:
            data["_auth_user_id"] = str(user)
            data["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
            data["_auth_user_hash"] = hashes[user, key]
        size = min(50_000, int(draw.lognormvariate(4.5, 1.4)))
        if draw.random() < 0.002:
            size = draw.randint(20_000, 100_000)
        if size > 60:
            items = [
                {
                    "sku": f"{draw.getrandbits(40):x}",
                    "n": draw.randint(1, 9),
                    "price": draw.random(),
                }
                for _ in range(size // 50)
            ]
            data["cart"] = {"items": items, "note": "".join(draw.choices(ALPHABET, k=20))}
        signer = TimestampSigner(key=key, salt="django.contrib.sessions.SessionStore")
        form = draw.choices(["json", "pickle", "legacy", "legacy pickle"], [85, 7, 6, 2])[0]
        if form == "json":
            text = signer.sign_object(data, serializer=signing.JSONSerializer, compress=True)
        elif form == "pickle":
            text = signer.sign_object(data, serializer=Pickled, compress=True)
        elif form == "legacy":
            text = legacy(serializer.dumps(data), key)
        else:
            text = legacy(pickle.dumps(data, 2), key)
        out.append((text, user))
    return out


def rows(count: int, seed: int = 1) -> Iterator[Row]:
    """Key, data and expire date of so many sessions, in the order in which a site made them."""
    _configure()
    templates = [text for text, _ in _templates(seed)]
    draw = random.Random(seed + 1)
    span = 400 * 86_400
    for index in range(count):
        number = draw.getrandbits(160)
        key = "".join([ALPHABET[(number >> shift & 31)] for shift in range(0, 160, 5)])
        # The oldest have expired long ago, the youngest will in two weeks.
        live = index % 10 == 0
        if live:
            seconds = draw.random() * 14 * 86_400 + 3_600
        else:
            seconds = -span * (count - index) / count - draw.random() * 86_400
        yield key, templates[draw.randrange(TEMPLATES)], NOW + timedelta(seconds=seconds)


def users() -> Iterator[tuple[int, str, str, bool]]:
    """The rows of ``auth_user``."""
    for user in range(1, USERS + 1):
        yield user, password(user), f"user{user}", True


def load(url: str, count: int, seed: int = 1) -> None:
    """Makes the tables and writes the rows."""
    parts = urlsplit(url)
    {"sqlite": _sqlite, "postgres": _postgres, "mysql": _mysql}[parts.scheme](
        url, rows(count, seed)
    )


def _sqlite(url: str, made: Iterator[Row]) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(CREATE.format(text="text", time="datetime"))
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO django_session VALUES (?, ?, ?)",
            ((key, data, date.strftime("%Y-%m-%d %H:%M:%S.%f")) for key, data, date in made),
        )
        connection.executemany("INSERT INTO auth_user VALUES (?, ?, ?, ?)", users())
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _postgres(url: str, made: Iterator[Row]) -> None:
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for statement in CREATE.format(text="text", time="timestamptz").split(";"):
            cursor.execute(statement)
        with cursor.copy("COPY django_session FROM STDIN") as copy:
            while chunk := list(itertools.islice(made, 1000)):
                copy.write("".join([f"{key}\t{data}\t{date}\n" for key, data, date in chunk]))
        with cursor.copy("COPY auth_user FROM STDIN") as copy:
            for row in users():
                copy.write_row(row)
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")


def _mysql(url: str, made: Iterator[Row]) -> None:
    import pymysql

    parts = urlsplit(url)
    connection = pymysql.connect(
        host=parts.hostname or "localhost",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/"),
    )
    with connection, connection.cursor() as cursor:
        for statement in CREATE.format(text="longtext", time="datetime(6)").split(";"):
            cursor.execute(statement)
        while chunk := list(itertools.islice(made, 1000)):
            values = ",".join(
                [f"('{key}','{data}','{date:%Y-%m-%d %H:%M:%S.%f}')" for key, data, date in chunk]
            )
            cursor.execute("INSERT INTO django_session VALUES " + values)
        cursor.executemany("INSERT INTO auth_user VALUES (%s, %s, %s, %s)", list(users()))
        connection.commit()
        cursor.execute("ANALYZE TABLE django_session")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    load(arguments.url, arguments.rows, arguments.seed)
    sys.stderr.write(f"{arguments.rows} rows in {time.perf_counter() - begun:.0f} s\n")


if __name__ == "__main__":
    main()

"""Stores full of sessions for the tests of the command, and what is in them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import resource
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches"))

import session_rows  # noqa: E402 - beside the benchmarks, which need it too

from django_session_rs import SessionCodec  # noqa: E402

FEATURES = os.environ.get("SHARED_LOGIN_FEATURES", "cli")
NEW, *OLD = session_rows.KEYS
EVERYTHING = ["signed", "signed_sha1", "legacy", "antique", "json", "pickle"]
CODEC = SessionCodec(NEW, fallbacks=OLD, accept=EVERYTHING)

Contents = dict[str, tuple[dict[str, Any], datetime]]


def built() -> str:
    """The command as it is now."""
    command = ["cargo", "build", "--quiet", "--bin=django-session", f"--features={FEATURES}"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return str(Path(target) / "debug" / "django-session")


class Command:
    """The command, with the keys of the rows."""

    def __init__(self, program: str, file_size: int | None = None) -> None:
        self.program = program
        self.file_size = file_size

    def with_file_size(self, most: int) -> Command:
        """The same where a file can have so many bytes at most, as on a disk that is full."""
        return Command(self.program, most)

    def _limit(self) -> None:
        if self.file_size is not None:
            # The write is to fail, not to kill.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_size, self.file_size))

    def environment(self, **variables: str) -> dict[str, str]:
        base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return base | {
            "SECRET_KEY": NEW,
            "SECRET_KEY_FALLBACKS": json.dumps(OLD),
            **variables,
        }

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, *arguments],
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, code: int = 0, given: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.program, *arguments],
            env=self.environment(**variables),
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            preexec_fn=self._limit,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        for secret in [*session_rows.KEYS, *_passwords(variables)]:
            assert secret not in done.stdout + done.stderr
        return done

    def json(self, *arguments: str, code: int = 0, **variables: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json", "--quiet", code=code, **variables)
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _passwords(variables: dict[str, str]) -> list[str]:
    urls = [urlsplit(value) for name, value in variables.items() if name.endswith("_URL")]
    return [url.password for url in urls if url.password]


class Table:
    """A database of this test's own with the tables of a site."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextlib.contextmanager
    def connected(self) -> Iterator[Callable[..., list[Any]]]:
        """A function that runs a statement, all of them over one connection."""
        parts = urlsplit(self.url)
        connection: Any
        if parts.scheme == "sqlite":
            connection = sqlite3.connect(parts.path, timeout=30, isolation_level=None)
        elif parts.scheme == "postgres":
            import psycopg

            connection = psycopg.connect(self.url, autocommit=True)
        else:
            import pymysql

            connection = pymysql.connect(
                host=parts.hostname or "",
                port=parts.port or 3306,
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                database=parts.path.strip("/") or None,
                autocommit=True,
            )

        def execute(sql: str, *parameters: Any) -> list[Any]:
            cursor = connection.cursor()
            if parts.scheme == "sqlite":
                sql = sql.replace("%s", "?")
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []

        with contextlib.closing(connection):
            yield execute

    def execute(self, sql: str, *parameters: Any) -> list[Any]:
        """Runs one statement."""
        with self.connected() as execute:
            return execute(sql, *parameters)

    def fill(self, rows: int, seed: int = 1) -> None:
        session_rows.load(self.url, rows, seed)

    def texts(self) -> dict[str, tuple[str, datetime]]:
        """What the columns hold."""
        rows = self.execute("SELECT session_key, session_data, expire_date FROM django_session")
        return {key: (text, _instant(date)) for key, text, date in rows}

    def contents(self) -> Contents:
        return {key: (CODEC.decode(text), date) for key, (text, date) in self.texts().items()}

    def live(self) -> Contents:
        now = datetime.now(UTC)
        return {key: found for key, found in self.contents().items() if found[1] > now}


def _instant(value: str | datetime) -> datetime:
    date = datetime.fromisoformat(value) if isinstance(value, str) else value
    return date if date.tzinfo else date.replace(tzinfo=UTC)


@contextlib.contextmanager
def table(kind: str, directory: Path) -> Iterator[Table]:
    """An empty database of this kind."""
    name = f"operations_{secrets.token_hex(4)}"
    if kind == "sqlite":
        yield Table(f"sqlite:{directory / name}.sqlite3")
        return
    base = os.environ["TEST_POSTGRES_URL" if kind == "postgres" else "TEST_MYSQL_URL"]
    parts = urlsplit(base)
    server = Table(base)
    server.execute(f"CREATE DATABASE {name}")
    try:
        yield Table(parts._replace(path=f"/{name}").geturl())
    finally:
        force = " WITH (FORCE)" if kind == "postgres" else ""
        server.execute(f"DROP DATABASE {name}{force}")


class Redis:
    """Keys of this test's own in Redis, one server or a cluster."""

    def __init__(self, variable: str = "TEST_REDIS_URL") -> None:
        import redis

        self.prefix = secrets.token_hex(4)
        base = os.environ[variable]
        self.client: Any
        if base.startswith("redis+cluster:"):
            parts = urlsplit(base)
            host, _, port = parts.netloc.rpartition("@")[2].split(",")[0].partition(":")
            self.client = redis.RedisCluster(
                host=host, port=int(port), username=parts.username, password=parts.password
            )
        else:
            self.client = redis.Redis.from_url(base)
        self.url = f"{base}{'&' if '?' in base else '?'}prefix={self.prefix}"

    def contents(self) -> Contents:
        """Every session, as Django's own cache backend reads it."""
        start = f"{self.prefix}:1:django.contrib.sessions.cache".encode()
        found: Contents = {}
        for key in self.client.scan_iter(match=start + b"*", count=1000):
            value, left = self.client.get(key), self.client.pttl(key)
            end = datetime.fromtimestamp(datetime.now(UTC).timestamp() + left / 1000, UTC)
            found[key.removeprefix(start).decode()] = (pickle.loads(value), end)
        return found

    def clear(self) -> None:
        for key in self.client.scan_iter(match=f"{self.prefix}:*", count=1000):
            self.client.delete(key)


class CacheTable:
    """The table of a ``DatabaseCache`` in a database of this test's own."""

    def __init__(self, table: Table) -> None:
        self.table = table
        between = "&" if "?" in table.url else "?"
        self.url = f"{table.url}{between}cache_table=sessions_cache"
        text, time = {
            "sqlite": ("text", "datetime"),
            "postgres": ("text", "timestamptz"),
            "mysql": ("longtext", "datetime(6)"),
        }[table.url.split(":")[0]]
        table.execute(
            "CREATE TABLE sessions_cache (cache_key varchar(255) NOT NULL PRIMARY KEY, "
            f"value {text} NOT NULL, expires {time} NOT NULL)"
        )

    def contents(self) -> Contents:
        """Every session, as Django's own cache backend reads it."""
        start = ":1:django.contrib.sessions.cache"
        rows = self.table.execute("SELECT cache_key, value, expires FROM sessions_cache")
        return {
            key.removeprefix(start): (pickle.loads(base64.b64decode(value)), _instant(end))
            for key, value, end in rows
            if key.startswith(start) and not key.startswith(f"{start}d_db")
        }


class Files:
    """Session files in a directory of this test's own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.url = f"file://{directory}"

    def texts(self) -> dict[str, str]:
        """What is in the files, by session key."""
        files = self.directory.glob("sessionid*")
        return {file.name.removeprefix("sessionid"): file.read_text() for file in files}

    def contents(self, codec: SessionCodec = CODEC) -> Contents:
        found: Contents = {}
        for key, text in self.texts().items():
            data = codec.decode(text)
            age = data.get("_session_expiry", 14 * 24 * 60 * 60)
            if isinstance(age, str):
                found[key] = (data, _instant(age))
                continue
            modified = (self.directory / f"sessionid{key}").stat().st_mtime
            found[key] = (data, datetime.fromtimestamp(modified + age, UTC))
        return found


def assert_same(one: Contents, other: Contents) -> None:
    """The same sessions, which end at the same time but for what Redis rounds."""
    assert one.keys() == other.keys()
    for key, (data, date) in one.items():
        assert repr(other[key][0]) == repr(data)
        assert abs((other[key][1] - date).total_seconds()) < 2

"""Whole stores: each command of ``django-session`` on millions of rows, and a script of Django's.

    python benches/operations.py [--rows 5000000] [--sample 20000] [--stores postgres,mysql,sqlite]
                                 [--only look,archive,write,move,clear]

Each store is filled by ``session_rows.py``. For each command it prints seconds, sessions per
second, the most memory it had, and how many times faster that is than a loop over
``Session.objects`` that does the same to a sample of the same rows in the same run. The floor is
``COPY … TO STDOUT`` of PostgreSQL, the whole table, and ``redis-cli --pipe`` for Redis.
``TEST_POSTGRES_URL``, ``TEST_MYSQL_URL`` and ``TEST_REDIS_URL`` name the servers. For ``rotate``
and ``migrate``, which leave alone what has expired, all sessions are made live beforehand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import session_rows

ROOT = Path(__file__).resolve().parents[1]


def built() -> str:
    """The command, built for speed."""
    if program := os.environ.get("DJANGO_SESSION"):
        return program
    command = ["cargo", "build", "--release", "--quiet", "--bin=django-session", "--features=cli"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return str(Path(target) / "release" / "django-session")


@dataclass
class Ran:
    """How a command ran."""

    seconds: float
    megabytes: float
    found: dict[str, Any]


def start(
    program: str, *arguments: str, out: int = subprocess.PIPE, **urls: str
) -> subprocess.Popen[str]:
    """Start a command with the keys of the rows."""
    keys = {"SECRET_KEY": session_rows.KEYS[0]}
    keys["SECRET_KEY_FALLBACKS"] = json.dumps(session_rows.KEYS[1:])
    # The doctor shows no progress.
    quiet = () if arguments[0] == "doctor" else ("--quiet",)
    return subprocess.Popen(
        [program, *arguments, "--json", *quiet],
        env={**os.environ, **keys, **urls},
        stdout=out,
        text=True,
    )


def run(program: str, *arguments: str, out: int = subprocess.PIPE, **urls: str) -> Ran:
    """Run a command to its end."""
    begun = time.perf_counter()
    process = start(program, *arguments, out=out, **urls)
    peak = 0
    # The system's own count of a child begins with what its parent has.
    while process.poll() is None:
        peak = max(peak, peak_of(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - begun
    found, _ = process.communicate()
    # Some of what the doctor finds is an error.
    if process.returncode and not (arguments[0] == "doctor" and process.returncode <= 2):
        sys.exit(f"{arguments} ended with {process.returncode}")
    return Ran(seconds, peak / 1024, json.loads(found) if found else {})


def peak_of(pid: int) -> int:
    """The most memory in kB that a process has had until now; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def configure(url: str) -> None:
    """Django, on the database at an address."""
    from django.conf import settings

    parts = urlsplit(url)
    engine = {"sqlite": "sqlite3", "postgres": "postgresql", "mysql": "mysql"}[parts.scheme]
    if parts.scheme == "mysql":
        import pymysql

        pymysql.version_info = (2, 2, 8, "final", 0)
        pymysql.__version__ = "2.2.8"
        pymysql.install_as_MySQLdb()
    name = parts.path if parts.scheme == "sqlite" else parts.path.strip("/")
    database = {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }
    redis = os.environ.get("TEST_REDIS_URL", "redis://localhost")
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis}
    settings.configure(
        SECRET_KEY=session_rows.KEYS[0],
        SECRET_KEY_FALLBACKS=session_rows.KEYS[1:],
        DATABASES={"default": database},
        CACHES={"default": {**cache, "KEY_PREFIX": "script"}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        USE_TZ=True,
    )
    import django

    django.setup()


def script(url: str, name: str, sample: int) -> None:
    """What somebody writes with Django; prints how many sessions per second."""
    configure(url)
    from django.contrib.sessions.backends.cache import SessionStore as CacheStore
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    now = timezone.now()
    rows = Session.objects.order_by("pk")[:sample]

    def stats() -> int:
        users: dict[str, int] = {}
        count = 0
        for row in rows.iterator():
            data = row.get_decoded()
            user = data.get("_auth_user_id", "")
            users[user] = users.get(user, 0) + 1
            count += 1
        return count

    def rotate() -> int:
        count = 0
        for row in rows.iterator():
            row.session_data = Session.objects.encode(row.get_decoded())
            row.save(update_fields=["session_data"])
            count += 1
        return count

    def to_redis() -> int:
        count = 0
        for row in rows.iterator():
            store = CacheStore(row.session_key)
            store._session_cache = row.get_decoded()
            store.set_expiry(max(60, int((row.expire_date - now).total_seconds())))
            store.save(must_create=True)
            count += 1
        return count

    def from_redis() -> int:
        count = 0
        for key in list(rows.values_list("session_key", flat=True)):
            store = CacheStore(key)
            data = store.load()
            Session.objects.save(key, data, now)
            count += 1
        return count

    works: dict[str, Callable[[], int]] = {
        "stats": stats,
        "rotate": rotate,
        "to redis": to_redis,
        "from redis": from_redis,
    }
    begun = time.perf_counter()
    count = works[name]()
    sys.stdout.write(json.dumps(count / (time.perf_counter() - begun)))


def scripted(url: str, name: str, sample: int) -> float:
    """Sessions per second of the script, in a process of its own."""
    arguments = [sys.executable, __file__, "--script", name, "--sample", str(sample)]
    environment = {**os.environ, "SCRIPT_URL": url}
    done = subprocess.run(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env=environment,
    )
    rate: float = json.loads(done.stdout)
    return rate


class Report:
    """The table that is printed."""

    def __init__(self) -> None:
        self.line(
            "store", "command", "sessions", "seconds", "per second", "memory", "Django", "ratio"
        )

    @staticmethod
    def line(*cells: str) -> None:
        widths = (10, 26, 11, 8, 11, 9, 9, 7)
        print(*[cell.rjust(width) for cell, width in zip(cells, widths, strict=True)], flush=True)

    def add(self, store: str, name: str, sessions: int, ran: Ran, django: float | None) -> None:
        rate = sessions / ran.seconds
        self.line(
            store,
            name,
            f"{sessions:,}" if sessions else "-",
            f"{ran.seconds:.1f}",
            f"{rate:,.0f}" if sessions else "-",
            f"{ran.megabytes:.0f} MB",
            f"{django:,.0f}" if django else "-",
            f"{rate / django:.1f}x" if django else "-",
        )


def execute(url: str, sql: str) -> None:
    """Run a statement that gives nothing back."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    import operations

    operations.Table(url).execute(sql)


@contextlib.contextmanager
def new_database(kind: str, directory: str, count: int = 0) -> Iterator[str]:
    """The address of a database with so many sessions, until it is no longer needed."""
    name = f"rows_{secrets.token_hex(4)}"
    if kind == "sqlite":
        path = Path(directory) / f"{name}.sqlite3"
        session_rows.load(f"sqlite:{path}", count)
        yield f"sqlite:{path}"
        path.unlink()
        return
    base = os.environ["TEST_POSTGRES_URL" if kind == "postgres" else "TEST_MYSQL_URL"]
    execute(base, f"CREATE DATABASE {name}")
    try:
        url = urlsplit(base)._replace(path=f"/{name}").geturl()
        session_rows.load(url, count)
        yield url
    finally:
        force = " WITH (FORCE)" if kind == "postgres" else ""
        execute(base, f"DROP DATABASE {name}{force}")


def expire_all(kind: str, url: str, date: str) -> None:
    """Make all sessions expire at the same time."""
    execute(url, f"UPDATE django_session SET expire_date = '{date}'")
    if kind == "postgres":
        execute(url, "VACUUM (FULL, ANALYZE) django_session")


def floor(url: str) -> float:
    """Seconds that ``COPY`` alone takes for the whole table."""
    import psycopg

    begun = time.perf_counter()
    sql = "COPY django_session TO STDOUT (FORMAT binary)"
    with psycopg.connect(url) as connection, connection.cursor().copy(sql) as copy:
        for _ in copy:
            pass
    return time.perf_counter() - begun


def redis_floor(count: int) -> float | None:
    """Seconds that ``redis-cli --pipe`` takes to write so many sessions; None if there is none."""
    if shutil.which("redis-cli") is None:
        return None
    url = urlsplit(os.environ["TEST_REDIS_URL"])
    commands = bytearray()
    for key, text, _ in session_rows.rows(count):
        parts = ["SET", f"floor:{key}", text, "NX", "PX", "864000000"]
        commands += f"*{len(parts)}\r\n".encode()
        for part in parts:
            commands += f"${len(part)}\r\n{part}\r\n".encode()
    command = ["redis-cli", "-h", url.hostname or "", "-p", str(url.port or 6379), "--pipe"]
    if url.username:
        command += ["--user", unquote(url.username)]
    password = {"REDISCLI_AUTH": unquote(url.password)} if url.password else {}
    begun = time.perf_counter()
    quiet = subprocess.DEVNULL
    environment = {**os.environ, **password}
    subprocess.run(command, input=commands, env=environment, stdout=quiet, stderr=quiet, check=True)
    return time.perf_counter() - begun


@dataclass
class Measured:
    """A store on which each command is measured."""

    kind: str
    url: str
    count: int
    program: str
    sample: int
    report: Report
    directory: str

    def add(
        self, name: str, ran: Ran, *, count: int | None = None, django: float | None = None
    ) -> None:
        self.report.add(self.kind, name, self.count if count is None else count, ran, django)

    def run(self, *arguments: str, out: int = subprocess.PIPE) -> Ran:
        return run(self.program, *arguments, out=out, SESSION_STORE_URL=self.url)

    def scripted(self, name: str) -> float:
        return scripted(self.url, name, self.sample)

    def look(self) -> None:
        """The commands that only look, and the floor."""
        if self.kind == "postgres":
            self.add("COPY TO STDOUT", Ran(floor(self.url), 0, {}))
        # The script of both: a loop that decodes, and counts or prints.
        django = self.scripted("stats")
        self.add("stats", self.run("stats"), django=django)
        listed = self.run("list", "--expired", out=subprocess.DEVNULL)
        self.add("list", listed, django=django)
        # It looks at a sample, and asks the server for the rest.
        self.add("doctor", self.run("doctor"), count=0)

    def archive(self) -> None:
        """To a file, and from there into an empty store."""
        archive = f"{self.directory}/archive.jsonl.zst"
        self.add("export", self.run("export", "--include-secrets", "--include-expired", archive))
        with new_database(self.kind, self.directory) as other:
            ran = run(self.program, "import", archive, SESSION_STORE_URL=other)
            self.add("import", ran)
        Path(archive).unlink()

    def write(self) -> None:
        """The commands that change sessions where they are."""
        revoked = self.run("revoke", "--user", "17", "--yes")
        self.add("revoke a user, live", revoked, count=self.count // 10)
        expire_all(self.kind, self.url, "2099-01-01 00:00:00")
        # The script of both: a loop that decodes and saves.
        django = self.scripted("rotate")
        ran = self.run("rotate")
        self.add(f"rotate, {ran.found['passes']} passes", ran, django=django)
        self.report.line("", f"{ran.found['signed_anew']:,} signed anew", *[""] * 6)
        ran = self.run("convert")
        self.add("convert", ran, django=django)
        self.report.line("", f"{ran.found['converted']:,} converted", *[""] * 6)

    def move(self) -> None:
        """To Redis, and from there into an empty store."""
        django = self.scripted("to redis")
        to = f"{os.environ['TEST_REDIS_URL']}?prefix=bench"
        urls = {"FROM_SESSION_STORE_URL": self.url, "TO_SESSION_STORE_URL": to}
        self.add("migrate to Redis", run(self.program, "migrate", **urls), django=django)
        with new_database(self.kind, self.directory) as back:
            django = self.scripted("from redis")
            urls = {"FROM_SESSION_STORE_URL": to, "TO_SESSION_STORE_URL": back}
            self.add("migrate from Redis", run(self.program, "migrate", **urls), django=django)
        import redis

        redis.Redis.from_url(os.environ["TEST_REDIS_URL"]).flushdb(asynchronous=True)

    def clear(self) -> None:
        """What has expired goes."""
        expire_all(self.kind, self.url, "2001-01-01 00:00:00")
        ran = self.run("clear-expired", "--batch", "5000")
        self.add("clear-expired", ran, count=ran.found["expired"])


STEPS = ("look", "archive", "write", "move", "clear")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--sample", type=int, default=20_000)
    parser.add_argument("--stores", default="postgres,mysql,sqlite")
    parser.add_argument("--only", default=",".join(STEPS))
    parser.add_argument("--script", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.script:
        script(os.environ["SCRIPT_URL"], arguments.script, arguments.sample)
        return
    program = built()
    report = Report()
    written = min(arguments.rows, 500_000)
    if (seconds := redis_floor(written)) is not None:
        report.add("redis", "redis-cli --pipe", written, Ran(seconds, 0, {}), None)
    for kind in arguments.stores.split(","):
        with (
            tempfile.TemporaryDirectory() as directory,
            new_database(kind, directory, arguments.rows) as url,
        ):
            store = Measured(
                kind, url, arguments.rows, program, arguments.sample, report, directory
            )
            for step in STEPS:
                if step in arguments.only.split(","):
                    getattr(store, step)()


if __name__ == "__main__":
    main()

"""Whole stores: each command of ``django-session`` on millions of rows, and a script of Django's.

    python benches/operations.py [--rows 5000000] [--sample 20000] [--stores postgres,mysql,sqlite]

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
from collections.abc import Callable
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


def start(program: str, *arguments: str, **urls: str) -> subprocess.Popen[str]:
    """Start a command with the keys of the rows."""
    keys = {"SECRET_KEY": session_rows.KEYS[0]}
    keys["SECRET_KEY_FALLBACKS"] = json.dumps(session_rows.KEYS[1:])
    return subprocess.Popen(
        [program, *arguments, "--json", "--quiet"],
        env={**os.environ, **keys, **urls},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(program: str, *arguments: str, **urls: str) -> Ran:
    """Run a command to its end."""
    begun = time.perf_counter()
    process = start(program, *arguments, **urls)
    peak = 0
    # The system's own count of a child begins with what its parent has.
    while process.poll() is None:
        peak = max(peak, peak_of(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - begun
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{arguments} ended with {process.returncode}")
    return Ran(seconds, peak / 1024, json.loads(out))


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
            f"{sessions:,}",
            f"{ran.seconds:.1f}",
            f"{rate:,.0f}",
            f"{ran.megabytes:.0f} MB",
            f"{django:,.0f}" if django else "-",
            f"{rate / django:.1f}x" if django else "-",
        )


def execute(url: str, sql: str) -> None:
    """Run a statement that gives nothing back."""
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    import operations

    operations.Table(url).execute(sql)


def new_database(kind: str, directory: str) -> str:
    name = f"rows_{secrets.token_hex(4)}"
    if kind == "sqlite":
        return f"sqlite:{directory}/{name}.sqlite3"
    base = os.environ["TEST_POSTGRES_URL" if kind == "postgres" else "TEST_MYSQL_URL"]
    execute(base, f"CREATE DATABASE {name}")
    return urlsplit(base)._replace(path=f"/{name}").geturl()


def drop(url: str) -> None:
    if not url.startswith("sqlite:"):
        force = " WITH (FORCE)" if url.startswith("postgres") else ""
        base = os.environ["TEST_POSTGRES_URL" if force else "TEST_MYSQL_URL"]
        execute(base, f"DROP DATABASE {urlsplit(url).path.strip('/')}{force}")


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


def measure(kind: str, program: str, count: int, sample: int, report: Report) -> None:
    """Every command on one kind of store."""
    with tempfile.TemporaryDirectory() as directory:
        url = new_database(kind, directory)
        try:
            session_rows.load(url, count)
            here = {"SESSION_STORE_URL": url}
            if kind == "postgres":
                seconds = floor(url)
                report.add(kind, "COPY TO STDOUT", count, Ran(seconds, 0, {}), None)
            report.add(
                kind, "stats", count, run(program, "stats", **here), scripted(url, "stats", sample)
            )
            archive = f"{directory}/archive.jsonl.zst"
            ran = run(program, "export", "--include-secrets", "--include-expired", archive, **here)
            report.add(kind, "export", count, ran, None)
            other = new_database("sqlite" if kind == "sqlite" else kind, directory)
            try:
                session_rows.load(other, 0)
                ran = run(program, "import", archive, SESSION_STORE_URL=other)
                report.add(kind, "import", count, ran, None)
            finally:
                drop(other)
            Path(archive).unlink()
            ran = run(program, "revoke", "--user", "17", "--yes", **here)
            report.add(kind, "revoke a user, live", count // 10, ran, None)
            expire_all(kind, url, "2099-01-01 00:00:00")
            django = scripted(url, "rotate", sample)
            ran = run(program, "rotate", **here)
            report.add(kind, f"rotate, {ran.found['passes']} passes", count, ran, django)
            report.line("", f"{ran.found['signed_anew']:,} signed anew", *[""] * 6)
            django = scripted(url, "to redis", sample)
            to = f"{os.environ['TEST_REDIS_URL']}?prefix=bench"
            ran = run(program, "migrate", FROM_SESSION_STORE_URL=url, TO_SESSION_STORE_URL=to)
            report.add(kind, "migrate to Redis", count, ran, django)
            back = new_database(kind, directory)
            try:
                session_rows.load(back, 0)
                django = scripted(url, "from redis", sample)
                ran = run(program, "migrate", FROM_SESSION_STORE_URL=to, TO_SESSION_STORE_URL=back)
                report.add(kind, "migrate from Redis", count, ran, django)
            finally:
                drop(back)
            import redis

            redis.Redis.from_url(os.environ["TEST_REDIS_URL"]).flushdb(asynchronous=True)
            expire_all(kind, url, "2001-01-01 00:00:00")
            ran = run(program, "clear-expired", "--batch", "5000", **here)
            report.add(kind, "clear-expired", ran.found["expired"], ran, None)
        finally:
            drop(url)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--sample", type=int, default=20_000)
    parser.add_argument("--stores", default="postgres,mysql,sqlite")
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
        measure(kind, program, arguments.rows, arguments.sample, report)


if __name__ == "__main__":
    main()

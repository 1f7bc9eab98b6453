"""Requests of a site while its sessions are cleared and its key is rotated.

    python benches/operations_load.py [--rows 200000] [--requests 200] [--seconds 5] [--rounds 1]
                                      [--limits="--workers 1 --rate 2000"] [--only WORD[,WORD]]

A site of Django's own, behind gunicorn, on the database of ``TEST_POSTGRES_URL``, gets so many
requests a second, whether or not it keeps up (a latency counts from when the request was due): one
in twenty logs in, the others each count one up in the session of a user who has to be logged in.
While a command runs, once without and once with limits, and for a while of so many seconds before
it and after it, it prints the latencies in milliseconds that half and 99 % of the requests keep
below, how busy the processors were, how many counts were lost, and how many users were logged out.
A command with limits is halted, wherever it has written nothing that is not committed, for as long
as it has run before: so whiles with it and without it alternate, and what the machine does besides
falls on both. The last column is the median of each while with it over the two beside it. At the
end the old keys are gone from the site, and each session is asked once more.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import operations
import psycopg
import session_rows
from servers import SITE, free_port

CLIENTS = 2_000
USERS = 200
THREADS = 32
NEW, *OLD = session_rows.KEYS
# How the command calls itself in the database.
MEASURED = "measured"
WRITES = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND backend_xid IS NOT NULL"

# What Django wants of a user beside what `session_rows` makes.
USER_COLUMNS = """
ALTER TABLE auth_user ADD first_name varchar(150) NOT NULL DEFAULT '',
 ADD last_name varchar(150) NOT NULL DEFAULT '', ADD email varchar(254) NOT NULL DEFAULT '',
 ADD is_staff bool NOT NULL DEFAULT false, ADD is_superuser bool NOT NULL DEFAULT false,
 ADD last_login timestamptz, ADD date_joined timestamptz NOT NULL DEFAULT now()
"""

# Sessions of users, signed with the key of last year, as they were before the key was changed.
MAKE_CLIENTS = """
import json, sys
import session_site
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
users = list(User.objects.order_by("pk")[: int(sys.argv[2])])
for user in users:
    user.password = make_password("password")
User.objects.bulk_update(users, ["password"])
keys = []
for number in range(int(sys.argv[1])):
    user = users[number % len(users)]
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session["cart"] = [{"product": n, "quantity": 1} for n in range(5)]
    session.save()
    keys.append((user.username, session.session_key))
print(json.dumps(keys))
"""

CLEAR_BY_DJANGO = """
import session_site
from django.core.management import call_command
call_command("clearsessions")
"""


class Client:
    """A user with a browser."""

    def __init__(self, username: str, session_key: str) -> None:
        self.username = username
        self.session_key = session_key
        self.count = 0
        self.lock = threading.Lock()


@dataclasses.dataclass
class Seen:
    """What came of the requests of a while."""

    latencies: list[float] = dataclasses.field(default_factory=list)
    lost: int = 0
    logged_out: int = 0
    failed: int = 0
    #: Of all processors, in a while of so many seconds; 0 where the system does not say.
    busy: float = 0
    seconds: float = 0

    def add(self, other: Seen) -> None:
        """Take in those of one more while."""
        self.latencies += other.latencies
        seconds = self.seconds + other.seconds
        busy = self.busy * self.seconds + other.busy * other.seconds
        self.busy, self.seconds = busy / seconds, seconds
        self.lost += other.lost
        self.logged_out += other.logged_out
        self.failed += other.failed

    def quantile(self, part: float) -> float:
        found = sorted(self.latencies)
        return found[min(len(found) - 1, int(part * len(found)))] if found else 0.0


def ticks() -> tuple[int, int]:
    """How long the processors have been busy, and how long they have been there (Linux)."""
    with contextlib.suppress(OSError):
        line = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, idle, wait, *more = map(int, line.split()[1:9])
        busy = user + nice + system + sum(more)
        return busy, busy + idle + wait
    return 0, 0


class Visits:
    """Requests at a steady rate, until they are stopped."""

    def __init__(self, url: str, clients: list[Client], rate: float) -> None:
        self.parts = urlsplit(url)
        self.clients = clients
        self.rate = rate
        self.seen = Seen()
        self.stopped = threading.Event()
        self.turn = threading.Lock()
        self.due = time.perf_counter()
        self.threads = [threading.Thread(target=self._visit) for _ in range(THREADS)]

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        for thread in self.threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in self.threads:
                thread.join()

    def during(self, seconds: float, process: subprocess.Popen[str] | None = None) -> Seen:
        """What comes of the requests for so long, or until a program ends."""
        begun, (busy, all_of_it) = time.perf_counter(), ticks()
        seen = self.seen = Seen()
        if process is None:
            time.sleep(seconds)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        self.seen = Seen()
        busy_then, all_then = ticks()
        seen.busy = (busy_then - busy) / max(1, all_then - all_of_it)
        seen.seconds = time.perf_counter() - begun
        return seen

    def _visit(self) -> None:
        connection = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port)
        draw = random.Random()
        while not self.stopped.is_set():
            with self.turn:
                self.due += 1 / self.rate
                due = self.due
            time.sleep(max(0.0, due - time.perf_counter()))
            client = draw.choice(self.clients)
            while not client.lock.acquire(blocking=False):
                client = draw.choice(self.clients)
            with (
                contextlib.closing(connection) if draw.random() < 0.01 else contextlib.nullcontext()
            ):
                seen = self.seen
                try:
                    if draw.random() < 0.05:
                        _log_in(connection, client)
                    else:
                        _count(connection, client, seen)
                except (OSError, http.client.HTTPException, AssertionError):
                    seen.failed += 1
                    connection.close()
                finally:
                    client.lock.release()
                seen.latencies.append((time.perf_counter() - due) * 1e3)


def _ask(
    connection: http.client.HTTPConnection, client: Client, method: str, path: str
) -> tuple[int, str]:
    headers = {"Cookie": f"sessionid={client.session_key}"}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    # Django gives a session another key when somebody logs in, and where an old key let him in.
    for cookie in answer.headers.get_all("Set-Cookie", []):
        name, _, value = cookie.partition(";")[0].partition("=")
        if name == "sessionid":
            client.session_key = value
    return answer.status, body


def _log_in(connection: http.client.HTTPConnection, client: Client) -> None:
    client.session_key, client.count = "", 0
    status, body = _ask(connection, client, "POST", f"/login/{client.username}")
    assert (status, body) == (200, client.username)


def _count(connection: http.client.HTTPConnection, client: Client, seen: Seen) -> None:
    status, body = _ask(connection, client, "GET", "/count")
    if status != 200:
        seen.logged_out += status in (302, 403)
        seen.failed += status not in (302, 403)
        _log_in(connection, client)
        return
    client.count += 1
    if int(body) != client.count:
        seen.lost += 1
        client.count = int(body)


def settings(url: str, keys: list[str]) -> dict[str, str]:
    """The environment of the site."""
    parts = urlsplit(url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.strip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 60,
    }
    middleware = ["sessions.middleware.Session", "auth.middleware.Authentication"]
    site = {
        "DATABASES": {"default": database},
        "MIDDLEWARE": [f"django.contrib.{name}Middleware" for name in middleware],
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
        "SECRET_KEY": keys[0],
        "SECRET_KEY_FALLBACKS": keys[1:],
        "SESSION_ENGINE": "django.contrib.sessions.backends.db",
    }
    paths = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "SITE": json.dumps(site), "PYTHONPATH": paths}


@contextlib.contextmanager
def site(url: str, keys: list[str]) -> Iterator[str]:
    """The site, until it is no longer needed."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "4"]
    command += ["session_site:application"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=settings(url, keys), stdout=quiet, stderr=quiet)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/nothing")
                connection.getresponse().read()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def python(url: str, keys: list[str], code: str, *arguments: object) -> subprocess.Popen[str]:
    """A program with the site's settings."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=settings(url, keys), stdout=subprocess.PIPE, text=True)


@dataclasses.dataclass
class Compared:
    """Requests with and without a command beside them."""

    without: Seen = dataclasses.field(default_factory=Seen)
    meanwhile: Seen = dataclasses.field(default_factory=Seen)
    #: What 99 % keep below, of a while with it over those beside it.
    ratios: list[float] = dataclasses.field(default_factory=list)

    def add(self, without: list[Seen], meanwhile: list[Seen]) -> None:
        """Take in the whiles of one round, which begin and end without."""
        for seen in without:
            self.without.add(seen)
        for seen, before, after in zip(meanwhile, without, without[1:], strict=False):
            self.meanwhile.add(seen)
            if len(seen.latencies) >= 100:
                mean = (before.quantile(0.99) + after.quantile(0.99)) / 2
                self.ratios.append(seen.quantile(0.99) / mean)

    def report(self, name: str, done: str) -> None:
        whole = self.meanwhile.quantile(0.99) / self.without.quantile(0.99)
        median = f"{statistics.median(self.ratios):5.2f}x" if self.ratios else ""
        line("without", self.without, "")
        line(name, self.meanwhile, f"{whole:5.2f}x {median:>6}  {done}")


def line(name: str, seen: Seen, more: str) -> None:
    print(
        f"  {name:34} {len(seen.latencies):8,} {seen.busy:5.0%} {seen.quantile(0.5):7.1f}"
        f" {seen.quantile(0.99):7.1f} {max(seen.latencies, default=0):6.0f}"
        f" {seen.lost:5} {seen.logged_out:10} {seen.failed:6} {more}",
        flush=True,
    )


def halt(process: subprocess.Popen[str], database: psycopg.Connection) -> None:
    """Halt a command where it has written nothing that is not committed."""
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.01)
        if not database.execute(WRITES, [MEASURED]).fetchall():
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.003)


def one_round(
    visits: Visits,
    begin: Callable[[], subprocess.Popen[str]],
    database: psycopg.Connection | None,
    seconds: float,
    compared: Compared,
) -> str:
    """Run a command between two whiles without it, and return what it has done.

    Where a database says when, it is halted now and then.
    """
    without, meanwhile = [visits.during(seconds)], []
    process = begin()
    while True:
        meanwhile.append(visits.during(seconds if database else 3600, process))
        if process.poll() is not None:
            break
        if database:
            halt(process, database)
        without.append(visits.during(seconds))
        process.send_signal(signal.SIGCONT)
    without.append(visits.during(seconds))
    compared.add(without, meanwhile)
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a command ended with {process.returncode}")
    found = json.loads(out) if out else {}
    rows = found.get("expired") or found.get("signed_anew")
    return f"{f'{rows:,} rows ' if rows else ''}in {sum(it.seconds for it in meanwhile):.0f} s"


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--requests", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limits", default="--workers 1 --rate 2000")
    parser.add_argument("--only", default="", help="commands with these words")
    arguments = parser.parse_args()
    program = operations.built()
    base = urlsplit(os.environ["TEST_POSTGRES_URL"])
    name = f"load_{secrets.token_hex(4)}"
    with psycopg.connect(base.geturl(), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            whole(program, base._replace(path=f"/{name}").geturl(), arguments)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def whole(program: str, url: str, arguments: argparse.Namespace) -> None:
    session_rows.load(url, arguments.rows)
    database = psycopg.connect(url, autocommit=True)
    database.execute(USER_COLUMNS)
    database.execute(
        "CREATE UNLOGGED TABLE spare AS SELECT * FROM django_session WHERE expire_date < now()"
    )
    made, _ = python(url, [OLD[0]], MAKE_CLIENTS, CLIENTS, USERS).communicate()
    clients = [Client(*found) for found in json.loads(made)]

    def ours(*words: str) -> Callable[[], subprocess.Popen[str]]:
        store = f"{url}?application_name={MEASURED}"
        return lambda: operations.start(program, *words, SESSION_STORE_URL=store)

    def djangos() -> subprocess.Popen[str]:
        return python(url, [NEW, *OLD], CLEAR_BY_DJANGO)

    def fill() -> None:
        database.execute("INSERT INTO django_session SELECT * FROM spare ON CONFLICT DO NOTHING")

    def revive() -> None:
        fill()
        date = "now() + '1 day' + random() * interval '10 days'"
        database.execute(f"UPDATE django_session SET expire_date = {date}")

    print(f"\n{arguments.rows:,} rows in PostgreSQL, {arguments.requests:.0f} requests a second")
    columns = "requests  busy  p50 ms  p99 ms max ms  lost logged out failed  whole, beside"
    print(f"  {'':34} {columns}")
    rated = arguments.limits.split()
    commands = [
        ("clear-expired", fill, ours("clear-expired"), False),
        (f"clear-expired {' '.join(rated)}", fill, ours("clear-expired", *rated), True),
        ("Django's clearsessions", fill, djangos, False),
        ("rotate", revive, ours("rotate"), False),
        (f"rotate {' '.join(rated)}", revive, ours("rotate", *rated), True),
    ]
    words = [word for word in arguments.only.split(",") if word]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(site(url, [NEW, *OLD]))
        visits = Visits(address, clients, arguments.requests)
        stack.enter_context(visits.going_on())
        time.sleep(5)
        for title, prepare, begin, alternates in commands:
            if not all(word in title for word in words):
                continue
            compared = Compared()
            for _ in range(arguments.rounds):
                prepare()
                if "rotate" in title:
                    # As they were before the rotation.
                    texts = "UPDATE django_session t SET session_data = s.session_data FROM spare s"
                    database.execute(f"{texts} WHERE t.session_key = s.session_key")
                database.execute("VACUUM ANALYZE django_session")
                database.execute("CHECKPOINT")
                # The disk has more to do than the server knows of.
                time.sleep(15)
                where = database if alternates else None
                done = one_round(visits, begin, where, arguments.seconds, compared)
            compared.report(title, done)
    ask_each(url, clients)


def ask_each(url: str, clients: list[Client]) -> None:
    """Ask for each session once, of a site that has only the new key."""
    seen = Seen()
    with site(url, [NEW]) as address:
        parts = urlsplit(address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        for client in clients:
            _count(connection, client, seen)
    print(
        f"  without the old keys, {len(clients):,} users: {seen.lost} lost,"
        f" {seen.logged_out} logged out, {seen.failed} failed"
    )


if __name__ == "__main__":
    sys.exit(main())

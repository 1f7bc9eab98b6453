"""Requests of a site while its sessions are cleared and its key is rotated.

    python benches/operations_load.py [--rows 200000] [--requests 200] [--seconds 30] [--rounds 1]
                                      [--limits="--workers 1 --rate 2000"] [--only WORD[,WORD]]

A site of Django's own, behind gunicorn, on the database of ``TEST_POSTGRES_URL``, gets so many
requests a second, whether or not it keeps up (a latency counts from when the request was due): one
in twenty logs in, the others each count one up in the session of a user who has to be logged in.
While a command runs, once without and once with limits, and for so many seconds before it and after
it, it prints the latencies in milliseconds that half and 99 % of the requests keep below, how busy
the processors were, how many counts were lost, and how many users were logged out. With
``--rounds`` all of that is done more than once, and what is printed is of all rounds together, with
the least and the most of a round for the 99 %: those of a short while say little. At the end the
old keys are gone from the site, and each session is asked once more.
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
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import operations
import psycopg
import session_rows
from servers import SITE, free_port

T = TypeVar("T")

CLIENTS = 2_000
USERS = 200
THREADS = 32
NEW, *OLD = session_rows.KEYS

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
    #: What 99 % keep below, in each while.
    p99s: list[float] = dataclasses.field(default_factory=list)

    def add(self, other: Seen) -> None:
        self.latencies += other.latencies
        seconds = self.seconds + other.seconds
        busy = self.busy * self.seconds + other.busy * other.seconds
        self.busy, self.seconds = busy / seconds, seconds
        self.p99s.append(other.quantile(0.99))
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

    def of(self, work: Callable[[], T]) -> tuple[T, Seen]:
        """What comes of some work, and of the requests during it."""
        begun, (busy, all_of_it) = time.perf_counter(), ticks()
        seen = self.seen = Seen()
        done = work()
        self.seen = Seen()
        busy_then, all_then = ticks()
        seen.busy = (busy_then - busy) / max(1, all_then - all_of_it)
        seen.seconds = time.perf_counter() - begun
        return done, seen

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
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2"]
    command += ["--worker-class", "gthread", "--threads", "8", "session_site:application"]
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


def python(url: str, keys: list[str], code: str, *arguments: object) -> str:
    """What a program with the site's settings prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = settings(url, keys)
    return subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE
    ).stdout.decode()


def report(name: str, seen: Seen, without: Seen | None, done: str = "") -> None:
    rate = ""
    if without is not None and without.quantile(0.99):
        rate = f"{seen.quantile(0.99) / without.quantile(0.99):5.2f}x"
    span = f"{min(seen.p99s):.1f}-{max(seen.p99s):.1f}"
    print(
        f"  {name:34} {len(seen.latencies):8,} {seen.busy:5.0%} {seen.quantile(0.5):8.2f}"
        f" {seen.quantile(0.99):8.2f} {span:>11} {rate:>6} {max(seen.latencies, default=0):7.0f}"
        f" {seen.lost:5} {seen.logged_out:10} {seen.failed:6}  {done}",
        flush=True,
    )


def main() -> None:
    """The benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--requests", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=30)
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
    made = python(url, [OLD[0]], MAKE_CLIENTS, CLIENTS, USERS)
    clients = [Client(*found) for found in json.loads(made)]

    def ours(*words: str) -> Callable[[], str]:
        def command() -> str:
            # Seldom: what asks is the program that visits the site.
            ran = operations.run(program, *words, look_every=0.5, SESSION_STORE_URL=url)
            rows = ran.found.get("expired") or ran.found.get("signed_anew")
            return f"{rows:,} rows in {ran.seconds:.0f} s, {ran.megabytes:.0f} MB"

        return command

    def djangos() -> str:
        begun = time.perf_counter()
        python(url, [NEW, *OLD], CLEAR_BY_DJANGO)
        return f"in {time.perf_counter() - begun:.0f} s"

    def fill() -> None:
        database.execute("INSERT INTO django_session SELECT * FROM spare ON CONFLICT DO NOTHING")

    def revive() -> None:
        fill()
        date = "now() + '1 day' + random() * interval '10 days'"
        database.execute(f"UPDATE django_session SET expire_date = {date}")

    print(f"\n{arguments.rows:,} rows in PostgreSQL, {arguments.requests:.0f} requests a second")
    latencies = "p50 ms   p99 ms   of rounds           max ms"
    print(f"  {'':34} requests  busy   {latencies}  lost logged out failed")
    rated = arguments.limits.split()
    commands = [
        ("clear-expired", fill, ours("clear-expired")),
        (f"clear-expired {' '.join(rated)}", fill, ours("clear-expired", *rated)),
        ("Django's clearsessions", fill, djangos),
        ("rotate", revive, ours("rotate")),
        (f"rotate {' '.join(rated)}", revive, ours("rotate", *rated)),
    ]
    words = [word for word in arguments.only.split(",") if word]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(site(url, [NEW, *OLD]))
        visits = Visits(address, clients, arguments.requests)
        stack.enter_context(visits.going_on())
        time.sleep(5)

        def rest() -> Seen:
            return visits.of(lambda: time.sleep(arguments.seconds))[1]

        for title, prepare, command in commands:
            if not all(word in title for word in words):
                continue
            without, during = Seen(), Seen()
            for _ in range(arguments.rounds):
                prepare()
                if "rotate" in title:
                    # As they were before the rotation.
                    texts = "UPDATE django_session t SET session_data = s.session_data FROM spare s"
                    database.execute(f"{texts} WHERE t.session_key = s.session_key")
                database.execute("VACUUM ANALYZE django_session")
                database.execute("CHECKPOINT")
                time.sleep(3)
                without.add(rest())
                done, seen = visits.of(command)
                during.add(seen)
                without.add(rest())
            report("before and after", without, None)
            report(title, during, without, done)
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

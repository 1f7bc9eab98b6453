"""A live move, from a table to Redis and back, under load: who is logged out, and what is lost.

Visitors with cookies of users send requests to whichever programs run at the moment: Django behind
gunicorn and uvicorn with Django's own engines or with `backends.moving`, and the Rust example
`axum` with stores or with `MovingStore`. The programs are exchanged step by step as
`docs/moving.md` has it, with `django-session migrate` in between. Every answer says whose session
it is or counts a number up, so that each logout and each lost write shows at once, and all is
compared in the end.

`LIVE_MOVE_SECONDS` is how long each step lasts, `LIVE_MOVE_SESSIONS` how many visitors there are,
`LIVE_MOVE_IDLE` how many sessions lie there, half of which are used again while they are copied.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import operations
import pytest
import site_server

pytestmark = pytest.mark.timeout(3600)  # the first test may wait for cargo

SECONDS = float(os.environ.get("LIVE_MOVE_SECONDS", "0.4"))
SESSIONS = int(os.environ.get("LIVE_MOVE_SESSIONS", "8"))
IDLE = int(os.environ.get("LIVE_MOVE_IDLE", "400"))
#: How many clients send the requests of those who come back.
WANDERERS = 4
FEATURES = os.environ.get("SHARED_LOGIN_FEATURES", "auth,axum,cache,cli,postgres,redis")

DJANGO = "django.contrib.sessions.backends."
KEY = "a secret key for a site that nobody visits, which is long enough"
CSRF = "c" * 32
#: Statuses of answers to somebody who is nobody; zero is an answer that takes the cookie away.
LOGGED_OUT = (0, 302, 401, 403)

MAKE = """
import json, sys
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django_session_rs.management.commands.export_session_settings import Command
call_command("migrate", run_syncdb=True, verbosity=0)
call_command(Command(), output=%r)
keys = []
for number in range(%d):
    user = User.objects.create(username=f"user{number}")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session["cart"] = [{"product": n, "quantity": number} for n in range(5)]
    session.save()
    keys.append(session.session_key)
print(json.dumps(keys))
"""
CONTENTS = """
import json, sys
from importlib import import_module
from django.conf import settings
store = import_module(settings.SESSION_ENGINE).SessionStore
found = {key: dict(store(key).items()) for key in json.load(open(%r))}
print(json.dumps(found))
"""


def built() -> tuple[Path, Path]:
    """The command and the example, as they are now."""
    command = ["cargo", "build", "--quiet", f"--features={FEATURES}"]
    command += ["--bin=django-session", "--example=axum"]
    subprocess.run(command, cwd=operations.ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", operations.ROOT / "target")) / "debug"
    return target / "django-session", target / "examples" / "axum"


class Program:
    """A site at an address, which one asks about one session: whose it is, and what it has."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port

    def ask(self, path: str, key: str, method: str = "GET") -> tuple[int, str]:
        """Status and text of an answer; a status of zero if it takes the cookie away."""
        headers = {"Cookie": f"sessionid={key}; csrftoken={CSRF}", "X-CSRFToken": CSRF}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            for cookie in answer.headers.get_all("Set-Cookie") or []:
                name, _, value = cookie.partition(";")[0].partition("=")
                if name == "sessionid" and value != key:
                    return 0, text
            return answer.status, text

    def user(self, key: str) -> tuple[int, str]:
        raise NotImplementedError

    def read(self, key: str, name: str) -> tuple[int, str]:
        raise NotImplementedError

    def write(self, key: str, name: str) -> tuple[int, str]:
        raise NotImplementedError


class Django(Program):
    prefix = ""

    def user(self, key: str) -> tuple[int, str]:
        return self.ask(f"{self.prefix}/user", key)

    def read(self, key: str, name: str) -> tuple[int, str]:
        return self.ask(f"{self.prefix}/read/{name}", key)

    def write(self, key: str, name: str) -> tuple[int, str]:
        return self.ask(f"{self.prefix}/write/{name}", key)


class AsyncDjango(Django):
    prefix = "/async"


class Rust(Program):
    def user(self, key: str) -> tuple[int, str]:
        return self.ask("/account", key)

    def write(self, key: str, name: str) -> tuple[int, str]:
        assert name == "visits"
        status, text = self.ask("/visit", key, "POST")
        return status, text.removeprefix("visit ")


class Site:
    """A site whose sessions are in a table, in Redis, or on their way, and its programs."""

    def __init__(self, folder: Path, table: operations.Table, redis: operations.Redis) -> None:
        self.folder, self.table, self.redis = folder, table, redis
        self.command, self.example = built()
        self.settings = str(folder / "settings.json")
        self.database = site_server.database_of(table.url)
        made = site_server.script(self.django("db"), MAKE % (self.settings, SESSIONS + IDLE))
        self.keys: list[str] = json.loads(made)

    def django(self, engine: str) -> dict[str, object]:
        """The settings of Django with an engine, or with a move from one to another."""
        backend = "django.core.cache.backends.redis.RedisCache"
        cache = {
            "BACKEND": backend,
            "LOCATION": os.environ["TEST_REDIS_URL"],
            "KEY_PREFIX": self.redis.prefix,
        }
        found: dict[str, object] = {
            "DATABASES": {"default": self.database},
            "CACHES": {"default": cache},
            "MIDDLEWARE": [
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
            ],
            "SESSION_ENGINE": DJANGO + engine,
        }
        if ">" in engine:
            one, _, other = engine.partition(">")
            other, _, write = other.partition(" ")
            found |= {
                "SESSION_ENGINE": "django_session_rs.backends.moving",
                "SESSION_MOVING_FROM": DJANGO + one,
                "SESSION_MOVING_TO": DJANGO + other,
                "SESSION_MOVING_WRITE": write or "new",
            }
        return found

    def store(self, engine: str) -> str:
        """The address of the same for Rust."""
        urls = {"db": self.table.url, "cache": self.redis.url}
        if ">" not in engine:
            return urls[engine]
        one, _, other = engine.partition(">")
        other, _, write = other.partition(" ")
        inner = [quote(urls[name], safe="") for name in (one, other)]
        return f"moving:?from_url={inner[0]}&to_url={inner[1]}&write={write or 'new'}"

    @contextlib.contextmanager
    def gunicorn(self, engine: str) -> Iterator[Django]:
        with site_server.running("gunicorn", self.django(engine)) as running:
            yield Django(f"gunicorn {engine}", running.port)

    @contextlib.contextmanager
    def uvicorn(self, engine: str) -> Iterator[Django]:
        with site_server.running("uvicorn", self.django(engine)) as running:
            yield AsyncDjango(f"uvicorn {engine}", running.port)

    @contextlib.contextmanager
    def rust(self, engine: str) -> Iterator[Rust]:
        port = site_server.free_port()
        environment = {
            **os.environ,
            "SECRET_KEY": KEY,
            "DATABASE_URL": self.table.url,
            "SESSION_STORE_URL": self.store(engine),
            "PORT": str(port),
        }
        log = self.folder / f"rust {engine}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(self.example), self.settings], env=environment, stderr=output
            )
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20).close()
                    break
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield Rust(f"Rust {engine}", port)
        finally:
            process.terminate()
            process.wait(30)

    def migrate(self, one: str, other: str) -> dict[str, int]:
        """What the command says that copies what is left."""
        command = [str(self.command), "migrate", "--json", "--quiet"]
        environment = {
            "PATH": os.environ["PATH"],
            "SECRET_KEY": KEY,
            "FROM_SESSION_STORE_URL": self.store(one),
            "TO_SESSION_STORE_URL": self.store(other),
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        found: dict[str, int] = json.loads(done.stdout)
        return found

    def stored(self, engine: str) -> set[str]:
        """The keys of the sessions at one place."""
        if engine == "db":
            return set(self.table.texts())
        return set(self.redis.contents())

    def empty(self, engine: str) -> None:
        if engine == "db":
            self.table.execute("DELETE FROM django_session")
        else:
            self.redis.clear()

    def contents(self) -> dict[str, dict[str, object]]:
        """Every session as Django reads it from the table."""
        keys = self.folder / "keys.json"
        keys.write_text(json.dumps(self.keys))
        found: dict[str, dict[str, object]] = json.loads(
            site_server.script(self.django("db"), CONTENTS % str(keys))
        )
        return found


class Visitor(threading.Thread):
    """Somebody who sends one request after the other, and knows what the answers should be."""

    def __init__(self, load: Load, users: dict[str, str], name: str = "a") -> None:
        super().__init__(daemon=True)
        self.load, self.users, self.name_ = load, users, name
        self.keys = list(users)
        self.is_second, self.wanders = name != "a", len(users) > 1
        self.chance = random.Random(f"{users} {name}")
        self.counted = Counter[tuple[str, str]]()
        self.epoch = -1

    def run(self) -> None:
        try:
            while True:
                self.epoch, step = self.load.epoch, self.load.step
                if step is None:
                    return
                if not step.asks(self):
                    time.sleep(0.005)
                    continue
                self.request(step)
        except BaseException as error:
            self.load.count("errors", repr(error))
            raise
        finally:
            self.epoch = sys.maxsize

    def request(self, step: Step) -> None:
        """Send one that the program of somebody's choice can answer, and look at the answer."""
        is_reading = bool(step.readers) and self.chance.random() < 0.3
        program = self.chance.choice(step.readers if is_reading else step.programs)
        choices = ["user", "read"] if is_reading else ["user", "read", *["write"] * 4]
        key, what, name = self.chance.choice(self.keys), self.chance.choice(choices), self.name_
        if isinstance(program, Rust):
            # Its page counts one name only.
            what = "user" if is_reading or self.is_second or what == "read" else what
            name = "visits"
        elif what == "read" and not self.is_second:
            name = self.chance.choice(["a", "visits"])
        counted = self.counted[key, name]
        if what == "user":
            expected, (status, text) = self.users[key], program.user(key)
        elif what == "read":
            expected, (status, text) = str(counted), program.read(key, name)
        else:
            expected, (status, text) = str(counted + 1), program.write(key, name)
        self.load.count("requests")
        self.load.count(f"requests to {program.name}")
        told = f"{step.name}: {program.name}, {what} {name}: {status} {text[:80]!r}"
        if status in LOGGED_OUT:
            self.load.count("logouts", told)
        elif status != 200:
            self.load.count("errors", told)
        elif text == expected:
            if what == "write":
                self.load.count("writes")
                self.counted[key, name] += 1
        elif what == "user":
            self.load.count("logouts", told)
        else:
            self.load.count("lost", f"{told}, not {expected!r}")
            self.counted[key, name] = int(text)


class Step:
    """What runs at a time: who is asked, who is only read from, and whether in parallel."""

    def __init__(
        self,
        name: str,
        programs: list[Program],
        *,
        parallel: bool = False,
        readers: list[Program] | None = None,
        wandering: bool = False,
    ) -> None:
        self.name, self.programs, self.parallel = name, programs, parallel
        self.readers, self.wandering = readers or [], wandering

    def asks(self, visitor: Visitor) -> bool:
        """Whether a visitor sends requests meanwhile."""
        if visitor.is_second:
            return self.parallel
        return bool(self.programs) and (self.wandering or not visitor.wanders)


#: Nothing runs.
PAUSE = Step("a pause", [])


class Load:
    """The visitors, and what has become of their requests."""

    def __init__(self, users: dict[str, str]) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self.lock = threading.Lock()
        self.epoch = 0
        self.step: Step | None = PAUSE
        keys = list(users)
        self.visitors = [Visitor(self, {key: users[key]}) for key in keys[:SESSIONS]]
        # Half of them have a second tab.
        self.visitors += [Visitor(self, {key: users[key]}, "b") for key in keys[1:SESSIONS:2]]
        # Others are away until the end, half of them for good.
        away = keys[SESSIONS::2]
        for first in range(WANDERERS):
            self.visitors.append(Visitor(self, {key: users[key] for key in away[first::WANDERERS]}))

    def count(self, what: str, told: str = "") -> None:
        with self.lock:
            self.counts[what] += 1
            if told:
                self.told.append(f"{what}: {told}")

    def switch(self, step: Step | None, seconds: float = SECONDS) -> None:
        """Have other programs run from now on, and wait until no request is at an old one.

        Where two requests of one session must not meet, no one is sent before that.
        """
        if self.epoch == 0:
            for visitor in self.visitors:
                visitor.start()
        if step is not None and not (step.parallel and self.step and self.step.parallel):
            self.exchange(PAUSE)
        self.exchange(step)
        before = self.counts["requests"]
        end = time.monotonic() + seconds
        enough = before + 3 * SESSIONS
        while step is not None and not self.told:
            if time.monotonic() > end and self.counts["requests"] >= enough:
                return
            time.sleep(0.01)

    def exchange(self, step: Step | None) -> None:
        self.step, self.epoch = step, self.epoch + 1
        while any(visitor.epoch < self.epoch for visitor in self.visitors):
            time.sleep(0.005)


def check_nothing_wrong(load: Load) -> None:
    assert load.told[:10] == []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    for variable in ("TEST_POSTGRES_URL", "TEST_REDIS_URL"):
        if not os.environ.get(variable):
            tell = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            tell(f"{variable} is not set")
    redis = operations.Redis()
    with operations.table("postgres", tmp_path) as table:
        try:
            yield Site(tmp_path, table, redis)
        finally:
            redis.clear()


def test_a_live_move_to_redis_and_back_logs_nobody_out_and_loses_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    engines = ["db", "cache", "db>cache", "cache>db", "db>cache both", "cache>db both"]
    with contextlib.ExitStack() as stack:
        programs: dict[tuple[str, str], Program] = {}

        def start(kind: str, engine: str) -> None:
            running = stack.enter_context(getattr(site, kind)(engine))
            programs[kind, engine] = running

        wanted = [(kind, engine) for engine in engines for kind in ("gunicorn", "rust")]
        wanted += [("uvicorn", engine) for engine in ("db>cache", "cache>db")]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: start(*one), wanted))

        def of(*names: str) -> list[Program]:
            return [program for (_, engine), program in programs.items() if engine in names]

        load = Load({key: f"user{number}" for number, key in enumerate(site.keys)})
        copied = []
        stack.callback(load.switch, None)
        for one, other in (("db", "cache"), ("cache", "db")):
            ready, forth, both = f"{other}>{one}", f"{one}>{other}", f"{one}>{other} both"
            way = f"{one} to {other}"
            assert site.stored(other) == set(), "the new place is empty"
            for step in (
                Step(f"{way}: before", of(one)),
                # What knows the old place alone reads and writes beside it.
                Step(f"{way}: getting ready", of(one, ready)),
                Step(f"{way}: ready", of(ready), parallel=True),
                # Each direction at the same time, which is a deployment half done.
                Step(f"{way}: half of them move", of(ready, forth), parallel=True),
                Step(f"{way}: all of them move", of(forth), parallel=True),
                Step(f"{way}: half of them are back", of(ready, forth), parallel=True),
                Step(f"{way}: back", of(ready), parallel=True),
                # From here on what knows the old place alone only reads, and sees every write.
                Step(f"{way}: half of them write both", of(ready, both)),
                Step(f"{way}: writing both", of(both), parallel=True),
                Step(f"{way}: read as of old", of(both), readers=of(one)),
                Step(f"{way}: moving", of(both, forth), parallel=True),
                Step(f"{way}: moved", of(forth), parallel=True),
            ):
                load.switch(step)
                check_nothing_wrong(load)
                # What has moved goes back before both are written: it gets no copy there.
                while step.name.endswith(": back") and not set(site.keys) <= site.stored(one):
                    time.sleep(0.1)
                    check_nothing_wrong(load)
            # The others are copied, while those who have one go on, and some come back.
            copying = Step(f"{way}: copying", of(forth), parallel=True, wandering=True)
            load.switch(copying, seconds=0)
            copied.append(site.migrate(one, other))
            assert set(site.keys) <= site.stored(other)
            load.switch(Step(f"{way}: copied", of(forth), parallel=True, wandering=True))
            site.empty(one)
            load.switch(Step(f"{way}: emptied", of(forth), parallel=True, wandering=True))
            load.switch(Step(f"{way}: done by half", of(forth, other), wandering=True))
            load.switch(Step(f"{way}: done", of(other), wandering=True))
            check_nothing_wrong(load)
        load.switch(None)

    lost = load.counts["lost"]
    contents = site.contents()
    for visitor in load.visitors:
        for (key, name), counted in visitor.counted.items():
            lost += counted - int(str(contents[key].get(name, 0)))
    for number, key in enumerate(site.keys):
        assert contents[key]["cart"] == [{"product": n, "quantity": number} for n in range(5)]
        assert contents[key]["_auth_user_id"]
    assert site.stored("cache") == set()
    with capsys.disabled():
        print(
            f"\nlive move db -> Redis -> db: {len(programs)} programs, "
            f"{len(load.visitors)} visitors, {time.monotonic() - begun:.0f} s; "
            f"{load.counts['requests']:,} requests, {load.counts['writes']:,} writes, "
            f"{load.counts['logouts']} logouts, {lost} lost writes, "
            f"{load.counts['errors']} errors; of {len(site.keys)} sessions migrate has copied "
            f"{' and '.join(str(one['created']) for one in copied)}"
        )
        for name in sorted(load.counts):
            if name.startswith("requests to "):
                print(f"  {name}: {load.counts[name]:,}")
    check_nothing_wrong(load)
    assert lost == 0
    assert load.counts["writes"] > 0

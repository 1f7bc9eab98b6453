"""The site of tests/fixtures/session_site.py behind a real server, and clients of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
SERVICES = ROOT / "tests" / "services.py"

UVICORN = ["uvicorn", "--log-level", "critical"]
SERVERS = {
    "gunicorn": ["gunicorn", "--workers", "3", "--preload", "--graceful-timeout", "10"],
    "gthread": ["gunicorn", "--workers", "1", "--worker-class", "gthread", "--threads", "6"],
    "uvicorn": [*UVICORN, "--loop", "asyncio", "--timeout-graceful-shutdown", "5"],
    "uvicorn workers": [*UVICORN, "--loop", "asyncio", "--workers", "2"],
    # What `uvicorn[standard]` installs: another event loop.
    "uvicorn uvloop": [*UVICORN, "--loop", "uvloop", "--timeout-graceful-shutdown", "5"],
    "daphne": ["daphne", "--verbosity", "0"],
}


def is_asgi(server: str) -> bool:
    return not server.startswith("g")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_of(engine: str, database: dict, **others: object) -> dict:
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    return {
        "DATABASES": {"default": {name: database[name] for name in names}},
        "MIDDLEWARE": ["django_session_rs.middleware.SessionMiddleware"],
        "SESSION_ENGINE": f"django_session_rs.backends.{engine}",
        **others,
    }


def database_of(url: str) -> dict:
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.strip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }


def environment(settings: dict) -> dict[str, str]:
    return {
        **os.environ,
        "SITE": json.dumps(settings),
        "PYTHONPATH": str(FIXTURES),
        # A server's own deprecations are not ours.
        "PYTHONWARNINGS": "ignore",
    }


def script(settings: dict, text: str) -> str:
    """What a script prints that has the site's settings."""
    command = [sys.executable, "-c", f"import session_site\n{text}"]
    done = subprocess.run(
        command, env=environment(settings), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


MIGRATE = """
from django.core.management import call_command
call_command("migrate", "sessions", verbosity=0)
"""
NEW_SESSION = """
from importlib import import_module
from django.conf import settings
session = import_module(settings.SESSION_ENGINE).SessionStore()
session["kept"] = 1
session.save()
print(session.session_key)
"""
CONTENT = """
import json, sys
from importlib import import_module
from django.conf import settings
session = import_module(settings.SESSION_ENGINE).SessionStore(%r)
print(json.dumps(dict(session.items())))
"""


def new_session(settings: dict) -> str:
    return script(settings, NEW_SESSION)


def content(settings: dict, key: str) -> dict:
    found: dict = json.loads(script(settings, CONTENT % key))
    return found


class Site:
    """A running server."""

    def __init__(self, server: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.server, self.port, self.process = server, port, process
        self.prefix = "/async" if is_asgi(server) else ""

    def ask(self, path: str, key: str, timeout: float = 30) -> tuple[int, str, str | None]:
        """Status, text and `Set-Cookie` of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            headers = {"Cookie": f"sessionid={key}"}
            connection.request("GET", f"{self.prefix}{path}", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.getheader("Set-Cookie")

    def ask_and_leave(self, path: str, key: str) -> None:
        """Ask, and close the connection before there can be an answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            request = (
                f"GET {self.prefix}{path} HTTP/1.1\r\nHost: x\r\nCookie: sessionid={key}\r\n\r\n"
            )
            connection.sendall(request.encode())


@contextlib.contextmanager
def running(server: str, settings: dict) -> Iterator[Site]:
    port = free_port()
    program = SERVERS[server]
    where = {
        "gunicorn": ["--bind", f"127.0.0.1:{port}", "session_site:application"],
        "uvicorn": ["--host", "127.0.0.1", "--port", str(port), "session_site:asgi_application"],
        "daphne": ["-b", "127.0.0.1", "-p", str(port), "session_site:asgi_application"],
    }[program[0]]
    process = subprocess.Popen(
        [sys.executable, "-m", *program, *where],
        env=environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    site = Site(server, port, process)
    try:
        for _ in range(600):
            assert process.poll() is None, f"{server} has ended"
            with contextlib.suppress(OSError, http.client.HTTPException):
                site.ask("/read", "nobodyknowsthiskey")
                break
            time.sleep(0.05)
        yield site
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


class Postgres:
    """A PostgreSQL server of a test's own, which it can kill and start again."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self.pid = url, pid
        self.command: Sequence[str] = [
            word.decode() for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if word
        ]
        owner = Path(f"/proc/{pid}").stat()
        self.user, self.group = owner.st_uid, owner.st_gid
        self.again: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        os.kill(self.pid, signal.SIGKILL)
        # A new one does not start beside what is left of the old one.
        while any(Path(f"/proc/{child}/exe").exists() for child in children):
            time.sleep(0.02)

    def start(self) -> None:
        # The one that started it has not asked what became of it, so it counts as there.
        data = Path(self.command[list(self.command).index("-D") + 1])
        (data / "postmaster.pid").unlink(missing_ok=True)
        self.again = subprocess.Popen(
            self.command,
            user=self.user,
            group=self.group,
            extra_groups=[],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self.again.pid

    def stop(self) -> None:
        if self.again is not None:
            self.again.send_signal(signal.SIGINT)
            self.again.wait(30)


@contextlib.contextmanager
def own_postgres() -> Iterator[Postgres]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("TEST_")}
    process = subprocess.Popen(
        [sys.executable, SERVICES, "serve", "--only", "postgres"],
        env=others,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    found = {}
    for line in process.stdout:
        name, _, value = line.removeprefix("export ").strip().partition("=")
        found[name] = value.strip("'")
        if {"TEST_POSTGRES_URL", "TEST_POSTGRES_PIDS"} <= found.keys():
            break
    pid = int(found["TEST_POSTGRES_PIDS"].split(":")[0])
    postgres = Postgres(found["TEST_POSTGRES_URL"], pid)
    try:
        yield postgres
    finally:
        postgres.stop()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()

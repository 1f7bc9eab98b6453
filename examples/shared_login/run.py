"""Runs the demo: one SQLite file, a Django server and a Rust server beside it.

    python examples/shared_login/run.py [--dir DIR] [--json]

Makes what is missing (secret key, tables, demo account, the Rust binary), starts both servers,
prints where they are and stays until Ctrl-C. A second run finds the carts of the first.
The Python that runs it needs Django and `django_session_rs`, no other package.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOST = "127.0.0.1"
DJANGO_PORT = 8000
RUST_PORT = 8001
READY_SECONDS = 30.0

# Enough for the demo. What builds more anyway names it here and so compiles everything once.
FEATURES = os.environ.get("SHARED_LOGIN_FEATURES", "axum,sqlite")


class DemoError(Exception):
    """Something the demo needs did not work; the message is for whoever started it."""


class Server:
    """One of the two servers: a process, its port and its log."""

    def __init__(
        self, name: str, command: list[str], env: Mapping[str, str], port: int, log: Path
    ) -> None:
        self.name = name
        self.command = command
        self.env = dict(env)
        self.port = port
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def start(self) -> None:
        """Starts the process and returns once it answers a request."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches this script alone, which then stops both.
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if not self.running():
                raise DemoError(
                    f"The {self.name} server ended while starting.\n{self.last_words()}"
                )
            connection = http.client.HTTPConnection(HOST, self.port, timeout=READY_SECONDS)
            with contextlib.suppress(ConnectionError), contextlib.closing(connection):
                connection.request("GET", "/")
                status = connection.getresponse().status
                if status != http.client.OK:
                    raise DemoError(
                        f"The {self.name} server answers {status}.\n{self.last_words()}"
                    )
                return
            time.sleep(0.01)
        raise DemoError(f"The {self.name} server does not answer.\n{self.last_words()}")

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Asks the process to end, and ends it if it does not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """SIGKILL: no warning, no clean-up."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def last_words(self, lines: int = 20) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"


class Demo:
    """Everything one run of the demo owns, in one directory."""

    def __init__(self, directory: Path, *, django_port: int = 0, rust_port: int = 0) -> None:
        self.directory = directory.resolve()
        self.database = self.directory / "demo.sqlite3"
        self.settings = self.directory / "session-settings.json"
        self.django_port = free_port(django_port)
        self.rust_port = free_port(rust_port, taken=self.django_port)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.secret_key = kept_secret(self.directory / "secret-key")

        self.env = os.environ | {
            "SECRET_KEY": self.secret_key,  # never an argument: anyone may read those
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PYTHONUNBUFFERED": "1",
            "SHARED_LOGIN_DB": str(self.database),
            "SHARED_LOGIN_SESSION_SETTINGS": str(self.settings),
            "SHARED_LOGIN_DJANGO_PORT": str(self.django_port),
            "SHARED_LOGIN_RUST_PORT": str(self.rust_port),
        }
        address = f"{HOST}:{self.django_port}"
        self.django = Server(
            "Django",
            [*self._manage("runserver"), "--noreload", "--skip-checks", address],
            self.env,
            self.django_port,
            self.directory / "django.log",
        )
        self.rust = Server("Rust", [], self.env, self.rust_port, self.directory / "rust.log")

    def prepare(self, *, release: bool = False) -> None:
        """Tables, demo account, session settings for Rust, and the Rust binary."""
        self.manage("check")
        self.manage("migrate", "--verbosity=0")
        self.manage("seed_demo", "--verbosity=0")
        self.manage("export_session_settings", "--output", str(self.settings))
        self.rust.command = [str(build(release=release))]

    def start(self) -> None:
        self.django.start()
        try:
            self.rust.start()
        except BaseException:
            self.django.stop()
            raise

    def stop(self) -> None:
        self.rust.stop()
        self.django.stop()

    @contextlib.contextmanager
    def running(self) -> Iterator[Demo]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def manage(self, *arguments: str) -> None:
        """Runs a command of Django's manage.py; its output matters only if it fails."""
        done = subprocess.run(
            self._manage(*arguments),
            check=False,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise DemoError(f"manage.py {arguments[0]} failed.\n{done.stdout}{done.stderr}")

    def _manage(self, *arguments: str) -> list[str]:
        return [sys.executable, str(HERE / "site" / "manage.py"), *arguments]


def build(*, release: bool = False) -> Path:
    """Builds the Rust server and tells where cargo put it."""
    command = ["cargo", "build", "--example=shared_login", f"--features={FEATURES}"]
    command.append("--message-format=json-render-diagnostics")
    if release:
        command.append("--release")
    try:
        done = subprocess.run(command, check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise DemoError("cargo is not on the PATH: install Rust first.") from None
    if done.returncode:
        raise DemoError("The Rust server does not build; cargo says why above.")
    for line in reversed(done.stdout.splitlines()):
        message = json.loads(line)
        if message.get("executable"):
            return Path(message["executable"])
    raise DemoError("cargo built no executable.")


def kept_secret(path: Path) -> str:
    """The secret key of this directory, made on the first run and readable by its owner alone."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
    return path.read_text()


def free_port(wanted: int, *, taken: int = 0) -> int:
    """`wanted` if nobody listens there, else one the system picks."""
    for port in (wanted, 0):
        if port and port == taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
    raise DemoError("No free port on the loopback interface.")


def account() -> tuple[str, str]:
    sys.path.insert(0, str(HERE / "site"))
    try:
        from shop.accounts import PASSWORD, USERNAME
    finally:
        sys.path.pop(0)
    return USERNAME, PASSWORD


def stop_on_signal(*_: object) -> None:
    raise KeyboardInterrupt


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(demo: Demo, *, release: bool, as_json: bool) -> None:
    say("Preparing the database and building the Rust server ...")
    demo.prepare(release=release)
    with demo.running():
        username, password = account()
        if as_json:
            facts = {
                "django": demo.django.url,
                "rust": demo.rust.url,
                "username": username,
                "password": password,
                "database": str(demo.database),
            }
            print(json.dumps(facts), flush=True)
        else:
            print(
                f"\n  Django  {demo.django.url}\n  Rust    {demo.rust.url}\n\n"
                f"  Log in as {username} with password {password}\n"
                "  Ctrl-C stops both servers.\n",
                flush=True,
            )
        while True:
            for server in (demo.django, demo.rust):
                if not server.running():
                    raise DemoError(f"The {server.name} server ended.\n{server.last_words()}")
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description="One login, two languages: Django and Rust.")
    parser.add_argument("--dir", type=Path, default=ROOT / ".cache" / "demo", help="work directory")
    parser.add_argument("--django-port", type=int, default=DJANGO_PORT, metavar="PORT")
    parser.add_argument("--rust-port", type=int, default=RUST_PORT, metavar="PORT")
    parser.add_argument("--release", action="store_true", help="build Rust with optimisations")
    parser.add_argument(
        "--json", action="store_true", help="print the addresses as one line of JSON"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop_on_signal)
    try:
        demo = Demo(options.dir, django_port=options.django_port, rust_port=options.rust_port)
        run(demo, release=options.release, as_json=options.json)
    except KeyboardInterrupt:
        say("Stopped.")
        return 0
    except DemoError as error:
        say(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())

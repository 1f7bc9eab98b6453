"""One server: its directory, its port, its process and its end."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from servers.programs import LOG_LINES, MissingError, ServiceError, find_program

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
START_ATTEMPTS = 3


def free_port() -> int:
    """Return a loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Account:
    """Who runs the servers: this user, or an unprivileged one when this user is root."""

    def __init__(self, *names: str) -> None:
        self._entry: pwd.struct_passwd | None = None
        if os.geteuid() == 0:
            for name in (*names, "nobody"):
                with contextlib.suppress(KeyError):
                    self._entry = pwd.getpwnam(name)
                    break

    def own(self, directory: Path) -> None:
        """Give `directory` to the account."""
        if self._entry is not None:
            os.chown(directory, self._entry.pw_uid, self._entry.pw_gid)

    def popen(self, command: Sequence[str], home: Path, output: int) -> subprocess.Popen[bytes]:
        """Start `command` as the account, out of reach of the terminal's Ctrl-C."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PG", "MYSQL"))
        }
        environment.update(HOME=str(home), TMPDIR=str(home), LC_ALL="C")
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
            user=None if self._entry is None else self._entry.pw_uid,
            group=None if self._entry is None else self._entry.pw_gid,
            extra_groups=None if self._entry is None else [],
        )


class Service:
    """One server. A subclass says which programs it needs, how to prepare, start and ask it."""

    name: str
    variable: str
    #: Debian packages that bring the programs.
    packages: tuple[str, ...]
    #: Glob patterns of directories to search before PATH.
    directories: tuple[str, ...] = ()
    programs: tuple[str, ...]
    #: Accounts to prefer over `nobody` when this program runs as root.
    accounts: tuple[str, ...] = ()
    #: The signal that asks for a quick, orderly end.
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.user = "tester"
        self.password = secrets.token_hex(12)
        self.database = "django_session"
        self.port = 0
        self.directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._account = Account()

    # What a subclass provides.

    def prepare(self, directory: Path) -> None:
        """Create an empty data directory below `directory`."""
        raise NotImplementedError

    def command(self, directory: Path) -> list[str]:
        """Return the command that serves `directory` on `self.port` in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether the server answers on its port."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do what is left once the server answers, such as creating a database."""

    def url(self) -> str:
        """Return the address for the tests."""
        raise NotImplementedError

    # What is the same for all.

    def missing(self) -> list[str]:
        """Return the programs that are not installed."""
        return [name for name in self.programs if find_program(name, self.directories) is None]

    def program(self, name: str) -> str:
        """Return the path of one of `programs`."""
        path = find_program(name, self.directories)
        if path is None:
            raise MissingError(f"{self.name}: no program {name}")
        return path

    def start(self) -> str:
        """Start the server in a new directory and return its address."""
        self._account = Account(*self.accounts)
        self.directory = Path(tempfile.mkdtemp(prefix=f"django-session-{self.name}-"))
        self._log = self.directory / "server.log"
        self._account.own(self.directory)
        try:
            self.prepare(self.directory)
            for attempt in range(1, START_ATTEMPTS + 1):
                # Between asking for a free port and using it somebody else may take it.
                self.port = free_port()
                if self._launch(self.directory):
                    break
                if attempt == START_ATTEMPTS:
                    raise ServiceError(f"{self.name} did not start:\n{self._log_tail()}")
            self.finish()
        except BaseException:
            self.stop()
            raise
        return self.url()

    def _launch(self, directory: Path) -> bool:
        assert self._log is not None
        with self._log.open("ab") as log:
            self._process = self._account.popen(self.command(directory), directory, log.fileno())
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if self.ready():
                return True
            time.sleep(0.05)
        self._end_process()
        return False

    def stop(self) -> None:
        """Stop the server and remove its data; safe to call twice."""
        self._end_process()
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _log_tail(self) -> str:
        text = ""
        if self._log is not None and self._log.exists():
            text = self._log.read_text(errors="replace")
        lines = text.splitlines()[-LOG_LINES:]
        return "\n".join(f"    {line[:400]}" for line in lines) or "    (it wrote no log)"

    def call(self, command: Sequence[str], directory: Path, *, quiet: bool = False) -> bool:
        """Run a helper program to its end as the server's account."""
        process = self._account.popen(command, directory, subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=START_SECONDS)
        except BaseException as error:
            process.kill()
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ServiceError(f"{self.name}: {Path(command[0]).name} hangs") from None
            raise
        if process.returncode == 0:
            return True
        if quiet:
            return False
        tail = "\n".join(output.decode(errors="replace").splitlines()[-LOG_LINES:])
        raise ServiceError(f"{self.name}: {Path(command[0]).name} failed:\n{tail}")

"""One server, its directory, port, process and end; and groups of servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from servers.account import Account
from servers.programs import LOG_LINES, ServiceError
from servers.service import POLL_SECONDS, Service

HOST = "127.0.0.1"
STOP_SECONDS = 20.0
ORPHAN_SECONDS = 2.0
START_ATTEMPTS = 3


def free_port() -> int:
    """Return a loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server(Service):
    """One process. A subclass says how to prepare, start and ask it."""

    #: Accounts to prefer over `nobody` when this program runs as root.
    accounts: tuple[str, ...] = ()
    #: The signal that ends the server. The data is thrown away, so the quickest end is good enough.
    stop_signal = signal.SIGKILL

    def __init__(self) -> None:
        super().__init__()
        self.given: tuple[str, ...] = ()
        self.port = 0
        self.directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._program: Path | None = None
        self._log: Path | None = None
        self._account = Account()

    # What a subclass provides.

    def prepare(self, directory: Path) -> None:
        """Write below `directory` what the server needs before its start."""
        raise NotImplementedError

    def command(self, directory: Path) -> list[str]:
        """Return the command that serves `directory` on `self.port` in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether the server answers on its port."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do what is left once the server answers, such as creating a database."""

    def clean(self, directory: Path) -> None:
        """Remove what a killed server leaves behind outside of `directory`."""

    # What is the same for all.

    def start(self, *given: str) -> dict[str, str]:
        """Start the server in a new directory."""
        self.given = given
        self._account = Account(*self.accounts)
        self.directory = Path(tempfile.mkdtemp(prefix=f"django-session-{self.name}-")).resolve()
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
                    raise ServiceError(f"{self.name} did not start:\n{self.log_tail()}")
            self.finish()
        except BaseException:
            self.stop()
            raise
        return self.variables()

    def _launch(self, directory: Path) -> bool:
        assert self._log is not None
        command = self.command(directory)
        with self._log.open("ab") as log:
            process = self._account.popen(command, directory, log.fileno())
        self._process, self._program = process, Path(command[0]).resolve()
        self.wait(lambda: process.poll() is not None or self.ready(), "an answer")
        return process.poll() is None

    def processes(self) -> list[tuple[int, int]]:
        """Return process id and port; the server may have children besides."""
        return [] if self._process is None else [(self._process.pid, self.port)]

    def stop(self) -> None:
        """Stop the server and remove its data; safe to call twice."""
        self._end_process()
        if self.directory is not None:
            self._end_orphans()
            self.clean(self.directory)
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        # A test may have left it stopped, or a child that it waits for.
        for pid in {process.pid, *self._family()}:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)
        process.send_signal(self.stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _end_orphans(self) -> None:
        """End what outlived the server: after a kill -9 nobody tells its children to leave."""
        for _ in ("by themselves", "killed"):
            deadline = time.monotonic() + ORPHAN_SECONDS
            while (family := self._family()) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            for pid in family:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _family(self) -> list[int]:
        """Return the processes of the server's program that work below its directory.

        PostgreSQL's children are in sessions of their own, so only `/proc` tells whose they are;
        without it, or without the right to look, the answer is empty.
        """
        found = []
        for entry in Path("/proc").glob("[0-9]*") if self._program is not None else ():
            try:
                program, place = (entry / "exe").readlink(), (entry / "cwd").readlink()
            except OSError:
                continue
            if program == self._program and self.directory in (place, *place.parents):
                found.append(int(entry.name))
        return found

    def log_tail(self) -> str:
        """Return the last lines that the server wrote."""
        text = ""
        if self._log is not None and self._log.exists():
            text = self._log.read_text(errors="replace")
        lines = text.splitlines()[-LOG_LINES:]
        return "\n".join(f"    {line[:400]}" for line in lines) or "    (it wrote no log)"

    def write(self, path: Path, text: str) -> Path:
        """Write a file that only the server's account can read, and return its path."""
        path.touch(mode=0o600)
        path.write_text(text)
        self._account.own(path)
        return path

    def ask(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a helper program to its end as the server's account; return exit code and output."""
        assert self.directory is not None
        process = self._account.popen(command, self.directory, subprocess.PIPE)
        output = b""

        def ended() -> bool:
            nonlocal output
            try:
                output, _ = process.communicate(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                return False
            return True

        try:
            self.wait(ended, f"{Path(command[0]).name} to end")
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return process.returncode, output.decode(errors="replace")

    def call(self, command: Sequence[str]) -> str:
        """Run a helper program that has to succeed, and return its output."""
        code, output = self.ask(command)
        if code != 0:
            tail = "\n".join(output.splitlines()[-LOG_LINES:])
            raise ServiceError(f"{self.name}: {Path(command[0]).name} failed:\n{tail}")
        return output


class Group(Service):
    """Several servers that only together are what the tests want."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: list[Server] = []

    # What a subclass provides.

    def build(self) -> None:
        """Add the servers and make them know each other."""
        raise NotImplementedError

    # What is the same for all.

    def start(self, *_given: str) -> dict[str, str]:
        """Start all servers and connect them."""
        try:
            self.build()
        except BaseException:
            self.stop()
            raise
        return self.variables()

    def add(self, server: Server) -> None:
        """Start one more server, for the user and under the name of the group."""
        server.name = self.name
        server.user, server.password = self.user, self.password
        server.cancelled = self.cancelled
        self.servers.append(server)
        server.start()

    def processes(self) -> list[tuple[int, int]]:
        """Return process id and port of each server, in the order of their start."""
        return [process for server in self.servers for process in server.processes()]

    def stop(self) -> None:
        """Stop the servers, the last one first."""
        while self.servers:
            self.servers.pop().stop()

    def log_tail(self) -> str:
        """Return the last lines that each server wrote."""
        return "\n".join(f"  port {server.port}:\n{server.log_tail()}" for server in self.servers)

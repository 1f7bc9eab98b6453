"""What the tests can ask for by name, whether one process or several serve it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from servers.programs import MissingError, ServiceError, find_program

START_SECONDS = 60.0
POLL_SECONDS = 0.05


class Service:
    """A service with an address. `Server` is one process, `Group` several of them."""

    name: str
    #: The variable with the address, `TEST_…_URL`.
    variable: str
    #: Debian packages that bring the programs.
    packages: tuple[str, ...]
    #: Glob patterns of directories to search before PATH.
    directories: tuple[str, ...] = ()
    programs: tuple[str, ...]
    #: Names of services that have to run before this one; `start` is given their addresses.
    needs: tuple[str, ...] = ()
    #: Whether it is started for everybody, or only for a test that asks for it.
    by_default = True

    def __init__(self) -> None:
        self.user = "tester"
        self.password = secrets.token_hex(12)
        self.cancelled = threading.Event()

    # What a subclass provides.

    def start(self, *given: str) -> dict[str, str]:
        """Start the service beside those it needs, and return the variables for the tests."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the service and remove its data; safe to call twice."""
        raise NotImplementedError

    def url(self) -> str:
        """Return the address for the tests."""
        raise NotImplementedError

    def processes(self) -> list[tuple[int, int]]:
        """Return process id and port of each server."""
        raise NotImplementedError

    def log_tail(self) -> str:
        """Return the last lines that the servers wrote."""
        raise NotImplementedError

    # What is the same for all.

    def variables(self) -> dict[str, str]:
        """Return the variables for the tests."""
        processes = ",".join(f"{pid}:{port}" for pid, port in self.processes())
        return {self.variable: self.url(), self.variable.replace("_URL", "_PIDS"): processes}

    def missing(self) -> list[str]:
        """Return the programs that are not installed."""
        return [name for name in self.programs if find_program(name, self.directories) is None]

    def program(self, name: str) -> str:
        """Return the path of one of `programs`."""
        path = find_program(name, self.directories)
        if path is None:
            raise MissingError(f"{self.name}: no program {name}")
        return path

    def cancel(self) -> None:
        """Let a `start` that another thread is in fail soon."""
        self.cancelled.set()

    def wait(self, condition: Callable[[], bool], purpose: str) -> None:
        """Ask again and again until `condition` holds."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self.cancelled.is_set():
                raise ServiceError(f"{self.name} is not wanted any more")
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} waits for {purpose} in vain:\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

"""memcached."""

from __future__ import annotations

import socket
from pathlib import Path

from servers.server import HOST, Server


class Memcached(Server):
    """memcached with the text protocol, which knows no accounts."""

    name = "memcached"
    variable = "TEST_MEMCACHED_URL"
    packages = ("memcached",)
    programs = ("memcached",)
    accounts = ("memcache",)

    def prepare(self, directory: Path) -> None:
        pass

    def command(self, directory: Path) -> list[str]:
        # Sessions of the tests are larger than the megabyte that is allowed by default.
        size = ["-m", "256", "-I", "8m"]
        return [self.program("memcached"), "-l", HOST, "-p", str(self.port), "-U", "0", *size]

    def ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=2) as connection:
                connection.settimeout(2)
                connection.sendall(b"version\r\n")
                return connection.recv(8) == b"VERSION "
        except OSError:
            return False

    def url(self) -> str:
        return f"memcached://{HOST}:{self.port}"

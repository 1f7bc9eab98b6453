"""PostgreSQL."""

from __future__ import annotations

import signal
from pathlib import Path

from servers.server import HOST, Service


class Postgres(Service):
    """PostgreSQL; the user is a superuser, so Django's test runner can create databases."""

    name = "postgres"
    variable = "TEST_POSTGRES_URL"
    packages = ("postgresql",)
    directories = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
    programs = ("initdb", "postgres", "psql")
    accounts = ("postgres",)
    # SIGTERM waits for clients to leave; SIGINT is PostgreSQL's "fast shutdown".
    stop_signal = signal.SIGINT

    def prepare(self, directory: Path) -> None:
        password_file = directory / "password"
        password_file.write_text(self.password + "\n")
        self._account.own(password_file)
        self.call(
            [
                self.program("initdb"),
                f"--pgdata={directory / 'data'}",
                f"--username={self.user}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            directory,
        )

    def command(self, directory: Path) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            # The data is thrown away, so it need not survive a power cut.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            # Differences between local time and UTC have to show.
            "timezone": "UTC",
        }
        options = [option for item in settings.items() for option in ("-c", "=".join(item))]
        return [self.program("postgres"), "-D", str(directory / "data"), *options]

    def _psql(self, statement: str, *, quiet: bool) -> bool:
        assert self.directory is not None
        address = f"postgres://{self.user}:{self.password}@{HOST}:{self.port}/postgres"
        command = [self.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", address]
        return self.call([*command, "-c", statement], self.directory, quiet=quiet)

    def ready(self) -> bool:
        return self._psql("SELECT 1", quiet=True)

    def finish(self) -> None:
        self._psql(f"CREATE DATABASE {self.database}", quiet=False)

    def url(self) -> str:
        return f"postgres://{self.user}:{self.password}@{HOST}:{self.port}/{self.database}"

"""PgBouncer in front of PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from servers.postgres import PostgresProtocol
from servers.server import HOST


class PgBouncer(PostgresProtocol):
    """PgBouncer, which gives a connection of the primary away for one transaction at a time.

    Its settings are the default ones, so it refuses unusual startup parameters. It knows nothing of
    prepared statements: versions before 1.21 cannot, and newer ones are told not to.
    """

    name = "pgbouncer"
    variable = "TEST_PGBOUNCER_URL"
    packages = ("pgbouncer", "postgresql-client")
    programs = ("pgbouncer", "psql")
    needs = ("postgres",)

    def prepare(self, directory: Path) -> None:
        (primary,) = self.given
        self.log_in_as(primary)
        self.write(directory / "users", f'"{self.user}" "{self.password}"\n')

    def version(self) -> tuple[int, ...]:
        """Return the version of the program."""
        words = self.call([self.program("pgbouncer"), "--version"]).split()
        return tuple(int(number) for number in words[1].split(".")[:2])

    def command(self, directory: Path) -> list[str]:
        settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": directory / "users",
            "admin_users": self.user,
            "pool_mode": "transaction",
            "max_client_conn": 200,
            "default_pool_size": 20,
        }
        if self.version() >= (1, 21):
            settings["max_prepared_statements"] = 0
        lines = [
            "[databases]",
            f"* = host={HOST} port={urlsplit(self.given[0]).port}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        path = self.write(directory / "pgbouncer.ini", "\n".join(lines) + "\n")
        return [self.program("pgbouncer"), str(path)]

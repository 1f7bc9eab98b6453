"""PostgreSQL, and a replica that follows it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from servers.server import HOST, Server

DATABASE = "django_session"


class PostgresProtocol(Server):
    """What is asked with `psql`."""

    def psql(self, statement: str) -> list[str]:
        """Return the command that executes a statement and prints the values alone."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        address = self.address("postgres")
        return [self.program("psql"), *options, "-d", address, "-c", statement]

    def ready(self) -> bool:
        return self.ask(self.psql("SELECT 1"))[0] == 0

    def address(self, database: str) -> str:
        return f"postgres://{self.user}:{self.password}@{HOST}:{self.port}/{database}"

    def url(self) -> str:
        return self.address(DATABASE)

    def log_in_as(self, address: str) -> None:
        """Use the account of another server, which is this one's too."""
        parts = urlsplit(address)
        self.user, self.password = parts.username or "", parts.password or ""


class Postgres(PostgresProtocol):
    """PostgreSQL; the user is a superuser, so Django's test runner can create databases."""

    name = "postgres"
    variable = "TEST_POSTGRES_URL"
    packages = ("postgresql",)
    directories = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
    programs = ("initdb", "postgres", "psql")
    accounts = ("postgres",)
    # Killed, it would leave shared memory behind, and SIGTERM waits for clients to leave; SIGINT is
    # PostgreSQL's "fast shutdown".
    stop_signal = signal.SIGINT

    def prepare(self, directory: Path) -> None:
        password_file = self.write(directory / "password", self.password + "\n")
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
            ]
        )

    def command(self, directory: Path) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            # The data is thrown away, so it need not survive a power cut; but it has to survive
            # a kill -9, so a commit is written, if not to the disk, before it is acknowledged.
            "fsync": "off",
            "full_page_writes": "off",
            # A replica that was away for a while finds here what it missed.
            "wal_keep_size": "256MB",
            "wal_retrieve_retry_interval": "200ms",
            # Differences between local time and UTC have to show.
            "timezone": "UTC",
        }
        options = [option for item in settings.items() for option in ("-c", "=".join(item))]
        return [self.program("postgres"), "-D", str(directory / "data"), *options]

    def finish(self) -> None:
        self.call(self.psql(f"CREATE DATABASE {DATABASE}"))

    def clean(self, directory: Path) -> None:
        # An orderly end removes this file, and the shared memory that its last but one line names.
        with contextlib.suppress(OSError, IndexError):
            lines = (directory / "data" / "postmaster.pid").read_text().splitlines()
            command = ["ipcrm", "-m", lines[6].split()[1]]
            subprocess.run(command, check=False, capture_output=True)


class PostgresReplica(Postgres):
    """A hot standby that streams from the primary; replication is asynchronous.

    The user is a superuser here too, so a test may call `pg_wal_replay_pause()`.
    """

    name = "postgres-replica"
    variable = "TEST_POSTGRES_REPLICA_URL"
    programs = ("pg_basebackup", "postgres", "psql")
    needs = ("postgres",)

    def prepare(self, directory: Path) -> None:
        (primary,) = self.given
        # Roles come with the copy.
        self.log_in_as(primary)
        self.call(
            [
                self.program("pg_basebackup"),
                f"--dbname={primary}",
                f"--pgdata={directory / 'data'}",
                "--checkpoint=fast",
                "--wal-method=stream",
                "--write-recovery-conf",
                "--no-sync",
            ]
        )

    def finish(self) -> None:
        streaming = self.psql("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
        self.wait(lambda: self.ask(streaming) == (0, "1\n"), "the primary")

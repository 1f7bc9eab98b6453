"""MariaDB, for what is said of MySQL, and a pair of which one follows the other."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from servers.server import HOST, Server

DATABASE = "django_session"


class MariaDB(Server):
    """MariaDB; the user has every right, so Django's test runner can create databases."""

    name = "mariadb"
    variable = "TEST_MYSQL_URL"
    # The server without the Debian service around it: nothing is started by the installation.
    packages = ("mariadb-server-core", "mariadb-client-core")
    programs = ("mariadb-install-db", "my_print_defaults", "mariadbd")
    accounts = ("mysql",)

    def prepare(self, directory: Path) -> None:
        self.call(
            [
                self.program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={directory / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--innodb-log-file-size=16M",
            ]
        )
        self.write(directory / "init.sql", "".join(f"{one};\n" for one in self.statements()))

    def statements(self) -> list[str]:
        """Return what the server executes before it answers."""
        return [
            # What a replica does itself.
            "SET sql_log_bin = 0",
            f"CREATE USER '{self.user}'@'{HOST}' IDENTIFIED BY '{self.password}'",
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'{HOST}' WITH GRANT OPTION",
            f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4",
            # root has no password, and nobody needs it.
            "DELETE FROM mysql.global_priv WHERE User IN ('root', '')",
            "FLUSH PRIVILEGES",
        ]

    def command(self, directory: Path) -> list[str]:
        return [
            self.program("mariadbd"),
            "--no-defaults",
            f"--datadir={directory / 'data'}",
            f"--socket={directory / 'socket'}",
            f"--pid-file={directory / 'pid'}",
            f"--init-file={directory / 'init.sql'}",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--skip-name-resolve",
            *self.replication(),
            "--max-connections=200",
            "--character-set-server=utf8mb4",
            # The data is thrown away, so it need not survive a power cut; but it has to survive
            # a kill -9, so a commit is written, if not to the disk, before it is acknowledged.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=64M",
        ]

    def replication(self) -> list[str]:
        """Return the options about the log that a replica reads."""
        return ["--skip-log-bin"]

    def ready(self) -> bool:
        # The server speaks first, and only after the init file: a packet whose body starts with
        # the protocol version, 10.
        try:
            with socket.create_connection((HOST, self.port), timeout=2) as connection:
                connection.settimeout(2)
                greeting = connection.recv(5)
        except OSError:
            return False
        return len(greeting) == 5 and greeting[4] == 10

    def url(self) -> str:
        return f"mysql://{self.user}:{self.password}@{HOST}:{self.port}/{DATABASE}"


class MariaDBPrimary(MariaDB):
    """The same with a log that a replica reads."""

    name = "mariadb-primary"
    variable = "TEST_MYSQL_PRIMARY_URL"
    by_default = False

    def replication(self) -> list[str]:
        return ["--log-bin=log", "--server-id=1", "--binlog-format=ROW", "--sync-binlog=0"]


class MariaDBReplica(MariaDB):
    """A server that follows it."""

    name = "mariadb-replica"
    variable = "TEST_MYSQL_REPLICA_URL"
    needs = ("mariadb-primary",)
    by_default = False

    def replication(self) -> list[str]:
        return ["--skip-log-bin", "--server-id=2"]

    def statements(self) -> list[str]:
        (primary,) = self.given
        parts = urlsplit(primary)
        options = {
            "MASTER_HOST": f"'{parts.hostname}'",
            "MASTER_PORT": parts.port,
            "MASTER_USER": f"'{parts.username}'",
            "MASTER_PASSWORD": f"'{parts.password}'",
            "MASTER_USE_GTID": "slave_pos",
            "MASTER_CONNECT_RETRY": 1,
        }
        follow = ", ".join(f"{name}={value}" for name, value in options.items())
        return [*super().statements(), f"CHANGE MASTER TO {follow}", "START SLAVE"]

"""MariaDB, for what is said of MySQL."""

from __future__ import annotations

import socket
from pathlib import Path

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
        statements = [
            f"CREATE USER '{self.user}'@'{HOST}' IDENTIFIED BY '{self.password}'",
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'{HOST}' WITH GRANT OPTION",
            f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4",
            # root has no password, and nobody needs it.
            "DELETE FROM mysql.global_priv WHERE User IN ('root', '')",
            "FLUSH PRIVILEGES",
        ]
        script = "".join(f"{statement};\n" for statement in statements)
        self.write(directory / "init.sql", script)

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
            "--skip-log-bin",
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

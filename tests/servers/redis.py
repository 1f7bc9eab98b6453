"""Redis: one server, plain or behind TLS."""

from __future__ import annotations

from pathlib import Path

from servers.server import HOST, Server

DAYS = "30"
OPENSSL = f"""\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:{HOST}, DNS:localhost
"""


class Redis(Server):
    """Redis that keeps nothing on disk. There is one user, and nothing works without a login."""

    name = "redis"
    variable = "TEST_REDIS_URL"
    packages: tuple[str, ...] = ("redis-server",)
    programs: tuple[str, ...] = ("redis-cli", "redis-server")
    accounts = ("redis",)

    def settings(self) -> list[str]:
        """Return the lines of the configuration file, but for the port."""
        return [
            f"bind {HOST}",
            f"user {self.user} on >{self.password} ~* &* +@all",
            "user default off",
            'save ""',
            "appendonly no",
            "maxmemory-policy noeviction",
            # How a replica logs in, and how fast it gets its copy and is missed.
            f"masteruser {self.user}",
            f"masterauth {self.password}",
            "repl-diskless-sync-delay 0",
            "repl-ping-replica-period 1",
        ]

    def prepare(self, directory: Path) -> None:
        self.write(directory / "redis.conf", "\n".join(self.settings()) + "\n")

    def command(self, directory: Path) -> list[str]:
        return [self.program("redis-server"), str(directory / "redis.conf"), *self.listen()]

    def listen(self) -> list[str]:
        """Return the options that say where to listen."""
        return ["--port", str(self.port)]

    def cli(self, *words: str) -> list[str]:
        """Return the command that sends `words` as the user."""
        login = ["--user", self.user, "--pass", self.password, "--no-auth-warning"]
        return [self.program("redis-cli"), "-h", HOST, "-p", str(self.port), *login, *words]

    def ready(self) -> bool:
        return self.ask(self.cli("PING")) == (0, "PONG\n")

    def info(self, section: str) -> dict[str, str]:
        """Return a section of what the server says of itself."""
        _, output = self.ask(self.cli("INFO", section))
        pairs = (line.partition(":") for line in output.splitlines())
        return {name: value for name, colon, value in pairs if colon}

    def follows(self) -> bool:
        """Tell whether this is a replica with a complete copy."""
        return self.info("replication").get("master_link_status") == "up"

    def url(self) -> str:
        return f"redis://{self.user}:{self.password}@{HOST}:{self.port}/0"


class RedisTLS(Redis):
    """Redis that only speaks TLS, with a certificate for its address."""

    name = "redis-tls"
    variable = "TEST_REDIS_TLS_URL"
    packages = ("redis-server", "openssl")
    programs = ("openssl", "redis-cli", "redis-server")

    def prepare(self, directory: Path) -> None:
        super().prepare(directory)
        config = self.write(directory / "openssl.cnf", OPENSSL)
        openssl = self.program("openssl")
        request = [openssl, "req", "-config", str(config), "-nodes"]
        request += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        ca = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests"]
        server = ["-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={HOST}"]
        signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        extensions = ["-extfile", str(config), "-extensions", "server"]
        self.call([*request, "-x509", "-extensions", "ca", "-days", DAYS, *ca])
        self.call([*request, *server])
        self.call(
            [
                *[openssl, "x509", "-req", "-in", "server.csr", "-out", "server.pem"],
                *["-days", DAYS, *signer, *extensions],
            ]
        )

    def settings(self) -> list[str]:
        return [
            *super().settings(),
            "tls-ca-cert-file ca.pem",
            "tls-cert-file server.pem",
            "tls-key-file server.key",
            # The account is proof enough of the client.
            "tls-auth-clients no",
        ]

    def listen(self) -> list[str]:
        return ["--port", "0", "--tls-port", str(self.port)]

    def cli(self, *words: str) -> list[str]:
        return super().cli("--tls", "--cacert", "ca.pem", *words)

    def url(self) -> str:
        return f"rediss://{self.user}:{self.password}@{HOST}:{self.port}/0"

    def variables(self) -> dict[str, str]:
        assert self.directory is not None
        return {**super().variables(), "TEST_REDIS_TLS_CA": str(self.directory / "ca.pem")}

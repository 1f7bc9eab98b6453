#!/usr/bin/env python3
"""Start throw-away database servers for the tests, and stop them afterwards.

    python tests/services.py run [--only postgres,mariadb] -- command args…
    python tests/services.py serve [--only postgres,mariadb]

``run`` starts the servers, gives the command their addresses as ``TEST_POSTGRES_URL`` and
``TEST_MYSQL_URL``, stops them and ends with the command's exit code. ``serve`` keeps them until
Ctrl-C and prints the variables as shell lines.

Each server listens on a free loopback port, keeps its data in a temporary directory and belongs
to this program alone: a server of the machine's own is neither used nor touched. A variable that
is set already names a server of yours; it is passed on and nothing is started for it.

Programs that are missing come from Debian's packages when that is possible (root and apt-get). If
not, one line says what stays untested; with ``CI=true`` that is an error.

Only the standard library is used, so this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
START_ATTEMPTS = 3
LOG_LINES = 40
POLICY = Path("/usr/sbin/policy-rc.d")

# Debian keeps servers in directories that an ordinary PATH leaves out.
PROGRAM_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin", "/sbin")


class ServiceError(Exception):
    """A server did not start, or its programs could not be installed."""


class MissingError(ServiceError):
    """The programs of a server are not on this machine, and cannot be installed here."""


def say(text: str) -> None:
    """Report on standard error; standard output belongs to the command."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def find_program(name: str, patterns: Sequence[str] = ()) -> str | None:
    """Return the path of `name`, looked up in glob `patterns` (newest last) and then in PATH."""
    for pattern in patterns:
        found = [path for path in Path("/").glob(pattern.lstrip("/")) if (path / name).exists()]
        if found:
            return str(max(found, key=_version_in) / name)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *PROGRAM_DIRECTORIES])
    return shutil.which(name, path=path)


def _version_in(path: Path) -> tuple[int, ...]:
    digits = [part for part in path.parts if part.replace(".", "").isdigit()]
    return tuple(int(number) for number in digits[-1].split(".")) if digits else ()


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


class MariaDB(Service):
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
            ],
            directory,
        )
        statements = [
            f"CREATE USER '{self.user}'@'{HOST}' IDENTIFIED BY '{self.password}'",
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'{HOST}' WITH GRANT OPTION",
            f"CREATE DATABASE {self.database} CHARACTER SET utf8mb4",
            # root has no password, and nobody needs it.
            "DELETE FROM mysql.global_priv WHERE User IN ('root', '')",
            "FLUSH PRIVILEGES",
        ]
        script = directory / "init.sql"
        script.write_text("".join(f"{statement};\n" for statement in statements))
        self._account.own(script)

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
            # The data is thrown away, so it need not survive a power cut.
            "--innodb-flush-log-at-trx-commit=0",
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
        return f"mysql://{self.user}:{self.password}@{HOST}:{self.port}/{self.database}"


SERVICES: dict[str, type[Service]] = {service.name: service for service in (Postgres, MariaDB)}


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Keep Debian's packages from starting a server when they are installed.

    `policy-rc.d` is Debian's own switch for this. A file that is there already is the machine's
    decision and stays as it is.
    """
    if POLICY.exists() or POLICY.is_symlink():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def install(packages: Sequence[str]) -> None:
    """Install Debian packages; raise `MissingError` where that is not possible."""
    apt = shutil.which("apt-get")
    if apt is None:
        raise MissingError("no apt-get here")
    if os.geteuid() != 0:
        raise MissingError("not root")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    lock = ["-o", "DPkg::Lock::Timeout=300"]
    steps = [
        [apt, *lock, "-qq", "update"],
        [apt, *lock, "-qq", "-y", "--no-install-recommends", "install", *packages],
    ]
    with no_service_starts():
        for step in steps:
            result = subprocess.run(
                step,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                check=False,
            )
            # An update may fail for one of several sources; the installation is what counts.
            if result.returncode != 0 and step is steps[-1]:
                tail = result.stdout.decode(errors="replace").splitlines()[-LOG_LINES:]
                raise MissingError("apt-get failed:\n" + "\n".join(tail))


def usable(names: Sequence[str]) -> list[Service]:
    """Return the services of `names` that can be started, installing what is missing."""
    wanted = [SERVICES[name]() for name in names if SERVICES[name].variable not in os.environ]
    lacking = [service for service in wanted if service.missing()]
    if lacking:
        packages = [package for service in lacking for package in service.packages]
        say(f"installing {' '.join(packages)}")
        try:
            install(packages)
        except MissingError as error:
            say(f"cannot install them: {error}")
    result = []
    refused = []
    for service in wanted:
        programs = service.missing()
        if programs:
            say(
                f"{service.name} is NOT TESTED: no {', '.join(programs)} "
                f"(Debian: {' '.join(service.packages)})"
            )
            refused.append(service.name)
        else:
            result.append(service)
    if refused and os.environ.get("CI") == "true":
        raise ServiceError(f"CI has to test every server; missing: {', '.join(refused)}")
    return result


@contextlib.contextmanager
def running(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start the named services; yield the variables that say where they are."""
    variables = {
        SERVICES[name].variable: os.environ[SERVICES[name].variable]
        for name in names
        if SERVICES[name].variable in os.environ
    }
    with contextlib.ExitStack() as stack:
        for service in usable(names):
            stack.callback(service.stop)
            variables[service.variable] = service.start()
            say(f"{service.name} is ready on port {service.port}")
        yield variables


def end(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for `process`; ask it to end after `seconds`, and insist in the end."""
    for ask in (process.terminate, process.kill):
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            ask()
    return process.wait()


def run(names: Sequence[str], command: Sequence[str]) -> int:
    """Run `command` beside the services and return its exit code."""
    with running(names) as variables:
        try:
            process = subprocess.Popen(command, env=os.environ | variables)
        except OSError as error:
            say(f"cannot run {command[0]}: {error.strerror}")
            return 127
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # A terminal sent Ctrl-C to the command as well: let it finish its own way.
            end(process, 15)
            raise
        except BaseException:
            process.terminate()
            end(process, 15)
            raise
    return code if code >= 0 else 128 - code


def serve(names: Sequence[str]) -> int:
    """Keep the services until a signal comes."""
    with running(names) as variables:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        say("press Ctrl-C to stop")
        signal.pause()
    return 0


def chosen(text: str) -> list[str]:
    """Parse the value of --only."""
    names = [name for name in text.replace(",", " ").split() if name]
    unknown = sorted(set(names) - set(SERVICES))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(SERVICES)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Throw-away database servers for the tests.")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, text in (
        ("run", "run a command beside the servers"),
        ("serve", "keep the servers until Ctrl-C"),
    ):
        sub = actions.add_parser(action, help=text)
        sub.add_argument("--only", type=chosen, default=list(SERVICES), metavar="NAME[,NAME]")
        if action == "run":
            sub.usage = "%(prog)s [--only NAME[,NAME]] -- command [argument ...]"
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, command = words, []
    if "--" in words:
        own, command = words[: words.index("--")], words[words.index("--") + 1 :]
    options = parser.parse_args(own)
    if bool(command) != (options.action == "run"):
        parser.error("run needs a command after --, and serve takes none")
    perform: Callable[[], int] = (
        (lambda: run(options.only, command))
        if options.action == "run"
        else (lambda: serve(options.only))
    )

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
    try:
        return perform()
    except KeyboardInterrupt:
        return 0 if options.action == "serve" else 130
    except ServiceError as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())

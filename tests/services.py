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
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

from servers.mariadb import MariaDB
from servers.postgres import Postgres
from servers.programs import MissingError, ServiceError, install
from servers.server import Service

SERVICES: dict[str, type[Service]] = {service.name: service for service in (Postgres, MariaDB)}


def say(text: str) -> None:
    """Report on standard error; standard output belongs to the command."""
    print(f"services: {text}", file=sys.stderr, flush=True)


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

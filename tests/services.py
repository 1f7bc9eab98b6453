#!/usr/bin/env python3
"""Start throw-away servers for the tests, and stop them afterwards.

    python tests/services.py run [--only postgres,redis] -- command args…
    python tests/services.py serve [--only postgres,redis]

``run`` starts the servers, gives the command their addresses in variables, stops them and ends with
the command's exit code. ``serve`` keeps them until Ctrl-C and prints the variables as shell lines.

    postgres          TEST_POSTGRES_URL          postgres://user:password@host:port/database
    postgres-replica  TEST_POSTGRES_REPLICA_URL  the same; a hot standby of postgres
    pgbouncer         TEST_PGBOUNCER_URL         the same; transaction pooling before postgres
    mariadb           TEST_MYSQL_URL             mysql://user:password@host:port/database
    mariadb-primary   TEST_MYSQL_PRIMARY_URL     the same with a log, only if asked for
    mariadb-replica   TEST_MYSQL_REPLICA_URL     the same, which follows it, only if asked for
    redis             TEST_REDIS_URL             redis://user:password@host:port/0
    redis-tls         TEST_REDIS_TLS_URL         rediss://user:password@host:port/0
                      TEST_REDIS_TLS_CA          path of the authority's certificate
    redis-cluster     TEST_REDIS_CLUSTER_URL     redis+cluster://user:password@host:port,…
    redis-sentinel    TEST_REDIS_SENTINEL_URL    redis+sentinel://user:password@host:port,…/name/0
    memcached         TEST_MEMCACHED_URL         memcached://host:port

Beside each ``…_URL`` there is a ``…_PIDS``, ``pid:port,…`` in the order of the start, for tests
that kill or stop servers: of the Cluster the masters come first, then their replicas; of Sentinel
the master, its replica and the Sentinels. Such a test starts servers of its own.

Each server listens on a free loopback port, keeps its data in a temporary directory and belongs
to this program alone: a server of the machine's own is neither used nor touched. A variable that
is set already names a server of yours; it is passed on, and nothing is started for it or attached
to it.

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
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from servers.mariadb import MariaDB, MariaDBPrimary, MariaDBReplica
from servers.memcached import Memcached
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres, PostgresReplica
from servers.programs import MissingError, ServiceError, install
from servers.redis import Redis, RedisTLS
from servers.redis_cluster import RedisCluster
from servers.redis_sentinel import RedisSentinel
from servers.service import Service

# What a service needs comes before it. The slow ones come first.
SERVICES: dict[str, type[Service]] = {
    service.name: service
    for service in (
        *(Postgres, PostgresReplica, PgBouncer, MariaDB, MariaDBPrimary, MariaDBReplica),
        *(RedisCluster, RedisSentinel, Redis, RedisTLS, Memcached),
    )
}


def say(text: str) -> None:
    """Report on standard error; standard output belongs to the command."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def with_needs(names: Sequence[str]) -> list[str]:
    """Return the services of `names` and those that they need, in the order of `SERVICES`."""
    needed = {need for name in names for need in SERVICES[name].needs}
    return [name for name in SERVICES if name in {*names, *needed}]


def usable(names: Sequence[str]) -> list[Service]:
    """Return the services of `names` that can be started, installing what is missing."""
    wanted = [SERVICES[name]() for name in names if SERVICES[name].variable not in os.environ]
    lacking = [service for service in wanted if service.missing()]
    if lacking:
        packages = dict.fromkeys(package for service in lacking for package in service.packages)
        say(f"installing {' '.join(packages)}")
        try:
            install(list(packages))
        except MissingError as error:
            say(f"cannot install them: {error}")
    result: list[Service] = []
    refused = []
    for service in wanted:
        reason = obstacle(service, [other.name for other in result])
        if reason:
            say(f"{service.name} is NOT TESTED: {reason}")
            refused.append(service.name)
        else:
            result.append(service)
    if refused and os.environ.get("CI") == "true":
        raise ServiceError(f"CI has to test every server; missing: {', '.join(refused)}")
    return result


def obstacle(service: Service, usable: Sequence[str]) -> str:
    """Say why a service cannot be started beside `usable` ones; nothing if it can."""
    if programs := service.missing():
        return f"no {', '.join(programs)} (Debian: {' '.join(service.packages)})"
    for need in service.needs:
        if SERVICES[need].variable in os.environ:
            # Nothing is attached to a server that is not this program's own.
            return f"{SERVICES[need].variable} is set and {service.variable} is not"
        if need not in usable:
            return f"no {need}"
    return ""


def start(services: Sequence[Service]) -> dict[str, str]:
    """Start services side by side, each after those it needs; return all their variables."""
    if not services:
        return {}
    begin = time.monotonic()
    variables: dict[str, str] = {}
    futures: dict[str, Future[dict[str, str]]] = {}

    def start_one(service: Service) -> dict[str, str]:
        given = [futures[need].result()[SERVICES[need].variable] for need in service.needs]
        found = service.start(*given)
        ports = ", ".join(str(port) for _, port in service.processes())
        seconds = time.monotonic() - begin
        say(f"{service.name} is ready on port {ports} after {seconds:.1f} s")
        return found

    with ThreadPoolExecutor(len(services)) as pool:
        try:
            for service in services:
                futures[service.name] = pool.submit(start_one, service)
            for future in as_completed(futures.values()):
                variables |= future.result()
        except BaseException:
            # The threads end soon, and only then can their servers be stopped.
            for service in services:
                service.cancel()
            raise
    return variables


@contextlib.contextmanager
def running(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Start the named services; yield the variables that say where they are."""
    names = with_needs(names)
    known = {
        SERVICES[name].variable: os.environ[SERVICES[name].variable]
        for name in names
        if SERVICES[name].variable in os.environ
    }
    services = usable(names)
    with contextlib.ExitStack() as stack:
        for service in services:
            stack.callback(service.stop)
        yield known | start(services)


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


def by_default() -> list[str]:
    """Return the services that are started if none is named."""
    return [name for name, service in SERVICES.items() if service.by_default]


def chosen(text: str) -> list[str]:
    """Parse the value of --only."""
    names = [name for name in text.replace(",", " ").split() if name]
    unknown = sorted(set(names) - set(SERVICES))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(SERVICES)}")
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Throw-away servers for the tests.")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, text in (
        ("run", "run a command beside the servers"),
        ("serve", "keep the servers until Ctrl-C"),
    ):
        sub = actions.add_parser(action, help=text)
        sub.add_argument("--only", type=chosen, default=by_default(), metavar="NAME[,NAME]")
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

    # A shell has its background jobs ignore this one, and what is ignored is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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

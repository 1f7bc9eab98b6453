"""Requests of users who are logged in: the example `axum` against Django behind gunicorn.

    python benches/gate.py [--seconds N] [--rounds N] [--clients 1,64]

Both ask the same tables on PostgreSQL whose session it is and whether that still counts, for the
cookies of 200 users, and answer with the user's name; sessions are in the table, then in Redis.
`cold` asks for every request, `cached` remembers users for five seconds, and `no session` is a
handler outside of the layers. gunicorn has a worker for each processor. `wrk` has to be installed;
`TEST_POSTGRES_URL` and `TEST_REDIS_URL` name the servers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import servers

ROOT = Path(__file__).resolve().parents[1]
FEATURES = "auth,axum,cache,postgres,redis"
KINDS = ("postgres", "redis")
KEY = "a secret key for a site that nobody visits, which is long enough"

EXPORT = """
import sys
import session_site
from django.core.management import call_command
from django_session_rs.management.commands.export_session_settings import Command
call_command(Command(), output=sys.argv[1])
"""


def built() -> str:
    command = ["cargo", "build", "--release", "--quiet", "--example=axum"]
    subprocess.run([*command, f"--features={FEATURES}"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return str(Path(target) / "release" / "examples" / "axum")


@contextlib.contextmanager
def rust(program: str, settings: str, kind: str, **environment: str) -> Iterator[str]:
    """The example on a port of its own; its address."""
    port = servers.free_port()
    base, _, _ = os.environ["TEST_POSTGRES_URL"].rpartition("/")
    environment |= {
        "SECRET_KEY": KEY,
        "DATABASE_URL": f"{base}/{servers.DATABASE}",
        "PORT": str(port),
    }
    if kind == "redis":
        joint = "&" if "?" in os.environ["TEST_REDIS_URL"] else "?"
        prefix = f"prefix={servers.DATABASE}"
        environment["SESSION_STORE_URL"] = f"{os.environ['TEST_REDIS_URL']}{joint}{prefix}"
    process = subprocess.Popen(
        [program, settings], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            if process.poll() is not None:
                sys.exit("the example ended")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def check(url: str, key: str) -> None:
    if servers.answers(url, key) != "user7":
        sys.exit(f"{url} does not know its user")


def measure(kind: str, program: str, clients: list[int], seconds: int, rounds: int) -> None:
    variant = servers.VARIANTS[kind][0]
    values = servers.site_settings(kind, variant, servers.DATABASE, is_async=False)
    keys = servers.make_users(values)
    settings = str(Path(servers.CODE.name) / f"{kind}.json")
    environment = servers.environment(values)
    subprocess.run([sys.executable, "-c", EXPORT, settings], env=environment, check=True)
    found: dict[tuple[str, int], list[servers.Load]] = {}

    def take(name: str, url: str, sent: list[str]) -> None:
        servers.load(url, sent, clients[-1], 1)
        for count in clients:
            result = servers.load(url, sent, count, seconds)
            found.setdefault((name, count), []).append(result)

    for _ in range(rounds):
        with servers.running("gunicorn, a worker for each processor", values) as (url, _):
            check(f"{url}/user", keys[7])
            take("Django", f"{url}/user", keys)
        with rust(program, settings, kind) as url:
            check(f"{url}/account", keys[7])
            take("cold", f"{url}/account", keys)
            take("no session", f"{url}/health", [])
        with rust(program, settings, kind, USER_CACHE_SECONDS="5") as url:
            check(f"{url}/account", keys[7])
            take("cached", f"{url}/account", keys)
    print(f"\nsessions in {kind}")
    print(f"  {'clients':>7}  {'':12} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}")
    for count in clients:
        base = None
        for name in ("Django", "cold", "cached", "no session"):
            loads = found[name, count]
            rate = statistics.median(one.rate for one in loads)
            median = statistics.median(one.median for one in loads)
            slow = statistics.median(one.slow for one in loads)
            errors = sum(one.errors for one in loads)
            base = base or rate
            note = "" if name == "Django" else f"{rate / base:6.1f}x"
            failed = f"  {errors} failed" if errors else ""
            print(f"  {count:7}  {name:12} {rate:8.0f} {median:8.2f} {slow:8.2f} {note}{failed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,64")
    parser.add_argument("--only", default="", help="postgres or redis")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing; it is a package of that name in Debian, Fedora and Homebrew")
    workers = ["gunicorn", "--workers", str(os.cpu_count() or 1), "--worker-class", "sync"]
    servers.SERVERS["gunicorn, a worker for each processor"] = workers
    clients = [int(count) for count in options.clients.split(",")]
    program = built()
    with servers.own_database():
        for kind in KINDS:
            if options.only in ("", kind):
                measure(kind, program, clients, options.seconds, options.rounds)


if __name__ == "__main__":
    main()

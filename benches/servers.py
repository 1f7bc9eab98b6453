"""Whole requests behind real servers: Django's engine and middleware against this package's.

    python benches/servers.py [--seconds N] [--clients 1,64] [--only WORD[,WORD]]

The site (`tests/fixtures/session_site.py`) has a view that reads the session, one that writes it,
and one for a user who is logged in. Each is asked over HTTP by `wrk`, which has to be installed,
with the cookies of 200 users, once per engine, one after the other in each round.
`TEST_POSTGRES_URL` and `TEST_REDIS_URL` name the servers that hold the sessions. The table shows
requests a second, the latencies in milliseconds that half and 99 % of the requests keep below, and
how many times as many requests a second ours answers; below, those of a view that does nothing
without any middleware, and the memory of a worker after that: of one alone, and of each of five, as
many as gunicorn recommends for two processors, which share what of it is code.

Under WSGI Django keeps its connections (`CONN_MAX_AGE=60`), which is faster for it. Under ASGI it
makes one for each request, as its documentation advises, or has a pool of psycopg (`pool`).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

CODE = tempfile.TemporaryDirectory()
SITE = Path(__file__).parents[1] / "tests" / "fixtures"
USERS = 200
DJANGO = "django.contrib.sessions"
OURS = "django_session_rs"
MIDDLEWARE = {
    "django": [
        f"{DJANGO}.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    "ours": [f"{OURS}.middleware.SessionMiddleware", f"{OURS}.auth.AuthenticationMiddleware"],
}


@dataclass(frozen=True)
class Variant:
    """An engine and a middleware, and what of the settings belongs to it."""

    name: str
    engine: str
    middleware: str
    pool: bool = False


VARIANTS = {
    "postgres": [
        Variant("Django's db", f"{DJANGO}.backends.db", "django"),
        Variant("Django's db, pool", f"{DJANGO}.backends.db", "django", pool=True),
        Variant("our db", f"{OURS}.backends.db", "ours"),
        Variant("native", f"{OURS}.backends.native", "ours"),
    ],
    "redis": [
        Variant("Django's cache", f"{DJANGO}.backends.cache", "django"),
        Variant("our cache", f"{OURS}.backends.cache", "ours"),
        Variant("native", f"{OURS}.backends.native", "ours"),
    ],
}
UVICORN = ["uvicorn", "--log-level", "warning", "--no-access-log"]
SERVERS = {
    "gunicorn sync": ["gunicorn", "--worker-class", "sync"],
    "gunicorn gthread": ["gunicorn", "--worker-class", "gthread", "--threads", "8"],
    "uvicorn": [*UVICORN, "--loop", "asyncio", "--http", "h11"],
    # As it runs where it was installed under this name.
    "uvicorn[standard]": [*UVICORN, "--loop", "uvloop", "--http", "httptools"],
    "daphne": ["daphne", "--verbosity", "0"],
}
# The most workers that memory is measured with; daphne has one.
WORKERS = 5
ASYNCHRONOUS = ("uvicorn", "uvicorn[standard]", "daphne")


def database(name: str, *, is_async: bool, pool: bool) -> dict:
    url = urlsplit(os.environ["TEST_POSTGRES_URL"])
    options = {"pool": {"min_size": 4, "max_size": 16}} if pool else {}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname or "",
        "PORT": str(url.port or ""),
        "CONN_MAX_AGE": 0 if is_async or pool else 60,
        "OPTIONS": options,
    }


def site_settings(kind: str, variant: Variant, name: str, *, is_async: bool) -> dict:
    found = {
        "DATABASES": {"default": database(name, is_async=is_async, pool=variant.pool)},
        "MIDDLEWARE": MIDDLEWARE[variant.middleware],
        "SESSION_ENGINE": variant.engine,
    }
    if kind == "redis":
        backend = "django.core.cache.backends.redis.RedisCache"
        location = os.environ["TEST_REDIS_URL"]
        found["CACHES"] = {
            "default": {"BACKEND": backend, "LOCATION": location, "KEY_PREFIX": name}
        }
        found["SESSION_STORE_URL"] = "cache"
    return found


MAKE_USERS = """
import json, sys
import session_site
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
store = import_module(settings.SESSION_ENGINE).SessionStore
keys = []
for number in range(int(sys.argv[1])):
    user, _ = User.objects.get_or_create(username=f"user{number}")
    session = store()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session["cart"] = [{"product": n, "quantity": 1} for n in range(5)]
    session["n"] = 0
    session.save()
    keys.append(session.session_key)
print(json.dumps(keys))
"""


# A view that does nothing, without a middleware: what is left if sessions take no time at all.
FLOOR = {"MIDDLEWARE": []}


def environment(values: dict) -> dict[str, str]:
    paths = [str(SITE), os.environ.get("PYTHONPATH", "")]
    inherited = {**os.environ, "PYTHONPYCACHEPREFIX": CODE.name}
    # What is installed has been compiled then, and a process that compiles keeps more memory.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return {
        **inherited,
        "SITE": json.dumps(values),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONWARNINGS": "ignore",
    }


def make_users(values: dict) -> list[str]:
    command = [sys.executable, "-c", MAKE_USERS, str(USERS)]
    done = subprocess.run(
        command, env=environment(values), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(server: str, values: dict, workers: int = 1) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server with the site, until it is no longer needed."""
    port = free_port()
    program = SERVERS[server]
    if program[0] != "daphne":
        program = [*program, "--workers", str(workers)]
    where = {
        "gunicorn": ["--bind", f"127.0.0.1:{port}", "session_site:application"],
        "uvicorn": ["--host", "127.0.0.1", "--port", str(port), "session_site:asgi_application"],
        "daphne": ["-b", "127.0.0.1", "-p", str(port), "session_site:asgi_application"],
    }[program[0]]
    command = [sys.executable, "-m", *program, *where]
    process = subprocess.Popen(
        command,
        env=environment(values),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        prefix = "/async" if server in ASYNCHRONOUS else ""
        url = f"http://127.0.0.1:{port}{prefix}"
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/nothing", timeout=5).close()
                break
            if process.poll() is not None:
                sys.exit(f"{server} ended: {process.stderr.read() if process.stderr else ''}")
            time.sleep(0.05)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            # As daphne with a pool of psycopg, whose threads it waits for.
            process.kill()
            process.communicate()


def answers(url: str, key: str) -> str:
    request = urllib.request.Request(url, headers={"Cookie": f"sessionid={key}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


LUA = """
local keys = {%s}
local next = 0
request = function()
  if #keys == 0 then return wrk.format() end
  next = next %% #keys + 1
  return wrk.format(nil, nil, {["Cookie"] = "sessionid=" .. keys[next]})
end
done = function(summary, latency, requests)
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What `wrk` has measured; latencies in milliseconds."""

    rate: float
    median: float
    slow: float
    errors: int


def load(url: str, keys: list[str], clients: int, seconds: int) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA % ",".join(f'"{key}"' for key in keys))
        script.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s"]
        done = subprocess.run(
            [*command, "-s", script.name, url], capture_output=True, text=True, check=True
        )
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        sys.exit(done.stdout + done.stderr)
    requests, duration, median, slow, errors = map(int, found.groups())
    return Load(requests / duration * 1e6, median / 1e3, slow / 1e3, errors)


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes that answer requests (Linux)."""
    children: list[str] = []
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # Beside those of uvicorn there is one that looks after what they share.
    is_worker = [b"resource_tracker" not in command_of(pid) for pid in children]
    # The one that starts workers is not one of them.
    return [int(pid) for pid in itertools.compress(children, is_worker)] or [process.pid]


def command_of(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def memory(process: subprocess.Popen) -> tuple[float, float]:
    """MiB that a worker takes, and how much of it is code of the extension (Linux).

    What several processes share is shared out among them (``Pss``).
    """
    pids = workers_of(process)
    found = code = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps").read_text()
            found += sum(int(n) for n in re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE))
            of_extension = re.findall(
                r"^\S+ \S+ \S+ \S+ \S+ +\S*_native\S*$(.*?)^VmFlags", text, re.MULTILINE | re.DOTALL
            )
            for mapping in of_extension:
                clean = re.findall(r"^(?:Shared|Private)_Clean:\s+(\d+) kB", mapping, re.MULTILINE)
                code += sum(map(int, clean))
    return found / 1024 / len(pids), code / 1024 / len(pids)


def memory_of_each(server: str, values: dict, keys: list[str], clients: int, seconds: int) -> float:
    """MiB that each of several workers takes."""
    if server == "daphne":
        return 0.0
    with running(server, values, WORKERS) as (url, process):
        for view in ("read", "write", "user"):
            load(f"{url}/{view}", keys, clients, seconds)
        return memory(process)[0]


def measure(kind: str, server: str, clients: list[int], seconds: int, rounds: int) -> None:
    is_async = server in ASYNCHRONOUS
    variants = [
        variant for variant in VARIANTS[kind] if has(variant) and (is_async or not variant.pool)
    ]
    print(f"\n{server}, sessions in {kind}")
    print(f"  {'view':6} {'clients':>7}  {'engine':18} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}")
    found: dict[tuple[str, int, str], list[Load]] = {}
    floors: dict[int, list[float]] = {}
    sizes: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        with running(server, FLOOR) as (url, _):
            load(f"{url}/nothing", [], clients[-1], 1)
            for count in clients:
                rate = load(f"{url}/nothing", [], count, seconds).rate
                floors.setdefault(count, []).append(rate)
        for variant in variants:
            values = site_settings(kind, variant, DATABASE, is_async=is_async)
            keys = make_users(values)
            with running(server, values) as (url, process):
                if answers(f"{url}/user", keys[7]) != "user7":
                    sys.exit(f"{variant.name} does not know its user")
                for view in ("read", "write", "user"):
                    load(f"{url}/{view}", keys, clients[-1], 1)
                    for count in clients:
                        result = load(f"{url}/{view}", keys, count, seconds)
                        found.setdefault((view, count, variant.name), []).append(result)
                alone = memory(process)
            each = memory_of_each(server, values, keys, clients[-1], seconds)
            sizes.setdefault(variant.name, []).append((*alone, each))
    for view in ("read", "write", "user"):
        for count in clients:
            base = None
            for variant in variants:
                loads = found[view, count, variant.name]
                rate = statistics.median(one.rate for one in loads)
                median = statistics.median(one.median for one in loads)
                slow = statistics.median(one.slow for one in loads)
                errors = sum(one.errors for one in loads)
                base = base or rate
                note = f"{rate / base:5.1f}x" if variant is not variants[0] else ""
                failed = f"  {errors} failed" if errors else ""
                print(
                    f"  {view:6} {count:7}  {variant.name:18} {rate:8.0f} {median:8.2f}"
                    f" {slow:8.2f} {note}{failed}"
                )
    for count in clients:
        rate = statistics.median(floors[count])
        print(f"  {'nothing':7}{count:7}  {'no middleware':18} {rate:8.0f}")
    print(f"  MiB of a worker, of that code of the extension, and of each of {WORKERS} workers:")
    for name, of in sizes.items():
        whole, code, each = (statistics.median(values) for values in zip(*of, strict=True))
        print(f"    {name:18} {whole:5.1f} {code:5.1f}  " + (f"{each:5.1f}" if each else "    -"))


def has(variant: Variant) -> bool:
    import importlib.util

    if variant.pool and importlib.util.find_spec("psycopg_pool") is None:
        print("psycopg_pool is not installed: Django's pool is not measured", file=sys.stderr)
        return False
    return importlib.util.find_spec(variant.engine) is not None


DATABASE = f"bench_{secrets.token_hex(4)}"


@contextlib.contextmanager
def own_database() -> Iterator[None]:
    import psycopg

    with psycopg.connect(os.environ["TEST_POSTGRES_URL"], autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {DATABASE}")
        try:
            yield
        finally:
            admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,64")
    parser.add_argument("--only", default="", help="servers and stores with these words")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing; it is a package of that name in Debian, Fedora and Homebrew")
    clients = [int(count) for count in options.clients.split(",")]
    with own_database():
        for kind in VARIANTS:
            for server in SERVERS:
                wanted = [word for word in options.only.split(",") if word]
                if wanted and not all(word in f"{server} {kind}" for word in wanted):
                    continue
                measure(kind, server, clients, options.seconds, options.rounds)


if __name__ == "__main__":
    main()

"""Servers that stop, hang and come back: never an empty session, never a deleted one."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import django
import pytest
from asgiref.sync import async_to_sync
from cache_backends import PICKLED
from django.core.cache import caches
from django.db import connections
from django.test import override_settings

from django_session_rs.backends import cache, cached_db, db
from django_session_rs.exceptions import StoreUnavailableError, is_outage

SERVICES = Path(__file__).parents[1] / "services.py"


def is_stopped(pid):
    """Whether all threads of a process have stopped, as far as that can be seen."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in tasks(pid)]
    return all(state == "T" for state in states)


def tasks(pid):
    return Path(f"/proc/{pid}/task").glob("*/stat")


class Server:
    """A server of this test's own, which can be stopped and started again."""

    def __init__(self, name, variable):
        if not os.environ.get(variable):
            pytest.skip(f"{variable} is not set")
        environment = {key: text for key, text in os.environ.items() if key != variable}
        self.process = subprocess.Popen(
            [sys.executable, SERVICES, "serve", "--only", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.found = {}
        for line in self.process.stdout:
            for word in shlex.split(line):
                key, _, value = word.partition("=")
                self.found[key] = value
            if variable in self.found and variable.replace("_URL", "_PIDS") in self.found:
                break
        self.url = self.found[variable]
        pids = self.found[variable.replace("_URL", "_PIDS")]
        self.pids = [int(part.split(":")[0]) for part in pids.split(",")]

    def signal(self, number):
        for pid in self.pids:
            os.kill(pid, number)
            # A thread on another core may answer once more before it stops.
            while number == signal.SIGSTOP and not is_stopped(pid):
                time.sleep(0.01)

    def kill(self):
        self.signal(signal.SIGKILL)
        address = urlsplit(self.url)
        # Gone when nobody listens any more.
        for _ in range(1000):
            try:
                socket.create_connection((address.hostname, address.port), 1).close()
            except OSError:
                return
            time.sleep(0.01)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def serving(name, variable):
    server = Server(name, variable)
    try:
        yield server
    finally:
        server.close()


BACKENDS = {
    "redis": ("redis", "TEST_REDIS_URL", PICKLED + "redis.RedisCache"),
    "django_redis": ("redis", "TEST_REDIS_URL", "django_redis.cache.RedisCache"),
    "pymemcache": ("memcached", "TEST_MEMCACHED_URL", PICKLED + "memcached.PyMemcacheCache"),
    "pylibmc": ("memcached", "TEST_MEMCACHED_URL", PICKLED + "memcached.PyLibMCCache"),
}


def options_of(kind):
    """What makes a client give up after half a second."""
    if kind == "pymemcache":
        return {"timeout": 0.5, "connect_timeout": 0.5}
    if kind == "pylibmc":
        return {"behaviors": {"receive_timeout": 500_000, "_poll_timeout": 500}}
    if kind == "django_redis":
        return {"SOCKET_TIMEOUT": 0.5, "SOCKET_CONNECT_TIMEOUT": 0.5}
    return {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}


def steps(store_class, key):
    """Each step of a session that somebody has loaded before, and that of one who has not."""

    def loaded():
        store = store_class(key)
        store._session_cache = {"a": 2}
        return store

    return [
        (lambda: store_class(key), lambda store: store.get("a")),
        (lambda: store_class(key), lambda store: async_to_sync(store.aload)()),
        (loaded, lambda store: store.save()),
        (loaded, lambda store: async_to_sync(store.asave)()),
        (loaded, lambda store: store.cycle_key()),
        (loaded, lambda store: store.flush()),
        (loaded, lambda store: store.create()),
        (loaded, lambda store: store.exists(key)),
    ]


def assert_outage(store_class, key):
    for make, step in steps(store_class, key):
        store = make()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is looked at below
            step(store)
        assert is_outage(caught.value), caught.value
        assert store.outage is caught.value
        assert store.session_key == key
        assert key not in str(caught.value)


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_cache_that_hangs_and_stops(kind):
    if kind == "pylibmc":
        pytest.importorskip("pylibmc")
    name, variable, backend = BACKENDS[kind]
    with serving(name, variable) as server:
        location = server.url if name == "redis" else urlsplit(server.url).netloc
        settings = {"BACKEND": backend, "LOCATION": location, "OPTIONS": options_of(kind)}
        with override_settings(CACHES={"default": settings}):
            store = cache.SessionStore()
            store["a"] = 1
            store.save()
            key = store.session_key
            server.signal(signal.SIGSTOP)
            with pytest.raises(StoreUnavailableError) as caught:
                cache.SessionStore(key).load()
            assert caught.value.reason in {"timed_out", "unreachable"}
            assert caught.value.reason == "timed_out" or kind == "pylibmc"
            server.signal(signal.SIGCONT)
            caches.close_all()
            if kind.startswith("py"):
                # A client of memcached forgets a server that has failed, for some time.
                caches["default"].__dict__.pop("_cache", None)
            assert cache.SessionStore(key).load() == {"a": 1}
            server.kill()
            assert_outage(cache.SessionStore, key)
            caches.close_all()


def test_a_cache_before_a_table_that_stops(sqlite_database):
    with serving("redis", "TEST_REDIS_URL") as server:
        settings = {"BACKEND": BACKENDS["redis"][2], "LOCATION": server.url}
        with override_settings(CACHES={"default": settings}):
            store = cached_db.SessionStore()
            store["a"] = 1
            store.save()
            key = store.session_key
            server.kill()
            # The row answers.
            again = cached_db.SessionStore(key)
            assert again["a"] == 1
            assert again.outage is None
            for step in ("flush", "cycle_key", "save"):
                lost = cached_db.SessionStore(key)
                lost["b"] = 2
                with pytest.raises(StoreUnavailableError):
                    getattr(lost, step)()
                assert lost.session_key == key
                assert lost.outage is not None
            # Nothing was deleted or moved, and what was saved is in the row.
            assert db.SessionStore(key).load() == {"a": 1, "b": 2}
            caches.close_all()


@pytest.mark.parametrize(
    ("name", "variable", "engine"),
    [
        ("postgres", "TEST_POSTGRES_URL", "postgresql"),
        ("mariadb", "TEST_MYSQL_URL", "mysql"),
    ],
)
def test_a_database_that_stops(name, variable, engine, databases):
    with serving(name, variable) as server:
        url = urlsplit(server.url)
        alias = next(a for a in databases if connections[a].vendor == engine)
        own = connections["default"]
        connection = connections[alias].copy()
        connection.settings_dict = {
            **connection.settings_dict,
            "NAME": url.path.strip("/"),
            "USER": url.username or "",
            "PASSWORD": url.password or "",
            "HOST": url.hostname,
            "PORT": str(url.port),
        }
        connections["default"] = connection
        try:
            with connection.schema_editor() as editor:
                editor.create_model(db._session_model())
            store = db.SessionStore()
            store["a"] = 1
            store.save()
            key = store.session_key
            server.kill()
            for make, step in steps(db.SessionStore, key):
                lost = make()
                with pytest.raises((django.db.OperationalError, django.db.InterfaceError)):
                    step(lost)
                assert lost.outage is not None
                assert lost.session_key == key
        finally:
            with contextlib.suppress(django.db.Error):
                connection.close()
            connections["default"] = own

"""The engines behind real servers: forks, reloads, clients that leave, a database that dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
import site_server
from django.contrib.sessions.backends.base import SessionBase
from site_server import Site, content, new_session, running

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not hasattr(SessionBase, "aget"), reason="the views await the session, as from 5.1 on"
    ),
]

WORKERS = 6


def url() -> str:
    found = os.environ.get("TEST_POSTGRES_URL", "")
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail("TEST_POSTGRES_URL is not set")
        pytest.skip("TEST_POSTGRES_URL is not set")
    return found


@pytest.fixture
def database() -> dict:
    return site_server.database_of(url())


def prepared(engine: str, database: dict, **others: object) -> tuple[dict, str]:
    settings = site_server.settings_of(engine, database, **others)
    site_server.script(settings, site_server.MIGRATE)
    return settings, new_session(settings)


class Load:
    """Clients that count in one session, each a name of its own, until they are told to stop."""

    def __init__(self, site: Site, key: str) -> None:
        self.site, self.key = site, key
        self.answered: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.cookies: list[str] = []
        self.stopped = threading.Event()
        self.threads = [
            threading.Thread(target=self.count, args=(f"worker{number}",))
            for number in range(WORKERS)
        ]

    def count(self, name: str) -> None:
        while not self.stopped.is_set():
            try:
                status, _, cookie = self.site.ask(f"/write/{name}", self.key)
            except OSError:
                # Perhaps it was done, perhaps not.
                self.unknown[name] += 1
                time.sleep(0.05)
                continue
            self.statuses[status] += 1
            if status == 200:
                self.answered[name] += 1
            else:
                self.unknown[name] += 1
                self.cookies.extend(filter(None, [cookie]))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def wait(self, for_what: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not for_what():
            assert time.monotonic() < end, f"{self.statuses} {self.unknown}"
            time.sleep(0.02)

    def some(self, more: int = 60) -> None:
        """Let so many more be answered."""
        before = self.answered.total()
        self.wait(lambda: self.answered.total() >= before + more)

    def check(self, settings: dict) -> None:
        """Nothing that was answered is lost, and nobody was logged out."""
        found = content(settings, self.key)
        assert found.pop("kept") == 1
        for name, count in found.items():
            assert self.answered[name] <= count <= self.answered[name] + self.unknown[name], name
        assert found.keys() >= self.answered.keys()
        assert self.cookies == []


@pytest.mark.parametrize("engine", ["db", "native"])
@pytest.mark.parametrize(
    "server", ["gunicorn", "gthread", "uvicorn", "uvicorn workers", "uvicorn uvloop", "daphne"]
)
def test_parallel_requests_lose_nothing(server, engine, database):
    settings, key = prepared(engine, database)
    with running(server, settings) as site, Load(site, key) as load:
        load.some(200)
    assert set(load.statuses) == {200}
    load.check(settings)


@pytest.mark.parametrize("engine", ["db", "native"])
def test_a_reload_under_load_loses_nothing(engine, database):
    """gunicorn replaces its workers, which were forked from a process that has loaded the site."""
    settings, key = prepared(engine, database)
    with running("gunicorn", settings) as site, Load(site, key) as load:
        for _ in range(3):
            load.some()
            site.process.send_signal(signal.SIGHUP)
        load.some(100)
    assert set(load.statuses) == {200}
    load.check(settings)


@pytest.mark.parametrize("server", ["uvicorn", "uvicorn uvloop", "daphne", "gthread"])
def test_clients_that_leave_disturb_nobody(server, database):
    settings, key = prepared("native", database)
    left = new_session(settings)
    with running(server, settings) as site, Load(site, key) as load:
        for number in range(150):
            site.ask_and_leave(f"/{'write' if number % 2 else 'read'}/gone", left)
        load.some(100)
        assert site.ask("/read/kept", left)[:2] == (200, "1")
    assert set(load.statuses) == {200}
    load.check(settings)


@pytest.mark.parametrize("server", ["uvicorn", "uvicorn uvloop", "gthread"])
def test_one_connection_is_enough(server, database):
    settings, key = prepared("native", database)
    name = {"USER": "", "PASSWORD": "", **database}
    address = (
        f"postgres://{name['USER']}:{name['PASSWORD']}@{name['HOST']}:{name['PORT']}/{name['NAME']}"
    )
    settings["SESSION_STORE_URL"] = f"{address}?max_connections=1&acquire_timeout=20"
    with running(server, settings) as site, Load(site, key) as load:
        load.some(200)
    assert set(load.statuses) == {200}
    load.check(settings)


@pytest.mark.parametrize(
    ("server", "engine"),
    [
        ("uvicorn", "native"),
        ("uvicorn uvloop", "native"),
        ("gthread", "native"),
        ("gthread", "db"),
        ("uvicorn", "db"),
    ],
)
def test_a_database_that_is_killed_and_started_again_ends_no_session(server, engine):
    with site_server.own_postgres() as postgres:
        database = site_server.database_of(postgres.url)
        settings, key = prepared(engine, database)
        with running(server, settings) as site, Load(site, key) as load:
            load.some()
            postgres.kill()
            load.wait(lambda: load.statuses[503] >= 3)
            postgres.start()
            load.some(100)
        assert set(load.statuses) == {200, 503}
        print(load.statuses, load.unknown.total())
        load.check(settings)

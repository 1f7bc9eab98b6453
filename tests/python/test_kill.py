"""SIGKILL, in the middle of writing: a session is its old self or its new self, never neither.

A visitor adds to the cart as fast as the server answers, until the server is killed at a random
moment. Each addition that was answered must be in the row; the one under way may or may not be.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import run  # examples/shared_login/run.py
from django.contrib.sessions.serializers import JSONSerializer
from django.core import signing
from visitor import Visitor

pytestmark = pytest.mark.timeout(600)  # the first test may wait for cargo

KILLS = 25
SKUS = ("kettle", "teapot", "tin", "cup", "honey", "glass")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[run.Demo]:
    demo = run.Demo(tmp_path_factory.mktemp("kill"))
    demo.prepare()
    with demo.running():
        yield demo


@pytest.mark.parametrize("name", ["django", "rust"])
def test_killed_server_leaves_each_session_whole(demo: run.Demo, name: str) -> None:
    victim, survivor = demo.django, demo.rust
    if name == "rust":
        victim, survivor = survivor, victim
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    visitor = Visitor()
    visitor.log_in(demo.django.url, *run.account())
    answered = 0
    for _ in range(KILLS):
        visitor.post(survivor.url, "/cart/empty")
        before, after = add_until_killed(visitor, victim, chance)
        answered += sum(before.values())

        session = stored_session(demo, visitor.cookies["sessionid"])
        assert session["_auth_user_id"]
        assert session["cart"] in (before, after)

        assert visitor.get(survivor.url).cart == session["cart"]
        victim.start()
        page = visitor.get(victim.url)
        assert page.cart == session["cart"]
        assert page.who == "ada"
    assert answered > KILLS


def add_until_killed(
    visitor: Visitor, victim: run.Server, chance: random.Random
) -> tuple[Counter[str], Counter[str]]:
    """The cart as it was last confirmed, and as the request cut short would leave it."""
    process = victim.process
    assert process is not None
    visitor.post(victim.url, "/cart/add", sku=SKUS[0])
    before = after = Counter({SKUS[0]: 1})
    delay = chance.uniform(0.0, 0.25)
    killer = threading.Timer(delay, process.send_signal, [signal.SIGKILL])
    killer.start()
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        while True:
            sku = chance.choice(SKUS)
            after = before + Counter({sku: 1})
            visitor.post(victim.url, "/cart/add", sku=sku)
            before = after
    killer.join()
    victim.kill()  # dead already: this only collects it
    assert process.returncode == -signal.SIGKILL
    return before, after


def stored_session(demo: run.Demo, session_key: str) -> dict[str, Any]:
    """The row as Django decodes it, from a database that is whole."""
    with contextlib.closing(sqlite3.connect(demo.database)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = database.execute(
            "SELECT session_data FROM django_session WHERE session_key = ?", [session_key]
        ).fetchall()
    ((text,),) = rows
    decoded: dict[str, Any] = signing.loads(
        text,
        key=demo.secret_key,
        salt="django.contrib.sessions.SessionStore",
        serializer=JSONSerializer,
        fallback_keys=[],
    )
    return decoded

"""The command on stores that are no table of sessions: files, a Redis Cluster, caches."""

from __future__ import annotations

import json
import os
import pickle
import re
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import operations
import pytest
from django.contrib.sessions.backends import file as django_file
from django.core.cache.backends.memcached import PyMemcacheCache
from django.test import override_settings
from operations import (
    NEW,
    OLD,
    CacheTable,
    Command,
    Contents,
    Files,
    Redis,
    Table,
    assert_same,
)

from django_session_rs import SessionCodec
from django_session_rs.backends import file

pytestmark = pytest.mark.timeout(900)  # the first test may wait for cargo

ROWS = 3_000
#: A site that has changed its key.
TOMORROW = {
    "SECRET_KEY": "the key of tomorrow",
    "SECRET_KEY_FALLBACKS": json.dumps([NEW, *OLD]),
}


@pytest.fixture(scope="module")
def command() -> Command:
    return Command(operations.built())


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with operations.table("sqlite", tmp_path) as made:
        made.fill(ROWS)
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Table]:
    with operations.table("sqlite", tmp_path) as made:
        made.fill(0)
        yield made


@pytest.fixture
def files(command: Command, table: Table, tmp_path: Path) -> Files:
    """Every session of the table."""
    made = Files(tmp_path / "sessions")
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": made.url}
    done = command.json("migrate", "--include-expired", "--verify", **urls)
    assert done["created"] == done["verified"]["equal"] == ROWS
    return made


@pytest.fixture
def cluster(command: Command, table: Table) -> Iterator[Redis]:
    """Every live session of the table, on three servers."""
    made = Redis("TEST_REDIS_CLUSTER_URL")
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": made.url}
    done = command.json("migrate", "--verify", **urls)
    assert done["created"] == done["verified"]["equal"] == len(table.live())
    yield made
    made.clear()


def users_of(contents: Contents) -> Counter[str | None]:
    return Counter(data.get("_auth_user_id") for data, _ in contents.values())


# Files


def test_sessions_move_to_files_and_back(
    command: Command, table: Table, files: Files, empty: Table
) -> None:
    assert_same(table.contents(), files.contents())
    for name in files.directory.iterdir():
        assert name.stat().st_mode & 0o777 == 0o600
    # What is there already is the same.
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": files.url}
    again = command.json("migrate", "--include-expired", **urls)
    assert (again["created"], again["same"]) == (0, ROWS)
    urls = {"FROM_SESSION_STORE_URL": files.url, "TO_SESSION_STORE_URL": empty.url}
    done = command.json("migrate", "--include-expired", "--verify", **urls)
    assert done["created"] == done["verified"]["equal"] == ROWS
    assert_same(table.contents(), empty.contents())


def test_django_reads_the_files(command: Command, table: Table, files: Files) -> None:
    command.json("convert", SESSION_STORE_URL=files.url, USERS_DATABASE_URL=table.url)
    contents = files.contents()
    live = {key: contents[key] for key in table.live()}
    with override_settings(SECRET_KEY=NEW, SESSION_FILE_PATH=str(files.directory)):
        for key, (data, _) in live.items():
            session = django_file.SessionStore(key)
            assert session.load() == data
            assert session.session_key == key


def test_files_are_counted_listed_and_ended(command: Command, files: Files) -> None:
    (files.directory / "sessionidnotasession").write_text("hunter2")
    (files.directory / "sessionidjustbeingmade").touch()
    (files.directory / "another file").write_text("of somebody else")
    (files.directory / "sessionidadangl1nglink").symlink_to(files.directory / "nowhere")
    stats = command.json("stats", SESSION_STORE_URL=files.url)
    assert stats["sessions"] == ROWS + 1
    assert sum(stats["unreadable"].values()) == 1
    (files.directory / "sessionidnotasession").unlink()
    (files.directory / "sessionidjustbeingmade").unlink()
    (files.directory / "sessionidadangl1nglink").unlink()
    done = command.run("list", "--json", SESSION_STORE_URL=files.url)
    listed = [json.loads(line) for line in done.stdout.splitlines()]
    assert stats["live"] - 1 <= len(listed) <= stats["live"]
    users = Counter(found["user"] for found in listed)
    user, count = next((user, count) for user, count in users.most_common() if user)
    ended = command.json("revoke", "--user", user, "--yes", SESSION_STORE_URL=files.url)
    assert ended["revoked"] == count
    assert len(files.texts()) == ROWS - count
    assert (files.directory / "another file").exists()


def test_expired_files_are_cleared(command: Command, table: Table, files: Files) -> None:
    live = table.live()
    texts = files.texts()
    looked = command.json("clear-expired", "--dry-run", SESSION_STORE_URL=files.url)
    assert looked["expired"] == ROWS - len(live)
    assert files.texts() == texts
    done = command.json("clear-expired", SESSION_STORE_URL=files.url)
    assert done["complete"]
    assert done["expired"] == ROWS - len(live)
    assert_same(live, files.contents())
    empty = command.json("clear-expired", "--empty", SESSION_STORE_URL=files.url)
    assert (empty["expired"], empty["empty"]) == (0, sum(not data for data, _ in live.values()))
    assert_same({key: found for key, found in live.items() if found[0]}, files.contents())


def test_files_are_signed_anew_and_keep_their_dates(
    command: Command, table: Table, files: Files
) -> None:
    before, live = files.contents(), table.live()
    urls = {"SESSION_STORE_URL": files.url, "USERS_DATABASE_URL": table.url}
    done = command.json("rotate", **urls, **TOMORROW)
    assert done["complete"]
    assert done["signed_anew"] == len(live)
    assert done["logins_renewed"] > 0
    codec = SessionCodec(TOMORROW["SECRET_KEY"], accept=operations.EVERYTHING)
    texts = files.texts()
    for key in live:
        codec.decode(texts[key])
    fallbacks = [NEW, *OLD]
    codec = SessionCodec(TOMORROW["SECRET_KEY"], fallbacks=fallbacks, accept=operations.EVERYTHING)
    after = files.contents(codec)
    assert after.keys() == before.keys()
    for key, (data, date) in before.items():
        found, end = after[key]
        assert abs((end - date).total_seconds()) < 0.001
        renewed = {"_auth_user_hash"} if "_auth_user_id" in data else set()
        assert {name for name in data if data[name] != found[name]} <= renewed
        assert list(found) == list(data)
    again = command.json("rotate", **urls, **TOMORROW)
    assert (again["signed_anew"], again["logins_renewed"], again["passes"]) == (0, 0, 1)


def test_nothing_that_a_site_saves_during_a_rotation_is_lost(
    command: Command, table: Table, files: Files
) -> None:
    """A site with the new key saves sessions in files all the time."""
    names = list(table.live())[:20]
    stop = threading.Event()
    saved: Counter[str] = Counter()
    failures: list[Exception] = []
    command.json("convert", "--without-users", SESSION_STORE_URL=files.url)

    def save(mine: list[str]) -> None:
        try:
            while not stop.is_set():
                for key in mine:
                    session = file.SessionStore(key)
                    session["count"] = saved[key] = saved[key] + 1
                    session.save()
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    keys = {"SECRET_KEY": TOMORROW["SECRET_KEY"], "SECRET_KEY_FALLBACKS": [NEW, *OLD]}
    urls = {"SESSION_STORE_URL": files.url, "USERS_DATABASE_URL": table.url}
    with override_settings(SESSION_FILE_PATH=str(files.directory), **keys):
        savers = [threading.Thread(target=save, args=[names[part::2]]) for part in range(2)]
        for saver in savers:
            saver.start()
        try:
            for rotation in range(50):
                if rotation >= 3 and len(saved) == len(names) and min(saved.values()) > 1:
                    break
                process = command.start("rotate", "--json", "--quiet", **urls, **TOMORROW)
                process.communicate(timeout=300)
                assert process.returncode in (0, 7)
        finally:
            stop.set()
            for saver in savers:
                saver.join()
        assert not failures, failures
        assert min(saved.values()) > 1
        assert {key: file.SessionStore(key)["count"] for key in names} == dict(saved)


def test_a_disk_that_is_full_loses_no_file(command: Command, table: Table, tmp_path: Path) -> None:
    made = Files(tmp_path / "full")
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": made.url}
    limited = command.with_file_size(2_000)
    limited.run("migrate", "--include-expired", code=6, **urls)
    assert all(len(text) <= 2_000 for text in made.texts().values())
    done = command.json("migrate", "--include-expired", "--verify", **urls)
    assert done["verified"] == {"equal": ROWS, "different": 0, "missing": 0}


def test_a_key_that_no_file_can_have_is_reported(
    command: Command, table: Table, tmp_path: Path
) -> None:
    key = next(iter(table.live()))
    table.execute(
        "UPDATE django_session SET session_key = %s WHERE session_key = %s", "UPPER/lower", key
    )
    made = Files(tmp_path / "sessions")
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": made.url}
    done = command.json("migrate", code=7, **urls)
    assert done["created"] == len(table.live()) - 1
    assert sum(done["rejected"].values()) == 1


def test_a_file_that_is_no_session_keeps_no_other_from_being_copied(
    command: Command, table: Table, files: Files
) -> None:
    live = table.live()
    first, second = list(live)[:2]
    large, empty = (files.directory / f"sessionid{key}" for key in (first, second))
    with large.open("wb") as file:
        file.truncate(1 << 30)
    empty.write_bytes(b"")
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": files.url}
    done = command.json("migrate", **urls)
    assert (done["same"], done["kept"]) == (len(live) - 2, 2)
    done = command.json("migrate", "--on-conflict", "replace", code=7, **urls)
    assert (done["same"], done["kept"], done["replaced"]) == (len(live) - 2, 0, 1)
    assert sum(done["rejected"].values()) == 1
    assert large.stat().st_size == 1 << 30
    large.unlink()
    empty.unlink()
    assert command.json("migrate", **urls)["created"] == 2


# Redis Cluster


def test_sessions_move_to_a_cluster_and_back(
    command: Command, table: Table, cluster: Redis, empty: Table
) -> None:
    live = table.live()
    assert_same(live, cluster.contents())
    urls = {"FROM_SESSION_STORE_URL": cluster.url, "TO_SESSION_STORE_URL": empty.url}
    done = command.json("migrate", "--verify", **urls)
    assert done["created"] == done["verified"]["equal"] == len(live)
    assert_same(live, empty.contents())


def test_sessions_of_a_cluster_are_counted_and_ended(
    command: Command, table: Table, cluster: Redis
) -> None:
    live = table.live()
    stats = command.json("stats", SESSION_STORE_URL=cluster.url)
    assert stats["live"] == len(live)
    user, count = next((user, n) for user, n in users_of(live).most_common() if user)
    ended = command.json("revoke", "--user", user, "--yes", SESSION_STORE_URL=cluster.url)
    assert ended["revoked"] == count
    assert users_of(cluster.contents())[user] == 0
    urls = {"SESSION_STORE_URL": cluster.url, "USERS_DATABASE_URL": table.url}
    done = command.json("rotate", **urls)
    assert done["logins_renewed"] > 0
    again = command.json("rotate", **urls)
    assert (again["logins_renewed"], again["passes"]) == (0, 1)


def killed(command: Command, checkpoint: Path, rate: int, noted: str, **urls: str) -> None:
    """Kill a migration as soon as it has noted how far it is."""
    arguments = ["migrate", "--quiet", "--checkpoint", str(checkpoint), "--rate", str(rate)]
    process = command.start(*arguments, **urls)
    while process.poll() is None:
        if checkpoint.exists() and re.search(noted, checkpoint.read_text()):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert re.search(noted, checkpoint.read_text())


def test_a_migration_out_of_a_cluster_goes_on_after_being_killed(
    command: Command, table: Table, cluster: Redis, empty: Table, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    urls = {"FROM_SESSION_STORE_URL": cluster.url, "TO_SESSION_STORE_URL": empty.url}
    killed(command, checkpoint, 100, "cursor", **urls)
    done = command.json("migrate", "--checkpoint", str(checkpoint), "--verify", **urls)
    assert done["complete"]
    assert done["resumed"]
    assert_same(table.live(), empty.contents())


def test_a_server_that_was_started_again_is_read_from_the_beginning(
    command: Command, empty: Table, tmp_path: Path
) -> None:
    """Where it was means nothing to another server than the one that said so."""
    checkpoint, redis = tmp_path / "checkpoint", Redis()
    try:
        with operations.table("sqlite", tmp_path) as table:
            table.fill(20 * ROWS)
            urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": redis.url}
            command.json("migrate", **urls)
            urls = {"FROM_SESSION_STORE_URL": redis.url, "TO_SESSION_STORE_URL": empty.url}
            killed(command, checkpoint, 1000, r"cursor 0 [1-9]", **urls)
            noted = checkpoint.read_text()
            # Near the end, if it were the same server.
            other, count = re.subn(r"cursor 0 \d+ \w+", f"cursor 0 8191 {'f' * 40}", noted)
            assert count == 1, noted
            checkpoint.write_text(other)
            done = command.json("migrate", "--checkpoint", str(checkpoint), **urls)
            assert done["resumed"]
            assert_same(table.live(), empty.contents())
    finally:
        redis.clear()


# The table of a DatabaseCache


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def cached(
    request: pytest.FixtureRequest, command: Command, table: Table, tmp_path: Path
) -> Iterator[CacheTable]:
    """Every live session of the table, among other entries."""
    with operations.table(request.param, tmp_path) as database:
        made = CacheTable(database)
        prefix = ":1:django.contrib.sessions.cache"
        insert = "INSERT INTO sessions_cache VALUES (%s, 'x', '2100-01-01 00:00:00')"
        for key in [":1:something", f"{prefix}d_db{'k' * 32}", f"{prefix.upper()}{'k' * 32}"]:
            database.execute(insert, key)
        urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": made.url}
        done = command.json("migrate", "--verify", **urls)
        assert done["created"] == done["verified"]["equal"] == len(table.live())
        yield made
        others = "SELECT count(*) FROM sessions_cache WHERE value = 'x'"
        assert database.execute(others) == [(3,)]


def test_sessions_move_to_a_database_cache_and_back(
    command: Command, table: Table, cached: CacheTable, empty: Table
) -> None:
    live = table.live()
    found = {key: it for key, it in cached.contents().items() if key.islower()}
    assert_same(live, found)
    again = command.json(
        "migrate", FROM_SESSION_STORE_URL=table.url, TO_SESSION_STORE_URL=cached.url
    )
    assert (again["created"], again["same"]) == (0, len(live))
    urls = {"FROM_SESSION_STORE_URL": cached.url, "TO_SESSION_STORE_URL": empty.url}
    done = command.json("migrate", "--verify", **urls)
    assert done["created"] == done["verified"]["equal"] == len(live)
    assert_same(live, empty.contents())


def test_sessions_of_a_database_cache_are_counted_and_ended(
    command: Command, table: Table, cached: CacheTable
) -> None:
    live = table.live()
    stats = command.json("stats", SESSION_STORE_URL=cached.url)
    assert (stats["sessions"], stats["live"]) == (len(live), len(live))
    user, count = next((user, n) for user, n in users_of(live).most_common() if user)
    ended = command.json("revoke", "--user", user, "--yes", SESSION_STORE_URL=cached.url)
    assert ended["revoked"] == count
    assert users_of(cached.contents())[user] == 0
    ends = {key: end for key, (_, end) in cached.contents().items()}
    urls = {"SESSION_STORE_URL": cached.url, "USERS_DATABASE_URL": table.url}
    done = command.json("rotate", **urls)
    assert done["logins_renewed"] > 0
    for key, (_, end) in cached.contents().items():
        assert abs((end - ends[key]).total_seconds()) < 2
    again = command.json("rotate", **urls)
    assert (again["logins_renewed"], again["passes"]) == (0, 1)
    empty = command.json("clear-expired", "--empty", SESSION_STORE_URL=cached.url)
    assert empty["empty"] == sum(not data for data, _ in live.values())


# memcached, which takes sessions and cannot list them


def test_sessions_move_to_memcached(command: Command, table: Table) -> None:
    prefix, live = secrets.token_hex(4), table.live()
    base = os.environ["TEST_MEMCACHED_URL"]
    url = f"{base}{'&' if '?' in base else '?'}prefix={prefix}"
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": url}
    assert command.json("migrate", "--dry-run", **urls)["created"] == len(live)
    done = command.json("migrate", "--verify", **urls)
    assert done["created"] == done["verified"]["equal"] == len(live)
    server = base.removeprefix("memcached://").partition("?")[0]
    cache = PyMemcacheCache(server, {"KEY_PREFIX": prefix})
    for key, (data, _) in live.items():
        found = cache.get(f"django.contrib.sessions.cache{key}")
        assert repr(found) == repr(data)
    key, (data, _) = next((key, it) for key, it in live.items() if it[0])
    table.execute("DELETE FROM django_session WHERE session_key <> %s", key)
    name = f"django.contrib.sessions.cache{key}"
    cache.set(name, data | {"more": 1}, 600)
    assert command.json("migrate", **urls)["kept"] == 1
    assert cache.get(name) == data | {"more": 1}
    assert command.json("migrate", "--on-conflict", "replace", **urls)["replaced"] == 1
    assert cache.get(name) == data
    cache.close()
    for verb in ("stats", "list"):
        refused = command.run(verb, code=6, SESSION_STORE_URL=url)
        assert "does not support listing sessions" in refused.stderr


# A table with copies in a cache


@pytest.fixture
def copies() -> Iterator[Redis]:
    made = Redis()
    yield made
    made.clear()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mysql"])
def test_whatever_is_changed_goes_from_the_cache(
    command: Command, table: Table, copies: Redis, tmp_path: Path, kind: str
) -> None:
    start = f"{copies.prefix}:1:django.contrib.sessions.cached_db"
    live = table.live()

    def remember() -> None:
        """The copies that a site makes as soon as it reads the sessions."""
        for key, (data, _) in target.contents().items():
            copies.client.set(f"{start}{key}", pickle.dumps(data), ex=600)

    def remembered() -> set[str]:
        names = copies.client.scan_iter(match=f"{start}*", count=1000)
        return {name.decode().removeprefix(start) for name in names}

    with operations.table(kind, tmp_path) as target:
        target.fill(0)
        between = "&" if "?" in target.url else "?"
        url = f"{target.url}{between}cache_url={quote(copies.url, safe='')}"
        urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": url}
        assert command.json("migrate", "--verify", **urls)["verified"]["equal"] == len(live)
        remember()
        user, count = next((user, n) for user, n in users_of(live).most_common() if user)
        store = {"SESSION_STORE_URL": url, "USERS_DATABASE_URL": table.url}
        mine = {key for key, (data, _) in live.items() if data.get("_auth_user_id") == user}
        done = command.json("revoke", "--user", user, "--yes", SESSION_STORE_URL=url)
        assert done["revoked"] == count
        assert remembered() == live.keys() - mine
        done = command.json("rotate", **store, **TOMORROW)
        assert done["signed_anew"] == len(live) - count
        assert remembered() == set()
        # Sessions that the source has otherwise by now replace those of the target.
        keys = {
            "SECRET_KEY": NEW,
            "SECRET_KEY_FALLBACKS": json.dumps([TOMORROW["SECRET_KEY"], *OLD]),
        }
        key = next(key for key in live if key not in mine)
        text = SessionCodec(NEW).encode({"other": 1})
        table.execute(
            "UPDATE django_session SET session_data = %s WHERE session_key = %s", text, key
        )
        table.execute("DELETE FROM django_session WHERE session_key <> %s", key)
        copies.client.set(f"{start}{key}", pickle.dumps(live[key][0]), ex=600)
        done = command.json("migrate", "--on-conflict", "replace", **urls, **keys)
        assert done["replaced"] == 1
        assert remembered() == set()
        found = target.execute(
            "SELECT session_data FROM django_session WHERE session_key = %s", key
        )
        assert SessionCodec(NEW).decode(found[0][0]) == {"other": 1}

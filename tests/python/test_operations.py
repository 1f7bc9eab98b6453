"""The command about whole stores, against what Python finds in them.

The stores hold what ``benches/session_rows.py`` makes: four forms, three keys, most of it expired.
"""

from __future__ import annotations

import json
import pickle
import random
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import operations
import pytest
import session_rows
from django.core import signing
from django.utils.crypto import salted_hmac
from operations import NEW, OLD, CacheTable, Command, Contents, Redis, Table, assert_same

from django_session_rs import SessionCodec

pytestmark = pytest.mark.timeout(900)  # the first test may wait for cargo

ROWS = 3_000
KINDS = ["sqlite", "postgres", "mysql"]
SALT = "django.contrib.sessions.SessionStore"
HASH_SALT = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"


@pytest.fixture(scope="module")
def command() -> Command:
    return Command(operations.built())


@pytest.fixture
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    with operations.table(request.param, tmp_path) as made:
        made.fill(ROWS)
        yield made


@pytest.fixture
def redis() -> Iterator[Redis]:
    cache = Redis()
    yield cache
    cache.clear()


every = pytest.mark.parametrize("table", KINDS, indirect=True)
sqlite = pytest.mark.parametrize("table", ["sqlite"], indirect=True)


def is_user(data: dict[str, Any]) -> bool:
    return "_auth_user_id" in data


# Looking


@every
def test_sessions_are_counted(command: Command, table: Table) -> None:
    contents, live = table.contents(), table.live()
    stats = command.json("stats", SESSION_STORE_URL=table.url)
    assert stats["complete"]
    assert stats["sessions"] == ROWS
    assert stats["live"] == len(live) == ROWS // 10
    users = Counter(data["_auth_user_id"] for data, _ in live.values() if is_user(data))
    assert stats["users"] == len(users)
    assert stats["live_anonymous"] == len(live) - sum(users.values())
    assert stats["live_empty"] == sum(not data for data, _ in live.values())
    for found in stats["top_users"]:
        assert users[found["user"]] == found["sessions"]
    assert stats["bytes"] == sum(len(text) for text, _ in table.texts().values())
    assert sum(stats["formats"].values()) == sum(stats["keys"].values()) == len(contents)
    legacy = sum(":" not in text for text, _ in table.texts().values())
    assert stats["formats"]["legacy"] == legacy
    assert set(stats["keys"]) == {
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS[0]",
        "SECRET_KEY_FALLBACKS[1]",
    }
    assert sum(size["sessions"] for size in stats["sizes"]) == ROWS
    text = command.run("stats", "--quiet", SESSION_STORE_URL=table.url).stdout
    assert "3,000" in text
    assert "90.0 %" in text


@every
def test_unreadable_rows_are_counted_with_their_reasons(command: Command, table: Table) -> None:
    keys = sorted(table.texts())[:3]
    for key, text in zip(keys, ["no session", "e30:1r31eq:AAAA", "\N{SNOWMAN}"], strict=True):
        table.execute(
            "UPDATE django_session SET session_data = %s WHERE session_key = %s", text, key
        )
    stats = command.json("stats", SESSION_STORE_URL=table.url)
    assert stats["sessions"] == ROWS
    assert sum(stats["unreadable"].values()) == 3


@every
def test_sessions_are_listed_without_their_keys(command: Command, table: Table) -> None:
    live = table.live()
    done = command.run("list", "--json", SESSION_STORE_URL=table.url)
    listed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(listed) == len({found["session"] for found in listed}) == len(live)
    assert not any(key in done.stdout for key in live)
    assert Counter(found["user"] for found in listed) == Counter(
        data.get("_auth_user_id") for data, _ in live.values()
    )
    user = next(data["_auth_user_id"] for data, _ in live.values() if is_user(data))
    done = command.run("list", "--user", user, "--keys", "--json", SESSION_STORE_URL=table.url)
    keys = {json.loads(line)["session_key"] for line in done.stdout.splitlines()}
    assert keys == {key for key, (data, _) in live.items() if data.get("_auth_user_id") == user}


@every
def test_a_session_is_shown_by_handle_and_by_key(command: Command, table: Table) -> None:
    done = command.run("list", "--keys", "--json", SESSION_STORE_URL=table.url)
    found = json.loads(done.stdout.splitlines()[5])
    shown = command.json("show", found["session"], SESSION_STORE_URL=table.url)
    again = command.run(
        "show", "--json", given=found["session_key"] + "\n", SESSION_STORE_URL=table.url
    )
    assert json.loads(again.stdout)["data"] == shown["data"]
    data, _ = table.contents()[found["session_key"]]
    assert shown["data"] == json.loads(json.dumps(data))
    missing = command.run("show", "0123456789abcdef", code=4, SESSION_STORE_URL=table.url)
    assert "there is no such session" in missing.stderr


# Cleaning and revoking


@every
def test_only_what_has_expired_is_cleared(command: Command, table: Table) -> None:
    live = table.live()
    looked = command.json("clear-expired", "--dry-run", SESSION_STORE_URL=table.url)
    assert looked["expired"] == ROWS - len(live)
    assert len(table.texts()) == ROWS
    done = command.json("clear-expired", "--batch", "100", SESSION_STORE_URL=table.url)
    assert done["complete"]
    assert done["expired"] == ROWS - len(live)
    assert table.contents() == live
    empty = command.json("clear-expired", "--empty", SESSION_STORE_URL=table.url)
    assert (empty["expired"], empty["empty"]) == (0, sum(not data for data, _ in live.values()))
    assert table.contents() == {key: found for key, found in live.items() if found[0]}


@every
def test_entries_of_a_database_cache_are_cleared(command: Command, table: Table) -> None:
    url = CacheTable(table).url
    now = datetime.now(UTC).replace(microsecond=0)
    insert = "INSERT INTO sessions_cache VALUES (%s, %s, %s)"
    with table.connected() as execute:
        for number in range(60):
            end = now + timedelta(hours=1 if number < 10 else -number)
            execute(insert, f":1:entry{number}", "gASVAgAA", end.strftime("%Y-%m-%d %H:%M:%S"))
    looked = command.json("clear-expired", "--dry-run", SESSION_STORE_URL=url)
    assert looked["expired"] == 50
    done = command.json("clear-expired", "--batch", "7", SESSION_STORE_URL=url)
    assert (done["complete"], done["expired"]) == (True, 50)
    left = {key for (key,) in table.execute("SELECT cache_key FROM sessions_cache")}
    assert left == {f":1:entry{number}" for number in range(10)}
    assert len(table.texts()) == ROWS
    # Whatever they are, they are no sessions.
    assert command.json("clear-expired", "--empty", SESSION_STORE_URL=url)["empty"] == 0
    assert command.json("stats", SESSION_STORE_URL=url)["sessions"] == 0
    assert len(table.execute("SELECT cache_key FROM sessions_cache")) == 10


@every
def test_equal_dates_do_not_end_a_batch_early(command: Command, table: Table) -> None:
    date = datetime(2020, 1, 1, tzinfo=UTC)
    shown = date.strftime("%Y-%m-%d %H:%M:%S.%f")
    table.execute("UPDATE django_session SET expire_date = %s", shown)
    done = command.json("clear-expired", "--batch", "7", SESSION_STORE_URL=table.url)
    assert done["expired"] == ROWS
    assert not table.texts()


@every
def test_sessions_of_a_user_end(command: Command, table: Table) -> None:
    live = table.live()
    users = Counter(data["_auth_user_id"] for data, _ in live.values() if is_user(data))
    user, count = users.most_common(1)[0]
    refused = command.run("revoke", "--user", user, code=2, SESSION_STORE_URL=table.url)
    assert "--yes" in refused.stderr
    for arguments in (["--all", "--user", user], ["--except", "0123456789abcdef"], []):
        command.run("revoke", "--yes", *arguments, code=2, SESSION_STORE_URL=table.url)
    looked = command.json("revoke", "--user", user, "--dry-run", SESSION_STORE_URL=table.url)
    assert looked["revoked"] == count
    assert len(table.texts()) == ROWS
    listed = command.run("list", "--user", user, "--json", SESSION_STORE_URL=table.url)
    kept = json.loads(listed.stdout.splitlines()[0])["session"]
    done = command.json(
        "revoke", "--user", user, "--except", kept, "--yes", SESSION_STORE_URL=table.url
    )
    assert done["revoked"] == count - 1
    left = Counter(data.get("_auth_user_id") for data, _ in table.live().values())
    assert left[user] == 1
    assert sum(left.values()) == len(live) - count + 1


@every
def test_what_an_old_key_signed_ends(command: Command, table: Table) -> None:
    stats = command.json("stats", "--live", SESSION_STORE_URL=table.url)
    done = command.json("revoke", "--fallback", "1", "--yes", SESSION_STORE_URL=table.url)
    assert done["revoked"] == stats["keys"]["SECRET_KEY_FALLBACKS[1]"]
    after = command.json("stats", "--live", SESSION_STORE_URL=table.url)
    assert set(after["keys"]) == {"SECRET_KEY", "SECRET_KEY_FALLBACKS[0]"}


# Rotating and converting


def django_reads(text: str) -> dict[str, Any]:
    """A session as Django reads it with the new key alone."""
    found: dict[str, Any] = signing.loads(text, key=NEW, salt=SALT)
    return found


@every
def test_every_session_is_signed_and_renewed_by_the_new_key(command: Command, table: Table) -> None:
    before, texts = table.live(), table.texts()
    looked = command.json("rotate", "--dry-run", SESSION_STORE_URL=table.url)
    assert table.texts() == texts
    done = command.json("rotate", SESSION_STORE_URL=table.url)
    assert done["complete"]
    assert (done["signed_anew"], done["logins_renewed"]) == (
        looked["signed_anew"],
        looked["logins_renewed"],
    )
    assert done["signed_anew"] > done["logins_renewed"] > 0
    assert_rotated(table, before, texts)
    after = table.texts()
    again = command.json("rotate", SESSION_STORE_URL=table.url)
    assert (again["signed_anew"], again["logins_renewed"], again["passes"]) == (0, 0, 1)
    assert table.texts() == after


def assert_rotated(table: Table, before: Contents, texts: dict[str, tuple[str, datetime]]) -> None:
    """Whoever was logged in is so by the new key, and nothing else has changed."""
    after = table.texts()
    assert after.keys() == texts.keys()
    for key, (text, date) in after.items():
        if key not in before:
            assert texts[key] == (text, date)
            continue
        data, _ = before[key]
        assert date == texts[key][1]
        if ":" in text and not _is_pickled(data, texts[key][0]):
            # The time at which it was signed stays.
            assert text.split(":")[-2] == texts[key][0].split(":")[-2]
            found = django_reads(text)
        else:
            found = SessionCodec(NEW, accept=operations.EVERYTHING).decode(text)
        if is_user(data):
            user = int(data["_auth_user_id"])
            password = session_rows.password(user)
            digest = salted_hmac(HASH_SALT, password, secret=NEW, algorithm="sha256").hexdigest()
            assert found["_auth_user_hash"] == digest
            data = data | {"_auth_user_hash": digest}
        assert found == data
        assert list(found) == list(data)


def _is_pickled(data: dict[str, Any], text: str) -> bool:
    payload = text.split(":", maxsplit=1)[0]
    try:
        return bool(signing.loads(text, key=NEW, fallback_keys=OLD, salt=SALT) != data)
    except Exception:  # noqa: BLE001 - whatever it is, it is not JSON
        return bool(payload)


@every
def test_a_login_that_had_ended_stays_so(command: Command, table: Table) -> None:
    ended = {key: data["_auth_user_id"] for key, (data, _) in table.live().items() if is_user(data)}
    user = next(iter(ended.values()))
    table.execute("UPDATE auth_user SET password = 'another' WHERE id = %s", int(user))
    keys = [key for key, it in ended.items() if it == user]
    before = table.contents()
    done = command.json("rotate", SESSION_STORE_URL=table.url)
    assert done["logins_ended"] >= len(keys)
    after = table.contents()
    for key in keys:
        assert after[key][0] == before[key][0]


@every
def test_nothing_that_is_saved_during_a_rotation_is_lost(command: Command, table: Table) -> None:
    """A site with the new key saves sessions all the time; its writes are there afterwards."""
    keys = [key for key, (data, _) in table.live().items() if is_user(data)][:40]
    stop = threading.Event()
    saved: Counter[str] = Counter()

    select = "SELECT session_data FROM django_session WHERE session_key = %s"
    update = "UPDATE django_session SET session_data = %s WHERE session_key = %s"

    def save(mine: list[str]) -> None:
        with table.connected() as execute:
            while not stop.is_set():
                for key in mine:
                    data = operations.CODEC.decode(execute(select, key)[0][0])
                    data["count"] = saved[key] = saved[key] + 1
                    text = signing.dumps(data, key=NEW, salt=SALT, compress=True)
                    execute(update, text, key)
                    # One who always comes back at once keeps SQLite to himself.
                    time.sleep(0.001)

    def are_many() -> bool:
        return len(saved) == len(keys) and min(saved.values()) > 1

    savers = [threading.Thread(target=save, args=[keys[part::2]]) for part in range(2)]
    for saver in savers:
        saver.start()
    try:
        for rotation in range(50):
            if rotation >= 4 and are_many():
                break
            # Who had read a session before it was rotated saves the old hash with it.
            arguments = ["rotate", "--rate", "500", "--json", "--quiet"]
            process = command.start(*arguments, SESSION_STORE_URL=table.url)
            process.communicate(timeout=300)
            assert process.returncode in (0, 7)
    finally:
        stop.set()
        for saver in savers:
            saver.join()
    contents = table.contents()
    assert are_many()
    assert {key: contents[key][0]["count"] for key in keys} == dict(saved)
    command.json("rotate", SESSION_STORE_URL=table.url)
    again = command.json("rotate", SESSION_STORE_URL=table.url)
    assert (again["signed_anew"], again["logins_renewed"]) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_goes_on_after_being_killed(command: Command, tmp_path: Path, kind: str) -> None:
    """kill -9 at random moments, twenty times: the next one does what is left."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with operations.table(kind, tmp_path) as table:
        table.fill(20 * ROWS)
        before, texts = table.live(), table.texts()
        kills = 0
        for _ in range(20):
            process = command.start("rotate", "--rate", "3000", SESSION_STORE_URL=table.url)
            try:
                process.wait(chance.uniform(0.05, 0.8))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.communicate()
        done = command.json("rotate", SESSION_STORE_URL=table.url)
        assert done["complete"]
        assert_rotated(table, before, texts)
    assert kills > 5


@every
def test_old_forms_and_pickles_become_what_the_site_reads(command: Command, table: Table) -> None:
    before = table.live()
    done = command.json("convert", SESSION_STORE_URL=table.url)
    assert done["complete"]
    assert done["converted"] > 0
    after = table.texts()
    for key, (data, _) in before.items():
        found = django_reads(after[key][0])
        assert {name: found[name] for name in found if name != "_auth_user_hash"} == {
            name: data[name] for name in data if name != "_auth_user_hash"
        }
    stats = command.json("stats", "--live", SESSION_STORE_URL=table.url)
    assert stats["formats"] == {"signed": len(before)}
    assert stats["serializers"] == {"json": len(before)}


@pytest.mark.parametrize("way", ["convert", "migrate"])
@sqlite
def test_objects_become_what_the_policy_says(
    command: Command, table: Table, tmp_path: Path, way: str
) -> None:
    """Type by type; what stays as it is and what is left out is told."""
    date = datetime(2031, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
    values: dict[str, tuple[Any, Any]] = {
        "tuple": ((1, ("a",)), [1, ["a"]]),
        "numbered": ({1: "one", None: "none"}, {"1": "one", "null": "none"}),
        "datetime": ({"at": [date]}, {"at": ["2031-02-03T04:05:06.000007+00:00"]}),
        "date": (date.date(), "2031-02-03"),
        "time": (date.time(), "04:05:06.000007"),
        "timedelta": (timedelta(days=1, seconds=2), "P1DT00H00M02S"),
        "decimal": (Decimal("1.10"), "1.10"),
        "uuid": (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        "set": ({5}, [5]),
        "deque": (deque([1, 2]), [1, 2]),
        "bytes": (b"\x00\xff", None),
        "other": (complex(1, 2), None),
    }
    end = datetime.now(UTC) + timedelta(days=1)
    insert = "INSERT INTO django_session VALUES (%s, %s, %s)"
    salt = "django.contrib.sessions.SessionStore"

    def store(key: str, data: dict[str, Any]) -> None:
        text = signing.TimestampSigner(key=NEW, salt=salt).sign_object(data, serializer=Pickled)
        table.execute(insert, key.ljust(32, "x"), text, end.strftime("%Y-%m-%d %H:%M:%S"))

    table.execute("DELETE FROM django_session")
    for name, (value, _) in values.items():
        store(name, {"first": 1, name: value, "last": 2})
    everything = {"SESSION_STORE_URL": table.url}
    if way == "migrate":
        target = Table(f"sqlite:{tmp_path}/target.sqlite3")
        target.fill(0)
        everything = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": target.url}
    else:
        target = table
    rejects = tmp_path / "rejects"
    policy = ["--objects", "json", "--objects", "bytes=drop", "--rejects", str(rejects)]
    if way == "migrate":
        policy.append("--verify")
    done = command.json(way, *policy, code=7, **everything)
    assert done["entries_dropped"] == {"a byte string": 1}
    assert done["rejected"] == {"a complex number cannot be stored in a JSON session": 1}
    assert len(rejects.read_text().splitlines()) == 1
    texts = target.texts()
    for name, (_, expected) in values.items():
        if name == "other":
            continue
        found = django_reads(texts[name.ljust(32, "x")][0])
        middle = {} if expected is None else {name: expected}
        assert list(found.items()) == list({"first": 1, **middle, "last": 2}.items())
    if way == "convert":
        kept = operations.CODEC.decode(texts["other".ljust(32, "x")][0])
        assert kept["other"] == complex(1, 2)
    command.run(way, "--objects", "other=json", code=2, **everything)


class Pickled:
    """Django's PickleSerializer, which is gone since 5.0."""

    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj, 4)


# Moving


PAIRS = [("sqlite", "postgres"), ("postgres", "mysql"), ("mysql", "sqlite")]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_sessions_move_between_databases(
    command: Command, tmp_path: Path, source: str, target: str
) -> None:
    with operations.table(source, tmp_path) as one, operations.table(target, tmp_path) as other:
        one.fill(ROWS)
        other.fill(0)
        urls = {"FROM_SESSION_STORE_URL": one.url, "TO_SESSION_STORE_URL": other.url}
        looked = command.json("migrate", "--include-expired", "--dry-run", **urls)
        assert looked["created"] == ROWS
        assert not other.texts()
        done = command.json("migrate", "--include-expired", "--verify", **urls)
        assert done["created"] == ROWS
        assert done["verified"] == {"equal": ROWS, "different": 0, "missing": 0}
        assert_same(one.contents(), other.contents())
        again = command.json("migrate", "--include-expired", **urls)
        assert (again["created"], again["same"]) == (0, ROWS)


@every
def test_sessions_move_to_redis_and_back(
    command: Command, table: Table, redis: Redis, tmp_path: Path
) -> None:
    live = table.live()
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": redis.url}
    done = command.json("migrate", "--verify", **urls)
    assert done["created"] == done["verified"]["equal"] == len(live)
    assert_same(live, redis.contents())
    with operations.table("sqlite", tmp_path) as back:
        back.fill(0)
        urls = {"FROM_SESSION_STORE_URL": redis.url, "TO_SESSION_STORE_URL": back.url}
        done = command.json("migrate", "--verify", **urls)
        assert done["created"] == done["verified"]["equal"] == len(live)
        assert_same(live, back.contents())


@sqlite
def test_conflicts_are_decided_as_asked(
    command: Command, table: Table, redis: Redis, tmp_path: Path
) -> None:
    live = table.live()
    key = next(key for key, (data, _) in live.items() if is_user(data))
    data, _ = live[key]
    with operations.table("sqlite", tmp_path) as other:
        other.fill(0)
        urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": other.url}
        shown = datetime.now(UTC).replace(microsecond=0).replace(year=2090)

        def put(stamp: int) -> None:
            text = signing.TimestampSigner(key=NEW, salt=SALT)
            text.timestamp = lambda: signing.b62_encode(stamp)  # type: ignore[method-assign]
            other.execute("DELETE FROM django_session")
            other.execute(
                "INSERT INTO django_session VALUES (%s, %s, %s)",
                key,
                text.sign_object({"theirs": 1, "cart": "theirs"}),
                shown.strftime("%Y-%m-%d %H:%M:%S"),
            )

        theirs = {"theirs": 1, "cart": "theirs"}
        old, new = 1_000_000_000, int(time.time()) + 1000
        for policy, stamp, expected in [
            ("keep", old, theirs),
            ("replace", new, data),
            ("newer", old, data),
            ("newer", new, theirs),
            ("merge", new, data | theirs),
            ("merge", old, theirs | data),
        ]:
            put(stamp)
            done = command.json("migrate", "--on-conflict", policy, **urls)
            assert done["created"] == len(live) - 1
            found = other.contents()[key][0]
            if policy in ("newer", "merge") and ":" not in table.texts()[key][0]:
                continue  # a form that does not say when it was signed
            assert found == expected, (policy, stamp)


@sqlite
def test_shards_together_are_everything(command: Command, table: Table, tmp_path: Path) -> None:
    with operations.table("sqlite", tmp_path) as other:
        other.fill(0)
        urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": other.url}
        created = [
            command.json("migrate", "--include-expired", "--shard", f"{index}/3", **urls)["created"]
            for index in (1, 2, 3)
        ]
        assert sum(created) == ROWS
        assert min(created) > ROWS // 5
        assert_same(table.contents(), other.contents())


@every
def test_what_cannot_be_copied_is_named(
    command: Command, table: Table, redis: Redis, tmp_path: Path
) -> None:
    live = table.live()
    broken = sorted(live)[:3]
    for key in broken:
        table.execute(
            "UPDATE django_session SET session_data = %s WHERE session_key = %s", "hunter2:x", key
        )
    rejects = tmp_path / "rejects.jsonl"
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": redis.url}
    done = command.json("migrate", "--rejects", str(rejects), code=7, **urls)
    assert done["complete"]
    assert done["created"] == len(live) - 3
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert len(lines) == sum(done["rejected"].values()) == 3
    assert all(line["reason"] for line in lines)
    assert "hunter2" not in rejects.read_text()
    assert not any(key in rejects.read_text() for key in broken)


@pytest.mark.parametrize("target", ["postgres", "redis"])
def test_a_migration_goes_on_after_being_killed(
    command: Command, redis: Redis, tmp_path: Path, target: str
) -> None:
    """kill -9 at random moments, twenty times: nothing is missing, different, or there twice."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with (
        operations.table("mysql", tmp_path) as one,
        operations.table("postgres", tmp_path) as other,
    ):
        one.fill(20 * ROWS)
        one.execute("ANALYZE TABLE django_session")
        other.fill(0)
        to = other.url if target == "postgres" else redis.url
        urls = {"FROM_SESSION_STORE_URL": one.url, "TO_SESSION_STORE_URL": to}
        arguments = ["migrate", "--quiet", "--json", "--checkpoint", str(tmp_path / "checkpoint")]
        if target == "postgres":
            arguments.append("--include-expired")
        kills = 0
        for _ in range(20):
            process = command.start(*arguments, "--rate", "12000", **urls)
            try:
                process.wait(chance.uniform(0.05, 0.8))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.communicate()
        done = command.json(*arguments[:1], *arguments[3:], "--verify", **urls)
        assert done["complete"]
        assert not (tmp_path / "checkpoint").exists()
        verified = done["verified"]
        assert (verified["different"], verified["missing"]) == (0, 0)
        if target == "postgres":
            assert_same(one.contents(), other.contents())
        else:
            assert_same(one.live(), redis.contents())
    assert kills > 5


@every
def test_a_table_that_grows_meanwhile_is_caught_up_with(
    command: Command, redis: Redis, table: Table
) -> None:
    """What is saved while a migration runs may stay behind; the next run brings it."""
    urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": redis.url}
    stop = threading.Event()
    end = max(date for _, date in table.live().values())
    grown: dict[str, int] = {}
    insert = "INSERT INTO django_session VALUES (%s, %s, %s)"

    def grow() -> None:
        with table.connected() as execute:
            while not stop.is_set():
                key = f"grown{len(grown):027}"
                text = signing.dumps({"n": len(grown)}, key=NEW, salt=SALT)
                execute(insert, key, text, end.strftime("%Y-%m-%d %H:%M:%S"))
                grown[key] = len(grown)

    before = table.live()
    grower = threading.Thread(target=grow)
    grower.start()
    try:
        done = command.json("migrate", "--rate", "2000", **urls)
    finally:
        stop.set()
        grower.join()
    assert done["complete"]
    assert len(grown) > 10
    # Nobody saved what had been there before.
    assert redis.contents().keys() >= before.keys()
    done = command.json("migrate", "--verify", **urls)
    verified = done["verified"]
    assert (verified["different"], verified["missing"]) == (0, 0)
    contents = redis.contents()
    assert {key: contents[key][0]["n"] for key in grown} == grown
    assert_same(table.live(), contents)


def test_a_full_disk_ends_it_and_loses_nothing(command: Command, tmp_path: Path) -> None:
    """Files may have no more than half a megabyte: an archive, a database, its journal."""
    limited = command.with_file_size(1 << 19)
    with (
        operations.table("sqlite", tmp_path) as one,
        operations.table("sqlite", tmp_path) as other,
    ):
        one.fill(ROWS)
        other.fill(0)
        before = one.texts()
        everything = ["--include-secrets", "--include-expired"]
        archive = str(tmp_path / "sessions.jsonl.zst")
        done = limited.run("export", archive, *everything, SESSION_STORE_URL=one.url, code=1)
        assert "the archive cannot be written: File too large" in done.stderr
        assert not list(tmp_path.glob("*.jsonl.zst*"))
        urls = {"FROM_SESSION_STORE_URL": one.url, "TO_SESSION_STORE_URL": other.url}
        arguments = ["migrate", "--include-expired", "--checkpoint", str(tmp_path / "checkpoint")]
        limited.run(*arguments, **urls, code=6)
        assert one.texts() == before
        done = command.json(*arguments, "--verify", **urls)
        assert done["complete"]
        assert_same(one.contents(), other.contents())
        # In place: what cannot be written stays as it was, for whoever has the old key.
        command.with_file_size(1 << 13).run("rotate", SESSION_STORE_URL=one.url, code=6)
        assert one.texts().keys() == before.keys()
        assert all(date == before[key][1] for key, (_, date) in one.texts().items())
        assert one.live().keys() == {
            key for key, (_, date) in before.items() if date > datetime.now(UTC)
        }


def test_a_redis_without_memory_ends_it_and_loses_nothing(command: Command, redis: Redis) -> None:
    with operations.table("postgres", Path()) as table:
        table.fill(10 * ROWS)
        urls = {"FROM_SESSION_STORE_URL": table.url, "TO_SESSION_STORE_URL": redis.url}
        used = int(redis.client.info("memory")["used_memory"])
        redis.client.config_set("maxmemory", used + (1 << 20))
        try:
            done = command.run("migrate", **urls, code=6)
        finally:
            redis.client.config_set("maxmemory", 0)
        assert "memory" in done.stderr
        assert redis.contents().keys() < table.live().keys()
        done = command.json("migrate", "--verify", **urls)
        assert done["complete"]
        assert_same(table.live(), redis.contents())


def test_a_checkpoint_is_of_one_migration(command: Command, redis: Redis, tmp_path: Path) -> None:
    with operations.table("sqlite", tmp_path) as one, operations.table("sqlite", tmp_path) as other:
        one.fill(100)
        other.fill(0)
        checkpoint = tmp_path / "checkpoint"
        checkpoint.write_text('{"django_session_checkpoint":1,"subject":"else","left":[]}')
        urls = {"FROM_SESSION_STORE_URL": one.url, "TO_SESSION_STORE_URL": other.url}
        done = command.run("migrate", "--checkpoint", str(checkpoint), code=2, **urls)
        assert "checkpoint is of another" in done.stderr
        assert not other.texts()


# Archives


@every
def test_an_archive_is_imported_as_it_was(command: Command, table: Table, tmp_path: Path) -> None:
    archive = tmp_path / "sessions.jsonl.zst"
    done = command.json(
        "export",
        str(archive),
        "--include-secrets",
        "--include-expired",
        SESSION_STORE_URL=table.url,
    )
    assert done["sessions"] == ROWS
    assert archive.stat().st_mode & 0o777 == 0o600
    lines = _lines(archive)
    assert len(lines) == ROWS + 1
    with operations.table("sqlite", tmp_path) as other:
        other.fill(0)
        command.json("import", str(archive), "--dry-run", SESSION_STORE_URL=other.url)
        assert not other.texts()
        done = command.json("import", str(archive), SESSION_STORE_URL=other.url)
        assert done["created"] == ROWS
        assert_same(table.contents(), other.contents())


@sqlite
def test_secrets_are_left_out_unless_asked_for(
    command: Command, table: Table, tmp_path: Path
) -> None:
    archive = tmp_path / "sessions.jsonl.zst"
    command.json("export", str(archive), SESSION_STORE_URL=table.url)
    text = "\n".join(_lines(archive))
    live = table.live()
    assert len(_lines(archive)) == len(live) + 1
    assert not any(key in text for key in live)
    assert "_auth_user_hash" not in text
    done = command.run("import", str(archive), code=1, SESSION_STORE_URL=table.url)
    assert "--include-secrets" in done.stderr


@sqlite
def test_a_damaged_archive_is_refused(command: Command, table: Table, tmp_path: Path) -> None:
    archive = tmp_path / "sessions.jsonl.zst"
    command.json("export", str(archive), "--include-secrets", SESSION_STORE_URL=table.url)
    whole = archive.read_bytes()
    seeds = random.Random(5)
    with operations.table("sqlite", tmp_path) as other:
        other.fill(0)
        for length in (0, 5, len(whole) // 2, len(whole) - 1):
            archive.write_bytes(whole[:length])
            command.run("import", str(archive), code=1, SESSION_STORE_URL=other.url)
        for _ in range(10):
            place = seeds.randrange(200, len(whole) - 100)
            damaged = bytearray(whole)
            damaged[place] ^= 0x55
            archive.write_bytes(bytes(damaged))
            command.run("import", str(archive), code=1, SESSION_STORE_URL=other.url)


def _lines(archive: Path) -> list[str]:
    import zstandard

    with zstandard.open(archive, "rt") as lines:
        return [line.rstrip("\n") for line in lines]


# Manners


def test_a_password_is_no_argument(command: Command) -> None:
    done = command.run("stats", "--store", "postgres://site:hunter2@127.0.0.1/site", code=2)
    assert "SESSION_STORE_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_store_that_is_not_there_is_an_error(command: Command, tmp_path: Path) -> None:
    for url, code in [
        ("postgres://site:hunter2@127.0.0.1:1/site", 6),
        ("mysql://site:hunter2@127.0.0.1:1/site", 6),
        ("redis://:hunter2@127.0.0.1:1/0", 6),
        (f"sqlite:{tmp_path}/none.sqlite3", 6),
        ("postgress://site:hunter2@127.0.0.1/site", 6),
    ]:
        for name in ("stats", "list", "rotate", "clear-expired"):
            done = command.run(
                name, SESSION_STORE_URL=url, USERS_DATABASE_URL=f"sqlite:{tmp_path}/none", code=code
            )
            assert "hunter2" not in done.stderr
    done = command.run("stats", code=2)
    assert "SESSION_STORE_URL" in done.stderr


@every
def test_an_unknown_table_is_an_error(command: Command, table: Table) -> None:
    url = f"{table.url}{'&' if '?' in table.url else '?'}table=no_such_table"
    for name in ("stats", "list", "clear-expired"):
        done = command.run(name, SESSION_STORE_URL=url, code=6)
        assert "no_such_table" in done.stderr or "doesn't exist" in done.stderr


@sqlite
def test_a_wrong_key_changes_nothing(command: Command, table: Table) -> None:
    before = table.texts()
    done = command.json(
        "rotate",
        SESSION_STORE_URL=table.url,
        SECRET_KEY="another",
        SECRET_KEY_FALLBACKS="[]",
        code=7,
    )
    assert sum(done["rejected"].values()) == len(table.texts()) // 10
    assert table.texts() == before


@sqlite
def test_an_interrupted_command_can_be_gone_on_with(command: Command, table: Table) -> None:
    process = command.start(
        "clear-expired", "--json", "--batch", "10", "--pause", "20", SESSION_STORE_URL=table.url
    )
    while len(table.texts()) == ROWS:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 8
    done = json.loads(out)
    assert not done["complete"]
    assert done["expired"] == ROWS - len(table.texts())
    command.json("clear-expired", SESSION_STORE_URL=table.url)
    assert len(table.texts()) == ROWS // 10


# MySQL


mysql = pytest.mark.parametrize("table", ["mysql"], indirect=True)


@mysql
def test_a_walk_may_rest_for_longer_than_the_server_waits(command: Command, table: Table) -> None:
    """The server ends a connection on which it cannot go on sending, as a rule after a minute."""
    session_data = "x" * 40_000
    rows = ", ".join(f"('rests{n}', '{session_data}', '2099-01-01')" for n in range(100))
    for start in range(10):
        table.execute(f"INSERT INTO django_session VALUES {rows.replace('rests', f'r{start}e')}")
    waits = table.execute("SELECT @@global.net_write_timeout")[0][0]
    table.execute("SET GLOBAL net_write_timeout = 1")
    try:
        arguments = ["--workers", "1", "--rate", "250"]
        stats = command.json("stats", *arguments, SESSION_STORE_URL=table.url)
    finally:
        table.execute(f"SET GLOBAL net_write_timeout = {waits}")
    assert stats["complete"]
    assert stats["sessions"] == ROWS + 1_000


@mysql
def test_a_column_of_the_site_s_own_keeps_no_session_from_being_signed(
    command: Command, table: Table
) -> None:
    table.execute("ALTER TABLE django_session ADD COLUMN shop integer NOT NULL")
    table.execute("UPDATE django_session SET shop = 7")
    before = table.live()
    arguments = ("rotate", "--without-users")
    rotated = command.json(*arguments, SESSION_STORE_URL=table.url)
    assert rotated["signed_anew"] > 0
    assert table.live() == before
    again = command.json(*arguments, SESSION_STORE_URL=table.url)
    assert again["signed_anew"] == 0
    assert [shop for (shop,) in table.execute("SELECT DISTINCT shop FROM django_session")] == [7]

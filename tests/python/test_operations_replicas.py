"""The command beside replicas that fall behind: real ones, which are made to stand still."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import operations
import pytest
from operations import Command, Table

pytestmark = pytest.mark.timeout(900)  # the first test may wait for cargo

ROWS = 3_000
SERVICES = Path(__file__).parents[1] / "services.py"
PAIR = ["TEST_MYSQL_PRIMARY_URL", "TEST_MYSQL_REPLICA_URL"]
# Small steps, so that there are many looks at the replica.
STEPS = ["--rate", "1000", "--quiet"]


@pytest.fixture(scope="module")
def command() -> Command:
    return Command(operations.built())


@dataclass
class Replicated:
    """A table, and the server that follows it."""

    table: Table
    replica: Table
    #: Statements for the replica.
    pause: str
    resume: str

    @property
    def followed(self) -> Table:
        """The table as the replica has it."""
        path = urlsplit(self.table.url).path
        return Table(urlsplit(self.replica.url)._replace(path=path).geturl())

    @property
    def named(self) -> dict[str, str]:
        return {"REPLICA_SESSION_STORE_URLS": self.replica.url}


@contextlib.contextmanager
def on_postgres() -> Iterator[Replicated]:
    replica = os.environ.get("TEST_POSTGRES_REPLICA_URL", "")
    if not replica:
        if os.environ.get("CI") == "true":
            pytest.fail("TEST_POSTGRES_REPLICA_URL is not set")
        pytest.skip("TEST_POSTGRES_REPLICA_URL is not set")
    with operations.table("postgres", Path()) as table:
        yield Replicated(
            table, Table(replica), "SELECT pg_wal_replay_pause()", "SELECT pg_wal_replay_resume()"
        )


@contextlib.contextmanager
def on_mariadb() -> Iterator[Replicated]:
    """A pair of this test's own: the log of the others would slow every other test down."""
    process = subprocess.Popen(
        [sys.executable, SERVICES, "serve", "--only", "mariadb-replica"],
        env={name: value for name, value in os.environ.items() if not name.startswith("TEST_")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.removeprefix("export ").strip().partition("=")
            found[name] = value.strip("'")
            if found.keys() >= set(PAIR):
                break
        primary, replica = (Table(found[name]) for name in PAIR)
        yield Replicated(primary, replica, "STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture(scope="module", params=["postgres", "mysql"])
def pair(request: pytest.FixtureRequest) -> Iterator[Replicated]:
    with on_postgres() if request.param == "postgres" else on_mariadb() as made:
        yield made


@pytest.fixture
def replicated(pair: Replicated) -> Iterator[Replicated]:
    """The pair with a table full of sessions, which both have."""
    pair.table.execute("DROP TABLE IF EXISTS django_session, auth_user")
    pair.table.fill(ROWS)
    caught_up(pair)
    try:
        yield pair
    finally:
        pair.replica.execute(pair.resume)


def caught_up(pair: Replicated) -> None:
    """Wait until the replica has what the primary has."""
    name = f"mark_{secrets.token_hex(4)}"
    pair.table.execute(f"CREATE TABLE {name} (id integer)")
    eventually(lambda: bool(pair.followed.execute(_IS_THERE.format(name))))
    pair.table.execute(f"DROP TABLE {name}")


_IS_THERE = "SELECT 1 FROM information_schema.tables WHERE table_name = '{}'"


def eventually(condition: Callable[[], bool]) -> None:
    """Ask until the answer is yes; pytest's timeout ends what never becomes true."""
    while not condition():
        time.sleep(0.05)


def count(table: Table, what: str) -> int:
    found: int = table.execute(f"SELECT count(*) FROM django_session WHERE {what}")[0][0]
    return found


def rests(look: Callable[[], int]) -> int:
    """Wait until what is counted stays the same, and return it."""
    seen, since = look(), time.monotonic()
    while time.monotonic() - since < 1.5:
        time.sleep(0.1)
        if (now := look()) != seen:
            seen, since = now, time.monotonic()
    return seen


def listens(process: subprocess.Popen[str]) -> None:
    """Wait until a command has begun, which is when it listens to signals."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        time.sleep(2)
        return
    while process.poll() is None:
        caught = status.read_text().partition("SigCgt:")[2].split(maxsplit=1)[0]
        if int(caught, 16) & 1 << (signal.SIGTERM - 1):
            return
        time.sleep(0.05)


def expired(table: Table) -> int:
    now = "now()" if table.url.startswith("postgres") else "utc_timestamp()"
    return count(table, f"expire_date < {now}")


def test_nothing_is_deleted_while_a_replica_is_behind(
    command: Command, replicated: Replicated
) -> None:
    table = replicated.table
    before = expired(table)
    assert before > ROWS // 2
    replicated.replica.execute(replicated.pause)
    arguments = ["clear-expired", "--max-lag", "1", *STEPS]
    with command.start(*arguments, SESSION_STORE_URL=table.url, **replicated.named) as process:
        # MySQL's replica says at once that it stands still, PostgreSQL's falls behind first.
        listens(process)
        left = rests(lambda: expired(table))
        assert process.poll() is None
        assert left > 0
        if table.url.startswith("mysql"):
            assert left == before
        replicated.replica.execute(replicated.resume)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, (output, errors)
    assert expired(table) == 0
    caught_up(replicated)
    assert expired(replicated.followed) == 0


def test_a_stop_is_heard_while_a_replica_is_waited_for(
    command: Command, replicated: Replicated
) -> None:
    table = replicated.table
    replicated.replica.execute(replicated.pause)
    arguments = ["clear-expired", "--max-lag", "1", *STEPS]
    with command.start(*arguments, SESSION_STORE_URL=table.url, **replicated.named) as process:
        listens(process)
        left = rests(lambda: expired(table))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 8
    assert expired(table) == left > 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("revoke", ["--all", "--yes"]),
        ("rotate", ["--without-users"]),
        ("convert", ["--without-users"]),
    ],
)
def test_every_command_that_writes_waits(
    command: Command, replicated: Replicated, name: str, arguments: list[str]
) -> None:
    table = replicated.table
    table.execute("UPDATE django_session SET expire_date = '2099-01-01'")
    caught_up(replicated)
    before = table.texts()
    replicated.replica.execute(replicated.pause)

    def changed() -> int:
        return len(before.items() - table.texts().items())

    arguments = [name, *arguments, "--max-lag", "1", *STEPS]
    with command.start(*arguments, SESSION_STORE_URL=table.url, **replicated.named) as process:
        some = rests(changed)
        assert process.poll() is None
        replicated.replica.execute(replicated.resume)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, (output, errors)
    assert changed() > some


def test_sessions_are_copied_no_faster_than_the_target_s_replica_takes_them(
    command: Command, replicated: Replicated, tmp_path: Path
) -> None:
    target = replicated.table
    target.execute("DELETE FROM django_session")
    caught_up(replicated)
    with operations.table("sqlite", tmp_path) as source:
        source.fill(ROWS)
        archive = str(tmp_path / "sessions.jsonl.zst")
        command.run(
            *["export", "--include-secrets", "--include-expired", archive],
            SESSION_STORE_URL=source.url,
        )
        for words, variables in (
            (
                ["migrate", "--include-expired"],
                {"FROM_SESSION_STORE_URL": source.url, "TO_SESSION_STORE_URL": target.url},
            ),
            (["import", archive], {"SESSION_STORE_URL": target.url}),
        ):
            replicated.replica.execute(replicated.pause)
            arguments = [*words, "--max-lag", "1", *STEPS]
            with command.start(*arguments, **variables, **replicated.named) as process:
                some = rests(lambda: count(target, "1 = 1"))
                assert process.poll() is None
                assert some < ROWS
                replicated.replica.execute(replicated.resume)
                output, errors = process.communicate(timeout=300)
                assert process.returncode == 0, (output, errors)
            assert count(target, "1 = 1") == ROWS
            target.execute("DELETE FROM django_session")
            caught_up(replicated)


def test_what_is_no_replica_is_told(command: Command, replicated: Replicated) -> None:
    url = replicated.table.url
    done = command.run(
        *["clear-expired", "--max-lag", "1"],
        code=6,
        SESSION_STORE_URL=url,
        REPLICA_SESSION_STORE_URLS=f"{replicated.replica.url} {url}",
    )
    assert "the server at --replica is no replica" in done.stderr
    done = command.run(
        *["clear-expired", "--max-lag", "1"],
        code=6,
        SESSION_STORE_URL=url,
        REPLICA_SESSION_STORE_URLS="sqlite:other.sqlite3",
    )
    assert "of another kind" in done.stderr
    password = urlsplit(url).password
    done = command.run(
        *["clear-expired", "--max-lag", "1", "--replica", url], code=2, SESSION_STORE_URL=url
    )
    assert "REPLICA_SESSION_STORE_URLS" in done.stderr
    assert password
    assert password not in done.stderr
    for wrong in ("0", "-1", "nan", "inf", "soon"):
        command.run(*["clear-expired", f"--max-lag={wrong}"], code=2, SESSION_STORE_URL=url)


def test_the_addresses_of_replicas_come_out_of_a_file(
    command: Command, replicated: Replicated, tmp_path: Path
) -> None:
    file = tmp_path / "replicas"
    file.write_text(f"{replicated.replica.url}\n")
    table = replicated.table
    arguments = ["clear-expired", "--max-lag", "30", "--replica-file", str(file)]
    command.run(*arguments, SESSION_STORE_URL=table.url)
    assert expired(table) == 0


def test_replicas_that_the_primary_does_not_know_have_to_be_named(
    command: Command, replicated: Replicated
) -> None:
    table = replicated.table
    if table.url.startswith("mysql"):
        done = command.run("clear-expired", "--max-lag", "1", code=6, SESSION_STORE_URL=table.url)
        assert "give their addresses by --replica" in done.stderr
        return
    # PostgreSQL knows them, and says so to those who may see it.
    replicated.replica.execute(replicated.pause)
    arguments = ["clear-expired", "--max-lag", "1", *STEPS]
    with command.start(*arguments, SESSION_STORE_URL=table.url) as process:
        assert rests(lambda: expired(table)) > 0
        assert process.poll() is None
        replicated.replica.execute(replicated.resume)
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert expired(table) == 0
    name, password = f"user_{secrets.token_hex(4)}", secrets.token_hex(8)
    table.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    try:
        table.execute(f"GRANT ALL ON django_session TO {name}")
        parts = urlsplit(table.url)
        url = parts._replace(netloc=f"{name}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()
        done = command.run("clear-expired", "--max-lag", "1", code=6, SESSION_STORE_URL=url)
        assert "pg_monitor" in done.stderr
        table.execute(f"GRANT pg_monitor TO {name}")
        command.run("clear-expired", "--max-lag", "30", SESSION_STORE_URL=url)
    finally:
        table.execute(f"DROP OWNED BY {name}")
        table.execute(f"DROP ROLE {name}")


def test_what_has_no_replicas_is_told(command: Command, tmp_path: Path) -> None:
    with operations.table("sqlite", tmp_path) as table:
        table.fill(100)
        done = command.run("clear-expired", "--max-lag", "1", code=6, SESSION_STORE_URL=table.url)
        assert "does not support telling how far replicas are behind" in done.stderr
        assert expired_in_sqlite(table) > 0


def expired_in_sqlite(table: Table) -> int:
    return count(table, "expire_date < datetime('now')")

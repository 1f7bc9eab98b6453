"""The command on the tables of django-user-sessions and django-qsessions, beside these packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import operations
import pytest
import session_rows
from django.core import signing
from operations import NEW, OLD, Command, Redis, Table

pytestmark = pytest.mark.timeout(900)  # the first test may wait for cargo

HERE = Path(__file__).parent
SALT = "django.contrib.sessions.SessionStore"
BACKEND = "django.contrib.auth.backends.ModelBackend"
PACKAGES = ["user_sessions", "qsessions"]
KINDS = ["sqlite", "postgres", "mysql"]
NOBODY = {"user_id": None, "user_agent": None, "ip": None}


class Site:
    """The process of ``package_site.py``."""

    def __init__(self, table: Table, user_model: str) -> None:
        self.table = table
        path = [str(HERE), str(operations.ROOT / "benches")]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "package_site.py"), table.url, user_model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ":".join(path), "PATH": ""},
        )
        assert self._answer() == "ready"
        self.users: list[str] = self.ask("make_users")

    def _answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline() or '"it has ended"')

    def ask(self, verb: str, **arguments: Any) -> Any:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([verb, arguments]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def url(self, package: str) -> str:
        if package == "django":
            return self.table.url
        between = "&" if "?" in self.table.url else "?"
        return f"{self.table.url}{between}table={package}_session"

    def close(self) -> None:
        assert self.process.stdin
        with self.process:
            self.process.stdin.close()
            assert self.process.wait(30) == 0


@pytest.fixture(scope="module")
def command() -> Command:
    return Command(operations.built())


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    kind, user_model = request.param
    with operations.table(kind, tmp_path) as table:
        made = Site(table, user_model)
        yield made
        made.close()


every_site = pytest.mark.parametrize(
    "site",
    [(kind, model) for kind in KINDS for model in ("auth.User", "custom_user.Customer")],
    indirect=True,
    ids=str,
)
each_kind = pytest.mark.parametrize(
    "site", [(kind, "auth.User") for kind in KINDS], indirect=True, ids=str
)
each_package = pytest.mark.parametrize("package", PACKAGES)


def login(user: str, **more: Any) -> dict[str, Any]:
    return {"_auth_user_id": user, "_auth_user_backend": BACKEND, "_auth_user_hash": "h", **more}


def fill(site: Site, package: str) -> dict[str, dict[str, Any]]:
    """Sessions of each user and of nobody, by key."""
    made = {}
    for number, user in enumerate(site.users):
        for count in range(number + 1):
            data = login(user, cart=[count, 2.5, None], name="\N{SNOWMAN} \\ \t\n'\"")
            made[site.ask("create", package=package, data=data)] = data
    made[site.ask("create", package=package, data={"cart": []})] = {"cart": []}
    return made


@every_site
@each_package
def test_sessions_move_to_a_package_with_their_users(
    command: Command, site: Site, package: str
) -> None:
    made = fill(site, "django")
    saved = datetime.now(UTC)
    # One of a user who is gone, whom no row of the package may name.
    gone = "77777" if site.users[0].isdecimal() else "00000000-0000-4000-8000-000000000000"
    lost = site.ask("create", package="django", data=login(gone))
    urls = {"FROM_SESSION_STORE_URL": site.url("django"), "TO_SESSION_STORE_URL": site.url(package)}
    assert command.json("migrate", "--dry-run", **urls)["created"] == len(made) + 1
    done = command.json("migrate", "--verify", code=7, **urls)
    assert done["created"] == done["verified"]["equal"] == len(made)
    reason = "its user is not in the table of users that the target refers to"
    assert done["rejected"] == {reason: done["verified"]["missing"]} == {reason: 1}
    rows = site.ask("rows", package=package)
    assert rows.keys() == made.keys()
    for key, data in made.items():
        assert (rows[key]["user_id"] or "").replace("-", "") == data.get(
            "_auth_user_id", ""
        ).replace("-", "")
        assert rows[key]["user_agent"] is None
        assert rows[key]["ip"] is None
        times = [
            rows[key][name]
            for name in ("last_activity", "created_at", "updated_at")
            if name in rows[key]
        ]
        for time in times:
            assert abs(datetime.fromisoformat(time) - saved) < timedelta(seconds=60)
        assert site.ask("load", package=package, key=key) == data
    # The package finds them by user, and its requests go on with them.
    for user in site.users:
        keys = sorted(key for key, data in made.items() if data.get("_auth_user_id") == user)
        assert site.ask("of_user", package=package, user=user) == keys
        site.ask("save", package=package, key=keys[0], name="more", value=1)
        assert site.ask("of_user", package=package, user=user) == keys
    assert lost not in site.ask("rows", package=package)
    # A second run changes nothing.
    again = command.json("migrate", code=7, **urls)
    assert (again["created"], again["same"], again["kept"]) == (0, len(made) - 3, 3)
    # With the user his sessions end.
    site.ask("delete_user", user=site.users[2])
    assert len(site.ask("rows", package=package)) == len(made) - 3


@each_kind
@each_package
def test_sessions_of_a_package_move_to_django_and_to_the_other(
    command: Command, site: Site, package: str
) -> None:
    made = fill(site, package)
    other = next(it for it in PACKAGES if it != package)
    before = {key: site.ask("load", package=package, key=key) for key in made}
    for target in ("django", other):
        urls = {
            "FROM_SESSION_STORE_URL": site.url(package),
            "TO_SESSION_STORE_URL": site.url(target),
        }
        done = command.json("migrate", "--verify", **urls)
        assert done["created"] == done["verified"]["equal"] == len(made)
        for key in made:
            assert site.ask("load", package=target, key=key) == before[key]
    known = {"user_agent": "Lynx/2.9", "ip": "192.0.2.7"} if package == "qsessions" else {}
    for key, row in site.ask("rows", package=other).items():
        expected = NOBODY | known | {"user_id": made[key].get("_auth_user_id")}
        assert {name: row[name] for name in expected} == expected


@each_kind
@each_package
def test_sessions_of_a_package_are_looked_at_rotated_and_revoked(
    command: Command, site: Site, package: str
) -> None:
    made = fill(site, package)
    store = {"SESSION_STORE_URL": site.url(package)}
    stats = command.json("stats", **store)
    assert (stats["sessions"], stats["users"]) == (len(made), len(site.users))
    before = site.ask("rows", package=package)
    keys = {"SECRET_KEY": "the key of tomorrow", "SECRET_KEY_FALLBACKS": json.dumps([NEW, *OLD])}
    done = command.json("rotate", "--without-users", **store, **keys)
    assert done["signed_anew"] == len(made)
    after = site.ask("rows", package=package)
    for key, row in before.items():
        text = after[key].pop("session_data")
        assert row.pop("session_data") != text
        assert after[key] == row
        found = signing.loads(text, key="the key of tomorrow", salt=SALT)
        assert found["cart"] == made[key]["cart"]
    user = site.users[2]
    revoked = command.json("revoke", "--user", user, "--yes", **store, **keys)
    assert revoked["revoked"] == 3
    assert site.ask("of_user", package=package, user=user) == []
    assert len(site.ask("rows", package=package)) == len(made) - 3


@each_kind
@each_package
def test_sessions_that_both_have_end_up_with_their_user(
    command: Command, site: Site, package: str
) -> None:
    made = fill(site, "django")
    urls = {"FROM_SESSION_STORE_URL": site.url("django"), "TO_SESSION_STORE_URL": site.url(package)}
    command.json("migrate", **urls)
    ada, bob, _ = site.users
    taken = [key for key, data in made.items() if data.get("_auth_user_id") == site.users[2]]
    nobodys = next(key for key, data in made.items() if "_auth_user_id" not in data)
    # In the table of Django they are somebody else's since, or nobody's, or somebody's.
    for key, data in [(taken[0], login(bob)), (taken[1], {"cart": []}), (nobodys, login(ada))]:
        made[key] = data
        text = signing.dumps(data, key=session_rows.KEYS[0], salt=SALT)
        site.table.execute(
            "UPDATE django_session SET session_data = %s, expire_date = %s WHERE session_key = %s",
            text,
            (datetime.now(UTC) + timedelta(days=20)).strftime("%Y-%m-%d %H:%M:%S"),
            key,
        )
    done = command.json("migrate", "--on-conflict", "replace", **urls)
    assert (done["replaced"], done["same"]) == (3, len(made) - 3)
    rows = site.ask("rows", package=package)
    for key, data in made.items():
        assert rows[key]["user_id"] == data.get("_auth_user_id")
        assert site.ask("load", package=package, key=key) == data


def signed(data: dict[str, Any], at: int) -> str:
    signer = signing.TimestampSigner(key=NEW, salt=SALT)
    signer.timestamp = lambda: signing.b62_encode(at)  # type: ignore[method-assign]
    return signer.sign_object(data, serializer=signing.JSONSerializer)


@each_kind
def test_what_two_users_left_is_not_merged(command: Command, site: Site) -> None:
    ada, bob, _ = site.users
    both = {**login(ada), "secret": "hers", "both": 1}
    key = site.ask("create", package="django", data=both)
    urls = {
        "FROM_SESSION_STORE_URL": site.url("django"),
        "TO_SESSION_STORE_URL": site.url("qsessions"),
    }
    command.json("migrate", **urls)
    hers, his = login(ada, mine=2), login(bob, his=3)
    for data, at, expected in [
        (hers, 2_000_000_000, both | hers),
        (his, 1_000_000_000, both | hers),
        (his, 2_000_000_001, his),
    ]:
        update = "UPDATE django_session SET session_data = %s WHERE session_key = %s"
        site.table.execute(update, signed(data, at), key)
        command.json("migrate", "--on-conflict", "merge", **urls)
        assert site.ask("load", package="qsessions", key=key) == expected
        assert site.ask("of_user", package="qsessions", user=expected["_auth_user_id"]) == [key]


@pytest.mark.parametrize("site", [("sqlite", "auth.User")], indirect=True, ids=str)
def test_sessions_come_from_a_cache_with_their_users(command: Command, site: Site) -> None:
    made = fill(site, "django")
    redis = Redis()
    try:
        for source, target in [(site.url("django"), redis.url), (redis.url, site.url("qsessions"))]:
            urls = {"FROM_SESSION_STORE_URL": source, "TO_SESSION_STORE_URL": target}
            done = command.json("migrate", "--verify", **urls)
            assert done["created"] == done["verified"]["equal"] == len(made)
    finally:
        redis.clear()
    rows = site.ask("rows", package="qsessions")
    for key, data in made.items():
        assert rows[key]["user_id"] == data.get("_auth_user_id")
        assert site.ask("load", package="qsessions", key=key) == data


@each_kind
def test_a_table_with_columns_that_nobody_knows_is_refused(command: Command, site: Site) -> None:
    fill(site, "django")
    site.table.execute("ALTER TABLE qsessions_session ADD COLUMN score integer")
    urls = {
        "FROM_SESSION_STORE_URL": site.url("django"),
        "TO_SESSION_STORE_URL": site.url("qsessions"),
    }
    assert command.json("migrate", **urls)["created"] == 7
    site.table.execute(
        "CREATE TABLE strict_session (session_key varchar(40) PRIMARY KEY, "
        "session_data varchar(9000) NOT NULL, expire_date varchar(40) NOT NULL, "
        "shop integer NOT NULL)"
    )
    urls["TO_SESSION_STORE_URL"] = site.url("strict")
    done = command.run("migrate", code=6, **urls)
    assert "columns of its own" in done.stderr

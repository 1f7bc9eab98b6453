"""``django-session`` as pip installs it, and ``manage.py sessions``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_session_rs.management.commands import sessions as command

SITE = """
import sys
from pathlib import Path
from django.conf import settings

HERE = Path(__file__).parent
settings.configure(
    SECRET_KEY="a secret key for a site that nobody visits, which is long enough",
    SECRET_KEY_FALLBACKS=["another one"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db.sqlite3"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django_session_rs",
    ],
    USE_TZ=True,
)
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
USERS = """
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
user = get_user_model().objects.create_user("ada", password="x")
for number in range(5):
    session = SessionStore()
    session["_auth_user_id"] = str(user.pk)
    session.create()
SessionStore().create()
"""


@pytest.fixture(scope="module")
def manage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("site") / "manage.py"
    program.write_text(SITE)
    run(program, "migrate", "--verbosity=0")
    run(program, "shell", "--command", USERS)
    return program


def run(program: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def test_the_settings_of_the_site_are_used(manage: Path) -> None:
    stats: dict[str, Any] = json.loads(run(manage, "sessions", "stats", "--json", "-q").stdout)
    assert (stats["sessions"], stats["users"], stats["live_anonymous"]) == (6, 1, 1)
    assert stats["keys"] == {"SECRET_KEY": 6}
    rotated = json.loads(run(manage, "sessions", "rotate", "--json", "--quiet").stdout)
    assert rotated["complete"]
    assert rotated["signed_anew"] == 0


def test_the_exit_code_is_that_of_the_command(manage: Path) -> None:
    done = run(manage, "sessions", "revoke", "--all", code=2)
    assert "--yes" in done.stderr
    done = run(manage, "sessions", "--help")
    assert "clear-expired" in done.stdout


def test_the_doctor_looks_at_the_site(manage: Path, tmp_path: Path) -> None:
    done = run(manage, "sessions", "doctor", "--json", code=2)
    found = {finding["id"] for finding in json.loads(done.stdout)["findings"]}
    assert {"cookie-not-secure", "session-middleware-missing"} <= found
    assert not {"secret-key-missing", "settings-incomplete", "table-missing"} & found
    assert "a site that nobody visits" not in done.stdout + done.stderr
    # What keeps the other subcommands from a store is what it is asked about.
    engine = 'SESSION_ENGINE="django.contrib.sessions.backends.cached_db"'
    program = tmp_path / "manage.py"
    program.write_text(SITE.replace("USE_TZ=True", f"{engine}, USE_TZ=True"))
    run(program, "sessions", "stats", code=1)
    done = run(program, "sessions", "doctor", "--json", code=2)
    found = {finding["id"] for finding in json.loads(done.stdout)["findings"]}
    assert {"cache-of-one-process", "store-not-given"} <= found


def test_a_table_that_holds_no_utc_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "manage.py"
    zone = '"TIME_ZONE": "America/New_York", "NAME"'
    program.write_text(SITE.replace('"NAME"', zone))
    run(program, "migrate", "--verbosity=0")
    run(program, "shell", "--command", USERS)
    # To UTC they would have expired hours ago, or not for hours.
    done = run(program, "sessions", "clear-expired", code=1)
    assert "DATABASES has a TIME_ZONE" in done.stderr
    assert "Traceback" not in done.stderr
    # Whether a password is right does not depend on that.
    looked = "from django_session_rs.management.commands import sessions; "
    shown = run(program, "shell", "--command", f"{looked}print(sessions.users_url())")
    assert "sqlite:" in shown.stdout


def test_the_table_of_a_cache_is_found(tmp_path: Path) -> None:
    engine = "django.contrib.sessions.backends.cache"
    cache = {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "my cache",
        "KEY_PREFIX": "site",
        "VERSION": 2,
    }
    program = tmp_path / "manage.py"
    program.write_text(
        SITE.replace("USE_TZ=True", f"SESSION_ENGINE={engine!r}, CACHES={{'default': {cache}}}")
    )
    run(program, "migrate", "--verbosity=0")
    run(program, "createcachetable")
    run(program, "shell", "--command", USERS.replace("backends.db", "backends.cache"))
    stats = json.loads(run(program, "sessions", "stats", "--json", "-q").stdout)
    assert (stats["sessions"], stats["users"], stats["live_anonymous"]) == (6, 1, 1)


def test_what_is_wrong_with_the_settings_is_said_in_a_line(tmp_path: Path) -> None:
    program = tmp_path / "manage.py"
    options = "'OPTIONS': {'service': 'hunter2'}, "
    users = SITE.replace('"ENGINE": ', f'{options}"ENGINE": ').replace(".sqlite3", ".postgresql", 1)
    engine = f"SESSION_ENGINE={'django_session_rs.backends.native'!r}, "
    # Users that cannot be reached from outside are not missed.
    program.write_text(users.replace("USE_TZ=", f"{engine}SESSION_STORE_URL='memory:', USE_TZ="))
    run(program, "sessions", "--help")
    for wrong in ("SESSION_COOKIE_SAMESITE='lux'", "SECRET_KEY_FALLBACKS=[b'\\xff']"):
        text = SITE.replace('SECRET_KEY_FALLBACKS=["another one"]', wrong)
        program.write_text(text)
        done = run(program, "sessions", "stats", code=1)
        assert "Traceback" not in done.stderr
        assert "CommandError: " in done.stderr


def test_two_engines_are_too_many() -> None:
    moving = override_settings(SESSION_ENGINE="django_session_rs.backends.moving")
    with moving, pytest.raises(CommandError, match="SESSION_STORE_URL"):
        command.site_store_url()


def test_the_module_is_the_command() -> None:
    module = [sys.executable, "-m", "django_session_rs", "--version"]
    done = subprocess.run(module, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("django-session ")


def test_a_failure_is_an_error_to_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_STORE_URL", "sqlite:/none/at/all.sqlite3")
    with pytest.raises(CommandError) as raised:
        call_command("sessions", "stats")
    assert raised.value.returncode == 6


@pytest.mark.parametrize(
    ("engine", "values", "expected"),
    [
        ("django.contrib.sessions.backends.db", {}, "sqlite:"),
        ("django_session_rs.backends.db", {}, "sqlite:"),
        (
            "django.contrib.sessions.backends.file",
            {"SESSION_FILE_PATH": "/srv/a b"},
            "file:/srv/a%20b",
        ),
        ("django_session_rs.backends.native", {"SESSION_STORE_URL": "redis://h/1"}, "redis://h/1"),
        ("django.contrib.sessions.backends.signed_cookies", {}, None),
    ],
)
def test_the_engine_says_where_the_sessions_are(
    engine: str, values: dict[str, str], expected: str | None
) -> None:
    with override_settings(SESSION_ENGINE=engine, **values):
        url = command.site_store_url()
    assert url == expected if expected is None else str(url).startswith(expected)


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")
def test_a_cache_that_nobody_else_reaches_is_an_error() -> None:
    with pytest.raises(CommandError, match="cannot be reached from outside"):
        command.site_store_url()


def test_an_engine_of_the_site_s_own_is_what_it_is_derived_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    redis = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://h:1"}
    own = "    cache_key_prefix = 'own'\n"
    for number, (base, body, expected) in enumerate(
        [
            ("django.contrib.sessions.backends.cached_db", "    pass\n", "&cache_url=redis"),
            ("django_session_rs.backends.cached_db", "    pass\n", "&cache_url=redis"),
            ("django_session_rs.backends.native", "    pass\n", "redis://other"),
            ("django.contrib.sessions.backends.db", "    pass\n", "?table=django_session"),
            ("django.contrib.sessions.backends.cache", own, None),
            ("django_session_rs.backends.cached_db", own, None),
        ]
    ):
        module = f"engine_{number}"
        text = f"from {base} import SessionStore as Base\n\n\nclass SessionStore(Base):\n{body}"
        (tmp_path / f"{module}.py").write_text(text)
        with override_settings(
            SESSION_ENGINE=module, CACHES={"default": redis}, SESSION_STORE_URL="redis://other"
        ):
            if expected is None:
                with pytest.raises(CommandError, match="cache_key_prefix of its own"):
                    command.site_store_url()
            else:
                assert expected in str(command.site_store_url())

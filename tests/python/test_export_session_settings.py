"""`manage.py export_session_settings`."""

import base64
import json
import os
import stat
from datetime import timedelta
from io import StringIO
from pathlib import Path
from unittest import mock

import django
import pytest
from conftest import SECRET_KEY
from django.conf import global_settings, settings
from django.contrib.auth import hashers
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User, UserManager
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.management import CommandError, call_command
from django.test import override_settings

COMMAND = "export_session_settings"


def exported(**options):
    out = StringIO()
    call_command(COMMAND, stdout=out, **options)
    return json.loads(out.getvalue())


def test_every_session_setting_of_django_is_there():
    found = exported()
    names = {name for name in dir(global_settings) if name.startswith("SESSION_")}
    assert names <= found.keys()
    assert all(found[name] == getattr(settings, name) for name in names)
    assert found["SESSION_SALT"] == "django.contrib.sessions.SessionStore"
    assert found["SESSION_COMPRESSION"] == "fast"
    assert (found["USE_TZ"], found["TIME_ZONE"]) == (True, "UTC")
    assert found["DJANGO_VERSION"] == django.get_version()
    assert found["SECRET_KEY_FALLBACKS_COUNT"] == 0


def test_every_setting_of_csrf_protection_is_there():
    proxy = ("HTTP_X_FORWARDED_PROTO", "https")
    changed = {
        "ALLOWED_HOSTS": ["example.com"],
        "CSRF_COOKIE_AGE": None,
        "CSRF_TRUSTED_ORIGINS": ("https://*.example.com",),
        "SECURE_PROXY_SSL_HEADER": proxy,
    }
    with override_settings(**changed):
        found = exported()
        names = {name for name in dir(global_settings) if name.startswith("CSRF_")}
        # A view of Python's, and what 4.1 brought for one release.
        names -= {"CSRF_FAILURE_VIEW", "CSRF_COOKIE_MASKED"}
        names |= {"DEBUG", "USE_X_FORWARDED_HOST", "USE_X_FORWARDED_PORT"}
        names |= {name for name in dir(global_settings) if name.startswith("DATA_UPLOAD_MAX_")}
        assert names <= found.keys()
        assert {name: found[name] for name in changed} == {
            **changed,
            "CSRF_TRUSTED_ORIGINS": ["https://*.example.com"],
            "SECURE_PROXY_SSL_HEADER": list(proxy),
        }
        for name in names - changed.keys():
            assert found[name] == getattr(settings, name)


def test_what_only_the_rust_side_reads_goes_along():
    found = exported()
    assert not {"SESSION_ON_CONFLICT", "SESSION_TOUCH_INTERVAL", "SESSION_ACCEPT"} & found.keys()
    own = {
        "SESSION_ACCEPT": ("legacy",),
        "SESSION_FORMAT": "legacy",
        "SESSION_ON_CONFLICT": "error",
        "SESSION_TOUCH_INTERVAL": 60,
    }
    with override_settings(**own):
        found = exported()
    assert {name: found[name] for name in own} == {**own, "SESSION_ACCEPT": ["legacy"]}
    with override_settings(SESSION_ACCEPT={"signed_sha1", "legacy"}):
        assert exported()["SESSION_ACCEPT"] == ["legacy", "signed_sha1"]
    with (
        override_settings(SESSION_TOUCH_INTERVAL=timedelta(minutes=1)),
        pytest.raises(CommandError, match="SESSION_TOUCH_INTERVAL"),
    ):
        exported()
    # What Python's function would decide nobody else can ask.
    for function in (max, "django.utils.timezone.now"):
        with override_settings(SESSION_ON_CONFLICT=function):
            assert exported()["SESSION_ON_CONFLICT"] == "merge"
    with override_settings(SESSION_ON_CONFLICT="mrege"):
        assert exported()["SESSION_ON_CONFLICT"] == "mrege"


def a_function(get_response):
    return get_response


class OurSessions(SessionMiddleware):
    """Of a site's own."""


def test_what_is_around_the_engine_is_said_without_secrets():
    changed = {
        "CACHES": {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": "redis://user:hunter2@localhost",
            },
            "files": {
                "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                "LOCATION": "/hunter2",
                "OPTIONS": {"MAX_ENTRIES": 7},
            },
        },
        "INSTALLED_APPS": [
            "django.contrib.contenttypes",
            "django.contrib.auth.apps.AuthConfig",
            "django.contrib.sessions",
            "django_session_rs",
        ],
        "LANGUAGE_COOKIE_NAME": "tongue",
        "MIDDLEWARE": [
            "django_session_rs.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.middleware.common.CommonMiddleware",
            f"{__name__}.OurSessions",
            f"{__name__}.a_function",
        ],
    }
    with override_settings(**changed):
        found = exported()
    assert "hunter2" not in json.dumps(found)
    assert found["CACHES_BACKENDS"] == {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "MAX_ENTRIES": None,
        },
        "files": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "MAX_ENTRIES": 7,
        },
    }
    # Whatever they are called in the settings.
    assert {"django.contrib.auth", "django.contrib.sessions"} <= set(found["INSTALLED_APPS"])
    assert found["LANGUAGE_COOKIE_NAME"] == "tongue"
    assert found["MIDDLEWARE"] == changed["MIDDLEWARE"]
    sessions = "django.contrib.sessions.middleware.SessionMiddleware"
    users = "django.contrib.auth.middleware.AuthenticationMiddleware"
    assert found["MIDDLEWARE_BASES"] == [sessions, users, None, sessions, None]


def test_no_key_without_asking():
    with override_settings(SECRET_KEY_FALLBACKS=["hunter2-old", "hunter2-older"]):
        out = StringIO()
        call_command(COMMAND, stdout=out)
    assert "hunter2" not in out.getvalue()
    assert SECRET_KEY not in out.getvalue()
    found = json.loads(out.getvalue())
    assert found["SECRET_KEY_FALLBACKS_COUNT"] == 2
    assert not {"SECRET_KEY", "SECRET_KEY_FALLBACKS"} & found.keys()


def test_keys_when_asked():
    raw = b"\xff\x00key"
    with override_settings(SECRET_KEY=raw, SECRET_KEY_FALLBACKS=["é", b"text", raw, ""]):
        found = exported(include_secret=True)
    as_base64 = {"base64": base64.b64encode(raw).decode()}
    assert found["SECRET_KEY"] == as_base64
    assert found["SECRET_KEY_FALLBACKS"] == ["é", "text", as_base64, ""]
    with override_settings(SECRET_KEY=""), pytest.raises(CommandError, match="SECRET_KEY is empty"):
        exported(include_secret=True)
    with override_settings(SECRET_KEY=""):
        assert "SECRET_KEY" not in exported()


@pytest.mark.parametrize("value", [False, None, "None", "Lax", "Strict"])
def test_the_ways_of_samesite_stay_apart(value):
    with override_settings(SESSION_COOKIE_SAMESITE=value):
        found = exported()["SESSION_COOKIE_SAMESITE"]
    assert (type(found), found) == (type(value), value)


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "session.json"
    path.write_text("what was there")
    path.chmod(0o644)
    mask = os.umask(0o022)
    try:
        call_command(COMMAND, output=str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        call_command(COMMAND, output=str(path), include_secret=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)
    assert json.loads(path.read_text())["SECRET_KEY"] == SECRET_KEY
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(CommandError, match="Cannot write"):
        call_command(COMMAND, output=str(tmp_path / "no" / "such" / "folder"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SESSION_COOKIE_AGE": "two weeks"}, "SESSION_COOKIE_AGE must be a whole number"),
        ({"SESSION_COOKIE_AGE": True}, "SESSION_COOKIE_AGE must be a whole number"),
        ({"SESSION_COOKIE_AGE": 0.5}, "SESSION_COOKIE_AGE must be a whole number"),
        ({"SESSION_COOKIE_SECURE": "1"}, "SESSION_COOKIE_SECURE must be True or False"),
        ({"SESSION_COOKIE_SAMESITE": True}, "SESSION_COOKIE_SAMESITE must be"),
        ({"SESSION_COOKIE_SAMESITE": "lux"}, "SESSION_COOKIE_SAMESITE must be"),
        ({"SESSION_ENGINE": "no.such.engine"}, "SESSION_ENGINE names a module that cannot be"),
        ({"SESSION_ENGINE": "json"}, "SESSION_ENGINE names a module without"),
        ({"SESSION_COMPRESSION": "tiny"}, "SESSION_COMPRESSION must be"),
        ({"SECRET_KEY_FALLBACKS": "a text"}, "SECRET_KEY_FALLBACKS must be a list"),
        ({"PASSWORD_HASHERS": "a text"}, "PASSWORD_HASHERS must be a list"),
        ({"PASSWORD_HASHERS": ["no.such.Hasher"]}, "PASSWORD_HASHERS names a class that cannot"),
        ({"CACHES": []}, "CACHES must be a dictionary"),
        ({"MIDDLEWARE": ["no.such.Middleware"]}, "MIDDLEWARE names a class that cannot be"),
        ({"MIDDLEWARE": "a text"}, "MIDDLEWARE must be a list of texts"),
        ({"TIME_ZONE": None}, "TIME_ZONE must be the name of a time zone"),
        ({"ALLOWED_HOSTS": "example.com"}, "ALLOWED_HOSTS must be a list of texts"),
        ({"CSRF_COOKIE_AGE": "a year"}, "CSRF_COOKIE_AGE must be a whole number"),
        ({"CSRF_COOKIE_SAMESITE": True}, "CSRF_COOKIE_SAMESITE must be"),
        ({"CSRF_TRUSTED_ORIGINS": [5]}, "CSRF_TRUSTED_ORIGINS must be a list of texts"),
        ({"DATA_UPLOAD_MAX_NUMBER_FIELDS": True}, "DATA_UPLOAD_MAX_NUMBER_FIELDS must be"),
        ({"SECURE_PROXY_SSL_HEADER": "https"}, "SECURE_PROXY_SSL_HEADER must be a pair of texts"),
    ],
)
def test_what_is_wrong_is_named(changed, message):
    with override_settings(**changed), pytest.raises(CommandError, match=message):
        exported()


def test_what_django_takes_too_is_written_as_what_it_means():
    taken = {
        "DEBUG": 0,
        "SESSION_COOKIE_SECURE": 1,
        "SESSION_COOKIE_AGE": 3600.0,
        "DATA_UPLOAD_MAX_MEMORY_SIZE": 2.5 * 1024 * 1024,
        "CSRF_TRUSTED_ORIGINS": {"https://b", "https://a"},
    }
    with override_settings(**taken):
        found = exported()
    assert {name: json.dumps(found[name]) for name in taken} == {
        "DEBUG": "false",
        "SESSION_COOKIE_SECURE": "true",
        "SESSION_COOKIE_AGE": "3600",
        "DATA_UPLOAD_MAX_MEMORY_SIZE": "2621440",
        "CSRF_TRUSTED_ORIGINS": '["https://a", "https://b"]',
    }


def test_a_setting_that_is_missing_is_named():
    with override_settings():
        del settings.SESSION_COOKIE_NAME
        with pytest.raises(CommandError, match="SESSION_COOKIE_NAME is missing: set it to a text"):
            exported()


def test_other_engines_and_paths():
    with override_settings(
        SESSION_ENGINE="custom_session.stores", SESSION_FILE_PATH=Path("/some/where")
    ):
        found = exported()
    assert found["SESSION_SALT"] == "django.contrib.sessions.SessionStore"
    assert found["SESSION_FILE_PATH"] == "/some/where"
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        salt = "django.contrib.sessions.backends.signed_cookies"
        assert exported()["SESSION_SALT"] == salt


class Slower(hashers.PBKDF2PasswordHasher):
    """With other parameters, as Django's documentation has it."""

    iterations: int = 7
    salt_entropy = 200


class Slowest(Slower):
    iterations = 8


class Prehashed(hashers.PBKDF2PasswordHasher):
    algorithm = "prehashed"

    def encode(self, password, salt, iterations=None):
        raise NotImplementedError


class AfterAll(Prehashed):
    iterations = 9


def test_password_hashers_and_their_parameters():
    found = exported()
    assert found["PASSWORD_HASHERS"] == settings.PASSWORD_HASHERS
    assert found["PASSWORD_HASHERS_PARAMETERS"].keys() == set(settings.PASSWORD_HASHERS)
    module = "django.contrib.auth.hashers"
    paths = [f"{__name__}.{name}" for name in ("Slower", "Slowest", "Prehashed", "AfterAll")]
    paths += [f"{module}.{name}PasswordHasher" for name in ("PBKDF2", "Argon2", "BCrypt", "Scrypt")]
    paths += [f"{module}.MD5PasswordHasher"]
    with override_settings(PASSWORD_HASHERS=tuple(paths)):
        found = exported()
    assert found["PASSWORD_HASHERS"] == paths
    slower, slowest, prehashed, after_all, pbkdf2, argon2, bcrypt, scrypt, md5 = (
        found["PASSWORD_HASHERS_PARAMETERS"][path] for path in paths
    )
    assert pbkdf2 == {
        "algorithm": "pbkdf2_sha256",
        "class": f"{module}.PBKDF2PasswordHasher",
        "iterations": hashers.PBKDF2PasswordHasher.iterations,
        "salt_entropy": 128,
    }
    assert slower == {**pbkdf2, "iterations": 7, "salt_entropy": 200}
    assert slowest == {**slower, "iterations": 8}
    assert prehashed == after_all == {"algorithm": "prehashed"}
    assert argon2 == {
        "algorithm": "argon2",
        "class": f"{module}.Argon2PasswordHasher",
        "memory_cost": 102400,
        "parallelism": 8,
        "salt_entropy": 128,
        "time_cost": 2,
    }
    assert bcrypt.pop("truncate", False) in {True, False}
    assert bcrypt == {
        "algorithm": "bcrypt",
        "class": f"{module}.BCryptPasswordHasher",
        "rounds": 12,
        "salt_entropy": 128,
    }
    assert scrypt == {
        "algorithm": "scrypt",
        "block_size": 8,
        "class": f"{module}.ScryptPasswordHasher",
        "maxmem": 0,
        "parallelism": hashers.ScryptPasswordHasher.parallelism,
        "salt_entropy": 128,
        "work_factor": 2**14,
    }
    expected = {"algorithm": "md5", "class": f"{module}.MD5PasswordHasher", "salt_entropy": 128}
    assert md5 == expected


class EmailBackend(ModelBackend):
    """Logs in by another name, and decides like Django's."""

    def authenticate(self, request, email=None, password=None, **kwargs):
        return super().authenticate(request, email, password, **kwargs)


class StrictBackend(ModelBackend):
    """Decides otherwise."""

    def user_can_authenticate(self, user):
        return user.is_staff


def test_what_backends_decide_is_said():
    ours = [f"{__name__}.{name}" for name in ("EmailBackend", "StrictBackend")]
    django_s = "django.contrib.auth.backends.ModelBackend"
    with override_settings(AUTHENTICATION_BACKENDS=[django_s, *ours]):
        found = exported()
    assert found["AUTHENTICATION_BACKENDS"] == [django_s, *ours]
    assert found["AUTHENTICATION_BACKENDS_CLASSES"] == {
        django_s: {"class": django_s, "authenticate": True},
        ours[0]: {"class": django_s, "authenticate": False},
        ours[1]: {"class": None, "authenticate": True},
    }
    wrong = override_settings(AUTHENTICATION_BACKENDS=["nowhere.Backend"])
    with wrong, pytest.raises(CommandError, match="AUTHENTICATION_BACKENDS names a class"):
        exported()


def test_a_manager_that_finds_users_otherwise_is_asked_by_nobody_else():
    class Caseless(UserManager):
        def get_by_natural_key(self, username):
            return self.get(username__iexact=username)

    manager = Caseless()
    manager.model = User
    with mock.patch.object(User._meta, "default_manager", manager):
        found = exported()
    backend = "django.contrib.auth.backends.ModelBackend"
    assert found["AUTHENTICATION_BACKENDS_CLASSES"] == {
        backend: {"class": backend, "authenticate": False}
    }
    assert found["AUTH_USER_MODEL_TABLES"]["overrides"] == []


def test_the_tables_of_users_are_said():
    found = exported()
    assert found["AUTH_USER_MODEL"] == "auth.User"
    assert found["AUTH_USER_MODEL_TABLES"] == {
        "table": "auth_user",
        "primary_key": "id",
        # The range of the database's own, which SQLite does not have.
        "primary_key_type": [-(2**63), 2**63 - 1],
        "username": "username",
        "password": "password",
        "is_active": "is_active",
        "is_staff": "is_staff",
        "is_superuser": "is_superuser",
        "last_login": "last_login",
        "permissions": {
            "user_groups": "auth_user_groups",
            "user_groups_user": "user_id",
            "user_permissions": "auth_user_user_permissions",
            "user_permissions_user": "user_id",
        },
        "overrides": [],
    }


def test_code_of_the_user_model_is_said():
    with mock.patch.object(User, "get_session_auth_hash", return_value="mine"):
        assert exported()["AUTH_USER_MODEL_TABLES"]["overrides"] == ["get_session_auth_hash"]

    class Kept(UserManager):
        def get_queryset(self):
            return super().get_queryset().exclude(is_active=False)

    manager = Kept()
    manager.model = User
    with mock.patch.object(User._meta, "default_manager", manager):
        assert exported()["AUTH_USER_MODEL_TABLES"]["overrides"] == ["Kept.get_queryset"]


def test_the_login_page_is_said():
    assert exported()["LOGIN_URL"] == "/accounts/login/"
    with override_settings(LOGIN_URL="https://id.example.com/"):
        assert exported()["LOGIN_URL"] == "https://id.example.com/"
    with override_settings(LOGIN_URL="login", ROOT_URLCONF="django.contrib.auth.urls"):
        assert exported()["LOGIN_URL"] == "/login/"
    wrong = override_settings(LOGIN_URL="no-such-view", ROOT_URLCONF="django.contrib.auth.urls")
    with wrong, pytest.raises(CommandError, match="LOGIN_URL leads nowhere"):
        exported()


def test_a_site_without_users_has_none():
    with override_settings(INSTALLED_APPS=["django.contrib.sessions", "django_session_rs"]):
        found = exported()
    assert found["SESSION_COOKIE_NAME"] == "sessionid"
    assert not {"AUTH_USER_MODEL", "AUTHENTICATION_BACKENDS", "PASSWORD_HASHERS"} & found.keys()


def test_what_a_link_leads_to_is_written(tmp_path):
    link, file = tmp_path / "link", tmp_path / "file"
    file.write_text("old")
    for target in (file, Path("/dev/null")):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        call_command("export_session_settings", output=str(link), include_secret=True)
        assert link.is_symlink()
    assert json.loads(file.read_text())["SECRET_KEY"] == SECRET_KEY
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Path("/dev/null").is_char_device()

"""The other side of the Rust tests of logins: `django.contrib.auth` on a database of its own.

    auth_peer.py URL USER_MODEL COUNT SEED

URL is that of a server, or a folder for a file of SQLite; USER_MODEL is ``auth.User``,
``custom_user.Customer`` or ``custom_user.Member``. First come the name of the database and the
columns of the user model, then COUNT lines, each a user and a session in some state: what
``get_user`` found in one of two equal sessions and what became of it, for the other side to do the
same with the other one. After that each line from standard input is the key of a session; the
answer is whose it is. The end of standard input is the end of the database.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SECRET_KEY = "the secret of the differential test"
FALLBACKS = ("the key before", "the key before that")
BACKENDS = "django.contrib.auth.backends."
LISTS = (
    ["ModelBackend"],
    ["AllowAllUsersModelBackend"],
    ["RemoteUserBackend", "ModelBackend"],
    ["ModelBackend", "AllowAllUsersModelBackend", "AllowAllUsersRemoteUserBackend"],
)
PERMISSIONS = (
    "auth.add_user",
    "auth.view_group",
    "auth.delete_group",
    "sessions.view_session",
    "sessions.nothing",
    "auth",
    "",
)


def database(url: str) -> dict[str, Any]:
    name = f"auth_{random.SystemRandom().randrange(10**9)}"
    parts = urlsplit(url)
    engine = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql"}.get(
        parts.scheme, "sqlite3"
    )
    if engine == "sqlite3":
        path = str(Path(url) / f"{name}.sqlite3")
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "TEST": {"NAME": path}}
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": parts.path.strip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "TEST": {"NAME": name},
    }


def configure(url: str, user_model: str) -> None:
    import django
    from django.conf import settings

    if urlsplit(url).scheme == "mysql":
        import pymysql

        pymysql.install_as_MySQLdb()
    sys.path.insert(0, str(Path(__file__).parent / "fixtures"))
    settings.configure(
        SECRET_KEY=SECRET_KEY,
        DATABASES={"default": database(url)},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            # Two models of users in use would have the same name for their permissions.
            *([] if user_model == "auth.User" else ["custom_user"]),
        ],
        AUTH_USER_MODEL=user_model,
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        # All tables in one pass: those of the custom models refer to the others.
        MIGRATION_MODULES=dict.fromkeys(("auth", "contenttypes", "sessions", "custom_user")),
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


class States:
    """Users and sessions in every state."""

    def __init__(self, seed: int) -> None:
        from django.contrib.auth import get_user_model

        self.random = random.Random(seed)
        self.model = get_user_model()
        self.numbers = itertools.count(1)
        self.fields = {field.name for field in self.model._meta.get_fields()}

    def user(self) -> tuple[Any, str, str]:
        """Return a user, the primary key as text, and the password field of the login."""
        from django.contrib.auth.models import Group, Permission

        chosen = self.random.random
        user = self.model(**{self.model.USERNAME_FIELD: f"user{next(self.numbers)}@example.com"})
        kind = self.random.choice(("usable", "usable", "usable", "unusable", "empty"))
        if kind == "usable":
            user.set_password(f"password {chosen()}")
        elif kind == "unusable":
            user.set_unusable_password()
        if "is_active" in self.fields:
            user.is_active = chosen() < 0.8
        if "is_superuser" in self.fields:
            user.is_superuser = chosen() < 0.1
        user.save(force_insert=True)
        if "user_permissions" in self.fields and chosen() < 0.6:
            known = list(Permission.objects.all())
            user.user_permissions.set(self.random.sample(known, 3))
            group = Group.objects.create(name=f"group {next(self.numbers)}")
            group.permissions.set(self.random.sample(known, 4))
            if chosen() < 0.7:
                user.groups.add(group)
        at_login = user.password
        if chosen() < 0.1:
            user.set_password("another password")
            user.save()
        return user, self.model._meta.pk.value_to_string(user), at_login

    def session_data(self, pk: str, password: str) -> dict[str, Any]:
        """Return what may be in a session of a user."""
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
        from django.utils.crypto import salted_hmac

        choose = self.random.choice
        data: dict[str, Any] = {"cart": [1, 2.5, None], "n": next(self.numbers)}

        def hashed(key: str, algorithm: str = "sha256") -> str:
            salt = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"
            return salted_hmac(salt, password, secret=key, algorithm=algorithm).hexdigest()

        current = hashed(SECRET_KEY)
        ids = [pk] * 60 + [f" {pk}\n", "no such user", "", "0", "-1", "99999999999999999999", None]
        ids += [
            True,
            1.5,
            0,
            [],
            {},
            "1_0",
            "+1",
            "é",
            f"{{{pk}}}",
            pk.upper(),
            pk.replace("-", ""),
        ]
        if pk.isdecimal():
            ids += [int(pk)] * 3
        backends = [BACKENDS + "ModelBackend"] * 20
        backends += [BACKENDS + name for name in itertools.chain(*LISTS)]
        backends += ["somebody.else.Backend", "", None, 5, BACKENDS, []]
        hashes = [current] * 20 + [hashed(key) for key in FALLBACKS] * 4
        hashes += [hashed("unknown"), current.upper(), current[:-1], "", None, 5, current + " "]
        hashes += [hashed(SECRET_KEY, "sha1"), "é" * 64, [current]]
        if self.random.random() < 0.95:
            data[SESSION_KEY] = choose(ids)
        if self.random.random() < 0.95:
            data[BACKEND_SESSION_KEY] = choose(backends)
        if self.random.random() < 0.95:
            data[HASH_SESSION_KEY] = choose(hashes)
        if self.random.random() < 0.1:
            data["_session_expiry"] = choose((0, 600, 86400))
        if self.random.random() < 0.1:
            data = {"cart": [], "n": data["n"]}
        return data

    def sessions(self, data: dict[str, Any]) -> tuple[str, str]:
        """Return the keys of two equal sessions."""
        from django.contrib.sessions.backends.db import SessionStore
        from django.contrib.sessions.models import Session
        from django.utils import timezone

        kind = self.random.random()
        keys = []
        for _ in range(2):
            store = SessionStore()
            store.update(data)
            store.create()
            row = Session.objects.get(pk=store.session_key)
            if kind < 0.03:
                row.expire_date = timezone.now() - timedelta(seconds=5)
                row.save()
            elif kind < 0.06:
                row.session_data = row.session_data[:-3] + "abc"
                row.save()
            elif kind < 0.08:
                row.delete()
            keys.append(store.session_key)
        return keys[0], keys[1]

    def state(self) -> dict[str, Any]:
        """Make a user and two sessions, and say what Django makes of one of them."""
        from django.test import override_settings

        user, pk, password = self.user()
        theirs, ours = self.sessions(self.session_data(pk, password))
        if self.random.random() < 0.05:
            user.delete()
        chosen = {
            "AUTHENTICATION_BACKENDS": [BACKENDS + name for name in self.random.choice(LISTS)],
            "SECRET_KEY_FALLBACKS": list(FALLBACKS[: self.random.randrange(3)]),
        }
        with override_settings(**chosen):
            return {"key": ours, "settings": chosen, **outcome(theirs)}


def outcome(session_key: str) -> dict[str, Any]:
    """Ask whose a session is, and end the request as the middleware does."""
    from django.contrib.auth import get_user
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.core.exceptions import ValidationError
    from django.http import HttpRequest

    request = HttpRequest()
    request.session = SessionStore(session_key)
    found: dict[str, Any] = {"user": None}
    try:
        user = get_user(request)
    except (OverflowError, TypeError, ValidationError) as error:
        found["raised"] = type(error).__name__
    else:
        if user.is_authenticated:
            found["user"] = user._meta.pk.value_to_string(user)
            if hasattr(user, "has_perm"):
                found["granted"] = [user.has_perm(name) for name in PERMISSIONS]
                found["modules"] = [user.has_module_perms(name) for name in ("auth", "none", "")]
                if not user.is_superuser:
                    found["permissions"] = sorted(user.get_all_permissions())
    if request.session.modified and not request.session.is_empty():
        request.session.save()
    key = request.session.session_key
    row = Session.objects.filter(pk=key).first()
    found["is_moved"] = key not in (None, session_key)
    found["is_left"] = Session.objects.filter(pk=session_key).exists()
    found["data"] = None if row is None else json.dumps(row.get_decoded())
    return found


def columns(model: Any) -> dict[str, Any]:
    """Return the columns of a user model, as far as they have other names than Django's."""
    meta = model._meta
    found = {
        "table": meta.db_table,
        "primary_key": meta.pk.column,
        "kind": meta.pk.get_internal_type(),
        "username": meta.get_field(model.USERNAME_FIELD).column,
    }
    names = {field.name for field in meta.get_fields()}
    found["missing"] = sorted({"is_active", "is_staff", "is_superuser"} - names)
    if "groups" in names:
        for name in ("groups", "user_permissions"):
            field = meta.get_field(name)
            found[name] = [field.m2m_db_table(), field.m2m_column_name()]
    return found


def main() -> None:
    url, user_model, count, seed = sys.argv[1:]
    configure(url, user_model)
    from django.contrib.auth import get_user_model
    from django.db import connection

    old = connection.settings_dict["NAME"]
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        print(json.dumps({"database": name, "model": columns(get_user_model())}), flush=True)
        states = States(int(seed))
        for _ in range(int(count)):
            print(json.dumps(states.state()), flush=True)
        for line in sys.stdin:
            found = outcome(json.loads(line))
            user = get_user_model().objects.filter(pk=found["user"]).first()
            found["last_login"] = bool(user and user.last_login)
            print(json.dumps(found), flush=True)
    finally:
        connection.creation.destroy_test_db(old, verbosity=0)


if __name__ == "__main__":
    main()

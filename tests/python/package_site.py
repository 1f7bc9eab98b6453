"""A site with the sessions of django-user-sessions, django-qsessions and Django in one database.

    package_site.py URL USER_MODEL

makes the tables, then answers each line of JSON on standard input, ``[verb, {…}]``, by one on
standard output. ``package`` is ``user_sessions``, ``qsessions`` or ``django``.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import session_rows

AGENT, IP = "Lynx/2.9", "192.0.2.7"
ENGINES = {
    "django": "django.contrib.sessions.backends.db",
    "qsessions": "qsessions.backends.db",
    "user_sessions": "user_sessions.backends.db",
}


def database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path}
    return {
        "ENGINE": f"django.db.backends.{'postgresql' if parts.scheme == 'postgres' else 'mysql'}",
        "NAME": parts.path.strip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }


def configure(url: str, user_model: str) -> None:
    import django
    from django.conf import settings
    from django.core.management import call_command

    if url.startswith("mysql:"):
        import pymysql

        pymysql.install_as_MySQLdb()
    sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
    new, *old = session_rows.KEYS
    settings.configure(
        SECRET_KEY=new,
        SECRET_KEY_FALLBACKS=old,
        DATABASES={"default": database(url)},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            *([] if user_model == "auth.User" else ["custom_user"]),
            "qsessions",
            "user_sessions",
        ],
        AUTH_USER_MODEL=user_model,
        MIGRATION_MODULES={"auth": None, "contenttypes": None, "custom_user": None},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        # Importing the model of qsessions asks for it.
        SESSION_ENGINE=ENGINES["qsessions"],
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0, run_syncdb=True)


def store(package: str, key: str | None = None) -> Any:
    of_request = {} if package == "django" else {"user_agent": AGENT, "ip": IP}
    return import_module(ENGINES[package]).SessionStore(session_key=key, **of_request)


def model(package: str) -> Any:
    path = "django.contrib.sessions" if package == "django" else package
    return import_module(f"{path}.models").Session


def make_users() -> list[str]:
    """Returns primary keys, as sessions have them."""
    from django.contrib.auth import get_user_model

    users = get_user_model()
    names = [f"user{number}@example.com" for number in range(3)]
    made = [users.objects.create(**{users.USERNAME_FIELD: name}) for name in names]
    return [users._meta.pk.value_to_string(user) for user in made]


def create(package: str, data: dict[str, Any]) -> str:
    """What a request does that begins a session."""
    session = store(package)
    for name, value in data.items():
        session[name] = value
    session.create() if not data else session.save(must_create=True)
    found: str = session.session_key
    return found


def load(package: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = store(package, key).load()
    return found


def save(package: str, key: str, name: str, value: Any) -> None:
    """What a request does that changes a session."""
    session = store(package, key)
    session[name] = value
    session.save()


def of_user(package: str, user: str) -> list[str]:
    """The keys of the sessions of a user, as the package finds them."""
    return sorted(model(package).objects.filter(user=user).values_list("pk", flat=True))


def rows(package: str) -> dict[str, dict[str, Any]]:
    """Every row, by its key."""
    found = {row["session_key"]: row for row in model(package).objects.values()}
    return {
        key: {name: None if value is None else str(value) for name, value in row.items()}
        for key, row in found.items()
    }


def delete_user(user: str) -> None:
    from django.contrib.auth import get_user_model

    get_user_model().objects.get(pk=user).delete()


def main() -> None:
    url, user_model = sys.argv[1:]
    configure(url, user_model)
    verbs = {
        verb.__name__: verb for verb in (make_users, create, load, save, of_user, rows, delete_user)
    }
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        verb, arguments = json.loads(line)
        print(json.dumps(verbs[verb](**arguments)), flush=True)


if __name__ == "__main__":
    main()

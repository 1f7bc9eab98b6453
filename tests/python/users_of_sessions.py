"""Whose sessions are, by Django's ``get_user`` and by ours, for users and sessions in many states.

    users_of_sessions.py URL USER_MODEL COUNT SEED

The arguments are those of ``auth_peer.py``, whose states these are; the model may also be
``custom_user.Patron``. Prints how many users both let in, for whom both have to take the same
number of queries; ends with an error where they differ. On a server the asynchronous twins are
compared too, ours with a session of the native engine: there Django's must not be asked for such a
user.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

from asgiref.sync import sync_to_async

sys.path.insert(0, str(Path(__file__).parents[1]))

import auth_peer


def answer(get_user: Any, session_key: str) -> tuple[dict[str, Any], int]:
    """Return whose a session is, with all that is known of the user, and the number of queries."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.exceptions import ValidationError
    from django.db import connection
    from django.http import HttpRequest
    from django.test.utils import CaptureQueriesContext

    request = HttpRequest()
    request.session = SessionStore(session_key)
    with CaptureQueriesContext(connection) as queries:
        try:
            user = get_user(request)
        except (OverflowError, TypeError, ValidationError) as error:
            return {"raised": type(error)}, 0
    found = seen(user, request.session.session_key, session_key)
    return found, len(queries) if user.is_authenticated and not found["is_moved"] else 0


def aanswer(aget_user: Any, store_class: Any, session_key: str) -> tuple[dict[str, Any], bool]:
    """Return whose a session is, awaited, and whether Django was asked for a user who is let in."""
    from django.contrib import auth
    from django.core.exceptions import ValidationError
    from django.http import HttpRequest

    request = HttpRequest()
    request.session = store_class(session_key)
    with mock.patch.object(auth, "aget_user", wraps=auth.aget_user) as djangos:
        try:
            user = asyncio.run(aget_user(request))
        except (OverflowError, TypeError, ValidationError) as error:
            return {"raised": type(error)}, False
    found = seen(user, request.session.session_key, session_key)
    return found, user.is_authenticated and not found["is_moved"] and djangos.called


def seen(user: Any, key: str | None, session_key: str) -> dict[str, Any]:
    """Return all that is known of a user, and what became of the session."""
    from django.contrib.sessions.backends.db import SessionStore

    found: dict[str, Any] = {"type": type(user)}
    found["user"] = {
        name: (type(value), repr(value))
        for name, value in vars(user).items()
        if name not in ("_state", "backend")
    }
    if user.is_authenticated:
        # An empty cache of related objects comes to be when it is looked at.
        found["state"] = {name: value for name, value in vars(user._state).items() if value != {}}
        assert repr(user) == repr(type(user)._default_manager.get(pk=user.pk))
    found["is_moved"] = key not in (None, session_key)
    found["is_left"] = SessionStore().exists(session_key)
    found["data"] = None if key is None else dict(SessionStore(key).items())
    return found


def scatter(user: Any, draw: random.Random) -> None:
    """Give each column of a user some value."""
    moment = datetime.datetime(2026, 3, 29, 1, 30, tzinfo=datetime.timezone.utc)
    moments = [moment.replace(microsecond=part) for part in (0, 1, 120_000, 999_999)]
    numbers = [0, 1, -1, 2**31, 2**63 - 1, -(2**63)]
    texts = ["", " ", "a\nb\\c'\"%s", "grüße \U0001f600", "x" * 5000]
    values = {
        "advised_by_id": [user.pk],
        "balance": [Decimal(text) for text in ("0", "-0.001", "99999999999.999", "1.5")],
        "born": [datetime.date(1, 1, 1), datetime.date(2000, 2, 29), datetime.date(9999, 12, 31)],
        "last_login": moments,
        "level": [0, -32768, 32767],
        "note": texts,
        "preferences": [{}, [], 0, "text", {"a": [1, 2.5, None, True, "\U0001f600"], "B": {}}],
        "seen": [*moments, moment.replace(year=1000), moment.replace(year=9999)],
        "token": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
        "visits": numbers,
        "weight": [0.0, -0.0, 0.1 + 0.2, 1e22, 1.7976931348623157e308, 5e-324, 1 / 3],
    }
    names = {field.attname for field in user._meta.concrete_fields} & set(values)
    chosen = {name: draw.choice([None, *values[name] * 2]) for name in sorted(names)}
    for name in ("note", "preferences"):
        if name in chosen and chosen[name] is None:
            del chosen[name]
    type(user)._default_manager.filter(pk=user.pk).update(**chosen)


def main() -> None:
    url, user_model, count, seed = sys.argv[1:]
    auth_peer.configure(url, user_model)
    from django.contrib import auth
    from django.contrib.auth.backends import ModelBackend
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import connection, connections
    from django.test import override_settings

    from django_session_rs.auth import aget_user, get_user
    from django_session_rs.backends import native
    from django_session_rs.user_query import _queries

    is_awaited = hasattr(ModelBackend, "aget_user") and connection.vendor != "sqlite"
    old = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    let_in = 0
    try:
        states = auth_peer.States(int(seed))
        for _ in range(int(count)):
            user, pk, password = states.user()
            scatter(user, states.random)
            data = states.session_data(pk, password)
            theirs, ours = states.sessions(data)
            awaited = states.sessions(data)
            if states.random.random() < 0.05:
                user.delete()
            names = states.random.choice(auth_peer.LISTS)
            fallbacks = auth_peer.FALLBACKS[: states.random.randrange(3)]
            with override_settings(
                AUTHENTICATION_BACKENDS=[auth_peer.BACKENDS + name for name in names],
                SECRET_KEY_FALLBACKS=list(fallbacks),
            ):
                expected, queries = answer(auth.get_user, theirs)
                found, of_ours = answer(get_user, ours)
                if is_awaited:
                    with_django, _ = aanswer(auth.aget_user, SessionStore, awaited[0])
                    with_ours, is_asked = aanswer(aget_user, native.SessionStore, awaited[1])
                    assert with_ours == with_django, (with_ours, with_django)
                    assert not is_asked, "Django was asked for a user"
            assert found == expected, (found, expected)
            assert of_ours == queries, (of_ours, queries)
            let_in += queries > 0
        assert list(map(bool, _queries.values())) == [True], "no query was compiled"
    finally:
        native._close()
        # Django's asynchronous functions have asked in a thread of their own.
        asyncio.run(sync_to_async(connections.close_all)())
        connection.creation.destroy_test_db(old, verbosity=0)
    print(let_in)


if __name__ == "__main__":
    main()

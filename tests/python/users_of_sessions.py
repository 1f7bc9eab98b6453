"""Whose sessions are, by Django's ``get_user`` and by ours, for users and sessions in many states.

    users_of_sessions.py URL USER_MODEL COUNT SEED

The arguments are those of ``auth_peer.py``, whose states these are. Prints how many users both
let in, for whom both have to take the same number of queries; ends with an error where they differ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

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
    found: dict[str, Any] = {}
    with CaptureQueriesContext(connection) as queries:
        try:
            user = get_user(request)
        except (OverflowError, TypeError, ValidationError) as error:
            return {"raised": type(error)}, 0
    found["type"] = type(user)
    found["user"] = {
        name: value for name, value in vars(user).items() if name not in ("_state", "backend")
    }
    if user.is_authenticated:
        found["state"] = vars(user._state)
        assert repr(user) == repr(type(user)._default_manager.get(pk=user.pk))
    key = request.session.session_key
    found["is_moved"] = key not in (None, session_key)
    found["is_left"] = SessionStore().exists(session_key)
    found["data"] = None if key is None else dict(SessionStore(key).items())
    return found, len(queries) if user.is_authenticated and not found["is_moved"] else 0


def main() -> None:
    url, user_model, count, seed = sys.argv[1:]
    auth_peer.configure(url, user_model)
    from django.contrib import auth
    from django.db import connection
    from django.test import override_settings

    from django_session_rs.auth import get_user
    from django_session_rs.user_query import _queries

    old = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    let_in = 0
    try:
        states = auth_peer.States(int(seed))
        for _ in range(int(count)):
            user, pk, password = states.user()
            theirs, ours = states.sessions(states.session_data(pk, password))
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
            assert found == expected, (found, expected)
            assert of_ours == queries, (of_ours, queries)
            let_in += queries > 0
        assert list(map(bool, _queries.values())) == [True], "no query was compiled"
    finally:
        connection.creation.destroy_test_db(old, verbosity=0)
    print(let_in)


if __name__ == "__main__":
    main()

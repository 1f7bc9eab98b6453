"""The other side of the Rust tests of handlers for users: whole requests to a Django site.

    gate_peer.py FOLDER COUNT SEED

First comes the name of a database, a file of SQLite in FOLDER, then COUNT lines: each a request
with the cookies of a session in some state, and what Django has answered to the same request with
an equal session, through its middleware for sessions, CSRF protection and users. Each line on
standard input is then a request that is to be made now, or a change to a user, and is answered on
standard output. The end of standard input is the end of the database.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import auth_peer

HOST = "testserver"
FIELD = "csrfmiddlewaretoken"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def views() -> list[Any]:
    from django.contrib.auth import authenticate, login, logout
    from django.contrib.auth.decorators import login_required
    from django.contrib.auth.mixins import PermissionRequiredMixin
    from django.http import HttpResponse
    from django.urls import path
    from django.views import View

    def maybe(request: Any) -> Any:
        return HttpResponse(name_of(request.user))

    @login_required
    def user(request: Any) -> Any:
        return HttpResponse(name_of(request.user))

    def has_perm(request: Any) -> Any:
        granted = [request.user.has_perm(name) for name in auth_peer.PERMISSIONS]
        return HttpResponse(json.dumps(granted))

    class Permission(PermissionRequiredMixin, View):
        def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            self.permission_required = auth_peer.PERMISSIONS[kwargs["number"]]
            return super().dispatch(request, *args, **kwargs)

        def get(self, request: Any, **kwargs: Any) -> Any:
            return HttpResponse(name_of(request.user))

        post = put = delete = patch = get

    def log_in(request: Any) -> Any:
        found = authenticate(
            request, username=request.POST["username"], password=request.POST["password"]
        )
        if found is None:
            return HttpResponse("no")
        login(request, found)
        return HttpResponse(name_of(found))

    def log_out(request: Any) -> Any:
        logout(request)
        return HttpResponse("out")

    return [
        path("maybe", maybe),
        path("user", user),
        path("has_perm", has_perm),
        path("permission/<int:number>", Permission.as_view()),
        path("login", log_in),
        path("logout", log_out),
    ]


def name_of(user: Any) -> str:
    return str(user._meta.pk.value_to_string(user)) if user.is_authenticated else ""


def csrf_failure(request: Any, reason: str = "") -> Any:
    from django.http import HttpResponse

    return HttpResponse(f"CSRF verification failed: {reason}", status=403)


def answer(request: dict[str, Any], session_key: str) -> dict[str, Any]:
    """Make a request, and say what came of it and of the session."""
    from django.contrib.sessions.models import Session
    from django.test import Client

    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    cookies = {"sessionid": session_key, **request["cookies"]}
    headers = {"HTTP_" + name.upper(): value for name, value in request["headers"].items()}
    headers["HTTP_COOKIE"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    response = client.generic(
        request["method"], request["path"], request["body"], request["content_type"], **headers
    )
    found: dict[str, Any] = {
        "status": response.status_code,
        "location": response.headers.get("Location"),
        "body": response.content.decode() if response.status_code == 200 else None,
        "is_csrf": response.content.startswith(b"CSRF"),
        "vary": "Cookie" in response.headers.get("Vary", ""),
        "rotates": "csrftoken" in response.cookies,
    }
    sent = response.cookies.get("sessionid")
    found["cookie"] = None if sent is None else ("set" if sent.value else "deleted")
    key = sent.value if sent is not None else session_key
    found["is_left"] = Session.objects.filter(pk=session_key).exists()
    row = Session.objects.filter(pk=key).first() if key else None
    found["data"] = None if row is None else json.dumps(row.get_decoded())
    return found


class Requests:
    def __init__(self, states: auth_peer.States) -> None:
        self.states = states
        self.random = states.random

    def csrf(self) -> tuple[dict[str, str], dict[str, str], str]:
        """Return cookies, headers and the token of a form."""
        from django.middleware.csrf import _get_new_csrf_string, _mask_cipher_secret

        choose = self.random.choice
        secret = _get_new_csrf_string()
        cookies = {"csrftoken": secret} if self.random.random() < 0.9 else {}
        token = choose(
            [_mask_cipher_secret(secret)] * 12
            + [secret, _mask_cipher_secret(_get_new_csrf_string()), "", "short", secret.swapcase()]
        )
        headers = {}
        origin = choose([None] * 6 + [f"http://{HOST}"] * 6 + ["null", "https://evil.example"])
        if origin is not None:
            headers["origin"] = origin
        if self.random.random() < 0.5:
            headers["x_csrftoken"] = token
            token = ""
        return cookies, headers, token

    def request(self) -> dict[str, Any]:
        choose = self.random.choice
        method = choose(["GET"] * 6 + ["HEAD", "POST", "POST", "POST", "PUT", "DELETE", "PATCH"])
        number = self.random.randrange(len(auth_peer.PERMISSIONS))
        path = choose(["/maybe", "/user", "/has_perm", "/has_perm"] + [f"/permission/{number}"] * 3)
        if self.random.random() < 0.2:
            path += choose(["?a=b&c=d%20e", "?next=/elsewhere", "?", "?q=%C3%A9&x=~*'()"])
        cookies, headers, token = self.csrf()
        is_form = method == "POST" and self.random.random() < 0.8
        return {
            "method": method,
            "path": path,
            "headers": headers,
            "cookies": cookies,
            "body": f"a=b&{FIELD}={token}" if is_form else "",
            "content_type": "application/x-www-form-urlencoded" if is_form else "text/plain",
        }


def main() -> None:
    folder, count, seed = sys.argv[1:]
    auth_peer.configure(folder, "auth.User")
    from django.conf import settings
    from django.db import connection
    from django.test import override_settings

    settings.MIDDLEWARE = MIDDLEWARE
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": views()})
    settings.CSRF_FAILURE_VIEW = "gate_peer.csrf_failure"
    settings.ALLOWED_HOSTS = [HOST]
    settings.LOGGING_CONFIG = None
    import logging

    logging.disable()
    old = connection.settings_dict["NAME"]
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        print(json.dumps({"database": name}), flush=True)
        states = auth_peer.States(int(seed))
        requests = Requests(states)
        rng: random.Random = states.random
        user = None
        for number in range(int(count)):
            if user is None or number % 6 == 0:
                user, pk, password = states.user()
                is_deleted = rng.random() < 0.05
                chosen = {
                    "AUTHENTICATION_BACKENDS": [
                        auth_peer.BACKENDS + name for name in rng.choice(auth_peer.LISTS)
                    ],
                    "SECRET_KEY_FALLBACKS": list(auth_peer.FALLBACKS[: rng.randrange(3)]),
                }
                if is_deleted:
                    user.delete()
            data = states.session_data(pk, password)
            if rng.random() < 0.7:
                # As a login leaves it; the other states are rarely those of a user.
                data = {**data, **as_of_login(pk, password, chosen)}
            theirs, ours = states.sessions(data)
            request = requests.request()
            with override_settings(**chosen):
                found = answer(request, theirs)
            line = {"request": request, "session": ours, "settings": chosen, "answer": found}
            print(json.dumps(line), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            if "user" in asked:
                print(json.dumps(change(**asked)), flush=True)
            else:
                print(json.dumps(answer(asked["request"], asked["session"])), flush=True)
    finally:
        connection.creation.destroy_test_db(old, verbosity=0)


def as_of_login(pk: str, password: str, chosen: dict[str, Any]) -> dict[str, str]:
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.utils.crypto import salted_hmac

    salt = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"
    return {
        SESSION_KEY: pk,
        BACKEND_SESSION_KEY: chosen["AUTHENTICATION_BACKENDS"][0],
        HASH_SESSION_KEY: salted_hmac(salt, password, algorithm="sha256").hexdigest(),
    }


def change(user: str, **changes: Any) -> str | None:
    """Make or change a user, and return its primary key."""
    from django.contrib.auth import get_user_model
    from django.contrib.auth.models import Permission

    found, _ = get_user_model().objects.get_or_create(username=user)
    for name, value in changes.items():
        if name == "password":
            found.set_password(value)
        elif name == "encoded":
            found.password = value
        elif name == "permissions":
            known = Permission.objects.all()
            found.user_permissions.set([one for one in known if one.codename in value])
        else:
            setattr(found, name, value)
    found.save()
    found.refresh_from_db()
    return str(found.password)


if __name__ == "__main__":
    sys.modules["gate_peer"] = sys.modules["__main__"]
    main()

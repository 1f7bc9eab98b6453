"""The authentication middleware: Django's answers, without its thread."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest
from django.contrib import auth
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.middleware import AuthenticationMiddleware as DjangoMiddleware
from django.contrib.auth.models import AnonymousUser, User, UserManager
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import override_settings

from django_session_rs.auth import AuthenticationMiddleware, get_user
from django_session_rs.backends.db import SessionStore


def request_of(session):
    request = HttpRequest()
    request.session = session
    return request


def logged_in():
    user = get_user_model().objects.create_user("a user")
    session = SessionStore()
    session.update(
        {
            "_auth_user_id": str(user.pk),
            "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
            "_auth_user_hash": user.get_session_auth_hash(),
        }
    )
    session.save()
    return user, SessionStore(session.session_key)


def test_the_user_is_django_s(sqlite_database):
    _, session = logged_in()

    def view(request):
        return HttpResponse(request.user.get_username())

    for middleware in (AuthenticationMiddleware, DjangoMiddleware):
        assert middleware(view)(request_of(session)).content == b"a user"
    anonymous = request_of(SessionStore())
    AuthenticationMiddleware(view)(anonymous)
    assert anonymous.user == AnonymousUser()
    with pytest.raises(ImproperlyConfigured, match="SessionMiddleware"):
        AuthenticationMiddleware(view)(HttpRequest())


def test_an_event_loop_runs_it_itself(sqlite_database):
    threads = []

    class Middleware(AuthenticationMiddleware):
        async def aprocess_request(self, request):
            threads.append(threading.get_ident())
            return await super().aprocess_request(request)

    async def view(request):
        assert hasattr(request, "user")
        threads.append(threading.get_ident())
        return HttpResponse()

    async def main():
        before = threading.active_count()
        await Middleware(view)(request_of(SessionStore()))
        await AuthenticationMiddleware(view)(request_of(SessionStore()))
        assert threading.active_count() == before
        return threading.get_ident()

    loop = asyncio.run(main())
    assert threads == [loop] * 3


def test_a_subclass_of_one_method_is_not_passed_over():
    class Middleware(AuthenticationMiddleware):
        def process_request(self, request):
            return HttpResponse("closed")

    async def view(request):
        raise AssertionError

    answer = asyncio.run(Middleware(view)(request_of(SessionStore())))
    assert answer.content == b"closed"


def test_the_checks_of_the_admin_find_it():
    from django.contrib.admin.checks import _contains_subclass

    path = "django_session_rs.auth.AuthenticationMiddleware"
    with override_settings(MIDDLEWARE=[path]):
        assert _contains_subclass("django.contrib.auth.middleware.AuthenticationMiddleware", [path])


@pytest.mark.parametrize("server", ["sqlite", "TEST_POSTGRES_URL", "TEST_MYSQL_URL"])
@pytest.mark.parametrize("model", ["auth.User", "custom_user.Customer", "custom_user.Member"])
def test_every_state_of_a_user_and_a_session_has_django_s_answer(server, model, tmp_path):
    url = str(tmp_path) if server == "sqlite" else os.environ.get(server)
    if not url:
        pytest.skip(f"{server} is not set")
    script = Path(__file__).with_name("users_of_sessions.py")
    command = [sys.executable, str(script), url, model, "120", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


class OtherBackend(ModelBackend):
    """A backend that has a way of its own to find a user."""

    asked = 0

    def get_user(self, user_id):
        OtherBackend.asked += 1
        return super().get_user(user_id)


def test_a_backend_of_the_site_is_asked(sqlite_database):
    user, session = logged_in()
    path = f"{__name__}.OtherBackend"
    session["_auth_user_backend"] = path
    with override_settings(AUTHENTICATION_BACKENDS=[path]):
        assert get_user(request_of(session)) == user
    assert OtherBackend.asked == 1


def test_a_manager_of_the_site_is_asked(sqlite_database):
    _, session = logged_in()

    class Nobody(UserManager):
        def get_queryset(self):
            return super().get_queryset().none()

    manager = Nobody()
    manager.model = User
    with mock.patch.object(User._meta, "default_manager", manager):
        assert get_user(request_of(session)) == AnonymousUser()


def test_the_user_is_looked_up_where_the_router_says(sqlite_database):
    user, session = logged_in()

    class Router:
        def db_for_read(self, model, **hints):
            return "other"

    with mock.patch("django.db.router.routers", [Router()]):
        # The other database has no such user, nor the session.
        assert auth.get_user(request_of(SessionStore(session.session_key))) == AnonymousUser()
    session["_auth_user_id"]
    with mock.patch("django.db.router.routers", [Router()]):
        assert get_user(request_of(session)) == AnonymousUser()
    assert get_user(request_of(session)) == user
    assert get_user(request_of(session))._state.db == "default"

"""The authentication middleware: Django's answers, without its thread."""

import asyncio
import threading

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.middleware import AuthenticationMiddleware as DjangoMiddleware
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import override_settings

from django_session_rs.auth import AuthenticationMiddleware
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

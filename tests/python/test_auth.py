"""The authentication middleware: Django's answers, without its thread."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from conftest import wanted
from django.conf import settings
from django.contrib import auth
from django.contrib.auth import get_user_model, middleware
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.middleware import AuthenticationMiddleware as DjangoMiddleware
from django.contrib.auth.models import AnonymousUser, User, UserManager
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.db.models.signals import post_init
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, override_settings
from django.test.utils import setup_test_environment, teardown_test_environment
from django.urls import path
from django.utils.decorators import sync_and_async_middleware
from site_server import free_port

import django_session_rs.auth
from django_session_rs import row_query, user_query
from django_session_rs.auth import AuthenticationMiddleware, aget_user, get_user
from django_session_rs.backends import native
from django_session_rs.backends.db import SessionStore
from django_session_rs.exceptions import StoreUnavailableError

CUSTOM_USERS = ["custom_user.Customer", "custom_user.Member", "custom_user.Patron"]


def request_of(session):
    request = HttpRequest()
    request.session = session
    return request


def logged_in(store_class=SessionStore):
    user = get_user_model().objects.create_user("a user")
    session = store_class()
    session.update(
        {
            "_auth_user_id": str(user.pk),
            "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
            "_auth_user_hash": user.get_session_auth_hash(),
        }
    )
    session.save()
    return user, store_class(session.session_key)


def test_the_user_is_django_s(sqlite_database):
    _, session = logged_in()

    def view(request):
        return HttpResponse(request.user.get_username())

    for either in (AuthenticationMiddleware, DjangoMiddleware):
        assert either(view)(request_of(session)).content == b"a user"
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
@pytest.mark.parametrize("model", ["auth.User", *CUSTOM_USERS])
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


AWAITS_USERS = pytest.mark.skipif(
    not hasattr(ModelBackend, "aget_user"), reason="Django awaits users since 5.2"
)


@contextlib.contextmanager
def asking_django():
    """Count how often Django is asked whose a session is."""
    with mock.patch.object(auth, "aget_user", wraps=auth.aget_user) as asked:
        yield asked


@AWAITS_USERS
def test_a_user_is_awaited_without_a_thread(table):
    user, session = logged_in(native.SessionStore)
    seen = []

    async def view(request):
        before = threading.active_count()
        seen.append(await request.auser())
        assert await request.auser() is seen[0], "a user is asked for once in a request"
        assert threading.active_count() == before
        return HttpResponse()

    async def main():
        # To compile the query takes a thread.
        await aget_user(request_of(native.SessionStore(session.session_key)))
        with asking_django() as asked:
            await AuthenticationMiddleware(view)(request_of(session))
            assert not asked.called

    asyncio.run(main())
    assert (seen[0], seen[0].password, seen[0].date_joined) == (
        user,
        user.password,
        User.objects.get().date_joined,
    )
    assert repr(vars(seen[0]).keys()) == repr(vars(User.objects.get()).keys())
    assert seen[0]._state.db == "default"


@AWAITS_USERS
def test_what_changes_about_a_user_counts_at_once(table):
    user, session = logged_in(native.SessionStore)

    def found():
        return asyncio.run(aget_user(request_of(native.SessionStore(session.session_key))))

    assert found() == user
    User.objects.update(is_active=False)
    assert found() == AnonymousUser()
    User.objects.update(is_active=True, username="another name")
    assert found().username == "another name"
    User.objects.all().delete()
    assert found() == AnonymousUser()


@AWAITS_USERS
def test_the_test_of_a_site_sees_what_it_has_written(table):
    """What a ``TestCase`` writes is in a transaction that no other connection sees."""
    user, session = logged_in(native.SessionStore)
    assert session._rows_of("default") is not None
    setup_test_environment()
    try:
        assert session._rows_of("default") is None
        with asking_django() as asked:
            assert asyncio.run(aget_user(request_of(session))) == user
            assert asked.called
    finally:
        teardown_test_environment()


@AWAITS_USERS
def test_with_another_manager_or_database_django_is_asked(table):
    user, session = logged_in(native.SessionStore)
    assert session._rows_of("other") is None, "that is a file of SQLite"
    with mock.patch.object(UserManager, "get_queryset", lambda it: it._queryset_class(User).all()):
        user_query._queries.clear()
        row_query._queries.clear()
        with asking_django() as asked:
            assert asyncio.run(aget_user(request_of(session))) == user
        assert asked.called
    user_query._queries.clear()
    row_query._queries.clear()
    settings_dict = connections["default"].settings_dict
    native._close()
    with mock.patch.dict(settings_dict, ENGINE="site.schema_of_each_tenant"):
        assert session._rows_of("default") is None
    native._close()
    assert session._rows_of("default") is native._store(native.SessionStore)


class AwaitingBackend(ModelBackend):
    """A backend that has a way of its own to find a user."""

    async def aget_user(self, user_id):
        return None


@AWAITS_USERS
def test_an_awaiting_backend_of_the_site_is_asked(table):
    _, session = logged_in(native.SessionStore)
    path = f"{__name__}.AwaitingBackend"
    session["_auth_user_backend"] = path
    with override_settings(AUTHENTICATION_BACKENDS=[path]), asking_django() as asked:
        assert asyncio.run(aget_user(request_of(session))) == AnonymousUser()
    assert asked.called


@AWAITS_USERS
def test_users_need_not_be_where_sessions_are(table):
    class OtherStore(native.SessionStore):
        pass

    with override_settings(SESSION_STORE_URL=wanted("TEST_REDIS_URL")):
        user, session = logged_in(native.SessionStore)
        with asking_django() as asked:
            assert asyncio.run(aget_user(request_of(session))) == user
            assert not asked.called
        rows = session._rows_of("default")
        assert rows is not native._store(native.SessionStore)
        assert OtherStore()._rows_of("default") is rows, "each has connections of its own"
        asyncio.run(session.adelete())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(asked_of(rows))


@AWAITS_USERS
def test_users_are_beside_sessions_that_have_copies_in_a_cache(table):
    location = wanted("TEST_REDIS_URL")
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location}
    with override_settings(CACHES={"default": cache}, SESSION_STORE_URL="cached_db"):
        user, session = logged_in(native.SessionStore)
        assert session._rows_of("default") is native._store(native.SessionStore)
        with asking_django() as asked:
            assert asyncio.run(aget_user(request_of(session))) == user
            assert not asked.called
        session.delete()


async def asked_of(rows):
    return await rows.afind_row("SELECT CAST(1 AS char)", "")


@AWAITS_USERS
def test_a_database_that_cannot_be_asked_lets_nobody_out(table):
    user, session = logged_in(native.SessionStore)
    data = dict(session.items())
    with override_settings(SESSION_STORE_URL=wanted("TEST_REDIS_URL")):
        in_redis = native.SessionStore()
        in_redis.update(data)
        in_redis.save()
        settings_dict = connections["default"].settings_dict
        with (
            mock.patch.dict(settings_dict, HOST="127.0.0.1", PORT=str(free_port())),
            pytest.raises(StoreUnavailableError),
        ):
            asyncio.run(aget_user(request_of(in_redis)))
        native._close()
        assert asyncio.run(aget_user(request_of(in_redis))) == user
        in_redis.delete()


LoginRequiredMiddleware = getattr(django_session_rs.auth, "LoginRequiredMiddleware", object)
HAS_GATE = hasattr(middleware, "LoginRequiredMiddleware")
HAS_LOGIN_REQUIRED = pytest.mark.skipif(not HAS_GATE, reason="Django has it since 5.1")


async def inner(request):
    return HttpResponse((await request.auser()).get_username())


async def lobby(request):
    return HttpResponse("lobby")


lobby.login_required = False


async def _log_in_another(request):
    user = await get_user_model().objects.aget(username="another user")
    await auth.alogin(request, user, "django.contrib.auth.backends.ModelBackend")


async def _log_out(request):
    await auth.alogout(request)


async def _flush(request):
    await request.session.aflush()


def changing_view(step):
    """A view that asks who the user is after something has been done about it."""

    async def view(request):
        await step(request)
        return HttpResponse((await request.auser()).get_username())

    view.login_required = False
    return view


CHANGES = {"log_in": _log_in_another, "log_out": _log_out, "flush": _flush}


class Urls:
    urlpatterns = (
        path("inner", inner),
        path("lobby", lobby),
        *(path(name, changing_view(step)) for name, step in CHANGES.items()),
    )


def answers(kind, session, where, between=None, gate="LoginRequiredMiddleware"):
    """What a site under ASGI answers, behind Django's middleware or ours."""
    ours = "django_session_rs.auth"
    theirs = "django.contrib.auth.middleware"
    module = theirs if kind == "theirs" else ours
    names = [f"{module}.AuthenticationMiddleware", f"{module}.LoginRequiredMiddleware"]
    if between is not None:
        names.insert(1, f"{__name__}.{between}")
    if gate != "LoginRequiredMiddleware":
        names[-1] = f"{__name__}.{gate}_{kind}"

    async def main():
        handler = ASGIHandler()
        handler.load_middleware(is_async=True)
        request = AsyncRequestFactory().get(f"/{where}?a=b")
        request.session = session
        response = await handler.get_response_async(request)
        return response.status_code, response.headers.get("Location"), response.content

    options = {"ALLOWED_HOSTS": ["testserver"], "LOGIN_URL": "/log/in", "ROOT_URLCONF": Urls}
    with override_settings(MIDDLEWARE=names, **options):
        return asyncio.run(main())


@HAS_LOGIN_REQUIRED
def test_who_is_not_logged_in_is_sent_to_the_login_page(table):
    _, session = logged_in(native.SessionStore)
    found = {}
    for kind in ("theirs", "ours"):
        with asking_django() as asked:
            found[kind] = [
                answers(kind, native.SessionStore(key), where)
                for key in (session.session_key, None)
                for where in ("inner", "lobby", "nowhere")
            ]
        if kind == "ours":
            # For nobody there is nothing to ask the database.
            assert asked.call_count == 2
    assert found["ours"] == found["theirs"]
    assert [status for status, *_ in found["ours"]] == [200, 200, 404, 302, 200, 404]
    assert found["ours"][3][1] == "/log/in?next=/inner%3Fa%3Db"


def changing(step):
    """A middleware that does something about the user before anybody looks whether there is one."""

    @sync_and_async_middleware
    def factory(get_response):
        async def middleware(request):
            await step(request)
            return await get_response(request)

        return middleware

    return factory


@changing
async def looks_and_logs_out(request):
    await request.auser()
    await auth.alogout(request)


@changing
async def looks_and_flushes(request):
    await request.auser()
    await request.session.aflush()


@changing
async def looks_twice(request):
    await request.auser()
    await sync_to_async(lambda: request.user.is_authenticated)()


@changing
async def knows_a_token(request):
    request.user = User(username="token")


@changing
async def knows_nobody(request):
    request.user = AnonymousUser()


@changing
async def logs_in(request):
    await request.auser()
    user = await get_user_model().objects.aget(username="a user")
    await auth.alogin(request, user, "django.contrib.auth.backends.ModelBackend")


BETWEEN = {
    "looks_and_logs_out": [302, 302],
    "looks_and_flushes": [302, 302],
    "looks_twice": [200, 302],
    "knows_a_token": [200, 200],
    "knows_nobody": [302, 302],
    "logs_in": [200, 200],
}


@HAS_LOGIN_REQUIRED
@pytest.mark.parametrize("between", BETWEEN)
def test_whoever_logs_in_or_out_before_is_heard(table, between):
    found = {}
    for kind in ("theirs", "ours"):
        get_user_model().objects.all().delete()
        _, session = logged_in(native.SessionStore)
        keys = (session.session_key, None)
        found[kind] = [
            answers(kind, native.SessionStore(key), "lobby", between, "Gate")[:2] for key in keys
        ]
    assert found["ours"] == found["theirs"]
    assert [status for status, _ in found["ours"]] == BETWEEN[between]


@HAS_LOGIN_REQUIRED
@pytest.mark.parametrize("change", CHANGES)
def test_whoever_logs_in_or_out_in_a_view_is_heard(table, change):
    found = {}
    for kind in ("theirs", "ours"):
        get_user_model().objects.all().delete()
        _, session = logged_in(native.SessionStore)
        get_user_model().objects.create_user("another user")
        keys = (session.session_key, None)
        found[kind] = [answers(kind, native.SessionStore(key), change) for key in keys]
    assert found["ours"] == found["theirs"]
    # Django's `alogout` awaits the user before, which later ones are told too.
    expected = {"log_in": b"another user", "log_out": b"a user", "flush": b""}
    assert found["ours"][0][2] == expected[change]


def asking(base):
    """A gate for every view, whose login page is found in the database."""

    class Gate(base):
        def process_view(self, request, view_func, *rest):
            return super().process_view(request, inner, *rest)

        def get_login_url(self, view_func):
            return f"/log/in/{get_user_model().objects.count() >= 0}"

    return Gate


if HAS_GATE:

    class Gate_theirs(asking(middleware.LoginRequiredMiddleware)):  # noqa: N801
        """Django's."""

    class Gate_ours(asking(LoginRequiredMiddleware)):  # noqa: N801
        """Ours, whose twin is the same."""

        async def aprocess_view(self, request, view_func, *rest):
            return await super().aprocess_view(request, inner, *rest)


RENEWED = ["db", "cached_db", "cache", "file", "native"]


@pytest.mark.parametrize("engine", RENEWED)
@pytest.mark.parametrize("awaited", [False, True])
def test_of_two_requests_that_renew_a_session_both_are_let_in(table, engine, awaited, tmp_path):
    store_class = import_module(f"django_session_rs.backends.{engine}").SessionStore
    keys = {"SECRET_KEY": "a new key", "SECRET_KEY_FALLBACKS": [settings.SECRET_KEY]}
    locmem = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with override_settings(SESSION_FILE_PATH=str(tmp_path), CACHES=locmem):
        user, session = logged_in(store_class)
    key = session.session_key
    with override_settings(SESSION_FILE_PATH=str(tmp_path), CACHES=locmem, **keys):
        first, second = (request_of(store_class(key)) for _ in range(2))
        for request in (first, second):
            request.session.get("loaded")
        if awaited:

            async def both():
                return [await aget_user(first), await aget_user(second)]

            assert asyncio.run(both()) == [user, user]
        else:
            assert [get_user(first), get_user(second)] == [user, user]
        assert first.session.session_key != key
        first.session.save()
        renewed = store_class(first.session.session_key)
        assert renewed["_auth_user_hash"] == user.get_session_auth_hash()
        # Nothing is to be saved, and the cookie is what the first response makes it.
        assert second.session.session_key == key
        assert not second.session.modified
        assert not store_class().exists(key)
        # Who logs in is told that somebody has logged out meanwhile.
        with pytest.raises(UpdateError):
            second.session.cycle_key()
        renewed.flush()


@pytest.mark.parametrize("type_", ["varchar(20)[]", "varchar(20)[][]", "integer[3]", "text[]"])
def test_an_array_is_left_to_django(type_):
    assert row_query._reader_in_postgresql(type_, None) is None
    assert row_query._reader_in_postgresql(type_.partition("[")[0], None) is not None


@HAS_LOGIN_REQUIRED
def test_an_outage_of_the_users_is_none_of_theirs(table):
    _, session = logged_in(native.SessionStore)
    outage = StoreUnavailableError("unreachable")

    async def view(request):
        raise AssertionError

    async def main():
        request = request_of(native.SessionStore(session.session_key))
        await AuthenticationMiddleware(answer)(request)
        with (
            mock.patch.object(row_query.RowQuery, "afind", side_effect=outage),
            pytest.raises(StoreUnavailableError),
        ):
            await LoginRequiredMiddleware(view).process_view(request, view, (), {})
        assert request.session.outage is outage

    async def answer(request):
        return HttpResponse()

    asyncio.run(main())


def test_a_subclass_sees_the_response(sqlite_database):
    class Marking(AuthenticationMiddleware):
        def process_response(self, request, response):
            response["X-Seen"] = "yes"
            return response

    async def view(request):
        return HttpResponse()

    response = asyncio.run(Marking(view)(request_of(SessionStore())))
    assert response["X-Seen"] == "yes"


@HAS_LOGIN_REQUIRED
def test_what_a_model_does_of_its_own_is_done_in_a_thread(table):
    user, session = logged_in(native.SessionStore)

    def listener(instance, **_):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    post_init.connect(listener, sender=User)
    try:
        assert asyncio.run(aget_user(request_of(session))) == user
    finally:
        post_init.disconnect(listener, sender=User)


@HAS_LOGIN_REQUIRED
def test_it_needs_no_thread(table):
    _, session = logged_in(native.SessionStore)

    async def view(request):
        return HttpResponse()

    async def main():
        request = request_of(native.SessionStore(session.session_key))
        await AuthenticationMiddleware(view)(request)
        gate = LoginRequiredMiddleware(view)
        # To compile the query takes one.
        await gate.process_view(request, view, (), {})
        before = threading.active_count()
        assert await gate.process_view(request, view, (), {}) is None
        assert threading.active_count() == before

    asyncio.run(main())


@HAS_LOGIN_REQUIRED
def test_a_subclass_that_overrides_its_check_is_asked(sqlite_database):
    class Open(LoginRequiredMiddleware):
        def process_view(self, request, *view):
            return HttpResponse("open")

    class Closed(Open):
        async def aprocess_view(self, request, *view):
            return HttpResponse("closed")

    async def view(request):
        return HttpResponse()

    assert Open(view).process_view(None, view).content == b"open"
    assert asyncio.run(Closed(view).process_view(None, view)).content == b"closed"
    # A site under WSGI.
    assert Closed(lambda request: HttpResponse()).process_view(None, view).content == b"open"

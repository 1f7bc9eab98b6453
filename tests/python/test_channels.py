"""Sessions and users in Channels: as recorded, in consumers, and until they end."""

import asyncio
import contextlib
import json
import logging
import re
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import django
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.auth import AuthMiddleware as ChannelsAuthMiddleware
from channels.auth import AuthMiddlewareStack as ChannelsAuthMiddlewareStack
from channels.auth import login, logout
from channels.db import database_sync_to_async
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.sessions import SessionMiddleware as ChannelsSessionMiddleware
from channels.sessions import SessionMiddlewareStack as ChannelsSessionMiddlewareStack
from channels.testing import HttpCommunicator, WebsocketCommunicator
from conftest import SECRET_KEY, frozen
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.models import Session
from django.core.exceptions import SuspiciousOperation
from django.db import OperationalError, connection
from django.test import override_settings
from django.utils import timezone
from tally import each
from test_middleware import NATIVE_ENGINE
from vectors import case, plain, records

from django_session_rs.backends.db import SessionStore
from django_session_rs.channels import (
    SESSION_ENDED,
    AuthMiddleware,
    AuthMiddlewareStack,
    CookieMiddleware,
    SessionMiddleware,
    SessionMiddlewareStack,
    get_user,
)
from django_session_rs.twins import call

BACKEND = "django.contrib.auth.backends.ModelBackend"
NEW_KEY = re.compile("(?<==)[a-z0-9]{32}(?=;)")


def run(coroutine):
    """On a loop whose thread for databases is this one."""

    async def main():
        return await coroutine

    return async_to_sync(main)()


# As recorded.


async def write(session):
    session["b"] = 2


async def write_for_this_browser_only(session):
    session["b"] = 2
    session.set_expiry(0)


async def write_what_is_deleted(session):
    session["b"] = 2
    await database_sync_to_async(Session.objects.all().delete)()


async def read(session):
    session.get("a")


async def clear(session):
    session.clear()


APPS = {
    "aflush()": lambda session: call(session, "flush"),
    "aget('a')": read,
    "aset('b', 2)": write,
    "aset('b', 2) while another request deletes the row": write_what_is_deleted,
    "aset('b', 2); aset_expiry(0)": write_for_this_browser_only,
    "clear()": clear,
    "does not touch the session": lambda session: asyncio.sleep(0),
}


async def write_for_this_browser_only_async(session):
    await session.aset("b", 2)
    await session.aset_expiry(0)


async def write_what_is_deleted_async(session):
    await session.aset("b", 2)
    await database_sync_to_async(Session.objects.all().delete)()


# With Channels' own middleware only the asynchronous methods can be used.
THEIR_APPS = {
    **APPS,
    "aflush()": lambda session: session.aflush(),
    "aget('a')": lambda session: session.aget("a"),
    "aset('b', 2)": lambda session: session.aset("b", 2),
    "aset('b', 2) while another request deletes the row": write_what_is_deleted_async,
    "aset('b', 2); aset_expiry(0)": write_for_this_browser_only_async,
}
# What is another answer here, and why.
DEPARTURES = {
    # The session is loaded before `clear()`, so it is known not to exist: as after `flush()`, the
    # cookie is deleted. Channels finds out when it saves, and fails.
    "http/stale_cookie/clear": "http/stale_cookie/flush",
}


def replay(record, apps, messages, middleware):
    """Send these messages through the stack, after the record's app; returns what came out."""
    sent, info = [], {}

    async def app(scope, receive, send):
        info["cookies"] = scope["cookies"]
        info["scope_keys"] = sorted(scope)
        await apps[record["app"]](scope["session"])
        for message in messages or [{"type": "http.response.start", "status": 200}]:
            again = {"type": message["type"], "headers": []}
            if message["status"]:
                again["status"] = message["status"]
            if case(record).endswith("/start_without_headers"):
                del again["headers"]
            await send(again)
        info["modified_at_end"] = scope["session"].modified

    async def send(message):
        headers = [[name.decode(), value.decode()] for name, value in message.get("headers", [])]
        sent.append({"type": message["type"], "status": message.get("status"), "headers": headers})

    headers = [
        (bytes.fromhex(name), bytes.fromhex(value)) for name, value in record["cookie_header"]
    ]
    stack = middleware(app)
    if case(record) != "no_cookie_middleware":
        stack = CookieMiddleware(stack)
    scope = {"type": record["scope_type"], "headers": headers}
    raised = None
    try:
        run(stack(scope, None, send))
    except (AttributeError, SuspiciousOperation, ValueError) as error:
        raised = {"type": type(error).__name__, "message": str(error)}
    rows = [(row.session_key, row.get_decoded(), row.expire_date) for row in Session.objects.all()]
    return raised, info, sent, rows


def without_new_keys(record, raised, info, sent, rows):
    given = {row["session_key"] for row in record["rows"]}

    def mask(text):
        return NEW_KEY.sub(lambda key: key[0] if key[0] in given else "new", text)

    sent = [
        {**message, "headers": [[name, mask(value)] for name, value in message["headers"]]}
        for message in sent
    ]
    rows = sorted(
        (key if key in given else "new", json.dumps(data), moment) for key, data, moment in rows
    )
    return raised, info, sent, rows


def recorded_answer(record, answer):
    raises = answer.get("raises")
    if raises:
        raises = {**raises, "type": raises["type"].rpartition(".")[2]}
    rows = [
        (row["session_key"], plain(row["data"]), datetime.fromisoformat(row["expire_date"]))
        for row in answer["rows_after"]
    ]
    return without_new_keys(record, raises, answer["info"], answer["sent"], rows)


@pytest.mark.vectors
@pytest.mark.parametrize("middleware", [SessionMiddleware, ChannelsSessionMiddleware])
def test_the_stack_answers_as_recorded(middleware, sqlite_database):
    """Channels' own as well, so that the replay is known to ask the right questions."""
    family = {case(record): record for record in records("channels")}
    assert len(family) == 57
    theirs = middleware is ChannelsSessionMiddleware
    if theirs and django.VERSION < (5, 1):
        pytest.skip("a session that is not loaded cannot be used there, asynchronously")
    for record in each(family.values()):
        Session.objects.all().delete()
        options = {"SECRET_KEY": record["secret_key"], **record["settings"]}
        with override_settings(**options), frozen(record["now"]):
            for row in record["rows"]:
                Session.objects.create(
                    session_key=row["session_key"],
                    session_data=SessionStore().encode(plain(row["data"])),
                    expire_date=timezone.now() + timedelta(seconds=row["expires_in"]),
                )
            departs = not theirs and DEPARTURES.get(case(record))
            wanted = family[departs] if departs else record
            apps = THEIR_APPS if theirs else APPS
            answer = replay(record, apps, wanted["sent"], middleware)
            assert without_new_keys(record, *answer) == recorded_answer(record, wanted), record[
                "id"
            ]


# Sessions in consumers.


def stored(**data):
    store = SessionStore()
    store.update(data or {"a": 1})
    store.create()
    return store.session_key


def cookie(key):
    return [(b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode())]


def data_of(key):
    return SessionStore(key).load()


class SeedConsumer(AsyncWebsocketConsumer):
    """As in the documentation of Channels, but asynchronous."""

    async def connect(self):
        self.scope["session"]["seed"] = len(self.scope["session"].keys())
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        session = self.scope["session"]
        session["last"] = text_data
        if text_data == "save":
            await call(session, "save")
        await self.send(text_data=json.dumps(dict(session.items())))


class SyncConsumer(WebsocketConsumer):
    def connect(self):
        self.scope["session"]["seed"] = 1
        self.accept()

    def receive(self, text_data=None, bytes_data=None):
        self.scope["session"].save()
        self.send(text_data="saved")


class RandomSeedConsumer(AsyncWebsocketConsumer):
    """Of the documentation of Channels, which saves in the thread for databases."""

    async def connect(self):
        await self.accept()
        self.scope["session"]["seed"] = 7

    async def receive(self, text_data=None, bytes_data=None):
        await login(self.scope, await User.objects.aget(username="ada"), BACKEND)
        await database_sync_to_async(self.scope["session"].save)()
        await self.send(text_data=self.scope["session"].session_key)


class SyncLoginConsumer(WebsocketConsumer):
    """The same in its synchronous form."""

    def connect(self):
        self.accept()
        self.scope["session"]["seed"] = 7

    def receive(self, text_data=None, bytes_data=None):
        async_to_sync(login)(self.scope, User.objects.get(username="ada"), BACKEND)
        self.scope["session"].save()
        self.send(text_data=self.scope["session"].session_key)


@contextlib.asynccontextmanager
async def socket(application, key=None):
    headers = cookie(key) if key else []
    communicator = WebsocketCommunicator(application, "/", headers=headers)
    connected, _ = await communicator.connect(timeout=10)
    assert connected
    try:
        yield communicator
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await communicator.disconnect(timeout=10)


async def say(communicator, text):
    await communicator.send_to(text_data=text)
    return await communicator.receive_from(timeout=10)


def test_a_socket_s_session_is_used_without_awaiting_and_saved_when_it_says_so(sqlite_database):
    key = stored(a=1)

    async def talk():
        async with socket(SessionMiddlewareStack(SeedConsumer.as_asgi()), key) as communicator:
            assert json.loads(await say(communicator, "hello")) == {
                "a": 1,
                "last": "hello",
                "seed": 1,
            }
            assert await sync_to_async(data_of)(key) == {"a": 1}
            await say(communicator, "save")
            assert await sync_to_async(data_of)(key) == {"a": 1, "last": "save", "seed": 1}

    run(talk())
    assert data_of(key) == {"a": 1, "last": "save", "seed": 1}


def test_a_synchronous_consumer_works_as_ever(sqlite_database):
    key = stored(a=1)

    async def talk():
        application = SessionMiddlewareStack(SyncConsumer.as_asgi())
        async with socket(application, key) as communicator:
            assert await say(communicator, "save") == "saved"

    run(talk())
    assert data_of(key) == {"a": 1, "seed": 1}


@pytest.mark.parametrize("key", [None, "nosuchkeynosuchkeynosuchkey00000", "short"])
def test_a_socket_without_a_session_gets_an_empty_one(key, sqlite_database):
    async def talk():
        async with socket(SessionMiddlewareStack(SeedConsumer.as_asgi()), key) as communicator:
            return json.loads(await say(communicator, "save"))

    assert run(talk()) == {"last": "save", "seed": 0}
    [row] = Session.objects.all()
    assert row.session_key != key


def test_a_session_that_was_deleted_is_not_brought_back(sqlite_database):
    key = stored(a=1)

    async def talk():
        async with socket(SessionMiddlewareStack(SeedConsumer.as_asgi()), key) as communicator:
            await database_sync_to_async(Session.objects.all().delete)()
            await communicator.send_to(text_data="save")
            with pytest.raises(asyncio.TimeoutError):
                await communicator.receive_from(timeout=30)

    with pytest.raises(UpdateError):
        run(talk())
    assert not Session.objects.exists()


class CountConsumer(AsyncHttpConsumer):
    """A response, with the session saved as it starts."""

    async def handle(self, body):
        session = self.scope["session"]
        session["count"] = session.get("count", 0) + 1
        await self.send_response(200, str(session["count"]).encode())


class LongPollConsumer(AsyncHttpConsumer):
    """A response whose first bytes come late, as in the documentation of Channels."""

    async def handle(self, body):
        session = self.scope["session"]
        session["waiting"] = True
        if self.scope["path"] == "/saves":
            await call(session, "save")
        SEEN.append(await sync_to_async(data_of)(session.session_key))
        await self.send_response(200, b"at last")


SEEN = []


async def request(application, path="/", key=None):
    communicator = HttpCommunicator(application, "GET", path, headers=cookie(key) if key else [])
    return await communicator.get_response(timeout=10)


def cookies(response):
    return [value.decode() for name, value in response["headers"] if name == b"Set-Cookie"]


def test_the_session_is_saved_as_a_response_starts(sqlite_database):
    application = SessionMiddlewareStack(CountConsumer.as_asgi())
    response = run(request(application))
    [line] = cookies(response)
    key = line.removeprefix("sessionid=").partition(";")[0]
    assert data_of(key) == {"count": 1}
    assert run(request(application, key=key))["body"] == b"2"
    assert data_of(key) == {"count": 2}


def test_a_long_poll_saves_before_it_waits_if_it_says_so(sqlite_database):
    SEEN.clear()
    application = SessionMiddlewareStack(LongPollConsumer.as_asgi())
    for path in ("/", "/saves"):
        key = stored(a=1)
        run(request(application, path, key))
        assert data_of(key) == {"a": 1, "waiting": True}
    assert SEEN == [{"a": 1}, {"a": 1, "waiting": True}]


def test_loading_ahead_is_not_access():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["session"].accessed, scope["session"].modified))
        assert type(scope["session"]).__name__ == "SessionStore"

    run(SessionMiddlewareStack(app)({"type": "websocket", "headers": cookie("x" * 32)}, None, None))
    assert seen == [(False, False)]


def test_the_session_of_a_middleware_around_it_is_left_alone(sqlite_database):
    async def app(scope, receive, send):
        scope["session"]["inner"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    messages = []

    async def send(message):
        messages.append(message)

    for inner in (SessionMiddleware, ChannelsSessionMiddleware):
        messages.clear()
        Session.objects.all().delete()
        stack = SessionMiddlewareStack(inner(app))
        run(stack({"type": "http", "headers": []}, None, send))
        [message] = messages
        if inner is SessionMiddleware:
            assert len(message["headers"]) == 1
            assert Session.objects.count() == 1


def test_scopes_without_what_is_needed_are_refused():
    async def app(scope, receive, send):
        raise AssertionError

    with pytest.raises(ValueError, match="headers key"):
        run(SessionMiddlewareStack(app)({"type": "lifespan"}, None, None))
    with pytest.raises(ValueError, match="CookieMiddleware"):
        run(SessionMiddleware(app)({"type": "http"}, None, None))
    with pytest.raises(ValueError, match="SessionMiddleware"):
        run(AuthMiddleware(app)({"type": "http"}, None, None))
    for seconds in (0, -1):
        with pytest.raises(ValueError, match="seconds greater than zero"):
            AuthMiddlewareStack(app, revalidate=seconds)


def kill(connection):
    """Have the database server end the connection, as a restart does."""
    another = connection.copy()
    with (
        contextlib.closing(another),
        another.cursor() as admin,
        connection.cursor() as cursor,
    ):
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_backend_pid()")
            admin.execute("SELECT pg_terminate_backend(%s)", cursor.fetchone())
        else:
            cursor.execute("SELECT CONNECTION_ID()")
            admin.execute("KILL %s", cursor.fetchone())


def test_a_connection_that_the_server_has_closed_is_opened_anew(database):
    if database.vendor == "sqlite":
        pytest.skip("there is no server that could close it")
    key = stored(a=1)
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["session"]["a"])

    kill(database)
    run(SessionMiddlewareStack(app)({"type": "websocket", "headers": cookie(key)}, None, None))
    assert seen == [1]


THREADLESS = """
import asyncio, threading

started = []
start = threading.Thread.start
threading.Thread.start = lambda thread: (started.append(thread), start(thread))

import django
from django.conf import settings

settings.configure(SECRET_KEY="x" * 50, SESSION_ENGINE="native_engine")
django.setup()

import native_engine
from django_session_rs.channels import SessionMiddlewareStack


async def app(scope, receive, send):
    session = scope["session"]
    session["count"] = session.get("count", 0) + 1
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    else:
        await session.asave()
    counts.append(session["count"])


counts = []
lines = []


async def send(message):
    lines.extend(value.decode() for _, value in message["headers"])


async def main():
    stack = SessionMiddlewareStack(app)
    await stack({"type": "http", "headers": []}, None, send)
    cookie = lines[0].partition(";")[0].encode()
    for kind in ("http", "websocket", "http"):
        await stack({"type": kind, "headers": [(b"cookie", cookie)]}, None, send)
    assert counts == [1, 2, 3, 4], counts
    assert native_engine.THREADS == {threading.get_ident()}


asyncio.run(main())
print(len(started))
"""


def test_no_thread_is_started_with_an_engine_of_asynchronous_methods(tmp_path):
    (tmp_path / "native_engine.py").write_text(NATIVE_ENGINE)
    done = subprocess.run(
        [sys.executable, "-c", THREADLESS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.returncode, done.stderr
    assert done.stdout.strip() == "0"


def test_without_channels_the_error_names_what_to_install(tmp_path):
    script = (
        "import sys; sys.modules['channels'] = None\n"
        "from django.conf import settings; settings.configure(); import django; django.setup()\n"
        "import django_session_rs.channels"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 'pip install "django-session-rs[channels]"' in done.stderr.splitlines()[-1]


# Users.


def login_row(user, secret_key=SECRET_KEY, **data):
    """A session of this user, as a login under this key stores it."""
    with override_settings(SECRET_KEY=secret_key):
        user_hash = user.get_session_auth_hash()
    entries = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: BACKEND,
        HASH_SESSION_KEY: user_hash,
    }
    return stored(**entries, **data)


@pytest.fixture
def user(sqlite_database):
    return User.objects.create_user("ada", password="x")


class WhoConsumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        scope, session = self.scope, self.scope["session"]
        if text_data == "log in":
            await login(scope, await User.objects.aget(username="ada"), BACKEND)
            await call(session, "save")
        elif text_data == "log out":
            await logout(scope)
        elif text_data == "close":
            await self.close(4000)
            return
        if text_data != "quiet":
            await self.send(text_data=f"{scope['user']} {session.session_key}")

    async def disconnect(self, code):
        CODES.append(code)


CODES = []


def who(key, stack=AuthMiddlewareStack, **options):
    async def talk():
        async with socket(stack(WhoConsumer.as_asgi(), **options), key) as communicator:
            return (await say(communicator, "who")).split()[0]

    return run(talk())


def test_the_user_of_the_session_is_in_the_scope(user):
    assert who(login_row(user)) == "ada"
    assert who(stored(a=1)) == "AnonymousUser"
    assert who(None) == "AnonymousUser"


def test_a_user_who_is_gone_is_nobody_and_the_session_stays(user):
    key = login_row(user)
    User.objects.update(is_active=False)
    assert who(key) == "AnonymousUser"
    assert Session.objects.filter(session_key=key).exists()


def test_another_password_ends_the_session(user):
    key = login_row(user)
    user.set_password("y")
    user.save()
    assert who(key) == "AnonymousUser"
    assert not Session.objects.filter(session_key=key).exists()


@pytest.mark.parametrize("consumer", [RandomSeedConsumer, SyncLoginConsumer])
def test_the_consumers_of_the_documentation_of_channels_work(consumer, user):
    async def talk():
        async with socket(AuthMiddlewareStack(consumer.as_asgi())) as communicator:
            return await say(communicator, "log in")

    data = data_of(run(talk()))
    assert (data["seed"], data[SESSION_KEY]) == (7, str(user.pk))


def test_channels_own_user_middleware_works_inside_our_session_middleware(user):
    def stack(inner):
        return SessionMiddlewareStack(ChannelsAuthMiddleware(inner))

    assert who(login_row(user), stack) == "ada"


def test_it_works_inside_channels_own_session_middleware(user):
    def stack(inner):
        return ChannelsSessionMiddlewareStack(AuthMiddleware(inner))

    assert who(login_row(user), stack) == "ada"
    assert issubclass(AuthMiddleware, ChannelsAuthMiddleware)
    assert issubclass(SessionMiddleware, ChannelsSessionMiddleware)


ROTATED = {
    "SECRET_KEY": "a newer secret key, which is as long",
    "SECRET_KEY_FALLBACKS": [SECRET_KEY],
}


def test_a_rotated_key_keeps_a_socket_s_user_and_leaves_the_session_for_the_next_request(user):
    key = login_row(user)
    before = data_of(key)
    with override_settings(**ROTATED):
        assert who(key) == "ada"
        assert data_of(key) == before
        # Channels' own deletes it.
        assert who(key, ChannelsAuthMiddlewareStack) == "AnonymousUser"
    assert not Session.objects.exists()


def test_a_rotated_key_gives_an_http_client_a_new_session_as_django_does(user):
    key = login_row(user, a=1)

    async def app(scope, receive, send):
        assert scope["user"].username == "ada"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with override_settings(**ROTATED):
        [line] = cookies(run(request(AuthMiddlewareStack(app), key=key)))
        new = line.removeprefix("sessionid=").partition(";")[0]
        assert new != key
        assert data_of(key) == {}
        assert data_of(new)[HASH_SESSION_KEY] == user.get_session_auth_hash()
        assert data_of(new)["a"] == 1
    with override_settings(SECRET_KEY=ROTATED["SECRET_KEY"]):
        assert who(new) == "ada"


def test_of_two_requests_that_renew_a_session_both_keep_their_user(user):
    key = login_row(user)

    async def found():
        sessions = [SessionStore(key) for _ in range(2)]
        for session in sessions:
            await sync_to_async(session.get)("loaded")
        scopes = [{"type": "http", "session": session} for session in sessions]
        assert [await get_user(scope) for scope in scopes] == [user, user]
        return sessions

    with override_settings(**ROTATED):
        first, second = run(found())
    assert first.session_key != key
    assert second.session_key == key
    assert not second.modified


def test_channels_own_login_and_logout_work_with_the_session(user):
    key = stored(cart=[1])

    async def talk():
        async with socket(AuthMiddlewareStack(WhoConsumer.as_asgi()), key) as communicator:
            name, new = (await say(communicator, "log in")).split()
            assert name == "ada"
            assert new != key
            data = await sync_to_async(data_of)(new)
            assert (data[SESSION_KEY], data["cart"]) == (str(user.pk), [1])
            assert await say(communicator, "log out") == "AnonymousUser None"
            assert await sync_to_async(data_of)(new) == {}

    run(talk())


awaited_in = []


class Backend:
    """One with an asynchronous method of its own, on the loop."""

    async def aget_user(self, user_id):
        awaited_in.append(threading.get_ident())
        return User(pk=user_id, username="from elsewhere", password="x")

    def get_user(self, user_id):
        raise AssertionError


def test_a_backend_s_own_asynchronous_method_is_awaited(sqlite_database):
    path = f"{__name__}.Backend"
    known = User(pk=7, password="x")
    key = stored(
        **{
            SESSION_KEY: "7",
            BACKEND_SESSION_KEY: path,
            HASH_SESSION_KEY: known.get_session_auth_hash(),
        }
    )
    names = []

    async def app(scope, receive, send):
        names.append((scope["user"].username, threading.get_ident()))

    with override_settings(AUTHENTICATION_BACKENDS=[path]):
        scope = {"type": "websocket", "headers": cookie(key)}
        asyncio.run(AuthMiddlewareStack(app)(scope, None, None))
    [(name, loop)] = names
    assert name == "from elsewhere"
    assert awaited_in == [loop]


# Looking again while a socket is open.

OFTEN = 0.05


async def closed(communicator):
    """The code that the socket is closed with."""
    message = await communicator.receive_output(timeout=20)
    assert message["type"] == "websocket.close"
    return message["code"]


async def still_open(communicator, checks=6):
    assert await communicator.receive_nothing(timeout=checks * OFTEN)
    return (await say(communicator, "who")).split()[0]


def end_by_logout(user, key):
    Session.objects.filter(session_key=key).delete()


def end_by_expiry(user, key):
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def end_by_password(user, key):
    user.set_password("y")
    user.save()


def end_by_deactivation(user, key):
    User.objects.update(is_active=False)


def end_by_deletion(user, key):
    user.delete()


def end_by_another_user(user, key):
    other = User.objects.create_user("grace", password="z")
    store = SessionStore(key)
    store[SESSION_KEY] = str(other.pk)
    store[HASH_SESSION_KEY] = other.get_session_auth_hash()
    store.save()


def end_by_clearing(user, key):
    store = SessionStore(key)
    store.clear()
    store.save()


ENDS = [
    end_by_another_user,
    end_by_clearing,
    end_by_deactivation,
    end_by_deletion,
    end_by_expiry,
    end_by_logout,
    end_by_password,
]


@pytest.mark.parametrize("end", ENDS)
def test_a_socket_is_closed_when_its_session_or_user_ends(end, user):
    CODES.clear()
    key = login_row(user)
    stack = AuthMiddlewareStack(WhoConsumer.as_asgi(), revalidate=OFTEN)

    async def talk():
        communicator = WebsocketCommunicator(stack, "/", headers=cookie(key))
        await communicator.connect(timeout=10)
        assert await still_open(communicator) == "ada"
        await sync_to_async(end)(user, key)
        assert await closed(communicator) == SESSION_ENDED == 4401
        await communicator.wait(timeout=10)
        assert communicator.output_queue.empty()

    run(talk())
    # The consumer was told, too.
    assert CODES == [4401]


def test_the_session_alone_can_be_watched_and_the_code_chosen(sqlite_database):
    key = stored(a=1)
    stack = SessionMiddlewareStack(SeedConsumer.as_asgi(), revalidate=OFTEN, close_code=3000)

    async def talk():
        communicator = WebsocketCommunicator(stack, "/", headers=cookie(key))
        await communicator.connect(timeout=10)
        assert await communicator.receive_nothing(timeout=4 * OFTEN)
        await sync_to_async(end_by_logout)(None, key)
        assert await closed(communicator) == 3000
        await communicator.wait(timeout=10)

    run(talk())


def test_sockets_without_a_session_or_with_one_of_their_own_doing_stay_open(user):
    stack = AuthMiddlewareStack(WhoConsumer.as_asgi(), revalidate=OFTEN)

    async def talk():
        async with socket(stack) as communicator:
            assert await still_open(communicator) == "AnonymousUser"
            await say(communicator, "log in")
            assert await still_open(communicator) == "ada"
            await say(communicator, "log out")
            assert await still_open(communicator) == "AnonymousUser"

    run(talk())


def test_a_login_on_the_socket_is_watched_from_then_on(user):
    stack = AuthMiddlewareStack(WhoConsumer.as_asgi(), revalidate=OFTEN)

    async def talk():
        communicator = WebsocketCommunicator(stack, "/", headers=[])
        await communicator.connect(timeout=10)
        await say(communicator, "log in")
        assert await still_open(communicator) == "ada"
        await sync_to_async(end_by_password)(user, None)
        assert await closed(communicator) == 4401
        await communicator.wait(timeout=10)

    run(talk())


def test_a_socket_survives_a_key_rotation_while_it_is_open(user):
    key = login_row(user)
    stack = AuthMiddlewareStack(WhoConsumer.as_asgi(), revalidate=OFTEN)

    async def talk():
        async with socket(stack, key) as communicator:
            with override_settings(**ROTATED):
                assert await still_open(communicator) == "ada"

    run(talk())


@contextlib.contextmanager
def impatience():
    """With Django's connection to SQLite hardly waiting for a lock."""
    options = connection.settings_dict["OPTIONS"]
    patience, options["timeout"] = options["timeout"], 0.01
    connection.close()
    try:
        yield
    finally:
        options["timeout"] = patience
        connection.close()


@contextlib.contextmanager
def locked():
    with contextlib.closing(sqlite3.connect(settings.DATABASES["default"]["NAME"])) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def test_an_outage_closes_nothing_and_is_over_when_it_is_over(user, caplog):
    key = login_row(user)
    stack = AuthMiddlewareStack(WhoConsumer.as_asgi(), revalidate=OFTEN)

    async def talk():
        communicator = WebsocketCommunicator(stack, "/", headers=cookie(key))
        await communicator.connect(timeout=10)
        with locked():
            while len(failures(caplog)) < 3:
                assert await still_open(communicator) == "ada"
        await sync_to_async(end_by_logout)(None, key)
        assert await closed(communicator) == 4401
        await communicator.wait(timeout=10)

    caplog.set_level(logging.WARNING)
    with impatience():
        run(talk())
    text = "A WebSocket's session could not be checked: django.db.utils.OperationalError"
    assert {record.getMessage() for record in failures(caplog)} == {text}
    assert key not in caplog.text


def test_an_outage_makes_nobody_anonymous(user):
    key = login_row(user)

    async def app(scope, receive, send):
        raise AssertionError

    with impatience(), locked():
        for kind in ("websocket", "http"):
            with pytest.raises(OperationalError):
                run(AuthMiddlewareStack(app)({"type": kind, "headers": cookie(key)}, None, None))
    assert who(key) == "ada"


def failures(caplog):
    return [record for record in caplog.records if record.name == "django_session_rs.channels"]


def test_nothing_is_left_running_when_a_socket_is_gone(user):
    key = login_row(user)
    stack = AuthMiddlewareStack(WhoConsumer.as_asgi(), revalidate=OFTEN)

    async def talk():
        before = asyncio.all_tasks()
        async with socket(stack, key) as communicator:
            await still_open(communicator)
        async with socket(stack, key) as communicator:
            await communicator.send_to(text_data="close")
            assert await closed(communicator) == 4000
        communicator = WebsocketCommunicator(stack, "/", headers=cookie(key))
        await communicator.connect(timeout=10)
        communicator.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await communicator.future
        # It was not accepted: nothing to check.
        refused = AuthMiddlewareStack(refuse, revalidate=OFTEN)
        communicator = WebsocketCommunicator(refused, "/", headers=cookie(key))
        assert await communicator.connect(timeout=10) == (False, 4003)
        await communicator.wait(timeout=10)
        return asyncio.all_tasks() - before

    assert run(talk()) == set()


async def refuse(scope, receive, send):
    await send({"type": "websocket.close", "code": 4003})


def test_an_application_may_stop_waiting_and_lose_no_message(user):
    key = login_row(user)
    heard = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            try:
                message = await asyncio.wait_for(receive(), OFTEN / 5)
            except (TimeoutError, asyncio.TimeoutError):
                continue
            heard.append(message)
            if message["type"] == "websocket.disconnect":
                return

    async def talk():
        communicator = WebsocketCommunicator(
            AuthMiddlewareStack(app, revalidate=OFTEN), "/", headers=cookie(key)
        )
        await communicator.connect(timeout=10)
        for number in range(50):
            await communicator.send_to(text_data=str(number))
            await asyncio.sleep(OFTEN / 10)
        await sync_to_async(end_by_logout)(None, key)
        assert await closed(communicator) == 4401
        await communicator.wait(timeout=10)

    run(talk())
    assert [message.get("text") for message in heard] == [*map(str, range(50)), None]
    assert heard[-1] == {"type": "websocket.disconnect", "code": 4401}


def test_a_busy_application_s_messages_stop_when_the_session_ends(user):
    key = login_row(user)

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(OFTEN / 5)

    async def talk():
        communicator = WebsocketCommunicator(
            AuthMiddlewareStack(app, revalidate=OFTEN), "/", headers=cookie(key)
        )
        await communicator.connect(timeout=10)
        await sync_to_async(end_by_logout)(None, key)
        types = []
        while not types or types[-1] != "websocket.close":
            types.append((await communicator.receive_output(timeout=10))["type"])
        assert await communicator.receive_nothing(timeout=4 * OFTEN)
        communicator.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await communicator.future

    run(talk())


@pytest.mark.parametrize("status", [200, 500])
def test_http_is_not_watched(status, user):
    key = login_row(user)

    async def app(scope, receive, send):
        await sync_to_async(end_by_logout)(None, key)
        await asyncio.sleep(4 * OFTEN)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"through"})

    response = run(request(AuthMiddlewareStack(app, revalidate=OFTEN), key=key))
    assert response["body"] == b"through"


def test_a_stored_change_that_another_made_is_not_saved_over_silently(sqlite_database):
    """What `http.response.start` cannot save is said, as by Channels."""
    key = stored(a=1)

    async def app(scope, receive, send):
        scope["session"]["b"] = 2
        await sync_to_async(end_by_logout)(None, key)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    scope = {"type": "http", "headers": cookie(key)}
    with pytest.raises(SuspiciousOperation, match="deleted before the request completed"):
        run(SessionMiddlewareStack(app)(scope, None, None))


# The documentation.

PAGE = Path(__file__).parents[2] / "docs" / "channels.md"


def test_the_page_s_example_does_what_it_says(user):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found = {"__name__": "asgi"}
    exec(compile(code, str(PAGE), "exec"), found)
    key = login_row(user)

    async def talk():
        communicator = WebsocketCommunicator(found["application"], "/game/", headers=cookie(key))
        assert await communicator.connect(timeout=10) == (True, None)
        assert await say(communicator, "e4") == "ada: 1"
        assert await say(communicator, "c5") == "ada: 2"
        await communicator.disconnect(timeout=10)

    run(talk())
    data = data_of(key)
    assert (data["seed"], data["moves"]) == (42, ["e4", "c5"])

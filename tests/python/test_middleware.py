"""The session middleware: Django's answers to the byte, on the event loop, and outages."""

import asyncio
import json
import logging
import random
import re
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import django
import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from conftest import frozen
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoMiddleware
from django.contrib.sessions.models import Session
from django.core import signals
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import OperationalError, close_old_connections, connection
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils import timezone
from random_views import KEY, draw, step
from tally import each
from vectors import case, plain, records, release

from django_session_rs.backends import db
from django_session_rs.exceptions import StoreUnavailableError
from django_session_rs.middleware import SessionMiddleware

OURS = "django_session_rs.middleware.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


@pytest.fixture(params=["sync", "async"])
def mode(request):
    return request.param


# What every release answered, asked of the one that is installed.

NEW_KEY = re.compile("(?<==)[a-z0-9]{32}(?=;)")


@dataclass
class Answer:
    """What the client reads and what is stored; status 400 stands for an interruption."""

    status: int
    vary: str | None
    set_cookie: list
    rows: list = field(default_factory=list)


@dataclass
class Change:
    """What a release changed: which records of older releases, and how they would read in it."""

    since: tuple
    concerns: object
    apply: object


def dates_and_samesite(answer, record):
    for number, line in enumerate(answer.set_cookie):
        base, secure, _ = re.sub(r"-(Jan|Nov|Dec)-", r" \1 ", line).partition("; Secure")
        answer.set_cookie[number] = f"{base}; SameSite=Lax{secure}"


def deleted_with_secure(answer, record):
    answer.set_cookie[0] += "; Secure"


def vary_on_cookie(answer, record):
    assert answer.vary is None
    answer.vary = "Cookie"


def vary_on_all(answer, record):
    answer.vary = "*"


def unsaved(answer, record):
    answer.set_cookie.clear()
    answer.rows = [
        (row["session_key"], row["data"], record["now"] + row["expires_in"])
        for row in record["rows"]
    ]


def deletes(answer):
    return any('=""' in line for line in answer.set_cookie)


def prefixed(answer, record):
    return deletes(answer) and answer.set_cookie[0].startswith(("__Secure-", "__Host-"))


CHANGES = [
    Change((2, 1), lambda a, r: a.set_cookie, dates_and_samesite),
    Change((2, 2), prefixed, deleted_with_secure),
    Change((3, 0), lambda a, r: deletes(a), vary_on_cookie),
    Change((3, 0), lambda a, r: "*" in (a.vary or "") and a.vary != "*", vary_on_all),
    Change((4, 2), lambda a, r: r["status"] > 500 and a.set_cookie and not deletes(a), unsaved),
    Change((5, 2, 14), lambda a, r: a.set_cookie and a.vary is None, vary_on_cookie),
]
# Calls that raised in an old release, where the newer record takes the place of the older one.
# 3.1: SameSite may be None. 4.1: an expiry that is a date is stored as text.
RAISED = {
    (3, 1): {"settings/samesite_None", "settings/samesite_None_delete"},
    (4, 1): {"no_cookie/exptd", "valid_cookie/exptd"},
}


def version_of(text):
    return tuple(int(part) for part in text.split("."))


FAMILY = [*records("middleware"), *records("middleware_engines")]
VERSIONS = sorted({record["django_version"] for record in FAMILY}, key=version_of)


def has_happened(since):
    """Whether the installed Django has it; what 5.2.14 changed, 6.0 changed in 6.0.5."""
    if since == (5, 2, 14):
        return django.VERSION >= (6, 0, 5) or (5, 2, 14) <= django.VERSION < (6, 0)
    return since <= django.VERSION


def expected(record, newest):
    """The record as it would read for the installed Django, and how many changes that took."""
    number = 0
    for since, cases in RAISED.items():
        if release(record) < since and case(record) in cases:
            record, number = newest, 1
    raised = record.get("raises", {}).get("type", "")
    assert not raised or raised.endswith(("SessionInterrupted", "SuspiciousOperation"))
    answer = Answer(
        400 if raised else record["response_status"] or 200,
        record.get("vary"),
        list(record.get("set_cookie", [])),
        [
            (r["session_key"], r["data"], datetime.fromisoformat(r["expire_date"]).timestamp())
            for r in record["rows_after"]
        ],
    )
    version = version_of(record["django_version"])
    for change in CHANGES:
        if (
            version < change.since
            and has_happened(change.since)
            and change.concerns(answer, record)
        ):
            change.apply(answer, record)
            number += 1
    if version >= (5, 2, 14) and not has_happened((5, 2, 14)) and changed_vary(record):
        answer.vary = None
        number += 1
    return masked(answer, record), number


def changed_vary(record):
    """Whether only the rule of 5.2.14 made the response vary: saved without access."""
    untouched = record["view"] in {
        "does not touch the session",
        "session.is_empty()",
        "session.modified = True (nothing set)",
    }
    return untouched and record["set_cookie"] and '=""' not in record["set_cookie"][0]


def masked(answer, record):
    """New keys are random, and a signed cookie is another one with each release's hash."""
    given = {row["session_key"] for row in record["rows"]}

    def mask(line):
        if record["backend"] == "signed_cookies":
            return re.sub(r"(?<=sessionid=)[^;\"]+", "signed", line)
        return NEW_KEY.sub(lambda key: key[0] if key[0] in given else "new", line)

    answer.set_cookie = [mask(line) for line in answer.set_cookie]
    answer.rows = sorted(
        (key if key in given else "new", json.dumps(data, sort_keys=True), moment)
        for key, data, moment in answer.rows
    )
    return answer


VIEWS = {
    "del request.session": lambda s: None,
    "deletes every key one by one": lambda s: [s.pop(key) for key in list(s.keys())],
    "does not touch the session": lambda s: None,
    "row is deleted by another request, then session['b'] = 2": lambda s: (
        s.get("a"),
        Session.objects.all().delete(),
        s.__setitem__("b", 2),
    ),
    "session.clear()": lambda s: s.clear(),
    "session.cycle_key()": lambda s: s.cycle_key(),
    "session.flush()": lambda s: s.flush(),
    "session.get('a')": lambda s: s.get("a"),
    "session.is_empty()": lambda s: s.is_empty(),
    "session.modified = True (nothing set)": lambda s: setattr(s, "modified", True),
    "session['b'] = 2": lambda s: s.__setitem__("b", 2),
    "session['b']=2; set_expiry(-10)": lambda s: (s.__setitem__("b", 2), s.set_expiry(-10)),
    "session['b']=2; set_expiry(0)": lambda s: (s.__setitem__("b", 2), s.set_expiry(0)),
    "session['b']=2; set_expiry(300)": lambda s: (s.__setitem__("b", 2), s.set_expiry(300)),
    "session['b']=2; set_expiry(timedelta(days=40))": lambda s: (
        s.__setitem__("b", 2),
        s.set_expiry(timedelta(days=40)),
    ),
    "session['l'].append(1)  (no modified flag)": lambda s: s["l"].append(1),
}


async def ask(middleware, request):
    return await middleware(request)


def replay(record, mode):
    for row in record["rows"]:
        Session.objects.create(
            session_key=row["session_key"],
            session_data=db.SessionStore().encode(plain(row["data"])),
            expire_date=timezone.now() + timedelta(seconds=row["expires_in"]),
        )
    request = HttpRequest()
    if record["cookie"] is not None:
        request.COOKIES[settings.SESSION_COOKIE_NAME] = record["cookie"]

    def view(request):
        response = HttpResponse(status=record["status"])
        if case(record).startswith("vary/"):
            response["Vary"] = case(record).removeprefix("vary/")
        VIEWS[record["view"]](request.session)
        if record["view"] == "del request.session":
            del request.session
        return response

    async def aview(request):
        return await sync_to_async(view)(request)

    try:
        if mode == "sync":
            response = SessionMiddleware(view)(request)
        else:
            middleware = SessionMiddleware(aview)
            assert iscoroutinefunction(middleware)
            response = async_to_sync(ask)(middleware, request)
    except SessionInterrupted:
        response = HttpResponse(status=400)
    return Answer(
        response.status_code,
        response.get("Vary"),
        [morsel.OutputString() for morsel in response.cookies.values()],
        [
            (row.session_key, row.get_decoded(), row.expire_date.timestamp())
            for row in Session.objects.all()
        ],
    )


ENGINES = {
    "cache": "django.contrib.sessions.backends.cache",
    "db": "django_session_rs.backends.db",
    "file": "django.contrib.sessions.backends.file",
    "signed_cookies": "django.contrib.sessions.backends.signed_cookies",
}
# How many records of each release say what 6.1 does, and how many after changes.
# tests/rust/middleware.rs counts those of the database engine.
COUNTS = {
    "1.11.29": (24 + 11, 68 + 14),
    "2.2.28": (59 + 22, 41 + 3),
    "3.2.25": (87 + 25, 13),
    "4.2.30": (95 + 25, 5),
    "5.2.19": (100 + 25, 0),
    "6.1.3": (100 + 25, 0),
}


@pytest.mark.vectors
@pytest.mark.parametrize("version", VERSIONS)
def test_what_each_release_answered_is_our_answer_after_what_changed_since(
    version, mode, sqlite_database, tmp_path
):
    newest = {case(record): record for record in FAMILY if release(record) == (6, 1)}
    needed = Counter()
    for record in each(record for record in FAMILY if record["django_version"] == version):
        Session.objects.all().delete()
        caches["default"].clear()
        wanted, changes = expected(record, newest[case(record)])
        options = {
            "SECRET_KEY": record["secret_key"],
            "SESSION_ENGINE": ENGINES[record["backend"]],
            "SESSION_FILE_PATH": str(tmp_path),
            **record["settings"],
        }
        with override_settings(**options), frozen(record["now"]):
            assert masked(replay(record, mode), record) == wanted, record["id"]
        needed[changes > 0] += 1
    if has_happened((5, 2, 14)):
        assert (needed[False], needed[True]) == COUNTS[version]
    if version_of(version)[:2] == django.VERSION[:2]:
        assert not needed[True]


# Random views, answered by Django's middleware and by ours.


class Steps:
    """The view of the case that is being asked about."""

    def __init__(self):
        self.case = None
        self.broken = False

    def __call__(self, request):
        for one in self.case["view"]:
            try:
                step(request.session, *one)
            except UpdateError:
                pass
            except (OverflowError, TypeError, ValueError):
                self.broken = True
        response = HttpResponse(status=self.case["status"])
        if self.case["vary_before"]:
            response["Vary"] = self.case["vary_before"]
        return response


steps = Steps()


async def aget(client, address):
    return await client.get(address)


def cookies_of(header):
    from django.http import parse_cookie

    return {name: value for name, value in parse_cookie(header).items() if name}


def answer_to(drawn, client_class):
    Session.objects.all().delete()
    for row in drawn["rows"]:
        data = row.get("session_data", db.SessionStore().encode(row["data"]))
        Session.objects.create(
            session_key=row["session_key"],
            session_data=data,
            expire_date=timezone.now() + timedelta(seconds=row["expires_in"]),
        )
    steps.case = drawn
    client = client_class(raise_request_exception=False)
    for name, value in cookies_of(drawn["headers"]).items():
        client.cookies[name] = value
    if client_class is AsyncClient:
        response = async_to_sync(aget)(client, "/steps")
    else:
        response = client.get("/steps")
    answer = Answer(
        response.status_code,
        response.get("Vary"),
        [morsel.OutputString() for morsel in response.cookies.values()],
        [
            (row.session_key, row.get_decoded(), row.expire_date.timestamp())
            for row in Session.objects.all()
        ],
    )
    return masked(answer, {**drawn, "backend": "db"})


@pytest.mark.parametrize(
    ("engine", "number"), [(ENGINES["db"], 300), ("django.contrib.sessions.backends.db", 100)]
)
def test_random_views_get_django_s_answer(engine, number, sqlite_database, caplog):
    caplog.set_level(logging.CRITICAL, "django")
    rng = random.Random(20240229)
    seen = Counter()
    with connection.cursor() as cursor:
        # Nothing here has to survive a power cut.
        cursor.execute("PRAGMA synchronous = OFF")
    with frozen(1_700_000_000), override_settings(ROOT_URLCONF=__name__, SESSION_ENGINE=engine):
        for _ in range(number):
            drawn = draw(rng)
            with override_settings(**drawn["settings"]):
                with override_settings(MIDDLEWARE=[DJANGOS]):
                    wanted = answer_to(drawn, Client)
                with override_settings(MIDDLEWARE=[OURS]):
                    assert answer_to(drawn, Client) == wanted, drawn
                    assert answer_to(drawn, AsyncClient) == wanted, drawn
            seen["cookie"] += bool(wanted.set_cookie)
            seen["deleted"] += deletes(wanted)
            seen["varies"] += bool(wanted.vary)
            seen["interrupted"] += wanted.status == 400
            seen["failed"] += wanted.status == 500
    assert min(seen.values()) > 0, seen


# Threads.

NATIVE_ENGINE = '''
"""An engine whose asynchronous methods are its own; the synchronous ones must not be called."""

import threading

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

ROWS = {}
THREADS = set()


class SessionStore(SessionBase):
    async def aload(self):
        THREADS.add(threading.get_ident())
        if self.session_key in ROWS:
            return dict(ROWS[self.session_key])
        self._session_key = None
        return {}

    async def asave(self, must_create=False):
        THREADS.add(threading.get_ident())
        if self.session_key is None:
            return await self.acreate()
        if must_create and self.session_key in ROWS:
            raise CreateError
        if not must_create and self.session_key not in ROWS:
            raise UpdateError
        ROWS[self.session_key] = dict(getattr(self, "_session_cache", {}))

    async def acreate(self):
        THREADS.add(threading.get_ident())
        data = getattr(self, "_session_cache", {})
        self._session_key = f"key-number-{len(ROWS)}"
        ROWS[self._session_key] = dict(data)

    async def adelete(self, session_key=None):
        THREADS.add(threading.get_ident())
        ROWS.pop(session_key or self.session_key, None)
'''
NATIVE_RUN = """
import asyncio, threading

started = []
start = threading.Thread.start
threading.Thread.start = lambda thread: (started.append(thread), start(thread))

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x" * 50,
    SESSION_ENGINE="native_engine",
    MIDDLEWARE=["MIDDLEWARE"],
    ROOT_URLCONF="__main__",
    ALLOWED_HOSTS=["*"],
    **OPTIONS,
)
django.setup()

import native_engine
from django.core.handlers.base import BaseHandler
from django.http import HttpResponse
from django.test import AsyncRequestFactory
from django.urls import path


async def view(request):
    session = request.session
    if not hasattr(session, "_session_cache"):
        session._session_cache = await session.aload() if session.session_key else {}
    session["count"] = session.get("count", 0) + 1
    return HttpResponse(str(session["count"]))


async def idle(request):
    return HttpResponse()


async def main():
    handler = BaseHandler()
    handler.load_middleware(is_async=True)
    factory = AsyncRequestFactory()
    cookie = ""
    for wanted in (b"1", b"2", b"3"):
        request = factory.get("/count")
        request.COOKIES = {"sessionid": cookie} if cookie else {}
        response = await handler.get_response_async(request)
        assert response.content == wanted, response.content
        cookie = response.cookies["sessionid"].value
        # Only the middleware loads this one, for its expiry.
        request = factory.get("/idle")
        request.COOKIES = {"sessionid": cookie}
        response = await handler.get_response_async(request)
        assert ("sessionid" in response.cookies) is settings.SESSION_SAVE_EVERY_REQUEST
    assert native_engine.ROWS == {cookie: {"count": 3}}
    assert native_engine.THREADS <= {threading.get_ident()}


urlpatterns = [path("count", view), path("idle", idle)]
asyncio.run(main())
print(len(started))
"""


@pytest.mark.parametrize("save_every", [False, True])
def test_no_thread_is_started_with_an_engine_of_asynchronous_methods(tmp_path, save_every):
    (tmp_path / "native_engine.py").write_text(NATIVE_ENGINE)

    def threads(middleware):
        script = NATIVE_RUN.replace('"MIDDLEWARE"', repr(middleware))
        script = script.replace("**OPTIONS", f"SESSION_SAVE_EVERY_REQUEST={save_every}")
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not done.returncode, done.stderr
        return int(done.stdout)

    assert threads(OURS) == 0


def test_an_engine_without_asynchronous_methods_of_its_own_is_called_in_django_s_thread():
    """Subclasses that replace only the synchronous method are not passed over."""
    calls = []

    class Store(db.SessionStore):
        def save(self, must_create=False):
            calls.append(("save", threading.get_ident()))

        def get_expiry_age(self, **kwargs):
            calls.append(("age", threading.get_ident()))
            return 60

    class Middleware(SessionMiddleware):
        def process_request(self, request):
            request.session = Store()

    async def view(request):
        request.session._session_cache = {"a": 1}
        request.session.modified = True
        return HttpResponse()

    async def main():
        response = await Middleware(view)(HttpRequest())
        return threading.get_ident(), response.cookies["sessionid"]["max-age"]

    loop, age = asyncio.run(main())
    assert [name for name, _ in calls] == ["age", "save"]
    assert all(thread != loop for _, thread in calls)
    assert age == 60


def test_subclasses_may_override_what_django_s_may(mode, sqlite_database):
    seen = []

    class Middleware(SessionMiddleware):
        def process_request(self, request):
            seen.append(threading.get_ident())
            if request.path == "/closed":
                return HttpResponse("closed")
            return super().process_request(request)

        def process_response(self, request, response):
            seen.append(threading.get_ident())
            response = super().process_response(request, response)
            response["X-Session"] = request.session.session_key or ""
            return response

    def answer(path):
        request = HttpRequest()
        request.path = path
        if mode == "sync":
            return Middleware(write)(request)

        async def ask():
            return threading.get_ident(), await Middleware(awrite)(request)

        loop, response = asyncio.run(ask())
        assert loop not in seen
        return response

    def write(request):
        request.session["a"] = 1
        return HttpResponse("open")

    async def awrite(request):
        return await sync_to_async(write)(request)

    response = answer("/")
    assert response["X-Session"] == response.cookies["sessionid"].value
    assert len(seen) == 2
    with pytest.raises(AttributeError, match="session"):
        answer("/closed")


def test_an_asynchronous_override_stays_on_the_loop():
    threads = []

    class Middleware(SessionMiddleware):
        async def aprocess_response(self, request, response):
            threads.append(threading.get_ident())
            return await super().aprocess_response(request, response)

        def process_response(self, request, response):
            raise AssertionError

    async def view(request):
        return HttpResponse()

    async def main():
        await Middleware(view)(HttpRequest())
        return threading.get_ident()

    loop = asyncio.run(main())
    assert threads == [loop]


def test_the_checks_of_the_admin_find_it():
    from django.contrib.admin.checks import _contains_subclass

    assert issubclass(SessionMiddleware, DjangoMiddleware)
    assert _contains_subclass(DJANGOS, [OURS])


# Outages: SQLite's file is locked, as by a backup that hangs.


class Lock:
    """Keeps everybody else from SQLite's file."""

    def __init__(self):
        self.connection = None

    def __enter__(self):
        self.connection = sqlite3.connect(settings.DATABASES["default"]["NAME"])
        self.connection.execute("BEGIN EXCLUSIVE")
        return self

    def __exit__(self, *_):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@pytest.fixture
def lock(sqlite_database):
    # Django's tests keep connections through a request, and so the timeout.
    signals.request_started.disconnect(close_old_connections)
    signals.request_finished.disconnect(close_old_connections)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 1")
    lock = Lock()
    try:
        yield lock
    finally:
        lock.__exit__()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 5000")
        signals.request_started.connect(close_old_connections)
        signals.request_finished.connect(close_old_connections)


OUTAGES = {
    "ROOT_URLCONF": __name__,
    "MIDDLEWARE": [OURS],
    "SESSION_ENGINE": "django_session_rs.backends.db",
}
PATHS = Lock()
CLOSED = []


def reads(request):
    return HttpResponse(request.session.get("a"))


def writes(request):
    request.session["b"] = 2
    PATHS.__enter__()
    return HttpResponse("written")


def streams_after_writing(request):
    request.session["b"] = 2
    PATHS.__enter__()

    def chunks():
        yield "never sent"

    response = StreamingHttpResponse(chunks())
    response._resource_closers.append(lambda: CLOSED.append(True))
    return response


def streams(request):
    def chunks():
        yield "first"
        try:
            request.session.get("a")
        except OperationalError:
            yield " failed"

    return StreamingHttpResponse(chunks())


def reads_and_wraps(request):
    try:
        request.session.get("a")
    except OperationalError as error:
        raise RuntimeError("no session") from error
    return HttpResponse()


def reads_and_forgives(request):
    try:
        return HttpResponse(request.session.get("a"))
    except OperationalError:
        return HttpResponse("without a session")


def reads_and_says_404(request):
    try:
        return HttpResponse(request.session.get("a"))
    except OperationalError as error:
        raise Http404 from error


def fails_by_itself(request):
    msg = "of another kind"
    raise RuntimeError(msg)


def asks_another_database(request):
    raise OperationalError("not the session's")


def forbids(request):
    request.session["b"] = 2
    PATHS.__enter__()
    raise PermissionDenied


async def writes_async(request):
    def write():
        request.session["b"] = 2
        PATHS.__enter__()

    await sync_to_async(write)()
    return HttpResponse("written")


class TouchingMiddleware:
    """A middleware that uses the session before the view, as LoginRequiredMiddleware."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, *_):
        request.session.get("a")


class PageMiddleware(SessionMiddleware):
    retry_after = 60

    def outage_response(self, request, status):
        return HttpResponse("<p>back soon", status=status)


urlpatterns = [
    path("steps", steps),
    path("reads", reads),
    path("writes", writes),
    path("writes-async", writes_async),
    path("streams", streams),
    path("streams-after-writing", streams_after_writing),
    path("wraps", reads_and_wraps),
    path("forgives", reads_and_forgives),
    path("says-404", reads_and_says_404),
    path("fails", fails_by_itself),
    path("other-database", asks_another_database),
    path("forbids", forbids),
]


def stored():
    store = db.SessionStore()
    store["a"] = "kept"
    store.create()
    return store.session_key


def get(address, mode, key, **options):
    client_class = Client if mode == "sync" else AsyncClient
    client = client_class(**{"raise_request_exception": False, **options})
    client.cookies["sessionid"] = key
    return client.get(address) if mode == "sync" else async_to_sync(aget)(client, address)


def locked_before(address):
    return not address.startswith(("/writes", "/forbids", "/streams-after"))


def ask_in_outage(address, mode, lock, key=None, **options):
    key = key or stored()
    try:
        if locked_before(address):
            PATHS.__enter__()
        return get(address, mode, key, **options)
    finally:
        PATHS.__exit__()


def assert_untouched(response, key):
    assert not response.cookies
    assert not response.has_header("Vary")
    assert db.SessionStore(key).load() == {"a": "kept"}


def told(caplog):
    return [record for record in caplog.records if record.name == "django.request"]


def assert_no_secrets(caplog, key):
    assert key not in caplog.text
    assert "kept" not in caplog.text


@pytest.mark.parametrize("address", ["/reads", "/writes", "/writes-async", "/forbids"])
def test_an_outage_is_answered_with_503_and_leaves_the_cookie_alone(address, mode, lock, caplog):
    key = stored()
    with override_settings(**OUTAGES):
        response = ask_in_outage(address, mode, lock, key)
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    assert "Service Unavailable" in response.content.decode()
    assert_untouched(response, key)
    errors = [record for record in told(caplog) if record.levelno == logging.ERROR]
    [record] = errors
    assert record.status_code == 503
    assert record.request.path == address
    assert record.exc_info is None
    text = record.getMessage()
    assert text.startswith(f"Service Unavailable: {address} (django.db.utils.OperationalError from")
    assert "SQLITE_BUSY" in text or sys.version_info < (3, 11)
    assert_no_secrets(caplog, key)


def test_an_outage_in_another_middleware_is_answered_too(mode, lock, caplog):
    """Django has made a 500 of it, and logged that, before the session middleware sees it."""
    key = stored()
    touching = f"{__name__}.TouchingMiddleware"
    with override_settings(**{**OUTAGES, "MIDDLEWARE": [OURS, touching]}):
        response = ask_in_outage("/reads", mode, lock, key)
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    assert_untouched(response, key)
    [record] = told(caplog)
    assert record.levelno == logging.ERROR
    assert_no_secrets(caplog, key)


AUTH = [
    OURS,
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]


@pytest.mark.skipif(django.VERSION < (5, 1), reason="LoginRequiredMiddleware is of Django 5.1")
def test_an_outage_logs_nobody_out_where_login_is_required(mode, lock):
    key = stored()
    with override_settings(
        **{**OUTAGES, "MIDDLEWARE": AUTH, "LOGIN_URL": "/login", "ALLOWED_HOSTS": ["*"]}
    ):
        response = ask_in_outage("/reads", mode, lock, key)
        assert response.status_code == 503
        assert_untouched(response, key)
        assert get("/reads", mode, key).status_code == 302


def test_an_exception_made_of_an_outage_is_answered_as_one(mode, lock, caplog):
    with override_settings(**OUTAGES):
        assert ask_in_outage("/wraps", mode, lock).status_code == 503
    assert len(told(caplog)) == 1


def test_what_a_view_makes_of_an_outage_stands(mode, lock):
    with override_settings(**OUTAGES):
        response = ask_in_outage("/forgives", mode, lock)
        assert (response.status_code, response.content) == (200, b"without a session")
        assert ask_in_outage("/says-404", mode, lock).status_code == 404


def test_other_errors_are_django_s(mode, sqlite_database):
    with override_settings(**OUTAGES):
        for address in ("/fails", "/other-database"):
            response = get(address, mode, stored())
            assert response.status_code == 500
            assert not response.has_header("Retry-After")


def test_the_status_can_be_another_one(mode, lock):
    with override_settings(**OUTAGES, SESSION_OUTAGE_STATUS=429):
        for address in ("/reads", "/writes"):
            key = stored()
            response = ask_in_outage(address, mode, lock, key)
            assert response.status_code == 429
            assert response["Retry-After"] == "5"
            assert_untouched(response, key)


@pytest.mark.parametrize("status", ["503", 0, 600, 503.0])
def test_a_status_that_is_none_keeps_the_site_from_starting(status):
    with (
        override_settings(SESSION_OUTAGE_STATUS=status),
        pytest.raises(ImproperlyConfigured, match="SESSION_OUTAGE_STATUS"),
    ):
        SessionMiddleware(lambda request: HttpResponse())


@pytest.mark.parametrize("address", ["/reads", "/writes", "/wraps"])
def test_without_a_status_the_exception_passes_as_with_django(address, mode, lock):
    with override_settings(**OUTAGES, SESSION_OUTAGE_STATUS=None):
        with pytest.raises((OperationalError, RuntimeError)):
            ask_in_outage(address, mode, lock, raise_request_exception=True)
        response = ask_in_outage(address, mode, lock)
    assert response.status_code == 500
    assert not response.has_header("Retry-After")


def test_a_project_shows_a_page_of_its_own(mode, lock):
    page = f"{__name__}.PageMiddleware"
    with override_settings(**{**OUTAGES, "MIDDLEWARE": [page]}):
        for address in ("/reads", "/writes"):
            response = ask_in_outage(address, mode, lock)
            assert (response.status_code, response.content) == (503, b"<p>back soon")
            assert response["Retry-After"] == "60"


def test_a_developer_sees_where_it_came_from(mode, lock):
    with override_settings(**OUTAGES, DEBUG=True):
        for address in ("/reads", "/writes"):
            response = ask_in_outage(address, mode, lock)
            assert response.status_code == 503
            assert "OperationalError" in response.content.decode()


def test_a_stream_goes_on(lock):
    """What was sent is sent; the outage is the view's to notice."""
    key = stored()
    with override_settings(**OUTAGES):
        client = Client()
        client.cookies["sessionid"] = key
        response = client.get("/streams")
        with PATHS:
            assert b"".join(response.streaming_content) == b"first failed"


def test_a_stream_that_has_not_begun_does_not_begin(mode, lock):
    CLOSED.clear()
    with override_settings(**OUTAGES):
        response = ask_in_outage("/streams-after-writing", mode, lock)
    assert response.status_code == 503
    assert "never sent" not in response.content.decode()
    response.close()
    assert CLOSED == [True]


def test_an_outage_that_django_s_engine_takes_for_a_deleted_session_is_one(mode, lock):
    engine = "django.contrib.sessions.backends.db"
    with override_settings(**{**OUTAGES, "SESSION_ENGINE": engine}):
        key = stored()
        response = ask_in_outage("/writes", mode, lock, key)
    assert response.status_code == 503
    assert_untouched(response, key)


def test_an_outage_of_a_store_needs_no_note(mode, sqlite_database):
    """Raised by any engine, from anywhere in a view."""

    def view(request):
        raise StoreUnavailableError("timed_out") from OSError(110, f"asked for {KEY}")

    urlpatterns.append(path("unavailable", view))
    try:
        with override_settings(**OUTAGES):
            from django.urls import clear_url_caches

            clear_url_caches()
            assert get("/unavailable", mode, KEY).status_code == 503
    finally:
        urlpatterns.pop()


def test_the_log_names_errors_but_not_what_they_say(caplog):
    error = StoreUnavailableError("timed_out")
    error.__cause__ = TimeoutError(110, f"asked for {KEY}")
    request = HttpRequest()
    request.path = "/there"
    response = SessionMiddleware(reads).process_exception(request, error)
    assert response.status_code == 503
    [record] = told(caplog)
    assert record.getMessage() == (
        "Service Unavailable: /there (django_session_rs.exceptions.StoreUnavailableError timed_out"
        " from builtins.TimeoutError 110)"
    )


def test_a_deleted_session_is_an_interruption(mode, sqlite_database, caplog):
    """As Django's: 400, and the new data is not stored."""

    def view(request):
        request.session["b"] = 2
        Session.objects.all().delete()
        return HttpResponse()

    urlpatterns.append(path("deleted", view))
    try:
        with override_settings(**OUTAGES):
            from django.urls import clear_url_caches

            clear_url_caches()
            response = get("/deleted", mode, stored())
    finally:
        urlpatterns.pop()
    assert response.status_code == 400
    assert not Session.objects.exists()
    [record] = told(caplog)
    assert record.levelno == logging.WARNING


# The documentation.

PAGE = Path(__file__).parents[2] / "docs" / "middleware.md"


def test_the_page_s_example_does_what_it_says():
    _, code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found = {"__name__": "middleware"}
    exec(compile(code, str(PAGE), "exec"), found)

    response = found["PoliteSessionMiddleware"](reads).process_exception(
        HttpRequest(), StoreUnavailableError("timed_out")
    )
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert b"a minute" in response.content

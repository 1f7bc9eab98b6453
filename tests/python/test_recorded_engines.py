# ruff: noqa: BLE001, PT017 - recorded failures are of any kind
"""The engines beside the database's: recorded behaviour of Django's, operation by operation."""

import importlib
import re
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from cache_backends import cache_settings
from conftest import frozen
from django.conf import settings
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.utils import timezone
from test_db_engine import (
    KEY_IN_COOKIE,
    VIEWS,
    insert,
    looks_same,
    needs_python_3_11,
    perform,
    recorded,
)
from vectors import case, plain, same

ENGINES = ("cache", "cached_db", "file", "signed_cookies")
COOKIE_VALUE = "<cookie value>"


def store_class(backend):
    return importlib.import_module(f"django_session_rs.backends.{backend}").SessionStore


class Clocked:
    """What a record's clock moves: the modification of files, the entries of a cache."""

    def __init__(self, backend, directory):
        self.backend = backend
        self.directory = directory

    def insert(self, key, data, seconds):
        if self.backend == "cached_db":
            insert(key, data, timezone.now() + timedelta(seconds=seconds))
            return
        store = store_class(self.backend)(key)
        store._session_cache = data
        with mock.patch.object(store, "get_expiry_age", return_value=seconds):
            store.save(must_create=True)

    def keys(self, name):
        if name == "db_keys":
            return set(Session.objects.values_list("session_key", flat=True))
        if name == "files":
            return {path.name for path in self.directory.iterdir()}
        cache = caches["default"]
        prefix = cache.make_key(store_class(self.backend).cache_key_prefix)
        return {key.removeprefix(prefix) for key in cache._cache}


@pytest.fixture
def place(sqlite_database, tmp_path):
    options = {
        "CACHES": {"default": cache_settings("locmem")},
        "SESSION_FILE_PATH": str(tmp_path),
    }
    with override_settings(**options):
        yield lambda backend: Clocked(backend, Path(tmp_path))


def every(family):
    return [
        pytest.param(*param.values, id=param.id)
        for backend in ENGINES
        for param in recorded(family, backend=backend)
    ]


# Steps after which this engine leaves no copy and Django's does: a save that finds no row takes the
# copy away, so that nobody reads it any more, and so does one that does not know which copy there
# was before, because the session was emptied without a look at it.
WITHOUT_COPY = {
    "cached_db/clear": (2,),
    "cached_db/clear_then_new_store": (2, 3, 4),
    "cached_db/row_gone_after_load": (4,),
    "cached_db/row_gone_but_cached": (5,),
}


def own_steps(record):
    """The steps, with the places where the engines are to differ from Django's."""
    numbers = WITHOUT_COPY.get(case(record), ())
    assert all(record["steps"][number]["cache_keys"] for number in numbers)
    return [
        {**step, "cache_keys": []} if number in numbers else step
        for number, step in enumerate(record["steps"])
    ]


@pytest.mark.parametrize("record", every("session_ops_engines"))
@pytest.mark.filterwarnings("ignore:DateTimeField Session.expire_date received a naive datetime")
def test_operations_as_recorded(record, place):
    needs_python_3_11(record)
    backend = record["backend"]
    site = place(backend)
    given = {record["cookie_key"], *(row["session_key"] for row in record["rows"])}
    options = {
        "SECRET_KEY": record["secret_key"],
        "SESSION_COOKIE_AGE": record["session_cookie_age"],
    }
    with override_settings(**options), frozen(record["now"]) as clock:
        if backend != "signed_cookies":
            for row in record["rows"]:
                site.insert(row["session_key"], plain(row["data"]), row["expires_in"])
        store = store_class(backend)(record["cookie_key"])
        for number, step in enumerate(own_steps(record)):
            where = f"{record['id']}, step {number}: {step['op']}"
            if step["op"] == "cache_cleared":
                caches["default"].clear()
            elif step["op"] == "new_store_same_key":
                store = store_class(backend)(store.session_key)
            elif step["op"] != "init":
                try:
                    found, store = perform(store, step, clock)
                except Exception as error:
                    assert "raises" in step, where
                    kind = step["raises"]["type"]
                    assert kind.rsplit(".")[-1] == type(error).__name__, where
                    assert step["raises"]["message"] in {str(error), ""}, where
                else:
                    assert "returns" in step, where
                    assert same(found, plain(step["returns"])), where
            state = step["state"]
            if state["session_key"] == COOKIE_VALUE:
                # The key of the record, or signed text.
                assert store.session_key in given or store.session_key.count(":") == 2, where
            else:
                assert looks_same(store.session_key, state["session_key"], given), where
            assert store.accessed is state["accessed"], where
            assert store.modified is state["modified"], where
            assert store.is_empty() is state["is_empty"], where
            cache = getattr(store, "_session_cache", "NOT LOADED")
            assert same(cache, plain(state["cache"])), where
            for name in ("db_keys", "cache_keys", "files"):
                if name in step:
                    found, wanted = site.keys(name), set(step[name])
                    assert len(found) == len(wanted), where
                    own = {key for key in wanted if key.removeprefix("sessionid") in given}
                    assert own <= found, where


@pytest.mark.parametrize("record", every("middleware_engines"))
def test_middleware_as_recorded(record, place):
    backend = record["backend"]
    site = place(backend)
    options = {
        "SECRET_KEY": record["secret_key"],
        "SESSION_ENGINE": f"django_session_rs.backends.{backend}",
        **record["settings"],
    }
    with override_settings(**options), frozen(record["now"]):
        for row in record["rows"]:
            site.insert(row["session_key"], plain(row["data"]), row["expires_in"])
        request = HttpRequest()
        if record["cookie"] is not None:
            request.COOKIES[settings.SESSION_COOKIE_NAME] = record["cookie"]

        def view(request):
            VIEWS[record["view"]](request.session)
            return HttpResponse(status=record["status"])

        middleware = SessionMiddleware(view)
        if "raises" in record:
            with pytest.raises(SessionInterrupted, match=re.escape(record["raises"]["message"])):
                middleware(request)
            return
        response = middleware(request)
        assert response.status_code == record["response_status"]
        assert response.get("Vary") == record["vary"]
        cookies = [morsel.OutputString() for morsel in response.cookies.values()]
        if backend == "signed_cookies":
            assert cookies == record["set_cookie"]
            return
        assert [KEY_IN_COOKIE.sub("new", text) for text in cookies] == [
            KEY_IN_COOKIE.sub("new", text) for text in record["set_cookie"]
        ]

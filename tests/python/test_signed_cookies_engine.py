"""The signed_cookies engine: Django's cookies, both ways, whatever a client sends."""

import pytest
from asgiref.sync import async_to_sync
from conftest import SECRET_KEY, frozen
from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoStore
from django.core import signing
from django.test import override_settings
from vectors import case, plain, records, same

from django_session_rs.backends.signed_cookies import SessionStore

PICKLE = "test_signed_cookies_engine.OwnSerializer"


class OwnSerializer:
    def dumps(self, obj):
        return repr(obj).encode()

    def loads(self, data):
        import ast

        return ast.literal_eval(data.decode())


DATA = {"a": [1, 2.5, None, "é\ud800"], "b": {"c": True}, "long": "x" * 500, "_session_expiry": 5}


@pytest.mark.parametrize("serializer", [None, PICKLE])
@pytest.mark.parametrize(
    ("one", "other"), [(SessionStore, DjangoStore), (DjangoStore, SessionStore)]
)
def test_both_engines_read_each_other(one, other, serializer):
    options = {"SESSION_SERIALIZER": serializer} if serializer else {}
    with override_settings(**options):
        store = one()
        store.update(DATA)
        store.save()
        assert store.modified
        again = other(store.session_key)
        assert same(dict(again.items()), DATA)
        again["d"] = 1
        again.cycle_key()
        assert one(again.session_key)["d"] == 1
        again.flush()
        assert again.session_key is None


@pytest.mark.parametrize("data", [{}, {"a": 1}, {"a": "é"}, {"a": [1, {"b": None}]}])
def test_a_short_session_is_the_same_text(data):
    with frozen(1_700_000_000):
        ours, theirs = SessionStore(), DjangoStore()
        ours.update(data)
        theirs.update(data)
        ours.save()
        theirs.save()
        assert ours.session_key == theirs.session_key


WRITTEN = [
    pytest.param(record, id=case(record))
    for record in records("signed_cookies")
    if record["django_version"].startswith(("4.2", "5.2", "6.1"))
    and record["serializer"] == "json"
    # Too long to be recorded whole.
    and not case(record).endswith("large_one_string")
]


@pytest.mark.parametrize("record", WRITTEN)
def test_what_django_wrote_is_read(record):
    options = {
        "SECRET_KEY": record["secret_key"],
        "SECRET_KEY_FALLBACKS": record["fallbacks"],
    }
    for check in record["load_checks"]:
        age = {"SESSION_COOKIE_AGE": check["cookie_age"]}
        with override_settings(**options, **age), frozen(check["now"]):
            assert same(SessionStore(record["cookie"]).load(), plain(check["expected"]))
    with override_settings(**options), frozen(record["time"]):
        store = SessionStore()
        store._session_cache = plain(record["expected"])
        store.save()
        assert same(DjangoStore(store.session_key).load(), plain(record["expected"]))
        if not record["compressed"]:
            assert store.session_key == record["cookie"]


def test_whatever_a_client_sends_is_an_empty_session():
    store = SessionStore()
    store["a"] = 1
    store.save()
    good = store.session_key
    old = signing.dumps({"a": 1}, salt="another salt")
    for value in (good[:-1], good + "x", old, "x" * 10, "::::::::", "é" * 20, "x\0" * 10):
        assert DjangoStore(value).load() == {}
        bad = SessionStore(value)
        assert bad.load() == {}
        assert bad.modified
        assert bad.outage is None


def test_a_cookie_that_is_too_old():
    with override_settings(SESSION_COOKIE_AGE=100):
        with frozen(1_700_000_000):
            store = SessionStore()
            store["a"] = 1
            store.save()
        for now, expected in [(1_700_000_100, {"a": 1}), (1_700_000_101, {})]:
            with frozen(now):
                assert SessionStore(store.session_key).load() == expected
                assert DjangoStore(store.session_key).load() == expected


def test_rotated_keys():
    store = SessionStore()
    store["a"] = 1
    store.save()
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[SECRET_KEY]):
        assert SessionStore(store.session_key).load() == {"a": 1}
    with override_settings(SECRET_KEY="another"):
        assert SessionStore(store.session_key).load() == {}


def test_the_asynchronous_twins():
    async def steps():
        store = SessionStore()
        await store.aset("a", 1)
        await store.asave()
        again = SessionStore(store.session_key)
        assert await again.aget("a") == 1
        await again.aset("b", 2)
        await again.acycle_key()
        assert await SessionStore(again.session_key).aload() == {"a": 1, "b": 2}
        assert await again.aexists(again.session_key) is False
        await again.acreate()
        await again.adelete()
        assert dict(await again.aitems()) == {}
        await again.aflush()
        assert again.session_key is None
        await SessionStore.aclear_expired()

    async_to_sync(steps)()

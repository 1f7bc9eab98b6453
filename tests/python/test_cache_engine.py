"""The cache engine on every kind of cache: Django's entries, one round trip, races, outages."""

import contextlib
import pickle
import threading
import traceback

import pytest
from asgiref.sync import async_to_sync
from cache_backends import COMPARING, KINDS, SERVERS, cache_settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.cache import SessionStore as DjangoStore
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from stored_sessions import filled, two

from django_session_rs.backends import cache_entries
from django_session_rs.backends.cache import SessionStore
from django_session_rs.backends.cache_entries import Entries, entries_of
from django_session_rs.exceptions import (
    CorruptSessionError,
    SessionConflictError,
    StoreUnavailableError,
)


@pytest.fixture(params=KINDS)
def kind(request, sqlite_database, tmp_path):
    with override_settings(CACHES={"default": cache_settings(request.param, tmp_path)}):
        if request.param == "database":
            call_command("createcachetable", verbosity=0)
        yield request.param
        caches["default"].clear() if request.param not in SERVERS else None
        caches.close_all()


def raised_text(error):
    """Return what a traceback tells of an error."""
    return "".join(traceback.format_exception(type(error), error, None))


def stored(store, store_class=DjangoStore):
    return dict(store_class(store.session_key).items())


def test_every_kind_has_its_adapter(kind):
    found = type(entries_of(caches["default"])).__name__
    assert (
        found
        == {
            "locmem": "LocalEntries",
            "redis": "RedisEntries",
            "django_redis": "DjangoRedisEntries",
            "django_redis_json": "DjangoRedisEntries",
            "pymemcache": "MemcachedEntries",
            "pylibmc": "LibmemcachedEntries",
            "database": "DatabaseEntries",
            "files": "Entries",
            "unknown": "Entries",
        }[kind]
    )


def test_a_client_of_the_projects_own_is_not_passed_by():
    class Client(cache_entries.RedisCacheClient):
        def get(self, key, default):
            return super().get(key, default)

    settings = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://localhost",
    }
    with override_settings(CACHES={"default": settings}):
        cache = caches["default"]
        cache._class = Client
        assert type(entries_of(cache)) is Entries


# Together with Django.


@pytest.mark.parametrize(
    ("one", "other"), [(SessionStore, DjangoStore), (DjangoStore, SessionStore)]
)
def test_both_engines_read_each_other(kind, one, other):
    store = filled(one, a=[1, 2.5, None, "é"], b={"c": True})
    again = other(store.session_key)
    assert dict(again.items()) == {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    again["b"] = 2
    again.set_expiry(500)
    again.save()
    assert one(store.session_key)["b"] == 2
    assert one(store.session_key).get_expiry_age() == 500
    with pytest.raises(CreateError):
        other(store.session_key).save(must_create=True)
    again.delete()
    assert not one().exists(store.session_key)
    assert one(store.session_key).load() == {}


def test_the_timeout_is_django_s(kind):
    if kind not in {"redis", "django_redis", "django_redis_json"}:
        pytest.skip("which others do not tell")
    store = filled(SessionStore)
    store.set_expiry(500)
    store.save()
    entries = entries_of(caches["default"])
    key = entries.server_key(store.cache_key)
    for change in (store.save, store.cycle_key):
        change()
        key = entries.server_key(store.cache_key)
        assert 498_000 < entries.client(key, write=True).pttl(key) <= 500_000


def test_what_has_expired_is_no_session(kind):
    store = filled(SessionStore)
    store.set_expiry(-1)
    store.save()
    assert SessionStore(store.session_key).load() == {}
    assert not SessionStore().exists(store.session_key)
    with pytest.raises(UpdateError):
        store.save()
    new = SessionStore()
    new.set_expiry(-1)
    new.save()
    assert SessionStore(new.session_key).load() == {}


def test_a_key_that_no_cache_has_is_no_session(kind):
    for key in ("x" * 300, "with a space", "ключ-сессии"):
        store = SessionStore(key)
        with contextlib.suppress(UserWarning):
            assert store.load() == {}
            assert store.session_key is None
            SessionStore(key).delete()
            assert SessionStore().exists(key) is False


test_a_key_that_no_cache_has_is_no_session = pytest.mark.filterwarnings(
    "ignore::django.core.cache.backends.base.CacheKeyWarning"
)(test_a_key_that_no_cache_has_is_no_session)


def test_what_nobody_can_read_is_no_session(kind):
    if kind not in {"redis", "django_redis", "django_redis_json", "locmem"}:
        pytest.skip("it takes the client of the server to write it")
    store = filled(SessionStore)
    entries = entries_of(caches["default"])
    if kind == "locmem":
        key = caches["default"].make_key(store.cache_key)
        caches["default"]._cache[key] = b"nothing"
    else:
        key = entries.server_key(store.cache_key)
        entries.client(key, write=True).set(key, b"nothing", ex=100)
    again = SessionStore(store.session_key)
    assert again.load() == {}
    assert again.session_key is None
    # Nobody loses anything.
    store["b"] = 2
    store.save()
    assert stored(store) == {"a": 1, "b": 2}


# Round trips.


def calls(monkeypatch, kind):
    """Note what is sent to a server."""
    seen = []
    if kind in {"redis", "django_redis", "django_redis_json"}:
        import redis

        real = redis.Redis.execute_command

        def noted(self, *args, **options):
            seen.append(args[0])
            return real(self, *args, **options)

        monkeypatch.setattr(redis.Redis, "execute_command", noted)
    else:
        import pymemcache

        def watched(name):
            real = getattr(pymemcache.Client, name)

            def wrapped(self, *args, **kwargs):
                seen.append(name)
                return real(self, *args, **kwargs)

            return wrapped

        for name in ("gets", "cas", "add", "replace", "delete", "get", "set"):
            monkeypatch.setattr(pymemcache.Client, name, watched(name))
    return seen


def test_one_round_trip_per_step(kind, monkeypatch):
    if kind not in {"redis", "django_redis", "pymemcache"}:
        pytest.skip("its client is not watched")
    filled(SessionStore).cycle_key()
    store = filled(SessionStore)
    again = SessionStore(store.session_key)
    seen = calls(monkeypatch, kind)
    expected = {
        "exists": 1,
        "load": 1,
        "save": 1,
        "cycle_key": 2 if kind == "pymemcache" else 1,
        "create": 1,
        "delete": 1,
    }
    again.exists(again.session_key)
    counts = [("exists", len(seen))]
    for name in ("load", "save", "cycle_key", "create", "delete"):
        seen.clear()
        if name == "load":
            again.get("a")
        elif name == "cycle_key":
            # Loaded by a request of its own.
            again = SessionStore(again.session_key)
            again.get("a")
            seen.clear()
            again.cycle_key()
        else:
            getattr(again, name)()
        counts.append((name, len(seen)))
    assert dict(counts) == expected


def test_one_statement_per_step_in_the_table_of_a_cache(sqlite_database):
    with override_settings(CACHES={"default": cache_settings("database")}):
        call_command("createcachetable", verbosity=0)
        store = filled(SessionStore)
        for step in ("load", "save", "cycle_key", "delete"):
            with CaptureQueriesContext(sqlite_database) as captured:
                getattr(store, step)()
            assert len(captured) == 1, step


# Parallel changes.


def test_both_keep_what_they_changed(kind):
    one, other = two(SessionStore, a=1, gone=1, deep={"x": [1]}, theirs=1)
    data = other._session
    one["b"] = 2
    del one["gone"]
    other["c"] = 3
    other["deep"]["x"].append(2)
    other.pop("theirs")
    one.save()
    other.save()
    expected = {"a": 1, "b": 2, "c": 3, "deep": {"x": [1, 2]}}
    assert stored(one) == expected
    assert other._session is data
    assert dict(data) == expected
    other["d"] = 4
    other.save()
    assert stored(one) == expected | {"d": 4}


def test_a_new_session_is_merged_too(kind):
    one = filled(SessionStore)
    other = SessionStore(one.session_key)
    other["b"] = 2
    other.save()
    one["c"] = 3
    one.save()
    one["d"] = 4
    one.save()
    assert stored(one) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_a_django_beside_it_is_merged_with(kind):
    ours = filled(SessionStore)
    theirs = DjangoStore(ours.session_key)
    theirs["b"] = 2
    theirs.save()
    ours["c"] = 3
    ours.save()
    assert stored(ours) == {"a": 1, "b": 2, "c": 3}


class Cart:
    """An object that is equal to itself alone."""


def test_an_object_without_equality_is_saved_again(kind):
    if kind == "django_redis_json":
        pytest.skip("it keeps JSON")
    store = filled(SessionStore, cart=Cart())
    for name in ("b", "c"):
        again = SessionStore(store.session_key)
        again[name] = 1
        again.save()
    again.cycle_key()
    found = stored(again)
    assert isinstance(found.pop("cart"), Cart)
    assert found == {"b": 1, "c": 1}


def test_settings_say_what_becomes_of_a_conflict(kind):
    one, other = two(SessionStore, count=10)
    with override_settings(SESSION_ON_CONFLICT="error"):
        one["count"] = 11
        one.save()
        other["b"] = 1
        with pytest.raises(SessionConflictError):
            other.save()
    with override_settings(SESSION_ON_CONFLICT=lambda name, loaded, mine, stored: mine + stored):
        other["count"] = 5
        other.save()
    assert stored(one) == {"count": 16, "b": 1}
    with override_settings(SESSION_ON_CONFLICT="overwrite"):
        one["c"] = 1
        one.save()
    assert stored(one) == {"count": 11, "c": 1}


def test_a_function_is_asked_about_what_two_have_set_to_the_same(kind):
    one, other = two(SessionStore, count=10)
    add_up = lambda name, loaded, mine, stored: mine + stored - loaded  # noqa: E731 - it is short
    with override_settings(SESSION_ON_CONFLICT=add_up):
        for store in (one, other):
            store["count"] += 1
            store.save()
    assert stored(one) == {"count": 12}


def test_a_deleted_session_stays_deleted(kind):
    one, other = two(SessionStore, a=1)
    one.flush()
    other["b"] = 2
    with pytest.raises(UpdateError):
        other.save()
    with pytest.raises(UpdateError):
        other.save()
    assert not SessionStore().exists(other.session_key)
    with override_settings(SESSION_ON_CONFLICT="overwrite"), pytest.raises(UpdateError):
        other.save()
    other.clear()
    with pytest.raises(UpdateError):
        other.save()
    assert not SessionStore().exists(other.session_key)


def test_a_rotation_takes_along_what_others_have_saved(kind):
    one, other = two(SessionStore, a=1)
    one["b"] = 2
    one.save()
    other["c"] = 3
    old = other.session_key
    other.cycle_key()
    assert other.session_key != old
    assert other.modified
    assert stored(other) == {"a": 1, "b": 2, "c": 3}
    assert not SessionStore().exists(old)
    with pytest.raises(UpdateError):
        one.save()
    other["d"] = 4
    other.save()
    assert stored(other)["d"] == 4


def test_a_rotation_after_a_logout_ends_the_session_of_a_user(kind):
    one, other = two(SessionStore, _auth_user_id="1")
    key = one.session_key
    one.flush()
    with pytest.raises(SessionInterrupted) as caught:
        other.cycle_key()
    assert isinstance(caught.value, UpdateError)
    # The cookie stays, which another request may have renewed.
    assert not other.exists(other.session_key)
    assert not other.is_empty()
    with pytest.raises(UpdateError):
        other.save()
    assert dict(other.items()) == {}
    assert not SessionStore().exists(key)


def test_two_rotations_of_nobody_s_session_are_two_sessions(kind):
    one, other = two(SessionStore, a=1)
    one.cycle_key()
    other.cycle_key()
    assert one.session_key != other.session_key
    assert stored(one) == stored(other) == {"a": 1}
    nobody = SessionStore("nosuchkeynosuchkey")
    nobody.cycle_key()
    assert stored(nobody) == {}
    with override_settings(SESSION_ON_CONFLICT="overwrite"):
        one.cycle_key()
        assert stored(one) == {"a": 1}


def in_threads(count, function):
    errors = []
    barrier = threading.Barrier(count)

    def run(number):
        try:
            barrier.wait()
            function(number)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connections.close_all()
            caches.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_many_threads_lose_no_update(kind):
    if kind not in COMPARING:
        pytest.skip("a moment remains there")
    key = filled(SessionStore).session_key

    def change(number):
        for count in range(8):
            store = SessionStore(key)
            store[f"{number}_{count}"] = count
            store.save()

    errors = in_threads(6, change)
    if kind == "database":
        errors = [error for error in errors if not isinstance(error, StoreUnavailableError)]
        # SQLite has one writer at a time.
        assert errors == []
        return
    assert errors == []
    wanted = {f"{number}_{count}" for number in range(6) for count in range(8)} | {"a"}
    assert set(SessionStore(key).load()) == wanted


def test_nothing_is_brought_back_by_savers_who_race_a_delete(kind):
    if kind not in COMPARING or kind == "database":
        pytest.skip("a moment remains there")
    for _ in range(5):
        key = filled(SessionStore).session_key

        def change(number, key=key):
            store = SessionStore(key)
            store[str(number)] = 1
            if number == 0:
                store.flush()
            elif store.session_key is not None:
                with contextlib.suppress(UpdateError):
                    store.save()

        assert in_threads(4, change) == []
        assert not SessionStore().exists(key)


# Asynchronous.


def test_the_asynchronous_twins(kind):
    key = filled(SessionStore).session_key

    async def steps():
        one, other = SessionStore(key), SessionStore(key)
        assert await one.aget("a") == await other.aget("a") == 1
        await one.aset("b", 2)
        await one.asave()
        await other.aset("c", 3)
        await other.asave()
        assert dict(await other.aitems()) == {"a": 1, "b": 2, "c": 3}
        await other.acycle_key()
        assert await other.aexists(key) is False
        assert await other.aexists(None) is False
        with pytest.raises(UpdateError):
            await one.asave()
        with pytest.raises(CreateError):
            await other.asave(must_create=True)
        new = SessionStore()
        await new.aset("n", 1)
        await new.asave()
        assert await SessionStore(new.session_key).aload() == {"n": 1}
        await new.adelete()
        await other.aflush()
        assert await SessionStore(new.session_key).aload() == {}
        await SessionStore.aclear_expired()
        await SessionStore().acreate()

    async_to_sync(steps)()


# Outages.


UNREACHABLE = {
    "redis": ("django.core.cache.backends.redis.RedisCache", "redis://127.0.0.1:1"),
    "django_redis": ("django_redis.cache.RedisCache", "redis://127.0.0.1:1"),
    "pymemcache": ("django.core.cache.backends.memcached.PyMemcacheCache", "127.0.0.1:1"),
    "pylibmc": ("django.core.cache.backends.memcached.PyLibMCCache", "127.0.0.1:1"),
}


@pytest.mark.parametrize("kind", UNREACHABLE)
def test_a_server_that_is_away_is_no_empty_session(kind):
    if kind == "pylibmc":
        pytest.importorskip("pylibmc")
    backend, location = UNREACHABLE[kind]
    settings = {"BACKEND": backend, "LOCATION": location}
    if kind == "django_redis":
        settings["OPTIONS"] = {"IGNORE_EXCEPTIONS": True}
    with override_settings(CACHES={"default": settings}):
        # More often than a client that gives up after some failures takes.
        for _ in range(5):
            store = SessionStore("abcdefghijklmnop")
            for step in (
                lambda store: store.get("a"),
                lambda store: store.save(must_create=True),
                lambda store: store.create(),
                lambda store: store.delete(),
                lambda store: store.exists("abcdefghijklmnop"),
                lambda store: async_to_sync(store.aload)(),
            ):
                store.outage = None
                with pytest.raises(StoreUnavailableError) as caught:
                    step(store)
                assert caught.value.reason == "unreachable"
                assert caught.value.__cause__ is not None
                assert store.outage is caught.value
                assert store.session_key == "abcdefghijklmnop"
                # A client that names the key in its error is not quoted.
                assert "abcdefghijklmnop" not in raised_text(caught.value)
                store.__dict__.pop("_session_cache", None)


def test_a_save_during_an_outage_is_no_deleted_session(kind):
    if kind not in SERVERS:
        pytest.skip("it has no server")
    store = filled(SessionStore)
    backend, location = UNREACHABLE[kind.removesuffix("_json")]
    with override_settings(CACHES={"default": {"BACKEND": backend, "LOCATION": location}}):
        for step in ("save", "cycle_key", "flush"):
            lost = SessionStore(store.session_key)
            lost._session_cache = {"a": 2}
            with pytest.raises(StoreUnavailableError):
                getattr(lost, step)()
            assert lost.session_key == store.session_key
            assert lost.outage is not None


def test_wrong_rights_are_refused(kind):
    if kind != "redis":
        pytest.skip("of Redis")
    settings = cache_settings("redis")
    address = settings["LOCATION"]
    scheme, rest = address.split("://")
    settings["LOCATION"] = f"{scheme}://nobody:wrong@{rest.rpartition('@')[2]}"
    with override_settings(CACHES={"default": settings}):
        with pytest.raises(StoreUnavailableError) as caught:
            SessionStore("abcdefghijklmnop").load()
        assert caught.value.reason == "refused"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timed_out"),
        (ConnectionRefusedError(), "unreachable"),
        (OSError(), "unreachable"),
        (RuntimeError(), "refused"),
    ],
)
def test_an_error_of_an_unknown_cache_is_an_outage(error, reason, monkeypatch):
    with override_settings(CACHES={"default": cache_settings("unknown")}):
        store = filled(SessionStore)

        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(type(store._cache), "get", fail)
        with pytest.raises(StoreUnavailableError) as caught:
            store.load()
        assert caught.value.reason == reason
        assert caught.value.__cause__ is error


def test_an_error_that_names_the_key_is_told_by_its_class(monkeypatch):
    with override_settings(CACHES={"default": cache_settings("unknown")}):
        store = filled(SessionStore)

        def fail(self, key, *args, **kwargs):
            try:
                raise ConnectionResetError(f"while asking for {key}")
            except OSError as error:
                raise RuntimeError from error

        for name in ("get", "set", "add", "delete", "has_key"):
            monkeypatch.setattr(type(store._cache), name, fail)
        for step in (store.load, store.save, store.delete, lambda: store.exists(store.session_key)):
            with pytest.raises(StoreUnavailableError) as caught:
                step()
            assert store.session_key not in raised_text(caught.value)
            assert str(caught.value.__cause__) == "builtins.RuntimeError"


def test_an_unreadable_entry_is_not_quoted(kind):
    store = filled(SessionStore)
    adapter = entries_of(caches["default"])
    if type(adapter).loads is Entries.loads:
        pytest.skip("it reads what it has written itself")
    secret = "correct horse battery staple"
    for snapshot in (f'{{"{secret}"'.encode(), b"\x80\x05c" + secret.encode() + b"\nname\n."):
        with pytest.raises(CorruptSessionError) as caught:
            adapter.loads(snapshot.decode("latin1") if kind == "database" else snapshot)
        assert secret not in raised_text(caught.value)
    assert store.load() == {"a": 1}


def test_what_cannot_be_written_is_no_outage(kind):
    store = SessionStore()
    store["a"] = threading.Lock()
    with pytest.raises((TypeError, pickle.PicklingError)):
        store.save()
    assert store.outage is None


# What projects make of it.


def test_hooks_of_subclasses_keep_their_meaning(kind):
    seen = []

    class Store(SessionStore):
        cache_key_prefix = "mine."

        def save(self, must_create=False):
            seen.append(must_create)
            super().save(must_create)

        def get_session_cookie_age(self):
            return 50

    store = filled(Store)
    store.cycle_key()
    store.save()
    assert seen == [True, True, False]
    assert caches["default"].get("mine." + store.session_key) == {"a": 1}
    assert not SessionStore().exists(store.session_key)


def test_the_table_of_a_cache_in_every_database(database):
    with override_settings(CACHES={"default": cache_settings("database")}):
        call_command("createcachetable", verbosity=0)
        try:
            one, other = two(SessionStore, a=1)
            one["b"] = 2
            one.save()
            other["c"] = 3
            other.save()
            assert stored(one) == {"a": 1, "b": 2, "c": 3}
            other["d"] = 4
            other.cycle_key()
            assert stored(other) == {"a": 1, "b": 2, "c": 3, "d": 4}
            with pytest.raises(UpdateError):
                one.save()
            other.set_expiry(-1)
            other.save()
            assert SessionStore(other.session_key).load() == {}
        finally:
            with database.cursor() as cursor:
                cursor.execute(f"DROP TABLE {database.ops.quote_name('cache table')}")

"""The cached_db engine: copies that end with their rows, on every database and kind of cache."""

import contextlib
import json
import threading
from datetime import timedelta
from unittest import mock

import django
import pytest
from asgiref.sync import async_to_sync
from cache_backends import SERVERS, cache_settings
from custom_session import models as custom
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoStore
from django.contrib.sessions.backends.db import SessionStore as DjangoRowStore
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import OperationalError, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from stored_sessions import filled, two

from django_session_rs.backends.cache_entries import Entries, LocalEntries
from django_session_rs.backends.cached_db import SessionStore
from django_session_rs.exceptions import SessionConflictError, StoreUnavailableError

# One for each way in which a copy is compared, and one that cannot.
KINDS = ("locmem", "redis", "pymemcache", "unknown")


@pytest.fixture(params=KINDS)
def cache(request, database):
    with override_settings(CACHES={"default": cache_settings(request.param)}):
        yield caches["default"]
        caches.close_all()


def copy_of(store):
    return caches["default"].get(store.cache_key_prefix + store.session_key)


def drop_copy(store):
    caches["default"].delete(store.cache_key_prefix + store.session_key)


def row_of(store):
    return DjangoRowStore(store.session_key).load()


def words(function, *args):
    with CaptureQueriesContext(connections["default"]) as captured:
        function(*args)
    return [query["sql"].split()[0] for query in captured.captured_queries]


def in_thread(function):
    """Run a function in a thread with connections of its own."""
    own = connections["default"]
    errors = []

    def run():
        connections["default"] = connections[own.alias]
        try:
            function()
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connections["default"].close()
            caches.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


# Together with Django.


@pytest.mark.parametrize(
    ("one", "other"), [(SessionStore, DjangoStore), (DjangoStore, SessionStore)]
)
def test_both_engines_read_each_other(cache, one, other):
    store = filled(one, a=[1, 2.5], b={"c": True})
    again = other(store.session_key)
    assert dict(again.items()) == {"a": [1, 2.5], "b": {"c": True}} == copy_of(store)
    again["b"] = 2
    again.set_expiry(500)
    again.save()
    assert one(store.session_key)["b"] == 2
    drop_copy(store)
    assert one(store.session_key).get_expiry_age() == 500
    with pytest.raises(CreateError):
        other(store.session_key).save(must_create=True)
    again.delete()
    assert copy_of(store) is None
    assert not one().exists(store.session_key)
    assert one(store.session_key).load() == {}


def test_steps_and_statements(cache):
    store = SessionStore()
    store["a"] = 1
    assert words(store.create) == ["INSERT"]
    assert copy_of(store) == {"a": 1}
    again = SessionStore(store.session_key)
    assert words(again.get, "a") == []
    assert words(again.exists, store.session_key) == []
    again["b"] = 2
    # It came out of the cache, so nobody knows what the row is.
    assert words(again.save) == ["SELECT", "UPDATE"]
    assert row_of(store) == {"a": 1, "b": 2}
    again["c"] = 3
    assert words(again.save) == ["UPDATE"]
    assert copy_of(store) in ({"a": 1, "b": 2, "c": 3}, None)
    assert words(again.cycle_key) == ["UPDATE"]
    assert copy_of(again) == row_of(again) == {"a": 1, "b": 2, "c": 3}
    assert copy_of(store) is None
    assert words(again.delete) == ["DELETE"]
    assert copy_of(again) is None


def test_a_copy_that_cannot_be_made_after_a_commit_fails_nobody(cache):
    store = filled(SessionStore)
    drop_copy(store)
    done = []
    fails = mock.Mock(side_effect=OperationalError("x"))
    with mock.patch.object(SessionStore, "_read_held", fails), transaction.atomic():
        assert SessionStore(store.session_key).load() == {"a": 1}
        transaction.on_commit(lambda: done.append("mail"))
    assert fails.called
    assert done == ["mail"]


class PlainText:
    """A text that is the same whenever it is written."""

    def encode(self, data):
        return json.dumps(data)

    def decode(self, session_data):
        return json.loads(session_data)


def test_a_save_of_the_same_text_moves_the_date_on(cache):
    class Store(PlainText, SessionStore):
        pass

    Store.__qualname__ = "SessionStore"
    store = filled(Store)
    Session.objects.update(expire_date=django.utils.timezone.now() + timedelta(hours=1))
    again = Store(store.session_key)
    assert again["a"] == 1
    again.save()
    left = Session.objects.get(pk=store.session_key).expire_date - django.utils.timezone.now()
    assert left > timedelta(days=13)


def test_a_miss_makes_a_copy_that_ends_with_the_row(cache):
    store = filled(SessionStore)
    store.set_expiry(100)
    store.save()
    drop_copy(store)
    again = SessionStore(store.session_key)
    assert again["a"] == 1
    assert copy_of(store) == {"a": 1, "_session_expiry": 100}
    again["b"] = 2
    again.save()
    assert row_of(store) == {"a": 1, "b": 2, "_session_expiry": 100}
    if type(again._entries) is not Entries:
        assert copy_of(store) == row_of(store)
    drop_copy(store)
    # The row has less time left than the session would have from now on.
    Session.objects.update(
        expire_date=django.utils.timezone.now() + django.utils.timezone.timedelta(seconds=2)
    )
    ages = []
    real = SessionStore._add_copy

    def noted(self, session_key, data, timeout):
        ages.append(timeout)
        return real(self, session_key, data, timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SessionStore, "_add_copy", noted)
        assert SessionStore(store.session_key).load()["a"] == 1
    assert len(ages) == 1
    assert ages[0] <= 2


def test_a_row_that_is_gone_makes_no_copy(cache):
    assert SessionStore("nosuchkeynosuchkey").load() == {}
    store = filled(SessionStore)
    store.set_expiry(-1)
    store.save()
    assert copy_of(store) is None
    assert SessionStore(store.session_key).load() == {}
    assert copy_of(store) is None


# Parallel changes.


def test_both_keep_what_they_changed(cache):
    one, other = two(SessionStore, a=1, gone=1, deep={"x": [1]})
    one["b"] = 2
    del one["gone"]
    other["c"] = 3
    other["deep"]["x"].append(2)
    one.save()
    other.save()
    expected = {"a": 1, "b": 2, "c": 3, "deep": {"x": [1, 2]}}
    assert row_of(one) == expected
    assert copy_of(one) in (expected, None)
    assert dict(other.items()) == expected
    assert SessionStore(one.session_key).load() == expected


def test_a_copy_that_is_behind_loses_nothing(cache):
    store = filled(SessionStore, a=1)
    # Somebody changes the row without the cache.
    rows = DjangoRowStore(store.session_key)
    rows["b"] = 2
    rows.save()
    again = SessionStore(store.session_key)
    again["c"] = 3
    again.save()
    assert row_of(store) == {"a": 1, "b": 2, "c": 3}
    assert SessionStore(store.session_key).load() == {"a": 1, "b": 2, "c": 3}


def test_values_that_json_changes_are_no_conflict(cache):
    store = filled(SessionStore, pair=(1, 2), names={1: "one"})
    with override_settings(SESSION_ON_CONFLICT="error"):
        again = SessionStore(store.session_key)
        again["b"] = 1
        again.save()
        assert row_of(store) == {"pair": [1, 2], "names": {"1": "one"}, "b": 1}
        other = SessionStore(store.session_key)
        other["c"] = 1
        again["d"] = 1
        again.save()
        with pytest.raises(SessionConflictError):
            other.save()


def test_a_deleted_session_stays_deleted(cache):
    one, other = two(SessionStore, a=1)
    key = one.session_key
    one.flush()
    other["b"] = 2
    with pytest.raises(UpdateError):
        other.save()
    assert SessionStore(key).load() == {}
    # A copy that a stock Django has brought back goes with the first save that finds no row.
    caches["default"].set(other.cache_key_prefix + key, {"a": 1}, 100)
    late = SessionStore(key)
    late["b"] = 2
    with pytest.raises(UpdateError):
        late.save()
    assert SessionStore(key).load() == {}


def test_a_rotation_takes_along_what_others_have_saved(cache):
    one, other = two(SessionStore, a=1)
    old = other.session_key
    one["b"] = 2
    one.save()
    other["c"] = 3
    other.cycle_key()
    assert row_of(other) == {"a": 1, "b": 2, "c": 3} == copy_of(other)
    assert SessionStore(old).load() == {}
    with pytest.raises(UpdateError):
        one.save()


def test_a_rotation_after_a_logout_ends_the_session_of_a_user(cache):
    one, other = two(SessionStore, _auth_user_id="1")
    key = one.session_key
    one.flush()
    with pytest.raises(SessionInterrupted):
        other.cycle_key()
    # The cookie stays, which another request may have renewed.
    assert not other.exists(other.session_key)
    assert not other.is_empty()
    with pytest.raises(UpdateError):
        other.save()
    assert Session.objects.count() == 0
    assert SessionStore(key).load() == {}
    # Even if the copy that was read has outlived its row.
    one = filled(SessionStore, _auth_user_id="1")
    Session.objects.all().delete()
    again = SessionStore(one.session_key)
    assert again["_auth_user_id"] == "1"
    with pytest.raises(SessionInterrupted):
        again.cycle_key()
    assert SessionStore(one.session_key).load() == {}


def test_a_logout_that_meets_a_reader_leaves_no_copy(cache, monkeypatch):
    """Stock Django's race: it reads the row, somebody logs out, it writes its copy."""
    real = SessionStore._add_copy
    for leaver in (SessionStore, DjangoStore):
        store = filled(SessionStore)
        drop_copy(store)
        threads, leave = [], leaver(store.session_key).delete

        def racing(self, *args, leave=leave, threads=threads):
            threads.append(in_thread(leave))
            # It waits for the row, which is held.
            threads[0][0].join(0.3)
            assert threads[0][0].is_alive()
            return real(self, *args)

        monkeypatch.setattr(SessionStore, "_add_copy", racing)
        assert SessionStore(store.session_key).load() == {"a": 1}
        thread, errors = threads[0]
        thread.join()
        assert errors == []
        assert copy_of(store) is None
        monkeypatch.undo()
        assert SessionStore(store.session_key).load() == {}


def test_who_writes_the_row_is_not_waited_for(cache):
    if connections["default"].vendor == "sqlite":
        pytest.skip("one who reads without the lock is not stopped there")
    store = filled(SessionStore)
    drop_copy(store)
    writing, done = threading.Event(), threading.Event()

    def write():
        with transaction.atomic():
            other = DjangoRowStore(store.session_key)
            other["b"] = 2
            other.save()
            writing.set()
            assert done.wait(20)

    thread, errors = in_thread(write)
    try:
        assert writing.wait(20)
        seen = []
        reader, failed = in_thread(lambda: seen.append(SessionStore(store.session_key).load()))
        reader.join(10)
        assert not reader.is_alive()
        assert failed == []
        assert seen == [{"a": 1}]
        # What is written next would not take it away.
        assert copy_of(store) is None
    finally:
        done.set()
        thread.join()
    assert errors == []
    assert SessionStore(store.session_key).load() == {"a": 1, "b": 2}
    assert copy_of(store) == {"a": 1, "b": 2}


def test_no_copy_is_made_under_another_spelling_of_the_key(cache):
    """MySQL finds a row in any, the cache does not: nobody would take such a copy away."""
    store = filled(SessionStore)
    drop_copy(store)
    other = SessionStore(store.session_key.upper())
    assert other.load() == DjangoRowStore(store.session_key.upper()).load()
    assert caches["default"].get(store.cache_key_prefix + store.session_key.upper()) is None
    store.delete()
    assert SessionStore(store.session_key.upper()).load() == {}


def test_a_logout_between_a_row_and_its_copy_leaves_no_copy(cache, monkeypatch):
    """The other race: a writer renews the copy after a logout took it away."""
    store = filled(SessionStore)
    writer = SessionStore(store.session_key)
    writer["b"] = 2
    real = SessionStore._renew

    def racing(self, session_key, connection):
        SessionStore(session_key).delete()
        real(self, session_key, connection)

    monkeypatch.setattr(SessionStore, "_renew", racing)
    writer.save()
    assert copy_of(store) is None
    assert SessionStore(store.session_key).load() == {}


def test_two_writers_renew_the_copy_in_the_order_of_their_rows(cache, monkeypatch):
    store = filled(SessionStore)
    first, second = SessionStore(store.session_key), SessionStore(store.session_key)
    first["b"] = 2
    second["c"] = 3
    real = SessionStore._renew

    def racing(self, session_key, connection):
        if self is first:
            second.save()
        real(self, session_key, connection)

    monkeypatch.setattr(SessionStore, "_renew", racing)
    first.save()
    assert row_of(store) == {"a": 1, "b": 2, "c": 3}
    assert copy_of(store) in ({"a": 1, "b": 2, "c": 3}, None)
    assert SessionStore(store.session_key).load() == {"a": 1, "b": 2, "c": 3}


def test_many_threads_lose_no_update(cache):
    if connections["default"].vendor == "sqlite":
        pytest.skip("writers may wait in vain for each other there")
    key = filled(SessionStore).session_key
    barrier = threading.Barrier(4)

    def change(number):
        barrier.wait()
        for count in range(8):
            store = SessionStore(key)
            store[f"{number}_{count}"] = count
            store.save()

    threads = [in_thread(lambda number=number: change(number)) for number in range(4)]
    for thread, _ in threads:
        thread.join()
    assert [errors for _, errors in threads if errors] == []
    wanted = {f"{number}_{count}" for number in range(4) for count in range(8)} | {"a"}
    assert set(DjangoRowStore(key).load()) == wanted
    assert set(SessionStore(key).load()) == wanted


# Transactions.


def test_what_is_not_committed_is_not_in_the_cache(cache):
    store = filled(SessionStore)
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012
        store["b"] = 2
        store.save()
        assert copy_of(store) is None
        raise ZeroDivisionError
    assert SessionStore(store.session_key).load() == {"a": 1}
    store.save()
    assert SessionStore(store.session_key).load() == {"a": 1, "b": 2}


def test_a_miss_within_a_transaction_makes_its_copy_afterwards(cache):
    store = filled(SessionStore)
    drop_copy(store)
    with transaction.atomic():
        assert SessionStore(store.session_key).load() == {"a": 1}
        assert copy_of(store) is None
    assert copy_of(store) == {"a": 1}
    with transaction.atomic():
        SessionStore(store.session_key).flush()
    assert copy_of(store) is None


# Failures.


class Away(LocalEntries):
    """A cache that is away."""

    def _away(self, key, *args, **kwargs):
        raise StoreUnavailableError("unreachable") from OSError(f"while asking for {key}")

    get = has_key = add = replace = delete = rotate = _away


def test_a_cache_that_is_away(sqlite_database, monkeypatch, caplog):
    with override_settings(CACHES={"default": cache_settings("locmem")}):
        store = filled(SessionStore)
        lost = SessionStore(store.session_key)
        lost._entries = Away(lost._cache)
        assert lost["a"] == 1
        assert lost.outage is None
        assert lost.exists(store.session_key)
        assert "unreachable" in caplog.text
        assert store.session_key not in caplog.text
        # The row is written, but the copy may be behind.
        lost["b"] = 2
        with pytest.raises(StoreUnavailableError):
            lost.save()
        assert lost.outage is not None
        assert row_of(store) == {"a": 1, "b": 2}
        for step in ("delete", "flush", "cycle_key"):
            again = SessionStore(store.session_key)
            again._entries = Away(again._cache)
            with pytest.raises(StoreUnavailableError):
                getattr(again, step)()
            assert again.session_key == store.session_key
            assert row_of(store) == {"a": 1, "b": 2}
        new = SessionStore()
        new._entries = Away(new._cache)
        new["n"] = 1
        caplog.clear()
        new.save()
        assert row_of(new) == {"n": 1}
        assert "Error saving to cache" in caplog.text
        assert new.session_key not in caplog.text


def test_a_row_that_stays_locked_is_read_all_the_same(sqlite_database):
    with override_settings(CACHES={"default": cache_settings("locmem")}):
        store = filled(SessionStore)
        drop_copy(store)

        def locked(execute, sql, params, many, context):
            if sql.startswith("BEGIN"):
                raise django.db.OperationalError("database is locked")
            return execute(sql, params, many, context)

        with sqlite_database.execute_wrapper(locked):
            assert SessionStore(store.session_key).load() == {"a": 1}
        assert copy_of(store) is None


def test_a_database_that_is_away_is_no_empty_session(sqlite_database):
    with override_settings(CACHES={"default": cache_settings("locmem")}):
        store = filled(SessionStore)
        drop_copy(store)

        def away(*_):
            raise django.db.OperationalError("gone")

        again = SessionStore(store.session_key)
        with sqlite_database.execute_wrapper(away), pytest.raises(django.db.OperationalError):
            again.load()
        assert again.outage is not None
        assert again.session_key == store.session_key


@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
def test_a_key_that_no_cache_has(cache):
    for key in ("x" * 41, "with a space", "ключ-сессии"):
        if cache.__class__.__name__ == "OwnCache":
            continue
        store = SessionStore(key)
        assert store.load() == {}
        assert SessionStore().exists(key) is False
        store = SessionStore(key)
        store["a"] = 1
        with contextlib.suppress(UpdateError, django.db.DataError):
            store.save()
        SessionStore(key).delete()


def test_what_nobody_can_read_is_read_from_the_row(sqlite_database):
    with override_settings(CACHES={"default": cache_settings("locmem")}):
        store = filled(SessionStore)
        cache = caches["default"]
        cache._cache[cache.make_key(store.cache_key)] = b"nothing"
        again = SessionStore(store.session_key)
        assert again["a"] == 1
        again["b"] = 2
        again.save()
        assert SessionStore(store.session_key).load() == {"a": 1, "b": 2}


# Asynchronous, and what projects make of it.


def test_the_asynchronous_twins(cache):
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
        with pytest.raises(UpdateError):
            await one.asave()
        new = SessionStore()
        await new.aset("n", 1)
        await new.asave()
        assert await SessionStore(new.session_key).aload() == {"n": 1}
        await new.aflush()
        await other.adelete()
        assert await SessionStore(other.session_key).aload() == {}
        await SessionStore.aclear_expired()

    async_to_sync(steps)()


def test_a_model_of_the_projects_own(cache):
    class Store(SessionStore):
        cache_key_prefix = "mine."

        @classmethod
        def get_model_class(cls):
            return custom.AccountSession

        def create_model_instance(self, data):
            instance = super().create_model_instance(data)
            instance.account_id = data.get("account_id")
            return instance

        async def acreate_model_instance(self, data):
            return self.create_model_instance(data)

    one, other = two(Store, account_id=1)
    one["account_id"] = 2
    one.save()
    other["b"] = 3
    other.save()
    assert custom.AccountSession.objects.get().account_id == 2
    assert Store(one.session_key).load() == {"account_id": 2, "b": 3}

    async def steps():
        store = Store(one.session_key)
        await store.aset("account_id", 5)
        await store.asave()
        return store

    store = async_to_sync(steps)()
    store.cycle_key()
    assert custom.AccountSession.objects.get().account_id == 5
    assert Store(store.session_key).load() == {"account_id": 5, "b": 3}
    assert Store(one.session_key).load() == {}
    Store(store.session_key).flush()
    assert not custom.AccountSession.objects.exists()


def test_a_model_that_saves_itself(cache):
    class Store(SessionStore):
        @classmethod
        def get_model_class(cls):
            return custom.LoudSession

    store = filled(Store)
    store["b"] = 2
    store.save()
    assert Store(store.session_key).load() == {"a": 1, "b": 2}
    old = store.session_key
    store.cycle_key()
    assert Store(old).load() == {}
    assert Store(store.session_key).load() == {"a": 1, "b": 2}
    store.delete()
    assert Store(store.session_key).load() == {}


def test_servers_are_among_the_kinds():
    assert set(KINDS) & set(SERVERS)

# ruff: noqa: PT008, PT012 - recorded keys, and blocks that fail at their end
"""Two requests, one row: what the database engine makes of it."""

import contextlib
import threading
import time
from unittest import mock

import django
import pytest
from asgiref.sync import async_to_sync
from custom_session import models as custom
from custom_session.stores import SessionStore as AccountStore
from custom_session.stores import store_of
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from stored_sessions import filled, two

from django_session_rs.backends import conflicts
from django_session_rs.backends.db import SessionStore
from django_session_rs.exceptions import SessionConflictError
from django_session_rs.merge import MISSING


def stored(store, store_class=SessionStore):
    return dict(store_class(store.session_key).items())


def words(connection, function, *args):
    with CaptureQueriesContext(connection) as captured:
        function(*args)
    return [query["sql"].split()[0] for query in captured.captured_queries]


@pytest.mark.parametrize("store_class", [SessionStore, AccountStore], ids=["stock", "custom"])
def test_both_keep_what_they_changed(database, store_class):
    one, other = two(store_class, a=1, gone=1, deep={"x": [1]}, theirs=1)
    one["b"] = 2
    one["account_id"] = 5
    del one["gone"]
    other["c"] = 3
    other["deep"]["x"].append(2)
    other.pop("theirs")
    one.save()
    other.save()
    expected = {"a": 1, "b": 2, "c": 3, "deep": {"x": [1, 2]}, "account_id": 5}
    assert stored(one, store_class) == expected
    # What the first has saved is in the session of the second, so that its next save keeps it.
    assert dict(other.items()) == expected
    other["d"] = 4
    assert words(database, other.save) == ["UPDATE"]
    assert stored(one, store_class) == expected | {"d": 4}
    if store_class is AccountStore:
        assert custom.AccountSession.objects.get().account_id == 5


def test_a_conflict_takes_three_statements(database):
    one, other = two(SessionStore)
    one["b"] = 2
    one.save()
    other["c"] = 3
    assert words(database, other.save) == ["UPDATE", "SELECT", "UPDATE"]


def test_the_session_object_stays_itself(database):
    one, other = two(SessionStore, a=1, mine=[1], theirs=[1])
    data, mine = other._session, other["mine"]
    other[5] = "five"
    mine.append(2)
    one["theirs"] = [1, 2]
    one["new"] = 1
    one.save()
    other.save()
    assert other._session is data
    assert other["mine"] is mine
    assert other["theirs"] == [1, 2]
    assert (5 in other, "5" in other) == (True, False)
    expected = {"a": 1, "mine": [1, 2], "theirs": [1, 2], "new": 1, "5": "five"}
    assert stored(one) == expected
    mine.append(3)
    other.save()
    assert stored(one) == expected | {"mine": [1, 2, 3]}


def test_what_was_set_to_the_value_it_had_was_set(database):
    one, other = two(SessionStore, a=1, b=1)
    one.update({"a": 2, "b": 2})
    one.save()
    other["a"] = 1
    other.save()
    assert stored(one) == {"a": 1, "b": 2}


def test_what_was_cleared_stays_cleared(database):
    one, other = two(SessionStore, a=1)
    one["b"] = 2
    one.save()
    other.clear()
    other["c"] = 3
    other.save()
    assert stored(one) == {"c": 3}


def test_a_look_at_the_row_in_between_is_no_load(database):
    one, other = two(SessionStore, a=1)
    one["b"] = 2
    one.save()
    assert other.load() == {"a": 1, "b": 2}
    other["c"] = 3
    other.save()
    assert stored(one) == {"a": 1, "b": 2, "c": 3}


def test_expiry_is_merged_like_everything_else(database):
    one, other = two(SessionStore, a=1)
    one.set_expiry(500)
    one.save()
    other["b"] = 2
    other.save()
    assert SessionStore(one.session_key).get_expiry_age() == 500
    row = Session.objects.get()
    assert 0 < (row.expire_date - django.utils.timezone.now()).total_seconds() <= 500


def test_a_deleted_session_stays_deleted(database):
    one, other = two(SessionStore, a=1)
    one.delete()
    other["b"] = 2
    with pytest.raises(UpdateError):
        other.save()
    assert Session.objects.count() == 0


def test_a_session_that_has_expired_meanwhile_stays_expired(database):
    one, other = two(SessionStore, a=1)
    one.set_expiry(-1)
    one.save()
    other["b"] = 2
    with pytest.raises(UpdateError):
        other.save()


def test_what_nobody_can_read_is_replaced(database):
    one, other = two(SessionStore, a=1)
    Session.objects.update(session_data="nothing")
    one["b"] = 2
    one.save()
    assert stored(one) == {"a": 1, "b": 2}
    Session.objects.update(session_data="nothing")
    broken = SessionStore(one.session_key)
    assert dict(broken.items()) == {}
    broken["c"] = 3
    broken.save()
    assert stored(one) == {"c": 3}
    # It was repaired in the meantime, so there is something to be kept.
    other["d"] = 4
    other.save()
    assert stored(one) == {"c": 3, "d": 4}


@pytest.mark.parametrize("first", [SessionStore, DjangoStore])
def test_a_django_beside_it(database, first):
    key = filled(first).session_key
    ours, theirs = SessionStore(key), DjangoStore(key)
    ours.get("a"), theirs.get("a")
    theirs["b"] = 2
    theirs.save()
    ours["c"] = 3
    ours.save()
    assert stored(ours, DjangoStore) == {"a": 1, "b": 2, "c": 3}
    # Django overwrites, as ever.
    theirs.save()
    assert stored(ours) == {"a": 1, "b": 2}


# Settings.


def resolve(name, loaded, mine, stored):
    if name == "gone":
        return MISSING
    return stored + mine - (loaded or 0)


def test_the_later_save_may_overwrite(database):
    one, other = two(SessionStore, a=1)
    one["b"] = 2
    one.save()
    with override_settings(SESSION_ON_CONFLICT="overwrite"):
        other["c"] = 3
        assert words(database, other.save) == ["UPDATE"]
    assert stored(one) == {"a": 1, "c": 3}


def test_the_later_save_may_fail(database):
    one, other = two(SessionStore, a=1)
    with override_settings(SESSION_ON_CONFLICT="error"):
        one["b"] = 2
        one.save()
        other["c"] = 3
        with pytest.raises(SessionConflictError):
            other.save()
        assert stored(one) == {"a": 1, "b": 2}
        # The same data, written again, is no change.
        Session.objects.update(session_data=SessionStore().encode({"a": 1, "b": 2}))
        one["d"] = 4
        one.save()
    assert stored(one) == {"a": 1, "b": 2, "d": 4}


@pytest.mark.parametrize("value", [resolve, f"{__name__}.resolve"], ids=["function", "path"])
def test_a_function_may_decide(database, value):
    with override_settings(SESSION_ON_CONFLICT=value):
        one, other = two(SessionStore, a=1, count=10, gone=1)
        for store, added in [(one, 1), (other, 2)]:
            store["count"] += added
            store["gone"] += added
            store["own" + str(added)] = added
            store.save()
    assert stored(one) == {"a": 1, "count": 13, "own1": 1, "own2": 2}
    assert dict(other.items()) == stored(one)


def test_two_that_count_alike_in_one_second_are_both_counted(database):
    with override_settings(SESSION_ON_CONFLICT=resolve):
        one, other = two(SessionStore, count=10)
        # Their texts are the same, as they are signed with the time in seconds.
        with mock.patch("time.time", return_value=time.time()):
            for store in (one, other):
                store["count"] += 1
                store.save()
    assert stored(one) == {"count": 12}


@pytest.mark.parametrize("value", ["", "merged", "no.such.module", "math.pi", 5, None, ["merge"]])
def test_a_setting_that_means_nothing(sqlite_database, value):
    store = filled(SessionStore)
    with override_settings(SESSION_ON_CONFLICT=value), pytest.raises(ImproperlyConfigured):
        store.save()


# Transactions.


def test_what_a_transaction_undid_is_written_again(database):
    store = filled(SessionStore)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        store["b"] = 2
        store.save()
        store["c"] = 3
        store.save()
        raise ZeroDivisionError
    assert stored(store) == {"a": 1}
    store.save()
    assert stored(store) == {"a": 1, "b": 2, "c": 3}


def test_a_transaction_that_looked_before_sees_what_is_stored_now(database):
    if database.vendor == "sqlite":
        pytest.skip("a writer has SQLite for itself")
    one, other = two(SessionStore, a=1)
    own = connections["default"]
    errors = []

    def first():
        connections["default"] = own.copy()
        try:
            one["b"] = 2
            one.save()
        finally:
            connections["default"].close()

    thread = threading.Thread(target=first)
    level = "REPEATABLE READ"
    if database.vendor == "mysql":
        with database.cursor() as cursor:
            cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
    try:
        with transaction.atomic():
            with database.cursor() as cursor:
                if database.vendor == "postgresql":
                    cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
                cursor.execute("SELECT session_data FROM django_session")
            thread.start()
            thread.join()
            other["c"] = 3
            other.save()
    except django.db.OperationalError as error:
        # Such a transaction may be given up; the session is not taken for a deleted one.
        errors.append(error)
    expected = {"a": 1, "b": 2} if errors else {"a": 1, "b": 2, "c": 3}
    assert stored(one) == expected
    if errors:
        assert other.outage is errors[0]
        other.save()
        assert stored(one) == {"a": 1, "b": 2, "c": 3}


# Rotation.


@pytest.mark.parametrize("store_class", [SessionStore, AccountStore], ids=["stock", "custom"])
def test_a_rotation_is_one_statement_and_takes_all_along(database, store_class):
    store = filled(store_class, a=1, account_id=3)
    old = store.session_key
    store["b"] = 2
    assert words(database, store.cycle_key) == ["UPDATE"]
    assert store.session_key != old
    assert store.modified
    assert stored(store, store_class) == {"a": 1, "account_id": 3, "b": 2}
    assert not store_class().exists(old)
    store["c"] = 3
    assert words(database, store.save) == ["UPDATE"]


def test_a_login_and_its_save_take_three_statements(database):
    store = SessionStore(filled(SessionStore).session_key)

    def login():
        store.get("_auth_user_id")
        store.cycle_key()
        store["_auth_user_id"] = "1"
        store.save()

    assert words(database, login) == ["SELECT", "UPDATE", "UPDATE"]


def test_what_others_save_before_a_rotation_moves_along(database):
    one, other = two(SessionStore, a=1)
    one["b"] = 2
    one.save()
    other["c"] = 3
    assert words(database, other.cycle_key) == ["UPDATE", "SELECT", "UPDATE"]
    assert stored(other) == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(UpdateError):
        one.save()
    assert Session.objects.count() == 1


def test_a_rotation_after_a_logout_ends_the_session_of_a_user(database):
    one, other = two(SessionStore, _auth_user_id="1")
    one.flush()
    with pytest.raises(UpdateError) as caught:
        other.cycle_key()
    assert isinstance(caught.value, SessionInterrupted)
    # The cookie stays, which another request may have renewed.
    assert not other.exists(other.session_key)
    assert not other.is_empty()
    with pytest.raises(UpdateError):
        other.save()
    assert dict(other.items()) == {}
    assert other.outage is None
    assert Session.objects.count() == 0


def test_two_rotations_of_nobody_s_session_are_two_sessions(database):
    one, other = two(SessionStore, a=1)
    one.cycle_key()
    other.cycle_key()
    assert one.session_key != other.session_key
    assert stored(one) == stored(other) == {"a": 1}


def test_a_rotation_of_what_is_not_there_makes_a_session(database):
    store = SessionStore("nosuchkeynosuchkey")
    store.cycle_key()
    assert stored(store) == {}
    store.clear()
    store["a"] = 1
    old = store.session_key
    store.cycle_key()
    assert stored(store) == {"a": 1}
    assert not SessionStore().exists(old)
    with override_settings(SESSION_ON_CONFLICT="overwrite"):
        other = SessionStore(store.session_key)
        other.get("a")
        store.delete()
        other.cycle_key()
        assert stored(other) == {"a": 1}


def test_a_rotation_draws_another_key_if_one_is_taken(database):
    taken, store = filled(SessionStore, b=2), filled(SessionStore)
    keys = iter([taken.session_key, "0" * 32])
    with mock.patch.object(SessionStore, "_get_new_session_key", lambda self: next(keys)):
        store.cycle_key()
    assert store.session_key == "0" * 32
    assert stored(taken) == {"b": 2}


def test_a_rotation_that_fails_leaves_the_key(database):
    store = filled(AccountStore, account_id=1)
    filled(AccountStore, account_id=2)
    old = store.session_key
    store["account_id"] = 2
    with pytest.raises(django.db.IntegrityError):
        store.cycle_key()
    assert store.session_key == old
    assert AccountStore(old).load() == {"account_id": 1}


def test_a_rotation_where_the_model_saves_itself_is_django_s(database):
    store_class = store_of(custom.LoudSession)
    store = filled(store_class)
    old = store.session_key
    store.cycle_key()
    assert custom.LoudSession.saved[-1] == store.session_key
    assert custom.LoudSession.deleted[-1] == old
    assert stored(store, store_class) == {"a": 1}


def test_a_rotation_calls_what_a_subclass_has_of_its_own(database):
    calls = []

    class Store(SessionStore):
        def delete(self, session_key=None):
            calls.append("delete")
            super().delete(session_key)

        @property
        def key_salt(self):
            return "django.contrib.sessions.SessionStore"

    store = filled(Store)
    store.cycle_key()
    assert calls == ["delete"]
    assert stored(store) == {"a": 1}


# Many at once.


def in_threads(count, function):
    """Run a function in threads, each with connections of its own; return what they raised."""
    alias_of = connections["default"].alias
    errors = []
    barrier = threading.Barrier(count)

    def run(number):
        connections["default"] = connections[alias_of]
        try:
            barrier.wait()
            function(number)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connections["default"].close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_many_threads_lose_no_update(database):
    threads, rounds = 8, 10
    key = filled(SessionStore).session_key

    def change(number):
        for count in range(rounds):
            store = SessionStore(key)
            store[f"{number}_{count}"] = count
            store.save()

    errors = in_threads(threads, change)
    if database.vendor == "sqlite":
        # Writers may wait in vain for each other there, which is said, and nothing is lost by it.
        errors = [error for error in errors if not isinstance(error, django.db.OperationalError)]
    assert errors == []
    found = set(SessionStore(key).load())
    wanted = {f"{number}_{count}" for number in range(threads) for count in range(rounds)} | {"a"}
    assert found == wanted


def test_savers_and_a_rotation_lose_nothing(database):
    if database.vendor == "sqlite":
        pytest.skip("one writer at a time")
    key = filled(SessionStore).session_key
    saved, moved = [], []

    def change(number):
        if number == 0:
            store = SessionStore(key)
            store.get("a")
            store.cycle_key()
            moved.append(store.session_key)
            return
        for count in range(20):
            store = SessionStore(key)
            store[f"{number}_{count}"] = count
            if store.session_key is None:
                return
            try:
                store.save()
            except UpdateError:
                return
            saved.append(f"{number}_{count}")

    assert in_threads(5, change) == []
    assert set(saved) <= set(SessionStore(moved[0]).load())
    assert Session.objects.count() == 1


def test_nothing_is_brought_back_by_savers_who_race_a_delete(database):
    if database.vendor == "sqlite":
        pytest.skip("one writer at a time")
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
    assert Session.objects.count() == 0


# Asynchronous.


@pytest.mark.parametrize("store_class", [SessionStore, AccountStore], ids=["stock", "custom"])
def test_the_asynchronous_twins_merge_too(database, store_class):
    key = filled(store_class).session_key

    async def steps():
        one, other = store_class(key), store_class(key)
        assert await one.aget("a") == await other.aget("a") == 1
        await one.aset("b", 2)
        await one.asave()
        await other.aupdate({"c": 3, "gone": 1})
        assert await other.apop("gone") == 1
        assert await other.apop("nothing", None) is None
        await other.asave()
        assert dict(await other.aitems()) == {"a": 1, "b": 2, "c": 3}
        await one.aset("d", 4)
        await one.acycle_key()
        return one

    one = async_to_sync(steps)()
    if store_class is SessionStore:
        assert stored(one) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert stored(one, store_class)["d"] == 4
    assert not store_class().exists(key)


def test_every_django_has_the_asynchronous_methods(sqlite_database):
    async def steps():
        store = SessionStore()
        await store.aset_test_cookie()
        assert await store.atest_cookie_worked()
        await store.adelete_test_cookie()
        assert await store.asetdefault("a", 1) == 1
        await store.aset_expiry(300)
        assert await store.aget_expiry_age() == 300
        assert await store.aget_expire_at_browser_close() is False
        await store.asave()
        again = SessionStore(store.session_key)
        assert await again.ahas_key("a")
        assert sorted(await again.akeys()) == ["_session_expiry", "a"]
        assert len(list(await again.avalues())) == 2
        assert (await again.aget_expiry_date()) > django.utils.timezone.now()
        await again.aflush()
        assert await again.aexists(store.session_key) is False
        assert again.session_key is None
        lost = SessionStore("nosuchkeynosuchkey")
        assert await lost.aget("a", 5) == 5
        assert lost.session_key is None

    async_to_sync(steps)()


# Outages.


def test_the_last_outage_is_remembered(sqlite_database):
    store = filled(SessionStore)
    error = django.db.OperationalError("gone")

    def fail(execute, sql, params, many, context):
        raise error

    for name in ("load", "save", "delete", "cycle_key", "create", "exists"):
        store.outage = None
        with sqlite_database.execute_wrapper(fail), pytest.raises(django.db.OperationalError):
            getattr(store, name)(*([store.session_key] if name == "exists" else []))
        assert store.outage is error, name
        assert store.load() == {"a": 1}
        assert store.outage is None
    for name in ("aload", "asave", "adelete", "acycle_key", "acreate", "aexists"):
        store.outage = None
        with sqlite_database.execute_wrapper(fail), pytest.raises(django.db.OperationalError):
            args = [store.session_key] if name == "aexists" else []
            async_to_sync(getattr(store, name))(*args)
        assert store.outage is error, name
    # A session that was deleted is none.
    SessionStore(store.session_key).delete()
    with pytest.raises(UpdateError):
        store.save()
    assert store.outage is None


def test_a_lock_that_is_held_for_ever_holds_up_nobody(sqlite_database):
    one, other = two(SessionStore)
    one["b"] = 2
    one.save()
    lock = conflicts._turns[hash(one.session_key) % len(conflicts._turns)]
    with lock, mock.patch.object(conflicts, "TURN_TIMEOUT", 0.01):
        other["c"] = 3
        other.save()
    assert stored(one) == {"a": 1, "b": 2, "c": 3}

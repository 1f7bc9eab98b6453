# ruff: noqa: BLE001, PT008, PT012, PT017 - recorded failures are of any kind, anywhere
"""The database engine: recorded behaviour of Django, statement counts, failures, custom models."""

import asyncio
import itertools
import re
import sys
import threading
from datetime import datetime, timedelta
from unittest import mock

import django
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from conftest import frozen
from custom_session import models as custom
from custom_session.stores import SessionStore as AccountStore
from custom_session.stores import store_of
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.contrib.sessions.models import Session
from django.core.exceptions import SuspiciousOperation
from django.db import connections, router, transaction
from django.db.models import signals
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone as django_timezone
from stored_sessions import filled
from vectors import case, plain, records, same

from django_session_rs.backends import db
from django_session_rs.backends.db import SessionStore

RELEASE = f"{django.VERSION[0]}.{django.VERSION[1]}."
HAS_ASYNC = hasattr(SessionBase, "asave")


def needs_python_3_11(record):
    """Skip records with ISO 8601 texts (`Z`, one digit) that Python 3.10 does not read."""
    wide = "/str_iso_z/" in record["id"] or record["id"].endswith("/expiry_iso")
    if wide and sys.version_info < (3, 11):
        pytest.skip("datetime.fromisoformat reads this text since Python 3.11")


def recorded(family, **wanted):
    """Records of the release that is installed, or of the nearest one before it."""
    releases = {r["django_version"] for r in records(family)}
    ordered = sorted(releases, key=lambda v: [int(part) for part in v.split(".")])
    known = [v for v in ordered if [int(p) for p in v.split(".")[:2]] <= list(django.VERSION[:2])]
    chosen = next((v for v in ordered if v.startswith(RELEASE)), known[-1])
    return [
        pytest.param(record, id=case(record))
        for record in records(family)
        if record["django_version"] == chosen
        and all(record.get(name) == value for name, value in wanted.items())
    ]


def moment(text):
    value = datetime.fromisoformat(text)
    return value if settings.USE_TZ else value.astimezone().replace(tzinfo=None)


def insert(key, data, expire_date):
    Session.objects.create(
        session_key=key, session_data=SessionStore().encode(data), expire_date=expire_date
    )


def messages(caplog):
    return [(entry.name, entry.getMessage()) for entry in caplog.records]


# Recorded behaviour.


@pytest.mark.parametrize(
    "record",
    [param for param in recorded("negative") if param.id.startswith("load/")],
)
def test_loading_as_recorded(record, sqlite_database, caplog):
    with override_settings(SECRET_KEY=record["secret_key"]), frozen(record["now"]):
        for row in record["rows"]:
            Session.objects.create(**{**row, "expire_date": moment(row["expire_date"])})
        store = SessionStore(record["cookie_key"])
        assert store.session_key == record["session_key_after_init"]
        if "raises" in record:
            with pytest.raises(Exception, match=re.escape(record["raises"]["message"])) as caught:
                dict(store._get_session())
            assert type(caught.value).__name__ == record["raises"]["type"].rsplit(".")[-1]
            return
        found = dict(store._get_session())
        assert same(found, plain(record["result"]))
        assert store.session_key == record["session_key_after"]
        assert store.accessed is record["accessed"]
        assert store.modified is record["modified"]
        assert store.is_empty() is record["is_empty"]
    assert messages(caplog) == [(log["logger"], log["message"]) for log in record["logs"]]


def perform(store, step, clock):
    """One recorded operation; returns what it returned and the store to go on with."""
    op, args = step["op"], [plain(value) for value in step["args"]]
    if op in {"expiry_age_kw", "expiry_date_kw"}:
        method = "get_expiry_age" if op == "expiry_age_kw" else "get_expiry_date"
        return getattr(store, method)(**args[0]), store
    if op == "new_store_same_key":
        return None, SessionStore(store.session_key)
    actions = {
        "advance": lambda seconds: setattr(clock, "now", clock.now + seconds),
        "bool": lambda: bool(store),
        "cache_cleared": lambda: None,
        "delitem": store.__delitem__,
        "getitem": store.__getitem__,
        "in": store.__contains__,
        "iter": lambda: list(store),
        "mutate_nested": lambda key, value: store[key].append(value),
        "other_request_deletes_row": lambda: (
            Session.objects.filter(session_key=store.session_key).delete() and None
        ),
        "setitem": store.__setitem__,
    }
    result = (actions.get(op) or getattr(store, op))(*args)
    if op in {"keys", "values", "items"}:
        result = list(result)
    return result, store


def looks_same(found, expected, given_keys):
    """As recorded; a new session key only has to look like one."""
    if isinstance(expected, str) and re.fullmatch("[a-z0-9]{32}", expected):
        if expected in given_keys:
            return found == expected
        return re.fullmatch("[a-z0-9]{32}", found) and found not in given_keys
    return same(found, expected)


@pytest.mark.parametrize("record", recorded("session_ops", backend="db"))
@pytest.mark.filterwarnings("ignore:DateTimeField Session.expire_date received a naive datetime")
def test_operations_as_recorded(record, sqlite_database):
    needs_python_3_11(record)
    use_tz = not record["id"].endswith("use_tz_False")
    given = {record["cookie_key"], *(row["session_key"] for row in record["rows"])}
    options = {
        "SECRET_KEY": record["secret_key"],
        "SESSION_COOKIE_AGE": record["session_cookie_age"],
        "USE_TZ": use_tz,
    }
    with override_settings(**options), frozen(record["now"]) as clock:
        for row in record["rows"]:
            expires = django_timezone.now() + timedelta(seconds=row["expires_in"])
            insert(row["session_key"], plain(row["data"]), expires)
        store = SessionStore(record["cookie_key"])
        for number, step in enumerate(record["steps"]):
            where = f"{record['id']}, step {number}: {step['op']}"
            if step["op"] != "init":
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
            assert looks_same(store.session_key, state["session_key"], given), where
            assert store.accessed is state["accessed"], where
            assert store.modified is state["modified"], where
            assert store.is_empty() is state["is_empty"], where
            cache = getattr(store, "_session_cache", "NOT LOADED")
            assert same(cache, plain(state["cache"])), where
            if "db_keys" in step:
                rows = Session.objects.values_list("session_key", flat=True)
                assert len(rows) == len(step["db_keys"]), where
                for key in set(step["db_keys"]) & given:
                    assert key in rows, where


VIEWS = {
    "does not touch the session": lambda s: None,
    "session['b'] = 2": lambda s: s.__setitem__("b", 2),
    "session.flush()": lambda s: s.flush(),
    "session.get('a')": lambda s: s.get("a"),
    "session.is_empty()": lambda s: s.is_empty(),
    "session.modified = True (nothing set)": lambda s: setattr(s, "modified", True),
    "session.clear()": lambda s: s.clear(),
    "session.cycle_key()": lambda s: s.cycle_key(),
    "session['b']=2; set_expiry(300)": lambda s: (s.__setitem__("b", 2), s.set_expiry(300)),
    "session['b']=2; set_expiry(0)": lambda s: (s.__setitem__("b", 2), s.set_expiry(0)),
    "session['b']=2; set_expiry(-10)": lambda s: (s.__setitem__("b", 2), s.set_expiry(-10)),
    "session['b']=2; set_expiry(timedelta(days=40))": lambda s: (
        s.__setitem__("b", 2),
        s.set_expiry(timedelta(days=40)),
    ),
    "session['l'].append(1)  (no modified flag)": lambda s: s["l"].append(1),
    "deletes every key one by one": lambda s: [s.pop(key) for key in list(s.keys())],
    "row is deleted by another request, then session['b'] = 2": lambda s: (
        s.get("a"),
        Session.objects.all().delete(),
        s.__setitem__("b", 2),
    ),
}
KEY_IN_COOKIE = re.compile("(?<==)[a-z0-9]{32}(?=;)")


@pytest.mark.parametrize("record", recorded("middleware", backend="db"))
def test_middleware_as_recorded(record, sqlite_database):
    given = {row["session_key"] for row in record["rows"]}
    with (
        override_settings(SECRET_KEY=record["secret_key"], **record["settings"]),
        frozen(record["now"]),
    ):
        for row in record["rows"]:
            expires = django_timezone.now() + timedelta(seconds=row["expires_in"])
            insert(row["session_key"], plain(row["data"]), expires)
        request = HttpRequest()
        if record["cookie"] is not None:
            request.COOKIES[settings.SESSION_COOKIE_NAME] = record["cookie"]

        def view(request):
            response = HttpResponse(status=record["status"])
            if case(record).startswith("vary/"):
                response["Vary"] = case(record).removeprefix("vary/")
            if record["view"] == "del request.session":
                del request.session
            else:
                VIEWS[record["view"]](request.session)
            return response

        middleware = SessionMiddleware(view)
        if "raises" in record:
            with pytest.raises(SessionInterrupted, match=re.escape(record["raises"]["message"])):
                middleware(request)
        else:
            response = middleware(request)
            assert response.status_code == record["response_status"]
            assert response.get("Vary") == record["vary"]
            cookies = [morsel.OutputString() for morsel in response.cookies.values()]
            assert [KEY_IN_COOKIE.sub("new", text) for text in cookies] == [
                KEY_IN_COOKIE.sub("new", text) for text in record["set_cookie"]
            ]
        rows = list(Session.objects.order_by("session_key"))
        assert len(rows) == len(record["rows_after"])
        by_key = {row.session_key: row for row in rows}
        for expected in record["rows_after"]:
            known = expected["session_key"] in given
            new = [row for row in rows if row.session_key not in given]
            row = by_key[expected["session_key"]] if known else new[0]
            assert same(SessionStore().decode(row.session_data), plain(expected["data"]))
            assert row.expire_date == moment(expected["expire_date"])


ENGINES = {"sqlite": "sqlite", "postgres": "postgresql", "mariadb": "mysql"}


@pytest.mark.parametrize(
    "record", [param for param in recorded("db_rows") if "session" in param.values[0]]
)
def test_rows_as_recorded(record, databases):
    """The very text of the expire date, in each database and time zone."""
    needs_python_3_11(record)
    engine = ENGINES[record["engine"]]
    alias = next((a for a in databases if connections[a].vendor == engine), None)
    if alias is None:
        pytest.skip(f"no {engine} server")
    zone = {"USE_TZ": record["use_tz"], "TIME_ZONE": record["time_zone"]}
    own = connections["default"]
    with override_settings(SECRET_KEY=record["secret_key"], **zone), frozen(record["time"]):
        connection = connections[alias]
        # Cached per connection; `override_settings` clears it, for the connections it knows.
        connections["default"] = connection
        try:
            Session.objects.all().delete()
            key = record["session_key"]
            store = SessionStore(key)
            store._session_cache = plain(record["session"])
            if "raises" in record:
                with pytest.raises(Exception, match=re.escape(record["raises"]["message"])):
                    store.save(must_create=True)
                return
            store.save(must_create=True)
            store.save()
            shown = {
                "mysql": "CAST(expire_date AS CHAR)",
                "postgresql": "expire_date::text",
                "sqlite": "CAST(expire_date AS TEXT)",
            }[engine]
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT session_data, {shown} FROM django_session")
                [(session_data, expire_date)] = cursor.fetchall()
            # MySQL shows all six digits of the fraction, the records only those that count.
            wanted = record["row"]["expire_date_text"]
            assert expire_date.removesuffix(".000000") == wanted.removesuffix(".000000")
            assert same(store.decode(record["row"]["session_data"]), store.decode(session_data))
            assert same(SessionStore(key).load(), plain(record["session"]))
            assert same(DjangoStore(key).load(), plain(record["session"]))
        finally:
            Session.objects.all().delete()
            connections["default"] = own


def test_every_row_record_is_replayed_or_of_another_kind():
    family = [param.values[0] for param in recorded("db_rows")]
    others = {case(r).rsplit("/", 1)[-1] for r in family if "session" not in r}
    assert others <= {"schema", "sql", "database_cache"}, others


# One statement per step.


def statements(connection, function, *args):
    with CaptureQueriesContext(connection) as captured:
        function(*args)
    return [query["sql"] for query in captured.captured_queries]


def test_one_statement_per_step(database):
    store = SessionStore()
    store["a"] = 1
    for function, args, words in [
        (store.create, (), ["INSERT"]),
        (store.save, (), ["UPDATE"]),
        (store.load, (), ["SELECT"]),
        (lambda: store.exists(store.session_key), (), ["SELECT"]),
        (store.cycle_key, (), ["UPDATE"]),
        (store.delete, (), ["DELETE"]),
        (SessionStore.clear_expired, (), ["SELECT", "DELETE"]),
        (SessionStore().save, (), ["INSERT"]),
        (filled(SessionStore).flush, (), ["DELETE"]),
        (SessionStore("nosuchkeynosuchkey").load, (), ["SELECT"]),
        (SessionStore().load, (), []),
        (SessionStore().delete, (), []),
        (SessionStore().exists, (None,), []),
        (SessionStore("short").load, (), []),
    ]:
        found = statements(database, function, *args)
        assert [sql.split()[0] for sql in found] == words, found


@pytest.mark.parametrize("store_class", [SessionStore, AccountStore], ids=["stock", "custom"])
def test_one_statement_and_one_hop_per_step_in_async_code(database, store_class):
    hops = []
    real = db.in_thread

    async def counted(function, *args):
        hops.append(function)
        return await real(function, *args)

    async def steps():
        store = store_class()
        store._session_cache = {"a": 1}
        queries = sync_to_async(lambda: len(database.queries_log))
        seen = []
        for name in ("acreate", "asave", "aload", "aexists", "acycle_key", "adelete"):
            before, hops_before = await queries(), len(hops)
            await getattr(store, name)(*([store.session_key] if name == "aexists" else []))
            seen.append((name, await queries() - before, len(hops) - hops_before))
        before, hops_before = await queries(), len(hops)
        await store_class.aclear_expired()
        seen.append(("aclear_expired", await queries() - before, len(hops) - hops_before))
        nobody = store_class()
        before = await queries()
        assert await nobody.aload() == {}
        await nobody.adelete()
        assert await nobody.aexists(None) is False
        assert await queries() == before
        return seen

    with mock.patch.object(db, "in_thread", counted):
        database.force_debug_cursor = True
        try:
            seen = async_to_sync(steps)()
        finally:
            database.force_debug_cursor = False
    counts = {name: (queries, found) for name, queries, found in seen}
    # One looks how far a thousand rows reach.
    several = ("acycle_key", "aclear_expired")
    assert all(counts[name][0] <= 2 for name in several)
    assert all(queries == 1 for name, (queries, _) in counts.items() if name not in several)
    if store_class is SessionStore:
        assert all(found == 1 for _, found in counts.values()), counts


@pytest.mark.skipif(not HAS_ASYNC, reason="the asynchronous session came with Django 5.1")
def test_the_asynchronous_session_does_what_the_synchronous_does(database):
    async def steps():
        store = SessionStore()
        await store.aset("a", 1)
        await store.asave()
        key = store.session_key
        again = SessionStore(key)
        assert await again.aget("a") == 1
        await again.aset_expiry(300)
        await again.acycle_key()
        assert again.session_key != key
        assert await again.aexists(key) is False
        assert await SessionStore(again.session_key).aget_expiry_age() == 300
        lost = SessionStore(key)
        lost._session_cache = {"a": 2}
        with pytest.raises(UpdateError):
            await lost.asave()
        with pytest.raises(CreateError):
            await again.asave(must_create=True)
        await again.aflush()
        assert await again.aexists(again.session_key) is False
        stranger = SessionStore("nosuchkeynosuchkey")
        assert await stranger.aload() == {}
        assert stranger.session_key is None

    async_to_sync(steps)()


# Both engines serve one table.


def test_both_engines_read_each_other(database):
    data = {"a": [1, 2.5, None, "é\ud800"], "b": {"c": True}}
    for one, other in [(SessionStore, DjangoStore), (DjangoStore, SessionStore)]:
        store = one()
        store.update(data)
        store.set_expiry(1234)
        store.save()
        again = other(store.session_key)
        assert dict(again.items()) == {**data, "_session_expiry": 1234}
        again["b"] = 2
        again.save()
        assert one(store.session_key)["b"] == 2
        again.delete()
        assert not one().exists(store.session_key)


def test_expired_sessions(database):
    with frozen(1_700_000_000):
        old, new = filled(SessionStore), filled(SessionStore)
        old.set_expiry(-1)
        old.save()
        assert SessionStore(old.session_key).load() == {}
        assert SessionStore().exists(old.session_key)
        with pytest.raises(CreateError):
            SessionStore(old.session_key).save(must_create=True)
        SessionStore.clear_expired()
        assert not SessionStore().exists(old.session_key)
        assert SessionStore(new.session_key).load() == {"a": 1}


def test_expired_sessions_are_deleted_a_few_at_a_time(database, monkeypatch):
    monkeypatch.setattr(db, "CLEARED_ROWS", 10)
    kept = filled(SessionStore)
    now = django_timezone.now()
    # Some expire at the same time: a step has no end in the middle of them.
    dates = [now - timedelta(seconds=1 + number // 3) for number in range(38)]
    expired = [
        Session(session_key=f"expired{number}", session_data="", expire_date=date)
        for number, date in enumerate(dates)
    ]
    Session.objects.bulk_create(expired)
    with transaction.atomic():
        found = statements(database, SessionStore.clear_expired)
        assert [sql.split()[0] for sql in found] == ["DELETE"]
        transaction.set_rollback(True)
    assert Session.objects.count() == 39
    found = statements(database, SessionStore.clear_expired)
    assert [sql.split()[0] for sql in found] == ["SELECT", "DELETE"] * 4
    assert [row.session_key for row in Session.objects.all()] == [kept.session_key]


# Failures.


def test_a_vanished_row_is_an_update_error_and_a_taken_key_a_create_error(database):
    store = filled(SessionStore)
    with pytest.raises(CreateError):
        SessionStore(store.session_key).save(must_create=True)
    SessionStore(store.session_key).delete()
    with pytest.raises(UpdateError):
        store.save()
    assert Session.objects.count() == 0


def test_an_update_that_changes_nothing_is_no_error(database):
    with frozen(1_700_000_000):
        store = filled(SessionStore)
        store.save()
        store.save()


@pytest.mark.parametrize("store_class", [SessionStore, AccountStore], ids=["stock", "custom"])
def test_a_collision_leaves_the_transaction_around_it_usable(database, store_class):
    taken = filled(store_class)
    keys = iter([taken.session_key, "0" * 32])
    with transaction.atomic():
        store = store_class()
        store["b"] = 2
        with mock.patch.object(store_class, "_get_new_session_key", lambda self: next(keys)):
            store.create()
        assert store.session_key == "0" * 32
        assert store_class(taken.session_key).load()
    assert store_class("0" * 32).load() == {"b": 2}


def test_what_is_written_in_a_transaction_goes_with_it(database):
    store = filled(SessionStore)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        store["a"] = 2
        store.save()
        filled(SessionStore, b=1)
        raise ZeroDivisionError
    assert SessionStore(store.session_key).load() == {"a": 1}
    assert Session.objects.count() == 1


class Failing:
    """An execute wrapper that fails one statement, as a database would."""

    def __init__(self, word, error):
        self.word, self.error = word, error

    def __call__(self, execute, sql, params, many, context):
        if sql.startswith(self.word):
            raise self.error
        return execute(sql, params, many, context)


@pytest.mark.parametrize(
    "error",
    [
        django.db.OperationalError(1213, "Deadlock found"),
        django.db.OperationalError("server closed the connection unexpectedly"),
        django.db.DataError("value too long"),
        django.db.IntegrityError("null value in another column"),
        django.db.InternalError("broken"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("model", [Session, custom.LoudSession], ids=["sql", "orm"])
def test_failures_of_the_database_are_raised_as_themselves(sqlite_database, error, model):
    store = filled(store_of(model))
    if model is custom.LoudSession:
        error.__cause__ = Exception("the driver's own")
    with (
        sqlite_database.execute_wrapper(Failing("UPDATE", error)),
        pytest.raises(type(error)) as caught,
    ):
        store.save()
    assert caught.value is error
    for word, call in [("SELECT", store.load), ("DELETE", store.delete)]:
        with (
            sqlite_database.execute_wrapper(Failing(word, error)),
            pytest.raises(type(error)),
        ):
            call()
    if not isinstance(error, django.db.IntegrityError):
        with (
            sqlite_database.execute_wrapper(Failing("INSERT", error)),
            pytest.raises(type(error)),
        ):
            store.create()


def test_a_failed_write_spoils_the_transaction_around_it(sqlite_database):
    store = filled(SessionStore)
    wrapper = Failing("UPDATE", django.db.OperationalError("disk I/O error"))
    with transaction.atomic():
        with sqlite_database.execute_wrapper(wrapper), pytest.raises(django.db.OperationalError):
            store.save()
        with pytest.raises(transaction.TransactionManagementError):
            store.load()
        transaction.set_rollback(False)


def test_a_key_too_long_for_the_column(database):
    store = SessionStore("x" * 300)
    if database.vendor == "sqlite":
        store.save(must_create=True)
        return
    with pytest.raises(django.db.DataError):
        store.save(must_create=True)


def test_a_deadlock_is_no_update_error(databases):
    alias = next((a for a in databases if connections[a].vendor == "postgresql"), None)
    if alias is None:
        pytest.skip("TEST_POSTGRES_URL is not set")
    own = connections["default"]
    connections["default"] = connections[alias]
    try:
        one, two = filled(SessionStore), filled(SessionStore)
        locked, go = threading.Event(), threading.Event()
        errors = []

        def other():
            connections["default"] = connections[alias]
            try:
                with transaction.atomic():
                    SessionStore(two.session_key).save()
                    locked.set()
                    go.wait(5)
                    SessionStore(one.session_key).save()
            except Exception as error:
                errors.append(error)
            finally:
                connections[alias].close()

        thread = threading.Thread(target=other)
        try:
            with transaction.atomic():
                one.save()
                thread.start()
                locked.wait(5)
                go.set()
                two.save()
        except Exception as error:
            errors.append(error)
        thread.join()
        assert [type(error) for error in errors] == [django.db.OperationalError]
        assert "deadlock" in str(errors[0])
    finally:
        Session.objects.all().delete()
        connections["default"] = own


def test_suspicious_operations_count_as_a_missing_row(sqlite_database, caplog):
    store = filled(SessionStore)
    wrapper = Failing("SELECT", SuspiciousOperation("odd"))
    with sqlite_database.execute_wrapper(wrapper):
        assert store.load() == {}
    assert store.session_key is None
    assert messages(caplog) == [("django.security.SuspiciousOperation", "odd")]


def test_keys_from_anywhere(database):
    for key in ("'; DROP TABLE django_session; --", "%s%s%s%s%s", "ключ-сессии", "A B  C D E  "):
        assert SessionStore(key).load() == {}
        assert SessionStore().exists(key) is False
        SessionStore(key).delete()
    if database.vendor != "postgresql":
        assert SessionStore("with\0nul and more").load() == {}
    assert Session.objects.count() == 0


# What projects make of it.


def test_a_model_with_more_columns(database):
    with frozen(1_700_000_000):
        store = AccountStore()
        store["account_id"] = 7
        found = statements(database, store.create)
        assert [sql.split()[0] for sql in found] == ["INSERT"]
        row = custom.AccountSession.objects.get()
        assert row.account_id == 7
        assert row.changed == django_timezone.now()
    with frozen(1_700_000_100):
        store["account_id"] = 8
        assert len(statements(database, store.save)) == 1
        row.refresh_from_db()
        assert (row.account_id, row.changed) == (8, django_timezone.now())
        assert AccountStore(store.session_key).load() == {"account_id": 8}
        assert row.get_decoded() == {"account_id": 8}
        other = AccountStore()
        other["account_id"] = 8
        # Another unique column is not a taken key: drawing keys for ever would not help.
        with pytest.raises(django.db.IntegrityError):
            other.create()
        store.delete()
    assert not custom.AccountSession.objects.exists()


def test_other_names_of_table_and_columns(database):
    store_class = store_of(custom.RenamedSession)
    store = filled(store_class)
    store["b"] = 1
    store.save()
    assert store_class(store.session_key).load() == {"a": 1, "b": 1}
    assert store_class().exists(store.session_key)
    store.set_expiry(-5)
    store.save()
    store_class.clear_expired()
    assert not store_class().exists(store.session_key)
    store.delete()


def test_a_model_s_own_save_and_delete_are_called(database):
    store_class = store_of(custom.LoudSession)
    store = filled(store_class)
    key = store.session_key
    store.save()
    store.delete()
    assert custom.LoudSession.saved[-2:] == [key, key]
    assert custom.LoudSession.deleted[-1:] == [key]
    with pytest.raises(UpdateError):
        store.save()
    twin = filled(store_class)
    with pytest.raises(CreateError):
        store_class(twin.session_key).save(must_create=True)


def test_a_manager_s_own_queryset_is_asked(database):
    store_class = store_of(custom.HiddenSession)
    store = filled(store_class)
    assert store_class(store.session_key).load() == {"a": 1}
    custom.HiddenSession._base_manager.update(hidden=True)
    assert store_class(store.session_key).load() == {}


def test_two_tables(database):
    store_class = store_of(custom.ChildSession)
    store = filled(store_class)
    assert custom.ParentSession.objects.filter(session_key=store.session_key).exists()
    store["b"] = 2
    store.save()
    assert store_class(store.session_key).load() == {"a": 1, "b": 2}
    store.delete()
    assert not custom.ParentSession.objects.exists()


def test_a_field_of_another_class_stores_what_it_likes(database):
    store = filled(store_of(custom.SoonSession))
    rows = custom.SoonSession.objects
    latest = django_timezone.now() + timedelta(hours=1)
    assert rows.get().expire_date <= latest
    for write in (store.save, store.cycle_key):
        rows.update(expire_date=latest + timedelta(days=9))
        store["b"] = 2
        write()
        assert rows.get().expire_date <= django_timezone.now() + timedelta(hours=1)
        assert type(store)(store.session_key).load() == {"a": 1, "b": 2}


def test_rows_that_hang_on_a_session_go_with_it(database):
    store_class = store_of(custom.VisitedSession)

    def visited():
        store = filled(store_class)
        row = custom.VisitedSession.objects.get(pk=store.session_key)
        custom.Visit.objects.create(session=row)
        return store

    store = visited()
    old = store.session_key
    store.cycle_key()
    assert not store_class().exists(old)
    assert store_class(store.session_key).load() == {"a": 1}
    visited().flush()
    visited()
    custom.VisitedSession.objects.update(expire_date="2020-01-01T00:00:00Z")
    store_class.clear_expired()
    assert not custom.VisitedSession.objects.exists()
    assert not custom.Visit.objects.exists()


def test_a_manager_that_asks_otherwise_for_one_row_is_asked(database):
    store_class = store_of(custom.PickySession)
    store = filled(store_class)
    assert store_class(store.session_key).load() == {"a": 1}
    custom.PickySession.objects.update(refused=True)
    assert store_class(store.session_key).load() == {}


def test_signals_are_sent(database):
    heard = []

    def receiver(signal, sender, **_):
        heard.append(signal)

    kinds = [signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete]
    for signal in kinds:
        signal.connect(receiver, sender=Session)
    try:
        store = filled(SessionStore)
        store.save()
        store.delete()
    finally:
        for signal in kinds:
            signal.disconnect(receiver, sender=Session)
    assert heard == [*kinds[:2], *kinds[:2], *kinds[2:]]
    heard.clear()
    filled(SessionStore).delete()
    assert heard == []


class Router:
    def __init__(self):
        self.asked = []

    def db_for_read(self, model, **hints):
        self.asked.append(("read", model, hints.get("instance")))
        return "default"

    def db_for_write(self, model, **hints):
        self.asked.append(("write", model, hints.get("instance")))
        return "other"


def test_routers_are_asked(databases):
    asked = Router()
    Session.objects.all().delete()
    with override_settings(DATABASE_ROUTERS=[asked]):
        assert router.routers == [asked]
        store = filled(SessionStore)
        key = store.session_key
        kind, model, instance = asked.asked[-1]
        assert (kind, model) == ("write", Session)
        assert instance.session_key == key
        assert store.decode(instance.session_data) == {"a": 1}
        assert Session.objects.using("other").filter(session_key=key).exists()
        assert SessionStore(key).load() == {}
        assert SessionStore().exists(key) is False
        store.save()
        store.delete()
        assert asked.asked[-1][2].session_key == key
        assert not Session.objects.using("other").filter(session_key=key).exists()
        filled(SessionStore).set_expiry(-1)
        SessionStore.clear_expired()
    Session.objects.using("other").all().delete()


def test_a_database_that_is_not_known_goes_through_the_orm(sqlite_database):
    with mock.patch.object(type(sqlite_database), "vendor", "another"):
        store = filled(SessionStore)
        store.save()
        assert SessionStore(store.session_key).load() == {"a": 1}
        assert SessionStore().exists(store.session_key)
        SessionStore.clear_expired()
        store.delete()
        assert not SessionStore().exists(store.session_key)


def test_hooks_of_subclasses_keep_their_meaning(database):
    calls = []

    class Store(SessionStore):
        cache_key_prefix = "mine"

        def get_session_cookie_age(self):
            return 50

        def exists(self, session_key):
            calls.append("exists")
            return super().exists(session_key)

        def save(self, must_create=False):
            calls.append("save")
            super().save(must_create)

        @property
        def key_salt(self):
            return "my salt"

    with frozen(1_700_000_000):
        store = filled(Store)
        row = Session.objects.get()
        assert row.expire_date == django_timezone.now() + timedelta(seconds=50)
        assert calls == ["exists", "save"]
        assert Store(store.session_key).load() == {"a": 1}
        assert SessionStore(store.session_key).load() == {}


@pytest.mark.skipif(not HAS_ASYNC, reason="the asynchronous session came with Django 5.1")
def test_asynchronous_hooks_of_subclasses_keep_their_meaning(database):
    calls = []

    class Store(SessionStore):
        async def asave(self, must_create=False):
            calls.append(("asave", must_create))
            await super().asave(must_create)

        async def acreate_model_instance(self, data):
            calls.append(("acreate_model_instance",))
            return await super().acreate_model_instance(data)

    async def steps():
        store = Store()
        await store.aset("a", 1)
        await store.asave()
        await store.asave()
        await store.acycle_key()
        assert await Store(store.session_key).aload() == {"a": 1}
        return store

    store = async_to_sync(steps)()
    assert Session.objects.get().session_key == store.session_key
    instance = ("acreate_model_instance",)
    new = [("asave", True), instance]
    assert calls == [("asave", False), *new, ("asave", False), instance, *new]


def test_drawn_keys_are_even_and_unlike():
    keys = {db.new_session_key() for _ in range(20_000)}
    assert len(keys) == 20_000
    assert all(re.fullmatch("[a-z0-9]{32}", key) for key in keys)
    counts = dict.fromkeys("abcdefghijklmnopqrstuvwxyz0123456789", 0)
    for char in itertools.chain.from_iterable(keys):
        counts[char] += 1
    mean = 20_000 * 32 / 36
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counts.values())


def test_many_tasks_at_once(sqlite_database):
    async def one(number):
        store = SessionStore()
        store._session_cache = {"n": number}
        await store.asave()
        return store.session_key

    async def steps():
        return await asyncio.gather(*(one(number) for number in range(20)))

    keys = async_to_sync(steps)()
    assert [SessionStore(key).load()["n"] for key in keys] == list(range(20))


def test_nothing_secret_is_said(database, caplog):
    store = filled(SessionStore, password="hunter2-data")
    key = store.session_key
    Session.objects.update(session_data="hunter2-data:x:y")
    assert SessionStore(key).load() == {}
    SessionStore(key).delete()
    with pytest.raises(UpdateError) as caught:
        store.save()
    said = [entry.getMessage() for entry in caplog.records] + [repr(caught.value)]
    assert not any("hunter2" in text or key in text for text in said)

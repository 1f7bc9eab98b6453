"""The native engine beside Django's own, on real servers: what each writes the other one reads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from unittest import mock

import pytest
from conftest import database_of, wanted
from custom_session import models as custom
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.backends.cache import SessionStore as DjangoCacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoCachedStore
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import connection, connections, transaction
from django.test import override_settings
from django.utils import timezone

from django_session_rs._native import Store
from django_session_rs.backends import native
from django_session_rs.backends.native import SessionStore
from django_session_rs.exceptions import (
    PayloadTooLargeError,
    SessionConflictError,
    StoreUnavailableError,
)
from django_session_rs.merge import MISSING
from django_session_rs.store_url import store_url

HAS_ASYNC = hasattr(SessionBase, "asave")
LOGIN = {"_auth_user_id": "7", "_auth_user_hash": "0" * 64}


@pytest.fixture
def postgres(databases):
    if "postgres" not in databases:
        pytest.skip("PostgreSQL is not there")
    with database_of("postgres"):
        yield


def cache_settings(kind: str) -> dict:
    if kind == "redis":
        backend = "django.core.cache.backends.redis.RedisCache"
        location = wanted("TEST_REDIS_URL")
    elif kind == "django_redis":
        backend, location = "django_redis.cache.RedisCache", wanted("TEST_REDIS_URL")
    else:
        backend = "django.core.cache.backends.memcached.PyMemcacheCache"
        location = wanted("TEST_MEMCACHED_URL").removeprefix("memcached://")
    return {"BACKEND": backend, "LOCATION": location, "KEY_PREFIX": os.urandom(4).hex()}


@pytest.fixture(params=["redis", "django_redis", "memcached"])
def cache(request, databases):
    """A cache server that Django's `cache` engine shares."""
    caches = {"default": cache_settings(request.param)}
    with override_settings(CACHES=caches, SESSION_STORE_URL="cache"):
        yield request.param


@pytest.fixture(params=["postgres", "mysql", "redis", "django_redis", "memcached", "cached_db"])
def theirs(request, databases):
    """Django's engine for the place where ours keeps its sessions too."""
    if request.param == "cached_db":
        caches = {"default": cache_settings("redis")}
        with (
            database_of("postgres"),
            override_settings(CACHES=caches, SESSION_STORE_URL="cached_db"),
        ):
            yield DjangoCachedStore
        return
    if request.param in ("postgres", "mysql"):
        if request.param not in databases:
            pytest.skip(f"{request.param} is not there")
        with database_of(request.param):
            yield DjangoStore
        return
    caches = {"default": cache_settings(request.param)}
    with override_settings(CACHES=caches, SESSION_STORE_URL="cache"):
        yield DjangoCacheStore


def created(data: dict, store_class: type[SessionBase] = SessionStore) -> str:
    session = store_class()
    session.update(data)
    session.create()
    return str(session.session_key)


def content(session: SessionBase) -> dict:
    return dict(session.items())


def test_what_one_engine_writes_the_other_one_reads(theirs):
    data = {**LOGIN, "text": "grüße\n\ud800", "big": 2**80, "float": -0.0, "list": [1, {"a": None}]}
    key = created(data)
    assert content(theirs(key)) == data
    assert list(theirs(key).keys()) == list(data)
    session = theirs(key)
    session["list"].append([2])
    session["true"] = True
    del session["text"]
    session.save()
    expected = {**data, "list": [1, {"a": None}, [2]], "true": True}
    del expected["text"]
    assert content(SessionStore(key)) == expected
    assert content(SessionStore(created(data, theirs))) == data


def test_a_cache_keeps_what_json_does_not_have(cache):
    if cache == "django_redis":
        pytest.skip("the same as Redis")
    data = {"tuple": (1, "a"), "when": timezone.now(), "bytes": b"\xff", 5: "five"}
    session = SessionStore(created(data))
    assert content(session) == data
    session["tuple"] += (2,)
    session.save()
    assert content(DjangoCacheStore(session.session_key)) == {**data, "tuple": (1, "a", 2)}


def test_steps_do_what_django_s_do(theirs):
    session = SessionStore()
    assert session.is_empty()
    assert session.get("a") is None
    session["a"] = 1
    session.save()
    key = session.session_key
    assert key
    assert session.exists(key)
    assert theirs(key)["a"] == 1
    session.cycle_key()
    assert session.session_key != key
    assert not session.exists(key)
    assert content(theirs(session.session_key)) == {"a": 1}
    other = SessionStore(session.session_key)
    other.flush()
    assert other.session_key is None
    assert not session.exists(session.session_key)
    with pytest.raises(UpdateError):
        session.save()
    unknown = SessionStore("nobodyknowsthiskey")
    assert content(unknown) == {}
    assert unknown.session_key is None
    assert not unknown.modified
    unknown.save()
    assert unknown.session_key
    taken = SessionStore(unknown.session_key)
    with pytest.raises(CreateError):
        taken.save(must_create=True)
    taken.delete()
    taken.delete("nobodyknowsthiskey")
    assert not unknown.exists(unknown.session_key)
    assert not unknown.exists(None)


def test_the_same_steps_awaited(theirs):
    seen = []

    async def walk() -> None:
        session = SessionStore()
        session["a"] = 1
        await session.asave()
        key = session.session_key
        assert await session.aexists(key)
        assert await SessionStore(key).aload() == {"a": 1}
        await session.acycle_key()
        assert not await session.aexists(key)
        seen.append(session.session_key)
        taken = SessionStore(session.session_key)
        with pytest.raises(CreateError):
            await taken.asave(must_create=True)
        deleted = SessionStore()
        deleted["a"] = 1
        await deleted.acreate()
        await deleted.adelete()
        with pytest.raises(UpdateError):
            await deleted.asave()
        assert await SessionStore(deleted.session_key).aload() == {}
        assert await SessionStore().aload() == {}
        await SessionStore.aclear_expired()
        if HAS_ASYNC:
            again = SessionStore()
            await again.aset("b", 2)
            await again.asave()
            assert await SessionStore(again.session_key).aget("b") == 2
            await again.aflush()
            assert again.session_key is None

    asyncio.run(walk())
    assert content(theirs(seen[0])) == {"a": 1}


def test_expired_sessions_are_gone_and_cleared(table):
    key = created({"a": 1})
    kept = created({"b": 2})
    Session.objects.filter(session_key=key).update(expire_date="2020-01-01T00:00:00Z")
    session = SessionStore(key)
    assert content(session) == {}
    assert session.session_key is None
    assert session.exists(key)
    SessionStore.clear_expired()
    assert not session.exists(key)
    assert session.exists(kept)


def test_the_expire_date_is_django_s(table):
    session = SessionStore()
    for expiry in (None, 300, timezone.now() + timezone.timedelta(days=3)):
        session.set_expiry(expiry)
        session.save()
        row = Session.objects.get(session_key=session.session_key)
        assert abs((row.expire_date - session.get_expiry_date()).total_seconds()) < 60

    class Short(SessionStore):
        def get_session_cookie_age(self) -> int:
            return 60

    Short.__qualname__ = "SessionStore"
    short = Short()
    short.save()
    row = Session.objects.get(session_key=short.session_key)
    assert (row.expire_date - timezone.now()).total_seconds() < 61


def test_an_unreadable_session_is_empty_and_keeps_its_key(table, caplog):
    key = created({"a": 1})
    Session.objects.filter(session_key=key).update(session_data="nonsense")
    session = SessionStore(key)
    assert content(session) == {}
    assert session.session_key == key
    assert [entry.getMessage() for entry in caplog.records] == ["Session data corrupted"]
    session["b"] = 2
    session.save()
    assert content(DjangoStore(key)) == {"b": 2}
    too_long = SessionStore().encode({"a": "a" * (65 << 20)})
    Session.objects.filter(session_key=key).update(session_data=too_long)
    with pytest.raises(PayloadTooLargeError):
        SessionStore(key).load()


def test_fallback_keys_are_read_and_replaced(table):
    with override_settings(SECRET_KEY="an older key, which is long enough for anybody, is it not"):
        key = created({"a": 1})
        old = settings.SECRET_KEY
    assert content(SessionStore(key)) == {}
    with override_settings(SECRET_KEY_FALLBACKS=[old]):
        session = SessionStore(key)
        session["b"] = 2
        session.save()
    assert content(DjangoStore(key)) == {"a": 1, "b": 2}


# Requests that meet.


def test_two_requests_keep_what_each_has_changed(theirs):
    key = created({**LOGIN, "list": [1], "gone": 1, "same": {"deep": [1]}})
    one, other = SessionStore(key), SessionStore(key)
    same = one["same"]
    one["one"] = 1
    del one["gone"]
    other["list"].append(2)
    other["other"] = [2]
    other.modified = True
    other.save()
    one.save()
    expected = {**LOGIN, "list": [1, 2], "one": 1, "other": [2], "same": {"deep": [1]}}
    assert content(theirs(key)) == expected
    assert content(one) == expected
    assert one["same"] is same
    # What came from the other one is not removed by the next save.
    one["list"].append(3)
    one.save()
    assert content(theirs(key)) == {**expected, "list": [1, 2, 3]}


def test_a_logout_wins(theirs):
    key = created(LOGIN)
    late, rotated = SessionStore(key), SessionStore(key)
    late["a"] = 1
    rotated["a"] = 1
    theirs(key).flush()
    with pytest.raises(UpdateError):
        late.save()
    with pytest.raises(SessionInterrupted) as ended:
        rotated.cycle_key()
    assert isinstance(ended.value, UpdateError)
    # The cookie stays, which another request may have renewed.
    assert not rotated.exists(rotated.session_key)
    assert not rotated.is_empty()
    with pytest.raises(UpdateError):
        rotated.save()
    assert content(rotated) == {}
    assert not theirs().exists(key)


def test_a_conflict_can_be_an_error_or_passed_over(table):
    key = created({"a": 1})
    for on_conflict in ("error", "overwrite"):
        with override_settings(SESSION_ON_CONFLICT=on_conflict):
            one, other = SessionStore(key), SessionStore(key)
            one["one"], other["other"] = on_conflict, on_conflict
            other.save()
            if on_conflict == "error":
                with pytest.raises(SessionConflictError):
                    one.save()
            else:
                one.save()
                assert content(DjangoStore(key)) == {"a": 1, "other": "error", "one": "overwrite"}


def add_up(name, loaded, mine, stored):
    """Numbers add up, what one side removes is gone, and nobody may change what is fixed."""
    if name == "fixed":
        raise PermissionError(name)
    if MISSING in (mine, stored):
        return MISSING
    return stored + mine - (loaded or 0)


@pytest.fixture
def asked():
    with override_settings(SESSION_ON_CONFLICT=add_up):
        yield


def test_a_function_decides_about_what_two_have_changed(theirs, asked):
    key = created({**LOGIN, "n": 1, "gone": 1, "text": "a"})
    one, other = SessionStore(key), SessionStore(key)
    one["n"], other["n"] = 3, 11
    del one["gone"]
    other["gone"] = 2
    one["mine"], other["other"] = [1], [2]
    one["new"], other["new"] = 5, 7
    mine = one["mine"]
    other.save()
    one.save()
    expected = {**LOGIN, "n": 13, "text": "a", "other": [2], "new": 12, "mine": [1]}
    assert content(theirs(key)) == expected
    assert content(one) == expected
    assert one["mine"] is mine
    # What was merged is what the next save knows of.
    other["n"], one["n"] = 12, 15
    other.save()
    one.save()
    assert content(theirs(key)) == {**expected, "n": 16}


def test_a_function_decides_while_a_session_gets_a_new_key(theirs, asked):
    key = created({**LOGIN, "n": 1})
    one, other = SessionStore(key), SessionStore(key)
    one["n"], other["n"] = 3, 11
    other.save()
    one.cycle_key()
    assert one.session_key != key
    assert content(theirs(one.session_key)) == content(one) == {**LOGIN, "n": 13}
    assert not theirs().exists(key)


def test_the_same_function_for_what_is_awaited(theirs, asked):
    async def meet(step: str) -> SessionStore:
        session = SessionStore()
        session["n"] = 1
        await session.acreate()
        one, other = SessionStore(session.session_key), SessionStore(session.session_key)
        for each, number in ((one, 3), (other, 11)):
            await each._aget_session()
            each["n"] = number
        await other.asave()
        await getattr(one, step)()
        return one

    for step in ("asave", "acycle_key"):
        session = asyncio.run(meet(step))
        assert content(theirs(session.session_key)) == content(session) == {"n": 13}


def test_what_a_function_raises_leaves_the_session_as_it_is(theirs, asked):
    key = created({**LOGIN, "fixed": 1})
    for step in ("save", "cycle_key"):
        one, other = SessionStore(key), SessionStore(key)
        one["fixed"], other["fixed"] = 2, other["fixed"] + 2
        other.save()
        with pytest.raises(PermissionError):
            getattr(one, step)()
        assert one.session_key == key
        assert content(theirs(key)) == content(other)


def test_a_logout_wins_where_a_function_is_asked(theirs, asked):
    test_a_logout_wins(theirs)
    test_two_requests_keep_what_each_has_changed(theirs)


def test_a_copy_in_a_cache_is_compared_as_the_table_has_it(databases):
    caches = {"default": cache_settings("redis")}
    asked = []

    def note(name, *_):
        asked.append(name)
        return MISSING

    with (
        database_of("postgres"),
        override_settings(CACHES=caches, SESSION_STORE_URL="cached_db", SESSION_ON_CONFLICT=note),
    ):
        # In the copy there are a tuple and a number for a name.
        theirs = DjangoCachedStore()
        theirs.update({"where": (1, 2), 5: 0, "n": 0})
        theirs.create()
        one = SessionStore(theirs.session_key)
        assert one["where"] == (1, 2)
        other = SessionStore(theirs.session_key)
        other.update({"where": [3, 4], "n": 1})
        other.save()
        one["n"] = 2
        one.save()
        assert asked == ["n"]
        assert content(DjangoStore(theirs.session_key)) == {"where": [3, 4], "5": 0}


def test_without_the_app_of_sessions_a_cache_will_do(databases):
    program = f"""
from django.conf import settings
settings.configure(SECRET_KEY="x" * 50, SESSION_STORE_URL={wanted("TEST_REDIS_URL")!r})
import django
django.setup()
from django_session_rs.backends.native import SessionStore
session = SessionStore()
session["a"] = 1
session.save()
assert SessionStore(session.session_key)["a"] == 1
session.delete()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_age_of_the_cookie_may_have_a_fraction(table):
    class Short(SessionStore):
        def get_session_cookie_age(self):
            return 60.5

    Short.__qualname__ = "SessionStore"
    session = Short()
    session["a"] = 1
    session.save()
    assert content(SessionStore(session.session_key)) == {"a": 1}


def test_a_function_gets_what_json_does_not_have(cache):
    if cache == "django_redis":
        pytest.skip("the same as Redis")
    key = created({"when": timezone.now(), "tuple": (1,)})

    def both(name, loaded, mine, stored):
        assert (type(loaded), type(mine), type(stored)) == (tuple, tuple, tuple)
        return stored + mine[len(loaded) :]

    with override_settings(SESSION_ON_CONFLICT=both):
        one, other = SessionStore(key), SessionStore(key)
        one["tuple"] += (b"\xff",)
        other["tuple"] += (timezone.now(),)
        other.save()
        one.save()
        added = other["tuple"][1]
        assert DjangoCacheStore(key)["tuple"] == (1, added, b"\xff")


def test_threads_count_with_a_function(theirs, asked):
    key, workers, rounds = created({"n": 0}), 6, 20

    def count() -> None:
        for number in range(rounds):
            session = SessionStore(key)
            session["n"] += 1
            if number % 2:
                session.save()
            else:
                asyncio.run(session.asave())

    threads = [threading.Thread(target=count) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(theirs(key)) == {"n": workers * rounds}


def test_threads_lose_nothing_to_each_other(theirs):
    key, workers, rounds = created({}), 8, 25

    def count(name: str) -> None:
        for _ in range(rounds):
            session = SessionStore(key)
            session[name] = session.get(name, 0) + 1
            session.save()

    threads = [threading.Thread(target=count, args=(f"worker {n}",)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(theirs(key)) == {f"worker {n}": rounds for n in range(workers)}


def test_tasks_lose_nothing_to_each_other_and_need_no_thread(theirs):
    key, workers, rounds = created({}), 8, 25

    async def count(name: str) -> None:
        for _ in range(rounds):
            session = SessionStore(key)
            data = await session.aload()
            session._session_cache = data
            data[name] = data.get(name, 0) + 1
            await session.asave()

    async def all_of_them() -> int:
        before = threading.active_count()
        await asyncio.gather(*[count(f"worker {n}") for n in range(workers)])
        return threading.active_count() - before

    assert asyncio.run(all_of_them()) == 0
    assert content(theirs(key)) == {f"worker {n}": rounds for n in range(workers)}


def test_what_is_set_to_what_it_was_counts(theirs):
    key = created({"a": 1, "\ud800": 1, "é": 1})
    one, other = SessionStore(key), SessionStore(key)
    one["a"], one["\ud800"], one["é"] = 1, 2, 1
    other["a"], other["é"] = 5, 5
    other.save()
    one.save()
    assert content(theirs(key)) == {"a": 1, "\ud800": 2, "é": 1}


# What a process does.


def test_event_loops_and_threads_share_a_store(theirs):
    key = created({"a": 1})
    for _ in range(3):
        assert asyncio.run(SessionStore(key).aload()) == {"a": 1}
    found = []

    def loop() -> None:
        found.append(asyncio.run(SessionStore(key).aload()))
        found.append(SessionStore(key).load())

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"a": 1}] * 8


def test_an_event_loop_is_not_held_up(table):
    key = created({"a": 1})

    async def careless() -> None:
        with pytest.raises(SynchronousOnlyOperation):
            SessionStore(key).load()

    asyncio.run(careless())


def test_who_is_cancelled_stops_nothing(postgres):
    """A locked row is waited for; the task is cancelled; the change is there all the same."""
    key = created({"a": 1})

    async def cancel(save: asyncio.Task) -> None:
        await asyncio.sleep(0.2)
        save.cancel()
        with pytest.raises(asyncio.CancelledError):
            await save

    async def walk() -> None:
        session = SessionStore(key)
        session._session_cache = await session.aload()
        session["a"] = 2

        def lock() -> None:
            with transaction.atomic():
                list(Session.objects.select_for_update().filter(session_key=key))
                loop.call_soon_threadsafe(held.set)
                release.wait(30)
            connections.close_all()

        loop, held, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        # Of its own, so that its connection is too.
        holder = threading.Thread(target=lock)
        holder.start()
        try:
            await held.wait()
            await cancel(asyncio.ensure_future(session.asave()))
        finally:
            release.set()
            holder.join()
        for _ in range(100):
            if await SessionStore(key).aload() == {"a": 2}:
                break
            await asyncio.sleep(0.05)
        # One after the other on the connections that are left: none has somebody else's answer.
        for number in range(30):
            other = SessionStore()
            other["number"] = number
            await other.asave()
            assert await SessionStore(other.session_key).aload() == {"number": number}
        loads = [asyncio.ensure_future(SessionStore(key).aload()) for _ in range(50)]
        await asyncio.sleep(0)
        for load in loads[::2]:
            load.cancel()
        found = await asyncio.gather(*loads, return_exceptions=True)
        assert found[1::2] == [{"a": 2}] * 25

    asyncio.run(walk())


def test_few_connections_serve_many(postgres):
    key = created({"a": 1})
    url = native.store_url(lambda: Session)
    with override_settings(SESSION_STORE_URL=f"{url}&max_connections=1&acquire_timeout=30"):

        async def many() -> list:
            return await asyncio.gather(*[SessionStore(key).aload() for _ in range(100)])

        assert asyncio.run(many()) == [{"a": 1}] * 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(theirs):
    key = created({"a": 0})
    children = []
    for number in range(3):
        pid = os.fork()
        if not pid:
            status = 1
            with contextlib.suppress(BaseException):
                for _ in range(20):
                    session = SessionStore(key)
                    session[f"child {number}"] = session.get(f"child {number}", 0) + 1
                    session.save()
                asyncio.run(SessionStore(key).aload())
                status = 0
            os._exit(status)
        children.append(pid)
    for _ in range(20):
        session = SessionStore(key)
        session["a"] += 1
        session.save()
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    expected = {"a": 20, "child 0": 20, "child 1": 20, "child 2": 20}
    assert content(SessionStore(key)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_store_of_another_process_is_refused(postgres):
    key = created({"a": 1})
    store = native._store(SessionStore)
    pid = os.fork()
    if not pid:
        try:
            store.load(key)
        except RuntimeError as error:
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.load(key).data() == {"a": 1}
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        store.load(key)


def test_closing_carries_out_what_a_loop_that_has_ended_has_begun(theirs):
    sessions = [SessionStore(created({"a": 1})) for _ in range(6)]
    for session in sessions:
        session["a"] += 1
    native._close()

    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(session.asave()) for session in sessions]
    # All of them begin, and this loop will not go on with those that have to wait for an answer.
    loop.call_soon(loop.stop)
    loop.run_forever()
    native._close()
    assert {theirs(session.session_key)["a"] for session in sessions} == {2}
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def test_nobody_waits_for_a_step_whose_store_is_gone(postgres):
    """Two steps are the loop's, the others the store's own, and it ends before it has an answer."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"postgres://a:b@127.0.0.1:{silent.getsockname()[1]}/c?timeout=60"
            store = Store(url, native._settings(SessionStore, None))
            steps = [store.aload("a" * 32) for _ in range(6)]
            tasks = [asyncio.ensure_future(awaited(step)) for step in steps]
            await asyncio.sleep(0)
            del store
            done, _ = await asyncio.wait(tasks[2:], timeout=60)
            assert done == set(tasks[2:])
            for task in done:
                assert isinstance(task.exception(), RuntimeError)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def awaited(step):
        return await step

    asyncio.run(main())


def test_whoever_awaits_a_step_gets_its_outcome_while_its_store_is_closed(theirs):
    sessions = [SessionStore(created({"a": 1})) for _ in range(6)]
    for session in sessions:
        session["a"] += 1
    native._close()

    async def main():
        tasks = [asyncio.ensure_future(session.asave()) for session in sessions]
        await asyncio.sleep(0)
        await asyncio.to_thread(native._close)
        done, pending = await asyncio.wait(tasks, timeout=60)
        assert not pending
        assert [task.exception() for task in done] == [None] * 6

    asyncio.run(main())
    assert {theirs(session.session_key)["a"] for session in sessions} == {2}


def test_nobody_waits_for_a_step_that_does_not_end_before_its_store(postgres):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"postgres://a:b@127.0.0.1:{silent.getsockname()[1]}/c?timeout=60"
            store = Store(url, native._settings(SessionStore, None))

            async def load():
                return await store.aload("a" * 32)

            tasks = [asyncio.ensure_future(load()) for _ in range(5)]
            await asyncio.sleep(0)
            await asyncio.to_thread(store.close)
            done, pending = await asyncio.wait(tasks, timeout=60)
            assert not pending
            assert {type(task.exception()) for task in done} == {RuntimeError}

    asyncio.run(main())


SCRIPT = """
import asyncio, sys
from django.conf import settings
settings.configure(
    SECRET_KEY="x" * 50, DATABASES={"default": %r},
    INSTALLED_APPS=["django.contrib.sessions"], SESSION_STORE_URL=%r,
)
import django
django.setup()
from django_session_rs.backends.native import SessionStore
session = SessionStore()
session["a"] = 1
session.save()
print(asyncio.run(SessionStore(session.session_key).aload()))
session.delete()
"""


def test_a_process_ends_by_itself(postgres):
    database = {
        name: connection.settings_dict[name]
        for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    }
    script = SCRIPT % (database, "db")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("{'a': 1}\n", "", 0)


# What fails.


def test_an_outage_is_an_error_and_the_session_stays(databases):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for url in (
            f"postgres://user:hunter2@127.0.0.1:{port}/site?acquire_timeout=1",
            f"mysql://user:hunter2@127.0.0.1:{port}/site?acquire_timeout=1",
            f"redis://user:hunter2@127.0.0.1:{port}/0",
            f"memcached://127.0.0.1:{port}",
        ):
            with override_settings(SESSION_STORE_URL=url):
                session = SessionStore("abcdefghijklmnopqrstuvwxyz012345")
                for step in (
                    session.load,
                    lambda session=session: session.exists(session.session_key),
                    session.delete,
                    lambda session=session: asyncio.run(session.aload()),
                    SessionStore().create,
                ):
                    with pytest.raises(StoreUnavailableError) as caught:
                        step()
                    assert (url, caught.value.reason) == (url, "unreachable")
                    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
                assert isinstance(session.outage, StoreUnavailableError)
                assert session.session_key == "abcdefghijklmnopqrstuvwxyz012345"
                assert not session.modified


def test_the_role_of_the_site_is_taken_on(postgres):
    role, quoted = 'a "role\\', '"a ""role\\"'
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {quoted} NOLOGIN; GRANT ALL ON django_session TO {quoted}")
    values = connections.databases["default"]
    options = {**values.get("OPTIONS", {}), "assume_role": role}
    native._close()
    try:
        with mock.patch.dict(values, OPTIONS=options):
            assert content(SessionStore(created({"a": 1}))) == {"a": 1}
            store = native._store(SessionStore)
            asked = "SELECT current_user::text FROM (SELECT $1::text) AS one"

            async def user() -> list:
                return await store.afind_row(asked, "x")

            assert asyncio.run(user()) == [role]
    finally:
        native._close()
        with connection.cursor() as cursor:
            cursor.execute(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


def test_users_behind_a_socket_are_django_s_to_ask_for(databases):
    if "mysql" not in databases:
        pytest.skip("mysql is not there")
    with database_of("mysql"), override_settings(SESSION_STORE_URL=wanted("TEST_REDIS_URL")):
        values = connections["default"].settings_dict
        for host in ("", "localhost"):
            native._close()
            with mock.patch.dict(values, HOST=host):
                assert native._rows_store(SessionStore, "default") is None
        native._close()
        assert native._rows_store(SessionStore, "default") is not None


def test_settings_that_cannot_be_met_are_named(databases):
    for url, words in (
        ("sqlite:db.sqlite3", "two libraries"),
        ("signed_cookies:", "backends.signed_cookies"),
        ("somewhere", "'db', 'cache', 'cached_db'"),
        ("redis://h?prefx=a", "prefix"),
        ("oracle://h/x", "scheme"),
    ):
        with (
            override_settings(SESSION_STORE_URL=url),
            pytest.raises(ImproperlyConfigured, match=words),
        ):
            SessionStore("abcdefgh").load()
    with (
        override_settings(SESSION_ON_CONFLICT="mrege", SESSION_STORE_URL="memory:"),
        pytest.raises(ImproperlyConfigured, match="'merge', 'overwrite', 'error' or a function"),
    ):
        SessionStore("abcdefgh").load()
    with (
        override_settings(CACHES={"default": {"BACKEND": "somebody.Else"}}),
        override_settings(SESSION_STORE_URL="cache"),
        pytest.raises(ImproperlyConfigured, match=r"backends\.cache"),
    ):
        SessionStore("abcdefgh").load()


def test_a_model_with_more_than_django_s_fields_is_refused(databases):
    for alias in databases:
        with database_of(alias):
            if connections["default"].vendor == "sqlite":
                continue
            for model in (custom.AccountSession, custom.SoonSession):
                with pytest.raises(ImproperlyConfigured, match=r"backends\.db"):
                    store_url(lambda model=model: model)


def test_sqlite_is_left_to_django(sqlite_database):
    native._close()
    assert native._store(SessionStore) is None
    key = created({"a": 1})
    session = SessionStore(key)
    session["b"] = 2
    session.save()
    session.cycle_key()
    assert content(DjangoStore(session.session_key)) == {"a": 1, "b": 2}
    session.delete()
    SessionStore.clear_expired()
    assert not session.exists(session.session_key)


def test_no_variable_of_the_engine_holds_a_password(databases):
    """Error reports show the variables of every frame but those marked as sensitive."""
    from django.views.debug import ExceptionReporter

    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
    cache |= {"LOCATION": "redis://:hunter2@h:1/0", "OPTIONS": {"other": 1}}
    for options in (
        {"SESSION_STORE_URL": "postgres://user:hunter2@h/x?tabel=y"},
        {"SESSION_STORE_URL": "cache", "CACHES": {"default": cache}},
        {"SESSION_STORE_URL": "sqlite:hunter2"},
    ):
        with override_settings(**options):
            with pytest.raises(ImproperlyConfigured) as caught:
                SessionStore("abcdefgh").load()
            reporter = ExceptionReporter(None, caught.type, caught.value, caught.tb)
            frames = reporter.get_traceback_frames()
        own = [frame for frame in frames if "django_session_rs" in frame["filename"]]
        assert own
        assert "hunter2" not in repr([frame["vars"] for frame in own])
        assert "hunter2" not in str(caught.value)


def test_nothing_shows_a_password():
    store = Store("postgres://user:hunter2@localhost/site", '{"SECRET_KEY": "hunter2"}')
    assert repr(store) == "<Store postgres>"
    store.close()

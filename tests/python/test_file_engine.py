"""The file engine: Django's files, the lock protocol, parallel changes, failures of the disk."""

import contextlib
import fcntl
import multiprocessing
import os
import stat
import threading
import time

import pytest
from asgiref.sync import async_to_sync
from conftest import frozen
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.file import SessionStore as DjangoStore
from django.contrib.sessions.exceptions import InvalidSessionKey, SessionInterrupted
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from stored_sessions import filled, two

from django_session_rs.backends import session_files
from django_session_rs.backends.file import SessionStore
from django_session_rs.exceptions import SessionConflictError, StoreUnavailableError


def forget_directory():
    # The engines keep the directory that they have found.
    for store_class in (SessionStore, DjangoStore):
        if "_storage_path" in vars(store_class):
            del store_class._storage_path


@pytest.fixture(params=["exchange", "rename"])
def directory(request, tmp_path, monkeypatch):
    """A directory on a file system that can exchange names, and on one that cannot."""
    if request.param == "rename":
        monkeypatch.setattr(session_files, "_exchange_by_system", None)

        def no_links(*args, **kwargs):
            raise PermissionError(1, "no links")

        monkeypatch.setattr(os, "link", no_links)
    forget_directory()
    with override_settings(SESSION_FILE_PATH=str(tmp_path)):
        yield tmp_path
    forget_directory()


def stored(store, store_class=DjangoStore):
    return dict(store_class(store.session_key).items())


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    ("one", "other"), [(SessionStore, DjangoStore), (DjangoStore, SessionStore)]
)
def test_both_engines_read_each_other(directory, one, other):
    store = filled(one, a=[1, 2.5, None, "é"], b={"c": True})
    assert names(directory) == ["sessionid" + store.session_key]
    again = other(store.session_key)
    assert dict(again.items()) == {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    again["b"] = 2
    again.save()
    assert one(store.session_key)["b"] == 2
    with pytest.raises(CreateError):
        other(store.session_key).save(must_create=True)
    assert names(directory) == ["sessionid" + store.session_key]
    mode = stat.S_IMODE((directory / ("sessionid" + store.session_key)).stat().st_mode)
    assert mode == 0o600
    again.delete()
    assert not one().exists(store.session_key)
    assert one(store.session_key).load() == {}
    assert names(directory) == []


def test_expired_files(directory):
    with override_settings(SESSION_COOKIE_AGE=100):
        store = filled(SessionStore)
        path = directory / ("sessionid" + store.session_key)
        os.utime(path, (0, time.time() - 50))
        assert SessionStore(store.session_key).load() == {"a": 1}
        os.utime(path, (0, time.time() - 150))
        late = SessionStore(store.session_key)
        assert dict(late.items()) == {}
        assert late.session_key != store.session_key
        assert not path.exists()
        assert DjangoStore(late.session_key).load() == {}
        old, new = filled(SessionStore), filled(SessionStore)
        os.utime(directory / ("sessionid" + old.session_key), (0, time.time() - 150))
        abandoned = directory / f"sessionid{new.session_key}_out_abcdefgh"
        abandoned.touch()
        foreign = directory / "sessionid-of-somebody-else"
        foreign.touch()
        SessionStore.clear_expired()
        assert not SessionStore().exists(old.session_key)
        assert SessionStore().exists(new.session_key)
        assert abandoned.exists()
        assert foreign.exists()
        with frozen(time.time() + 2 * session_files.ABANDONED_AFTER):
            session_files.remove_abandoned(abandoned)
        assert not abandoned.exists()


def test_one_file_that_is_no_good_keeps_no_other(directory):
    class Small(SessionStore):
        max_size = 1000

    Small.__qualname__ = "SessionStore"
    old = [filled(SessionStore, a=number) for number in range(3)]
    filled(SessionStore, a="a" * 2000)
    filled(SessionStore, _session_expiry="tomorrow")
    with frozen(time.time() + 15 * 86400):
        Small.clear_expired()
    assert not any(SessionStore().exists(store.session_key) for store in old)


def test_what_is_no_session(directory):
    for key in ("../../etc/passwd", "with a space", "ключ-сессии", "ABCDEFGHIJ"):
        store = SessionStore(key)
        assert store.load() == {}
        assert store.session_key is None
        with pytest.raises(InvalidSessionKey):
            SessionStore().exists(key)
    long = SessionStore("a" * 300)
    assert long.load() == {}
    key = "abcdefghijklmnop"
    path = directory / f"sessionid{key}"
    path.symlink_to("/etc/passwd")
    assert SessionStore(key).load() == {}
    assert not SessionStore().exists(key)
    SessionStore(key).delete()
    path.unlink()
    path.mkdir()
    assert SessionStore(key).load() == {}
    path.rmdir()
    os.mkfifo(path)
    assert SessionStore(key).load() == {}
    path.unlink()
    for content in (b"", b"nothing", b"\xff\xfe", b"a:b:c"):
        path.write_bytes(content)
        broken = SessionStore(key)
        assert dict(broken.items()) == {}
        assert broken.session_key == key
        broken["b"] = 2
        broken.save()
        assert stored(broken) == {"b": 2}


def test_a_directory_that_is_not_there(tmp_path):
    forget_directory()
    with (
        override_settings(SESSION_FILE_PATH=str(tmp_path / "nowhere")),
        pytest.raises(ImproperlyConfigured),
    ):
        SessionStore()


# Parallel changes.


def test_both_keep_what_they_changed(directory):
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
    assert len(names(directory)) == 1


def test_a_django_beside_it_is_merged_with(directory):
    ours = filled(SessionStore)
    theirs = DjangoStore(ours.session_key)
    theirs["b"] = 2
    theirs.save()
    ours["c"] = 3
    ours.save()
    assert stored(ours) == {"a": 1, "b": 2, "c": 3}


def test_a_django_that_writes_between_the_look_and_the_exchange(directory, monkeypatch):
    if session_files._exchange_by_system is None:
        pytest.skip("a moment remains there")
    for what in ("save", "delete"):
        ours = filled(SessionStore)
        again = SessionStore(ours.session_key)
        again["c"] = 3
        theirs = DjangoStore(ours.session_key)
        theirs["b"] = 2
        real, act = session_files._exchange_names, getattr(theirs, what)
        done = []

        def racing(one, other, act=act, real=real, done=done):
            if not done:
                done.append(act())
            real(one, other)

        monkeypatch.setattr(session_files, "_exchange_names", racing)
        if what == "save":
            again.save()
            assert stored(ours) == {"a": 1, "b": 2, "c": 3}
        else:
            with pytest.raises(UpdateError):
                again.save()
            assert not SessionStore().exists(ours.session_key)
        monkeypatch.undo()
        SessionStore(ours.session_key).delete()
        assert names(directory) == []


def test_settings_say_what_becomes_of_a_conflict(directory):
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


def test_a_function_is_asked_about_what_two_have_set_to_the_same(directory):
    one, other = two(SessionStore, count=10)
    add_up = lambda name, loaded, mine, stored: mine + stored - loaded  # noqa: E731 - it is short
    with override_settings(SESSION_ON_CONFLICT=add_up):
        for store in (one, other):
            store["count"] += 1
            store.save()
    assert stored(one) == {"count": 12}


def test_a_deleted_session_stays_deleted(directory):
    one, other = two(SessionStore, a=1)
    one.flush()
    other["b"] = 2
    with pytest.raises(UpdateError):
        other.save()
    other.clear()
    with pytest.raises(UpdateError):
        other.save()
    assert names(directory) == []


def test_a_session_that_has_expired_meanwhile_stays_expired(directory):
    one, other = two(SessionStore, a=1)
    one.set_expiry(-1)
    one.save()
    other["b"] = 2
    with pytest.raises(UpdateError):
        other.save()


def test_rotations(directory):
    one, other = two(SessionStore, a=1)
    one["b"] = 2
    one.save()
    other["c"] = 3
    old = other.session_key
    other.cycle_key()
    assert other.session_key != old
    assert stored(other) == {"a": 1, "b": 2, "c": 3}
    assert names(directory) == ["sessionid" + other.session_key]
    with pytest.raises(UpdateError):
        one.save()
    one, other = two(SessionStore, _auth_user_id="1")
    one.flush()
    with pytest.raises(SessionInterrupted):
        other.cycle_key()
    # The cookie stays, which another request may have renewed.
    assert not other.exists(other.session_key)
    assert not other.is_empty()
    with pytest.raises(UpdateError):
        other.save()
    one, other = two(SessionStore, a=1)
    one.cycle_key()
    other.cycle_key()
    assert one.session_key != other.session_key
    assert stored(one) == stored(other) == {"a": 1}
    new = SessionStore()
    new.cycle_key()
    assert stored(new) == {}


def change(path, key, number, rounds):
    with override_settings(SESSION_FILE_PATH=path):
        for count in range(rounds):
            store = SessionStore(key)
            store[f"{number}_{count}"] = count
            store.save()


def test_many_threads_and_processes_lose_no_update(tmp_path):
    forget_directory()
    with override_settings(SESSION_FILE_PATH=str(tmp_path)):
        key = filled(SessionStore).session_key
        errors = []

        def run(number):
            try:
                change(str(tmp_path), key, number, 20)
            except Exception as error:  # noqa: BLE001
                errors.append(error)

        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=change, args=(str(tmp_path), key, n, 20)) for n in range(2)]
        workers += [threading.Thread(target=run, args=(n,)) for n in range(2, 4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert errors == []
        wanted = {f"{n}_{count}" for n in range(4) for count in range(20)} | {"a"}
        assert set(SessionStore(key).load()) == wanted
        assert len(names(tmp_path)) == 1
    forget_directory()


def test_nothing_is_brought_back_by_savers_who_race_a_delete(directory):
    for _ in range(10):
        key = filled(SessionStore).session_key
        barrier = threading.Barrier(3)
        errors = []

        def run(number, key=key, barrier=barrier, errors=errors):
            store = SessionStore(key)
            store[str(number)] = 1
            barrier.wait()
            try:
                if number == 0:
                    store.flush()
                else:
                    with contextlib.suppress(UpdateError):
                        store.save()
            except Exception as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert names(directory) == []


# Failures.


def test_a_lock_that_is_held_for_too_long(directory, monkeypatch):
    monkeypatch.setattr(session_files, "LOCK_TIMEOUT", 0.05)
    store = filled(SessionStore)
    with (directory / ("sessionid" + store.session_key)).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert SessionStore(store.session_key).load() == {"a": 1}
        for step in ("save", "delete", "cycle_key"):
            with pytest.raises(StoreUnavailableError) as caught:
                getattr(store, step)()
            assert caught.value.reason == "timed_out"
            assert store.outage is caught.value
    store.save()
    assert store.outage is None


def test_a_disk_that_fails_is_no_empty_session(directory, monkeypatch):
    store = filled(SessionStore)
    key = store.session_key

    def fail(number):
        def failing(*args, **kwargs):
            raise OSError(number, "a message of the system", f"/sessions/sessionid{key}")

        return failing

    for number, reason in [(5, "refused"), (28, "refused"), (24, "busy"), (116, "unreachable")]:
        with monkeypatch.context() as patch:
            patch.setattr(session_files, "_content", fail(number))
            again = SessionStore(key)
            with pytest.raises(StoreUnavailableError) as caught:
                again.load()
            assert caught.value.reason == reason
            assert again.session_key == key
            assert again.outage is caught.value
            assert key not in str(caught.value) + repr(caught.value.__cause__)
        with monkeypatch.context() as patch:
            patch.setattr(session_files.os, "write", fail(number))
            for step in ("save", "create", "cycle_key"):
                with pytest.raises(StoreUnavailableError) as caught:
                    getattr(store, step)()
                assert caught.value.reason == reason
                assert store.session_key == key
            assert names(directory) == ["sessionid" + key]
    assert store.load() == {"a": 1}


def test_a_directory_that_goes_away_is_no_empty_session(tmp_path):
    forget_directory()
    place = tmp_path / "sessions"
    place.mkdir()
    with override_settings(SESSION_FILE_PATH=str(place)):
        store = filled(SessionStore)
        (place / ("sessionid" + store.session_key)).unlink()
        place.rmdir()
        for step in ("load", "save", "delete", "create", "cycle_key"):
            with pytest.raises(StoreUnavailableError) as caught:
                getattr(store, step)()
            assert caught.value.reason == "unreachable"
    forget_directory()


# Asynchronous, and what projects make of it.


def test_the_asynchronous_twins(directory):
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
        await new.acreate()
        await new.adelete()
        await other.aflush()
        assert await SessionStore(new.session_key).aload() == {}
        await SessionStore.aclear_expired()

    async_to_sync(steps)()


def test_hooks_of_subclasses_keep_their_meaning(directory):
    seen = []

    class Store(SessionStore):
        key_salt = "django.contrib.sessions.SessionStore"

        def delete(self, session_key=None):
            seen.append("delete")
            super().delete(session_key)

    store = filled(Store)
    store.cycle_key()
    assert seen == ["delete"]
    assert stored(store) == {"a": 1}

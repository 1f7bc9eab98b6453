"""The moving engine: two engines, one session, and whoever meets whom while it moves."""

import contextlib
import itertools
import random
import secrets
import sys
import threading
import time
import types
from datetime import timedelta

import moving_engines
import pytest
from asgiref.sync import async_to_sync
from cache_backends import PICKLED, cache_settings
from django.contrib.sessions.backends import cache as django_cache
from django.contrib.sessions.backends import db as django_db
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone

from django_session_rs.backends import cache, cached_db, db, file, moving, native  # noqa: F401 - by name
from django_session_rs.exceptions import SessionConflictError, StoreUnavailableError, is_outage

THEIRS = "django.contrib.sessions.backends."
OURS = "django_session_rs.backends."
LOGIN = {"_auth_user_id": "7", "_auth_user_hash": "0" * 64}
SECRET = {"secret": "tea"}


def engine(path):
    return sys.modules[path].SessionStore


def as_module(name, store_class):
    """Have an engine be named by a setting."""
    module = types.ModuleType(name)
    module.SessionStore = store_class
    sys.modules[name] = module
    return name


ONE = as_module("one_engine", moving_engines.of_cache("one"))
OTHER = as_module("other_engine", moving_engines.of_cache("other"))
RUDE = as_module("rude_engine", moving_engines.Rude)


def back(way):
    """The same with the two exchanged."""

    class Back(way):
        moving_from, moving_to = way.moving_to, way.moving_from

    return Back


def between(one, other, write=None):
    """A moving engine between these two, whatever the settings say."""

    class SessionStore(moving.SessionStore):
        moving_from, moving_to, moving_write = one, other, write

    SessionStore.__doc__ = f"{one.split('.')[-1]} to {other.split('.')[-1]} {write or ''}"
    return SessionStore


@contextlib.contextmanager
def two_caches(**more):
    settings = {
        alias: {"BACKEND": PICKLED + "locmem.LocMemCache", "LOCATION": secrets.token_hex(4)}
        for alias in ("default", "one", "other")
    }
    with override_settings(CACHES=settings, **more):
        yield


PAIRS = [
    (THEIRS + "db", THEIRS + "cache"),
    (THEIRS + "cache", THEIRS + "db"),
    (OURS + "file", OURS + "db"),
    (OURS + "cached_db", OURS + "file"),
    (OURS + "file", OURS + "cached_db"),
    (ONE, OTHER),
    (RUDE, OTHER),
]


@pytest.fixture(params=PAIRS, ids=lambda pair: " to ".join(path.split(".")[-1] for path in pair))
def pair(request, sqlite_database, tmp_path):
    moving_engines.Rude.stored.clear()
    with two_caches(SESSION_FILE_PATH=str(tmp_path)):
        yield request.param


@pytest.fixture(params=["new", "both"])
def write(request):
    return request.param


@pytest.fixture
def way(pair, write):
    return between(*pair, write)


def stored(path, key):
    """What an engine has under a key, as its own readers see it; `None` if nothing."""
    session = engine(path)(key)
    data = session.load()
    return data if session.session_key == key else None


def filled(store_class, **data):
    session = store_class()
    session.update(data or SECRET)
    session.create()
    return session.session_key


# Both kinds of methods are held to the same: the asynchronous ones in an event loop of their own.


class Awaiting:
    """A session of which every method is the asynchronous one."""

    def __init__(self, session):
        self.session = session

    def __getattr__(self, name):
        if name in ("session_key", "modified", "outage"):
            return getattr(self.session, name)
        return async_to_sync(getattr(self.session, f"a{name}"))


class Waiting:
    def __init__(self, session):
        self.session = session

    def set(self, name, value):
        self.session[name] = value

    def __getattr__(self, name):
        return getattr(self.session, name)


@pytest.fixture(params=[Waiting, Awaiting], ids=["sync", "async"])
def opened(request):
    """Opens a session of a class."""
    return lambda store_class, key=None: request.param(store_class(key))


# One after the other.


def test_a_session_moves_when_it_is_saved_and_not_before(pair, write, way, opened):
    one, other = pair
    key = filled(engine(one), **SECRET, **LOGIN)
    session = opened(way, key)
    assert session.get("secret") == "tea"
    assert (stored(one, key) is not None, stored(other, key)) == (True, None)
    session.set("more", [1])
    session.save()
    wanted = {**SECRET, **LOGIN, "more": [1]}
    assert stored(other, key) == wanted
    assert stored(one, key) == (wanted if write == "both" else None)
    for store_class in (way, back(way)):
        assert dict(opened(store_class, key).items()) == wanted


def test_a_new_session_is_where_sessions_move_to(pair, write, way, opened):
    one, other = pair
    session = opened(way)
    session.set("a", 1)
    session.create()
    key = session.session_key
    assert stored(other, key) == {"a": 1}
    assert stored(one, key) == ({"a": 1} if write == "both" else None)
    session.set("b", 2)
    session.save()
    assert stored(other, key) == {"a": 1, "b": 2}
    assert stored(one, key) == ({"a": 1, "b": 2} if write == "both" else None)


def test_a_key_that_either_has_is_taken(pair, way, opened):
    for path in pair:
        key = filled(engine(path))
        session = opened(way, key)
        assert session.exists(key)
        with pytest.raises(CreateError):
            session.save(must_create=True)
        assert stored(path, key) == SECRET
        assert [stored(path, key) for path in pair].count(None) == 1


def test_what_is_deleted_is_gone_from_both(pair, way, opened):
    for path, method in itertools.product(pair, ("delete", "flush")):
        key = filled(engine(path))
        loaded = opened(way, key)
        loaded.get("secret")
        getattr(opened(way, key), method)()
        assert [stored(path, key) for path in pair] == [None, None]
        assert not opened(way).exists(key)
        loaded.set("late", 1)
        with pytest.raises(UpdateError):
            loaded.save()
        assert [stored(path, key) for path in pair] == [None, None]


def test_a_new_key_leaves_nothing_under_the_old_one(pair, write, way, opened):
    for path in pair:
        key = filled(engine(path), **LOGIN)
        session = opened(way, key)
        session.set("a", 1)
        session.cycle_key()
        assert session.session_key != key
        assert [stored(path, key) for path in pair] == [None, None]
        assert stored(pair[1], session.session_key) == {**LOGIN, "a": 1}
        assert (stored(pair[0], session.session_key) is not None) == (write == "both")


def test_who_logs_out_while_another_logs_in_is_logged_out(pair, way, opened):
    for path in pair:
        key = filled(engine(path), **LOGIN)
        session = opened(way, key)
        session.get("a")
        opened(way, key).flush()
        with pytest.raises(SessionInterrupted):
            session.cycle_key()
        # The cookie stays, which another request may have renewed.
        assert not session.exists(session.session_key)
        with pytest.raises(UpdateError):
            session.save()


def test_two_requests_both_keep_what_they_changed(pair, write, way, opened):
    for path in pair:
        key = filled(engine(path), a=1, b=1, c=1)
        sessions = [opened(way, key) for _ in range(3)]
        for name, session in zip("abc", sessions, strict=True):
            session.get(name)
            session.set(name, 2)
        for session in sessions:
            session.save()
        assert dict(opened(way, key).items()) == {"a": 2, "b": 2, "c": 2}
        # And back again.
        last = opened(back(way), key)
        last.pop("a")
        last.save()
        assert stored(pair[0], key) == {"b": 2, "c": 2}
        assert stored(pair[1], key) in (None, {"b": 2, "c": 2})
        assert dict(opened(way, key).items()) == {"b": 2, "c": 2}


def test_a_login_takes_along_what_others_have_changed(pair, way, opened):
    for path in pair:
        key = filled(engine(path), **LOGIN)
        session = opened(way, key)
        session.get("a")
        other = opened(way, key)
        other.set("theirs", 1)
        other.save()
        session.set("mine", 1)
        session.cycle_key()
        found = opened(way, session.session_key)
        assert dict(found.items()) == {**LOGIN, "theirs": 1, "mine": 1}
        assert [stored(path, key) for path in pair] == [None, None]


@pytest.mark.parametrize("rule", ["error", "overwrite", lambda _n, _l, mine, stored: mine + stored])
def test_rules_for_conflicts_hold(pair, way, opened, rule):
    with override_settings(SESSION_ON_CONFLICT=rule):
        for path in pair:
            key = filled(engine(path), a=1)
            one, other = opened(way, key), opened(way, key)
            one.get("a"), other.get("a")
            one.set("a", 2), other.set("a", 3)
            one.save()
            one.save()
            if rule == "error":
                with pytest.raises(SessionConflictError):
                    other.save()
            else:
                other.save()
            expected = {"error": 2, "overwrite": 3}.get(rule, 5)
            assert opened(way, key).get("a") == expected


def test_the_expiry_moves_along(pair, way, opened):
    key = filled(engine(pair[0]))
    session = opened(way, key)
    session.set_expiry(500)
    session.save()
    assert opened(way, key).get_expiry_age() == 500
    assert engine(pair[1])(key).get_expiry_age() == 500


def test_what_is_cleared_is_replaced_wholly(pair, write, way, opened):
    for path in pair:
        key = filled(engine(path), a=1)
        session = way(key)
        session.clear()
        session["b"] = 2
        session.save()
        assert stored(pair[1], key) == {"b": 2}
        assert stored(pair[0], key) == ({"b": 2} if write == "both" else None) or path == pair[1]


def test_what_has_expired_is_cleared_from_both(sqlite_database, tmp_path, opened):
    with two_caches(SESSION_FILE_PATH=str(tmp_path)):
        way = between(OURS + "db", OURS + "file")
        for path in (OURS + "db", OURS + "file"):
            session = engine(path)()
            session.set_expiry(-10)
            session.create()
        Session.objects.update(expire_date=timezone.now() - timedelta(seconds=10))
        kept = filled(way)
        opened(way).clear_expired()
        assert Session.objects.count() == 0
        assert len(list(tmp_path.iterdir())) == 1
        assert stored(OURS + "file", kept) == SECRET


def test_an_expired_file_is_no_session_and_leaves_none(sqlite_database, tmp_path, opened):
    with two_caches(SESSION_FILE_PATH=str(tmp_path)):
        for way in (between(OURS + "file", OURS + "db"), between(OURS + "db", OURS + "file")):
            session = file.SessionStore()
            session.set_expiry(-10)
            session.create()
            found = opened(way, session.session_key)
            assert found.get("a") is None
            assert found.session_key is None
            assert list(tmp_path.iterdir()) == []


def test_what_nobody_can_read_is_replaced(sqlite_database, opened):
    with two_caches():
        for way in (between(OURS + "db", OURS + "cache"), between(OURS + "cache", OURS + "db")):
            key = filled(db.SessionStore)
            Session.objects.filter(pk=key).update(session_data="broken")
            session = opened(way, key)
            session.set("a", 1)
            session.save()
            assert dict(opened(way, key).items()) == {"a": 1}


@pytest.mark.parametrize("step", ["save", "cycle_key", "flush"])
def test_what_a_killed_process_has_left_is_taken_over(pair, way, opened, step, monkeypatch):
    monkeypatch.setattr(moving, "PATIENCE", 4)
    one, other = pair
    key = filled(engine(one), **SECRET, **LOGIN)
    left = engine(other)(key)
    left.update({**SECRET, **LOGIN, "unfinished": 1, moving.MARK: "m" * 32})
    left.save(must_create=True)
    session = opened(way, key)
    assert dict(session.items()) == {**SECRET, **LOGIN}
    session.set("a", 1)
    getattr(session, step)()
    if step == "flush":
        assert [stored(path, key) for path in pair] == [None, None]
        return
    wanted = {**SECRET, **LOGIN, "a": 1}
    assert stored(other, session.session_key) == wanted
    for store_class in (way, back(way)):
        assert dict(opened(store_class, session.session_key).items()) == wanted
    if step == "cycle_key":
        assert [stored(path, key) for path in pair] == [None, None]


def test_a_session_that_is_saved_by_each_request_moves(pair, way, opened):
    key = filled(engine(pair[0]))
    for _ in range(2):
        session = opened(way, key)
        session.get("secret")
        session.save()
        assert stored(pair[1], key) == SECRET
    session.save()


def test_values_that_json_changes_are_the_same_session(sqlite_database, opened):
    with two_caches():
        way = between(OURS + "cache", OURS + "db", "both")
        key = filled(cache.SessionStore, pair=(1, 2), numbers={1: "one"})
        for name in "ab":
            session = opened(way, key)
            session.set(name, 1)
            session.save()
        for path in (OURS + "cache", OURS + "db"):
            assert set(stored(path, key)) == {"pair", "numbers", "a", "b"}


# Transactions.


@pytest.mark.parametrize("method", ["save", "cycle_key"])
def test_a_transaction_that_is_undone_takes_no_session_with_it(sqlite_database, method):
    with two_caches():
        way = between(OURS + "cache", OURS + "db")
        key = filled(cache.SessionStore)
        session = way(key)
        session["a"] = 1
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            getattr(session, method)()
            1 / 0  # noqa: B018
        assert Session.objects.count() == 0
        assert way(session.session_key)["secret"] == "tea"
        # Outside of one it moves.
        session = way(session.session_key)
        session["b"] = 1
        session.save()
        assert Session.objects.count() == 1
        assert cache.SessionStore(session.session_key).load() == {}


# Settings.


def test_settings_name_the_engines(sqlite_database):
    with (
        two_caches(),
        override_settings(
            SESSION_ENGINE="django_session_rs.backends.moving",
            SESSION_MOVING_FROM=THEIRS + "db",
            SESSION_MOVING_TO=THEIRS + "cache",
        ),
    ):
        key = filled(django_db.SessionStore)
        session = moving.SessionStore(key)
        session["a"] = 1
        session.save()
        assert django_cache.SessionStore(key)["a"] == 1
        with override_settings(SESSION_MOVING_WRITE="both"):
            key = filled(django_db.SessionStore)
            session = moving.SessionStore(key)
            session["a"] = 2
            session.save()
        for store_class in (django_db.SessionStore, django_cache.SessionStore):
            assert store_class(key)["a"] == 2
        call_command("clearsessions")


@pytest.mark.parametrize(
    "settings",
    [
        {"SESSION_MOVING_FROM": None},
        {"SESSION_MOVING_TO": ""},
        {"SESSION_MOVING_TO": THEIRS + "db"},
        {"SESSION_MOVING_TO": OURS + "db"},
        {"SESSION_MOVING_TO": THEIRS + "signed_cookies"},
        {"SESSION_MOVING_TO": OURS + "moving"},
        {"SESSION_MOVING_TO": "no_such_module"},
        {"SESSION_MOVING_TO": "contextlib"},
        {"SESSION_MOVING_WRITE": "old"},
    ],
)
def test_settings_that_mean_nothing_are_refused(sqlite_database, settings):
    valid = {"SESSION_MOVING_FROM": THEIRS + "db", "SESSION_MOVING_TO": THEIRS + "cache"}
    with two_caches(**(valid | settings)), pytest.raises(ImproperlyConfigured) as raised:
        filled(moving.SessionStore)
    assert next(iter(settings)) in str(raised.value)


# Who meets whom. The steps of several requests are interleaved; each is one question to an engine.


class World:
    """One session in one of two caches."""

    def __init__(self, start, write):
        self.forth = between(ONE, OTHER, write)
        self.back = back(between(ONE, OTHER))
        self.key = filled(engine(ONE if start != "new" else OTHER))
        if start == "copied":
            copied = engine(OTHER)(self.key)
            # To look whether it is there would take its key away.
            copied._session_cache = {**SECRET}
            copied.save(must_create=True)
        self.acknowledged = []

    def writer(self, store_class, name, added=1):
        session = store_class(self.key)
        session._session_cache = yield from session._open()
        if session.session_key is None:
            # It was deleted, or has another key.
            return
        session[name] = session.get(name, 0) + added
        try:
            yield from session._save()
        except UpdateError:
            return
        self.acknowledged.append(name)

    def overwriter(self, store_class):
        """Save whatever is there by now, as the rule "overwrite" does."""
        session = store_class(self.key)
        session._session_cache = {**SECRET}
        with contextlib.suppress(UpdateError):
            yield from session._write_whatever(self.key)

    def reader(self, store_class):
        for _ in range(3):
            found = yield from store_class(self.key)._open()
            assert found["secret"] == "tea", "nobody is logged out"

    def logout(self, store_class):
        yield from store_class(self.key)._remove(self.key)

    def login(self, store_class):
        session = store_class(self.key)
        session._session_cache = yield from session._open()
        yield from session._rotate()
        self.key = session.session_key

    def copier(self):
        found = engine(ONE)(self.key)
        data = yield found, "load"
        if found.session_key is None:
            return
        copied = engine(OTHER)(self.key)
        copied._session_cache = data
        try:
            yield copied, "save", True
        except CreateError:
            return
        if not (yield engine(ONE)(), "exists", self.key):
            yield copied, "delete"

    def check_nothing_lost(self):
        for store_class in (self.forth, self.back):
            found = store_class(self.key).load()
            assert set(self.acknowledged) | {"secret"} <= found.keys()
        old, new = stored(ONE, self.key), stored(OTHER, self.key)
        assert old is None or new is None or old == new

    def check_gone(self):
        assert (stored(ONE, self.key), stored(OTHER, self.key)) == (None, None)


def interleave(actors, order):
    """Let actors take their steps in an order."""
    left = [(index, actor, [None, None]) for index, actor in enumerate(actors)]
    taken = order.taken = [0] * len(actors)
    while left:
        index, actor, (answer, failure) = one = order.pick(left, taken)
        taken[index] += 1
        try:
            asked = actor.send(answer) if failure is None else actor.throw(failure)
        except StopIteration:
            left.remove(one)
            continue
        one[2][:] = [None, None]
        target, *method = asked
        if target is not None:
            try:
                one[2][0] = getattr(target, method[0])(*method[1:])
            except Exception as error:  # noqa: BLE001
                one[2][1] = error


class Order:
    """Who takes the next step."""

    def __init__(self, pick):
        self.pick = pick
        #: How many steps each actor took.
        self.taken = []


def going_to(*stations):
    """Let actors go to a step each, in turn, and then all to their ends."""

    def pick(left, taken):
        there = {one[0]: one for one in left}
        for index, at in stations:
            if index in there and taken[index] < at:
                return there[index]
        return left[sum(taken) % len(left)]

    return Order(pick)


def schedules(count):
    """Orders in which somebody is stopped until all others are done, and random ones.

    Whoever is stopped also goes on just when another one has given up waiting for him.
    """
    for stopped, at in itertools.product(range(count), range(14)):

        def stopping(left, taken, stopped=stopped, at=at):
            others = [one for one in left if one[0] != stopped]
            first = [one for one in left if one[0] == stopped]
            if first and (not others or taken[stopped] < at):
                return first[0]
            return others[sum(taken) % len(others)]

        order = Order(stopping)
        yield order
        for other, steps in enumerate(order.taken):
            if other != stopped and steps > moving.PATIENCE:
                for other_at in range(steps - 12, steps):
                    yield going_to((stopped, at), (other, other_at), (stopped, sys.maxsize))
    for seed in range(60):
        chance = random.Random(seed)
        yield Order(lambda left, _taken, chance=chance: chance.choice(left))


STARTS = ["old", "new", "copied"]


@pytest.mark.parametrize("start", STARTS)
def test_whoever_moves_a_session_loses_nothing(start, write):
    with two_caches():
        for order in schedules(3):
            world = World(start, write)
            way = world.forth
            interleave([world.writer(way, "a"), world.writer(way, "b"), world.reader(way)], order)
            assert len(world.acknowledged) == 2
            world.check_nothing_lost()


@pytest.mark.parametrize("start", STARTS)
def test_a_deleted_session_stays_deleted(start, write):
    with two_caches():
        for order in schedules(3):
            world = World(start, write)
            way = world.forth
            interleave([world.writer(way, "a"), world.logout(way), world.writer(way, "b")], order)
            world.check_gone()
        for order in schedules(3):
            world = World(start, write)
            way = world.forth
            interleave([world.overwriter(way), world.logout(way), world.overwriter(way)], order)
            world.check_gone()


@pytest.mark.parametrize("start", STARTS)
def test_what_is_added_is_added_once(start, write):
    def add(_name, loaded, mine, stored):
        return (stored or 0) + mine - (loaded or 0)

    with two_caches(SESSION_ON_CONFLICT=add):
        for order in schedules(3):
            world = World(start, write)
            way = world.forth
            actors = [world.writer(way, "count", added) for added in (1, 1, 100)]
            interleave(actors, order)
            assert way(world.key).load()["count"] == 102


@pytest.mark.parametrize("start", STARTS)
def test_a_login_and_a_writer_meet(start, write):
    with two_caches():
        for order in schedules(2):
            world = World(start, write)
            old = world.key
            interleave([world.login(world.forth), world.writer(world.forth, "a")], order)
            world.check_nothing_lost()
            world.key = old
            world.check_gone()


def test_a_copier_overwrites_nothing_and_brings_nothing_back(write):
    with two_caches():
        for order in schedules(3):
            world = World("old", write)
            way = world.forth
            interleave([world.writer(way, "a"), world.copier(), world.writer(way, "b")], order)
            assert len(world.acknowledged) == 2
            world.check_nothing_lost()
        for order in schedules(3):
            world = World("old", write)
            way = world.forth
            interleave([world.writer(way, "a"), world.copier(), world.logout(way)], order)
            world.check_gone()


@pytest.mark.parametrize("start", ["old", "new"])
def test_both_directions_side_by_side_lose_nothing(start):
    with two_caches():
        for order in schedules(2):
            world = World(start, "new")
            actors = [world.writer(world.forth, "a"), world.writer(world.back, "b")]
            interleave(actors, order)
            assert len(world.acknowledged) == 2
            world.check_nothing_lost()
        for order in schedules(3):
            world = World(start, "new")
            actors = [
                world.writer(world.forth, "a"),
                world.writer(world.back, "b"),
                world.logout(world.forth),
            ]
            interleave(actors, order)
            world.check_gone()


def test_a_copy_is_not_replaced_by_what_was_before_it(monkeypatch):
    """Between the two looks of who sees to the copy again somebody else saves the session."""
    with two_caches():
        world = World("copied", "both")
        way = world.forth
        late = way(world.key)
        assert late["secret"] == "tea"
        late["b"] = 2
        real, calls = way._copy_beside, []

        def looking(self, key):
            calls.append(self)
            if len(calls) == 2:
                other = way(world.key)
                other["c"] = 3
                other.save()
            found = yield from real(self, key)
            if len(calls) == 1:
                # Somebody who has saved the session before is slow with its copy.
                beside = engine(way.moving_from)(world.key)
                beside["slow"] = True
                beside.save()
            return found

        monkeypatch.setattr(way, "_copy_beside", looking)
        late.save()
        monkeypatch.undo()
        assert len(calls) > 1
        assert stored(way.moving_to, world.key) == {**SECRET, "b": 2, "c": 3}
        assert stored(way.moving_from, world.key) == {**SECRET, "b": 2, "c": 3}


# Outages.


AWAY = {"BACKEND": PICKLED + "redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}


def test_an_outage_of_either_is_an_outage_and_nobody_is_logged_out(sqlite_database, opened):
    pytest.importorskip("redis")
    forth, other = between(OURS + "db", OURS + "cache"), between(OURS + "cache", OURS + "db")
    with two_caches():
        key = filled(db.SessionStore)
        with override_settings(CACHES={"default": AWAY}):
            for way in (forth, other):
                missing = opened(way, "a-key-of-nobody")
                with pytest.raises(StoreUnavailableError):
                    missing.get("a")
                assert missing.session_key == "a-key-of-nobody"
                assert is_outage(missing.outage)
                session = opened(way, key)
                with pytest.raises(StoreUnavailableError):
                    session.cycle_key()
                assert session.session_key == key
            # What is in the engine that is asked first needs no other to be read.
            session = opened(other, key)
            assert session.get("secret") == "tea"
            session.set("a", 1)
            for method in ("save", "flush"):
                with pytest.raises(StoreUnavailableError):
                    getattr(session, method)()
                assert session.session_key == key
                assert is_outage(session.outage)
        for way in (forth, other):
            assert dict(opened(way, key).items()) == SECRET


# A whole move, on servers, under load.


class Move:
    """Visitors who send requests to whichever programs run at the moment."""

    def __init__(self, sessions, parallel):
        self.keys = [(key, name) for key, names in sessions for name in names]
        self.parallel = parallel
        self.running = ([], [])
        self.epoch = 0
        self.seen = {}
        self.done = threading.Event()
        self.problems = []
        self.requests = 0
        self.acknowledged = {}
        self.lock = threading.Lock()

    def switch(self, every, own):
        """Have other programs run from now on, and wait until no request is at an old one.

        Requests of visitors who send one after the other go to any of the first, those of visitors
        who send several at a time to any of the second.
        """
        self.running = (every, own)
        self.epoch += 1
        self.wait(lambda: all(seen >= self.epoch for seen in self.seen.values()))
        enough = self.requests + 20 * len(self.running[0]) * 4
        self.wait(lambda: self.requests >= enough)

    def wait(self, until):
        """Wait until something is so, or something is wrong."""
        while not self.problems and not until():
            time.sleep(0.01)

    def visit(self, key, name, seed):
        chance = random.Random(seed)
        counted, before, epoch = 0, None, 0
        try:
            while not self.done.is_set() and not self.problems:
                epoch, running = self.epoch, self.running
                self.seen[key, name] = epoch
                choices = running[1] if (key, name) in self.parallel else running[0]
                if not choices:
                    time.sleep(0.01)
                    continue
                program = chance.choice(choices)
                session = program(key)
                told = f"{before}, then {program.__doc__} in step {epoch}, name {name}"
                assert session.get("_auth_user_id") == "7", f"logged out: {told}"
                assert session.get(name, 0) == counted, f"a write is lost: {told}"
                if chance.random() < 0.7:
                    session[name] = counted + 1
                    session.save()
                    counted, before = counted + 1, (program.__doc__, epoch)
                with self.lock:
                    self.requests += 1
        except BaseException as error:
            self.problems.append(error)
            raise
        finally:
            self.seen[key, name] = sys.maxsize
            self.acknowledged[key, name] = counted
            connections.close_all()

    @contextlib.contextmanager
    def under_way(self):
        threads = [
            threading.Thread(target=self.visit, args=(*one, seed))
            for seed, one in enumerate(self.keys)
        ]
        self.seen = dict.fromkeys(self.keys, 0)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.done.set()
            for thread in threads:
                thread.join()


def copy_all(one, other, keys):
    """What a program does that copies whatever the new engine does not have."""
    for key in keys:
        data = stored(one, key)
        if data is None:
            continue
        copied = engine(other)(key)
        copied._session_cache = data
        try:
            copied.save(must_create=True)
        except CreateError:
            continue
        if not engine(one)().exists(key):
            copied.delete()


@contextlib.contextmanager
def postgres_and_redis(databases):
    if "postgres" not in databases:
        pytest.skip("PostgreSQL is not there")
    from test_native_engine import database_of

    with database_of("postgres"), override_settings(CACHES={"default": cache_settings("redis")}):
        yield


@pytest.mark.parametrize("ours", ["cache", "native"])
def test_a_live_move_there_and_back_logs_nobody_out_and_loses_nothing(databases, ours):
    """Every step of docs/moving.md, forth and back, with stock Django beside it where it may be."""
    with postgres_and_redis(databases), override_settings(SESSION_STORE_URL="cache"):
        table, redis = THEIRS + "db", (OURS + "native" if ours == "native" else THEIRS + "cache")
        in_table, in_redis = django_db.SessionStore, django_cache.SessionStore
        sessions = [(filled(in_table, **LOGIN), ["a"]) for _ in range(4)]
        sessions += [(filled(in_table, **LOGIN), ["a", "b"]) for _ in range(2)]
        parallel = {(key, name) for key, names in sessions[4:] for name in names}
        idle = [filled(in_table, **LOGIN) for _ in range(20)]
        keys = [key for key, _ in sessions] + idle
        move = Move(sessions, parallel)
        with move.under_way():
            for one, other, stock, new_stock in (
                (table, redis, in_table, in_redis),
                (redis, table, in_redis, in_table),
            ):
                ready, forth = between(other, one), between(one, other)
                both = between(one, other, "both")
                # Stock Django reads and writes beside it.
                move.switch([stock], [])
                move.switch([stock, ready], [])
                move.switch([ready], [ready])
                move.switch([ready, forth], [ready, forth])
                # What has moved goes back before both are written.
                move.switch([ready], [ready])
                move.wait(lambda old=stock: all("_auth_user_id" in old(key) for key, _ in sessions))
                # Where a session is in both, those who send several at a time wait for the end.
                move.switch([ready, both], [])
                move.switch([both], [both])
                move.switch([both], [])
                # What both write, stock Django reads.
                for key, _ in sessions:
                    assert stock(key)["_auth_user_id"] == "7"
                # There and back again, in the middle of it.
                move.switch([ready], [ready])
                move.switch([ready, forth], [])
                move.switch([forth], [forth])
                copy_all(one, other, keys)
                for key in keys:
                    assert engine(other)(key)["_auth_user_id"] == "7"
                    stock(key).delete()
                move.switch([forth, new_stock], [])
                move.switch([new_stock], [])
        assert move.problems == []
        assert move.requests > 500
        for key, names in sessions:
            found = in_table(key)
            assert found["_auth_user_id"] == "7"
            assert {name: found.get(name, 0) for name in names} == {
                name: move.acknowledged[key, name] for name in names
            }
        assert all(in_table(key)["_auth_user_id"] == "7" for key in idle)

"""What the engines know of parallel requests: what was changed here, and what a conflict leads to.

`MergingSession` notes which names a request sets or removes, and brings what others have stored in
the meantime into the session object. The engines read and write around it. It also has the
asynchronous methods of Django 5.1 for the releases before, and remembers an outage of the store.
"""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from asgiref.sync import sync_to_async
from django.conf import Settings, settings
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_session_rs.backends.keys import new_session_key
from django_session_rs.exceptions import is_outage
from django_session_rs.merge import merge, same_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MergingSession", "OneHopSession", "SessionEndedError"]

#: How often a save that others have overtaken is merged and tried again. Each time one of them got
#: through, and they are those of other processes: in this one they wait for each other.
MAX_SAVE_TRIES = 1_000

#: How long in seconds those of one process wait for each other, at most. It is for fairness only:
#: whoever does not get it goes on without.
TURN_TIMEOUT = 1.0

PACKAGE = "django_session_rs."

# `django.contrib.auth.SESSION_KEY`, which cannot be imported before the apps are ready.
USER_ID_KEY = "_auth_user_id"

# Whether Django's own session has asynchronous methods (5.1).
ASYNC_BASE = hasattr(SessionBase, "asave")

# Where Django keeps the settings that were read, and drops them when they change. Each access to
# an attribute of `settings` runs Python code; a setting found in here is the same, for a tenth.
READ_SETTINGS: dict[str, Any] = settings.__dict__

_Method = TypeVar("_Method", bound="Callable[..., Any]")


class SessionEndedError(UpdateError, SessionInterrupted):
    """Somebody has logged out while the session was being moved to another key.

    To code that knows Django it is an ``UpdateError``; one that no view catches is answered with
    status 400, as Django answers a save that finds its session deleted.
    """


def setting(name: str, default: Any) -> Any:
    """Return a setting that Django has no default for."""
    wrapped = READ_SETTINGS.get("_wrapped")
    if type(wrapped) is Settings:
        # Asking for a setting that is not there costs Django an exception each time.
        return wrapped.__dict__.get(name, default)
    return getattr(settings, name, default)


def on_conflict() -> Any:
    """Return ``"merge"``, ``"overwrite"``, ``"error"``, or the function that decides."""
    value = setting("SESSION_ON_CONFLICT", "merge")
    # Compared one by one: a value that cannot be hashed is a mistake like any other.
    if value == "merge" or value == "overwrite" or value == "error" or callable(value):  # noqa: PLR1714
        return value
    if isinstance(value, str) and "." in value:
        return _imported(value)
    raise ImproperlyConfigured(
        "SESSION_ON_CONFLICT must be 'merge', 'overwrite', 'error' or a function."
    )


def _imported(path: str) -> Any:
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured("SESSION_ON_CONFLICT names what cannot be imported.") from error
    if not callable(found):
        raise ImproperlyConfigured("SESSION_ON_CONFLICT names what is not a function.")
    return found


def notes_outage(method: _Method) -> _Method:
    """Have a method of a session keep the outage that it met in ``session.outage``."""

    @functools.wraps(method)
    def noting(self: MergingSession, *args: Any, **kwargs: Any) -> Any:
        try:
            result = method(self, *args, **kwargs)
        except Exception as error:
            self.outage = error if is_outage(error) else None
            raise
        self.outage = None
        return result

    return noting  # type: ignore[return-value]


class noting_outage:  # noqa: N801 - read as what it does
    """As ``notes_outage``, around what an asynchronous method awaits.

    Not a decorator, behind which tools do not see that a method is asynchronous.
    """

    __slots__ = ("session",)

    def __init__(self, session: MergingSession) -> None:
        self.session = session

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.session.outage = None
        elif isinstance(error, Exception):
            self.session.outage = error if is_outage(error) else None


@contextmanager
def keeping_key(session: MergingSession) -> Iterator[None]:
    """Leave a session its key if an outage keeps it from getting a new one.

    The new one leads nowhere, and whoever tries again would take it for a deleted one.
    """
    before = session.session_key
    try:
        yield
    except Exception as error:
        if is_outage(error):
            session._session_key = before  # noqa: SLF001 - as Django's engines set it
        raise


@contextmanager
def unless_moved(session: Any) -> Iterator[None]:
    """Leave a session as it was if within it cannot get another key, because it is gone.

    For who gives it another key for its own sake, not for a login: of two requests at the same time
    the second finds that the first has moved it.
    """
    state = dict(session.__dict__)
    if "_session_cache" in state:
        state["_session_cache"] = dict(state["_session_cache"])
    try:
        yield
    except SessionEndedError:
        session.__dict__.clear()
        session.__dict__.update(state)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function in the thread that Django's database connections live in."""
    return await sync_to_async(function, thread_sensitive=True)(*args)


# Where those wait in this process whose save was overtaken: they try again one after the other, not
# all at once for one of them to succeed.
_turns = [threading.Lock() for _ in range(64)]


@contextmanager
def turn(session_key: str) -> Iterator[None]:
    """Wait for those who are saving the same session, though not for long."""
    lock = _turns[hash(session_key) % len(_turns)]
    # Somebody may hold it who waits for a row that this thread has locked, or it was held when the
    # process was forked.
    held = lock.acquire(timeout=TURN_TIMEOUT)
    try:
        yield
    finally:
        if held:
            lock.release()


class MergingSession(SessionBase):
    """A session that notes what is changed in it."""

    #: The outage that the last operation on the store met, if it met one.
    outage: Exception | None = None

    # The engine of this package that this is, or is a subclass of.
    _engine: ClassVar[type[MergingSession]]
    # Whether a rotation may do without the methods that a project has replaced.
    _rotates: ClassVar[bool] = True

    # What is done about conflicts in place of what the setting says.
    _rule: str | None = None
    # The names that were set or removed since the session was loaded or saved.
    _touched: set[Any] | frozenset[Any] = frozenset()
    # What the store had when it was last asked, in the form in which the engine compares; nothing
    # if there was nothing, or if what there was is of no interest any more.
    _loaded: Any = None

    if TYPE_CHECKING:
        # Django's own, which its type stubs leave out.
        _session_cache: Any

        async def _aget_session(self, no_load: bool = ...) -> Any: ...  # noqa: FBT001
        def _get_session(self, no_load: bool = ...) -> Any: ...  # noqa: FBT001
        def _get_or_create_session_key(self) -> str: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(PACKAGE):
            cls._engine = cls
        cls._rotates = not cls._replaces("create", "delete", "save")

    @classmethod
    def _replaces(cls, *names: str) -> bool:
        """Tell whether a project has replaced one of these methods of the engine."""
        missing = object()
        return any(
            getattr(cls, name, missing) is not getattr(cls._engine, name, missing) for name in names
        )

    def _on_conflict(self) -> Any:
        """Return what is done about conflicts, as ``on_conflict()``."""
        return on_conflict() if self._rule is None else self._rule

    def _get_new_session_key(self) -> str:
        # Django asks the store first whether the key is free. Storing the session tells anyway.
        if self._replaces("exists"):
            return str(super()._get_new_session_key())  # type: ignore[misc]
        return new_session_key()

    def create(self) -> None:
        """Store the session under a new key."""
        with noting_outage(self), keeping_key(self):
            super().create()

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._touch(key)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self._touch(key)

    def pop(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        """Remove a name and return its value."""
        there = key in self._get_session()
        value = super().pop(key, *args, **kwargs)
        if there:
            self._touch(key)
        return value

    def update(self, dict_: Any) -> None:  # type: ignore[override]
        """Set every name of a dictionary."""
        given = dict(dict_)
        super().update(given)
        self._touch(*given)

    def clear(self) -> None:
        """Empty the session without a look at what was there. What others have set goes too."""
        super().clear()
        self._forget()

    async def aset(self, key: Any, value: Any) -> None:
        """See ``__setitem__()``."""
        await self._aget_session()
        self[key] = value

    async def apop(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        """See ``pop()``."""
        await self._aget_session()
        return self.pop(key, *args, **kwargs)

    async def aupdate(self, dict_: Any) -> None:
        """See ``update()``."""
        await self._aget_session()
        self.update(dict_)

    async def adelete_test_cookie(self) -> None:
        """See ``delete_test_cookie()``."""
        await self._aget_session()
        self.delete_test_cookie()

    def _touch(self, *names: Any) -> None:
        if self._touched:
            self._touched.update(names)  # type: ignore[union-attr]
        else:
            self._touched = set(names)

    def _forget(self) -> None:
        """Give up what was loaded: the next save replaces what is there."""
        self._loaded = None
        self._touched = frozenset()

    def _end(self) -> None:
        """Have no session any more, but a key that leads nowhere, as after a save that failed.

        Without a key the cookie would be deleted, which another request may just have renewed.
        """
        self.clear()
        self._forget()
        self._session_key = new_session_key()

    def _merge(
        self,
        loaded: Any,
        stored: Any,
        resolve: Any,
        plain: Callable[[dict[Any, Any]], dict[Any, Any]],
    ) -> None:
        """Bring what others have stored into the session, in place.

        ``plain`` returns a dictionary as it would be if it were stored and loaded again: as JSON,
        every name is a text.
        """
        own = self._session_cache
        mine = plain(own)
        touched = plain(dict.fromkeys(self._touched))
        merged = merge(loaded, mine, stored, touched=touched, resolve=resolve)
        names = {name: _only(plain({name: None})) for name in own if type(name) is not str}
        bring_in(own, merged, mine, names)


class OneHopSession(MergingSession):
    """A session whose asynchronous methods are its synchronous ones, somewhere else."""

    async def _run(self, method: Callable[..., Any], *args: Any) -> Any:
        """Run a method where it may wait."""
        return await in_thread(method, *args)

    async def aload(self) -> Any:
        """See ``load()``."""
        return await self._run(self.load)

    async def aexists(self, session_key: str | None) -> bool:
        """See ``exists()``."""
        return bool(await self._run(self.exists, session_key))

    async def acreate(self) -> None:
        """See ``create()``."""
        await self._run(self.create)

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See ``save()``."""
        await self._run(self.save, must_create)

    async def adelete(self, session_key: str | None = None) -> None:
        """See ``delete()``."""
        await self._run(self.delete, session_key)

    async def acycle_key(self) -> None:
        """See ``cycle_key()``."""
        await self._run(self.cycle_key)

    def delete_loaded(self) -> bool:
        """Delete the session if it still is what was loaded or saved last; tell whether it was."""
        raise NotImplementedError

    async def adelete_loaded(self) -> bool:
        """See ``delete_loaded()``."""
        return bool(await self._run(self.delete_loaded))


def bring_in(
    own: dict[Any, Any], merged: dict[Any, Any], mine: dict[Any, Any], names: dict[Any, Any]
) -> None:
    """Have a session hold what was merged; ``mine`` and ``names`` are its own, as stored."""
    for name in list(own):
        if names.get(name, name) not in merged:
            del own[name]
    # What is mine stays the object that it is.
    others = {
        name: value
        for name, value in merged.items()
        if name not in mine or not same_value(value, mine[name])
    }
    own.update(others)


def _only(names: dict[Any, Any]) -> Any:
    return next(iter(names))


if not ASYNC_BASE:

    def _twin(name: str) -> Any:
        method = getattr(SessionBase, name)

        async def twin(self: Any, *args: Any, **kwargs: Any) -> Any:
            # All it has to wait for is the session.
            if "expiry" not in kwargs:
                await self._aget_session()
            return getattr(self, name)(*args, **kwargs)

        twin.__name__ = twin.__qualname__ = f"a{name}"
        twin.__doc__ = f"See ``{method.__name__}()``."
        return twin

    async def _aget_session(self: Any, no_load: bool = False) -> Any:  # noqa: FBT001, FBT002
        self.accessed = True
        try:
            return self._session_cache
        except AttributeError:
            pass
        wanted = self.session_key is not None and not no_load
        self._session_cache = await self.aload() if wanted else {}
        return self._session_cache

    async def _aflush(self: Any) -> None:
        """See ``flush()``."""
        self.clear()
        await self.adelete()
        self._session_key = None

    MergingSession._aget_session = _aget_session  # type: ignore[method-assign] # noqa: SLF001
    MergingSession.aflush = _aflush  # type: ignore[method-assign]
    for _name in (
        "get",
        "get_expire_at_browser_close",
        "get_expiry_age",
        "get_expiry_date",
        "has_key",
        "items",
        "keys",
        "set_expiry",
        "set_test_cookie",
        "setdefault",
        "test_cookie_worked",
        "values",
    ):
        setattr(MergingSession, f"a{_name}", _twin(_name))

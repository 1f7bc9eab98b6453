"""Sessions and users for Channels: loaded without a thread, checked again while a socket is open.

Mirrors ``channels.sessions`` and ``channels.auth`` of Channels 4.3, whose classes these are
subclasses of; the cookie is written by Channels' code. Replace

    from channels.auth import AuthMiddlewareStack

by ``from django_session_rs.channels import AuthMiddlewareStack``. What differs:

- A session that the cookie names is loaded before the application runs, so that
  ``self.scope["session"]["seed"]`` works in a consumer that is asynchronous. Channels loads it at
  the first access, which there can only be one of the asynchronous methods.
- A user whose session was signed under a key in ``SECRET_KEY_FALLBACKS`` stays, as with Django.
  Channels deletes that session.
- ``revalidate`` closes a WebSocket when its session ends or its user is no longer the same.

As with Channels, the session is saved when an HTTP response starts, and never on a WebSocket: there
(and before the first bytes of a long-polling response) it is for the consumer to ``save()`` or
``await asave()``.
"""

# The types that pyright brings for Channels are narrower than what Channels passes on.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportIncompatibleMethodOverride=false, reportTypedDictNotRequiredAccess=false

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum
from importlib.util import find_spec
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import SuspiciousOperation
from django.db import InterfaceError, OperationalError, close_old_connections
from django.utils.crypto import constant_time_compare
from django.utils.functional import LazyObject

from django_session_rs.backends.conflicts import unless_moved
from django_session_rs.exceptions import is_outage
from django_session_rs.twins import call, load

if find_spec("channels") is None:
    raise ImportError(
        "django_session_rs.channels needs Channels 4.3 or newer:"
        ' pip install "django-session-rs[channels]"'
    )

from channels.auth import AuthMiddleware as ChannelsAuthMiddleware  # type: ignore[import-untyped]
from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.sessions import (  # type: ignore[import-untyped]
    CookieMiddleware,
    InstanceSessionWrapper,
)
from channels.sessions import SessionMiddleware as ChannelsSessionMiddleware

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[Any]]

__all__ = [
    "SESSION_ENDED",
    "AuthMiddleware",
    "AuthMiddlewareStack",
    "CookieMiddleware",
    "SessionMiddleware",
    "SessionMiddlewareStack",
    "get_user",
]

#: The code that a WebSocket is closed with: 4000 to 4999 are free for applications, 401 is HTTP's
#: word for it. A page that meets it reloads, or logs in; any other code means to connect again.
SESSION_ENDED = 4401

logger = logging.getLogger(__name__)


class SessionMiddleware(ChannelsSessionMiddleware):  # type: ignore[misc]
    """Adds the session to the scope, as ``channels.sessions.SessionMiddleware``.

    It stands inside a ``CookieMiddleware``. With ``revalidate`` in seconds, a WebSocket is closed
    with ``close_code`` once its session is gone from the store: it is asked for that often.
    """

    def __init__(
        self,
        inner: Application,
        *,
        revalidate: float | None = None,
        close_code: int = SESSION_ENDED,
    ) -> None:
        super().__init__(inner)
        self.revalidate = _seconds(revalidate)
        self.close_code = close_code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application with the session in its scope."""
        session = SessionInstance(scope, send)
        await session.resolve_session()
        if self.revalidate is None or scope["type"] != "websocket":
            return await self.inner(session.scope, receive, session.send)
        watch = Watch(_session_of(session.scope), self.revalidate, self.close_code)
        return await watch.run(self.inner, session.scope, receive, session.send)


class SessionInstance(InstanceSessionWrapper):  # type: ignore[misc]
    """The session of one connection; Channels' code sends the cookie."""

    async def resolve_session(self) -> None:
        """Put the session into the scope, loaded if the cookie names one."""
        if not self.activated:
            # It is that of a middleware around this one.
            return
        session = self.session_store(self.scope["cookies"].get(self.cookie_name))
        if session.session_key is not None:
            await _with_usable_connection(load, session)
            # Nobody has asked for it yet.
            session.accessed = False
        self.scope["session"] = session

    async def save_session(self) -> None:
        """Save it.

        Raises ``SuspiciousOperation`` if it has been deleted in the meantime.
        """
        session = self.scope["session"]
        try:
            await call(session, "save")
        except UpdateError as error:
            raise SuspiciousOperation(
                "The request's session was deleted before the request completed. The user may have"
                " logged out in a concurrent request, for example."
            ) from error
        # Channels goes on to ask for its expiry.
        await load(session)


class AuthMiddleware(ChannelsAuthMiddleware):  # type: ignore[misc]
    """Adds the user of the session to the scope, as ``channels.auth.AuthMiddleware``.

    It stands inside a ``SessionMiddleware``. With ``revalidate`` in seconds, a WebSocket is closed
    with ``close_code`` once its session is gone from the store, has another user, or its user has
    another password, is inactive or was deleted: session and user are asked for that often.
    """

    def __init__(
        self,
        inner: Application,
        *,
        revalidate: float | None = None,
        close_code: int = SESSION_ENDED,
    ) -> None:
        super().__init__(inner)
        self.revalidate = _seconds(revalidate)
        self.close_code = close_code

    async def resolve_scope(self, scope: Scope) -> None:
        """Look the user up."""
        scope["user"]._wrapped = await get_user(scope)  # noqa: SLF001

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application with the user in its scope."""
        if self.revalidate is None or scope["type"] != "websocket":
            return await super().__call__(scope, receive, send)
        scope = dict(scope)
        self.populate_scope(scope)
        await self.resolve_scope(scope)
        watch = Watch(_session_of(scope), self.revalidate, self.close_code, with_user=True)
        return await watch.run(self.inner, scope, receive, send)


def SessionMiddlewareStack(  # noqa: N802 - Channels' name
    inner: Application, *, revalidate: float | None = None, close_code: int = SESSION_ENDED
) -> Application:
    """Return the application with its session, see ``SessionMiddleware``."""
    middleware = SessionMiddleware(inner, revalidate=revalidate, close_code=close_code)
    return CookieMiddleware(middleware)  # type: ignore[no-any-return]


def AuthMiddlewareStack(  # noqa: N802 - Channels' name
    inner: Application, *, revalidate: float | None = None, close_code: int = SESSION_ENDED
) -> Application:
    """Return the application with its session and user, see ``AuthMiddleware``."""
    middleware = AuthMiddleware(inner, revalidate=revalidate, close_code=close_code)
    return CookieMiddleware(SessionMiddleware(middleware))  # type: ignore[no-any-return]


async def get_user(scope: Scope) -> Any:
    """Return the user of the session in the scope, or an ``AnonymousUser``.

    As ``django.contrib.auth.aget_user``: a session whose hash is no longer right is flushed, and
    one whose hash was made with a key in ``SECRET_KEY_FALLBACKS`` is accepted. For an HTTP request
    it then gets a new key and the current hash, which is saved with the response. On a WebSocket it
    stays as it is, since the browser could not be told of the new key; the next HTTP request
    changes it.

    Raises ``ValueError`` if there is no session in the scope.
    """
    # Imported late, as Channels does: the app registry must be ready.
    from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415

    session = _session_of(scope)
    await _with_usable_connection(load, session)
    user, found = await _find_user(session)
    if found is Found.INVALID:
        await call(session, "flush")
    elif found is Found.FALLBACK and scope["type"] == "http":
        with unless_moved(session):
            await call(session, "cycle_key")
            session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    return user or AnonymousUser()


class Found(Enum):
    """What the entries of a session say about its user."""

    NOBODY = "nobody"
    CURRENT = "a user, under the current key"
    FALLBACK = "a user, under a fallback key"
    INVALID = "a user who was someone else when the session began"


async def _find_user(session: Any) -> tuple[Any, Found]:
    """Look up the user of a session that is loaded; it is not changed."""
    try:
        user_id = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
        path = session[BACKEND_SESSION_KEY]
    except KeyError:
        return None, Found.NOBODY
    user = None
    if path in settings.AUTHENTICATION_BACKENDS:
        user = await _user_of(load_backend(path), user_id)
    if user is None:
        return None, Found.NOBODY
    found = _verify(user, session.get(HASH_SESSION_KEY))
    return (None if found is Found.INVALID else user), found


def _verify(user: Any, stored: str | None) -> Found:
    if not hasattr(user, "get_session_auth_hash"):
        return Found.CURRENT
    if not stored:
        return Found.INVALID
    if constant_time_compare(stored, user.get_session_auth_hash()):
        return Found.CURRENT
    if any(constant_time_compare(stored, one) for one in user.get_session_auth_fallback_hash()):
        return Found.FALLBACK
    return Found.INVALID


async def _user_of(backend: Any, user_id: Any) -> Any:
    twin = getattr(type(backend), "aget_user", None)
    if twin is not None and not twin.__module__.startswith("django."):
        return await call(backend, "get_user", user_id)
    # Django's own asynchronous method is the ORM, in a thread; this is one hop that also sees to
    # the connection.
    return await database_sync_to_async(backend.get_user)(user_id)


def _session_of(scope: Scope) -> Any:
    if "session" not in scope:
        raise ValueError(
            "Cannot find session in scope. You should wrap your consumer in SessionMiddleware."
        )
    session = scope["session"]
    # Channels' own middleware has it in a LazyObject.
    return session._wrapped if type(session) is LazyObject else session  # noqa: SLF001


def _seconds(revalidate: float | None) -> float | None:
    if revalidate is not None and revalidate <= 0:
        raise ValueError("revalidate is a number of seconds greater than zero, or None")
    return revalidate


async def _with_usable_connection(step: Callable[[Any], Awaitable[Any]], session: Any) -> None:
    """Take a step that only reads, once more if the connection of Django's thread was broken.

    Outside of Django's requests nobody else closes a connection that a database server has left.
    """
    try:
        await step(session)
    except (OperationalError, InterfaceError):
        await sync_to_async(close_old_connections)()
        await step(session)


class Watch:
    """Closes one WebSocket when the session behind it is no longer what it was.

    The session is looked up in the store at most every ``seconds``, while the socket is open. If
    the store cannot be asked, nothing is known, and it is asked again after the same time.
    """

    def __init__(
        self, session: Any, seconds: float, close_code: int, *, with_user: bool = False
    ) -> None:
        self.session = session
        self.seconds = seconds
        self.close_code = close_code
        self.with_user = with_user
        # The user that the session had when it was last seen.
        self.identity = self._identity_of(session) if with_user else None
        self.closing = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.Task[None] | None = None
        self.pending: asyncio.Future[Message] | None = None

    async def run(self, inner: Application, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application; what is started for it ends with it."""
        self.real_receive = receive
        self.real_send = send
        try:
            return await inner(scope, self.receive, self.send)
        finally:
            tasks: list[asyncio.Future[Any]]
            tasks = [task for task in (self.timer, self.pending) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, message: Message) -> None:
        """Pass a message on, unless the socket was closed here."""
        if self.closing:
            return
        if message["type"] == "websocket.close":
            self.stop()
        await self.real_send(message)
        if message["type"] == "websocket.accept" and self.timer is None:
            self.timer = asyncio.ensure_future(self.check_now_and_then())

    async def receive(self) -> Message:
        """Wait for a message, or for the end of the session: the application then disconnects."""
        if self.pending is None and not self.ended.done():
            # An application may stop waiting, and come back for the same message.
            self.pending = asyncio.ensure_future(self.real_receive())
        if self.pending is not None:
            waiting: set[asyncio.Future[Any]] = {self.pending, self.ended}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self.pending is None or self.ended.done():
            return {"type": "websocket.disconnect", "code": self.close_code}
        message, self.pending = self.pending.result(), None
        if message["type"] == "websocket.disconnect":
            self.stop()
        return message

    def stop(self) -> None:
        """Check no more: the socket is being closed."""
        if self.timer is not None:
            self.timer.cancel()

    async def check_now_and_then(self) -> None:
        """Close the socket as soon as a check fails."""
        valid = True
        while valid:
            await asyncio.sleep(self.seconds)
            valid = await self.still_valid()
        self.closing = True
        with contextlib.suppress(Exception):
            # The client may have gone at the same moment.
            await self.real_send({"type": "websocket.close", "code": self.close_code})
        # Not earlier: the application returns then, and this task ends with it.
        self.ended.set_result(None)

    async def still_valid(self) -> bool:
        """Ask the store; whatever fails says nothing about the session."""
        key = self.session.session_key
        if key is None:
            # There is none yet, or the consumer has ended it itself.
            self.identity = None
            return True
        try:
            fresh = type(self.session)(key)
            await _with_usable_connection(load, fresh)
            if self.session.session_key != key:
                # The consumer has moved its session on while it was looked up.
                return True
            return await self.has_not_changed(fresh)
        except Exception as error:  # noqa: BLE001 - stores and backends raise what they like
            # Not the text of the error, which may hold the session key.
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            level = logging.WARNING if is_outage(error) else logging.ERROR
            logger.log(level, "A WebSocket's session could not be checked: %s", name)
            return True

    async def has_not_changed(self, fresh: Any) -> bool:
        """Compare what is stored now with what was there before."""
        # The engine of signed cookies has no store; it takes an expired cookie for a new session.
        if fresh.session_key is None or fresh.modified:
            return False
        if not self.with_user:
            return True
        before, self.identity = self.identity, self._identity_of(fresh)
        if self.identity is None:
            return before is None
        # A login by the consumer itself, saved in the meantime, is no change.
        if before not in {None, self.identity}:
            return False
        user, _ = await _find_user(fresh)
        return user is not None

    @staticmethod
    def _identity_of(session: Any) -> tuple[Any, Any] | None:
        accessed = session.accessed
        try:
            return session[SESSION_KEY], session[BACKEND_SESSION_KEY]
        except KeyError:
            return None
        finally:
            session.accessed = accessed

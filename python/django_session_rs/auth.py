"""Django's authentication middleware, which stays on the event loop and asks for users faster.

``django.contrib.auth.middleware.AuthenticationMiddleware`` only puts ``request.user`` and
``request.auser`` there, which find out later who it is. Under ASGI Django runs that in a thread all
the same, which costs more than a session that is loaded without one.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import auth
from django.contrib.auth import middleware
from django.contrib.auth.middleware import AuthenticationMiddleware as DjangoMiddleware
from django.utils.crypto import constant_time_compare
from django.utils.functional import SimpleLazyObject

from django_session_rs.backends.conflicts import (
    MergingSession,
    SessionEndedError,
    unless_moved,
)
from django_session_rs.exceptions import StoreUnavailableError
from django_session_rs.row_query import row_query_for
from django_session_rs.twins import call, has_twin
from django_session_rs.user_query import query_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["AuthenticationMiddleware", "LoginRequiredMiddleware", "aget_user", "get_user"]

# An attribute of a request: the user that is looked up when it is asked for.
LAZY = "_django_session_rs_user"
# And who was found for a middleware while nobody had awaited the user, with the session's key.
FOUND = "_django_session_rs_found"


def get_user(request: HttpRequest) -> AbstractBaseUser | AnonymousUser:
    """Return what ``django.contrib.auth.get_user`` does, and in the same number of queries.

    The query for the user is compiled once, not for each request, where ``get_user`` of the backend
    is ``ModelBackend``'s and the manager of the user model is a plain one. Everything but a session
    whose user is let in goes on to Django's function.

    A session whose hash is right under a fallback key gets another key. If another request has just
    done that, it is left alone, where the engines of this package would say that it has ended.
    """
    user = _user_let_in(request)
    if user is not None:
        return user
    with _renewing(request.session):
        return auth.get_user(request)


def _user_let_in(request: HttpRequest) -> AbstractBaseUser | None:
    # Its module needs models, which cannot be imported before the apps are ready.
    from django.contrib.auth.backends import ModelBackend  # noqa: PLC0415

    session = request.session
    if auth.SESSION_KEY not in session:
        return None
    path: Any = session.get(auth.BACKEND_SESSION_KEY)
    if path not in settings.AUTHENTICATION_BACKENDS:
        return None
    backend: Any = auth.load_backend(path)
    # A function that is set on the backend itself has no __func__ of the class.
    if getattr(backend.get_user, "__func__", None) is not ModelBackend.get_user:
        return None
    model = auth.get_user_model()
    using = model._default_manager.db
    pk = model._meta.pk.to_python(session[auth.SESSION_KEY])
    query = None if pk is None else query_for(model, using, pk)
    user: Any = query.find(pk, using) if query else None
    return _let_in(backend, user, session.get(auth.HASH_SESSION_KEY))


async def aget_user(request: HttpRequest) -> AbstractBaseUser | AnonymousUser:
    """Return what ``django.contrib.auth.aget_user`` does, and in the same number of queries.

    With the native engine the user is awaited as its session is, over connections of the same kind,
    where Django's function takes a thread and a connection of its own. That is so since Django 5.2,
    in PostgreSQL and MySQL, for the users whose query is compiled once (``get_user()``), and not in
    a test environment, whose transactions are those of Django's connections. Everything else goes
    on to Django's function, and so does a session whose user is not let in.
    """
    user = await _auser_let_in(request)
    if user is not None:
        return user
    with _renewing(request.session):
        return await auth.aget_user(request)


@contextmanager
def _renewing(session: Any) -> Iterator[None]:
    """Leave a session alone that Django would renew, if another request has done so meanwhile."""
    if not isinstance(session, MergingSession):
        yield
        return
    store: Any = type(session)
    failed = None

    def cycle_key() -> None:
        nonlocal failed
        try:
            store.cycle_key(session)
        except SessionEndedError as error:
            failed = error

    async def acycle_key() -> None:
        nonlocal failed
        try:
            await store.acycle_key(session)
        except SessionEndedError as error:
            failed = error

    with unless_moved(session):
        vars(session).update(cycle_key=cycle_key, acycle_key=acycle_key)
        try:
            yield
        finally:
            del session.cycle_key, session.acycle_key
        # Django has gone on with the user and put the new hash into what is undone now.
        if failed is not None:
            raise failed


async def _auser_let_in(request: HttpRequest) -> AbstractBaseUser | None:
    try:
        return await _aask_for_user(request)
    except StoreUnavailableError as error:
        # Where it passes no view, this tells the session middleware of it.
        request.session.outage = error  # type: ignore[attr-defined]
        raise


async def _aask_for_user(request: HttpRequest) -> AbstractBaseUser | None:
    from django.contrib.auth.backends import ModelBackend  # noqa: PLC0415

    session: Any = request.session
    rows_of = getattr(session, "_rows_of", None)
    if rows_of is None or not hasattr(ModelBackend, "aget_user"):
        return None
    path: Any = await session.aget(auth.BACKEND_SESSION_KEY)
    key: Any = await session.aget(auth.SESSION_KEY)
    if key is None or path not in settings.AUTHENTICATION_BACKENDS:
        return None
    backend: Any = auth.load_backend(path)
    if getattr(backend.aget_user, "__func__", None) is not ModelBackend.aget_user:
        return None
    model = auth.get_user_model()
    using = model._default_manager.db
    pk = model._meta.pk.to_python(key)
    store = rows_of(using)
    if pk is None or store is None:
        return None
    query = await row_query_for(model, using, pk)
    user: Any = await query.afind(store, pk, using) if query else None
    return _let_in(backend, user, await session.aget(auth.HASH_SESSION_KEY))


def _let_in(backend: Any, user: Any, session_hash: str | None) -> AbstractBaseUser | None:
    """Return the user if a session with this hash lets it in."""
    if user is None or not backend.user_can_authenticate(user):
        return None
    found: AbstractBaseUser = user
    if not hasattr(found, "get_session_auth_hash"):
        return found
    is_verified = session_hash and constant_time_compare(
        session_hash, found.get_session_auth_hash()
    )
    return found if is_verified else None


async def _acached_user(request: Any) -> AbstractBaseUser | AnonymousUser:
    # As of Django.
    if not hasattr(request, "_acached_user"):
        found, session_key = getattr(request, FOUND, (None, None))
        # Whoever logs in or out replaces `request.user`, or gives the session another key.
        is_of_before = (
            request.user is not getattr(request, LAZY, None)
            or request.session.session_key != session_key
        )
        if found is None or is_of_before:
            found = await aget_user(request)
        request._acached_user = found
    user: AbstractBaseUser | AnonymousUser = request._acached_user
    return user


def _cached_user(request: Any) -> AbstractBaseUser | AnonymousUser:
    # The attribute is Django's, which reads it too.
    if not hasattr(request, "_cached_user"):
        request._cached_user = get_user(request)
    user: AbstractBaseUser | AnonymousUser = request._cached_user
    return user


class AuthenticationMiddleware(DjangoMiddleware):
    """Django's authentication middleware, synchronous and asynchronous.

    Who the user is takes a query when a view asks for it, as with Django's. A subclass that
    overrides ``process_request`` runs in Django's thread, unless it overrides ``aprocess_request``
    too.
    """

    sync_capable = True
    async_capable = True

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:  # type: ignore[override]
        """Put ``request.user`` and ``request.auser`` there; nobody is looked up yet."""
        response: HttpResponseBase | None = super().process_request(request)
        lazy: Any = SimpleLazyObject(lambda: _cached_user(request))
        request.user = lazy
        setattr(request, LAZY, lazy)
        if hasattr(request, "auser"):
            request.auser = partial(_acached_user, request)
        return response

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase | None = await call(self, "process_request", request)
        answer: Any = response or await self.get_response(request)  # type: ignore[misc]
        if hasattr(self, "process_response"):
            # Of a subclass.
            answer = await call(self, "process_response", request, answer)
        return answer  # type: ignore[no-any-return]

    async def aprocess_request(self, request: HttpRequest) -> HttpResponseBase | None:
        """See ``process_request()``."""
        return AuthenticationMiddleware.process_request(self, request)


if hasattr(middleware, "LoginRequiredMiddleware"):

    class LoginRequiredMiddleware(middleware.LoginRequiredMiddleware):
        """Django's middleware that lets nobody in who is not logged in, since Django 5.1.

        Under ASGI it awaits the user, where Django's takes a thread for ``request.user``. A
        subclass that overrides ``process_view`` runs in Django's thread, unless it overrides
        ``aprocess_view`` too, and so does what it says about those who are not let in.
        """

        def __init__(self, get_response: Any) -> None:
            super().__init__(get_response)
            base, own = middleware.LoginRequiredMiddleware, type(self)
            self._refuses_as_django = all(
                getattr(own, name) is getattr(base, name)
                for name in ("get_login_url", "get_redirect_field_name", "handle_no_permission")
            )
            if self.async_mode and has_twin(type(self), "process_view"):
                # Django looks here for it.
                self.process_view: Any = self.aprocess_view

        async def aprocess_view(
            self, request: Any, view_func: Any, _view_args: Any, _view_kwargs: Any
        ) -> HttpResponseBase | None:
            """See ``process_view()``."""
            if await _is_authenticated(request) or not getattr(view_func, "login_required", True):
                return None
            refuse = self.handle_no_permission
            if self._refuses_as_django:
                return refuse(request, view_func)
            found: HttpResponseBase = await sync_to_async(refuse)(request, view_func)
            return found


async def _is_authenticated(request: Any) -> bool:
    """Tell whether ``request.user`` is somebody, without a thread if it is the one put there."""
    user: Any = request.user
    if user is not getattr(request, LAZY, None):
        # Another middleware has logged in or out, or knows users of its own.
        return bool(await sync_to_async(lambda: user.is_authenticated)())
    if hasattr(request, "_cached_user"):
        return bool(request._cached_user.is_authenticated)
    # What was awaited before may have logged out since; `request.user` would ask anew, too.
    found = await aget_user(request)
    setattr(request, FOUND, (found, request.session.session_key))
    return bool(found.is_authenticated)

"""The session middleware: Django's, which stays on the event loop and knows an outage.

``SessionMiddleware`` is a subclass of ``django.contrib.sessions.middleware.SessionMiddleware`` of
Django 4.2 to 6.1. Cookies and ``Vary`` are decided by the code of the Django that is installed, so
they are the same to the byte; tests/python/test_middleware.py holds it against what six releases
answered. Two things differ:

Under ASGI, Django runs both halves of its middleware in a thread. This one awaits the session's
asynchronous methods instead. Where there are none (an engine without them, a subclass that has
replaced only the synchronous method), the one call runs in Django's thread.

When the store of the sessions cannot be asked, the answer is 503 (``SESSION_OUTAGE_STATUS``) with
``Retry-After``, and the cookie stays what it is: nobody is logged out because a server restarts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.utils.log import log_response
from django.views import debug

from django_session_rs.exceptions import StoreUnavailableError, is_outage
from django_session_rs.twins import call

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["SessionMiddleware"]


class SessionMiddleware(DjangoSessionMiddleware):
    """Django's session middleware, synchronous and asynchronous.

    ``process_request`` and ``process_response`` can be overridden as Django's; under ASGI an
    override of one of them runs in Django's thread, unless the same class overrides
    ``aprocess_request`` or ``aprocess_response`` too.
    """

    sync_capable = True
    async_capable = True

    #: Seconds that ``Retry-After`` asks a client to wait in an outage.
    retry_after: int = 5

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        # A mistake in it is told when the site starts, not in the outage.
        _status()

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        response = await call(self, "process_request", request)
        response = response or await self.get_response(request)  # type: ignore[misc]
        return await call(self, "process_response", request, response)  # type: ignore[no-any-return]

    async def aprocess_request(self, request: HttpRequest) -> HttpResponseBase | None:
        """See ``process_request()``: a session that loads nothing yet."""
        return super().process_request(request)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponse:
        """Save the session if it changed, and set or delete its cookie.

        Raises ``SessionInterrupted`` (which Django answers with 400) if another request has
        deleted the session.
        """
        if getattr(response, MARK, False):
            return response  # type: ignore[return-value]
        met = _outage_behind(request, response)
        if met is not None:
            return self._answer(request, met, response)
        try:
            return super().process_response(request, response)  # type: ignore[arg-type]
        except Exception as error:
            outage = _outage_of(error)
            if outage is None:
                raise
        return self._answer(request, outage, response)

    async def aprocess_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponse:
        """See ``process_response()``."""
        if getattr(response, MARK, False):
            return response  # type: ignore[return-value]
        met = _outage_behind(request, response)
        if met is not None:
            return await self._aanswer(request, met, response)
        try:
            settled = await _settle(request, response)
            return super().process_response(settled, response)  # type: ignore[arg-type]
        except Exception as error:
            outage = _outage_of(error)
            if outage is None:
                raise
        return await self._aanswer(request, outage, response)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Answer an outage that a view met when it used the session."""
        met = isinstance(exception, StoreUnavailableError) or exception is _met(request)
        if not met or _status() is None:
            return None
        return self._answer(request, exception)

    def outage_response(self, request: HttpRequest, status: int) -> HttpResponse:  # noqa: ARG002
        """Return what a client gets in an outage; ``Retry-After`` is added if it is not there.

        Override it for a page of your own. It must not use the session, and under ASGI it runs on
        the event loop.
        """
        response = HttpResponse(status=status)
        response.content = PAGE.format(response.reason_phrase)
        return response

    def _answer(
        self,
        request: HttpRequest,
        outage: BaseException,
        response: HttpResponseBase | None = None,
    ) -> HttpResponse:
        answer: Any
        if settings.DEBUG:
            # As for Django's own errors.
            answer = debug.technical_500_response(
                request,
                type(outage),
                outage,
                outage.__traceback__,
                status_code=_status() or 503,
            )
        else:
            answer = self.outage_response(request, _status() or 503)
        if not answer.has_header("Retry-After"):
            answer.headers["Retry-After"] = str(self.retry_after)
        setattr(answer, MARK, True)
        if response is not None:
            # What the response was going to close is closed with the one in its place.
            answer._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined] # noqa: SLF001
            if response.status_code == 500:
                # Django has told of the exception already.
                answer._has_been_logged = getattr(response, "_has_been_logged", False)  # noqa: SLF001
        log_response(
            "%s: %s (%s)",
            answer.reason_phrase,
            request.path,
            _describe(outage),
            response=answer,
            request=request,
        )
        return answer  # type: ignore[no-any-return]

    async def _aanswer(
        self, request: HttpRequest, outage: BaseException, response: HttpResponseBase
    ) -> HttpResponse:
        if settings.DEBUG:
            # The page with the traceback reads files, and shows what it finds in the frames.
            return await sync_to_async(self._answer)(request, outage, response)
        return self._answer(request, outage, response)


PAGE = "<!doctype html>\n<html lang=en>\n<title>{0}</title>\n<h1>{0}</h1>\n"

# An attribute of an answer to an outage, which no cookie or header is added to.
MARK = "_django_session_rs_outage"


def _status() -> int | None:
    status: Any = getattr(settings, "SESSION_OUTAGE_STATUS", 503)
    if status is None or (isinstance(status, int) and 100 <= status <= 599):
        return status
    raise ImproperlyConfigured(
        "SESSION_OUTAGE_STATUS must be a status of HTTP such as 503, or None."
    )


def _met(request: HttpRequest) -> BaseException | None:
    """Return the outage that the session met, as our engines note it."""
    outage: BaseException | None = getattr(getattr(request, "session", None), "outage", None)
    return outage


def _outage_behind(request: HttpRequest, response: HttpResponseBase) -> BaseException | None:
    """Return the outage that this response tells of.

    What a view does not catch, Django has turned into a response of status 500 before a
    middleware sees it; only the session knows then.
    """
    if _status() is None or response.status_code != 500 or response.streaming:
        return None
    return _met(request)


def _outage_of(error: BaseException) -> BaseException | None:
    """Return the outage behind an exception out of Django's middleware, if it is to be answered."""
    if _status() is None:
        return None
    if is_outage(error):
        return error
    # Django's `db` engine takes every failure of an update for a deleted session.
    if isinstance(error, SessionInterrupted):
        cause = error.__context__
        while isinstance(cause, UpdateError):
            cause = cause.__cause__ or cause.__context__
        return cause if is_outage(cause) else None
    return None


def _describe(error: BaseException) -> str:
    """Name the error and what caused it, without their texts: a driver's may hold a session key."""
    names: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(names) < 4:
        name = f"{type(cause).__module__}.{type(cause).__qualname__}"
        code = [
            getattr(cause, "sqlstate", None),
            getattr(cause, "sqlite_errorname", None),
            getattr(cause, "reason", None) if isinstance(cause, StoreUnavailableError) else None,
            cause.args[0] if cause.args and isinstance(cause.args[0], int) else None,
        ]
        names.append(" ".join([name, *(str(one) for one in code if one is not None)]))
        cause = cause.__cause__
    return " from ".join(names)


# Django's middleware decides about the cookie in one go, between its questions to the session and
# `save()`. Under ASGI the questions and `save()` are awaited first, and it decides on the answers.


class _Settled:
    """A session whose answers are there, in front of the one that gave them."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.accessed: bool = session.accessed
        self.modified: bool = session.modified
        self.empty: bool = session.is_empty()
        self.expire_at_browser_close = False
        self.expiry_age: Any = None
        self.interruption: UpdateError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def is_empty(self) -> bool:
        return self.empty

    def get_expire_at_browser_close(self) -> bool:
        return self.expire_at_browser_close

    def get_expiry_age(self) -> Any:
        return self.expiry_age

    def save(self) -> None:
        if self.interruption is not None:
            raise self.interruption


class _SettledRequest:
    """The request, with such a session."""

    def __init__(self, request: HttpRequest, session: _Settled) -> None:
        self._request = request
        self.session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


async def _settle(request: HttpRequest, response: HttpResponseBase) -> Any:
    try:
        session = request.session
        settled = _Settled(session)
    except AttributeError:
        # There is no session any more; Django's rule for that is the same.
        return request
    if settled.empty or not (settled.modified or settings.SESSION_SAVE_EVERY_REQUEST):
        # Nothing has to be waited for.
        return request
    settled.expire_at_browser_close = await call(session, "get_expire_at_browser_close")
    if not settled.expire_at_browser_close:
        settled.expiry_age = await call(session, "get_expiry_age")
    if response.status_code < 500:
        try:
            await call(session, "save")
        except UpdateError as error:
            settled.interruption = error
    return _SettledRequest(request, settled)

"""Django's authentication middleware, which stays on the event loop.

``django.contrib.auth.middleware.AuthenticationMiddleware`` only puts ``request.user`` and
``request.auser`` there, which find out later who it is. Under ASGI Django runs that in a thread all
the same, which costs more than a session that is loaded without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.middleware import AuthenticationMiddleware as DjangoMiddleware

from django_session_rs.twins import call

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["AuthenticationMiddleware"]


class AuthenticationMiddleware(DjangoMiddleware):
    """Django's authentication middleware, synchronous and asynchronous.

    Who the user is takes a query when a view asks for it, as with Django's. A subclass that
    overrides ``process_request`` runs in Django's thread, unless it overrides ``aprocess_request``
    too.
    """

    sync_capable = True
    async_capable = True

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase | None = await call(self, "process_request", request)
        return response or await self.get_response(request)  # type: ignore[misc]

    async def aprocess_request(self, request: HttpRequest) -> HttpResponseBase | None:
        """See ``process_request()``: nobody is looked up yet."""
        response: HttpResponseBase | None = super().process_request(request)
        return response

"""The signed_cookies engine: Django's cookies, with the codec in Rust.

Mirrors ``django.contrib.sessions.backends.signed_cookies`` of Django 4.2 to 6.1 and is a subclass
of it. There is nothing on the server, so of two requests at a time the response that arrives last
wins, with everything it has. A serializer of the project's own does its work as in Django.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.signed_cookies import SessionStore as DjangoSessionStore
from django.core.signing import JSONSerializer

from django_session_rs.backends.conflicts import MergingSession
from django_session_rs.backends.signed_text import codec_of

__all__ = ["SessionStore"]

# What Django signs these cookies with, whatever the class is called.
SALT = "django.contrib.sessions.backends.signed_cookies"


class SessionStore(MergingSession, DjangoSessionStore):
    """A session in its cookie, as ``django.contrib.sessions.backends.signed_cookies.SessionStore``.

    Subclass it as Django's. No method waits for anything, so the asynchronous ones need no thread.
    """

    #: The largest payload in bytes that is inflated; Django has no limit.
    max_size: int = 64 << 20

    def load(self) -> Any:
        """Return the session in the key; ``{}`` and a new cookie if it cannot be read."""
        if self.serializer is not JSONSerializer:
            return super().load()
        codec = codec_of(SALT, self.max_size, "small")
        try:
            return codec.inspect(str(self.session_key), max_age=self.get_session_cookie_age()).data
        except Exception:  # noqa: BLE001 - whatever a client sends; Django's rule
            self.create()
        return {}

    def _get_session_key(self) -> str:
        if self.serializer is not JSONSerializer:
            return str(super()._get_session_key())
        # Every byte of a cookie counts.
        return codec_of(SALT, self.max_size, "small").encode(self._get_session())

    async def aload(self) -> Any:
        """See ``load()``."""
        return self.load()

    async def aexists(self, session_key: str | None = None) -> bool:
        """See ``exists()``."""
        return bool(self.exists(session_key))

    async def acreate(self) -> None:
        """See ``create()``."""
        self.create()

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See ``save()``."""
        # Saving looks at the session, which somebody may load in a way of their own.
        await self._aget_session()
        self.save(must_create)

    async def adelete(self, session_key: str | None = None) -> None:
        """See ``delete()``."""
        self.delete(session_key)

    async def acycle_key(self) -> None:
        """See ``cycle_key()``."""
        await self._aget_session()
        self.cycle_key()

    @classmethod
    async def aclear_expired(cls) -> None:
        """See ``clear_expired()``: there is nothing to be cleared."""

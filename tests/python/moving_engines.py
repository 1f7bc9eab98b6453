"""Engines of this run's own between which sessions move: two caches of one kind, and a rude one."""

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.core.cache import caches

from django_session_rs.backends import cache


def of_cache(alias):
    """Return a module's worth of an engine on one of ``CACHES``."""

    class SessionStore(cache.SessionStore):
        def __init__(self, session_key=None):
            super().__init__(session_key)
            self._cache = caches[alias]
            self._entries = cache.entries_of(self._cache)

    return SessionStore


class Rude(SessionBase):
    """An engine of a project's own, as Django's documentation has it: it compares nothing."""

    stored = {}  # noqa: RUF012

    def load(self):
        if self.session_key not in self.stored:
            self._session_key = None
            return {}
        return self.decode(self.stored[self.session_key])

    def exists(self, session_key):
        return session_key in self.stored

    def create(self):
        self._session_key = self._get_new_session_key()
        self.save(must_create=True)

    def save(self, must_create=False):
        if must_create and self.session_key in self.stored:
            raise CreateError
        if not must_create and self.session_key not in self.stored:
            raise UpdateError
        self.stored[self.session_key] = self.encode(self._get_session(no_load=must_create))

    def delete(self, session_key=None):
        self.stored.pop(session_key or self.session_key, None)

    @classmethod
    def clear_expired(cls):
        pass

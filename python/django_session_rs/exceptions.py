"""What sessions and their stores can raise, beside Django's own exceptions."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError

__all__ = [
    "CorruptSessionError",
    "DecodeError",
    "PayloadTooLargeError",
    "SessionConflictError",
    "StoreError",
    "StoreUnavailableError",
    "is_outage",
]


class DecodeError(ValueError):
    """The signature is right, but what was signed is not what Django writes.

    ``reason`` is a word for programs: ``"base64"``, ``"json"``, ``"not_an_object"``, ``"pickle"``,
    ``"serializer"`` for a session of a serializer that is not accepted, ``"timestamp"``,
    ``"too_large"`` or ``"zlib"``. Neither it nor the message holds any part of the session.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class PayloadTooLargeError(DecodeError):
    """The payload inflates to more than ``max_size``, or a pickle is of too many objects."""


class StoreError(Exception):
    """A store of sessions could not do what it was asked.

    No message holds a session key or a part of a session.
    """


class CorruptSessionError(StoreError):
    """What is stored is not a session, or one of another serializer than the engine reads."""


class SessionConflictError(StoreError):
    """Another request has changed the session since it was loaded; nothing was written.

    With ``SESSION_ON_CONFLICT = "error"``, or if others were faster a thousand times.
    """


class StoreUnavailableError(StoreError):
    """The store cannot be asked: nothing is known about the session, it may well exist.

    ``reason`` is a word for programs: ``"unreachable"``, ``"timed_out"`` (what was to be written
    may have been written or not), ``"busy"`` (nothing was changed, another try may help) or
    ``"refused"`` (it will not change by itself: no rights, read-only, disk full). The error of the
    driver is the ``__cause__``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return MESSAGES.get(self.reason, MESSAGES["refused"])


MESSAGES = {
    "busy": "the session store is busy",
    "refused": "the session store failed",
    "timed_out": "the session store did not answer in time",
    "unreachable": "the session store cannot be reached",
}


def is_outage(error: BaseException | None) -> bool:
    """Whether the store itself failed, so that nothing is known about the session."""
    return isinstance(error, (StoreUnavailableError, OperationalError, InterfaceError))

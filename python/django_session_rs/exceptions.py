"""What reading session data can raise, beside Django's own ``BadSignature``."""

from __future__ import annotations

__all__ = ["DecodeError", "PayloadTooLargeError"]


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

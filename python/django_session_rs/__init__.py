"""Django sessions read and written by Rust.

``SESSION_ENGINE = "django_session_rs.backends.db"`` is the database engine;
:class:`SessionCodec` is what it stands on, for code that has no Django settings at hand.
"""

from __future__ import annotations

from django_session_rs._native import DecodedSession, Diagnosis, SessionCodec, __version__
from django_session_rs.exceptions import (
    CorruptSessionError,
    DecodeError,
    PayloadTooLargeError,
    SessionConflictError,
    StoreError,
    StoreUnavailableError,
)

__all__ = [
    "CorruptSessionError",
    "DecodeError",
    "DecodedSession",
    "Diagnosis",
    "PayloadTooLargeError",
    "SessionCodec",
    "SessionConflictError",
    "StoreError",
    "StoreUnavailableError",
    "__version__",
]

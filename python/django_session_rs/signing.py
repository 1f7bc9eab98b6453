"""``django.core.signing``, and what Django builds on it, by Rust and without Django settings.

Names, arguments and exceptions are Django's. Two things differ: where a key is given, fallback keys
are those that are given with it and never those of the settings; and a subclass that overrides
``signature`` or adds ``timestamp`` has no effect on ``sign``. ``SIGNING_BACKEND`` may name
:class:`TimestampSigner`.

What an older Django wrote, or a weaker rule allowed, is read only where the caller lists it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django.core.signing import BadSignature, JSONSerializer, SignatureExpired

from django_session_rs._native import (
    AuthHashMatch,
    CookieSigner,
    PasswordResetTokenGenerator,
    Signer,
    TimestampSigner,
    UnsignedValue,
    dumps,
    get_cookie_signer,
    loads,
    session_auth_hash,
    verify_session_auth_hash,
)

if TYPE_CHECKING:
    import datetime

__all__ = [
    "AuthHashMatch",
    "BadSignature",
    "CookieSigner",
    "JSONSerializer",
    "PasswordResetTokenGenerator",
    "PasswordResetUser",
    "SignatureExpired",
    "Signer",
    "TimestampSigner",
    "UnsignedValue",
    "dumps",
    "get_cookie_signer",
    "loads",
    "session_auth_hash",
    "verify_session_auth_hash",
]


class PasswordResetUser(NamedTuple):
    """What of a user is in a token, for code that has a row and no model.

    ``last_login`` is as Django holds it: in UTC with ``USE_TZ``, local time without.
    """

    pk: object
    password: str
    last_login: datetime.datetime | None = None
    email: str | None = ""

"""New session keys, drawn without asking whether they are free."""

from __future__ import annotations

import os

from django.contrib.sessions.backends.base import VALID_KEY_CHARS

__all__ = ["new_session_key"]

# Bytes from 252 on are dropped, since 252 is the largest multiple of 36 in a byte; the rest map
# evenly to the characters of a session key.
KEY_LENGTH = 32
KEY_TABLE = bytes(ord(VALID_KEY_CHARS[byte % len(VALID_KEY_CHARS)]) for byte in range(256))
KEY_DROPPED = bytes(range(256 - 256 % len(VALID_KEY_CHARS), 256))


def new_session_key() -> str:
    """Return 32 random characters of ``a-z0-9``, each drawn evenly from a secure source."""
    key = b""
    while len(key) < KEY_LENGTH:
        key += os.urandom(KEY_LENGTH + 16).translate(KEY_TABLE, KEY_DROPPED)
    return key[:KEY_LENGTH].decode("ascii")

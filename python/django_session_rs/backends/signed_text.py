"""Sessions as signed text, which is what rows and files hold; the codec is in Rust."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import BadSignature, JSONSerializer
from django.views.decorators.debug import sensitive_variables

from django_session_rs._native import SessionCodec
from django_session_rs.backends.conflicts import READ_SETTINGS, MergingSession, setting
from django_session_rs.exceptions import PayloadTooLargeError

__all__ = ["SignedTextSession", "codec_of"]


class SignedTextSession(MergingSession):
    """A session that is stored as what ``encode`` returns."""

    #: The largest payload in bytes that is inflated; Django has no limit.
    max_size: int = 64 << 20

    def encode(self, session_dict: Any) -> str:
        """Return the session as signed text, byte for byte what Django reads back.

        Raises what the serializer raises for a value it cannot write, and ``ImproperlyConfigured``
        for an unknown ``SESSION_COMPRESSION``.
        """
        codec = codec_of(self.key_salt, self.max_size, _compression())
        if self.serializer is JSONSerializer:
            return codec.encode(session_dict)
        return codec.encode_bytes(self.serializer().dumps(session_dict))

    def decode(self, session_data: str) -> Any:  # type: ignore[override]
        """Return what was encoded, or ``{}`` if it cannot be read.

        A wrong signature is logged as Django logs it; bad content under a right signature is not.
        Raises ``PayloadTooLargeError`` for a session that only ``max_size`` keeps from being read.
        """
        try:
            codec = codec_of(self.key_salt, self.max_size, "fast")
            if self.serializer is JSONSerializer:
                return codec.decode_any(session_data)
            return self.serializer().loads(codec.decode_bytes(session_data))
        except BadSignature:
            logger = logging.getLogger("django.security.SuspiciousSession")
            logger.warning("Session data corrupted")
        except PayloadTooLargeError:
            # Django could read it. As an empty session the next save would overwrite it.
            raise
        except Exception:  # noqa: BLE001, S110 - a serializer may raise anything; Django's rule
            pass
        return {}

    def _plain(self, data: Any) -> Any:
        serializer = self.serializer()
        return serializer.loads(serializer.dumps(data))

    def _decode_stored(self, stored: str) -> Any:
        """Return a session as it is stored by now, or ``None`` if nobody can read it."""
        data = self.decode(stored)
        if not data and type(self).decode is SignedTextSession.decode:
            codec = codec_of(self.key_salt, self.max_size, "fast")
            try:
                data = self.serializer().loads(codec.decode_bytes(stored))
            except Exception:  # noqa: BLE001 - as in `decode`
                return None
        return data if isinstance(data, dict) else None


# Codecs. Deriving a key costs as much as a whole decode, so each is made once per process.

_codecs: dict[tuple[Any, ...], SessionCodec] = {}
_CODECS_KEPT = 64


def _compression() -> str:
    value = setting("SESSION_COMPRESSION", "fast")
    if value == "fast":
        return "fast"
    if value == "small":
        return "small"
    raise ImproperlyConfigured("SESSION_COMPRESSION must be 'fast' or 'small'.")


def codec_of(salt: str, max_size: int, compression: str) -> SessionCodec:
    """Return the codec of the site's keys.

    The settings are read each time: ``override_settings`` and rotated keys count at once. No
    variable holds a key, since error reports show variables.
    """
    try:
        found = _codecs.get(
            (
                READ_SETTINGS["SECRET_KEY"],
                tuple(READ_SETTINGS["SECRET_KEY_FALLBACKS"]),
                salt,
                max_size,
                compression,
            )
        )
    except KeyError:
        # Not read since they changed. (A failed look-up in `_codecs` would name the keys.)
        found = None
    return found or _new_codec(salt, max_size, compression)


@sensitive_variables()
def _new_codec(salt: str, max_size: int, compression: str) -> SessionCodec:
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    wanted = (keys[0], keys[1:], salt, max_size, compression)
    if found := _codecs.get(wanted):
        return found
    codec = SessionCodec(
        keys[0],
        fallbacks=keys[1:],
        salt=salt,
        compression=compression,  # type: ignore[arg-type]
        max_size=max_size,
    )
    if len(_codecs) >= _CODECS_KEPT:
        _codecs.clear()
    _codecs[wanted] = codec
    return codec

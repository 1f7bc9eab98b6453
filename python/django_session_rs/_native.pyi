# ruff: noqa: PYI021 - the extension has its documentation here
from collections.abc import Sequence
from typing import Any, Literal, final

__all__ = ["DecodedSession", "SessionCodec", "__version__"]

__version__: str

@final
class SessionCodec:
    """Turns session data into the signed text of a ``session_data`` column, and back.

    The same as ``SessionBase.encode`` and ``decode`` of Django 4.0 and later, without a Django
    project: ``secret_key`` is ``SECRET_KEY`` and ``fallbacks`` is ``SECRET_KEY_FALLBACKS`` (4.1);
    an empty fallback key is skipped. ``compression`` is ``"fast"``, with texts at most 1.3 times as
    long as Django's, or ``"small"``, as short as Django's. A payload that inflates to more than
    ``max_size`` bytes is refused; Django has no such limit.

    Raises ``ValueError`` for an empty secret key or an unknown compression.
    """

    def __new__(
        cls,
        secret_key: str | bytes,
        *,
        fallbacks: Sequence[str | bytes] = ...,
        salt: str = "django.contrib.sessions.SessionStore",
        compression: Literal["fast", "small"] = "fast",
        max_size: int = 67108864,
    ) -> SessionCodec: ...
    @property
    def salt(self) -> str:
        """The salt: ``django.contrib.sessions.`` and the qualified name of the store's class."""

    def encode(self, data: Any, *, now: float | None = None) -> str:
        """Return ``payload:timestamp:signature``, with the JSON bytes that Django writes.

        ``now`` is Unix time, ``time.time()`` if left out.

        Raises what ``json.dumps`` raises for a value it cannot write: ``TypeError``,
        ``ValueError`` or ``RecursionError``.
        """

    def encode_bytes(self, payload: bytes, *, now: float | None = None) -> str:
        """As ``encode``, of bytes that a ``SESSION_SERIALIZER`` of the project's own wrote."""

    def decode(self, value: str) -> dict[str, Any]:
        """Return the session, once the signature has been checked. Its age is not limited.

        Raises ``django.core.signing.BadSignature`` if no key signed this text, and
        ``DecodeError`` or ``PayloadTooLargeError`` if what was signed is not a session.
        """

    def decode_any(self, value: str) -> Any:
        """As ``decode``, but JSON that is not an object is returned as it is.

        Django's ``SessionStore.decode`` does so.
        """

    def decode_bytes(self, value: str) -> bytes:
        """As ``decode``, but return the serialized bytes."""

    def inspect(self, value: str) -> DecodedSession:
        """As ``decode_any``, and tell which key signed the text, and when."""

@final
class DecodedSession:
    """What ``SessionCodec.inspect`` found."""

    @property
    def data(self) -> Any:
        """The session."""

    @property
    def fallback(self) -> int | None:
        """Index in ``fallbacks`` of the key that matched; ``None`` for the secret key itself."""

    @property
    def signed_at(self) -> int:
        """Unix time at which the text was signed, so usually when the session was last saved."""

    @property
    def compressed(self) -> bool:
        """Whether the payload was compressed."""

# ruff: noqa: PYI021 - the extension has its documentation here
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, final

from typing_extensions import Buffer

__all__ = ["DecodedSession", "SessionCodec", "__version__", "dumps", "loads_safe"]

__version__: str

_Format: TypeAlias = Literal["signed", "signed_sha1", "legacy", "antique"]
_Serializer: TypeAlias = Literal["json", "pickle"]

@final
class SessionCodec:
    """Turns session data into the signed text of a ``session_data`` column, and back.

    The same as ``SessionBase.encode`` and ``decode`` of Django 4.0 and later, without a Django
    project: ``secret_key`` is ``SECRET_KEY`` and ``fallbacks`` is ``SECRET_KEY_FALLBACKS`` (4.1);
    an empty fallback key is skipped. ``compression`` is ``"fast"``, with texts at most 1.3 times as
    long as Django's, or ``"small"``, as short as Django's. A payload that inflates to more than
    ``max_size`` bytes is refused; Django has no such limit.

    ``serializer`` is ``"json"``, or ``"pickle"`` for sessions of ``PickleSerializer``, of which
    nothing is executed (``django_session_rs.pickle``); new pickles are of ``pickle_protocol``, 2 to
    5. ``format`` is the form that is written: ``"signed"`` since Django 3.1, ``"legacy"`` from 1.3
    to 3.0, ``"antique"`` before, and ``"signed_sha1"`` for the signed cookies of 1.4 to 3.0. That
    form and ``"signed"`` are read. Others, all of them weaker, and the other serializer are read if
    ``accept`` names them. ``legacy_salt`` is the salt of the old form for a store class with a
    ``key_salt`` of its own.

    Raises ``ValueError`` for an empty secret key or an unknown name or protocol.
    """

    def __new__(
        cls,
        secret_key: str | bytes,
        *,
        fallbacks: Sequence[str | bytes] = ...,
        salt: str = "django.contrib.sessions.SessionStore",
        serializer: _Serializer = "json",
        accept: Sequence[_Format | _Serializer] = ...,
        format: _Format = "signed",  # noqa: A002 - as it is for Python
        legacy_salt: str | None = None,
        pickle_protocol: int = 4,
        compression: Literal["fast", "small"] = "fast",
        max_size: int = 67108864,
    ) -> SessionCodec: ...
    @property
    def salt(self) -> str:
        """The salt: ``django.contrib.sessions.`` and the qualified name of the store's class."""

    @property
    def format(self) -> _Format:
        """The form that is written."""

    @property
    def serializer(self) -> _Serializer:
        """The serializer that writes."""

    def encode(self, data: Any, *, now: float | None = None) -> str:
        """Return ``payload:timestamp:signature``, with the JSON bytes that Django writes.

        ``now`` is Unix time, ``time.time()`` if left out.

        Raises what ``json.dumps`` raises for a value it cannot write: ``TypeError``,
        ``ValueError`` or ``RecursionError``; with ``serializer="pickle"`` what ``pickle.dumps``
        raises.
        """

    def encode_bytes(self, payload: bytes, *, now: float | None = None) -> str:
        """As ``encode``, of bytes that a ``SESSION_SERIALIZER`` of the project's own wrote."""

    def decode(self, value: str) -> dict[str, Any]:
        """Return the session, once the signature has been checked. Its age is not limited.

        Raises ``django.core.signing.BadSignature`` if no key signed this text, and
        ``DecodeError`` or ``PayloadTooLargeError`` if what was signed is not a session.
        """

    def decode_any(self, value: str) -> Any:
        """As ``decode``, but a value that is not an object is returned as it is.

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
    def format(self) -> _Format:
        """The form it was in."""

    @property
    def algorithm(self) -> Literal["md5", "sha1", "sha256"]:
        """The hash of its signature."""

    @property
    def serializer(self) -> _Serializer:
        """The serializer that wrote it."""

    @property
    def fallback(self) -> int | None:
        """Index in ``fallbacks`` of the key that matched; ``None`` for the secret key itself."""

    @property
    def signed_at(self) -> int | None:
        """Unix time at which the text was signed, so usually when the session was last saved.

        Forms before 3.1 do not say.
        """

    @property
    def compressed(self) -> bool:
        """Whether the payload was compressed."""

def loads_safe(
    data: Buffer, *, encoding: str | None = None, max_size: int = 67108864, max_nodes: int = 1048576
) -> Any:
    """Return the objects of a pickle; nothing is imported and nothing is called that it names.

    Harmless types become real, everything else an ``OpaqueObject`` or ``OpaqueGlobal``; see
    ``django_session_rs.pickle``. A Python 2 string becomes ``str`` if it is ASCII and ``bytes`` if
    not; with ``encoding``, as that of ``pickle.loads``, text or ``"bytes"``.

    Raises ``DecodeError`` if the bytes are no pickle, refer to something outside of it, or are of
    objects that cannot be; ``PayloadTooLargeError`` if there are more than ``max_size`` bytes or
    ``max_nodes`` objects, or if Python would run out of time or stack over what there is.
    """

def dumps(obj: Any, *, protocol: int = 4) -> bytes:
    """Return the pickle of an object, as Python's own ``pickle.dumps``; ``protocol`` from 2 to 5.

    Opaque objects go back as they were. The bytes are not those of Python, but what is made of them
    is the same. Objects are pickled in another order than Python does, persistent ids and
    ``reducer_override`` are not supported, and names have no extension codes.

    Raises what ``pickle.dumps`` raises: ``PicklingError``, ``RecursionError``, and whatever a
    ``__reduce_ex__`` raises.
    """

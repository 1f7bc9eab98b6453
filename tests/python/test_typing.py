"""The names and types that users see."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import django_session_rs
from django_session_rs import DecodedSession, DecodeError, PayloadTooLargeError, SessionCodec

USE = """
import datetime
from typing import Literal

from django_session_rs import (
    DecodedSession,
    DecodeError,
    PayloadTooLargeError,
    SessionCodec,
    pickle,
    signing,
)
from django_session_rs.backends.db import SessionStore
from django_session_rs.channels import AuthMiddlewareStack, SessionMiddleware as Channel
from django_session_rs.middleware import SessionMiddleware

codec: SessionCodec = SessionCodec(b"key", fallbacks=["old"], compression="small", max_size=10)
text: str = codec.encode({"a": 1}, now=1.5)
session: dict[str, object] = codec.decode(text)
found: DecodedSession = codec.inspect(text)
fallback: int | None = found.fallback
signed_at: int | None = found.signed_at
compressed: bool = found.compressed
data: bytes = codec.decode_bytes(codec.encode_bytes(b"{}"))
salt: str = codec.salt
try:
    codec.decode(text)
except PayloadTooLargeError as error:
    reason: str = error.reason
except DecodeError:
    pass


class Mine(SessionStore):
    max_size = 5


class Polite(SessionMiddleware):
    retry_after = 30


async def consumer(scope: object, receive: object, send: object) -> None: ...


stack = AuthMiddlewareStack(Channel(consumer), revalidate=0.5, close_code=4000)
AuthMiddlewareStack(consumer, revalidate="30")  # type: ignore[arg-type]


class Signer(signing.TimestampSigner):
    pass


signer: Signer = Signer(key="key", fallback_keys=iter(["old"]), accept_algorithms=["sha1"])
signed: str = signer.sign_object([1], signing.JSONSerializer, compress=True)
value: object = signer.unsign_object(signed, max_age=datetime.timedelta(days=1))
found_value: signing.UnsignedValue = signer.inspect(signer.sign(1), 60)
cookie: str = signing.CookieSigner("name", accept_salt_rules=["legacy"]).sign("x")
user = signing.PasswordResetUser(pk=1, password="x")
good: bool = signing.PasswordResetTokenGenerator(key="key").check_token(user, "token")
match: signing.AuthHashMatch | None = signing.verify_session_auth_hash("", "x", key="key")
signing.CookieSigner("name", salt_rule="v3")  # type: ignore[arg-type]
signing.dumps(1, serializer=int)  # type: ignore[arg-type]
old = SessionCodec("key", serializer="pickle", accept=["legacy", "json"], format="signed_sha1")
form: Literal["signed", "signed_sha1", "legacy", "antique"] = found.format
serializer: Literal["json", "pickle"] = found.serializer
algorithm: Literal["md5", "sha1", "sha256"] = found.algorithm
unpickled: object = pickle.loads_safe(pickle.dumps([1], protocol=2), encoding="utf-8", max_nodes=5)
if isinstance(unpickled, pickle.OpaqueObject):
    module: str | None = unpickled.module
    arguments: tuple[object, ...] = unpickled.args
    name: pickle.OpaqueGlobal | None = unpickled.class_
if isinstance(unpickled, pickle.OpaqueTimezone):
    zone: datetime.tzinfo = unpickled
pickled: bytes = pickle.PickleSerializer(protocol=3).dumps({})

SessionCodec("key", compression="tiny")  # type: ignore[arg-type]
SessionCodec("key", accept=["sha1"])  # type: ignore[list-item]
pickle.dumps(1, protocol="1")  # type: ignore[arg-type]
codec.decode(b"bytes")  # type: ignore[arg-type]
"""


def test_what_is_exported():
    assert sorted(django_session_rs.__all__) == django_session_rs.__all__
    for name in django_session_rs.__all__:
        assert hasattr(django_session_rs, name)
    assert django_session_rs.__version__.count(".") == 2
    for kind in (SessionCodec, DecodedSession, DecodeError, PayloadTooLargeError):
        assert kind.__module__.startswith("django_session_rs")
    assert issubclass(PayloadTooLargeError, DecodeError)


def test_the_extension_is_no_debug_build():
    module = importlib.import_module("django_session_rs._native")
    assert {"DecodedSession", "SessionCodec", "Signer", "__version__"} <= set(dir(module))


def test_types_are_shipped():
    folder = Path(django_session_rs.__file__).parent
    assert (folder / "py.typed").exists()
    assert (folder / "_native.pyi").exists()


def checked(checker: str, *arguments: object) -> None:
    """Run a type checker, which has to find nothing."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    command = [sys.executable, "-m", checker, *map(str, arguments)]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_types_of_use_for_mypy(tmp_path):
    file = tmp_path / "use.py"
    file.write_text(USE)
    checked("mypy", "--strict", "--cache-dir", tmp_path / "cache", file)


def test_types_of_use_for_pyright(tmp_path):
    (tmp_path / "use.py").write_text(USE)
    options = {
        "extraPaths": [str(Path(django_session_rs.__file__).parents[1])],
        "include": ["use.py"],
        # What is wrong on purpose is marked, and has to be found.
        "reportUnnecessaryTypeIgnoreComment": "error",
        "typeCheckingMode": "strict",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(options))
    checked("basedpyright", "--project", tmp_path, "--pythonpath", sys.executable)

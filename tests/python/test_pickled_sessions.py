"""Pickled sessions through `SessionCodec`: what is kept, what is refused, what is shown."""

import base64
import pickle
import warnings

import pickmod
import pytest
from django.core.signing import BadSignature
from unpicklers import Symbolic, fingerprint
from vectors import at, plain, records, same, secret, stored_text

from django_session_rs import DecodeError, PayloadTooLargeError, SessionCodec
from django_session_rs.pickle import OpaqueObject, loads_safe

WEAK = ("antique", "legacy", "signed_sha1")
KEY = "a key"
SALT = "django.contrib.sessions."


def codec_of(record, **options) -> SessionCodec:
    salt = record["salt"]
    options.setdefault("serializer", record["serializer"])
    if salt is not None:
        options["salt" if salt.startswith(SALT) else "legacy_salt"] = salt
    fallbacks = [secret(key) for key in record.get("fallbacks", ())]
    return SessionCodec(secret(record["secret_key"]), fallbacks=fallbacks, **options)


def text_of(record) -> str:
    value = record["cookie"] if "cookie" in record else stored_text(record)
    return value.decode("ascii") if isinstance(value, bytes) else value


def opaque_session():
    """A session of objects that share some and contain each other."""
    plain_object, shared = pickmod.Plain(), [pickmod.Colour.RED]
    plain_object.me, plain_object.a = plain_object, shared
    return {
        "plain": plain_object,
        "again": (plain_object, shared),
        "slots": pickmod.Slots(),
        "state": pickmod.WithState(3),
        "rows": pickmod.ReducedIters([shared]),
        "names": pickmod.DictSub(a=pickmod.StrSub("s")),
        "members": {pickmod.Num.ONE},
        "class": pickmod.Plain,
        "kwargs": pickmod.NewArgsEx(1, kw=shared),
        "bytes": b"\xff",
    }


@pytest.mark.parametrize("protocol", range(6))
def test_a_change_leaves_everything_else_as_it_was(protocol):
    if protocol < 2:
        session = {name: value for name, value in opaque_session().items() if name != "slots"}
    else:
        session = opaque_session()
    original = pickle.dumps(session, protocol)
    codec = SessionCodec(KEY, serializer="pickle", pickle_protocol=max(protocol, 2))
    before = codec.decode(codec.encode_bytes(original))
    after = codec.decode(codec.encode_bytes(original))
    assert isinstance(before["plain"], OpaqueObject)
    after["new"] = {"since": 1}
    changed = codec.decode(codec.encode(after))
    assert changed.pop("new") == {"since": 1}
    assert changed["plain"] == before["plain"]
    assert changed["plain"].state["me"] is changed["plain"] is changed["again"][0]
    written = codec.decode_bytes(codec.encode(changed))
    assert fingerprint(written, Symbolic) == fingerprint(original, Symbolic)
    assert fingerprint(written) == fingerprint(original)


def test_which_serializer_wrote_a_session():
    json_text = SessionCodec(KEY).encode({"a": 1})
    pickle_text = SessionCodec(KEY, serializer="pickle").encode({"a": 1})
    both = SessionCodec(KEY, accept=["pickle"])
    assert both.decode(pickle_text) == both.decode(json_text) == {"a": 1}
    assert both.inspect(pickle_text).serializer == "pickle"
    assert both.inspect(json_text).serializer == "json"
    other = SessionCodec(KEY, serializer="pickle", accept=["json"])
    assert other.decode(pickle_text) == other.decode(json_text) == {"a": 1}
    assert other.serializer == "pickle"
    for codec, text in ((SessionCodec(KEY), pickle_text), (PICKLE, json_text)):
        with pytest.raises(DecodeError) as caught:
            codec.decode(text)
        assert caught.value.reason == "serializer"


PICKLE = SessionCodec(KEY, serializer="pickle")


def test_a_pickle_in_a_session_is_not_executed():
    text = PICKLE.encode_bytes(b"}S'a'\ncos\nsystem\n(S'touch /tmp/a-pickle-ran'\ntRs.")
    found = PICKLE.decode(text)["a"]
    assert (found.module, found.name) == ("os", "system")


def test_errors_of_pickles():
    for payload, reason in [
        (b"\x80\x04]\x94.", "not_an_object"),
        (b"\x80\x04)\x94.", "not_an_object"),
        (b"\x80\x04}", "pickle"),
        (b"garbage", "pickle"),
        (b"", "pickle"),
    ]:
        with pytest.raises(DecodeError) as caught:
            PICKLE.decode(PICKLE.encode_bytes(payload))
        assert caught.value.reason == reason
        assert caught.value.__context__ is None
    small = SessionCodec(KEY, serializer="pickle", max_size=50)
    with pytest.raises(PayloadTooLargeError):
        small.decode(PICKLE.encode({"a": "b" * 100}))
    with pytest.raises(pickle.PicklingError):
        PICKLE.encode({"a": lambda: 1})


def test_arguments():
    codec = SessionCodec(KEY, format="legacy", serializer="pickle")
    assert (codec.format, codec.serializer) == ("legacy", "pickle")
    for options in (
        {"serializer": "msgpack"},
        {"format": "modern"},
        {"accept": ["sha1"]},
        {"pickle_protocol": 1},
        {"pickle_protocol": 6},
    ):
        with pytest.raises(ValueError, match=next(iter(options)).replace("pickle_", "")):
            SessionCodec(KEY, **options)
    with pytest.raises(TypeError):
        SessionCodec(KEY, accept="legacy")


def test_the_salt_of_the_old_form_follows_the_class():
    text = SessionCodec(KEY, salt="django.contrib.sessions.Outer.Mine", format="legacy").encode({})
    reader = SessionCodec(KEY, legacy_salt="django.contrib.sessionsMine", accept=["legacy"])
    assert reader.decode(text) == {}
    with pytest.raises(BadSignature):
        SessionCodec(KEY, accept=["legacy"]).decode(text)


def test_what_is_shown_holds_nothing_secret():
    codec = SessionCodec("hunter2", serializer="pickle")
    found = codec.inspect(codec.encode({"a": "hunter2"}, now=1_700_000_000))
    assert repr(found) == (
        "<DecodedSession format=signed serializer=pickle fallback=None "
        "signed_at=1700000000 compressed=False>"
    )
    old = SessionCodec("hunter2", format="legacy")
    assert "signed_at=None" in repr(old.inspect(old.encode({"a": "hunter2"})))


def test_json_is_read_as_before():
    """Forms and serializers that are accepted change nothing for today's sessions."""
    lenient = SessionCodec(KEY, accept=[*WEAK, "pickle"])
    plain_codec = SessionCodec(KEY)
    for record in records("modern_json"):
        text = plain_codec.encode_bytes(codec_of(record).decode_bytes(text_of(record)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert same(lenient.decode_any(text), plain_codec.decode_any(text))
            assert same(lenient.decode_any(text), plain(record["expected"]))


def test_identities_outlive_the_codec():
    for record in records("pickle_types"):
        if "identity" not in record:
            continue
        data = base64.b64decode(record["pickle_b64"])
        found = PICKLE.decode(PICKLE.encode(loads_safe(data)))
        for paths in record["identity"]:
            one, *others = (at(found, path) for path in paths)
            assert all(other is one for other in others)

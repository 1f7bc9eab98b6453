"""The codec and the engine's `decode` against what Django releases wrote and read."""

import base64
import itertools
import json
import zlib

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.core.exceptions import ImproperlyConfigured
from django.core.signing import BadSignature
from django.test import override_settings
from tally import asked, no_bytes, note
from vectors import case, plain, records, release, same, secret, stored_text

from django_session_rs import DecodeError, PayloadTooLargeError, SessionCodec
from django_session_rs.backends.db import SessionStore

KEY = "a key"


def payload_of(value: str) -> bytes:
    """The serialized bytes, by means of the standard library."""
    text = value.rsplit(":", 2)[0]
    compressed = text.startswith(".")
    text = text.removeprefix(".")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return zlib.decompress(data) if compressed else data


def codec_of(record, **options) -> SessionCodec:
    fallbacks = [secret(key) for key in record["fallbacks"]]
    key = secret(record["secret_key"])
    return SessionCodec(key, fallbacks=fallbacks, salt=record["salt"], **options)


def store_of(record, base=SessionStore):
    class Store(base):
        key_salt = record["salt"]

    return Store()


def settings_of(record):
    fallbacks = [secret(key) for key in record["fallbacks"]]
    return override_settings(
        SECRET_KEY=secret(record["secret_key"]), SECRET_KEY_FALLBACKS=fallbacks
    )


def modern():
    return [pytest.param(record, id=record["id"]) for record in records("modern_json")]


@pytest.mark.parametrize("record", modern())
def test_what_django_wrote_is_read_and_written_again(record):
    if record["algorithm"] != "sha256":
        pytest.fail("this family is SHA-256 only")
    codec = codec_of(record)
    value = stored_text(record)
    expected = plain(record["expected"])
    found = codec.inspect(value)
    assert same(found.data, expected)
    assert same(codec.decode(value), expected)
    assert found.compressed is record["compressed"]
    assert found.signed_at == int(record["time"])
    assert found.fallback is None

    given = plain(record["input"]) if "input" in record else expected
    for compression in ("fast", "small"):
        ours = codec_of(record, compression=compression).encode(given, now=record["time"])
        assert payload_of(ours) == payload_of(value) == codec.decode_bytes(value)
        # The installed Django reads ours.
        with settings_of(record):
            assert same(store_of(record, DjangoStore).decode(ours), expected)
    if not record["compressed"] and not ours.startswith("."):
        assert ours == value


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(record, id=record["id"])
        for record in records("fallback_keys")
        if record["serializer"] == "json"
    ],
)
def test_fallback_keys(record, caplog):
    with settings_of(record):
        assert same(store_of(record).decode(stored_text(record)), plain(record["expected"]))
    if record["backend"] == "db":
        # The signed_cookies engine never logs.
        assert logs(caplog) == [(log["logger"], log["message"]) for log in record["logs"]]
    if record.get("reencoded_with_current"):
        data = {"fb": case(record).rsplit("/", 1)[-1]}
        assert codec_of(record).encode(data, now=record["time"]) == record["reencoded_with_current"]


@pytest.mark.vectors
def test_rows_of_every_database():
    for record in records("db_rows"):
        if "get_decoded" not in record:
            no_bytes(record, "tables and statements, for the tests of stores")
            continue
        with asked(record):
            codec = SessionCodec(record["secret_key"], salt=record["salt"])
            value = record["row"]["session_data"]
            expected = plain(record["get_decoded"])
            assert same(codec.decode(value), expected)
            ours = codec.encode(expected, now=record["time"])
            assert payload_of(ours) == payload_of(value)
            if not value.startswith("."):
                assert ours == value


def logs(caplog):
    return [(entry.name, entry.getMessage()) for entry in caplog.records]


# What these give depends on the Python that runs: the installed Django tells.
BY_PYTHON = {
    "decode/json_depth_1100",
    "decode/json_depth_12000",
    "decode/json_depth_3000",
    "decode/json_depth_990_list",
    "decode/json_int_4301_digits",
    "decode/json_int_minus_4301_digits",
}


def negative():
    return [
        record
        for record in records("negative")
        if case(record).startswith("decode/") and record["serializer"] == "json"
    ]


def answer(store, value, caplog):
    caplog.clear()
    return store.decode(value), logs(caplog)


def told(record):
    return plain(record["result"]), [(log["logger"], log["message"]) for log in record["logs"]]


@pytest.mark.parametrize(
    "record",
    [pytest.param(r, id=r["id"]) for r in negative() if release(r) >= (4, 0)],
)
def test_bad_text_gives_the_answer_of_django_4_and_later(record, caplog):
    value = stored_text(record)
    store = store_of(record)
    if case(record) == "decode/zlib_bomb":
        # Django inflates anything; here there is a limit, which a subclass can raise.
        with settings_of(record), pytest.raises(PayloadTooLargeError):
            store.decode(value)
        store.max_size = 1 << 28
    with settings_of(record):
        found, said = answer(store, value, caplog)
        if case(record) in BY_PYTHON:
            expected, expected_logs = answer(store_of(record, DjangoStore), value, caplog)
        else:
            expected, expected_logs = told(record)
    assert same(found, expected)
    assert said == expected_logs


# What 3.1 and 3.2 answer otherwise than 4.0, and why.
SINCE_3_1 = {
    "they read SHA-1 signatures and the form of 3.0, or try to where the signature is wrong": {
        "empty",
        "legacy_format_bad_json",
        "legacy_format_good",
        "legacy_no_colon",
        "one_colon",
        "sha1_signature",
        "two_colons",
    },
    "bad content under a right signature is tried as the form of 3.0, whose errors come out": {
        "compressed_without_dot",
        "dot_but_plain",
        "dot_in_middle",
        "extra_segments_signed",
        "gzip_stream",
        "modern_valid_bad_json_len_1",
        "modern_valid_bad_json_len_2",
        "modern_valid_bad_json_len_4",
        "modern_valid_but_bad_json",
        "no_timestamp_signed_by_plain_signer",
        "non_ascii_signed_payload",
        "payload_bad_length_signed",
        "payload_inner_garbage_signed",
        "payload_inner_newline_signed",
        "payload_missing_padding_after_garbage_signed",
        "pickle_under_json",
        "signed_dot_only",
        "timestamp_bad_char_signed",
        "timestamp_double_minus_signed",
        "timestamp_empty_signed",
        "timestamp_non_ascii_signed",
        "timestamp_plus_signed",
        "timestamp_space_signed",
        "timestamp_underscore_signed",
        "zlib_missing_adler",
        "zlib_preset_dictionary",
        "zlib_raw_deflate",
        "zlib_truncated",
        "json_bad_escape",
        "json_bad_unicode_escape",
        "json_comment",
        "json_depth_100000",
        "json_depth_1100",
        "json_depth_12000",
        "json_depth_3000",
        "json_dot_first",
        "json_dot_last",
        "json_form_feed_ws",
        "json_hex_number",
        "json_leading_plus",
        "json_leading_zero",
        "json_minus_nan",
        "json_missing_colon",
        "json_missing_value",
        "json_nan_lower",
        "json_nbsp_ws",
        "json_nonstring_key",
        "json_nul_padding",
        "json_plus_infinity",
        "json_raw_newline_in_string",
        "json_raw_nul_in_string",
        "json_raw_tab_in_string",
        "json_short_unicode_escape",
        "json_single_quotes",
        "json_trailing_comma",
        "json_trailing_comma_list",
        "json_trailing_garbage",
        "json_two_docs",
        "json_underscore_number",
        "json_unicode_escape_with_x",
        "json_unquoted_key",
        "json_unterminated",
        "json_unterminated_obj",
        "json_utf16",
        "json_utf8_bom",
    },
    "Python 3.8 and 3.9 read integers of any length and recurse to another depth": {
        "json_depth_990_list",
        "json_int_4301_digits",
        "json_int_minus_4301_digits",
    },
}


@pytest.mark.vectors
def test_bad_text_of_releases_before_4(caplog):
    """No record is left out: each has the recorded answer or that of the Django installed here."""
    as_recorded, differing, unreadable = 0, set(), 0
    for record in negative():
        if release(record) >= (4, 0) or case(record) == "decode/zlib_bomb":
            continue
        value = stored_text(record)
        with settings_of(record):
            found, said = answer(store_of(record), value, caplog)
            now, now_said = answer(store_of(record, DjangoStore), value, caplog)
        assert same(found, now), record["id"]
        assert said == now_said, record["id"]
        if release(record) < (3, 1):
            # The whole form is one that 4.0 does not read; an empty session is the answer to all.
            assert found == {}, record["id"]
            unreadable += 1
        elif "result" in record and same(found, told(record)[0]) and said == told(record)[1]:
            as_recorded += 1
            note(record, "passed")
        else:
            differing.add(case(record).removeprefix("decode/"))
    listed = set().union(*SINCE_3_1.values())
    # Whether Python limits digits and depth depends on its version.
    assert differing | {name.removeprefix("decode/") for name in BY_PYTHON} == listed
    counted = sum(1 for r in negative() if release(r) < (4, 0))
    bombs = sum(1 for r in negative() if release(r) < (4, 0) and "bomb" in case(r))
    assert as_recorded + 2 * len(differing) + unreadable + bombs == counted
    assert unreadable > 300
    assert as_recorded > 100


def test_a_bad_signature_and_bad_content_are_told_apart():
    codec = SessionCodec(KEY)
    value = codec.encode({"a": 1}, now=1_700_000_000)
    with pytest.raises(BadSignature):
        codec.decode(value[:-1] + "A" if value[-1] != "A" else value[:-1] + "B")
    with pytest.raises(BadSignature):
        SessionCodec(KEY, salt="another").decode(value)
    for payload, reason in [(b"[1]", "not_an_object"), (b"{", "json"), (b"null", "not_an_object")]:
        with pytest.raises(DecodeError) as caught:
            codec.decode(codec.encode_bytes(payload))
        assert caught.value.reason == reason
        assert isinstance(caught.value, ValueError)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    assert codec.decode_any(codec.encode_bytes(b"[1]")) == [1]
    large = SessionCodec(KEY, max_size=100)
    with pytest.raises(PayloadTooLargeError) as caught:
        large.decode(codec.encode({"a": "b" * 1000}))
    assert caught.value.reason == "too_large"


def test_a_session_beyond_the_limit_is_an_error_and_no_empty_session():
    class Small(SessionStore):
        max_size = 100

    large = Small().encode({"a": "b" * 1000})
    with pytest.raises(PayloadTooLargeError):
        Small().decode(large)
    Small.max_size = 2000
    assert Small().decode(large) == {"a": "b" * 1000}


def test_arguments_of_the_codec():
    for bad in ("", b""):
        with pytest.raises(ValueError, match="empty"):
            SessionCodec(bad)
    with pytest.raises(TypeError):
        SessionCodec(None)
    with pytest.raises(ValueError, match="'fast' or 'small'"):
        SessionCodec(KEY, compression="slow")
    with pytest.raises(ValueError, match="now"):
        SessionCodec(KEY).encode({}, now=float("nan"))
    for wrong in (None, b"bytes", 5):
        with pytest.raises(TypeError):
            SessionCodec(KEY).decode(wrong)
    with pytest.raises(AttributeError):
        SessionCodec(KEY).salt = "x"


def test_an_empty_fallback_key_is_the_primary_one():
    old = SessionCodec(b"old").encode({"a": 1})
    codec = SessionCodec(KEY, fallbacks=["", b"", "old"])
    assert codec.inspect(old).fallback == 2
    assert codec.inspect(codec.encode({})).fallback is None


def test_the_clock_is_python_s():
    from conftest import frozen

    with frozen(1_700_000_000.9):
        assert SessionCodec(KEY).inspect(SessionCodec(KEY).encode({})).signed_at == 1_700_000_000
        assert ":1r31eq:" in SessionStore().encode({})


def test_nothing_secret_is_shown(caplog):
    codec = SessionCodec("hunter2-key", fallbacks=["hunter2-old"])
    value = codec.encode({"password": "hunter2-data"}, now=1_700_000_000)
    shown = [repr(codec), repr(codec.inspect(value))]
    broken = codec.encode_bytes(b'{"password": "hunter2-data"')
    for text in (value + "x", broken, codec.encode_bytes(b'"hunter2-data"'), ".:" + value):
        with pytest.raises((BadSignature, DecodeError)) as caught:
            codec.decode(text)
        shown += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
    with pytest.raises(PayloadTooLargeError) as caught:
        SessionCodec("hunter2-key", max_size=1).decode(codec.encode({"hunter2-data": "a" * 99}))
    shown += [str(caught.value), repr(caught.value)]
    shown += [entry.getMessage() for entry in caplog.records]
    assert not any("hunter2" in text or "eyJ" in text for text in shown), shown
    assert shown[0] == '<SessionCodec salt="django.contrib.sessions.SessionStore" fallbacks=1>'


class Serializer:
    """A project's own SESSION_SERIALIZER."""

    def dumps(self, obj):
        return b"mine" + json.dumps(obj).encode()

    def loads(self, data):
        if not data.startswith(b"mine"):
            raise KeyError("not mine")
        return json.loads(data[4:])


def test_a_serializer_of_the_project_s_own(caplog):
    with override_settings(SESSION_SERIALIZER="test_codec.Serializer"):
        ours, theirs = SessionStore(), DjangoStore()
        data = {"a": [1, "é"]}
        assert ours.decode(theirs.encode(data)) == data == theirs.decode(ours.encode(data))
        assert ours.decode(SessionCodec(_key()).encode({})) == {}
    assert caplog.records == []


def _key():
    from conftest import SECRET_KEY

    return SECRET_KEY


def test_compression_is_checked_and_read_anew():
    data = {"cart": [{"product": number, "quantity": 1} for number in range(400)]}
    store = SessionStore()
    fast = store.encode(data)
    with override_settings(SESSION_COMPRESSION="small"):
        small = store.encode(data)
    with (
        override_settings(SESSION_COMPRESSION="tiny"),
        pytest.raises(ImproperlyConfigured, match="SESSION_COMPRESSION must be 'fast' or 'small'"),
    ):
        store.encode(data)
    assert len(small) < len(fast)
    assert store.encode(data)[:100] == fast[:100]


def test_keys_are_read_anew():
    store = SessionStore()
    old = store.encode({"a": 1})
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[]):
        assert store.decode(old) == {}
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[_key()]):
        assert store.decode(old) == {"a": 1}
    with override_settings(SECRET_KEY=_key().encode()):
        assert store.decode(old) == {"a": 1}
    assert store.decode(old) == {"a": 1}


def test_keys_changed_in_place_count_at_once():
    with override_settings(SECRET_KEY="one", SECRET_KEY_FALLBACKS=[]):
        value = SessionStore().encode({"a": 1})
        settings.SECRET_KEY = "two"
        assert SessionStore().decode(value) == {}
        settings.SECRET_KEY_FALLBACKS.append("one")
        assert SessionStore().decode(value) == {"a": 1}
        settings.SECRET_KEY_FALLBACKS[0] = "three"
        assert SessionStore().decode(value) == {}
        settings.SECRET_KEY_FALLBACKS = ("four", "one")
        assert SessionStore().decode(value) == {"a": 1}
        settings.SECRET_KEY = ""
        with pytest.raises(ImproperlyConfigured):
            SessionStore().encode({"a": 1})


def test_objects_that_look_alike_and_do_not():
    """Objects in a row are read with the keys of the one before in mind."""
    names = ["a", "ab", "\\u00e9"]
    bodies = ["{}"]
    bodies += [
        "{" + ",".join(f'"{key}" : {n}' for n, key in enumerate(keys)) + "}"
        for count in (1, 2)
        for keys in itertools.product(names, repeat=count)
    ]
    bodies.append('{"a":[{"a":1},{"a":2},{"b":3}],"ab":{"a":{"ab":{}}}}')
    codec = SessionCodec(KEY)
    for three in itertools.product(bodies, repeat=3):
        payload = "[" + ",".join([*three, three[0]]) + "]"
        found = codec.decode_any(codec.encode_bytes(payload.encode()))
        # The text also shows the order of the members.
        assert json.dumps(found) == json.dumps(json.loads(payload)), payload
        assert len({id(item) for item in found}) == 4


@pytest.mark.parametrize("end", ["", "]", "}", ",}]", ',"a"}]', ',"a":}]', ',"b" 1}]', ";}]"])
@pytest.mark.parametrize("start", ['{"a":3', "{", '{"a"', '{"a":{"a":3'])
def test_objects_that_look_alike_and_break_off(start, end):
    payload = '[{"a":1},{"a":2},' + start + end
    with pytest.raises(ValueError, match="line 1"):
        json.loads(payload)
    codec = SessionCodec(KEY)
    value = codec.encode_bytes(payload.encode())
    with pytest.raises(DecodeError):
        codec.decode_any(value)


def test_subclasses_have_their_own_salt():
    class Other(SessionStore):
        pass

    value = SessionStore().encode({"a": 1})
    assert Other().decode(value) == {}
    assert Other().key_salt.endswith("<locals>.Other")
    assert Other().decode(Other().encode({"a": 1})) == {"a": 1}


def test_decode_takes_what_django_takes(caplog):
    for value in (None, b"a:b:c", 5, "\ud800:a:b", "é:a:b", ""):
        assert answer(SessionStore(), value, caplog) == answer(DjangoStore(), value, caplog)


def test_no_variable_of_the_engine_holds_a_key():
    """Error reports show the variables of every frame but those marked as sensitive."""
    from django.views.debug import ExceptionReporter

    for options in ({"SESSION_COMPRESSION": "tiny"}, {"SECRET_KEY_FALLBACKS": ["hunter2-old", 5]}):
        with override_settings(SECRET_KEY="hunter2-key", **options):
            store = SessionStore()
            with pytest.raises((ImproperlyConfigured, TypeError)) as caught:
                store.encode({"a": 1})
            reporter = ExceptionReporter(None, caught.type, caught.value, caught.tb)
            frames = reporter.get_traceback_frames()
        own = [frame for frame in frames if "django_session_rs" in frame["filename"]]
        assert own
        assert "hunter2" not in repr([frame["vars"] for frame in own])

"""Every form in which a Django release has stored a session, read and written in Python."""

from __future__ import annotations

import base64
import json
from datetime import datetime

import pytest
from django.core.signing import BadSignature, SignatureExpired
from django.test import override_settings
from tally import asked, each, no_bytes, not_supported
from vectors import agrees, case, plain, records, release, same, secret, stored_text

from django_session_rs import DecodeError, SessionCodec
from django_session_rs.pickle import OpaqueObject, loads_safe

KEY = "correct horse battery staple"
COOKIE_SALT = "django.contrib.sessions.backends.signed_cookies"
# Which of the older forms a release reads.
FORMS = {
    (1, 1): ["antique"],
    (1, 2): ["antique"],
    (1, 3): ["legacy", "antique"],
    (3, 1): ["legacy", "signed_sha1"],
    (3, 2): ["legacy", "signed_sha1"],
}


def forms(record):
    return FORMS.get(release(record), ["legacy"] if release(record) < (4, 0) else [])


def codec(record, **options):
    salt = record.get("salt")
    if salt and salt.startswith("django.contrib.sessions."):
        options["salt"] = salt
    elif salt:
        options["legacy_salt"] = salt
    return SessionCodec(
        secret(record["secret_key"]), serializer=record.get("serializer", "json"), **options
    )


def compare(found, record, tagged):
    """Whether a session is what Django made of it."""
    python2 = record["python_version"].startswith("2.")
    if python2 or record.get("serializer") == "pickle":
        assert agrees(found, tagged, ordered=not python2), record["id"]
    else:
        assert same(found, plain(tagged)), record["id"]


def with_bytes(family, name, reason, other=None):
    """The records that hold something; the others are noted."""
    found = records(family)
    for record in found:
        if not (record.get(name) or record.get(other)):
            no_bytes(record, reason)
    return each(record for record in found if record.get(name) or record.get(other))


@pytest.mark.vectors
@pytest.mark.parametrize(
    "family", ["antique", "legacy", "legacy_sha1_transitional", "modern_pickle"]
)
def test_old_forms_are_read_only_where_they_are_accepted(family):
    for record in with_bytes(family, "stored", "Django itself could not write it"):
        text = stored_text(record)
        found = codec(record, accept=forms(record)).inspect(text)
        compare(found.data, record, record["expected"])
        assert found.serializer == record["serializer"]
        if found.format != "signed":
            with pytest.raises(BadSignature):
                codec(record).decode(text)
        writer = codec(record, format=found.format)
        ours = writer.encode(found.data, now=found.signed_at or 0)
        compare(writer.decode(ours), record, record["expected"])
        if found.serializer == "json" and not record["id"].endswith("coerce_dup_keys"):
            assert writer.decode_bytes(ours) == codec(record, accept=forms(record)).decode_bytes(
                text
            )
            if found.format == "legacy" and release(record) >= (1, 5):
                assert ours == text


@pytest.mark.vectors
def test_signed_cookies_are_read_as_long_as_django_reads_them():
    for record in each(records("signed_cookies")):
        cookie = record["cookie"]
        accept = ["signed_sha1"] if record["algorithm"] == "sha1" else []
        reader = codec(record, accept=accept)
        for check in record["load_checks"]:
            try:
                reader.decode(cookie, max_age=check["cookie_age"], now=check["now"])
                refused = False
            except SignatureExpired:
                refused = True
            assert refused == check["modified_after_load"], (record["id"], check["label"])
        found = reader.inspect(cookie)
        compare(found.data, record, record["expected"])
        assert found.compressed == record["compressed"]
        writer = codec(record, format=found.format)
        ours = writer.encode(found.data, now=found.signed_at)
        if found.serializer == "json":
            assert writer.decode_bytes(ours) == reader.decode_bytes(cookie)
        compare(writer.decode(ours), record, record["expected"])


@pytest.mark.vectors
def test_files_hold_what_rows_hold():
    for record in with_bytes("file_backend", "stored", "no file", "content"):
        content = record.get("stored") or record["content"]
        data = base64.b64decode(content["value"])
        if "stored" in record:
            found = codec(record, accept=forms(record)).decode(data.decode("ascii"))
            for check in record["load_checks"]:
                if check["label"] == "fresh":
                    compare(found, record, check["expected"])
            continue
        try:
            found = codec(record, accept=forms(record)).decode(data.decode("ascii"))
        except (UnicodeDecodeError, BadSignature, DecodeError):
            found = {}
        assert found == record.get("result", {})


@pytest.mark.vectors
@pytest.mark.parametrize("family", ["session_ops_engines", "middleware_engines"])
def test_cookies_in_traces_hold_the_session(family):
    for record in ({**record, "family": family} for record in records(family)):
        if record["backend"] != "signed_cookies":
            no_bytes(record, "what an engine does, not how it stores it")
            continue
        found = list(cookies(record))
        if not found:
            no_bytes(record, "no cookie")
            continue
        with asked(record):
            reader = SessionCodec(record["secret_key"], salt=COOKIE_SALT, accept=["signed_sha1"])
            for cookie, session in found:
                limits = {"max_age": 1209600, "now": record["now"]}
                if session is None:
                    with pytest.raises((BadSignature, DecodeError)):
                        reader.decode(cookie, **limits)
                    continue
                inspected = reader.inspect(cookie, **limits)
                if session is not ...:
                    assert same(inspected.data, plain(session))
                writer = SessionCodec(
                    record["secret_key"], salt=COOKIE_SALT, format=inspected.format
                )
                assert writer.encode(inspected.data, now=inspected.signed_at) == cookie


def cookies(record):
    """Every cookie of a trace, with the session that it has to hold if that is known."""
    for name in ("cookie", "cookie_key"):
        if record.get(name) is not None:
            yield record[name], record["rows"][0]["data"] if record["rows"] else None
    for line in record.get("set_cookie") or ():
        cookie = line.removeprefix("sessionid=").split(";")[0].strip('"')
        if cookie:
            yield cookie, ...


DEPTH = {"decode/json_depth_990_list", "decode/json_depth_1100", "decode/json_depth_3000"}
READ_ANYWAY = {
    "decode/non_ascii": "what is outside of base64 is passed over, as most releases do",
    "decode/modern_format": "today's form is always read",
}


def bad_text():
    return [
        record
        for record in records("negative")
        if "stored" in record and (record["serializer"] == "pickle" or release(record) < (4, 0))
    ]


@pytest.mark.vectors
def test_bad_text_of_old_forms_and_bad_pickles_get_django_s_answer():
    """Where Django answers with an empty session or an exception, ours is an error."""
    for record in bad_text():
        if "bomb" in case(record):
            no_bytes(record, "200 million times the same letter: once is enough")
            continue
        with asked(record):
            answer(record)


@pytest.mark.vectors
def test_rows_are_loaded_as_each_release_loads_them():
    """What the engine does around it, for the installed release, is in `test_db_engine`."""
    for record in each(record for record in records("negative") if "rows" in record):
        key, now = record["cookie_key"], record["now"]
        # Since 1.9 a key has at least 8 characters.
        known = key is not None and (len(key) >= 8 or release(record) < (1, 9))
        row = next((row for row in record["rows"] if known and row["session_key"] == key), None)
        found = {}
        if row and datetime.fromisoformat(row["expire_date"]).timestamp() > now:
            try:
                # Before 1.6 the default was pickle.
                pickled = ["pickle"] if release(record) < (1, 6) else []
                reader = codec(record, accept=forms(record) + pickled)
                found = reader.decode_any(row["session_data"])
            except (BadSignature, DecodeError, UnicodeEncodeError):
                found = {}
        if "result" in record:
            compare(dict(found), record, record["result"])
        else:
            # `null` breaks every access in Django; what is no base64 did before 3.1.
            assert not found


def answer(record):
    reader = codec(record, accept=forms(record))
    try:
        found = reader.decode_any(stored_text(record))
    except (BadSignature, DecodeError, UnicodeEncodeError):
        if case(record) in DEPTH or "4301_digits" in case(record):
            not_supported(record, "depth and digits are those of the Python that runs")
        else:
            assert record.get("result", {}) == {}, record["id"]
        return
    if case(record) in DEPTH:
        not_supported(record, "depth and digits are those of the Python that runs")
    elif "result" not in record:
        not_supported(record, READ_ANYWAY[case(record)])
    elif isinstance(found, OpaqueObject):
        assert record["result"] == {}
    else:
        compare(found, record, record["result"])


def test_the_answer_says_what_it_was():
    data = {"a": 1}
    for form, algorithm in [
        ("signed", "sha256"),
        ("signed_sha1", "sha1"),
        ("legacy", "sha1"),
        ("antique", "md5"),
    ]:
        for serializer in ("json", "pickle"):
            writer = SessionCodec("old", format=form, serializer=serializer)
            text = writer.encode(data, now=1700000000)
            reader = SessionCodec("new", fallbacks=["", "old"], accept=[form, serializer])
            found = reader.inspect(text)
            assert found.data == data
            assert (found.format, found.algorithm) == (form, algorithm)
            assert (found.serializer, found.fallback) == (serializer, 1)
            stamped = form.startswith("signed")
            assert found.signed_at == (1700000000 if stamped else None)
            if not stamped:
                with pytest.raises(BadSignature):
                    reader.decode(text, max_age=60)


def test_another_serializer_is_an_error_that_says_so():
    text = SessionCodec(KEY, serializer="pickle").encode({"a": 1})
    with pytest.raises(DecodeError) as error:
        SessionCodec(KEY).decode(text)
    assert error.value.reason == "serializer"
    assert SessionCodec(KEY, accept=["pickle"]).decode(text) == {"a": 1}
    text = SessionCodec(KEY).encode({"a": 1})
    with pytest.raises(DecodeError, match="JSON"):
        SessionCodec(KEY, serializer="pickle").decode(text)


def test_names_that_are_not_known_are_refused():
    for options in (
        {"format": "new"},
        {"serializer": "yaml"},
        {"accept": ["everything"]},
        {"pickle_protocol": 6},
    ):
        with pytest.raises(ValueError, match=r"must|protocol"):
            SessionCodec(KEY, **options)


def test_a_change_leaves_opaque_values_as_they_were():
    pickled = [r for r in records("pickle_types") if "whole_session" in r["id"]]
    for record in pickled:
        data = base64.b64decode(record["pickle_b64"])
        both = SessionCodec(KEY, serializer="pickle", pickle_protocol=max(record["protocol"], 2))
        session = both.decode(both.encode_bytes(data))
        session["added"] = [1, 2]
        again = both.decode(both.encode(session))
        assert again.pop("added") == [1, 2]
        assert agrees(again, record["expected"], ordered=False), record["id"]
        assert again == loads_safe(data)


def test_the_engine_reads_old_pickled_sessions_without_executing_them():
    from django_session_rs.backends.db import SessionStore

    with override_settings(SESSION_SERIALIZER="django_session_rs.pickle.PickleSerializer"):
        store = SessionStore()
        for value in ({"a": (1, {2})}, {}):
            assert store.decode(store.encode(value)) == value
        json_text = json.dumps({"not": "a pickle"})
        assert store.decode(json_text) == {}


def test_a_text_that_is_no_session_is_diagnosed():
    writer = SessionCodec(KEY)
    text = writer.encode({"a": 1}, now=1700000000)
    assert writer.diagnose(text) is None
    other_salt = SessionCodec(KEY, salt="django.contrib.sessions.Mine").encode({"a": 1})
    for value, options, reason in [
        (text[:-5], {}, "truncated"),
        (f'"{text}"', {}, "quoted"),
        (other_salt, {"salts": ["Mine"]}, "wrong_salt"),
        (SessionCodec("another").encode({"a": 1}), {}, "wrong_key"),
        (SessionCodec(KEY, serializer="pickle").encode({"a": 1}), {}, "wrong_serializer"),
        (SessionCodec(KEY, format="legacy").encode({"a": 1}), {}, "format_not_accepted"),
        (text, {"max_age": 60, "now": 1700000061}, "expired"),
        (b"\xff", {}, "unrecognized"),
        ("", {}, "empty"),
    ]:
        found = writer.diagnose(value, **options)
        assert found.reason == reason
        assert found.message == str(found)
        assert KEY not in found.message
        assert found.salt == ("django.contrib.sessions.Mine" if reason == "wrong_salt" else None)

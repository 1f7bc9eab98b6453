"""`django_session_rs.signing` against what Django releases signed, and the installed one."""

import datetime
import json
import time

import pytest
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.tokens import PasswordResetTokenGenerator as DjangoGenerator
from django.core import signing as theirs
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.utils.crypto import InvalidAlgorithm
from hypothesis import given
from hypothesis import strategies as st
from tally import each
from vectors import plain, records, release, secret

from django_session_rs import DecodeError, PayloadTooLargeError, signing

NOW = 1_700_000_000
HAS_SALT_RULE = hasattr(theirs, "_cookie_signer_salt")


def signed(kind):
    return [record for record in records("signing") if record["kind"] == kind]


def algorithms(record):
    """What a release signs with, and what else it reads."""
    if release(record) < (3, 1):
        return {"algorithm": "sha1"}
    return {"accept_algorithms": ["sha1"] if release(record) < (4, 0) else []}


def signer_class(record):
    return {"Signer": signing.Signer, "TimestampSigner": signing.TimestampSigner}[record["class"]]


@pytest.fixture
def frozen(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = NOW

    monkeypatch.setattr(time, "time", lambda: Clock.now)
    return Clock


def outcome(function, *args, **kwargs):
    """What came back, or the name of the exception as Django's vectors have it."""
    try:
        return function(*args, **kwargs)
    except DecodeError:
        return ValueError
    except (signing.BadSignature, ValueError) as error:
        return type(error)


def expected(record):
    if "raises" not in record:
        return record["result"]
    classes = (signing.BadSignature, signing.SignatureExpired, ValueError)
    return {kind.__name__: kind for kind in classes}[record["raises"]]


@pytest.mark.vectors
def test_signed_texts_are_django_s(frozen):
    assert frozen.now == NOW
    checked = 0
    for record in each(signed("sign")):
        salt = None if record["default_salt"] else record["salt"]
        options = {"key": secret(record["secret_key"]), "sep": record["sep"]}
        signer = signer_class(record)(**options, salt=salt, algorithm=record["algorithm"])
        assert signer.salt == record["salt"], record["id"]
        assert signer.sign(record["value"]) == record["signed"], record["id"]
        assert signer.unsign(record["signed"]) == record["value"], record["id"]
        found = signer.inspect(record["signed"])
        assert (found.value, found.algorithm) == (record["value"], record["algorithm"])
        assert found.fallback is None
        assert found.signed_at == (NOW if record["class"] == "TimestampSigner" else None)
        checked += 1
    assert checked == 3 * 126 + 5 * 378


@pytest.mark.vectors
def test_a_signed_text_is_accepted_where_django_accepts_it(frozen):
    checked = 0
    for record in each(signed("unsign")):
        frozen.now = record["now"]
        options = {"key": record["secret_key"], "fallback_keys": record["fallbacks"]}
        signer = signer_class(record)(**options, salt=record["salt"], **algorithms(record))
        limits = {} if record["max_age"] is None else {"max_age": record["max_age"]}
        found = outcome(signer.unsign, record["signed"], **limits)
        assert found == expected(record), record["id"]
        if found == "old":
            matched = signer.inspect(record["signed"]).fallback
            assert matched in (0, 1), record["id"]
        checked += 1
    assert checked == 3 * 52 + 5 * 54


@pytest.mark.vectors
def test_signed_objects_are_django_s(frozen):
    assert frozen.now == NOW
    checked = 0
    for record in each(signed("object")):
        value = json.loads(record["payload"])
        key, compress = secret(record["secret_key"]), record["compress"]
        salt, name = record["salt"], record["id"]
        old = {"algorithm": record["algorithm"]}
        if record["call"] == "Signer":
            signer = signing.Signer(key=key, salt=salt, **old)
        else:
            signer = signing.TimestampSigner(key=key, salt=salt, **old)
        ours = signer.sign_object(value, compress=compress)
        for text in (ours, record["signed"]):
            assert repr(signer.unsign_object(text)) == repr(value), name
            again = signer.unsign_object(text, signing.JSONSerializer)
            assert repr(again) == repr(value), name
        if not compress:
            assert ours == record["signed"], name
            assert signer.sign_object(value, signing.JSONSerializer) == record["signed"], name
        if record["call"] == "dumps":
            accept = {"accept_algorithms": [record["algorithm"]]}
            found = signing.loads(record["signed"], key, salt, **accept)
            assert repr(found) == repr(value), name
            if record["algorithm"] == "sha256":
                assert signing.dumps(value, key, salt, compress=compress) == ours, name
        checked += 1
    assert checked == 4 * 96 + 4 * 172


@pytest.mark.vectors
def test_signed_cookies_are_django_s(frozen):
    checked = 0
    for record in each(signed("cookie")):
        keys = {"key": secret(record["secret_key"]), "fallback_keys": record["fallbacks"]}
        options = {"salt_rule": record["salt_rule"], **keys, **algorithms(record)}
        frozen.now = record["time"]
        cookie = signing.CookieSigner(record["name"], record["salt"], **options)
        assert cookie.sign(record["value"]) == record["signed"], record["id"]
        if record["algorithm"] == "sha256":
            plain_text = signing.get_cookie_signer(**keys).sign("plain")
            assert plain_text == record["cookie_signer"], record["id"]
        for check in record["checks"]:
            frozen.now = check["now"]
            rules = ["legacy"] if check["legacy_salt_fallback"] else []
            cookie = signing.CookieSigner(
                check["name"], check["salt"], accept_salt_rules=rules, **options
            )
            found = outcome(cookie.unsign, check["signed"], max_age=check["max_age"])
            assert found == expected(check), (record["id"], check)
            if isinstance(found, str):
                whole = cookie.inspect(check["signed"])
                assert (whole.value, whole.signed_at) == (found, record["time"])
                assert (whole.fallback is not None) is (found == "old")
            checked += 1
    assert checked == 2223


def user_of(record):
    last_login = record["last_login"] and datetime.datetime.fromisoformat(record["last_login"])
    return signing.PasswordResetUser(record["pk"], record["password"], last_login, record["email"])


FORMS = {
    (3, 1): {"form": "seconds", "accept_forms": ["days"]},
    (3, 2): {"form": "seconds_and_email", "accept_forms": ["days"]},
}


@pytest.mark.vectors
def test_reset_tokens_are_django_s():
    checked = 0
    for record in each(signed("token")):
        forms = FORMS.get(release(record), {"form": "seconds_and_email"})
        if release(record) < (3, 1):
            forms = {"form": "days"}
        keys = {"key": secret(record["secret_key"]), "fallback_keys": record["fallbacks"]}
        options = {**forms, **keys, **algorithms(record)}
        now = datetime.datetime.fromisoformat(record["now"])
        generator = signing.PasswordResetTokenGenerator(**options)
        if record["made"] == "own":
            found = generator.make_token(user_of(record["user"]), now=now)
            assert found == record["token"], record["id"]
        for check in record["checks"]:
            if release(record) == (3, 2) and record["made"] == "days" and check["user"]["email"]:
                # It hashes the address into the old form too, which no release wrote.
                assert check["result"] is False
                continue
            generator = signing.PasswordResetTokenGenerator(**options, timeout=check["timeout"])
            now = datetime.datetime.fromisoformat(check["now"])
            found = generator.check_token(user_of(check["user"]), check["token"], now=now)
            assert found is check["result"], (record["id"], check)
            checked += 1
    assert checked == 10664


@pytest.mark.vectors
def test_session_auth_hashes_are_django_s():
    checked = 0
    hashes = [record for record in records("auth_hash") if "password_field" in record]
    for record in each(record for record in hashes if "/get_user/" not in record["id"]):
        key, password = secret(record["secret_key"]), record["password_field"]
        names = {"hash": record.get("algorithm"), "hash_sha1": "sha1", "hash_sha256": "sha256"}
        for name, algorithm in names.items():
            if name not in record:
                continue
            stored = record[name]
            ours = signing.session_auth_hash(password, key=key, algorithm=algorithm)
            assert ours == stored, record["id"]
            options = {"key": key, "fallback_keys": record.get("fallbacks", [])}
            found = signing.verify_session_auth_hash(
                stored, password, **options, accept_algorithms=["sha1"]
            )
            assert found.algorithm == algorithm
            assert found.needs_upgrade is (algorithm == "sha1")
            simple = signing.verify_session_auth_hash(stored, password, **options)
            assert (simple is None) is (algorithm == "sha1")
            for index, old in enumerate(record.get("fallback_hashes", [])):
                found = signing.verify_session_auth_hash(old, password, **options)
                assert (found.fallback, found.needs_upgrade) == (index, True)
            checked += 1
    assert checked == 5 * 20 + 2 * 20


@pytest.mark.vectors
def test_the_hash_in_a_session_is_that_of_the_user():
    recorded = records("auth_hash")
    known = {
        (
            record["django_version"],
            signing.session_auth_hash(password, key=key, algorithm=algorithm),
        )
        for record in recorded
        if (password := record.get("password_field")) and "/get_user/" not in record["id"]
        for key in [secret(record["secret_key"])]
        for algorithm in ["sha1", "sha256"]
    }
    checked = 0
    for record in each(record for record in recorded if "/flow/" in record["id"]):
        case = record["id"].rsplit("/", 1)[1]
        for side in ["before", "after"]:
            stored = record[side]["data"].get("_auth_user_hash")
            if stored is None:
                continue
            # One that is of no user, and one of a password that is not recorded.
            other = [
                ("login_same_user_stale_hash", "before"),
                ("update_session_auth_hash", "after"),
            ]
            is_known = (record["django_version"], stored) in known
            assert is_known is ((case, side) not in other), record["id"]
            checked += 1
    assert checked == 72


@pytest.mark.vectors
def test_a_session_is_flushed_where_django_flushes_it():
    checked = 0
    users = [record for record in records("auth_hash") if "/get_user/" in record["id"]]
    for record in each(users):
        stored = record["before"]["data"].get("_auth_user_hash")
        found = signing.verify_session_auth_hash(
            stored,
            record["password_field"],
            key=record["secret_key"],
            fallback_keys=record["fallbacks"],
            **algorithms(record),
        )
        assert (found is None) is record["anonymous"], record["id"]
        checked += 1
    assert checked == 37


def test_session_cookies_are_accepted_where_django_accepts_them(frozen):
    salt = "django.contrib.sessions.backends.signed_cookies"

    class Bytes:
        """No serializer at all."""

        def dumps(self, obj):
            return obj

        def loads(self, data):
            return data

    checked = 0
    for record in records("signed_cookies"):
        signer = signing.TimestampSigner(
            key=secret(record["secret_key"]),
            salt=salt,
            algorithm=record["algorithm"],
            fallback_keys=[secret(key) for key in record["fallbacks"]],
        )
        for check in record["load_checks"]:
            frozen.now = check["now"]
            found = outcome(
                signer.unsign_object, record["cookie"], Bytes, max_age=check["cookie_age"]
            )
            rejected = found is signing.SignatureExpired
            assert rejected is check["modified_after_load"], (record["id"], check["label"])
        if record["serializer"] == "json":
            assert signer.unsign_object(record["cookie"]) == plain(record["expected"])
        found = signer.inspect(record["cookie"])
        assert (found.signed_at, found.algorithm) == (int(record["time"]), record["algorithm"])
        checked += 1
    assert checked == 325


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
KEYS = st.one_of(TEXT.filter(bool), st.binary(min_size=1, max_size=100))
SEPARATORS = st.text(st.characters(codec="utf-8"), max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


OPTIONS = st.fixed_dictionaries(
    {
        "key": KEYS,
        "salt": st.none() | TEXT.filter(bool),
        "sep": SEPARATORS,
        "algorithm": st.sampled_from(["sha1", "sha256"]),
    }
)


@given(value=TEXT, options=OPTIONS, old=KEYS)
def test_each_signs_as_the_other(value, options, old):
    try:
        other = theirs.Signer(**options, fallback_keys=[old])
    except ValueError:
        for kind in (signing.Signer, signing.TimestampSigner):
            with pytest.raises(ValueError, match="separator"):
                kind(**options)
        return
    ours = signing.Signer(**options, fallback_keys=[old])
    assert ours.salt == (options["salt"] or "django.core.signing.Signer") == other.salt
    assert ours.sign(value) == other.sign(value)
    assert ours.signature(value) == other.signature(value)
    before = theirs.Signer(**{**options, "key": old}).sign(value)
    assert outcome(ours.unsign, before) == outcome(other.unsign, before)
    assert ours.unsign(other.sign(value)) == value

    stamped = theirs.TimestampSigner(**options).sign(value)
    assert signing.TimestampSigner(**options).unsign(stamped) == value
    stamped = signing.TimestampSigner(**options).sign(value)
    assert theirs.TimestampSigner(**options).unsign(stamped) == value


@given(text=TEXT, tail=st.text(":-_=Az09\n", max_size=50))
def test_each_refuses_what_the_other_refuses(text, tail):
    ours, other = signing.Signer(key="key"), theirs.Signer(key="key", fallback_keys=[])
    for attempt in (text, text + ":" + tail, other.sign(text) + tail, other.sign(text)[1:]):
        assert outcome(ours.unsign, attempt) == outcome(other.unsign, attempt)


@given(value=JSON, key=KEYS, compress=st.booleans())
def test_each_reads_the_other_s_objects(value, key, compress):
    ours = signing.dumps(value, key=key, compress=compress)
    other = theirs.dumps(value, key=key, compress=compress)
    if not compress:
        assert ours.split(":")[0] == other.split(":")[0]
    # What comes back of lone surrogates and equal keys is what Python's json makes of them.
    back = json.loads(json.dumps(value))
    assert theirs.loads(ours, key=key, fallback_keys=[]) == back
    assert signing.loads(other, key=key) == back
    assert (
        signing.Signer(key=key).unsign_object(
            theirs.Signer(key=key).sign_object(value, compress=compress)
        )
        == back
    )


@given(
    stamp=st.integers(-(2**70), 2**70) | st.integers(NOW - 100, NOW + 100),
    age=st.one_of(st.integers(-100, 100), st.floats(-1e10, 1e10), st.just(float("inf")), st.none()),
    fraction=st.sampled_from([0, 0.1, 0.25, 0.5, 0.999]),
)
def test_ages_are_measured_alike(stamp, age, fraction):
    now = NOW + fraction
    text = theirs.Signer(key="key", salt="age").sign(f"value:{theirs.b62_encode(stamp)}")
    for max_age in (age, None if age in (None, float("inf")) else datetime.timedelta(seconds=age)):
        ours = signing.TimestampSigner(key="key", salt="age")
        other = theirs.TimestampSigner(key="key", salt="age", fallback_keys=[])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: now)
            wanted = outcome(other.unsign, text, max_age=max_age)
            assert outcome(ours.unsign, text, max_age=max_age) == wanted
        assert outcome(ours.unsign, text, max_age=max_age, now=now) == wanted


@given(name=TEXT.filter(bool), salt=TEXT, value=TEXT, key=TEXT.filter(bool), old=TEXT.filter(bool))
def test_cookies_go_both_ways(name, salt, value, key, old):
    rule = "v2" if HAS_SALT_RULE else "legacy"
    with override_settings(SECRET_KEY=key, SECRET_KEY_FALLBACKS=[old]):
        cookie = signing.CookieSigner(name, salt, salt_rule=rule)
        request = HttpRequest()
        request.COOKIES[name] = cookie.sign(value)
        assert request.get_signed_cookie(name, salt=salt, max_age=60) == value
        made = theirs.get_cookie_signer(
            salt=theirs._cookie_signer_salt(name, salt) if HAS_SALT_RULE else name + salt
        ).sign(value)
        assert cookie.unsign(made, max_age=60) == value
        assert (
            theirs.get_cookie_signer("x").unsign(signing.get_cookie_signer("x").sign(value))
            == value
        )
    with override_settings(SECRET_KEY=old):
        made = signing.CookieSigner(name, salt, salt_rule=rule).sign(value)
    found = signing.CookieSigner(
        name, salt, salt_rule=rule, key=key, fallback_keys=["", old]
    ).inspect(made)
    assert (found.value, found.fallback) == (value, None if key == old else 1)


@pytest.mark.skipif(not HAS_SALT_RULE, reason="the installed Django has one salt rule only")
def test_the_older_salt_rule_is_read_on_request_only():
    with override_settings(SECRET_KEY="key", SECRET_KEY_FALLBACKS=[]):
        old = theirs.get_cookie_signer(salt="namesalt").sign("value")
        with pytest.raises(signing.BadSignature):
            signing.CookieSigner("name", "salt").unsign(old)
        cookie = signing.CookieSigner("name", "salt", accept_salt_rules=["legacy"])
        assert cookie.unsign(old) == "value"
        assert cookie.inspect(old).salt_rule == "legacy"
        written = signing.CookieSigner("name", "salt", salt_rule="legacy").sign("value", now=NOW)
    assert written == signing.get_cookie_signer("namesalt", key="key").sign("value", now=NOW)


@override_settings(SIGNING_BACKEND="django_session_rs.signing.TimestampSigner")
def test_it_serves_as_django_s_signing_backend():
    response, request = HttpResponse(), HttpRequest()
    response.set_signed_cookie("theme", "dark", salt="ui")
    request.COOKIES["theme"] = response.cookies["theme"].value
    assert request.get_signed_cookie("theme", salt="ui", max_age=10) == "dark"
    assert request.get_signed_cookie("theme", default=None, salt="other") is None
    with override_settings(SIGNING_BACKEND="django.core.signing.TimestampSigner"):
        assert request.get_signed_cookie("theme", salt="ui") == "dark"


USERS = st.builds(
    signing.PasswordResetUser,
    pk=st.integers(1) | st.uuids(),
    password=TEXT,
    last_login=st.none() | st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc)),
    email=st.none() | TEXT,
)
# Naive, since Django counts in local time here.
START = datetime.datetime.fromisoformat("2001-01-02")
TIMES = st.datetimes(START, datetime.datetime.fromisoformat("2120-01-01"))


class Model:
    """A user as Django's generator expects one."""

    def __init__(self, user):
        self.pk, self.password, self.last_login, self.address = user

    def get_email_field_name(self):
        return "address"


@given(user=USERS, other=USERS, key=TEXT.filter(bool), made=TIMES, later=st.integers(0, 600_000))
def test_tokens_go_both_ways(user, other, key, made, later):
    now = made + datetime.timedelta(seconds=later)
    with override_settings(SECRET_KEY=key, SECRET_KEY_FALLBACKS=[]):
        django_s, ours = DjangoGenerator(), signing.PasswordResetTokenGenerator()
        django_s._now = lambda: made
        token = ours.make_token(user, now=made)
        assert token == django_s.make_token(Model(user)) == ours.make_token(Model(user), now=made)
        django_s._now = lambda: now
        for some in (user, other):
            wanted = django_s.check_token(Model(some), token)
            assert ours.check_token(some, token, now=now) is wanted
            assert ours.check_token(Model(some), token, now=now) is wanted
    assert not ours.check_token(None, token)
    assert not ours.check_token(user, None)
    assert not ours.check_token(user, "")


class Account(AbstractBaseUser):
    """A model without a table: its app is not installed."""

    class Meta:
        app_label = "nowhere"


@given(password=TEXT, key=KEYS, old=KEYS)
def test_session_auth_hashes_go_both_ways(password, key, old):
    account = Account(password=password)
    with override_settings(SECRET_KEY=key, SECRET_KEY_FALLBACKS=[old]):
        current = account.get_session_auth_hash()
        assert signing.session_auth_hash(password) == current
        for stored in (current, *account.get_session_auth_fallback_hash()):
            found = signing.verify_session_auth_hash(stored, password)
            assert found is not None
            assert found.needs_upgrade is (stored != current)
        assert signing.verify_session_auth_hash(current, password + "x") is None


def test_without_a_key_the_settings_count():
    with override_settings(SECRET_KEY="key", SECRET_KEY_FALLBACKS=["old", "older"]):
        text = theirs.dumps([1], key="older")
        assert signing.loads(text) == [1]
        assert signing.TimestampSigner(salt="django.core.signing").inspect(text).fallback == 1
        assert signing.Signer().sign("x") == theirs.Signer().sign("x")
        with pytest.raises(signing.BadSignature):
            signing.loads(text, key="key")
        with pytest.raises(signing.BadSignature):
            signing.loads(text, fallback_keys=[])
    assert signing.loads(signing.dumps(1)) == 1
    assert settings.SECRET_KEY


def test_a_subclass_has_a_salt_of_its_own():
    class Mine(signing.TimestampSigner):
        pass

    assert Mine(key="key").salt == f"{__name__}.Mine"
    assert Mine(key="key", salt="given").salt == "given"
    assert Mine(key="key").unsign(Mine(key="key").sign("x")) == "x"
    assert isinstance(Mine(key="key"), signing.Signer)


def test_a_value_that_is_no_text_is_signed_as_it_shows():
    for value in (1, None, 1.5, ["y"]):
        ours = signing.Signer(key="key").sign(value)
        assert ours == theirs.Signer(key="key").sign(value)


def test_what_cannot_be_is_refused():
    for key in ("", b""):
        with pytest.raises(ValueError, match="empty"):
            signing.Signer(key=key)
    for bad in (1, ["key"]):
        with pytest.raises(TypeError):
            signing.Signer(key=bad)
    for fallbacks in ("abc", b"abc", [1], 1):
        with pytest.raises(TypeError):
            signing.Signer(key="key", fallback_keys=fallbacks)
    with pytest.raises(InvalidAlgorithm):
        signing.Signer(key="key", algorithm="md5")
    with pytest.raises(InvalidAlgorithm):
        signing.Signer(key="key", accept_algorithms=["sha512"])
    with pytest.raises(ValueError, match="salt rule"):
        signing.CookieSigner("name", key="key", salt_rule="v3")
    with pytest.raises(ValueError, match="form"):
        signing.PasswordResetTokenGenerator(key="key", form="weeks")
    signer = signing.TimestampSigner(key="key")
    for now in (float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match="now"):
            signer.unsign(signer.sign("x"), max_age=1, now=now)
    with pytest.raises(ValueError, match="max_age"):
        signer.unsign(signer.sign("x"), max_age=float("nan"))
    with pytest.raises(TypeError):
        signer.unsign(b"bytes")
    with pytest.raises(UnicodeEncodeError):
        signer.sign("\ud800")


def test_bad_content_under_a_good_signature_is_a_decode_error():
    signer = signing.Signer(key="key", max_size=1000)
    for payload, reason in (("A", "base64"), (".AAAA", "zlib"), ("e30x", "json")):
        with pytest.raises(DecodeError) as caught:
            signer.unsign_object(signer.sign(payload))
        assert caught.value.reason == reason
    bomb = signer.sign_object("x" * 2000, compress=True)
    with pytest.raises(PayloadTooLargeError):
        signer.unsign_object(bomb)


def test_no_message_shows_what_was_signed():
    signer = signing.TimestampSigner(key="hunter2", salt="salt")
    text = signer.sign_object("hunter2hunter2")
    shown = [
        repr(signer),
        repr(signer.inspect(text)),
        repr(signing.CookieSigner("n", key="hunter2")),
    ]
    for bad in (text[:-1], text + "x", "hunter2hunter2", "hunter2hunter2:x"):
        with pytest.raises(signing.BadSignature) as caught:
            signer.unsign(bad)
        shown.append(repr(caught.value))
    for one in shown:
        assert "hunter2" not in one
        assert text.split(":")[0] not in one

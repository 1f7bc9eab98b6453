//! The signing module against what eight Django releases signed and accepted.
#![expect(clippy::similar_names, reason = "what a signer has signed is `signed`")]

use std::collections::BTreeMap;

use django_session::codec::{Compression, KeyMatch};
use django_session::signing::{
    self, Algorithm, CookieSalt, CookieSigner, MaxAge, PasswordResetTokenGenerator,
    PasswordResetUser, Signer, TimestampSigner, TokenForm, cookie_signer,
};
use django_session::{DecodeError, SecretKey};
use jiff::{SignedDuration, Timestamp, civil};
use serde_json::Value;

use crate::vectors::{self, Tally, text, to_python_json};

const COOKIE_SALT: &str = "django.contrib.sessions.backends.signed_cookies";

/// The records of one kind.
fn records(kind: &str) -> Vec<Value> {
    let all = vectors::read("signing").into_iter();
    all.filter(|record| record["kind"] == kind).collect()
}

fn release(record: &Value) -> (u32, u32) {
    let mut parts = text(record, "django_version").split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

fn key(record: &Value) -> SecretKey {
    SecretKey::new(vectors::secret(&record["secret_key"])).unwrap()
}

fn fallbacks(record: &Value) -> Vec<SecretKey> {
    let keys = record["fallbacks"].as_array().map_or(&[][..], Vec::as_slice);
    keys.iter().filter_map(|key| SecretKey::new(vectors::secret(key)).ok()).collect()
}

fn algorithm(record: &Value) -> Algorithm {
    Algorithm::from_name(text(record, "algorithm")).unwrap()
}

/// The algorithm that a release signs with, and what else it reads.
fn algorithms(release: (u32, u32)) -> (Algorithm, &'static [Algorithm]) {
    match release {
        (..=2, _) | (3, 0) => (Algorithm::Sha1, &[]),
        (3, _) => (Algorithm::Sha256, &[Algorithm::Sha1]),
        _ => (Algorithm::Sha256, &[]),
    }
}

fn timestamp(number: &Value) -> Timestamp {
    Timestamp::from_duration(SignedDuration::from_secs_f64(number.as_f64().unwrap())).unwrap()
}

fn limit(now: &Value, max_age: &Value) -> Option<MaxAge> {
    let max_age = SignedDuration::from_secs_f64(max_age.as_f64()?);
    Some(MaxAge { max_age, now: timestamp(now) })
}

/// What Python raises for it.
fn exception(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::BadSignature => "BadSignature",
        DecodeError::SignatureExpired { .. } => "SignatureExpired",
        _ => "ValueError",
    }
}

fn assert_same(id: &str, record: &Value, ours: Result<&str, &DecodeError>) {
    match ours {
        Ok(value) => assert_eq!(record["result"], value, "{id}"),
        Err(error) => assert_eq!(record["raises"], exception(error), "{id}: {error}"),
    }
}

#[test]
fn signed_texts_are_django_s() {
    let records = records("sign");
    let mut tally = Tally::new("signing");
    for record in &records {
        let id = text(record, "id");
        let (salt, sep, value) = (text(record, "salt"), text(record, "sep"), text(record, "value"));
        let (signed, algorithm) = (text(record, "signed"), algorithm(record));
        if text(record, "class") == "Signer" {
            assert_eq!(record["default_salt"], salt == Signer::DEFAULT_SALT, "{id}");
            let signer = Signer::new(&key(record), salt).with_algorithm(algorithm);
            let signer = signer.with_separator(sep).unwrap();
            assert_eq!(signer.sign(value), signed, "{id}");
            let found = signer.unsign(signed).unwrap();
            assert_eq!((found.value, found.key), (value, KeyMatch::Primary), "{id}");
            assert_eq!(found.algorithm, algorithm, "{id}");
            assert_eq!(signed, format!("{value}{sep}{}", signer.signature(value)), "{id}");
        } else {
            assert_eq!(record["default_salt"], salt == TimestampSigner::DEFAULT_SALT, "{id}");
            let now = record["time"].as_i64().unwrap();
            let signer = TimestampSigner::new(&key(record), salt).with_algorithm(algorithm);
            let signer = signer.with_separator(sep).unwrap();
            assert_eq!(signer.sign(value, now), signed, "{id}");
            let found = signer.unsign(signed, None).unwrap();
            assert_eq!((found.value, found.signed_at), (value, now), "{id}");
            assert_eq!((found.key, found.algorithm), (KeyMatch::Primary, algorithm), "{id}");
        }
        tally.passed(record);
    }
    assert_eq!(records.len(), 3 * 126 + 5 * 378);
}

#[test]
fn a_signed_text_is_accepted_where_django_accepts_it() {
    let records = records("unsign");
    let mut tally = Tally::new("signing");
    for record in &records {
        let id = text(record, "id");
        let (signed, salt) = (text(record, "signed"), text(record, "salt"));
        let (algorithm, others) = algorithms(release(record));
        let signer = TimestampSigner::new(&key(record), salt)
            .accept_algorithms(others.iter().copied())
            .with_fallbacks(&fallbacks(record))
            .with_algorithm(algorithm);
        if text(record, "class") == "Signer" {
            let signer = Signer::new(&key(record), salt)
                .with_fallbacks(&fallbacks(record))
                .with_algorithm(algorithm)
                .accept_algorithms(others.iter().copied());
            let found = signer.unsign(signed);
            assert_same(id, record, found.as_ref().map(|found| found.value));
        } else {
            let found = signer.unsign(signed, limit(&record["now"], &record["max_age"]));
            assert_same(id, record, found.as_ref().map(|found| found.value));
            match found.as_ref().map(|found| (found.value, found.key, found.algorithm)) {
                Ok(("old", key, _)) => assert!(matches!(key, KeyMatch::Fallback(_)), "{id}"),
                Ok(("sha1", _, algorithm)) => assert_eq!(algorithm, Algorithm::Sha1, "{id}"),
                _ => {}
            }
        }
        tally.passed(record);
    }
    assert_eq!(records.len(), 3 * 52 + 5 * 54);
}

#[test]
fn signed_objects_are_django_s() {
    let records = records("object");
    let mut tally = Tally::new("signing");
    for record in &records {
        let id = text(record, "id");
        let (payload, signed) = (text(record, "payload"), text(record, "signed"));
        let now = record["time"].as_i64().unwrap();
        let compress = record["compress"] == true;
        let key = key(record);
        let salt = text(record, "salt");
        let timed = TimestampSigner::new(&key, salt).with_algorithm(algorithm(record));
        let plain = Signer::new(&key, salt).with_algorithm(algorithm(record));
        let is_plain = record["call"] == "Signer";
        let read = |text: &str| {
            if is_plain { plain.unsign_payload(text) } else { timed.unsign_payload(text, None) }
        };
        assert_eq!(read(signed).unwrap(), payload.as_bytes(), "{id}");
        for compression in [Compression::Fast, Compression::Small] {
            let compression = compress.then_some(compression);
            let ours = if is_plain {
                plain.sign_payload(payload.as_bytes(), compression)
            } else {
                timed.sign_payload(payload.as_bytes(), compression, now)
            };
            assert_eq!(read(&ours).unwrap(), payload.as_bytes(), "{id}");
            if !compress {
                assert_eq!(ours, signed, "{id}");
            }
        }
        tally.passed(record);
        // The same through values, for those that a type of Rust's can hold.
        let Ok(object) = serde_json::from_str::<Value>(payload) else { continue };
        if payload.contains("1e+16") || payload.contains(&"0".repeat(20)) {
            continue;
        }
        if is_plain {
            let ours = plain.sign_object(&object, None).unwrap();
            assert_eq!(plain.unsign_object::<Value>(&ours).unwrap(), object, "{id}");
            assert!(compress || ours == signed, "{id}");
        } else {
            assert_eq!(timed.unsign_object::<Value>(signed, None).unwrap(), object, "{id}");
            let ours = timed.sign_object(&object, None, now).unwrap();
            assert!(compress || ours == signed, "{id}");
            if algorithm(record) == Algorithm::Sha256 {
                assert_eq!(signing::dumps(&object, &key, salt, now).unwrap(), ours, "{id}");
                let ours = signing::loads::<Value>(signed, &key, salt, None).unwrap();
                assert_eq!(ours, object, "{id}");
            }
        }
    }
    assert_eq!(records.len(), 4 * 96 + 4 * 172);
}

#[test]
fn an_object_that_is_none_is_a_typed_error() {
    let signer = Signer::new(&SecretKey::new("secret").unwrap(), "object").with_max_size(1000);
    let read = |payload: &[u8]| signer.unsign_object::<u8>(&signer.sign_payload(payload, None));
    assert_eq!(read(b" 7 ").unwrap(), 7);
    assert!(matches!(read(b"{"), Err(DecodeError::Serializer(_))));
    assert!(matches!(read(b"7 8"), Err(DecodeError::Serializer(_))));
    assert!(matches!(read(b"\"7\""), Err(DecodeError::Deserialize(_))));
    assert!(matches!(read(b"256"), Err(DecodeError::Deserialize(_))));
    let unsign = |text: &str| signer.unsign_object::<u8>(&signer.sign(text)).unwrap_err();
    assert!(matches!(unsign("A"), DecodeError::Malformed { .. }));
    assert!(matches!(unsign(".AAAA"), DecodeError::Malformed { .. }));
    let bomb = signer.sign_payload(&[b' '; 1001], Some(Compression::Small));
    let found = signer.unsign_object::<u8>(&bomb);
    assert!(matches!(found, Err(DecodeError::TooLarge { limit: 1000 })));
}

#[test]
fn a_payload_does_not_show_in_an_error() {
    let signer = Signer::new(&SecretKey::new("secret").unwrap(), "object");
    for payload in ["\"hunter2\"", "hunter2", "{\"hunter2\":1}"] {
        let signed = signer.sign_payload(payload.as_bytes(), None);
        let error = signer.unsign_object::<u8>(&signed).unwrap_err();
        assert!(!format!("{error:?} {error} {signer:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn signed_cookies_are_django_s() {
    let records = records("cookie");
    let mut checks = 0;
    let mut tally = Tally::new("signing");
    for record in &records {
        let id = text(record, "id");
        let now = record["time"].as_i64().unwrap();
        let key = key(record);
        let (algorithm, others) = algorithms(release(record));
        let rule = match text(record, "salt_rule") {
            "v2" => CookieSalt::V2,
            _ => CookieSalt::Legacy,
        };
        let signer = |name: &str, salt: &str| {
            CookieSigner::new(&key, name, salt)
                .with_salt(rule)
                .with_fallbacks(&fallbacks(record))
                .accept_algorithms(others.iter().copied())
                .with_algorithm(algorithm)
        };
        let (name, salt) = (text(record, "name"), text(record, "salt"));
        assert_eq!(signer(name, salt).sign(text(record, "value"), now), record["signed"], "{id}");
        let plain = cookie_signer(&key, [], signing::COOKIE_SIGNER_SALT).with_algorithm(algorithm);
        assert_eq!(plain.sign("plain", now), record["cookie_signer"], "{id}");

        for check in record["checks"].as_array().unwrap() {
            let mut signer = signer(text(check, "name"), text(check, "salt"));
            if check["legacy_salt_fallback"] == true {
                signer = signer.accept_salts([CookieSalt::Legacy]);
            }
            let signed = text(check, "signed");
            let found = signer.unsign(signed, limit(&check["now"], &check["max_age"]));
            assert_same(&format!("{id} {check}"), check, found.as_ref().map(|found| found.value));
            if let Ok(found) = found {
                let by_rule = if signed == record["signed"] || found.value == "old" {
                    rule
                } else {
                    CookieSalt::Legacy
                };
                assert_eq!((found.salt, found.signed_at), (by_rule, now), "{id}");
                let fallback = found.value == "old";
                assert_eq!(matches!(found.key, KeyMatch::Fallback(_)), fallback, "{id}");
            }
            checks += 1;
        }
        tally.passed(record);
    }
    assert_eq!((records.len(), checks), (8 * 13, 2223));
}

/// What a release makes, and what else it reads.
fn generator(record: &Value) -> PasswordResetTokenGenerator {
    let (algorithm, others) = algorithms(release(record));
    let (form, forms): (_, &[_]) = match release(record) {
        (..=2, _) | (3, 0) => (TokenForm::Days, &[]),
        (3, 1) => (TokenForm::Seconds, &[TokenForm::Days]),
        (3, _) => (TokenForm::SecondsAndEmail, &[TokenForm::Days]),
        _ => (TokenForm::SecondsAndEmail, &[]),
    };
    PasswordResetTokenGenerator::new(&key(record))
        .with_fallbacks(&fallbacks(record))
        .with_form(form)
        .accept_forms(forms.iter().copied())
        .with_algorithm(algorithm)
        .accept_algorithms(others.iter().copied())
}

fn user(user: &Value) -> PasswordResetUser<'_> {
    let last_login = user["last_login"].as_str().map(|text| {
        // Whatever the offset: Django drops it without converting.
        let wall = text.split('+').next().unwrap();
        wall.parse::<civil::DateTime>().unwrap()
    });
    PasswordResetUser {
        pk: text(user, "pk"),
        password: text(user, "password"),
        last_login,
        email: user["email"].as_str().unwrap_or_default(),
    }
}

#[test]
fn reset_tokens_are_django_s() {
    let records = records("token");
    let (mut checks, mut kinder) = (0, 0);
    let mut tally = Tally::new("signing");
    for record in &records {
        let id = text(record, "id");
        let now: civil::DateTime = text(record, "now").parse().unwrap();
        let generator = generator(record);
        match text(record, "made") {
            "own" => assert_eq!(generator.make_token(&user(&record["user"]), now), record["token"]),
            "sha1" => {
                let sha1 = generator.clone().with_algorithm(Algorithm::Sha1);
                assert_eq!(sha1.make_token(&user(&record["user"]), now), record["token"]);
            }
            _ => {}
        }
        for check in record["checks"].as_array().unwrap() {
            let timeout = SignedDuration::from_secs(check["timeout"].as_i64().unwrap());
            let generator = generator.clone().with_timeout(timeout);
            let now = text(check, "now").parse().unwrap();
            let found = generator.check_token(&user(&check["user"]), text(check, "token"), now);
            checks += 1;
            if release(record) == (3, 2)
                && record["made"] == "days"
                && check["user"]["email"].as_str().is_some_and(|email| !email.is_empty())
            {
                // 3.2 hashes the address into the old form too, which no release wrote: it reads
                // the tokens of 3.0 for users without one only.
                assert_eq!(check["result"], false, "{id}");
                kinder += u32::from(found.is_ok());
                continue;
            }
            assert_eq!(check["result"], found.is_ok(), "{id} {check}");
            if let Ok(found) = found {
                let fallback = record["made"] == "fallback";
                assert_eq!(matches!(found.key, KeyMatch::Fallback(1)), fallback, "{id}");
            }
        }
        tally.passed(record);
    }
    assert_eq!((records.len(), checks, kinder), (8 * 16 + 7 * 16, 11040, 96));
}

#[test]
fn a_count_of_seconds_is_never_read_as_days() {
    // With both forms and SHA-1 accepted, the two hash the same text. As days, this token would be
    // good for two million years.
    let key = SecretKey::new("secret").unwrap();
    let user = PasswordResetUser { pk: "1", password: "x", last_login: None, email: "" };
    let generator = PasswordResetTokenGenerator::new(&key)
        .with_form(TokenForm::Seconds)
        .with_algorithm(Algorithm::Sha1)
        .accept_forms([TokenForm::Days]);
    let made = civil::date(2023, 11, 15).at(9, 0, 0, 0);
    let token = generator.make_token(&user, made);
    let late = made + SignedDuration::from_hours(73);
    for generator in [generator, PasswordResetTokenGenerator::new(&key).with_form(TokenForm::Days)]
    {
        assert!(generator.check_token(&user, &token, late).is_err());
    }
}

#[test]
fn weaker_rules_are_only_followed_on_request() {
    let key = SecretKey::new("secret").unwrap();
    let signer = TimestampSigner::new(&key, "salt");
    let old = signer.clone().with_algorithm(Algorithm::Sha1).sign("value", 0);
    assert!(signer.unsign(&old, None).unwrap_err().is_bad_signature());
    let both = signer.clone().accept_algorithms([Algorithm::Sha1]);
    assert_eq!(both.unsign(&old, None).unwrap().algorithm, Algorithm::Sha1);
    assert_eq!(both.sign("value", 0), signer.sign("value", 0));
    // What has been signed with before is not kept in the list by changing it.
    let changed = both.clone().with_algorithm(Algorithm::Sha1);
    assert!(changed.unsign(&signer.sign("value", 0), None).is_err());
    assert_eq!(changed.sign("value", 0), old);

    let cookie = CookieSigner::new(&key, "name", "");
    let old = cookie.clone().with_salt(CookieSalt::Legacy).sign("value", 0);
    assert!(cookie.unsign(&old, None).unwrap_err().is_bad_signature());
    let both = cookie.accept_salts([CookieSalt::Legacy]);
    assert_eq!(both.unsign(&old, None).unwrap().salt, CookieSalt::Legacy);
}

/// The `signed_cookies` engine: the signature, its time and its age, whatever the serializer.
#[test]
fn session_cookies_are_accepted_where_django_accepts_them() {
    let records = vectors::read("signed_cookies");
    let mut checks = 0;
    for record in &records {
        let id = text(record, "id");
        assert_eq!(text(record, "salt"), COOKIE_SALT, "{id}");
        let cookie = text(record, "cookie");
        let algorithm = algorithm(record);
        let signer = TimestampSigner::new(&key(record), COOKIE_SALT)
            .with_fallbacks(&fallbacks(record))
            .with_algorithm(algorithm);
        let found = signer.unsign(cookie, None).unwrap_or_else(|error| panic!("{id}: {error}"));
        #[expect(clippy::cast_possible_truncation, reason = "Django cuts the fraction too")]
        let time = record["time"].as_f64().unwrap() as i64;
        assert_eq!((found.signed_at, found.key), (time, KeyMatch::Primary), "{id}");
        assert_eq!(found.algorithm, algorithm, "{id}");
        assert_eq!(found.value.starts_with('.'), record["compressed"], "{id}");

        let payload = signer.unsign_payload(cookie, None).unwrap();
        let again = signer.sign_payload(&payload, None, time);
        if record["compressed"] == false {
            assert_eq!(again, cookie, "{id}");
        }
        assert_eq!(signer.unsign_payload(&again, None).unwrap(), payload, "{id}");
        if record["serializer"] == "json" {
            let expected = to_python_json(&record["expected"]);
            if text(record, "python_version").starts_with("2.") {
                // Its dicts have no order. Escapes as text: serde_json knows no lone surrogates.
                let read = |json: &str| {
                    let json = json.replace("\\u", "u");
                    serde_json::from_str::<BTreeMap<String, Value>>(&json).unwrap()
                };
                assert_eq!(read(str::from_utf8(&payload).unwrap()), read(&expected), "{id}");
            } else {
                assert_eq!(payload, expected.as_bytes(), "{id}");
            }
        }
        for check in record["load_checks"].as_array().unwrap() {
            let found = signer.unsign_payload(cookie, limit(&check["now"], &check["cookie_age"]));
            let accepted = check["modified_after_load"] == false;
            assert_eq!(found.is_ok(), accepted, "{id}: {}", check["label"]);
            assert!(accepted || matches!(found, Err(DecodeError::SignatureExpired { .. })), "{id}");
            checks += 1;
        }
    }
    assert_eq!((records.len(), checks), (325, 2925));
}

#[test]
fn a_row_of_today_s_layout_signed_with_sha1_is_read_on_request() {
    let mut found = 0;
    for record in vectors::read("legacy_sha1_transitional") {
        let id = text(&record, "id");
        if !id.ends_with("/modern_layout_signed_sha1") {
            continue;
        }
        let stored = record["stored"]["value"].as_str().unwrap();
        let signer = TimestampSigner::new(&key(&record), text(&record, "salt"));
        assert!(signer.unsign(stored, None).unwrap_err().is_bad_signature(), "{id}");
        let signer = signer.accept_algorithms([Algorithm::Sha1]);
        let payload = signer.unsign_payload(stored, None).unwrap();
        assert_eq!(payload, to_python_json(&record["expected"]).as_bytes(), "{id}");
        found += 1;
    }
    assert_eq!(found, 2);
}

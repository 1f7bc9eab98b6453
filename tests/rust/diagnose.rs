//! Why a text cannot be decoded: each reason, and what Django itself refused.

use std::collections::HashSet;

use django_session::codec::{
    Diagnosis, Format, Hints, MaxAge, Missing, SESSION_SALT, Serializer, TimestampSigner,
};
use django_session::signing::{Algorithm, CookieSigner, Signer, cookie_signer};
use django_session::{SecretKey, SessionCodec, SessionData};
use proptest::prelude::*;

use crate::vectors::{self, secret, text};

const KEY: &str = "correct horse battery staple";
/// Django 5.2 wrote it with that key.
const STORED: &str = "eyJhIjoxfQ:1r31eq:4OVpArSAAUYyfDXk1ZIieKYo9WrR2kQvEte6pBdBWGQ";
const NOW: i64 = 1_700_000_000;
const COOKIES: &str = "django.contrib.sessions.backends.signed_cookies";

fn key(text: &str) -> SecretKey {
    SecretKey::new(text).unwrap()
}

fn codec() -> SessionCodec {
    SessionCodec::new(&key(KEY))
}

/// The same session in an older form.
fn stored_as(format: Format, serializer: Serializer) -> String {
    let data = SessionData::from_json(r#"{"cart":["tea"],"user":42}"#).unwrap();
    codec().with_format(format).with_serializer(serializer).encode(&data, NOW).unwrap()
}

fn reason(stored: impl AsRef<[u8]>) -> &'static str {
    codec().diagnose(stored).expect("it cannot be decoded").reason()
}

#[test]
fn a_key_that_fits_is_fine() {
    assert_eq!(codec().diagnose(STORED), None);
    let codec = SessionCodec::new(&key("new")).with_fallbacks([&key("older"), &key(KEY)]);
    assert_eq!(codec.diagnose(STORED), None);
    let legacy = stored_as(Format::Legacy, Serializer::Pickle);
    let codec = codec.accept([Format::Legacy]).with_serializer(Serializer::Pickle);
    assert_eq!(codec.diagnose(legacy), None);
}

#[test]
fn another_key_is_told_from_another_salt() {
    let other = SessionCodec::new(&key("another"));
    assert_eq!(other.diagnose(STORED), Some(Diagnosis::WrongKey { format: Format::Signed }));
    for format in [Format::Legacy, Format::Antique, Format::SignedSha1] {
        let serializer =
            if format == Format::Antique { Serializer::Pickle } else { Serializer::Json };
        let stored = stored_as(format, serializer);
        assert_eq!(other.diagnose(&stored), Some(Diagnosis::WrongKey { format }), "{stored}");
    }

    for salt in [COOKIES, "django.core.signing", "django.core.signing.TimestampSigner"] {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha1] {
            let signer = TimestampSigner::new(&key(KEY), salt).with_algorithm(algorithm);
            let stored = signer.sign("eyJhIjoxfQ", NOW);
            let format = match algorithm {
                Algorithm::Sha1 => Format::SignedSha1,
                _ => Format::Signed,
            };
            let found = codec().diagnose(stored);
            assert_eq!(found, Some(Diagnosis::WrongSalt { salt: salt.to_owned(), format }));
        }
    }
    let mine = SessionCodec::with_salt(&key(KEY), "django.contrib.sessions.Mine");
    let salt = SESSION_SALT.to_owned();
    let found = Some(Diagnosis::WrongSalt { salt, format: Format::Signed });
    assert_eq!(mine.diagnose(STORED), found);
}

#[test]
fn salts_that_the_caller_names_are_tried_as_names_of_classes_too() {
    let data = SessionData::from_json("{}").unwrap();
    let full = "django.contrib.sessions.Shop.SessionStore";
    for format in [Format::Signed, Format::SignedSha1] {
        let stored =
            SessionCodec::with_salt(&key(KEY), full).with_format(format).encode(&data, 0).unwrap();
        for name in [full, "Shop.SessionStore"] {
            let found = codec().diagnose_with(&stored, &Hints::new().with_salts(["x", name]));
            assert_eq!(found, Some(Diagnosis::WrongSalt { salt: full.to_owned(), format }));
        }
        assert_eq!(reason(&stored), "wrong_key");
    }
    let legacy = SessionCodec::new(&key(KEY)).with_legacy_salt("mine").with_format(Format::Legacy);
    let stored = legacy.encode(&data, 0).unwrap();
    let found = codec().diagnose_with(&stored, &Hints::new().with_salts(["mine"]));
    let format = Format::Legacy;
    assert_eq!(found, Some(Diagnosis::WrongSalt { salt: "mine".to_owned(), format }));

    let cookie = CookieSigner::new(&key(KEY), "basket", "").sign("tea", 0);
    let found = codec().diagnose_with(&cookie, &Hints::new().with_salts(["basket"])).unwrap();
    assert_eq!(found.reason(), "other_value");
}

#[test]
fn a_form_that_is_not_accepted_is_named() {
    for (format, serializer) in [
        (Format::Legacy, Serializer::Json),
        (Format::Antique, Serializer::Pickle),
        (Format::SignedSha1, Serializer::Json),
    ] {
        let stored = stored_as(format, serializer);
        let found = codec().diagnose(&stored);
        assert_eq!(found, Some(Diagnosis::FormatNotAccepted { format }));
        assert!(found.unwrap().to_string().contains(format.name()));
        let codec = codec().accept([format]).accept_serializers([serializer]);
        assert_eq!(codec.diagnose(&stored), None);
    }
}

#[test]
fn content_under_a_good_signature_has_its_own_reasons() {
    let signed = |payload: &str| TimestampSigner::new(&key(KEY), SESSION_SALT).sign(payload, NOW);
    let payload = |payload: &[u8]| codec().encode_payload(payload, NOW);
    let pickle = stored_as(Format::Signed, Serializer::Pickle);
    for (stored, reason) in [
        (signed("A"), "not_base64"),
        (signed(".eyJhIjoxfQ"), "not_zlib"),
        (payload(b"{\"a\":"), "not_json"),
        (payload(b"no JSON"), "not_json"),
        (payload(b"[1,2]"), "not_an_object"),
        (pickle.clone(), "wrong_serializer"),
        (payload(b"\x80\x04}"), "wrong_serializer"),
        (Signer::new(&key(KEY), SESSION_SALT).sign("eyJhIjoxfQ"), "bad_timestamp"),
        (Signer::new(&key(KEY), SESSION_SALT).sign("eyJhIjoxfQ:1_0"), "bad_timestamp"),
    ] {
        assert_eq!(self::reason(&stored), reason, "{stored}");
    }
    let pickles = codec().with_serializer(Serializer::Pickle);
    let broken = pickles.diagnose(payload(b"\x80\x04}")).unwrap();
    assert_eq!(broken.reason(), "not_pickle");
    assert_eq!(pickles.diagnose(pickle), None);

    let bomb = payload(&vec![b' '; 100_000]);
    let found = codec().with_max_size(1000).diagnose(bomb);
    assert_eq!(found, Some(Diagnosis::TooLarge { limit: 1000 }));
}

#[test]
fn an_age_beyond_the_limit_is_told() {
    let limit = |seconds| {
        let now = jiff::Timestamp::from_second(NOW + 100).unwrap();
        Hints::new().with_max_age(MaxAge { max_age: jiff::SignedDuration::from_secs(seconds), now })
    };
    assert_eq!(codec().diagnose_with(STORED, &limit(100)), None);
    let found = codec().diagnose_with(STORED, &limit(99));
    assert_eq!(found, Some(Diagnosis::Expired { age: 100, max_age: 99 }));
    // A form that has no time cannot be young enough.
    let legacy = stored_as(Format::Legacy, Serializer::Json);
    let found = codec().accept([Format::Legacy]).diagnose_with(legacy, &limit(99));
    assert_eq!(found, Some(Diagnosis::BadTimestamp));
}

#[test]
fn what_copying_does_to_a_value_is_undone_to_look_at_it() {
    for (stored, reason) in [
        (format!(" {STORED}\n"), "whitespace"),
        (STORED.replace(":4O", "\r\n :4O"), "whitespace"),
        (format!("\"{STORED}\""), "quoted"),
        (format!("  '{STORED}'  "), "quoted"),
        (format!("b'{STORED}'"), "quoted"),
        (format!("\u{201c}{STORED}\u{201d}"), "quoted"),
        (STORED.replace(':', "%3A"), "percent_encoded"),
        (format!("\"{}\"\n", STORED.replace(':', "%3a")), "percent_encoded"),
        (format!("sessionid={STORED}; HttpOnly; Path=/"), "surrounded"),
        (format!("Cookie: csrftoken=abc; sessionid={STORED}"), "surrounded"),
        (format!(" 2va0kdi7ab9mkv1a3zm7h9lc | {STORED} | 2023-11-28"), "surrounded"),
        (format!("{{\"session_data\": \"{STORED}\"}}"), "surrounded"),
        (String::new(), "empty"),
        ("  \n".to_owned(), "empty"),
    ] {
        assert_eq!(self::reason(&stored), reason, "{stored}");
    }
    // The deeper reason is the one to know first.
    let other = SessionCodec::new(&key("another")).diagnose(format!("\"{STORED}\"")).unwrap();
    assert_eq!(other.reason(), "wrong_key");
}

#[test]
fn what_is_no_session_is_recognized() {
    let messages = cookie_signer(&key(KEY), [], "django.contrib.messages").sign("W10", NOW);
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.X8Gl5BWnyWx0wJHzqhCYX1Gl5BWnyWx0wJHzqhCYX1A";
    for (stored, reason) in [
        ("6alroudp9lxc4qpo085poix3pnhq3rcf", "session_key"),
        ("hJ0aLk3TzQm9dXw7vRbN2cYf5GpE8sUiTzQm9dXw7vRbN2cYf5GpE8sUihJ0aLk3", "other_value"),
        ("bxp7o0-81fbe851a892f17e549d0489c9f12ecf", "other_value"),
        (&messages, "other_value"),
        (jwt, "other_value"),
        (r#"{"_auth_user_id": "1"}"#, "unsigned"),
        ("(dp0\nS'a'\np1\nI1\ns.", "unsigned"),
        ("gASVCgAAAAAAAAB9lIwBYZRLAXMu", "unsigned"),
        ("hello", "unrecognized"),
        ("1", "unrecognized"),
        ("é:é:é", "damaged"),
    ] {
        assert_eq!(self::reason(stored), reason, "{stored}");
    }
    let bytes: [(&[u8], &str); 5] = [
        (b"\x80\x04\x95\x0a\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.", "unsigned"),
        (b"\x78\x9c\xff", "other_value"),
        (b"\x28\xb5\x2f\xfd\xff", "other_value"),
        (b"SQLite format 3\0\xff", "other_value"),
        (b"\xff\xfe", "unrecognized"),
    ];
    for (stored, reason) in bytes {
        assert_eq!(self::reason(stored), reason);
    }
}

#[test]
fn a_value_that_was_cut_says_what_is_missing() {
    let missing = |stored: &str| match codec().diagnose(stored) {
        Some(Diagnosis::Truncated { missing }) => Some(missing),
        _ => None,
    };
    // Within the signature, before it, before the time stamp; from the front.
    for length in 18..STORED.len() {
        let expected = (length != 18 + 27).then_some(Missing::Signature);
        assert_eq!(missing(&STORED[..length]), expected, "{length}");
    }
    assert_eq!(missing(&STORED[..17]), Some(Missing::Signature));
    assert_eq!(missing(&STORED[..10]), Some(Missing::TimestampAndSignature));
    assert_eq!(missing(&STORED[..6]), Some(Missing::TimestampAndSignature));
    assert_eq!(missing(&STORED[10..]), Some(Missing::Beginning));
    assert_eq!(missing(&STORED[11..]), Some(Missing::Beginning));

    let data = SessionData::from_json(&format!(r#"{{"a":"{}"}}"#, "tea ".repeat(200))).unwrap();
    let stored = codec().encode(&data, NOW).unwrap();
    assert!(stored.starts_with('.'));
    assert_eq!(missing(&stored[..20]), Some(Missing::TimestampAndSignature));
    assert_eq!(self::reason(&stored[..2]), "unrecognized", "too little to tell");
    let (start, end) = stored.split_at(20);
    assert_eq!(self::reason(format!("{}{end}", &start[..16])), "not_zlib");

    for serializer in [Serializer::Json, Serializer::Pickle] {
        let legacy = stored_as(Format::Legacy, serializer);
        for length in 16..legacy.trim_end_matches('=').len() {
            assert_eq!(missing(&legacy[..length]), Some(Missing::End), "{length}");
        }
    }
    let antique = stored_as(Format::Antique, Serializer::Pickle);
    let whole = antique.trim_end_matches('=').len();
    for length in 16..whole {
        // Cut where the pickle ends, nothing tells that there was more.
        let reason = self::reason(&antique[..length]);
        assert!(matches!(reason, "truncated" | "unsigned"), "{length}: {reason}");
    }
}

#[test]
fn what_django_refused_gets_a_reason() {
    let mut refused = 0;
    let mut reasons = HashSet::new();
    for record in vectors::read("negative") {
        let id = text(&record, "id");
        if !id.contains("/decode/") || record["stored"]["encoding"] != "text" {
            continue;
        }
        let stored = text(&record["stored"], "value");
        let key = SecretKey::new(secret(&record["secret_key"])).unwrap();
        let codec = match record["salt"].as_str() {
            Some(salt) if salt.starts_with("django.contrib.sessions.") => {
                SessionCodec::with_salt(&key, salt)
            }
            Some(legacy) => SessionCodec::new(&key).with_legacy_salt(legacy),
            None => SessionCodec::new(&key),
        };
        let serializer = Serializer::from_name(text(&record, "serializer")).unwrap();
        let codec = codec.with_serializer(serializer).accept([Format::Legacy, Format::Antique]);
        let diagnosis = codec.diagnose(stored);
        assert_eq!(diagnosis.is_none(), codec.decode(stored).is_ok(), "{id}");
        let Some(diagnosis) = diagnosis else { continue };
        refused += 1;
        reasons.insert(diagnosis.reason());
        let case = id.rsplit('/').next().unwrap();
        let expected: &[&str] = match case {
            "wrong_key" | "legacy_format_wrong_key" | "wrong_class" => &["wrong_key"],
            "wrong_salt_cookie_backend" | "wrong_salt_signing_default" => &["wrong_salt"],
            "sha1_signature" => &["format_not_accepted"],
            "truncated" | "truncated_37" | "truncated_40" | "truncated_80" => &["truncated"],
            "leading_space" | "signature_trailing_newline" => &["whitespace"],
            "zlib_truncated" | "zlib_garbage" => &["not_zlib"],
            "zlib_bomb" => &["too_large"],
            "pickle_under_json" => &["wrong_serializer"],
            "json_list" | "json_null" => &["not_an_object"],
            "empty" => &["empty"],
            _ => continue,
        };
        assert!(expected.contains(&diagnosis.reason()), "{id}: {diagnosis:?}");
    }
    assert!(refused > 300 && reasons.len() > 12, "{refused} {reasons:?}");
}

#[test]
fn reasons_are_names_and_messages_are_sentences() {
    let names: HashSet<_> = Diagnosis::REASONS.into_iter().collect();
    assert_eq!(names.len(), Diagnosis::REASONS.len());
    assert!(Diagnosis::REASONS.is_sorted());
    for name in names {
        assert!(
            name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'6' | b'4')),
            "{name}"
        );
    }
    for stored in ["", "hello", STORED, &STORED[..30], "6alroudp9lxc4qpo085poix3pnhq3rcf"] {
        let Some(found) = SessionCodec::new(&key("other")).diagnose(stored) else { continue };
        assert!(Diagnosis::REASONS.contains(&found.reason()));
        let message = found.to_string();
        assert!(!message.ends_with('.') && message.contains(": "), "{message}");
    }
}

proptest! {
    /// One character more, less or other is never taken for nothing, and shows in no message.
    #[test]
    fn any_change_to_a_value_has_a_reason(at in 0..STORED.len(), with in "[A-Za-z0-9:. %\"é]?") {
        let changed = format!("{}{with}{}", &STORED[..at], &STORED[at + 1..]);
        prop_assume!(changed != STORED);
        let found = codec().diagnose(&changed).expect("it is not what was signed");
        prop_assert!(Diagnosis::REASONS.contains(&found.reason()));
    }

    #[test]
    fn no_bytes_break_it(stored in prop::collection::vec(any::<u8>(), 0..300)) {
        let found = codec().accept(Format::ALL).diagnose(&stored).expect("nobody signed it");
        prop_assert!(Diagnosis::REASONS.contains(&found.reason()));
    }

    #[test]
    fn no_message_repeats_what_it_is_about(text in "[a-zA-Z0-9+/=:._-]{12,80}") {
        let found = codec().diagnose(&text).unwrap();
        let shown = format!("{found} {found:?}");
        prop_assert!(!shown.contains(&text) && !shown.contains(KEY));
    }
}

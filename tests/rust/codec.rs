//! The codec against what Django wrote and refused.

use django_session::codec::graph::{Graph, Kind};
use django_session::codec::pickle::Limits;
use django_session::codec::{Compression, JsonErrorKind, KeyMatch, SecretKey, SessionCodec};
use django_session::{DecodeError, SessionData};
use serde_json::Value;

use crate::vectors::{self, Verdict, secret, text, to_python_json};
use crate::{formats, pickle};

fn codec(record: &Value, key: &Value) -> SessionCodec {
    let fallbacks = record["fallbacks"].as_array().unwrap();
    let fallbacks = fallbacks.iter().filter_map(|key| SecretKey::new(secret(key)).ok());
    let fallbacks: Vec<_> = fallbacks.collect();
    let salt = record["salt"].as_str().unwrap_or("django.contrib.sessions.SessionStore");
    SessionCodec::with_salt(&SecretKey::new(secret(key)).unwrap(), salt).with_fallbacks(&fallbacks)
}

#[expect(clippy::cast_possible_truncation, reason = "Django cuts the fraction too")]
fn seconds(record: &Value, name: &str) -> i64 {
    record[name].as_f64().unwrap().floor() as i64
}

/// What Django stores for a payload, to compare lengths and bytes with.
fn payload(codec: &SessionCodec, stored: &str) -> Vec<u8> {
    codec.decode_payload(stored).unwrap().payload
}

#[test]
fn what_ten_releases_wrote_is_read_and_written_alike() {
    let passed = vectors::each("modern_json", |record| {
        let id = text(record, "id");
        let codec = codec(record, &record["secret_key"]);
        let stored = record["stored"]["value"].as_str().unwrap();
        let decoded = codec.decode(stored).unwrap_or_else(|error| panic!("{id}: {error}"));

        assert_eq!(decoded.key, KeyMatch::Primary, "{id}");
        assert_eq!(decoded.signed_at, Some(seconds(record, "time")), "{id}");
        assert_eq!(decoded.compressed, record["compressed"], "{id}");

        // Each value alone, and the whole: the bytes that Django's serializer wrote. Where the input
        // held keys that are one key afterwards, Django's own payload is the longer one.
        let json = decoded.data.to_json().unwrap();
        assert_eq!(json, to_python_json(&record["expected"]), "{id}");
        if record.get("input").is_none() {
            assert_eq!(json.as_bytes(), payload(&codec, stored), "{id}");
        }

        let now = seconds(record, "time");
        for compression in [Compression::Fast, Compression::Small] {
            let codec = codec.clone().with_compression(compression);
            let ours = codec.encode(&decoded.data, now).unwrap();
            assert_eq!(codec.decode(&ours).unwrap().data.to_json().unwrap(), json, "{id}");
            let limit = if compression == Compression::Fast { 1.3 } else { 1.02 };
            #[expect(clippy::cast_precision_loss, reason = "texts are short")]
            let ratio = ours.len() as f64 / stored.len() as f64;
            assert!(ratio <= limit, "{id}: {} against {}", ours.len(), stored.len());
            if !record["compressed"].as_bool().unwrap() && record.get("input").is_none() {
                assert_eq!(ours, stored, "{id}");
            }
        }
        Verdict::Passed
    });
    assert_eq!(passed, 409);
}

#[test]
fn fallback_keys_read_and_never_write() {
    let passed = vectors::each("fallback_keys", |record| {
        let id = text(record, "id");
        let codec = codec(record, &record["secret_key"]);
        let stored = record["stored"]["value"].as_str().unwrap();
        let expected = &record["expected"];
        match codec.decode(stored) {
            Ok(decoded) => {
                assert_eq!(decoded.data.to_json().unwrap(), to_python_json(expected), "{id}");
                let signed_with = secret(&record["signed_with"]);
                match decoded.key {
                    KeyMatch::Primary => assert_eq!(secret(&record["secret_key"]), signed_with),
                    KeyMatch::Fallback(index) => {
                        assert_eq!(secret(&record["fallbacks"][index]), signed_with, "{id}");
                    }
                    other => panic!("{other:?}"),
                }
                // The cookie records have none.
                if let Some(reencoded) = record["reencoded_with_current"].as_str() {
                    let again = codec.encode(&decoded.data, seconds(record, "time")).unwrap();
                    assert_eq!(again, reencoded, "{id}");
                }
            }
            Err(error) => {
                assert!(error.is_bad_signature(), "{id}: {error}");
                assert_eq!(expected, &serde_json::json!({}), "{id}");
            }
        }
        Verdict::Passed
    });
    assert_eq!(passed, 96);
}

/// Django's answer to a stored text, in the words of this crate.
#[derive(Debug, PartialEq)]
enum Answer {
    Session(String),
    /// `{}` and the log record.
    BadSignature,
    /// `{}` and silence.
    BadContent,
    /// A value that is no object; Django hands it on.
    Other(String),
}

fn django_s_answer(record: &Value) -> Answer {
    let logs = record["logs"].as_array().unwrap();
    let result = &record["result"];
    let json = to_python_json(result);
    match logs.as_slice() {
        [] if !json.starts_with('{') => Answer::Other(json),
        [] if json == "{}" => Answer::BadContent,
        [] => Answer::Session(json),
        [log] => {
            assert_eq!(log["message"], "Session data corrupted");
            assert_eq!(json, "{}");
            Answer::BadSignature
        }
        more => panic!("{more:?}"),
    }
}

/// Cases in which the running Python decides, with the deepest nesting it can read.
const DEPTH: [&str; 3] =
    ["decode/json_depth_990_list", "decode/json_depth_1100", "decode/json_depth_3000"];
const DEEPER: Verdict =
    Verdict::NotSupported("10,000 levels are read, where the Python of the record gives up sooner");

/// What releases before 4.0 answer otherwise than this crate, and why that is no loss.
const READ_ANYWAY: [(&str, &str); 2] = [
    ("decode/non_ascii", "what is outside of base64 is passed over, as most releases do"),
    ("decode/modern_format", "today's form is always read"),
];

#[test]
fn bad_input_gets_django_s_answer() {
    let (mut since_4_0, mut before) = (0, 0);
    vectors::each("negative", |record| {
        let Some(stored) = record["stored"]["value"].as_str() else { return Verdict::Elsewhere };
        if text(record, "serializer") == "pickle" {
            return bad_pickle(record, stored);
        }
        if vectors::release(record) >= (4, 0) {
            since_4_0 += 1;
            return bad_json(record, stored);
        }
        before += 1;
        bad_old_text(record, stored)
    });
    assert_eq!((since_4_0, before), (679, 648), "no record is passed over unseen");
}

/// Since 4.0 every error but a bad signature is silent.
fn bad_json(record: &Value, stored: &str) -> Verdict {
    let case = vectors::case(record);
    if case == "decode/zlib_bomb" && vectors::release(record) < (6, 1) {
        // 200 million times the same letter: once is enough.
        return Verdict::Passed;
    }
    let codec = codec(record, &record["secret_key"]).with_max_size(256 << 20);
    let ours = match codec.decode(stored) {
        Ok(decoded) => Answer::Session(decoded.data.to_json().unwrap()),
        Err(DecodeError::BadSignature) => Answer::BadSignature,
        Err(DecodeError::NotAnObject { .. }) => {
            let payload = codec.decode_payload(stored).unwrap().payload;
            Answer::Other(String::from_utf8(payload).unwrap())
        }
        Err(_) => Answer::BadContent,
    };
    let django = django_s_answer(record);
    if DEPTH.contains(&case) && django == Answer::BadContent {
        let payload = codec.decode_payload(stored).unwrap().payload;
        assert_eq!(ours, Answer::Session(String::from_utf8(payload).unwrap()));
        return DEEPER;
    }
    same_answer(case, ours, django);
    Verdict::Passed
}

fn same_answer(case: &str, ours: Answer, django: Answer) {
    // `{}` that was signed as such, and content that Django could not read, look alike there.
    if let (Answer::Session(json), Answer::BadContent) = (&ours, &django) {
        assert_eq!(json, "{}");
        return;
    }
    let kept_as_it_came = [
        "whitespace",
        "duplicate_keys_nested",
        "raw_",
        "surrogate",
        "exp",
        "nan",
        "minus_zero",
        "many",
        "float",
        "escape",
    ];
    match (ours, django) {
        // What it means is compared value by value.
        (Answer::Session(ours), Answer::Session(django))
            if kept_as_it_came.iter().any(|kept| {
                case.strip_prefix("decode/json_").is_some_and(|c| c.starts_with(kept))
            }) =>
        {
            assert_eq!(canonical(&ours), canonical(&django));
        }
        (ours, django) => assert_eq!(ours, django),
    }
}

/// Before 4.0 an error is an empty session, with or without a word in the log, or an exception that comes
/// out: releases differ, and 3.1 and 3.2 try bad content as the form before. Here it is an error.
fn bad_old_text(record: &Value, stored: &str) -> Verdict {
    let case = vectors::case(record);
    let codec = formats::codec(record).accept(formats::forms_of(record).iter().copied());
    let found = codec.decode(stored);
    let raises = record.get("raises").is_some();
    let json = record.get("result").map(to_python_json);
    match (found, json) {
        (Ok(_), json) if DEPTH.contains(&case) && json.as_ref().is_none_or(|json| json == "{}") => {
            return DEEPER;
        }
        (Err(DecodeError::Serializer(error)), Some(json))
            if case.ends_with("4301_digits") && json != "{}" =>
        {
            assert_eq!(error.kind(), JsonErrorKind::TooManyDigits);
            return Verdict::NotSupported(
                "an integer of more than 4300 digits, which Python refuses since 2022",
            );
        }
        (Ok(_), None) => {
            let known = READ_ANYWAY.iter().find(|(known, _)| *known == case);
            return Verdict::NotSupported(known.unwrap_or_else(|| panic!("{case} is read")).1);
        }
        (Ok(decoded), Some(json)) => {
            let ours = Answer::Session(decoded.data.to_json().unwrap());
            let python2 = text(record, "python_version").starts_with('2');
            if python2 {
                // Dicts of Python 2 have an order of their own.
                assert!(decoded.data == SessionData::from_json(&json).unwrap());
            } else {
                same_answer(case, ours, Answer::Session(json));
            }
        }
        (Err(DecodeError::NotAnObject { .. }), Some(json)) => {
            assert!(!json.starts_with('{'));
            let payload = codec.decode_payload(stored).unwrap().payload;
            assert_eq!(payload, json.as_bytes());
        }
        (Err(error), Some(json)) => {
            assert_eq!(json, "{}", "{error}");
        }
        (Err(_), None) => assert!(raises),
    }
    Verdict::Passed
}

/// Pickles that are none, and some that Python cannot load.
fn bad_pickle(record: &Value, stored: &str) -> Verdict {
    let codec = formats::codec(record).accept(formats::forms_of(record).iter().copied());
    let result = record.get("result");
    match codec.decode(stored) {
        Ok(decoded) if result.is_none() => {
            let case = vectors::case(record);
            let known = READ_ANYWAY.iter().find(|(known, _)| *known == case);
            drop(decoded);
            return Verdict::NotSupported(known.unwrap_or_else(|| panic!("{case} is read")).1);
        }
        Ok(decoded) => {
            let mut record = record.clone();
            record["expected"] = result.cloned().unwrap();
            let graph = Graph::from_pickle(
                &codec.decode_payload(stored).unwrap().payload,
                &Limits::default(),
            );
            pickle::compare(graph.unwrap().root(), &record);
            assert_eq!(decoded.data.is_empty(), record["expected"] == serde_json::json!({}));
        }
        Err(DecodeError::NotAnObject { .. }) => {
            // Another value, which Django hands on; or an object of a class that it could not find.
            let payload = codec.decode_payload(stored).unwrap().payload;
            let graph = Graph::from_pickle(&payload, &Limits::default()).unwrap();
            let opaque = matches!(graph.root().kind(), Kind::Object(_));
            match result {
                Some(result) if !result.is_object() => {
                    assert_eq!(graph.root().to_json().unwrap(), to_python_json(result));
                }
                _ => assert!(opaque),
            }
        }
        Err(error) => {
            let logged = record["logs"].as_array().unwrap().len();
            assert!(result.is_none_or(|result| *result == serde_json::json!({})), "{error}");
            if vectors::release(record) >= (4, 0) {
                assert_eq!(logged == 1, error.is_bad_signature(), "{error}");
            }
        }
    }
    Verdict::Passed
}

/// The same values as Python would write them.
fn canonical(json: &str) -> String {
    let data = SessionData::from_json(json).unwrap();
    let mut out = SessionData::new();
    for (name, raw) in data.iter_raw() {
        let raw = raw.unwrap();
        let name = name.to_str().unwrap();
        if raw.starts_with('"') {
            // Names are always kept as Python writes them, lone surrogates included.
            let as_name = SessionData::from_json(&format!("{{{raw}:0}}")).unwrap();
            let text = format!("\"{}\"", as_name.keys().next().unwrap().as_escaped());
            out.insert_raw(&name, &text).unwrap();
        } else {
            out.insert(&name, &data.get::<Scalar>(&name).unwrap()).unwrap();
        }
    }
    out.to_json().unwrap()
}

/// A value read through serde, so that its spelling is lost.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
enum Scalar {
    Integer(i64),
    Float(f64),
    Object(std::collections::BTreeMap<String, Scalar>),
}

#[test]
fn a_bomb_is_refused_by_default() {
    let records = vectors::read("negative");
    let record = records.iter().find(|record| text(record, "id").ends_with("decode/zlib_bomb"));
    let record = record.unwrap();
    let codec = codec(record, &record["secret_key"]);
    let stored = record["stored"]["value"].as_str().unwrap();
    assert!(matches!(codec.decode(stored), Err(DecodeError::TooLarge { limit: 0x400_0000 })));
}

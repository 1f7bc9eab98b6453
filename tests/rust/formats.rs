//! Forms of releases before 3.1, and sessions in pickles: read and written as those releases did.

use std::sync::Arc;

use django_session::codec::graph::Graph;
use django_session::codec::pickle::Limits;
use django_session::codec::{Decoded, Format, MaxAge, Serializer};
use django_session::store::MemoryStore;
use django_session::{
    DecodeError, SecretKey, Session, SessionCodec, SessionData, SessionError, SessionSettings,
    StoreError,
};
use jiff::SignedDuration;
use serde_json::Value;

use crate::pickle;
use crate::vectors::{self, Verdict, secret, text, to_python_json};

/// The codec of the store that made a record, which reads today's form alone.
pub(crate) fn codec(record: &Value) -> SessionCodec {
    let key = SecretKey::new(secret(&record["secret_key"])).unwrap();
    let codec = match record["salt"].as_str() {
        Some(salt) if salt.starts_with("django.contrib.sessions.") => {
            SessionCodec::with_salt(&key, salt)
        }
        Some(legacy) => SessionCodec::new(&key).with_legacy_salt(legacy),
        None => SessionCodec::new(&key),
    };
    codec.with_serializer(Serializer::from_name(text(record, "serializer")).unwrap())
}

/// The older forms that a release reads, or read when it wrote them.
pub(crate) fn forms_of(record: &Value) -> &'static [Format] {
    match vectors::release(record) {
        (1, ..3) => &[Format::Antique],
        (1, 3) => &[Format::Legacy, Format::Antique],
        (3, 1 | 2) => &[Format::Legacy, Format::SignedSha1],
        (1..=3, _) => &[Format::Legacy],
        _ => &[],
    }
}

/// Compares a session with what Django made of it: as it was read, and as it is after it was written as a
/// pickle. The text of a JSON session has to be the text that Python writes, too.
fn compare(decoded: &Decoded, payload: &[u8], record: &Value) -> usize {
    let pickle = match decoded.serializer {
        Serializer::Pickle => payload.to_vec(),
        _ => decoded.data.to_pickle(4).unwrap(),
    };
    let graphs = pickle::read(&pickle);
    let opaque = graphs.each_ref().map(|graph| pickle::compare(graph.root(), record));
    let edited = Graph::from_pickle(&decoded.data.to_pickle(2).unwrap(), &Limits::default());
    assert_eq!(pickle::compare(edited.unwrap().root(), record), opaque[0]);
    opaque[0]
}

#[test]
fn old_forms_are_read_only_where_they_are_accepted() {
    let (mut formats, mut opaque) = ([0; 4], 0);
    let mut passed = Vec::new();
    for family in ["antique", "legacy", "legacy_sha1_transitional", "modern_pickle"] {
        passed.push(vectors::each(family, |record| {
            let Some(stored) = record["stored"]["value"].as_str() else {
                return Verdict::NoBytes("Django itself could not write it");
            };
            let codec = codec(record);
            let lenient = codec.clone().accept(forms_of(record).iter().copied());
            let decoded = lenient.decode(stored).unwrap();
            formats[Format::ALL.iter().position(|format| *format == decoded.format).unwrap()] += 1;
            if decoded.format != Format::Signed {
                let refused = codec.decode(stored).unwrap_err();
                assert!(matches!(refused, DecodeError::BadSignature), "{refused}");
            }
            let payload = lenient.decode_payload(stored).unwrap().payload;
            opaque += usize::from(compare(&decoded, &payload, record) > 0);

            let ours = codec
                .clone()
                .with_format(decoded.format)
                .encode(&decoded.data, decoded.signed_at.unwrap_or(0))
                .unwrap();
            let again = codec.accept([decoded.format]).decode(&ours).unwrap();
            assert!(again.data == decoded.data);
            // A name that was there twice is there once.
            let as_it_was = !text(record, "id").ends_with("coerce_dup_keys");
            if decoded.serializer == Serializer::Json && as_it_was {
                assert_eq!(ours, stored);
            }
            Verdict::Passed
        }));
    }
    assert_eq!(passed, [39, 392, 48, 100]);
    assert_eq!(formats, [39, 438, 2, 100], "antique, legacy, signed_sha1, signed");
    assert_eq!(opaque, 0, "with objects of other classes");
}

/// The cookie is the session, and old when the cookie would be.
#[test]
fn signed_cookies_are_read_as_long_as_django_reads_them() {
    let mut checks = 0;
    let passed = vectors::each("signed_cookies", |record| {
        let cookie = text(record, "cookie");
        let forms = match text(record, "algorithm") {
            "sha1" => &[Format::SignedSha1][..],
            _ => &[],
        };
        let codec = codec(record);
        let reader = codec.clone().accept(forms.iter().copied());
        for check in record["load_checks"].as_array().unwrap() {
            let label = text(check, "label");
            let limit = MaxAge {
                max_age: SignedDuration::from_secs(check["cookie_age"].as_i64().unwrap()),
                now: vectors::moment(&check["now"]),
            };
            let found = reader.decode_with_max_age(cookie, limit);
            match &found {
                found if check["expected"]["__type__"] == "omitted" => {
                    assert_eq!(check["expected"]["same_as_expected"], found.is_ok(), "{label}");
                }
                Ok(_) => assert_eq!(check["expected"], record["expected"], "{label}"),
                Err(DecodeError::SignatureExpired { .. }) => {
                    assert_eq!(check["expected"], serde_json::json!({}), "{label}");
                }
                Err(error) => panic!("{label}: {error}"),
            }
            // An empty session looks like one that was refused, but is not replaced.
            assert_eq!(check["modified_after_load"], found.is_err(), "{label}");
            checks += 1;
        }
        let decoded = reader.decode(cookie).unwrap();
        assert_eq!(decoded.compressed, record["compressed"]);
        compare(&decoded, &reader.decode_payload(cookie).unwrap().payload, record);
        let writer = codec.with_format(decoded.format);
        let ours = writer.encode(&decoded.data, decoded.signed_at.unwrap()).unwrap();
        if decoded.serializer == Serializer::Json && !decoded.compressed {
            assert_eq!(ours, cookie);
        }
        let payload = reader.decode_payload(&ours).unwrap().payload;
        match decoded.serializer {
            Serializer::Json => {
                assert_eq!(payload, reader.decode_payload(cookie).unwrap().payload);
            }
            _ => assert!(reader.decode(&ours).unwrap().data == decoded.data),
        }
        Verdict::Passed
    });
    assert_eq!((passed, checks), (325, 2925));
}

/// A file of the `file` engine holds what a row of the `db` engine does.
#[test]
fn files_hold_what_rows_hold() {
    let passed = vectors::each("file_backend", |record| {
        if record.get("stored").is_some() {
            let bytes = content(&record["stored"]);
            let codec = codec(record).accept(forms_of(record).iter().copied());
            let stored = std::str::from_utf8(&bytes).unwrap();
            let decoded = codec.decode(stored).unwrap();
            let payload = codec.decode_payload(stored).unwrap().payload;
            for check in record["load_checks"].as_array().unwrap() {
                if text(check, "label") == "fresh" {
                    let mut record = record.clone();
                    record["expected"] = check["expected"].clone();
                    compare(&decoded, &payload, &record);
                }
            }
            return Verdict::Passed;
        }
        if record["content"].is_null() {
            return Verdict::NoBytes("no file");
        }
        let bytes = content(&record["content"]);
        let mut record = record.clone();
        record["serializer"] = "json".into();
        let found = match std::str::from_utf8(&bytes) {
            Ok(text) => codec(&record).accept(forms_of(&record).iter().copied()).decode(text).ok(),
            Err(_) => None,
        };
        let json = found.map_or_else(|| "{}".to_owned(), |found| found.data.to_json().unwrap());
        // Some releases let an exception out.
        let expected = record.get("result").map_or_else(|| "{}".to_owned(), to_python_json);
        assert_eq!(json, expected);
        Verdict::Passed
    });
    assert_eq!(passed, 110);
}

fn content(stored: &Value) -> Vec<u8> {
    base64_simd::STANDARD.decode_to_vec(text(stored, "value")).unwrap()
}

#[test]
fn rows_of_every_database_hold_what_django_reads_from_them() {
    let passed = vectors::each("db_rows", |record| {
        let Some(expected) = record.get("get_decoded") else {
            return Verdict::NoBytes("tables and statements, for the tests of stores");
        };
        let codec = codec(record);
        let stored = text(&record["row"], "session_data");
        let decoded = codec.decode(stored).unwrap();
        assert_eq!(decoded.data.to_json().unwrap(), to_python_json(expected));
        let ours = codec.encode(&decoded.data, decoded.signed_at.unwrap()).unwrap();
        let payload = |text: &str| codec.decode_payload(text).unwrap().payload;
        assert_eq!(payload(&ours), payload(stored));
        if !decoded.compressed {
            assert_eq!(ours, stored);
        }
        Verdict::Passed
    });
    assert_eq!(passed, 99);
}

/// What the traces of the other engines have to say about bytes: the cookies of `signed_cookies`.
#[test]
fn cookies_in_traces_hold_the_session() {
    let mut cookies = 0;
    for family in ["session_ops_engines", "middleware_engines"] {
        vectors::each(family, |record| {
            if text(record, "backend") != "signed_cookies" {
                return Verdict::NoBytes("what an engine does, not how it stores it");
            }
            let key = SecretKey::new(secret(&record["secret_key"])).unwrap();
            let codec = SessionCodec::with_salt(&key, SALT_OF_COOKIES).accept([Format::SignedSha1]);
            let limit = MaxAge {
                max_age: SignedDuration::from_secs(1_209_600),
                now: vectors::moment(&record["now"]),
            };
            let mut found = 0;
            for name in ["cookie", "cookie_key"] {
                let Some(cookie) = record[name].as_str() else { continue };
                found += 1;
                match (codec.decode_with_max_age(cookie, limit), record["rows"].get(0)) {
                    (Ok(decoded), Some(row)) => {
                        let json = decoded.data.to_json().unwrap();
                        assert_eq!(json, to_python_json(&row["data"]));
                    }
                    (Err(_), None) => {}
                    (found, row) => panic!("{found:?} for {row:?}"),
                }
            }
            for line in record["set_cookie"].as_array().into_iter().flatten() {
                let cookie = line.as_str().unwrap().strip_prefix("sessionid=").unwrap();
                let cookie = cookie.split(';').next().unwrap().trim_matches('"');
                if !cookie.is_empty() {
                    found += 1;
                    let decoded = codec.decode_with_max_age(cookie, limit).unwrap();
                    let writer = codec.clone().with_format(decoded.format);
                    let ours = writer.encode(&decoded.data, decoded.signed_at.unwrap()).unwrap();
                    assert_eq!(ours, cookie);
                }
            }
            cookies += found;
            match found {
                0 => Verdict::NoBytes("no cookie"),
                _ => Verdict::Passed,
            }
        });
    }
    assert_eq!(cookies, 180);
}

const SALT_OF_COOKIES: &str = "django.contrib.sessions.backends.signed_cookies";

/// A pickled session with objects of every kind.
fn pickled() -> SessionData {
    let records = vectors::read("pickle_types");
    let id = "pickle_types/dj3.2.25/py3.9/whole_session/pickle/p5";
    let record = records.iter().find(|record| record["id"] == id).unwrap();
    let pickle = base64_simd::STANDARD.decode_to_vec(text(record, "pickle_b64")).unwrap();
    SessionData::from_graph(Graph::from_pickle(&pickle, &Limits::default()).unwrap()).unwrap()
}

fn settings(serializer: Serializer) -> Arc<SessionSettings> {
    let mut settings = SessionSettings::default();
    settings.secret_key = Some(SecretKey::new("secret").unwrap());
    settings.serializer = serializer;
    Arc::new(settings)
}

#[tokio::test]
async fn a_pickled_session_keeps_what_a_service_does_not_touch() {
    let settings = settings(Serializer::Pickle);
    let store = Arc::new(MemoryStore::new(settings.codec().unwrap()));
    let session = Session::new(store.clone(), settings.clone(), None);
    let original = pickled();
    session.update(&original).await.unwrap();
    session.save().await.unwrap();
    let key = session.session_key().await;

    let again = Session::new(store.clone(), settings.clone(), key.clone());
    again.insert("from_rust", &[1, 2]).await.unwrap();
    again.save().await.unwrap();

    let last = Session::new(store, settings, key);
    assert_eq!(last.get::<Vec<u32>>("from_rust").await.unwrap(), Some(vec![1, 2]));
    let mut data = SessionData::clone(&*last.data().await.unwrap());
    assert!(data.is_python() && data.len() == original.len() + 1);
    assert!(data.remove("from_rust"));
    assert!(data == original);
}

#[tokio::test]
async fn a_session_of_another_serializer_is_an_error_and_stays() {
    let pickle = settings(Serializer::Pickle);
    // A service that was told nothing about pickles reads the same store.
    let json = settings(Serializer::Json);
    let store = Arc::new(MemoryStore::new(pickle.codec().unwrap()));
    let session = Session::new(store.clone(), pickle.clone(), None);
    session.update(&pickled()).await.unwrap();
    session.save().await.unwrap();
    let key = session.session_key().await.unwrap();
    let (row, expire_date) = store.row(&key).unwrap();

    let other = Arc::new(MemoryStore::new(json.codec().unwrap()));
    other.insert_row(key.clone(), row.clone(), expire_date);
    let session = Session::new(other.clone(), json, Some(key.clone()));
    let error = session.get::<u32>("a").await.unwrap_err();
    let SessionError::Store(StoreError::Decode(error)) = error else { panic!("{error:?}") };
    assert!(error.is_configuration());
    assert_eq!(other.row(&key).unwrap().0, row);
}

#[test]
fn a_session_that_is_changed_for_ever_does_not_grow() {
    let mut data = pickled();
    let original = data.clone();
    data.insert("counter", &0).unwrap();
    let length = data.to_pickle(5).unwrap().len();
    for count in 0..100_000 {
        data.insert("counter", &[count]).unwrap();
    }
    data.insert("counter", &0).unwrap();
    assert_eq!(data.to_pickle(5).unwrap().len(), length);
    assert!(data.remove("counter"));
    assert!(data == original);
}

#[test]
fn a_session_that_contains_itself_does_not_bring_back_what_was_removed() {
    // session["self"] = session; session["secret"] = "hunter2"
    let pickle = b"\x80\x04}\x94(\x8c\x04selfh\x00\x8c\x06secret\x8c\x07hunter2u.";
    let graph = Graph::from_pickle(pickle, &Limits::default()).unwrap();
    let mut data = SessionData::from_graph(graph).unwrap();
    assert!(data.remove("secret"));
    let mut other = SessionData::new();
    other.update(&data);
    for data in [data, other] {
        let written = data.to_pickle(4).unwrap();
        assert!(!written.windows(7).any(|bytes| bytes == b"hunter2"));
        let again = Graph::from_pickle(&written, &Limits::default()).unwrap();
        assert_eq!(SessionData::from_graph(again).unwrap().len(), 1);
    }
}

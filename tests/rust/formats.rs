//! Forms of releases before 3.1, and sessions in pickles: read and written as those releases did.

use std::sync::Arc;

use django_session::codec::graph::Graph;
use django_session::codec::pickle::Limits;
use django_session::codec::{Format, Serializer};
use django_session::store::MemoryStore;
use django_session::{
    DecodeError, SecretKey, Session, SessionCodec, SessionData, SessionError, SessionSettings,
    StoreError,
};
use serde_json::Value;

use crate::vectors::{self, secret, text};

fn codec(record: &Value) -> SessionCodec {
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

#[test]
fn old_forms_are_read_only_where_they_are_accepted() {
    let mut count = [0; 4];
    for family in ["antique", "legacy", "legacy_sha1_transitional", "modern_pickle"] {
        for record in vectors::read(family) {
            let Some(stored) = record["stored"]["value"].as_str() else { continue };
            let id = text(&record, "id");
            let codec = codec(&record);
            let weak = [Format::Antique, Format::Legacy, Format::SignedSha1];
            let decoded = codec.clone().accept(weak).decode(stored);
            let decoded = decoded.unwrap_or_else(|error| panic!("{id}: {error}"));
            count[Format::ALL.iter().position(|format| *format == decoded.format).unwrap()] += 1;
            if decoded.format != Format::Signed {
                let refused = codec.decode(stored).unwrap_err();
                assert!(matches!(refused, DecodeError::BadSignature), "{id}: {refused}");
            }
            let ours = codec
                .clone()
                .with_format(decoded.format)
                .encode(&decoded.data, decoded.signed_at.unwrap_or(0))
                .unwrap();
            let again = codec.accept([decoded.format]).decode(&ours).unwrap();
            assert!(again.data == decoded.data, "{id}");
            // A name that was there twice is there once.
            if decoded.serializer == Serializer::Json && !id.ends_with("coerce_dup_keys") {
                assert_eq!(ours, stored, "{id}");
            }
        }
    }
    assert_eq!(count, [39, 438, 2, 100], "antique, legacy, signed_sha1, signed");
}

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

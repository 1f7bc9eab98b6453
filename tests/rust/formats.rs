//! Forms of releases before 3.1, and sessions in pickles: read and written as those releases did.

use django_session::codec::{Format, Serializer};
use django_session::{DecodeError, SecretKey, SessionCodec};
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

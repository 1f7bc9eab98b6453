//! What holds for every session, and for every text that is none.

use django_session::codec::{Compression, SecretKey, SessionCodec};
use django_session::{SessionData, SessionKey};
use proptest::prelude::*;

/// JSON texts as Python writes them, odd ones included.
pub(crate) fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[ -~]{0,12}".prop_map(|text| quoted(&text)),
        any::<String>().prop_map(|text| quoted(&text)),
        Just("\"\\ud800\"".to_owned()),
        Just("\"\\udc00\\ud800\"".to_owned()),
    ];
    let leaf = prop_oneof![
        text,
        any::<i64>().prop_map(|number| number.to_string()),
        "-?[1-9][0-9]{20,60}",
        any::<f64>().prop_map(|number| {
            let mut data = SessionData::new();
            data.insert("f", &number).unwrap();
            data.get_raw("f").unwrap().unwrap().into_owned()
        }),
        prop::sample::select(
            &["null", "true", "false", "NaN", "Infinity", "-Infinity", "-0.0"][..]
        )
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((any::<String>(), inner), 0..8).prop_map(|items| {
                let members = items.iter().map(|(name, value)| format!("{}:{value}", quoted(name)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn quoted(text: &str) -> String {
    let mut data = SessionData::new();
    data.insert("t", text).unwrap();
    data.get_raw("t").unwrap().unwrap().into_owned()
}

pub(crate) fn session() -> impl Strategy<Value = SessionData> {
    prop::collection::vec((any::<String>(), json()), 0..12).prop_map(|entries| {
        let mut data = SessionData::new();
        for (name, value) in entries {
            data.insert_raw(&name, &value).unwrap();
        }
        data
    })
}

fn codec(compression: Compression) -> SessionCodec {
    SessionCodec::new(&SecretKey::new("k").unwrap()).with_compression(compression)
}

proptest! {
    #[test]
    fn a_session_comes_back_as_it_was(data in session(), now: i64, small: bool) {
        let codec = codec(if small { Compression::Small } else { Compression::Fast });
        let text = codec.encode(&data, now).unwrap();
        prop_assert!(text.is_ascii());
        let decoded = codec.decode(&text).unwrap();
        prop_assert_eq!(decoded.data.to_json().unwrap(), data.to_json().unwrap());
        prop_assert_eq!(decoded.signed_at, Some(now));
    }

    #[test]
    fn what_is_not_touched_does_not_change(data in session(), name in "[a-z]{1,8}") {
        let mut changed = SessionData::from_json(&data.to_json().unwrap()).unwrap();
        changed.insert(&name, &1).unwrap();
        for (other, raw) in data.iter_raw() {
            if other != name.as_str() {
                let kept = changed.get_raw(&other.to_str().unwrap()).unwrap();
                prop_assert_eq!(kept, Some(raw.unwrap()));
            }
        }
        prop_assert!(changed.remove(&name));
        let others = changed.to_json().unwrap();
        let mut data = data;
        data.remove(&name);
        prop_assert_eq!(others, data.to_json().unwrap());
    }

    #[test]
    fn floats_keep_their_bits(number: f64) {
        let mut data = SessionData::new();
        data.insert("f", &number).unwrap();
        let back: f64 = data.get("f").unwrap().unwrap();
        prop_assert!(back.to_bits() == number.to_bits() || (back.is_nan() && number.is_nan()));
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".{0,200}", json in "[\\[\\]{}:,\"\\\\ntfu0-9eE.+ -]{0,60}") {
        let codec = codec(Compression::Fast);
        prop_assert!(codec.decode(&text).is_err());
        // Under a good signature too.
        let _ = codec.decode(&codec.encode_payload(text.as_bytes(), 0));
        let _ = codec.decode(&codec.encode_payload(json.as_bytes(), 0));
        let _ = SessionData::from_json(&json);
        let _ = SessionKey::parse(&text);
    }

    #[test]
    fn one_changed_character_is_noticed(data in session(), at: prop::sample::Index, to in "[!-~]") {
        let codec = codec(Compression::Fast);
        let text = codec.encode(&data, 1_700_000_000).unwrap();
        let at = at.index(text.len());
        let mut changed = text.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(codec.decode(&changed).is_ok(), changed == text);
    }
}

//! Plain values in pickles, against another implementation of pickle.

use django_session::SessionData;
use django_session::codec::graph::Graph;
use django_session::codec::pickle::{HIGHEST_PROTOCOL, Limits};
use proptest::prelude::*;
use serde_json::{Map, Value};
use serde_pickle::{DeOptions, SerOptions};

/// What both can hold: serde-pickle sorts dicts, so this has to be sorted too.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has a number for it", |number| number.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            sorted(inner).prop_map(Value::from),
        ]
    })
}

fn sorted(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any::<String>(), value, 0..8)
        .prop_map(|entries| entries.into_iter().collect())
}

proptest! {
    #[test]
    fn what_we_write_another_reader_reads(session in sorted(values())) {
        let json = Value::from(session).to_string();
        for protocol in 2..=HIGHEST_PROTOCOL {
            let pickle = SessionData::from_json(&json).unwrap().to_pickle(protocol).unwrap();
            let read: Value = serde_pickle::from_slice(&pickle, DeOptions::new()).unwrap();
            prop_assert_eq!(read.to_string(), &*json);
        }
    }

    #[test]
    fn what_another_writer_writes_we_read(session in sorted(values())) {
        for options in [SerOptions::new(), SerOptions::new().proto_v2()] {
            let pickle = serde_pickle::to_vec(&session, options).unwrap();
            let graph = Graph::from_pickle(&pickle, &Limits::default()).unwrap();
            let data = SessionData::from_graph(graph).unwrap();
            prop_assert_eq!(data.len(), session.len());
            for (name, value) in &session {
                let read: Option<Value> = data.get(name).unwrap();
                prop_assert_eq!(read.as_ref(), Some(value));
            }
        }
    }
}

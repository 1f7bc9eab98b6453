//! Pickles as data: what is read, and what is written back.

use django_session::codec::graph::{Graph, Kind, Value as Object};
use django_session::codec::pickle::{Limits, PickleErrorKind};
use serde_json::Value;

use crate::vectors::{self, text};

#[test]
fn every_recorded_pickle_is_read_and_written_back() {
    let (mut read, mut refused) = (0, 0);
    for record in vectors::read("pickle_types") {
        let Some(pickle) = record["pickle_b64"].as_str() else {
            refused += 1;
            continue;
        };
        let pickle = base64_simd::STANDARD.decode_to_vec(pickle).unwrap();
        let id = text(&record, "id");
        let graph = Graph::from_pickle(&pickle, &Limits::default())
            .unwrap_or_else(|error| panic!("{id}: {error}"));
        let written = graph.to_pickle().unwrap();
        let again = Graph::from_pickle(&written, &Limits::default())
            .unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(again.to_pickle().unwrap(), written, "{id}");
        read += 1;
    }
    assert_eq!((read, refused), (3611, 12));
}

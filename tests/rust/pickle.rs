//! Pickles as data: what is read, and what is written back.

use django_session::codec::graph::{Graph, Value as Object};
use django_session::codec::pickle::Limits;
use serde_json::Value;

use crate::tagged::{Comparison, View};
use crate::vectors::{self, Verdict, text};

/// Reads a pickle, and what is written of it, which has to come out the same.
pub(crate) fn read(pickle: &[u8]) -> [Graph; 2] {
    let graph = Graph::from_pickle(pickle, &Limits::default()).unwrap();
    let written = graph.to_pickle().unwrap();
    let again = Graph::from_pickle(&written, &Limits::default()).unwrap();
    assert_eq!(again.to_pickle().unwrap(), written);
    [graph, again]
}

/// Compares a root with what the Python that wrote the pickle made of it, and for Python 2 with what Python
/// 3 makes of it too. The answer is how many objects are of classes that are not recognized.
pub(crate) fn compare(root: Object<'_>, record: &Value) -> usize {
    let python2 = text(record, "python_version").starts_with("2.");
    let view = if python2 { View::Python2 } else { View::Python3 };
    let mut comparison = Comparison::new(view);
    comparison.root(root, &record["expected"]).unwrap();
    for paths in record["identity"].as_array().into_iter().flatten() {
        assert!(comparison.is_one(paths), "{paths}");
    }
    match record.get("py3_view") {
        Some(view) if view.get("error").is_some() => {
            // Python 3 gives up on strings that are no ASCII, and on dates, which are such strings.
            assert_eq!(view["error"]["type"], "UnicodeDecodeError");
        }
        Some(view) => Comparison::new(View::Python3).root(root, &view["expected"]).unwrap(),
        // Nobody asked Python 3.
        None => {}
    }
    comparison.opaque()
}

#[test]
fn every_recorded_pickle_is_what_python_makes_of_it() {
    let mut opaque = 0;
    let passed = vectors::each("pickle_types", |record| {
        let Some(pickle) = record["pickle_b64"].as_str() else {
            return Verdict::NoBytes("Python itself could not pickle it");
        };
        let pickle = base64_simd::STANDARD.decode_to_vec(pickle).unwrap();
        for graph in read(&pickle) {
            opaque += usize::from(compare(graph.root(), record) > 0);
        }
        Verdict::Passed
    });
    assert_eq!(
        (passed, opaque / 2),
        (3611, 675),
        "passed, and among them with objects of other classes"
    );
}

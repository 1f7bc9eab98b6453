//! Pickles as data: what is read, and what is written back.

use django_session::SessionData;
use django_session::codec::graph::{Graph, Value as Object};
use django_session::codec::pickle::{HIGHEST_PROTOCOL, Limits, PickleErrorKind};
use proptest::prelude::*;
use serde_json::Value;

use crate::properties::{json, session};
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

fn unpickled(pickle: &[u8]) -> SessionData {
    SessionData::from_graph(Graph::from_pickle(pickle, &Limits::default()).unwrap()).unwrap()
}

/// What is missing is always noticed, wherever the end is.
#[test]
fn a_pickle_that_ends_early_is_an_error() {
    let mut cuts = 0;
    for record in vectors::read("pickle_types") {
        let Some(pickle) = record["pickle_b64"].as_str() else { continue };
        let pickle = base64_simd::STANDARD.decode_to_vec(pickle).unwrap();
        // Every byte of the short ones, a few hundred places of the long ones.
        for end in (0..pickle.len()).step_by(pickle.len() / 4096 * 16 + 1) {
            let error = Graph::from_pickle(&pickle[..end], &Limits::default()).unwrap_err();
            assert_eq!(error.kind(), PickleErrorKind::Truncated, "{} at {end}", record["id"]);
            cuts += 1;
        }
    }
    assert!(cuts > 200_000, "{cuts}");
}

/// A dict that contains itself and much else, 200 bytes that say millions, and one of each in the other.
#[test]
fn what_contains_itself_has_no_json_form_and_costs_little() {
    let mut wide = b"\x80\x04}\x94(".to_vec();
    for number in 0..100_000_u32 {
        wide.extend_from_slice(b"J");
        wide.extend_from_slice(&number.to_le_bytes());
        wide.extend_from_slice(b"h\0");
    }
    wide.extend_from_slice(b"u.");
    // Thirty lists of two, each of which holds the one before twice.
    let mut laughs = b"\x80\x04]\x94".to_vec();
    for number in 0..30_u8 {
        laughs.extend_from_slice(&[b']', 0x94, b'(', b'h', number, b'h', number, b'e']);
    }
    laughs.push(b'.');
    for (pickle, reason) in [
        (wide, "a value that contains itself has no JSON form"),
        (laughs, "a value that is too long as JSON has no JSON form"),
    ] {
        let graph = Graph::from_pickle(&pickle, &Limits::default()).unwrap();
        assert_eq!(graph.root().to_json().unwrap_err().to_string(), reason);
        // As a pickle it stays what it was.
        assert!(graph.to_pickle().unwrap().len() <= pickle.len() + 100_000);
    }
}

/// Lists of two inside each other, built from the inside out, which takes no marks.
#[test]
fn what_could_not_be_read_again_is_not_written() {
    let nested = |levels: usize| {
        let mut pickle = b"\x80\x04".to_vec();
        pickle.extend(std::iter::repeat_n(b']', levels));
        for _ in 1..levels {
            pickle.extend(b"aNa");
        }
        pickle.push(b'.');
        Graph::from_pickle(&pickle, &Limits::default()).unwrap()
    };
    let written = nested(10_000).to_pickle().unwrap();
    assert!(Graph::from_pickle(&written, &Limits::default()).is_ok());
    let error = nested(20_000).to_pickle().unwrap_err();
    assert_eq!(error.kind(), PickleErrorKind::TooDeep);
}

proptest! {
    #[test]
    fn json_comes_back_from_a_pickle_as_it_was(data in session()) {
        let before = data.to_json().unwrap();
        for protocol in 2..=HIGHEST_PROTOCOL {
            let pickle = data.to_pickle(protocol).unwrap();
            let again = unpickled(&pickle);
            prop_assert_eq!(&again.to_json().unwrap(), &before);
            // Not the same bytes: here it is known how many entries a dict has.
            let pickle = again.to_pickle(protocol).unwrap();
            let again = unpickled(&pickle);
            prop_assert_eq!(&again.to_json().unwrap(), &before);
            prop_assert_eq!(again.to_pickle(protocol).unwrap(), pickle);
        }
    }

    #[test]
    fn a_change_leaves_the_rest_of_a_pickle(
        data in session(),
        name in any::<String>(),
        value in json(),
        other in session(),
    ) {
        let mut changed = unpickled(&data.to_pickle(4).unwrap());
        changed.insert_raw(&name, &value).unwrap();
        let changed = unpickled(&changed.to_pickle(4).unwrap());
        prop_assert_eq!(changed.get_raw(&name).unwrap().unwrap(), &*value);
        for (kept, raw) in data.iter_raw() {
            if kept != name.as_str() {
                let kept = changed.get_raw(&kept.to_str().unwrap()).unwrap();
                prop_assert_eq!(kept, Some(raw.unwrap()));
            }
        }
        let mut both = changed.clone();
        both.update(&unpickled(&other.to_pickle(4).unwrap()));
        for (kept, raw) in other.iter_raw() {
            prop_assert_eq!(both.get_raw(&kept.to_str().unwrap()).unwrap(), Some(raw.unwrap()));
        }
        let mut restored = changed;
        prop_assert!(restored.remove(&name));
        let mut data = data;
        data.remove(&name);
        prop_assert_eq!(restored.to_json().unwrap(), data.to_json().unwrap());
    }

    #[test]
    fn no_bytes_break_the_reader(
        pickle in prop::collection::vec(any::<u8>(), 0..200),
        opcodes in prop::collection::vec(
            prop::sample::select(&b"(.012NKJIVUSXClaetdsu]})\x85\x86\x87\x8f\x90\x91cRbo\x81h\x94q\0\x01"[..]),
            0..60,
        ),
    ) {
        for pickle in [pickle, opcodes] {
            let Ok(graph) = Graph::from_pickle(&pickle, &Limits::default()) else { continue };
            let _ = graph.root().to_json();
            let written = graph.to_pickle().unwrap();
            let again = Graph::from_pickle(&written, &Limits::default()).unwrap();
            prop_assert_eq!(again.to_pickle().unwrap(), written);
        }
    }
}

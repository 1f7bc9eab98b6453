//! Saved inputs of the fuzz targets, against the checks that fuzzing makes (`tests/fuzz/checks.rs`).

use crate::vectors;

#[path = "../fuzz/checks.rs"]
mod checks;

/// Runs a check over the inputs of a target that found something new at one time.
fn replay(target: &str, check: fn(&[u8])) {
    let inputs = vectors::read_file(&format!("../fuzz/corpus/{target}.jsonl.zst"));
    for input in &inputs {
        check(&base64_simd::STANDARD.decode_to_vec(input.as_str().unwrap()).unwrap());
    }
    assert!(!inputs.is_empty());
}

#[test]
fn saved_values_of_caches_are_read_alike() {
    replay("cache_value", checks::cache_value);
}

#[test]
fn saved_dates_are_read_alike() {
    replay("dates", checks::dates);
}

#[test]
fn saved_texts_are_refused() {
    replay("decode", checks::decode);
}

#[test]
fn saved_payloads_come_back() {
    replay("deflate", checks::deflate);
}

#[test]
fn saved_payloads_are_read_in_every_form() {
    replay("formats", checks::formats);
}

#[test]
fn saved_json_is_read_alike() {
    replay("json", checks::json);
}

#[test]
fn saved_pickles_are_read_alike() {
    replay("pickle", checks::pickle);
}

#[test]
fn saved_texts_under_good_signatures_are_read_alike() {
    replay("signed", checks::signed);
}

#[test]
fn saved_texts_are_not_taken_for_signed() {
    replay("signing", checks::signing);
}

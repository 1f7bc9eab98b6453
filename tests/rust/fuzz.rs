//! A short run of each fuzz target (`tests/fuzz`): the inputs that found something new at one time, and
//! changed ones, against the checks that fuzzing makes (`tests/fuzz/checks.rs`).
//!
//! The changes are the same in every run. `FUZZ_ROUNDS` makes more of them, `DIFFERENTIAL_SEED` others.

use crate::differential::Random;
use crate::vectors;

#[path = "../fuzz/checks.rs"]
mod checks;

/// Changed inputs of a target, unless told otherwise; longer ones take more time.
const ROUNDS: usize = 2000;
const MAX_LENGTH: usize = 1 << 16;

fn rounds() -> usize {
    std::env::var("FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

fn run(target: &str, check: fn(&[u8])) {
    let inputs = vectors::read_file(&format!("../fuzz/corpus/{target}.jsonl.zst"));
    let inputs = inputs
        .iter()
        .map(|input| base64_simd::STANDARD.decode_to_vec(input.as_str().unwrap()).unwrap());
    let mut inputs: Vec<_> = inputs.inspect(|input| check(input)).collect();
    assert!(!inputs.is_empty());
    inputs.retain(|input| input.len() <= MAX_LENGTH);
    let mut random = Random::new();
    for round in 0..rounds() {
        let input = changed(&inputs, &mut random);
        let outcome = std::panic::catch_unwind(|| check(&input));
        if let Err(panic) = outcome {
            let input = base64_simd::STANDARD.encode_to_string(&input);
            eprintln!("{target}, round {round}: {input}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// One input with a few changes of the kinds that fuzzers make.
fn changed(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let other = &inputs[random.below(inputs.len())];
        match (random.below(7), input.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << random.below(8),
            (1, Some(byte)) => *byte = u8::try_from(random.below(256)).unwrap(),
            (2, Some(byte)) => *byte = [0, 1, 0x7f, 0x80, 0xff, b'(', b'"', b':'][random.below(8)],
            (3, _) => input.truncate(at),
            (4, _) => {
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                input.splice(at..at, other[from..to].iter().copied());
            }
            (5, _) => {
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let to = at + random.below(input.len() - at + 1).min(16);
                let part = input[at..to].to_vec();
                input.splice(at..at, part);
            }
        }
    }
    input
}

#[test]
fn values_of_caches_are_read_alike() {
    run("cache_value", checks::cache_value);
}

#[test]
fn dates_are_read_alike() {
    run("dates", checks::dates);
}

#[test]
fn texts_are_refused() {
    run("decode", checks::decode);
}

#[test]
fn payloads_come_back() {
    run("deflate", checks::deflate);
}

#[test]
fn payloads_are_read_in_every_form() {
    run("formats", checks::formats);
}

#[test]
fn json_is_read_alike() {
    run("json", checks::json);
}

#[test]
fn pickles_are_read_alike() {
    run("pickle", checks::pickle);
}

#[test]
fn texts_under_good_signatures_are_read_alike() {
    run("signed", checks::signed);
}

#[test]
fn texts_are_not_taken_for_signed() {
    run("signing", checks::signing);
}

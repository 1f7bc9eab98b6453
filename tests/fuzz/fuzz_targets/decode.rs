//! Any text is refused: nobody but the holder of the key can make one that is not.
#![no_main]

use std::sync::LazyLock;

use django_session::{SecretKey, SessionCodec};
use libfuzzer_sys::fuzz_target;

static CODEC: LazyLock<SessionCodec> =
    LazyLock::new(|| SessionCodec::new(&SecretKey::new("fuzz").unwrap()));

fuzz_target!(|text: &str| {
    assert!(CODEC.decode(text).is_err_and(|error| error.is_bad_signature()));
});

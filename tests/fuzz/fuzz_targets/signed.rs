//! Whatever is inside a good signature, plain or behind a dot, is read or refused within the limit.
#![no_main]

use std::sync::LazyLock;

use django_session::codec::TimestampSigner;
use django_session::{SecretKey, SessionCodec};
use libfuzzer_sys::fuzz_target;

static SIGNER: LazyLock<TimestampSigner> = LazyLock::new(|| {
    TimestampSigner::new(&SecretKey::new("fuzz").unwrap(), django_session::codec::SESSION_SALT)
});
static CODEC: LazyLock<SessionCodec> = LazyLock::new(|| {
    SessionCodec::new(&SecretKey::new("fuzz").unwrap()).with_max_size(1 << 20)
});

fuzz_target!(|text: &str| {
    if let Ok(decoded) = CODEC.decode(&SIGNER.sign(text, 0)) {
        let json = decoded.data.to_json().unwrap();
        let again = CODEC.decode(&CODEC.encode(&decoded.data, 0)).unwrap();
        assert_eq!(again.data.to_json().unwrap(), json);
    }
});

//! Whatever is compressed comes back, with either way of compressing.
#![no_main]

use django_session::codec::Compression;
use django_session::{SecretKey, SessionCodec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let codec = SessionCodec::new(&SecretKey::new("fuzz").unwrap());
    for compression in [Compression::Fast, Compression::Small] {
        let codec = codec.clone().with_compression(compression);
        let text = codec.encode_payload(payload, 0);
        assert_eq!(codec.decode_payload(&text).unwrap().payload, payload);
    }
});

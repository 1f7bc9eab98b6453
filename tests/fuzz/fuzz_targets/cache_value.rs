//! Values of a cache: what is read is written, and then stays what it is. The first byte chooses the
//! backend, the rest is the value.
#![no_main]

use django_session::codec::cache::{
    CacheBackend, CacheCodec, CacheDecodeError, CacheSerializer, Compressor,
};
use libfuzzer_sys::fuzz_target;

const MAX_SIZE: usize = 1 << 20;

fn codec(choice: u8) -> CacheCodec {
    let serializers = [CacheSerializer::Json, CacheSerializer::MsgPack, CacheSerializer::Pickle];
    let compressors = [
        Compressor::Gzip,
        Compressor::Identity,
        Compressor::Lz4,
        Compressor::Lzma,
        Compressor::Zlib,
        Compressor::Zstd,
    ];
    let backend = match choice % 22 {
        0 => CacheBackend::Database,
        1 => CacheBackend::FileBased,
        2 => CacheBackend::Memcached,
        3 => CacheBackend::Redis,
        other => CacheBackend::DjangoRedis {
            serializer: serializers[usize::from(other - 4) / 6],
            compressor: compressors[usize::from(other - 4) % 6],
        },
    };
    CacheCodec::new(backend).with_max_size(MAX_SIZE)
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, value)) = input.split_first() else { return };
    let codec = codec(choice);
    if let Ok(found) = codec.unwrap(value) {
        assert!(found.payload.len() <= MAX_SIZE.max(value.len()));
    }
    let Ok(found) = codec.decode(value) else { return };
    let ours = match codec.encode(&found.data, found.expiry) {
        Ok(ours) => ours,
        Err(error) => {
            assert_eq!(found.serializer, CacheSerializer::Pickle, "{error}");
            return;
        }
    };
    match codec.decode(&ours) {
        Ok(again) => {
            assert_eq!(again.data.len(), found.data.len());
            assert_eq!(codec.encode(&again.data, again.expiry).unwrap(), ours);
        }
        Err(CacheDecodeError::TooLarge { .. }) => {}
        Err(error) => assert!(error.is_too_large(), "{error}"),
    }
});

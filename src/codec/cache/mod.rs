//! What Django's cache backends and django-redis keep for the `cache` and `cached_db` engines.
//!
//! These engines hand the session, a `dict`, to the cache. Nothing is signed: whoever can write to the
//! cache can write sessions. Here is everything needed to find an entry ([`CacheKeys`]), to read and
//! write it ([`CacheCodec`]) and to let it expire when Django would ([`redis_timeout`] and its
//! neighbours). No I/O, no clock.
//!
//! | `BACKEND` | [`CacheBackend`] | value |
//! |---|---|---|
//! | `django.core.cache.backends.redis.RedisCache` (4.0+) | `Redis` | pickle |
//! | `….memcached.PyMemcacheCache`, `….PyLibMCCache` | `Memcached` | pickle, [flags 1](MEMCACHED_PICKLE) |
//! | `….filebased.FileBasedCache` | `FileBased` | pickle of the expiry, zlib of the pickle |
//! | `….db.DatabaseCache` | `Database` | base64 of the pickle |
//! | `django_redis.cache.RedisCache` | `DjangoRedis` | serializer, then compressor |
//!
//! A `LocMemCache` lives in the memory of one process and cannot be shared.

mod base64;
mod compressor;
mod error;
mod file;
mod key;
mod timeout;

use std::borrow::Cow;

use super::DEFAULT_MAX_SIZE;

pub use base64::Base64Reading;
pub use compressor::Compressor;
pub use error::{CacheDecodeError, CachePart};
pub use key::{
    CacheEngine, CacheKeys, DATABASE_MAX_KEY_LENGTH, InvalidCacheKey, MEMCACHED_MAX_KEY_LENGTH,
    check_database_key, check_memcached_key, file_name,
};
pub use timeout::{
    RedisTimeout, database_expires, django_redis_timeout, file_expiry, memcached_exptime,
    redis_timeout,
};

/// The memcached flags of a pickle, so of every session.
pub const MEMCACHED_PICKLE: u32 = 1;
/// The memcached flag of an integer, as decimal text.
pub const MEMCACHED_INTEGER: u32 = 1 << 1;
/// The memcached flag of a zlib stream around the rest, which Django's defaults never set.
pub const MEMCACHED_ZLIB: u32 = 1 << 3;
/// The memcached flag of text, as UTF-8.
pub const MEMCACHED_TEXT: u32 = 1 << 4;

/// The backend that keeps the sessions, with those of its options that change what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheBackend {
    /// `django.core.cache.backends.db.DatabaseCache`.
    Database,
    /// `django_redis.cache.RedisCache`.
    DjangoRedis {
        /// `OPTIONS["SERIALIZER"]`.
        serializer: Serializer,
        /// `OPTIONS["COMPRESSOR"]`.
        compressor: Compressor,
    },
    /// `django.core.cache.backends.filebased.FileBasedCache`.
    FileBased,
    /// `django.core.cache.backends.memcached.PyMemcacheCache` and `PyLibMCCache`.
    Memcached,
    /// `django.core.cache.backends.redis.RedisCache`, which is not that of django-redis.
    Redis,
}

/// What turns the session into bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Serializer {
    /// `django_redis.serializers.json.JSONSerializer`.
    Json,
    /// `django_redis.serializers.msgpack.MSGPackSerializer`.
    MsgPack,
    /// Python's pickle: all of Django's own backends, and the default of django-redis.
    #[default]
    Pickle,
}

/// Takes a value out of a backend's wrapping, and wraps one.
#[derive(Clone, Debug)]
pub struct CacheCodec {
    backend: CacheBackend,
    base64: Base64Reading,
    max_size: usize,
}

/// What [`CacheCodec::unwrap`] found.
#[derive(Clone)]
#[non_exhaustive]
pub struct Unwrapped<'a> {
    /// What the serializer wrote.
    pub payload: Cow<'a, [u8]>,
    /// What wrote it.
    pub serializer: Serializer,
    /// Whether it was compressed.
    pub compressed: bool,
    /// Unix seconds after which the entry is no more, where the value itself says so: in a
    /// `FileBasedCache`, unless it never expires.
    pub expiry: Option<f64>,
}

impl std::fmt::Debug for Unwrapped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwrapped")
            .field("serializer", &self.serializer)
            .field("compressed", &self.compressed)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

impl CacheCodec {
    /// A codec for this backend.
    pub fn new(backend: CacheBackend) -> Self {
        Self { backend, base64: Base64Reading::default(), max_size: DEFAULT_MAX_SIZE }
    }

    /// Sets how a `DatabaseCache` is read.
    #[must_use]
    pub fn with_base64_reading(mut self, reading: Base64Reading) -> Self {
        self.base64 = reading;
        self
    }

    /// Sets the largest value in bytes that is inflated, [`DEFAULT_MAX_SIZE`] at first.
    #[must_use]
    pub fn with_max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// Takes the serialized session out of a value. Of memcached, this is a value with the flags of a
    /// pickle; see [`CacheCodec::unwrap_flagged`] for others.
    ///
    /// # Errors
    ///
    /// [`CacheDecodeError`].
    pub fn unwrap<'a>(&self, value: &'a [u8]) -> Result<Unwrapped<'a>, CacheDecodeError> {
        let pickle = |payload: Cow<'a, [u8]>| Unwrapped {
            payload,
            serializer: Serializer::Pickle,
            compressed: false,
            expiry: None,
        };
        match self.backend {
            CacheBackend::Database => match base64::decode(value, self.base64) {
                Some(payload) => Ok(pickle(payload.into())),
                None => Err(CacheDecodeError::Malformed { part: CachePart::Base64 }),
            },
            CacheBackend::DjangoRedis { serializer, compressor } => {
                refuse_integer(value)?;
                let found = compressor.decompress(value, self.max_size)?;
                let compressed = found.is_some();
                let payload = found.map_or(value.into(), Cow::from);
                Ok(Unwrapped { payload, serializer, compressed, expiry: None })
            }
            CacheBackend::FileBased => {
                let Some((expiry, length)) = file::read_expiry(value) else {
                    return Err(CacheDecodeError::Malformed { part: CachePart::Expiry });
                };
                let payload = compressor::inflate(&value[length..], self.max_size)?.into();
                Ok(Unwrapped { compressed: true, expiry, ..pickle(payload) })
            }
            CacheBackend::Memcached => Ok(pickle(value.into())),
            CacheBackend::Redis => {
                refuse_integer(value)?;
                Ok(pickle(value.into()))
            }
        }
    }

    /// As [`CacheCodec::unwrap`], for a value of memcached, which stores flags beside it.
    ///
    /// # Errors
    ///
    /// [`CacheDecodeError`]; `NotASession` if the flags say text, integer or plain bytes.
    pub fn unwrap_flagged<'a>(
        &self,
        value: &'a [u8],
        flags: u32,
    ) -> Result<Unwrapped<'a>, CacheDecodeError> {
        let found = match flags & !MEMCACHED_ZLIB {
            MEMCACHED_PICKLE => {
                let mut unwrapped = self.unwrap(value)?;
                if flags & MEMCACHED_ZLIB != 0 {
                    unwrapped.payload = compressor::inflate(value, self.max_size)?.into();
                    unwrapped.compressed = true;
                }
                return Ok(unwrapped);
            }
            0 => "bytes",
            MEMCACHED_INTEGER | 4 => "an integer",
            MEMCACHED_TEXT => "text",
            _ => return Err(CacheDecodeError::Malformed { part: CachePart::Flags }),
        };
        Err(CacheDecodeError::NotASession { found })
    }

    /// Wraps what the serializer wrote. `expiry` is the Unix time in seconds after which the entry is
    /// no more, `None` for never; only a `FileBasedCache` writes it into the value, see
    /// [`file_expiry`].
    pub fn wrap(&self, payload: &[u8], expiry: Option<f64>) -> Vec<u8> {
        match self.backend {
            CacheBackend::Database => base64::encode(payload),
            CacheBackend::DjangoRedis { compressor, .. } => compressor.compress(payload),
            CacheBackend::FileBased => {
                let mut out = file::write_expiry(expiry, protocol(payload));
                out.extend(compressor::deflate(payload));
                out
            }
            CacheBackend::Memcached | CacheBackend::Redis => payload.to_vec(),
        }
    }
}

/// The protocol of a pickle, as far as readers of today's can tell.
fn protocol(pickle: &[u8]) -> u8 {
    match pickle {
        [0x80, protocol @ 3..=5, ..] => *protocol,
        _ => 2,
    }
}

/// Redis keeps integers as text, which both Django and django-redis try before anything else.
fn refuse_integer(value: &[u8]) -> Result<(), CacheDecodeError> {
    let text = value.trim_ascii();
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let mut groups = digits.split(|&byte| byte == b'_');
    if groups.all(|group| !group.is_empty() && group.iter().all(u8::is_ascii_digit)) {
        return Err(CacheDecodeError::NotASession { found: "an integer" });
    }
    Ok(())
}

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
mod json;
mod key;
mod msgpack;
mod timeout;

use std::borrow::Cow;

use super::graph::Graph;
use super::pickle::{self, Limits};
use super::{DEFAULT_MAX_SIZE, DecodeError, EncodeError, SessionData};

pub use base64::Base64Reading;
pub use compressor::Compressor;
pub use error::{CacheDecodeError, CacheEncodeError, CachePart};
pub use key::{
    CacheEngine, CacheKeys, DATABASE_MAX_KEY_LENGTH, InvalidCacheKey, MEMCACHED_MAX_KEY_LENGTH,
    check_database_key, check_memcached_key, file_name,
};
#[cfg(feature = "python")]
pub(crate) use msgpack::read as graph_from_msgpack;
pub use msgpack::{MsgPackError, MsgPackErrorKind};
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
        serializer: CacheSerializer,
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
pub enum CacheSerializer {
    /// `django_redis.serializers.json.JSONCacheSerializer`.
    Json,
    /// `django_redis.serializers.msgpack.MSGPackCacheSerializer`.
    MsgPack,
    /// Python's pickle: all of Django's own backends, and the default of django-redis.
    #[default]
    Pickle,
}

/// Turns what a backend keeps into session data, and back.
///
/// # Example
///
/// ```
/// use django_session::codec::cache::{CacheBackend, CacheCodec, CacheSerializer, Compressor};
///
/// // What `RedisCache` of Django 5.2 keeps of {"a": 1}.
/// let codec = CacheCodec::new(CacheBackend::Redis);
/// let value = b"\x80\x05\x95\x0a\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.";
/// let mut data = codec.decode(value)?.data;
/// assert_eq!(data.get::<u32>("a")?, Some(1));
/// assert_eq!(codec.decode(&codec.encode(&data, None)?)?.data, data);
///
/// // The same session for django-redis, with a serializer and a compressor of its options.
/// let (serializer, compressor) = (CacheSerializer::Json, Compressor::Zstd);
/// let codec = CacheCodec::new(CacheBackend::DjangoRedis { serializer, compressor });
/// data.insert("b", &[1.5])?;
/// let value = codec.encode(&data, None)?;
/// assert_eq!(*codec.unwrap(&value)?.payload, *br#"{"a": 1, "b": [1.5]}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CacheCodec {
    backend: CacheBackend,
    pickle_protocol: u8,
    base64: Base64Reading,
    max_size: usize,
}

/// What [`CacheCodec::decode`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CachedSession {
    /// The session.
    pub data: SessionData,
    /// What wrote it.
    pub serializer: CacheSerializer,
    /// Whether it was compressed.
    pub compressed: bool,
    /// Unix seconds after which the entry is no more, where the value itself says so: in a
    /// `FileBasedCache`, unless it never expires.
    pub expiry: Option<f64>,
}

/// What [`CacheCodec::unwrap`] found.
#[derive(Clone)]
#[non_exhaustive]
pub struct Unwrapped<'a> {
    /// What the serializer wrote.
    pub payload: Cow<'a, [u8]>,
    /// What wrote it.
    pub serializer: CacheSerializer,
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
        let pickle_protocol = match backend {
            CacheBackend::DjangoRedis { .. } => pickle::DEFAULT_PROTOCOL,
            _ => pickle::HIGHEST_PROTOCOL,
        };
        Self {
            backend,
            pickle_protocol,
            base64: Base64Reading::default(),
            max_size: DEFAULT_MAX_SIZE,
        }
    }

    /// Sets how a `DatabaseCache` is read.
    #[must_use]
    pub fn with_base64_reading(mut self, reading: Base64Reading) -> Self {
        self.base64 = reading;
        self
    }

    /// Sets the protocol of pickles of new sessions, from 2 to 5; django-redis calls it
    /// `PICKLE_VERSION`. At first it is what the backend takes by default on Python 3.8 to 3.13. A
    /// session that was read from a pickle keeps its own.
    #[must_use]
    pub fn with_pickle_protocol(mut self, protocol: u8) -> Self {
        self.pickle_protocol = protocol.clamp(2, pickle::HIGHEST_PROTOCOL);
        self
    }

    /// Sets the largest value in bytes that is inflated, [`DEFAULT_MAX_SIZE`] at first.
    #[must_use]
    pub fn with_max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// What writes the sessions.
    pub fn serializer(&self) -> CacheSerializer {
        match self.backend {
            CacheBackend::DjangoRedis { serializer, .. } => serializer,
            _ => CacheSerializer::Pickle,
        }
    }

    /// The protocol of pickles of new sessions.
    pub fn pickle_protocol(&self) -> u8 {
        self.pickle_protocol
    }

    /// The largest value in bytes that is inflated.
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// The backend.
    pub fn backend(&self) -> CacheBackend {
        self.backend
    }

    /// Reads a session. Of memcached, this is a value with the flags of a pickle; see
    /// [`CacheCodec::decode_flagged`] for others.
    ///
    /// Whether a file has expired is for the caller to say, who knows the time.
    ///
    /// # Errors
    ///
    /// [`CacheDecodeError`].
    pub fn decode(&self, value: &[u8]) -> Result<CachedSession, CacheDecodeError> {
        self.read(self.unwrap(value)?)
    }

    /// As [`CacheCodec::decode`], for a value of memcached, which stores flags beside it.
    ///
    /// # Errors
    ///
    /// [`CacheDecodeError`]; `NotASession` if the flags say text, integer or plain bytes.
    pub fn decode_flagged(
        &self,
        value: &[u8],
        flags: u32,
    ) -> Result<CachedSession, CacheDecodeError> {
        self.read(self.unwrap_flagged(value, flags)?)
    }

    pub(crate) fn read(&self, found: Unwrapped<'_>) -> Result<CachedSession, CacheDecodeError> {
        let Unwrapped { payload, serializer, compressed, expiry } = found;
        let data = match serializer {
            CacheSerializer::Json => json::read(&payload)?,
            CacheSerializer::MsgPack => session(msgpack::read(&payload)?)?,
            CacheSerializer::Pickle => {
                let limits = Limits::default().with_size(self.max_size);
                session(Graph::from_pickle(&payload, &limits)?)?
            }
        };
        Ok(CachedSession { data, serializer, compressed, expiry })
    }

    /// Writes a session. `expiry` is the Unix time in seconds after which the entry is no more, `None`
    /// for never; only a `FileBasedCache` holds it in the value, see [`file_expiry`]. With memcached go
    /// the flags [`MEMCACHED_PICKLE`].
    ///
    /// # Errors
    ///
    /// [`CacheEncodeError`] if the serializer has no form for what the session holds.
    pub fn encode(
        &self,
        data: &SessionData,
        expiry: Option<f64>,
    ) -> Result<Vec<u8>, CacheEncodeError> {
        let payload = match self.serializer() {
            CacheSerializer::Json => json::write(data)?,
            CacheSerializer::MsgPack => {
                msgpack::write(data).map_err(|kind| CacheEncodeError::MsgPack { kind })?
            }
            CacheSerializer::Pickle => {
                data.to_pickle(self.pickle_protocol).map_err(EncodeError::from)?
            }
        };
        Ok(self.wrap(&payload, expiry))
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
            serializer: CacheSerializer::Pickle,
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

/// The dict at the root as a session.
fn session(graph: Graph) -> Result<SessionData, CacheDecodeError> {
    SessionData::from_graph(graph).map_err(|error| match error {
        DecodeError::NotAnObject { found } => CacheDecodeError::NotASession { found },
        // The only error there is.
        _ => CacheDecodeError::NotASession { found: "something else" },
    })
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

//! Under which name a session is kept: from the session key to the key on the server.
//!
//! The engine puts its own prefix before the session key; the cache then puts `KEY_PREFIX` and
//! `VERSION` before that, or calls the site's `KEY_FUNCTION`. django-redis does the same and checks
//! nothing; memcached accepts only some keys; the file and the database cache each have their own form.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use md5::{Digest, Md5};
use thiserror::Error;

/// Bytes in the longest key that memcached takes.
pub const MEMCACHED_MAX_KEY_LENGTH: usize = 250;

/// Characters in the longest key that the table of a `DatabaseCache` takes.
pub const DATABASE_MAX_KEY_LENGTH: usize = 255;

/// The session engine whose entries are meant: each has its own prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheEngine {
    /// `django.contrib.sessions.backends.cache`: the cache is the only store.
    Cache,
    /// `django.contrib.sessions.backends.cached_db`: the cache stands before the table.
    CachedDb,
}

impl CacheEngine {
    /// What the engine puts before the session key (`SessionStore.cache_key_prefix`).
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Cache => "django.contrib.sessions.cache",
            Self::CachedDb => "django.contrib.sessions.cached_db",
        }
    }
}

type KeyFunction = dyn Fn(&str, &str, &str) -> String + Send + Sync;

/// Makes the keys of one entry of `CACHES` for one session engine.
///
/// # Example
///
/// ```
/// use django_session::codec::cache::{CacheEngine, CacheKeys};
///
/// // CACHES without KEY_PREFIX and VERSION: note the leading colon.
/// let keys = CacheKeys::new(CacheEngine::Cache);
/// assert_eq!(keys.server_key("0123456789abcdef"), ":1:django.contrib.sessions.cache0123456789abcdef");
///
/// let keys = CacheKeys::new(CacheEngine::CachedDb).with_key_prefix("shop").with_version(2);
/// assert_eq!(
///     keys.server_key("0123456789abcdef"),
///     "shop:2:django.contrib.sessions.cached_db0123456789abcdef",
/// );
/// ```
#[derive(Clone)]
pub struct CacheKeys {
    cache_key_prefix: String,
    key_prefix: String,
    version: String,
    key_function: Option<Arc<KeyFunction>>,
}

impl CacheKeys {
    /// Keys as with Django's defaults: `KEY_PREFIX` empty, `VERSION` 1, no `KEY_FUNCTION`.
    pub fn new(engine: CacheEngine) -> Self {
        Self {
            cache_key_prefix: engine.prefix().to_owned(),
            key_prefix: String::new(),
            version: "1".to_owned(),
            key_function: None,
        }
    }

    /// Sets `cache_key_prefix`, for a site whose `SessionStore` has its own.
    #[must_use]
    pub fn with_cache_key_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.cache_key_prefix);
        self
    }

    /// Sets `KEY_PREFIX`.
    #[must_use]
    pub fn with_key_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.key_prefix);
        self
    }

    /// Sets `VERSION`: a number as a rule, but Django takes anything.
    #[must_use]
    pub fn with_version(mut self, version: impl fmt::Display) -> Self {
        self.version = version.to_string();
        self
    }

    /// Sets `KEY_FUNCTION`, which gets the engine's key, `KEY_PREFIX` and `VERSION` in this order.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::codec::cache::{CacheEngine, CacheKeys};
    ///
    /// let keys = CacheKeys::new(CacheEngine::Cache)
    ///     .with_key_function(|key, prefix, version| format!("{version}|{prefix}|{key}"));
    /// assert_eq!(keys.server_key("0123456789abcdef"), "1||django.contrib.sessions.cache0123456789abcdef");
    /// ```
    #[must_use]
    pub fn with_key_function(
        mut self,
        function: impl Fn(&str, &str, &str) -> String + Send + Sync + 'static,
    ) -> Self {
        self.key_function = Some(Arc::new(function));
        self
    }

    /// What the engine asks the cache for (`SessionStore.cache_key`).
    pub fn cache_key(&self, session_key: &str) -> String {
        format!("{}{session_key}", self.cache_key_prefix)
    }

    /// What reaches the server (`BaseCache.make_key`).
    pub fn server_key(&self, session_key: &str) -> String {
        let key = self.cache_key(session_key);
        match &self.key_function {
            Some(function) => function(&key, &self.key_prefix, &self.version),
            None => format!("{}:{}:{key}", self.key_prefix, self.version),
        }
    }
}

/// Shows nothing of the settings, which may be meant to be hard to guess.
impl fmt::Debug for CacheKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheKeys").finish_non_exhaustive()
    }
}

/// A key that the cache does not take (`django.core.cache.InvalidCacheKey`).
///
/// It never names the key. The `cache` engine of Django makes an empty session of it on loading.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidCacheKey {
    /// It holds a space or a control character.
    #[error("the cache key holds a space or a control character")]
    Characters,
    /// It is longer than the cache takes.
    #[error("the cache key is longer than {limit}")]
    TooLong {
        /// Bytes for memcached, characters for a database.
        limit: usize,
    },
}

/// Whether memcached takes this key: at most 250 bytes, none of them a space, a control character
/// or 0x7F. Text outside ASCII is sent as UTF-8.
///
/// Django's own check counts characters where memcached counts bytes; its client libraries then
/// refuse what is too long in bytes.
///
/// # Errors
///
/// [`InvalidCacheKey`] if it does not.
pub fn check_memcached_key(server_key: &str) -> Result<(), InvalidCacheKey> {
    if server_key.len() > MEMCACHED_MAX_KEY_LENGTH {
        return Err(InvalidCacheKey::TooLong { limit: MEMCACHED_MAX_KEY_LENGTH });
    }
    if server_key.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(InvalidCacheKey::Characters);
    }
    Ok(())
}

/// Whether the column `cache_key` of a `DatabaseCache` takes this key: at most 255 characters.
///
/// Django leaves that to the database and hides its answer: the session is not stored. SQLite takes
/// keys of any length.
///
/// # Errors
///
/// [`InvalidCacheKey::TooLong`] if it does not.
pub fn check_database_key(server_key: &str) -> Result<(), InvalidCacheKey> {
    if server_key.chars().nth(DATABASE_MAX_KEY_LENGTH).is_some() {
        return Err(InvalidCacheKey::TooLong { limit: DATABASE_MAX_KEY_LENGTH });
    }
    Ok(())
}

/// The file in which a `FileBasedCache` keeps this key: the MD5 of its UTF-8, and `.djcache`.
///
/// # Example
///
/// ```
/// use django_session::codec::cache::{CacheEngine, CacheKeys, file_name};
///
/// let keys = CacheKeys::new(CacheEngine::Cache);
/// assert_eq!(
///     file_name(&keys.server_key("abcdefghijklmnopqrstuvwxyz012345")),
///     "4cceab41b4252c1eda7f8baf8f47cbea.djcache",
/// );
/// ```
pub fn file_name(server_key: &str) -> String {
    let mut name = String::with_capacity(40);
    for byte in Md5::digest(server_key.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(".djcache");
    name
}

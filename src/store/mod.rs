//! Backends: each file is one, all of the same shape, all kept to one contract.
//!
//! | store | feature | where sessions are kept |
//! |---|---|---|
//! | [`MemoryStore`] | | the memory of this process |
//! | [`SignedCookieStore`] | | their own cookie |
//! | `CacheStore` | `cache` | one of Django's caches |
//! | `CachedDbStore` | `cache` and a database | the table, with a cache before it |
//! | `FileStore` | `file` | a directory of files, shared with Django |
//! | [`MovingStore`] | | two stores, from one of which into the other they move |
//! | `SqlStore` | `sqlite`, `postgres`, `mysql` | the table `django_session`, shared with Django |
//!
//! | cache | feature | what Django calls it |
//! |---|---|---|
//! | `DatabaseCache` | `cache` and a database | `DatabaseCache` |
//! | `MemcachedCache` | `memcached` | `PyMemcacheCache`, `PyLibMCCache` |
//! | `MemoryCache` | `cache` | none: the memory of this process |
//! | `RedisCache` | `redis` | `RedisCache`, and that of django-redis |
//!
//! The contract is in `testing` (feature `testing`), for authors of stores.

#[cfg(feature = "cli")]
pub(crate) mod bulk;
#[cfg(feature = "cache")]
mod cache;
#[cfg(all(feature = "cache", feature = "_sql"))]
mod cached_db;
#[cfg(feature = "_url")]
pub(crate) mod connect;
#[cfg(all(feature = "cache", feature = "_sql"))]
mod database_cache;
#[cfg(all(feature = "file", unix))]
mod directory;
#[cfg(all(feature = "file", unix))]
mod file;
#[cfg(feature = "cli")]
pub(crate) mod inspect;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(feature = "cache")]
mod memory_cache;
mod moving;
#[cfg(feature = "postgres")]
mod proof;
// `redis` alone is the name of the driver.
#[cfg(feature = "redis")]
#[path = "redis/mod.rs"]
mod redis_cache;
#[cfg(feature = "postgres")]
mod replicated;
#[cfg(any(feature = "_sql", feature = "memcached", feature = "redis"))]
mod retry;
#[cfg(feature = "python")]
mod rows;
mod signed_cookies;
#[cfg(feature = "_sql")]
mod sql;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "_url")]
mod url;
#[cfg(all(feature = "auth", feature = "_sql"))]
mod users;

#[cfg(feature = "cache")]
pub use cache::{Cache, CacheEntry, CacheStore, Written};
#[cfg(all(feature = "cache", feature = "_sql"))]
pub use cached_db::CachedDbStore;
#[cfg(feature = "cli")]
pub(crate) use connect::connect_to;
#[cfg(feature = "python")]
pub(crate) use connect::connect_with_rows;
#[cfg(feature = "python")]
pub(crate) use connect::keeps_objects;
#[cfg(feature = "_url")]
pub use connect::{ConnectError, connect};
#[cfg(all(feature = "cache", feature = "_sql"))]
pub use database_cache::DatabaseCache;
#[cfg(all(feature = "file", unix))]
pub use directory::FileError;
#[cfg(all(feature = "file", unix))]
pub use file::FileStore;
#[cfg(feature = "memcached")]
pub use memcached::{
    MemcachedCache, MemcachedDistribution, MemcachedError, MemcachedLocationError,
};
pub use memory::MemoryStore;
#[cfg(feature = "cache")]
pub use memory_cache::MemoryCache;
pub use moving::MovingStore;
/// The driver, in the version whose clients [`RedisCache`] takes.
#[cfg(feature = "redis")]
#[doc(no_inline)]
pub use redis;
#[cfg(feature = "redis")]
pub use redis_cache::{RedisAddress, RedisCache, RedisClient, RedisConnectError, RedisError};
#[cfg(feature = "postgres")]
pub use replicated::ReplicatedStore;
#[cfg(feature = "python")]
pub(crate) use rows::{SqlRows, Texts};
pub use signed_cookies::SignedCookieStore;
#[cfg(feature = "_sql")]
pub use sql::{SqlError, SqlPool, SqlStore};
/// The driver, in the version whose pools [`SqlStore`] takes.
#[cfg(feature = "_sql")]
#[doc(no_inline)]
pub use sqlx;
#[cfg(feature = "_url")]
pub use url::{StoreUrl, UrlError};
#[cfg(all(feature = "auth", feature = "_sql"))]
pub use users::SqlUsers;

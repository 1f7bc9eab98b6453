//! Backends: each file is one, all of the same shape, all kept to one contract.
//!
//! | store | feature | where sessions are kept |
//! |---|---|---|
//! | [`MemoryStore`] | | the memory of this process |
//! | `CacheStore` | `cache` | a `Cache`, shared with Django |
//! | `SqlStore` | `sqlite`, `postgres`, `mysql` | the table `django_session`, shared with Django |
//!
//! | cache | feature | what Django calls it |
//! |---|---|---|
//! | `DatabaseCache` | `cache` and one of `sqlite`, `postgres`, `mysql` | `DatabaseCache` |
//! | `MemcachedCache` | `memcached` | `PyMemcacheCache`, `PyLibMCCache` |
//!
//! The contract is in `testing` (feature `testing`), for authors of stores.

#[cfg(feature = "cache")]
mod cache;
#[cfg(all(feature = "_sql", feature = "cache"))]
mod database_cache;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(any(feature = "_sql", feature = "memcached"))]
mod retry;
#[cfg(feature = "_sql")]
mod sql;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "cache")]
pub use cache::{Cache, CacheEntry, CacheStore, Written};
#[cfg(all(feature = "_sql", feature = "cache"))]
pub use database_cache::DatabaseCache;
#[cfg(feature = "memcached")]
pub use memcached::{
    MemcachedCache, MemcachedDistribution, MemcachedError, MemcachedLocationError,
};
pub use memory::MemoryStore;
#[cfg(feature = "_sql")]
pub use sql::{ConnectError, SqlError, SqlPool, SqlStore};
/// The driver, in the version whose pools [`SqlStore`] takes.
#[cfg(feature = "_sql")]
#[doc(no_inline)]
pub use sqlx;

//! Backends: each file is one, all of the same shape, all kept to one contract.
//!
//! | store | feature | where sessions are kept |
//! |---|---|---|
//! | [`MemoryStore`] | | the memory of this process |
//! | [`SignedCookieStore`] | | their own cookie |
//! | `SqlStore` | `sqlite`, `postgres`, `mysql` | the table `django_session`, shared with Django |
//! | `FileStore` | `file` | a directory of files, shared with Django |
//!
//! The contract is in `testing` (feature `testing`), for authors of stores.

#[cfg(feature = "cache")]
mod cache;
#[cfg(all(feature = "file", unix))]
mod directory;
#[cfg(all(feature = "file", unix))]
mod file;
mod memory;
#[cfg(feature = "_sql")]
mod retry;
mod signed_cookies;
#[cfg(feature = "_sql")]
mod sql;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "cache")]
pub use cache::{Cache, CacheEntry, CacheStore, Written};
#[cfg(all(feature = "file", unix))]
pub use directory::FileError;
#[cfg(all(feature = "file", unix))]
pub use file::FileStore;
pub use memory::MemoryStore;
pub use signed_cookies::SignedCookieStore;
#[cfg(feature = "_sql")]
pub use sql::{ConnectError, SqlError, SqlPool, SqlStore};
/// The driver, in the version whose pools [`SqlStore`] takes.
#[cfg(feature = "_sql")]
#[doc(no_inline)]
pub use sqlx;

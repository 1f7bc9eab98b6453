//! What a store says of itself: its clock, its table, its settings. Facts without an opinion.
//!
//! Whatever a server does not tell, or tells not everybody, is `None`. Nothing here is a key, a session or
//! a password. Statements go by the simple protocol, so that a pooler may be in between.

mod database;
mod directory;
mod memcached;
mod mysql;
mod postgres;
mod redis;
mod sqlite;

use std::time::Instant;

use jiff::Timestamp;

pub(crate) use self::database::{
    Column, Connections, DatabaseFacts, Kind, ReplicaFacts, TableFacts,
};
pub(crate) use self::directory::DirectoryFacts;
#[cfg(test)]
pub(crate) use self::directory::PathFacts;
pub(crate) use self::memcached::MemcachedFacts;
pub(crate) use self::redis::RedisFacts;
use super::connect::ConnectError;
use super::url::StoreUrl;

/// How far the clock of a server is from the one here, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// That of the server, less that of this machine.
    pub(crate) ahead: i64,
    /// How much of it may be the time that the question took.
    pub(crate) uncertain: i64,
}

/// A question about the time that is under way.
struct Asked {
    at: Timestamp,
    since: Instant,
}

impl Asked {
    fn now() -> Self {
        Self { at: Timestamp::now(), since: Instant::now() }
    }

    /// What the answer means, which is a time in Unix milliseconds.
    fn answered(&self, server: i64) -> Clock {
        let took = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let here = self.at.as_millisecond().saturating_add(took / 2);
        Clock { ahead: server.saturating_sub(here), uncertain: took / 2 + 1 }
    }
}

/// What there is to be known of a store.
#[derive(Clone, Debug)]
pub(crate) enum Inspected {
    Database(Box<DatabaseFacts>),
    Directory(DirectoryFacts),
    Memcached(Vec<MemcachedFacts>),
    /// Each of the servers that answered.
    Redis(Vec<RedisFacts>),
    /// Nothing can be asked.
    Silent,
}

/// Looks at the store at an address. A database is looked at even if its table is not there.
///
/// # Errors
///
/// [`ConnectError`].
pub(crate) async fn inspect(url: &StoreUrl) -> Result<Inspected, ConnectError> {
    match url.scheme() {
        "memcached" => Ok(Inspected::Memcached(memcached::inspect(url).await?)),
        "file" => Ok(Inspected::Directory(directory::inspect(url)?)),
        scheme if scheme.starts_with("redis") => Ok(Inspected::Redis(redis::inspect(url).await?)),
        _ if url.is_sql() => Ok(Inspected::Database(Box::new(database::inspect(url).await?))),
        _ => Ok(Inspected::Silent),
    }
}

/// The servers of the cache that is before a table.
///
/// # Errors
///
/// [`ConnectError`].
pub(crate) async fn inspect_cache(url: &StoreUrl) -> Result<Option<Inspected>, ConnectError> {
    match url.text("cache_url") {
        None => Ok(None),
        Some(cache) => inspect(&cache.parse()?).await.map(Some),
    }
}

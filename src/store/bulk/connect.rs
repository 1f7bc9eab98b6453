//! From an address to a store that is read as a whole.

use std::sync::Arc;

use super::BulkStore;
use super::cache::CacheBulk;
use super::cache_table::CacheTable;
use super::cached_db::CachedBulk;
#[cfg(unix)]
use super::file::FileBulk;
use super::mysql::MySqlBulk;
use super::postgres::PostgresBulk;
use super::redis::RedisBulk;
use super::sqlite::SqliteBulk;
use crate::codec::cache::{CacheBackend, CacheCodec, CacheEngine};
use crate::codec::{Format, Serializer, SessionCodec};
use crate::session::{SessionSettings, StoreError};
use crate::store::connect::{ConnectError, cache, check_table, connect_to, keys, redis_parts};
use crate::store::sql::{SqlPool, Zone};
use crate::store::url::StoreUrl;
use crate::store::{DatabaseCache, SqlStore};

/// Whether the sessions at such an address can be listed.
pub(crate) fn is_listed(url: &StoreUrl) -> bool {
    url.is_sql() || url.scheme().starts_with("redis") || cfg!(unix) && url.scheme() == "file"
}

/// Connects to the store at an address, as [`crate::store::connect`] does.
///
/// Sessions are read in every form and by every serializer; they are written as the settings say.
///
/// # Errors
///
/// [`ConnectError`]; `Unsupported` within if nothing is kept there. memcached takes sessions and gives those whose
/// keys are known; that it cannot list them is seen when they are [scanned](BulkStore::scan).
pub(crate) async fn connect(
    url: &StoreUrl,
    settings: &SessionSettings,
) -> Result<Box<dyn BulkStore>, ConnectError> {
    if url.scheme() == "memcached" {
        let (cache, keys, codec) = cache(url, CacheEngine::Cache).await?;
        let sessions = connect_to(url, settings).await?;
        return Ok(Box::new(CacheBulk::new(cache, keys, codec, settings, sessions, None)));
    }
    if !is_listed(url) {
        return Err(ConnectError::Connect(StoreError::Unsupported {
            operation: "listing sessions",
        }));
    }
    if url.is_sql() {
        check_table(url)?;
    }
    if let Some(name) = url.text("cache_table").filter(|_| url.is_sql()) {
        let cache = Arc::new(DatabaseCache::connect_to(url, name, settings).await?);
        let table = CacheTable::connect(url, name, settings).await?;
        let (keys, codec) =
            (keys(url, CacheEngine::Cache), CacheCodec::new(CacheBackend::Database));
        let sessions = connect_to(url, settings).await?;
        return Ok(Box::new(CacheBulk::new(cache, keys, codec, settings, sessions, Some(table))));
    }
    if url.is_sql() {
        // The table alone: whoever writes looks after the copies.
        let sessions = Arc::new(SqlStore::connect_to(url, settings).await?);
        let codec = reading_all(settings.codec()?);
        let (pool, _) = SqlPool::connect_to(url).await?;
        let zone = Zone { use_tz: settings.use_tz, time_zone: settings.time_zone.clone() };
        let table = url.text("table").unwrap_or("django_session");
        let bulk: Box<dyn BulkStore> = match pool {
            SqlPool::MySql(pool) => Box::new(MySqlBulk::new(pool, table, zone, codec, sessions)),
            SqlPool::Postgres(pool) => {
                Box::new(PostgresBulk::new(pool, table, zone, codec, sessions))
            }
            SqlPool::Sqlite(pool) => Box::new(SqliteBulk::new(pool, table, zone, codec, sessions)),
        };
        return match url.text("cache_url") {
            None => Ok(bulk),
            Some(cache_url) => {
                let (cache, keys, _) = cache(&cache_url.parse()?, CacheEngine::CachedDb).await?;
                Ok(Box::new(CachedBulk::new(bulk, cache, keys)))
            }
        };
    }
    #[cfg(unix)]
    if url.scheme() == "file" {
        let files = crate::store::FileStore::connect_to(url, settings)?;
        let sessions = connect_to(url, settings).await?;
        let codec = reading_all(settings.codec()?);
        return Ok(Box::new(FileBulk::new(files, settings, codec, sessions)));
    }
    let sessions = connect_to(url, settings).await?;
    Ok(Box::new(RedisBulk::new(redis_parts(url).await?, settings, sessions)))
}

/// A codec that reads whatever Django has ever written.
fn reading_all(codec: SessionCodec) -> SessionCodec {
    codec.accept(Format::ALL).accept_serializers([Serializer::Json, Serializer::Pickle])
}

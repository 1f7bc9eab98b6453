//! From an address to a store that is read as a whole.

use super::BulkStore;
use super::cached_db::CachedBulk;
#[cfg(unix)]
use super::file::FileBulk;
use super::mysql::MySqlBulk;
use super::postgres::PostgresBulk;
use super::redis::RedisBulk;
use super::sqlite::SqliteBulk;
use crate::codec::cache::CacheEngine;
use crate::codec::{Format, Serializer, SessionCodec};
use crate::session::{SessionSettings, StoreError};
use crate::store::connect::{ConnectError, cache, connect_to, redis_parts};
use crate::store::sql::{SqlPool, Zone};
use crate::store::url::StoreUrl;

/// Whether the sessions at such an address can be listed.
pub(crate) fn is_listed(url: &StoreUrl) -> bool {
    url.is_sql() && url.text("cache_table").is_none()
        || url.scheme().starts_with("redis")
        || cfg!(unix) && url.scheme() == "file"
}

/// Connects to the store at an address, as [`crate::store::connect`] does.
///
/// Sessions are read in every form and by every serializer; they are written as the settings say.
///
/// # Errors
///
/// [`ConnectError`]; `Unsupported` within if sessions cannot be listed there.
pub(crate) async fn connect(
    url: &StoreUrl,
    settings: &SessionSettings,
) -> Result<Box<dyn BulkStore>, ConnectError> {
    if !is_listed(url) {
        return Err(ConnectError::Connect(StoreError::Unsupported {
            operation: "listing sessions",
        }));
    }
    let sessions = connect_to(url, settings).await?;
    if url.is_sql() {
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
        let codec = reading_all(settings.codec()?);
        return Ok(Box::new(FileBulk::new(files, settings, codec, sessions)));
    }
    Ok(Box::new(RedisBulk::new(redis_parts(url).await?, settings, sessions)))
}

/// A codec that reads whatever Django has ever written.
fn reading_all(codec: SessionCodec) -> SessionCodec {
    codec.accept(Format::ALL).accept_serializers([Serializer::Json, Serializer::Pickle])
}

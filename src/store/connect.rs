//! From an address to a store, of whatever kind.

use std::sync::Arc;

use thiserror::Error;

use super::url::{StoreUrl, UrlError};
use super::{MemoryStore, MovingStore, SignedCookieStore};
use crate::session::{SessionSettings, SessionStore, SettingsError, StoreError};

/// Connects to the store that an address leads to, for the site with these settings.
///
/// | address | store |
/// |---|---|
/// | `postgres://…`, `mysql://…`, `sqlite:…` | `SqlStore` |
/// | … with `replica_url` (PostgreSQL) | `ReplicatedStore` |
/// | … with `cache_url` | `CachedDbStore` |
/// | … with `cache_table` | `CacheStore` of a `DatabaseCache` |
/// | `redis://…`, `rediss://…`, `redis+cluster://…`, `redis+sentinel://…` | `CacheStore` of a `RedisCache` |
/// | `memcached://…` | `CacheStore` of a `MemcachedCache` |
/// | `file:…` | `FileStore` |
/// | `moving:?from_url=…&to_url=…` | [`MovingStore`] between the two |
/// | `signed_cookies:` | [`SignedCookieStore`] |
/// | `memory:` | a [`MemoryStore`] of its own |
///
/// `docs/settings.md` has the options. Addresses within an option are percent-encoded.
///
/// # Errors
///
/// [`ConnectError`]; see there.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_session::{SecretKey, Session, SessionSettings, store};
/// use std::sync::Arc;
///
/// let settings = SessionSettings::default().with_secret_key(SecretKey::new("SECRET_KEY")?);
/// // As a rule "postgres://site@localhost/site", out of the environment.
/// let store = store::connect("memory:", &settings).await?;
/// let session = Session::new(store, Arc::new(settings), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
/// # Ok(())
/// # }
/// ```
pub async fn connect(
    url: &str,
    settings: &SessionSettings,
) -> Result<Arc<dyn SessionStore>, ConnectError> {
    connect_to(&url.parse()?, settings).await
}

/// As [`connect`], of an address that has been read.
pub(crate) async fn connect_to(
    url: &StoreUrl,
    settings: &SessionSettings,
) -> Result<Arc<dyn SessionStore>, ConnectError> {
    if url.scheme() == "moving" {
        return moving(url, settings).await;
    }
    connect_to_one(url, settings).await
}

/// As [`connect`]; and if it is a database, that it can be asked for other rows over the same connections.
#[cfg(feature = "python")]
pub(crate) async fn connect_with_rows(
    url: &str,
    settings: &SessionSettings,
) -> Result<(Arc<dyn SessionStore>, Option<super::SqlRows>), ConnectError> {
    let url: StoreUrl = url.parse()?;
    if !url.is_sql() {
        return Ok((connect_to(&url, settings).await?, None));
    }
    let (store, table) = table(&url, settings).await?;
    Ok((store, table.as_ref().map(super::SqlRows::beside)))
}

/// To a store of one kind.
#[cfg_attr(
    not(any(feature = "_sql", feature = "memcached", feature = "redis")),
    expect(clippy::unused_async, reason = "the others are waited for")
)]
async fn connect_to_one(
    url: &StoreUrl,
    settings: &SessionSettings,
) -> Result<Arc<dyn SessionStore>, ConnectError> {
    match url.scheme() {
        "memory" => Ok(Arc::new(MemoryStore::new(settings.codec()?))),
        "signed_cookies" => Ok(Arc::new(SignedCookieStore::new(settings)?)),
        #[cfg(all(feature = "file", unix))]
        "file" => Ok(Arc::new(super::FileStore::connect_to(url, settings)?)),
        #[cfg(feature = "_sql")]
        _ if url.is_sql() => Ok(table(url, settings).await?.0),
        #[cfg(any(feature = "memcached", feature = "redis"))]
        _ if url.is_cache() => {
            use crate::codec::cache::CacheEngine;

            let (cache, keys, codec) = cache(url, CacheEngine::Cache).await?;
            Ok(Arc::new(super::CacheStore::new(cache, keys, codec).with_settings(settings)))
        }
        scheme => Err(ConnectError::no_driver(scheme)),
    }
}

/// From one store to another.
async fn moving(
    url: &StoreUrl,
    settings: &SessionSettings,
) -> Result<Arc<dyn SessionStore>, ConnectError> {
    let inner = |name| {
        let inner = url.text(name).unwrap_or_default().parse::<StoreUrl>()?;
        if matches!(inner.scheme(), "moving" | "signed_cookies") {
            let expected = "the address of a store that keeps sessions itself";
            return Err(UrlError::InvalidOption { name, expected });
        }
        Ok(inner)
    };
    let expected = "`moving:` and its options alone";
    if !url.address().ends_with(':') {
        return Err(UrlError::InvalidAddress { expected }.into());
    }
    let write_both = url.word("write", "`new` or `both`", |word| match word {
        "new" => Some(false),
        "both" => Some(true),
        _ => None,
    })?;
    let (from, to) = (inner("from_url")?, inner("to_url")?);
    // Two addresses of memory are two stores.
    if from == to && from.scheme() != "memory" {
        let expected = "another address than `from_url`";
        return Err(UrlError::InvalidOption { name: "to_url", expected }.into());
    }
    let (old, new) = (connect_to_one(&from, settings).await?, connect_to_one(&to, settings).await?);
    Ok(Arc::new(MovingStore::new(old, new).with_write_both(write_both.unwrap_or(false))))
}

/// Whether sessions are pickled there, and so may hold what JSON cannot.
#[cfg(feature = "python")]
pub(crate) fn keeps_objects(url: &str) -> bool {
    let Ok(url) = url.parse::<StoreUrl>() else { return false };
    let within = |name| url.text(name).is_some_and(keeps_objects);
    url.is_cache() || url.text("cache_table").is_some() || within("from_url") || within("to_url")
}

/// Whether the options of the address of a database go together.
#[cfg(feature = "_sql")]
pub(super) fn check_table(url: &StoreUrl) -> Result<(), UrlError> {
    let options = ["cache_table", "cache_url", "replica_url"];
    if options.iter().filter(|name| url.text(name).is_some()).count() > 1 {
        let expected = "the only one of `cache_table`, `cache_url` and `replica_url`";
        return Err(UrlError::InvalidOption { name: "cache_url", expected });
    }
    Ok(())
}

/// The store of an address of a database, and the connections with which it writes a table of sessions.
#[cfg(feature = "_sql")]
async fn table(
    url: &StoreUrl,
    settings: &SessionSettings,
) -> Result<(Arc<dyn SessionStore>, Option<super::SqlStore>), ConnectError> {
    use super::SqlStore;

    check_table(url)?;
    #[cfg(feature = "cache")]
    if let Some(name) = url.text("cache_table") {
        use super::{CacheStore, DatabaseCache};
        use crate::codec::cache::{CacheBackend, CacheCodec, CacheEngine};

        let cache = DatabaseCache::connect_to(url, name, settings).await?;
        let codec = CacheCodec::new(CacheBackend::Database);
        let store = CacheStore::new(cache, keys(url, CacheEngine::Cache), codec);
        return Ok((Arc::new(store.with_settings(settings)), None));
    }
    let store = SqlStore::connect_to(url, settings).await?;
    let table = Some(store.clone());
    #[cfg(any(feature = "memcached", feature = "redis"))]
    if let Some(cache_url) = url.text("cache_url") {
        use crate::codec::cache::CacheEngine;

        let (cache, keys, codec) = cache(&cache_url.parse()?, CacheEngine::CachedDb).await?;
        let store = super::CachedDbStore::new(store, cache, keys, codec);
        return Ok((Arc::new(store.with_settings(settings)), table));
    }
    if url.text("cache_url").is_some() || url.text("cache_table").is_some() {
        return Err(ConnectError::no_driver("redis"));
    }
    #[cfg(feature = "postgres")]
    if let Some(replica_url) = url.text("replica_url") {
        let replica_url: StoreUrl = replica_url.parse()?;
        if !matches!(replica_url.scheme(), "postgres" | "postgresql") {
            let expected = "the address of a PostgreSQL server";
            return Err(UrlError::InvalidOption { name: "replica_url", expected }.into());
        }
        let mut replica = SqlStore::connect_to(&replica_url, settings).await?;
        if let Some(table) = url.text("table") {
            replica = replica.with_table(table);
        }
        let mut store = super::ReplicatedStore::new(store, replica);
        if let Some(settle) = url.seconds("replica_settle")? {
            store = store.with_settle_time(settle);
        }
        return Ok((Arc::new(store), table));
    }
    Ok((Arc::new(store), table))
}

#[cfg(all(feature = "cache", any(feature = "_sql", feature = "memcached", feature = "redis")))]
pub(super) fn keys(
    url: &StoreUrl,
    engine: crate::codec::cache::CacheEngine,
) -> crate::codec::cache::CacheKeys {
    let mut keys = crate::codec::cache::CacheKeys::new(engine);
    if let Some(prefix) = url.text("prefix") {
        keys = keys.with_key_prefix(prefix);
    }
    if let Some(version) = url.text("version") {
        keys = keys.with_version(version);
    }
    if let Some(prefix) = url.text("cache_key_prefix") {
        keys = keys.with_cache_key_prefix(prefix);
    }
    keys
}

/// The cache of an address, and what the site keeps there and where.
#[cfg(any(feature = "memcached", feature = "redis"))]
#[cfg_attr(
    not(feature = "redis"),
    expect(clippy::unused_async, reason = "only Redis is asked whether it is there")
)]
pub(super) async fn cache(
    url: &StoreUrl,
    engine: crate::codec::cache::CacheEngine,
) -> Result<
    (Arc<dyn super::Cache>, crate::codec::cache::CacheKeys, crate::codec::cache::CacheCodec),
    ConnectError,
> {
    use crate::codec::cache::CacheCodec;

    let (cache, backend): (Arc<dyn super::Cache>, _) = match url.scheme() {
        #[cfg(feature = "memcached")]
        "memcached" => (memcached(url)?, crate::codec::cache::CacheBackend::Memcached),
        #[cfg(feature = "redis")]
        scheme if scheme.starts_with("redis") => {
            let layout = layout(url)?;
            (Arc::new(redis(url).await?), layout)
        }
        _ if !url.is_cache() => {
            let expected = "the address of a Redis or memcached server";
            return Err(UrlError::InvalidOption { name: "cache_url", expected }.into());
        }
        scheme => return Err(ConnectError::no_driver(scheme)),
    };
    let mut codec = CacheCodec::new(backend);
    if let Some(protocol) = url.number("pickle_protocol", "a number from 2 to 5")? {
        codec = codec.with_pickle_protocol(protocol);
    }
    Ok((cache, keys(url, engine), codec))
}

#[cfg(feature = "memcached")]
fn memcached(url: &StoreUrl) -> Result<Arc<dyn super::Cache>, ConnectError> {
    use super::MemcachedDistribution;

    let expected = "one or more servers, such as `memcached://10.0.0.1:11211,10.0.0.2:11211`";
    let location = url.address().split_once("://").map(|(_, location)| location);
    let cache = location.and_then(|location| super::MemcachedCache::from_location(location).ok());
    let mut cache = cache.ok_or(UrlError::InvalidAddress { expected })?;
    if let Some(timeout) = url.seconds("timeout")? {
        cache = cache.with_timeout(timeout);
    }
    if let Some(timeout) = url.seconds("connect_timeout")? {
        cache = cache.with_connect_timeout(timeout);
    }
    if let Some(most) = url.number("max_connections", "a whole number, from 1 on")? {
        cache = cache.with_max_connections(most);
    }
    let distribution = url.word("distribution", "`rendezvous` or `modula`", |word| match word {
        "modula" => Some(MemcachedDistribution::Modula),
        "rendezvous" => Some(MemcachedDistribution::Rendezvous),
        _ => None,
    })?;
    Ok(Arc::new(cache.with_distribution(distribution.unwrap_or_default())))
}

#[cfg(feature = "redis")]
async fn redis(url: &StoreUrl) -> Result<super::RedisCache, ConnectError> {
    use super::{RedisAddress, RedisCache, RedisConnectError};

    let expected = "one or more servers, such as `redis://user:password@localhost:6379/0`";
    let failed = |error| match error {
        RedisConnectError::Connect(error) => ConnectError::Connect(error),
        RedisConnectError::Address { .. } => UrlError::InvalidAddress { expected }.into(),
    };
    let mut address: RedisAddress = url.address().parse().map_err(failed)?;
    if let Some(path) = url.text("ca") {
        if !url.scheme().starts_with("rediss") {
            let expected = "left out, or the address one of `rediss`: only TLS has certificates";
            return Err(UrlError::InvalidOption { name: "ca", expected }.into());
        }
        let pem = std::fs::read(path).map_err(StoreError::backend);
        address = address.with_ca(pem.map_err(ConnectError::Connect)?);
    }
    let mut cache = RedisCache::new(&address).map_err(failed)?;
    let timeout = url.seconds("timeout")?;
    if let Some(timeout) = timeout {
        cache = cache.with_timeout(timeout);
    }
    if let Some(timeout) = url.seconds("connect_timeout")? {
        cache = cache.with_connect_timeout(timeout);
    }
    if let Some(replicas) = url.number("wait", "a number of replicas")? {
        cache = cache.with_wait(replicas, timeout.unwrap_or(std::time::Duration::from_secs(1)));
    }
    cache.ping().await.map_err(ConnectError::Connect)?;
    Ok(cache)
}

/// Redis as sessions are kept there.
#[cfg(feature = "cli")]
pub(super) struct RedisParts {
    pub(super) cache: super::RedisCache,
    pub(super) keys: crate::codec::cache::CacheKeys,
    pub(super) codec: crate::codec::cache::CacheCodec,
}

/// The cache at an address of Redis, for whoever wants more of it than a [`super::Cache`] has.
#[cfg(feature = "cli")]
pub(super) async fn redis_parts(url: &StoreUrl) -> Result<RedisParts, ConnectError> {
    use crate::codec::cache::{CacheCodec, CacheEngine};

    let mut codec = CacheCodec::new(layout(url)?);
    if let Some(protocol) = url.number("pickle_protocol", "a number from 2 to 5")? {
        codec = codec.with_pickle_protocol(protocol);
    }
    Ok(RedisParts { cache: redis(url).await?, keys: keys(url, CacheEngine::Cache), codec })
}

/// What a site keeps in Redis: Django's own backend, or django-redis with its options.
#[cfg(feature = "redis")]
fn layout(url: &StoreUrl) -> Result<crate::codec::cache::CacheBackend, UrlError> {
    use crate::codec::cache::{CacheBackend, CacheSerializer, Compressor};

    let serializer =
        url.word("serializer", "`pickle`, `json` or `msgpack`", |word| match word {
            "pickle" => Some(CacheSerializer::Pickle),
            "json" => Some(CacheSerializer::Json),
            "msgpack" => Some(CacheSerializer::MsgPack),
            _ => None,
        })?;
    let names = "`identity`, `gzip`, `lz4`, `lzma`, `zlib` or `zstd`";
    let compressor = url.word("compressor", names, |word| match word {
        "gzip" => Some(Compressor::Gzip),
        "identity" => Some(Compressor::Identity),
        "lz4" => Some(Compressor::Lz4),
        "lzma" => Some(Compressor::Lzma),
        "zlib" => Some(Compressor::Zlib),
        "zstd" => Some(Compressor::Zstd),
        _ => None,
    })?;
    let is_django_redis = url.word("layout", "`django` or `django_redis`", |word| match word {
        "django" => Some(false),
        "django_redis" => Some(true),
        _ => None,
    })?;
    match is_django_redis {
        Some(false) if serializer.is_some() || compressor.is_some() => {
            let expected = "`django_redis` where there is a serializer or a compressor";
            Err(UrlError::InvalidOption { name: "layout", expected })
        }
        None if serializer.is_none() && compressor.is_none() => Ok(CacheBackend::Redis),
        Some(false) => Ok(CacheBackend::Redis),
        _ => Ok(CacheBackend::DjangoRedis {
            serializer: serializer.unwrap_or_default(),
            compressor: compressor.unwrap_or_default(),
        }),
    }
}

/// No store could be made of an address. No part of it is repeated: it holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server does not answer, does not let us in, or is a file that does not exist.
    #[error("cannot connect to the session store")]
    Connect(#[source] StoreError),
    /// This program was built without the driver.
    #[error(
        "there is no driver for {scheme} addresses in this build; enable the feature `{feature}` of \
         the crate django-session"
    )]
    FeatureDisabled {
        /// The scheme of the address.
        scheme: &'static str,
        /// The feature that brings the driver.
        feature: &'static str,
    },
    /// No codec can be made of the settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address is none, or is one of another kind of store.
    #[error(transparent)]
    Url(#[from] UrlError),
}

impl ConnectError {
    /// For an address that no driver of this build understands.
    #[cfg_attr(
        not(feature = "_sql"),
        allow(dead_code, reason = "a store without a driver needs none")
    )]
    pub(super) fn no_driver(scheme: &'static str) -> Self {
        let feature = match scheme {
            "file" => "file",
            "mariadb" | "mysql" => "mysql",
            "memcached" => "memcached",
            "postgres" | "postgresql" => "postgres",
            "sqlite" => "sqlite",
            _ => "redis",
        };
        Self::FeatureDisabled { scheme, feature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_driver_names_the_feature_that_brings_it() {
        for (scheme, feature) in [
            ("mariadb", "mysql"),
            ("postgresql", "postgres"),
            ("rediss+sentinel", "redis"),
            ("sqlite", "sqlite"),
        ] {
            let message = ConnectError::no_driver(scheme).to_string();
            assert!(message.contains(&format!("`{feature}`")), "{message}");
        }
    }
}

//! A table and a cache of a real server before it, shared with a Django.

use std::sync::Arc;

use django_session::codec::cache::{
    CacheBackend, CacheCodec, CacheEngine, CacheKeys, CacheSerializer, Compressor,
};
use django_session::session::SessionRecord;
use django_session::store::{
    Cache, CachedDbStore, MemcachedCache, RedisAddress, RedisCache, SqlStore,
};
use django_session::{SessionKey, SessionStore as _};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use crate::differential::Engine;
use crate::stores::{Kind, Place, django_settings, now, server, settings, until};

/// Which cache is before the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    DjangoRedis,
    PyMemcache,
    Redis,
}

/// A table, a cache, and what of the latter is this test's.
pub(super) struct Site {
    pub(super) place: Place,
    pub(super) cache: Arc<dyn Cache>,
    pub(super) keys: CacheKeys,
    pub(super) codec: CacheCodec,
    before: Before,
    prefix: String,
    /// Where Django finds the cache.
    pub(super) location: String,
}

impl Site {
    /// `None` if there are no such servers.
    pub(super) async fn new(kind: Kind, before: Before) -> Option<Self> {
        let place = Place::new(kind).await?;
        let prefix = SessionKey::generate().as_str().to_owned();
        let (cache, location): (Arc<dyn Cache>, _) = if before == Before::PyMemcache {
            let url = server("TEST_MEMCACHED_URL")?;
            let location = url.strip_prefix("memcached://").unwrap().to_owned();
            (Arc::new(MemcachedCache::new([&location]).unwrap()), location)
        } else {
            let url = server("TEST_REDIS_URL")?;
            let address: RedisAddress = url.parse().unwrap();
            (Arc::new(RedisCache::new(&address).unwrap()), url)
        };
        let codec = CacheCodec::new(match before {
            Before::Redis => CacheBackend::Redis,
            Before::PyMemcache => CacheBackend::Memcached,
            Before::DjangoRedis => CacheBackend::DjangoRedis {
                serializer: CacheSerializer::Json,
                compressor: Compressor::Zlib,
            },
        });
        let keys = CacheKeys::new(CacheEngine::CachedDb).with_key_prefix(&prefix).with_version(7);
        Some(Self { place, cache, keys, codec, before, prefix, location })
    }

    pub(super) async fn store(&self) -> CachedDbStore {
        self.store_on(self.place.store().await, Arc::clone(&self.cache))
    }

    /// A store that has another way there.
    pub(super) fn store_on(&self, db: SqlStore, cache: impl Cache) -> CachedDbStore {
        CachedDbStore::new(db, cache, self.keys.clone(), self.codec.clone())
            .with_settings(&settings())
    }

    /// The settings of a Django that has its sessions here.
    pub(super) fn django_settings(&self) -> Value {
        let (class, options) = match self.before {
            Before::DjangoRedis => (
                "django_redis.cache.RedisCache",
                json!({
                    "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
                    "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
                }),
            ),
            Before::PyMemcache => {
                ("django.core.cache.backends.memcached.PyMemcacheCache", json!({}))
            }
            Before::Redis => ("django.core.cache.backends.redis.RedisCache", json!({})),
        };
        let mut settings = django_settings(&self.place);
        settings["SESSION_ENGINE"] = "django.contrib.sessions.backends.cached_db".into();
        settings["CACHES"] = json!({"default": {
            "BACKEND": class,
            "LOCATION": self.location,
            "KEY_PREFIX": self.prefix,
            "VERSION": 7,
            "OPTIONS": options,
        }});
        settings
    }

    pub(super) fn django(&self) -> Option<Engine> {
        Engine::start(&self.django_settings())
    }

    /// What is in the cache of a session, and how many seconds it has left there.
    pub(super) async fn copy(&self, key: &str) -> Option<(Map<String, Value>, i64)> {
        let entry = self.cache.get(&self.keys.server_key(key)).await.unwrap()?;
        let decoded = match entry.flags {
            Some(flags) => self.codec.decode_flagged(&entry.value, flags),
            None => self.codec.decode(&entry.value),
        };
        let json = decoded.unwrap().data.to_json().unwrap();
        let left = entry.timeout.expect("it ends").as_secs();
        Some((serde_json::from_str(&json).unwrap(), left))
    }

    /// Takes a copy away, as a cache without room does, or by its time.
    pub(super) async fn drop_copy(&self, key: &str, by_time: bool) {
        let key = self.keys.server_key(key);
        // memcached has seconds at best.
        if !by_time || self.before == Before::PyMemcache {
            self.cache.delete(&key, None).await.unwrap();
            return;
        }
        self.cache.touch(&key, SignedDuration::from_millis(1)).await.unwrap();
        until("the copy ends", async || !self.cache.has_key(&key).await.unwrap()).await;
    }

    /// Lets a session grow old: both of its ends are near.
    pub(super) async fn age(&self, store: &CachedDbStore, key: &str) {
        let near = SignedDuration::from_secs(100);
        let session_key = SessionKey::parse(key).unwrap();
        let row = store.db().load(&session_key, now()).await.unwrap().unwrap();
        let expire_date = now().checked_add(near).unwrap();
        store.db().touch(&SessionRecord { expire_date, ..row }).await.unwrap();
        self.cache.touch(&self.keys.server_key(key), near).await.unwrap();
    }
}

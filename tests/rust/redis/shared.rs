//! A running Django and this store on one Redis server: thousands of steps, at random by one or the
//! other, against a model.
//!
//! `DIFFERENTIAL_SEED` starts another walk, `DIFFERENTIAL_STEPS` sets its length.

use std::collections::BTreeMap;
use std::sync::Arc;

use django_session::codec::cache::{
    CacheBackend, CacheCodec, CacheEngine, CacheKeys, CacheSerializer, Compressor,
};
use django_session::store::{CacheStore, RedisCache};
use django_session::{SessionKey, SessionSettings};
use serde_json::{Map, Value, json};

use super::{PLAIN, ask, cache, raw};
use crate::differential::{Engine, Random};
use crate::lost_updates;
use crate::sides::{Django, Ours, changed, choose, name, text, value};
use crate::stores::server;

const STEPS: u64 = 3_000;

/// What should be there.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<String, Map<String, Value>>,
    gone: Vec<String>,
}

impl Model {
    /// Does the step, and says what the answer has to be; of a new key anything.
    fn step(&mut self, step: &Value, answer: &Value) -> Value {
        let key = step["key"].as_str().unwrap_or_default();
        match step["step"].as_str().unwrap() {
            "create" => {
                let mut data = Map::new();
                changed(&mut data, step);
                let key = answer.as_str().expect("a key").to_owned();
                assert!(self.sessions.insert(key, data).is_none(), "the key is new");
                answer.clone()
            }
            "load" => self.sessions.get(key).cloned().map_or(Value::Null, Value::Object),
            "save" => match self.sessions.get_mut(key) {
                Some(data) => {
                    changed(data, step);
                    json!(true)
                }
                None => json!(false),
            },
            "exists" => json!(self.sessions.contains_key(key)),
            "cycle" => match self.sessions.remove(key) {
                Some(data) => {
                    self.gone.push(key.to_owned());
                    let new = answer.as_str().expect("a key").to_owned();
                    assert!(self.sessions.insert(new, data).is_none(), "the key is new");
                    answer.clone()
                }
                None => Value::Null,
            },
            _ => {
                self.sessions.remove(key);
                self.gone.push(key.to_owned());
                Value::Null
            }
        }
    }
}

/// What somebody may do next.
fn next(random: &mut Random, model: &Model) -> Value {
    let there: Vec<_> = model.sessions.keys().collect();
    // Enough to choose from, and sometimes one that is not there any more, or never was.
    let kind = if there.len() < 5 { 0 } else { random.below(20) };
    let key = match random.below(8) {
        0 if !model.gone.is_empty() => choose(random, &model.gone).clone(),
        1 if kind > 0 => "nobody-ever-had-this-key-00000000".to_owned(),
        _ if there.is_empty() => String::new(),
        _ => (*choose(random, &there)).clone(),
    };
    let data: Map<_, _> = (0..random.below(4)).map(|_| (name(random), value(random, 3))).collect();
    let age = *choose(random, &[None, None, Some(3600), Some(1_000_000)]);
    match kind {
        0 | 1 => json!({"step": "create", "data": data, "age": age}),
        8..=14 => {
            let remove: Vec<_> = (0..random.below(3)).map(|_| name(random)).collect();
            json!({"step": "save", "key": key, "data": data, "remove": remove, "age": age})
        }
        15 => json!({"step": "exists", "key": key}),
        16 => json!({"step": "delete", "key": key}),
        // Without a session to move, both make an empty one.
        17 | 18 if model.sessions.contains_key(&key) => json!({"step": "cycle", "key": key}),
        19 => json!({"step": "flush", "key": key}),
        _ => json!({"step": "load", "key": key}),
    }
}

/// One entry of `CACHES`, and what reads and writes the same.
async fn walk(cache_name: &str, options: &Value, backend: CacheBackend, random: &mut Random) {
    let (Some(url), Some(cache)) = (server(PLAIN), cache(PLAIN)) else { return };
    let prefix = SessionKey::generate();
    let settings = engine(&url, prefix.as_str(), options, backend);
    let Some(mut django) = Engine::start(&settings).map(Django) else { return };
    let keys = keys(prefix.as_str());
    let mut ours = ours(cache, keys.clone(), backend);

    let mut model = Model::default();
    let mut raw = raw(&url).await;
    let steps = std::env::var("DIFFERENTIAL_STEPS").ok().and_then(|steps| steps.parse().ok());
    for number in 0..steps.unwrap_or(STEPS) {
        let by_django = random.below(2) == 0;
        let who = if by_django { "Django" } else { "this store" };
        let told = |step: &Value| format!("{cache_name}, step {number}, {who}: {step}");
        let step = next(random, &model);
        // The one reads, the other does the step, and only then the one writes.
        let held = random.below(10) == 0 && model.sessions.contains_key(text(&step, "key"));
        let before = model.sessions.get(text(&step, "key")).cloned();
        if held {
            let asked = json!({"step": "hold", "key": step["key"]});
            let found = if by_django { ours.step(&asked).await } else { django.step(&asked) };
            assert_eq!(found, json!(true), "{}", told(&asked));
        }
        let answer = if by_django { django.step(&step) } else { ours.step(&step).await };
        let expected = model.step(&step, &answer);
        assert_eq!(answer, expected, "{}", told(&step));
        // Both set the same timeout, which is out of the reach of the other one's answers.
        if ("save", &json!(true)) == (text(&step, "step"), &answer) {
            let key = keys.server_key(text(&step, "key"));
            let left = ask::<i64>(&mut raw, &["TTL", &key]).await;
            let age = step["age"].as_i64().unwrap_or(1_209_600);
            assert!((age - 600..=age).contains(&left), "{left}, {}", told(&step));
        }
        if held {
            let late = json!({"step": "late", "data": {name(random): value(random, 2)}});
            let saved = if by_django { ours.step(&late).await } else { django.step(&late) };
            let session = model.sessions.get_mut(text(&step, "key"));
            assert_eq!(saved, json!(session.is_some()), "{}", told(&late));
            if let Some(data) = session {
                if !by_django {
                    // What this store has just saved is lost: Django writes all that it has read.
                    *data = before.unwrap_or_default();
                }
                changed(data, &late);
            }
        }
    }
    // At last each looks at all of them.
    for (key, data) in &model.sessions {
        let load = json!({"step": "load", "key": key});
        assert_eq!(django.step(&load), Value::Object(data.clone()), "{cache_name}");
        assert_eq!(ours.step(&load).await, Value::Object(data.clone()), "{cache_name}");
    }
    let pattern = format!("{}:*", prefix.as_str());
    let there: Vec<String> = ask(&mut raw, &["KEYS", &pattern]).await;
    assert_eq!(there.len(), model.sessions.len(), "{cache_name}: nothing else is there");
}

/// The settings of a site that has its sessions in this cache.
fn engine(url: &str, prefix: &str, options: &Value, backend: CacheBackend) -> Value {
    let class = match backend {
        CacheBackend::Redis => "django.core.cache.backends.redis.RedisCache",
        _ => "django_redis.cache.RedisCache",
    };
    json!({
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
        "CACHES": {"default": {
            "BACKEND": class,
            "LOCATION": url,
            "KEY_PREFIX": prefix,
            "VERSION": 7,
            "OPTIONS": options,
        }},
    })
}

fn keys(prefix: &str) -> CacheKeys {
    CacheKeys::new(CacheEngine::Cache).with_key_prefix(prefix).with_version(7)
}

fn ours(cache: RedisCache, keys: CacheKeys, backend: CacheBackend) -> Ours {
    let store = CacheStore::new(cache, keys, CacheCodec::new(backend));
    Ours::new(Arc::new(store), SessionSettings::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_of_django_and_this_store_agree() {
    walk("RedisCache", &json!({}), CacheBackend::Redis, &mut Random::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caches_of_django_redis_and_this_store_agree() {
    let mut random = Random::new();
    for (serializer, its_class, compressor, class) in [
        (
            CacheSerializer::Pickle,
            "pickle.PickleSerializer",
            Compressor::Identity,
            "identity.Identity",
        ),
        (CacheSerializer::Pickle, "pickle.PickleSerializer", Compressor::Zlib, "zlib.Zlib"),
        (CacheSerializer::Json, "json.JSONSerializer", Compressor::Gzip, "gzip.Gzip"),
        (CacheSerializer::Json, "json.JSONSerializer", Compressor::Zstd, "zstd.ZStd"),
        (CacheSerializer::MsgPack, "msgpack.MSGPackSerializer", Compressor::Lz4, "lz4.Lz4"),
        (CacheSerializer::MsgPack, "msgpack.MSGPackSerializer", Compressor::Lzma, "lzma.Lzma"),
    ] {
        let options = json!({
            "SERIALIZER": format!("django_redis.serializers.{its_class}"),
            "COMPRESSOR": format!("django_redis.compressors.{class}Compressor"),
        });
        let backend = CacheBackend::DjangoRedis { serializer, compressor };
        walk(its_class, &options, backend, &mut random).await;
    }
}

/// Django's engine overwrites what others did; what it overwrites is nothing that we could help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_django_beside_us_loses_changes() {
    let (Some(url), Some(cache)) = (server(PLAIN), cache(PLAIN)) else { return };
    let (prefix, backend) = (SessionKey::generate(), CacheBackend::Redis);
    let engine = engine(&url, prefix.as_str(), &json!({}), backend);
    let store = CacheStore::new(cache, keys(prefix.as_str()), CacheCodec::new(backend));
    let settings = SessionSettings::default();
    let django = || Engine::start(&engine);
    lost_updates::show_beside_django("Redis", Arc::new(store), &settings, django).await;
}

//! Keys and values of caches against what seven releases of Django and django-redis kept.

use std::collections::BTreeMap;

use base64_simd::STANDARD;
use django_session::SessionData;
use django_session::codec::cache::{
    CacheBackend, CacheCodec, CacheEngine, CacheKeys, CacheSerializer, Compressor,
    DATABASE_MAX_KEY_LENGTH, InvalidCacheKey, RedisTimeout, check_database_key,
    check_memcached_key, database_expires, django_redis_timeout, file_expiry, file_name,
    memcached_exptime, redis_timeout,
};
use django_session::codec::graph::{Items, Kind, Value as Object};
use serde_json::{Value, json};

use crate::vectors::{self, Tally, text, to_python_json};

/// The entry of `CACHES` that a record ran with.
struct Config<'a> {
    record: &'a Value,
    backend: CacheBackend,
}

impl<'a> Config<'a> {
    fn of(record: &'a Value) -> Self {
        let options = &record["cache_alias_config"]["OPTIONS"];
        let last = |value: &'a Value, default| {
            let path = value.as_str().unwrap_or(default);
            path.rsplit('.').next().unwrap()
        };
        let backend = match text(&record["cache_alias_config"], "BACKEND") {
            "django.core.cache.backends.db.DatabaseCache" => CacheBackend::Database,
            "django.core.cache.backends.filebased.FileBasedCache" => CacheBackend::FileBased,
            "django.core.cache.backends.memcached.PyLibMCCache"
            | "django.core.cache.backends.memcached.PyMemcacheCache" => CacheBackend::Memcached,
            "django.core.cache.backends.redis.RedisCache" => CacheBackend::Redis,
            "django_redis.cache.RedisCache" => CacheBackend::DjangoRedis {
                serializer: match last(&options["SERIALIZER"], "PickleSerializer") {
                    "JSONSerializer" => CacheSerializer::Json,
                    "MSGPackSerializer" => CacheSerializer::MsgPack,
                    "PickleSerializer" => CacheSerializer::Pickle,
                    other => panic!("{other}"),
                },
                compressor: match last(&options["COMPRESSOR"], "IdentityCompressor") {
                    "GzipCompressor" => Compressor::Gzip,
                    "IdentityCompressor" => Compressor::Identity,
                    "Lz4Compressor" => Compressor::Lz4,
                    "LzmaCompressor" => Compressor::Lzma,
                    "ZlibCompressor" => Compressor::Zlib,
                    "ZStdCompressor" => Compressor::Zstd,
                    other => panic!("{other}"),
                },
            },
            other => panic!("{other}"),
        };
        Self { record, backend }
    }

    fn keys(&self) -> CacheKeys {
        let config = &self.record["cache_alias_config"];
        let engine = match text(self.record, "engine") {
            "cache" => CacheEngine::Cache,
            "cached_db" => CacheEngine::CachedDb,
            other => panic!("{other}"),
        };
        let mut keys = CacheKeys::new(engine);
        if let Some(prefix) = config["KEY_PREFIX"].as_str() {
            keys = keys.with_key_prefix(prefix);
        }
        if let Some(version) = config["VERSION"].as_u64() {
            keys = keys.with_version(version);
        }
        match config["KEY_FUNCTION"].as_str() {
            None => keys,
            Some("upper_key") => {
                keys.with_key_function(|key, prefix, version| format!("K|{version}|{prefix}|{key}"))
            }
            Some(other) => panic!("{other}"),
        }
    }

    fn codec(&self) -> CacheCodec {
        CacheCodec::new(self.backend)
    }

    fn family(&self) -> String {
        let case = text(self.record, "id").split('/').collect::<Vec<_>>();
        format!("{}/{}", case[3], case[4])
    }
}

fn stored(record: &Value) -> Vec<u8> {
    let value = text(&record["stored"], "value");
    match text(&record["stored"], "encoding") {
        "base64" => STANDARD.decode_to_vec(value).unwrap(),
        "text" => value.as_bytes().to_vec(),
        other => panic!("{other}"),
    }
}

fn records() -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    let (tables, rest): (Vec<_>, _) =
        vectors::read("cache").into_iter().partition(|record| record.get("ddl_sqlite").is_some());
    let (key_checks, values) =
        rest.into_iter().partition(|record| record.get("cookie_key").is_some());
    (tables, key_checks, values)
}

#[test]
fn every_record_is_one_of_three_kinds() {
    let (tables, key_checks, values) = records();
    assert_eq!((tables.len(), key_checks.len(), values.len()), (7, 250, 708));
}

#[test]
fn the_table_of_a_database_cache_limits_the_key() {
    let mut tally = Tally::new("cache");
    for record in records().0 {
        tally.no_bytes(&record, "the table of a DatabaseCache");
        let table = record["ddl_sqlite"][0].as_str().unwrap();
        let column =
            format!("\"cache_key\" varchar({DATABASE_MAX_KEY_LENGTH}) NOT NULL PRIMARY KEY");
        assert!(table.contains(&column), "{}", record["id"]);
    }
}

#[test]
fn memcached_refuses_the_keys_that_django_refuses() {
    let (mut refused, mut taken) = (0, 0);
    let mut tally = Tally::new("cache");
    for record in records().1 {
        let id = text(&record, "id");
        let config = Config::of(&record);
        let key = config.keys().server_key(text(&record, "cookie_key"));
        assert_eq!(file_name(&key).len(), 40);
        // SQLite takes any length; others keep to the length of the column.
        let fits = key.chars().count() <= 255;
        assert_eq!(check_database_key(&key).is_ok(), fits, "{id}");
        if config.backend != CacheBackend::Memcached {
            // What a `DatabaseCache` raised had to do with the frozen clock, not with the key.
            let raised = record["exists_raises"]["type"].as_str();
            assert!(matches!(raised, None | Some("TypeError")), "{id}");
            taken += 1;
            tally.passed(&record);
            continue;
        }
        let expected = match record["exists_raises"]["message"].as_str() {
            None => Ok(()),
            Some(message) if message.contains("contains characters") => {
                Err(InvalidCacheKey::Characters)
            }
            Some(message) => {
                assert!(message.starts_with("Cache key will cause errors"), "{id}");
                Err(InvalidCacheKey::TooLong { limit: 250 })
            }
        };
        assert_eq!(check_memcached_key(&key), expected, "{id}");
        tally.passed(&record);
        if expected.is_err() {
            refused += 1;
        } else {
            taken += 1;
        }
    }
    assert_eq!((refused, taken), (30, 220));
}

#[test]
fn entries_are_found_under_the_keys_that_django_uses() {
    let mut files = 0;
    let (_, _, values) = records();
    for record in &values {
        let id = text(record, "id");
        let keys = Config::of(record).keys();
        let session_key = text(record, "session_key");
        assert_eq!(keys.cache_key(session_key), text(record, "cache_key"), "{id}");
        let server_key = keys.server_key(session_key);
        assert_eq!(server_key, text(record, "full_key"), "{id}");
        check_memcached_key(&server_key).unwrap();
        check_database_key(&server_key).unwrap();
        if let Some(name) = record["file_name"].as_str() {
            assert_eq!(file_name(&server_key), name, "{id}");
            files += 1;
        }
        if let Some(key) = record["row"]["cache_key"].as_str() {
            assert_eq!(server_key, key, "{id}");
        }
    }
    assert_eq!((values.len(), files), (708, 119));
}

#[test]
fn entries_expire_when_django_lets_them_expire() {
    let mut checked = BTreeMap::new();
    for record in records().2 {
        let id = text(&record, "id");
        let config = Config::of(&record);
        let timeout = record["timeout_passed"].as_f64().unwrap();
        let now = record["time"].as_f64().unwrap();
        let ttl = record["redis_ttl_seconds_rounded_up"].as_u64();
        match config.backend {
            CacheBackend::Redis => {
                assert_eq!(redis_timeout(timeout), RedisTimeout::Seconds(ttl.unwrap()), "{id}");
            }
            CacheBackend::DjangoRedis { .. } => {
                let expected = RedisTimeout::Milliseconds(ttl.unwrap() * 1000);
                assert_eq!(django_redis_timeout(timeout), expected, "{id}");
            }
            CacheBackend::FileBased => {
                let bits = u64::from_str_radix(text(&record["expiry_header"], "bits"), 16).unwrap();
                assert_eq!(file_expiry(timeout, now).to_bits(), bits, "{id}");
            }
            CacheBackend::Database => {
                let expires = text(&record["row"], "expires").replace(' ', "T") + "Z";
                let expires: jiff::Timestamp = expires.parse().unwrap();
                assert_eq!(database_expires(timeout, now), expires.as_second(), "{id}");
            }
            CacheBackend::Memcached => {
                // Memcached does not tell; below 30 days it is the timeout.
                assert_eq!(
                    memcached_exptime(timeout, now).to_string(),
                    timeout.to_string(),
                    "{id}"
                );
            }
            other => panic!("{other:?}"),
        }
        *checked.entry(format!("{:?}", config.backend)).or_insert(0) += 1;
    }
    assert_eq!(checked.values().sum::<i32>(), 708);
}

#[test]
fn the_wrapping_is_taken_off_and_put_on_again() {
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for record in records().2 {
        let id = text(&record, "id");
        let config = Config::of(&record);
        let stored = stored(&record);
        let codec = config.codec();
        let found = match record["memcached_flags"].as_u64() {
            Some(flags) => codec.unwrap_flagged(&stored, flags.try_into().unwrap()).unwrap(),
            None => codec.unwrap(&stored).unwrap(),
        };

        // Where the pickle is compressed, the record does not tell: django-redis took its default.
        let protocol = u8::try_from(record["pickle_protocol"].as_u64().unwrap_or(4)).unwrap();
        let payload = &*found.payload;
        match found.serializer {
            CacheSerializer::Pickle => {
                assert_eq!(payload[..2], [0x80, protocol], "{id}");
                assert_eq!(payload.last(), Some(&b'.'), "{id}");
            }
            CacheSerializer::Json => assert!(payload.starts_with(b"{") && payload.ends_with(b"}")),
            CacheSerializer::MsgPack => {
                let members = record["expected"].as_object().unwrap().len();
                assert_eq!(usize::from(payload[0]), 0x80 + members, "{id}");
            }
            other => panic!("{other:?}"),
        }
        let bits = record["expiry_header"]["bits"].as_str();
        let expiry = bits.map(|bits| f64::from_bits(u64::from_str_radix(bits, 16).unwrap()));
        assert_eq!(found.expiry, expiry, "{id}");
        assert_eq!(codec.unwrap(&stored).unwrap().payload, payload, "{id}");

        let ours = codec.wrap(payload, expiry);
        if found.compressed {
            assert_eq!(codec.unwrap(&ours).unwrap().payload, payload, "{id}");
            // Never much longer than what Python made of it.
            assert!(ours.len() <= stored.len() + stored.len() / 20 + 8, "{id}: {}", ours.len());
            if let Some(length) = record["header_length"].as_u64() {
                let length = usize::try_from(length).unwrap();
                let header = [0x80, protocol];
                assert_eq!(stored[..2], header, "{id}");
                assert_eq!(stored[length..length + 2], *b"x\x9c", "{id}");
                assert_eq!(ours[..length], stored[..length], "{id}");
            }
        } else {
            assert_eq!(ours, stored, "{id}");
        }
        *checked.entry(config.family()).or_default() += 1;
    }
    assert_eq!(checked.values().sum::<u32>(), 708);
}

/// An object in the tagged form of the vectors, as far as sessions here need it.
fn tagged(object: Object<'_>) -> Value {
    let list = |items: Items<'_>| items.iter().map(tagged).collect::<Vec<_>>();
    match object.kind() {
        Kind::None => Value::Null,
        Kind::Bool(value) => value.into(),
        Kind::Int(number) => number.to_i64().unwrap().into(),
        Kind::Float(number) => {
            json!({"__type__": "float", "bits": format!("{:016x}", number.to_bits())})
        }
        Kind::Str(text) => text.to_str().unwrap().into(),
        Kind::List(items) => list(items).into(),
        Kind::Tuple(items) => json!({"__type__": "tuple", "items": list(items)}),
        Kind::Set(items) => json!({"__type__": "set", "items": list(items)}),
        Kind::Decimal(text) => json!({"__type__": "Decimal", "value": text}),
        Kind::DateTime(moment) => {
            let offset = moment.utcoffset().unwrap().total_microseconds() / 1_000_000;
            let offset = i64::try_from(offset).unwrap();
            json!({"__type__": "datetime", "value": moment.isoformat(), "utcoffset": offset})
        }
        Kind::Dict(pairs) => pairs.iter().map(|(key, value)| (name(key), tagged(value))).collect(),
        other => panic!("{other:?}"),
    }
}

fn name(key: Object<'_>) -> String {
    match key.kind() {
        Kind::Str(text) => text.to_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// What a record expects, less what [`tagged`] cannot know: how Python writes a float, and the class of
/// a time zone.
fn reduced(expected: &Value) -> Value {
    match expected {
        Value::Array(items) => items.iter().map(reduced).collect(),
        Value::Object(members) => match members.get("__type__").and_then(Value::as_str) {
            Some("float") => json!({"__type__": "float", "bits": members["bits"]}),
            Some("datetime") => json!({
                "__type__": "datetime",
                "value": members["value"],
                "utcoffset": members["tz"]["utcoffset_seconds"],
            }),
            _ => members.iter().map(|(name, value)| (name.clone(), reduced(value))).collect(),
        },
        other => other.clone(),
    }
}

#[test]
fn every_session_is_the_one_that_django_stored() {
    let mut tally = Tally::new("cache");
    let mut checked: BTreeMap<String, u32> = BTreeMap::new();
    for record in records().2 {
        let id = text(&record, "id");
        let codec = Config::of(&record).codec();
        let stored = stored(&record);
        let found = match record["memcached_flags"].as_u64() {
            Some(flags) => codec.decode_flagged(&stored, flags.try_into().unwrap()),
            None => codec.decode(&stored),
        };
        let found = found.unwrap_or_else(|error| panic!("{id}: {error}"));
        let data = &found.data;
        if data.is_python() {
            let mut session = serde_json::Map::new();
            for (key, value) in data.objects() {
                session.insert(name(key), tagged(value));
            }
            let expected = reduced(&record["expected"]);
            // Python 2 has no order to keep.
            if !text(&record, "python_version").starts_with('2') {
                assert!(session.keys().eq(expected.as_object().unwrap().keys()), "{id}");
            }
            assert_eq!(Value::Object(session), expected, "{id}");
        } else {
            assert_eq!(data.to_json().unwrap(), to_python_json(&record["expected"]), "{id}");
        }

        let ours = codec.encode(data, found.expiry).unwrap();
        let again = codec.decode(&ours).unwrap();
        assert_eq!(&again.data, data, "{id}");
        assert_eq!(again.expiry, found.expiry, "{id}");
        if found.serializer != CacheSerializer::Pickle {
            let payload = codec.unwrap(&ours).unwrap().payload.into_owned();
            assert_eq!(payload, *codec.unwrap(&stored).unwrap().payload, "{id}");
        }
        tally.passed(&record);
        *checked.entry(format!("{:?}", found.serializer)).or_default() += 1;
    }
    let counts: Vec<_> = checked.iter().map(|(name, &count)| (name.as_str(), count)).collect();
    assert_eq!(counts, [("Json", 102), ("MsgPack", 80), ("Pickle", 526)]);
}

fn django_redis(serializer: CacheSerializer) -> CacheCodec {
    let compressor = Compressor::Identity;
    CacheCodec::new(CacheBackend::DjangoRedis { serializer, compressor })
}

/// Out of a pickle of protocol 2, as a site leaves them that changes its serializer.
fn pickled(base64: &str) -> SessionData {
    let pickle = STANDARD.decode_to_vec(base64).unwrap();
    CacheCodec::new(CacheBackend::Redis).decode(&pickle).unwrap().data
}

#[test]
fn python_objects_become_the_json_of_djangos_encoder() {
    let data = pickled(
        "gAJ9cQAoWAQAAAB3aGVucQFjZGF0ZXRpbWUKZGF0ZXRpbWUKcQJjX2NvZGVjcwplbmNvZGUKcQNYDAAAAAfDrgECAwQF\
         AcOiQHEEWAYAAABsYXRpbjFxBYZxBlJxB2NkYXRldGltZQp0aW1lem9uZQpxCGNkYXRldGltZQp0aW1lZGVsdGEKcQlLAE\
         sASwCHcQpScQuFcQxScQ2GcQ5ScQ9YBQAAAGxvY2FscRBoAmgDWAsAAAAHw64BAgMEBQAAAHERaAWGcRJScRNoCGgJSwBN\
         EA5LAIdxFFJxFYVxFlJxF4ZxGFJxGVgFAAAAbmFpdmVxGmgCaANYCwAAAAfDrgECAwQFD0I/cRtoBYZxHFJxHYVxHlJxH1\
         gDAAAAZGF5cSBjZGF0ZXRpbWUKZGF0ZQpxIWgDWAUAAAAHw64BAnEiaAWGcSNScSSFcSVScSZYBQAAAGNsb2NrcSdjZGF0\
         ZXRpbWUKdGltZQpxKGgDWAYAAAADBAUPQj9xKWgFhnEqUnErhXEsUnEtWAQAAABzcGFucS5oCUr/////SwBLBYdxL1JxMF\
         gFAAAAcHJpY2VxMWNkZWNpbWFsCkRlY2ltYWwKcTJYBAAAADEuNTBxM4VxNFJxNVgCAAAAaWRxNmN1dWlkClVVSUQKcTcp\
         gXE4fXE5WAMAAABpbnRxOksFc2JYAQAAAHRxO0sBSwKGcTx1Lg==",
    );
    let written = django_redis(CacheSerializer::Json).encode(&data, None).unwrap();
    assert_eq!(
        std::str::from_utf8(&written).unwrap(),
        "{\"when\": \"2030-01-02T03:04:05.123Z\", \"local\": \"2030-01-02T03:04:05+01:00\", \
         \"naive\": \"2030-01-02T03:04:05.999\", \"day\": \"2030-01-02\", \"clock\": \"03:04:05.999\", \
         \"span\": \"-P0DT23H59M59.999995S\", \"price\": \"1.50\", \
         \"id\": \"00000000-0000-0000-0000-000000000005\", \"t\": [1, 2]}"
    );
    // Django's own serializer has none of that, nor has msgpack.
    assert!(data.to_json().is_err());
    let refused = django_redis(CacheSerializer::MsgPack).encode(&data, None).unwrap_err();
    assert_eq!(refused.to_string(), "a datetime cannot be stored as msgpack");
}

#[test]
fn what_a_serializer_refuses_is_told_without_the_value() {
    let time = "gAJ9cQBYAQAAAGFxAWNkYXRldGltZQp0aW1lCnECY19jb2RlY3MKZW5jb2RlCnEDWAYAAAABAgMAAABxBFgGAAA\
                AbGF0aW4xcQWGcQZScQdjZGF0ZXRpbWUKdGltZXpvbmUKcQhjZGF0ZXRpbWUKdGltZWRlbHRhCnEJSwBLAEsAh3EKU\
                nELhXEMUnENhnEOUnEPcy4=";
    let set = STANDARD.encode_to_string(b"\x80\x02}X\x01\0\0\0ac__builtin__\nset\n]K\x01a\x85Rs.");
    let bytes = STANDARD.encode_to_string(b"\x80\x03}X\x01\0\0\0aC\x01as.");
    let key = STANDARD.encode_to_string(b"\x80\x02}X\x01\0\0\0a}K\x01K\x02\x86K\x03ss.");
    let number = STANDARD.encode_to_string(b"\x80\x02}X\x01\0\0\0a\x8a\x09\0\0\0\0\0\0\0\0\x01s.");
    let surrogate = STANDARD.encode_to_string(b"\x80\x02}X\x01\0\0\0aX\x03\0\0\0\xed\xa0\x80s.");
    let json = django_redis(CacheSerializer::Json);
    let msgpack = django_redis(CacheSerializer::MsgPack);
    for (pickle, by_json, by_msgpack) in [
        (time, Some("a time with a time zone"), Some("a time")),
        (&set, Some("a set"), Some("a set")),
        (&bytes, Some("a byte string"), None),
        (&key, Some("a key of this type"), Some("a key of this type")),
        (&number, None, Some("an integer of more than 64 bits")),
        (&surrogate, None, Some("text that is not Unicode")),
    ] {
        let data = pickled(pickle);
        let found = json.encode(&data, None).err().map(|error| error.to_string());
        let expected = by_json.map(|kind| format!("{kind} cannot be stored in a JSON session"));
        assert_eq!(found, expected);
        let found = msgpack.encode(&data, None).err().map(|error| error.to_string());
        assert_eq!(found, by_msgpack.map(|kind| format!("{kind} cannot be stored as msgpack")));
    }
}

#[test]
fn json_of_django_redis_is_utf8_and_gets_the_form_that_django_writes() {
    let codec = django_redis(CacheSerializer::Json);
    let data = codec.decode("{ \"ü\" :[1 , \"a, b: c\"]}".as_bytes()).unwrap().data;
    assert_eq!(data.to_json().unwrap(), r#"{"\u00fc":[1,"a, b: c"]}"#);
    assert_eq!(codec.encode(&data, None).unwrap(), br#"{"\u00fc": [1, "a, b: c"]}"#);
    for (value, message) in [
        (&b"[1]"[..], "the cache value is a list, not a session"),
        (b"null", "the cache value is null, not a session"),
        (b"17", "the cache value is an integer, not a session"),
        (b"1.5", "the cache value is a number, not a session"),
        (b"{\"a\":}", "the cache value is not valid JSON"),
        (b"{\"a\":1 2}", "the cache value is not valid JSON"),
        (b"\xef\xbb\xbf{}", "the cache value is not valid JSON"),
        (b"{\"\xfc\": 1}", "the cache value is malformed: it is not UTF-8"),
    ] {
        assert_eq!(codec.decode(value).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_session_of_rust_is_written_for_every_backend() {
    let mut data = SessionData::new();
    data.insert("_auth_user_id", "42").unwrap();
    data.insert("n", &(u64::MAX, -1, 1.5, None::<u8>, [true])).unwrap();
    let all = [CacheSerializer::Json, CacheSerializer::MsgPack, CacheSerializer::Pickle];
    let mut backends = vec![
        CacheBackend::Database,
        CacheBackend::FileBased,
        CacheBackend::Memcached,
        CacheBackend::Redis,
    ];
    for serializer in all {
        for compressor in [
            Compressor::Gzip,
            Compressor::Identity,
            Compressor::Lz4,
            Compressor::Lzma,
            Compressor::Zlib,
            Compressor::Zstd,
        ] {
            backends.push(CacheBackend::DjangoRedis { serializer, compressor });
        }
    }
    for backend in backends {
        for protocol in [2, 4, 5] {
            let codec = CacheCodec::new(backend).with_pickle_protocol(protocol);
            let value = codec.encode(&data, Some(1.5)).unwrap();
            let found = codec.decode(&value).unwrap();
            assert_eq!(found.data.to_json().unwrap(), data.to_json().unwrap(), "{backend:?}");
            let holds_expiry = backend == CacheBackend::FileBased;
            assert_eq!(found.expiry, holds_expiry.then_some(1.5));
        }
    }
}

#[test]
fn nothing_shows_what_is_in_a_value() {
    let codec = CacheCodec::new(CacheBackend::Redis);
    let value =
        codec.encode(&SessionData::from_json(r#"{"name":"hidden"}"#).unwrap(), None).unwrap();
    for text in [
        format!("{:?}", codec.unwrap(&value).unwrap()),
        format!("{:?}", codec.decode(&value).unwrap()),
        format!("{:?}", codec.decode(&value[..value.len() - 3]).unwrap_err()),
        format!("{:?}", CacheKeys::new(CacheEngine::Cache).with_key_prefix("hidden")),
        check_memcached_key("hidden ").unwrap_err().to_string(),
    ] {
        assert!(!text.contains("hidden") && !text.contains("name\""), "{text}");
    }
}

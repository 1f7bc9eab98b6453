//! One address, one store: what each kind of address leads to, on real servers.

use std::sync::Arc;

use django_session::session::SessionRecord;
use django_session::store::{ConnectError, UrlError, connect};
use django_session::{Session, SessionSettings};

use crate::stores::{Kind, Place, now, record, server, settings};

async fn kind_of(url: &str) -> String {
    let store = connect(url, &settings()).await.unwrap_or_else(|error| panic!("{error}"));
    let text = format!("{store:?}");
    text.split([' ', '(']).next().unwrap().to_owned()
}

/// An address within an address.
fn escaped(url: &str) -> String {
    url.replace('%', "%25").replace('&', "%26").replace('=', "%3D").replace('?', "%3F")
}

/// A session goes in and comes back, through two stores of one address.
async fn round_trip(url: &str) {
    let settings = Arc::new(settings());
    let store = connect(url, &settings).await.unwrap();
    let session = Session::new(store, Arc::clone(&settings), None);
    session.insert("tea", &1).await.unwrap();
    session.save().await.unwrap();
    let key = session.session_key().await;
    let store = connect(url, &settings).await.unwrap();
    let session = Session::new(store, settings, key);
    assert_eq!(session.get::<i32>("tea").await.unwrap(), Some(1));
    session.flush().await.unwrap();
}

#[tokio::test]
async fn every_address_leads_to_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let files = format!("file://{}", directory.path().display());
    round_trip(&files).await;
    assert_eq!(kind_of(&files).await, "FileStore");
    assert_eq!(kind_of("memory:").await, "MemoryStore");
    assert_eq!(kind_of("signed_cookies:").await, "SignedCookieStore");
    let caches: Vec<_> = [
        "TEST_REDIS_URL",
        "TEST_REDIS_CLUSTER_URL",
        "TEST_REDIS_SENTINEL_URL",
        "TEST_MEMCACHED_URL",
    ]
    .into_iter()
    .filter_map(server)
    .collect();
    for url in &caches {
        let url = format!("{url}?prefix=site&version=3");
        round_trip(&url).await;
        assert_eq!(kind_of(&url).await, "CacheStore");
    }
    if let Some(url) = server("TEST_REDIS_URL") {
        for options in ["serializer=json&compressor=zstd", "layout=django_redis", "layout=django"] {
            round_trip(&format!("{url}?{options}&timeout=1.5")).await;
        }
    }
    if let (Some(url), Some(ca)) = (server("TEST_REDIS_TLS_URL"), server("TEST_REDIS_TLS_CA")) {
        round_trip(&format!("{url}?ca={}", escaped(&ca))).await;
    }
    for place in Place::all().await {
        let joint = if place.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}table={}&max_connections=2", place.url, place.table);
        round_trip(&url).await;
        assert_eq!(kind_of(&url).await, "SqlStore");
        for cache in &caches {
            let url = format!("{url}&cache_url={}", escaped(cache));
            round_trip(&url).await;
            assert_eq!(kind_of(&url).await, "CachedDbStore");
        }
        if let (Kind::Postgres, Some(replica)) = (place.kind, server("TEST_POSTGRES_REPLICA_URL")) {
            let url = format!("{url}&replica_url={}&replica_settle=0.5", escaped(&replica));
            round_trip(&url).await;
            assert_eq!(kind_of(&url).await, "ReplicatedStore");
        }
    }
}

/// What Django writes to its cache is found under the same prefix and version.
#[tokio::test]
async fn prefix_and_version_are_those_of_django() {
    let Some(url) = server("TEST_REDIS_URL") else { return };
    let (one, other) = (format!("{url}?prefix=one"), format!("{url}?prefix=other"));
    let record = record(now());
    let store = connect(&one, &settings()).await.unwrap();
    store.create(&record).await.unwrap();
    let SessionRecord { session_key, .. } = &record;
    assert!(store.load(session_key, now()).await.unwrap().is_some());
    for url in [other, format!("{one}&version=2"), format!("{one}&cache_key_prefix=mine")] {
        let store = connect(&url, &settings()).await.unwrap();
        assert!(store.load(session_key, now()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_said() {
    for (url, message) in [
        (
            "redis://h?compresor=zstd",
            "an option of the address is unknown; did you mean `compressor`?",
        ),
        ("redis://h?compressor=hunter2", "the option `compressor` of the address must be"),
        ("redis://h?layout=django&serializer=json", "the option `layout` of the address must be"),
        ("redis+sentinel://hunter2", "the address must be one or more servers"),
        ("memcached://", "the address must be one or more servers"),
        ("memcached://h?max_connections=0", "the option `max_connections` of the address must be"),
        ("file://hunter2", "the address must be a path"),
        (
            "sqlite::memory:?cache_url=memory%3A&cache_table=t",
            "the option `cache_url` of the address",
        ),
        ("sqlite::memory:?cache_url=hunter2", "the address must begin with a scheme"),
        ("sqlite::memory:?replica_url=hunter2", "an option of the address is unknown"),
        (
            "sqlite::memory:?cache_url=memory%3A",
            "the option `cache_url` of the address must be the address of a Redis or memcached server",
        ),
        (
            "sqlite::memory:?cache_url=sqlite%3Ahunter2",
            "the option `cache_url` of the address must be the address of a Redis or memcached server",
        ),
    ] {
        let error = connect(url, &settings()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(message), "{url}: {text}");
        assert!(!format!("{error:?} {text}").contains("hunter2"));
    }
    let error = connect("redis://127.0.0.1:1", &settings()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Connect(_)), "{error:?}");
    let error = connect("memory:", &SessionSettings::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Settings(_)));
    let error = connect("hunter2", &settings()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Url(UrlError::NoScheme)));
}

//! memcached: the contract, Django on the same servers, and servers that are down, hang, lie or begin anew.
//!
//! The servers are the tests' own, since they are stopped and killed: the program `memcached` has to be
//! on the path.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::{Revision, SessionRecord};
use django_session::store::testing::{Terms, check_contract};
use django_session::store::{
    Cache, CacheStore, MemcachedCache, MemcachedDistribution, MemcachedError,
    MemcachedLocationError, Written,
};
use django_session::{DateTime, Session, SessionData, SessionKey, SessionStore, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::differential::{Engine, Random};
use crate::faults;
use crate::lost_updates;
use crate::peer;
use crate::proxy::{Mode, Proxy};
use crate::stores::{PRECISION, settings, until, whole};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A server of its own, which ends with the test.
struct Server {
    process: Child,
    arguments: Vec<String>,
    location: String,
    _directory: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a server; `None` if there is no such program.
    async fn start() -> Option<Self> {
        Self::start_with(&["-I", "8m", "-m", "256"]).await
    }

    async fn start_with(options: &[&str]) -> Option<Self> {
        // Another program may take the port in between.
        for _ in 0..5 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let location = listener.local_addr().unwrap().to_string();
            drop(listener);
            let port = location.rsplit(':').next().unwrap();
            let address = ["-l", "127.0.0.1", "-p", port];
            let arguments = address.iter().chain(options).map(|&text| text.to_owned());
            let arguments: Vec<_> = arguments.collect();
            let process = run(&arguments)?;
            let server = Self { process, arguments, location, _directory: None };
            if server.is_up().await {
                return Some(server);
            }
        }
        panic!("memcached does not start");
    }

    async fn start_on_socket() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memcached.sock");
        let arguments = vec!["-s".to_owned(), path.display().to_string()];
        let (process, location) = (run(&arguments)?, format!("unix:{}", path.display()));
        until("its socket", async || tokio::net::UnixStream::connect(&path).await.is_ok()).await;
        Some(Self { process, arguments, location, _directory: Some(directory) })
    }

    /// Waits until it answers; false if it does not live.
    async fn is_up(&self) -> bool {
        for _ in 0..400 {
            if TcpStream::connect(&self.location).await.is_ok() {
                return self.ask("stats\r\n").await.contains(&format!("pid {}", self.process.id()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// The first packet of a reply.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.location).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = vec![0; 1 << 16];
        let length = stream.read(&mut reply).await.unwrap_or(0);
        String::from_utf8_lossy(&reply[..length]).into_owned()
    }

    async fn stat(&self, name: &str) -> u64 {
        let stats = self.ask("stats\r\n").await;
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
        line.unwrap().parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Makes it hang; its threads take a moment to stop.
    async fn stop(&self) {
        self.signal("-STOP");
        while timeout(Duration::from_millis(50), self.ask("version\r\n")).await.is_ok() {}
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it anew, where it was.
    async fn restart(&mut self) {
        self.process = run(&self.arguments).unwrap();
        assert!(self.is_up().await);
    }

    fn cache(&self) -> MemcachedCache {
        MemcachedCache::new([&self.location]).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(arguments: &[String]) -> Option<Child> {
    // As root it insists on being told for whom it works.
    let mut command = Command::new("memcached");
    let process =
        command.args(["-u", "root", "-U", "0"]).args(arguments).stderr(Stdio::null()).spawn();
    if process.is_err() {
        let message = "memcached IS NOT TESTED: there is no program of that name";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
    }
    process.ok()
}

/// A store and the server that goes with it.
struct Empty {
    store: CacheStore,
    _servers: Vec<Server>,
    _proxy: Option<Relay>,
}

impl Deref for Empty {
    type Target = CacheStore;

    fn deref(&self) -> &CacheStore {
        &self.store
    }
}

fn store(cache: impl Cache) -> CacheStore {
    CacheStore::new(
        cache,
        CacheKeys::new(CacheEngine::Cache),
        CacheCodec::new(CacheBackend::Memcached),
    )
}

fn now() -> DateTime {
    DateTime::Aware(Timestamp::now())
}

fn terms() -> Terms {
    Terms::dropping(now(), PRECISION)
}

fn record(text: &str) -> SessionRecord {
    let mut data = SessionData::new();
    data.insert("secret", text).unwrap();
    SessionRecord {
        session_key: SessionKey::generate(),
        data: Arc::new(data),
        expire_date: now().checked_add(HOUR).unwrap(),
        revision: None,
    }
}

/// What is stored of a record of [`record`].
async fn text_of(store: &CacheStore, key: &SessionKey) -> Option<String> {
    let loaded = store.load(key, now()).await.unwrap()?;
    loaded.data.get("secret").unwrap()
}

/// What memcached answered, of an error that is a [`StoreError::Backend`].
fn backend(error: &StoreError) -> &MemcachedError {
    let StoreError::Backend(source) = error else { panic!("{error:?}") };
    source.downcast_ref().unwrap()
}

/// Between client and server: counts the times it is the client's turn, and can pass for a version
/// without meta commands.
struct Relay {
    address: SocketAddr,
    turns: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    async fn start(server: &Server, is_old: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let (location, counter) = (server.location.clone(), Arc::clone(&turns));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&location).await.unwrap();
                tokio::spawn(pass(client, server, is_old, Arc::clone(&counter)));
            }
        });
        Self { address, turns, task }
    }

    fn cache(&self) -> MemcachedCache {
        MemcachedCache::new([self.address.to_string()]).unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, is_old: bool, turns: Arc<AtomicUsize>) {
    let (mut request, mut reply) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_clients_turn = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                let start = String::from_utf8_lossy(&request[..3.min(length)]);
                assert!(!is_old || !["mg ", "md ", "ms ", "mn\r"].contains(&&*start));
                if !is_clients_turn {
                    turns.fetch_add(1, Ordering::SeqCst);
                }
                is_clients_turn = true;
                server.write_all(&request[..length]).await.unwrap();
            }
            read = server.read(&mut reply) => {
                let Ok(length @ 1..) = read else { return };
                is_clients_turn = false;
                let mut bytes = reply[..length].to_vec();
                if is_old && bytes.starts_with(b"STAT ") {
                    let stats = String::from_utf8(bytes).unwrap();
                    bytes = stats.replace("version 1.6.", "version 1.4.").into_bytes();
                }
                if client.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn memcached_keeps_the_contract() {
    if Server::start().await.is_none() {
        return;
    }
    let make = async || {
        let server = Server::start().await.unwrap();
        Empty { store: store(server.cache()), _servers: vec![server], _proxy: None }
    };
    check_contract(make, terms()).await;
}

#[tokio::test]
async fn several_servers_and_a_socket_keep_the_contract() {
    if Server::start().await.is_none() {
        return;
    }
    let make = async || {
        let servers = [Server::start().await.unwrap(), Server::start().await.unwrap()];
        let cache = MemcachedCache::new(servers.each_ref().map(|server| &server.location)).unwrap();
        Empty { store: store(cache), _servers: servers.into(), _proxy: None }
    };
    check_contract(make, terms()).await;

    let server = Server::start_on_socket().await.unwrap();
    let store = store(server.cache());
    let record = record("tea");
    store.create(&record).await.unwrap();
    assert_eq!(text_of(&store, &record.session_key).await.as_deref(), Some("tea"));
}

/// Of an old version only the time to live is not known.
#[tokio::test]
async fn a_version_without_meta_commands_keeps_the_contract() {
    if Server::start().await.is_none() {
        return;
    }
    let make = async || {
        let server = Server::start().await.unwrap();
        let proxy = Relay::start(&server, true).await;
        Empty { store: store(proxy.cache()), _servers: vec![server], _proxy: Some(proxy) }
    };
    check_contract(make, Terms::dropping(now(), SignedDuration::from_hours(4))).await;

    let empty = make().await;
    let record = record("tea");
    empty.create(&record).await.unwrap();
    let loaded = empty.load(&record.session_key, now()).await.unwrap().unwrap();
    let left = loaded.expire_date.since(now()).unwrap();
    assert!(left <= SignedDuration::from_secs(1), "a touch is always due, not in {left}");
}

#[tokio::test]
async fn each_operation_is_one_round_trip() {
    for is_old in [false, true] {
        let Some(server) = Server::start().await else { return };
        let proxy = Relay::start(&server, is_old).await;
        let cache = proxy.cache();
        // The first connection takes one more, to learn who the server is.
        assert!(cache.get("key").await.unwrap().is_none());
        assert_eq!(proxy.turns.load(Ordering::SeqCst), 2);
        let mut turns = 2;
        let mut check = |operation: &str| {
            turns += 1;
            assert_eq!(proxy.turns.load(Ordering::SeqCst), turns, "{operation}, old: {is_old}");
        };
        let Written::Done(first) = cache.add("key", b"1", HOUR).await.unwrap() else { panic!() };
        check("add");
        assert_eq!(cache.add("key", b"2", HOUR).await.unwrap(), Written::Changed);
        check("add to what is there");
        let entry = cache.get("key").await.unwrap().unwrap();
        check("get");
        assert_eq!((entry.value, entry.flags, &entry.revision), (b"1".to_vec(), Some(1), &first));
        assert!(cache.has_key("key").await.unwrap());
        check("has_key");
        let second = cache.replace("key", b"2", HOUR, Some(&first)).await.unwrap();
        check("replace a revision");
        let Written::Done(second) = second else { panic!() };
        assert_eq!(cache.replace("key", b"3", HOUR, Some(&first)).await.unwrap(), Written::Changed);
        check("replace another revision");
        assert!(cache.touch("key", HOUR).await.unwrap());
        check("touch");
        assert_eq!(cache.delete("key", Some(&first)).await.unwrap(), Written::Changed);
        check("delete another revision");
        assert!(matches!(cache.delete("key", Some(&second)).await.unwrap(), Written::Done(_)));
        check("delete a revision");
        for revision in [None, Some(&second), Some(&Revision::new(*b"unknown"))] {
            let replaced = cache.replace("key", b"3", HOUR, revision).await.unwrap();
            assert_eq!(replaced, Written::Missing);
            check("replace what is not there");
            assert_eq!(cache.delete("key", revision).await.unwrap(), Written::Missing);
            check("delete what is not there");
        }
        assert!(!cache.touch("key", HOUR).await.unwrap());
        check("touch what is not there");
        assert!(!cache.has_key("key").await.unwrap());
        check("has_key of what is not there");
    }
}

#[tokio::test]
async fn what_was_not_loaded_is_not_replaced() {
    let Some(server) = Server::start().await else { return };
    let cache = server.cache();
    cache.add("key", b"1", HOUR).await.unwrap();
    for bytes in [&b""[..], &b"12345678"[..], &[0; 24][..], &[1; 100][..]] {
        let revision = Revision::new(bytes);
        let replaced = cache.replace("key", b"2", HOUR, Some(&revision)).await.unwrap();
        assert_eq!(replaced, Written::Changed);
        assert_eq!(cache.delete("key", Some(&revision)).await.unwrap(), Written::Changed);
    }
    assert_eq!(cache.get("key").await.unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn keys_that_memcached_cannot_have_are_not_there() {
    let Some(server) = Server::start().await else { return };
    let cache = server.cache();
    let long = "k".repeat(251);
    let wide = "é".repeat(126);
    for key in ["with space", "line\r\nflush_all", "nul\0", "tab\t", "\u{7f}", &long, &wide] {
        assert!(cache.get(key).await.unwrap().is_none());
        assert!(!cache.has_key(key).await.unwrap());
        assert!(!cache.touch(key, HOUR).await.unwrap());
        assert_eq!(cache.replace(key, b"1", HOUR, None).await.unwrap(), Written::Missing);
        assert_eq!(cache.delete(key, None).await.unwrap(), Written::Missing);
        let error = cache.add(key, b"1", HOUR).await.unwrap_err();
        assert!(matches!(backend(&error), MemcachedError::InvalidKey(_)), "{error:?}");
    }
    for key in ["k".repeat(250), "é".repeat(125), "%s'\"\\".to_owned()] {
        cache.add(&key, b"1", HOUR).await.unwrap();
        assert!(cache.has_key(&key).await.unwrap());
    }
}

#[tokio::test]
async fn what_is_too_large_is_an_error_and_leaves_the_old_one() {
    let Some(server) = Server::start_with(&[]).await else { return };
    for proxied in [false, true] {
        let proxy = Relay::start(&server, true).await;
        let store = store(if proxied { proxy.cache() } else { server.cache() });
        let small = record("small");
        store.create(&small).await.unwrap();
        let key = &small.session_key;
        let loaded = store.load(key, now()).await.unwrap().unwrap();
        let large = SessionRecord { session_key: key.clone(), ..record(&"x".repeat(2 << 20)) };
        let with_revision = SessionRecord { revision: loaded.revision, ..large.clone() };
        for large in [&large, &with_revision] {
            let error = store.save(large).await.unwrap_err();
            assert!(matches!(backend(&error), MemcachedError::TooLarge), "{error:?}");
            assert!(!error.is_retryable());
            assert_eq!(text_of(&store, key).await.as_deref(), Some("small"));
        }
        let new = SessionRecord { session_key: SessionKey::generate(), ..large.clone() };
        let error = store.create(&new).await.unwrap_err();
        assert!(matches!(backend(&error), MemcachedError::TooLarge), "{error:?}");
        assert!(!store.exists(&new.session_key).await.unwrap());

        let narrow = self::store(server.cache().with_max_value_size(1000));
        let error = narrow.save(&large).await.unwrap_err();
        assert!(matches!(backend(&error), MemcachedError::ValueTooLarge { limit: 1000 }));
        let medium = SessionRecord { session_key: key.clone(), ..record(&"x".repeat(2000)) };
        store.save(&medium).await.unwrap();
        let error = narrow.load(key, now()).await.unwrap_err();
        assert!(matches!(backend(&error), MemcachedError::ValueTooLarge { limit: 1000 }));
        narrow.delete(key).await.unwrap();
    }
}

/// With `-M` the server evicts nothing.
#[tokio::test]
async fn a_server_without_memory_is_an_error_and_leaves_the_old_one() {
    let Some(server) = Server::start_with(&["-M", "-m", "4"]).await else { return };
    let store = store(server.cache());
    let kept = record("kept");
    store.create(&kept).await.unwrap();
    let mut error = None;
    for _ in 0..200 {
        if let Err(refused) = store.create(&record(&"x".repeat(100_000))).await {
            error = Some(refused);
            break;
        }
    }
    let error = error.unwrap();
    assert!(matches!(backend(&error), MemcachedError::OutOfMemory), "{error:?}");
    let loaded = store.load(&kept.session_key, now()).await.unwrap().unwrap();
    for revision in [None, loaded.revision] {
        let session_key = kept.session_key.clone();
        let large = SessionRecord { session_key, revision, ..record(&"x".repeat(100_000)) };
        let error = store.save(&large).await.unwrap_err();
        assert!(matches!(backend(&error), MemcachedError::OutOfMemory), "{error:?}");
        assert_eq!(text_of(&store, &kept.session_key).await.as_deref(), Some("kept"));
    }
}

#[tokio::test]
async fn entries_end_when_they_should() {
    let Some(server) = Server::start().await else { return };
    let cache = server.cache();
    for seconds in [600, 2_592_000, 2_592_001, 86_400 * 365] {
        let key = seconds.to_string();
        let timeout = SignedDuration::from_secs(seconds) - SignedDuration::from_millis(1);
        cache.add(&key, b"1", timeout).await.unwrap();
        let left = cache.get(&key).await.unwrap().unwrap().timeout.unwrap().as_secs();
        assert!((seconds - 2..=seconds + 1).contains(&left), "{left} of {seconds}");
        cache.touch(&key, timeout * 2).await.unwrap();
        let left = cache.get(&key).await.unwrap().unwrap().timeout.unwrap().as_secs();
        assert!((seconds * 2 - 2..=seconds * 2 + 1).contains(&left), "{left} of twice {seconds}");
    }
    // The last instant that fits; Django's would be gone at once.
    cache.add("far", b"1", SignedDuration::from_hours(24 * 365 * 70)).await.unwrap();
    assert!(cache.get("far").await.unwrap().unwrap().timeout.unwrap() > HOUR * 24 * 365);
    // One that never ends is not ours, but may be there.
    server.ask("set forever 1 0 1\r\n1\r\n").await;
    assert_eq!(cache.get("forever").await.unwrap().unwrap().timeout, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing() {
    let Some(server) = Server::start().await else { return };
    let settings = settings();
    lost_updates::check("memcached", Arc::new(store(server.cache())), &settings).await;
    let proxy = Relay::start(&server, true).await;
    lost_updates::check("old memcached", Arc::new(store(proxy.cache())), &settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_django_beside_us_loses_changes() {
    let Some(server) = Server::start().await else { return };
    let engine = backend_settings("PyMemcacheCache", &[&server]);
    let (store, django) = (Arc::new(store(server.cache())), || Engine::start(&engine));
    lost_updates::show_beside_django("memcached", store, &settings(), django).await;
}

/// Rust and Django count in one session. Django overwrites what came in between; ours does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django_beside_us_keeps_what_it_sees() {
    let Some(server) = Server::start().await else { return };
    let Some(mut django) = Engine::start(&backend_settings("PyMemcacheCache", &[&server])) else {
        return;
    };
    let (store, settings) = (Arc::new(store(server.cache())), Arc::new(settings()));
    let key = django.ask(&json!({"op": "create", "data": {"start": 0}}));
    let key = SessionKey::parse(key["key"].as_str().unwrap()).unwrap();
    django.tell(&json!({"op": "increment", "key": key.as_str(), "name": "django", "times": 300}));
    for _ in 0..300 {
        let session = Session::new(store.clone(), settings.clone(), Some(key.clone()));
        let count = session.get::<u32>("rust").await.unwrap().unwrap_or(0);
        session.insert("rust", &(count + 1)).await.unwrap();
        session.save().await.unwrap();
    }
    assert_eq!(tokio::task::block_in_place(|| django.answer()), json!({}));
    let loaded = store.load(&key, now()).await.unwrap().unwrap();
    assert_eq!(loaded.data.get::<u32>("django").unwrap(), Some(300), "we never overwrite Django");
}

fn backend_settings(backend: &str, servers: &[&Server]) -> Value {
    json!({
        "USE_TZ": true,
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
        "CACHES": {"default": {
            "BACKEND": format!("django.core.cache.backends.memcached.{backend}"),
            "LOCATION": servers.iter().map(|server| &*server.location).collect::<Vec<_>>(),
        }},
    })
}

async fn interleave_with(backend: &str, servers: usize, distribution: MemcachedDistribution) {
    let mut started = Vec::new();
    for _ in 0..servers {
        let Some(server) = Server::start().await else { return };
        started.push(server);
    }
    let started: Vec<_> = started.iter().collect();
    let Some(mut django) = Engine::start(&backend_settings(backend, &started)) else { return };
    let cache = MemcachedCache::new(started.iter().map(|server| &server.location)).unwrap();
    let store = store(cache.with_distribution(distribution));
    peer::interleave(&store, &mut django, &now, false, 3_000).await;
}

#[tokio::test]
async fn django_with_pymemcache_sees_the_same() {
    interleave_with("PyMemcacheCache", 1, MemcachedDistribution::Rendezvous).await;
    interleave_with("PyMemcacheCache", 3, MemcachedDistribution::Rendezvous).await;
}

#[tokio::test]
async fn django_with_pylibmc_sees_the_same() {
    if !peer::has_pylibmc() {
        return;
    }
    interleave_with("PyLibMCCache", 1, MemcachedDistribution::Modula).await;
    interleave_with("PyLibMCCache", 3, MemcachedDistribution::Modula).await;
}

/// Keys as sites may have them: of any prefix, version and session key.
fn keys(count: usize) -> Vec<String> {
    let mut random = Random::new();
    let alphabet = ['a', 'z', '0', ':', '-', 'é', 'ß', '世', '\u{1F600}', '%', '~', '_'];
    let key = |_| {
        let (prefix, length) = (["", "shop", "ключ"][random.below(3)], random.below(33));
        let rest: String = (0..length).map(|_| alphabet[random.below(alphabet.len())]).collect();
        format!("{prefix}:{}:{rest}", random.below(3))
    };
    (0..count).map(key).collect()
}

/// Which of the servers have an entry under a key.
async fn owners(servers: &[Server], key: &str) -> Vec<usize> {
    let mut owners = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        if server.cache().has_key(key).await.unwrap() {
            owners.push(index);
        }
    }
    owners
}

/// Both put each key of thousands on the same server.
async fn check_distribution(backend: &str, distribution: MemcachedDistribution) {
    let mut servers = Vec::new();
    for count in 1..=5 {
        let Some(server) = Server::start().await else { return };
        servers.push(server);
        let all: Vec<_> = servers.iter().collect();
        let Some(mut django) = Engine::start(&backend_settings(backend, &all)) else { return };
        let keys = keys(2_000);
        assert_eq!(django.ask(&json!({"op": "cache_set", "keys": keys})), json!({}));
        let cache = MemcachedCache::new(all.iter().map(|server| &server.location)).unwrap();
        let cache = cache.with_distribution(distribution);
        for key in &keys {
            assert!(cache.has_key(key).await.unwrap(), "{key}, {backend}, {count} servers");
        }
        // And only there, so that the above means something.
        assert_eq!(owners(&servers, &keys[0]).await.len(), 1);
        let mut counts = Vec::new();
        for server in &servers {
            counts.push(server.stat("curr_items").await);
            server.ask("flush_all\r\n").await;
        }
        assert!(counts.iter().all(|&count| count > 0), "{backend} spreads keys: {counts:?}");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
}

#[tokio::test]
async fn keys_are_where_pymemcache_puts_them() {
    check_distribution("PyMemcacheCache", MemcachedDistribution::Rendezvous).await;
}

#[tokio::test]
async fn keys_are_where_pylibmc_puts_them() {
    if !peer::has_pylibmc() {
        return;
    }
    check_distribution("PyLibMCCache", MemcachedDistribution::Modula).await;
}

/// Every operation, as errors.
async fn failures(store: &CacheStore, record: &SessionRecord) -> Vec<StoreError> {
    let key = &record.session_key;
    let revision = Revision::new([0; 24]);
    let with_revision = SessionRecord { revision: Some(revision.clone()), ..record.clone() };
    vec![
        store.exists(key).await.unwrap_err(),
        store.create(record).await.unwrap_err(),
        store.load(key, now()).await.unwrap_err(),
        store.save(record).await.unwrap_err(),
        store.save(&with_revision).await.unwrap_err(),
        store.touch(record).await.unwrap_err(),
        store.delete(key).await.unwrap_err(),
        store.delete_revision(key, &revision).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable() {
    let Some(mut server) = Server::start().await else { return };
    let store = store(server.cache());
    let record = record("tea");
    store.create(&record).await.unwrap();
    server.kill();
    for error in failures(&store, &record).await {
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
        assert!(error.is_outage() && error.is_retryable());
        let text = whole(&error);
        assert!(!text.contains(record.session_key.as_str()) && !text.contains("tea"), "{text}");
    }
    // Its sessions went with it; what is kept of connections is no hindrance.
    server.restart().await;
    assert!(store.load(&record.session_key, now()).await.unwrap().is_none());
    store.create(&record).await.unwrap();
}

#[tokio::test]
async fn a_restart_between_two_operations_is_not_noticed() {
    let Some(mut server) = Server::start().await else { return };
    let store = Arc::new(store(server.cache()));
    for round in 0..3 {
        // Several connections are kept, and all of them break.
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let store = store.clone();
            running.spawn(async move { store.create(&record("tea")).await.unwrap() });
        }
        running.join_all().await;
        server.kill();
        server.restart().await;
        let record = record("milk");
        match round {
            0 => drop(store.create(&record).await.unwrap()),
            1 => assert!(store.load(&record.session_key, now()).await.unwrap().is_none()),
            _ => assert!(store.save(&record).await.unwrap_err().is_update()),
        }
    }
}

/// The numbers that a server counts begin anew with it.
#[tokio::test]
async fn a_rotation_whose_answers_are_lost_loses_no_session() {
    let Some(server) = Server::start().await else { return };
    let port = server.location.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::before(port).await;
    let through = MemcachedCache::new([format!("127.0.0.1:{}", proxy.port())]).unwrap();
    let (through, direct) = (store(through), store(server.cache()));
    faults::rotate_without_answers("memcached", through, direct, &proxy, None, &faults::TWO_STEPS)
        .await;
}

/// What its first try has written is no entry of somebody else's.
#[tokio::test]
async fn a_write_whose_answer_is_lost_knows_its_own_work() {
    let Some(server) = Server::start().await else { return };
    let port = server.location.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::before(port).await;
    let cache = MemcachedCache::new([format!("127.0.0.1:{}", proxy.port())]).unwrap();
    assert!(!cache.has_key("k").await.unwrap());
    for mode in [Mode::CutRequest, Mode::CutAnswer(0), Mode::CutAnswer(5)] {
        proxy.set(mode);
        let Written::Done(added) = cache.add("k", b"one", HOUR).await.unwrap() else {
            panic!("{mode:?}: it is its own")
        };
        proxy.set(mode);
        let replaced = cache.replace("k", b"two", HOUR, Some(&added)).await.unwrap();
        let Written::Done(replaced) = replaced else { panic!("{mode:?}: it is its own") };
        assert_eq!(cache.get("k").await.unwrap().unwrap().revision, replaced);
        // What is not its own is somebody else's as before.
        proxy.set(mode);
        assert_eq!(cache.add("k", b"three", HOUR).await.unwrap(), Written::Changed, "{mode:?}");
        proxy.set(mode);
        let replaced = cache.replace("k", b"three", HOUR, Some(&added)).await.unwrap();
        assert_eq!(replaced, Written::Changed, "{mode:?}");
        proxy.set(mode);
        assert_eq!(cache.delete("k", Some(&added)).await.unwrap(), Written::Changed, "{mode:?}");
        cache.delete("k", None).await.unwrap();
    }
}

#[tokio::test]
async fn a_revision_does_not_outlive_its_server() {
    let Some(mut server) = Server::start().await else { return };
    let cache = server.cache();
    cache.add("key", b"old", HOUR).await.unwrap();
    let loaded = cache.get("key").await.unwrap().unwrap();
    let before = server.ask("gets key\r\n").await;
    server.kill();
    server.restart().await;
    cache.add("key", b"new", HOUR).await.unwrap();
    let after = server.ask("gets key\r\n").await;
    assert_eq!(before.lines().next(), after.lines().next(), "the server counts the same again");

    let replaced = cache.replace("key", b"stale", HOUR, Some(&loaded.revision)).await.unwrap();
    assert_eq!(replaced, Written::Changed);
    assert_eq!(cache.delete("key", Some(&loaded.revision)).await.unwrap(), Written::Changed);
    assert_eq!(cache.get("key").await.unwrap().unwrap().value, b"new");
}

#[tokio::test]
async fn a_server_that_hangs_times_out() {
    let Some(server) = Server::start().await else { return };
    let short = Duration::from_millis(150);
    let cache = server.cache().with_timeout(short).with_connect_timeout(short);
    let (store, fresh) = (
        store(cache.clone()),
        store(cache.clone().with_max_connections(NonZeroUsize::new(3).unwrap())),
    );
    let record = record("tea");
    store.create(&record).await.unwrap();
    server.stop().await;
    // On a connection that was kept, then on new ones.
    for store in [&store, &fresh] {
        let start = Instant::now();
        for error in failures(store, &record).await {
            assert!(matches!(error, StoreError::TimedOut(_)), "{error:?}");
        }
        assert!(start.elapsed() < short * 16);
    }
    server.signal("-CONT");
    // What was asked for has happened meanwhile, or not; nobody reads an answer that is not theirs.
    store.delete(&record.session_key).await.unwrap();
    for _ in 0..20 {
        assert!(store.load(&record.session_key, now()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_nothing_to_others() {
    let Some(server) = Server::start().await else { return };
    let store = Arc::new(store(server.cache().with_max_connections(NonZeroUsize::new(2).unwrap())));
    let records: Vec<_> = (0..10).map(|index| record(&format!("session {index}"))).collect();
    for record in &records {
        store.create(record).await.unwrap();
    }
    let mut random = Random::new();
    let mut given_up = 0;
    for _ in 0..2_000 {
        let index = random.below(records.len());
        let load = text_of(&store, &records[index].session_key);
        match random.below(3) {
            0 => {
                let limit = Duration::from_micros(random.below(200) as u64);
                given_up += usize::from(timeout(limit, load).await.is_err());
            }
            // Begun, and dropped at once.
            1 => {
                let mut load = Box::pin(load);
                std::future::poll_fn(|context| {
                    let _ = load.as_mut().poll(context);
                    std::task::Poll::Ready(())
                })
                .await;
                given_up += 1;
            }
            _ => assert_eq!(load.await.unwrap(), format!("session {index}")),
        }
    }
    assert!(given_up > 300, "{given_up}");
}

#[tokio::test]
async fn there_are_only_so_many_connections() {
    let Some(server) = Server::start().await else { return };
    let cache = server.cache().with_max_connections(NonZeroUsize::new(3).unwrap());
    let before = server.stat("total_connections").await;
    let mut running = tokio::task::JoinSet::new();
    for index in 0..100 {
        let cache = cache.clone();
        running.spawn(async move {
            cache.add(&format!("key{index}"), b"1", HOUR).await.unwrap();
        });
    }
    running.join_all().await;
    // And those of this test, which the server's threads count as they come to it.
    let opened = server.stat("total_connections").await - before;
    assert!((3..10).contains(&opened), "{opened}");

    // Who gets none in time has changed nothing.
    let one = NonZeroUsize::new(1).unwrap();
    let cache = server.cache().with_max_connections(one).with_timeout(Duration::from_millis(300));
    cache.has_key("key").await.unwrap();
    server.stop().await;
    let (first, second) = tokio::join!(cache.has_key("key"), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cache.clone().with_timeout(Duration::from_millis(50)).has_key("key").await
    });
    server.signal("-CONT");
    assert!(matches!(first.unwrap_err(), StoreError::TimedOut(_)));
    let error = second.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_server_with_too_many_clients_is_busy_or_slow() {
    let Some(server) = Server::start_with(&["-c", "20", "-t", "1"]).await else {
        return;
    };
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(TcpStream::connect(&server.location).await.unwrap());
    }
    let short = Duration::from_millis(200);
    let mut answer = Ok(false);
    // Until the server has come to all of them.
    for _ in 0..100 {
        let cache = server.cache().with_connect_timeout(short).with_timeout(short);
        answer = cache.has_key("key").await;
        if answer.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let error = answer.unwrap_err();
    // It may close the connection before its words are read.
    assert!(error.is_outage() && error.is_retryable(), "{error:?}");
    drop(clients);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let cache = server.cache().with_connect_timeout(short).with_timeout(short);
    assert!(!cache.has_key("key").await.unwrap());
}

/// A server that sends what it likes.
struct Liar {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
    /// Whether every client has gone.
    is_left: Arc<AtomicBool>,
}

const STATS: &[u8] =
    b"STAT pid 7\r\nSTAT uptime 5\r\nSTAT time 1700000005\r\nSTAT version 1.6.18\r\nEND\r\n";
const OLD_STATS: &[u8] = b"STAT pid 7\r\nSTAT version 1.4.39\r\nEND\r\n";

impl Liar {
    /// Answers `stats` with `stats`, and everything else with `reply`, in which `OPAQUE` is what the client
    /// sent; then goes on with `more` for ever, if there is any, or else closes the connection if told.
    async fn start(stats: &'static [u8], reply: &[u8], more: &'static [u8], closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reply, is_left) = (reply.to_vec(), Arc::new(AtomicBool::new(false)));
        let left = Arc::clone(&is_left);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, left) = (reply.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    let _ = lie(stream, stats, &reply, more, closes).await;
                    left.store(true, Ordering::SeqCst);
                });
            }
        });
        Self { address, task, is_left }
    }

    fn cache(&self) -> MemcachedCache {
        let short = Duration::from_millis(300);
        let cache = MemcachedCache::new([self.address.to_string()]).unwrap();
        cache.with_timeout(short).with_connect_timeout(short).with_max_value_size(1 << 20)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn lie(
    mut stream: TcpStream,
    stats: &[u8],
    reply: &[u8],
    more: &[u8],
    closes: bool,
) -> std::io::Result<()> {
    let mut request = vec![0; 1 << 16];
    loop {
        let length = stream.read(&mut request).await?;
        if length == 0 {
            return Ok(());
        }
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        if request == "stats\r\n" && !stats.is_empty() {
            stream.write_all(stats).await?;
            continue;
        }
        let opaque = request.split_ascii_whitespace().rfind(|word| word.starts_with('O'));
        let text = String::from_utf8_lossy(reply).replace("OPAQUE", opaque.unwrap_or("O0"));
        let bytes = if reply.is_ascii() { text.into_bytes() } else { reply.to_vec() };
        stream.write_all(&bytes).await?;
        while !more.is_empty() {
            stream.write_all(more).await?;
        }
        if closes {
            return Ok(());
        }
    }
}

/// All operations, none of which may panic, hang or be believed.
async fn survive(liar: &Liar, name: &str) -> Vec<StoreError> {
    let cache = liar.cache();
    let revision = {
        let mut bytes = Vec::new();
        for number in [12_u64, 7, 1_700_000_000] {
            bytes.extend(number.to_be_bytes());
        }
        Revision::new(bytes)
    };
    let all = async {
        let mut errors = Vec::new();
        errors.extend(cache.get("key").await.err());
        errors.extend(cache.has_key("key").await.err());
        errors.extend(cache.add("key", b"secret", HOUR).await.err());
        errors.extend(cache.replace("key", b"secret", HOUR, None).await.err());
        errors.extend(cache.replace("key", b"secret", HOUR, Some(&revision)).await.err());
        errors.extend(cache.touch("key", HOUR).await.err());
        errors.extend(cache.delete("key", None).await.err());
        errors.extend(cache.delete("key", Some(&revision)).await.err());
        errors
    };
    let errors = timeout(Duration::from_secs(20), all).await;
    let errors = errors.unwrap_or_else(|_| panic!("{name} hangs"));
    for error in &errors {
        assert!(error.is_outage(), "{name}: {error:?}");
        let text = whole(error);
        assert!(!text.contains("secret") && !text.contains("hunter2"), "{name}: {text}");
    }
    errors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_replies_are_errors() {
    let long_line = [b"VA 1 ".as_slice(), &b"x".repeat(5_000), b"\r\n"].concat();
    let binary: Vec<u8> = (0..=255).cycle().take(2_000).collect();
    for stats in [STATS, OLD_STATS] {
        for (name, reply, closes) in [
            ("nothing", &b""[..], false),
            ("the end", b"", true),
            ("an empty line", b"\r\n", false),
            ("an error", b"SERVER_ERROR hunter2\r\n", false),
            ("an error for the client", b"CLIENT_ERROR hunter2\r\n", false),
            ("half a line", b"VA 1", true),
            ("half a line, and silence", b"VALUE key 1 1", false),
            ("a line without carriage return", b"END\nEND\nEND\n", false),
            ("a long line", &long_line, false),
            ("bytes", &binary, false),
            ("nul", b"\0\0\0\0\r\n", false),
            ("another protocol", b"HTTP/1.1 400 Bad Request\r\nServer: hunter2\r\n\r\n", true),
            ("a huge value", b"VA 18446744073709551615 f1 c1 t1 OPAQUE\r\nx", false),
            ("a huge classic value", b"VALUE key 1 9223372036854775807 1\r\nx", false),
            ("a large value that does not come", b"VA 1000000 f1 c1 t1 OPAQUE\r\nx", true),
            ("a large classic value that does not come", b"VALUE key 1 1000000 1\r\nx", false),
            ("a longer value", b"VA 1 f1 c1 t1 OPAQUE\r\nxyz\r\n", false),
            ("somebody else's value", b"VA 1 f1 c1 t1 O0\r\nx\r\n", false),
            ("another key's value", b"VALUE kex 1 1 1\r\nx\r\nEND\r\n", false),
            ("a value without number", b"VA 1 f1 t1 OPAQUE\r\nx\r\n", false),
            ("a classic value without number", b"VALUE key 1 1\r\nx\r\nEND\r\n", false),
            ("two values", b"VALUE key 1 1 1\r\nx\r\nVALUE key 1 1 1\r\nx\r\nEND\r\n", false),
            ("numbers", b"1\r\n2\r\n3\r\n", false),
        ] {
            let liar = Liar::start(stats, reply, b"", closes).await;
            let errors = survive(&liar, name).await;
            assert_eq!(errors.len(), 8, "{name}: {errors:?}");
        }
    }
}

/// Words in the right place mean what they say, and words in the wrong place nothing.
#[tokio::test]
async fn replies_to_other_commands_are_no_replies() {
    for stats in [STATS, OLD_STATS] {
        for reply in [
            "STORED",
            "NOT_STORED",
            "EXISTS",
            "NOT_FOUND",
            "DELETED",
            "TOUCHED",
            "END",
            "EN",
            "NF",
            "EX",
            "HD",
            "NS",
            "OK",
            "MN",
            "VERSION 1.6.18",
            "RESET",
            "BUSY",
        ] {
            let liar = Liar::start(stats, format!("{reply}\r\n").as_bytes(), b"", false).await;
            let cache = liar.cache();
            let get = timeout(Duration::from_secs(5), cache.get("key")).await.unwrap();
            let is_meta = stats == STATS;
            let is_miss =
                matches!(reply, "EN" | "NF" | "NOT_FOUND") && is_meta || reply == "END" && !is_meta;
            match get {
                Ok(None) => assert!(is_miss, "{reply}"),
                Ok(Some(_)) => panic!("{reply} is no entry"),
                Err(error) => assert!(!is_miss && error.is_outage(), "{reply}: {error:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_replies_end() {
    const LINES: &[u8] = b"STAT x 1\r\n";
    const LETTERS: &[u8] = &[b'x'; 4096];
    for (name, stats, reply, more) in [
        ("statistics", &b""[..], &b""[..], LINES),
        ("a line of statistics", b"", b"STAT ", LETTERS),
        ("lines", STATS, b"", LINES),
        ("a line", STATS, b"VA 1 f1 ", LETTERS),
        ("a value", STATS, b"VA 1048576 f1 c1 t1 OPAQUE\r\n", LETTERS),
        ("a classic value", OLD_STATS, b"VALUE key 1 1048576 1\r\n", LETTERS),
        ("a flood after a reply", STATS, b"HD\r\n", LETTERS),
    ] {
        let liar = Liar::start(stats, reply, more, false).await;
        let errors = survive(&liar, name).await;
        // `HD` is what four of the operations wait for, if nothing comes before it.
        let fewest = if name == "a flood after a reply" { 4 } else { 8 };
        assert!((fewest..=8).contains(&errors.len()), "{name}: {errors:?}");
        // Connections are closed, not left to fill up.
        for _ in 0..100 {
            if liar.is_left.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(liar.is_left.load(Ordering::SeqCst), "{name}");
    }
}

/// What comes after a reply belongs to nobody.
#[tokio::test]
async fn a_second_reply_is_not_taken_for_the_next() {
    let reply = b"EN\r\nVA 6 f1 c1 t1 O1\r\nstolen\r\n";
    let liar = Liar::start(STATS, reply, b"", false).await;
    let cache = liar.cache();
    for _ in 0..50 {
        if let Ok(found) = cache.get("key").await {
            assert!(found.is_none());
        }
    }
}

#[test]
fn a_location_that_names_no_servers_is_refused() {
    for (location, error) in [
        ("", MemcachedLocationError::Empty),
        ("localhost,", MemcachedLocationError::Malformed { number: 2 }),
        ("localhost;host:hunter2", MemcachedLocationError::Malformed { number: 2 }),
        ("user:hunter2@host:11211", MemcachedLocationError::Malformed { number: 1 }),
    ] {
        let found = MemcachedCache::from_location(location).unwrap_err();
        assert_eq!(found, error, "{location}");
        assert!(!whole(&found).contains("hunter2"));
    }
    let none: [&str; 0] = [];
    assert_eq!(MemcachedCache::new(none).unwrap_err(), MemcachedLocationError::Empty);
    let cache = MemcachedCache::from_location("one;two:1,unix:/three").unwrap();
    let shown = format!("{cache:?}");
    assert!(shown.contains(r#"["one:11211", "two:1", "/three"]"#), "{shown}");
}

#[test]
fn caches_can_be_shared() {
    fn assert_shared<T: Clone + Send + Sync + 'static>() {}
    assert_shared::<MemcachedCache>();
}

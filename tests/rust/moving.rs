//! Sessions that move from one store to another: the contract over pairs of stores, and who may meet whom.
//!
//! What two stores do can be interleaved in many ways. Here they are reference stores that stop before
//! each step, and a schedule says who takes the next one: each actor is stopped at each of its steps until
//! all others are done, and then there are random schedules.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use django_session::codec::Serializer;
use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::{OnConflict, Resolution, Revision, Saved, SessionRecord};
use django_session::store::testing::{Terms, check_contract};
use django_session::store::{
    CacheStore, ConnectError, FileStore, MemoryCache, MemoryStore, MovingStore, RedisAddress,
    RedisCache, UrlError, connect,
};
use django_session::{
    DateTime, Session, SessionError, SessionKey, SessionSettings, SessionStore, StoreError,
};
use jiff::SignedDuration;

use crate::lost_updates;
use crate::stores::{Kind, PRECISION, Place, now, record, server, settings};

fn memory() -> MemoryStore {
    MemoryStore::new(settings().codec().unwrap())
}

/// A cache of Django's in the memory of this process, whose sessions are pickled.
fn pickled() -> CacheStore {
    let keys = CacheKeys::new(CacheEngine::Cache);
    CacheStore::new(MemoryCache::default(), keys, CacheCodec::new(CacheBackend::Redis))
}

/// Redis, with keys that nobody else has.
fn redis() -> Option<CacheStore> {
    let address: RedisAddress = server("TEST_REDIS_URL")?.parse().unwrap();
    let keys = CacheKeys::new(CacheEngine::Cache).with_key_prefix(SessionKey::generate().as_str());
    let codec = CacheCodec::new(CacheBackend::Redis);
    Some(CacheStore::new(RedisCache::new(&address).unwrap(), keys, codec))
}

// The contract.

/// A store whose new sessions are in the old one, as those are that were there before the move.
#[derive(Debug)]
struct Before {
    old: Arc<dyn SessionStore>,
    moving: MovingStore,
}

#[async_trait]
impl SessionStore for Before {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        self.moving.exists(session_key).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        if self.moving.exists(&record.session_key).await? {
            return Err(StoreError::Create);
        }
        self.old.create(record).await
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.moving.load(session_key, now).await
    }

    async fn load_latest(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.moving.load_latest(session_key, now).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.moving.save(record).await
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.moving.touch(record).await
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        self.moving.delete(session_key).await
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        self.moving.delete_revision(session_key, revision).await
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        self.moving.cycle_key(session_key, record).await
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.moving.clear_expired(now).await
    }
}

mod memory_to_memory {
    use super::*;

    async fn empty() -> Arc<MovingStore> {
        Arc::new(MovingStore::new(memory(), memory()))
    }

    django_session::store_contract!(empty, now());
}

mod memory_to_memory_writing_both {
    use super::*;

    async fn empty() -> Arc<MovingStore> {
        Arc::new(MovingStore::new(memory(), memory()).with_write_both(true))
    }

    django_session::store_contract!(empty, now());
}

mod sessions_that_were_there_before {
    use super::*;

    async fn empty() -> Arc<Before> {
        let old = memory();
        let moving = MovingStore::new(old.clone(), memory());
        Arc::new(Before { old: Arc::new(old), moving })
    }

    django_session::store_contract!(empty, now());
}

/// Checks two stores that `make` makes anew, in each way in which sessions may be spread over them.
///
/// The terms are those of the old one and of the new one.
async fn check_pair<O: SessionStore + Clone, N: SessionStore>(
    make: impl AsyncFn() -> (O, N),
    old_terms: Terms,
    new_terms: Terms,
) {
    for write_both in [false, true] {
        let moving = async || {
            let (old, new) = make().await;
            Arc::new(MovingStore::new(old, new).with_write_both(write_both))
        };
        let mut terms = new_terms;
        if write_both {
            // At the very end of its life a copy may live on for that long.
            terms.precision = terms.precision.max(old_terms.precision);
        }
        check_contract(moving, terms).await;
        let before = async || {
            let (old, new) = make().await;
            let moving = MovingStore::new(old.clone(), new).with_write_both(write_both);
            Arc::new(Before { old: Arc::new(old), moving })
        };
        // Whatever one of the two cannot, the pair cannot.
        let mut terms = new_terms;
        terms.precision = terms.precision.max(old_terms.precision);
        terms.expired_stay &= old_terms.expired_stay;
        terms.any_key &= old_terms.any_key;
        check_contract(before, terms).await;
    }
}

fn dropping() -> Terms {
    Terms::dropping(now(), PRECISION)
}

#[tokio::test]
async fn json_and_pickles_keep_the_contract_in_both_directions() {
    check_pair(async || (memory(), pickled()), now().into(), dropping()).await;
    check_pair(async || (pickled(), memory()), dropping(), now().into()).await;
    let mut settings = settings();
    settings.serializer = Serializer::Pickle;
    let pickled_text = || MemoryStore::new(settings.codec().unwrap());
    check_pair(async || (memory(), pickled_text()), now().into(), now().into()).await;
    check_pair(async || (pickled_text(), memory()), now().into(), now().into()).await;
}

#[tokio::test]
async fn tables_and_redis_keep_the_contract_in_both_directions() {
    for place in Place::all().await {
        let Some(redis_there) = redis() else { return };
        drop(redis_there);
        let emptied = async || {
            place.execute("DELETE FROM {table}").await;
            (place.store().await, redis().unwrap())
        };
        check_pair(emptied, now().into(), dropping()).await;
        let exchanged = async || {
            place.execute("DELETE FROM {table}").await;
            (redis().unwrap(), place.store().await)
        };
        check_pair(exchanged, dropping(), now().into()).await;
    }
}

#[tokio::test]
async fn two_databases_keep_the_contract_in_both_directions() {
    let sqlite = Place::new(Kind::Sqlite).await.unwrap();
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        for is_forth in [true, false] {
            let emptied = async || {
                for place in [&place, &sqlite] {
                    place.execute("DELETE FROM {table}").await;
                }
                let (there, here) = (place.store().await, sqlite.store().await);
                if is_forth { (there, here) } else { (here, there) }
            };
            check_pair(emptied, now().into(), now().into()).await;
        }
    }
}

/// A directory that goes with its store.
struct Files {
    store: Arc<FileStore>,
    _directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path(), settings().codec().unwrap());
        Self { store: Arc::new(store), _directory: directory }
    }
}

struct WithFiles {
    moving: MovingStore,
    _files: Files,
}

impl Deref for WithFiles {
    type Target = MovingStore;

    fn deref(&self) -> &MovingStore {
        &self.moving
    }
}

#[tokio::test]
async fn files_keep_the_contract_in_both_directions() {
    for write_both in [false, true] {
        for is_forth in [true, false] {
            let make = async || {
                let files = Files::new();
                let moving = if is_forth {
                    MovingStore::new(files.store.clone(), memory())
                } else {
                    MovingStore::new(memory(), files.store.clone())
                };
                WithFiles { moving: moving.with_write_both(write_both), _files: files }
            };
            let mut terms = Terms::from(now());
            if !is_forth || write_both {
                terms = terms.with_plain_keys();
            }
            check_contract(make, terms).await;
        }
    }
}

// Who meets whom.

/// A reference store that stops before each step, and may fail at one.
#[derive(Clone)]
struct Stepped {
    store: MemoryStore,
    /// How many steps there were.
    steps: Arc<AtomicUsize>,
    fault: Fault,
}

/// What goes wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// From this step on it cannot be reached.
    Away(usize),
    /// This step is taken, and nobody hears of it; from then on it cannot be reached.
    AnswerLost(usize),
}

impl fmt::Debug for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepped").finish_non_exhaustive()
    }
}

impl Stepped {
    fn new(store: &MemoryStore, fault: Fault) -> Self {
        Self { store: store.clone(), steps: Arc::default(), fault }
    }

    async fn step<T>(
        &self,
        step: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        stop().await;
        let number = self.steps.fetch_add(1, Ordering::SeqCst);
        let away = || Err(StoreError::Unreachable("the store is away".into()));
        match self.fault {
            Fault::Away(from) if number >= from => away(),
            Fault::AnswerLost(at) if number == at => {
                let _ = step.await;
                away()
            }
            Fault::AnswerLost(at) if number > at => away(),
            _ => step.await,
        }
    }
}

/// Comes back when it is asked for the second time.
async fn stop() {
    let mut has_stopped = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut has_stopped, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[async_trait]
impl SessionStore for Stepped {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        self.step(self.store.exists(session_key)).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.step(self.store.create(record)).await
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.step(self.store.load(session_key, now)).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.step(self.store.save(record)).await
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.step(self.store.touch(record)).await
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        self.step(self.store.delete(session_key)).await
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        self.step(self.store.delete_revision(session_key, revision)).await
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        self.step(self.store.cycle_key(session_key, record)).await
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.step(self.store.clear_expired(now)).await
    }
}

/// Which of the two is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forth,
    ForthWritingBoth,
    /// The same with the two exchanged.
    Back,
}

/// Where the session is at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Old,
    New,
    /// In both, as a program leaves it that has copied it.
    Both,
}

/// Two stores, one session, and what came of those who wrote it.
struct World {
    old: MemoryStore,
    new: MemoryStore,
    settings: Arc<SessionSettings>,
    session_key: SessionKey,
    /// Names whose writing was acknowledged.
    acknowledged: Mutex<Vec<&'static str>>,
    /// The key to which somebody has moved it.
    cycled: Mutex<Option<SessionKey>>,
}

impl World {
    fn new(start: Start, settings: SessionSettings) -> Arc<Self> {
        let created = record(now());
        let world = Self {
            old: memory(),
            new: memory(),
            settings: Arc::new(settings),
            session_key: created.session_key.clone(),
            acknowledged: Mutex::default(),
            cycled: Mutex::default(),
        };
        if start != Start::New {
            at_once(world.old.create(&created)).unwrap();
        }
        if start != Start::Old {
            at_once(world.new.create(&created)).unwrap();
        }
        Arc::new(world)
    }

    fn store(&self, way: Way) -> Arc<dyn SessionStore> {
        self.faulty(way, [Fault::None; 2])
    }

    /// With what goes wrong with the old store, and with the new one.
    fn faulty(&self, way: Way, faults: [Fault; 2]) -> Arc<dyn SessionStore> {
        let (old, new) = (Stepped::new(&self.old, faults[0]), Stepped::new(&self.new, faults[1]));
        Arc::new(match way {
            Way::Forth => MovingStore::new(old, new),
            Way::ForthWritingBoth => MovingStore::new(old, new).with_write_both(true),
            Way::Back => MovingStore::new(new, old),
        })
    }

    fn request(&self, store: Arc<dyn SessionStore>) -> Session {
        Session::new(store, Arc::clone(&self.settings), Some(self.session_key.clone()))
    }

    /// What a request finds that comes when all others are done.
    fn found(&self, way: Way, session_key: &SessionKey) -> Option<BTreeMap<String, u64>> {
        let found = at_once(self.store(way).load(session_key, now())).unwrap()?;
        let names = found.data.keys().filter_map(|name| Some(name.to_str()?.into_owned()));
        Some(
            names
                .map(|name| (name.clone(), found.data.get(&name).ok().flatten().unwrap_or(0)))
                .collect(),
        )
    }

    fn acknowledge(&self, name: &'static str) {
        self.acknowledged.lock().unwrap().push(name);
    }
}

/// Runs what only has to be polled often enough.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    for _ in 0..10_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("it waits for somebody");
}

type Actor = Pin<Box<dyn Future<Output = ()>>>;

/// A request that sets a name. One whose session was deleted meanwhile is told so.
fn writer(world: &Arc<World>, way: Way, name: &'static str) -> Actor {
    adder(world, way, name, 1)
}

fn adder(world: &Arc<World>, way: Way, name: &'static str, added: u64) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move {
        let session = world.request(world.store(way));
        let count: u64 = session.get(name).await.unwrap().unwrap_or(0);
        if session.session_key().await.is_none() {
            // It was deleted, or has another key.
            return;
        }
        session.insert(name, &(count + added)).await.unwrap();
        match session.save().await {
            Ok(()) => world.acknowledge(name),
            Err(error) => assert!(error.is_interrupted(), "{error:?}"),
        }
    })
}

/// Requests one after the other, each of which counts a name up that nobody else counts.
fn visitor(world: &Arc<World>, way: [Way; 2], name: &'static str) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move {
        for count in 0..4 {
            let session = world.request(world.store(way[count % 2]));
            let counted: usize = session.get(name).await.unwrap().unwrap_or(0);
            assert!(session.session_key().await.is_some(), "{name} is logged out");
            assert_eq!(counted, count, "{name} does not see what it has written");
            session.insert(name, &(count + 1)).await.unwrap();
            session.save().await.unwrap();
        }
        world.acknowledge(name);
    })
}

/// A request that only looks, several times.
fn reader(world: &Arc<World>, way: Way) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move {
        for _ in 0..4 {
            let session = world.request(world.store(way));
            assert!(session.contains_key("secret").await.unwrap(), "{way:?}: nobody is logged out");
        }
    })
}

fn toucher(world: &Arc<World>, way: Way) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move {
        match world.request(world.store(way)).touch().await {
            Ok(_) => {}
            Err(error) => assert!(error.is_interrupted(), "{error:?}"),
        }
    })
}

/// Saves whatever is there by now, as [`OnConflict::Overwrite`] does.
fn overwriter(world: &Arc<World>, way: Way) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move {
        let record = SessionRecord { session_key: world.session_key.clone(), ..record(now()) };
        match world.store(way).save(&record).await {
            Ok(_) => {}
            Err(error) => assert!(error.is_update(), "{error:?}"),
        }
    })
}

fn logout(world: &Arc<World>, way: Way) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move { world.request(world.store(way)).flush().await.unwrap() })
}

/// A login, which moves the session to another key.
fn login(world: &Arc<World>, way: Way) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move {
        let session = world.request(world.store(way));
        session.cycle_key().await.unwrap();
        *world.cycled.lock().unwrap() = session.session_key().await;
    })
}

/// A program that copies whatever the new store does not have.
fn copier(world: &Arc<World>) -> Actor {
    let world = Arc::clone(world);
    Box::pin(async move {
        let (old, new) =
            (Stepped::new(&world.old, Fault::None), Stepped::new(&world.new, Fault::None));
        let Some(found) = old.load_latest(&world.session_key, now()).await.unwrap() else { return };
        match new.create(&found).await {
            Err(StoreError::Create) => return,
            created => drop(created.unwrap()),
        }
        if !old.exists(&world.session_key).await.unwrap() {
            new.delete(&world.session_key).await.unwrap();
        }
    })
}

/// Lets actors take their steps in an order: `pick` is told who is not done, and how many steps each took.
fn run(actors: Vec<Actor>, mut pick: impl FnMut(&[usize], &[usize]) -> usize) -> Vec<usize> {
    let mut actors: Vec<_> = actors.into_iter().map(Some).collect();
    let mut steps = vec![0; actors.len()];
    loop {
        let left: Vec<_> = (0..actors.len()).filter(|&one| actors[one].is_some()).collect();
        if left.is_empty() {
            return steps;
        }
        let one = pick(&left, &steps);
        steps[one] += 1;
        // Whoever waits for a turn may wait for another test, whose turn is the same.
        if steps[one] > 1_000 {
            std::thread::yield_now();
        }
        assert!(steps[one] < 10_000_000, "it never ends");
        let actor = actors[one].as_mut().unwrap();
        if actor.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            actors[one] = None;
        }
    }
}

/// How many steps the others get while one is stopped, before it is taken for what they wait for.
const PATIENCE: usize = 20_000;

/// Lets one actor go to a step, then all others to their ends, then it.
fn run_stopping(actors: Vec<Actor>, stopped: usize, at: usize) -> Vec<usize> {
    let mut turn = 0;
    run(actors, |left, steps| {
        let others: Vec<_> = left.iter().copied().filter(|&one| one != stopped).collect();
        turn += 1;
        if others.is_empty()
            || (left.contains(&stopped) && (steps[stopped] < at || turn > PATIENCE))
        {
            return stopped;
        }
        others[turn % others.len()]
    })
}

/// As [`run_stopping`]; another one is stopped too, until there is nobody else, and goes on first.
fn run_stopping_two(actors: Vec<Actor>, stopped: [(usize, usize); 2]) {
    let mut turn = 0;
    run(actors, |left, steps| {
        turn += 1;
        for (one, at) in stopped {
            if left.contains(&one) && steps[one] < at {
                return one;
            }
        }
        let others = left.iter().copied().filter(|one| stopped.iter().all(|(it, _)| it != one));
        let others: Vec<_> = others.collect();
        if turn > PATIENCE {
            return left[turn % left.len()];
        }
        if others.is_empty() { left[left.len() - 1] } else { others[turn % others.len()] }
    });
}

/// Lets actors go to a step each, in turn, and then all to their ends.
fn run_to(actors: Vec<Actor>, stations: &[(usize, usize)]) {
    let mut turn = 0;
    run(actors, |left, steps| {
        turn += 1;
        let next = stations.iter().find(|(one, at)| left.contains(one) && steps[*one] < *at);
        match next {
            Some((one, _)) if turn <= PATIENCE => *one,
            _ => left[turn % left.len()],
        }
    });
}

/// Who takes as many steps has given up waiting for somebody.
const WAITED: usize = 500;
/// How many steps he takes afterwards, at most.
const AFTER_WAITING: usize = 12;

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }
}

/// How many random schedules there are of each case.
fn schedules() -> u64 {
    std::env::var("MOVING_SCHEDULES").ok().and_then(|number| number.parse().ok()).unwrap_or(300)
}

/// Runs actors in many orders, and checks the world after each.
fn explore(
    case: &str,
    make: impl Fn() -> Arc<World>,
    actors: impl Fn(&Arc<World>) -> Vec<Actor>,
    check: impl Fn(&World),
) {
    explore_fairly(case, &make, &actors, &check);
    let count = actors(&make()).len();
    let mut tried = 0;
    for stopped in 0..count {
        for at in 0.. {
            let world = make();
            let steps = run_stopping(actors(&world), stopped, at);
            check(&world);
            tried += 1;
            // Whoever is stopped goes on just when another one no longer waits.
            for other in (0..count).filter(|&other| other != stopped && steps[other] > WAITED) {
                for other_at in steps[other].saturating_sub(AFTER_WAITING)..steps[other] {
                    let world = make();
                    run_to(
                        actors(&world),
                        &[(stopped, at), (other, other_at), (stopped, usize::MAX)],
                    );
                    check(&world);
                    tried += 1;
                }
            }
            if steps[stopped] <= at || at > 60 {
                break;
            }
        }
    }
    for (one, other) in (0..count).flat_map(|one| (0..count).map(move |other| (one, other))) {
        if one == other || count < 3 {
            continue;
        }
        for (at, other_at) in (1..12).flat_map(|at| (1..12).map(move |other_at| (at, other_at))) {
            let world = make();
            run_stopping_two(actors(&world), [(one, at), (other, other_at)]);
            check(&world);
            tried += 1;
        }
    }
    eprintln!("{case}: {tried} schedules with somebody stopped, {} at random", schedules());
}

/// How many steps somebody takes at most before another one does.
const MAX_IN_A_ROW: usize = 4;

/// As [`explore`], with random schedules alone: nobody waits for somebody who does not go on.
fn explore_fairly(
    case: &str,
    world: &impl Fn() -> Arc<World>,
    actors: &impl Fn(&Arc<World>) -> Vec<Actor>,
    check: &impl Fn(&World),
) {
    for seed in 0..schedules() {
        let world = world();
        let mut random = Random(seed);
        let told = Told { case, seed };
        let mut last = (usize::MAX, 0);
        run(actors(&world), |left, _| {
            let mut one = left[random.below(left.len())];
            if last == (one, MAX_IN_A_ROW) {
                one = left.iter().copied().find(|other| *other != one).unwrap_or(one);
            }
            last = if last.0 == one { (one, last.1 + 1) } else { (one, 1) };
            one
        });
        check(&world);
        std::mem::forget(told);
    }
}

/// Tells which schedule it was, when something is found.
struct Told<'a> {
    case: &'a str,
    seed: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("{}: seed {}", self.case, self.seed);
    }
}

/// All that was acknowledged is there, however one looks; in the old store too if both are written.
fn check_nothing_lost(world: &World, ways: &[Way]) {
    let cycled = world.cycled.lock().unwrap().clone();
    let session_key = cycled.as_ref().unwrap_or(&world.session_key);
    let acknowledged = world.acknowledged.lock().unwrap().clone();
    for &way in ways {
        let found = world.found(way, session_key).expect("nobody is logged out");
        for name in &acknowledged {
            assert!(found.contains_key(*name), "{way:?}: {name} is lost");
        }
        assert!(found.contains_key("secret"));
    }
    if cycled.is_some() {
        for way in ways {
            assert!(world.found(*way, &world.session_key).is_none(), "the old key leads nowhere");
        }
    }
    let json = |store: &MemoryStore| {
        let found = at_once(store.load(session_key, now())).unwrap();
        found.map(|found| found.data.to_json().unwrap())
    };
    if let (Some(old), Some(new)) = (json(&world.old), json(&world.new)) {
        assert_eq!(old, new, "a copy is the same");
    }
}

/// Neither store has it.
fn check_gone(world: &World) {
    for store in [&world.old, &world.new] {
        assert!(!at_once(store.exists(&world.session_key)).unwrap(), "it is back");
    }
}

const SETS: [Way; 2] = [Way::Forth, Way::ForthWritingBoth];
const STARTS: [Start; 3] = [Start::Old, Start::New, Start::Both];

#[test]
fn two_who_move_one_session_both_keep_their_change() {
    for (way, start) in SETS.into_iter().flat_map(|way| STARTS.map(|start| (way, start))) {
        explore(
            &format!("two writers, {way:?}, {start:?}"),
            || World::new(start, settings()),
            |world| vec![writer(world, way, "a"), writer(world, way, "b"), reader(world, way)],
            |world| {
                assert_eq!(world.acknowledged.lock().unwrap().len(), 2);
                check_nothing_lost(world, &[way, Way::Back]);
                let in_old = at_once(world.old.exists(&world.session_key)).unwrap();
                match (way, start) {
                    (_, Start::New) => assert!(!in_old),
                    (Way::ForthWritingBoth, _) => assert!(in_old),
                    _ => {}
                }
            },
        );
    }
}

/// A name that both count up is counted exactly if a function adds the two: nothing is merged twice.
#[test]
fn what_is_merged_is_merged_once() {
    for (way, start) in SETS.into_iter().flat_map(|way| STARTS.map(|start| (way, start))) {
        let settings = || {
            let mut settings = settings();
            settings.on_conflict = OnConflict::merge_with(|conflict| {
                let number = |value: &Option<_>| -> i64 {
                    value.as_deref().and_then(|json: &str| json.parse().ok()).unwrap_or(0)
                };
                let added = number(conflict.mine) - number(conflict.loaded);
                Resolution::Json((number(conflict.stored) + added).to_string())
            });
            settings
        };
        explore(
            &format!("one counter, {way:?}, {start:?}"),
            || World::new(start, settings()),
            |world| [1, 1, 100].map(|added| adder(world, way, "count", added)).into(),
            |world| {
                let found = world.found(way, &world.session_key).unwrap();
                assert_eq!(found["count"], 102, "{way:?}, {start:?}");
            },
        );
    }
}

#[test]
fn a_deleted_session_stays_deleted_whoever_moves_it() {
    for (way, start) in SETS.into_iter().flat_map(|way| STARTS.map(|start| (way, start))) {
        explore(
            &format!("writers and a logout, {way:?}, {start:?}"),
            || World::new(start, settings()),
            |world| vec![writer(world, way, "a"), logout(world, way), toucher(world, way)],
            check_gone,
        );
        explore(
            &format!("two writers and a logout, {way:?}, {start:?}"),
            || World::new(start, settings()),
            |world| vec![writer(world, way, "a"), writer(world, way, "b"), logout(world, way)],
            check_gone,
        );
        explore(
            &format!("two who overwrite and a logout, {way:?}, {start:?}"),
            || World::new(start, settings()),
            |world| vec![overwriter(world, way), logout(world, way), overwriter(world, way)],
            check_gone,
        );
    }
}

#[test]
fn a_copier_brings_nothing_back_and_overwrites_nothing() {
    for way in SETS {
        explore(
            &format!("a copier and writers, {way:?}"),
            || World::new(Start::Old, settings()),
            |world| vec![writer(world, way, "a"), copier(world), writer(world, way, "b")],
            |world| {
                assert_eq!(world.acknowledged.lock().unwrap().len(), 2);
                check_nothing_lost(world, &[way, Way::Back]);
            },
        );
        explore(
            &format!("a copier and a logout, {way:?}"),
            || World::new(Start::Old, settings()),
            |world| vec![writer(world, way, "a"), copier(world), logout(world, way)],
            check_gone,
        );
        explore(
            &format!("a copier, one who overwrites and a logout, {way:?}"),
            || World::new(Start::Old, settings()),
            |world| vec![overwriter(world, way), copier(world), logout(world, way)],
            check_gone,
        );
        explore(
            &format!("a copier and a login, {way:?}"),
            || World::new(Start::Old, settings()),
            |world| vec![login(world, way), copier(world)],
            |world| check_nothing_lost(world, &[way, Way::Back]),
        );
    }
}

#[test]
fn a_login_takes_along_what_others_write_meanwhile() {
    for (way, start) in SETS.into_iter().flat_map(|way| STARTS.map(|start| (way, start))) {
        explore(
            &format!("a login and a writer, {way:?}, {start:?}"),
            || World::new(start, settings()),
            |world| vec![login(world, way), writer(world, way, "a")],
            |world| check_nothing_lost(world, &[way, Way::Back]),
        );
    }
}

/// While processes are exchanged for ones that move the other way, both are there.
#[test]
fn those_who_move_a_session_forth_and_back_lose_nothing() {
    for start in [Start::Old, Start::New] {
        explore(
            &format!("forth and back, {start:?}"),
            || World::new(start, settings()),
            |world| vec![writer(world, Way::Forth, "a"), writer(world, Way::Back, "b")],
            |world| {
                assert_eq!(world.acknowledged.lock().unwrap().len(), 2);
                check_nothing_lost(world, &[Way::Forth, Way::Back]);
            },
        );
        explore_fairly(
            &format!("visitors, {start:?}"),
            &|| World::new(start, settings()),
            &|world| {
                vec![
                    visitor(world, [Way::Forth, Way::Back], "a"),
                    visitor(world, [Way::Back, Way::Forth], "b"),
                ]
            },
            &|world| check_nothing_lost(world, &[Way::Forth, Way::Back]),
        );
        explore_fairly(
            &format!("forth, back, and readers, {start:?}"),
            &|| World::new(start, settings()),
            &|world| {
                vec![
                    writer(world, Way::Forth, "a"),
                    writer(world, Way::Back, "b"),
                    writer(world, Way::Forth, "c"),
                ]
            },
            &|world| {
                assert_eq!(world.acknowledged.lock().unwrap().len(), 3);
                check_nothing_lost(world, &[Way::Forth, Way::Back]);
            },
        );
        explore(
            &format!("forth, back and a logout, {start:?}"),
            || World::new(start, settings()),
            |world| {
                vec![
                    writer(world, Way::Forth, "a"),
                    writer(world, Way::Back, "b"),
                    logout(world, Way::Forth),
                ]
            },
            check_gone,
        );
    }
}

// One side is down.

/// Whatever fails and when, and whether or not it was done: nobody is logged out, and what was
/// acknowledged is there when the store is back.
#[test]
fn an_outage_of_either_side_is_an_error_and_nobody_is_logged_out() {
    let mut outages = 0;
    for (way, start) in SETS.into_iter().flat_map(|way| STARTS.map(|start| (way, start))) {
        for (side, at) in (0..2).flat_map(|side| (0..8).map(move |at| (side, at))) {
            for fault in [Fault::Away(at), Fault::AnswerLost(at)] {
                for what in ["write", "touch", "login", "look"] {
                    let world = World::new(start, settings());
                    let mut faults = [Fault::None; 2];
                    faults[side] = fault;
                    let session = world.request(world.faulty(way, faults));
                    let done = at_once(async {
                        match what {
                            "write" => {
                                session.insert("a", &1).await?;
                                session.save().await
                            }
                            "touch" => session.touch().await.map(drop),
                            "login" => session.cycle_key().await,
                            _ => session.contains_key("secret").await.map(|there| assert!(there)),
                        }
                    });
                    match &done {
                        Ok(()) if what == "write" => world.acknowledge("a"),
                        Ok(()) if what == "login" => {
                            *world.cycled.lock().unwrap() = at_once(session.session_key());
                        }
                        Ok(()) => {}
                        Err(SessionError::Store(error)) => {
                            assert!(error.is_outage(), "{way:?} {start:?} {what}: {error:?}");
                            outages += 1;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                    // Nobody knows whether a rotation was done that was not answered.
                    let lost = matches!(fault, Fault::AnswerLost(_));
                    if what == "login" && done.is_err() && lost {
                        continue;
                    }
                    // It is back, and another request comes.
                    if world.cycled.lock().unwrap().is_none() {
                        run(vec![writer(&world, way, "b")], |left, _| left[0]);
                        assert!(world.acknowledged.lock().unwrap().contains(&"b"));
                    }
                    check_nothing_lost(&world, &[way, Way::Back]);
                }
            }
        }
    }
    assert!(outages > 100, "{outages}");
}

#[test]
fn a_session_that_nobody_can_look_for_is_an_outage_and_not_missing() {
    let none = Fault::None;
    for (way, faults) in [
        // It is in the old one, which is away; it may be in the new one, which is away.
        (Way::Forth, [Fault::Away(0), none]),
        (Way::Forth, [none, Fault::Away(0)]),
        // The new one goes away before it is asked for the second time.
        (Way::Forth, [none, Fault::Away(1)]),
    ] {
        let world = World::new(Start::Old, settings());
        let key = if faults[1] == Fault::Away(1) {
            SessionKey::generate()
        } else {
            world.session_key.clone()
        };
        let store = world.faulty(way, faults);
        let error = at_once(store.load(&key, now())).unwrap_err();
        assert!(error.is_outage(), "{error:?}");
        let session = Session::new(store, Arc::clone(&world.settings), Some(key.clone()));
        let error = at_once(session.get::<u64>("a")).unwrap_err();
        assert!(matches!(error, SessionError::Store(error) if error.is_outage()));
        assert_eq!(at_once(session.session_key()), Some(key), "the cookie stays");
    }
    // One that is in the new store does not need the old one to be read.
    let world = World::new(Start::New, settings());
    let store = world.faulty(Way::Forth, [Fault::Away(0), none]);
    assert!(at_once(store.load(&world.session_key, now())).unwrap().is_some());
}

#[test]
fn a_logout_while_one_side_is_away_is_heard_of() {
    for (way, side) in SETS.into_iter().flat_map(|way| [(way, 0), (way, 1)]) {
        let world = World::new(Start::Both, settings());
        let mut faults = [Fault::None; 2];
        faults[side] = Fault::Away(0);
        let session = world.request(world.faulty(way, faults));
        at_once(session.flush()).unwrap_err();
        let key = at_once(session.session_key());
        assert!(key.as_ref() == Some(&world.session_key), "it can be tried again");
        at_once(world.request(world.store(way)).flush()).unwrap();
        assert!(world.found(way, &world.session_key).is_none());
    }
}

// A whole move.

/// Each step of `docs/moving.md`, forth and back, with requests before and after each.
#[test]
fn a_move_can_be_undone_after_each_step() {
    let steps = [Way::Back, Way::ForthWritingBoth, Way::Forth];
    // One step after the other, and how far one goes before one goes back.
    for turns in 1..=steps.len() {
        let path: Vec<_> =
            steps[..turns].iter().chain(steps[..turns].iter().rev().skip(1)).copied().collect();
        for moment in 0..path.len() {
            let world = World::new(Start::Old, settings());
            let names = ["0", "1", "2", "3", "4", "5"];
            for (way, name) in path.iter().zip(names) {
                run(vec![writer(&world, *way, name)], |left, _| left[0]);
                let index = names.iter().position(|it| *it == name).unwrap();
                if index == moment {
                    // Who only looks changes nothing.
                    run(vec![reader(&world, *way)], |left, _| left[0]);
                }
                check_nothing_lost(&world, &[Way::Forth, Way::ForthWritingBoth, Way::Back]);
            }
            // Back where it was: the old store has all of it, the new one none.
            let found = at_once(world.old.load(&world.session_key, now())).unwrap().unwrap();
            for name in &names[..path.len()] {
                assert!(found.data.contains_key(name), "{path:?}: {name}");
            }
        }
    }
}

/// While both are written, programs that know nothing of the move read each session as it is.
#[test]
fn the_old_store_has_every_session_as_it_is_if_both_are_written() {
    for start in [Start::Old, Start::Both] {
        let world = World::new(start, settings());
        for name in ["a", "b"] {
            run(vec![writer(&world, Way::ForthWritingBoth, name)], |left, _| left[0]);
            let read = at_once(world.old.load(&world.session_key, now())).unwrap().unwrap();
            assert!(read.data.contains_key(name), "{start:?}");
        }
        run(vec![login(&world, Way::ForthWritingBoth)], |left, _| left[0]);
        let cycled = world.cycled.lock().unwrap().clone().unwrap();
        assert!(at_once(world.old.load(&cycled, now())).unwrap().is_some());
        assert!(!at_once(world.old.exists(&world.session_key)).unwrap());
        let session = Session::new(
            world.store(Way::ForthWritingBoth),
            Arc::clone(&world.settings),
            Some(cycled.clone()),
        );
        at_once(session.flush()).unwrap();
        assert!(!at_once(world.old.exists(&cycled)).unwrap());
    }
}

/// A copy that lived longer would be the session once the other one has expired.
#[test]
fn a_copy_ends_with_its_session() {
    for way in SETS {
        let world = World::new(Start::Both, settings());
        let store = world.store(way);
        let loaded = at_once(store.load(&world.session_key, now())).unwrap().unwrap();
        let soon = now().checked_add(SignedDuration::from_mins(1)).unwrap();
        at_once(store.touch(&SessionRecord { expire_date: soon, ..loaded.clone() })).unwrap();
        assert_eq!(world.old.row(&world.session_key).unwrap().1, soon);
        let sooner = now().checked_add(SignedDuration::from_secs(30)).unwrap();
        let loaded = at_once(store.load(&world.session_key, now())).unwrap().unwrap();
        at_once(store.save(&SessionRecord { expire_date: sooner, ..loaded })).unwrap();
        assert_eq!(world.old.row(&world.session_key).unwrap().1, sooner);
        assert!(at_once(store.load(&world.session_key, soon)).unwrap().is_none());
    }
}

#[test]
fn what_nobody_can_read_is_replaced_wherever_it_is() {
    for (way, start) in SETS.into_iter().flat_map(|way| STARTS.map(|start| (way, start))) {
        for broken in ["old", "new"] {
            let world = World::new(start, settings());
            let expire_date = now().checked_add(SignedDuration::from_hours(1)).unwrap();
            let store = if broken == "old" { &world.old } else { &world.new };
            if store.row(&world.session_key).is_none() {
                continue;
            }
            store.insert_row(world.session_key.clone(), "broken", expire_date);
            run(vec![writer(&world, way, "a")], |left, _| left[0]);
            assert_eq!(world.acknowledged.lock().unwrap().len(), 1);
            let found = world.found(way, &world.session_key).unwrap();
            assert!(found.contains_key("a"), "{way:?} {start:?} {broken}");
            if let Some((row, _)) = world.old.row(&world.session_key) {
                assert_ne!(row, "broken");
            }
        }
    }
}

/// `OnConflict::Error` and `Overwrite` mean what they mean elsewhere.
#[test]
fn rules_for_conflicts_hold_while_a_session_moves() {
    for (way, start) in SETS.into_iter().flat_map(|way| STARTS.map(|start| (way, start))) {
        for on_conflict in [OnConflict::Error, OnConflict::Overwrite] {
            let mut with_rule = settings();
            with_rule.on_conflict = on_conflict.clone();
            let world = World::new(start, with_rule);
            let [one, other] = [0, 1].map(|_| world.request(world.store(way)));
            for session in [&one, &other] {
                at_once(session.get::<u64>("a")).unwrap();
            }
            // Twice, since the first one moves it.
            for number in 0..2 {
                at_once(one.insert("a", &number)).unwrap();
                at_once(one.save()).unwrap();
            }
            at_once(other.insert("b", &2)).unwrap();
            let saved = at_once(other.save());
            let found = world.found(way, &world.session_key).unwrap();
            if matches!(on_conflict, OnConflict::Error) {
                assert!(matches!(saved, Err(SessionError::Store(StoreError::Conflict))));
                assert!(found.contains_key("a") && !found.contains_key("b"));
            } else {
                saved.unwrap();
                assert!(found.contains_key("b") && !found.contains_key("a"), "{way:?} {start:?}");
            }
        }
    }
}

// What it costs.

#[test]
fn each_step_is_few() {
    let count = |way, start, what: &str| {
        let world = World::new(start, settings());
        let (old, new) =
            (Stepped::new(&world.old, Fault::None), Stepped::new(&world.new, Fault::None));
        let store = MovingStore::new(old.clone(), new.clone())
            .with_write_both(way == Way::ForthWritingBoth);
        let key = world.session_key.clone();
        let loaded = at_once(store.load(&key, now())).unwrap().unwrap();
        let steps = || [&old, &new].map(|store| store.steps.load(Ordering::SeqCst));
        let before = steps();
        at_once(async {
            match what {
                "load" => drop(store.load(&key, now()).await.unwrap().unwrap()),
                "miss" => {
                    let missing = store.load(&SessionKey::generate(), now()).await.unwrap();
                    assert!(missing.is_none());
                }
                "create" => drop(store.create(&record(now())).await.unwrap()),
                "save" => drop(store.save(&loaded).await.unwrap()),
                "touch" => drop(store.touch(&loaded).await.unwrap()),
                "delete" => store.delete(&key).await.unwrap(),
                "cycle" => {
                    let new = SessionKey::generate();
                    let record = SessionRecord { session_key: new, ..loaded.clone() };
                    store.cycle_key(&key, &record).await.unwrap();
                }
                _ => unreachable!(),
            }
        });
        let after = steps();
        [after[0] - before[0], after[1] - before[1]]
    };
    // Of the old one, of the new one.
    for (way, start, what, expected) in [
        (Way::Forth, Start::New, "load", [0, 1]),
        (Way::Forth, Start::Both, "load", [0, 1]),
        (Way::Forth, Start::Old, "load", [1, 1]),
        (Way::Forth, Start::New, "miss", [3, 3]),
        (Way::Forth, Start::New, "create", [1, 1]),
        (Way::Forth, Start::New, "save", [1, 1]),
        (Way::Forth, Start::Old, "save", [1, 2]),
        (Way::Forth, Start::Both, "save", [2, 1]),
        (Way::Forth, Start::New, "touch", [1, 1]),
        (Way::Forth, Start::New, "delete", [2, 2]),
        (Way::Forth, Start::New, "cycle", [2, 1]),
        (Way::ForthWritingBoth, Start::Both, "load", [0, 1]),
        (Way::ForthWritingBoth, Start::New, "create", [1, 1]),
        (Way::ForthWritingBoth, Start::Both, "save", [2, 1]),
        (Way::ForthWritingBoth, Start::Old, "save", [1, 2]),
        (Way::ForthWritingBoth, Start::New, "save", [1, 1]),
    ] {
        assert_eq!(count(way, start, what), expected, "{way:?} {start:?} {what}");
    }
}

// On servers.

/// Half of the requests move a session forth, half back, all at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_of_both_directions_lose_nothing_on_servers() {
    for place in Place::all().await {
        let Some(redis) = redis() else { return };
        let db = place.store().await;
        let settings = Arc::new(settings());
        let session = Session::new(Arc::new(db.clone()), Arc::clone(&settings), None);
        session.save().await.unwrap();
        let session_key = session.session_key().await.unwrap();
        let forth: Arc<dyn SessionStore> = Arc::new(MovingStore::new(db.clone(), redis.clone()));
        let back: Arc<dyn SessionStore> = Arc::new(MovingStore::new(redis, db));
        let half = lost_updates::WORKERS / 2;
        tokio::join!(
            lost_updates::count_up(&forth, &settings, &session_key, 0..half),
            lost_updates::count_up(&back, &settings, &session_key, half..lost_updates::WORKERS),
        );
        for store in [forth, back] {
            let key = Some(session_key.clone());
            let session = Session::new(store, Arc::clone(&settings), key);
            for worker in 0..lost_updates::WORKERS {
                let counted: u64 =
                    session.get(&lost_updates::name(worker)).await.unwrap().unwrap_or(0);
                assert_eq!(counted, lost_updates::rounds(), "{:?}", place.kind);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing_on_servers() {
    for place in Place::all().await {
        for write_both in [false, true] {
            let Some(redis) = redis() else { return };
            let store = MovingStore::new(place.store().await, redis).with_write_both(write_both);
            let name = format!("MovingStore, {:?} to Redis, both: {write_both}", place.kind);
            lost_updates::check(&name, Arc::new(store), &settings()).await;
        }
    }
}

// Addresses.

fn escaped(url: &str) -> String {
    url.replace('%', "%25").replace('&', "%26").replace('=', "%3D").replace('?', "%3F")
}

#[tokio::test]
async fn an_address_names_both_stores() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [one, other] = [one, other].map(|directory| {
        let url = format!("file://{}?sync=false", directory.path().display());
        (directory, url)
    });
    let settings = Arc::new(settings());
    let old = connect(&one.1, &settings).await.unwrap();
    let session = Session::new(old.clone(), Arc::clone(&settings), None);
    session.insert("tea", &1).await.unwrap();
    session.save().await.unwrap();
    let key = session.session_key().await.unwrap();
    let moving = |write: &str| {
        format!("moving:?from_url={}&to_url={}{write}", escaped(&one.1), escaped(&other.1))
    };
    for (write, left) in [("&write=both", true), ("&write=new", false), ("", false)] {
        let store = connect(&moving(write), &settings).await.unwrap();
        assert!(format!("{store:?}").starts_with("MovingStore"));
        let session = Session::new(store, Arc::clone(&settings), Some(key.clone()));
        assert_eq!(session.get::<i32>("tea").await.unwrap(), Some(1));
        session.insert("milk", &write).await.unwrap();
        session.save().await.unwrap();
        let there = connect(&other.1, &settings).await.unwrap();
        assert!(there.exists(&key).await.unwrap());
        if left {
            assert!(old.load(&key, now()).await.unwrap().unwrap().data.contains_key("milk"));
        }
        // As it was before.
        there.delete(&key).await.unwrap();
        old.delete(&key).await.unwrap();
        let mut record = record(now());
        record.session_key = key.clone();
        Arc::make_mut(&mut record.data).insert("tea", &1).unwrap();
        old.create(&record).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_that_is_no_move_is_refused() {
    for (url, message) in [
        ("moving:", "the address must begin with a scheme"),
        ("moving:?from_url=memory%3A", "the address must begin with a scheme"),
        ("moving://h?from_url=memory%3A&to_url=memory%3A", "the address must be `moving:`"),
        (
            "moving:?from_url=memory%3A&to_url=memory%3A&write=old",
            "the option `write` of the address must be `new` or `both`",
        ),
        (
            "moving:?from_url=signed_cookies%3A&to_url=memory%3A",
            "the option `from_url` of the address must be the address of a store that keeps",
        ),
        (
            "moving:?from_url=memory%3A&to_url=moving%3A",
            "the option `to_url` of the address must be the address of a store that keeps",
        ),
        (
            "moving:?from_url=redis%3A//h&to_url=redis%3A//h",
            "the option `to_url` of the address must be another address than `from_url`",
        ),
        (
            "moving:?form_url=memory%3A",
            "an option of the address is unknown; did you mean `from_url`",
        ),
    ] {
        let error = connect(url, &settings()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Url(_)), "{url}: {error:?}");
        assert!(error.to_string().starts_with(message), "{url}: {error}");
    }
    let error =
        connect("moving:?from_url=hunter2&to_url=memory%3A", &settings()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Url(UrlError::NoScheme)), "{error:?}");
    assert!(connect("moving:?from_url=memory%3A&to_url=memory%3A", &settings()).await.is_ok());
}

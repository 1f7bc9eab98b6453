//! A running Django with its `cached_db` engine and this store, on one table and one cache: thousands of
//! steps, at random by one or the other, against a model of both.
//!
//! After each step the copy in the cache is looked at past both of them, and each reads the session.
//! `DIFFERENTIAL_SEED` starts another walk, `DIFFERENTIAL_STEPS` sets its length.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use django_session::session::OnConflict;
use django_session::store::CachedDbStore;
use django_session::{Session, SessionKey, SessionStore as _};
use serde_json::{Map, Value, json};

use super::site::{Before, Site};
use crate::differential::Random;
use crate::lost_updates;
use crate::sides::{Django, Ours, changed, choose, name, text, value};
use crate::stores::{Kind, now, settings};

const STEPS: usize = 3_000;
/// What both take for a session that says nothing of its age.
const COOKIE_AGE: i64 = 1_209_600;
const NOBODY: &str = "nobody-ever-had-this-key-00000000";

/// What is in the cache of a session. If there is a copy, it is what the row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    Absent,
    /// Whether it could be renewed depends on bytes that the model does not know.
    Maybe,
    Present,
}

struct Stored {
    data: Map<String, Value>,
    /// The row stays when it has expired.
    expired: bool,
    copy: Copy,
}

impl Stored {
    fn age(&self) -> i64 {
        self.data.get("_session_expiry").map_or(COOKIE_AGE, |age| age.as_i64().unwrap())
    }

    /// What becomes of it when it is saved.
    fn saved(&mut self) {
        self.expired = self.age() <= 1;
        self.copy = if self.expired { Copy::Absent } else { Copy::Present };
    }
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<String, Stored>,
    gone: Vec<String>,
}

impl Model {
    /// The session, if anybody can load it.
    fn live(&mut self, key: &str) -> Option<&mut Stored> {
        self.rows.get_mut(key).filter(|stored| !stored.expired)
    }

    /// Does the step, and says what the answer has to be; of a new key anything.
    fn step(&mut self, step: &Value, answer: &Value) -> Value {
        let key = text(step, "key");
        match text(step, "step") {
            "create" => {
                let mut data = Map::new();
                changed(&mut data, step);
                self.create(data, answer)
            }
            "load" => self.live(key).map_or(Value::Null, |stored| {
                stored.copy = Copy::Present;
                stored.data.clone().into()
            }),
            kind @ ("save" | "touch") => json!(self.live(key).is_some_and(|stored| {
                if kind == "save" {
                    changed(&mut stored.data, step);
                }
                stored.saved();
                true
            })),
            "exists" => json!(self.rows.contains_key(key)),
            "cycle" => match self.live(key) {
                Some(stored) => {
                    let data = stored.data.clone();
                    self.delete(key);
                    self.create(data, answer)
                }
                None => Value::Null,
            },
            "clear_expired" => {
                let expired = self.rows.iter().filter(|(_, stored)| stored.expired);
                let expired: Vec<_> = expired.map(|(key, _)| key.clone()).collect();
                for key in expired {
                    self.delete(&key);
                }
                Value::Null
            }
            _ => {
                self.delete(key);
                Value::Null
            }
        }
    }

    fn create(&mut self, data: Map<String, Value>, answer: &Value) -> Value {
        let mut stored = Stored { data, expired: false, copy: Copy::Absent };
        stored.saved();
        let key = answer.as_str().expect("a key").to_owned();
        assert!(self.rows.insert(key, stored).is_none(), "the key is new");
        answer.clone()
    }

    fn delete(&mut self, key: &str) {
        self.rows.remove(key);
        self.gone.push(key.to_owned());
    }
}

const KINDS: [&str; 24] = [
    "create",
    "create",
    "save",
    "save",
    "save",
    "save",
    "save",
    "save",
    "save",
    "save and end",
    "load",
    "load",
    "load",
    "touch",
    "touch",
    "touch",
    "cycle",
    "cycle",
    "delete",
    "flush",
    "exists",
    "exists",
    "clear_expired",
    "save for a second",
];

/// What somebody may do next.
fn next(random: &mut Random, model: &mut Model) -> Value {
    let there: Vec<_> = model.rows.keys().cloned().collect();
    // Enough to choose from, and sometimes one that is not there any more, or never was.
    let mut kind = if there.len() < 5 { "create" } else { *choose(random, &KINDS) };
    if kind == "save for a second" && random.below(12) > 0 {
        // It takes its time.
        kind = "load";
    }
    let key = match random.below(10) {
        0 if !model.gone.is_empty() => choose(random, &model.gone).clone(),
        1 if kind != "create" => NOBODY.to_owned(),
        _ if there.is_empty() => String::new(),
        _ => choose(random, &there).clone(),
    };
    if kind == "cycle" && model.live(&key).is_none() {
        // Without a session to move, both make an empty one.
        kind = "load";
    }
    let data: Map<_, _> = (0..random.below(4)).map(|_| (name(random), value(random, 3))).collect();
    let age = match kind {
        "save and end" => Some(-5),
        "save for a second" => Some(1),
        _ => *choose(random, &[None, None, Some(3600), Some(1_000_000)]),
    };
    match kind {
        "create" => {
            let age = if random.below(20) == 0 { Some(-5) } else { age };
            json!({"step": "create", "data": data, "age": age})
        }
        _ if kind.starts_with("save") => {
            let remove: Vec<_> = (0..random.below(3)).map(|_| name(random)).collect();
            json!({"step": "save", "key": key, "data": data, "remove": remove, "age": age})
        }
        "clear_expired" => json!({"step": "clear_expired"}),
        kind => json!({"step": kind, "key": key}),
    }
}

struct Walk {
    site: Site,
    store: CachedDbStore,
    django: Django,
    ours: Ours,
    model: Model,
    random: Random,
    place: String,
}

impl Walk {
    async fn take(&mut self, by_django: bool, step: &Value) -> Value {
        if by_django { self.django.step(step) } else { self.ours.step(step).await }
    }

    /// The copy, past everybody.
    async fn check_copy(&self, key: &str) {
        let found = self.site.copy(key).await;
        let at = &self.place;
        match (self.model.rows.get(key), &found) {
            (None, found) => assert!(found.is_none(), "{at}: a dead copy of {key}"),
            (Some(Stored { copy: Copy::Absent, .. }), found) => {
                assert!(found.is_none(), "{at}: a copy of {key}");
            }
            (Some(Stored { copy: Copy::Maybe, .. }), None) => {}
            (Some(stored), found) => {
                let (data, left) =
                    found.as_ref().unwrap_or_else(|| panic!("{at}: no copy of {key}"));
                assert_eq!(*data, stored.data, "{at}: the copy");
                assert!(*left <= stored.age() + 2, "{at}: it outlives its row, {left}");
            }
        }
    }

    /// What each of them reads, the one before the other.
    async fn check_reads(&mut self, key: &str) {
        let load = json!({"step": "load", "key": key});
        let first = self.random.below(2) == 0;
        for by_django in [first, !first] {
            let found = self.take(by_django, &load).await;
            let expected = self.model.step(&load, &found);
            assert_eq!(found, expected, "{}: then Django ({by_django}) reads", self.place);
            self.check_copy(key).await;
        }
    }

    /// That both ends are where the step has put them.
    async fn check_ends(&self, key: &str) {
        let Some(stored) = self.model.rows.get(key).filter(|stored| !stored.expired) else {
            return;
        };
        let session_key = SessionKey::parse(key).unwrap();
        let row = self.store.db().load(&session_key, now()).await.unwrap().unwrap();
        let in_row = row.expire_date.since(now()).unwrap().as_secs();
        let in_cache = self.site.copy(key).await.map_or(in_row, |(_, left)| left);
        for left in [in_row, in_cache] {
            assert!(
                (stored.age() - 600..=stored.age() + 2).contains(&left),
                "{}: {left}",
                self.place
            );
        }
    }

    async fn check_all(&mut self) {
        let mut rows = self.site.place.select("SELECT session_key FROM {table}").await;
        rows.sort();
        let expected: Vec<_> = self.model.rows.keys().cloned().collect();
        assert_eq!(rows, expected, "{}: rows", self.place);
        for key in expected.iter().chain(&self.model.gone) {
            self.check_copy(key).await;
        }
    }

    /// A step of one of them, of which the other one may have read the session before, to write it after.
    async fn step(&mut self, number: usize, name: &str) {
        let by_django = self.random.below(2) == 0;
        let step = next(&mut self.random, &mut self.model);
        let who = if by_django { "Django" } else { "ours" };
        self.place = format!("{name}, step {number}, {who}: {step}");
        let key = text(&step, "key").to_owned();
        if self.random.below(4) == 0 {
            let by_time = self.random.below(2) == 0;
            // One copy is dropped, or all of them.
            let all = self.random.below(10) == 0;
            for (other, stored) in &mut self.model.rows {
                if all || *other == key {
                    self.site.drop_copy(other, by_time).await;
                    stored.copy = Copy::Absent;
                }
            }
        }
        let held = self.random.below(8) == 0 && self.model.live(&key).is_some();
        let mut before = None;
        if held {
            let found = self.take(!by_django, &json!({"step": "hold", "key": key})).await;
            assert_eq!(found, json!(true), "{}", self.place);
            let stored = self.model.live(&key).unwrap();
            stored.copy = Copy::Present;
            before = Some(stored.data.clone());
        } else if text(&step, "step") == "touch" && self.model.live(&key).is_some() {
            self.site.age(&self.store, &key).await;
        }

        let answer = self.take(by_django, &step).await;
        let expected = self.model.step(&step, &answer);
        // While somebody holds it, it is not old enough.
        let may_be_young = held && text(&step, "step") == "touch" && !by_django;
        assert!(answer == expected || may_be_young, "{}: {answer} for {expected}", self.place);
        if step["age"] == 1 && expected == json!(true) {
            // Seconds of memcached's clock.
            tokio::time::sleep(Duration::from_millis(2_700)).await;
        }
        let written = match text(&step, "step") {
            "create" | "cycle" => answer.as_str().unwrap().to_owned(),
            "save" | "touch" => key.clone(),
            _ => String::new(),
        };
        self.check_copy(&key).await;
        self.check_ends(&written).await;
        if let Some(before) = before {
            self.late(!by_django, &key, before).await;
        }
        for key in [&key, &written] {
            if !key.is_empty() {
                self.check_reads(key).await;
            }
        }
    }

    /// Saves what was read before somebody else's step.
    async fn late(&mut self, by_django: bool, key: &str, before: Map<String, Value>) {
        if self.random.below(4) == 0
            && let Some(stored) = self.model.rows.get_mut(key)
        {
            self.site.drop_copy(key, false).await;
            stored.copy = Copy::Absent;
        }
        let random = &mut self.random;
        let late = json!({"step": "late", "data": {name(random): value(random, 2)}});
        let saved = self.take(by_django, &late).await;
        self.place = format!("{}, then late: {late}", self.place);
        let stored = self.model.rows.get_mut(key);
        // Django writes all that it has read, and what it finds is there again, if only it has a row. Of
        // what has expired this store says that it is gone.
        let stored = stored.filter(|stored| by_django || !stored.expired);
        assert_eq!(saved, json!(stored.is_some()), "{}", self.place);
        if let Some(stored) = stored {
            if by_django {
                stored.data = before;
            }
            changed(&mut stored.data, &late);
            stored.saved();
            if !by_django {
                stored.copy = Copy::Maybe;
            }
        }
        self.check_copy(key).await;
        self.check_ends(key).await;
    }
}

async fn walk(kind: Kind, before: Before) {
    let Some(site) = Site::new(kind, before).await else { return };
    let Some(django) = site.django().map(Django) else { return };
    let store = site.store().await;
    let ours = Ours::new(Arc::new(store.clone()), settings());
    let (model, random) = (Model::default(), Random::new());
    let mut walk = Walk { site, store, django, ours, model, random, place: String::new() };
    let name = format!("{kind:?} and {before:?}");
    let steps = std::env::var("DIFFERENTIAL_STEPS").ok().and_then(|steps| steps.parse().ok());
    for number in 0..steps.unwrap_or(STEPS) {
        walk.step(number, &name).await;
        if number % 100 == 0 {
            walk.check_all().await;
        }
    }
    walk.check_all().await;
    let keys: Vec<_> = walk.model.rows.keys().chain(&walk.model.gone).cloned().collect();
    for key in keys {
        walk.check_reads(&key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_and_redis() {
    walk(Kind::Sqlite, Before::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_and_redis() {
    walk(Kind::Postgres, Before::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_and_redis() {
    walk(Kind::MySql, Before::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_and_memcached() {
    walk(Kind::Postgres, Before::PyMemcache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_and_django_redis() {
    walk(Kind::MySql, Before::DjangoRedis).await;
}

/// What stock Django does, and what there is to be done about it: a Django that has read the row and not
/// yet written its copy brings a session back that somebody has logged out of meanwhile, another Django or
/// this store. It is read by everybody, until somebody saves it by way of this store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_django_that_races_a_logout_brings_the_session_back() {
    for before in [Before::Redis, Before::PyMemcache] {
        let Some(site) = Site::new(Kind::Postgres, before).await else { return };
        let (Some(mut reader), Some(other)) = (site.django(), site.django()) else { return };
        let (store, mut other) = (site.store().await, Django(other));
        let mut ours = Ours::new(Arc::new(store.clone()), settings());
        for by_django in [true, false] {
            let created = other.step(&json!({"step": "create", "data": {"_auth_user_id": "1"}}));
            let key = created.as_str().unwrap();
            site.drop_copy(key, false).await;
            let paused = reader.ask(&json!({"op": "load and pause", "key": key}));
            assert_eq!(paused, json!({"paused": true}));
            let flush = json!({"step": "flush", "key": key});
            if by_django {
                other.step(&flush)
            } else {
                ours.step(&flush).await
            };
            assert_eq!(reader.ask(&json!({}))["key"], key);

            // The row is gone, and the session there.
            assert!(site.place.select("SELECT session_key FROM {table}").await.is_empty());
            let load = json!({"step": "load", "key": key});
            let expected = json!({"_auth_user_id": "1"});
            assert_eq!(other.step(&load), expected);
            assert_eq!(ours.step(&load).await, expected);
            // A save is refused by both, which Django leaves at that.
            other.step(&json!({"step": "hold", "key": key}));
            assert_eq!(other.step(&json!({"step": "late", "data": {}})), json!(false));
            assert_eq!(other.step(&load), expected);
            ours.step(&json!({"step": "hold", "key": key})).await;
            assert_eq!(ours.step(&json!({"step": "late", "data": {}})).await, json!(false));
            assert_eq!(other.step(&load), Value::Null);
            assert_eq!(ours.step(&load).await, Value::Null);
        }
    }
}

/// A pickle has what JSON has not: Django reads one thing from the copy and another one from the row. Here
/// they are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_json_does_not_have_is_no_difference_between_copy_and_row() {
    for before in [Before::Redis, Before::PyMemcache] {
        let Some(site) = Site::new(Kind::Postgres, before).await else { return };
        let Some(mut django) = site.django() else { return };
        let store = site.store().await;
        let literal = "{'pair': (1, 2), 'by number': {1: 'a'}, 'f': 1.0}";
        let create = json!({"op": "create", "data": {}, "literal": literal});
        let created = django.ask(&create);
        let key = created["key"].as_str().unwrap();
        let ask = json!({"op": "repr", "key": key});
        assert_eq!(django.ask(&ask)["found"], literal, "from the copy");
        let session_key = SessionKey::parse(key).unwrap();
        let mut settings = settings();
        settings.on_conflict = OnConflict::Error;
        let settings = Arc::new(settings);
        let request = || {
            let key = Some(session_key.clone());
            Session::new(Arc::new(store.clone()), Arc::clone(&settings), key)
        };
        let json = r#"{"pair":[1,2],"by number":{"1":"a"},"f":1.0}"#;
        let session = request();
        assert_eq!(session.data().await.unwrap().to_json().unwrap(), json);
        // Nobody has changed anything.
        session.insert("more", &1).await.unwrap();
        session.save().await.unwrap();

        site.drop_copy(key, false).await;
        let from_row = "{'pair': [1, 2], 'by number': {'1': 'a'}, 'f': 1.0, 'more': 1}";
        assert_eq!(django.ask(&ask)["found"], from_row);
        assert_eq!(
            request().data().await.unwrap().to_json().unwrap()[..json.len() - 1],
            json[..json.len() - 1]
        );
    }
}

/// Half of the workers are threads of a Django, on the same table and the same Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_django_beside_us_loses_changes() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(site) = Site::new(kind, Before::Redis).await else { return };
        let (name, store) = (format!("CachedDbStore, {kind:?} and Redis"), site.store().await);
        let django = || site.django();
        lost_updates::show_beside_django(&name, Arc::new(store), &settings(), django).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing() {
    for (kind, before) in [
        (Kind::Sqlite, Before::Redis),
        (Kind::Postgres, Before::Redis),
        (Kind::MySql, Before::Redis),
        (Kind::Postgres, Before::PyMemcache),
    ] {
        let Some(site) = Site::new(kind, before).await else { continue };
        let name = format!("CachedDbStore, {kind:?} and {before:?}");
        lost_updates::check(&name, Arc::new(site.store().await), &settings()).await;
    }
}

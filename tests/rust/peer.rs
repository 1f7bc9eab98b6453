//! Random steps of an installed Django and of ours on the sessions of one store.

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};
use std::sync::Arc;

use django_session::session::{Revision, SessionRecord};
use django_session::{DateTime, SessionData, SessionKey, SessionStore};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use crate::differential::{Engine, Random};

/// Whether the interpreter beside which Django is installed has a module, which not every one has.
pub(crate) fn has_module(name: &str) -> bool {
    let Some(python) = std::env::var_os("TEST_PYTHON") else { return false };
    let mut import = Command::new(python);
    import.args(["-c", &format!("import {name}")]).stderr(Stdio::null());
    import.status().is_ok_and(|status| status.success())
}

/// Whether there is pylibmc, which comes as a wheel for some versions of Python only. For those it has to
/// be there in CI.
pub(crate) fn has_pylibmc() -> bool {
    let found = has_module("pylibmc");
    if !found {
        let message = "NOT TESTED against pylibmc, which is not installed beside Django";
        // Which is there up to the last version with a wheel.
        let is_expected = cfg!(target_os = "linux") && has_module("asynchat");
        assert!(!is_expected || std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
    }
    found
}

fn random_text(random: &mut Random) -> String {
    let length = [0, 1, 5, 40, 2000][random.below(5)];
    let letters = ['a', 'Z', ' ', '"', '\\', '\r', '\n', '\0', 'é', '世', '\u{1F600}', '%'];
    (0..length).map(|_| letters[random.below(letters.len())]).collect()
}

/// What should be stored under a key.
struct Model {
    data: Map<String, Value>,
    /// Which step wrote it.
    version: usize,
}

/// What one of ours remembers of a load or a save.
struct Held {
    revision: Option<Revision>,
    version: usize,
}

/// What a step is about.
struct Step {
    number: usize,
    session_key: SessionKey,
    data: Map<String, Value>,
    /// In seconds; less than none for one that ends at once.
    age: i64,
    /// For the messages.
    place: String,
}

struct Walk<'a> {
    store: &'a dyn SessionStore,
    django: &'a mut Engine,
    now: &'a dyn Fn() -> DateTime,
    model: HashMap<SessionKey, Model>,
    held: HashMap<SessionKey, Held>,
    keys: Vec<SessionKey>,
}

const STEPS: [&str; 15] = [
    "create",
    "create by Django",
    "load",
    "load by Django",
    "load by Django",
    "save",
    "save a revision",
    "save a revision",
    "save by Django",
    "touch",
    "delete",
    "delete a revision",
    "delete by Django",
    "exists",
    "exists by Django",
];

/// Lets Django and our store take random steps on the same sessions, and compares what each sees with
/// what should be there.
pub(crate) async fn interleave(
    store: &dyn SessionStore,
    django: &mut Engine,
    now: &dyn Fn() -> DateTime,
    expired_stay: bool,
    steps: usize,
) {
    let mut random = Random::new();
    let keys = vec![SessionKey::generate()];
    let mut walk = Walk { store, django, now, model: HashMap::new(), held: HashMap::new(), keys };
    let mut taken = HashSet::new();
    for number in 0..steps {
        // Half of the steps are on the session that was created last.
        let (last, any) = (walk.keys.len() - 1, random.below(walk.keys.len()));
        let kind = STEPS[random.below(STEPS.len())];
        let step = Step {
            number,
            session_key: walk.keys[if random.below(2) == 0 { last } else { any }].clone(),
            data: [
                ("step".to_owned(), number.into()),
                ("text".to_owned(), random_text(&mut random).into()),
            ]
            .into_iter()
            .collect(),
            // Beyond a month memcached keeps another kind of time.
            // What has expired in a table is still there, which is another story.
            age: [600, 86_400 * 14, 86_400 * 40, -5]
                [random.below(if expired_stay { 3 } else { 4 })],
            place: format!("step {number}, {kind}"),
        };
        taken.insert(kind);
        if kind.ends_with("by Django") {
            walk.theirs(kind, step);
        } else {
            walk.ours(kind, step).await;
        }
    }
    for (key, model) in &walk.model {
        let loaded = store.load(key, now()).await.unwrap();
        assert_eq!(loaded.as_ref().map(shown), Some(stored(model)), "in the end");
    }
    assert!(steps < 500 || taken.len() == 13, "every kind of step was taken: {taken:?}");
}

impl Walk<'_> {
    fn theirs(&mut self, kind: &str, step: Step) {
        let Step { session_key, data, age, place, .. } = &step;
        let key = session_key.as_str();
        let is_there = self.model.contains_key(session_key);
        match kind {
            "create by Django" => {
                let age = 600.max(*age);
                let data = with_expiry(data, age);
                let answer = self.django.ask(&json!({"op": "create", "data": data}));
                let key = answer["key"].as_str().and_then(SessionKey::parse);
                let session_key = key.unwrap_or_else(|| panic!("{place}: {answer}"));
                self.keys.push(session_key.clone());
                self.put(Step { session_key, age, ..step });
            }
            "load by Django" => {
                let answer = self.django.ask(&json!({"op": "load", "key": key}));
                // A session that is not there has no key any more.
                let found = answer["key"].as_str().map(|_| without_expiry(answer["json"].as_str()));
                assert_eq!(found, self.model.get(session_key).map(stored), "{place}");
            }
            "save by Django" => {
                let data = with_expiry(data, *age);
                let request = json!({"op": "replace", "key": key, "data": data});
                let answer = self.django.ask(&request);
                if is_there {
                    assert_eq!(answer["key"], key, "{place}");
                    self.put(step);
                } else {
                    assert_eq!(answer["raised"], "UpdateError", "{place}");
                }
            }
            "delete by Django" => {
                let answer = self.django.ask(&json!({"op": "delete", "key": key}));
                assert!(answer.get("raised").is_none(), "{place}: {answer}");
                self.model.remove(session_key);
            }
            _ => {
                let answer = self.django.ask(&json!({"op": "exists", "key": key}));
                assert_eq!(answer["found"], is_there, "{place}");
            }
        }
    }

    async fn ours(&mut self, kind: &str, step: Step) {
        let (key, place) = (&step.session_key, &step.place);
        let is_there = self.model.contains_key(key);
        match kind {
            "create" => {
                let session_key = SessionKey::generate();
                let step = Step { session_key: session_key.clone(), ..step };
                let created = self.store.create(&self.record(&step, None)).await.unwrap();
                self.keys.push(session_key);
                self.hold(&step, created.revision);
                self.put(step);
            }
            "load" => {
                let loaded = self.store.load(key, (self.now)()).await.unwrap();
                let model = self.model.get(key);
                assert_eq!(loaded.as_ref().map(shown), model.map(stored), "{place}");
                if let (Some(loaded), Some(Model { version, .. })) = (loaded, model) {
                    let held = Held { revision: loaded.revision, version: *version };
                    self.held.insert(key.clone(), held);
                }
            }
            "save" => match self.store.save(&self.record(&step, None)).await {
                Ok(_) if is_there => self.put(step),
                Err(error) if error.is_update() && !is_there => {}
                other => panic!("{place}: {other:?}, there: {is_there}"),
            },
            "touch" => match self.store.touch(&self.record(&step, None)).await {
                Ok(_) if is_there && step.age > 0 => {}
                Ok(_) if is_there => drop(self.model.remove(key)),
                Err(error) if error.is_update() && !is_there => {}
                other => panic!("{place}: {other:?}, there: {is_there}"),
            },
            "delete" => {
                self.store.delete(key).await.unwrap();
                self.model.remove(key);
            }
            "exists" => assert_eq!(self.store.exists(key).await.unwrap(), is_there, "{place}"),
            _ => self.with_revision(kind, step).await,
        }
    }

    async fn with_revision(&mut self, kind: &str, step: Step) {
        let (key, place) = (&step.session_key, &step.place);
        let Some(Held { revision, version }) = self.held.get(key) else { return };
        let is_current = self.model.get(key).is_some_and(|model| model.version == *version);
        let revision = revision.clone().unwrap_or_else(|| panic!("{place}: no revision"));
        if kind == "delete a revision" {
            match self.store.delete_revision(key, &revision).await {
                Ok(()) if is_current => drop(self.model.remove(key)),
                Err(error) if error.is_conflict() && !is_current => {}
                other => panic!("{place}: {other:?}, current: {is_current}"),
            }
            return;
        }
        match self.store.save(&self.record(&step, Some(revision))).await {
            Ok(saved) if is_current => {
                self.hold(&step, saved.revision);
                self.put(step);
            }
            Err(error) if error.is_conflict() && !is_current => {}
            other => panic!("{place}: {other:?}, current: {is_current}"),
        }
    }

    fn record(&self, step: &Step, revision: Option<Revision>) -> SessionRecord {
        let json = Value::from(step.data.clone()).to_string();
        SessionRecord {
            session_key: step.session_key.clone(),
            data: Arc::new(SessionData::from_json(&json).unwrap()),
            expire_date: (self.now)().checked_add(SignedDuration::from_secs(step.age)).unwrap(),
            revision,
        }
    }

    fn hold(&mut self, step: &Step, revision: Option<Revision>) {
        if step.age > 0 {
            let held = Held { revision, version: step.number };
            self.held.insert(step.session_key.clone(), held);
        }
    }

    fn put(&mut self, step: Step) {
        if step.age > 0 {
            let model = Model { data: step.data, version: step.number };
            self.model.insert(step.session_key, model);
        } else {
            self.model.remove(&step.session_key);
        }
    }
}

fn stored(model: &Model) -> Value {
    Value::from(model.data.clone())
}

fn shown(record: &SessionRecord) -> Value {
    without_expiry(record.data.to_json().ok().as_deref())
}

/// The data of a session for Django, which notes its age there.
fn with_expiry(data: &Map<String, Value>, age: i64) -> Value {
    let mut data = data.clone();
    data.insert("_session_expiry".to_owned(), age.into());
    data.into()
}

fn without_expiry(json: Option<&str>) -> Value {
    let mut data: Map<String, Value> = serde_json::from_str(json.unwrap()).unwrap();
    data.remove("_session_expiry");
    data.into()
}

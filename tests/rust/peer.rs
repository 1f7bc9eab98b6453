//! An installed Django as a process beside the test, and random steps of both sides on one store.
//!
//! The interpreter is `TEST_PYTHON`, which `make test` sets; `tests/django_peer.py` is the other side.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use django_session::session::SessionRecord;
use django_session::{DateTime, SessionData, SessionKey, SessionStore};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

/// A Django that answers one request after the other.
pub(crate) struct Peer {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts one with these settings; `None` if there is no Django to test with.
    pub(crate) fn start(settings: &Value) -> Option<Self> {
        let Some(python) = std::env::var_os("TEST_PYTHON") else {
            let message =
                "NOT TESTED against an installed Django: TEST_PYTHON names no interpreter";
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("{message}");
            return None;
        };
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/django_peer.py"))
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut requests = process.stdin.take().unwrap();
        writeln!(requests, "{settings}").unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Some(Self { process, requests, answers })
    }

    /// Whether the interpreter has a module, which is not installed everywhere.
    pub(crate) fn has(module: &str) -> bool {
        let Some(python) = std::env::var_os("TEST_PYTHON") else { return false };
        let import = Command::new(python)
            .args(["-c", &format!("import {module}")])
            .stderr(Stdio::null())
            .status();
        import.is_ok_and(|status| status.success())
    }

    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        self.receive()
    }

    pub(crate) fn send(&mut self, request: &Value) {
        writeln!(self.requests, "{request}").unwrap();
    }

    pub(crate) fn receive(&mut self) -> Value {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A generator of numbers, the same for the same seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn text(&mut self) -> String {
        let length = [0, 1, 5, 40, 2000][self.below(5)];
        let letters = ['a', 'Z', ' ', '"', '\\', '\r', '\n', '\0', 'é', '世', '\u{1F600}', '%'];
        (0..length).map(|_| letters[self.below(letters.len())]).collect()
    }
}

/// What should be stored under a key.
struct Model {
    data: Map<String, Value>,
    /// Counts the writes.
    version: u64,
}

/// What one of ours remembers of a load or a save.
struct Held {
    record: SessionRecord,
    version: u64,
}

/// Lets Django and our store take `steps` random steps on the same sessions, and compares what each
/// sees with what should be there.
pub(crate) async fn interleave(
    store: &dyn SessionStore,
    peer: &mut Peer,
    now: impl Fn() -> DateTime,
    steps: usize,
    seed: u64,
) {
    let mut random = Random::new(seed);
    let mut model: HashMap<String, Model> = HashMap::new();
    let mut held: HashMap<String, Held> = HashMap::new();
    let mut keys: Vec<String> = vec!["0123456789abcdef0123456789abcdef".to_owned()];
    let mut versions = 0;
    let mut seen: HashMap<&'static str, usize> = HashMap::new();
    for step in 0..steps {
        versions += 1;
        let version = versions;
        // Half of the steps are on the session that was created last.
        let recent = random.below(2) == 0;
        let index = if recent { keys.len() - 1 } else { random.below(keys.len()) };
        let name = keys[index].clone();
        let key = SessionKey::parse(&name).unwrap();
        let mut data = Map::new();
        data.insert("version".to_owned(), version.into());
        data.insert("text".to_owned(), random.text().into());
        // Of a month and more memcached keeps another kind of time.
        let age = [600, 86_400 * 14, 86_400 * 40, -5][random.below(4)];
        let is_live = age > 0;
        let record = |session_key: SessionKey, data: &Map<String, Value>| SessionRecord {
            session_key,
            data: Arc::new(SessionData::from_json(&Value::from(data.clone()).to_string()).unwrap()),
            expire_date: now().checked_add(SignedDuration::from_secs(age)).unwrap(),
            revision: None,
        };
        let kind = [
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
        ][random.below(15)];
        *seen.entry(kind).or_default() += 1;
        let place = format!("step {step}, {kind}, seed {seed}");
        match kind {
            "create" => {
                let key = SessionKey::generate();
                let mut new = record(key.clone(), &data);
                let saved = store.create(&new).await.expect(&place);
                new.revision = saved.revision;
                keys.push(key.as_str().to_owned());
                if is_live {
                    held.insert(key.as_str().to_owned(), Held { record: new, version });
                    model.insert(key.as_str().to_owned(), Model { data, version });
                }
            }
            "create by Django" => {
                let age = age.max(600);
                let answer = peer.ask(&json!({"op": "create", "data": data, "age": age}));
                let key = answer.as_str().unwrap_or_else(|| panic!("{place}: {answer}")).to_owned();
                keys.push(key.clone());
                model.insert(key, Model { data, version });
            }
            "load" => {
                let loaded = store.load(&key, now()).await.expect(&place);
                assert_eq!(loaded.as_ref().map(shown), model.get(&name).map(stored), "{place}");
                if let (Some(record), Some(model)) = (loaded, model.get(&name)) {
                    held.insert(name, Held { record, version: model.version });
                }
            }
            "load by Django" => {
                let answer = peer.ask(&json!({"op": "load", "key": name}));
                let expected = model.get(&name).map_or(Value::Null, stored);
                assert_eq!(answer, expected, "{place}");
            }
            "save" => {
                let saved = store.save(&record(key, &data)).await;
                match (saved, model.contains_key(&name)) {
                    (Ok(_), true) => replace(&mut model, name, is_live, Model { data, version }),
                    (Err(error), false) if error.is_update() => {}
                    (other, is_there) => panic!("{place}: {other:?}, there: {is_there}"),
                }
            }
            "save a revision" => {
                let Some(held) = held.get_mut(&name) else { continue };
                let revision = held.record.revision.clone();
                let record = SessionRecord { revision, ..record(key, &data) };
                let is_current = model.get(&name).is_some_and(|it| it.version == held.version);
                match (store.save(&record).await, is_current) {
                    (Ok(saved), true) => {
                        held.record = SessionRecord { revision: saved.revision, ..record };
                        held.version = version;
                        replace(&mut model, name, is_live, Model { data, version });
                    }
                    (Err(error), false) if error.is_conflict() => {}
                    (other, is_current) => panic!("{place}: {other:?}, current: {is_current}"),
                }
            }
            "save by Django" => {
                let answer =
                    peer.ask(&json!({"op": "save", "key": name, "data": data, "age": age}));
                if model.contains_key(&name) {
                    assert_eq!(answer, Value::Null, "{place}");
                    replace(&mut model, name, is_live, Model { data, version });
                } else {
                    assert_eq!(answer["raises"], "UpdateError", "{place}");
                }
            }
            "touch" => match (store.touch(&record(key, &data)).await, model.contains_key(&name)) {
                (Ok(_), true) if is_live => {}
                (Ok(_), true) => drop(model.remove(&name)),
                (Err(error), false) if error.is_update() => {}
                (other, is_there) => panic!("{place}: {other:?}, there: {is_there}"),
            },
            "delete" => {
                store.delete(&key).await.expect(&place);
                model.remove(&name);
            }
            "delete a revision" => {
                let Some(held) = held.get(&name) else { continue };
                let Some(revision) = &held.record.revision else { panic!("{place}: no revision") };
                let is_current = model.get(&name).is_some_and(|it| it.version == held.version);
                match (store.delete_revision(&key, revision).await, is_current) {
                    (Ok(()), true) => drop(model.remove(&name)),
                    (Err(error), false) if error.is_conflict() => {}
                    (other, is_current) => panic!("{place}: {other:?}, current: {is_current}"),
                }
            }
            "delete by Django" => {
                assert_eq!(peer.ask(&json!({"op": "delete", "key": name})), Value::Null, "{place}");
                model.remove(&name);
            }
            "exists" => {
                let exists = store.exists(&key).await.expect(&place);
                assert_eq!(exists, model.contains_key(&name), "{place}");
            }
            _ => {
                let exists = peer.ask(&json!({"op": "exists", "key": name}));
                assert_eq!(exists, model.contains_key(&name), "{place}");
            }
        }
    }
    for (name, model) in &model {
        let key = SessionKey::parse(name).unwrap();
        let loaded = store.load(&key, now()).await.unwrap();
        assert_eq!(loaded.as_ref().map(shown), Some(stored(model)), "in the end, seed {seed}");
    }
    assert!(steps < 500 || seen.len() == 13, "every kind of step was taken: {seen:?}");
}

fn replace(model: &mut HashMap<String, Model>, name: String, is_live: bool, new: Model) {
    if is_live {
        model.insert(name, new);
    } else {
        model.remove(&name);
    }
}

fn stored(model: &Model) -> Value {
    Value::from(model.data.clone())
}

/// The data of a session, without what Django notes of its expiry.
fn shown(record: &SessionRecord) -> Value {
    let json = record.data.to_json().unwrap();
    let mut data: Map<String, Value> = serde_json::from_str(&json).unwrap();
    data.remove("_session_expiry");
    Value::from(data)
}

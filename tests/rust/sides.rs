//! A running Django and ours, told in the same words what to do: the two sides of a random walk.

use std::sync::Arc;

use django_session::session::Expiry;
use django_session::{Session, SessionData, SessionKey, SessionSettings, SessionStore};
use serde_json::{Map, Value, json};

use crate::differential::{Engine, Random};

/// Django, whose steps have other words.
pub(crate) struct Django(pub(crate) Engine);

impl Django {
    pub(crate) fn step(&mut self, step: &Value) -> Value {
        let key = &step["key"];
        let mut command = step.clone();
        command["op"] = match text(step, "step") {
            "create" | "save" => json!("change"),
            "cycle" => json!("cycle_key"),
            // As for a site that saves every request.
            "touch" => json!("save"),
            same => json!(same),
        };
        let answer = self.0.ask(&command);
        let raised = &answer["raised"];
        assert!(raised.is_null() || raised == "UpdateError", "{step}: {answer}");
        match text(step, "step") {
            "create" | "cycle" => answer["key"].clone(),
            "load" if answer["key"] == *key => {
                serde_json::from_str(answer["json"].as_str().unwrap()).unwrap()
            }
            "save" | "hold" => json!(answer["key"] == *key),
            "late" | "touch" => json!(raised.is_null()),
            "exists" => answer["found"].clone(),
            _ => Value::Null,
        }
    }
}

/// This side, whose steps have the same words.
pub(crate) struct Ours {
    store: Arc<dyn SessionStore>,
    settings: Arc<SessionSettings>,
    held: Option<Session>,
}

impl Ours {
    pub(crate) fn new(store: Arc<dyn SessionStore>, settings: SessionSettings) -> Self {
        Self { store, settings: Arc::new(settings), held: None }
    }

    fn request(&self, key: Option<&str>) -> Session {
        let key = key.map(|key| SessionKey::parse(key).unwrap());
        Session::new(Arc::clone(&self.store), Arc::clone(&self.settings), key)
    }

    /// The session, if it is there.
    async fn found(&self, key: &str) -> Option<Session> {
        let session = self.request(Some(key));
        session.data().await.unwrap();
        session.session_key().await.is_some_and(|found| found.as_str() == key).then_some(session)
    }

    pub(crate) async fn step(&mut self, step: &Value) -> Value {
        let key = step["key"].as_str();
        match step["step"].as_str().unwrap() {
            "create" => {
                let session = self.request(None);
                change(&session, step).await;
                session.save().await.unwrap();
                json!(session.session_key().await.unwrap().as_str())
            }
            "load" => match self.found(key.unwrap()).await {
                Some(session) => {
                    let data = session.data().await.unwrap();
                    serde_json::from_str(&data.to_json().unwrap()).unwrap()
                }
                None => Value::Null,
            },
            "save" => match self.found(key.unwrap()).await {
                Some(session) => {
                    change(&session, step).await;
                    session.save().await.unwrap();
                    json!(true)
                }
                None => json!(false),
            },
            "hold" => {
                self.held = self.found(key.unwrap()).await;
                json!(self.held.is_some())
            }
            "late" => {
                let session = self.held.take().unwrap();
                session.update(&data(step)).await.unwrap();
                match session.save().await {
                    Ok(()) => json!(true),
                    Err(error) if error.is_interrupted() => json!(false),
                    Err(error) => panic!("{error:?}"),
                }
            }
            "exists" => {
                json!(self.store.exists(&SessionKey::parse(key.unwrap()).unwrap()).await.unwrap())
            }
            "delete" => {
                self.store.delete(&SessionKey::parse(key.unwrap()).unwrap()).await.unwrap();
                Value::Null
            }
            "cycle" => match self.found(key.unwrap()).await {
                Some(session) => {
                    session.cycle_key().await.unwrap();
                    json!(session.session_key().await.unwrap().as_str())
                }
                None => Value::Null,
            },
            "touch" => json!(self.request(key).touch().await.unwrap()),
            "clear_expired" => {
                self.request(None).clear_expired().await.unwrap();
                Value::Null
            }
            _ => {
                self.request(key).flush().await.unwrap();
                Value::Null
            }
        }
    }
}

fn data(step: &Value) -> SessionData {
    SessionData::from_json(&step["data"].to_string()).unwrap()
}

async fn change(session: &Session, step: &Value) {
    session.update(&data(step)).await.unwrap();
    for name in step["remove"].as_array().into_iter().flatten() {
        session.remove(name.as_str().unwrap()).await.unwrap();
    }
    let age = step["age"].as_i64();
    session.set_expiry(age.map_or(Expiry::Default, Expiry::Age)).await.unwrap();
}

/// Does to the data what a step says.
pub(crate) fn changed(data: &mut Map<String, Value>, step: &Value) {
    data.extend(step["data"].as_object().unwrap().clone());
    for name in step["remove"].as_array().into_iter().flatten() {
        data.remove(name.as_str().unwrap());
    }
    match step.get("age") {
        None => {}
        Some(Value::Null) => drop(data.remove("_session_expiry")),
        Some(age) => drop(data.insert("_session_expiry".to_owned(), age.clone())),
    }
}

pub(crate) fn choose<'a, T>(random: &mut Random, values: &'a [T]) -> &'a T {
    &values[random.below(values.len())]
}

pub(crate) fn name(random: &mut Random) -> String {
    let names = ["a", "cart", "naïve", "\u{1F36A}", "_auth_user_hash", "", "x y"];
    (*choose(random, &names)).to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "they are small")]
pub(crate) fn value(random: &mut Random, depth: u32) -> Value {
    match random.below(if depth == 0 { 6 } else { 8 }) {
        0 => json!(random.below(1 << 30) as u64 * 0x1_0000_0001),
        1 => json!((random.below(1 << 30) as f64 - 1e6) / 8.0),
        2 => json!("é\"\\\u{2603}\u{1F600}\n".repeat(random.below(30))),
        3 => json!(random.below(2) == 0),
        4 => Value::Null,
        5 => json!("x".repeat(random.below(2000))),
        6 => (0..random.below(5)).map(|_| value(random, depth - 1)).collect(),
        _ => {
            let entries = (0..random.below(5)).map(|_| (name(random), value(random, depth - 1)));
            Value::Object(entries.collect())
        }
    }
}

/// A word of a step; none if it has no such word.
pub(crate) fn text<'a>(step: &'a Value, name: &str) -> &'a str {
    step[name].as_str().unwrap_or_default()
}

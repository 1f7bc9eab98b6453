//! Every record of `middleware`: what `SessionMiddleware` of six Django releases answered, asked of
//! `SessionLayer`.
//!
//! The layer is that of 6.1 and 5.2.19. What an older release answered otherwise is listed in
//! `CHANGES`, case by case, with the change that later releases made; the answer with the change
//! applied must be ours.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use django_session::session::{Clock, Expiry};
use django_session::store::MemoryStore;
use django_session::{
    DateTime, SecretKey, Session, SessionCodec, SessionData, SessionKey, SessionLayer,
    SessionSettings, SessionStore,
};
use http::{Request, Response, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};

use crate::vectors::{self, text};

/// In place of a key that was drawn at random.
const NEW_KEY: &str = "(a new key)";
/// In place of one that the cookie does not have: the session was moved on.
const LEFT_KEY: &str = "(a key left behind)";
/// A view that is more than steps of a session.
const DEL: &str = "del request.session";

#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedClock(pub(crate) i64);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0).unwrap()
    }
}

/// What the client reads and what is stored.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    status: u64,
    vary: Option<String>,
    set_cookie: Vec<String>,
    /// Key, data, expire date.
    rows: Vec<[String; 3]>,
}

/// A change between an older release and 6.1 that makes the old answer the new one.
struct Change {
    what: &'static str,
    versions: &'static [&'static str],
    cases: &'static [&'static str],
    apply: fn(&mut Answer, &Value),
}

const CHANGES: &[Change] = &[
    Change {
        what: "2.1: SameSite, and dates without dashes",
        versions: &["1.11.29"],
        cases: COOKIES_OF_1_11,
        apply: |answer, _| {
            for line in &mut answer.set_cookie {
                for month in ["Jan", "Nov", "Dec"] {
                    *line = line.replace(&format!("-{month}-"), &format!(" {month} "));
                }
                *line = match line.strip_suffix("; Secure") {
                    Some(line) => format!("{line}; SameSite=Lax; Secure"),
                    None => format!("{line}; SameSite=Lax"),
                };
            }
        },
    },
    Change {
        what: "2.2: a cookie with a prefix is deleted with Secure",
        versions: &["1.11.29"],
        cases: &["settings/secure_prefix_delete", "settings/host_prefix_delete"],
        apply: |answer, _| answer.set_cookie[0].push_str("; Secure"),
    },
    Change {
        what: "3.0: deleting the cookie varies on it",
        versions: &["1.11.29", "2.2.28"],
        cases: DELETIONS,
        apply: vary_on_cookie,
    },
    Change {
        what: "3.0: deleting the cookie varies on it (settings that 1.11 does not have)",
        versions: &["2.2.28"],
        cases: &[
            "settings/samesite_Strict_delete",
            "settings/samesite_False_delete",
            "settings/samesite_None_delete#2",
        ],
        apply: vary_on_cookie,
    },
    Change {
        what: "3.0: * in Vary swallows the rest",
        versions: &["1.11.29", "2.2.28"],
        cases: &["vary/*", "vary/Accept-Language, *"],
        apply: |answer, _| answer.vary = Some("*".to_owned()),
    },
    Change {
        what: "3.1: SameSite may be None; before, ValueError",
        versions: &["2.2.28"],
        cases: &["settings/samesite_None", "settings/samesite_None_delete"],
        apply: take_new,
    },
    Change {
        what: "4.1: an expiry that is a date can be stored as JSON; before, TypeError",
        versions: &["1.11.29", "2.2.28", "3.2.25"],
        cases: &["no_cookie/exptd", "valid_cookie/exptd"],
        apply: take_new,
    },
    Change {
        what: "4.2: every status from 500 on is unsaved; before, 500 alone",
        versions: &["1.11.29", "2.2.28", "3.2.25"],
        cases: &[
            "status_501/write",
            "status_501/write_no_cookie",
            "status_503/write",
            "status_503/write_no_cookie",
            "status_599/write",
            "status_599/write_no_cookie",
        ],
        apply: |answer, _| {
            answer.set_cookie.clear();
            // As they were before the request.
            answer.rows.retain(|row| row[0] != NEW_KEY);
            for row in &mut answer.rows {
                row[1] = r#"{"a":1,"l":[1],"n":null}"#.into();
                row[2] = "2023-11-14T22:30:00+00:00".into();
            }
        },
    },
    Change {
        what: "5.2.14, 6.0.5: setting the cookie varies on it",
        versions: &["1.11.29", "2.2.28", "3.2.25", "4.2.30"],
        cases: &[
            "valid_cookie/modified_but_empty",
            "save_every/valid_cookie/nothing",
            "save_every/stale_cookie/nothing",
            "save_every/valid_cookie/is_empty",
            "save_every/stale_cookie/is_empty",
        ],
        apply: vary_on_cookie,
    },
];

const DELETIONS: &[&str] = &[
    "valid_cookie/flush",
    "short_cookie/nothing",
    "empty_cookie/nothing",
    "stale_cookie/read",
    "expired_row/read",
    "short_cookie/read",
    "empty_cookie/read",
    "save_every/stale_cookie/read",
    "short_cookie/is_empty",
    "empty_cookie/is_empty",
    "status_404/flush",
    "status_499/flush",
    "status_500/flush",
    "status_501/flush",
    "status_503/flush",
    "status_599/flush",
    "status_302/flush",
    "status_204/flush",
    "settings/all_cookie_options_delete",
    "settings/secure_prefix_delete",
    "settings/host_prefix_delete",
];

const COOKIES_OF_1_11: &[&str] = &[
    "no_cookie/write",
    "valid_cookie/write",
    "valid_cookie/modified_but_empty",
    "valid_cookie/clear",
    "valid_cookie/flush",
    "no_cookie/cycle",
    "valid_cookie/cycle",
    "no_cookie/exp0",
    "valid_cookie/exp0",
    "no_cookie/exp300",
    "valid_cookie/exp300",
    "no_cookie/expneg",
    "valid_cookie/expneg",
    "valid_cookie/pop_all",
    "valid_cookie/nested_save_every",
    "short_cookie/nothing",
    "empty_cookie/nothing",
    "save_every/valid_cookie/nothing",
    "save_every/stale_cookie/nothing",
    "stale_cookie/read",
    "expired_row/read",
    "short_cookie/read",
    "empty_cookie/read",
    "save_every/valid_cookie/read",
    "save_every/stale_cookie/read",
    "stale_cookie/write",
    "expired_row/write",
    "short_cookie/write",
    "empty_cookie/write",
    "save_every/no_cookie/write",
    "save_every/valid_cookie/write",
    "save_every/stale_cookie/write",
    "short_cookie/is_empty",
    "empty_cookie/is_empty",
    "save_every/valid_cookie/is_empty",
    "save_every/stale_cookie/is_empty",
    "status_404/write",
    "status_404/write_no_cookie",
    "status_404/flush",
    "status_499/write",
    "status_499/write_no_cookie",
    "status_499/flush",
    "status_500/flush",
    "status_501/flush",
    "status_503/flush",
    "status_599/flush",
    "status_302/write",
    "status_302/write_no_cookie",
    "status_302/flush",
    "status_204/write",
    "status_204/write_no_cookie",
    "status_204/flush",
    "settings/browser_close",
    "settings/browser_close_but_exp300",
    "settings/all_cookie_options",
    "settings/all_cookie_options_delete",
    "settings/secure_prefix_delete",
    "settings/host_prefix_delete",
];

fn vary_on_cookie(answer: &mut Answer, _: &Value) {
    assert_eq!(answer.vary, None);
    answer.vary = Some("Cookie".to_owned());
}

/// For calls that raised in the old release: there is no answer to change.
fn take_new(answer: &mut Answer, new: &Value) {
    *answer = expected(new);
}

#[tokio::test]
async fn the_layer_answers_as_every_release() {
    answers_are_those_of_every_release(through_tower).await;
}

pub(crate) async fn answers_are_those_of_every_release(send: impl Front) {
    let records = vectors::read("middleware");
    let case = |record: &Value| text(record, "id").splitn(4, '/').nth(3).unwrap().to_owned();
    let version = |record: &Value| text(record, "django_version").to_owned();
    let new: HashMap<String, &Value> = records
        .iter()
        .filter(|record| version(record) == "6.1.3")
        .map(|record| (case(record), record))
        .collect();

    let mut as_they_are: HashMap<String, usize> = HashMap::new();
    let mut after_changes: HashMap<String, usize> = HashMap::new();
    for record in &records {
        let id = text(record, "id");
        assert_eq!(text(record, "backend"), "db", "{id}");
        let (version, case) = (version(record), case(record));
        let changes: Vec<_> = CHANGES
            .iter()
            .filter(|change| change.versions.contains(&&*version) && change.cases.contains(&&*case))
            .collect();
        let mut answer = expected(record);
        for change in &changes {
            let before = answer.clone();
            (change.apply)(&mut answer, new[&case]);
            assert_ne!(answer, before, "{id}: needless: {}", change.what);
        }
        assert_eq!(replay(record, &send).await, answer, "{id}");
        let count = if changes.is_empty() { &mut as_they_are } else { &mut after_changes };
        *count.entry(version).or_default() += 1;
    }

    for (version, exactly, with_changes) in [
        ("1.11.29", 24, 68),
        ("2.2.28", 59, 41),
        ("3.2.25", 87, 13),
        ("4.2.30", 95, 5),
        ("5.2.19", 100, 0),
        ("6.1.3", 100, 0),
    ] {
        let count = |counts: &HashMap<String, usize>| counts.get(version).copied().unwrap_or(0);
        assert_eq!(
            (count(&as_they_are), count(&after_changes)),
            (exactly, with_changes),
            "{version}"
        );
    }
    assert_eq!(records.len(), 592);
}

/// `tests/fixtures/write_middleware.py` made views of random steps.
#[tokio::test]
async fn the_layer_answers_as_django_to_random_views() {
    answers_are_those_to_random_views(through_tower).await;
}

pub(crate) async fn answers_are_those_to_random_views(send: impl Front) {
    let records = vectors::read_file("middleware_random.jsonl.zst");
    for record in &records {
        assert_eq!(replay(record, &send).await, expected(record), "{record}");
    }
    assert_eq!(records.len(), 3939);
}

/// What the record says. An interruption is an exception there; Django answers 400 to it.
fn expected(record: &Value) -> Answer {
    let raised = record["raises"]["type"].as_str();
    let interrupted = raised.is_some_and(|raised| {
        raised.ends_with("SessionInterrupted") || raised.ends_with("SuspiciousOperation")
    });
    let lines = record["set_cookie"].as_array().into_iter().flatten();
    let rows = record["rows_after"].as_array().unwrap().iter().map(|row| {
        let data = serde_json::to_string(&row["data"]).unwrap();
        [text(row, "session_key").to_owned(), data, text(row, "expire_date").to_owned()]
    });
    let status = if interrupted { Some(400) } else { record["response_status"].as_u64() };
    Answer {
        status: status.unwrap_or(0),
        vary: record["vary"].as_str().map(str::to_owned),
        set_cookie: lines.map(|line| line.as_str().unwrap().to_owned()).collect(),
        rows: rows.collect(),
    }
    .without_new_keys(record)
}

impl Answer {
    /// Random keys differ; they have to be well-formed, and row and cookie have to agree.
    fn without_new_keys(mut self, record: &Value) -> Self {
        let known = record["rows"].as_array().unwrap();
        for row in &mut self.rows {
            if known.iter().any(|known| known["session_key"] == row[0]) {
                continue;
            }
            let key = std::mem::replace(&mut row[0], NEW_KEY.to_owned());
            assert_eq!(key.len(), 32);
            assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
            assert_ne!(record["cookie"], key, "a key that the client made up");
            if !self.set_cookie.is_empty() && !self.set_cookie[0].contains(&key) {
                row[0] = LEFT_KEY.into();
            }
            for line in &mut self.set_cookie {
                *line = line.replace(&key, NEW_KEY);
            }
        }
        self.rows.sort();
        self
    }
}

/// A record's view, for any framework.
#[derive(Clone)]
pub(crate) struct View {
    record: Arc<Value>,
    store: MemoryStore,
}

impl View {
    /// Whether nothing behind this point is to see the session.
    pub(crate) fn removes_session(&self) -> bool {
        self.record["view"] == DEL
    }

    pub(crate) async fn run(&self, session: &Session) {
        match &self.record["view"] {
            Value::String(view) => run(view, session, &self.store).await,
            steps => {
                for step in steps.as_array().unwrap() {
                    take(step, session, &self.store).await;
                }
            }
        }
    }

    /// The status of its response, and what that varies on.
    pub(crate) fn response(&self) -> (u16, Option<&str>) {
        let status = self.record["status"].as_u64().unwrap();
        let vary = text(&self.record, "id").split_once("/vary/").map(|(_, vary)| vary);
        (u16::try_from(status).unwrap(), vary.or_else(|| self.record["vary_before"].as_str()))
    }
}

/// Answers a request by a view within the layer.
pub(crate) trait Front: AsyncFn(SessionLayer, View, Request<()>) -> Response<()> {}

impl<F: AsyncFn(SessionLayer, View, Request<()>) -> Response<()>> Front for F {}

async fn through_tower(layer: SessionLayer, view: View, request: Request<()>) -> Response<()> {
    let service = service_fn(|mut request: Request<()>| {
        let view = view.clone();
        async move {
            if view.removes_session() {
                // As near as it gets: nothing behind this point sees the session.
                request.extensions_mut().remove::<Session>().unwrap();
            } else {
                view.run(request.extensions().get::<Session>().unwrap()).await;
            }
            let (status, vary) = view.response();
            let mut response = Response::builder().status(status);
            if let Some(vary) = vary {
                response = response.header(header::VARY, vary);
            }
            Ok::<_, Infallible>(response.body(String::new()).unwrap())
        }
    });
    layer.layer(service).oneshot(request).await.unwrap().map(drop)
}

/// Sends the record's request through the layer.
async fn replay(record: &Value, send: &impl Front) -> Answer {
    let now = record["now"].as_i64().unwrap();
    let codec = SessionCodec::new(&SecretKey::new(text(record, "secret_key")).unwrap());
    let store = MemoryStore::new(codec.clone());
    for row in record["rows"].as_array().unwrap() {
        let data = SessionData::from_json(&row["data"].to_string()).unwrap();
        let signed = || codec.encode(&data, now).unwrap();
        let expire_date =
            Timestamp::from_second(now + row["expires_in"].as_i64().unwrap()).unwrap();
        store.insert_row(
            SessionKey::parse(text(row, "session_key")).unwrap(),
            row["session_data"].as_str().map_or_else(signed, str::to_owned),
            DateTime::Aware(expire_date),
        );
    }

    let settings = SessionSettings::from_json(&record["settings"].to_string()).unwrap();
    let mut request = Request::builder();
    if let Some(cookie) = record["cookie"].as_str() {
        request = request.header(header::COOKIE, format!("{}={cookie}", settings.cookie_name));
    }
    if let Some(header) = record["headers"].as_str() {
        request = request.header(header::COOKIE, header);
    }
    let view = View { record: Arc::new(record.clone()), store: store.clone() };
    let layer = SessionLayer::new(store.clone(), settings).with_clock(FixedClock(now));
    let response = send(layer, view, request.body(()).unwrap()).await;

    let lines = |name| {
        let lines = response.headers().get_all(name).iter();
        lines.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let vary = lines(header::VARY);
    assert!(vary.len() <= 1);
    let rows = store.session_keys().into_iter().map(|key| {
        let (session_data, expire_date) = store.row(&key).unwrap();
        let data = codec.decode(&session_data).map(|decoded| decoded.data).unwrap_or_default();
        let data = data.to_json().unwrap();
        [key.as_str().to_owned(), data, expire_date.isoformat()]
    });
    Answer {
        status: response.status().as_u16().into(),
        vary: vary.into_iter().next(),
        set_cookie: lines(header::SET_COOKIE),
        rows: rows.collect(),
    }
    .without_new_keys(record)
}

/// Asks the layer over another store, of an engine whose rows the record does not have.
pub(crate) async fn check_without_rows(
    record: &Value,
    store: impl SessionStore,
    settings: SessionSettings,
) {
    let mut request = Request::builder();
    if let Some(cookie) = record["cookie"].as_str() {
        request = request.header(header::COOKIE, format!("{}={cookie}", settings.cookie_name));
    }
    let view = service_fn(|mut request: Request<()>| async move {
        let none = MemoryStore::new(SessionCodec::new(&SecretKey::new("unused").unwrap()));
        match text(record, "view") {
            DEL => drop(request.extensions_mut().remove::<Session>()),
            view => run(view, request.extensions().get::<Session>().unwrap(), &none).await,
        }
        let status = u16::try_from(record["status"].as_u64().unwrap()).unwrap();
        Ok::<_, Infallible>(Response::builder().status(status).body(String::new()).unwrap())
    });
    let now = record["now"].as_i64().unwrap();
    let layer = SessionLayer::new(store, settings).with_clock(FixedClock(now));
    let response = layer.layer(view).oneshot(request.body(()).unwrap()).await.unwrap();
    let id = text(record, "id");
    assert_eq!(response.status().as_u16(), record["response_status"], "{id}");
    let line = |name| response.headers().get(name).map(|line| line.to_str().unwrap());
    // It varies on the cookie with every cookie that is set since 5.2.14.
    if line(header::SET_COOKIE).is_none() || record["vary"].is_string() {
        assert_eq!(line(header::VARY), record["vary"].as_str(), "{id}");
    }
    let set_cookie = line(header::SET_COOKIE).map(without_new_key);
    assert_eq!(set_cookie, record["set_cookie"][0].as_str().map(without_new_key), "{id}");
}

/// The line with a mark in place of a key that was drawn at random.
fn without_new_key(line: &str) -> String {
    let value = line.strip_prefix("sessionid=").and_then(|line| line.split(';').next());
    match value {
        Some(value) if value.len() == 32 => line.replace(value, NEW_KEY),
        _ => line.to_owned(),
    }
}

/// The header by which a client gets a session with this value in it.
pub(crate) async fn set_cookie_of(
    store: impl SessionStore,
    settings: SessionSettings,
    value: String,
) -> String {
    let view = service_fn(|request: Request<()>| {
        let value = value.clone();
        async move {
            let session = request.extensions().get::<Session>().unwrap();
            session.insert("value", &value).await.unwrap();
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let layer = SessionLayer::new(store, settings);
    let response = layer.layer(view).oneshot(Request::new(())).await.unwrap();
    response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned()
}

/// The record's view.
async fn run(view: &str, session: &Session, store: &MemoryStore) {
    let set_b = || session.insert("b", &2);
    match view {
        "does not touch the session" => {}
        "session.get('a')" => {
            session.get::<i64>("a").await.unwrap();
        }
        "session.is_empty()" => {
            session.is_empty().await;
        }
        "session['b'] = 2" => set_b().await.unwrap(),
        "session.modified = True (nothing set)" => session.set_modified(true).await,
        "session.clear()" => session.clear().await,
        "session.flush()" => session.flush().await.unwrap(),
        "session.cycle_key()" => session.cycle_key().await.unwrap(),
        "session['b']=2; set_expiry(0)" => {
            set_b().await.unwrap();
            session.set_expiry(Expiry::BrowserClose).await.unwrap();
        }
        "session['b']=2; set_expiry(300)" => {
            set_b().await.unwrap();
            session.set_expiry(Expiry::Age(300)).await.unwrap();
        }
        "session['b']=2; set_expiry(-10)" => {
            set_b().await.unwrap();
            session.set_expiry(Expiry::Age(-10)).await.unwrap();
        }
        "session['b']=2; set_expiry(timedelta(days=40))" => {
            set_b().await.unwrap();
            let days = SignedDuration::from_hours(40 * 24);
            session.set_expiry(Expiry::In(days)).await.unwrap();
        }
        "deletes every key one by one" => {
            for name in session.data().await.unwrap().keys() {
                assert!(session.remove(&name.to_str().unwrap()).await.unwrap());
            }
        }
        "session['l'].append(1)  (no modified flag)" => {
            // A value is a copy here; what Python changes unseen has to be put back unseen.
            let mut list: Vec<i64> = session.get("l").await.unwrap().unwrap();
            list.push(1);
            session.insert("l", &list).await.unwrap();
            session.set_modified(false).await;
        }
        "row is deleted by another request, then session['b'] = 2" => {
            session.data().await.unwrap();
            store.delete(&session.session_key().await.unwrap()).await.unwrap();
            set_b().await.unwrap();
        }
        other => panic!("no such view: {other}"),
    }
}

/// A step of a random view. A session that is gone is noticed and put up with.
async fn take(step: &Value, session: &Session, store: &MemoryStore) {
    let name = step[1].as_str();
    let outcome = match step[0].as_str().unwrap() {
        "get" => session.data().await.map(drop),
        "set" => session.insert(name.unwrap(), &step[2]).await,
        "pop" => session.remove(name.unwrap()).await.map(drop),
        "setdefault" => session.setdefault(name.unwrap(), step[2].clone()).await.map(drop),
        "update" => session.update(&SessionData::new()).await,
        "clear" => {
            session.clear().await;
            Ok(())
        }
        "flush" => session.flush().await,
        "cycle_key" => session.cycle_key().await,
        "create" => session.create().await,
        "save" => session.save().await,
        "delete" => session.delete().await,
        "is_empty" => {
            session.is_empty().await;
            Ok(())
        }
        "modified" => {
            session.set_modified(step[1].as_bool().unwrap()).await;
            Ok(())
        }
        "set_expiry" => {
            let expiry = match step[1].as_i64() {
                None => Expiry::Default,
                Some(0) => Expiry::BrowserClose,
                Some(seconds) => Expiry::Age(seconds),
            };
            session.set_expiry(expiry).await
        }
        "expiry_age" => {
            // An expiry that is none fails here as it does there.
            let _ = session.expiry_age().await;
            Ok(())
        }
        "row is deleted by another request" => {
            for key in store.session_keys() {
                store.delete(&key).await.unwrap();
            }
            Ok(())
        }
        other => panic!("no such step: {other}"),
    };
    if let Err(error) = outcome {
        assert!(error.is_interrupted(), "{error}");
    }
}

//! The session object against traces of Django's, step by step, in every store.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use django_session::codec::{KeyMatch, SecretKey, SessionCodec};
use django_session::session::{
    Clock, EXPIRY_KEY, ExpiryError, HASH_KEY, SessionRecord, session_auth_hash,
    session_auth_hash_with, verify_session_auth_hash, verify_session_auth_hash_with,
};
use django_session::signing::Algorithm;
use django_session::store::{FileStore, MemoryStore};
use django_session::{
    DateTime, Expiry, Session, SessionData, SessionError, SessionKey, SessionSettings,
    SessionStore, StoreError,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::formats;
use crate::stores::{self, Kind, Place};
use crate::vectors::{self, Tally, text, to_python_json};

/// A clock that stands still until it is moved.
#[derive(Clone, Debug)]
pub(crate) struct FixedClock(Arc<Mutex<Timestamp>>);

impl FixedClock {
    pub(crate) fn at(seconds: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "microseconds of this century")]
        let micros = (seconds * 1e6).round() as i64;
        Self(Arc::new(Mutex::new(Timestamp::from_microsecond(micros).unwrap())))
    }

    pub(crate) fn advance(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        *now += SignedDuration::from_secs(seconds);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// What a step gave back: a JSON text, a date, or the name of what was raised.
#[derive(Debug, PartialEq)]
enum Answer {
    Json(String),
    Date(String),
    Seconds(f64),
    Raised(&'static str),
}

impl Answer {
    fn of<T: Into<Self>>(result: Result<T, SessionError>) -> Self {
        match result {
            Ok(value) => value.into(),
            Err(SessionError::Store(StoreError::Create)) => Self::Raised("CreateError"),
            Err(SessionError::Store(StoreError::Update)) => Self::Raised("UpdateError"),
            Err(
                SessionError::Expiry(error) | SessionError::Store(StoreError::ExpireDate(error)),
            ) => error.into(),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// What the record says.
    fn expected(step: &Value) -> Self {
        if let Some(raised) = step.get("raises") {
            return Self::Raised(match text(raised, "type").rsplit('.').next().unwrap() {
                "CreateError" => "CreateError",
                "UpdateError" => "UpdateError",
                "KeyError" => "KeyError",
                "OverflowError" => "OverflowError",
                "ValueError" => "ValueError",
                "TypeError" => "TypeError",
                other => panic!("{other}"),
            });
        }
        let returns = &step["returns"];
        let tag = returns.get("__type__").and_then(Value::as_str);
        match (text(step, "op"), tag) {
            (_, Some("datetime")) => Self::Date(text(returns, "value").to_owned()),
            ("get_expiry_age" | "expiry_age_kw", Some("float")) => {
                Self::Seconds(text(returns, "value").parse().unwrap())
            }
            // Python's `True` is 1, and an age is a number here.
            ("get_expiry_age" | "expiry_age_kw", None) if returns.is_boolean() => {
                Self::Seconds(f64::from(u8::from(returns.as_bool().unwrap())))
            }
            ("get_expiry_age" | "expiry_age_kw", None) if returns.is_number() => {
                Self::Seconds(returns.as_f64().unwrap())
            }
            _ => Self::Json(to_python_json(returns)),
        }
    }
}

impl From<ExpiryError> for Answer {
    fn from(error: ExpiryError) -> Self {
        Self::Raised(match error {
            ExpiryError::OutOfRange => "OverflowError",
            ExpiryError::Unparsable => "ValueError",
            _ => "TypeError",
        })
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::Json("null".to_owned())
    }
}

impl From<bool> for Answer {
    fn from(value: bool) -> Self {
        Self::Json(value.to_string())
    }
}

impl From<SignedDuration> for Answer {
    fn from(value: SignedDuration) -> Self {
        Self::Seconds(value.as_secs_f64())
    }
}

impl From<DateTime> for Answer {
    fn from(value: DateTime) -> Self {
        Self::Date(value.isoformat())
    }
}

/// A value or Python's `None`.
fn json_or_null(data: &SessionData, name: &str) -> Answer {
    Answer::Json(data.get_raw(name).unwrap().map_or("null".to_owned(), Cow::into_owned))
}

/// `KeyError` where nothing was there.
fn key_error(found: bool) -> Answer {
    if found { ().into() } else { Answer::Raised("KeyError") }
}

fn datetime(tagged: &Value) -> DateTime {
    DateTime::fromisoformat(text(tagged, "value")).unwrap()
}

fn one_value(name: &str, json: &str) -> SessionData {
    let mut data = SessionData::new();
    data.insert_raw(name, json).unwrap();
    data
}

struct Replay {
    store: Arc<dyn SessionStore>,
    settings: Arc<SessionSettings>,
    clock: FixedClock,
    session: Session,
    /// New keys in the trace, and ours for them.
    keys: HashMap<String, SessionKey>,
    /// Every key that was ever in the store.
    seen: BTreeSet<SessionKey>,
}

impl Replay {
    async fn new(record: &Value, store: Arc<dyn SessionStore>) -> Self {
        let mut settings = SessionSettings::default();
        settings.use_tz = !text(record, "id").ends_with("use_tz_False");
        settings.cookie_age = record["session_cookie_age"].as_i64().unwrap();
        let settings = Arc::new(settings);
        let clock = FixedClock::at(record["now"].as_f64().unwrap());
        let key = record["cookie_key"].as_str().and_then(SessionKey::parse);
        let mut replay = Self {
            session: Self::open(&store, &settings, key, &clock),
            store,
            settings,
            clock,
            keys: HashMap::new(),
            seen: BTreeSet::new(),
        };
        for row in record["rows"].as_array().unwrap() {
            let session_key = SessionKey::parse(text(row, "session_key")).unwrap();
            let data = SessionData::from_json(&to_python_json(&row["data"])).unwrap();
            let left = SignedDuration::from_secs(row["expires_in"].as_i64().unwrap());
            let now = replay.settings.datetime(replay.clock.now());
            replay.seen.insert(session_key.clone());
            let expire_date = now.checked_add(left).unwrap();
            let record =
                SessionRecord { session_key, data: Arc::new(data), expire_date, revision: None };
            replay.store.create(&record).await.unwrap();
        }
        replay
    }

    fn open(
        store: &Arc<dyn SessionStore>,
        settings: &Arc<SessionSettings>,
        key: Option<SessionKey>,
        clock: &FixedClock,
    ) -> Session {
        Session::with_clock(store.clone(), settings.clone(), key, Arc::new(clock.clone()))
    }

    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    async fn step(&mut self, op: &str, args: &[Value]) -> Answer {
        let session = self.session.clone();
        let name = args.first().and_then(Value::as_str).unwrap_or_default();
        let json = |index: usize| args.get(index).map_or("null".to_owned(), to_python_json);
        match op {
            "init" | "cache_cleared" => ().into(),
            "get" | "pop" | "setdefault" => {
                let data = session.data().await.unwrap();
                let there = data.contains_key(name);
                let found = json_or_null(&data, name);
                if op == "pop" {
                    assert_eq!(session.remove(name).await.unwrap(), there);
                    if !there && args.len() < 2 {
                        return Answer::Raised("KeyError");
                    }
                }
                if op == "setdefault" {
                    let default = args[1].as_i64();
                    let given = session.setdefault(name, default).await.unwrap();
                    let answered = given.map_or("null".to_owned(), |n| n.to_string());
                    assert!(!there || found == Answer::Json(answered));
                    return Answer::Json(given.map_or("null".to_owned(), |n| n.to_string()));
                }
                if there { found } else { Answer::Json(json(1)) }
            }
            "getitem" => {
                let data = session.data().await.unwrap();
                let there = data.contains_key(name);
                if there { json_or_null(&data, name) } else { Answer::Raised("KeyError") }
            }
            "in" | "has_key" => Answer::of(session.contains_key(name).await),
            "keys" => {
                let data = session.data().await.unwrap();
                let keys = data.keys().map(|name| format!("\"{}\"", name.as_escaped()));
                Answer::Json(format!("[{}]", keys.collect::<Vec<_>>().join(",")))
            }
            "values" => {
                let data = session.data().await.unwrap();
                let values = data.iter_raw().map(|(_, value)| value.unwrap());
                Answer::Json(format!("[{}]", values.collect::<Vec<_>>().join(",")))
            }
            "items" => {
                let data = session.data().await.unwrap();
                let items = data.iter_raw();
                let items = items
                    .map(|(name, value)| format!("[\"{}\",{}]", name.as_escaped(), value.unwrap()));
                Answer::Json(format!("[{}]", items.collect::<Vec<_>>().join(",")))
            }
            // Rust has no such protocol; Python asks for the item 0.
            "iter" => key_error(session.contains_key("0").await.unwrap()),
            "bool" => (!session.is_empty().await).into(),
            "setitem" => Answer::of(session.update(&one_value(name, &json(1))).await),
            "delitem" => key_error(session.remove(name).await.unwrap()),
            "update" => {
                let other = SessionData::from_json(&json(0)).unwrap();
                Answer::of(session.update(&other).await)
            }
            // A value is a copy here, so nothing changes behind the session's back; this is the
            // nearest to it.
            "mutate_nested" => {
                let mut list: Vec<i64> = session.get(name).await.unwrap().unwrap();
                list.push(args[1].as_i64().unwrap());
                session.insert(name, &list).await.unwrap();
                session.set_modified(false).await;
                ().into()
            }
            "clear" => {
                session.clear().await;
                ().into()
            }
            "is_empty" => session.is_empty().await.into(),
            "flush" => Answer::of(session.flush().await),
            "cycle_key" => Answer::of(session.cycle_key().await),
            "create" => Answer::of(session.create().await),
            "save" if args.is_empty() => Answer::of(session.save().await),
            "save" if self.store.is_in_key() => Answer::of(session.save().await),
            // `save(must_create=True)` is the store's `create`; the object only sees an access that
            // loads nothing.
            "save" => {
                let session_key = session.session_key().await.unwrap();
                session.clear().await;
                session.set_modified(false).await;
                let expire_date = session.expiry_date().await.unwrap();
                let data = session.data().await.unwrap();
                let record = SessionRecord { session_key, data, expire_date, revision: None };
                Answer::of(self.store.create(&record).await.map(drop).map_err(SessionError::from))
            }
            "delete" if args.is_empty() => Answer::of(session.delete().await),
            // Of whatever key: the session forgets its own.
            "delete" if self.store.is_in_key() => Answer::of(session.delete().await),
            "delete" => {
                let key = SessionKey::parse(name).unwrap();
                Answer::of(self.store.delete(&key).await.map_err(SessionError::from))
            }
            "exists" => match SessionKey::parse(name) {
                Some(key) => Answer::of(session.exists(&key).await),
                None => false.into(),
            },
            "set_test_cookie" => Answer::of(session.set_test_cookie().await),
            "test_cookie_worked" => Answer::of(session.test_cookie_worked().await),
            "delete_test_cookie" => key_error(session.delete_test_cookie().await.unwrap()),
            "set_expiry" => Answer::of(set_expiry(&session, &args[0]).await),
            "get_expiry_age" => Answer::of(session.expiry_age().await),
            "get_expiry_date" => Answer::of(session.expiry_date().await),
            "get_expire_at_browser_close" => Answer::of(session.expire_at_browser_close().await),
            "expiry_age_kw" | "expiry_date_kw" => self.expiry_by_keyword(op, &args[0]).await,
            "advance" => {
                self.clock.advance(args[0].as_i64().unwrap());
                ().into()
            }
            "new_store_same_key" => {
                let key = session.session_key().await;
                self.session = Self::open(&self.store, &self.settings, key, &self.clock);
                ().into()
            }
            "other_request_deletes_row" => {
                let key = session.session_key().await.unwrap();
                self.store.delete(&key).await.unwrap();
                ().into()
            }
            other => panic!("{other}"),
        }
    }

    async fn expiry_by_keyword(&self, op: &str, keywords: &Value) -> Answer {
        let age = op == "expiry_age_kw";
        if let Some(modification) = keywords.get("modification") {
            let modification = datetime(modification);
            return if age {
                Answer::of(self.session.expiry_age_from(modification).await)
            } else {
                Answer::of(self.session.expiry_date_from(modification).await)
            };
        }
        // A passed expiry replaces the stored one; looking at that one counts as access in neither.
        let expiry = match &keywords["expiry"] {
            Value::Null => Expiry::Default,
            Value::Number(seconds) => Expiry::Age(seconds.as_i64().unwrap()),
            date => Expiry::Date(datetime(date)),
        };
        let now = self.settings.datetime(self.clock.now());
        let cookie_age = self.settings.cookie_age;
        if age {
            Answer::of(expiry.age(now, cookie_age).map_err(SessionError::from))
        } else {
            Answer::of(expiry.date(now, cookie_age).map_err(SessionError::from))
        }
    }

    /// The state and the rows after a step.
    async fn check(&mut self, step: &Value, at: &str) {
        let state = &step["state"];
        assert_eq!(self.session.accessed().await, state["accessed"], "{at}: accessed");
        assert_eq!(self.session.modified().await, state["modified"], "{at}: modified");

        let ours = self.session.session_key().await;
        let failed_create = ours.is_none() && step.get("raises").is_some();
        match (&ours, state["session_key"].as_str()) {
            // A cookie is signed again each time, by another clock.
            (None, None) | (Some(_), Some("<cookie value>")) => {}
            (Some(ours), Some(theirs)) => {
                // Known keys stay themselves; a new one of theirs is a new one of ours.
                let known = self.keys.entry(theirs.to_owned()).or_insert_with(|| ours.clone());
                assert_eq!(known.as_str(), ours.as_str(), "{at}: key");
                assert!(ours.as_str() == theirs || ours.as_str().len() == 32);
                self.seen.insert(ours.clone());
            }
            // Django takes the new key before it knows whether it can be stored, and then holds one
            // that leads nowhere. Ours stays as it was.
            (None, Some(_)) if failed_create => {}
            (ours, theirs) => panic!("{at}: {ours:?} for {theirs:?}"),
        }
        if !failed_create {
            assert_eq!(self.session.is_empty().await, state["is_empty"], "{at}: is_empty");
        }

        let mut rows = Vec::new();
        for key in &self.seen {
            if self.store.exists(key).await.unwrap() {
                rows.push(key.as_str().to_owned());
            }
        }
        if let Some(theirs) = step.get("db_keys").and_then(Value::as_array) {
            let theirs = theirs.iter().map(|key| key.as_str().unwrap());
            let theirs = theirs.map(|key| self.keys.get(key).map_or(key, SessionKey::as_str));
            let mut theirs: Vec<_> = theirs.map(str::to_owned).collect();
            theirs.sort();
            assert_eq!(rows, theirs, "{at}: rows");
        }

        // Looking at the data is an access, so only where the trace says that it was loaded.
        if state["cache"] != "NOT LOADED" {
            let data = self.session.data().await.unwrap();
            assert_eq!(data.to_json().unwrap(), to_python_json(&state["cache"]), "{at}: data");
        }
    }
}

async fn set_expiry(session: &Session, value: &Value) -> Result<(), SessionError> {
    let expiry = match (value, value.get("__type__").and_then(Value::as_str)) {
        (Value::Null, _) => Expiry::Default,
        (_, Some("datetime")) => Expiry::Date(datetime(value)),
        (_, Some("timedelta")) => {
            let number = |name: &str| value[name].as_i64().unwrap();
            let seconds = number("days") * 86_400 + number("seconds");
            let micros = SignedDuration::from_micros(number("microseconds"));
            Expiry::In(SignedDuration::from_secs(seconds) + micros)
        }
        (Value::Number(seconds), _) if seconds.as_i64() == Some(0) => Expiry::BrowserClose,
        (Value::Number(seconds), _) => Expiry::Age(seconds.as_i64().unwrap()),
        // Types that only Python lets in here.
        (other, _) => {
            return session.update(&one_value(EXPIRY_KEY, &to_python_json(other))).await;
        }
    };
    session.set_expiry(expiry).await
}

/// What `get_expiry_age` hands back as it is, being neither text nor date; an age is a number here.
fn is_not_an_age(answer: &Answer, expected: &Answer) -> bool {
    let returned = matches!(expected, Answer::Json(json) if json.starts_with('['));
    returned && *answer == Answer::Raised("TypeError")
}

/// Replays every trace that says what the newest release does.
pub(crate) async fn replay<F>(new_store: F, refuses_mixed_time_zones: bool)
where
    F: AsyncFn(&Value) -> Arc<dyn SessionStore>,
{
    let records = vectors::read("session_ops");
    let newest: HashMap<String, Value> = records
        .iter()
        .filter(|record| record["django_version"] == "6.1.3")
        .map(|record| (case(record), comparable(record)))
        .collect();
    let (mut replayed, mut changed) = (0, Vec::new());
    for record in &records {
        let version = text(record, "django_version");
        // This is the newest release; older ones are held against it where they say the same.
        if newest[&case(record)] != comparable(record) {
            changed.push((version.to_owned(), case(record)));
            continue;
        }
        replayed += 1;
        follow(record, new_store(record).await, refuses_mixed_time_zones).await;
    }
    // Python's `bool()` of a session changed in 6.1; ISO expiry came in 4.1, and with it every trace
    // that stores a date, or compares with one under USE_TZ=True (pytz before 4.0).
    for (version, case) in &changed {
        let explained = case == "db/bool_new"
            || case == "db/set_expiry_forms"
            || case.starts_with("db/expiry_table/");
        assert!(explained, "{version} {case}");
        assert!(case == "db/bool_new" || ["1.11.29", "2.2.28", "3.2.25"].contains(&&**version));
    }
    assert_eq!((replayed, changed.len()), (337, 107), "no record is passed over unseen");
}

/// Replays one trace, on a store without any session.
pub(crate) async fn follow(
    record: &Value,
    store: Arc<dyn SessionStore>,
    refuses_mixed_time_zones: bool,
) {
    let mut replay = Replay::new(record, store).await;
    for (index, step) in record["steps"].as_array().unwrap().iter().enumerate() {
        let op = text(step, "op");
        let at = format!("{} step {index} {op}", text(record, "id"));
        let args = step["args"].as_array().map_or(&[][..], Vec::as_slice);
        let answer = replay.step(op, args).await;
        let expected = Answer::expected(step);
        if op == "save" && expected == Answer::Raised("ValueError") && answer != expected {
            // An aware date under USE_TZ=False: SQLite and MySQL have no place for it. Where there
            // is one, the trace has nothing more to say.
            if !refuses_mixed_time_zones {
                break;
            }
            assert_eq!(answer, Answer::Raised("TypeError"), "{at}");
        } else {
            assert!(
                answer == expected || is_not_an_age(&answer, &expected),
                "{at}: {answer:?} for {expected:?}"
            );
        }
        replay.check(step, &at).await;
    }
}

fn case(record: &Value) -> String {
    text(record, "id").splitn(4, '/').nth(3).unwrap().to_owned()
}

/// The record without what names the release.
fn comparable(record: &Value) -> Value {
    let mut record = record.clone();
    let members = record.as_object_mut().unwrap();
    for name in ["id", "django_version", "python_version"] {
        members.shift_remove(name);
    }
    record
}

pub(crate) fn codec() -> SessionCodec {
    SessionCodec::new(&SecretKey::new("a key of this test").unwrap())
}

#[tokio::test]
async fn traces_of_django_are_followed_in_memory() {
    replay(async |_| Arc::new(MemoryStore::new(codec())) as _, false).await;
}

/// `load` over rows that are there, expired, missing, corrupt, under odd keys.
#[tokio::test]
async fn rows_are_loaded_as_django_loads_them() {
    let records = vectors::read("negative");
    let mut tally = Tally::new("negative");
    for record in records.iter().filter(|record| record.get("rows").is_some()) {
        let id = text(record, "id");
        let store = MemoryStore::new(codec_of(record));
        for row in record["rows"].as_array().unwrap() {
            if let Some(session_key) = SessionKey::parse(text(row, "session_key")) {
                let expire_date = DateTime::fromisoformat(text(row, "expire_date")).unwrap();
                store.insert_row(session_key, text(row, "session_data"), expire_date);
            }
        }
        let cookie = record["cookie_key"].as_str().and_then(SessionKey::parse);
        let cookie_text = cookie.as_ref().map(SessionKey::as_str);
        let given = record["cookie_key"].as_str();
        if vectors::release(record) < (1, 8) && cookie.is_none() && given.is_some() {
            // Before 1.8 a key could be short or empty.
            tally.not_supported(record, "keys of less than 8 characters");
            continue;
        }
        assert_eq!(cookie_text, record["session_key_after_init"].as_str(), "{id}");
        let settings = Arc::new(SessionSettings::default());
        let clock = FixedClock::at(record["now"].as_f64().unwrap());
        let session = Session::with_clock(Arc::new(store), settings, cookie, Arc::new(clock));

        let data = session.data().await.unwrap();
        let Some(result) = record.get("result") else {
            // `null` in a row breaks every access in Django; what is no base64 did before 3.1.
            let old = vectors::release(record) < (3, 1);
            assert!(id.ends_with("load/null_row") || old, "{id}");
            assert!(data.is_empty());
            tally.passed(record);
            continue;
        };
        // A list of pairs makes a dict in Python; here only an object makes a session. Python 2 has an
        // order of its own.
        let expected =
            if id.ends_with("load/list_row") { "{}".into() } else { to_python_json(result) };
        assert!(*data == SessionData::from_json(&expected).unwrap(), "{id}");
        tally.passed(record);
        if vectors::release(record) == (1, 6) {
            // 1.6 makes a new key at once, and has no `is_empty`.
            continue;
        }
        let key = session.session_key().await;
        assert_eq!(
            key.as_ref().map(SessionKey::as_str),
            record["session_key_after"].as_str(),
            "{id}"
        );
        assert_eq!(session.accessed().await, record["accessed"], "{id}");
        assert_eq!(session.modified().await, record["modified"], "{id}");
        assert_eq!(session.is_empty().await, record["is_empty"], "{id}");
    }
    assert_eq!(tally.passed, 210 - 6);
}

/// The codec of the release that made a record, which reads older forms only where that release did.
fn codec_of(record: &Value) -> SessionCodec {
    let mut record = record.clone();
    // 1.4 has one serializer.
    if vectors::release(&record) < (1, 5) {
        record["serializer"] = "pickle".into();
    }
    let old = vectors::release(&record) < (3, 1);
    let class = if old { "SessionStore" } else { ".SessionStore" };
    record["salt"] = format!("django.contrib.sessions{class}").into();
    formats::codec(&record).accept(formats::forms_of(&record).iter().copied())
}

/// The settings of a record.
fn settings_of(record: &Value) -> SessionSettings {
    let key = |value: &Value| SecretKey::new(vectors::secret(value)).unwrap();
    let mut settings = SessionSettings::default();
    settings.secret_key = Some(key(&record["secret_key"]));
    let fallbacks = record["fallbacks"].as_array().map_or(&[][..], Vec::as_slice);
    settings.secret_key_fallbacks = fallbacks.iter().map(key).collect();
    settings
}

/// What `get_session_auth_hash` gave, and what fallback keys accept.
#[test]
fn logins_are_checked_against_the_password_as_django_checks_them() {
    let records = vectors::read("auth_hash");
    let mut tally = Tally::new("auth_hash");
    let is_hash = |id: &str| !id.contains("/get_user/") && !id.contains("/flow/");
    let records = records.iter().filter(|record| is_hash(text(record, "id")));
    let mut hashes = 0;
    for record in records {
        let id = text(record, "id");
        let password = text(record, "password_field");
        let settings = settings_of(record);
        let primary = settings.secret_key.as_ref().unwrap();
        // 3.2 has both, the others one or the other.
        for (name, algorithm) in [
            ("hash_sha1", Algorithm::Sha1),
            ("hash_sha256", Algorithm::Sha256),
            ("legacy_hash", Algorithm::Sha1),
            (
                "hash",
                Algorithm::from_name(record["algorithm"].as_str().unwrap_or("sha256")).unwrap(),
            ),
        ] {
            let Some(hash) = record[name].as_str() else { continue };
            hashes += 1;
            assert_eq!(session_auth_hash_with(algorithm, primary, password), hash, "{id}");
            let verify = |hash: &str| {
                let found = verify_session_auth_hash_with([algorithm], hash, password, &settings)?;
                assert_eq!(found.algorithm, algorithm);
                assert_eq!(found.needs_upgrade, found.key != KeyMatch::Primary);
                Some(found.key)
            };
            let empty = SessionSettings::default();
            assert_eq!(verify_session_auth_hash(hash, password, &empty), None, "{id}");
            assert_eq!(verify(hash), Some(KeyMatch::Primary), "{id}");
            let simple = verify_session_auth_hash(hash, password, &settings);
            assert_eq!(simple.is_some(), algorithm == Algorithm::Sha256, "{id}");
            let others = record["fallback_hashes"].as_array().map_or(&[][..], Vec::as_slice);
            for (index, hash) in others.iter().enumerate() {
                assert_eq!(verify(hash.as_str().unwrap()), Some(KeyMatch::Fallback(index)), "{id}");
            }
            for wrong in ["", &hash[1..], &hash.to_uppercase().replace(char::is_numeric, "A")] {
                assert_eq!(verify(wrong), None, "{id}");
            }
            assert_eq!(verify_session_auth_hash(hash, "another", &settings), None, "{id}");
        }
        if record["algorithm"] == "sha256" {
            assert_eq!(session_auth_hash(primary, password), record["hash"], "{id}");
        }
        tally.passed(record);
    }
    assert_eq!(hashes, 5 * 20 + 3 * 20);
}

/// The hashes that `login`, `logout` and `update_session_auth_hash` found and left in sessions: the user's
/// own, of the passwords and keys that are recorded beside them.
#[test]
fn the_hash_in_a_session_is_that_of_the_user() {
    let records = vectors::read("auth_hash");
    let mut tally = Tally::new("auth_hash");
    let mut hashes: HashMap<&str, BTreeSet<String>> = HashMap::new();
    let is_hash = |record: &&Value| {
        record["password_field"].is_string() && !text(record, "id").contains("/get_user/")
    };
    for record in records.iter().filter(is_hash) {
        let release = hashes.entry(text(record, "django_version")).or_default();
        let settings = settings_of(record);
        for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
            let key = settings.secret_key.as_ref().unwrap();
            release.insert(session_auth_hash_with(algorithm, key, text(record, "password_field")));
        }
    }
    let (mut flows, mut checked) = (0, 0);
    for record in records.iter().filter(|record| text(record, "id").contains("/flow/")) {
        let id = text(record, "id");
        let known = &hashes[text(record, "django_version")];
        for side in ["before", "after"] {
            let Some(hash) = record[side]["data"][HASH_KEY].as_str() else {
                assert!(id.contains("logout") || side == "before", "{id}");
                continue;
            };
            // One that is of no user, and one of a password that is not recorded.
            let is_other = match (id.rsplit('/').next(), side) {
                (Some("login_same_user_stale_hash"), "before") => hash.trim_matches('0').is_empty(),
                (Some("update_session_auth_hash"), "after") => true,
                _ => false,
            };
            assert_eq!(known.contains(hash), !is_other, "{id} {side}");
            checked += 1;
        }
        tally.passed(record);
        flows += 1;
    }
    assert_eq!((flows, checked), (48, 72));
}

/// What `get_user` made of the hash in a session, release by release.
#[test]
fn a_session_is_flushed_where_django_flushes_it() {
    let records = vectors::read("auth_hash");
    let mut tally = Tally::new("auth_hash");
    let records = records.iter().filter(|record| text(record, "id").contains("/get_user/"));
    let mut checked = 0;
    for record in records {
        let id = text(record, "id");
        let algorithms = match &text(record, "django_version")[..3] {
            "1.1" | "2.2" => &[Algorithm::Sha1][..],
            "3.2" => &[Algorithm::Sha256, Algorithm::Sha1],
            _ => &[Algorithm::Sha256],
        };
        let stored = record["before"]["data"][HASH_KEY].as_str().unwrap_or_default();
        let password = text(record, "password_field");
        let settings = settings_of(record);
        let found =
            verify_session_auth_hash_with(algorithms.iter().copied(), stored, password, &settings);
        assert_eq!(record["anonymous"], found.is_none(), "{id}");
        if let Some(found) = found {
            let key = settings.secret_key.as_ref().unwrap();
            let now = session_auth_hash_with(algorithms[0], key, password);
            assert_eq!(found.needs_upgrade, stored != now, "{id}");
            // Of a fallback key Django stores the hash anew, of SHA-1 it does not.
            let replaced = record["after"]["data"][HASH_KEY] != *stored;
            assert_eq!(replaced, found.key != KeyMatch::Primary, "{id}");
        }
        tally.passed(record);
        checked += 1;
    }
    assert_eq!(checked, 37);
}

/// Django could read it, so it must not be emptied and then overwritten.
#[tokio::test]
async fn a_session_beyond_the_limit_is_an_error_and_stays() {
    let store = MemoryStore::new(codec().with_max_size(1000));
    let mut data = SessionData::new();
    data.insert("text", &"x".repeat(2000)).unwrap();
    let key = SessionKey::generate();
    let text = codec().encode(&data, 0).unwrap();
    store.insert_row(key.clone(), &*text, DateTime::Aware(Timestamp::MAX));

    let settings = Arc::new(SessionSettings::default());
    let session = Session::new(Arc::new(store.clone()), settings, Some(key.clone()));
    for error in [session.get::<u8>("text").await.unwrap_err(), session.save().await.unwrap_err()] {
        let SessionError::Store(StoreError::Decode(error)) = error else { panic!("{error:?}") };
        assert!(error.is_too_large());
    }
    assert_eq!(session.session_key().await, Some(key.clone()));
    assert_eq!(store.row(&key).unwrap().0, text);
}

/// What `set_expiry(datetime.max)` of Django leaves, in the session and in the row: it never ends.
#[tokio::test]
async fn a_session_until_the_end_of_time_is_one() {
    let places = Place::all().await;
    let directory = tempfile::tempdir().unwrap();
    for settings in [stores::settings(), stores::naive_settings()] {
        let (text, zone) = if settings.use_tz {
            ("9999-12-31T23:59:59.999999+00:00", "+00")
        } else {
            ("9999-12-31T23:59:59.999999", "")
        };
        let settings = Arc::new(settings);
        let codec = settings.codec().unwrap();
        let file = FileStore::new(directory.path(), codec).with_settings(&settings);
        let mut all: Vec<(Arc<dyn SessionStore>, Option<&Place>)> = vec![(Arc::new(file), None)];
        for place in &places {
            all.push((Arc::new(place.store_for(&settings).await), Some(place)));
        }
        for (store, place) in all {
            let what = place.map(|place| place.kind);
            let session = Session::new(store.clone(), settings.clone(), None);
            session.insert(EXPIRY_KEY, text).await.unwrap();
            session.save().await.unwrap();
            let key = session.session_key().await;
            if let Some(place) = place {
                let zone = if place.kind == Kind::Postgres { zone } else { "" };
                let end = format!(
                    "UPDATE {{table}} SET expire_date = '9999-12-31 23:59:59.999999{zone}' \
                     WHERE session_key = '{}'",
                    key.as_ref().unwrap().as_str()
                );
                place.execute(&end).await;
            }
            for number in 0..2 {
                let again = Session::new(store.clone(), settings.clone(), key.clone());
                assert!(again.get::<String>(EXPIRY_KEY).await.unwrap().is_some(), "{what:?}");
                assert!(
                    again.expiry_age().await.unwrap() > SignedDuration::from_hours(24),
                    "{what:?}"
                );
                again.insert("number", &number).await.unwrap();
                again.save().await.unwrap();
                store.clear_expired(settings.datetime(Timestamp::now())).await.unwrap();
            }
            let last =
                store.load(&key.unwrap(), settings.datetime(Timestamp::now())).await.unwrap();
            assert_eq!(last.unwrap().data.get::<String>(EXPIRY_KEY).unwrap().unwrap(), text);
        }
    }
}

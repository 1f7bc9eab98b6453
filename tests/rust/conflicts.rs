//! Two requests, one session: what each of them finds afterwards.

use std::sync::Arc;

use django_session::session::{OnConflict, Resolution};
use django_session::store::MemoryStore;
use django_session::{
    SecretKey, Session, SessionCodec, SessionData, SessionError, SessionKey, SessionSettings,
    SessionStore, StoreError,
};
use jiff::SignedDuration;

use crate::session::FixedClock;

const NOW: i64 = 1_700_000_000;
#[expect(clippy::cast_precision_loss, reason = "it is exact")]
const NOW_F64: f64 = NOW as f64;

struct Site {
    store: MemoryStore,
    settings: SessionSettings,
    clock: FixedClock,
}

impl Site {
    fn new() -> Self {
        let codec = SessionCodec::new(&SecretKey::new("secret").unwrap());
        Self {
            store: MemoryStore::new(codec),
            settings: SessionSettings::default(),
            clock: FixedClock::at(NOW_F64),
        }
    }

    fn that(on_conflict: OnConflict) -> Self {
        let mut site = Self::new();
        site.settings.on_conflict = on_conflict;
        site
    }

    fn request(&self, session_key: Option<&SessionKey>) -> Session {
        Session::with_clock(
            Arc::new(self.store.clone()),
            Arc::new(self.settings.clone()),
            session_key.cloned(),
            Arc::new(self.clock.clone()),
        )
    }

    /// A stored session of this data.
    async fn session(&self, json: &str) -> SessionKey {
        let session = self.request(None);
        session.update(&SessionData::from_json(json).unwrap()).await.unwrap();
        session.save().await.unwrap();
        session.session_key().await.unwrap()
    }

    /// Two requests that have loaded the session.
    async fn two(&self, session_key: &SessionKey) -> [Session; 2] {
        let both = [self.request(Some(session_key)), self.request(Some(session_key))];
        for session in &both {
            session.data().await.unwrap();
        }
        both
    }

    async fn stored(&self, session_key: &SessionKey) -> Option<String> {
        let now = self.settings.datetime(jiff::Timestamp::from_second(NOW).unwrap());
        let record = self.store.load(session_key, now).await.unwrap()?;
        Some(record.data.to_json().unwrap())
    }
}

#[tokio::test]
async fn both_requests_keep_what_they_changed() {
    let site = Site::new();
    let key = site.session(r#"{"cart":[1],"seen":1}"#).await;
    let [one, other] = site.two(&key).await;
    one.insert("cart", &[1, 2]).await.unwrap();
    other.insert("theme", "dark").await.unwrap();
    other.remove("seen").await.unwrap();
    one.save().await.unwrap();
    other.save().await.unwrap();
    let expected = r#"{"cart":[1,2],"theme":"dark"}"#;
    assert_eq!(site.stored(&key).await.unwrap(), expected);
    // Who saved later has seen what the other one did.
    assert_eq!(other.get::<Vec<i32>>("cart").await.unwrap().unwrap(), [1, 2]);
    // And goes on from there.
    one.insert("last", &1).await.unwrap();
    one.save().await.unwrap();
    other.insert("last", &2).await.unwrap();
    other.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"cart":[1,2],"theme":"dark","last":2}"#);
}

#[tokio::test]
async fn without_a_conflict_nothing_is_read_again() {
    let site = Site::new();
    let key = site.session(r#"{"a":1}"#).await;
    let session = site.request(Some(&key));
    session.insert("b", &1).await.unwrap();
    session.save().await.unwrap();
    session.insert("c", &1).await.unwrap();
    session.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"a":1,"b":1,"c":1}"#);
}

#[tokio::test]
async fn overwriting_is_django_s_way() {
    let site = Site::that(OnConflict::Overwrite);
    let key = site.session(r#"{"a":1}"#).await;
    let [one, other] = site.two(&key).await;
    one.insert("b", &1).await.unwrap();
    other.insert("c", &1).await.unwrap();
    one.save().await.unwrap();
    other.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"a":1,"c":1}"#);
}

#[tokio::test]
async fn a_conflict_can_be_an_error() {
    let site = Site::that(OnConflict::Error);
    let key = site.session(r#"{"a":1}"#).await;
    let [one, other] = site.two(&key).await;
    one.insert("b", &1).await.unwrap();
    other.insert("c", &1).await.unwrap();
    one.save().await.unwrap();
    let error = other.save().await.unwrap_err();
    assert!(matches!(error, SessionError::Store(StoreError::Conflict)), "{error:?}");
    assert!(!error.is_interrupted());
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"a":1,"b":1}"#);
}

/// The row is another text by now, signed at another time, with the same session in it.
#[tokio::test]
async fn the_same_session_written_again_is_no_conflict() {
    let site = Site::that(OnConflict::Error);
    let key = site.session(r#"{"a":1,"b":{"c":[1]}}"#).await;
    let [one, other] = site.two(&key).await;
    let codec = SessionCodec::new(&SecretKey::new("secret").unwrap());
    let write_again = |json: &str, time: i64| {
        let data = SessionData::from_json(json).unwrap();
        let (before, expire_date) = site.store.row(&key).unwrap();
        let text = codec.encode(&data, time).unwrap();
        assert_ne!(text, before);
        site.store.insert_row(key.clone(), text, expire_date);
    };
    // In another order too.
    write_again(r#"{"b":{"c":[1]},"a":1}"#, NOW - 100);
    one.insert("d", &1).await.unwrap();
    one.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"a":1,"b":{"c":[1]},"d":1}"#);
    // For the other one it is another session by now, whatever is written again.
    other.insert("e", &1).await.unwrap();
    assert!(matches!(other.save().await, Err(SessionError::Store(StoreError::Conflict))));
    write_again(r#"{"a":1,"b":{"c":[1]},"d":1}"#, NOW - 200);
    assert!(matches!(other.save().await, Err(SessionError::Store(StoreError::Conflict))));
    // Two that want the same have changed it twice.
    let [one, other] = site.two(&key).await;
    for session in [&one, &other] {
        session.insert("d", &2).await.unwrap();
    }
    one.save().await.unwrap();
    assert!(matches!(other.save().await, Err(SessionError::Store(StoreError::Conflict))));
}

#[tokio::test]
async fn counters_add_up_if_a_function_says_so() {
    let site = Site::that(OnConflict::merge_with(|conflict| {
        let number = |json: &Option<std::borrow::Cow<'_, str>>| -> i64 {
            json.as_deref().and_then(|json| json.parse().ok()).unwrap_or(0)
        };
        let added = number(conflict.mine) - number(conflict.loaded);
        Resolution::Json((number(conflict.stored) + added).to_string())
    }));
    let key = site.session(r#"{"hits":10}"#).await;
    let [one, other] = site.two(&key).await;
    one.insert("hits", &11).await.unwrap();
    other.insert("hits", &12).await.unwrap();
    one.save().await.unwrap();
    other.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"hits":13}"#);
    assert_eq!(other.get::<i64>("hits").await.unwrap(), Some(13));
    // Each adds its own, also where both come to the same number.
    let [one, other] = site.two(&key).await;
    for session in [&one, &other] {
        session.insert("hits", &14).await.unwrap();
    }
    one.save().await.unwrap();
    other.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"hits":15}"#);
}

#[tokio::test]
async fn a_session_that_was_cleared_is_empty_whatever_others_did() {
    let site = Site::new();
    let key = site.session(r#"{"a":1}"#).await;
    let [one, other] = site.two(&key).await;
    one.insert("b", &1).await.unwrap();
    one.save().await.unwrap();
    other.clear().await;
    other.insert("c", &1).await.unwrap();
    other.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"c":1}"#);
}

#[tokio::test]
async fn a_deleted_session_stays_deleted() {
    let site = Site::new();
    let key = site.session(r#"{"_auth_user_id":"1"}"#).await;
    for what in ["flush", "delete", "cycle_key"] {
        let key = match site.stored(&key).await {
            Some(_) => key.clone(),
            None => site.session(r#"{"_auth_user_id":"1"}"#).await,
        };
        let [one, other] = site.two(&key).await;
        match what {
            "flush" => one.flush().await.unwrap(),
            "delete" => one.delete().await.unwrap(),
            _ => one.cycle_key().await.unwrap(),
        }
        other.insert("late", &1).await.unwrap();
        assert!(other.save().await.unwrap_err().is_interrupted(), "{what}");
        assert!(other.touch().await.is_err_and(|error| error.is_interrupted()), "{what}");
        assert_eq!(site.stored(&key).await, None, "{what}");
    }
}

#[tokio::test]
async fn what_others_save_moves_along_to_the_new_key() {
    let site = Site::new();
    let key = site.session(r#"{"cart":[1]}"#).await;
    let [login, other] = site.two(&key).await;
    other.insert("cart", &[1, 2]).await.unwrap();
    other.save().await.unwrap();
    login.insert("step", &1).await.unwrap();
    login.cycle_key().await.unwrap();
    login.insert("_auth_user_id", "1").await.unwrap();
    login.save().await.unwrap();
    let new = login.session_key().await.unwrap();
    assert_ne!(new.as_str(), key.as_str());
    assert_eq!(site.stored(&key).await, None);
    let expected = r#"{"cart":[1,2],"step":1,"_auth_user_id":"1"}"#;
    assert_eq!(site.stored(&new).await.unwrap(), expected);
}

#[tokio::test]
async fn a_user_who_logged_out_does_not_come_back_under_a_new_key() {
    let site = Site::new();
    let key = site.session(r#"{"_auth_user_id":"1"}"#).await;
    let [password_change, logout] = site.two(&key).await;
    logout.flush().await.unwrap();
    assert!(password_change.cycle_key().await.unwrap_err().is_interrupted());
    assert!(site.store.session_keys().is_empty());
    // Nothing is left of it. The key leads nowhere, so that the cookie is left to whoever logged out.
    assert!(password_change.data().await.unwrap().is_empty());
    assert_ne!(password_change.session_key().await, Some(key));
    assert!(password_change.save().await.unwrap_err().is_interrupted());
    assert!(site.store.session_keys().is_empty());
}

#[tokio::test]
async fn two_logins_at_once_both_keep_the_cart() {
    let site = Site::new();
    let key = site.session(r#"{"cart":[1]}"#).await;
    let both = site.two(&key).await;
    for login in &both {
        login.cycle_key().await.unwrap();
        assert_eq!(login.get::<Vec<i32>>("cart").await.unwrap().unwrap(), [1]);
    }
    assert_eq!(site.stored(&key).await, None);
}

#[tokio::test]
async fn a_row_that_nobody_can_read_is_replaced() {
    let site = Site::new();
    let key = site.session(r#"{"a":1}"#).await;
    let session = site.request(Some(&key));
    session.insert("b", &1).await.unwrap();
    let (_, expire_date) = site.store.row(&key).unwrap();
    site.store.insert_row(key.clone(), "broken", expire_date);
    session.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"a":1,"b":1}"#);
}

#[tokio::test]
async fn a_touch_moves_the_expiry_and_nothing_else() {
    let mut site = Site::new();
    site.settings.touch_interval = Some(SignedDuration::from_secs(60));
    let key = site.session(r#"{"a":1}"#).await;
    let (text, before) = site.store.row(&key).unwrap();
    for (seconds, moves) in [(59, false), (1, true), (59, false), (1, true)] {
        site.clock.advance(seconds);
        let session = site.request(Some(&key));
        assert_eq!(session.touch().await.unwrap(), moves);
        assert!(!session.touch().await.unwrap(), "once is enough");
    }
    let (text_now, now) = site.store.row(&key).unwrap();
    assert_eq!((text_now, now.since(before)), (text, Some(SignedDuration::from_secs(120))));

    // What is not saved yet stays to be saved, and what others did is not undone.
    site.clock.advance(60);
    let [one, other] = site.two(&key).await;
    other.insert("b", &1).await.unwrap();
    other.save().await.unwrap();
    one.insert("c", &1).await.unwrap();
    assert!(one.touch().await.unwrap());
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"a":1,"b":1}"#);
    one.save().await.unwrap();
    assert_eq!(site.stored(&key).await.unwrap(), r#"{"a":1,"b":1,"c":1}"#);

    // A date stays where it is, and there is nothing to move where there is no session.
    let session = site.request(Some(&key));
    session.set_expiry(django_session::Expiry::In(SignedDuration::from_secs(300))).await.unwrap();
    session.save().await.unwrap();
    site.clock.advance(200);
    assert!(!site.request(Some(&key)).touch().await.unwrap());
    assert!(!site.request(None).touch().await.unwrap());
    let unknown = SessionKey::generate();
    assert!(!site.request(Some(&unknown)).touch().await.unwrap());
}

//! Sessions in their own cookie: the traces of Django's engine, its cookies, and a Django at the other end.

use std::sync::Arc;

use django_session::codec::{Format, KeyMatch, SIGNED_COOKIES_SALT, Serializer};
use django_session::session::{Clock as _, SessionRecord};
use django_session::store::SignedCookieStore;
use django_session::{
    DateTime, DecodeError, Expiry, SecretKey, Session, SessionCodec, SessionData, SessionKey,
    SessionSettings, SessionStore, StoreError,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::differential::{self, Engine, Random};
use crate::middleware;
use crate::session::{self, FixedClock};
use crate::vectors::{self, Tally, text};

const NOW: f64 = 1_700_000_000.0;

fn settings() -> SessionSettings {
    SessionSettings::default()
        .with_secret_key(SecretKey::new("correct horse battery staple").unwrap())
}

/// The settings of the site that made a record.
fn settings_of(record: &Value) -> SessionSettings {
    let key = |value| SecretKey::new(vectors::secret(value)).unwrap();
    let mut settings = SessionSettings::default().with_secret_key(key(&record["secret_key"]));
    let fallbacks = record["fallbacks"].as_array().into_iter().flatten();
    settings.secret_key_fallbacks = fallbacks.map(key).collect();
    match vectors::release(record) {
        (..=2, _) | (3, 0) => settings.format = Format::Legacy,
        (3, _) => settings.accept = vec![Format::Legacy, Format::SignedSha1],
        _ => {}
    }
    if let Some(name) = record["serializer"].as_str() {
        settings.serializer = Serializer::from_name(name).unwrap();
    }
    settings
}

/// A session and the clock of both, its own and the store's.
fn open(settings: &SessionSettings, cookie: Option<&str>, clock: &FixedClock) -> Session {
    let store = SignedCookieStore::new(settings).unwrap().with_clock(clock.clone());
    let key = cookie.and_then(SessionKey::parse);
    let settings = Arc::new(settings.clone());
    Session::with_clock(Arc::new(store), settings, key, Arc::new(clock.clone()))
}

async fn cookie(session: &Session) -> String {
    session.session_key().await.unwrap().as_str().to_owned()
}

#[tokio::test]
async fn cookies_are_loaded_as_long_as_django_loads_them() {
    let mut tally = Tally::new("signed_cookies");
    for record in vectors::read("signed_cookies") {
        let (id, value) = (text(&record, "id"), text(&record, "cookie"));
        let mut settings = settings_of(&record);
        let key = settings.secret_key.as_ref().unwrap();
        let codec = SessionCodec::with_salt(key, text(&record, "salt"))
            .with_serializer(settings.serializer)
            .accept([Format::SignedSha1]);
        let whole = codec.decode(value).unwrap().data;
        for check in record["load_checks"].as_array().unwrap() {
            let at = format!("{id} {}", text(check, "label"));
            settings.cookie_age = check["cookie_age"].as_i64().unwrap();
            let clock = FixedClock::at(check["now"].as_f64().unwrap());
            let session = open(&settings, Some(value), &clock);
            let data = session.data().await.unwrap();
            let refused = check["modified_after_load"].as_bool().unwrap();
            assert!(*data == if refused { SessionData::new() } else { whole.clone() }, "{at}");
            assert_eq!(session.modified().await, refused, "{at}");
            assert_eq!(cookie(&session).await, value, "{at}");
            assert!(!session.is_empty().await, "{at}");
        }
        tally.passed(&record);
    }
    assert_eq!(tally.passed, 325);
}

#[tokio::test]
async fn traces_of_the_engine_are_followed() {
    let mut passed = 0;
    for record in vectors::read("session_ops_engines") {
        if record["backend"] != "signed_cookies" {
            continue;
        }
        let (case, old) = (vectors::case(&record), vectors::release(&record));
        // Python's `bool()` of a session changed in 6.1, and dates as text came in 4.1.
        if (case.ends_with("bool_new") && old < (6, 1))
            || (case.ends_with("set_expiry_forms") && old < (4, 1))
        {
            continue;
        }
        let clock = FixedClock::at(record["now"].as_f64().unwrap());
        let store = SignedCookieStore::new(&settings_of(&record)).unwrap().with_clock(clock);
        session::follow(&record, Arc::new(store), false).await;
        passed += 1;
    }
    assert_eq!(passed, 27 * 6 - 5 - 3);
}

/// What the client reads, to the last byte.
#[tokio::test]
async fn responses_are_those_of_django() {
    let mut passed = 0;
    for record in vectors::read("middleware_engines") {
        // What older releases answered otherwise has nothing to do with the engine.
        if record["backend"] != "signed_cookies" || vectors::release(&record) < (3, 1) {
            continue;
        }
        let mut settings = settings_of(&record);
        let overlay = SessionSettings::from_json(&record["settings"].to_string()).unwrap();
        settings.save_every_request = overlay.save_every_request;
        let clock = FixedClock::at(record["now"].as_f64().unwrap());
        let store = SignedCookieStore::new(&settings).unwrap().with_clock(clock);
        middleware::check_without_rows(&record, store, settings).await;
        passed += 1;
    }
    assert_eq!(passed, 40);
}

#[tokio::test]
async fn a_cookie_that_nobody_signed_is_replaced() {
    let clock = FixedClock::at(NOW);
    let signed = {
        let session = open(&settings(), None, &clock);
        session.insert("a", &1).await.unwrap();
        session.save().await.unwrap();
        cookie(&session).await
    };
    let other_salt = SessionCodec::new(settings().secret_key.as_ref().unwrap());
    let of_a_row = other_salt.encode(&SessionData::new(), 1_700_000_000).unwrap();
    let old_form = other_salt.with_format(Format::Legacy).encode(&SessionData::new(), 0).unwrap();
    for forged in [
        &signed[..signed.len() - 1],
        &signed.replace("eyJhIjoxfQ", "eyJhIjoyfQ"),
        &signed.to_uppercase(),
        &format!("{signed}="),
        &of_a_row,
        &old_form,
        "a session key of thirty-two bytes",
        "::::::::",
        "\0\0\0\0\0\0\0\0",
        "ключ:сеанса:сеанса",
        &"x".repeat(100_000),
    ] {
        let session = open(&settings(), Some(forged), &clock);
        assert_eq!(session.get::<i64>("a").await.unwrap(), None);
        assert!(session.modified().await, "it is to be replaced");
        assert_eq!(cookie(&session).await, forged);
        session.save().await.unwrap();
        assert!(cookie(&session).await.starts_with("e30:1r31eq:"));
    }
}

#[tokio::test]
async fn a_session_too_long_for_a_browser_is_an_error() {
    let clock = FixedClock::at(NOW);
    let mut settings = settings();
    settings.cookie_domain = Some("example.com".into());
    settings.cookie_secure = true;
    let session = open(&settings, None, &clock);
    // Nothing that could be compressed.
    let noise = |count: usize| -> String {
        (0..count).map(|_| SessionKey::generate().as_str()[..1].to_owned()).collect()
    };
    let mut fits = 0;
    for length in (3000..).step_by(7) {
        session.insert("noise", &noise(length)).await.unwrap();
        match session.save().await {
            Ok(()) => fits = length,
            Err(error) => {
                let text = format!("{error:?}");
                let django_session::SessionError::Store(StoreError::TooLarge { length, limit }) =
                    error
                else {
                    panic!("{text}");
                };
                assert!(length > limit && limit == 4093);
                break;
            }
        }
    }
    assert!((4000..5000).contains(&fits), "{fits}");

    // It is the length of the whole header that counts.
    let whole = middleware::set_cookie_of(
        SignedCookieStore::new(&settings).unwrap(),
        settings.clone(),
        noise(fits - 100),
    );
    let whole = whole.await;
    assert!(whole.len() <= 4093 && whole.len() > 3900, "{}", whole.len());

    let record = SessionRecord {
        session_key: SessionKey::generate(),
        data: Arc::new(
            SessionData::from_json(&json!({ "noise": noise(9000) }).to_string()).unwrap(),
        ),
        expire_date: DateTime::Aware(clock.now()),
        revision: None,
    };
    let store = SignedCookieStore::new(&settings).unwrap();
    let error = store.save(&record).await.unwrap_err();
    assert!(!error.is_outage() && !error.is_retryable() && !error.is_corrupt());
    let narrow = store.clone().with_max_length(150);
    assert!(matches!(
        narrow.save(&SessionRecord { data: Arc::default(), ..record.clone() }).await,
        Err(StoreError::TooLarge { limit: 150, .. })
    ));
    let saved = store.with_max_length(None).save(&record).await.unwrap();
    assert!(saved.session_key.unwrap().as_str().len() > 7000);
}

#[tokio::test]
async fn fallback_keys_are_read_and_never_sign() {
    let clock = FixedClock::at(NOW);
    let mut old = settings();
    let session = open(&old, None, &clock);
    session.insert("a", &1).await.unwrap();
    session.save().await.unwrap();
    let signed = cookie(&session).await;

    let retired = old.secret_key.replace(SecretKey::new("the new one").unwrap()).unwrap();
    assert_eq!(open(&old, Some(&signed), &clock).get::<i64>("a").await.unwrap(), None);
    old.secret_key_fallbacks = vec![retired];
    let session = open(&old, Some(&signed), &clock);
    assert_eq!(session.get::<i64>("a").await.unwrap(), Some(1));
    session.save().await.unwrap();
    let codec = SessionCodec::with_salt(old.secret_key.as_ref().unwrap(), SIGNED_COOKIES_SALT)
        .with_fallbacks(&old.secret_key_fallbacks);
    let found = codec.decode(&cookie(&session).await).unwrap();
    assert_eq!(found.key, KeyMatch::Primary);
}

/// What the next save would destroy is not taken for an empty session.
#[tokio::test]
async fn another_serializer_is_an_error() {
    let clock = FixedClock::at(NOW);
    let mut pickles = settings();
    pickles.serializer = Serializer::Pickle;
    let session = open(&pickles, None, &clock);
    session.insert("a", &1).await.unwrap();
    session.save().await.unwrap();
    let signed = cookie(&session).await;
    assert_eq!(open(&pickles, Some(&signed), &clock).get::<i64>("a").await.unwrap(), Some(1));
    let error = open(&settings(), Some(&signed), &clock).data().await.unwrap_err();
    assert!(matches!(
        error,
        django_session::SessionError::Store(StoreError::Decode(
            DecodeError::WrongSerializer { .. }
        ))
    ));
}

#[tokio::test]
async fn touching_signs_anew_and_not_too_often() {
    let clock = FixedClock::at(NOW);
    let mut settings = settings();
    settings.touch_interval = Some(SignedDuration::from_secs(60));
    for expiry in [Expiry::Default, Expiry::Age(300)] {
        let session = open(&settings, None, &clock);
        session.set_expiry(expiry).await.unwrap();
        session.save().await.unwrap();
        let first = cookie(&session).await;
        let session = open(&settings, Some(&first), &clock);
        clock.advance(59);
        assert!(!session.touch().await.unwrap());
        clock.advance(1);
        assert!(session.touch().await.unwrap());
        let second = cookie(&session).await;
        assert_ne!(first, second);
        assert!(!session.modified().await);
        assert!(!session.touch().await.unwrap());
        clock.advance(1_209_600 - 30);
        assert_eq!(open(&settings, Some(&first), &clock).data().await.unwrap().len(), 0);
        let again = open(&settings, Some(&second), &clock);
        again.data().await.unwrap();
        assert!(!again.modified().await, "it is still good");
    }
}

/// Logging out is forgetting; a copy of the cookie is as good as before.
#[tokio::test]
async fn deleting_is_forgetting() {
    let clock = FixedClock::at(NOW);
    let session = open(&settings(), None, &clock);
    session.insert("a", &1).await.unwrap();
    session.save().await.unwrap();
    let copy = cookie(&session).await;
    for flush in [false, true] {
        let session = open(&settings(), Some(&copy), &clock);
        assert_eq!(session.get::<i64>("a").await.unwrap(), Some(1));
        session.set_modified(false).await;
        if flush {
            session.flush().await.unwrap();
        } else {
            session.delete().await.unwrap();
        }
        assert!(session.is_empty().await && session.modified().await);
        session.save().await.unwrap();
        assert!(cookie(&session).await.starts_with("e30:"), "nothing comes back");
    }
    let key = SessionKey::parse(&copy).unwrap();
    let store = SignedCookieStore::new(&settings()).unwrap();
    assert!(!store.exists(&key).await.unwrap());
    store.delete(&key).await.unwrap();
    let now = DateTime::Aware(clock.now());
    assert!(store.load(&key, now).await.unwrap().is_some());
    assert!(matches!(store.clear_expired(now).await, Err(StoreError::Unsupported { .. })));
}

#[tokio::test]
async fn django_and_we_take_cookies_from_each_other() {
    const STEPS: usize = 3000;
    let Some(mut django) = Engine::start(&json!({
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    })) else {
        return;
    };
    let settings = SessionSettings::default()
        .with_secret_key(SecretKey::new(differential::SECRET_KEY).unwrap());
    let store: Arc<dyn SessionStore> = Arc::new(SignedCookieStore::new(&settings).unwrap());
    let settings = Arc::new(settings);
    let mut random = Random::new();
    // The cookies that clients hold, and what is in them.
    let mut jar: Vec<(String, Value)> = vec![("a bad one".to_owned(), json!({}))];
    for step in 0..STEPS {
        let (before, data) = jar[random.below(jar.len())].clone();
        let bad = !before.contains(':') || before.ends_with(":forged");
        let ops = [
            "load",
            "load",
            "set",
            "set",
            "save",
            "cycle_key",
            "flush",
            "delete",
            "exists",
            "forge",
        ];
        let op = ops[random.below(ops.len())];
        let update =
            json!({ random.below(30).to_string(): [random.below(99), "é\u{7f}", null, 0.5] });
        if op == "forge" {
            jar.push((format!("{}:forged", &before[..before.len().min(300)]), json!({})));
            continue;
        }
        let in_django = random.below(2) == 0;
        let (after, found, modified) = if in_django {
            let said = django.ask(&json!({ "op": op, "key": before, "data": update }));
            assert_eq!(said.get("raised"), None, "step {step} {op}");
            let found =
                said["json"].as_str().map(|json| serde_json::from_str::<Value>(json).unwrap());
            assert!(op != "exists" || said["found"] == false);
            (said["key"].as_str().map(str::to_owned), found, said["modified"] == true)
        } else {
            let key = SessionKey::parse(&before);
            let session = Session::new(Arc::clone(&store), Arc::clone(&settings), key.clone());
            match op {
                "set" => {
                    let update = SessionData::from_json(&update.to_string()).unwrap();
                    session.update(&update).await.unwrap();
                    session.save().await.unwrap();
                }
                "save" => session.save().await.unwrap(),
                "cycle_key" => session.cycle_key().await.unwrap(),
                "flush" => session.flush().await.unwrap(),
                "delete" => session.delete().await.unwrap(),
                "exists" => assert!(!session.exists(&key.unwrap()).await.unwrap()),
                _ => {}
            }
            let found = if matches!(op, "delete" | "exists") {
                None
            } else {
                let json = session.data().await.unwrap().to_json().unwrap();
                Some(serde_json::from_str(&json).unwrap())
            };
            let after = session.session_key().await.map(|key| key.as_str().to_owned());
            (after, found, session.modified().await)
        };
        let mut expected = data.clone();
        if op == "set" {
            expected.as_object_mut().unwrap().extend(update.as_object().unwrap().clone());
        }
        match op {
            "flush" | "delete" => assert_eq!((&after, modified), (&None, true), "step {step} {op}"),
            "load" | "exists" => {
                assert_eq!(after.as_deref(), Some(&*before), "step {step} {op}");
                assert_eq!(modified, bad && op == "load", "step {step} {op}");
            }
            _ => assert!(modified && after.is_some(), "step {step} {op}"),
        }
        if let Some(found) = found {
            let gone = op == "flush";
            assert_eq!(found, if gone { json!({}) } else { expected.clone() }, "step {step} {op}");
        }
        if let Some(after) = after
            && after.len() < 3000
        {
            jar.push((after, if op == "exists" { data } else { expected }));
            if jar.len() > 40 {
                jar.remove(random.below(30));
            }
        }
    }
}

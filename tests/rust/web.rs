//! The layer and the extractors around what `middleware` proves: outages, secrets, cookies, axum.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use django_session::session::{Revision, Saved, SessionRecord};
use django_session::store::MemoryStore;
use django_session::{
    DateTime, SecretKey, Session, SessionCodec, SessionData, SessionError, SessionKey,
    SessionLayer, SessionRejection, SessionSettings, SessionStore, StoreError, UserId,
};
use http::header::{COOKIE, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::middleware::FixedClock;
use crate::vectors;

const NOW: i64 = 1_700_000_000;
const KEY: &str = "abcdefghijklmnopqrstuvwxyz012345";
const BACKEND: &str = "django.contrib.auth.backends.ModelBackend";

#[tokio::test]
async fn an_outage_is_a_503_that_leaves_the_cookie_alone() {
    let app = |fails, settings| {
        Router::new()
            .route("/read", get(async |session: Session| read(&session).await))
            .route("/user", get(async |_: UserId| "in"))
            .route("/perhaps-user", get(async |_: Option<UserId>| "in"))
            .route("/write", get(async |session: Session| write(&session).await))
            .route("/clear", get(async |session: Session| session.clear().await))
            .route("/nothing", get(async || ([(SET_COOKIE, "theme=dark")], "in")))
            .layer(SessionLayer::new(Outage { store: logged_in(), fails }, settings))
    };
    let mut every_request = SessionSettings::default();
    every_request.save_every_request = true;
    for (path, fails, settings) in [
        ("/read", "load", SessionSettings::default()),
        ("/user", "load", SessionSettings::default()),
        ("/perhaps-user", "load", SessionSettings::default()),
        ("/write", "load", SessionSettings::default()),
        ("/write", "save", SessionSettings::default()),
        ("/clear", "save", SessionSettings::default()),
        // Here it is looking for the expiry that fails.
        ("/nothing", "load", every_request.clone()),
        ("/nothing", "save", every_request),
    ] {
        let (logs, _guard) = capture_logs();
        let response = app(fails, settings).oneshot(request(path, Some(KEY))).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path} {fails}");
        assert!(!response.headers().contains_key(SET_COOKIE), "{path} {fails}");
        assert_eq!(body(response).await, "Service unavailable");
        let logs = logs.lock().unwrap();
        let reason = "ERROR django_session the session store failed: the pool: connection refused";
        assert!(logs.iter().any(|line| line.starts_with(reason)), "{path} {fails}: {logs:?}");
    }

    let nobody = app("create", SessionSettings::default()).oneshot(request("/write", None)).await;
    let nobody = nobody.unwrap();
    assert_eq!(nobody.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!nobody.headers().contains_key(SET_COOKIE));
}

#[tokio::test]
async fn a_request_that_leaves_the_session_alone_survives_an_outage() {
    let outage = Outage { store: logged_in(), fails: "load" };
    let app = Router::new()
        .route("/", get(async |_: Session| "fine"))
        .layer(SessionLayer::new(outage, SessionSettings::default()));
    let response = app.oneshot(request("/", Some(KEY))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key(SET_COOKIE) && !response.headers().contains_key(VARY));
}

#[tokio::test]
async fn a_failing_response_is_not_replaced_by_another_failure() {
    let outage = Outage { store: logged_in(), fails: "save" };
    let app = Router::new()
        .route(
            "/",
            get(async |session: Session| {
                write(&session).await.unwrap();
                (StatusCode::BAD_GATEWAY, "the handler's own")
            }),
        )
        .layer(SessionLayer::new(outage, SessionSettings::default()));
    let response = app.oneshot(request("/", Some(KEY))).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(body(response).await, "the handler's own");
}

#[tokio::test]
async fn a_deleted_session_interrupts_the_request() {
    let store = logged_in();
    let table = store.clone();
    let app = Router::new()
        .route(
            "/",
            get(async move |session: Session| {
                session.insert("b", &2).await?;
                table.delete(&key(KEY)).await?;
                Ok::<_, SessionError>(([(SET_COOKIE, "theme=dark")], "saved?"))
            }),
        )
        .layer(SessionLayer::new(store.clone(), SessionSettings::default()));
    let (logs, _guard) = capture_logs();
    let response = app.oneshot(request("/", Some(KEY))).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(!response.headers().contains_key(SET_COOKIE) && !response.headers().contains_key(VARY));
    let message = SessionRejection::Interrupted.body_text();
    assert_eq!(body(response).await, message);
    assert!(store.session_keys().is_empty());
    let line = format!("WARN django.request {message} status_code=400");
    assert!(logs.lock().unwrap().contains(&line), "{logs:?}");
}

#[tokio::test]
async fn an_expiry_that_is_none_is_a_500_with_a_reason_in_the_log() {
    for (expiry, reason) in [
        (r#""soon""#, "not an ISO 8601 date"),
        ("[1]", "neither a number nor a date"),
        ("1e300", "out of range"),
        ("252000000000", "out of range"),
        (r#""2031-01-01""#, "naive date"),
    ] {
        let store = store();
        put(&store, KEY, &format!(r#"{{"_session_expiry":{expiry}}}"#));
        let before = store.row(&key(KEY));
        let app = Router::new()
            .route("/", get(async |session: Session| write(&session).await))
            .layer(layer(store.clone(), SessionSettings::default()));
        let (logs, _guard) = capture_logs();
        let response = app.oneshot(request("/", Some(KEY))).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{expiry}");
        assert!(!response.headers().contains_key(SET_COOKIE));
        assert_eq!(body(response).await, "Internal server error");
        assert_eq!(store.row(&key(KEY)), before);
        let logs = logs.lock().unwrap();
        assert!(logs.iter().any(|line| line.contains(reason)), "{expiry}: {logs:?}");
    }
}

#[tokio::test]
async fn nothing_tells_secrets() {
    const SECRET: &str = "hunter2-hunter2";
    let store = store();
    put(&store, SECRET, &format!(r#"{{"{SECRET}":"{SECRET}","_auth_user_id":"{SECRET}"}}"#));
    let codec = SessionCodec::new(&SecretKey::new(SECRET).unwrap());
    let mut settings = SessionSettings::default();
    settings.secret_key = Some(SecretKey::new(SECRET).unwrap());
    settings.save_every_request = true;
    let (logs, _guard) = capture_logs();
    let mut seen = String::new();
    let forged = MemoryStore::new(codec);
    put(&forged, SECRET, "{}");
    let stores: [Arc<dyn SessionStore>; 5] = [
        Arc::new(store.clone()),
        Arc::new(MemoryStore::new(SessionCodec::new(&SecretKey::new("other").unwrap()))),
        Arc::new(Outage { store: store.clone(), fails: "load" }),
        Arc::new(Outage { store: store.clone(), fails: "save" }),
        Arc::new(forged),
    ];
    for store in stores {
        let layer = SessionLayer::new(store, settings.clone());
        let app = Router::new()
            .route("/read", get(async |session: Session| read(&session).await))
            .route(
                "/type",
                get(async |session: Session| session.get::<i64>(SECRET).await.map(drop)),
            )
            .route("/user", get(async |user: UserId| format!("{user:?}")))
            .route("/session", get(async |session: Session| format!("{session:?}")));
        write!(seen, "{layer:?} {:?}", layer.layer(())).unwrap();
        let app = app.layer(layer);
        for path in ["/read", "/type", "/user", "/session"] {
            for cookie in [None, Some(SECRET)] {
                let response = app.clone().oneshot(request(path, cookie)).await.unwrap();
                seen.push_str(&body(response).await);
            }
        }
    }
    write!(seen, "{:?}", logs.lock().unwrap()).unwrap();
    assert!(seen.contains("connection refused"));
    assert!(!seen.contains("hunter2"), "{seen}");
}

#[tokio::test]
async fn a_cookie_from_a_login_names_the_user() {
    let app = Router::new()
        .route("/user", get(async |user: UserId| user.as_str().to_owned()))
        .route("/pk", get(async |user: UserId| user.parse::<i64>().unwrap().to_string()))
        .route(
            "/perhaps-user",
            get(async |user: Option<UserId>| {
                user.map_or("nobody".to_owned(), |user| user.as_str().to_owned())
            }),
        );
    for (data, user) in [
        (format!(r#"{{"_auth_user_id":"42","_auth_user_backend":"{BACKEND}"}}"#), Some("42")),
        (format!(r#"{{"_auth_user_id":"","_auth_user_backend":"{BACKEND}"}}"#), None),
        (format!(r#"{{"_auth_user_id":null,"_auth_user_backend":"{BACKEND}"}}"#), None),
        (format!(r#"{{"_auth_user_id":[42],"_auth_user_backend":"{BACKEND}"}}"#), None),
        (format!(r#"{{"_auth_user_backend":"{BACKEND}"}}"#), None),
        (r#"{"_auth_user_id":"42"}"#.to_owned(), None),
        (r#"{"_auth_user_id":"42","_auth_user_backend":""}"#.to_owned(), None),
        ("{}".to_owned(), None),
    ] {
        let store = store();
        put(&store, KEY, &data);
        let app = app.clone().layer(layer(store, SessionSettings::default()));
        let [strict, pk, lenient] = ["/user", "/pk", "/perhaps-user"].map(|path| {
            let app = app.clone();
            async move {
                let response = app.oneshot(request(path, Some(KEY))).await.unwrap();
                // What is shown depends on who asks, so no cache may mix them up.
                assert_eq!(response.headers()[VARY], "Cookie");
                (response.status(), body(response).await)
            }
        });
        let refused = (StatusCode::UNAUTHORIZED, "Authentication required".to_owned());
        let answer = user.map_or(refused, |user| (StatusCode::OK, user.to_owned()));
        assert_eq!(strict.await, answer, "{data}");
        assert_eq!(pk.await, answer, "{data}");
        let user = user.unwrap_or("nobody").to_owned();
        assert_eq!(lenient.await, (StatusCode::OK, user), "{data}");
    }
}

#[tokio::test]
async fn extractors_need_the_layer() {
    let app = Router::new()
        .route("/session", get(async |_: Session| "in"))
        .route("/user", get(async |_: UserId| "in"))
        .route("/perhaps-user", get(async |_: Option<UserId>| "in"));
    for path in ["/session", "/user", "/perhaps-user"] {
        let response = app.clone().oneshot(request(path, Some(KEY))).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body(response).await, SessionRejection::MissingLayer.body_text());
    }
}

#[tokio::test]
async fn errors_of_handlers_become_statuses() {
    let error = SessionError::from;
    for (error, status) in [
        (error(StoreError::Update), StatusCode::BAD_REQUEST),
        (error(StoreError::backend("down")), StatusCode::SERVICE_UNAVAILABLE),
        (error(StoreError::Create), StatusCode::SERVICE_UNAVAILABLE),
        (error(StoreError::Unsupported { operation: "flying" }), StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let response = error.into_response();
        assert_eq!(response.status(), status);
        let body = body(response).await;
        assert!(!body.contains("down") && !body.contains("flying"), "{body}");
    }
}

#[tokio::test]
async fn a_session_lives_from_request_to_request() {
    let store = store();
    let app = Router::new()
        .route(
            "/",
            get(async |session: Session| {
                let visits: u64 = session.get("visits").await?.unwrap_or(0) + 1;
                session.insert("visits", &visits).await?;
                Ok::<_, SessionError>(visits.to_string())
            }),
        )
        .route("/logout", get(async |session: Session| session.flush().await))
        .layer(layer(store.clone(), SessionSettings::default()));
    let first = app.clone().oneshot(request("/", None)).await.unwrap();
    let cookie = cookie_value(&first);
    for visits in ["2", "3"] {
        let next = app.clone().oneshot(request("/", Some(&cookie))).await.unwrap();
        assert_eq!(cookie_value(&next), cookie);
        assert_eq!(body(next).await, visits);
    }
    let logout = app.clone().oneshot(request("/logout", Some(&cookie))).await.unwrap();
    assert_eq!(cookie_value(&logout), "\"\"");
    assert!(store.session_keys().is_empty());
    let stolen = app.oneshot(request("/", Some(&cookie))).await.unwrap();
    assert_ne!(cookie_value(&stolen), cookie);
    assert_eq!(body(stolen).await, "1");
}

#[tokio::test]
async fn cookies_and_vary_of_the_handler_are_kept() {
    let app = Router::new()
        .route(
            "/",
            get(async |session: Session| {
                session.insert("b", &2).await?;
                let mut headers = HeaderMap::new();
                headers.append(SET_COOKIE, HeaderValue::from_static("theme=dark"));
                headers.append(SET_COOKIE, HeaderValue::from_static("lang=eo; Path=/"));
                headers.append(VARY, HeaderValue::from_static("Accept"));
                headers.append(VARY, HeaderValue::from_static("Origin"));
                Ok::<_, SessionError>(headers)
            }),
        )
        .layer(layer(logged_in(), SessionSettings::default()));
    let response = app.oneshot(request("/", Some(KEY))).await.unwrap();
    let cookies: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
    assert_eq!(cookies[..2], ["theme=dark", "lang=eo; Path=/"]);
    let session = format!(
        "sessionid={KEY}; expires=Tue, 28 Nov 2023 22:13:20 GMT; HttpOnly; Max-Age=1209600; \
         Path=/; SameSite=Lax"
    );
    assert_eq!(cookies[2..], [&*session]);
    let vary: Vec<_> = response.headers().get_all(VARY).iter().collect();
    assert_eq!(vary, ["Accept, Origin, Cookie"]);
}

#[tokio::test]
async fn a_fractional_age_is_cut() {
    for (age, max_age, expires) in
        [("1.9", "1", "22:13:21"), ("-1.9", "-1", "22:13:18"), ("true", "1", "22:13:21")]
    {
        let store = store();
        put(&store, KEY, &format!(r#"{{"_session_expiry":{age}}}"#));
        let app = Router::new()
            .route("/", get(async |session: Session| write(&session).await))
            .layer(layer(store, SessionSettings::default()));
        let response = app.oneshot(request("/", Some(KEY))).await.unwrap();
        let line = response.headers()[SET_COOKIE].to_str().unwrap();
        let times = format!("expires=Tue, 14 Nov 2023 {expires} GMT; HttpOnly; Max-Age={max_age};");
        assert!(line.contains(&times), "{line}");
    }
}

#[tokio::test]
async fn every_line_of_cookies_is_read_and_the_last_one_wins() {
    for (lines, seen) in [
        (&["a=b", "sessionid=12345678", "c=d"][..], Some("12345678")),
        (&["sessionid=12345678; sessionid=abcdefgh"], Some("abcdefgh")),
        (&["sessionid=12345678", "sessionid=abcdefgh"], Some("abcdefgh")),
        (&["sessionid=12345678", "sessionid="], None),
        (&["sessionid=12345678", "sessionid"], Some("12345678")),
        (&["SESSIONID=12345678"], None),
        (&[], None),
    ] {
        let mut request = Request::new(());
        for line in lines {
            request.headers_mut().append(COOKIE, line.parse().unwrap());
        }
        assert_eq!(seen_key(request).await.as_deref(), seen, "{lines:?}");
    }
}

/// What Django and Python read and wrote; see `tests/fixtures/write_cookies.py`.
#[tokio::test]
async fn cookies_are_those_of_python() {
    let (mut read, mut written) = (0, 0);
    for record in vectors::read_file("cookies.jsonl.zst") {
        let text = |name: &str| record[name].as_str().unwrap();
        match text("kind") {
            "read" => {
                let bytes: Vec<u8> =
                    text("header").chars().map(|char| u8::try_from(char).unwrap()).collect();
                let mut request = Request::new(());
                request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(&bytes).unwrap());
                let value = record["value"].as_str();
                let long_enough = value.filter(|value| value.chars().count() >= 8);
                let (seen, sent) = seen_key_and_whether_sent(request).await;
                assert_eq!(seen.as_deref(), long_enough, "{record}");
                // Too short a key costs the cookie; none at all does not.
                assert_eq!(sent, value.is_some() && seen.is_none(), "{record}");
                read += 1;
            }
            "write" => {
                let (_, attributes) = text("line").rsplit_once("; HttpOnly").unwrap();
                assert_eq!(attributes, "; Path=/; SameSite=Lax");
                assert_eq!(written_line(text("value")).await, text("line").as_bytes(), "{record}");
                written += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((read, written), (1508, 756));
}

proptest! {
    #[test]
    fn a_key_comes_back_as_it_went(key in "(?s).{8,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let line = written_line(&key).await;
            // Nothing but the attributes is separated, and nothing ends the line.
            assert_eq!(line.split(|&byte| byte == b';').count(), 4);
            assert!(line.iter().all(|byte| !byte.is_ascii_control()));
            let cookie = line.split(|&byte| byte == b';').next().unwrap();
            let mut request = Request::new(());
            request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(cookie).unwrap());
            assert_eq!(seen_key(request).await, Some(key));
        });
    }
}

#[tokio::test]
async fn tasks_share_one_session() {
    let store = logged_in();
    let app = Router::new()
        .route(
            "/",
            get(async |session: Session| {
                let tasks = (0..50).map(|number: u32| {
                    let session = session.clone();
                    tokio::spawn(async move { session.insert(&number.to_string(), &number).await })
                });
                for task in tasks.collect::<Vec<_>>() {
                    task.await.unwrap()?;
                }
                Ok::<_, SessionError>(())
            }),
        )
        .layer(layer(store.clone(), SessionSettings::default()));
    app.oneshot(request("/", Some(KEY))).await.unwrap();
    let saved = store.load(&key(KEY), DateTime::Aware(Timestamp::UNIX_EPOCH)).await;
    let data = saved.unwrap().unwrap().data;
    assert!((0..50_u32).all(|number| data.get(&number.to_string()).unwrap() == Some(number)));
    assert!(data.contains_key("_auth_user_id"));
}

#[tokio::test]
async fn what_comes_after_the_head_of_the_response_is_not_saved() {
    let store = logged_in();
    let service = service_fn(async |request: Request<()>| {
        let session = request.extensions().get::<Session>().unwrap().clone();
        // The body, as it were, is the session itself.
        Ok::<_, Infallible>(Response::new(Late(Some(session))))
    });
    let layer = layer(store.clone(), SessionSettings::default());
    let mut request = Request::new(());
    request.headers_mut().insert(COOKIE, format!("sessionid={KEY}").parse().unwrap());
    let response = layer.layer(service).oneshot(request).await.unwrap();
    let session = response.into_body().0.unwrap();
    let before = store.row(&key(KEY));
    session.insert("late", &true).await.unwrap();
    assert_eq!(store.row(&key(KEY)), before);
    session.save().await.unwrap();
    assert_ne!(store.row(&key(KEY)), before);
}

struct Late(Option<Session>);

impl From<&'static str> for Late {
    fn from(_: &'static str) -> Self {
        Self(None)
    }
}

#[tokio::test]
async fn a_handler_that_does_not_answer_saves_nothing() {
    let store = logged_in();
    let before = store.row(&key(KEY));
    let layer = layer(store.clone(), SessionSettings::default());
    for panics in [true, false] {
        let service = layer.layer(service_fn(move |request: Request<Body>| async move {
            let session = request.extensions().get::<Session>().unwrap();
            session.insert("b", &2).await.unwrap();
            assert!(!panics, "as planned");
            Err::<Response<Body>, _>("as planned")
        }));
        let task = tokio::spawn(service.oneshot(request("/", Some(KEY))));
        match task.await {
            Ok(answer) => assert_eq!(answer.unwrap_err(), "as planned"),
            Err(error) => assert!(panics && error.is_panic()),
        }
        assert_eq!(store.row(&key(KEY)), before);
    }
}

#[tokio::test]
async fn of_nested_layers_the_outer_one_counts_unless_the_cookies_differ() {
    let name = |name: &str| {
        let mut settings = SessionSettings::default();
        settings.cookie_name = name.to_owned();
        settings
    };
    for (inner, cookies) in [("sessionid", &["sessionid="][..]), ("other", &["other="])] {
        let stores = [store(), store()];
        let app = Router::new()
            .route("/", get(async |session: Session| write(&session).await))
            .layer(layer(stores[1].clone(), name(inner)))
            .layer(layer(stores[0].clone(), name("sessionid")));
        let response = app.oneshot(request("/", None)).await.unwrap();
        let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        assert_eq!(lines.len(), cookies.len());
        assert!(lines[0].to_str().unwrap().starts_with(cookies[0]));
        let saved = stores.map(|store| store.session_keys().len());
        assert_eq!(saved, if inner == "other" { [0, 1] } else { [1, 0] });
    }
}

#[tokio::test]
async fn a_session_that_is_only_looked_at_lives_on_at_intervals() {
    let store = logged_in();
    let mut settings = SessionSettings::default();
    settings.touch_interval = Some(jiff::SignedDuration::from_secs(60));
    let clock = crate::session::FixedClock::at(1_700_000_000.0);
    let layer = SessionLayer::new(store.clone(), settings).with_clock(clock.clone());
    let handler = tower::service_fn(async |request: Request<Body>| {
        let session = request.extensions().get::<Session>().unwrap();
        if request.uri().path() == "/looks" {
            session.data().await.unwrap();
        }
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let service = tower::Layer::layer(&layer, handler);
    let (text, _) = store.row(&key(KEY)).unwrap();
    let mut before = DateTime::Aware("2023-11-15T00:00:00Z".parse().unwrap());
    store.insert_row(key(KEY), text.clone(), before);
    for (seconds, path, moves) in
        [(0, "/does-not", false), (0, "/looks", true), (59, "/looks", false), (1, "/looks", true)]
    {
        clock.advance(seconds);
        let response = service.clone().oneshot(request(path, Some(KEY))).await.unwrap();
        assert_eq!(response.headers().contains_key(SET_COOKIE), moves, "{seconds} {path}");
        let (text_now, now) = store.row(&key(KEY)).unwrap();
        assert_eq!((text_now, now != before), (text.clone(), moves), "{seconds} {path}");
        before = now;
    }
}

#[test]
fn settings_that_break_headers_are_refused_at_once() {
    let mut name = SessionSettings::default();
    name.cookie_name = "session id".to_owned();
    let mut path = SessionSettings::default();
    path.cookie_path = "/\r\nX: y".to_owned();
    let mut domain = SessionSettings::default();
    domain.cookie_domain = Some("example.com; Secure".to_owned());
    for settings in [name, path, domain] {
        let layer =
            std::panic::catch_unwind(AssertUnwindSafe(|| SessionLayer::new(store(), settings)));
        let message = *layer.unwrap_err().downcast::<String>().unwrap();
        assert!(message.ends_with("cannot stand in a Set-Cookie header"), "{message}");
        assert!(message.starts_with("SESSION_COOKIE_"));
    }
}

/// A store whose database is gone for one operation.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) store: MemoryStore,
    pub(crate) fails: &'static str,
}

#[derive(Debug, thiserror::Error)]
#[error("the pool")]
struct PoolError(#[source] std::io::Error);

impl Outage {
    fn check(&self, operation: &str) -> Result<(), StoreError> {
        if operation != self.fails {
            return Ok(());
        }
        let refused = std::io::Error::other("connection refused");
        Err(StoreError::backend(PoolError(refused)))
    }
}

#[async_trait]
impl SessionStore for Outage {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        self.store.exists(session_key).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.check("create")?;
        self.store.create(record).await
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.check("load")?;
        self.store.load(session_key, now).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.check("save")?;
        self.store.save(record).await
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.check("touch")?;
        self.store.touch(record).await
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        self.store.delete(session_key).await
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        self.store.delete_revision(session_key, revision).await
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        self.store.cycle_key(session_key, record).await
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.store.clear_expired(now).await
    }
}

async fn read(session: &Session) -> Result<(), SessionError> {
    session.data().await.map(drop)
}

async fn write(session: &Session) -> Result<(), SessionError> {
    session.insert("b", &2).await
}

fn codec() -> SessionCodec {
    SessionCodec::new(&SecretKey::new("secret").unwrap())
}

fn store() -> MemoryStore {
    MemoryStore::new(codec())
}

/// A store with the session of user 42 under `KEY`.
pub(crate) fn logged_in() -> MemoryStore {
    let store = store();
    put(&store, KEY, &format!(r#"{{"_auth_user_id":"42","_auth_user_backend":"{BACKEND}"}}"#));
    store
}

fn put(store: &MemoryStore, session_key: &str, data: &str) {
    let data = SessionData::from_json(data).unwrap();
    let far = DateTime::Aware("2100-01-01T00:00:00Z".parse().unwrap());
    store.insert_row(key(session_key), codec().encode(&data, NOW).unwrap(), far);
}

pub(crate) fn key(text: &str) -> SessionKey {
    SessionKey::parse(text).unwrap()
}

fn layer(store: MemoryStore, settings: SessionSettings) -> SessionLayer {
    SessionLayer::new(store, settings).with_clock(FixedClock(NOW))
}

fn request(path: &str, session_key: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path);
    if let Some(session_key) = session_key {
        request = request.header(COOKIE, format!("sessionid={session_key}"));
    }
    request.body(Body::empty()).unwrap()
}

async fn body(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The value in the only `Set-Cookie` line.
fn cookie_value<B>(response: &Response<B>) -> String {
    let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
    let [line] = lines[..] else { panic!("{} cookies", lines.len()) };
    let (cookie, _) = line.to_str().unwrap().split_once("; ").unwrap();
    cookie.strip_prefix("sessionid=").unwrap().to_owned()
}

async fn seen_key(request: Request<()>) -> Option<String> {
    seen_key_and_whether_sent(request).await.0
}

/// The key that a handler sees, and whether the layer has the cookie deleted.
async fn seen_key_and_whether_sent(request: Request<()>) -> (Option<String>, bool) {
    let service = service_fn(async |request: Request<()>| {
        let session = request.extensions().get::<Session>().unwrap();
        let key = session.session_key().await;
        let mut response = Response::new(String::new());
        response.extensions_mut().insert(key);
        Ok::<_, Infallible>(response)
    });
    let layer = layer(store(), SessionSettings::default());
    let mut response = layer.layer(service).oneshot(request).await.unwrap();
    let key: Option<SessionKey> = response.extensions_mut().remove().unwrap();
    (key.map(|key| key.as_str().to_owned()), response.headers().contains_key(SET_COOKIE))
}

/// The `Set-Cookie` line of a session that ends with the browser and has this key.
async fn written_line(session_key: &str) -> Vec<u8> {
    let store = store();
    put(&store, session_key, "{}");
    let mut settings = SessionSettings::default();
    settings.expire_at_browser_close = true;
    let service = service_fn(async |request: Request<()>| {
        request.extensions().get::<Session>().unwrap().set_modified(true).await;
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let mut cookie = "sessionid=\"".to_owned();
    for char in session_key.chars() {
        match u8::try_from(char) {
            Ok(byte) => write!(cookie, "\\{byte:03o}").unwrap(),
            Err(_) => cookie.push(char),
        }
    }
    cookie.push('"');
    let mut request = Request::new(());
    request.headers_mut().insert(COOKIE, HeaderValue::from_bytes(cookie.as_bytes()).unwrap());
    let response = layer(store, settings).layer(service).oneshot(request).await.unwrap();
    let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
    assert_eq!(lines.len(), 1);
    lines[0].as_bytes().to_vec()
}

pub(crate) type Logs = Arc<Mutex<Vec<String>>>;

/// What this thread logs, as `LEVEL target message field=value`, until the guard is dropped.
pub(crate) fn capture_logs() -> (Logs, tracing::subscriber::DefaultGuard) {
    let logs = Logs::default();
    let guard = tracing::subscriber::set_default(Capture(Arc::clone(&logs)));
    (logs, guard)
}

struct Capture(Logs);

impl tracing::Subscriber for Capture {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let (level, target) = (metadata.level(), metadata.target());
        let line = format!("{level} {target} {}{}", fields.message, fields.others);
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            write!(self.message, "{value:?}").unwrap();
        } else {
            write!(self.others, " {}={value:?}", field.name()).unwrap();
        }
    }
}

//! Handlers for users: whole requests, answered as an installed Django answers them.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::routing::{MethodRouter, any, get, post};
use axum::{Form, Router};
use django_session::auth::hashers::{PasswordHasher, PasswordHashers, Pbkdf2, Salted};
use django_session::auth::{
    Auth, AuthBackend, AuthBackendKind, AuthError, AuthSettings, Authentication, PrimaryKeyType,
    User,
};
use django_session::store::{SqlUsers, sqlx};
use django_session::web::{
    AuthLayer, AuthSession, Csrf, CsrfExempt, CsrfLayer, CsrfSettings, MaybeUser, Permission,
    RequirePermission, SiteSettings,
};
use django_session::{
    SecretKey, Session, SessionKey, SessionLayer, SessionSettings, SessionStore as _, SqlStore,
    UserId,
};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::differential::SECRET_KEY;

const HOST: &str = "testserver";

/// `tests/gate_peer.py`.
pub(crate) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
    pub(crate) address: String,
}

impl Peer {
    pub(crate) fn start(count: usize, seed: u64) -> Option<Self> {
        let Some(python) = std::env::var_os("TEST_PYTHON") else {
            let message =
                "NOT TESTED against an installed Django: TEST_PYTHON names no interpreter";
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("{message}");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gate_peer.py"))
            .arg(folder.path())
            .args([count.to_string(), seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, input, output, _folder: folder, address: String::new() };
        peer.address = format!("sqlite:{}", peer.line()["database"].as_str().unwrap());
        Some(peer)
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("Django has ended: {line}"))
    }

    pub(crate) fn ask(&mut self, asked: &Value) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{asked}").unwrap();
        input.flush().unwrap();
        self.line()
    }

    /// What Django answers to a request with this session.
    pub(crate) fn get(&mut self, path: &str, session_key: &str) -> Value {
        self.ask(&json!({"session": session_key, "request": {
            "method": "GET", "path": path, "headers": {}, "cookies": {}, "body": "",
            "content_type": "text/plain",
        }}))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.input.take());
        std::io::copy(&mut self.output, &mut std::io::sink()).unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) const PERMISSIONS: [&str; 7] = [
    "auth.add_user",
    "auth.view_group",
    "auth.delete_group",
    "sessions.view_session",
    "sessions.nothing",
    "auth",
    "",
];

pub(crate) struct Numbered<const N: usize>;

impl<const N: usize> Permission for Numbered<N> {
    const PERMISSIONS: &'static [&'static str] = &[PERMISSIONS[N]];
}

fn permission<const N: usize>() -> MethodRouter {
    any(async |user: RequirePermission<Numbered<N>>| user.pk().as_str().to_owned())
}

async fn has_perm(session: AuthSession) -> Result<String, AuthError> {
    let mut granted = Vec::new();
    for name in PERMISSIONS {
        granted.push(session.has_perm(name).await?.to_string());
    }
    Ok(format!("[{}]", granted.join(", ")))
}

async fn log_in(
    session: AuthSession,
    Form(form): Form<HashMap<String, String>>,
) -> Result<String, AuthError> {
    let found = session.authenticate(&form["username"], &form["password"]).await?;
    let Some(user) = found else { return Ok("no".to_owned()) };
    session.login(&user).await?;
    Ok(user.pk().as_str().to_owned())
}

async fn log_out(session: AuthSession) -> Result<&'static str, AuthError> {
    session.logout().await?;
    Ok("out")
}

async fn token(csrf: Csrf) -> String {
    csrf.token()
}

fn routes() -> Router {
    Router::new()
        .route(
            "/maybe",
            any(async |MaybeUser(user): MaybeUser| {
                user.map_or(String::new(), |user| user.pk().as_str().to_owned())
            }),
        )
        .route("/user", any(async |user: User| user.pk().as_str().to_owned()))
        .route("/has_perm", any(has_perm))
        .route("/permission/0", permission::<0>())
        .route("/permission/1", permission::<1>())
        .route("/permission/2", permission::<2>())
        .route("/permission/3", permission::<3>())
        .route("/permission/4", permission::<4>())
        .route("/permission/5", permission::<5>())
        .route("/permission/6", permission::<6>())
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/token", get(token))
}

/// What is around the routes, from the inside out.
pub(crate) struct Layers {
    pub(crate) auth: AuthLayer,
    pub(crate) csrf: CsrfLayer,
    pub(crate) sessions: SessionLayer,
}

/// The routes of `tests/gate_peer.py`, in some framework.
pub(crate) trait App: Sized {
    async fn new(layers: Layers) -> Self;
    async fn answer(&self, request: Request<String>) -> Response<String>;
}

impl App for Router {
    async fn new(layers: Layers) -> Self {
        routes().layer(layers.auth).layer(layers.csrf).layer(layers.sessions)
    }

    async fn answer(&self, request: Request<String>) -> Response<String> {
        let response = self.clone().oneshot(request.map(Body::from)).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// A site with certain settings.
struct Site<A = Router> {
    store: SqlStore,
    auth: Auth,
    app: A,
}

impl<A: App> Site<A> {
    async fn new(store: &SqlStore, chosen: &Value) -> Self {
        let texts = |name: &str| {
            let values = chosen[name].as_array().into_iter().flatten();
            values.map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut settings = settings();
        settings.secret_key_fallbacks = texts("SECRET_KEY_FALLBACKS")
            .iter()
            .map(|key| SecretKey::new(&**key).unwrap())
            .collect();
        let store = SqlStore::new(store.pool().clone(), settings.codec().unwrap());
        let settings = Arc::new(settings);
        let mut auth_settings = AuthSettings::new(settings.clone());
        let backends = texts("AUTHENTICATION_BACKENDS");
        if !backends.is_empty() {
            auth_settings = auth_settings.with_backends(backends.iter().map(|path| &**path));
        }
        auth_settings.hashers = cheap_hashers();
        let auth = Auth::new(SqlUsers::beside(&store, &auth_settings.user_model), auth_settings);
        let layers = Layers {
            auth: AuthLayer::new(auth.clone()).redirecting_to_login(),
            csrf: CsrfLayer::new(csrf_settings()).unwrap(),
            sessions: SessionLayer::new(store.clone(), settings),
        };
        Self { store, auth, app: A::new(layers).await }
    }

    fn session(&self, session_key: &str) -> Session {
        let settings = Arc::new(settings());
        Session::new(Arc::new(self.store.clone()), settings, SessionKey::parse(session_key))
    }

    async fn answer(&self, request: &Value, session_key: &str) -> Response<String> {
        let mut built = Request::builder()
            .method(request["method"].as_str().unwrap())
            .uri(request["path"].as_str().unwrap())
            .header(header::HOST, HOST)
            .header(header::CONTENT_TYPE, request["content_type"].as_str().unwrap());
        for (name, value) in request["headers"].as_object().unwrap() {
            built = built.header(name.replace('_', "-"), value.as_str().unwrap());
        }
        let mut cookies = format!("sessionid={session_key}");
        for (name, value) in request["cookies"].as_object().unwrap() {
            cookies = format!("{cookies}; {name}={}", value.as_str().unwrap());
        }
        let body = request["body"].as_str().unwrap().to_owned();
        self.app.answer(built.header(header::COOKIE, cookies).body(body).unwrap()).await
    }
}

pub(crate) fn settings() -> SessionSettings {
    SessionSettings::default().with_secret_key(SecretKey::new(SECRET_KEY).unwrap())
}

pub(crate) fn csrf_settings() -> CsrfSettings {
    let mut settings = CsrfSettings::default();
    settings.allowed_hosts = vec![HOST.to_owned()];
    settings
}

/// Passwords of the tests are to cost nothing.
pub(crate) fn cheap_hashers() -> PasswordHashers {
    PasswordHashers::new([PasswordHasher::Md5(Salted::default())]).unwrap()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_all(header::SET_COOKIE).iter().find_map(|cookie| {
        let (cookie, _) = cookie.to_str().unwrap().split_once(';').unwrap();
        cookie.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value)
    })
}

/// Makes the request that Django has answered, with an equal session, and compares.
async fn compare(site: &Site<impl App>, line: &Value) -> String {
    let expected = &line["answer"];
    let session_key = line["session"].as_str().unwrap();
    let response = site.answer(&line["request"], session_key).await;
    let (status, headers) = (response.status(), response.headers().clone());
    assert_eq!(expected["status"], status.as_u16(), "{line}");
    let location = headers.get(header::LOCATION).map(|location| location.to_str().unwrap());
    assert_eq!(expected["location"].as_str(), location, "{line}");
    let varies = headers.get(header::VARY).is_some_and(|vary| vary == "Cookie");
    // What an error says of the session is nobody's.
    if status.as_u16() < 500 {
        assert_eq!(expected["vary"], varies, "{line}");
    }
    let body = response.into_body();
    assert_eq!(expected["is_csrf"], body.starts_with("CSRF"), "{line}");
    if let Some(expected) = expected["body"].as_str() {
        assert_eq!(expected, body, "{line}");
    }
    let sent = cookie(&headers, "sessionid");
    let became = sent.map(|value| if value == "\"\"" { "deleted" } else { "set" });
    assert_eq!(expected["cookie"].as_str(), became, "{line}");
    assert_eq!(expected["rotates"], cookie(&headers, "csrftoken").is_some(), "{line}");

    let exists =
        async |key: &str| site.store.exists(&SessionKey::parse(key).unwrap()).await.unwrap();
    assert_eq!(expected["is_left"], exists(session_key).await, "{line}");
    let now = match became {
        Some("deleted") => None,
        Some(_) => sent,
        None => Some(session_key),
    };
    let is_there = match now {
        Some(now) => exists(now).await,
        None => false,
    };
    assert_eq!(expected["data"].is_string(), is_there, "{line}");
    if let Some(now) = now
        && let Some(expected) = expected["data"].as_str()
    {
        let session = site.session(now);
        let data = session.data().await.unwrap().to_json().unwrap();
        // The row of a session that has expired is still there, and not loaded.
        if session.session_key().await.is_some() {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(parsed(expected), parsed(&data), "{line}");
        }
    }
    let kind = if expected["is_csrf"] == true { "csrf" } else { "" };
    format!("{kind}{}", status.as_u16())
}

#[tokio::test]
async fn a_request_is_answered_as_django_answers_it() {
    requests_are_answered_as_django_answers_them::<Router>().await;
}

pub(crate) async fn requests_are_answered_as_django_answers_them<A: App>() {
    const COUNT: usize = 5_200;
    let Some(mut peer) = Peer::start(COUNT, 20_261_122) else { return };
    let store = SqlStore::connect(&peer.address, &settings()).await.unwrap();
    let mut sites: HashMap<String, Site<A>> = HashMap::new();
    let mut outcomes: HashMap<String, usize> = HashMap::new();
    // All of them first: SQLite has one writer at a time.
    let lines: Vec<Value> = (0..COUNT).map(|_| peer.line()).collect();
    for line in lines {
        let chosen = &line["settings"];
        let name = chosen.to_string();
        if !sites.contains_key(&name) {
            sites.insert(name.clone(), Site::new(&store, chosen).await);
        }
        *outcomes.entry(compare(&sites[&name], &line).await).or_default() += 1;
    }
    for outcome in ["200", "302", "403", "csrf403", "500"] {
        assert!(outcomes.get(outcome).is_some_and(|count| *count > COUNT / 100), "{outcomes:?}");
    }
    store.close().await;
}

/// A browser that keeps its cookies.
struct Browser<'a, A> {
    app: &'a A,
    cookies: HashMap<String, String>,
}

impl<'a, A: App> Browser<'a, A> {
    fn new(app: &'a A) -> Self {
        Self { app, cookies: HashMap::new() }
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        form: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let form: Vec<_> = form.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, HOST)
            .header(header::COOKIE, cookies.join("; "))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.join("&"))
            .unwrap();
        let response = self.app.answer(request).await;
        for name in ["sessionid", "csrftoken"] {
            match cookie(response.headers(), name) {
                Some("\"\"") => drop(self.cookies.remove(name)),
                Some(value) => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
                None => {}
            }
        }
        (response.status(), response.into_body())
    }

    async fn get(&mut self, path: &str) -> (StatusCode, String) {
        self.send("GET", path, &[]).await
    }

    async fn post(
        &mut self,
        path: &str,
        token: &str,
        form: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let form = [&[("csrfmiddlewaretoken", token)], form].concat();
        self.send("POST", path, &form).await
    }

    fn session_key(&self) -> &str {
        &self.cookies["sessionid"]
    }
}

async fn site<A: App>(peer: &Peer) -> Site<A> {
    Site::new(&SqlStore::connect(&peer.address, &settings()).await.unwrap(), &json!({})).await
}

#[tokio::test]
async fn a_login_is_one_to_django_until_something_ends_it() {
    a_login_is_one_to_django::<Router>().await;
}

pub(crate) async fn a_login_is_one_to_django<A: App>() {
    let Some(mut peer) = Peer::start(0, 0) else { return };
    peer.ask(&json!({"user": "ann", "password": "secret", "permissions": ["view_group"]}));
    peer.ask(&json!({"user": "bob", "password": "other", "is_active": false}));
    let site = site::<A>(&peer).await;
    let mut browser = Browser::new(&site.app);
    let (_, token) = browser.get("/token").await;

    // Who is not let in.
    for (username, password) in
        [("ann", "wrong"), ("bob", "other"), ("nobody", "secret"), ("", ""), ("ann", "")]
    {
        let form = [("username", username), ("password", password)];
        assert_eq!(browser.post("/login", &token, &form).await, (StatusCode::OK, "no".into()));
    }
    let long = "x".repeat(10_000);
    let form = [("username", "ann"), ("password", &*long)];
    assert_eq!(browser.post("/login", &token, &form).await.1, "no");
    assert!(!browser.cookies.contains_key("sessionid"));

    let ann = [("username", "ann"), ("password", "secret")];
    assert_eq!(browser.post("/login", "", &ann).await.0, StatusCode::FORBIDDEN);
    let (status, pk) = browser.post("/login", &token, &ann).await;
    assert_eq!(status, StatusCode::OK);
    let session_key = browser.session_key().to_owned();
    assert_eq!(peer.get("/user", &session_key)["body"], pk);
    assert_eq!(browser.get("/user").await, (StatusCode::OK, pk.clone()));
    assert_eq!(browser.get("/permission/1").await.0, StatusCode::OK);
    assert_eq!(browser.get("/permission/0").await.0, StatusCode::FORBIDDEN);

    // The token from before the login is worth nothing after it.
    assert_eq!(browser.post("/has_perm", &token, &[]).await.0, StatusCode::FORBIDDEN);
    let (_, token) = browser.get("/token").await;
    assert_eq!(browser.post("/has_perm", &token, &[]).await.0, StatusCode::OK);

    // A permission that is taken, and a user who is no longer active.
    peer.ask(&json!({"user": "ann", "permissions": []}));
    assert_eq!(browser.get("/permission/1").await.0, StatusCode::FORBIDDEN);
    peer.ask(&json!({"user": "ann", "is_superuser": true}));
    assert_eq!(browser.get("/permission/1").await.0, StatusCode::OK);
    peer.ask(&json!({"user": "ann", "is_active": false}));
    assert_eq!(browser.get("/user").await.0, StatusCode::FOUND);
    assert_eq!(browser.get("/permission/1").await.0, StatusCode::FOUND);
    peer.ask(&json!({"user": "ann", "is_active": true}));
    assert_eq!(browser.get("/user").await.0, StatusCode::OK);

    // Another password.
    peer.ask(&json!({"user": "ann", "password": "changed"}));
    assert_eq!(browser.get("/maybe").await, (StatusCode::OK, String::new()));
    assert!(!browser.cookies.contains_key("sessionid"), "the session was flushed");
    assert_eq!(peer.get("/maybe", &session_key)["body"], "");

    // Logging out is the end for Django too.
    let ann = [("username", "ann"), ("password", "changed")];
    let (_, token) = browser.get("/token").await;
    assert_eq!(browser.post("/login", &token, &ann).await.1, pk);
    let session_key = browser.session_key().to_owned();
    let (_, token) = browser.get("/token").await;
    assert_eq!(browser.post("/logout", &token, &[]).await.1, "out");
    assert!(!browser.cookies.contains_key("sessionid"));
    assert_eq!(peer.get("/maybe", &session_key)["body"], "");
    site.store.close().await;
}

#[tokio::test]
async fn an_old_password_is_stored_anew() {
    let Some(mut peer) = Peer::start(0, 0) else { return };
    let made = PasswordHashers::new([PasswordHasher::Pbkdf2Sha256(Pbkdf2::new(10))]).unwrap();
    let encoded = made.make_password("secret").unwrap();
    assert_eq!(peer.ask(&json!({"user": "ann", "encoded": encoded})), encoded);
    let site: Site = site(&peer).await;
    let mut settings = site.auth.settings().clone();
    let hashers =
        [PasswordHasher::Md5(Salted::default()), PasswordHasher::Pbkdf2Sha256(Pbkdf2::new(10))];
    settings.hashers = PasswordHashers::new(hashers).unwrap();
    let users = SqlUsers::beside(&site.store, &settings.user_model);
    let auth = Auth::new(users, settings.clone());

    assert_eq!(auth.authenticate("ann", "wrong").await.unwrap(), None);
    assert_eq!(peer.ask(&json!({"user": "ann"})), encoded, "a wrong password changes nothing");
    // Several at a time, of which one is the first to store it.
    let logins = (0..4).map(|_| {
        let auth = auth.clone();
        tokio::spawn(async move { auth.authenticate("ann", "secret").await.unwrap().unwrap() })
    });
    let mut users = Vec::new();
    for login in logins.collect::<Vec<_>>() {
        users.push(login.await.unwrap());
    }
    let stored = peer.ask(&json!({"user": "ann"}));
    assert!(stored.as_str().unwrap().starts_with("md5$"));
    // Each of them logs in by what is stored now.
    for user in users {
        let session = Session::new(Arc::new(site.store.clone()), settings.session.clone(), None);
        auth.login(&session, &user).await.unwrap();
        session.save().await.unwrap();
        let session_key = session.session_key().await.unwrap();
        assert_eq!(peer.get("/user", session_key.as_str())["status"], 200);
    }

    // A backend of the site's own that comes first might have refused.
    let path = "shop.auth.Backend";
    let like = AuthBackend::like(path, AuthBackendKind::Model);
    settings.backends.insert(0, like.clone());
    let users = SqlUsers::beside(&site.store, &settings.user_model);
    let auth = Auth::new(users, settings.clone());
    let refused = auth.authenticate("ann", "secret").await.unwrap_err();
    assert!(matches!(refused, AuthError::UnknownBackend), "{refused}");
    settings.backends[0].has_own_authenticate = false;
    let auth = Auth::new(SqlUsers::beside(&site.store, &settings.user_model), settings);
    let user = auth.authenticate("ann", "secret").await.unwrap().unwrap();
    assert_eq!(user.backend(), path);
    site.store.close().await;
}

#[tokio::test]
async fn a_cache_is_as_stale_as_it_says_and_no_more() {
    let Some(mut peer) = Peer::start(0, 0) else { return };
    peer.ask(&json!({"user": "ann", "password": "secret", "permissions": ["view_group"]}));
    let site: Site = site(&peer).await;
    let session_of = |auth: &Auth| {
        Session::new(Arc::new(site.store.clone()), auth.settings().session.clone(), None)
    };
    let reopened = |session_key: &SessionKey| site.session(session_key.as_str());
    let hour = Duration::from_hours(1);
    for staleness in [hour, Duration::ZERO] {
        let auth = site.auth.clone().with_user_cache(10, staleness);
        peer.ask(&json!({"user": "ann", "is_active": true, "permissions": ["view_group"]}));
        let ann = auth.authenticate("ann", "secret").await.unwrap().unwrap();
        let session = session_of(&auth);
        auth.login(&session, &ann).await.unwrap();
        session.save().await.unwrap();
        let session_key = session.session_key().await.unwrap();

        assert!(auth.get_user(&reopened(&session_key)).await.unwrap().user().is_some());
        assert!(auth.has_perm(&ann, "auth.view_group").await.unwrap());
        peer.ask(&json!({"user": "ann", "is_active": false, "permissions": []}));
        let again = reopened(&session_key);
        let is_cached = staleness == hour;
        assert_eq!(auth.get_user(&again).await.unwrap().user().is_some(), is_cached);
        assert!(again.accessed().await, "the response depends on the cookie");
        assert_eq!(auth.has_perm(&ann, "auth.view_group").await.unwrap(), is_cached);
        // What looks at the session does not take a cache's word for it.
        let looked = reopened(&session_key);
        looked.data().await.unwrap();
        assert_eq!(auth.get_user(&looked).await.unwrap().user(), None);
        assert_eq!(auth.revalidate(&reopened(&session_key)).await.unwrap().user(), None);

        // What is done here counts at once.
        let last = reopened(&session_key);
        auth.logout(&last).await.unwrap();
        let found = auth.get_user(&reopened(&session_key)).await.unwrap();
        assert_eq!(found, Authentication::Anonymous);
    }
    site.store.close().await;
}

#[tokio::test]
async fn nobody_is_let_in_by_a_cookie_alone() {
    async fn status(app: &Router, method: &str, upgrade: bool) -> StatusCode {
        let mut request = Request::builder().method(method).uri("/user").header(header::HOST, HOST);
        if upgrade {
            request = request.header(header::UPGRADE, "websocket");
        }
        let request = request.body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap().status()
    }
    let pool = sqlx::SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let settings = Arc::new(settings());
    let auth_settings = AuthSettings::new(settings.clone());
    let auth = Auth::new(SqlUsers::new(pool.clone(), &auth_settings.user_model), auth_settings);
    let store = SqlStore::new(pool, settings.codec().unwrap());
    let handlers = [
        any(async |_: MaybeUser| "in"),
        any(async |_: AuthSession| "in"),
        any(async |_: Option<UserId>| "in"),
    ];
    for handler in handlers {
        let sessions = SessionLayer::new(store.clone(), settings.clone());
        let open = Router::new().route("/user", handler);
        let bare = open.clone().layer(AuthLayer::new(auth.clone())).layer(sessions.clone());
        for (method, upgrade, expected) in [
            ("GET", false, StatusCode::OK),
            ("HEAD", false, StatusCode::OK),
            ("POST", false, StatusCode::INTERNAL_SERVER_ERROR),
            ("DELETE", false, StatusCode::INTERNAL_SERVER_ERROR),
            ("get", false, StatusCode::INTERNAL_SERVER_ERROR),
            // A socket acts, though it begins with a `GET`.
            ("GET", true, StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            assert_eq!(status(&bare, method, upgrade).await, expected, "{method}");
        }
        let waived = open
            .clone()
            .layer(CsrfExempt)
            .layer(AuthLayer::new(auth.clone()))
            .layer(sessions.clone());
        let checked = open
            .layer(AuthLayer::new(auth.clone()))
            .layer(CsrfLayer::new(csrf_settings()).unwrap())
            .layer(sessions);
        assert_eq!(status(&waived, "POST", false).await, StatusCode::OK);
        assert_eq!(status(&waived, "GET", true).await, StatusCode::OK);
        assert_eq!(status(&checked, "GET", true).await, StatusCode::OK);
        assert_eq!(status(&checked, "POST", false).await, StatusCode::FORBIDDEN);
    }
    let socket = |origin: &str| {
        Request::get("/user")
            .header(header::HOST, HOST)
            .header(header::UPGRADE, "WebSocket")
            .header(header::ORIGIN, origin)
            .body(Body::empty())
            .unwrap()
    };
    let app = Router::new()
        .route("/user", any(async || "in"))
        .layer(CsrfLayer::new(csrf_settings()).unwrap());
    for (origin, expected) in [
        (format!("http://{HOST}"), StatusCode::OK),
        ("https://evil.example".to_owned(), StatusCode::FORBIDDEN),
        ("null".to_owned(), StatusCode::FORBIDDEN),
    ] {
        let response = app.clone().oneshot(socket(&origin)).await.unwrap();
        assert_eq!(response.status(), expected, "{origin}");
    }
}

#[tokio::test]
async fn what_is_missing_or_cannot_be_asked_is_no_logout() {
    let Some(mut peer) = Peer::start(0, 0) else { return };
    peer.ask(&json!({"user": "ann", "password": "secret"}));
    let site: Site = site(&peer).await;
    let mut browser = Browser::new(&site.app);
    let (_, token) = browser.get("/token").await;
    browser.post("/login", &token, &[("username", "ann"), ("password", "secret")]).await;
    assert_eq!(browser.get("/user").await.0, StatusCode::OK);

    // The table of users is gone, that of sessions is not.
    let pool = sqlx::SqlitePool::connect(&peer.address).await.unwrap();
    sqlx::raw_sql("ALTER TABLE auth_user RENAME TO elsewhere").execute(&pool).await.unwrap();
    for path in ["/user", "/maybe", "/has_perm", "/permission/1"] {
        let found = browser.get(path).await;
        assert_eq!(found, (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable".into()));
    }
    sqlx::raw_sql("ALTER TABLE elsewhere RENAME TO auth_user").execute(&pool).await.unwrap();
    assert_eq!(browser.get("/user").await.0, StatusCode::OK, "still logged in");
    site.store.close().await;
    assert_eq!(browser.get("/user").await.0, StatusCode::SERVICE_UNAVAILABLE);

    // Layers that are not there.
    let alone = routes();
    assert_eq!(Browser::new(&alone).get("/user").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let without_session = routes().layer(AuthLayer::new(site.auth.clone()));
    let found = Browser::new(&without_session).get("/user").await;
    assert_eq!(found, (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error".into()));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let file = |changed: Value| {
        let mut values = json!({
            "DJANGO_VERSION": "5.2.19",
            "SECRET_KEY": "secret",
            "SECRET_KEY_FALLBACKS": ["before"],
            "SECRET_KEY_FALLBACKS_COUNT": 1,
            "ALLOWED_HOSTS": ["example.com"],
            "AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend"],
            "AUTH_USER_MODEL_TABLES": {
                "table": "shop_customer", "primary_key": "id", "primary_key_type": "uuid",
                "username": "mail", "password": "password", "is_active": "is_active",
                "is_staff": null, "is_superuser": "is_superuser", "last_login": null,
                "permissions": null, "overrides": [],
            },
        });
        for (name, value) in changed.as_object().unwrap() {
            values[name] = value.clone();
        }
        SiteSettings::from_json(&values.to_string())
    };
    let site = file(json!({})).unwrap();
    assert_eq!(site.auth.user_model.table, "shop_customer");
    assert_eq!(site.auth.user_model.primary_key_type, PrimaryKeyType::Uuid);
    assert_eq!(site.auth.session.secret_key_fallbacks.len(), 1);
    let tables = |name: &str, value: Value| {
        let mut tables = json!({
            "table": "t", "primary_key": "id", "primary_key_type": [1, 9], "username": "name",
            "password": null, "is_active": null, "is_staff": null, "is_superuser": null,
            "last_login": null, "permissions": null, "overrides": [],
        });
        tables[name] = value;
        json!({"AUTH_USER_MODEL_TABLES": tables})
    };
    assert!(file(tables("table", json!("t"))).is_ok());
    for (changed, expected) in [
        (json!({"SECRET_KEY_FALLBACKS": []}), "SECRET_KEY_FALLBACKS_COUNT contradict"),
        (json!({"CSRF_COOKIE_NAME": "sessionid"}), "CSRF_COOKIE_NAME and SESSION_COOKIE_NAME"),
        (json!({"DEFAULT_HASHING_ALGORITHM": "sha1"}), "DEFAULT_HASHING_ALGORITHM and DJANGO"),
        (json!({"AUTHENTICATION_BACKENDS": []}), "AUTHENTICATION_BACKENDS must be"),
        (json!({"AUTHENTICATION_BACKENDS_CLASSES": 5}), "AUTHENTICATION_BACKENDS_CLASSES must be"),
        (json!({"AUTH_USER_MODEL_TABLES": null}), "AUTH_USER_MODEL is set to something"),
        (tables("overrides", json!(["get_session_auth_hash"])), "AUTH_USER_MODEL is set to"),
        (tables("table", json!(null)), "AUTH_USER_MODEL_TABLES must be"),
        (tables("primary_key_type", json!("float")), "AUTH_USER_MODEL_TABLES must be"),
        (json!({"DJANGO_VERSION": "five"}), "DJANGO_VERSION must be"),
        (json!({"SECRET_KEY": null}), "SECRET_KEY must be"),
        (json!({"LOGIN_URL": 5}), "LOGIN_URL must be"),
        (json!({"CSRF_TRUSTED_ORIGINS": ["example.com"]}), "CSRF_TRUSTED_ORIGINS"),
    ] {
        let refused = file(changed).unwrap_err().to_string();
        assert!(refused.starts_with(expected) || refused.contains(expected), "{refused}");
    }
}

//! actix-web: the requests of the other files, asked of an app of actix-web, and what is its own.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::body::to_bytes;
use actix_web::dev::{Payload, ServerHandle, Service, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self as actix_header, HeaderName, HeaderValue};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, Error, HttpMessage as _, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use django_session::auth::{Auth, AuthError, AuthSettings, User};
use django_session::store::{MemoryStore, SqlUsers, sqlx};
use django_session::web::{
    AuthLayer, AuthRejection, AuthSession, Csrf, CsrfChecked, CsrfExempt, CsrfLayer, CsrfSettings,
    MaybeUser, RequirePermission, SiteSettings,
};
use django_session::{
    Session, SessionError, SessionLayer, SessionRejection, SessionSettings, SqlStore, StoreError,
    UserId,
};
use futures_core::Stream;
use http::{Request, Response, header};
use http_body::Body as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::csrf::{FORM, KEY, MULTIPART, Pieces, SECRET, TOKEN};
use crate::gate::{Layers, Numbered, PERMISSIONS};
use crate::web::{Outage, capture_logs, logged_in};
use crate::{csrf, gate, middleware};

/// actix-web spawns on a runtime of its own.
fn run<T>(future: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(future)
}

type Answering = Pin<Box<dyn Future<Output = Response<Bytes>>>>;

/// A service of whatever type, which is sent requests of `http`.
#[derive(Clone)]
struct Sent(Rc<dyn Fn(Request<Pieces>) -> Answering>);

impl Sent {
    fn to<S, B>(service: S) -> Self
    where
        S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error> + 'static,
        B: actix_web::body::MessageBody + 'static,
    {
        let service = Rc::new(service);
        Self(Rc::new(move |request| {
            let service = Rc::clone(&service);
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let is_head = parts.method == http::Method::HEAD;
                let mut built = TestRequest::default()
                    .method(parts.method.as_str().parse().unwrap())
                    .uri(&parts.uri.to_string());
                for (name, value) in &parts.headers {
                    let name: HeaderName = name.as_str().parse().unwrap();
                    built = built
                        .append_header((name, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
                }
                let payload: Payload = Payload::Stream { payload: Box::pin(Streamed(body)) };
                let (request, _) = built.to_request().replace_payload(payload);
                let response = match service.call(request).await {
                    Ok(response) => response.map_into_boxed_body(),
                    Err(error) => panic!("{error}"),
                };
                let mut answer = Response::builder().status(response.status().as_u16());
                for (name, value) in response.headers() {
                    answer = answer.header(name.as_str(), value.as_bytes());
                }
                let body = to_bytes(response.into_body()).await.unwrap();
                // This is where the server of actix-web drops it.
                answer.body(if is_head { Bytes::new() } else { body }).unwrap()
            })
        }))
    }

    async fn send(&self, request: Request<Pieces>) -> Response<Bytes> {
        (self.0)(request).await
    }

    async fn text(&self, request: Request<String>) -> (u16, String) {
        let response = self.send(request.map(|body| Pieces::new([body]))).await;
        (response.status().as_u16(), String::from_utf8(response.body().to_vec()).unwrap())
    }
}

/// Pieces as actix-web has them.
struct Streamed(Pieces);

impl Stream for Streamed {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(
            frame.map(|frame| {
                frame.map(|frame| frame.into_data().unwrap()).map_err(PayloadError::Io)
            }),
        )
    }
}

fn permission<const N: usize>() -> actix_web::Route {
    web::to(async |user: RequirePermission<Numbered<N>>| user.pk().as_str().to_owned())
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
    form: web::Form<HashMap<String, String>>,
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

async fn maybe(MaybeUser(user): MaybeUser) -> String {
    user.map_or(String::new(), |user| user.pk().as_str().to_owned())
}

/// The routes of `tests/gate_peer.py`.
fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/maybe", web::to(maybe))
        .route("/user", web::to(async |user: User| user.pk().as_str().to_owned()))
        .route("/has_perm", web::to(has_perm))
        .route("/permission/0", permission::<0>())
        .route("/permission/1", permission::<1>())
        .route("/permission/2", permission::<2>())
        .route("/permission/3", permission::<3>())
        .route("/permission/4", permission::<4>())
        .route("/permission/5", permission::<5>())
        .route("/permission/6", permission::<6>())
        .route("/login", web::post().to(log_in))
        .route("/logout", web::post().to(log_out))
        .route("/token", web::get().to(async |csrf: Csrf| csrf.token()));
}

impl gate::App for Sent {
    async fn new(layers: Layers) -> Self {
        let app = App::new().configure(routes);
        Self::to(init_service(app.wrap(layers.auth).wrap(layers.csrf).wrap(layers.sessions)).await)
    }

    async fn answer(&self, request: Request<String>) -> Response<String> {
        let response = self.send(request.map(|body| Pieces::new([body]))).await;
        response.map(|body| String::from_utf8(body.to_vec()).unwrap())
    }
}

#[test]
fn users_are_let_in_as_by_django() {
    run(gate::requests_are_answered_as_django_answers_them::<Sent>());
}

#[test]
fn a_login_is_one_to_django_until_something_ends_it() {
    run(gate::a_login_is_one_to_django::<Sent>());
}

#[test]
fn eight_thousand_requests_are_checked_as_by_django() {
    async fn through_actix(
        sessions: SessionLayer,
        csrf: CsrfLayer,
        view: csrf::View,
        request: Request<Pieces>,
    ) -> Response<()> {
        let handler = move |request: HttpRequest, csrf: Csrf, body: web::Payload| {
            let view = view.clone();
            async move {
                let checked = *request.extensions().get::<CsrfChecked>().unwrap();
                let read = body.to_bytes_limited(usize::MAX).await.unwrap().unwrap();
                view.run(&csrf, checked.covers(request.method()), &read);
                "done"
            }
        };
        let app = App::new().default_service(web::to(handler)).wrap(csrf).wrap(sessions);
        Sent::to(init_service(app).await).send(request).await.map(drop)
    }
    run(csrf::requests_are_answered_as_by_django(through_actix));
}

async fn through_actix(
    layer: SessionLayer,
    view: middleware::View,
    request: Request<()>,
) -> Response<()> {
    let handler = move |request: HttpRequest| {
        let view = view.clone();
        async move {
            let session = request.extensions().get::<Session>().unwrap().clone();
            if view.removes_session() {
                request.extensions_mut().remove::<Session>();
            } else {
                view.run(&session).await;
            }
            let (status, vary) = view.response();
            let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap());
            if let Some(vary) = vary {
                response.insert_header((actix_header::VARY, vary));
            }
            response.finish()
        }
    };
    let app = App::new().default_service(web::to(handler)).wrap(layer);
    let request = request.map(|()| Pieces::default());
    Sent::to(init_service(app).await).send(request).await.map(drop)
}

#[test]
fn the_layer_answers_as_every_release() {
    run(middleware::answers_are_those_of_every_release(through_actix));
}

#[test]
fn the_layer_answers_as_django_to_random_views() {
    run(middleware::answers_are_those_to_random_views(through_actix));
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header(header::COOKIE, format!("sessionid={KEY}"))
}

#[test]
fn an_outage_is_a_503_that_leaves_the_cookie_alone() {
    async fn body(app: &Sent, path: &str) -> Response<Bytes> {
        app.send(get(path).body(Pieces::default()).unwrap()).await
    }
    run(async {
        let mut every_request = SessionSettings::default();
        every_request.save_every_request = true;
        for (path, fails, settings) in [
            ("/read", "load", SessionSettings::default()),
            ("/user", "load", SessionSettings::default()),
            ("/result", "load", SessionSettings::default()),
            ("/write", "load", SessionSettings::default()),
            ("/write", "save", SessionSettings::default()),
            ("/clear", "save", SessionSettings::default()),
            ("/nothing", "load", every_request.clone()),
            ("/nothing", "save", every_request),
        ] {
            let app = App::new()
                .route(
                    "/read",
                    web::to(async |session: Session| {
                        session.data().await.map(|_| "in").map_err(Error::from)
                    }),
                )
                .route("/user", web::to(async |_: UserId| "in"))
                .route(
                    "/result",
                    web::to(async |user: Result<UserId, SessionRejection>| user.map(|_| "in")),
                )
                .route("/write", web::to(write))
                .route(
                    "/clear",
                    web::to(async |session: Session| {
                        session.clear().await;
                        "in"
                    }),
                )
                .route("/nothing", web::to(async || "in"))
                .wrap(SessionLayer::new(Outage { store: logged_in(), fails }, settings));
            let app = Sent::to(init_service(app).await);
            let (logs, _guard) = capture_logs();
            let response = body(&app, path).await;
            assert_eq!(response.status(), 503, "{path} {fails}");
            assert!(!response.headers().contains_key(header::SET_COOKIE), "{path} {fails}");
            assert_eq!(response.body(), "Service unavailable");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
            let logs = logs.lock().unwrap();
            let reason =
                "ERROR django_session the session store failed: the pool: connection refused";
            let count = logs.iter().filter(|line| line.starts_with(reason)).count();
            assert_eq!(count, 1, "{path} {fails}: {logs:?}");
        }
    });
}

async fn write(session: Session) -> Result<&'static str, SessionError> {
    session.insert("b", &2).await.map(|()| "in")
}

#[test]
fn errors_of_handlers_become_statuses() {
    for (error, status) in [
        (StoreError::Update, StatusCode::BAD_REQUEST),
        (StoreError::backend("down"), StatusCode::SERVICE_UNAVAILABLE),
        (StoreError::Unsupported { operation: "flying" }, StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let error = AuthError::from(SessionError::from(error));
        let (logs, _guard) = capture_logs();
        let error = Error::from(error);
        assert_eq!(error.as_response_error().status_code(), status);
        assert!(logs.lock().unwrap().is_empty(), "asking for the status alone");
        let response = error.error_response();
        assert_eq!(response.status(), status);
        assert_eq!(logs.lock().unwrap().len(), 1, "said once");
        let body = run(to_bytes(response.into_body())).unwrap();
        let body = str::from_utf8(&body).unwrap();
        assert!(!body.contains("down") && !body.contains("flying"), "{body}");
    }
    let login = AuthRejection::Login(http::HeaderValue::from_static("/login/?next=/"));
    let response = Error::from(login).error_response();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers().get("location").unwrap(), "/login/?next=/");
}

fn auth() -> (Auth, SessionLayer) {
    let pool = sqlx::SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let key = django_session::SecretKey::new("secret").unwrap();
    let settings = Arc::new(SessionSettings::default().with_secret_key(key));
    let auth_settings = AuthSettings::new(settings.clone());
    let auth = Auth::new(SqlUsers::new(pool, &auth_settings.user_model), auth_settings);
    (auth, SessionLayer::new(MemoryStore::new(csrf::codec()), settings))
}

fn extractors(config: &mut web::ServiceConfig) {
    config
        .route("/session", web::to(async |_: Session| "in"))
        .route("/user_id", web::to(async |_: UserId| "in"))
        .route("/csrf", web::to(async |_: Csrf| "in"))
        .route("/auth_session", web::to(async |_: AuthSession| "in"))
        .route("/maybe_user", web::to(async |_: MaybeUser| "in"))
        .route("/user", web::to(async |_: User| "in"))
        .route("/permission", web::to(async |_: RequirePermission<Numbered<0>>| "in"));
}

#[test]
fn extractors_need_their_layers() {
    run(async {
        let request = |path: &str| Request::get(path).body(String::new()).unwrap();
        let failed = (500, "Internal server error".to_owned());
        let (logs, _guard) = capture_logs();
        let alone = Sent::to(init_service(App::new().configure(extractors)).await);
        for (path, missing) in [
            ("/session", "SessionLayer"),
            ("/user_id", "SessionLayer"),
            ("/csrf", "CsrfLayer"),
            ("/auth_session", "AuthLayer"),
            ("/maybe_user", "AuthLayer"),
            ("/user", "AuthLayer"),
            ("/permission", "AuthLayer"),
        ] {
            assert_eq!(alone.text(request(path)).await, failed, "{path}");
            let logs = std::mem::take(&mut *logs.lock().unwrap());
            let line = format!("ERROR django_session there is no {missing} around this handler");
            assert!(logs[0].starts_with(&line), "{path}: {logs:?}");
        }
        let (auth, _) = auth();
        let app = App::new().configure(extractors).wrap(AuthLayer::new(auth));
        let without_session = Sent::to(init_service(app).await);
        for path in ["/auth_session", "/maybe_user", "/user", "/permission"] {
            assert_eq!(without_session.text(request(path)).await, failed, "{path}");
        }
        let mut settings = csrf::settings();
        settings.csrf_use_sessions = true;
        let csrf = CsrfLayer::new(settings).unwrap();
        let app = Sent::to(init_service(App::new().configure(extractors).wrap(csrf)).await);
        assert_eq!(app.text(request("/csrf")).await, failed);
    });
}

#[test]
fn nobody_is_let_in_by_a_cookie_alone() {
    async fn status(app: &Sent, path: &str, method: &str, upgrade: bool) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        if upgrade {
            request = request.header(header::UPGRADE, "websocket");
        }
        let request = request.header(header::HOST, "example.com").body(String::new()).unwrap();
        app.text(request).await.0
    }
    run(async {
        let (auth, sessions) = auth();
        let users = AuthLayer::new(auth);
        let app = || App::new().configure(extractors);
        let csrf = CsrfLayer::new(csrf::settings()).unwrap();
        let bare = app().wrap(users.clone()).wrap(sessions.clone());
        let bare = Sent::to(init_service(bare).await);
        let waived = app().wrap(users.clone()).wrap(CsrfExempt).wrap(sessions.clone());
        let waived = Sent::to(init_service(waived).await);
        let checked = app().wrap(users).wrap(csrf).wrap(sessions);
        let checked = Sent::to(init_service(checked).await);
        for path in ["/user_id", "/auth_session", "/maybe_user", "/user", "/permission"] {
            let nobody = if path.contains("session") || path.contains("maybe") { 200 } else { 401 };
            for (method, upgrade, expected) in [
                ("GET", false, nobody),
                ("HEAD", false, nobody),
                ("POST", false, 500),
                ("DELETE", false, 500),
                ("get", false, 500),
                // A socket acts, though it begins with a `GET`.
                ("GET", true, 500),
            ] {
                let found = status(&bare, path, method, upgrade).await;
                assert_eq!(found, expected, "{path} {method}");
            }
            assert_eq!(status(&waived, path, "POST", false).await, nobody, "{path}");
            assert_eq!(status(&waived, path, "GET", true).await, nobody, "{path}");
            assert_eq!(status(&checked, path, "GET", true).await, nobody, "{path}");
            assert_eq!(status(&checked, path, "POST", false).await, 403, "{path}");
            assert_eq!(status(&checked, path, "get", false).await, 403, "{path}");
        }
    });
}

/// What a handler is told about the check, in words.
async fn told(request: HttpRequest) -> &'static str {
    match request.extensions().get::<CsrfChecked>() {
        None => "missing",
        Some(checked) if checked.is_exempt() => "exempt",
        Some(checked) if checked.covers("POST") => "checked",
        Some(_) => "safe",
    }
}

#[test]
fn what_was_checked_differs_from_what_was_waived_and_what_was_forgotten() {
    run(async {
        let routes = || web::resource("/").to(told);
        let csrf = CsrfLayer::new(csrf::settings()).unwrap();
        let refused = "CSRF verification failed: CSRF cookie not set.";
        let app = |resource| App::new().service(resource);
        for (name, app, answers) in [
            ("nothing", Sent::to(init_service(app(routes())).await), ["missing"; 3]),
            (
                "the layer",
                Sent::to(init_service(app(routes()).wrap(csrf.clone())).await),
                ["checked", refused, "safe"],
            ),
            (
                "without check",
                Sent::to(init_service(app(routes()).wrap(csrf.clone().exempt())).await),
                ["exempt"; 3],
            ),
            (
                "exempt resource",
                Sent::to(init_service(App::new().service(routes().wrap(CsrfExempt))).await),
                ["exempt"; 3],
            ),
            (
                "the layer within exempt",
                Sent::to(init_service(app(routes()).wrap(csrf.clone()).wrap(CsrfExempt)).await),
                ["checked", refused, "safe"],
            ),
            (
                "an exempt resource within the layer",
                Sent::to(
                    init_service(App::new().service(routes().wrap(CsrfExempt)).wrap(csrf.clone()))
                        .await,
                ),
                ["checked", refused, "safe"],
            ),
            (
                "the layer twice",
                Sent::to(init_service(app(routes()).wrap(csrf.clone()).wrap(csrf.clone())).await),
                ["checked", refused, "safe"],
            ),
        ] {
            let valid = csrf::form(FORM, format!("csrfmiddlewaretoken={TOKEN}"));
            let forged = Request::post("/").body(String::new()).unwrap();
            let safe = Request::get("/").body(String::new()).unwrap();
            for (request, answer) in [valid, forged, safe].into_iter().zip(answers) {
                assert_eq!(app.text(request).await.1, answer, "{name}");
            }
        }
    });
}

type Seen = Arc<Mutex<Option<Result<(usize, Vec<u8>), String>>>>;

/// An app that reads what it is posted, and notes how much had been read before.
async fn reader(settings: CsrfSettings, pieces: &Pieces) -> (Sent, Seen) {
    let seen = Seen::default();
    let (taken, note) = (Arc::clone(&pieces.taken), Arc::clone(&seen));
    let handler = move |body: web::Payload| {
        let (at_call, note) = (taken.load(Ordering::Relaxed), Arc::clone(&note));
        async move {
            let read = body.to_bytes_limited(usize::MAX).await.unwrap();
            let read = read.map(|read| (at_call, read.to_vec())).map_err(|error| error.to_string());
            *note.lock().unwrap() = Some(read);
            "read"
        }
    };
    let app = App::new().default_service(web::to(handler));
    let csrf = CsrfLayer::new(settings).unwrap();
    (Sent::to(init_service(app.wrap(csrf)).await), seen)
}

#[test]
fn an_upload_streams_past_the_limit() {
    run(async {
        let mut settings = csrf::settings();
        settings.data_upload_max_memory_size = 1000;
        let file = vec![b'f'; 1_000_000];
        let body =
            csrf::multipart(&[(csrf::FIELD, TOKEN.as_bytes()), ("name=f; filename=f", &file)]);
        let pieces = Pieces::new(body.chunks(300).map(<[u8]>::to_vec));
        let (app, seen) = reader(settings.clone(), &pieces).await;
        assert_eq!(app.send(csrf::form(MULTIPART, pieces)).await.status(), 200);
        let (at_call, read) = seen.lock().unwrap().take().unwrap().unwrap();
        assert!(read == body);
        assert_eq!(at_call, 1200, "no more than one piece beyond the limit");

        // Nothing at all is read of what is refused, or need not be looked at.
        for (name, value, status) in
            [("origin", "http://evil.example", 403), ("content-type", "application/json", 200)]
        {
            let pieces = Pieces::new(body.chunks(300).map(<[u8]>::to_vec));
            let taken = Arc::clone(&pieces.taken);
            let (app, seen) = reader(settings.clone(), &pieces).await;
            let mut request = csrf::form(MULTIPART, pieces);
            request.headers_mut().insert(name, value.parse().unwrap());
            request.headers_mut().insert("x-csrftoken", TOKEN.parse().unwrap());
            assert_eq!(app.send(request).await.status(), status);
            match seen.lock().unwrap().take() {
                None => assert_eq!((status, taken.load(Ordering::Relaxed)), (403, 0)),
                Some(read) => assert!(read.unwrap() == (0, body.clone())),
            }
        }
    });
}

#[test]
fn a_client_that_goes_away_is_one_without_a_form() {
    run(async {
        let broken = || {
            let mut pieces = Pieces::new([format!("csrfmiddlewaretoken={TOKEN}")]);
            pieces.pieces.push_back(Err(io::Error::other("gone")));
            pieces
        };
        let pieces = broken();
        let (app, seen) = reader(csrf::settings(), &pieces).await;
        assert_eq!(app.send(csrf::form(FORM, pieces)).await.status(), 403);
        assert!(seen.lock().unwrap().is_none());
        let pieces = broken();
        let (app, seen) = reader(csrf::settings(), &pieces).await;
        let mut request = csrf::form(FORM, pieces);
        request.headers_mut().insert("x-csrftoken", SECRET.parse().unwrap());
        assert_eq!(app.send(request).await.status(), 200);
        let error = seen.lock().unwrap().take().unwrap().unwrap_err();
        assert!(error.contains("gone"), "{error}");
    });
}

/// A middleware of somebody else's that fails, which leaves the layers without a response.
#[test]
fn a_service_that_fails_saves_nothing() {
    run(async {
        let store = logged_in();
        let before = store.row(&crate::web::key(KEY));
        let app = App::new()
            .route("/", web::to(write))
            .wrap_fn(|request, service| {
                let response = service.call(request);
                async move {
                    response.await?;
                    Err::<ServiceResponse, _>(actix_web::error::ErrorBadGateway("as planned"))
                }
            })
            .wrap(CsrfLayer::new(csrf::settings()).unwrap())
            .wrap(SessionLayer::new(store.clone(), SessionSettings::default()));
        let app = init_service(app).await;
        let request = TestRequest::get().insert_header(("cookie", format!("sessionid={KEY}")));
        let error = app.call(request.to_request()).await.unwrap_err();
        assert_eq!(error.to_string(), "as planned");
        assert_eq!(store.row(&crate::web::key(KEY)), before);
    });
}

/// A server on loopback, until it is stopped.
struct Server {
    address: SocketAddr,
    handle: ServerHandle,
}

impl Server {
    fn start(server: impl FnOnce(TcpListener) -> actix_web::dev::Server) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = server(listener);
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { address, handle }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The status of the whole answer to a request, its headers, its body.
    async fn ask(&self, head: &str, body: &[&[u8]]) -> (String, String, String) {
        let mut stream = self.connect().await;
        let head = format!("{head}\r\nhost: example.com\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in body {
            // Who refuses a request need not read it.
            if stream.write_all(piece).await.is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        let status = status.split(' ').nth(1).unwrap().to_owned();
        (status, headers.to_owned(), body.to_owned())
    }

    async fn stop(self) {
        self.handle.stop(false).await;
    }
}

#[test]
fn a_body_comes_over_a_real_connection_as_it_was_sent() {
    run(async {
        let csrf = CsrfLayer::new(csrf::settings()).unwrap();
        let server = Server::start(move |listener| {
            let server = HttpServer::new(move || {
                let digest = async |body: web::Payload| {
                    let read = body.to_bytes_limited(usize::MAX).await.unwrap().unwrap();
                    let sum = read.iter().fold(0_u64, |sum, byte| {
                        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
                    });
                    format!("{} {sum}", read.len())
                };
                App::new().default_service(web::to(digest)).wrap(csrf.clone())
            });
            server.workers(1).disable_signals().listen(listener).unwrap().run()
        });
        let file: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
        let body =
            csrf::multipart(&[(csrf::FIELD, TOKEN.as_bytes()), ("name=f; filename=f", &file)]);
        let sum = body
            .iter()
            .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let expected = format!("{} {sum}", body.len());
        let ours = "cookie: csrftoken=".to_owned() + SECRET + "\r\norigin: http://example.com";
        let head = format!("POST / HTTP/1.1\r\n{ours}\r\ncontent-type: {MULTIPART}");

        let sized = format!("{head}\r\ncontent-length: {}", body.len());
        let (status, _, read) = server.ask(&sized, &[&body]).await;
        assert_eq!((&*status, &*read), ("200", &*expected));

        let mut chunked = Vec::new();
        for piece in body.chunks(7_001) {
            chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
            chunked.extend(piece);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        let chunked_head = format!("{head}\r\ntransfer-encoding: chunked");
        let (status, headers, read) = server.ask(&chunked_head, &[&chunked]).await;
        assert!(headers.contains("\r\ntransfer-encoding") || read.contains(&expected));
        assert_eq!((&*status, &*read), ("200", &*expected));

        // A page of another site posts with the cookies of this one.
        let forged = sized.replace("origin: http://example.com", "origin: https://evil.example");
        let (status, _, read) = server.ask(&forged, &[]).await;
        assert_eq!(status, "403");
        assert_eq!(read, "CSRF verification failed: Origin checking failed.");
        server.stop().await;
    });
}

/// Users in a database of their own, one of them.
async fn users() -> (Auth, User) {
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE auth_user (id integer PRIMARY KEY, username text, password text, \
         is_active bool, is_staff bool, is_superuser bool, last_login datetime); \
         INSERT INTO auth_user VALUES (42, 'ann', 'md5$…', 1, 0, 0, NULL)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let settings = AuthSettings::new(gate::settings());
    let auth = Auth::new(SqlUsers::new(pool, &settings.user_model), settings);
    let backend = "django.contrib.auth.backends.ModelBackend";
    let ann = auth.user_by_name("ann", backend).await.unwrap().unwrap();
    (auth, ann)
}

/// Tells who it is, and does with the session what it is told.
async fn chat(
    request: HttpRequest,
    session: AuthSession,
    body: web::Payload,
) -> Result<HttpResponse, Error> {
    let (response, mut socket, mut messages) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(async move {
        let ended = session.ended(Duration::from_millis(20));
        tokio::pin!(ended);
        loop {
            let message = tokio::select! {
                () = &mut ended => break,
                message = messages.recv() => message,
            };
            let Some(Ok(actix_ws::Message::Text(text))) = message else { break };
            if &*text == "save" {
                session.session().save().await.unwrap();
            } else {
                session.session().insert("said", &*text).await.unwrap();
            }
            let user = session.user().await.unwrap();
            let name = user.map_or("nobody".to_owned(), |user| user.username().to_owned());
            socket.text(name).await.unwrap();
        }
        socket.close(None).await.unwrap();
    });
    Ok(response)
}

/// The browser's end of a WebSocket.
struct Socket(TcpStream);

impl Socket {
    /// The handshake; the head of the answer.
    async fn open(server: &Server, origin: &str, session_key: &str) -> (Self, String) {
        let mut stream = server.connect().await;
        let request = format!(
            "GET /chat HTTP/1.1\r\nhost: example.com\r\norigin: {origin}\r\n\
             cookie: sessionid={session_key}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (Self(stream), String::from_utf8(head).unwrap().to_ascii_lowercase())
    }

    /// Sends a text of a few bytes and waits for another one.
    async fn say(&mut self, text: &str) -> String {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend(text.bytes());
        self.0.write_all(&frame).await.unwrap();
        let (kind, text) = self.next().await;
        assert_eq!(kind, 0x81);
        text
    }

    async fn next(&mut self) -> (u8, String) {
        let kind = self.0.read_u8().await.unwrap();
        let length = self.0.read_u8().await.unwrap();
        let mut data = vec![0; length.into()];
        self.0.read_exact(&mut data).await.unwrap();
        (kind, String::from_utf8_lossy(&data).into_owned())
    }
}

#[test]
fn a_websocket_has_the_session_saves_it_when_told_and_ends_with_it() {
    run(async {
        let (auth, ann) = users().await;
        let settings = auth.settings().session.clone();
        let store = MemoryStore::new(settings.codec().unwrap());
        let open = |key| Session::new(Arc::new(store.clone()), settings.clone(), key);
        let login = open(None);
        auth.login(&login, &ann).await.unwrap();
        login.save().await.unwrap();
        let key = login.session_key().await.unwrap();

        let users = AuthLayer::new(auth.clone());
        let csrf = CsrfLayer::new(csrf::settings()).unwrap();
        let sessions = SessionLayer::new(store.clone(), settings.clone());
        let server = Server::start(move |listener| {
            let server = HttpServer::new(move || {
                App::new()
                    .route("/chat", web::get().to(chat))
                    .wrap(users.clone())
                    .wrap(csrf.clone())
                    .wrap(sessions.clone())
            });
            server.workers(1).disable_signals().listen(listener).unwrap().run()
        });
        let (_, head) = Socket::open(&server, "https://evil.example", key.as_str()).await;
        assert!(head.starts_with("http/1.1 403 "), "{head}");

        let (mut socket, head) = Socket::open(&server, "http://example.com", key.as_str()).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(!head.contains("set-cookie") && !head.contains("vary"), "{head}");
        let before = store.row(&key);
        assert_eq!(socket.say("hello").await, "ann");
        assert_eq!(store.row(&key), before, "nothing is saved by itself");
        assert_eq!(socket.say("save").await, "ann");
        let said = open(Some(key.clone())).get::<String>("said").await.unwrap();
        assert_eq!(said.as_deref(), Some("hello"));

        auth.logout(&open(Some(key.clone()))).await.unwrap();
        let (kind, _) = socket.next().await;
        assert_eq!(kind, 0x88, "closed");
        assert_eq!(store.row(&key), None, "and does not come back");

        let (mut nobody, _) = Socket::open(&server, "http://example.com", "").await;
        assert_eq!(nobody.say("hello").await, "nobody");
        drop(nobody);
        server.stop().await;
        assert!(store.session_keys().is_empty());
    });
}

#[allow(dead_code, reason = "its `main` is not run")]
#[path = "../../examples/actix.rs"]
mod example;

#[test]
fn the_example_lets_in_whom_django_lets_in() {
    fn value<'a>(headers: &'a str, name: &str) -> &'a str {
        let value = headers.split_once(&format!("{name}=")).unwrap().1;
        value.split([';', '\r', '>']).next().unwrap()
    }
    const TOKEN: &str = "csrfmiddlewaretoken value";
    let Some(mut peer) = gate::Peer::start(0, 0) else { return };
    peer.ask(&json!({"user": "ann", "password": "secret", "permissions": []}));
    let file = json!({
        "DJANGO_VERSION": "5.2.19",
        "SECRET_KEY": crate::differential::SECRET_KEY,
        "ALLOWED_HOSTS": ["example.com"],
        "LOGIN_URL": "/login",
    });
    run(async {
        let mut site = SiteSettings::from_json(&file.to_string()).unwrap();
        site.auth.hashers = gate::cheap_hashers();
        let store = SqlStore::connect(&peer.address, &site.session).await.unwrap();
        let users = SqlUsers::beside(&store, &site.auth.user_model);
        let auth = Auth::new(users, site.auth.clone());
        let server = Server::start(|listener| {
            example::serve(listener, site, Arc::new(store), auth).unwrap()
        });

        let (status, _, body) = server.ask("GET /health HTTP/1.1", &[]).await;
        assert_eq!((&*status, &*body), ("200", "ok"));
        let (status, headers, _) = server.ask("GET /account?page=2 HTTP/1.1", &[]).await;
        assert_eq!(status, "302");
        assert!(headers.contains("location: /login?next=/account%3Fpage%3D2"), "{headers}");
        let (_, headers, page) = server.ask("GET /login?next=%22%3E HTTP/1.1", &[]).await;
        assert!(page.contains("value=\"&quot;&gt;\""), "{page}");
        let token = value(&page, TOKEN).to_owned();
        let cookie = format!("csrftoken={}", value(&headers, "csrftoken"));

        let post = async |path: &str, cookies: &str, token: &str, fields: &str| {
            let form = format!("csrfmiddlewaretoken={token}&{fields}");
            let head = format!(
                "POST {path} HTTP/1.1\r\ncookie: {cookies}\r\ncontent-type: {FORM}\r\n\
                 content-length: {}",
                form.len(),
            );
            server.ask(&head, &[form.as_bytes()]).await
        };
        let ann = "username=ann&password=secret&next=";
        let (_, headers, _) =
            post("/login", &cookie, &token, "username=ann&password=wrong&next=/").await;
        assert!(headers.contains("location: /login?failed\r\n"), "{headers}");
        assert_eq!(post("/login", &cookie, "", ann).await.0, "403");
        let mut became = String::new();
        for (next, location) in [
            ("/", "/"),
            ("//evil.example", "/"),
            ("/%5Cevil.example", "/"),
            ("/%0d%0aX:y", "/"),
            ("/%09/evil.example", "/"),
            ("https://evil.example", "/"),
            ("/account?page=2", "/account?page=2"),
        ] {
            let fields = format!("{ann}{next}");
            let (status, headers, _) = post("/login", &cookie, &token, &fields).await;
            assert_eq!(status, "303");
            assert!(headers.contains(&format!("location: {location}\r\n")), "{headers}");
            became = headers;
        }
        let session_key = value(&became, "sessionid").to_owned();
        let cookies = format!("sessionid={session_key}; csrftoken={}", value(&became, "csrftoken"));
        assert_eq!(peer.get("/user", &session_key)["status"], 200);

        let get = async |path: &str| {
            server.ask(&format!("GET {path} HTTP/1.1\r\ncookie: {cookies}"), &[]).await
        };
        assert_eq!(get("/account").await.2, "ann");
        assert_eq!(get("/groups").await.0, "403");
        peer.ask(&json!({"user": "ann", "permissions": ["view_group"]}));
        assert_eq!(get("/groups").await.2, "ann may view groups");
        let (_, _, page) = get("/").await;
        let token = value(&page, TOKEN).to_owned();
        assert_eq!(post("/visit", &cookies, "", "").await.0, "403");
        assert_eq!(post("/visit", &cookies, &token, "").await.2, "visit 1");
        assert_eq!(post("/logout", &cookies, "", "").await.0, "403");
        assert_eq!(get("/account").await.0, "200");
        assert_eq!(post("/logout", &cookies, &token, "").await.0, "303");
        assert_eq!(get("/account").await.0, "302");
        assert_eq!(peer.get("/user", &session_key)["status"], 302);
        server.stop().await;
    });
}

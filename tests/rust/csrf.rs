//! CSRF protection: requests answered by an installed Django and by us, and what Django has no say in.
//!
//! The interpreter is `TEST_PYTHON`; `tests/csrf_peer.py` makes the requests up and asks Django.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use django_session::store::MemoryStore;
use django_session::web::{
    Csrf, CsrfBody, CsrfChecked, CsrfExempt, CsrfLayer, CsrfRejection, CsrfSettings,
};
use django_session::{
    DateTime, SecretKey, SessionCodec, SessionData, SessionKey, SessionLayer, SessionSettings,
};
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, ORIGIN, REFERER, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::differential::Random;
use crate::middleware::FixedClock;
use crate::web::capture_logs;

const NOW: i64 = 1_700_000_000;
const REQUESTS: usize = 8_000;
pub(crate) const KEY: &str = "abcdefghijklmnopqrstuvwxyz012345";
pub(crate) const SECRET: &str = "aB3dEf6hIj9lMn0pQrStUvWxYzAbCdZz";
/// Django masked the secret.
pub(crate) const TOKEN: &str = "Zy9xWv8uTs7rQp6oNm5lKj4iHg3fEd2cZZ2AqA4BrB6CsCWDtDNEuEQFvFtg6gRB";
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// What the client and the log read, and what the session holds.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u64,
    logger: Option<String>,
    reason: Option<String>,
    set_cookie: Vec<String>,
    vary: Option<String>,
    session_entry: Option<String>,
}

impl Answer {
    fn of_django(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let lines = answer["set_cookie"].as_array().unwrap().iter();
        Self {
            status: answer["status"].as_u64().unwrap(),
            logger: text("logger"),
            reason: text("reason"),
            set_cookie: lines.map(|line| line.as_str().unwrap().to_owned()).collect(),
            vary: text("vary"),
            session_entry: text("session_entry"),
        }
    }
}

#[tokio::test]
async fn eight_thousand_requests_are_answered_as_by_django() {
    requests_are_answered_as_by_django(through_tower).await;
}

pub(crate) async fn requests_are_answered_as_by_django(front: impl Front) {
    let Some(mut ask) =
        peer(&["ask", &REQUESTS.to_string(), &Random::new().below(1 << 30).to_string()])
    else {
        return;
    };
    let asked = ask.stderr(Stdio::inherit()).output().unwrap();
    assert!(asked.status.success());
    let mut random = Random::new();
    let mut site = None;
    let mut tokens = Vec::new();
    let mut tally = HashMap::<String, usize>::new();
    for line in asked.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).unwrap();
        if line.get("settings").is_some() {
            site = Some(Site::new(&line));
            continue;
        }
        let site = site.as_ref().unwrap();
        let theirs = Answer::of_django(&line["answer"]);
        let request = &line["request"];
        let ours = site.ask(&front, request, &mut random, &mut tokens).await;
        assert_eq!(ours, theirs, "{request:#}\nunder {:#}", site.line);
        let kind = theirs.reason.as_deref().unwrap_or("no reason").split(" - ").next().unwrap();
        *tally.entry(format!("{} {kind}", theirs.status)).or_default() += 1;
    }
    eprintln!("{tally:#?}");
    assert_eq!(tally.values().sum::<usize>(), REQUESTS);
    assert!(tally["200 no reason"] > REQUESTS / 5);
    assert!(tally.len() >= 15, "every kind of answer came up");

    // And what we gave out, Django takes.
    let mut take = peer(&["tokens"]).unwrap();
    let mut take = take.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = take.stdin.take().unwrap();
    for (secret, token) in &tokens {
        writeln!(stdin, "{}", json!({"secret": secret, "token": token})).unwrap();
    }
    drop(stdin);
    let answer = take.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert!(tokens.len() > 500);
    assert_eq!(answer, json!({"count": tokens.len(), "matching": tokens.len()}));
}

fn peer(arguments: &[&str]) -> Option<Command> {
    let mut command = crate::differential::python()?;
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/csrf_peer.py")).args(arguments);
    Some(command)
}

/// What a handler does behind the layers, in any framework.
#[derive(Clone)]
pub(crate) struct View {
    body: Vec<u8>,
    given: Arc<Mutex<Vec<String>>>,
    steps: Vec<String>,
}

impl View {
    pub(crate) fn run(&self, csrf: &Csrf, is_covered: bool, read: &[u8]) {
        assert!(is_covered);
        assert_eq!(read, self.body);
        for step in &self.steps {
            if step == "rotate" {
                csrf.rotate();
                self.given.lock().unwrap().clear();
            } else {
                self.given.lock().unwrap().push(csrf.token());
            }
        }
    }
}

/// Answers a request by a view within both layers.
pub(crate) trait Front:
    AsyncFn(SessionLayer, CsrfLayer, View, Request<Pieces>) -> Response<()>
{
}

impl<F: AsyncFn(SessionLayer, CsrfLayer, View, Request<Pieces>) -> Response<()>> Front for F {}

async fn through_tower(
    sessions: SessionLayer,
    csrf: CsrfLayer,
    view: View,
    request: Request<Pieces>,
) -> Response<()> {
    let service = service_fn(move |request: Request<CsrfBody<Pieces>>| {
        let view = view.clone();
        async move {
            let (parts, body) = request.into_parts();
            let csrf = parts.extensions.get::<Csrf>().unwrap();
            let checked = CsrfChecked::of(&parts.extensions).unwrap();
            let read = body.collect().await.unwrap().to_bytes();
            view.run(csrf, checked.covers(&parts.method), &read);
            Ok::<_, Infallible>(Response::new("done"))
        }
    });
    sessions.layer(csrf.layer(service)).oneshot(request).await.unwrap().map(drop)
}

/// A site under some settings.
struct Site {
    line: Value,
    settings: CsrfSettings,
    session_settings: SessionSettings,
}

impl Site {
    fn new(line: &Value) -> Self {
        let text = line["settings"].to_string();
        let mut settings = CsrfSettings::from_json(&text).unwrap();
        // Django has no limit for files.
        settings.multipart_prefix_size = Some(1 << 20);
        let server = &line["server"];
        settings.server_name = server["name"].as_str().unwrap().into();
        settings.server_port = server["port"].as_u64().map(|port| port.try_into().unwrap());
        settings.server_secure = server["secure"].as_bool().unwrap();
        let session_settings = SessionSettings::from_json(&text).unwrap();
        Self { line: line.clone(), settings, session_settings }
    }

    async fn ask(
        &self,
        front: &impl Front,
        asked: &Value,
        random: &mut Random,
        tokens: &mut Vec<(String, String)>,
    ) -> Answer {
        let store = MemoryStore::new(codec());
        if asked["session"].is_object() {
            put(&store, &asked["session"].to_string());
        }
        let body = base64(asked["body"].as_str().unwrap());
        let steps: Vec<String> = serde_json::from_value(asked["steps"].clone()).unwrap();
        let given = Arc::new(Mutex::new(Vec::new()));
        let view = View { body: body.clone(), given: Arc::clone(&given), steps };
        let mut layer = CsrfLayer::new(self.settings.clone()).unwrap().with_clock(FixedClock(NOW));
        if asked["exempt"] == true {
            layer = layer.exempt();
        }
        let sessions = SessionLayer::new(store.clone(), self.session_settings.clone());
        let sessions = sessions.with_clock(FixedClock(NOW));
        let request = request(asked, Pieces::split(&body, random));
        let (logs, guard) = capture_logs();
        let response = front(sessions, layer, view, request).await;
        drop(guard);

        let secret = asked["secret"].as_str().unwrap();
        let mut new = None;
        let mut set_cookie: Vec<_> = response
            .headers()
            .get_all(SET_COOKIE)
            .iter()
            .map(|line| {
                let line = line.to_str().unwrap();
                let (pair, attributes) = line.split_once("; ").unwrap_or((line, ""));
                let (name, value) = pair.split_once('=').unwrap();
                if name != "sessionid" {
                    new = Some(value.to_owned());
                }
                let value = if [secret, KEY].contains(&value) { "(same)" } else { "(new)" };
                format!("{name}={value}; {attributes}")
            })
            .collect();
        set_cookie.sort();
        let entry = entry(&store, &response);
        if self.settings.csrf_use_sessions && !given.lock().unwrap().is_empty() {
            new.clone_from(&entry);
        }
        if let Some(secret) = &new {
            let given = given.lock().unwrap();
            tokens.extend(given.iter().map(|token| (secret.clone(), token.clone())));
        }
        let before = asked["session"]["_csrftoken"].as_str();
        let session_entry = entry.map(|entry| match &*entry {
            entry if Some(entry) == before => entry.to_owned(),
            entry if entry == secret => "(same)".to_owned(),
            _ => "(new)".to_owned(),
        });
        let last = logs.lock().unwrap().last().cloned();
        let last = last.as_deref().map(|line| line.split_once(' ').unwrap().1);
        let (logger, message) = last.and_then(|line| line.split_once(' ')).unzip();
        let reason = message.and_then(|message| message.strip_prefix("Forbidden ("));
        let reason = reason.map(|reason| reason.strip_suffix(") status_code=403").unwrap());
        Answer {
            status: response.status().as_u16().into(),
            logger: logger.map(str::to_owned),
            reason: reason.map(str::to_owned),
            set_cookie,
            vary: response.headers().get(VARY).map(|vary| vary.to_str().unwrap().to_owned()),
            session_entry,
        }
    }
}

/// What the session holds that the client has now.
fn entry<B>(store: &MemoryStore, response: &Response<B>) -> Option<String> {
    let lines = response.headers().get_all(SET_COOKIE).iter();
    let keys = lines.filter_map(|line| line.to_str().unwrap().strip_prefix("sessionid="));
    let session_key = keys.map(|line| line.split(';').next().unwrap()).next().unwrap_or(KEY);
    let (text, _) = store.row(&SessionKey::parse(session_key)?)?;
    codec().decode(&text).unwrap().data.get("_csrftoken").unwrap()
}

fn request(asked: &Value, body: Pieces) -> Request<Pieces> {
    let mut request = Request::new(body);
    *request.method_mut() = asked["method"].as_str().unwrap().parse().unwrap();
    for header in asked["headers"].as_array().unwrap() {
        let name: HeaderName = header[0].as_str().unwrap().parse().unwrap();
        let value = header[1].as_str().unwrap().replace("(key)", KEY);
        let value: Vec<u8> = value.chars().map(|char| u8::try_from(char).unwrap()).collect();
        request.headers_mut().append(name, HeaderValue::from_bytes(&value).unwrap());
    }
    request
}

/// A body in pieces, which counts the bytes that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) pieces: VecDeque<io::Result<Frame<Bytes>>>,
    pub(crate) taken: Arc<AtomicUsize>,
}

impl Pieces {
    pub(crate) fn new(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let pieces = pieces.into_iter().map(|piece| Ok(Frame::data(piece.into()))).collect();
        Self { pieces, taken: Arc::default() }
    }

    fn split(body: &[u8], random: &mut Random) -> Self {
        let mut rest = Bytes::copy_from_slice(body);
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let length = [1, 7, 100, 10_000][random.below(4)];
            pieces.push(rest.split_to(length.min(rest.len())));
        }
        Self::new(pieces)
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.pieces.pop_front();
        if let Some(Some(data)) = piece.as_ref().map(|piece| piece.as_ref().ok()?.data_ref()) {
            self.taken.fetch_add(data.len(), Ordering::Relaxed);
        }
        Poll::Ready(piece)
    }
}

pub(crate) fn codec() -> SessionCodec {
    SessionCodec::new(&SecretKey::new("secret").unwrap())
}

/// Puts a session under `KEY`.
pub(crate) fn put(store: &MemoryStore, data: &str) {
    let data = SessionData::from_json(data).unwrap();
    let far = DateTime::Aware("2100-01-01T00:00:00Z".parse().unwrap());
    store.insert_row(SessionKey::parse(KEY).unwrap(), codec().encode(&data, NOW).unwrap(), far);
}

fn base64(text: &str) -> Vec<u8> {
    base64_simd::STANDARD.decode_to_vec(text).unwrap()
}

pub(crate) fn settings() -> CsrfSettings {
    let mut settings = CsrfSettings::default();
    settings.allowed_hosts = vec!["example.com".to_owned()];
    settings
}

pub(crate) fn layer(settings: CsrfSettings) -> CsrfLayer {
    CsrfLayer::new(settings).unwrap()
}

/// A form of our own page, with the cookie.
pub(crate) fn form<B>(content_type: &str, body: B) -> Request<B> {
    Request::post("/")
        .header(HOST, "example.com")
        .header(ORIGIN, "http://example.com")
        .header(COOKIE, format!("csrftoken={SECRET}"))
        .header(CONTENT_TYPE, content_type)
        .body(body)
        .unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Sends a form to a handler that reads it; what that has read, or the status of the refusal.
async fn read_back(
    settings: CsrfSettings,
    request: Request<Pieces>,
) -> Result<io::Result<Vec<u8>>, StatusCode> {
    let seen = Arc::new(Mutex::new(None));
    let view = {
        let seen = Arc::clone(&seen);
        service_fn(move |request: Request<CsrfBody<Pieces>>| {
            let seen = Arc::clone(&seen);
            async move {
                let mut body = request.into_body();
                let mut read = Ok(Vec::new());
                while let Some(frame) = body.frame().await {
                    match (frame, &mut read) {
                        (Ok(frame), Ok(read)) => {
                            read.extend(frame.into_data().unwrap_or_default());
                        }
                        (Err(error), _) => read = Err(error),
                        _ => {}
                    }
                }
                *seen.lock().unwrap() = Some(read);
                Ok::<_, Infallible>(Response::new("read"))
            }
        })
    };
    let response = layer(settings).layer(view).oneshot(request).await.unwrap();
    let seen = seen.lock().unwrap().take();
    seen.ok_or(response.status())
}

pub(crate) fn multipart(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (header, data) in parts {
        body.extend(format!("--X\r\nContent-Disposition: form-data; {header}\r\n\r\n").bytes());
        body.extend(*data);
        body.extend(b"\r\n");
    }
    body.extend(b"--X--\r\n");
    body
}

pub(crate) const MULTIPART: &str = "multipart/form-data; boundary=X";
pub(crate) const FIELD: &str = "name=\"csrfmiddlewaretoken\"";

#[tokio::test]
async fn an_upload_streams_past_the_limit() {
    let mut settings = settings();
    settings.data_upload_max_memory_size = 1000;
    let file = vec![b'f'; 1_000_000];
    let body = multipart(&[(FIELD, TOKEN.as_bytes()), ("name=f; filename=f", &file)]);
    let pieces = Pieces::new(body.chunks(300).map(<[u8]>::to_vec));
    let taken = Arc::clone(&pieces.taken);
    let at_call = Arc::new(AtomicUsize::new(0));
    let view = {
        let (taken, at_call) = (Arc::clone(&taken), Arc::clone(&at_call));
        service_fn(move |request: Request<CsrfBody<Pieces>>| {
            at_call.store(taken.load(Ordering::Relaxed), Ordering::Relaxed);
            async {
                let read = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(Response::new(if read.len() > 1_000_000 { "all" } else { "" }))
            }
        })
    };
    let response = layer(settings.clone()).layer(view).oneshot(form(MULTIPART, pieces)).await;
    assert_eq!(response.unwrap().body(), &"all");
    assert_eq!(at_call.load(Ordering::Relaxed), 1200, "no more than one piece beyond the limit");
    assert_eq!(taken.load(Ordering::Relaxed), body.len());

    let behind = multipart(&[("name=f; filename=f", &file), (FIELD, TOKEN.as_bytes())]);
    let request = form(MULTIPART, Pieces::new([behind.clone()]));
    assert_eq!(read_back(settings.clone(), request).await.unwrap_err(), StatusCode::FORBIDDEN);
    let mut request = form(MULTIPART, Pieces::new([behind.clone()]));
    request.headers_mut().insert("x-csrftoken", TOKEN.parse().unwrap());
    assert_eq!(read_back(settings, request).await.unwrap().unwrap(), behind);
}

#[tokio::test]
async fn a_form_that_is_too_long_is_not_read_on() {
    let mut settings = settings();
    settings.data_upload_max_memory_size = 1000;
    let body = format!("csrfmiddlewaretoken={TOKEN}&a=").into_bytes();
    for (length, answer) in [(1000, Ok(())), (1001, Err(StatusCode::BAD_REQUEST))] {
        let mut body = body.clone();
        body.resize(length, b'a');
        let pieces = Pieces::new(body.chunks(400).map(<[u8]>::to_vec));
        let read = read_back(settings.clone(), form(FORM, pieces)).await;
        assert_eq!(read.map(|read| assert_eq!(read.unwrap(), body)), answer, "{length}");
    }
    let endless = Pieces::new(std::iter::repeat_n(vec![b'a'; 400], 1000));
    let taken = Arc::clone(&endless.taken);
    assert!(read_back(settings.clone(), form(FORM, endless)).await.is_err());
    assert_eq!(taken.load(Ordering::Relaxed), 1200);

    // What says so itself is not read at all, and neither is what is refused for other reasons.
    for name in ["content-length", "origin", "cookie"] {
        let pieces = Pieces::new([body.clone()]);
        let taken = Arc::clone(&pieces.taken);
        let mut request = form(FORM, pieces);
        request.headers_mut().insert(name, HeaderValue::from_static("99999"));
        assert!(read_back(settings.clone(), request).await.is_err());
        assert_eq!(taken.load(Ordering::Relaxed), 0, "{name}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_one_without_a_form() {
    let broken = || {
        let mut pieces = Pieces::new([format!("csrfmiddlewaretoken={TOKEN}")]);
        pieces.pieces.push_back(Err(io::Error::other("gone")));
        pieces
    };
    let refused = read_back(settings(), form(FORM, broken())).await;
    assert_eq!(refused.unwrap_err(), StatusCode::FORBIDDEN);
    let mut request = form(FORM, broken());
    request.headers_mut().insert("x-csrftoken", SECRET.parse().unwrap());
    let read = read_back(settings(), request).await.unwrap();
    assert_eq!(read.unwrap_err().to_string(), "gone");
}

#[tokio::test]
async fn trailers_and_sizes_stay_with_the_body() {
    let body = format!("csrfmiddlewaretoken={TOKEN}");
    let mut pieces = Pieces::new([body.clone()]);
    let trailers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("7"))]);
    pieces.pieces.push_back(Ok(Frame::trailers(trailers.clone())));
    let expected = trailers.clone();
    let view = service_fn(move |request: Request<CsrfBody<Pieces>>| {
        let expected = expected.clone();
        async move {
            let collected = request.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&expected));
            Ok::<_, Infallible>(Response::new("done"))
        }
    });
    let response = layer(settings()).layer(view).oneshot(form(FORM, pieces)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    let view = service_fn(async |request: Request<CsrfBody<http_body_util::Full<Bytes>>>| {
        let hint = http_body::Body::size_hint(request.body());
        assert_eq!(hint.exact(), Some(84));
        assert!(!http_body::Body::is_end_stream(request.body()));
        Ok::<_, Infallible>(Response::new("done"))
    });
    let request = form(FORM, http_body_util::Full::from(body));
    let response = layer(settings()).layer(view).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// What a handler is told about the check, in words.
async fn told(request: Request<Body>) -> &'static str {
    match CsrfChecked::of(request.extensions()) {
        None => "missing",
        Some(checked) if checked.is_exempt() => "exempt",
        Some(checked) if checked.covers(&Method::POST) => "checked",
        Some(_) => "safe",
    }
}

#[tokio::test]
async fn what_was_checked_differs_from_what_was_waived_and_what_was_forgotten() {
    let routes = || Router::new().route("/", get(told).post(told));
    let csrf = layer(settings());
    let valid = || form(FORM, Body::from(format!("csrfmiddlewaretoken={TOKEN}")));
    let forged = || Request::post("/").body(Body::empty()).unwrap();
    let safe = || Request::get("/").body(Body::empty()).unwrap();
    let refused = "CSRF verification failed: CSRF cookie not set.";
    for (name, app, answers) in [
        ("nothing", routes(), ["missing", "missing", "missing"]),
        ("the layer", routes().layer(csrf.clone()), ["checked", refused, "safe"]),
        ("without check", routes().layer(csrf.clone().exempt()), ["exempt"; 3]),
        ("exempt", routes().layer(CsrfExempt), ["exempt"; 3]),
        (
            "the layer within exempt",
            routes().layer(csrf.clone()).layer(CsrfExempt),
            ["checked", refused, "safe"],
        ),
        (
            "exempt within the layer",
            routes().layer(CsrfExempt).layer(csrf.clone()),
            ["checked", refused, "safe"],
        ),
        (
            "the layer within one without check",
            routes().layer(csrf.clone()).layer(csrf.clone().exempt()),
            ["checked", refused, "safe"],
        ),
        (
            "the layer twice",
            routes().layer(csrf.clone()).layer(csrf.clone()),
            ["checked", refused, "safe"],
        ),
    ] {
        for (request, answer) in [valid(), forged(), safe()].into_iter().zip(answers) {
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(text(response).await, answer, "{name}");
        }
    }
}

#[tokio::test]
async fn a_login_makes_older_tokens_worthless() {
    let app = Router::new()
        .route(
            "/login",
            post(async |csrf: Csrf| {
                csrf.token();
                csrf.rotate();
                csrf.token()
            }),
        )
        .layer(layer(settings()));
    let login = |cookie: &str, token: &str| {
        let mut request = form(FORM, Body::from(format!("csrfmiddlewaretoken={token}")));
        *request.uri_mut() = "/login".parse().unwrap();
        request.headers_mut().insert(COOKIE, cookie.parse().unwrap());
        app.clone().oneshot(request)
    };
    let response = login(&format!("csrftoken={SECRET}"), TOKEN).await.unwrap();
    assert_eq!(response.headers()[VARY], "Cookie");
    let cookie = response.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
    let cookie = cookie.to_owned();
    assert!(!cookie.contains(SECRET));
    let token = text(response).await;
    assert_eq!(login(&cookie, TOKEN).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(login(&cookie, &token).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn one_cookie_is_set_whoever_asks() {
    let app = Router::new()
        .route("/", get(async |csrf: Csrf| csrf.token()))
        .layer(layer(settings()))
        .layer(layer(settings()));
    let response = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers().get_all(SET_COOKIE).iter().count(), 1);
}

#[tokio::test]
async fn sessions_have_to_be_there_if_they_hold_the_secret() {
    let mut in_sessions = settings();
    in_sessions.csrf_use_sessions = true;
    let routes = || Router::new().route("/", get(async |csrf: Csrf| csrf.token()));
    let request = || Request::get("/").body(Body::empty()).unwrap();
    let (logs, _guard) = capture_logs();
    let app = routes().layer(layer(in_sessions.clone()));
    let response = app.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response).await, "Internal server error");
    let response = routes().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let logs = std::mem::take(&mut *logs.lock().unwrap());
    assert!(logs[0].starts_with("ERROR django_session CSRF_USE_SESSIONS is enabled, but "));
    assert!(logs[1].starts_with("ERROR django_session there is no CsrfLayer around"));

    // A session that cannot be read is no session without a secret.
    let store = MemoryStore::new(codec());
    put(&store, "{\"_csrftoken\": [1]}");
    let app = Router::new()
        .route("/", get(async |csrf: Csrf| csrf.token()).post(async || "in"))
        .layer(layer(in_sessions))
        .layer(SessionLayer::new(store, SessionSettings::default()));
    let mut posted = form(FORM, Body::from(format!("csrfmiddlewaretoken={TOKEN}")));
    let cookie: HeaderValue = format!("sessionid={KEY}").parse().unwrap();
    posted.headers_mut().insert(COOKIE, cookie.clone());
    let response = app.clone().oneshot(posted).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);

    // Asking for a token mends it.
    let mut request = request();
    request.headers_mut().insert(COOKIE, cookie.clone());
    let token = text(app.clone().oneshot(request).await.unwrap()).await;
    let mut posted = form(FORM, Body::from(format!("csrfmiddlewaretoken={token}")));
    posted.headers_mut().insert(COOKIE, cookie);
    assert_eq!(app.oneshot(posted).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn nothing_tells_tokens() {
    let (logs, _guard) = capture_logs();
    let mut seen = String::new();
    let csrf = layer(settings());
    let app = Router::new()
        .route(
            "/",
            post(async |csrf: Csrf, request: Request<Body>| format!("{csrf:?} {request:?}")),
        )
        .layer(csrf.clone());
    write!(seen, "{csrf:?} {:?}", csrf.layer(())).unwrap();
    for body in [
        format!("csrfmiddlewaretoken={TOKEN}"),
        format!("csrfmiddlewaretoken={}", TOKEN.to_lowercase()),
        format!("csrfmiddlewaretoken={TOKEN}x"),
        String::new(),
    ] {
        for (name, value) in [
            ("x-csrftoken", TOKEN.to_uppercase()),
            ("origin", "https://evil.example".to_owned()),
            ("cookie", format!("csrftoken={SECRET}-")),
        ] {
            let mut request = form(FORM, Body::from(body.clone()));
            request.headers_mut().insert(name, value.parse().unwrap());
            let response = app.clone().oneshot(request).await.unwrap();
            if response.status() != StatusCode::OK {
                seen.push_str(&text(response).await);
            }
        }
    }
    let mut settings = settings();
    settings.server_secure = true;
    let mut request = form(FORM, Body::empty());
    request.headers_mut().remove(ORIGIN);
    let referer =
        format!("https://{SECRET}:{SECRET}@evil.example/reset/{SECRET}?{SECRET}#{SECRET}");
    request.headers_mut().insert(REFERER, referer.parse().unwrap());
    let app = Router::new().route("/", post(async || "in")).layer(layer(settings));
    seen.push_str(&text(app.oneshot(request).await.unwrap()).await);
    write!(seen, "{:?}", logs.lock().unwrap()).unwrap();
    assert!(seen.contains("Referer checking failed - https://evil.example does not match"));
    for secret in [SECRET, TOKEN, &TOKEN[32..]] {
        for secret in [secret.to_owned(), secret.to_lowercase(), secret.to_uppercase()] {
            assert!(!seen.contains(&secret), "{seen}");
        }
    }
}

#[tokio::test]
async fn a_form_is_still_there_for_the_extractor() {
    let app = Router::new()
        .route(
            "/",
            post(async |axum::Form(form): axum::Form<HashMap<String, String>>| form["a"].clone()),
        )
        .layer(layer(settings()));
    let request = form(FORM, Body::from(format!("a=b%20c&csrfmiddlewaretoken={TOKEN}")));
    assert_eq!(text(app.oneshot(request).await.unwrap()).await, "b c");
}

#[tokio::test]
async fn methods_are_as_they_are_written() {
    let app = Router::new().fallback(async || "in").layer(layer(settings()));
    for (method, status) in [("GET", 200), ("get", 403), ("Head", 403), ("QUERY", 403)] {
        let request = Request::builder().method(method).body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status, "{method}");
    }
}

#[test]
fn settings_that_contradict_django_are_named() {
    for (json, message) in [
        ("[]", "the settings file is not a JSON object"),
        (r#"{"CSRF_TRUSTED_ORIGINS": ["hunter2.com"]}"#, "CSRF_TRUSTED_ORIGINS must be a list of"),
        (r#"{"CSRF_TRUSTED_ORIGINS": ["https://[hunter2"]}"#, "CSRF_TRUSTED_ORIGINS must be"),
        (r#"{"CSRF_TRUSTED_ORIGINS": "https://hunter2"}"#, "CSRF_TRUSTED_ORIGINS must be"),
        (r#"{"ALLOWED_HOSTS": "hunter2"}"#, "ALLOWED_HOSTS must be a list"),
        (r#"{"ALLOWED_HOSTS": [5]}"#, "ALLOWED_HOSTS must be a list"),
        (r#"{"CSRF_HEADER_NAME": "X-CSRFToken"}"#, "CSRF_HEADER_NAME must be"),
        (r#"{"CSRF_COOKIE_NAME": "hunter2;"}"#, "CSRF_COOKIE_NAME must be"),
        (r#"{"CSRF_COOKIE_NAME": ""}"#, "CSRF_COOKIE_NAME must be"),
        (r#"{"CSRF_COOKIE_PATH": "/\u00e9"}"#, "CSRF_COOKIE_PATH must be"),
        (r#"{"CSRF_COOKIE_DOMAIN": 5}"#, "CSRF_COOKIE_DOMAIN must be"),
        (r#"{"CSRF_COOKIE_AGE": "hunter2"}"#, "CSRF_COOKIE_AGE must be"),
        (r#"{"CSRF_COOKIE_SAMESITE": "hunter2"}"#, "CSRF_COOKIE_SAMESITE must be"),
        (r#"{"CSRF_COOKIE_SECURE": 1}"#, "CSRF_COOKIE_SECURE must be True or False"),
        (r#"{"SECURE_PROXY_SSL_HEADER": ["HTTP_X"]}"#, "SECURE_PROXY_SSL_HEADER must be"),
        (r#"{"SECURE_PROXY_SSL_HEADER": "https"}"#, "SECURE_PROXY_SSL_HEADER must be"),
        (r#"{"SECURE_PROXY_SSL_HEADER": ["X-Proto", "a"]}"#, "SECURE_PROXY_SSL_HEADER must be"),
        (r#"{"DATA_UPLOAD_MAX_MEMORY_SIZE": -1}"#, "DATA_UPLOAD_MAX_MEMORY_SIZE must be"),
    ] {
        let error = CsrfSettings::from_json(json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains("hunter2"));
    }
    let settings = CsrfSettings::from_json(
        r#"{"DATA_UPLOAD_MAX_MEMORY_SIZE": null, "DATA_UPLOAD_MAX_NUMBER_FIELDS": null,
            "SECURE_PROXY_SSL_HEADER": [], "SESSION_COOKIE_NAME": "passed over"}"#,
    );
    let settings = settings.unwrap();
    assert_eq!(settings.data_upload_max_memory_size, 2_621_440);
    assert_eq!(settings.data_upload_max_number_fields, None);
    assert_eq!(settings.secure_proxy_ssl_header, None);
}

#[test]
fn the_client_reads_less_than_the_log() {
    for (rejection, status, body) in [
        (CsrfRejection::NoReferer, 403, "CSRF verification failed: Referer checking failed."),
        (CsrfRejection::TokenMissing, 403, "CSRF verification failed: CSRF token missing."),
        (CsrfRejection::MissingLayer, 500, "Internal server error"),
    ] {
        assert_eq!((rejection.status().as_u16(), rejection.body_text()), (status, body));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"--X".to_vec()),
        Just(b"--X--".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"\r\nContent-Disposition: form-data; name=csrfmiddlewaretoken".to_vec()),
        Just(b"; filename=\"a\"".to_vec()),
        Just(b"\r\nContent-Transfer-Encoding: base64".to_vec()),
        Just(b"&csrfmiddlewaretoken=".to_vec()),
        Just(TOKEN.as_bytes().to_vec()),
        Just(SECRET.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..200),
        Just(vec![b'x'; 1100]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// However it is cut, a body is judged the same, comes to the handler whole, and is read no further
    /// than the limit.
    #[test]
    fn any_body_in_any_pieces(
        pieces in proptest::collection::vec(piece(), 0..12),
        content_type in prop_oneof![
            Just(FORM.to_owned()),
            Just(MULTIPART.to_owned()),
            "(application/x-www-form-urlencoded|multipart/form-data);[ -~]{0,40}",
        ],
        limit in prop_oneof![Just(2_621_440_usize), 0_usize..3000],
        size in 1_usize..400,
    ) {
        let mut settings = settings();
        settings.data_upload_max_memory_size = limit;
        let body = pieces.concat();
        let whole = block_on(read_back(settings.clone(), form(&content_type, Pieces::new([body.clone()]))));
        let cut = Pieces::new(body.chunks(size).map(<[u8]>::to_vec));
        let taken = Arc::clone(&cut.taken);
        let cut = block_on(read_back(settings, form(&content_type, cut)));
        match (whole, cut) {
            (Ok(whole), Ok(cut)) => {
                prop_assert_eq!(&whole.unwrap(), &body);
                prop_assert_eq!(&cut.unwrap(), &body);
            }
            (Err(whole), Err(cut)) => {
                prop_assert_eq!(whole, cut);
                prop_assert!(taken.load(Ordering::Relaxed) <= limit + size);
            }
            (whole, cut) => prop_assert!(false, "{:?} {:?}", whole, cut),
        }
    }

    /// No header makes it fail, and none but a token lets anybody in.
    #[test]
    fn any_headers(
        names in proptest::collection::vec(
            prop_oneof![
                Just("host"), Just("origin"), Just("referer"), Just("cookie"), Just("content-type"),
                Just("x-csrftoken"), Just("x-forwarded-host"), Just("x-forwarded-port"),
                Just("x-forwarded-proto"), Just("content-length"),
            ],
            0..8,
        ),
        values in proptest::collection::vec(
            prop_oneof![
                "[ -~\t\u{80}-\u{ff}]{0,40}",
                "(https?|x):?//?\\[?[a-z0-9:.%\\[\\]@/?#-]{0,20}",
                "csrftoken=[a-zA-Z0-9\"\\\\]{30,66}",
                "[a-zA-Z0-9]{32}",
            ],
            8,
        ),
        secure in any::<bool>(),
    ) {
        let mut settings = settings();
        settings.server_secure = secure;
        settings.use_x_forwarded_host = true;
        settings.use_x_forwarded_port = true;
        settings.secure_proxy_ssl_header = Some(("HTTP_X_FORWARDED_PROTO".into(), "https".into()));
        settings.csrf_trusted_origins = vec!["https://*.example.org".into(), "https://*".into()];
        let mut request = Request::post("/").body(Pieces::default()).unwrap();
        for (name, value) in names.into_iter().zip(values) {
            let value: Vec<u8> = value.chars().filter_map(|char| u8::try_from(char).ok()).collect();
            request.headers_mut().append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        let answer = block_on(read_back(settings, request));
        prop_assert!(answer.is_err());
    }
}

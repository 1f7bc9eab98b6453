//! `django-session doctor` against misconfigurations that are made one by one, on real servers.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use django_session::codec::{Format, Serializer};
use django_session::session::session_auth_hash;
use django_session::store::sqlx::{self, AssertSqlSafe, Connection as _};
use django_session::{SecretKey, SessionCodec, SessionData};
use serde_json::{Map, Value, json};

#[path = "servers.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod servers;

/// Where `servers` looks for it.
mod stores {
    pub(crate) fn server(variable: &str) -> Option<String> {
        super::server(variable)
    }
}

const KEY: &str = "hunter2-vEry/Secret+primary.key_0123456789-abcdefghijklm";
const FALLBACK: &str = "hunter2-vEry/Secret+former.key_9876543210-nopqrstuvwxyz";
const OTHER: &str = "hunter2-of another site altogether, 0123456789 abcdefghi";
/// What is in every session, and in no output.
const PAYLOAD: &str = "hunter2-payload";
const PASSWORD: &str = "pbkdf2_sha256$1$hunter2salt$hunter2hash";
/// A session key, which is as good as a password.
const SESSION: &str = "hunter2sessionkey00000000000000a";
const SECRETS: [&str; 1] = ["hunter2"];

const SALT: &str = "django.contrib.sessions.SessionStore";
const COOKIES: &str = "django.contrib.sessions.backends.signed_cookies";
const BACKEND: &str = "django.contrib.auth.backends.ModelBackend";

fn server(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        assert!(
            std::env::var("CI").map_or(true, |ci| ci != "true"),
            "{variable} must be set where CI=true"
        );
        let notice = format!("\n*** {variable} is not set: THIS SERVER IS NOT TESTED ***\n\n");
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
    }
    url
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// What a site exports that has nothing wrong.
fn good() -> Map<String, Value> {
    let settings = json!({
        "ALLOWED_HOSTS": ["www.example.com", ".example.com"],
        "AUTHENTICATION_BACKENDS": [BACKEND],
        "CACHES_BACKENDS": {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "sessions": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
        },
        "CSRF_COOKIE_NAME": "csrftoken",
        "CSRF_USE_SESSIONS": false,
        "DEBUG": false,
        "DJANGO_VERSION": "5.2.8",
        "INSTALLED_APPS": ["django.contrib.auth", "django.contrib.sessions"],
        "LANGUAGE_COOKIE_NAME": "django_language",
        "MIDDLEWARE": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        "MIDDLEWARE_BASES": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        "SECRET_KEY": KEY,
        "SECRET_KEY_FALLBACKS": [],
        "SECRET_KEY_FALLBACKS_COUNT": 0,
        "SESSION_CACHE_ALIAS": "sessions",
        "SESSION_COOKIE_SECURE": true,
        "SESSION_ENGINE": "django.contrib.sessions.backends.db",
        "SESSION_SALT": SALT,
        "SESSION_SERIALIZER": "django.contrib.sessions.serializers.JSONSerializer",
    });
    let Value::Object(settings) = settings else { unreachable!() };
    settings
}

fn with(changes: Value) -> Map<String, Value> {
    let mut settings = good();
    let Value::Object(changes) = changes else { panic!("an object") };
    for (name, value) in changes {
        // There is no setting that says so.
        if value == "gone" {
            settings.remove(&name);
        } else {
            settings.insert(name, value);
        }
    }
    settings
}

/// A run of the command with these settings.
struct Run {
    folder: tempfile::TempDir,
    settings: Map<String, Value>,
    store: Option<String>,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    input: String,
}

/// What a run said.
#[derive(Debug)]
struct Said {
    code: i32,
    document: Value,
    text: String,
}

impl Run {
    fn new(settings: Map<String, Value>) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            settings,
            store: None,
            arguments: Vec::new(),
            variables: Vec::new(),
            input: String::new(),
        }
    }

    fn store(mut self, url: impl Into<String>) -> Self {
        self.store = Some(url.into());
        self
    }

    fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn output(&self, json: bool) -> Output {
        let path = self.folder.path().join("settings.json");
        std::fs::write(&path, Value::Object(self.settings.clone()).to_string()).unwrap();
        chmod(&path, 0o600);
        let mut command = Command::new(env!("CARGO_BIN_EXE_django-session"));
        command.env_clear().arg("doctor").arg("--settings").arg(path).args(&self.arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(url) = &self.store {
            command.env("SESSION_STORE_URL", url);
        }
        if json {
            command.arg("--json");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(self.input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let mut secrets: Vec<String> = SECRETS.iter().map(|&secret| secret.to_owned()).collect();
        // The password of a test server.
        let password = self.store.as_deref().and_then(|url| {
            let (_, rest) = url.split_once("://")?;
            Some(rest.rsplit_once('@')?.0.split_once(':')?.1.to_owned())
        });
        secrets.extend(password);
        for stream in [&output.stdout, &output.stderr] {
            let said = String::from_utf8_lossy(stream);
            for secret in &secrets {
                assert!(!said.contains(&**secret), "a secret is shown: {said}");
            }
        }
        output
    }

    /// What it says, the same to people and to programs.
    fn said(&self) -> Said {
        let output = self.output(true);
        let told = String::from_utf8(output.stderr.clone()).unwrap();
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {told}"));
        let code = output.status.code().unwrap();
        let shown = self.output(false);
        assert_eq!(shown.status.code(), Some(code));
        Said { code, document, text: String::from_utf8(shown.stdout).unwrap() }
    }
}

impl Said {
    fn findings(&self) -> &[Value] {
        self.document["findings"].as_array().unwrap()
    }

    fn ids(&self) -> BTreeSet<&str> {
        self.findings().iter().map(|finding| finding["id"].as_str().unwrap()).collect()
    }

    fn severity(&self, id: &str) -> &str {
        let found = self.findings().iter().find(|finding| finding["id"] == id);
        found.unwrap_or_else(|| panic!("{id} is not among {:?}", self.ids()))["severity"]
            .as_str()
            .unwrap()
    }

    /// The finding is there, at this severity, with its fix; and the exit code is that of the worst.
    #[track_caller]
    fn has(&self, id: &str, severity: &str) {
        assert_eq!(self.severity(id), severity, "{id}");
        let finding = self.findings().iter().find(|finding| finding["id"] == id).unwrap();
        // What is seen may be another number a moment later.
        assert!(!finding["seen"].as_str().unwrap().is_empty());
        for member in ["why", "fix"] {
            let text = finding[member].as_str().unwrap();
            assert!(!text.is_empty() && self.text.contains(text), "{id}: {text}");
        }
        assert!(self.text.contains(&format!("{severity}[{id}]: ")), "{}", self.text);
        let of = |severity: &str| self.findings().iter().any(|it| it["severity"] == severity);
        let code = if of("error") { 2 } else { i32::from(of("warning")) };
        assert_eq!(self.code, code, "{id}");
    }

    /// It is all that was found.
    #[track_caller]
    fn has_only(&self, id: &str, severity: &str) {
        self.has(id, severity);
        assert_eq!(self.ids(), BTreeSet::from([id]));
    }
}

#[cfg(unix)]
fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn codec_with(key: &str, salt: &str) -> SessionCodec {
    SessionCodec::with_salt(&SecretKey::new(key).unwrap(), salt)
}

fn codec() -> SessionCodec {
    codec_with(KEY, SALT)
}

fn data() -> SessionData {
    SessionData::from_json(&json!({ "cart": PAYLOAD }).to_string()).unwrap()
}

const TABLE: &str = "CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, \
                     session_data text NOT NULL, expire_date datetime NOT NULL)";
const INDEX: &str = "CREATE INDEX django_session_expire ON django_session (expire_date)";

/// A file of SQLite with nothing wrong but what the statements do.
struct Sqlite {
    folder: tempfile::TempDir,
}

impl Sqlite {
    async fn bare(statements: &[&str]) -> Self {
        let found = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(found.path(), "").unwrap();
        chmod(&found.path(), 0o600);
        found.execute("PRAGMA journal_mode = WAL").await;
        for statement in statements {
            found.execute(statement).await;
        }
        found
    }

    async fn new() -> Self {
        Self::bare(&[TABLE, INDEX]).await
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("db.sqlite3")
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    async fn execute(&self, sql: &str) {
        let mut connection = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn insert(&self, key: &str, stored: &str, left: i64) {
        let end = datetime(now() + left);
        self.execute(&format!("INSERT INTO django_session VALUES ('{key}', '{stored}', '{end}')"))
            .await;
    }

    /// Many sessions that are alike.
    async fn fill(&self, count: usize, stored: &str, left: i64) {
        let end = datetime(now() + left);
        let rows: Vec<_> = (0..count)
            .map(|at| format!("('hunter2{at:025}{}', '{stored}', '{end}')", left.signum() + 1))
            .collect();
        self.execute(&format!("INSERT INTO django_session VALUES {}", rows.join(", "))).await;
    }
}

/// A time as Django writes it to SQLite.
fn datetime(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap();
    time.strftime("%Y-%m-%d %H:%M:%S.000000").to_string()
}

#[tokio::test]
async fn a_site_with_nothing_wrong_hears_nothing() {
    let store = Sqlite::new().await;
    store.fill(30, &codec().encode(&data(), now()).unwrap(), 3600).await;
    let said = Run::new(good()).store(store.url()).said();
    assert_eq!((said.code, said.ids()), (0, BTreeSet::new()), "{}", said.text);
    assert!(said.text.contains("30, which are all of them"), "{}", said.text);
    assert!(said.text.ends_with("0 errors, 0 warnings, 0 notes\n"), "{}", said.text);
    assert_eq!(said.document["django_session_doctor"], 1);
}

/// Settings that are wrong in one way each, with what is to be found. They have no store.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn misconfigurations() -> Vec<(&'static str, &'static str, Value)> {
    let engine = |name: &str| format!("django.contrib.sessions.backends.{name}");
    let cached = |engine_name: &str, backend: &str| {
        json!({
            "SESSION_ENGINE": engine(engine_name),
            "CACHES_BACKENDS": {"sessions": {"BACKEND": format!("django.core.cache.backends.{backend}")}},
        })
    };
    vec![
        ("secret-key-missing", "error", json!({"SECRET_KEY": "gone"})),
        ("secret-key-short", "warning", json!({"SECRET_KEY": "hunter2"})),
        ("secret-key-short", "warning", json!({"SECRET_KEY": "hun".repeat(40)})),
        ("secret-key-insecure", "warning", json!({"SECRET_KEY": format!("django-insecure-{KEY}")})),
        (
            "secret-key-in-fallbacks",
            "warning",
            json!({"SECRET_KEY_FALLBACKS": [KEY], "SECRET_KEY_FALLBACKS_COUNT": 1}),
        ),
        (
            "fallback-duplicate",
            "warning",
            json!({"SECRET_KEY_FALLBACKS": [FALLBACK, FALLBACK], "SECRET_KEY_FALLBACKS_COUNT": 2}),
        ),
        (
            "fallback-weak",
            "warning",
            json!({"SECRET_KEY_FALLBACKS": ["hunter2"], "SECRET_KEY_FALLBACKS_COUNT": 1}),
        ),
        (
            "fallback-empty",
            "warning",
            json!({"SECRET_KEY_FALLBACKS": [""], "SECRET_KEY_FALLBACKS_COUNT": 1}),
        ),
        ("fallback-count", "warning", json!({"SECRET_KEY_FALLBACKS_COUNT": 2})),
        ("setting-invalid", "error", json!({"SESSION_COOKIE_AGE": "hunter2"})),
        ("setting-invalid", "error", json!({"SESSION_SERIALIZER": "hunter2.Serializer"})),
        ("settings-incomplete", "note", json!({"MIDDLEWARE": "gone"})),
        ("debug-on", "note", json!({"DEBUG": true})),
        ("weak-format-accepted", "note", json!({"SESSION_ACCEPT": ["legacy"]})),
        ("cookie-not-secure", "warning", json!({"SESSION_COOKIE_SECURE": false})),
        ("cookie-httponly-off", "warning", json!({"SESSION_COOKIE_HTTPONLY": false})),
        ("cookie-samesite-none", "warning", json!({"SESSION_COOKIE_SAMESITE": "None"})),
        ("cookie-samesite-missing", "warning", json!({"SESSION_COOKIE_SAMESITE": false})),
        ("cookie-domain-invalid", "error", json!({"SESSION_COOKIE_DOMAIN": "https://example.com"})),
        ("cookie-domain-invalid", "error", json!({"SESSION_COOKIE_DOMAIN": "example.com:8000"})),
        ("cookie-domain-leading-dot", "note", json!({"SESSION_COOKIE_DOMAIN": ".example.com"})),
        ("cookie-domain-public-suffix", "error", json!({"SESSION_COOKIE_DOMAIN": "com"})),
        ("cookie-domain-public-suffix", "error", json!({"SESSION_COOKIE_DOMAIN": "co.uk"})),
        ("cookie-domain-mismatch", "error", json!({"SESSION_COOKIE_DOMAIN": "example.org"})),
        ("cookie-domain-mismatch", "warning", json!({"SESSION_COOKIE_DOMAIN": "www.example.com"})),
        ("cookie-path", "warning", json!({"SESSION_COOKIE_PATH": "/shop"})),
        ("cookie-path", "error", json!({"SESSION_COOKIE_PATH": "shop"})),
        ("cookie-name-invalid", "error", json!({"SESSION_COOKIE_NAME": "session id"})),
        ("cookie-name-taken", "error", json!({"SESSION_COOKIE_NAME": "csrftoken"})),
        ("cookie-name-taken", "error", json!({"LANGUAGE_COOKIE_NAME": "sessionid"})),
        (
            "cookie-prefix",
            "error",
            json!({"SESSION_COOKIE_NAME": "__Host-id", "SESSION_COOKIE_DOMAIN": "example.com"}),
        ),
        ("cookie-age-not-positive", "error", json!({"SESSION_COOKIE_AGE": 0})),
        ("cookie-age-not-positive", "error", json!({"SESSION_COOKIE_AGE": -5})),
        ("cookie-age-long", "warning", json!({"SESSION_COOKIE_AGE": 500 * 86_400})),
        ("browser-close-long-age", "warning", json!({"SESSION_EXPIRE_AT_BROWSER_CLOSE": true})),
        ("save-every-request", "note", json!({"SESSION_SAVE_EVERY_REQUEST": true})),
        (
            "serializer-pickle",
            "warning",
            json!({"SESSION_SERIALIZER": "django_session_rs.pickle.PickleSerializer"}),
        ),
        (
            "serializer-gone",
            "error",
            json!({"SESSION_SERIALIZER": "django.contrib.sessions.serializers.PickleSerializer"}),
        ),
        ("cache-of-one-process", "error", cached("cache", "locmem.LocMemCache")),
        ("cache-of-one-process", "error", cached("cached_db", "locmem.LocMemCache")),
        ("cache-dummy", "error", cached("cache", "dummy.DummyCache")),
        ("cache-dummy", "warning", cached("cached_db", "dummy.DummyCache")),
        ("cache-culls", "error", cached("cache", "filebased.FileBasedCache")),
        (
            "cache-missing",
            "error",
            json!({"SESSION_ENGINE": engine("cache"), "SESSION_CACHE_ALIAS": "other"}),
        ),
        (
            "file-path-missing",
            "error",
            json!({"SESSION_ENGINE": engine("file"), "SESSION_FILE_PATH": "/no/such/place"}),
        ),
        (
            "signed-cookies-cannot-be-revoked",
            "note",
            json!({"SESSION_ENGINE": engine("signed_cookies")}),
        ),
        (
            "session-middleware-missing",
            "error",
            json!({
                "MIDDLEWARE": ["site.Middleware"],
                "MIDDLEWARE_BASES": [null],
            }),
        ),
        (
            "middleware-order",
            "error",
            json!({
                "MIDDLEWARE": [
                    "django.contrib.auth.middleware.AuthenticationMiddleware",
                    "site.middleware.OurSessions",
                ],
                "MIDDLEWARE_BASES": [
                    "django.contrib.auth.middleware.AuthenticationMiddleware",
                    "django.contrib.sessions.middleware.SessionMiddleware",
                ],
            }),
        ),
        (
            "session-middleware-twice",
            "warning",
            json!({
                "MIDDLEWARE": ["site.Sessions", "site.Sessions", "site.Users"],
                "MIDDLEWARE_BASES": [
                    "django.contrib.sessions.middleware.SessionMiddleware",
                    "django.contrib.sessions.middleware.SessionMiddleware",
                    "django.contrib.auth.middleware.AuthenticationMiddleware",
                ],
            }),
        ),
        (
            "auth-middleware-missing",
            "warning",
            json!({
                "MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware"],
                "MIDDLEWARE_BASES": ["django.contrib.sessions.middleware.SessionMiddleware"],
            }),
        ),
        ("sessions-app-missing", "error", json!({"INSTALLED_APPS": ["django.contrib.auth"]})),
    ]
}

#[test]
fn each_misconfiguration_of_the_settings_is_named_alone() {
    let seeded = misconfigurations();
    let names: BTreeSet<_> = seeded.iter().map(|(id, ..)| *id).collect();
    assert!(names.len() >= 25, "{}", names.len());
    for (id, severity, changes) in seeded {
        let said = Run::new(with(changes.clone())).said();
        said.has(id, severity);
        let mut others = said.ids();
        others.remove(id);
        // Without a store nothing else is to be said.
        others.remove("store-not-given");
        assert!(others.is_empty(), "{changes}: {others:?} beside {id}");
    }
}

#[test]
fn samesite_none_without_secure_is_an_error() {
    let said = Run::new(with(json!({
        "SESSION_COOKIE_SAMESITE": "None",
        "SESSION_COOKIE_SECURE": false,
    })))
    .said();
    said.has("cookie-samesite-none-insecure", "error");
    said.has("cookie-not-secure", "warning");
}

#[test]
fn keys_come_from_the_environment_too() {
    let mut run = Run::new(with(json!({
        "SECRET_KEY": "gone",
        "SECRET_KEY_FALLBACKS": "gone",
        "SECRET_KEY_FALLBACKS_COUNT": 1,
    })));
    run.variables = vec![
        ("SECRET_KEY", KEY.to_owned()),
        ("SECRET_KEY_FALLBACKS", json!([FALLBACK]).to_string()),
    ];
    assert_eq!(run.said().ids(), BTreeSet::from(["store-not-given"]));
    run.variables.truncate(1);
    run.said().has("fallback-count", "warning");
}

#[test]
fn a_file_of_settings_with_keys_is_private() {
    let run = Run::new(good());
    let path = run.folder.path().join("shared.json");
    std::fs::write(&path, Value::Object(good()).to_string()).unwrap();
    chmod(&path, 0o644);
    // The later of two is none that clap takes, so it is the only one.
    let mut command = Command::new(env!("CARGO_BIN_EXE_django-session"));
    command.env_clear().args(["doctor", "--json", "--settings"]).arg(&path);
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = Said { code: output.status.code().unwrap(), document, text: String::new() };
    assert_eq!((said.code, said.severity("settings-file-readable")), (1, "warning"));
}

#[test]
fn directories_of_the_file_engine_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    std::fs::create_dir(&path).unwrap();
    let settings = || {
        with(json!({
            "SESSION_ENGINE": "django.contrib.sessions.backends.file",
            "SESSION_FILE_PATH": path,
        }))
    };
    let url = format!("file://{}", path.display());
    chmod(&path, 0o700);
    assert!(Run::new(settings()).store(&url).said().ids().is_empty());
    chmod(&path, 0o755);
    Run::new(settings()).store(&url).said().has_only("file-path-shared", "warning");
    chmod(&path, 0o500);
    Run::new(settings()).store(&url).said().has_only("file-path-read-only", "error");
    chmod(&path, 0o700);
    // The directory for what is temporary is what TMPDIR says.
    let mut run = Run::new(settings()).store(&url);
    run.variables = vec![("TMPDIR", path.display().to_string())];
    run.said().has_only("file-path-temporary", "warning");
    std::fs::remove_dir(&path).unwrap();
    Run::new(settings()).store(&url).said().has_only("file-path-missing", "error");
}

#[tokio::test]
async fn each_fault_of_a_table_is_named() {
    for (statements, id, severity) in [
        (&[][..], "table-missing", "error"),
        (&[TABLE], "expiry-index-missing", "warning"),
        (&[&TABLE.replace(", expire_date datetime NOT NULL", "")], "column-missing", "error"),
        (&[&TABLE.replace(" PRIMARY KEY", ""), INDEX], "primary-key-missing", "error"),
        (
            &[&TABLE.replace("session_data text", "session_data blob"), INDEX],
            "column-type",
            "error",
        ),
        (&[&TABLE.replace("datetime NOT NULL", "integer NOT NULL"), INDEX], "column-type", "error"),
        (&[TABLE, INDEX, "PRAGMA journal_mode = DELETE"], "sqlite-journal-mode", "warning"),
    ] {
        let store = Sqlite::bare(statements).await;
        Run::new(good()).store(store.url()).said().has_only(id, severity);
    }
    let store = Sqlite::new().await;
    chmod(&store.path(), 0o644);
    Run::new(good()).store(store.url()).said().has_only("sqlite-readable", "warning");
    chmod(&store.path(), 0o400);
    Run::new(good()).store(store.url()).said().has_only("store-read-only", "error");
}

#[tokio::test]
async fn each_fault_of_what_is_stored_is_named() {
    let fresh = |codec: &SessionCodec| codec.encode(&data(), now()).unwrap();
    let fits = fresh(&codec());
    let site = || with(json!({}));
    for (settings, stored, id, severity) in [
        (site(), fresh(&codec_with(OTHER, SALT)), "signed-by-unknown-key", "error"),
        (
            site(),
            fresh(&codec_with(KEY, "django.contrib.sessions.backends.db")),
            "salt-mismatch",
            "error",
        ),
        (
            site(),
            codec().encode(&data(), now() + 86_400).unwrap(),
            "signed-in-the-future",
            "warning",
        ),
        (site(), fresh(&codec().with_format(Format::Legacy)), "stored-in-old-format", "warning"),
        (
            site(),
            fresh(&codec().with_serializer(Serializer::Pickle)),
            "stored-by-other-serializer",
            "warning",
        ),
        (site(), "hunter2 is no session".to_owned(), "stored-unreadable", "warning"),
        (
            with(json!({"SECRET_KEY_FALLBACKS": [FALLBACK], "SECRET_KEY_FALLBACKS_COUNT": 1})),
            fits.clone(),
            "fallback-unused",
            "note",
        ),
    ] {
        let store = Sqlite::new().await;
        store.fill(30, &stored, 3600).await;
        Run::new(settings).store(store.url()).said().has_only(id, severity);
    }
    let store = Sqlite::new().await;
    store.fill(30, &fits, -3600).await;
    store.fill(10, &fits, 3600).await;
    let run = Run::new(good()).store(store.url());
    run.said().has_only("expired-share", "warning");
    // If some are signed with a key that is known, it is a warning.
    let store = Sqlite::new().await;
    store.fill(30, &fits, 3600).await;
    store.insert(SESSION, &fresh(&codec_with(OTHER, SALT)), 3600).await;
    let said = Run::new(good()).store(store.url()).said();
    said.has_only("signed-by-unknown-key", "warning");
    assert!(said.text.contains("1 of 31 sessions are signed"), "{}", said.text);
    assert!(Run::new(good()).store(store.url()).argument("--sample=0").said().ids().is_empty());
    // What has expired is given to nobody, and made anew by no command.
    let store = Sqlite::new().await;
    store.fill(30, &fits, 3600).await;
    let key = |at: u32| format!("{}{at}", &SESSION[..31]);
    store.insert(&key(1), &fresh(&codec_with(OTHER, SALT)), -3600).await;
    store.insert(&key(2), &fresh(&codec().with_format(Format::Legacy)), -3600).await;
    store.insert(&key(3), "hunter2 is no session", -3600).await;
    assert!(Run::new(good()).store(store.url()).said().ids().is_empty());
}

#[tokio::test]
async fn an_address_of_another_kind_of_store_is_noticed() {
    let store = Sqlite::new().await;
    let settings = with(json!({"SESSION_ENGINE": "django.contrib.sessions.backends.file",
        "SESSION_FILE_PATH": store.folder.path()}));
    chmod(store.folder.path(), 0o700);
    Run::new(settings).store(store.url()).said().has_only("engine-is-elsewhere", "warning");
}

#[test]
fn what_cannot_be_looked_at_is_said_beside_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(with(json!({"SESSION_COOKIE_SECURE": false})))
        .store(format!("sqlite:{}/none.sqlite3", folder.path().display()));
    let said = run.said();
    assert_eq!(said.code, 6);
    assert_eq!(said.ids(), BTreeSet::from(["cookie-not-secure", "store-unreachable"]));
    let output = run.output(true);
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot connect"));

    let bad = |arguments: &[&str]| {
        let mut run = Run::new(good());
        run.arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        run.output(true).status.code()
    };
    assert_eq!(bad(&["--store", "postgres://u:hunter2@h/n"]), Some(2));
    assert_eq!(bad(&["--cookie", SESSION]), Some(2));
    assert_eq!(bad(&["--cookie-file", "/no/such/hunter2"]), Some(1));
    let path = folder.path().join("broken");
    std::fs::write(&path, "[]").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_django-session"));
    command.env_clear().args(["doctor", "--settings"]).arg(&path);
    assert_eq!(command.output().unwrap().status.code(), Some(3));
}

const USERS: &str = "CREATE TABLE auth_user (id integer PRIMARY KEY, username text, password text, \
                     is_active bool, is_staff bool, is_superuser bool, last_login datetime)";

fn logged_in(user: &str, hash: &str) -> SessionData {
    let data = json!({
        "cart": PAYLOAD,
        "_auth_user_id": user,
        "_auth_user_backend": BACKEND,
        "_auth_user_hash": hash,
    });
    SessionData::from_json(&data.to_string()).unwrap()
}

#[tokio::test]
async fn a_cookie_is_explained_to_its_end() {
    let store = Sqlite::new().await;
    store.execute(USERS).await;
    for (id, active) in [(42, 1), (43, 0)] {
        let row = format!("{id}, 'ann{id}', '{PASSWORD}', {active}, 0, 0, NULL");
        store.execute(&format!("INSERT INTO auth_user VALUES ({row})")).await;
    }
    let hash = |key: &str| session_auth_hash(&SecretKey::new(key).unwrap(), PASSWORD);
    let sealed = |data: &SessionData| codec().encode(data, now()).unwrap();
    let former = codec_with(FALLBACK, SALT);
    let mut other_backend = logged_in("42", &hash(KEY));
    other_backend.insert("_auth_user_backend", &"hunter2.Backend").unwrap();
    for (at, stored, left, id, lets_in) in [
        (1, sealed(&logged_in("42", &hash(KEY))), 3600, "given-cookie-good", json!(true)),
        (
            2,
            former.encode(&logged_in("42", &hash(FALLBACK)), now()).unwrap(),
            3600,
            "given-cookie-good",
            json!(true),
        ),
        (3, sealed(&logged_in("42", &hash(OTHER))), 3600, "given-cookie-auth-hash", json!(false)),
        (4, sealed(&logged_in("43", &hash(KEY))), 3600, "given-cookie-user-inactive", json!(false)),
        (5, sealed(&logged_in("44", &hash(KEY))), 3600, "given-cookie-user-missing", json!(false)),
        (
            6,
            sealed(&logged_in("42", &hash(KEY))),
            -60,
            "given-cookie-session-expired",
            json!(false),
        ),
        (7, sealed(&data()), 3600, "given-cookie-anonymous", json!(false)),
        (8, sealed(&other_backend), 3600, "given-cookie-backend-not-listed", json!(false)),
        (
            9,
            codec_with(OTHER, SALT).encode(&data(), now()).unwrap(),
            3600,
            "given-cookie-session-unreadable",
            json!(false),
        ),
        (0, String::new(), 0, "given-cookie-session-missing", json!(false)),
    ] {
        let key = format!("{}{at}", &SESSION[..31]);
        if at > 0 {
            store.insert(&key, &stored, left).await;
        }
        let mut run = Run::new(with(json!({
            "SECRET_KEY_FALLBACKS": [FALLBACK],
            "SECRET_KEY_FALLBACKS_COUNT": 1,
        })))
        .store(store.url())
        .argument("--sample=0")
        .argument("--cookie")
        .argument("-");
        run.input = format!("Cookie: csrftoken=hunter2; sessionid={key}\r\n");
        let said = run.said();
        said.has_only(id, if matches!(at, 1 | 2 | 7) { "note" } else { "warning" });
        let cookie = &said.document["cookie"];
        assert_eq!((&cookie["lets_in"], &cookie["finding"]), (&lets_in, &json!(id)), "{id}");
        assert!(cookie["steps"].as_array().unwrap().len() > 1);
        let let_in = said.text.contains("Django would let this user in\n");
        assert_eq!(let_in, lets_in == json!(true), "{}", said.text);
        if at == 2 {
            assert!(said.text.contains("under SECRET_KEY_FALLBACKS[0]"), "{}", said.text);
        }

        // The same from a file.
        let path = store.folder.path().join("cookie");
        std::fs::write(&path, &key).unwrap();
        run.arguments.truncate(1);
        run.arguments.extend(["--cookie-file".to_owned(), path.display().to_string()]);
        run.input = String::new();
        run.said().has_only(id, said.severity(id));
    }
    for (input, id) in [("short", "given-cookie-malformed"), ("a=b; c=d", "given-cookie-malformed")]
    {
        let mut run =
            Run::new(good()).store(store.url()).argument("--sample=0").argument("--cookie=-");
        run.input = input.to_owned();
        run.said().has_only(id, "warning");
    }
}

#[tokio::test]
async fn a_cookie_is_explained_as_far_as_can_be_looked() {
    let store = Sqlite::new().await;
    store.insert(SESSION, &codec().encode(&logged_in("42", "x"), now()).unwrap(), 3600).await;
    let mut run = Run::new(good()).store(store.url()).argument("--sample=0").argument("--cookie=-");
    run.input = SESSION.to_owned();
    // Nobody listens there.
    let away = "postgres://hunter2:hunter2@127.0.0.1:1/site";
    run.variables.push(("USERS_DATABASE_URL", away.to_owned()));
    let said = run.said();
    assert_eq!(said.code, 6, "{}", said.text);
    assert!(said.text.contains("the database of the users cannot be reached"), "{}", said.text);
    assert!(said.document["cookie"]["steps"].as_array().unwrap().len() > 1);
}

#[tokio::test]
async fn a_copy_in_the_cache_is_what_a_cookie_leads_to() {
    let Some(redis) = server("TEST_REDIS_URL") else { return };
    let store = Sqlite::new().await;
    store.execute(USERS).await;
    let settings = with(json!({"SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"}));
    let url = format!("{}?cache_url={}", store.url(), redis.replace('&', "%26"));
    let said = |key: &str| {
        let mut run = Run::new(settings.clone()).store(url.clone());
        run = run.argument("--sample=0").argument("--cookie=-");
        run.input = key.to_owned();
        run.said()
    };
    let key = format!("hunter2{:025}", now());
    let cached = connect(&url, &key).await;
    assert_eq!(said(&key).document["cookie"]["finding"], "given-cookie-anonymous");
    store.execute("DELETE FROM django_session").await;
    assert_eq!(said(&key).document["cookie"]["finding"], "given-cookie-anonymous");
    cached.delete(&django_session::SessionKey::parse(&key).unwrap()).await.unwrap();
    assert_eq!(said(&key).document["cookie"]["finding"], "given-cookie-session-missing");
}

/// A store of the engine `cached_db` with one session.
async fn connect(url: &str, key: &str) -> std::sync::Arc<dyn django_session::SessionStore> {
    use django_session::session::SessionRecord;
    use django_session::{SessionKey, SessionSettings};

    let settings = SessionSettings::default().with_secret_key(SecretKey::new(KEY).unwrap());
    let store = django_session::store::connect(url, &settings).await.unwrap();
    let record = SessionRecord {
        session_key: SessionKey::parse(key).unwrap(),
        data: std::sync::Arc::new(data()),
        expire_date: settings.datetime(jiff::Timestamp::from_second(now() + 3600).unwrap()),
        revision: None,
    };
    store.create(&record).await.unwrap();
    store
}

#[tokio::test]
async fn a_cookie_that_is_the_session_is_explained_too() {
    let users = Sqlite::bare(&[USERS]).await;
    users
        .execute(&format!("INSERT INTO auth_user VALUES (42, 'ann', '{PASSWORD}', 1, 0, 0, NULL)"))
        .await;
    let settings =
        || with(json!({"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"}));
    let hash = session_auth_hash(&SecretKey::new(KEY).unwrap(), PASSWORD);
    let codec = codec_with(KEY, COOKIES);
    let month = 30 * 86_400;
    for (signed_at, salt_fits, id) in [
        (now(), true, "given-cookie-good"),
        (now() - month, true, "given-cookie-session-unreadable"),
        (now(), false, "given-cookie-session-unreadable"),
    ] {
        let codec = if salt_fits { codec.clone() } else { codec_with(OTHER, COOKIES) };
        let mut run = Run::new(settings()).argument("--cookie=-").argument("--users");
        run.arguments.push(users.url());
        run.input = codec.encode(&logged_in("42", &hash), signed_at).unwrap();
        let said = run.said();
        assert!(said.ids().contains(id), "{}", said.text);
        assert!(!said.text.contains(&run.input) && !said.document.to_string().contains(&run.input));
    }
    // Without the users, it cannot be told.
    let mut run = Run::new(settings()).argument("--cookie=-");
    run.input = codec.encode(&logged_in("42", &hash), now()).unwrap();
    let said = run.said();
    said.has("given-cookie-user-not-looked-at", "note");
    assert_eq!(said.document["cookie"]["lets_in"], Value::Null);
}

/// Statements on a database server, and a table with a name of its own.
struct Database {
    url: String,
    table: &'static str,
}

impl Database {
    fn new(variable: &str, table: &'static str) -> Option<Self> {
        Some(Self { url: server(variable)?, table })
    }

    fn is_mysql(&self) -> bool {
        self.url.starts_with("mysql")
    }

    async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.replace("django_session", self.table));
        if self.is_mysql() {
            let mut connection = sqlx::MySqlConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        }
    }

    /// The table anew.
    async fn create(&self, statements: &[&str]) {
        self.execute("DROP TABLE IF EXISTS django_session").await;
        for statement in statements {
            self.execute(statement).await;
        }
    }

    fn run(&self, options: &str) -> Run {
        Run::new(good()).store(format!("{}?table={}{options}", self.url, self.table))
    }
}

const POSTGRES: &str = "CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, \
                        session_data text NOT NULL, expire_date timestamp with time zone NOT NULL)";

#[tokio::test]
async fn each_fault_of_postgresql_is_named() {
    let Some(database) = Database::new("TEST_POSTGRES_URL", "doctor_session") else { return };
    database.create(&[POSTGRES, INDEX]).await;
    let said = database.run("").said();
    assert!(said.ids().is_empty(), "{}", said.text);
    for (statements, id, severity) in [
        (&[][..], "table-missing", "error"),
        (&[POSTGRES], "expiry-index-missing", "warning"),
        (&[&POSTGRES.replace(" PRIMARY KEY", ""), INDEX], "primary-key-missing", "error"),
        (&[&POSTGRES.replace("varchar(40)", "varchar(20)"), INDEX], "column-type", "error"),
        (
            &[&POSTGRES.replace("session_data text", "session_data varchar(4000)"), INDEX],
            "column-type",
            "error",
        ),
        (
            &[&POSTGRES.replace("with time zone", "without time zone"), INDEX],
            "column-type",
            "warning",
        ),
        (&[&POSTGRES.replace("text NOT NULL", "text"), INDEX], "column-type", "warning"),
        (
            &[POSTGRES, INDEX, "ALTER TABLE django_session SET (autovacuum_enabled = false)"],
            "autovacuum-off",
            "warning",
        ),
    ] {
        database.create(statements).await;
        let run = database.run("").argument("--sample=0");
        run.said().has_only(id, severity);
    }
    // Dead rows that nothing may remove.
    database
        .create(&[
            POSTGRES,
            INDEX,
            "INSERT INTO django_session SELECT 'hunter2' || n, 'x', now() FROM generate_series(1, 3000) n",
            "DELETE FROM django_session; SELECT pg_stat_force_next_flush(); SELECT 1",
        ])
        .await;
    let said = database.run("").argument("--sample=0").said();
    said.has("table-bloat", "warning");

    database.create(&[POSTGRES, INDEX]).await;
    let said = database.run("&max_connections=5000").argument("--sample=0").said();
    said.has_only("connections-scarce", "error");
    // As far as the present is said to be from now, so far is the clock of the server off.
    for (shift, severity) in [(-120, "warning"), (86_400, "error")] {
        let run =
            database.run("").argument("--sample=0").argument(format!("--now={}", now() + shift));
        run.said().has_only("clock-skew", severity);
    }
    database.create(&[]).await;
}

#[tokio::test]
async fn a_table_that_was_not_frozen_for_long_is_named() {
    const VARIABLE: &str = "TEST_POSTGRES_URL";
    // The others must not share a server that takes itself for that old.
    let Some(servers) = servers::Servers::start("postgres", VARIABLE) else { return };
    let database = Database { url: servers.url(VARIABLE).to_owned(), table: "doctor_unfrozen" };
    for (age, severity) in [(1_100_000_000_i64, "warning"), (1_700_000_000, "error")] {
        let unfrozen = format!(
            "UPDATE pg_class SET relfrozenxid = \
             ((txid_current() + 4294967296 - {age}) % 4294967296)::text::xid \
             WHERE relname = 'django_session'"
        );
        database.create(&[POSTGRES, INDEX, &unfrozen]).await;
        let said = database.run("").argument("--sample=0").said();
        said.has_only("transaction-wraparound", severity);
    }
}

#[tokio::test]
async fn replicas_and_poolers_are_looked_at() {
    let Some(database) = Database::new("TEST_POSTGRES_URL", "doctor_replicated") else { return };
    database.create(&[POSTGRES, INDEX]).await;
    let escaped = |url: &str| url.replace(':', "%3A").replace('@', "%40").replace('/', "%2F");
    let own = format!("&replica_url={}", escaped(&database.url));
    database.run(&own).argument("--sample=0").said().has_only("replica-is-none", "warning");
    if let Some(replica) = server("TEST_POSTGRES_REPLICA_URL") {
        let execute = async |sql: &'static str| {
            let mut connection = sqlx::PgConnection::connect(&replica).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        };
        let option = format!("&replica_settle=0.05&replica_url={}", escaped(&replica));
        execute("SELECT pg_wal_replay_pause()").await;
        database.execute("INSERT INTO django_session VALUES ('hunter2', 'x', now())").await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let said = database.run(&option).argument("--sample=0").said();
        execute("SELECT pg_wal_replay_resume()").await;
        said.has_only("replica-lag", "warning");
        // It takes no writes itself.
        let run = Run::new(good()).store(format!("{replica}?table=auth_user"));
        run.argument("--sample=0").said().has("store-read-only", "error");
    }
    if let Some(url) = server("TEST_PGBOUNCER_URL") {
        let run = |options: &str| {
            let url = format!("{url}?table=doctor_replicated{options}");
            Run::new(good()).store(url).argument("--sample=0").said()
        };
        run("").has_only("pooler-with-prepared-statements", "note");
        assert!(run("&statement-cache-capacity=0").ids().is_empty());
    }
    database.create(&[]).await;
}

const MYSQL: &str = "CREATE TABLE django_session (session_key varchar(40) CHARACTER SET utf8mb4 \
                     COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, session_data longtext NOT NULL, \
                     expire_date datetime(6) NOT NULL) ENGINE = InnoDB";

#[tokio::test]
async fn each_fault_of_mariadb_is_named() {
    let Some(database) = Database::new("TEST_MYSQL_URL", "doctor_session") else { return };
    database.create(&[MYSQL, INDEX]).await;
    let said = database.run("").said();
    assert!(said.ids().is_empty(), "{}", said.text);
    for (statements, id, severity) in [
        (&[][..], "table-missing", "error"),
        (&[MYSQL], "expiry-index-missing", "warning"),
        (&[&MYSQL.replace(" PRIMARY KEY", ""), INDEX], "primary-key-missing", "error"),
        (&[&MYSQL.replace("longtext", "text"), INDEX], "column-type", "error"),
        (
            &[&MYSQL.replace("utf8mb4_bin", "utf8mb4_general_ci"), INDEX],
            "collation-ignores-case",
            "note",
        ),
        (
            &[
                &MYSQL.replace(
                    "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                    "CHARACTER SET latin1 COLLATE latin1_bin",
                ),
                INDEX,
            ],
            "charset-not-utf8mb4",
            "note",
        ),
        (&[&MYSQL.replace("InnoDB", "MyISAM"), INDEX], "table-engine", "warning"),
    ] {
        database.create(statements).await;
        database.run("").argument("--sample=0").said().has_only(id, severity);
    }
    database.create(&[MYSQL, INDEX]).await;
    database
        .run("&max_connections=5000")
        .argument("--sample=0")
        .said()
        .has_only("connections-scarce", "error");
    let later = format!("--now={}", now() + 120);
    database
        .run("")
        .argument("--sample=0")
        .argument(later)
        .said()
        .has_only("clock-skew", "warning");
    // For all connections to come, so it is put back before anything is looked at.
    database.execute("SET GLOBAL sql_mode = 'NO_ENGINE_SUBSTITUTION'").await;
    let said = database.run("").argument("--sample=0").said();
    database.execute("SET GLOBAL sql_mode = DEFAULT").await;
    said.has_only("mysql-not-strict", "warning");
    database.create(&[]).await;
}

/// A connection to a server of one's own, in its protocol.
struct Wire(BufReader<TcpStream>);

impl Wire {
    fn redis(url: &str) -> Self {
        let rest = url.strip_prefix("redis://").unwrap();
        let (login, host) = rest.split_once('@').unwrap();
        let (user, password) = login.split_once(':').unwrap();
        let stream = TcpStream::connect(host.trim_end_matches("/0")).unwrap();
        let mut wire = Self(BufReader::new(stream));
        wire.ask(&["AUTH", user, password]);
        wire
    }

    fn ask(&mut self, words: &[&str]) -> String {
        let words_sent = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let command = format!("*{}\r\n{}", words.len(), words_sent.collect::<String>());
        self.0.get_mut().write_all(command.as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
        answer
    }

    fn ask_for_text(&mut self, words: &[&str]) -> String {
        let length = self.ask(words);
        let length: usize = length.trim_start_matches('$').trim_end().parse().unwrap();
        let mut text = vec![0; length + "\r\n".len()];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

#[test]
fn each_fault_of_redis_is_named() {
    const VARIABLE: &str = "TEST_REDIS_URL";
    let Some(redis) = servers::Servers::start("redis", VARIABLE) else { return };
    let url = redis.url(VARIABLE).to_owned();
    let mut wire = Wire::redis(&url);
    let settings = || with(json!({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}));
    let said = || Run::new(settings()).store(&url).said();
    said().has_only("redis-not-persistent", "warning");
    wire.ask(&["CONFIG", "SET", "appendonly", "yes"]);
    assert!(said().ids().is_empty());

    wire.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    said().has_only("redis-evicts", "warning");
    wire.ask(&["CONFIG", "SET", "maxmemory", "1gb"]);
    said().has_only("redis-evicts", "error");
    wire.ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    said().has_only("redis-evicts", "error");
    wire.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert!(said().ids().is_empty());

    let key = format!(":1:django.contrib.sessions.cache{SESSION}");
    wire.ask(&["SET", &key, "hunter2"]);
    let found = said();
    found.has("redis-keys-without-ttl", "warning");
    found.has("stored-unreadable", "warning");
    wire.ask(&["DEL", &key]);

    let clock = Run::new(settings()).store(&url).argument(format!("--now={}", now() - 7200)).said();
    clock.has_only("clock-skew", "error");

    // All that there is, is in use.
    wire.ask(&["CONFIG", "SET", "maxmemory", "1mb"]);
    said().has("memory-nearly-full", "warning");

    // There is more than there is room for.
    wire.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    wire.ask(&["CONFIG", "SET", "maxmemory", "8mb"]);
    for at in 0..400 {
        wire.ask(&["SET", &format!("hunter{at}"), &"x".repeat(30_000)]);
    }
    wire.ask(&["FLUSHALL"]);
    wire.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    wire.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    said().has_only("redis-has-evicted", "warning");
    wire.ask(&["CONFIG", "RESETSTAT"]);
    assert!(said().ids().is_empty());

    // Where it is told to save there is no directory any more.
    if cfg!(target_os = "linux") {
        let [(pid, _)] = redis.processes(VARIABLE)[..] else { panic!("one server") };
        let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert!(directory.starts_with(std::env::temp_dir()), "{}", directory.display());
        std::fs::remove_dir_all(directory).unwrap();
        wire.ask(&["BGSAVE"]);
        let begun = std::time::Instant::now();
        while !wire.ask_for_text(&["INFO", "persistence"]).contains("last_bgsave_status:err") {
            assert!(begun.elapsed().as_secs() < 30);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        said().has_only("redis-saving-fails", "error");
    }

    wire.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    said().has("store-read-only", "error");
}

#[tokio::test]
async fn a_cache_before_a_table_may_forget() {
    let Some(redis) = server("TEST_REDIS_URL") else { return };
    let escaped = redis.replace(':', "%3A").replace('@', "%40").replace('/', "%2F");
    let settings = || with(json!({"SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"}));
    let store = Sqlite::new().await;
    let said = Run::new(settings()).store(format!("{}?cache_url={escaped}", store.url())).said();
    assert!(said.ids().is_empty(), "{}", said.text);
    Run::new(settings()).store(store.url()).said().has_only("cache-not-given", "note");
}

#[test]
fn servers_whose_sessions_cannot_be_listed_are_looked_at() {
    let settings = || with(json!({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}));
    for variable in ["TEST_REDIS_CLUSTER_URL", "TEST_REDIS_SENTINEL_URL"] {
        let Some(url) = server(variable) else { continue };
        let said = Run::new(settings()).store(url).said();
        said.has_only("redis-not-persistent", "warning");
    }
}

#[test]
fn memcached_is_asked_too() {
    let Some(url) = server("TEST_MEMCACHED_URL") else { return };
    let settings = || with(json!({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}));
    let said = Run::new(settings()).store(&url).said();
    said.has("memcached-not-persistent", "note");
    let skewed =
        Run::new(settings()).store(&url).argument(format!("--now={}", now() + 3600)).said();
    skewed.has("clock-skew", "error");
    // One of this test's own, which is small and soon full.
    let Some(small) = SmallMemcached::start() else { return };
    small.fill();
    let said = Run::new(settings()).store(format!("memcached://127.0.0.1:{}", small.port)).said();
    for id in ["memcached-evictions", "memcached-item-size"] {
        said.has(id, "warning");
    }
}

/// memcached with hardly any memory.
struct SmallMemcached {
    child: std::process::Child,
    port: u16,
}

impl SmallMemcached {
    fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("memcached");
        // As root it wants to be told who to be.
        command.args(["-l", "127.0.0.1", "-m", "2", "-I", "65536", "-u", "nobody", "-U", "0"]);
        command.args(["-o", "slab_chunk_max=16384"]);
        command.args(["-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            let notice = "\n*** memcached is not on the PATH: A FULL ONE IS NOT TESTED ***\n\n";
            std::io::stderr().write_all(notice.as_bytes()).unwrap();
            return None;
        };
        let mut started = Self { child, port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert_eq!(started.child.try_wait().unwrap(), None, "memcached has ended");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(started)
    }

    /// Writes more than there is room for.
    fn fill(&self) {
        let mut wire = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        let value = "x".repeat(30_000);
        for at in 0..10_000 {
            let command = format!("set key{at} 0 0 {}\r\n{value}\r\n", value.len());
            wire.get_mut().write_all(command.as_bytes()).unwrap();
            let mut answer = String::new();
            wire.read_line(&mut answer).unwrap();
            if at > 3000 && answer != "STORED\r\n" {
                break;
            }
        }
    }
}

impl Drop for SmallMemcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

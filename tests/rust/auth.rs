//! Whose a session is: the same as for an installed Django, in every state of a user and a session.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use django_session::auth::hashers::{PasswordHasher, PasswordHashers, Pbkdf2};
use django_session::auth::{
    Auth, AuthError, AuthSettings, Authentication, PermissionTables, PrimaryKeyType, Refusal,
    UserModel, UserStore as _,
};
use django_session::session::session_auth_hash;
use django_session::store::{MemoryStore, SqlUsers, sqlx};
use django_session::{SecretKey, Session, SessionKey, SessionSettings, SessionStore, SqlStore};
use serde_json::Value;

use crate::differential::SECRET_KEY;
use crate::stores::{Place, server};
use crate::vectors::{self, Tally, text};

/// `tests/auth_peer.py`.
struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(url: &str, user_model: &str, count: usize, seed: u64) -> Option<Self> {
        let Some(python) = std::env::var_os("TEST_PYTHON") else {
            let message =
                "NOT TESTED against an installed Django: TEST_PYTHON names no interpreter";
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("{message}");
            return None;
        };
        let mut command = Command::new(python);
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/auth_peer.py"))
            .args([url, user_model, &count.to_string(), &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, input, output })
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("Django has ended: {line}"))
    }

    /// What Django makes of a session.
    fn ask(&mut self, session_key: &SessionKey) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{}", Value::from(session_key.as_str())).unwrap();
        input.flush().unwrap();
        self.line()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It removes its database, once it has said what it has to say.
        drop(self.input.take());
        std::io::copy(&mut self.output, &mut std::io::sink()).unwrap();
        self.child.wait().unwrap();
    }
}

fn user_model(told: &Value) -> UserModel {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut model = UserModel::default();
    model.table = text(&told["table"]);
    model.primary_key = text(&told["primary_key"]);
    model.primary_key_type = match &*text(&told["kind"]) {
        "AutoField" => PrimaryKeyType::INTEGER,
        "UUIDField" => PrimaryKeyType::Uuid,
        _ => PrimaryKeyType::Text,
    };
    model.username = text(&told["username"]);
    for missing in told["missing"].as_array().unwrap() {
        match missing.as_str().unwrap() {
            "is_active" => model.is_active = None,
            "is_staff" => model.is_staff = None,
            _ => model.is_superuser = None,
        }
    }
    model.permissions = told.get("groups").map(|groups| {
        let mut tables = PermissionTables::default();
        tables.user_groups = text(&groups[0]);
        tables.user_groups_user = text(&groups[1]);
        tables.user_permissions = text(&told["user_permissions"][0]);
        tables.user_permissions_user = text(&told["user_permissions"][1]);
        tables
    });
    model
}

/// A site with certain settings.
struct Site {
    store: Arc<SqlStore>,
    settings: Arc<SessionSettings>,
    auth: Auth,
}

impl Site {
    fn new(store: &SqlStore, model: &UserModel, chosen: &Value) -> Self {
        let texts = |name: &str| {
            let values = chosen[name].as_array().unwrap();
            values.iter().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut settings =
            SessionSettings::default().with_secret_key(SecretKey::new(SECRET_KEY).unwrap());
        settings.secret_key_fallbacks = texts("SECRET_KEY_FALLBACKS")
            .iter()
            .map(|key| SecretKey::new(&**key).unwrap())
            .collect();
        let store = SqlStore::new(store.pool().clone(), settings.codec().unwrap());
        let settings = Arc::new(settings);
        let backends = texts("AUTHENTICATION_BACKENDS");
        let auth_settings = AuthSettings::new(Arc::clone(&settings))
            .with_user_model(model.clone())
            .with_backends(backends.iter().map(|path| &**path));
        let auth = Auth::new(SqlUsers::beside(&store, model), auth_settings);
        Self { store: Arc::new(store), settings, auth }
    }

    fn session(&self, session_key: &SessionKey) -> Session {
        let settings = Arc::clone(&self.settings);
        Session::new(self.store.clone(), settings, Some(session_key.clone()))
    }
}

const PERMISSIONS: [&str; 7] = [
    "auth.add_user",
    "auth.view_group",
    "auth.delete_group",
    "sessions.view_session",
    "sessions.nothing",
    "auth",
    "",
];

/// Does with one of two equal sessions what Django has done with the other one.
async fn compare(site: &Site, state: &Value) -> &'static str {
    let session_key = SessionKey::parse(state["key"].as_str().unwrap()).unwrap();
    let session = site.session(&session_key);
    let found = site.auth.get_user(&session).await;
    let outcome = match &found {
        Ok(Authentication::User(user)) => {
            assert_eq!(state["user"], user.pk().as_str(), "{state}");
            if let Some(granted) = state["granted"].as_array() {
                for (name, granted) in PERMISSIONS.iter().zip(granted) {
                    let has_perm = site.auth.has_perm(user, name).await.unwrap();
                    assert_eq!(*granted, has_perm, "{name} {state}");
                }
                let modules = state["modules"].as_array().unwrap();
                for (name, granted) in ["auth", "none", ""].iter().zip(modules) {
                    let has_perms = site.auth.has_module_perms(user, name).await.unwrap();
                    assert_eq!(*granted, has_perms, "{name} {state}");
                }
            }
            if let Some(permissions) = state["permissions"].as_array() {
                let ours = site.auth.permissions(user).await.unwrap();
                assert!(permissions.iter().eq(ours.iter().map(|name| &**name)), "{state}");
            }
            "user"
        }
        Ok(nobody) => {
            assert!(state["user"].is_null() && state.get("raised").is_none(), "{nobody:?} {state}");
            match nobody {
                Authentication::Refused(Refusal::Backend) => "backend",
                Authentication::Refused(Refusal::Inactive) => "inactive",
                Authentication::Refused(Refusal::NoSuchUser) => "no such user",
                Authentication::Refused(Refusal::SessionAuthHash) => "hash",
                _ => "anonymous",
            }
        }
        Err(AuthError::InvalidPrimaryKey(_)) => {
            assert!(state.get("raised").is_some(), "{state}");
            "raised"
        }
        Err(error) => panic!("{error} {state}"),
    };
    // The end of the request.
    if session.modified().await && !session.is_empty().await {
        session.save().await.unwrap();
    }
    let now = session.session_key().await;
    let is_moved = now.as_ref().is_some_and(|now| *now != session_key);
    assert_eq!(state["is_moved"], is_moved, "{state}");
    assert_eq!(state["is_left"], session.exists(&session_key).await.unwrap(), "{state}");
    let data = match &now {
        Some(now) => Some(site.session(now).data().await.unwrap().to_json().unwrap()),
        None => None,
    };
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let data = data.map_or(Value::Null, |data| parsed(&data));
    assert_eq!(data, state["data"].as_str().map_or(Value::Null, parsed), "{state}");
    outcome
}

/// An empty place for the databases of one test.
fn address(url: &str, database: &str) -> String {
    if !url.contains("://") {
        return format!("sqlite:{database}");
    }
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}

async fn states(url: &str, name: &str, count: usize) {
    let Some(mut peer) = Peer::start(url, name, count, 20_260_101) else { return };
    let told = peer.line();
    let model = user_model(&told["model"]);
    let settings = SessionSettings::default().with_secret_key(SecretKey::new(SECRET_KEY).unwrap());
    let address = address(url, told["database"].as_str().unwrap());
    let store = SqlStore::connect(&address, &settings).await.unwrap();
    let mut sites: HashMap<String, Site> = HashMap::new();
    let mut outcomes: HashMap<&str, usize> = HashMap::new();
    let mut users = Vec::new();
    // All of them first: SQLite has one writer at a time.
    let states: Vec<Value> = (0..count).map(|_| peer.line()).collect();
    for state in states {
        let chosen = &state["settings"];
        let site =
            sites.entry(chosen.to_string()).or_insert_with(|| Site::new(&store, &model, chosen));
        *outcomes.entry(compare(site, &state).await).or_default() += 1;
        if let Some(pk) = state["user"].as_str() {
            users.push(pk.to_owned());
        }
    }
    assert!(outcomes["user"] > count / 10, "{outcomes:?}");
    assert!(outcomes.len() >= 5, "{outcomes:?}");
    logins(&mut peer, &store, &model, &users).await;
    django_session::SessionStore::close(&store).await;
}

/// What a login here leaves is a login to Django.
async fn logins(peer: &mut Peer, store: &SqlStore, model: &UserModel, users: &[String]) {
    let chosen = serde_json::json!({
        "AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend"],
        "SECRET_KEY_FALLBACKS": [],
    });
    let site = Site::new(store, model, &chosen);
    let people = SqlUsers::beside(store, model);
    let mut checked = 0;
    for pk in users.iter().take(20) {
        let pk = model.primary_key_type.parse(pk).unwrap().unwrap();
        let Some(record) = people.get(&pk).await.unwrap().filter(|record| record.is_active) else {
            continue;
        };
        let session = Session::new(site.store.clone(), Arc::clone(&site.settings), None);
        session.insert("cart", &["tea"]).await.unwrap();
        session.save().await.unwrap();
        let before = session.session_key().await.unwrap();
        let user = site.auth.user(record, "django.contrib.auth.backends.ModelBackend");
        site.auth.login(&session, &user).await.unwrap();
        session.save().await.unwrap();
        let session_key = session.session_key().await.unwrap();
        assert_ne!(session_key, before, "it has another key");
        assert!(!session.exists(&before).await.unwrap());
        let found = peer.ask(&session_key);
        assert_eq!(found["user"], pk.as_str());
        assert_eq!((&found["is_moved"], &found["last_login"]), (&false.into(), &true.into()));
        assert!(found["data"].as_str().unwrap().contains(r#""cart": ["tea"]"#));

        // Once more is no change, and logging out is the end.
        site.auth.login(&session, &user).await.unwrap();
        assert_eq!(session.session_key().await, Some(session_key.clone()));
        site.auth.logout(&session).await.unwrap();
        assert!(!session.exists(&session_key).await.unwrap());
        assert_eq!(peer.ask(&session_key)["user"], Value::Null);
        checked += 1;
    }
    assert!(checked > 5);
}

#[tokio::test]
async fn whoever_django_lets_in_and_nobody_else_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().to_str().unwrap();
    states(url, "auth.User", 700).await;
    states(url, "custom_user.Customer", 300).await;
    states(url, "custom_user.Member", 200).await;
}

#[tokio::test]
async fn whoever_django_lets_in_and_nobody_else_postgres() {
    let Some(url) = server("TEST_POSTGRES_URL") else { return };
    states(&url, "auth.User", 500).await;
    states(&url, "custom_user.Customer", 200).await;
}

#[tokio::test]
async fn whoever_django_lets_in_and_nobody_else_mysql() {
    let Some(url) = server("TEST_MYSQL_URL") else { return };
    states(&url, "auth.User", 200).await;
    states(&url, "custom_user.Customer", 100).await;
}

/// A table of users with one row.
async fn user_table(password: &str) -> sqlx::SqlitePool {
    let pool = sqlx::sqlite::SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await
        .unwrap();
    let table = "CREATE TABLE auth_user (id integer PRIMARY KEY, username text, password text, \
                 is_active bool, is_staff bool, is_superuser bool, last_login datetime)";
    sqlx::raw_sql(table).execute(&pool).await.unwrap();
    sqlx::query("INSERT INTO auth_user VALUES (42, 'ann', ?, 1, 0, 0, NULL)")
        .bind(password)
        .execute(&pool)
        .await
        .unwrap();
    pool
}

/// Replays what recorded releases made of sessions, from 1.11 to 6.1.
#[tokio::test]
async fn sessions_are_logged_in_and_out_as_recorded() {
    const BACKEND: &str = "django.contrib.auth.backends.ModelBackend";
    let records = vectors::read("auth_hash");
    let mut tally = Tally::new("auth_hash");
    let hash_records =
        records.iter().filter(|record| text(record, "id").ends_with("/key0/pw0")).cloned();
    let by_version: HashMap<String, Value> =
        hash_records.map(|record| (text(&record, "django_version").to_owned(), record)).collect();
    let steps = records.iter().filter(|record| record.get("before").is_some());
    let mut kinds: HashMap<&str, usize> = HashMap::new();
    for record in steps {
        let id = text(record, "id");
        let version = text(record, "django_version");
        let first = &by_version[version];
        let password = text(first, "password_field");
        let mut settings = SessionSettings::default()
            .with_secret_key(SecretKey::new(text(first, "secret_key")).unwrap());
        settings.secret_key_fallbacks = record["fallbacks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|key| SecretKey::new(key.as_str().unwrap()).unwrap())
            .collect();
        let settings = Arc::new(settings);
        // What the release had for passwords is not asked here.
        let release = serde_json::json!({
            "DJANGO_VERSION": version,
            "PASSWORD_HASHERS": ["site.Hasher"],
            "PASSWORD_HASHERS_PARAMETERS": {"site.Hasher": {"algorithm": "none"}},
        });
        let auth_settings =
            AuthSettings::from_json(&release.to_string(), settings.clone()).unwrap();
        let pool = user_table(password).await;
        let changed = id.ends_with("update_session_auth_hash");
        let auth = Auth::new(SqlUsers::new(pool, &auth_settings.user_model), auth_settings);

        let store = Arc::new(MemoryStore::new(settings.codec().unwrap()));
        let before = &record["before"];
        let session_key = before["session_key"].as_str().and_then(SessionKey::parse);
        if session_key.is_some() {
            let first = Session::new(store.clone(), settings.clone(), None);
            for (name, value) in before["data"].as_object().unwrap() {
                first.insert(name, value).await.unwrap();
            }
            first.save().await.unwrap();
        }
        let stored = store.session_keys();
        let session = Session::new(store.clone(), settings.clone(), stored.first().cloned());
        let ann = auth.user_by_name("ann", BACKEND).await.unwrap().unwrap();
        let step = id.rsplit('/').next().unwrap();
        if id.contains("/get_user/") {
            let found = auth.get_user(&session).await.unwrap();
            assert_eq!(found.user().is_none(), record["anonymous"], "{id}");
        } else if step.starts_with("login") {
            auth.login(&session, &ann).await.unwrap();
        } else if step.starts_with("logout") {
            auth.logout(&session).await.unwrap();
        } else {
            assert!(changed, "{id}");
            auth.update_session_auth_hash(&session, &ann).await.unwrap();
        }
        *kinds.entry(step).or_default() += 1;

        let after = &record["after"];
        let mut expected = after["data"].clone();
        let found = session.data().await.unwrap().to_json().unwrap();
        let mut found: Value = serde_json::from_str(&found).unwrap();
        if changed {
            // The record has the hash of another password, which it does not tell.
            for data in [&mut expected, &mut found] {
                data.as_object_mut().unwrap().remove("_auth_user_hash");
            }
        }
        if step == "logout_keeps_language" {
            // Django kept the language until 2.2; since 3.0 a cookie has it, and nothing stays.
            expected = serde_json::json!({});
        }
        assert_eq!(found, expected, "{id}");
        let now = session.session_key().await;
        assert_eq!(after["session_key"].is_string(), now.is_some(), "{id}");
        let is_moved = after["session_key"] != before["session_key"];
        assert_eq!(is_moved, now.as_ref() != stored.first(), "{id}");
        assert_eq!(session.modified().await, after["modified"], "{id}");
        assert_eq!(after["rows"].as_array().unwrap().len(), store.session_keys().len(), "{id}");
        if step == "logout_keeps_language" && !after["data"].as_object().unwrap().is_empty() {
            tally.not_supported(record, "a logout keeps no language");
        } else {
            tally.passed(record);
        }
    }
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}

const MODEL_BACKEND: &str = "django.contrib.auth.backends.ModelBackend";

/// A site whose users are those of a table.
fn site_of(pool: &sqlx::SqlitePool) -> (Arc<SessionSettings>, Auth) {
    let key = SecretKey::new(SECRET_KEY).unwrap();
    let settings = Arc::new(SessionSettings::default().with_secret_key(key));
    let auth_settings = AuthSettings::new(settings.clone());
    let auth = Auth::new(SqlUsers::new(pool.clone(), &auth_settings.user_model), auth_settings);
    (settings, auth)
}

#[tokio::test]
async fn a_password_that_is_null_lets_in_none_of_the_sessions_of_before() {
    let pool = user_table("pbkdf2_sha256$1$salt$hash").await;
    sqlx::query("UPDATE auth_user SET password = NULL").execute(&pool).await.unwrap();
    let (settings, auth) = site_of(&pool);
    let key = SecretKey::new(SECRET_KEY).unwrap();
    for (hash, is_let_in) in [
        (session_auth_hash(&key, "pbkdf2_sha256$1$salt$hash"), false),
        (String::new(), false),
        // `salted_hmac` makes a text of whatever it is given.
        (session_auth_hash(&key, "None"), true),
    ] {
        let store = Arc::new(MemoryStore::new(settings.codec().unwrap()));
        let session = Session::new(store, settings.clone(), None);
        session.insert("_auth_user_id", "42").await.unwrap();
        session.insert("_auth_user_backend", MODEL_BACKEND).await.unwrap();
        session.insert("_auth_user_hash", &hash).await.unwrap();
        let found = auth.get_user(&session).await.unwrap();
        assert_eq!(found.user().is_some(), is_let_in);
    }
    assert!(auth.authenticate("ann", "None").await.unwrap().is_none());
}

#[tokio::test]
async fn a_password_that_cannot_be_renewed_keeps_nobody_out() {
    // One iteration is less than today's, so it is to be renewed.
    let hashers = PasswordHashers::new([PasswordHasher::Pbkdf2Sha256(Pbkdf2::new(1))]).unwrap();
    let pool = user_table(&hashers.make_password("secret").unwrap()).await;
    let refused = "CREATE TRIGGER kept BEFORE UPDATE OF password ON auth_user \
                   BEGIN SELECT RAISE(IGNORE); END";
    sqlx::raw_sql(refused).execute(&pool).await.unwrap();
    let (_, auth) = site_of(&pool);
    assert!(auth.authenticate("ann", "secret").await.unwrap().is_some());
    assert!(auth.authenticate("ann", "other").await.unwrap().is_none());
}

/// Django's `update_session_auth_hash` asks whether `request.user == user`.
#[tokio::test]
async fn the_password_of_somebody_else_leaves_a_session_whose_it_is() {
    let pool = user_table("pbkdf2_sha256$1$salt$hash").await;
    let (settings, auth) = site_of(&pool);
    let ann = auth.user_by_name("ann", MODEL_BACKEND).await.unwrap().unwrap();
    for id in [Some("41"), Some("42"), None] {
        let store = Arc::new(MemoryStore::new(settings.codec().unwrap()));
        let session = Session::new(store.clone(), settings.clone(), None);
        session.insert("cart", &1).await.unwrap();
        if let Some(id) = id {
            session.insert("_auth_user_id", id).await.unwrap();
            session.insert("_auth_user_backend", MODEL_BACKEND).await.unwrap();
            session.insert("_auth_user_hash", "theirs").await.unwrap();
        }
        session.save().await.unwrap();
        let before = session.data().await.unwrap();
        let session_key = session.session_key().await;

        auth.update_session_auth_hash(&session, &ann).await.unwrap();
        assert!(session.session_key().await != session_key, "{id:?}");
        let is_theirs = id == Some("42");
        assert_eq!(session.data().await.unwrap() == before, !is_theirs, "{id:?}");
        assert_eq!(auth.get_user(&session).await.unwrap().user().is_some(), is_theirs, "{id:?}");
    }
}

/// Of two requests that come with a hash under an old key each wants to renew it.
#[tokio::test]
async fn two_requests_that_renew_a_hash_both_have_the_user() {
    let password = "pbkdf2_sha256$1$salt$hash";
    let pool = user_table(password).await;
    let mut settings = SessionSettings::default()
        .with_secret_key(SecretKey::new("the key of today, which is long enough").unwrap());
    settings.secret_key_fallbacks = vec![SecretKey::new(SECRET_KEY).unwrap()];
    let settings = Arc::new(settings);
    let auth_settings = AuthSettings::new(settings.clone());
    let auth = Auth::new(SqlUsers::new(pool, &auth_settings.user_model), auth_settings);
    let hash = session_auth_hash(&SecretKey::new(SECRET_KEY).unwrap(), password);
    let places = Place::all().await;
    let mut stores: Vec<Arc<dyn SessionStore>> =
        vec![Arc::new(MemoryStore::new(settings.codec().unwrap()))];
    for place in &places {
        stores.push(Arc::new(place.store().await));
    }
    for store in stores {
        let first = Session::new(store.clone(), settings.clone(), None);
        first.insert("_auth_user_id", "42").await.unwrap();
        first.insert("_auth_user_backend", MODEL_BACKEND).await.unwrap();
        first.insert("_auth_user_hash", &hash).await.unwrap();
        first.save().await.unwrap();
        let key = first.session_key().await;
        let [one, other] =
            [0, 1].map(|_| Session::new(store.clone(), settings.clone(), key.clone()));
        other.data().await.unwrap();
        for session in [&one, &other] {
            assert!(auth.get_user(session).await.unwrap().user().is_some());
        }
        one.save().await.unwrap();
        assert!(one.session_key().await != key);
        // It changes nothing, so that its response says nothing of the cookie.
        assert!(!other.modified().await);
        assert_eq!(other.session_key().await, key);
        other.insert("late", &1).await.unwrap();
        assert!(other.save().await.unwrap_err().is_interrupted());
        // Whoever does it by hand is interrupted, and keeps the cookie too.
        let third = Session::new(store.clone(), settings.clone(), one.session_key().await);
        third.data().await.unwrap();
        one.flush().await.unwrap();
        assert!(third.cycle_key().await.unwrap_err().is_interrupted());
        assert!(third.session_key().await.is_some());
        assert!(third.save().await.unwrap_err().is_interrupted());
    }
}

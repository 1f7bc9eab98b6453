//! WebSockets in axum, over a real server: the session of the handshake, by the rules of Channels.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use django_session::auth::{Auth, AuthSettings, User};
use django_session::store::{SqlUsers, sqlx};
use django_session::web::{AuthLayer, AuthSession, CsrfLayer, CsrfSettings};
use django_session::{
    SecretKey, Session, SessionKey, SessionLayer, SessionSettings, SessionStore as _, SqlStore,
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Request, header};
use sqlx::sqlite::SqlitePoolOptions;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

const EVERY: Duration = Duration::from_millis(20);

/// A site on SQLite in memory, with one user and a server.
struct Site {
    pool: sqlx::SqlitePool,
    store: SqlStore,
    settings: Arc<SessionSettings>,
    auth: Auth,
    port: u16,
}

fn settings(key: &str, fallbacks: &[&str]) -> SessionSettings {
    let key_of = |key: &str| SecretKey::new(key).unwrap();
    let mut settings = SessionSettings::default().with_secret_key(key_of(key));
    settings.secret_key_fallbacks = fallbacks.iter().map(|key| key_of(key)).collect();
    settings
}

impl Site {
    async fn new() -> Self {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect("sqlite::memory:")
            .await
            .unwrap();
        sqlx::raw_sql(
            "CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, \
             session_data text NOT NULL, expire_date datetime NOT NULL);
             CREATE TABLE auth_user (id integer PRIMARY KEY, username text, password text, \
             is_active bool, is_staff bool, is_superuser bool, last_login datetime);
             INSERT INTO auth_user VALUES (7, 'ann', 'md5$a$b', 1, 0, 0, NULL)",
        )
        .execute(&pool)
        .await
        .unwrap();
        Self::serving(pool, settings("secret", &[])).await
    }

    async fn serving(pool: sqlx::SqlitePool, settings: SessionSettings) -> Self {
        let settings = Arc::new(settings);
        let store = SqlStore::new(pool.clone(), settings.codec().unwrap());
        let auth_settings = AuthSettings::new(settings.clone());
        let auth = Auth::new(SqlUsers::beside(&store, &auth_settings.user_model), auth_settings);
        let mut csrf = CsrfSettings::default();
        csrf.allowed_hosts = vec!["127.0.0.1".to_owned()];
        let app = Router::new()
            .route("/socket", get(socket))
            .route("/look", get(async |user: User| user.username().to_owned()))
            .layer(AuthLayer::new(auth.clone()))
            .layer(CsrfLayer::new(csrf).unwrap())
            .layer(SessionLayer::new(store.clone(), settings.clone()))
            .with_state(());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { pool, store, settings, auth, port }
    }

    /// The key of a session in which the user has logged in.
    async fn login(&self) -> SessionKey {
        let session = Session::new(self.store(), self.settings.clone(), None);
        let backend = "django.contrib.auth.backends.ModelBackend";
        let ann = self.auth.user_by_name("ann", backend).await.unwrap().unwrap();
        self.auth.login(&session, &ann).await.unwrap();
        session.save().await.unwrap();
        session.session_key().await.unwrap()
    }

    fn store(&self) -> Arc<SqlStore> {
        Arc::new(self.store.clone())
    }

    fn session(&self, session_key: &SessionKey) -> Session {
        Session::new(self.store(), self.settings.clone(), Some(session_key.clone()))
    }

    async fn open(
        &self,
        session_key: &str,
        origin: Option<&str>,
    ) -> Result<(Socket, HeaderMap), u16> {
        let mut request: Request<()> =
            format!("ws://127.0.0.1:{}/socket", self.port).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::COOKIE, format!("sessionid={session_key}").parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, response)) => {
                assert_eq!(response.status(), 101);
                Ok((socket, response.headers().clone()))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }
}

async fn socket(
    user: User,
    session: AuthSession,
    upgrade: WebSocketUpgrade,
    State(()): State<()>,
) -> Response {
    // Before the answer; with any other answer it would be saved.
    session.session().insert("before", &true).await.unwrap();
    upgrade.on_upgrade(async move |socket| talk(socket, &user, &session).await)
}

async fn talk(mut socket: WebSocket, user: &User, session: &AuthSession) {
    let mut ended = Box::pin(session.ended(EVERY));
    loop {
        tokio::select! {
            () = &mut ended => {
                drop(socket.send(Message::text("ended")).await);
                return;
            }
            Some(Ok(Message::Text(text))) = socket.recv() => {
                let answer = match text.as_str() {
                    "who" => user.username().to_owned(),
                    "change" => {
                        session.session().insert("changed", &true).await.unwrap();
                        "changed".to_owned()
                    }
                    "save" => {
                        session.session().save().await.unwrap();
                        "saved".to_owned()
                    }
                    other => panic!("{other}"),
                };
                socket.send(Message::text(answer)).await.unwrap();
            }
            else => return,
        }
    }
}

async fn read(socket: &mut Socket) -> String {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => return text.to_string(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn ask(socket: &mut Socket, text: &str) -> String {
    socket.send(Frame::text(text)).await.unwrap();
    read(socket).await
}

#[tokio::test]
async fn a_socket_has_the_session_and_saves_nothing_by_itself() {
    let site = Site::new().await;
    let session_key = site.login().await;
    let (mut socket, headers) = site.open(session_key.as_str(), None).await.unwrap();
    assert!(!headers.contains_key(header::SET_COOKIE) && !headers.contains_key(header::VARY));
    assert_eq!(ask(&mut socket, "who").await, "ann");
    let stored = async |name: &str| {
        site.session(&session_key).get::<bool>(name).await.unwrap().unwrap_or(false)
    };
    assert!(!stored("before").await, "the handshake has saved it");
    assert_eq!(ask(&mut socket, "change").await, "changed");
    assert!(!stored("changed").await, "nobody has saved it");
    assert_eq!(ask(&mut socket, "save").await, "saved");
    assert!(stored("changed").await && stored("before").await);
    drop(socket);
    assert!(site.store.exists(&session_key).await.unwrap());
}

#[tokio::test]
async fn a_socket_ends_with_its_session() {
    let site = Site::new().await;
    for how in ["logout", "password", "inactive", "other user", "row"] {
        let session_key = site.login().await;
        let (mut socket, _) = site.open(session_key.as_str(), None).await.unwrap();
        assert_eq!(ask(&mut socket, "who").await, "ann");
        match how {
            "logout" => site.auth.logout(&site.session(&session_key)).await.unwrap(),
            "password" => site.run("UPDATE auth_user SET password = 'md5$c$d'").await,
            "inactive" => site.run("UPDATE auth_user SET is_active = 0").await,
            "other user" => {
                let session = site.session(&session_key);
                session.insert("_auth_user_id", "8").await.unwrap();
                session.save().await.unwrap();
            }
            _ => site.store.delete(&session_key).await.unwrap(),
        }
        assert_eq!(read(&mut socket).await, "ended", "{how}");
        assert_eq!(site.open(session_key.as_str(), None).await.unwrap_err(), 401, "{how}");
        site.run("UPDATE auth_user SET password = 'md5$a$b', is_active = 1").await;
    }
}

#[tokio::test]
async fn a_socket_outlives_an_outage() {
    let site = Site::new().await;
    let session_key = site.login().await;
    let (mut socket, _) = site.open(session_key.as_str(), None).await.unwrap();
    site.run("ALTER TABLE auth_user RENAME TO elsewhere").await;
    assert_eq!(site.open(session_key.as_str(), None).await.unwrap_err(), 503);
    // Several times it is asked in vain.
    tokio::time::sleep(EVERY * 5).await;
    assert_eq!(ask(&mut socket, "who").await, "ann");
    site.run("ALTER TABLE elsewhere RENAME TO auth_user").await;
    tokio::time::sleep(EVERY * 5).await;
    assert_eq!(ask(&mut socket, "who").await, "ann");
    site.auth.logout(&site.session(&session_key)).await.unwrap();
    assert_eq!(read(&mut socket).await, "ended");
}

#[tokio::test]
async fn a_handshake_leaves_the_key_alone_though_the_hash_is_an_old_one() {
    let before = Site::new().await;
    let session_key = before.login().await;
    let site = Site::serving(before.pool.clone(), settings("another", &["secret"])).await;
    let (mut socket, headers) = site.open(session_key.as_str(), None).await.unwrap();
    assert!(!headers.contains_key(header::SET_COOKIE));
    assert_eq!(ask(&mut socket, "who").await, "ann");
    assert!(site.store.exists(&session_key).await.unwrap(), "the browser knows this one");
    // An ordinary request gives it another one.
    let found = site.auth.get_user(&site.session(&session_key)).await.unwrap();
    assert!(found.user().is_some());
    assert!(!site.store.exists(&session_key).await.unwrap());
    assert_eq!(read(&mut socket).await, "ended");
}

#[tokio::test]
async fn a_page_of_another_site_opens_no_socket() {
    let site = Site::new().await;
    let session_key = site.login().await;
    let own = format!("http://127.0.0.1:{}", site.port);
    assert!(site.open(session_key.as_str(), Some(&own)).await.is_ok());
    for origin in ["https://evil.example", "http://127.0.0.1:1", "null", ""] {
        let refused = site.open(session_key.as_str(), Some(origin)).await.unwrap_err();
        assert_eq!(refused, 403, "{origin}");
    }
    assert_eq!(site.open("", None).await.unwrap_err(), 401);
}

//! A chat for the users of a Django site, over WebSockets: what a Channels consumer does, in axum.
//!
//! ```text
//! python manage.py export_session_settings --output settings.json
//! export SECRET_KEY=… DATABASE_URL=sqlite:db.sqlite3
//! cargo run --example chat --features auth,axum,sqlite,postgres,mysql -- settings.json
//! ```
//!
//! A socket has the session of its handshake. Nothing saves it by itself: each message here saves how
//! much somebody has said. The socket closes with code 4401, that of `django_session_rs.channels`, soon
//! after its session ends: a logout, in Django or here, another password, an inactive user.

use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{Html, Response};
use axum::routing::get;
use django_session::auth::{Auth, User};
use django_session::store::SqlUsers;
use django_session::web::{AuthLayer, AuthSession, CsrfLayer, SiteSettings};
use django_session::{SessionError, SessionLayer, SqlStore};
use tokio::sync::broadcast::{Sender, channel, error::RecvError};

/// How soon a socket has to know that its session has ended.
const REVALIDATE: Duration = Duration::from_secs(2);
/// What a page meets when it has; it goes to the login page then.
const SESSION_ENDED: u16 = 4401;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: chat SETTINGS_FILE")?;
    let database = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;

    let site = SiteSettings::from_file(file)?;
    let store = SqlStore::connect(&database, &site.session).await?;
    let users = SqlUsers::beside(&store, &site.auth.user_model);
    let (room, _) = channel(100);
    let app = Router::new()
        .route("/", get(page))
        .route("/socket", get(socket))
        .layer(AuthLayer::new(Auth::new(users, site.auth)).redirecting_to_login())
        // A page of another site that opens a socket here is refused by its `Origin`.
        .layer(CsrfLayer::new(site.csrf)?)
        .layer(SessionLayer::new(store, site.session))
        .route("/health", get(async || "ok"))
        .with_state(room);

    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn page(_: User) -> Html<&'static str> {
    Html(PAGE)
}

async fn socket(
    upgrade: WebSocketUpgrade,
    user: User,
    session: AuthSession,
    State(room): State<Sender<String>>,
) -> Response {
    upgrade.on_upgrade(async |socket| talk(socket, user, session, room).await)
}

async fn talk(mut socket: WebSocket, user: User, session: AuthSession, room: Sender<String>) {
    let mut lines = room.subscribe();
    let mut ended = Box::pin(session.ended(REVALIDATE));
    loop {
        tokio::select! {
            () = &mut ended => return close(socket).await,
            line = lines.recv() => match line {
                Ok(line) => if socket.send(Message::text(line)).await.is_err() { return },
                // Too slow to read all that is said.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => match said(&session).await {
                    Ok(count) => {
                        // Nobody has to be there to hear it.
                        drop(room.send(format!("{} ({count}): {text}", user.username())));
                    }
                    Err(error) if error.is_interrupted() => return close(socket).await,
                    Err(error) => eprintln!("not counted: {error}"),
                },
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

/// Counts in the session what somebody says, beside whatever other requests do to it meanwhile.
async fn said(session: &AuthSession) -> Result<u64, SessionError> {
    let session = session.session().reopen().await;
    let count = session.get("said").await?.unwrap_or(0) + 1;
    session.insert("said", &count).await?;
    session.save().await?;
    Ok(count)
}

async fn close(mut socket: WebSocket) {
    let frame = CloseFrame { code: SESSION_ENDED, reason: "the session has ended".into() };
    // If the browser is gone, it is closed.
    drop(socket.send(Message::Close(Some(frame))).await);
}

const PAGE: &str = r##"<!doctype html>
<html lang=en>
<meta charset=utf-8>
<title>Chat</title>
<ul id=lines></ul>
<form><label>Say <input name=text autocomplete=off autofocus></label></form>
<p id=state>connecting
<script>
const state = document.querySelector("#state");
const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
socket.onopen = () => (state.textContent = "open");
socket.onclose = (event) => (state.textContent = "closed " + event.code);
socket.onmessage = (event) => {
  const line = document.createElement("li");
  line.textContent = event.data;
  document.querySelector("#lines").append(line);
};
document.querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  socket.send(event.target.text.value);
  event.target.reset();
};
</script>
"##;

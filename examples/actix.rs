//! Pages for the users of a Django site, in actix-web: who is logged in there is logged in here.
//!
//! ```text
//! python manage.py export_session_settings --output settings.json
//! export SECRET_KEY=… DATABASE_URL=sqlite:db.sqlite3
//! cargo run --example actix --features auth,actix,redis,sqlite,postgres,mysql -- settings.json
//! ```
//!
//! The site's own database has the users. `SESSION_STORE_URL` says where the sessions are, if not there
//! too; `PORT` is 3000, `USER_CACHE_SECONDS` zero.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::LOCATION;
use actix_web::web::{self, Form, Html, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use actix_ws::{CloseCode, CloseReason, Message};
use django_session::auth::{Auth, AuthError, User};
use django_session::store::{self, SqlUsers};
use django_session::web::{
    AuthLayer, AuthSession, Csrf, CsrfLayer, MaybeUser, Permission, RequirePermission, SiteSettings,
};
use django_session::{SessionError, SessionLayer, SessionStore, SqlStore};
use serde::Deserialize;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: actix SETTINGS_FILE")?;
    let database = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;

    // Settings that contradict each other are found here, before anybody is let in by them.
    let site = SiteSettings::from_file(file)?;
    let (store, users): (Arc<dyn SessionStore>, _);
    if let Ok(url) = env::var("SESSION_STORE_URL") {
        store = store::connect(&url, &site.session).await?;
        users = SqlUsers::connect(&database, &site.auth).await?;
    } else {
        let table = SqlStore::connect(&database, &site.session).await?;
        users = SqlUsers::beside(&table, &site.auth.user_model);
        store = Arc::new(table);
    }
    let mut auth = Auth::new(users, site.auth.clone());
    if let Some(seconds) = number("USER_CACHE_SECONDS")? {
        auth = auth.with_user_cache(100_000, Duration::from_secs(seconds));
    }

    let port = number("PORT")?.unwrap_or(3000).try_into()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    serve(listener, site, store, auth)?.await?;
    Ok(())
}

pub(crate) fn serve(
    listener: TcpListener,
    site: SiteSettings,
    store: Arc<dyn SessionStore>,
    auth: Auth,
) -> Result<Server, Box<dyn Error>> {
    let auth = AuthLayer::new(auth).redirecting_to_login();
    let csrf = CsrfLayer::new(site.csrf)?;
    let sessions = SessionLayer::new(store, site.session);
    let server = HttpServer::new(move || {
        let pages = web::scope("")
            .route("/", web::get().to(index))
            .route("/account", web::get().to(account))
            .route("/groups", web::get().to(groups))
            .route("/visit", web::post().to(visit))
            .route("/login", web::get().to(login_page))
            .route("/login", web::post().to(log_in))
            .route("/logout", web::post().to(log_out))
            .route("/socket", web::get().to(socket))
            // The last one is the first that a request meets.
            .wrap(auth.clone())
            .wrap(csrf.clone())
            .wrap(sessions.clone());
        App::new().route("/health", web::get().to(async || "ok")).service(pages)
    });
    Ok(server.listen(listener)?.run())
}

/// Everybody may see this page.
async fn index(MaybeUser(user): MaybeUser, csrf: Csrf) -> Html {
    let token = csrf.token();
    page(&match user {
        None => "<p>Nobody is logged in. <a href=/login?next=/>Log in</a>".to_owned(),
        Some(user) => format!(
            "<p>You are <b id=user>{}</b>. <a href=/account>Account</a> <a href=/groups>Groups</a>\
             <form method=post action=/logout><input type=hidden name=csrfmiddlewaretoken \
             value={token}><button>Log out</button></form>",
            escape(user.username()),
        ),
    })
}

/// Whoever is logged in; others are sent to `LOGIN_URL`.
async fn account(user: User) -> String {
    user.username().to_owned()
}

struct ViewGroup;

impl Permission for ViewGroup {
    const PERMISSIONS: &'static [&'static str] = &["auth.view_group"];
}

/// Whoever has the permission; others get 403.
async fn groups(user: RequirePermission<ViewGroup>) -> String {
    format!("{} may view groups", user.username())
}

/// A change to the session, which Django sees too.
async fn visit(session: AuthSession) -> Result<String, SessionError> {
    let visits: u64 = session.session().get("visits").await?.unwrap_or(0) + 1;
    session.session().insert("visits", &visits).await?;
    Ok(format!("visit {visits}"))
}

async fn login_page(csrf: Csrf, query: Query<HashMap<String, String>>) -> Html {
    let next = query.get("next").map_or("/", |next| &**next);
    let failed = if query.contains_key("failed") { "<p>That is not right." } else { "" };
    page(&format!(
        "{failed}<form method=post action=/login>\
         <input type=hidden name=csrfmiddlewaretoken value={}>\
         <input type=hidden name=next value=\"{}\">\
         <label>Name <input name=username autofocus></label>\
         <label>Password <input name=password type=password></label>\
         <button>Log in</button></form>",
        csrf.token(),
        escape(next),
    ))
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
    next: String,
}

async fn log_in(session: AuthSession, form: Form<Login>) -> Result<HttpResponse, AuthError> {
    let found = session.authenticate(&form.username, &form.password).await?;
    let Some(user) = found else { return Ok(redirect("/login?failed")) };
    session.login(&user).await?;
    Ok(redirect(way_back(&form.next)))
}

async fn log_out(session: AuthSession) -> Result<HttpResponse, AuthError> {
    session.logout().await?;
    Ok(redirect("/"))
}

/// How soon a socket has to know that its session has ended, and what the page meets then.
const REVALIDATE: Duration = Duration::from_secs(2);
const SESSION_ENDED: u16 = 4401;

/// A socket of the user, which counts in the session what is said: `examples/chat.rs` has a page for one.
async fn socket(
    request: HttpRequest,
    user: User,
    session: AuthSession,
    body: web::Payload,
) -> actix_web::Result<HttpResponse> {
    let (response, mut socket, mut messages) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(async move {
        let mut ended = Box::pin(session.ended(REVALIDATE));
        let code = loop {
            let message = tokio::select! {
                () = &mut ended => break CloseCode::Other(SESSION_ENDED),
                message = messages.recv() => message,
            };
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                _ => break CloseCode::Normal,
            };
            let line = match said(&session).await {
                Ok(count) => format!("{} ({count}): {text}", user.username()),
                Err(error) if error.is_interrupted() => break CloseCode::Other(SESSION_ENDED),
                Err(_) => "that was not counted".to_owned(),
            };
            if socket.text(line).await.is_err() {
                return;
            }
        };
        // If the browser is gone, it is closed.
        drop(socket.close(Some(CloseReason { code, description: None })).await);
    });
    Ok(response)
}

/// Nothing saves the session of a socket by itself.
async fn said(session: &AuthSession) -> Result<u64, SessionError> {
    let session = session.session().reopen().await;
    let count = session.get("said").await?.unwrap_or(0) + 1;
    session.insert("said", &count).await?;
    session.save().await?;
    Ok(count)
}

/// Only pages of this site: `next` comes from whoever made the link.
fn way_back(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//");
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_path && is_plain { next } else { "/" }
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, to)).finish()
}

fn page(body: &str) -> Html {
    Html::new(format!("<!doctype html><html lang=en><meta charset=utf-8><title>Gate</title>{body}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn number(name: &str) -> Result<Option<u64>, Box<dyn Error>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value.parse().map_err(|_| format!("{name} must be a number"))?)),
        Err(_) => Ok(None),
    }
}

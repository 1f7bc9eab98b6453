//! Pages for the users of a Django site, in axum: who is logged in there is logged in here.
//!
//! ```text
//! python manage.py export_session_settings --output settings.json
//! export SECRET_KEY=… DATABASE_URL=sqlite:db.sqlite3
//! cargo run --example axum --features auth,axum,redis,sqlite,postgres,mysql -- settings.json
//! ```
//!
//! The site's own database has the users. `SESSION_STORE_URL` says where the sessions are, if not there
//! too; `PORT` is 3000, `USER_CACHE_SECONDS` zero.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use django_session::auth::{Auth, AuthError, User};
use django_session::store::{self, SqlUsers};
use django_session::web::{
    AuthLayer, AuthSession, Csrf, CsrfLayer, MaybeUser, Permission, RequirePermission, SiteSettings,
};
use django_session::{SessionError, SessionLayer, SessionStore, SqlStore};
use serde::Deserialize;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: axum SETTINGS_FILE")?;
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
    let mut auth = Auth::new(users, site.auth);
    if let Some(seconds) = number("USER_CACHE_SECONDS")? {
        auth = auth.with_user_cache(100_000, Duration::from_secs(seconds));
    }

    let app = Router::new()
        .route("/", get(index))
        .route("/account", get(account))
        .route("/groups", get(groups))
        .route("/visit", post(visit))
        .route("/login", get(login_page).post(log_in))
        .route("/logout", post(log_out))
        // The last one is the first that a request meets.
        .layer(AuthLayer::new(auth).redirecting_to_login())
        .layer(CsrfLayer::new(site.csrf)?)
        .layer(SessionLayer::new(store, site.session))
        .route("/health", get(async || "ok"));

    let port = number("PORT")?.unwrap_or(3000).try_into()?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Everybody may see this page.
async fn index(MaybeUser(user): MaybeUser, csrf: Csrf) -> Html<String> {
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

async fn login_page(csrf: Csrf, Query(query): Query<HashMap<String, String>>) -> Html<String> {
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

async fn log_in(session: AuthSession, Form(form): Form<Login>) -> Result<Response, AuthError> {
    let found = session.authenticate(&form.username, &form.password).await?;
    let Some(user) = found else { return Ok(Redirect::to("/login?failed").into_response()) };
    session.login(&user).await?;
    Ok(Redirect::to(way_back(&form.next)).into_response())
}

async fn log_out(session: AuthSession) -> Result<Redirect, AuthError> {
    session.logout().await?;
    Ok(Redirect::to("/"))
}

/// Only pages of this site: `next` comes from whoever made the link.
fn way_back(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//");
    if is_path && !next.contains(['\\', '\r', '\n']) { next } else { "/" }
}

fn page(body: &str) -> Html<String> {
    Html(format!("<!doctype html><html lang=en><meta charset=utf-8><title>Gate</title>{body}"))
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

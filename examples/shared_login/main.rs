//! The Rust half of "one login, two languages".
//!
//! A Django site logs people in and keeps their cart in the session (`site/`). This server reads
//! the same cookie, loads the same row of `django_session`, and changes the same cart.
//! `run.py` starts both; `README.md` says what to try.

use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Form, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use django_session::session::{HASH_KEY, verify_session_auth_hash};
use django_session::{Session, SessionLayer, SessionSettings, SqlStore, UserId};
use indexmap::IndexMap;
use serde::Deserialize;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

mod page;

/// The session entry both servers keep the cart in: `{sku: quantity}`, oldest line first.
const CART: &str = "cart";
const MOST: u32 = 999;

static CATALOGUE: LazyLock<Vec<Product>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("catalogue.json")).expect("the catalogue is part of the code")
});

type Cart = IndexMap<String, u32>;

#[derive(Deserialize)]
struct Product {
    sku: String,
    name: String,
    note: String,
    cents: u64,
    tint: String,
}

struct Shop {
    /// For the one table that is not the session's: `auth_user`.
    users: SqlitePool,
    django_port: u16,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = variable("SHARED_LOGIN_DB")?;
    let port: u16 = variable("SHARED_LOGIN_RUST_PORT")?.parse()?;

    // Django wrote its session settings to this file, all but the secret key.
    let settings = SessionSettings::from_file(variable("SHARED_LOGIN_SESSION_SETTINGS")?)?;
    let settings = settings.with_env()?;
    let store = SqlStore::connect(&format!("sqlite://{database}"), &settings).await?;
    let users = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&database)).await?;
    let shop =
        Arc::new(Shop { users, django_port: variable("SHARED_LOGIN_DJANGO_PORT")?.parse()? });

    let app = Router::new()
        .route("/", get(index))
        .route("/cart/add", post(add_to_cart))
        .route("/cart/take", post(take_from_cart))
        .route("/cart/empty", post(empty_cart))
        .route("/logout", post(log_out))
        .layer(SessionLayer::new(store, settings))
        .merge(statics())
        .layer(middleware::from_fn(same_origin))
        .with_state(shop);

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    axum::serve(listener, app).with_graceful_shutdown(told_to_stop()).await?;
    Ok(())
}

async fn index(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    session: Session,
    user: Option<UserId>,
) -> Result<Response, Failure> {
    let username = match user {
        Some(id) => shop.username(&session, &id).await?,
        None => None,
    };
    let cart = cart(&session).await?;
    let page = page::Page {
        username: username.as_deref(),
        catalogue: &CATALOGUE,
        cart: &cart,
        host: host(&headers),
        django_port: shop.django_port,
    };
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                  base-uri 'none'; frame-ancestors 'none'";
    Ok(([(header::CONTENT_SECURITY_POLICY, policy)], Html(page.to_string())).into_response())
}

async fn add_to_cart(session: Session, Form(form): Form<Line>) -> Result<Redirect, Failure> {
    let mut cart = cart(&session).await?;
    let quantity = cart.entry(form.known_sku()?).or_insert(0);
    *quantity = quantity.saturating_add(1).min(MOST);
    session.insert(CART, &cart).await?;
    Ok(Redirect::to("/"))
}

async fn take_from_cart(session: Session, Form(form): Form<Line>) -> Result<Redirect, Failure> {
    let mut cart = cart(&session).await?;
    let sku = form.known_sku()?;
    match cart.get_mut(&sku) {
        Some(quantity) if *quantity > 1 => *quantity -= 1,
        _ => drop(cart.shift_remove(&sku)),
    }
    session.insert(CART, &cart).await?;
    Ok(Redirect::to("/"))
}

async fn empty_cart(session: Session) -> Result<Redirect, Failure> {
    session.remove(CART).await?;
    Ok(Redirect::to("/"))
}

/// Logs out of both servers: there is one session, and it is gone.
async fn log_out(session: Session) -> Result<Redirect, Failure> {
    session.flush().await?;
    Ok(Redirect::to("/"))
}

#[derive(Deserialize)]
struct Line {
    sku: String,
}

impl Line {
    fn known_sku(self) -> Result<String, Failure> {
        if CATALOGUE.iter().any(|product| product.sku == self.sku) {
            Ok(self.sku)
        } else {
            Err(Failure::NotFound)
        }
    }
}

async fn cart(session: &Session) -> Result<Cart, Failure> {
    Ok(session.get(CART).await?.unwrap_or_default())
}

impl Shop {
    /// The name of a user who may still be shown as logged in, by Django's own three rules:
    /// the account exists, is active, and has the password it had at login.
    async fn username(&self, session: &Session, id: &UserId) -> Result<Option<String>, Failure> {
        let Ok(id) = id.parse::<i64>() else { return Ok(None) };
        let user: Option<(String, String)> =
            sqlx::query_as("SELECT username, password FROM auth_user WHERE id = ? AND is_active")
                .bind(id)
                .fetch_optional(&self.users)
                .await?;
        let Some((username, password)) = user else { return Ok(None) };
        let hash: String = session.get(HASH_KEY).await?.unwrap_or_default();
        let same = verify_session_auth_hash(&hash, &password, session.settings());
        Ok(same.map(|_| username))
    }
}

/// Refuses every change that a page of another origin asks for.
///
/// Django guards its forms with a token; here the browser's own word is enough. Each browser of
/// today sends `Sec-Fetch-Site`, older ones `Origin`, and no page can alter either. The cookie's
/// `SameSite=Lax` is not enough alone: to that rule all ports of a host are one site.
///
/// Only the two names of the loopback interface are served, so that a foreign name pointed at
/// this machine (DNS rebinding) is not taken for the same origin.
async fn same_origin(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = host(headers);
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    if name != "127.0.0.1" && name != "localhost" {
        return (StatusCode::MISDIRECTED_REQUEST, "Not a host of this shop.\n").into_response();
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD);
    let own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin.strip_prefix("http://") == Some(host),
        (None, None) => false,
    };
    if !harmless && !own {
        return (StatusCode::FORBIDDEN, "Changes come from this shop's own pages.\n")
            .into_response();
    }
    next.run(request).await
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// The files that give both servers the same look, compiled in.
fn statics() -> Router<Arc<Shop>> {
    fn file(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<Arc<Shop>> {
        get(move || async move { ([(header::CONTENT_TYPE, kind)], text) })
    }
    let css = "text/css; charset=utf-8";
    let svg = "image/svg+xml";
    Router::new()
        .route("/static/shop.css", file(css, include_str!("site/shop/static/shop.css")))
        .route("/static/art.svg", file(svg, include_str!("site/shop/static/art.svg")))
        .route("/static/mark.svg", file(svg, include_str!("site/shop/static/mark.svg")))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set; start this server through run.py"))
}

async fn told_to_stop() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// What a handler could not do. The details go to the log, never into the page.
enum Failure {
    NotFound,
    Broken(Box<dyn Error + Send + Sync>),
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "No such product.\n").into_response(),
            Self::Broken(error) => {
                eprintln!("error: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, "Something broke.\n").into_response()
            }
        }
    }
}

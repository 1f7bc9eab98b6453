//! The smallest service that shares sessions with Django.
//!
//! Run it with the `SECRET_KEY` of the site and ask it twice:
//!
//! ```text
//! SECRET_KEY=secret cargo run --example axum --features axum
//! curl --cookie-jar jar --cookie jar http://127.0.0.1:3000/
//! ```
//!
//! `MemoryStore` keeps the sessions to this process. With Django's database in its place the sessions
//! are those of the site, and `/me` knows who logged in there.

use axum::{Router, routing::get};
use django_session::store::MemoryStore;
use django_session::{Session, SessionError, SessionLayer, SessionSettings, UserId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = SessionSettings::from_env()?;
    let store = MemoryStore::new(settings.codec()?);
    let app = Router::new()
        .route("/", get(count))
        .route("/me", get(me))
        .layer(SessionLayer::new(store, settings));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

async fn count(session: Session) -> Result<String, SessionError> {
    let visits: u64 = session.get("visits").await?.unwrap_or(0) + 1;
    session.insert("visits", &visits).await?;
    Ok(format!("visit {visits}\n"))
}

async fn me(user: UserId) -> String {
    format!("user {}\n", user.as_str())
}

//! Django sessions outside Django: read and write what Django reads and writes.
//!
//! A user logs in through Django. A Rust service opens the same session, knows who that is, changes it,
//! and Django sees the change: the same `django_session` table, the same signed text under the same
//! `SECRET_KEY`.
//!
//! # From the inside out
//!
//! | module | what it answers | Django's counterpart |
//! |---|---|---|
//! | [`codec`] | what do these bytes say? | `django.core.signing`, `SessionBase.encode` |
//! | [`session`] | what may a session do, and when does it expire? | `SessionBase`, the settings |
#![cfg_attr(
    feature = "auth",
    doc = "| [`auth`] | whose is it, and what may the user do? | `django.contrib.auth` |"
)]
//! | [`store`] | where is it kept? | `django.contrib.sessions.backends` |
#![cfg_attr(
    feature = "tower",
    doc = "| [`web`] | which cookie does the response carry? may this request act? | `SessionMiddleware`, `CsrfViewMiddleware` |"
)]
//!
//! Each uses only those above it, except that the web layer knows the trait [`SessionStore`] and no store.
//!
//! # A session, start to end
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use django_session::store::MemoryStore;
//! use django_session::{SecretKey, Session, SessionKey, SessionSettings};
//!
//! let settings = SessionSettings::default().with_secret_key(SecretKey::new("the site's SECRET_KEY")?);
//! let store = Arc::new(MemoryStore::new(settings.codec()?));
//! let settings = Arc::new(settings);
//!
//! // The first request brings no cookie.
//! let session = Session::new(store.clone(), settings.clone(), None);
//! session.insert("cart", &["tea"]).await?;
//! session.save().await?;
//! let cookie = session.session_key().await.unwrap().as_str().to_owned();
//!
//! // The next one does.
//! let session = Session::new(store, settings, SessionKey::parse(&cookie));
//! assert_eq!(session.get::<Vec<String>>("cart").await?.unwrap(), ["tea"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! None is on by default, and none changes what another one does.
//!
//! | feature | what it adds |
//! |---|---|
//! | `sqlite`, `postgres`, `mysql` | `SqlStore` over that database |
//! | `auth` | `auth`: the user of a session, logging in, passwords, permissions |
//! | `tower` | `SessionLayer` and `CsrfLayer`; with `auth` `AuthLayer` |
//! | `axum` | `tower`, and the extractors `Session`, `UserId` and `Csrf`; with `auth` `User` and others |
//! | `actix` | the same layers and extractors for actix-web |
//! | `cache` | `codec::cache`: keys and values of Django's caches and of django-redis |
//! | `file` | `FileStore`, on Unix |
//! | `memcached` | `cache`, and `MemcachedCache` |
//! | `redis` | `cache`, and `RedisCache`: one server, Cluster, Sentinel |
//! | `testing` | `store::testing`, the contract of a store |
//! | `python` | the extension module of the Python package; `abi3` makes one for every Python |
//! | `cli` | the command `django-session`, which decodes and encodes sessions and looks after whole stores |
//!
//! # Races
//!
//! Two requests that change the same session at the same time both keep what they changed; of a name that
//! both have changed, the later save counts ([`session::OnConflict`] has other rules, Django's among them).
//! A request that saves a session which another one has deleted gets [`StoreError::Update`]: it stays
//! deleted.

#[cfg(feature = "auth")]
pub mod auth;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codec;
#[cfg(feature = "python")]
mod python;
pub mod session;
pub mod store;
#[cfg(feature = "tower")]
pub mod web;

pub use codec::signing;
pub use codec::{DecodeError, EncodeError, SecretKey, SessionCodec, SessionData};
pub use session::{
    DateTime, Expiry, Session, SessionError, SessionKey, SessionSettings, SessionStore, StoreError,
};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use store::SqlStore;
#[cfg(feature = "_extractors")]
pub use web::UserId;
#[cfg(feature = "tower")]
pub use web::{Csrf, CsrfLayer, CsrfSettings, SessionLayer, SessionRejection};

/// The examples in long texts are compiled, and the texts stay at hand in the documentation.
#[doc = include_str!("../docs/formats.md")]
#[cfg(any(doc, doctest))]
pub mod formats {}
#[doc = include_str!("../docs/compatibility.md")]
#[cfg(any(doc, doctest))]
pub mod compatibility {}
#[doc = include_str!("../docs/users.md")]
#[cfg(any(doc, all(doctest, feature = "auth", feature = "axum", feature = "_sql")))]
pub mod users {}
#[doc = include_str!("../docs/csrf.md")]
#[cfg(any(doc, all(doctest, feature = "axum")))]
pub mod csrf {}

/// So are those of a text that belongs to both languages.
#[cfg(all(doctest, feature = "_sql"))]
#[doc = include_str!("../docs/moving.md")]
struct Moving;

/// The README's examples are compiled.
#[cfg(all(doctest, feature = "axum", feature = "_sql"))]
#[doc = include_str!("../README.md")]
struct Readme;

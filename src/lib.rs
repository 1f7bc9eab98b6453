//! Django sessions outside Django: read and write what Django reads and writes.

pub mod codec;
pub mod session;
pub mod store;
#[cfg(feature = "tower")]
pub mod web;

pub use codec::{DecodeError, EncodeError, SecretKey, SessionCodec, SessionData};
pub use session::{
    DateTime, Expiry, Session, SessionError, SessionKey, SessionSettings, SessionStore, StoreError,
};
#[cfg(feature = "axum")]
pub use web::UserId;
#[cfg(feature = "tower")]
pub use web::{SessionLayer, SessionRejection};

//! Django sessions outside Django: read and write what Django reads and writes.

pub mod codec;
#[cfg(feature = "python")]
mod python;
pub mod session;
pub mod store;

pub use codec::{DecodeError, EncodeError, SecretKey, SessionCodec, SessionData};
pub use session::{
    DateTime, Expiry, Session, SessionError, SessionKey, SessionSettings, SessionStore, StoreError,
};

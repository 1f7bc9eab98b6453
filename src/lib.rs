//! Django sessions outside Django.

pub mod codec;
#[cfg(feature = "python")]
mod python;

pub use codec::{DecodeError, EncodeError, SecretKey, SessionCodec, SessionData};

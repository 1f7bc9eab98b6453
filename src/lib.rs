//! Django sessions outside Django.

pub mod codec;

pub use codec::{DecodeError, EncodeError, SecretKey, SessionCodec, SessionData};

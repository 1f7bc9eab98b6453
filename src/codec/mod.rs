//! Django's bytes: session data to signed text and back. No I/O, no clock.
//!
//! [`SessionCodec`] mirrors `SessionBase.encode` and `decode` of `django.contrib.sessions` since 3.1,
//! with the fallback keys of 4.1. It differs in three points: a limit on what a payload inflates to,
//! errors in place of an empty session, and a faster compressor whose output Django reads.
//! `tests/fixtures/vectors/modern_json` holds what ten Django releases wrote.

mod armor;
#[cfg(feature = "cache")]
pub mod cache;
mod de;
mod deflate;
mod error;
pub(crate) mod json;
mod ser;
mod signer;
mod value;

pub(crate) use de::from_json as value_from_json;
pub(crate) use ser::to_json as value_to_json;

pub use armor::Compression;
pub use error::{DecodeError, EmptySecretKey, EncodeError, Part};
pub use json::{JsonError, JsonErrorKind, MAX_DEPTH, MAX_DEPTH_WRITTEN, MAX_INTEGER_DIGITS};
pub use signer::{KeyMatch, MaxAge, SecretKey, Signer, TimestampSigner, Unsigned};
pub use value::{Name, SessionData, ValueError};

/// The salt of Django's own session engines, and of every store class called `SessionStore`.
pub const SESSION_SALT: &str = "django.contrib.sessions.SessionStore";

/// The largest payload that is inflated unless [`SessionCodec::with_max_size`] says otherwise: 64 MiB.
pub const DEFAULT_MAX_SIZE: usize = 64 << 20;

/// Turns session data into the signed text of a `session_data` column, and back.
///
/// # Example
///
/// ```
/// use django_session::{SecretKey, SessionCodec, SessionData};
///
/// let codec = SessionCodec::new(&SecretKey::new("correct horse battery staple")?);
/// // Written by Django 5.2 with that SECRET_KEY.
/// let session_data = "eyJhIjoxfQ:1r31eq:4OVpArSAAUYyfDXk1ZIieKYo9WrR2kQvEte6pBdBWGQ";
///
/// let decoded = codec.decode(session_data)?;
/// assert_eq!(decoded.data.get::<u32>("a")?, Some(1));
/// assert_eq!(decoded.signed_at, 1_700_000_000);
///
/// assert_eq!(codec.encode(&decoded.data, 1_700_000_000), session_data);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionCodec {
    signer: TimestampSigner,
    compression: Compression,
    max_size: usize,
}

/// What [`SessionCodec::decode`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Decoded {
    /// The session.
    pub data: SessionData,
    /// The key that matched. A fallback key means: save the session to sign it with the primary one.
    pub key: KeyMatch,
    /// Unix seconds at which it was signed, so usually when the session was last saved.
    pub signed_at: i64,
    /// Whether the payload was compressed.
    pub compressed: bool,
}

impl SessionCodec {
    /// A codec for `SECRET_KEY`, with the salt of Django's own engines.
    pub fn new(key: &SecretKey) -> Self {
        Self::with_salt(key, SESSION_SALT)
    }

    /// A codec with another salt: `django.contrib.sessions.` and the qualified name of the store's
    /// class, or what the class gives as `key_salt`.
    pub fn with_salt(key: &SecretKey, salt: &str) -> Self {
        Self {
            signer: TimestampSigner::new(key, salt),
            compression: Compression::default(),
            max_size: DEFAULT_MAX_SIZE,
        }
    }

    /// Adds `SECRET_KEY_FALLBACKS`: accepted in this order, never used to sign.
    #[must_use]
    pub fn with_fallbacks<'a>(mut self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        self.signer = self.signer.with_fallbacks(keys);
        self
    }

    /// Chooses between speed and the length of the stored text.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets the largest payload in bytes that is inflated, [`DEFAULT_MAX_SIZE`] at first.
    #[must_use]
    pub fn with_max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// The salt.
    pub fn salt(&self) -> &str {
        self.signer.salt()
    }

    /// Returns `payload:timestamp:signature`; `now` in Unix seconds.
    pub fn encode(&self, data: &SessionData, now: i64) -> String {
        self.encode_payload(data.to_json().as_bytes(), now)
    }

    /// Signs bytes that a serializer of the caller's own wrote.
    pub fn encode_payload(&self, payload: &[u8], now: i64) -> String {
        let mut text = String::with_capacity(payload.len() * 4 / 3 + 64);
        armor::wrap(&mut text, payload, self.compression);
        self.signer.finish(&mut text, now);
        text
    }

    /// Checks the signature, then reads the session. The age of the text is not limited: Django
    /// relies on `expire_date` for that.
    ///
    /// # Errors
    ///
    /// Every variant of [`DecodeError`] but `SignatureExpired`; see there.
    pub fn decode(&self, session_data: &str) -> Result<Decoded, DecodeError> {
        let DecodedPayload { payload, key, signed_at, compressed } =
            self.decode_payload(session_data)?;
        let text = json::ascii_from_latin1(payload);
        let kind = if text.starts_with('{') { None } else { value::kind_of_other(&text) };
        match kind {
            Some(found) => Err(DecodeError::NotAnObject { found }),
            None => match SessionData::parse(text) {
                Ok(data) => Ok(Decoded { data, key, signed_at, compressed }),
                Err(error) => Err(DecodeError::Serializer(error)),
            },
        }
    }

    /// Checks the signature and returns the serialized bytes, for a serializer of the caller's own.
    ///
    /// # Errors
    ///
    /// `BadSignature`, `Malformed` and `TooLarge` of [`DecodeError`].
    pub fn decode_payload(&self, session_data: &str) -> Result<DecodedPayload, DecodeError> {
        let Unsigned { value, key, signed_at } = self.signer.unsign(session_data, None)?;
        let armor::Payload { bytes, compressed } = armor::unwrap(value, self.max_size)?;
        Ok(DecodedPayload { payload: bytes, key, signed_at, compressed })
    }
}

/// What [`SessionCodec::decode_payload`] found.
#[derive(Clone)]
#[non_exhaustive]
pub struct DecodedPayload {
    /// What the serializer wrote.
    pub payload: Vec<u8>,
    /// The key that matched.
    pub key: KeyMatch,
    /// Unix seconds at which it was signed.
    pub signed_at: i64,
    /// Whether the payload was compressed.
    pub compressed: bool,
}

impl std::fmt::Debug for DecodedPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodedPayload")
            .field("key", &self.key)
            .field("signed_at", &self.signed_at)
            .field("compressed", &self.compressed)
            .finish_non_exhaustive()
    }
}

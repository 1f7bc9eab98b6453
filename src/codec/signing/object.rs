//! Signed values of any JSON type: base64 of the JSON text, compressed on request.
//!
//! `sign_object` and `unsign_object` are methods of Django's signers since 3.2; `dumps` and `loads` have
//! written the same since 1.4. The bytes are those of Django's `JSONSerializer`; compressed ones are
//! another zlib stream with the same bytes inside.

use serde::{Serialize, de::DeserializeOwned};

use super::key::SecretKey;
use super::signer::Signer;
use super::timestamp::{MaxAge, TimestampSigner};
use crate::codec::armor::{self, Compression};
use crate::codec::error::{DecodeError, EncodeError};
use crate::codec::json::{self, Scanner};
use crate::codec::{de, ser};

/// The salt of `django.core.signing.dumps` and `loads` where none is given.
pub const DEFAULT_SALT: &str = "django.core.signing";

/// Returns a value as signed and dated text that fits into a URL (`django.core.signing.dumps`).
///
/// `now` is in Unix seconds. It is short for [`TimestampSigner::sign_object`], which also compresses
/// and takes another algorithm or separator.
///
/// # Errors
///
/// [`EncodeError`] if the value has no JSON form that Django reads.
///
/// # Example
///
/// Django 6.1 wrote the same with `signing.dumps({"user": 42}, key="secret", salt="invitation")`:
///
/// ```
/// use std::collections::HashMap;
/// use django_session::{SecretKey, signing};
///
/// let key = SecretKey::new("secret")?;
/// let invitation = HashMap::from([("user", 42)]);
/// let text = signing::dumps(&invitation, &key, "invitation", 1_700_000_000)?;
/// assert_eq!(text, "eyJ1c2VyIjo0Mn0:1r31eq:VPo8guQ6k_oaV7E4FpxigK9fhsCoe2ZTw1993o8IBss");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn dumps<T: Serialize + ?Sized>(
    object: &T,
    key: &SecretKey,
    salt: &str,
    now: i64,
) -> Result<String, EncodeError> {
    TimestampSigner::new(key, salt).sign_object(object, None, now)
}

/// Reads what [`dumps`] or Django's wrote, with a limit to its age (`django.core.signing.loads`).
///
/// It is short for [`TimestampSigner::unsign_object`], which also takes fallback keys.
///
/// # Errors
///
/// See [`TimestampSigner::unsign_object`].
///
/// # Example
///
/// ```
/// use jiff::{SignedDuration, Timestamp};
/// use django_session::signing::{self, MaxAge};
/// use django_session::{DecodeError, SecretKey};
///
/// #[derive(serde::Deserialize)]
/// struct Invitation {
///     user: u32,
/// }
///
/// let key = SecretKey::new("secret")?;
/// let text = "eyJ1c2VyIjo0Mn0:1r31eq:VPo8guQ6k_oaV7E4FpxigK9fhsCoe2ZTw1993o8IBss";
/// let invitation: Invitation = signing::loads(text, &key, "invitation", None)?;
/// assert_eq!(invitation.user, 42);
///
/// let limit = MaxAge {
///     max_age: SignedDuration::from_hours(1),
///     now: Timestamp::from_second(1_700_007_200)?,
/// };
/// let late = signing::loads::<Invitation>(text, &key, "invitation", Some(limit));
/// assert!(matches!(late, Err(DecodeError::SignatureExpired { age: 7200, max_age: 3600 })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn loads<T: DeserializeOwned>(
    text: &str,
    key: &SecretKey,
    salt: &str,
    limit: Option<MaxAge>,
) -> Result<T, DecodeError> {
    TimestampSigner::new(key, salt).unsign_object(text, limit)
}

impl Signer {
    /// Returns `payload:signature`, the payload being the value as JSON in url-safe base64.
    ///
    /// With a [`Compression`] it is compressed if that makes it shorter (`compress=True`).
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the value has no JSON form that Django reads.
    ///
    /// # Example
    ///
    /// Django 6.1 wrote the same with `Signer(key="secret", salt="invitation")`:
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use django_session::{SecretKey, signing::Signer};
    ///
    /// let signer = Signer::new(&SecretKey::new("secret")?, "invitation");
    /// let text = signer.sign_object(&HashMap::from([("user", 42)]), None)?;
    /// assert_eq!(text, "eyJ1c2VyIjo0Mn0:h64KXx8ry18lywajrGIEfYX7m4atjqqJidibeOt2DtM");
    /// assert_eq!(signer.unsign_object::<HashMap<String, u32>>(&text)?["user"], 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sign_object<T: Serialize + ?Sized>(
        &self,
        object: &T,
        compress: Option<Compression>,
    ) -> Result<String, EncodeError> {
        Ok(self.sign_payload(ser::to_json(object)?.as_bytes(), compress))
    }

    /// As [`Signer::sign_object`], of bytes that another serializer wrote.
    pub fn sign_payload(&self, payload: &[u8], compress: Option<Compression>) -> String {
        let mut text = armored(payload, compress);
        self.append_signature(&mut text);
        text
    }

    /// Checks what [`Signer::sign_object`] wrote and reads the value.
    ///
    /// # Errors
    ///
    /// * [`DecodeError::BadSignature`] if there is no separator or no key matches.
    /// * [`DecodeError::Malformed`] or [`DecodeError::TooLarge`] if what was signed is no payload, or
    ///   one beyond the limit.
    /// * [`DecodeError::Serializer`] if it is not JSON as Python reads it.
    /// * [`DecodeError::Deserialize`] if it is, but no `T`.
    pub fn unsign_object<T: DeserializeOwned>(&self, signed: &str) -> Result<T, DecodeError> {
        from_payload(self.unsign_payload(signed)?)
    }

    /// As [`Signer::unsign_object`], returning the serialized bytes.
    ///
    /// # Errors
    ///
    /// The first two of [`Signer::unsign_object`].
    pub fn unsign_payload(&self, signed: &str) -> Result<Vec<u8>, DecodeError> {
        Ok(armor::unwrap(self.unsign(signed)?.value, self.max_size)?.bytes)
    }
}

impl TimestampSigner {
    /// Returns `payload:timestamp:signature`; `now` in Unix seconds. See [`Signer::sign_object`].
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the value has no JSON form that Django reads.
    pub fn sign_object<T: Serialize + ?Sized>(
        &self,
        object: &T,
        compress: Option<Compression>,
        now: i64,
    ) -> Result<String, EncodeError> {
        Ok(self.sign_payload(ser::to_json(object)?.as_bytes(), compress, now))
    }

    /// As [`TimestampSigner::sign_object`], of bytes that another serializer wrote.
    pub fn sign_payload(&self, payload: &[u8], compress: Option<Compression>, now: i64) -> String {
        let mut text = armored(payload, compress);
        self.finish(&mut text, now);
        text
    }

    /// Checks what [`TimestampSigner::sign_object`] wrote and reads the value.
    ///
    /// # Errors
    ///
    /// Those of [`TimestampSigner::unsign`] and of [`Signer::unsign_object`].
    pub fn unsign_object<T: DeserializeOwned>(
        &self,
        signed: &str,
        limit: Option<MaxAge>,
    ) -> Result<T, DecodeError> {
        from_payload(self.unsign_payload(signed, limit)?)
    }

    /// As [`TimestampSigner::unsign_object`], returning the serialized bytes.
    ///
    /// # Errors
    ///
    /// Those of [`TimestampSigner::unsign`] and of [`Signer::unsign_payload`].
    pub fn unsign_payload(
        &self,
        signed: &str,
        limit: Option<MaxAge>,
    ) -> Result<Vec<u8>, DecodeError> {
        Ok(armor::unwrap(self.unsign(signed, limit)?.value, self.0.max_size)?.bytes)
    }
}

fn armored(payload: &[u8], compress: Option<Compression>) -> String {
    let mut text = String::with_capacity(payload.len() * 4 / 3 + 64);
    match compress {
        Some(compression) => armor::wrap(&mut text, payload, compression),
        None => armor::push_base64(&mut text, payload),
    }
    text
}

fn from_payload<T: DeserializeOwned>(payload: Vec<u8>) -> Result<T, DecodeError> {
    let text = json::ascii_from_latin1(payload);
    // Whether it is JSON at all does not depend on the type asked for.
    let mut scanner = Scanner::new(&text);
    scanner.raw_value().and_then(|_| scanner.end()).map_err(DecodeError::Serializer)?;
    de::from_json(&text).map_err(DecodeError::Deserialize)
}

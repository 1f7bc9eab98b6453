//! Session data to stored text and back, in every form that a Django release has written.

use super::armor::{self, Compression};
use super::error::{DecodeError, EncodeError};
use super::format::{Format, Serializer};
use super::graph::Graph;
use super::json;
use super::legacy;
use super::pickle::{self, Limits};
use super::signing::salted_hmac::SaltedHmac;
use super::signing::{Algorithm, KeyMatch, MaxAge, SecretKey, TimestampSigner, Unsigned};
use super::value::{self, SessionData};
use super::{DEFAULT_MAX_SIZE, SESSION_SALT};

/// Turns session data into the signed text of a `session_data` column, and back.
///
/// It writes one form and reads that one and today's. Older and weaker ones are read where
/// [`SessionCodec::accept`] lists them, and never otherwise.
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
/// assert_eq!(decoded.signed_at, Some(1_700_000_000));
///
/// assert_eq!(codec.encode(&decoded.data, 1_700_000_000)?, session_data);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A table that Django 2.2 still writes, with `PickleSerializer`:
///
/// ```
/// use django_session::codec::{Format, Serializer};
/// use django_session::{SecretKey, SessionCodec};
///
/// let codec = SessionCodec::new(&SecretKey::new("correct horse battery staple")?)
///     .with_format(Format::Legacy)
///     .with_serializer(Serializer::Pickle);
/// let session_data = "ODZmZjY5NGYzYzJjMzZkYWM2ZmY2ZDdkMDc1MmEzYjBjZjI0OTM5YzqABJUKAAAAAAAAAH2UjAFhlEsBcy4=";
///
/// let mut data = codec.decode(session_data)?.data;
/// assert_eq!(data.get::<u32>("a")?, Some(1));
/// data.insert("b", &2)?;
/// assert!(codec.encode(&data, 1_700_000_000).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionCodec {
    pub(super) signer: TimestampSigner,
    /// The primary key first.
    pub(super) secrets: Vec<SecretKey>,
    /// What the keys lead to in the form before 3.1.
    pub(super) legacy: Vec<SaltedHmac>,
    legacy_salt: Box<str>,
    format: Format,
    accepted: Vec<Format>,
    pub(super) serializer: Serializer,
    accepted_serializers: Vec<Serializer>,
    pickle_protocol: u8,
    compression: Compression,
    pub(super) max_size: usize,
}

/// What [`SessionCodec::decode`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Decoded {
    /// The session.
    pub data: SessionData,
    /// The form it was in.
    pub format: Format,
    /// The serializer that wrote it.
    pub serializer: Serializer,
    /// The key that matched. A fallback key means: save the session to sign it with the primary one.
    pub key: KeyMatch,
    /// Unix seconds at which it was signed, so usually when the session was last saved. Forms before 3.1
    /// do not say.
    pub signed_at: Option<i64>,
    /// Whether the payload was compressed.
    pub compressed: bool,
}

/// What [`SessionCodec::decode_payload`] found.
#[derive(Clone)]
#[non_exhaustive]
pub struct DecodedPayload {
    /// What the serializer wrote.
    pub payload: Vec<u8>,
    /// The form it was in.
    pub format: Format,
    /// The key that matched.
    pub key: KeyMatch,
    /// Unix seconds at which it was signed; forms before 3.1 do not say.
    pub signed_at: Option<i64>,
    /// Whether the payload was compressed.
    pub compressed: bool,
}

impl std::fmt::Debug for DecodedPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodedPayload")
            .field("format", &self.format)
            .field("key", &self.key)
            .field("signed_at", &self.signed_at)
            .field("compressed", &self.compressed)
            .finish_non_exhaustive()
    }
}

impl SessionCodec {
    /// A codec for `SECRET_KEY`, with the salt of Django's own engines.
    pub fn new(key: &SecretKey) -> Self {
        Self::with_salt(key, SESSION_SALT)
    }

    /// A codec with another salt: `django.contrib.sessions.` and the qualified name of the store's
    /// class, or what the class gives as `key_salt`.
    pub fn with_salt(key: &SecretKey, salt: &str) -> Self {
        let legacy_salt = legacy::salt_of(salt);
        Self {
            signer: TimestampSigner::new(key, salt),
            legacy: vec![legacy::key(&legacy_salt, key)],
            legacy_salt: legacy_salt.into(),
            secrets: vec![key.clone()],
            format: Format::default(),
            accepted: Vec::new(),
            serializer: Serializer::default(),
            accepted_serializers: Vec::new(),
            pickle_protocol: pickle::DEFAULT_PROTOCOL,
            compression: Compression::default(),
            max_size: DEFAULT_MAX_SIZE,
        }
    }

    /// Adds `SECRET_KEY_FALLBACKS`: accepted in this order, never used to sign.
    #[must_use]
    pub fn with_fallbacks<'a>(mut self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        let known = self.secrets.len();
        self.secrets.extend(keys.into_iter().cloned());
        self.signer = self.signer.with_fallbacks(&self.secrets[known..]);
        let added = self.secrets[known..].iter();
        self.legacy.extend(added.map(|key| legacy::key(&self.legacy_salt, key)));
        self
    }

    /// Sets the salt of [`Format::Legacy`], for a class that gives a `key_salt` of its own:
    /// `django.contrib.sessions` and the bare name of the class, without a dot between them.
    #[must_use]
    pub fn with_legacy_salt(mut self, salt: &str) -> Self {
        self.legacy_salt = salt.into();
        self.legacy = self.secrets.iter().map(|key| legacy::key(salt, key)).collect();
        self
    }

    /// Writes another form, for a site that cannot read today's; it is read too.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = format;
        self.signer = match format {
            Format::SignedSha1 => {
                self.signer.with_algorithm(Algorithm::Sha1).accept_algorithms([Algorithm::Sha256])
            }
            _ => self.signer,
        };
        self
    }

    /// Reads these forms too, but never writes them.
    ///
    /// Every one of them is weaker than [`Format::Signed`]: whoever can forge one gets in.
    #[must_use]
    pub fn accept(mut self, formats: impl IntoIterator<Item = Format>) -> Self {
        self.accepted.extend(formats);
        if self.accepted.contains(&Format::SignedSha1) {
            self.signer = self.signer.accept_algorithms([Algorithm::Sha1]);
        }
        self
    }

    /// Writes and reads with another serializer, as `SESSION_SERIALIZER` does.
    #[must_use]
    pub fn with_serializer(mut self, serializer: Serializer) -> Self {
        self.serializer = serializer;
        self
    }

    /// Reads what these serializers wrote too. The first byte tells which it was.
    #[must_use]
    pub fn accept_serializers(mut self, serializers: impl IntoIterator<Item = Serializer>) -> Self {
        self.accepted_serializers.extend(serializers);
        self
    }

    /// Sets the protocol of pickles of new sessions: 2 for Python 2,
    /// [`DEFAULT_PROTOCOL`](pickle::DEFAULT_PROTOCOL) at first. One that was read keeps its own.
    #[must_use]
    pub fn with_pickle_protocol(mut self, protocol: u8) -> Self {
        self.pickle_protocol = protocol.clamp(2, pickle::HIGHEST_PROTOCOL);
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

    /// The same codec with another salt, in whatever form.
    pub(super) fn resalted(&self, salt: &str) -> Self {
        let mut other = self.clone().with_legacy_salt(&legacy::salt_of(salt));
        other.signer = other.signer.with_salt(salt);
        other
    }

    /// The salt.
    pub fn salt(&self) -> &str {
        self.signer.salt()
    }

    /// The form that is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The serializer that writes.
    pub fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// Returns the stored text, `payload:timestamp:signature` unless another form was chosen; `now` in
    /// Unix seconds.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if a session out of a pickle holds what JSON has no form for, or would make a
    /// pickle that is far longer than it was.
    pub fn encode(&self, data: &SessionData, now: i64) -> Result<String, EncodeError> {
        Ok(match self.serializer {
            Serializer::Json => self.encode_payload(data.to_json()?.as_bytes(), now),
            Serializer::Pickle => self.encode_payload(&data.to_pickle(self.pickle_protocol)?, now),
        })
    }

    /// Signs bytes that a serializer of the caller's own wrote.
    pub fn encode_payload(&self, payload: &[u8], now: i64) -> String {
        match self.format {
            Format::Antique => legacy::encode_antique(&self.secrets[0], payload),
            Format::Legacy => legacy::encode(&self.legacy[0], payload),
            Format::Signed | Format::SignedSha1 => {
                let mut text = String::with_capacity(payload.len() * 4 / 3 + 64);
                armor::wrap(&mut text, payload, self.compression);
                self.signer.finish(&mut text, now);
                text
            }
        }
    }

    /// The same payload and time stamp under the primary key; nothing if the text is not of today's form,
    /// or another one is written.
    #[cfg(feature = "cli")]
    pub(crate) fn resign(&self, session_data: &str) -> Option<String> {
        let Unsigned { algorithm, .. } = self.signer.unsign(session_data, None).ok()?;
        if (self.format, algorithm) != (Format::Signed, Algorithm::Sha256) {
            return None;
        }
        let (stamped, _) = session_data.rsplit_once(':')?;
        let mut text = String::with_capacity(session_data.len());
        text.push_str(stamped);
        self.signer.append_signature(&mut text);
        Some(text)
    }

    /// Checks the signature, then reads the session. The age of the text is not limited: Django
    /// relies on `expire_date` for that.
    ///
    /// # Errors
    ///
    /// Every variant of [`DecodeError`] but `Deserialize` and `SignatureExpired`; see there.
    pub fn decode(&self, session_data: &str) -> Result<Decoded, DecodeError> {
        self.read(self.decode_payload(session_data)?)
    }

    /// As [`SessionCodec::decode`], of a text that may not be older than a limit: a session of the
    /// `signed_cookies` engine, where the cookie's age decides.
    ///
    /// # Errors
    ///
    /// Also `SignatureExpired`. A form without a time stamp is `Malformed`.
    pub fn decode_with_max_age(
        &self,
        session_data: &str,
        limit: MaxAge,
    ) -> Result<Decoded, DecodeError> {
        self.read(self.signed_payload(session_data, Some(limit))?)
    }

    /// Checks the signature and returns the serialized bytes, for a serializer of the caller's own.
    ///
    /// # Errors
    ///
    /// `BadSignature`, `Malformed` and `TooLarge` of [`DecodeError`].
    pub fn decode_payload(&self, session_data: &str) -> Result<DecodedPayload, DecodeError> {
        let found = self.signed_payload(session_data, None);
        if !matches!(found, Err(DecodeError::BadSignature)) {
            return found;
        }
        // A colon is not in the alphabet of base64: such a text is of today's form, and only Django's
        // leniency would make anything else of it.
        let mut error = DecodeError::BadSignature;
        for (format, decode) in [
            (Format::Legacy, Self::legacy_payload as fn(&Self, &str) -> _),
            (Format::Antique, Self::antique_payload),
        ] {
            if !self.reads(format) {
                continue;
            }
            match decode(self, session_data) {
                Ok((payload, key)) => {
                    let compressed = false;
                    return Ok(DecodedPayload {
                        payload,
                        format,
                        key,
                        signed_at: None,
                        compressed,
                    });
                }
                Err(failure) if !session_data.contains(':') => error = failure,
                Err(_) => {}
            }
        }
        Err(error)
    }

    /// Whether texts of this form are read. Today's always is.
    pub(super) fn reads(&self, format: Format) -> bool {
        self.format == format || self.accepted.contains(&format) || format == Format::Signed
    }

    /// As [`SessionCodec::decode_payload`], of today's form and with a limit on its age.
    pub(crate) fn signed_payload(
        &self,
        text: &str,
        limit: Option<MaxAge>,
    ) -> Result<DecodedPayload, DecodeError> {
        let Unsigned { value, key, algorithm, signed_at, .. } = self.signer.unsign(text, limit)?;
        let armor::Payload { bytes, compressed } = armor::unwrap(value, self.max_size)?;
        Ok(DecodedPayload {
            payload: bytes,
            format: Format::signed_with(algorithm),
            key,
            signed_at: Some(signed_at),
            compressed,
        })
    }

    pub(super) fn legacy_payload(&self, text: &str) -> Result<(Vec<u8>, KeyMatch), DecodeError> {
        legacy::decode(&self.legacy, text)
    }

    pub(super) fn antique_payload(&self, text: &str) -> Result<(Vec<u8>, KeyMatch), DecodeError> {
        legacy::decode_antique(&self.secrets, text)
    }

    fn read(&self, found: DecodedPayload) -> Result<Decoded, DecodeError> {
        let DecodedPayload { payload, format, key, signed_at, compressed } = found;
        let serializer = self.serializer_of(&payload)?;
        let data = match serializer {
            Serializer::Json => read_json(payload)?,
            Serializer::Pickle => {
                let limits = Limits::default().with_size(self.max_size);
                SessionData::from_graph(Graph::from_pickle(&payload, &limits)?)?
            }
        };
        Ok(Decoded { data, format, serializer, key, signed_at, compressed })
    }

    /// Which of the serializers that are read wrote this.
    fn serializer_of(&self, payload: &[u8]) -> Result<Serializer, DecodeError> {
        match Serializer::detect(payload) {
            None => Ok(self.serializer),
            Some(found) => {
                if found == self.serializer || self.accepted_serializers.contains(&found) {
                    return Ok(found);
                }
                Err(DecodeError::WrongSerializer { expected: self.serializer, found })
            }
        }
    }
}

fn read_json(payload: Vec<u8>) -> Result<SessionData, DecodeError> {
    let text = json::ascii_from_latin1(payload);
    let kind = if text.starts_with('{') { None } else { value::kind_of_other(&text) };
    match kind {
        Some(found) => Err(DecodeError::NotAnObject { found }),
        None => SessionData::parse(text).map_err(DecodeError::Serializer),
    }
}

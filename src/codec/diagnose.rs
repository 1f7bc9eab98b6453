//! Why a text cannot be decoded, and what to do about it.
//!
//! [`DecodeError`] says what went wrong at the first step that failed, which for a text that was not
//! signed here is always the signature. A [`Diagnosis`] says why: it tries the salts that Django signs
//! with, the forms that are not accepted and the ways in which copied text is damaged, and at last looks
//! at the shape of what nobody signed. Nothing that it finds is ever taken for a session; no message
//! repeats a key or any part of the text.

use std::borrow::Cow;

use thiserror::Error;

use super::armor;
use super::error::{DecodeError, Part};
use super::format::{Format, Serializer};
use super::graph::Graph;
use super::json::{self, JsonError, Scanner};
use super::pickle::{Limits, PickleError, PickleErrorKind};
use super::session_codec::SessionCodec;
use super::signing::{
    Algorithm, COOKIE_SIGNER_SALT, CookieSalt, CookieSigner, DEFAULT_SALT, MaxAge, Signer,
    TimestampSigner, cookie_signer,
};
use super::{SESSION_SALT, SIGNED_COOKIES_SALT};

/// The salts under which Django, or what builds on it, signs sessions or values of the same form.
const SALTS: [&str; 9] = [
    SESSION_SALT,
    SIGNED_COOKIES_SALT,
    // What others have taken the salt to be: the one of the old form, or the name of the engine.
    "django.contrib.sessionsSessionStore",
    "django.contrib.sessions.backends.cache",
    "django.contrib.sessions.backends.cached_db",
    "django.contrib.sessions.backends.db",
    DEFAULT_SALT,
    Signer::DEFAULT_SALT,
    TimestampSigner::DEFAULT_SALT,
];
/// Those of `get_cookie_signer`, which is for everything but sessions.
const COOKIE_SALTS: [(&str, &str); 2] = [
    ("django.contrib.messages", "a cookie of django.contrib.messages"),
    (COOKIE_SIGNER_SALT, "a value of get_cookie_signer()"),
];
/// Characters of a signature, and of one before Django 3.1.
const SIGNATURE: usize = 43;
const SIGNATURE_SHA1: usize = 27;
/// Hexadecimal digits of the HMAC in the legacy form, and of the MD5 in the antique one.
const LEGACY_HASH: usize = 40;
const ANTIQUE_HASH: usize = 32;
/// Pieces of a longer text that are tried.
const MAX_PIECES: usize = 16;

/// Why a text is no session for a [`SessionCodec`]; see [`SessionCodec::diagnose`].
///
/// The message of each is one sentence that ends with what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Diagnosis {
    /// A key fits, but there is no time stamp that could be read.
    #[error(
        "a key fits, but the value has no time stamp that can be read: plain Signer writes such \
         values, sessions need TimestampSigner"
    )]
    BadTimestamp,
    /// No key fits, and what would have been signed is incomplete or changed.
    #[error(
        "no key fits, and the value itself is incomplete or changed somewhere before its end: copy \
         the whole value again"
    )]
    Damaged,
    /// There is no text at all.
    #[error("the value is empty: give the session_data of a row, or the value of a cookie")]
    Empty,
    /// Signed with one of the keys, but longer ago than the limit.
    #[error(
        "the value was signed {age} seconds ago, more than the {max_age} that are allowed: the user \
         has to log in again, or allow a greater age to look at it"
    )]
    Expired {
        /// Whole seconds since it was signed.
        age: i64,
        /// Whole seconds that were allowed.
        max_age: i64,
    },
    /// Signed with one of the keys, in a form that is not accepted.
    #[error(
        "a key fits, but in the form \"{}\", which is not read unless it is asked for: accept \
         \"{0}\"",
        format.name()
    )]
    FormatNotAccepted {
        /// The form to accept.
        format: Format,
    },
    /// Signed with one of the keys; what was signed is no session.
    #[error(
        "a key fits, but what was signed is {found}, not a session: look where the value came from"
    )]
    NotAnObject {
        /// The kind of value found instead.
        found: &'static str,
    },
    /// The payload is not base64.
    #[error("{}", not_readable("base64", *.verified))]
    NotBase64 {
        /// Whether a key fits; otherwise the text itself is damaged.
        verified: bool,
    },
    /// Signed with one of the keys, but neither JSON nor a pickle.
    #[error(
        "a key fits, but the payload is not JSON as Python reads it ({0}): SESSION_SERIALIZER was \
         another one when it was written, so read the payload with that"
    )]
    NotJson(#[source] JsonError),
    /// Signed with one of the keys, but no pickle that can be read.
    #[error(
        "a key fits, but the payload is not a pickle that can be read ({0}): SESSION_SERIALIZER was \
         another one when it was written, so read the payload with that"
    )]
    NotPickle(#[source] PickleError),
    /// The payload claims to be compressed and is not.
    #[error("{}", not_readable("a complete zlib stream", *.verified))]
    NotZlib {
        /// Whether a key fits; otherwise the text itself is damaged.
        verified: bool,
    },
    /// Something else that Django, or another framework, makes.
    #[error("the value is {what}, not a session: take session_data or the session cookie")]
    OtherValue {
        /// What it is.
        what: &'static str,
    },
    /// A key fits once `%3A` and the like are decoded.
    #[error("the value is percent-encoded: decode it as part of a URL first")]
    PercentEncoded,
    /// A key fits once the quotes are off.
    #[error("the value is in quotes: remove them")]
    Quoted,
    /// The name of a session, not the session.
    #[error(
        "the value is a session key, the name of a session: the session itself is in the column \
         session_data of the row with this session_key, or in the cache or file of that name"
    )]
    SessionKey,
    /// A key fits a piece of the text.
    #[error(
        "the session is only a part of the text, such as a whole cookie header or table row: give \
         that value alone"
    )]
    Surrounded,
    /// A limit on what is inflated stands in the way.
    #[error("a key fits, but the payload inflates to more than {limit} bytes: raise the limit")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The text ends early.
    #[error("the value is cut off, {missing}: copy the whole value, which may be very long")]
    Truncated {
        /// What is not there.
        missing: Missing,
    },
    /// Nothing that Django stores looks like this.
    #[error(
        "the value has no form in which Django stores a session: give the session_data of a row, or \
         the value of a cookie"
    )]
    Unrecognized,
    /// Not signed by anybody, but a session as caches hold it, or before it is encoded.
    #[error(
        "the value is {serializer} without a signature, as caches hold sessions: nothing to decode, \
         read it as that"
    )]
    Unsigned {
        /// The serializer that wrote it.
        serializer: Serializer,
    },
    /// A key fits once line ends and blanks are gone.
    #[error("the value has line ends or blanks inside: remove them")]
    Whitespace,
    /// Well formed, but no key fits with any salt that is known.
    #[error(
        "no key fits, under no salt that is known: use the SECRET_KEY of the site that wrote the \
         value, with older ones as fallback keys, or the salt of its store class; if those are \
         right, the text was changed"
    )]
    WrongKey {
        /// The form that it seems to be in.
        format: Format,
    },
    /// A key fits with another salt.
    #[error("the key is right, but not the salt: use the salt {salt:?}")]
    WrongSalt {
        /// The salt that fits: for [`SessionCodec::with_salt`], or if it is not one of sessions and the
        /// form is [`Format::Legacy`], for [`SessionCodec::with_legacy_salt`].
        salt: String,
        /// The form that it fits in.
        format: Format,
    },
    /// Signed with one of the keys, by a serializer that is not accepted.
    #[error("a key fits, but the payload is {found}, not {expected}: accept that serializer too")]
    WrongSerializer {
        /// The serializer of the codec.
        expected: Serializer,
        /// The one that wrote the payload.
        found: Serializer,
    },
}

/// What a value lacks that is [`Diagnosis::Truncated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Missing {
    /// The data, or its beginning.
    Beginning,
    /// The end of the data.
    End,
    /// The signature, or its end.
    Signature,
    /// The time stamp and the signature.
    TimestampAndSignature,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Beginning => "its beginning is missing",
            Self::End => "its end is missing",
            Self::Signature => "the signature is missing or too short",
            Self::TimestampAndSignature => "time stamp and signature are missing",
        })
    }
}

fn not_readable(what: &str, verified: bool) -> String {
    if verified {
        format!(
            "a key fits, but the payload is not {what}: another program than Django signed this, so \
             read it with that"
        )
    } else {
        format!(
            "no key fits, and the payload is not {what}: characters were lost or changed, so copy \
             the whole value again"
        )
    }
}

impl Diagnosis {
    /// The names that [`Diagnosis::reason`] gives.
    pub const REASONS: [&str; 23] = [
        "bad_timestamp",
        "damaged",
        "empty",
        "expired",
        "format_not_accepted",
        "not_an_object",
        "not_base64",
        "not_json",
        "not_pickle",
        "not_zlib",
        "other_value",
        "percent_encoded",
        "quoted",
        "session_key",
        "surrounded",
        "too_large",
        "truncated",
        "unrecognized",
        "unsigned",
        "whitespace",
        "wrong_key",
        "wrong_salt",
        "wrong_serializer",
    ];

    /// A name that stays the same, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadTimestamp => "bad_timestamp",
            Self::Damaged => "damaged",
            Self::Empty => "empty",
            Self::Expired { .. } => "expired",
            Self::FormatNotAccepted { .. } => "format_not_accepted",
            Self::NotAnObject { .. } => "not_an_object",
            Self::NotBase64 { .. } => "not_base64",
            Self::NotJson(_) => "not_json",
            Self::NotPickle(_) => "not_pickle",
            Self::NotZlib { .. } => "not_zlib",
            Self::OtherValue { .. } => "other_value",
            Self::PercentEncoded => "percent_encoded",
            Self::Quoted => "quoted",
            Self::SessionKey => "session_key",
            Self::Surrounded => "surrounded",
            Self::TooLarge { .. } => "too_large",
            Self::Truncated { .. } => "truncated",
            Self::Unrecognized => "unrecognized",
            Self::Unsigned { .. } => "unsigned",
            Self::Whitespace => "whitespace",
            Self::WrongKey { .. } => "wrong_key",
            Self::WrongSalt { .. } => "wrong_salt",
            Self::WrongSerializer { .. } => "wrong_serializer",
        }
    }
}

/// What else the caller knows or guesses, for [`SessionCodec::diagnose_with`].
#[derive(Clone, Debug, Default)]
pub struct Hints<'a> {
    salts: Vec<&'a str>,
    max_age: Option<MaxAge>,
}

impl<'a> Hints<'a> {
    /// No hints.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds salts to try: whole ones, qualified names of store classes, or names of signed cookies.
    #[must_use]
    pub fn with_salts(mut self, salts: impl IntoIterator<Item = &'a str>) -> Self {
        self.salts.extend(salts);
        self
    }

    /// Sets the age up to which the value should have been accepted, as in
    /// [`SessionCodec::decode_with_max_age`].
    #[must_use]
    pub fn with_max_age(mut self, limit: MaxAge) -> Self {
        self.max_age = Some(limit);
        self
    }
}

impl SessionCodec {
    /// Tells why [`SessionCodec::decode`] fails on this; nothing if it does not.
    ///
    /// It takes some twenty times as long as decoding: for logs of rare events and for people.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::codec::Diagnosis;
    /// use django_session::{SecretKey, SessionCodec};
    ///
    /// let codec = SessionCodec::new(&SecretKey::new("correct horse battery staple")?);
    /// let session_data = "eyJhIjoxfQ:1r31eq:4OVpArSAAUYyfDXk1ZIieKYo9WrR2kQvEte6pBdBWGQ";
    /// assert_eq!(codec.diagnose(session_data), None);
    ///
    /// let cut = codec.diagnose(&session_data[..50]).unwrap();
    /// assert_eq!(cut.reason(), "truncated");
    ///
    /// let other = SessionCodec::new(&SecretKey::new("another key")?);
    /// assert!(matches!(other.diagnose(session_data), Some(Diagnosis::WrongKey { .. })));
    ///
    /// let other = SessionCodec::with_salt(
    ///     &SecretKey::new("correct horse battery staple")?,
    ///     "django.contrib.sessions.Mine",
    /// );
    /// assert_eq!(
    ///     other.diagnose(session_data).unwrap().to_string(),
    ///     "the key is right, but not the salt: use the salt \
    ///      \"django.contrib.sessions.SessionStore\"",
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn diagnose(&self, stored: impl AsRef<[u8]>) -> Option<Diagnosis> {
        self.diagnose_with(stored, &Hints::default())
    }

    /// As [`SessionCodec::diagnose`], with more to try.
    pub fn diagnose_with(&self, stored: impl AsRef<[u8]>, hints: &Hints<'_>) -> Option<Diagnosis> {
        let stored = stored.as_ref();
        let Ok(text) = std::str::from_utf8(stored) else { return Some(shape_of_bytes(stored)) };
        let decoded = match hints.max_age {
            None => self.decode(text),
            Some(limit) => self.decode_with_max_age(text, limit),
        };
        let error = decoded.err()?;
        Some(match self.fitting_form(text) {
            Some(format) if self.reads(format) => explain(&error),
            Some(format) => Diagnosis::FormatNotAccepted { format },
            None => self.search(text, hints),
        })
    }

    /// The form of a text that a key fits with the codec's own salt, accepted or not.
    fn fitting_form(&self, text: &str) -> Option<Format> {
        let fits = |signer: &TimestampSigner| {
            !matches!(signer.unsign(text, None), Err(DecodeError::BadSignature))
        };
        if fits(&self.signer) {
            return Some(Format::Signed);
        }
        let forms: [(Format, &dyn Fn() -> bool); 3] = [
            (Format::SignedSha1, &|| fits(&with_both_algorithms(&self.signer))),
            (Format::Legacy, &|| self.legacy_payload(text).is_ok()),
            (Format::Antique, &|| self.antique_payload(text).is_ok()),
        ];
        forms.into_iter().find_map(|(format, fits)| fits().then_some(format))
    }

    /// What is wrong with a text that no key fits as it stands.
    fn search(&self, text: &str, hints: &Hints<'_>) -> Diagnosis {
        let mut cleaned = Cow::Borrowed(text);
        for (clean, diagnosis) in [
            (without_whitespace as fn(&str) -> Option<String>, Diagnosis::Whitespace),
            (without_quotes, Diagnosis::Quoted),
            (percent_decoded, Diagnosis::PercentEncoded),
        ] {
            if let Some(text) = clean(&cleaned) {
                if self.fitting_form(&text).is_some() {
                    return diagnosis;
                }
                cleaned = Cow::Owned(text);
            }
        }
        if cleaned.is_empty() {
            return Diagnosis::Empty;
        }
        for piece in pieces(text) {
            if self.fitting_form(piece).is_some() {
                return Diagnosis::Surrounded;
            }
        }
        self.other_salt(&cleaned, hints)
            .or_else(|| self.other_purpose(&cleaned, hints))
            .unwrap_or_else(|| self.shape(&cleaned))
    }

    fn other_salt(&self, text: &str, hints: &Hints<'_>) -> Option<Diagnosis> {
        let named = hints.salts.iter().map(|name| format!("django.contrib.sessions.{name}"));
        let given = hints.salts.iter().map(|&salt| salt.to_owned());
        let salts = SALTS.into_iter().map(str::to_owned).chain(given).chain(named);
        for salt in salts {
            let other = self.resalted(&salt);
            if let Some(format) = other.fitting_form(text) {
                return Some(Diagnosis::WrongSalt { salt, format });
            }
        }
        // A class with a `key_salt` of its own has this one in the old form.
        hints.salts.iter().find_map(|&salt| {
            let fits = self.clone().with_legacy_salt(salt).legacy_payload(text).is_ok();
            let salt = salt.to_owned();
            fits.then_some(Diagnosis::WrongSalt { salt, format: Format::Legacy })
        })
    }

    /// A value that one of the keys signed for something else.
    fn other_purpose(&self, text: &str, hints: &Hints<'_>) -> Option<Diagnosis> {
        let (key, fallbacks) = self.secrets.split_first()?;
        for (salt, what) in COOKIE_SALTS {
            let signer = with_both_algorithms(&cookie_signer(key, fallbacks, salt));
            if !matches!(signer.unsign(text, None), Err(DecodeError::BadSignature)) {
                return Some(Diagnosis::OtherValue { what });
            }
        }
        hints.salts.iter().find_map(|name| {
            let signer = CookieSigner::new(key, name, "")
                .with_fallbacks(fallbacks)
                .accept_salts([CookieSalt::Legacy])
                .accept_algorithms([Algorithm::Sha1]);
            let what = "a cookie of set_signed_cookie()";
            let fits = !matches!(signer.unsign(text, None), Err(DecodeError::BadSignature));
            fits.then_some(Diagnosis::OtherValue { what })
        })
    }

    /// What a text looks like that no key fits.
    fn shape(&self, text: &str) -> Diagnosis {
        let limits = Limits::default().with_size(self.max_size);
        if let Some(serializer) = serializer_of(text.as_bytes(), &limits) {
            return Diagnosis::Unsigned { serializer };
        }
        if is_token(text) {
            return Diagnosis::OtherValue { what: "a password-reset token" };
        }
        if text.split_once('$').is_some_and(|(hash, _)| is_hex(hash.as_bytes(), LEGACY_HASH)) {
            return Diagnosis::OtherValue { what: "a cookie of django.contrib.messages" };
        }
        match text.rsplit_once(':') {
            Some((stamped, signature)) => self.shape_of_signed(stamped, signature),
            None => self.shape_of_encoded(text, &limits),
        }
    }

    fn shape_of_signed(&self, stamped: &str, signature: &str) -> Diagnosis {
        let truncated = |missing| Diagnosis::Truncated { missing };
        let is_signature = matches!(signature.len(), SIGNATURE | SIGNATURE_SHA1);
        let Some((payload, stamp)) = stamped.rsplit_once(':') else {
            return match (is_signature, is_stamp(signature)) {
                (true, _) if stamped.is_empty() || is_stamp(stamped) => {
                    truncated(Missing::Beginning)
                }
                (true, _) => Diagnosis::OtherValue {
                    what: "a value of django.core.signing.Signer, without a time stamp",
                },
                (false, true) if is_url_safe(stamped) => truncated(Missing::Signature),
                (false, _) => Diagnosis::Unrecognized,
            };
        };
        if !is_url_safe(signature) || !is_stamp(stamp) {
            return Diagnosis::Damaged;
        }
        if signature.len() < SIGNATURE && !is_signature {
            return truncated(Missing::Signature);
        }
        match signature.len() {
            // SHA-384 and SHA-512, which Django lets a project's own signers use.
            64 | 86 => {
                return Diagnosis::OtherValue { what: "a value signed with another algorithm" };
            }
            ..=SIGNATURE => {}
            _ => return Diagnosis::Damaged,
        }
        if payload.is_empty() {
            return truncated(Missing::Beginning);
        }
        let encoded = payload.strip_prefix('.').unwrap_or(payload);
        let payload = if is_url_safe(encoded) {
            armor::unwrap(payload, self.max_size)
        } else {
            return Diagnosis::NotBase64 { verified: false };
        };
        match payload {
            Ok(payload) => {
                let format =
                    if signature.len() == SIGNATURE { Format::Signed } else { Format::SignedSha1 };
                self.wholeness(&payload.bytes, format)
            }
            Err(DecodeError::Malformed { part: Part::Zlib }) => {
                Diagnosis::NotZlib { verified: false }
            }
            Err(DecodeError::Malformed { .. }) => Diagnosis::NotBase64 { verified: false },
            Err(_) => Diagnosis::WrongKey { format: Format::Signed },
        }
    }

    /// Without any colon: a form before 3.1, or a part of today's.
    fn shape_of_encoded(&self, text: &str, limits: &Limits) -> Diagnosis {
        let truncated = |missing| Diagnosis::Truncated { missing };
        let is_standard =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        if is_standard {
            // What is left over of a group of four was cut off.
            let whole = &text[..text.len() - text.len() % 4];
            let is_cut = whole.len() < text.len() && !text.ends_with('=');
            let plain = armor::decode_standard(whole.as_bytes()).unwrap_or_default();
            let has_hash = plain.get(..LEGACY_HASH).is_some_and(|hash| is_hex(hash, LEGACY_HASH));
            if has_hash {
                return match plain.get(LEGACY_HASH) {
                    Some(b':') if !is_cut => {
                        let payload = &plain[LEGACY_HASH + 1..];
                        self.wholeness(payload, Format::Legacy)
                    }
                    None | Some(b':') => truncated(Missing::End),
                    Some(_) => Diagnosis::Unrecognized,
                };
            }
            if plain.len() < LEGACY_HASH && plain.len() > 8 && is_hex(&plain, plain.len()) {
                return truncated(Missing::End);
            }
            if Serializer::detect(&plain) == Some(Serializer::Pickle) && !is_session_key(text) {
                let length = plain.len().saturating_sub(ANTIQUE_HASH);
                let is_whole = Graph::from_pickle(&plain, limits).is_ok();
                if is_hex(&plain[length..], ANTIQUE_HASH) && !is_cut {
                    return Diagnosis::WrongKey { format: Format::Antique };
                }
                if is_whole && plain.ends_with(b".") {
                    return Diagnosis::Unsigned { serializer: Serializer::Pickle };
                }
                if is_whole || plain.first() == Some(&0x80) {
                    return truncated(Missing::End);
                }
            }
        }
        if let Some(encoded) = text.strip_prefix('.').filter(|encoded| is_url_safe(encoded)) {
            // The two bytes that begin every zlib stream.
            if ["eA", "eF", "eJ", "eN"].iter().any(|start| encoded.starts_with(start)) {
                return truncated(Missing::TimestampAndSignature);
            }
        }
        if is_url_safe(text) && armored_start(text).starts_with(b"{\"") {
            return truncated(Missing::TimestampAndSignature);
        }
        if text.starts_with("eyJ") && matches!(text.split('.').count(), 2 | 3) {
            return Diagnosis::OtherValue { what: "a JSON web token or a session of Flask" };
        }
        if is_session_key(text) {
            return Diagnosis::SessionKey;
        }
        if matches!(text.len(), 32 | 64) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Diagnosis::OtherValue { what: "a CSRF token" };
        }
        if !is_standard && matches!(self.format(), Format::Legacy | Format::Antique) {
            return Diagnosis::NotBase64 { verified: false };
        }
        Diagnosis::Unrecognized
    }

    /// Tells a payload under another key from one that was changed, and from one that was cut off: what
    /// a serializer began, it ends.
    fn wholeness(&self, payload: &[u8], format: Format) -> Diagnosis {
        let is_cut = match Serializer::detect(payload) {
            Some(Serializer::Json) => {
                let text = json::ascii_from_latin1(payload.to_vec());
                check_json(&text).err().map(|error| error.offset() >= text.len())
            }
            Some(Serializer::Pickle) if payload.first() == Some(&0x80) => {
                let limits = Limits::default().with_size(self.max_size);
                let error = Graph::from_pickle(payload, &limits).err();
                error.map(|error| error.kind() == PickleErrorKind::Truncated)
            }
            // Another serializer: nothing is known of its end.
            _ => None,
        };
        match is_cut {
            None => Diagnosis::WrongKey { format },
            // In today's form the signature comes last, and it is there.
            Some(true) if format == Format::Legacy => {
                Diagnosis::Truncated { missing: Missing::End }
            }
            Some(_) => Diagnosis::Damaged,
        }
    }
}

/// What is wrong with a text that a key fits.
fn explain(error: &DecodeError) -> Diagnosis {
    match *error {
        // Only today's form has an age.
        DecodeError::BadSignature | DecodeError::Malformed { part: Part::Timestamp } => {
            Diagnosis::BadTimestamp
        }
        DecodeError::Malformed { part: Part::Base64 } => Diagnosis::NotBase64 { verified: true },
        DecodeError::Malformed { part: Part::Zlib } => Diagnosis::NotZlib { verified: true },
        DecodeError::NotAnObject { found } => Diagnosis::NotAnObject { found },
        DecodeError::Pickle(error) => Diagnosis::NotPickle(error),
        DecodeError::Serializer(error) => Diagnosis::NotJson(error),
        DecodeError::SignatureExpired { age, max_age } => Diagnosis::Expired { age, max_age },
        DecodeError::TooLarge { limit } => Diagnosis::TooLarge { limit },
        DecodeError::WrongSerializer { expected, found } => {
            Diagnosis::WrongSerializer { expected, found }
        }
        // Not reached: only `signing` asks for a type.
        DecodeError::Deserialize(_) => Diagnosis::NotAnObject { found: "another value" },
    }
}

fn with_both_algorithms(signer: &TimestampSigner) -> TimestampSigner {
    signer.clone().accept_algorithms([Algorithm::Sha1, Algorithm::Sha256])
}

/// What bytes are that are no text: values of caches, as servers give them.
fn shape_of_bytes(stored: &[u8]) -> Diagnosis {
    if serializer_of(stored, &Limits::default()).is_some() {
        return Diagnosis::Unsigned { serializer: Serializer::Pickle };
    }
    let magic: [(&[u8], &str); 6] = [
        (b"\x78", "a cache value compressed by zlib"),
        (b"\x1f\x8b", "a cache value compressed by gzip"),
        (b"\x28\xb5\x2f\xfd", "a cache value compressed by zstd"),
        (b"\x04\x22\x4d\x18", "a cache value compressed by lz4"),
        (b"\xfd7zXZ", "a cache value compressed by lzma"),
        (b"SQLite format 3", "a whole SQLite database"),
    ];
    let found = magic.into_iter().find(|(magic, _)| stored.starts_with(magic));
    found.map_or(Diagnosis::Unrecognized, |(_, what)| Diagnosis::OtherValue { what })
}

/// The serializer of what stands without any signature.
fn serializer_of(stored: &[u8], limits: &Limits) -> Option<Serializer> {
    match stored.first()? {
        b'{' | b'[' => is_json(stored).then_some(Serializer::Json),
        0x80 | b'(' | b'}' | b'c' => {
            Graph::from_pickle(stored, limits).is_ok().then_some(Serializer::Pickle)
        }
        _ => None,
    }
}

fn is_json(payload: &[u8]) -> bool {
    check_json(&json::ascii_from_latin1(payload.to_vec())).is_ok()
}

fn check_json(text: &str) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(text);
    scanner.raw_value().and_then(|_| scanner.end())
}

/// The first bytes of base64 that may have been cut anywhere.
fn armored_start(text: &str) -> Vec<u8> {
    text.get(..4).and_then(|start| armor::unwrap(start, 16).ok()).map_or(Vec::new(), |p| p.bytes)
}

fn without_whitespace(text: &str) -> Option<String> {
    let has_whitespace = text.contains(char::is_whitespace);
    // In JSON and in pickles of old protocols it means something.
    let is_data = text.trim_start().starts_with(['{', '[', '(']);
    (has_whitespace && !is_data).then(|| text.split_whitespace().collect())
}

fn without_quotes(text: &str) -> Option<String> {
    let text =
        text.strip_prefix(['b', 'u']).filter(|rest| rest.starts_with(QUOTES)).unwrap_or(text);
    let inside = text.strip_prefix(QUOTES);
    inside.and_then(|inside| inside.strip_suffix(QUOTES)).map(str::to_owned)
}

const QUOTES: [char; 7] = ['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}'];

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    let mut found = false;
    for part in parts {
        let digits = part.get(..2)?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(&part.as_bytes()[2..]);
        found = true;
    }
    String::from_utf8(out).ok().filter(|_| found)
}

/// The longest stretches of a text that could be a session, the longest first.
fn pieces(text: &str) -> Vec<&str> {
    let ends = |char: char| char.is_whitespace() || "\"'`;,|=<>{}[]()&".contains(char);
    let mut pieces: Vec<_> =
        text.split(ends).filter(|piece| piece.len() > SIGNATURE_SHA1).collect();
    pieces.retain(|piece| piece.len() < text.len());
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    pieces.truncate(MAX_PIECES);
    pieces
}

fn is_url_safe(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// A time stamp of any of the next million years.
fn is_stamp(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    matches!(digits.len(), 1..=8) && digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_hex(text: &[u8], length: usize) -> bool {
    text.len() == length && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What `get_new_session_key` gives.
fn is_session_key(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

fn is_token(text: &str) -> bool {
    text.split_once('-').is_some_and(|(stamp, hash)| {
        let is_base36 = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z');
        matches!(stamp.len(), 1..=13)
            && stamp.bytes().all(is_base36)
            && (is_hex(hash.as_bytes(), 20) || is_hex(hash.as_bytes(), 32))
    })
}

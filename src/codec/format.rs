//! Which of Django's forms a session is stored in.

use super::signing::Algorithm;

/// The layout of a stored session, with the hash that protects it.
///
/// # Example
///
/// ```
/// use django_session::codec::Format;
///
/// assert_eq!(Format::from_name("legacy"), Some(Format::Legacy));
/// assert_eq!(Format::Antique.algorithm(), "md5");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Django 1.0 to 1.2: a pickle and the MD5 of it and the secret, in base64. 1.3 reads it too.
    ///
    /// The salt plays no part. MD5 with a secret behind the text can be forged by whoever finds a
    /// collision for a text of his own.
    Antique,
    /// Django 1.3 to 3.0, 3.1 and 3.2 with `DEFAULT_HASHING_ALGORITHM = "sha1"`, and read by those
    /// anyway: HMAC-SHA1 in hexadecimal, a colon and the data, in base64. No time stamp.
    Legacy,
    /// Django 3.1 and later: payload, time stamp and HMAC-SHA256 with colons between them.
    #[default]
    Signed,
    /// The same with HMAC-SHA1: signed cookies of 1.4 to 3.0, and whatever 3.1 and 3.2 accept.
    SignedSha1,
}

impl Format {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::Antique, Self::Legacy, Self::SignedSha1, Self::Signed];

    /// `antique`, `legacy`, `signed` or `signed_sha1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Antique => "antique",
            Self::Legacy => "legacy",
            Self::Signed => "signed",
            Self::SignedSha1 => "signed_sha1",
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The hash of its signature by the name that Python has for it: `md5`, `sha1` or `sha256`.
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::Antique => "md5",
            Self::Legacy | Self::SignedSha1 => Algorithm::Sha1.name(),
            Self::Signed => Algorithm::Sha256.name(),
        }
    }

    /// The format of a text that the timestamp signer signed.
    pub(super) fn signed_with(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha1 => Self::SignedSha1,
            Algorithm::Sha256 => Self::Signed,
        }
    }
}

/// How the session itself is written (`SESSION_SERIALIZER`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Serializer {
    /// `django.contrib.sessions.serializers.JSONSerializer`, the default since Django 1.6.
    #[default]
    Json,
    /// `PickleSerializer`, the default before and gone since 5.0. Nothing in a pickle is executed here.
    Pickle,
}

impl Serializer {
    /// `json` or `pickle`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Pickle => "pickle",
        }
    }

    /// The serializer of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Json, Self::Pickle].into_iter().find(|serializer| serializer.name() == name)
    }

    /// Which serializer wrote a session, by its first byte: a JSON object begins with a brace, which no
    /// pickle does. Nothing for what is neither.
    pub fn detect(payload: &[u8]) -> Option<Self> {
        match payload.trim_ascii_start().first() {
            Some(b'{') => Some(Self::Json),
            // The protocol; or an empty dict, a mark or a class in protocols without that opcode.
            _ => match payload.first() {
                Some(0x80 | b'}' | b'(' | b'c') => Some(Self::Pickle),
                _ => None,
            },
        }
    }
}

impl std::fmt::Display for Serializer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Pickle => "a pickle",
        })
    }
}

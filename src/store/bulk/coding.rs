//! From a stored value to a session and back, whatever the store.

use jiff::Timestamp;
use thiserror::Error;

use super::StoredSession;
use crate::codec::cache::{CacheCodec, CacheDecodeError, CacheEncodeError, CacheSerializer};
use crate::codec::{
    DecodeError, EncodeError, Format, KeyMatch, Serializer, SessionCodec, SessionData,
};

/// How a store writes sessions.
#[derive(Clone, Debug)]
pub(crate) enum Coding {
    /// As a value of a cache, which nobody signs.
    Cached(Box<CacheCodec>),
    /// As signed text.
    Signed(Box<SessionCodec>),
}

/// A session, and how it was written.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) data: SessionData,
    /// The form of signed text.
    pub(crate) format: Option<Format>,
    /// Which key signed it.
    pub(crate) key: Option<KeyMatch>,
    pub(crate) serializer: &'static str,
    /// Unix seconds.
    pub(crate) signed_at: Option<i64>,
}

/// Why a stored value is no session, or a session has no stored value.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Cached(#[from] CacheDecodeError),
    #[error(transparent)]
    CacheEncode(#[from] CacheEncodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Signed(#[from] DecodeError),
    #[error("the expire date is none")]
    ExpireDate,
    #[error("the stored value is not text")]
    Text,
}

impl Coding {
    pub(crate) fn open(&self, stored: &StoredSession) -> Result<Opened, OpenError> {
        if !stored.is_dated {
            return Err(OpenError::ExpireDate);
        }
        match self {
            Self::Cached(codec) => {
                let found = codec.decode(&stored.value)?;
                Ok(Opened {
                    data: found.data,
                    format: None,
                    key: None,
                    serializer: match found.serializer {
                        CacheSerializer::Json => "json",
                        CacheSerializer::MsgPack => "msgpack",
                        CacheSerializer::Pickle => "pickle",
                    },
                    signed_at: None,
                })
            }
            Self::Signed(codec) => {
                let text = std::str::from_utf8(&stored.value).map_err(|_| OpenError::Text)?;
                let found = codec.decode(text)?;
                Ok(Opened {
                    data: found.data,
                    format: Some(found.format),
                    key: Some(found.key),
                    serializer: match found.serializer {
                        Serializer::Json => "json",
                        Serializer::Pickle => "pickle",
                    },
                    signed_at: found.signed_at,
                })
            }
        }
    }

    /// The value to store; `signed_at` in Unix seconds, now if it is not known.
    pub(crate) fn seal(
        &self,
        data: &SessionData,
        signed_at: Option<i64>,
    ) -> Result<Vec<u8>, OpenError> {
        Ok(match self {
            Self::Cached(codec) => codec.encode(data, None)?,
            Self::Signed(codec) => {
                let now = signed_at.unwrap_or_else(|| Timestamp::now().as_second());
                codec.encode(data, now)?.into_bytes()
            }
        })
    }

    /// Whether a value that was opened here is what another coding of the same site would write.
    pub(crate) fn writes_as(&self, target: &Self, opened: &Opened) -> bool {
        match (self, target) {
            (Self::Signed(_), Self::Signed(target)) => {
                opened.key == Some(KeyMatch::Primary)
                    && opened.format == Some(target.format())
                    && opened.serializer == target.serializer().name()
            }
            (Self::Cached(one), Self::Cached(other)) => {
                one.backend() == other.backend() && one.pickle_protocol() == other.pickle_protocol()
            }
            _ => false,
        }
    }

    /// Whether sessions are JSON here, so that it matters what objects they hold.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Cached(codec) => codec.serializer() == CacheSerializer::Json,
            Self::Signed(codec) => codec.serializer() == Serializer::Json,
        }
    }

    /// Whether a value says by itself that it is what the site signed.
    pub(crate) fn is_signed(&self) -> bool {
        matches!(self, Self::Signed(_))
    }
}

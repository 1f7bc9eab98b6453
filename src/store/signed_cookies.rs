//! Sessions in their own cookie, as `django.contrib.sessions.backends.signed_cookies` has them.
//!
//! The session key is the session: signed text with a time stamp, which may be `SESSION_COOKIE_AGE` old.
//! There is nothing on the server. Different from Django: a session that is too long for a cookie is an
//! error, where Django sends it and browsers drop it without a word. The fixtures `signed_cookies`,
//! `session_ops_engines` and `middleware_engines` prove the rest.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use crate::codec::signing::MaxAge;
use crate::codec::{Compression, Format, SIGNED_COOKIES_SALT, SessionCodec};
use crate::session::{
    Clock, DateTime, Expiry, ExpiryError, Revision, Saved, SessionKey, SessionRecord,
    SessionSettings, SessionStore, SettingsError, StoreError, Stored, SystemClock,
};

/// What every browser keeps of a cookie, in bytes: name, value and attributes.
const MAX_LENGTH: usize = 4093;

/// Sessions that travel in the cookie, and are kept nowhere else.
///
/// What comes with that, here as in Django:
///
/// * The client reads the session: it is signed, not encrypted.
/// * An old cookie is good until it is as old as [`SessionSettings::cookie_age`], whatever was saved
///   since. Logging out makes the client forget, but a copy of the cookie stays logged in; what a
///   session says about its own expiry ends the cookie in the browser and binds nobody else.
/// * Of two requests at a time the response that arrives last wins, with everything it has.
/// * There is room for about 4000 bytes. A longer session is [`StoreError::TooLarge`].
///
/// A cookie that cannot be read is an empty session, and the response brings a good one. Clones share
/// the keys.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::store::SignedCookieStore;
/// use django_session::{SecretKey, Session, SessionKey, SessionSettings};
///
/// let settings = SessionSettings::default().with_secret_key(SecretKey::new("the site's SECRET_KEY")?);
/// let store = Arc::new(SignedCookieStore::new(&settings)?);
/// let settings = Arc::new(settings);
///
/// let session = Session::new(store.clone(), settings.clone(), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
/// let cookie = session.session_key().await.unwrap();
/// assert!(cookie.as_str().starts_with("eyJjYXJ0IjpbInRlYSJdfQ:"));
///
/// let later = Session::new(store, settings, SessionKey::parse(cookie.as_str()));
/// assert_eq!(later.get::<Vec<String>>("cart").await?.unwrap(), ["tea"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SignedCookieStore {
    codec: Arc<SessionCodec>,
    clock: Arc<dyn Clock>,
    cookie_age: i64,
    time_zone: TimeZone,
    use_tz: bool,
    /// The bytes of a cookie that are not its value.
    attributes: usize,
    max_length: Option<usize>,
}

impl SignedCookieStore {
    /// A store for the site with these settings: its keys, serializer and cookie.
    ///
    /// The salt is the engine's own, whatever [`SessionSettings::salt`] says, and of the forms before
    /// 3.1 this engine only ever had [`Format::SignedSha1`], which stands for all of them.
    ///
    /// # Errors
    ///
    /// [`SettingsError::MissingSecretKey`].
    pub fn new(settings: &SessionSettings) -> Result<Self, SettingsError> {
        let key = settings.secret_key.as_ref().ok_or(SettingsError::MissingSecretKey)?;
        let signed = |format| match format {
            Format::Signed => Format::Signed,
            _ => Format::SignedSha1,
        };
        let codec = SessionCodec::with_salt(key, SIGNED_COOKIES_SALT)
            .with_fallbacks(&settings.secret_key_fallbacks)
            .with_serializer(settings.serializer)
            .with_format(signed(settings.format))
            .accept(settings.accept.iter().copied().map(signed))
            // Every byte counts.
            .with_compression(Compression::Small);
        Ok(Self {
            codec: Arc::new(codec),
            clock: Arc::new(SystemClock),
            cookie_age: settings.cookie_age,
            time_zone: settings.time_zone.clone(),
            use_tz: settings.use_tz,
            attributes: attributes(settings),
            max_length: Some(MAX_LENGTH),
        })
    }

    /// Replaces the clock of the system, by which cookies are signed.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how many bytes a cookie may have, 4093 at first, with its name and all attributes that it
    /// can have. `None` allows any length, as Django does; browsers then drop what is too long, and the
    /// client keeps the session that it had.
    #[must_use]
    pub fn with_max_length(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.max_length = bytes.into();
        self
    }

    fn sign(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let now = self.clock.now().as_second();
        let signed = self.codec.encode(&record.data, now).map_err(StoreError::Encode)?;
        let length = self.attributes + signed.len();
        if let Some(limit) = self.max_length.filter(|&limit| length > limit) {
            return Err(StoreError::TooLarge { length, limit });
        }
        Ok(Saved { session_key: SessionKey::parse(&signed), ..Saved::default() })
    }

    /// When a session that was signed then expires by its own account, or if that is past, when it
    /// will not be read any more.
    fn expire_date(&self, stored: &Stored, signed_at: DateTime, now: DateTime) -> Option<DateTime> {
        let own = stored.date(signed_at, self.cookie_age).ok();
        let own = own.filter(|date| date.since(now).is_some_and(|left| left.is_positive()));
        own.or_else(|| Expiry::Default.date(signed_at, self.cookie_age).ok())
    }
}

/// The length of the cookie's name and of all attributes, as `Set-Cookie` has them.
fn attributes(settings: &SessionSettings) -> usize {
    let text = |name: &str, length| "; =".len() + name.len() + length;
    let flag = |name: &str| "; ".len() + name.len();
    settings.cookie_name.len()
        + "=".len()
        + settings.cookie_domain.as_ref().map_or(0, |domain| text("Domain", domain.len()))
        + text("expires", "Tue, 28 Nov 2023 22:13:20 GMT".len())
        + if settings.cookie_httponly { flag("HttpOnly") } else { 0 }
        // A session may have an age of its own.
        + text("Max-Age", i32::MAX.to_string().len())
        + text("Path", settings.cookie_path.len())
        + settings.cookie_samesite.map_or(0, |same_site| text("SameSite", same_site.to_string().len()))
        + if settings.cookie_secure { flag("Secure") } else { 0 }
}

impl fmt::Debug for SignedCookieStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedCookieStore")
            .field("cookie_age", &self.cookie_age)
            .field("max_length", &self.max_length)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for SignedCookieStore {
    /// False: no key is ever taken.
    async fn exists(&self, _: &SessionKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Signs the session. The key of the record is of no account.
    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.sign(record)
    }

    /// The session in the key, never `None`: one that cannot be read, or is too old, is
    /// [`StoreError::Decode`].
    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let out_of_range = || StoreError::ExpireDate(ExpiryError::OutOfRange);
        let max_age = SignedDuration::from_secs(self.cookie_age);
        let limit =
            MaxAge { max_age, now: now.to_timestamp(&self.time_zone).ok_or_else(out_of_range)? };
        let decoded = self.codec.decode_with_max_age(session_key.as_str(), limit);
        let decoded = decoded.map_err(StoreError::Decode)?;
        let signed_at = jiff::Timestamp::from_second(decoded.signed_at.unwrap_or_default());
        // A stamp beyond all years is of the future, so it has not expired.
        let signed_at = signed_at.map_or(now, |at| DateTime::now(at, self.use_tz, &self.time_zone));
        let stored = Stored::of(&decoded.data);
        Ok(Some(SessionRecord {
            session_key: session_key.clone(),
            expire_date: self.expire_date(&stored, signed_at, now).ok_or_else(out_of_range)?,
            data: Arc::new(decoded.data),
            revision: None,
        }))
    }

    /// Signs the session. What the client had stays good.
    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.sign(record)
    }

    /// Signs the session again, which makes it younger.
    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.sign(record)
    }

    /// Does nothing: what the client has, nobody can take.
    async fn delete(&self, _: &SessionKey) -> Result<(), StoreError> {
        Ok(())
    }

    /// As [`SessionStore::delete`]; there are no revisions.
    async fn delete_revision(&self, _: &SessionKey, _: &Revision) -> Result<(), StoreError> {
        Ok(())
    }

    /// [`StoreError::Unsupported`]: cookies end by themselves.
    async fn clear_expired(&self, _: DateTime) -> Result<u64, StoreError> {
        Err(StoreError::Unsupported { operation: "clear_expired" })
    }

    fn is_in_key(&self) -> bool {
        true
    }
}

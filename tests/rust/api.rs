//! What the public types promise, whatever they do.

use std::fmt::Debug;

use django_session::codec::{
    Decoded, Diagnosis, Hints, KeyMatch, SessionCodec, Signer, TimestampSigner,
};
use django_session::session::{AuthHashMatch, SystemClock};
use django_session::signing::{
    CookieSigner, PasswordResetTokenGenerator, PasswordResetUser, TokenMatch, UnsafeSeparator,
    UnsignedCookie, Verified,
};
use django_session::store::{FileError, FileStore, MemoryStore, SignedCookieStore};
use django_session::web::{
    Csrf, CsrfBody, CsrfChecked, CsrfExempt, CsrfLayer, CsrfRejection, CsrfSettings,
};
use django_session::{
    DateTime, DecodeError, EncodeError, Expiry, SecretKey, Session, SessionData, SessionError,
    SessionKey, SessionLayer, SessionRejection, SessionSettings, StoreError, UserId,
};

/// Handlers keep them across awaits and tasks, and everything can be shown in a log.
const fn shared<T: Send + Sync + Debug + 'static>() {}
const fn cloned<T: Clone>() {}

const _: () = {
    shared::<Csrf>();
    shared::<CsrfBody<http_body_util::Full<bytes::Bytes>>>();
    shared::<CsrfChecked>();
    shared::<CsrfExempt>();
    shared::<CsrfLayer>();
    shared::<CsrfRejection>();
    shared::<CsrfSettings>();
    shared::<Session>();
    shared::<SessionCodec>();
    shared::<SessionData>();
    shared::<SessionError>();
    shared::<SessionKey>();
    shared::<SessionLayer>();
    shared::<SessionRejection>();
    shared::<SessionSettings>();
    shared::<StoreError>();
    shared::<DecodeError>();
    shared::<EncodeError>();
    shared::<Decoded>();
    shared::<Diagnosis>();
    shared::<Hints<'static>>();
    shared::<Expiry>();
    shared::<DateTime>();
    shared::<KeyMatch>();
    shared::<Signer>();
    shared::<TimestampSigner>();
    shared::<AuthHashMatch>();
    shared::<CookieSigner>();
    shared::<PasswordResetTokenGenerator>();
    shared::<PasswordResetUser<'_>>();
    shared::<TokenMatch>();
    shared::<UnsafeSeparator>();
    shared::<UnsignedCookie<'_>>();
    shared::<Verified<'_>>();
    shared::<FileError>();
    shared::<FileStore>();
    shared::<MemoryStore>();
    shared::<SignedCookieStore>();
    shared::<SystemClock>();
    shared::<UserId>();
    cloned::<Diagnosis>();
    cloned::<Session>();
    cloned::<SessionCodec>();
    cloned::<SessionData>();
    cloned::<SessionKey>();
    cloned::<SessionLayer>();
    cloned::<SessionSettings>();
    cloned::<FileStore>();
    cloned::<MemoryStore>();
    cloned::<SignedCookieStore>();
};

#[tokio::test]
async fn nothing_that_can_be_shown_shows_a_secret() {
    const SECRET: &str = "hunter2hunter2";
    let key = SecretKey::new(SECRET).unwrap();
    let session_key = SessionKey::parse(SECRET).unwrap();
    let codec = SessionCodec::new(&key).with_fallbacks([&key]);
    let mut data = SessionData::new();
    data.insert(SECRET, SECRET).unwrap();
    let text = codec.encode(&data, 0).unwrap();
    let store = MemoryStore::new(codec.clone());
    store.insert_row(session_key.clone(), &*text, DateTime::Aware(jiff::Timestamp::MAX));
    let settings = std::sync::Arc::new(SessionSettings::default().with_secret_key(key.clone()));
    let session = Session::new(
        std::sync::Arc::new(store.clone()),
        settings.clone(),
        Some(session_key.clone()),
    );
    session.insert(SECRET, SECRET).await.unwrap();

    let name = data.keys().next().unwrap();
    let decoded = codec.decode(&text).unwrap();
    let payload = codec.decode_payload(&text).unwrap();
    let wrong_type = session.get::<u8>(SECRET).await.unwrap_err();
    let mut shown = vec![
        format!("{key:?} {codec:?} {session_key:?} {data:?} {name:?} {decoded:?} {payload:?}"),
        format!("{store:?} {settings:?} {session:?}"),
        format!("{:?}", FileStore::new("sessions", codec.clone())),
        format!("{:?}", SignedCookieStore::new(&settings)),
        format!("{:?}", SessionLayer::new(store, settings)),
        format!("{wrong_type:?} {wrong_type}"),
    ];
    let (cookies, tokens) = (
        CookieSigner::new(&key, "name", "").with_fallbacks([&key]),
        PasswordResetTokenGenerator::new(&key),
    );
    let user = PasswordResetUser { pk: SECRET, password: SECRET, last_login: None, email: SECRET };
    let (plain, stamped) = (Signer::new(&key, "salt"), TimestampSigner::new(&key, "salt"));
    let made = [plain.sign(SECRET), stamped.sign(SECRET, 0), cookies.sign(SECRET, 0)];
    let (plain_value, stamped_value) = (plain.unsign(&made[0]), stamped.unsign(&made[1], None));
    let cookie_value = cookies.unsign(&made[2], None);
    shown.push(format!("{plain:?} {stamped:?} {plain_value:?} {stamped_value:?} {cookie_value:?}"));
    let refused = tokens.check_token(&user, SECRET, jiff::civil::DateTime::MAX).unwrap_err();
    shown.push(format!("{cookies:?} {tokens:?} {user:?} {refused:?} {refused}"));
    for bad in [text.replace('.', "x"), SECRET.to_owned(), format!("{SECRET}:{SECRET}")] {
        let error = codec.decode(&bad).unwrap_err();
        shown.push(format!("{error:?} {error}"));
        let diagnosis = codec.diagnose(&bad).unwrap();
        shown.push(format!("{diagnosis:?} {diagnosis}"));
    }
    let not_json = codec.decode(&codec.encode_payload(SECRET.as_bytes(), 0)).unwrap_err();
    shown.push(format!("{not_json:?} {not_json}"));
    for text in shown {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

//! Django's `SessionMiddleware`, `CsrfViewMiddleware` and `AuthenticationMiddleware` for Rust services.
//!
//! [`CsrfLayer`] and `AuthLayer` (feature `auth`) are modules of their own. This file holds the decisions
//! about sessions, free of any framework: what Django 6.1 does in
//! `contrib/sessions/middleware.py`, in its order, with the `Vary` rule of 5.2.14 and 6.0.5. The
//! [tower layer](SessionLayer) and the extractors of axum are around it, and the same for actix-web, where the
//! layers are what `App::wrap` takes. Different from Django:
//!
//! * A store that fails gives 503 and leaves the cookie alone. Django's answer is 500, or, if the
//!   database fails while saving, the one for a deleted session.
//! * A response that switches protocols (101) leaves session and cookie alone, as Channels does with
//!   WebSockets: who changes the session there has to save it.
//! * A response of status 500 and above is passed on at once. Django computes the expiry before it
//!   looks at the status, which costs a query and may replace one error by another.
//!
//! Proved by the records of `tests/fixtures/vectors/middleware`.

#[cfg(feature = "actix")]
mod actix;
#[cfg(feature = "auth")]
mod auth;
#[cfg(feature = "axum")]
mod axum;
mod cookie;
mod csrf;
mod head;
mod rejection;
#[cfg(feature = "auth")]
mod site_settings;
mod tower;
#[cfg(feature = "_extractors")]
mod user_id;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

#[cfg(feature = "auth")]
pub use self::auth::{
    AuthLayer, AuthRejection, AuthService, AuthSession, MaybeUser, Permission, RequirePermission,
};
pub use self::csrf::{
    Csrf, CsrfBody, CsrfChecked, CsrfExempt, CsrfExemptService, CsrfFuture, CsrfLayer,
    CsrfRejection, CsrfService, CsrfSettings, FormError, Shown, TokenFault, TokenFormat,
};
pub use self::rejection::SessionRejection;
#[cfg(feature = "auth")]
pub use self::site_settings::SiteSettings;
pub use self::tower::{ResponseFuture, SessionLayer, SessionService};
#[cfg(feature = "_extractors")]
pub use self::user_id::UserId;
use crate::session::{Flags, Session, SessionError, SessionSettings};

/// What becomes of the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Tell the client to forget it. Nothing is saved, and the status does not matter.
    Delete,
    /// Leave it as it is.
    Keep { vary: bool },
    /// Save the session, then send the cookie again.
    Save,
    /// Move the expiry if it is time to, and if so send the cookie again.
    Touch,
}

/// Django's `SessionMiddleware.process_response` up to the first effect. `cookie_sent` is about the
/// name alone: an empty value counts.
fn decide(
    cookie_sent: bool,
    flags: Flags,
    status: StatusCode,
    settings: &SessionSettings,
) -> Decision {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Decision::Keep { vary: false };
    }
    if cookie_sent && flags.empty {
        return Decision::Delete;
    }
    if flags.empty || status.as_u16() >= 500 {
        return Decision::Keep { vary: flags.accessed };
    }
    let every = settings.save_every_request;
    match settings.touch_interval {
        _ if flags.modified => Decision::Save,
        None if every => Decision::Save,
        Some(_) if every || flags.accessed => Decision::Touch,
        _ => Decision::Keep { vary: flags.accessed },
    }
}

/// What to add to a response.
#[derive(Debug, Default)]
struct Effect {
    set_cookie: Option<HeaderValue>,
    vary: bool,
}

impl Effect {
    /// Adds the headers. Cookies that the handler has set stay.
    fn apply(self, headers: &mut HeaderMap) {
        if self.vary {
            let lines = headers.get_all(header::VARY).iter().map(HeaderValue::as_bytes);
            if let Some(vary) = vary_on_cookie(lines) {
                headers.insert(header::VARY, vary);
            }
        }
        if let Some(set_cookie) = self.set_cookie {
            headers.append(header::SET_COOKIE, set_cookie);
        }
    }
}

/// A request whose session has to be looked after when its response is ready.
#[derive(Debug)]
struct Exchange {
    session: Session,
    cookie_sent: bool,
}

impl Exchange {
    /// Saves the session if it has to be, and says what to add to the response.
    ///
    /// # Errors
    ///
    /// The response to send instead. It has neither cookie nor `Vary`: it says nothing about the
    /// session, and no cache keeps a 400, a 500 or a 503 that does not ask for it.
    async fn finish(self, status: StatusCode) -> Result<Effect, SessionRejection> {
        let settings = self.session.settings();
        match decide(self.cookie_sent, self.session.flags().await, status, settings) {
            Decision::Delete => {
                Ok(Effect { set_cookie: Some(cookie::delete(settings)?), vary: true })
            }
            Decision::Keep { vary } => Ok(Effect { set_cookie: None, vary }),
            Decision::Save => {
                let set_cookie = self.save().await.map_err(|error| SessionRejection::of(&error))?;
                Ok(Effect { set_cookie: Some(set_cookie?), vary: true })
            }
            Decision::Touch => {
                let set_cookie =
                    self.touch().await.map_err(|error| SessionRejection::of(&error))?;
                Ok(Effect { set_cookie: set_cookie.transpose()?, vary: true })
            }
        }
    }

    async fn touch(&self) -> Result<Option<Result<HeaderValue, SessionRejection>>, SessionError> {
        if !self.session.touch().await? {
            return Ok(None);
        }
        let expiry = self.session.cookie_expiry().await?;
        let session_key = self.session.session_key().await;
        Ok(session_key.map(|key| cookie::set(self.session.settings(), &key, expiry)))
    }

    async fn save(&self) -> Result<Result<HeaderValue, SessionRejection>, SessionError> {
        // In this order: looking for the expiry may find that the session is not there, and then
        // saving makes a new one.
        let expiry = self.session.cookie_expiry().await?;
        let session_key = self.session.save_returning_key().await?;
        Ok(cookie::set(self.session.settings(), &session_key, expiry))
    }
}

/// Django's `patch_vary_headers(response, ["Cookie"])`: what becomes of these lines.
fn vary_on_cookie<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderValue> {
    const COOKIE: &[u8] = b"Cookie";
    let names = lines.flat_map(|line| line.split(|&byte| byte == b','));
    let mut names: Vec<&[u8]> =
        names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()).collect();
    if names.contains(&&b"*"[..]) {
        return Some(HeaderValue::from_static("*"));
    }
    if !names.iter().any(|name| name.eq_ignore_ascii_case(COOKIE)) {
        names.push(COOKIE);
    }
    // Made of header values, so it is one; that it might not be has no better answer than none.
    HeaderValue::from_bytes(&names.join(&b", "[..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_not_looked_at_changes_nothing() {
        let untouched = Flags { accessed: false, modified: false, empty: false };
        let settings = SessionSettings::default();
        for cookie_sent in [false, true] {
            assert_eq!(
                decide(cookie_sent, untouched, StatusCode::OK, &settings),
                Decision::Keep { vary: false }
            );
        }
    }

    #[test]
    fn an_emptied_session_costs_the_cookie_whatever_the_status() {
        let empty = Flags { accessed: true, modified: true, empty: true };
        let settings = SessionSettings::default();
        for status in [StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR] {
            assert_eq!(decide(true, empty, status, &settings), Decision::Delete);
            assert_eq!(decide(false, empty, status, &settings), Decision::Keep { vary: true });
        }
    }

    #[test]
    fn a_websocket_saves_nothing_by_itself() {
        let settings = SessionSettings::default();
        for empty in [false, true] {
            let changed = Flags { accessed: true, modified: true, empty };
            assert_eq!(
                decide(true, changed, StatusCode::SWITCHING_PROTOCOLS, &settings),
                Decision::Keep { vary: false }
            );
        }
    }

    #[test]
    fn vary_lists_are_kept_in_order() {
        for (before, after) in [
            (&[][..], "Cookie"),
            (&[""], "Cookie"),
            (&["Accept"], "Accept, Cookie"),
            (&["Accept ,Origin"], "Accept, Origin, Cookie"),
            (&["Accept", "Origin"], "Accept, Origin, Cookie"),
            (&["accept, COOKIE"], "accept, COOKIE"),
            (&["Accept, *"], "*"),
        ] {
            let mut headers = HeaderMap::new();
            for line in before {
                headers.append(header::VARY, line.parse().unwrap());
            }
            Effect { set_cookie: None, vary: true }.apply(&mut headers);
            let lines: Vec<_> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(lines, [after]);
        }
    }
}

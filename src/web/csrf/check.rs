//! `CsrfViewMiddleware.process_view`: what is asked of a request, in Django's order.
//!
//! Decisions only; the body is read between [`head`] and [`token`], by somebody else.

use http::header::{ORIGIN, REFERER, UPGRADE};

use super::host::{host, is_same_domain, is_secure, meta, port};
use super::rejection::{CsrfRejection, Shown, TokenFault};
use super::rules::Rules;
use super::token::{Secret, TokenFormat};
use super::url::urlsplit;
use crate::web::head::Head;

/// What cookie or session hold.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Absent,
    Malformed(TokenFormat),
    Secret(Secret),
}

/// Whether a method changes nothing, so that nothing is asked. Other than in Django, `get` is not `GET`.
pub(super) fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Whether a request asks for a WebSocket. It is a `GET`, and yet acts from then on.
pub(in crate::web) fn is_handshake(request: &impl Head) -> bool {
    let lines = request.lines(&UPGRADE);
    let mut names = lines.flat_map(|line| line.split(|&byte| byte == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// Checks where a WebSocket comes from, by the rules for `Origin`, which every browser sends with it.
/// Django has no views for them; in Channels this is `AllowedHostsOriginValidator`.
pub(super) fn handshake(rules: &Rules, request: &impl Head) -> Result<(), CsrfRejection> {
    match meta(request, &ORIGIN) {
        Some(origin) => check_origin(rules, request, &origin),
        // No browser, so no cookies of somebody else's.
        None => Ok(()),
    }
}

/// Checks all that does not need the body: where the request comes from, and that there is a secret.
pub(super) fn head<'a>(
    rules: &Rules,
    request: &impl Head,
    stored: &'a Stored,
) -> Result<Option<&'a Secret>, CsrfRejection> {
    if let Some(origin) = meta(request, &ORIGIN) {
        check_origin(rules, request, &origin)?;
    } else if is_secure(rules, request) {
        check_referer(rules, request)?;
    }
    match stored {
        Stored::Absent => Err(CsrfRejection::NoCookie),
        // A session's secret has no form in Django's eyes: nothing is equal to it, which is found later.
        Stored::Malformed(_) if rules.settings().csrf_use_sessions => Ok(None),
        Stored::Malformed(format) => Err(CsrfRejection::CookieFormat(*format)),
        Stored::Secret(secret) => Ok(Some(secret)),
    }
}

/// Checks the token: that of the form, or if there is none or an empty one, that of the header.
pub(super) fn token(
    rules: &Rules,
    request: &impl Head,
    secret: Option<&Secret>,
    field: &str,
) -> Result<(), CsrfRejection> {
    if !field.is_empty() {
        return compare(field, secret).map_err(CsrfRejection::FormToken);
    }
    let token = rules.header_token(request).ok_or(CsrfRejection::TokenMissing)?;
    compare(&token, secret).map_err(|fault| {
        let header = rules.token_header().into();
        CsrfRejection::HeaderToken { header, fault }
    })
}

fn compare(token: &str, secret: Option<&Secret>) -> Result<(), TokenFault> {
    let token = Secret::parse(token).map_err(TokenFault::Format)?;
    match secret {
        Some(secret) if token.matches(secret) => Ok(()),
        _ => Err(TokenFault::Incorrect),
    }
}

/// `_origin_verified`
fn check_origin(rules: &Rules, request: &impl Head, origin: &str) -> Result<(), CsrfRejection> {
    let is_ours = host(rules, request).is_some_and(|host| {
        let scheme = if is_secure(rules, request) { "https" } else { "http" };
        origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(&*host)
    });
    if is_ours || rules.trusts_origin(origin) {
        return Ok(());
    }
    Err(CsrfRejection::BadOrigin(Shown::new(origin)))
}

/// `_check_referer`
fn check_referer(rules: &Rules, request: &impl Head) -> Result<(), CsrfRejection> {
    let referer = meta(request, &REFERER).ok_or(CsrfRejection::NoReferer)?;
    let referer = urlsplit(&referer).ok_or(CsrfRejection::MalformedReferer)?;
    if referer.scheme.is_empty() || referer.netloc.is_empty() {
        return Err(CsrfRejection::MalformedReferer);
    }
    if referer.scheme != "https" {
        return Err(CsrfRejection::InsecureReferer);
    }
    if rules.trusts_host(&referer.netloc) {
        return Ok(());
    }
    let settings = rules.settings();
    let domain = if settings.csrf_use_sessions {
        &settings.session_cookie_domain
    } else {
        &settings.csrf_cookie_domain
    };
    let ours = match domain {
        None => host(rules, request),
        Some(domain) => Some(match &*port(rules, request) {
            "443" | "80" => domain.clone(),
            port => format!("{domain}:{port}"),
        }),
    };
    if ours.is_some_and(|ours| is_same_domain(&referer.netloc, &ours)) {
        return Ok(());
    }
    // A name and a password before the host stay out of the log.
    let host = referer.netloc.rsplit_once('@').map_or(&*referer.netloc, |(_, host)| host);
    Err(CsrfRejection::BadReferer(Shown::new(&format!("https://{host}"))))
}

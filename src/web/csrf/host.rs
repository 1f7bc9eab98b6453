//! Which host a request names, whether it is one of ours, and whether the request came over TLS:
//! `HttpRequest.get_host`, `get_port`, `is_secure` of Django, and `is_same_domain`.

use http::header::{HOST, HeaderName};

use super::rules::Rules;
use crate::web::head::Head;

/// A header as Django finds it in `META`: several lines joined by commas, each byte a character.
pub(super) fn meta(request: &impl Head, name: &HeaderName) -> Option<String> {
    let mut lines = request.lines(name);
    let mut value = latin_1(lines.next()?);
    for line in lines {
        value.push(',');
        value.push_str(&latin_1(line));
    }
    Some(value)
}

pub(super) fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// `HttpRequest.get_host`; `None` for Django's `DisallowedHost`.
pub(super) fn host(rules: &Rules, request: &impl Head) -> Option<String> {
    let host = raw_host(rules, request);
    let domain = domain(&host)?;
    rules
        .allowed_hosts()
        .any(|pattern| pattern == "*" || is_same_domain(&domain, pattern))
        .then_some(host)
}

/// `HttpRequest.get_port`.
pub(super) fn port(rules: &Rules, request: &impl Head) -> String {
    let settings = rules.settings();
    let forwarded = HeaderName::from_static("x-forwarded-port");
    let forwarded = settings.use_x_forwarded_port.then(|| meta(request, &forwarded));
    forwarded.flatten().unwrap_or_else(|| {
        let usual = if is_secure(rules, request) { 443 } else { 80 };
        settings.server_port.unwrap_or(usual).to_string()
    })
}

/// `HttpRequest.is_secure`.
pub(super) fn is_secure(rules: &Rules, request: &impl Head) -> bool {
    let settings = rules.settings();
    let Some((header, secure)) = rules.proxy_header() else { return settings.server_secure };
    meta(request, header).map_or(settings.server_secure, |value| {
        let first = value.split(',').next().unwrap_or_default();
        super::header::strip(first) == secure
    })
}

fn raw_host(rules: &Rules, request: &impl Head) -> String {
    let settings = rules.settings();
    let forwarded = HeaderName::from_static("x-forwarded-host");
    let forwarded = settings.use_x_forwarded_host.then(|| meta(request, &forwarded));
    if let Some(host) = forwarded.flatten().or_else(|| meta(request, &HOST)) {
        return host;
    }
    // HTTP/2 has it here; servers of Python pass that on as the header.
    if let Some(authority) = request.authority() {
        return authority.to_owned();
    }
    let port = port(rules, request);
    let usual = if is_secure(rules, request) { "443" } else { "80" };
    if port == usual {
        settings.server_name.clone()
    } else {
        format!("{}:{port}", settings.server_name)
    }
}

/// `split_domain_port`, the domain of it, in lower case; `None` where that is empty.
fn domain(host: &str) -> Option<String> {
    let host = host.to_lowercase();
    let domain = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (is_address(address) && is_port(port)).then(|| &host[..address.len() + 2])?
    } else {
        let (domain, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        let is_domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        (domain.bytes().all(is_domain) && is_port(port)).then_some(domain)?
    };
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    (!domain.is_empty()).then(|| domain.to_owned())
}

/// `[a-f0-9]*:[a-f0-9.:]+`
fn is_address(text: &str) -> bool {
    text.split_once(':').is_some_and(|(start, rest)| {
        start.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:".contains(&byte))
    })
}

/// Nothing, or a colon and digits.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// `django.utils.http.is_same_domain`: the pattern in lower case, the host as it is.
pub(super) fn is_same_domain(host: &str, pattern: &str) -> bool {
    let pattern = pattern.to_lowercase();
    match pattern.strip_prefix('.') {
        Some(parent) => host.ends_with(&pattern) || host == parent || host == pattern,
        None => !pattern.is_empty() && host == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column is what Django's `split_domain_port` answers.
    #[test]
    fn hosts_have_a_domain_and_perhaps_a_port() {
        for (host, expected) in [
            ("example.com", Some("example.com")),
            ("EXAMPLE.com:8000", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com.:80", Some("example.com")),
            ("example.com..", Some("example.com.")),
            ("[::1]", Some("[::1]")),
            ("[::1]:8000", Some("[::1]")),
            ("[2001:DB8::1]", Some("[2001:db8::1]")),
            ("[:.]", Some("[:.]")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("", None),
            (".", None),
            (".:80", None),
            (":80", None),
            ("example.com:", None),
            ("example.com:http", None),
            ("example.com:80:80", None),
            ("exa_mple.com", None),
            ("user@example.com", None),
            ("example.com/a", None),
            ("a,b", None),
            ("[::1", None),
            ("[]", None),
            ("[1]", None),
            ("[a:]", None),
            ("[::1]a", None),
            ("[::1].", None),
            ("\u{e9}.com", None),
            ("example.com\n", None),
        ] {
            assert_eq!(domain(host).as_deref(), expected, "{host:?}");
        }
    }

    #[test]
    fn a_leading_dot_takes_subdomains_in() {
        for (host, pattern, same) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com", true),
            ("EXAMPLE.com", "EXAMPLE.com", false),
            ("example.com", ".example.com", true),
            ("a.b.example.com", ".example.com", true),
            (".example.com", ".example.com", true),
            ("badexample.com", ".example.com", false),
            ("example.com:80", "example.com", false),
            ("", "", false),
            ("a", ".", false),
            ("", ".", true),
        ] {
            assert_eq!(is_same_domain(host, pattern), same, "{host} {pattern}");
        }
    }
}

//! What is wrong with the settings of the session cookie: what browsers drop, and what is not safe.

use super::catalogue as kinds;
use super::facts::SiteFacts;
use super::finding::{Finding, Severity};
use crate::cli::output::duration;
use crate::session::SameSite;

const DAY: i64 = 86_400;
/// Browsers keep no cookie longer.
const LONGEST: i64 = 400 * DAY;
/// Django's own, and long for what should end with the browser.
const LONG: i64 = 14 * DAY;

/// Names of which browsers take no cookie for what is below them: the most frequent of the public suffixes
/// that have a dot. Those without are suffixes of themselves.
const SUFFIXES: [&str; 32] = [
    "ac.uk",
    "appspot.com",
    "azurewebsites.net",
    "co.at",
    "co.id",
    "co.il",
    "co.in",
    "co.jp",
    "co.kr",
    "co.nz",
    "co.th",
    "co.uk",
    "co.za",
    "com.ar",
    "com.au",
    "com.br",
    "com.cn",
    "com.hk",
    "com.mx",
    "com.sg",
    "com.tr",
    "com.tw",
    "fly.dev",
    "github.io",
    "gov.uk",
    "herokuapp.com",
    "netlify.app",
    "onrender.com",
    "org.uk",
    "pages.dev",
    "pythonanywhere.com",
    "vercel.app",
];

pub(super) fn check(site: &SiteFacts) -> Vec<Finding> {
    let settings = &site.settings;
    let mut found = Vec::new();
    let is_none = settings.cookie_samesite == Some(SameSite::None);
    if is_none && !settings.cookie_secure {
        let seen = "SESSION_COOKIE_SAMESITE is \"None\", and SESSION_COOKIE_SECURE is False";
        found.push(kinds::SAMESITE_NONE_INSECURE.error(seen));
    } else if is_none {
        found.push(kinds::SAMESITE_NONE.warning("SESSION_COOKIE_SAMESITE is \"None\""));
    }
    if settings.cookie_samesite.is_none() {
        found.push(kinds::SAMESITE_MISSING.warning("SESSION_COOKIE_SAMESITE is None or False"));
    }
    if !settings.cookie_secure {
        let severity = if site.debug() { Severity::Note } else { Severity::Warning };
        found.push(kinds::COOKIE_NOT_SECURE.at(severity, "SESSION_COOKIE_SECURE is False"));
    }
    if !settings.cookie_httponly {
        found.push(kinds::COOKIE_HTTPONLY_OFF.warning("SESSION_COOKIE_HTTPONLY is False"));
    }
    if let Some(domain) = &settings.cookie_domain {
        found.extend(check_domain(domain, site.texts("ALLOWED_HOSTS").as_deref()));
    }
    found.extend(check_path(&settings.cookie_path));
    found.extend(check_name(site));
    found.extend(check_age(site));
    found
}

fn check_domain(domain: &str, hosts: Option<&[&str]>) -> Vec<Finding> {
    let bare = domain.strip_prefix('.').unwrap_or(domain).to_ascii_lowercase();
    if let Some(what) = no_host(&bare) {
        return vec![kinds::DOMAIN_INVALID.error(format!("SESSION_COOKIE_DOMAIN {what}"))];
    }
    let mut found = Vec::new();
    if domain.starts_with('.') {
        found.push(kinds::DOMAIN_DOT.note("SESSION_COOKIE_DOMAIN begins with a dot"));
    }
    if !bare.contains('.') || SUFFIXES.contains(&&*bare) {
        let seen = if bare == "localhost" {
            "SESSION_COOKIE_DOMAIN is \"localhost\", which some browsers drop".to_owned()
        } else {
            format!("SESSION_COOKIE_DOMAIN is \"{bare}\", which many sites share")
        };
        found.push(kinds::DOMAIN_PUBLIC.error(seen));
        return found;
    }
    let outside: Vec<_> = hosts
        .unwrap_or_default()
        .iter()
        .filter(|host| **host != "*" && !is_within(host, &bare))
        .collect();
    let all = hosts.unwrap_or_default().len();
    if !outside.is_empty() {
        let severity = if outside.len() == all { Severity::Error } else { Severity::Warning };
        let seen = format!(
            "SESSION_COOKIE_DOMAIN is \"{bare}\"; {} of {all} in ALLOWED_HOSTS are not in it, as \"{}\"",
            outside.len(),
            shown(outside[0]),
        );
        found.push(kinds::DOMAIN_MISMATCH.at(severity, seen));
    }
    found
}

/// What makes a text no name of a host.
fn no_host(domain: &str) -> Option<&'static str> {
    if domain.is_empty() {
        return Some("is no name");
    }
    if domain.contains("://") {
        return Some("holds a scheme, as in a URL");
    }
    if domain.contains('/') {
        return Some("holds a path");
    }
    if domain.parse::<std::net::IpAddr>().is_ok() || domain.starts_with('[') {
        return Some("is an IP address, for which browsers take no Domain");
    }
    if domain.contains(':') {
        return Some("holds a port");
    }
    if domain.contains('*') {
        return Some("holds an asterisk; hosts below are included as it is");
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (!domain.split('.').all(is_label)).then_some("is no name of a host")
}

/// Whether a host of `ALLOWED_HOSTS` gets cookies of a domain. One with a dot before it is all below, too.
fn is_within(host: &str, domain: &str) -> bool {
    let host = host.strip_prefix('.').unwrap_or(host).to_ascii_lowercase();
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// A name as it may be put into a sentence.
fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(80).collect()
}

fn check_path(path: &str) -> Option<Finding> {
    if path == "/" {
        return None;
    }
    if !path.starts_with('/') {
        // Browsers then take the path of the page.
        return Some(kinds::COOKIE_PATH.error("SESSION_COOKIE_PATH does not begin with a slash"));
    }
    Some(kinds::COOKIE_PATH.warning(format!("SESSION_COOKIE_PATH is \"{}\"", shown(path))))
}

fn check_name(site: &SiteFacts) -> Vec<Finding> {
    let settings = &site.settings;
    let name = &*settings.cookie_name;
    let mut found = Vec::new();
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if !name.bytes().all(is_token) {
        let seen = "SESSION_COOKIE_NAME holds characters that no name of a cookie has";
        found.push(kinds::COOKIE_NAME_INVALID.error(seen));
    }
    for other in ["CSRF_COOKIE_NAME", "LANGUAGE_COOKIE_NAME"] {
        // With CSRF_USE_SESSIONS there is no such cookie.
        let is_unused = other == "CSRF_COOKIE_NAME"
            && site.values.get("CSRF_USE_SESSIONS").is_some_and(|used| used == true);
        if site.text(other) == Some(name) && !is_unused {
            let seen = format!("SESSION_COOKIE_NAME and {other} are the same");
            found.push(kinds::COOKIE_NAME_TAKEN.error(seen));
        }
    }
    // Browsers compare these without regard to case.
    let lower = name.to_ascii_lowercase();
    let is_host = lower.starts_with("__host-");
    let mut broken = Vec::new();
    if (is_host || lower.starts_with("__secure-")) && !settings.cookie_secure {
        broken.push("SESSION_COOKIE_SECURE is False");
    }
    if is_host && settings.cookie_domain.is_some() {
        broken.push("SESSION_COOKIE_DOMAIN is set");
    }
    if is_host && settings.cookie_path != "/" {
        broken.push("SESSION_COOKIE_PATH is not \"/\"");
    }
    if !broken.is_empty() {
        let prefix = if is_host { "__Host-" } else { "__Secure-" };
        let seen = format!("SESSION_COOKIE_NAME begins with {prefix}, and {}", broken.join(", "));
        found.push(kinds::COOKIE_PREFIX.error(seen));
    }
    found
}

fn check_age(site: &SiteFacts) -> Vec<Finding> {
    let settings = &site.settings;
    let age = settings.cookie_age;
    let mut found = Vec::new();
    if age <= 0 {
        found.push(kinds::COOKIE_AGE.error(format!("SESSION_COOKIE_AGE is {age}")));
    } else if age > LONGEST {
        let seen = format!("SESSION_COOKIE_AGE is {}", duration(age));
        found.push(kinds::COOKIE_AGE_LONG.warning(seen));
    }
    if settings.expire_at_browser_close && age >= LONG {
        let seen = format!(
            "SESSION_EXPIRE_AT_BROWSER_CLOSE is True, SESSION_COOKIE_AGE is {}",
            duration(age)
        );
        found.push(kinds::BROWSER_CLOSE_AGE.warning(seen));
    }
    if settings.save_every_request && site.engine() != Some("signed_cookies") {
        found.push(kinds::SAVE_EVERY_REQUEST.note("SESSION_SAVE_EVERY_REQUEST is True"));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::facts::SiteFacts;
    use super::check;

    fn ids(settings: Value) -> Vec<&'static str> {
        let Value::Object(mut values) = settings else { panic!("an object") };
        values.entry("SESSION_COOKIE_SECURE").or_insert(json!(true));
        check(&SiteFacts::of(values)).into_iter().map(|found| found.kind.id).collect()
    }

    #[test]
    fn django_s_defaults_with_secure_are_right() {
        assert!(ids(json!({})).is_empty());
    }

    #[test]
    fn domains_are_judged_as_browsers_do() {
        let hosts = json!(["shop.example.com", ".example.com"]);
        for (domain, expected) in [
            ("example.com", &[][..]),
            ("EXAMPLE.com", &[]),
            (".example.com", &["cookie-domain-leading-dot"]),
            ("shop.example.com", &["cookie-domain-mismatch"]),
            ("ample.com", &["cookie-domain-mismatch"]),
            ("com", &["cookie-domain-public-suffix"]),
            (".co.uk", &["cookie-domain-leading-dot", "cookie-domain-public-suffix"]),
            ("localhost", &["cookie-domain-public-suffix"]),
            ("https://example.com", &["cookie-domain-invalid"]),
            ("example.com:8000", &["cookie-domain-invalid"]),
            ("example.com/shop", &["cookie-domain-invalid"]),
            ("*.example.com", &["cookie-domain-invalid"]),
            ("127.0.0.1", &["cookie-domain-invalid"]),
            ("[::1]", &["cookie-domain-invalid"]),
            ("example..com", &["cookie-domain-invalid"]),
            (".", &["cookie-domain-invalid"]),
        ] {
            let found = ids(json!({"SESSION_COOKIE_DOMAIN": domain, "ALLOWED_HOSTS": hosts}));
            assert_eq!(found, expected, "{domain}");
        }
        assert!(ids(json!({"SESSION_COOKIE_DOMAIN": "a.org", "ALLOWED_HOSTS": ["*"]})).is_empty());
    }

    #[test]
    fn names_with_a_prefix_have_rules() {
        let host = json!({"SESSION_COOKIE_NAME": "__Host-sid"});
        assert!(ids(host).is_empty());
        for broken in [
            json!({"SESSION_COOKIE_NAME": "__host-sid", "SESSION_COOKIE_PATH": "/a"}),
            json!({"SESSION_COOKIE_NAME": "__Host-sid", "SESSION_COOKIE_DOMAIN": "example.com"}),
            json!({"SESSION_COOKIE_NAME": "__Secure-sid", "SESSION_COOKIE_SECURE": false}),
        ] {
            assert!(ids(broken).contains(&"cookie-prefix"));
        }
    }

    #[test]
    fn a_name_may_be_that_of_a_cookie_that_is_not_used() {
        let same = |uses| json!({"CSRF_COOKIE_NAME": "sessionid", "CSRF_USE_SESSIONS": uses});
        assert_eq!(ids(same(false)), ["cookie-name-taken"]);
        assert!(ids(same(true)).is_empty());
    }

    #[test]
    fn debug_makes_it_a_note() {
        let Value::Object(values) = json!({"DEBUG": true}) else { panic!() };
        let found = check(&SiteFacts::of(values));
        assert_eq!(found[0].severity.name(), "note");
    }
}

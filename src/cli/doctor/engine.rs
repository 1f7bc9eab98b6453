//! What is wrong with the engine: its serializer, cache and directory, and what has to be around it.

use serde_json::Value;

use super::catalogue as kinds;
use super::facts::SiteFacts;
use super::finding::Finding;
use crate::codec::Serializer;
use crate::store::inspect::DirectoryFacts;

const SESSIONS: &str = "django.contrib.sessions.middleware.SessionMiddleware";
const AUTHENTICATION: &str = "django.contrib.auth.middleware.AuthenticationMiddleware";
const MESSAGES: &str = "django.contrib.messages.middleware.MessageMiddleware";
/// What Django's caches hold unless they are told otherwise.
const MAX_ENTRIES: u64 = 300;
/// So few sessions no site has for long.
const FEW: u64 = 10_000;

/// `scheme` is that of the store's address, `directory` what the file system says of `SESSION_FILE_PATH`.
pub(super) fn check(
    site: &SiteFacts,
    scheme: Option<&str>,
    directory: Option<&DirectoryFacts>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(check_serializer(site));
    found.extend(check_cache(site));
    found.extend(check_middleware(site));
    let engine = site.engine();
    if let (Some("db" | "cached_db"), Some(apps)) = (engine, site.texts("INSTALLED_APPS"))
        && !apps.contains(&"django.contrib.sessions")
    {
        let seen = "django.contrib.sessions is not in INSTALLED_APPS";
        found.push(kinds::SESSIONS_APP_MISSING.error(seen));
    }
    if engine == Some("signed_cookies") {
        found.push(kinds::SIGNED_COOKIES.note("SESSION_ENGINE is signed_cookies"));
    }
    if let Some(directory) = directory {
        found.extend(check_directory(directory));
    }
    found.extend(engine.zip(scheme).and_then(|(engine, scheme)| check_place(engine, scheme)));
    found
}

fn check_serializer(site: &SiteFacts) -> Option<Finding> {
    if site.settings.serializer != Serializer::Pickle {
        return None;
    }
    let is_django_s = site
        .text("SESSION_SERIALIZER")
        .is_some_and(|path| path.starts_with("django.contrib.sessions."));
    if is_django_s && site.django().is_some_and(|version| version >= (5, 0)) {
        let seen = "SESSION_SERIALIZER is Django's PickleSerializer, DJANGO_VERSION 5.0 or later";
        return Some(kinds::SERIALIZER_GONE.error(seen));
    }
    Some(kinds::SERIALIZER_PICKLE.warning("SESSION_SERIALIZER is a PickleSerializer"))
}

fn check_cache(site: &SiteFacts) -> Vec<Finding> {
    let Some(engine @ ("cache" | "cached_db")) = site.engine() else { return Vec::new() };
    let Some(Value::Object(caches)) = site.values.get("CACHES_BACKENDS") else { return Vec::new() };
    let alias = site.text("SESSION_CACHE_ALIAS").unwrap_or("default");
    let Some(cache) = caches.get(alias) else {
        let seen = "SESSION_CACHE_ALIAS names none of CACHES";
        return vec![kinds::CACHE_MISSING.error(seen)];
    };
    let class = cache["BACKEND"].as_str().unwrap_or_default();
    let name = class.strip_prefix("django.core.cache.backends.");
    let is_alone = engine == "cache";
    let max_entries = cache["MAX_ENTRIES"].as_u64().unwrap_or(MAX_ENTRIES);
    match name {
        Some("locmem.LocMemCache") => {
            let seen = format!("SESSION_ENGINE is {engine}, its cache is LocMemCache");
            vec![kinds::CACHE_LOCAL.error(seen)]
        }
        Some("dummy.DummyCache") => {
            let seen = format!("SESSION_ENGINE is {engine}, its cache is DummyCache");
            let dummy = kinds::CACHE_DUMMY;
            vec![if is_alone { dummy.error(seen) } else { dummy.warning(seen) }]
        }
        Some("db.DatabaseCache" | "filebased.FileBasedCache") if is_alone && max_entries < FEW => {
            let seen = format!("the cache of the sessions keeps {max_entries} entries at most");
            vec![kinds::CACHE_CULLS.error(seen)]
        }
        _ => Vec::new(),
    }
}

fn check_middleware(site: &SiteFacts) -> Vec<Finding> {
    let Some(paths) = site.texts("MIDDLEWARE") else { return Vec::new() };
    // What each of them is, or inherits from.
    let bases: Vec<&str> = match site.values.get("MIDDLEWARE_BASES").and_then(Value::as_array) {
        Some(bases) if bases.len() == paths.len() => {
            bases.iter().zip(&paths).map(|(base, path)| base.as_str().unwrap_or(path)).collect()
        }
        _ => paths,
    };
    let place = |wanted: &str| bases.iter().position(|base| *base == wanted);
    let mut found = Vec::new();
    let Some(sessions) = place(SESSIONS) else {
        let seen = "no SessionMiddleware is in MIDDLEWARE";
        return vec![kinds::SESSION_MIDDLEWARE_MISSING.error(seen)];
    };
    if bases.iter().filter(|base| **base == SESSIONS).count() > 1 {
        found.push(kinds::SESSION_MIDDLEWARE_TWICE.warning("SessionMiddleware is there twice"));
    }
    for (other, name) in
        [(AUTHENTICATION, "AuthenticationMiddleware"), (MESSAGES, "MessageMiddleware")]
    {
        if place(other).is_some_and(|other| other < sessions) {
            let seen = format!("{name} comes before SessionMiddleware");
            found.push(kinds::MIDDLEWARE_ORDER.error(seen));
        }
    }
    let has_users =
        site.texts("INSTALLED_APPS").is_some_and(|apps| apps.contains(&"django.contrib.auth"));
    if has_users && place(AUTHENTICATION).is_none() {
        let seen = "django.contrib.auth is installed, AuthenticationMiddleware is not there";
        found.push(kinds::AUTH_MIDDLEWARE_MISSING.warning(seen));
    }
    found
}

/// The directory of the file engine.
pub(super) fn check_directory(directory: &DirectoryFacts) -> Vec<Finding> {
    let path = &directory.path;
    if !path.exists || !path.is_directory {
        let seen = if path.exists { "it is no directory" } else { "it does not exist" };
        let seen = format!("of the directory for sessions: {seen}");
        return vec![kinds::FILE_PATH_MISSING.error(seen)];
    }
    let mut found = Vec::new();
    if !path.is_writable {
        found.push(kinds::FILE_PATH_READ_ONLY.error("the directory for sessions takes no files"));
    }
    if directory.is_temporary {
        let seen = "sessions are in the directory for temporary files";
        found.push(kinds::FILE_PATH_TEMPORARY.warning(seen));
    } else if path.others_read || path.others_write {
        let what = if path.others_write { "write to" } else { "read" };
        let seen = format!("others than the owner may {what} the directory for sessions");
        found.push(kinds::FILE_PATH_SHARED.warning(seen));
    }
    found
}

/// Whether an engine keeps its sessions at an address of this kind.
fn check_place(engine: &str, scheme: &str) -> Option<Finding> {
    let is_table = matches!(scheme, "mariadb" | "mysql" | "postgres" | "postgresql" | "sqlite");
    let is_server = scheme == "memcached" || scheme.starts_with("redis");
    let fits = match engine {
        "db" | "cached_db" => is_table,
        // That of a DatabaseCache is a table.
        "cache" => is_server || is_table,
        "file" => scheme == "file",
        "signed_cookies" => scheme == "signed_cookies",
        _ => true,
    };
    let seen = || format!("SESSION_ENGINE is {engine}, the address leads to {scheme}");
    (!fits).then(|| kinds::ENGINE_STORE.warning(seen()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::facts::SiteFacts;
    use super::check;

    fn ids(settings: Value, scheme: Option<&str>) -> Vec<&'static str> {
        let Value::Object(values) = settings else { panic!("an object") };
        let found = check(&SiteFacts::of(values), scheme, None);
        found.into_iter().map(|found| found.kind.id).collect()
    }

    #[test]
    fn a_class_of_the_site_counts_as_what_it_inherits_from() {
        let settings = json!({
            "MIDDLEWARE": ["site.Session", "site.Auth"],
            "MIDDLEWARE_BASES": [
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
            ],
        });
        assert!(ids(settings, None).is_empty());
        let settings = json!({"MIDDLEWARE": ["site.Session"], "MIDDLEWARE_BASES": [null]});
        assert_eq!(ids(settings, None), ["session-middleware-missing"]);
    }

    #[test]
    fn engines_and_addresses_belong_together() {
        for (engine, scheme, fits) in [
            ("db", "postgres", true),
            ("db", "redis", false),
            ("cache", "redis+cluster", true),
            ("cache", "file", false),
            ("cached_db", "sqlite", true),
            ("file", "file", true),
            ("signed_cookies", "mysql", false),
            ("native", "redis", true),
        ] {
            let path = format!("django.contrib.sessions.backends.{engine}");
            let found = ids(json!({"SESSION_ENGINE": path}), Some(scheme));
            assert_eq!(!found.contains(&"engine-is-elsewhere"), fits, "{engine} {scheme}");
        }
    }

    #[test]
    fn small_caches_lose_sessions_of_the_cache_engine_alone() {
        let settings = |engine: &str, entries: Value| {
            json!({
                "SESSION_ENGINE": format!("django.contrib.sessions.backends.{engine}"),
                "CACHES_BACKENDS": {"default": {
                    "BACKEND": "django.core.cache.backends.db.DatabaseCache",
                    "MAX_ENTRIES": entries,
                }},
            })
        };
        assert_eq!(ids(settings("cache", Value::Null), None), ["cache-culls"]);
        assert_eq!(ids(settings("cache", json!(1_000_000)), None), [""; 0]);
        assert_eq!(ids(settings("cached_db", Value::Null), None), [""; 0]);
    }
}

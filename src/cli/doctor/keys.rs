//! What is wrong with the keys and with the settings as such.

use super::catalogue as kinds;
use super::facts::{KeysFacts, SiteFacts};
use super::finding::{Finding, Severity};
use crate::codec::Format;

/// What is said of the settings as a whole.
pub(super) fn settings(site: &SiteFacts) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        site.invalid.iter().map(|message| kinds::SETTING_INVALID.error(message)).collect();
    if site.file_readable {
        found.push(kinds::SETTINGS_READABLE.warning(
            "the file of --settings holds SECRET_KEY, and others than its owner may read it",
        ));
    }
    if !site.has_file {
        found.push(kinds::SETTINGS_INCOMPLETE.note("there is no file of settings"));
    } else if ["CACHES_BACKENDS", "INSTALLED_APPS", "MIDDLEWARE", "SESSION_ENGINE"]
        .iter()
        .any(|name| !site.values.contains_key(*name))
    {
        found.push(kinds::SETTINGS_INCOMPLETE.note("the file of settings lacks some of them"));
    }
    if site.debug() {
        found.push(kinds::DEBUG_ON.note("DEBUG is True"));
    }
    let weak: Vec<_> = site
        .settings
        .accept
        .iter()
        .filter(|format| **format != Format::Signed)
        .map(|format| format.name())
        .collect();
    if !weak.is_empty() {
        let seen = format!("SESSION_ACCEPT has {}", weak.join(", "));
        found.push(kinds::WEAK_FORMAT_ACCEPTED.note(seen));
    }
    found
}

pub(super) fn check(keys: &KeysFacts, site: &SiteFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    match keys.primary {
        None => found.push(kinds::SECRET_KEY_MISSING.error("no key is given")),
        Some(key) => {
            let severity = if site.debug() { Severity::Note } else { Severity::Warning };
            if key.is_short() {
                let seen = format!(
                    "SECRET_KEY has {} characters, {} different ones; at least 50 and 5 are asked for",
                    key.characters, key.distinct
                );
                found.push(kinds::SECRET_KEY_SHORT.at(severity, seen));
            }
            if key.is_generated_by_startproject {
                let seen = "SECRET_KEY begins with \"django-insecure-\"";
                found.push(kinds::SECRET_KEY_INSECURE.at(severity, seen));
            }
        }
    }
    for at in &keys.same_as_primary {
        let seen = format!("SECRET_KEY_FALLBACKS[{at}] is SECRET_KEY");
        found.push(kinds::SECRET_KEY_IN_FALLBACKS.warning(seen));
    }
    for at in &keys.duplicates {
        let seen = format!("SECRET_KEY_FALLBACKS[{at}] is there before");
        found.push(kinds::FALLBACK_DUPLICATE.warning(seen));
    }
    for (at, key) in keys.fallbacks.iter().enumerate() {
        if key.is_short() || key.is_generated_by_startproject {
            let seen = format!(
                "SECRET_KEY_FALLBACKS[{at}] has {} characters, {} different ones{}",
                key.characters,
                key.distinct,
                if key.is_generated_by_startproject { ", and is of startproject" } else { "" },
            );
            let severity = if site.debug() { Severity::Note } else { Severity::Warning };
            found.push(kinds::FALLBACK_WEAK.at(severity, seen));
        }
    }
    if site.empty_fallback {
        found.push(kinds::FALLBACK_EMPTY.warning("SECRET_KEY_FALLBACKS holds an empty text"));
    }
    let given = keys.fallbacks.len() as u64 + u64::from(site.empty_fallback);
    if let Some(expected) = keys.expected.filter(|&expected| expected != given) {
        let seen = format!("the site has {expected} fallback keys, {given} are given");
        found.push(kinds::FALLBACK_COUNT.warning(seen));
    }
    found
}

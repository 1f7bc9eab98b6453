//! Which of the sessions of a store are meant: by user, by age, by key, by what they are.

use jiff::Timestamp;

use super::error::CliError;
use super::handle::handle;
use super::output::{Table, duration, repr};
use crate::codec::KeyMatch;
use crate::session::SessionSettings;
use crate::store::bulk::{Coding, OpenError, Opened, StoredSession, user};

/// What a session has to be.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which sessions")]
pub(super) struct SelectArguments {
    /// Those of this user, by primary key; may be given more than once
    #[arg(long, value_name = "ID")]
    pub(super) user: Vec<String>,
    /// Those of nobody
    #[arg(long, conflicts_with = "user")]
    pub(super) anonymous: bool,
    /// Those with these handles, as `list` shows them
    #[arg(long, value_name = "HANDLE")]
    pub(super) session: Vec<String>,
    /// All but those with these handles
    #[arg(long, value_name = "HANDLE")]
    pub(super) except: Vec<String>,
    /// Those that were saved longer ago, such as 90d, 12h or 30m
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(super) older_than: Option<i64>,
    /// Those that one of SECRET_KEY_FALLBACKS signed: its place in the list, or "any"
    #[arg(long, value_name = "INDEX", value_parser = parse_fallback)]
    pub(super) fallback: Option<Fallback>,
    /// Those whose stored value is longer, in bytes
    #[arg(long, value_name = "BYTES")]
    pub(super) larger_than: Option<usize>,
}

/// Which of the fallback keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    Any,
    Index(usize),
}

fn parse_fallback(text: &str) -> Result<Fallback, &'static str> {
    match text {
        "any" => Ok(Fallback::Any),
        _ => text.parse().map(Fallback::Index).map_err(|_| "a number from 0 on, or any"),
    }
}

/// Seconds out of a number with a unit.
pub(super) fn parse_age(text: &str) -> Result<i64, &'static str> {
    const EXPECTED: &str = "a number and a unit: 30m, 12h, 90d or 2w";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(EXPECTED)?;
    let number: i64 = number.parse().map_err(|_| EXPECTED)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(EXPECTED),
    };
    number.checked_mul(unit).filter(|seconds| *seconds >= 0).ok_or(EXPECTED)
}

impl SelectArguments {
    /// Whether nothing is asked for, so that everything is meant.
    pub(super) fn is_all(&self) -> bool {
        self.user.is_empty()
            && !self.anonymous
            && self.session.is_empty()
            && self.older_than.is_none()
            && self.fallback.is_none()
            && self.larger_than.is_none()
    }

    /// That the store can tell what is asked for.
    ///
    /// # Errors
    ///
    /// If the time of saving or the key is asked for, and nothing is signed there.
    pub(super) fn check(&self, coding: &Coding) -> Result<(), CliError> {
        if !coding.is_signed() && (self.older_than.is_some() || self.fallback.is_some()) {
            return Err(CliError::NotSigned("--older-than and --fallback"));
        }
        Ok(())
    }

    /// Whether a session is meant; none if it is the session that would tell, and cannot be read.
    pub(super) fn takes(
        &self,
        session: &StoredSession,
        found: &Result<Opened, OpenError>,
        now: Timestamp,
    ) -> Option<bool> {
        if self.larger_than.is_some_and(|bytes| session.value.len() <= bytes) {
            return Some(false);
        }
        if !self.session.is_empty() || !self.except.is_empty() {
            let handle = handle(&session.session_key);
            let is = |given: &String| given.eq_ignore_ascii_case(&handle);
            if !self.session.is_empty() && !self.session.iter().any(is)
                || self.except.iter().any(is)
            {
                return Some(false);
            }
        }
        let asks = !self.user.is_empty()
            || self.anonymous
            || self.older_than.is_some()
            || self.fallback.is_some();
        if !asks {
            return Some(true);
        }
        let opened = found.as_ref().ok()?;
        let user = user(&opened.data);
        let is_meant = (self.user.is_empty()
            || user.as_ref().is_some_and(|user| self.user.contains(user)))
            && !(self.anonymous && user.is_some())
            && self.older_than.is_none_or(|age| {
                opened.signed_at.is_some_and(|signed_at| now.as_second() - signed_at > age)
            })
            && self.fallback.is_none_or(|fallback| match (fallback, opened.key) {
                (Fallback::Any, Some(KeyMatch::Fallback(_))) => true,
                (Fallback::Index(wanted), Some(KeyMatch::Fallback(index))) => wanted == index,
                _ => false,
            });
        Some(is_meant)
    }
}

/// What `list` says of a session.
pub(super) struct Listed {
    pub(super) handle: String,
    pub(super) user: Option<String>,
    /// Seconds from now, negative if it has expired.
    pub(super) expires_in: Option<i64>,
    pub(super) saved_ago: Option<i64>,
    pub(super) bytes: usize,
    pub(super) form: String,
}

impl Listed {
    pub(super) fn push_to(&self, table: &mut Table) {
        table.row("handle", self.handle.clone());
        let user = self.user.as_deref().map_or_else(|| "nobody".to_owned(), repr::plain);
        table.row("user", user);
        table.row(
            "expires",
            match self.expires_in {
                None => "never".to_owned(),
                Some(left) if left < 0 => format!("{} ago", duration(left)),
                Some(left) => format!("in {}", duration(left)),
            },
        );
    }

    pub(super) fn new(
        session: &StoredSession,
        found: &Result<Opened, OpenError>,
        coding: &Coding,
        settings: &SessionSettings,
        now: Timestamp,
    ) -> Self {
        let end = session.end(settings);
        let opened = found.as_ref().ok();
        Self {
            handle: handle(&session.session_key),
            user: opened.and_then(|it| user(&it.data)),
            expires_in: end.map(|end| end.as_second() - now.as_second()),
            saved_ago: opened.and_then(|it| it.signed_at).map(|at| now.as_second() - at),
            bytes: session.value.len(),
            form: match opened {
                None => "unreadable".to_owned(),
                Some(opened) => match (opened.format, coding.is_signed()) {
                    (Some(format), true) => format!("{} {}", format.name(), opened.serializer),
                    _ => opened.serializer.to_owned(),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_age;

    #[test]
    fn an_age_has_a_unit() {
        for (text, seconds) in
            [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), ("0s", 0), ("2w", 1_209_600)]
        {
            assert_eq!(parse_age(text), Ok(seconds));
        }
        for text in ["", "d", "90", "-1d", "1y", "1.5h", "9999999999999999999w", "ä"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }
}

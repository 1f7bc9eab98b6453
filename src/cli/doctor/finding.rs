//! What the doctor says: a kind of trouble, how bad it is here, and what was seen of it.

use serde_json::{Value, json};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Sessions are lost, or can be stolen, or are not kept at all.
    Error,
    /// It will be trouble, or is for some.
    Warning,
    /// Worth to be known.
    Note,
}

impl Severity {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A kind of trouble. Its name stays the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) id: &'static str,
    pub(super) why: &'static str,
    pub(super) fix: &'static str,
}

/// Something that was found. It holds no key, password, session key, cookie or session.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) severity: Severity,
    pub(super) seen: String,
}

impl Kind {
    pub(super) fn error(self, seen: impl Into<String>) -> Finding {
        self.at(Severity::Error, seen)
    }

    pub(super) fn warning(self, seen: impl Into<String>) -> Finding {
        self.at(Severity::Warning, seen)
    }

    pub(super) fn note(self, seen: impl Into<String>) -> Finding {
        self.at(Severity::Note, seen)
    }

    pub(super) fn at(self, severity: Severity, seen: impl Into<String>) -> Finding {
        Finding { kind: self, severity, seen: seen.into() }
    }
}

impl Finding {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.kind.id,
            "severity": self.severity.name(),
            "seen": self.seen,
            "why": self.kind.why,
            "fix": self.kind.fix,
        })
    }
}

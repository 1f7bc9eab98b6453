//! What was found, for people and for programs.

use std::fmt::Write as _;

use anstyle::Style;
use serde_json::{Value, json};

use super::cookie::Explanation;
use super::finding::{Finding, Severity};
use crate::cli::output::{style, styled};

/// All that is said at the end.
#[derive(Debug)]
pub(super) struct Report {
    /// What was looked at.
    pub(super) looked_at: Vec<(&'static str, String)>,
    pub(super) findings: Vec<Finding>,
    pub(super) cookie: Option<Explanation>,
}

impl Report {
    pub(super) fn new(
        looked_at: Vec<(&'static str, String)>,
        mut findings: Vec<Finding>,
        cookie: Option<Explanation>,
    ) -> Self {
        findings.extend(cookie.iter().map(|cookie| cookie.finding.clone()));
        // What is worst comes first; what is equal stays in the order in which it was looked at.
        findings.sort_by_key(|finding| finding.severity);
        Self { looked_at, findings, cookie }
    }

    /// The worst of it; none if there is nothing.
    pub(super) fn worst(&self) -> Option<Severity> {
        self.findings.first().map(|finding| finding.severity)
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    pub(super) fn to_json(&self) -> String {
        let looked_at: serde_json::Map<String, Value> = self
            .looked_at
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        let document = json!({
            "django_session_doctor": 1,
            "looked_at": looked_at,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "cookie": self.cookie.as_ref().map(Explanation::to_json),
        });
        format!("{document}\n")
    }

    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        let width = self.looked_at.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in &self.looked_at {
            let name = styled(style::QUIET, format_args!("{name:width$}"));
            let _ = writeln!(out, "{name}  {value}");
        }
        if let Some(cookie) = &self.cookie {
            let _ = writeln!(out, "\n{}", styled(style::HEADING, "The cookie"));
            cookie.push_to(&mut out);
        }
        for finding in &self.findings {
            let Finding { kind, severity, seen } = finding;
            let mark = format!("{}[{}]", severity.name(), kind.id);
            let _ = writeln!(out, "\n{}: {seen}", styled(style_of(*severity), mark));
            let _ = writeln!(out, "  {}", kind.why);
            let _ = writeln!(out, "  {} {}", styled(style::QUIET, "fix:"), kind.fix);
        }
        let _ = writeln!(
            out,
            "\n{}, {}, {}",
            counted(self.count(Severity::Error), "error"),
            counted(self.count(Severity::Warning), "warning"),
            counted(self.count(Severity::Note), "note"),
        );
        out
    }
}

fn style_of(severity: Severity) -> Style {
    match severity {
        Severity::Error => style::ERROR,
        Severity::Warning => style::TYPE,
        Severity::Note => style::NAME,
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

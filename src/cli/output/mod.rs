//! What the command prints: colours, the table above a session, errors.
//!
//! Everything that comes out of a session goes through [`repr`], which lets no control character through;
//! escape sequences in the output are the command's own, and there are none without a terminal.

pub(super) mod repr;
pub(super) mod tree;
mod walk;

use std::fmt::Write as _;
use std::io::{self, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;

use super::error::CliError;

/// The colours, each by what it is for.
pub(super) mod style {
    use super::{AnsiColor, Style};

    pub(in crate::cli) const NAME: Style = AnsiColor::Blue.on_default().bold();
    pub(in crate::cli) const TEXT: Style = AnsiColor::Green.on_default();
    pub(in crate::cli) const NUMBER: Style = AnsiColor::Cyan.on_default();
    pub(in crate::cli) const CONSTANT: Style = AnsiColor::Magenta.on_default();
    pub(in crate::cli) const TYPE: Style = AnsiColor::Yellow.on_default();
    pub(in crate::cli) const QUIET: Style = Style::new().dimmed();
    pub(in crate::cli) const HEADING: Style = Style::new().bold();
    pub(in crate::cli) const ERROR: Style = AnsiColor::Red.on_default().bold();
}

/// Text in a style.
pub(super) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Standard output and standard error with one idea of colours.
pub(super) struct Output {
    stdout: AutoStream<io::Stdout>,
    stderr: AutoStream<io::Stderr>,
}

impl Output {
    pub(super) fn new(color: ColorChoice) -> Self {
        let choice = match color {
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        Self {
            stdout: AutoStream::new(io::stdout(), choice),
            stderr: AutoStream::new(io::stderr(), choice),
        }
    }

    pub(super) fn stdout(&mut self) -> &mut impl Write {
        &mut self.stdout
    }

    /// Writes a text to standard output.
    pub(super) fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.stdout.write_all(text.as_bytes()).map_err(CliError::Output)
    }

    /// Writes what a command has done, or has found. Whether that is a success does not depend on who reads it.
    pub(super) fn report(&mut self, text: &str) -> Result<(), CliError> {
        match self.write(text).and_then(|()| self.flush()) {
            Err(error) if error.is_broken_pipe() => Ok(()),
            written => written,
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.stdout.flush().map_err(CliError::Output)
    }

    /// Says what went wrong; there is nobody left to tell if that fails.
    pub(super) fn error(&mut self, error: &CliError) {
        let _ = match error {
            CliError::Decode(diagnosis) => {
                let mark = styled(style::ERROR, format_args!("error[{}]", diagnosis.reason()));
                let advice = super::decode::advice(diagnosis);
                writeln!(self.stderr, "{mark}: {diagnosis}").and_then(|()| match advice {
                    Some(advice) => writeln!(self.stderr, "  try: {advice}"),
                    None => Ok(()),
                })
            }
            _ => writeln!(self.stderr, "{}: {error}", styled(style::ERROR, "error")),
        };
    }
}

/// Rows of names and values above a session.
pub(super) struct Table(Vec<(&'static str, String)>);

impl Table {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn row(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    pub(super) fn push_to(&self, out: &mut String) {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.0 {
            let name = styled(style::QUIET, format_args!("{name:width$}"));
            let _ = writeln!(out, "{name}  {value}");
        }
    }
}

/// A span of time in its two largest units.
pub(super) fn duration(seconds: i64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let seconds = seconds.unsigned_abs();
    let largest = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, name) in UNITS.iter().skip(largest).take(2) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 || parts.is_empty() {
            parts.push(format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
        }
    }
    parts.join(" ")
}

/// A number with separators between thousands.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{duration, grouped};

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (61, "1 minute 1 second"),
            (7200, "2 hours"),
            (-90_000, "1 day 1 hour"),
            (400 * 86_400, "1 year 1 month"),
            (i64::MIN, "292471208677 years 6 months"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn thousands_are_kept_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}

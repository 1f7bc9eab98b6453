//! Numbers in encoded passwords, as Python's `int` reads them.

/// Reads what `int(text)` reads: blanks around, a sign, underscores between digits. What is beyond
/// `i64` comes back as the nearest `i64`: no such number is ever used, only refused.
///
/// Digits of other scripts, which Python takes too, are not read.
pub(super) fn int(text: &str) -> Option<i64> {
    let text = text.trim_matches(|char: char| {
        // Python counts these separators as blanks, Unicode does not.
        char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
    });
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut number = 0_i64;
    for group in digits.split('_') {
        if group.is_empty() {
            return None;
        }
        for byte in group.bytes() {
            let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
            number = number.saturating_mul(10).saturating_add(sign * digit);
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::int;

    #[test]
    fn numbers_are_those_of_python() {
        for (text, number) in [
            ("0", 0),
            ("1000000", 1_000_000),
            (" 12\n", 12),
            ("\u{1f}\u{3000}7\u{a0}", 7),
            ("+5", 5),
            ("-5", -5),
            ("007", 7),
            ("1_000", 1000),
            ("99999999999999999999", i64::MAX),
            ("-99999999999999999999", i64::MIN),
        ] {
            assert_eq!(int(text), Some(number), "{text:?}");
        }
        for text in
            ["", " ", "-", "+", "--1", "+-1", "1 2", "_1", "1_", "1__0", "0x10", "1.0", "- 1"]
        {
            assert_eq!(int(text), None, "{text:?}");
        }
    }
}

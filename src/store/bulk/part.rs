//! A part of a store, and the text by which a later run finds it again.

use std::fmt;
use std::str::FromStr;

/// A part of a store that is read by itself. Nothing in it is a whole session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything.
    Whole,
    /// Blocks of a table of PostgreSQL, the last not included; the very last part has no end.
    Blocks { from: u32, to: Option<u32> },
    /// Rows of a table of SQLite; the first and the last part have no end there.
    Rowids { from: Option<i64>, to: Option<i64> },
    /// Keys from this beginning on and before that one.
    Keys { from: Option<String>, to: Option<String> },
    /// What the server of Redis that has a slot has from a cursor on, which only the server with this
    /// `run_id` knows.
    Cursor { slot: u16, cursor: u64, run_id: String },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn end<T: fmt::Display>(end: Option<&T>) -> String {
            end.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Blocks { from, to } => write!(f, "blocks {from} {}", end(to.as_ref())),
            Self::Rowids { from, to } => {
                write!(f, "rowids {} {}", end(from.as_ref()), end(to.as_ref()))
            }
            Self::Keys { from, to } => {
                write!(f, "keys {} {}", end(from.as_ref()), end(to.as_ref()))
            }
            Self::Cursor { slot, cursor, run_id } => write!(f, "cursor {slot} {cursor} {run_id}"),
        }
    }
}

/// The text is of no part.
#[derive(Debug)]
pub(crate) struct NoPart;

impl FromStr for Part {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        fn end<T: FromStr>(word: &str) -> Result<Option<T>, NoPart> {
            if word == "-" { Ok(None) } else { word.parse().map(Some).map_err(|_| NoPart) }
        }
        let words: Vec<&str> = text.split(' ').collect();
        Ok(match words[..] {
            ["whole"] => Self::Whole,
            ["blocks", from, to] => {
                Self::Blocks { from: from.parse().map_err(|_| NoPart)?, to: end(to)? }
            }
            ["rowids", from, to] => Self::Rowids { from: end(from)?, to: end(to)? },
            ["keys", from, to] => Self::Keys { from: end(from)?, to: end(to)? },
            ["cursor", slot, cursor, run_id] => Self::Cursor {
                slot: slot.parse().map_err(|_| NoPart)?,
                cursor: cursor.parse().map_err(|_| NoPart)?,
                run_id: run_id.to_owned(),
            },
            _ => return Err(NoPart),
        })
    }
}

/// Divides all keys at the beginnings that random ones have, into parts of about equal size. What Django
/// draws are 32 letters and digits; keys of any other kind lie between the same bounds.
pub(super) fn keys(sessions: u64, most: u64) -> Vec<Part> {
    const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut bounds = vec![String::new()];
    while sessions / (bounds.len() as u64) > most && bounds.len() < 36 * 36 * 36 {
        bounds = bounds
            .iter()
            .flat_map(|start| ALPHABET.iter().map(move |char| format!("{start}{}", *char as char)))
            .collect();
    }
    let bounds: Vec<String> = bounds.into_iter().filter(|bound| !bound.is_empty()).collect();
    let starts = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
    let ends = bounds.iter().cloned().map(Some).chain(std::iter::once(None));
    starts.zip(ends).map(|(from, to)| Part::Keys { from, to }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Part, keys};

    #[test]
    fn a_part_is_found_again_by_its_text() {
        for part in [
            Part::Whole,
            Part::Blocks { from: 0, to: Some(512) },
            Part::Blocks { from: 512, to: None },
            Part::Rowids { from: None, to: Some(-5) },
            Part::Keys { from: Some("0a".to_owned()), to: None },
            Part::Cursor { slot: 2, cursor: u64::MAX, run_id: "0a".to_owned() },
            Part::Cursor { slot: 0, cursor: 0, run_id: String::new() },
        ] {
            assert_eq!(part.to_string().parse::<Part>().unwrap(), part);
        }
        for text in
            ["", "blocks", "blocks x 1", "rowids 1", "keys", "whole 1", "cursor 1 -", "cursor 1 2"]
        {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_keys_leave_nothing_out() {
        for sessions in [0, 10_000, 5_000_000] {
            let parts = keys(sessions, 10_000);
            let mut last = None;
            for (index, part) in parts.iter().enumerate() {
                let Part::Keys { from, to } = part else { panic!("{part:?}") };
                assert_eq!((index == 0, from), (last.is_none(), &last));
                last.clone_from(to);
            }
            assert_eq!(last, None);
        }
        assert_eq!(keys(0, 10_000).len(), 1);
        assert_eq!(keys(5_000_000, 10_000).len(), 36 * 36 + 1);
    }
}

//! Lines at depths, drawn as a tree.

use std::fmt::Write as _;

use super::repr::TextLimit;
use super::{grouped, style, styled};

/// Levels that are drawn: what is deeper takes more space to draw than it says.
const MAX_DEPTH: usize = 100;
/// Bytes of lines that are kept even where all of them are wanted, with what each takes by itself.
const MAX_LENGTH: usize = 128 << 20;
const LINE_OVERHEAD: usize = 64;

/// How much of a session is shown.
#[derive(Clone, Copy)]
pub(in crate::cli) struct TreeLimits {
    pub(in crate::cli) lines: usize,
    pub(in crate::cli) text: TextLimit,
}

impl Default for TreeLimits {
    fn default() -> Self {
        Self { lines: 1000, text: TextLimit(1000) }
    }
}

impl TreeLimits {
    /// Everything, within what memory holds.
    pub(in crate::cli) const FULL: Self = Self { lines: usize::MAX, text: TextLimit(usize::MAX) };
}

/// The lines of a tree in their order, each a level below some line before it.
pub(in crate::cli) struct Tree {
    lines: Vec<Line>,
    limits: TreeLimits,
    length: usize,
    hidden: usize,
}

struct Line {
    depth: usize,
    text: String,
}

impl Tree {
    pub(super) fn new(limits: TreeLimits) -> Self {
        Self { lines: Vec::new(), limits, length: 0, hidden: 0 }
    }

    /// Whether a line at this depth would be kept; if not, it is counted.
    pub(super) fn has_room(&mut self, depth: usize) -> bool {
        let has_room =
            depth < MAX_DEPTH && self.lines.len() < self.limits.lines && self.length < MAX_LENGTH;
        self.hidden += usize::from(!has_room);
        has_room
    }

    /// Adds a line and returns its number.
    pub(super) fn push(&mut self, depth: usize, text: String) -> usize {
        self.length += text.len() + LINE_OVERHEAD;
        self.lines.push(Line { depth, text });
        self.lines.len() - 1
    }

    /// Completes a line with what is known once all below it is.
    pub(super) fn append(&mut self, line: usize, text: &str) {
        if let Some(line) = self.lines.get_mut(line) {
            line.text.push_str(text);
        }
    }

    pub(super) fn text_limit(&self) -> TextLimit {
        self.limits.text
    }

    /// Draws it.
    pub(in crate::cli) fn push_to(&self, out: &mut String) {
        // From the end: whether another line follows at each depth before a shallower one.
        let mut follows = [false; MAX_DEPTH];
        let mut is_last = vec![true; self.lines.len()];
        for (line, is_last) in self.lines.iter().zip(&mut is_last).rev() {
            *is_last = !follows[line.depth];
            follows[line.depth] = true;
            follows[line.depth + 1..].fill(false);
        }
        // From the start: a guide at each depth whose last line is still to come.
        let mut guides = [false; MAX_DEPTH];
        for (line, is_last) in self.lines.iter().zip(is_last) {
            let _ = write!(out, "{}", style::QUIET);
            for guide in &guides[..line.depth] {
                out.push_str(if *guide { "│  " } else { "   " });
            }
            out.push_str(if is_last { "└─ " } else { "├─ " });
            let _ = writeln!(out, "{:#}{}", style::QUIET, line.text);
            guides[line.depth] = !is_last;
        }
        if self.hidden > 0 {
            let hidden = format!(
                "… {} more entries; --json has them all{}",
                grouped(self.hidden),
                if self.lines.len() < self.limits.lines { "" } else { ", --full shows more" }
            );
            let _ = writeln!(out, "{}", styled(style::QUIET, hidden));
        }
    }
}

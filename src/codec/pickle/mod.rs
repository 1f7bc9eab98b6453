//! Pickles read and written as data (`pickle`, protocols 0 to 5, of Python 2 and 3).
//!
//! Django's `PickleSerializer` (until 4.2) and all of its caches store pickles. Reading one here builds a
//! [`Graph`]: every opcode adds or changes a node, a class is a name, and a call is noted, never made.
//! What is written back makes Python build the same objects, with the same ones shared. A pickle that
//! refers to something outside itself (persistent ids, extension codes, out-of-band buffers) is refused.
//! Proved by `tests/fixtures/vectors/pickle_types`, and by Python's own `pickle` in
//! `tests/python/test_pickle.py`.

mod json;
mod opcodes;
mod reader;
mod writer;

use thiserror::Error;

use super::graph::Graph;

/// The newest protocol (Python 3.8).
pub const HIGHEST_PROTOCOL: u8 = 5;

/// The protocol that Python 3.8 to 3.13 writes unless told otherwise; Python 3.4 and later read it.
pub const DEFAULT_PROTOCOL: u8 = 4;

/// How large a pickle may be. Beyond it is an error, so that hostile input ends soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the pickle.
    pub size: usize,
    /// Objects in it. Each takes some 40 bytes of memory.
    pub nodes: usize,
    /// Objects that are begun and not ended at any one time.
    pub depth: usize,
}

impl Default for Limits {
    /// 64 MiB, a million objects, 10,000 of them open.
    fn default() -> Self {
        Self { size: super::DEFAULT_MAX_SIZE, nodes: 1 << 20, depth: 10_000 }
    }
}

impl Limits {
    /// Sets the largest pickle in bytes.
    #[must_use]
    pub fn with_size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// Sets the largest number of objects.
    #[must_use]
    pub fn with_nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }
}

/// Bytes that are no pickle, or one that refers to something outside itself.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{kind} at byte {offset}")]
pub struct PickleError {
    kind: PickleErrorKind,
    offset: usize,
}

impl PickleError {
    /// What is wrong.
    pub fn kind(&self) -> PickleErrorKind {
        self.kind
    }

    /// Where the opcode stands, in bytes from the start of the pickle.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

/// The reasons in a [`PickleError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PickleErrorKind {
    /// An opcode is applied to an object of a kind that it does not fit.
    BadOperand,
    /// The argument of an opcode is not of its form: a number, a text, a length.
    InvalidArgument,
    /// There is no such opcode.
    InvalidOpcode,
    /// The pickle ends early.
    Truncated,
    /// More objects are open than [`Limits::depth`].
    TooDeep,
    /// There are more objects or bytes than [`Limits`] allows.
    TooLarge,
    /// An opcode takes an object where there is none.
    StackUnderflow,
    /// An object is fetched that was not remembered.
    UnknownMemo,
    /// The pickle refers to something outside itself, or is of a later protocol.
    Unsupported,
}

impl std::fmt::Display for PickleErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BadOperand => "opcode on an object it does not fit",
            Self::InvalidArgument => "invalid argument of an opcode",
            Self::InvalidOpcode => "no such opcode",
            Self::Truncated => "the pickle ends early",
            Self::TooDeep => "too many open objects",
            Self::TooLarge => "too many objects or bytes",
            Self::StackUnderflow => "an object is missing",
            Self::UnknownMemo => "an object that was not remembered",
            Self::Unsupported => "reference to something outside the pickle",
        })
    }
}

/// Writes a dict of names and values as a pickle of a protocol from 2 on. Both are JSON that has been
/// checked, the names without their quotes; `length` is about how long it will be.
///
/// # Errors
///
/// `TooDeep`, as [`Graph::to_pickle`].
pub(crate) fn from_json<'a>(
    entries: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    length: usize,
    protocol: u8,
) -> Result<Vec<u8>, PickleError> {
    json::write(entries, length, protocol)
}

impl Graph {
    /// Reads a pickle. What follows its end is ignored, as Python does.
    ///
    /// # Errors
    ///
    /// [`PickleError`] if Python could not load it either, if it refers to something outside itself,
    /// or if it goes beyond a limit.
    #[doc(alias = "loads")]
    pub fn from_pickle(pickle: &[u8], limits: &Limits) -> Result<Self, PickleError> {
        reader::read(pickle, limits)
    }

    /// Writes a pickle from which Python builds the same objects, the same ones shared.
    ///
    /// It is of the protocol it was read from, or of 2 for 0 and 1: names of classes differ between the
    /// protocols up to 2 and those after.
    ///
    /// # Errors
    ///
    /// `TooLarge` if objects that contain each other through tuples would make it many times longer than
    /// what was read, `TooDeep` if they nest deeper than [`Limits`] lets a reader follow.
    #[doc(alias = "dumps")]
    pub fn to_pickle(&self) -> Result<Vec<u8>, PickleError> {
        writer::write(self, self.root_id(), None)
    }

    /// As [`Graph::to_pickle`], of one object in it.
    pub(crate) fn to_pickle_of(&self, id: super::graph::NodeId) -> Result<Vec<u8>, PickleError> {
        writer::write(self, id, None)
    }

    /// As [`Graph::to_pickle`], with other pairs for the dict at the root.
    pub(crate) fn to_pickle_with(
        &self,
        pairs: &[(super::graph::NodeId, super::graph::NodeId)],
    ) -> Result<Vec<u8>, PickleError> {
        writer::write(self, self.root_id(), Some(pairs))
    }
}

//! Archives of sessions: lines of JSON in frames of Zstandard that are read by themselves.
//!
//! The file is an ordinary `.jsonl.zst`, which `zstd -dc` unpacks: a line that says what it is, then a line
//! for each session. Each frame has a checksum of its content, and a table of the frames stands at the end, in
//! the seekable format of Zstandard. `docs/operations.md` describes the members of the lines.

mod export;
mod frames;
mod import;
mod line;

pub(super) use self::export::ExportArguments;
pub(super) use self::import::ImportArguments;

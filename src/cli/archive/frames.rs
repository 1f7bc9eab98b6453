//! The frames of an archive and the table of where they are: the seekable format of Zstandard, version 0.1.0,
//! in which the table is a frame that every decompressor skips.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use crate::cli::error::CliError;

const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
/// The number of frames, a byte that says what is in the table, and the number above.
const FOOTER: usize = 9;
/// Bytes of a frame that is read, compressed and not; larger ones are none of ours.
const LARGEST: u32 = 256 << 20;
const LEVEL: i32 = 3;

/// An archive that is written.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// The lengths of the frames, compressed and not.
    frames: Vec<(u32, u32)>,
}

/// Compresses some lines to a frame with a checksum.
pub(super) fn compress(lines: &str) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(lines.len() as u64))?;
    encoder.write_all(lines.as_bytes())?;
    encoder.finish()
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        Self { file, frames: Vec::new() }
    }

    /// Adds a frame of so many bytes of lines.
    pub(super) fn push(&mut self, frame: &[u8], length: usize) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let lengths = (
            u32::try_from(frame.len()).map_err(too_long)?,
            u32::try_from(length).map_err(too_long)?,
        );
        self.file.write_all(frame)?;
        self.frames.push(lengths);
        Ok(())
    }

    /// Writes the table, and waits until all of it is on the disk.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let count = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        let mut table = Vec::with_capacity(self.frames.len() * 8 + 17);
        table.extend(SKIPPABLE.to_le_bytes());
        table.extend((count * 8 + 9).to_le_bytes());
        for (compressed, length) in &self.frames {
            table.extend(compressed.to_le_bytes());
            table.extend(length.to_le_bytes());
        }
        table.extend(count.to_le_bytes());
        table.push(0);
        table.extend(SEEKABLE.to_le_bytes());
        self.file.write_all(&table)?;
        self.file.sync_all()?;
        self.file.stream_position()
    }
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) start: u64,
    pub(super) length: u32,
}

/// The frames of an archive, by the table at its end.
pub(super) fn frames(file: &mut File) -> Result<Vec<Frame>, CliError> {
    let read = |source| CliError::Input { what: "the archive", source };
    let size = file.seek(SeekFrom::End(0)).map_err(read)?;
    let mut footer = [0; FOOTER];
    let start = size.checked_sub(FOOTER as u64).ok_or(CliError::Archive("it is too short"))?;
    file.seek(SeekFrom::Start(start)).map_err(read)?;
    file.read_exact(&mut footer).map_err(read)?;
    let [a, b, c, d, descriptor, magic @ ..] = footer;
    if u32::from_le_bytes(magic) != SEEKABLE {
        return Err(CliError::Archive("it has no table of its frames; was it written to its end?"));
    }
    let entry: usize = if descriptor & 0x80 == 0 { 8 } else { 12 };
    let count = u64::from(u32::from_le_bytes([a, b, c, d]));
    let table =
        start.checked_sub(count * entry as u64).ok_or(CliError::Archive("its table is damaged"))?;
    file.seek(SeekFrom::Start(table)).map_err(read)?;
    let mut frames = Vec::new();
    let mut offset = 0;
    for _ in 0..count {
        let mut bytes = [0; 12];
        let bytes = &mut bytes[..entry];
        file.read_exact(bytes).map_err(read)?;
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if length > LARGEST || offset + u64::from(length) > table {
            return Err(CliError::Archive("its table is damaged"));
        }
        frames.push(Frame { start: offset, length });
        offset += u64::from(length);
    }
    Ok(frames)
}

/// The lines of a frame, whose checksum is right.
pub(super) fn read(file: &File, frame: Frame) -> Result<String, CliError> {
    let mut file =
        file.try_clone().map_err(|source| CliError::Input { what: "the archive", source })?;
    let mut bytes = vec![0; frame.length as usize];
    read_at(&mut file, &mut bytes, frame.start)
        .map_err(|source| CliError::Input { what: "the archive", source })?;
    let decoder = zstd::stream::Decoder::with_buffer(&*bytes);
    let mut lines = String::new();
    decoder
        .and_then(|decoder| decoder.take(u64::from(LARGEST) + 1).read_to_string(&mut lines))
        .map_err(|_| CliError::Archive("a frame is damaged"))?;
    if lines.len() > LARGEST as usize {
        return Err(CliError::Archive("a frame inflates to more than any of ours"));
    }
    Ok(lines)
}

#[cfg(unix)]
fn read_at(file: &mut File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(not(unix))]
fn read_at(file: &mut File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytes)
}

//! The compressors of django-redis: `COMPRESSOR` in the options of a cache.
//!
//! Each leaves short values alone, and reading takes what does not decompress as plain, so a site may
//! switch one on while values are in the cache. No decompressor here gives out more than its limit, nor
//! does a length claimed by a header make it reserve more than that and a fixed amount.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use libdeflater::{CompressionLvl, Compressor as Deflater, DecompressionError, Decompressor};
use lz4_flex::frame::{BlockMode, FrameDecoder, FrameEncoder, FrameInfo};
use lzma_rust2::{XzOptions, XzReader, XzWriter};

use super::error::{CacheDecodeError, CachePart};

/// How django-redis compresses what its serializer wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compressor {
    /// `django_redis.compressors.gzip.GzipCompressor`.
    Gzip,
    /// `django_redis.compressors.identity.IdentityCompressor`, the default: none.
    #[default]
    Identity,
    /// `django_redis.compressors.lz4.Lz4Compressor`: LZ4 frames.
    Lz4,
    /// `django_redis.compressors.lzma.LzmaCompressor`: xz streams.
    Lzma,
    /// `django_redis.compressors.zlib.ZlibCompressor`.
    Zlib,
    /// `django_redis.compressors.zstd.ZStdCompressor`.
    Zstd,
}

/// The level of libdeflate that is as dense as zlib at its default level, 6.
const DEFLATE_LEVEL: i32 = 7;
/// `LzmaCompressor.preset`.
const XZ_PRESET: u32 = 4;
/// The dictionary of xz at its highest preset: what any xz may ask for, however short its content.
const XZ_LARGEST_DICTIONARY: usize = 64 << 20;

thread_local! {
    /// The tables of these are worth keeping; nothing of a value stays in them.
    static INFLATER: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    static DEFLATER: RefCell<Deflater> = RefCell::new(deflater());
}

#[expect(clippy::expect_used, reason = "the level is a constant within libdeflate's 0 to 12")]
fn deflater() -> Deflater {
    Deflater::new(CompressionLvl::new(DEFLATE_LEVEL).expect("a level of libdeflate"))
}

impl Compressor {
    /// The longest value in bytes that is left as it is.
    pub fn min_length(self) -> usize {
        match self {
            Self::Identity => usize::MAX,
            Self::Lzma => 100,
            _ => 15,
        }
    }

    /// Compresses a value, unless it is no longer than [`Compressor::min_length`].
    pub fn compress(self, value: &[u8]) -> Vec<u8> {
        if value.len() <= self.min_length() {
            return value.to_vec();
        }
        // These write into memory, which does not fail; plain is always readable.
        self.encode(value).unwrap_or_else(|_| value.to_vec())
    }

    fn encode(self, value: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => Ok(gzip(value)),
            Self::Identity => Ok(value.to_vec()),
            Self::Lz4 => {
                let info = FrameInfo::new()
                    .block_mode(BlockMode::Independent)
                    .content_size(Some(value.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(value)?;
                Ok(encoder.finish()?)
            }
            Self::Lzma => {
                let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(XZ_PRESET))?;
                encoder.write_all(value)?;
                encoder.finish()
            }
            Self::Zlib => Ok(deflate(value)),
            Self::Zstd => zstd::bulk::compress(value, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }

    /// Whether a value starts as this compressor's output does, which no session in plain does.
    fn recognizes(self, value: &[u8]) -> bool {
        let magic: &[u8] = match self {
            Self::Gzip => b"\x1f\x8b",
            Self::Identity => return false,
            Self::Lz4 => b"\x04\x22\x4d\x18",
            Self::Lzma => b"\xfd7zXZ\0",
            Self::Zlib => b"\x78",
            Self::Zstd => b"\x28\xb5\x2f\xfd",
        };
        value.starts_with(magic)
    }

    /// Decompresses a value of at most `limit` bytes; `None` if it is plain.
    ///
    /// django-redis takes as plain whatever fails to decompress. Here that is an error if it starts like
    /// a compressed value: no serializer writes such a session.
    ///
    /// # Errors
    ///
    /// `Malformed` and `TooLarge` of [`CacheDecodeError`].
    pub fn decompress(
        self,
        value: &[u8],
        limit: usize,
    ) -> Result<Option<Vec<u8>>, CacheDecodeError> {
        if self.recognizes(value) { self.decode(value, limit).map(Some) } else { Ok(None) }
    }

    /// Decompresses a value that is known to be compressed.
    pub(super) fn decode(self, value: &[u8], limit: usize) -> Result<Vec<u8>, CacheDecodeError> {
        match self {
            Self::Gzip => gunzip(value, limit),
            Self::Identity => Ok(value.to_vec()),
            Self::Lz4 => self.read(FrameDecoder::new(Whole(value)), limit),
            Self::Lzma => {
                let memory = limit.max(XZ_LARGEST_DICTIONARY) / 1024 + 1024;
                let memory = u32::try_from(memory).unwrap_or(u32::MAX - 1);
                self.read(XzReader::new_mem_limit(value, true, memory), limit)
            }
            Self::Zlib => inflate(value, limit),
            Self::Zstd => match zstd::Decoder::with_buffer(value) {
                Ok(decoder) => self.read(decoder, limit),
                Err(_) => Err(self.malformed()),
            },
        }
    }

    /// Reads a stream to its end, or one byte beyond the limit.
    fn read(self, stream: impl Read, limit: usize) -> Result<Vec<u8>, CacheDecodeError> {
        let mut out = Vec::new();
        match stream.take((limit as u64).saturating_add(1)).read_to_end(&mut out) {
            Ok(length) if length > limit => Err(CacheDecodeError::TooLarge { limit }),
            Ok(_) => Ok(out),
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                Err(CacheDecodeError::TooLarge { limit })
            }
            Err(_) => Err(self.malformed()),
        }
    }

    fn malformed(self) -> CacheDecodeError {
        CacheDecodeError::Malformed { part: CachePart::Compressed(self) }
    }
}

/// A slice whose end is an error: `lz4_flex` takes the end of the input for the end of the frame.
struct Whole<'a>(&'a [u8]);

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() && !buffer.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.0.read(buffer)
    }
}

/// A zlib stream, as `zlib.compress` writes one.
#[expect(clippy::expect_used, reason = "the bound is the most that libdeflate writes")]
pub(super) fn deflate(value: &[u8]) -> Vec<u8> {
    DEFLATER.with_borrow_mut(|deflater| {
        let mut out = vec![0; deflater.zlib_compress_bound(value.len())];
        let length = deflater.zlib_compress(value, &mut out).expect("room enough");
        out.truncate(length);
        out
    })
}

#[expect(clippy::expect_used, reason = "the bound is the most that libdeflate writes")]
fn gzip(value: &[u8]) -> Vec<u8> {
    DEFLATER.with_borrow_mut(|deflater| {
        let mut out = vec![0; deflater.gzip_compress_bound(value.len())];
        let length = deflater.gzip_compress(value, &mut out).expect("room enough");
        out.truncate(length);
        out
    })
}

/// What `zlib.decompress` gives: whatever follows the stream is ignored.
pub(super) fn inflate(value: &[u8], limit: usize) -> Result<Vec<u8>, CacheDecodeError> {
    growing(Compressor::Zlib, value.len(), limit, |inflater, out| {
        inflater.zlib_decompress(value, out)
    })
}

/// One gzip member. Python would read several in a row, but nothing writes them, and libdeflate does
/// not tell where one ends; so nothing may follow the trailer that belongs to the content.
fn gunzip(value: &[u8], limit: usize) -> Result<Vec<u8>, CacheDecodeError> {
    let out = growing(Compressor::Gzip, value.len(), limit, |inflater, out| {
        inflater.gzip_decompress(value, out)
    })?;
    let mut trailer = [0; 8];
    let mut crc = libdeflater::Crc::new();
    crc.update(&out);
    trailer[..4].copy_from_slice(&crc.sum().to_le_bytes());
    #[expect(clippy::cast_possible_truncation, reason = "gzip keeps the length modulo 2^32")]
    trailer[4..].copy_from_slice(&(out.len() as u32).to_le_bytes());
    let whole = memchr::memmem::find(value, &trailer) == Some(value.len() - 8);
    if whole { Ok(out) } else { Err(Compressor::Gzip.malformed()) }
}

/// Inflates into room that grows up to the limit, since libdeflate wants all of it at once.
fn growing(
    compressor: Compressor,
    length: usize,
    limit: usize,
    mut inflate: impl FnMut(&mut Decompressor, &mut [u8]) -> Result<usize, DecompressionError>,
) -> Result<Vec<u8>, CacheDecodeError> {
    INFLATER.with_borrow_mut(|inflater| {
        let mut room = length.saturating_mul(6).max(1024);
        loop {
            let capped = room.min(limit);
            let mut out = vec![0; capped];
            match inflate(inflater, &mut out) {
                Ok(length) => {
                    out.truncate(length);
                    return Ok(out);
                }
                Err(DecompressionError::BadData) => return Err(compressor.malformed()),
                Err(DecompressionError::InsufficientSpace) if capped == limit => {
                    return Err(CacheDecodeError::TooLarge { limit });
                }
                Err(DecompressionError::InsufficientSpace) => room = capped.saturating_mul(4),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compressor; 5] =
        [Compressor::Gzip, Compressor::Lz4, Compressor::Lzma, Compressor::Zlib, Compressor::Zstd];

    fn text(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"{}[]:, \"etaoinshrdlu"[(state >> 24) as usize % 20]
        };
        (0..length).map(step).collect()
    }

    #[test]
    fn what_is_compressed_is_read_again() {
        for compressor in ALL {
            for length in [0, 1, 15, 16, 100, 101, 1000, 70_000, 5 << 20] {
                let value = text(length);
                let stored = compressor.compress(&value);
                let plain = length <= compressor.min_length();
                assert_eq!(stored == value, plain, "{compressor:?} {length}");
                let read = compressor.decompress(&stored, length).unwrap();
                assert_eq!(read.is_none(), plain, "{compressor:?} {length}");
                assert!(read.unwrap_or(stored) == value, "{compressor:?} {length}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        for compressor in ALL {
            for length in [1 << 20, 20 << 20] {
                let stored = compressor.compress(&vec![b'a'; length]);
                assert!(stored.len() < length / 200);
                assert_eq!(compressor.decode(&stored, length).unwrap().len(), length);
                for limit in [0, 1000, length - 1] {
                    assert!(
                        matches!(
                            compressor.decode(&stored, limit),
                            Err(CacheDecodeError::TooLarge { limit: told }) if told == limit
                        ),
                        "{compressor:?} {length} {limit}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_stream_is_malformed() {
        for compressor in ALL {
            for value in [text(200), vec![0; 300]] {
                let stored = compressor.compress(&value);
                for length in 0..stored.len() {
                    assert!(
                        matches!(
                            compressor.decode(&stored[..length], 1000),
                            Err(CacheDecodeError::Malformed { part: CachePart::Compressed(_) })
                        ),
                        "{compressor:?} {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_follows_a_stream_is_ignored_where_python_ignores_it() {
        for compressor in ALL {
            let value = text(200);
            let mut stored = compressor.compress(&value);
            stored.extend(b"trail");
            let read = compressor.decode(&stored, 1000).ok();
            let ignored = matches!(compressor, Compressor::Zlib | Compressor::Lz4);
            assert_eq!(read, ignored.then_some(value), "{compressor:?}");
        }
    }

    #[test]
    fn a_dictionary_beyond_all_measure_is_refused() {
        // The block header claims 4 GiB; its checksum is right.
        let mut stored = Compressor::Lzma.compress(&text(200));
        assert_eq!(stored[12..16], [2, 0, 0x21, 1], "the block header as it is");
        stored[16] = 40;
        let mut crc = libdeflater::Crc::new();
        crc.update(&stored[12..20]);
        stored[20..24].copy_from_slice(&crc.sum().to_le_bytes());
        assert!(Compressor::Lzma.decode(&stored, 1000).unwrap_err().is_too_large());
    }
}

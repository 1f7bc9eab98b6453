//! The field of a form that is `multipart/form-data`, as Django's `MultiPartParser` finds it.
//!
//! Django looks for boundaries everywhere, not only at the beginning of lines, and has its own rule for
//! headers, so what is a field to it is found by its rule: a parser by the standard would see another
//! field. This reads what has been kept of the body, and never more than that.
//!
//! Different:
//!
//! * Of a body longer than what is kept only the parts that are whole within that count. Django reads on,
//!   and may find another token behind, or too much of everything. Nobody gets in here who has no token
//!   that fits.
//! * A body without `Content-Length` is read; Django then sees an empty form.
//! * A field whose *name* is encoded by RFC 2231 is not looked at.
//! * A `charset` is not looked at: every field is UTF-8.
//! * What is in files is not looked at, so base64 that is none goes unnoticed.
//! * A part of more than 64 kB that is neither field nor file is one part; Django loses its place there.

use memchr::memmem;

use super::FIELD;
use super::header::{Parameters, strip};
use super::rejection::FormError;
use super::settings::CsrfSettings;

/// `MAX_TOTAL_HEADER_SIZE`
const MAX_HEADER: usize = 1024;

/// What a part is to Django.
enum Part {
    Field { name: Option<String>, is_base64: bool, start: usize },
    File { is_named: bool },
    Raw,
}

/// The boundary that a `Content-Type` names, as Django accepts it.
pub(super) fn boundary(content_type: &str, parameters: &Parameters) -> Result<String, FormError> {
    let boundary = parameters.get("boundary").filter(|boundary| {
        (1..=201).contains(&boundary.len())
            && boundary.bytes().all(|byte| matches!(byte, b' '..=b'~'))
            && !boundary.ends_with(' ')
    });
    match boundary {
        Some(boundary) if content_type.starts_with("multipart/") && content_type.is_ascii() => {
            Ok(boundary.to_owned())
        }
        _ => Err(FormError::Multipart),
    }
}

/// The value of the field: of several the last, empty if there is none. `is_whole` says whether the
/// body ends here.
pub(super) fn field(
    body: &[u8],
    boundary: &str,
    is_whole: bool,
    settings: &CsrfSettings,
) -> Result<String, FormError> {
    let separator = format!("--{boundary}");
    let finder = memmem::Finder::new(&separator);
    let mut found = String::new();
    let (mut fields, mut files, mut size) = (0_usize, 0_usize, 0_usize);
    let mut rest = body;
    while !rest.is_empty() {
        let piece = match finder.find(rest) {
            Some(end) => {
                let piece = &rest[..end];
                rest = &rest[end + separator.len()..];
                let piece = piece.strip_suffix(b"\n").unwrap_or(piece);
                piece.strip_suffix(b"\r").unwrap_or(piece)
            }
            None if is_whole => std::mem::take(&mut rest),
            None => break,
        };
        let part = part(piece)?;
        if let Part::File { is_named } = part {
            files += usize::from(is_named);
            if settings.data_upload_max_number_files.is_some_and(|max| files > max) {
                return Err(FormError::TooManyFiles);
            }
            continue;
        }
        fields += 1;
        // Two more: what is before the first boundary and behind the last.
        if settings.data_upload_max_number_fields.is_some_and(|max| fields > max.saturating_add(2))
        {
            return Err(FormError::TooManyFields);
        }
        let Part::Field { name: Some(name), is_base64, start } = part else { continue };
        let data = &piece[start..];
        // As if it had come with `&` and `=`.
        size += data.len() + name.chars().count() + 2;
        if size > settings.data_upload_max_memory_size {
            return Err(FormError::TooBig);
        }
        if name == FIELD {
            let decoded = is_base64.then(|| base64(data)).flatten();
            found = String::from_utf8_lossy(decoded.as_deref().unwrap_or(data)).into_owned();
        }
    }
    Ok(found)
}

/// Python's `base64.b64decode`: characters of no meaning are passed over, and what is behind the end is
/// left. `None` if that makes no bytes.
fn base64(data: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(data.len());
    let mut padding = 0;
    let mut is_over = false;
    for &byte in data {
        let place = kept.len() % 4;
        if byte == b'=' && place >= 2 {
            padding += 1;
            is_over = place + padding >= 4;
            if is_over {
                break;
            }
        } else if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/') {
            kept.push(byte);
            padding = 0;
        }
    }
    if !is_over && !kept.len().is_multiple_of(4) {
        return None;
    }
    base64_simd::forgiving_decode_to_vec(&kept).ok()
}

/// `parse_boundary_stream`
fn part(piece: &[u8]) -> Result<Part, FormError> {
    let Some(end) = memmem::find(&piece[..piece.len().min(MAX_HEADER)], b"\r\n\r\n") else {
        return if piece.len() < MAX_HEADER { Ok(Part::Raw) } else { Err(FormError::Multipart) };
    };
    let mut disposition = None;
    let mut is_file = false;
    let mut is_base64 = false;
    for line in memmem_split(&piece[..end]) {
        // Lines that are no header are passed over.
        let Ok(line) = str::from_utf8(line) else { continue };
        let parameters = Parameters::parse(line);
        match parameters.main.split_once(':') {
            Some(("content-disposition", _)) => {
                is_file = parameters.has("filename");
                disposition = Some(parameters);
            }
            Some(("content-transfer-encoding", value)) => is_base64 = strip(value) == "base64",
            _ => {}
        }
    }
    Ok(match disposition {
        None => Part::Raw,
        Some(parameters) if is_file => Part::File { is_named: parameters.contains("name") },
        Some(parameters) => {
            let is_space = |char: char| matches!(char, '\t'..='\r' | ' ');
            let name = parameters.get("name").map(|name| name.trim_matches(is_space).to_owned());
            Part::Field { name, is_base64, start: end + 4 }
        }
    })
}

fn memmem_split(mut header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let Some(end) = memmem::find(header, b"\r\n") else {
            is_over = true;
            return Some(header);
        };
        let line = &header[..end];
        header = &header[end + 2..];
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column is what Python 3.11 answers.
    #[test]
    fn base64_is_read_as_python_does() {
        for (text, data) in [
            ("", Some(&b""[..])),
            ("YWJj", Some(b"abc")),
            ("YW Jj\r\n", Some(b"abc")),
            ("YQ==", Some(b"a")),
            ("YR==", Some(b"a")),
            ("YQ==YWJj", Some(b"a")),
            ("YQ=Y", None),
            ("YQ=YQ", Some(b"a\x06\x10")),
            ("YQ=Y=", Some(b"a\x06")),
            ("=YWJj", Some(b"abc")),
            ("YWJj=", Some(b"abc")),
            ("YQ", None),
            ("Y", None),
            ("Y===", None),
            ("YW-Jj_", Some(b"abc")),
        ] {
            assert_eq!(base64(text.as_bytes()).as_deref(), data, "{text}");
        }
    }
}

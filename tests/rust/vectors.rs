//! The golden vectors: what real Django releases wrote. `tests/fixtures/README.md` names the fields.

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Map, Value, json};

/// The records of one family, such as `modern_json`.
pub(crate) fn read(family: &str) -> Vec<Value> {
    read_file(&format!("vectors/{family}.jsonl.zst"))
}

/// The records of a file in `tests/fixtures`.
pub(crate) fn read_file(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let compressed = std::fs::read(&path).unwrap();
    let text = zstd::decode_all(&*compressed).unwrap();
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// What a test found out about a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The same answer as Django's.
    Passed,
    /// There is nothing in it to decode, to encode or to hash.
    NoBytes(&'static str),
    /// Another answer, or none, for a reason that `docs/compatibility.md` argues.
    NotSupported(&'static str),
    /// A matter for another test.
    Elsewhere,
}

/// Asks `check` about every record of a family, and fails at the end if it panicked for any.
pub(crate) fn each(family: &str, mut check: impl FnMut(&Value) -> Verdict) -> usize {
    let records = read(family);
    let mut tally = Tally::new(family);
    for record in &records {
        match catch_unwind(AssertUnwindSafe(|| check(record))) {
            Ok(Verdict::Passed) => tally.passed(record),
            Ok(Verdict::NotSupported(reason)) => tally.not_supported(record, reason),
            Ok(Verdict::NoBytes(reason)) => tally.no_bytes(record, reason),
            Ok(Verdict::Elsewhere) => {}
            Err(_) => tally.failed(record),
        }
    }
    tally.passed
}

/// Counts records for `make vectors`, which sets `VECTORS_RECORD` to the file where the counts go.
pub(crate) struct Tally {
    family: String,
    pub(crate) passed: usize,
    ids: Map<String, Value>,
}

impl Tally {
    pub(crate) fn new(family: &str) -> Self {
        Self { family: family.to_owned(), passed: 0, ids: Map::new() }
    }

    pub(crate) fn passed(&mut self, record: &Value) {
        self.passed += 1;
        self.note(record, "passed");
    }

    pub(crate) fn not_supported(&mut self, record: &Value, reason: &str) {
        self.note(record, &format!("not supported: {reason}"));
    }

    pub(crate) fn no_bytes(&mut self, record: &Value, reason: &str) {
        self.note(record, &format!("no bytes: {reason}"));
    }

    fn failed(&mut self, record: &Value) {
        self.note(record, "failed");
    }

    fn note(&mut self, record: &Value, verdict: &str) {
        self.ids.insert(text(record, "id").to_owned(), verdict.into());
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some(path) = std::env::var_os("VECTORS_RECORD") {
            let line = format!("{}\n", json!({"family": self.family, "records": self.ids}));
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            // One write, because other tests append to the same file.
            file.unwrap().write_all(line.as_bytes()).unwrap();
        }
        let mut failed = self.ids.iter().filter(|(_, verdict)| *verdict == "failed");
        let first = failed.next();
        assert!(
            first.is_none() || std::thread::panicking(),
            "{} records of {} fail, the first of them {}",
            failed.count() + 1,
            self.family,
            first.map_or("", |(id, _)| id),
        );
    }
}

/// A text member of a record.
pub(crate) fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_else(|| panic!("{}: {name} is no text", record["id"]))
}

/// What follows the releases in the name of a record.
pub(crate) fn case(record: &Value) -> &str {
    text(record, "id").splitn(4, '/').nth(3).unwrap()
}

/// The release of Django that made the record.
pub(crate) fn release(record: &Value) -> (u32, u32) {
    let mut numbers = text(record, "django_version").split('.').map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A moment in Unix seconds, with the fraction that the record has.
#[expect(clippy::cast_possible_truncation, reason = "microseconds since 1970 are few")]
pub(crate) fn moment(value: &Value) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond((value.as_f64().unwrap() * 1e6).round() as i64).unwrap()
}

/// A key, which was text or bytes.
pub(crate) fn secret(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        tagged => hex(tagged["hex"].as_str().unwrap()),
    }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The JSON text that Python writes for a value in the vectors' tagged form.
pub(crate) fn to_python_json(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(out, text.encode_utf16()),
        Value::Array(items) => write_list(out, items),
        Value::Object(object) => match object.get("__type__").and_then(Value::as_str) {
            None => {
                write_dict(out, object.iter().map(|(name, value)| (name.clone().into(), value)));
            }
            Some(kind) => write_tagged(out, kind, value),
        },
    }
}

fn write_tagged(out: &mut String, kind: &str, value: &Value) {
    match kind {
        "int" => out.push_str(value["value"].as_str().unwrap()),
        "float" => out.push_str(match value["value"].as_str().unwrap() {
            "nan" => "NaN",
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            number => number,
        }),
        "str" => write_text(out, wtf8(&hex(value["wtf8_hex"].as_str().unwrap())).into_iter()),
        "str_repeat" => {
            let char = value["char"].as_str().unwrap();
            let count = value["count"].as_u64().unwrap();
            write_text(out, char.repeat(count.try_into().unwrap()).encode_utf16());
        }
        "tuple" => write_list(out, value["items"].as_array().unwrap()),
        "dict" => {
            let items = value["items"].as_array().unwrap();
            write_dict(out, items.iter().map(|pair| (pair[0].clone(), &pair[1])));
        }
        "nest" => {
            let steps = value["steps"].as_str().unwrap();
            for step in steps.chars() {
                out.push_str(if step == 'l' { "[" } else { "{\"k\":" });
            }
            write(out, &value["leaf"]);
            for step in steps.chars().rev() {
                out.push(if step == 'l' { ']' } else { '}' });
            }
        }
        other => panic!("no JSON for {other}"),
    }
}

fn write_list(out: &mut String, items: &[Value]) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        write(out, item);
    }
    out.push(']');
}

fn write_dict<'a>(out: &mut String, items: impl Iterator<Item = (Value, &'a Value)>) {
    out.push('{');
    for (index, (name, value)) in items.enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        write(out, &name);
        out.push(':');
        write(out, value);
    }
    out.push('}');
}

fn write_text(out: &mut String, units: impl Iterator<Item = u16>) {
    out.push('"');
    for unit in units {
        match u8::try_from(unit).ok() {
            Some(b'"') => out.push_str("\\\""),
            Some(b'\\') => out.push_str("\\\\"),
            Some(b'\n') => out.push_str("\\n"),
            Some(b'\r') => out.push_str("\\r"),
            Some(b'\t') => out.push_str("\\t"),
            Some(8) => out.push_str("\\b"),
            Some(12) => out.push_str("\\f"),
            Some(byte @ b' '..=b'~') => out.push(char::from(byte)),
            _ => write!(out, "\\u{unit:04x}").unwrap(),
        }
    }
    out.push('"');
}

/// UTF-8 in which lone surrogates are three bytes like any other, as UTF-16.
fn wtf8(bytes: &[u8]) -> Vec<u16> {
    let mut units = Vec::new();
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let length = match first {
            0..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let (char, after) = rest.split_at(length);
        match std::str::from_utf8(char) {
            Ok(char) => units.extend(char.encode_utf16()),
            Err(_) => units.push(
                u16::from(char[0] & 0xf) << 12
                    | u16::from(char[1] & 0x3f) << 6
                    | u16::from(char[2] & 0x3f),
            ),
        }
        rest = after;
    }
    units
}

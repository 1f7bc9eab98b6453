//! The command `django-session`, as a shell runs it.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use django_session::codec::{Format, Serializer};
use django_session::{SecretKey, SessionCodec, SessionData};
use serde_json::Value;

#[cfg(unix)]
mod operations;
#[allow(dead_code, reason = "the other tests need more of it")]
mod vectors;

use vectors::{secret, text, to_python_json};

const KEY: &str = "correct horse battery staple";
/// Django 5.2 wrote it with that key.
const STORED: &str = "eyJhIjoxfQ:1r31eq:4OVpArSAAUYyfDXk1ZIieKYo9WrR2kQvEte6pBdBWGQ";
const NOW: i64 = 1_700_000_000;

/// The command with no keys, settings or colours of whoever runs the test.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_django-session"));
    command.env_clear().args(arguments);
    command
}

/// The command with a key in the environment.
fn keyed(arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.env("SECRET_KEY", KEY);
    command
}

fn run(mut command: Command, input: impl AsRef<[u8]>) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    // The command may end without reading all of it.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a successful run wrote.
fn written(command: Command, input: impl AsRef<[u8]>) -> String {
    let output = run(command, input);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    stdout(&output)
}

fn codec() -> SessionCodec {
    SessionCodec::new(&SecretKey::new(KEY).unwrap())
}

/// The text of `data` at the end of a document, as it was written.
fn data_of(document: &str) -> &str {
    let (_, data) = document.split_once(",\"data\":").unwrap();
    data.strip_suffix("}\n").unwrap()
}

fn files() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn file(folder: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_session_is_shown_with_what_is_known_about_it() {
    let shown = written(keyed(&["decode", "--now", "1700007322"]), STORED);
    assert_eq!(
        shown,
        "form        signed (Django 3.1 and later)\n\
         algorithm   sha256\n\
         key         primary (SECRET_KEY)\n\
         salt        django.contrib.sessions.SessionStore\n\
         signed      2023-11-14 22:13:20 UTC, 2 hours 2 minutes ago\n\
         serializer  JSON\n\
         compressed  no\n\
         size        61 bytes stored, 7 serialized\n\
         \n\
         session: 1 entry\n\
         └─ a: 1\n"
    );
    let document = written(keyed(&["decode", "--json", "--now", "1700000060"]), STORED);
    assert_eq!(
        document,
        "{\"django_session_document\":1,\"format\":\"signed\",\"algorithm\":\"sha256\",\
         \"key\":\"primary\",\"fallback\":null,\"salt\":\"django.contrib.sessions.SessionStore\",\
         \"signed_at\":1700000000,\"signed_at_utc\":\"2023-11-14T22:13:20Z\",\"age\":60,\
         \"serializer\":\"json\",\"pickle_protocol\":null,\"compressed\":false,\
         \"stored_bytes\":61,\"payload_bytes\":7,\"data\":{\"a\":1}}\n"
    );
}

/// A record of stored text: the options that Django's site would have had, and the text.
struct Row {
    id: String,
    command: Vec<String>,
    keys: Vec<Vec<u8>>,
    stored: String,
    expected: Value,
}

/// One record of each family, version and case, of every family that is stored text.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for family in [
        "antique",
        "legacy",
        "legacy_sha1_transitional",
        "modern_json",
        "modern_pickle",
        "fallback_keys",
        "signed_cookies",
        "file_backend",
        "db_rows",
    ] {
        for record in vectors::read(family) {
            let stored = match (&record["stored"]["encoding"], &record["cookie"]) {
                (Value::String(kind), _) if kind == "text" => text(&record["stored"], "value"),
                (Value::String(_), _) => text(&record["stored"], "value"),
                (_, Value::String(cookie)) => cookie,
                _ => match record["row"]["session_data"].as_str() {
                    Some(stored) => stored,
                    None => continue,
                },
            };
            let stored = if record["stored"]["encoding"] == "base64" {
                let bytes = base64_simd::STANDARD.decode_to_vec(stored).unwrap();
                String::from_utf8(bytes).unwrap()
            } else {
                stored.to_owned()
            };
            // Many releases wrote the same.
            if !seen.insert((family, stored.clone(), record["secret_key"].to_string())) {
                continue;
            }
            let mut keys = vec![secret(&record["secret_key"])];
            keys.extend(record["fallbacks"].as_array().into_iter().flatten().map(secret));
            keys.retain(|key| !key.is_empty());
            let mut command = vec!["decode".to_owned(), "--json".to_owned()];
            match record["salt"].as_str() {
                Some("django.contrib.sessions.backends.signed_cookies") => {
                    command.extend(["--cookie", "--max-age", "none"].map(str::to_owned));
                }
                Some(salt) if salt.starts_with("django.contrib.sessions.") => {
                    command.extend(["--salt".to_owned(), salt.to_owned()]);
                }
                Some(salt) => command.extend(["--legacy-salt".to_owned(), salt.to_owned()]),
                None => {}
            }
            let expected = match family {
                "file_backend" => record["load_checks"][0]["expected"].clone(),
                "db_rows" => record["get_decoded"].clone(),
                _ => record["expected"].clone(),
            };
            let id = text(&record, "id").to_owned();
            rows.push(Row { id, command, keys, stored, expected });
        }
    }
    rows
}

impl Row {
    /// Base64 of the pickle in a stored text.
    fn pickle(&self, stored: &str) -> String {
        let key = SecretKey::new(&self.keys[0]).unwrap();
        let salt = |option: &str| {
            let at = self.command.iter().position(|argument| argument == option)?;
            self.command.get(at + 1)
        };
        let mut codec = match salt("--salt") {
            Some(salt) => SessionCodec::with_salt(&key, salt),
            None if self.command.iter().any(|argument| argument == "--cookie") => {
                SessionCodec::with_salt(&key, "django.contrib.sessions.backends.signed_cookies")
            }
            None => SessionCodec::new(&key),
        };
        if let Some(salt) = salt("--legacy-salt") {
            codec = codec.with_legacy_salt(salt);
        }
        let payload = codec.accept(Format::ALL).decode_payload(stored).unwrap().payload;
        base64_simd::STANDARD.encode_to_string(payload)
    }

    /// The command with the keys in files: some are no text.
    fn command(&self, folder: &tempfile::TempDir) -> Command {
        let mut command = command(&[]);
        command.args(&self.command);
        for (index, key) in self.keys.iter().enumerate() {
            let file = file(folder, &format!("key{index}"), [key, &b"\n"[..]].concat());
            command.arg("--secret-key-file").arg(file);
        }
        command
    }
}

#[test]
fn every_family_of_stored_text_is_decoded_and_encoded_again() {
    let folder = files();
    let mut counts = [0; 4];
    let mut refused = 0;
    let mut pairs = Vec::new();
    for row in rows() {
        let id = &row.id;
        let output = run(row.command(&folder), &row.stored);
        if !output.status.success() {
            // Django itself made an empty session of these: a fallback key that is missing.
            assert_eq!(output.status.code(), Some(4), "{id}: {}", stderr(&output));
            assert_eq!(row.expected, serde_json::json!({}), "{id}: {}", stderr(&output));
            refused += 1;
            continue;
        }
        let document = stdout(&output);
        let format = Format::ALL
            .into_iter()
            .position(|format| document.contains(&format!("\"format\":\"{}\"", format.name())));
        counts[format.unwrap()] += 1;

        let mut encode = command(&["encode"]);
        encode.arg("--secret-key-file").arg(folder.path().join("key0"));
        if let Some(at) = row.command.iter().position(|argument| argument == "--legacy-salt") {
            encode.args(&row.command[at..]);
        }
        if document.contains("\"serializer\":\"json\"") {
            // Python 2 has no order of keys.
            if row.expected != Value::Null && !id.contains("/py2") {
                assert_eq!(data_of(&document), to_python_json(&row.expected), "{id}");
            }
            let again = written(encode, &document);
            let is_primary = document.contains("\"key\":\"primary\"");
            let is_plain = document.contains("\"compressed\":false");
            // A name that was there twice is there once.
            if is_primary && is_plain && !id.ends_with("coerce_dup_keys") {
                // Lines of 76 characters, as up to 1.4, are one line now.
                let stored: String = row.stored.split_whitespace().collect();
                assert_eq!(again.trim_end(), stored, "{id}");
            }
        } else {
            // Objects of classes are described; the rest goes around once and is the same.
            let output = run(encode, &document);
            let is_carried = !["\"object\"", "\"global\"", "\"defaultdict\""]
                .iter()
                .any(|kind| document.contains(&format!("{{\"__type__\":{kind}")));
            if !is_carried {
                assert_eq!(output.status.code(), Some(5), "{id}");
                continue;
            }
            assert!(output.status.success(), "{id}: {}", stderr(&output));
            let mut decode = row.command(&folder);
            decode.args(["--secret-key-file"]).arg(folder.path().join("key0"));
            let again = written(decode, stdout(&output));
            assert_eq!(data_of(&again), data_of(&document), "{id}");
            let pickle = |stored: &str| row.pickle(stored);
            pairs.push((id.clone(), pickle(&row.stored), pickle(stdout(&output).trim_end())));
        }
    }
    assert_eq!(refused, 6, "Django refuses as many");
    assert_eq!(counts, [20, 173, 52, 136], "antique, legacy, signed_sha1, signed");
    same_in_python(&pairs);
}

/// A script for the interpreter that `make test` names.
fn python(script: &str) -> Option<Command> {
    let Some(python) = std::env::var_os("TEST_PYTHON") else {
        let message = "NOT TESTED by means of Python: TEST_PYTHON names no interpreter";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
        return None;
    };
    let mut command = Command::new(python);
    command.args(["-c", script]);
    Some(command)
}

/// Python makes equal objects of a pickle that Django stored and of the one that came of its JSON.
fn same_in_python(pairs: &[(String, String, String)]) {
    const SCRIPT: &str = r#"
import base64, datetime, io, pickle, sys

class FixedOffset(datetime.tzinfo):
    def utcoffset(self, _):
        return self._FixedOffset__offset

class SafeString(str):
    pass

class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        # Zones of a former Django, and of a library that need not be there.
        if (module, name) in (("django.utils.timezone", "UTC"), ("pytz", "_UTC")):
            return lambda: datetime.timezone.utc
        # It had names for both types of text, and attributes.
        if module == "django.utils.safestring":
            return SafeString
        if (module, name) == ("django.utils.timezone", "FixedOffset"):
            return FixedOffset
        if (module, name) == ("pytz", "_p"):
            return lambda _, s, *rest: datetime.timezone(datetime.timedelta(seconds=s))
        return super().find_class(module, name)

def load(text):
    return Unpickler(io.BytesIO(base64.b64decode(text)), encoding="latin1").load()

for line in sys.stdin:
    name, one, two = line.split()
    one, two = load(one), load(two)
    if repr(one) != repr(two) and one != two:
        print(f"{name}: {one!r} is not {two!r}", file=sys.stderr)
    print(name)
"#;
    let Some(python) = python(SCRIPT) else { return };
    let lines: Vec<_> = pairs.iter().map(|(id, one, two)| format!("{id} {one} {two}\n")).collect();
    let compared = written(python, lines.concat());
    assert_eq!(compared.lines().count(), pairs.len());
}

/// A session whose entry `v` is what a pickle holds.
fn entry(pickle: &[u8]) -> Vec<u8> {
    let (stop, body) = pickle.split_last().unwrap();
    assert_eq!(*stop, b'.');
    [b"\x80\x02}U\x01v", body, b"s."].concat()
}

fn stored_pickle(payload: &[u8]) -> String {
    codec().with_serializer(Serializer::Pickle).encode_payload(payload, NOW)
}

/// Nothing but printable characters, line ends and the command's own colours.
fn assert_tame(shown: &str) {
    let mut rest = shown;
    while let Some(at) = rest.find('\u{1b}') {
        let end = rest[at..].find('m').expect("a colour ends") + at;
        let parameters = &rest[at + 1..end];
        assert!(
            parameters.starts_with('[')
                && parameters[1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b';'),
            "{parameters:?}"
        );
        rest = &rest[end + 1..];
    }
    let wild = |char: char| {
        (char.is_control() && char != '\n' && char != '\u{1b}')
            || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    assert_eq!(shown.chars().find(|char| wild(*char)), None);
}

#[test]
fn pickles_of_every_type_are_shown_and_written_as_json() {
    let mut count = 0;
    let mut pairs = Vec::new();
    let mut seen = BTreeSet::new();
    for record in vectors::read("pickle_types") {
        let Some(pickle) = record["pickle_b64"].as_str() else { continue };
        // One release of each case in each protocol will do.
        let id = text(&record, "id");
        let parts: Vec<_> = id.split('/').collect();
        if !seen.insert((parts[3].to_owned(), parts[parts.len() - 1].to_owned())) {
            continue;
        }
        let pickle = base64_simd::STANDARD.decode_to_vec(pickle).unwrap();
        let stored = stored_pickle(&entry(&pickle));
        let shown = written(keyed(&["decode", "--full", "--color", "always"]), &stored);
        assert_tame(&shown);
        assert!(shown.contains("serializer"), "{id}");
        let document = written(keyed(&["decode", "--json"]), &stored);
        assert!(document.is_ascii() && document.lines().count() == 1, "{id}");
        assert!(SessionData::from_json(&document).is_ok(), "{id}");
        count += 1;

        let output = run(keyed(&["encode"]), &document);
        if output.status.success() {
            let codec = codec().with_serializer(Serializer::Pickle);
            let again = codec.decode_payload(stdout(&output).trim_end()).unwrap().payload;
            let [one, two] = [entry(&pickle), again]
                .map(|pickle| base64_simd::STANDARD.encode_to_string(pickle));
            pairs.push((id.to_owned(), one, two));
        } else {
            assert!(stderr(&output).contains("cannot be carried by JSON"), "{id}");
        }
    }
    assert_eq!((count, pairs.len()), (788, 603));
    same_in_python(&pairs);
}

#[test]
fn python_objects_are_shown_as_what_they_are() {
    // pickle.dumps of {"cart": Cart(Decimal("1.50"), "EUR") with attributes, "again": the same,
    // "me": the session} and the like, by hand.
    let session = b"\x80\x04}\x94(\
        \x8c\x04cart\x8c\x04shop\x8c\x04Cart\x93\x8c\x07decimal\x8c\x07Decimal\x93\x8c\x041.50\x85R\x8c\x03EUR\x86R\
        }\x8c\x05owner\x8c\x03adasb\x94\
        \x8c\x05againh\x01\
        \x8c\x02meh\x00\
        \x8c\x04when\x8c\x08datetime\x8c\x04date\x93C\x04\x07\xea\x0b\x15\x85R\
        K\x01K\x02\x86\x8c\x04pairu.";
    let shown = written(keyed(&["decode", "--now", "1700000000"]), stored_pickle(session));
    let (_, tree) = shown.split_once("\n\n").unwrap();
    assert_eq!(
        tree,
        "session: 5 entries\n\
         ├─ cart: &2 shop.Cart(Decimal 1.50, 'EUR')\n\
         │  └─ .owner: 'ada'\n\
         ├─ again: *2\n\
         ├─ me: *1\n\
         ├─ when: date 2026-11-21\n\
         ├─ (key) tuple of 2\n\
         │  ├─ [0] 1\n\
         │  └─ [1] 2\n\
         └─ (value) 'pair'\n"
    );
    let document = written(keyed(&["decode", "--json"]), stored_pickle(session));
    assert_eq!(
        data_of(&document),
        "{\"__type__\":\"shared\",\"id\":1,\"value\":{\"__type__\":\"dict\",\"items\":[\
         [\"cart\",{\"__type__\":\"shared\",\"id\":2,\"value\":{\"__type__\":\"object\",\"callable\":\
         {\"__type__\":\"global\",\"module\":\"shop\",\"name\":\"Cart\"},\"args\":[\
         {\"__type__\":\"Decimal\",\"value\":\"1.50\"},\"EUR\"],\"state\":{\"owner\":\"ada\"}}}],\
         [\"again\",{\"__type__\":\"ref\",\"id\":2}],[\"me\",{\"__type__\":\"ref\",\"id\":1}],\
         [\"when\",{\"__type__\":\"date\",\"value\":\"2026-11-21\"}],\
         [{\"__type__\":\"tuple\",\"items\":[1,2]},\"pair\"]]}}"
    );
    let output = run(keyed(&["encode"]), document);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("an object of a class of the site cannot be carried by JSON"));
}

#[test]
fn what_is_shared_or_goes_in_circles_comes_back_so() {
    let data = r#"{"__type__":"shared","id":1,"value":{
        "a": {"__type__":"shared","id":7,"value":["tea"]},
        "b": {"__type__":"ref","id":7},
        "me": {"__type__":"ref","id":1},
        "t": {"__type__":"tuple","items":[{"__type__":"ref","id":7}]}}}"#;
    let document =
        format!(r#"{{"django_session_document": 1, "serializer": "pickle", "data": {data}}}"#);
    let stored = written(keyed(&["encode", "--now", "0"]), document);
    let tree = written(keyed(&["decode"]), &stored);
    let (_, tree) = tree.split_once("\n\n").unwrap();
    assert_eq!(
        tree,
        "session: 4 entries\n├─ a: &2 list of 1\n│  └─ [0] 'tea'\n├─ b: *2\n├─ me: *1\n\
         └─ t: tuple of 1\n   └─ [0] *2\n"
    );
    for (data, message) in [
        (r#"{"a":{"__type__":"ref","id":1}}"#, "a reference leads to no object"),
        (r#"{"__type__":"shared","id":1,"value":{"__type__":"ref","id":1}}"#, "leads to no object"),
        (r#"{"a":{"__type__":"tuple"}}"#, "lacks a member"),
        (r#"{"a":{"__type__":"bytes","hex":"0g"}}"#, "lacks a member"),
        (r#"{"a":{"__type__":"datetime","value":"yesterday"}}"#, "lacks a member"),
        (r#"{"a":{"__type__":"shop"}}"#, "a __type__ that is not known"),
        (r#"{"a":{"__type__":"global","module":"os","name":"system"}}"#, "a class or function"),
        ("[]", "not an object"),
    ] {
        let document =
            format!(r#"{{"django_session_document":1,"serializer":"pickle","data":{data}}}"#);
        let output = run(keyed(&["encode"]), document);
        assert_eq!(output.status.code(), Some(5), "{data}");
        assert!(stderr(&output).contains(message), "{data}: {}", stderr(&output));
    }
}

#[test]
fn each_failure_has_its_reason_and_what_to_try() {
    let data = SessionData::from_json(r#"{"a":1}"#).unwrap();
    let stored = |format, serializer| {
        codec().with_format(format).with_serializer(serializer).encode(&data, NOW).unwrap()
    };
    let json = |format| stored(format, Serializer::Json);
    let cookie = SessionCodec::with_salt(
        &SecretKey::new(KEY).unwrap(),
        "django.contrib.sessions.backends.signed_cookies",
    )
    .encode(&data, NOW)
    .unwrap();
    let mine = SessionCodec::with_salt(
        &SecretKey::new(KEY).unwrap(),
        "django.contrib.sessions.Shop.SessionStore",
    )
    .encode(&data, NOW)
    .unwrap();
    let other = SessionCodec::new(&SecretKey::new("another").unwrap()).encode(&data, NOW).unwrap();
    let pickle = stored(Format::Signed, Serializer::Pickle);
    let bomb = codec().encode_payload(&vec![b' '; 100_000], NOW);
    let signed = |payload: &str| {
        let key = SecretKey::new(KEY).unwrap();
        django_session::codec::TimestampSigner::new(&key, codec().salt()).sign(payload, NOW)
    };
    for (arguments, value, reason, attempt) in [
        (&[][..], &*other, "wrong_key", "--secret-key-file"),
        (&[], &cookie, "wrong_salt", "--cookie"),
        (&["--cookie", "--max-age", "none"], STORED, "wrong_salt", "--salt 'django.contrib.sess"),
        (&["--try-salt", "Shop.SessionStore"], &mine, "wrong_salt", "--salt 'django.contrib.ses"),
        (&["--strict"], &json(Format::Legacy), "format_not_accepted", "--accept legacy"),
        (&["--strict"], &json(Format::SignedSha1), "format_not_accepted", "--accept signed_sha1"),
        (&["--strict"], &pickle, "wrong_serializer", "--serializer pickle"),
        (&["--cookie", "--now", "1701209601"], &cookie, "expired", "--max-age none"),
        (&["--max-age", "5", "--now", "1700000006"], STORED, "expired", "--max-age none"),
        (&["--max-size", "1000"], &bomb, "too_large", "--max-size 16000"),
        (&[], &STORED[..40], "truncated", ""),
        (&[], &signed("A"), "not_base64", ""),
        (&[], &signed(".eyJhIjoxfQ"), "not_zlib", ""),
        (&[], &codec().encode_payload(b"{", NOW), "not_json", ""),
        (&[], &codec().encode_payload(b"[]", NOW), "not_an_object", ""),
        (&[], &codec().encode_payload(b"\x80\x04}", NOW), "not_pickle", ""),
        (&[], "6alroudp9lxc4qpo085poix3pnhq3rcf", "session_key", ""),
        (&[], &format!("\"{STORED}\""), "quoted", ""),
        (&[], &STORED.replace(':', "%3A"), "percent_encoded", ""),
        (&[], &STORED.replace(":4O", ": 4O"), "whitespace", ""),
        (&[], &format!("sessionid={STORED}; Path=/"), "surrounded", ""),
        (&[], "{\"a\": 1}", "unsigned", "django-session encode"),
        (&[], "", "empty", ""),
        (&[], "hello", "unrecognized", ""),
    ] {
        let arguments = [&["decode"], arguments].concat();
        let output = run(keyed(&arguments), value);
        assert_eq!(output.status.code(), Some(4), "{reason}");
        assert_eq!(stdout(&output), "", "{reason}");
        let told = stderr(&output);
        assert!(told.starts_with(&format!("error[{reason}]: ")), "{reason}: {told}");
        assert_eq!(told.contains("\n  try: "), !attempt.is_empty(), "{reason}: {told}");
        assert!(told.contains(attempt), "{reason}: {told}");

        let output = run(keyed(&[&arguments[..], &["--json"]].concat()), value);
        assert_eq!(output.status.code(), Some(4), "{reason}");
        let document: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(document["error"]["reason"], reason);
        assert!(told.contains(document["error"]["message"].as_str().unwrap()));
    }
    // What was tried helps.
    written(keyed(&["decode", "--cookie", "--now", "1701209600"]), &cookie);
    written(keyed(&["decode", "--salt", "django.contrib.sessions.Shop.SessionStore"]), &mine);
    written(keyed(&["decode", "--strict", "--accept", "legacy"]), json(Format::Legacy));
    written(keyed(&["decode", "--strict", "--serializer", "pickle"]), &pickle);
}

#[test]
fn keys_come_from_files_settings_and_the_environment() {
    let folder = files();
    let right = file(&folder, "right", format!("{KEY}\n"));
    let windows = file(&folder, "windows", format!("{KEY}\r\n"));
    let wrong = file(&folder, "wrong", "another\n");
    let settings = |name: &str, text: &str| file(&folder, name, text);
    let with_key = settings("with_key", &format!("{{\"SECRET_KEY\": \"{KEY}\"}}"));
    let without = settings("without", r#"{"SESSION_COOKIE_AGE": 5}"#);
    let bytes = settings("bytes", r#"{"SECRET_KEY": {"base64": "/wA="}}"#);

    for (arguments, key) in [
        (vec!["--secret-key-file", path(&right)], "primary"),
        (vec!["--secret-key-file", path(&windows)], "primary"),
        (vec!["--secret-key-file", path(&wrong), "--secret-key-file", path(&right)], "fallback"),
        (vec!["--settings", path(&with_key)], "primary"),
        (vec!["--settings", path(&bytes), "--secret-key-file", path(&right)], "primary"),
    ] {
        for environment in [None, Some("of another site")] {
            let mut decode = command(&["decode", "--json"]);
            decode.args(&arguments).envs(environment.map(|key| ("SECRET_KEY", key)));
            let document = written(decode, STORED);
            assert!(document.contains(&format!("\"key\":\"{key}\"")), "{arguments:?}");
        }
    }
    // Settings without a key leave that to the environment, and the rest of it alone.
    let decode = |arguments: &[&str]| {
        let mut decode = keyed(&["decode", "--settings", path(&without), "--now", "1700000006"]);
        decode.env("SESSION_COOKIE_AGE", "100").args(arguments);
        decode
    };
    written(decode(&[]), STORED);
    let output = run(decode(&["--cookie"]), STORED);
    assert_eq!(output.status.code(), Some(4));
    let cookies = "django.contrib.sessions.SessionStore";
    let output = run(decode(&["--cookie", "--salt", cookies]), STORED);
    assert!(stderr(&output).starts_with("error[expired]"), "{}", stderr(&output));

    let mut fallback = command(&["decode"]);
    fallback.env("SECRET_KEY", "new").env("SECRET_KEY_FALLBACKS", format!("[\"x\", \"{KEY}\"]"));
    assert!(written(fallback, STORED).contains("fallback (SECRET_KEY_FALLBACKS[1])"));

    let empty = file(&folder, "empty", "\n");
    let broken = file(&folder, "broken", "[]");
    for arguments in [
        &[][..],
        &["--secret-key-file", path(&empty)],
        &["--settings", path(&broken)],
        &["--settings", path(&without)],
    ] {
        let output = run(command(&[&["decode"], arguments].concat()), STORED);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", stderr(&output));
    }
    let mut bad = command(&["decode"]);
    bad.env("SECRET_KEY", KEY).env("SECRET_KEY_FALLBACKS", "hunter2");
    let output = run(bad, STORED);
    assert_eq!(output.status.code(), Some(3));
    assert!(!stderr(&output).contains("hunter2"));
}

#[cfg(unix)]
#[test]
fn a_person_at_a_terminal_is_asked_for_the_key() {
    // Types the key when asked, and shows all that the terminal then shows.
    const SCRIPT: &str = r#"
import os, pty, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execve(sys.argv[1], sys.argv[1:], {"TERM": "xterm"})
shown = b""
while b"SECRET_KEY" not in shown:
    shown += os.read(terminal, 1000)
while termios.tcgetattr(terminal)[3] & termios.ECHO:
    pass
os.write(terminal, b"correct horse battery staple\n")
try:
    while part := os.read(terminal, 1000):
        shown += part
except OSError:
    pass
print(shown.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let Some(mut python) = python(SCRIPT) else { return };
    let folder = files();
    let value = file(&folder, "value", STORED);
    python.arg(env!("CARGO_BIN_EXE_django-session")).args(["decode", path(&value)]);
    let shown = written(python, "");
    assert!(shown.starts_with("SECRET_KEY (it is not shown): \r\n"), "{shown:?}");
    assert!(shown.contains("session: 1 entry") && shown.contains("\u{1b}["), "{shown:?}");
    assert!(!shown.contains(KEY), "{shown:?}");
}

#[test]
fn no_key_is_ever_repeated() {
    const SECRET: &str = "hunter2hunter2hunter2";
    let folder = files();
    let keys = file(&folder, "key", SECRET);
    let settings = file(&folder, "settings", format!("{{\"SECRET_KEY\": \"{SECRET}\"}}"));
    let bad = file(&folder, "bad", format!("{{\"SECRET_KEY\": [\"{SECRET}\"]}}"));
    let data = SessionData::from_json(r#"{"a":1}"#).unwrap();
    let signed = SessionCodec::new(&SecretKey::new(SECRET).unwrap()).encode(&data, NOW).unwrap();
    for arguments in [
        &["decode", "--secret-key", SECRET][..],
        &["decode", &format!("--secret-key={SECRET}")],
        &["decode", "--secret-key-file", SECRET],
        &["decode", "--settings", SECRET],
        &["decode", SECRET],
        &["decode", "-", SECRET],
        &[SECRET],
        &["decode", "--secret-key-file", path(&keys)],
        &["decode", "--json", "--full", "--secret-key-file", path(&keys)],
        &["decode", "--json", "--secret-key-file", path(&keys)],
        &["decode", "--settings", path(&settings)],
        &["decode", "--settings", path(&bad)],
        &["encode", "--secret-key-file", path(&keys)],
        &["encode", "--secret-key", SECRET],
        &["--help"],
    ] {
        for input in [&*signed, STORED, "{}", "nothing", ""] {
            let mut command = command(arguments);
            command.env("SECRET_KEY_FALLBACKS", format!("[\"{SECRET}\"]"));
            let output = run(command, input);
            let shown = stdout(&output) + &stderr(&output);
            assert!(!shown.contains(SECRET), "{arguments:?}: {shown}");
        }
    }
    let output = run(command(&["decode", "--secret-key", SECRET]), STORED);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("must not be an argument"));
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let folder = files();
    let missing = folder.path().join("missing");
    for (arguments, input, code) in [
        (&["decode"][..], STORED, 0),
        (&["decode", path(&missing)], "", 1),
        (&["decode", path(folder.path())], "", 1),
        (&["decode", "--max-size", "10"], &"x".repeat(10_000), 1),
        (&["decode", "--nothing"], "", 2),
        (&["decode", "--max-age", "old"], "", 2),
        (&["decode", "--accept", "legacy"], "", 2),
        (&["decode", "--strict", "--accept", "new"], "", 2),
        (&["encode", "--pickle-protocol", "6"], "", 2),
        (&["nothing"], "", 2),
        (&[], "", 2),
        (&["decode"], "nothing", 4),
        (&["encode"], "[]", 5),
        (&["encode"], "{\"a\":", 5),
        (&["encode"], "{\"django_session_document\":2,\"data\":{}}", 5),
        (&["encode"], "{\"django_session_document\":1}", 5),
        (&["encode"], "{}", 0),
        (&["--help"], "", 0),
        (&["--version"], "", 0),
    ] {
        let output = run(keyed(arguments), input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(run(command(&["decode"]), STORED).status.code(), Some(3));
    for arguments in [&["--help"][..], &["decode", "--help"], &["encode", "--help"]] {
        let help = written(command(arguments), "");
        for code in 0..=5 {
            assert!(help.contains(&format!("\n  {code}  ")), "{arguments:?}");
        }
        assert!(help.contains("Examples:\n  $ "), "{arguments:?}");
        assert_eq!(help.lines().find(|line| line.chars().count() > 100), None);
    }
    let version = written(command(&["--version"]), "");
    assert_eq!(version, format!("django-session {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn encode_writes_what_django_reads() {
    let session = r#" { "cart" : [ "tea", "Grüße" ],
        "n": 1.50, "big": 123456789012345678901234567890, "nan": NaN } "#;
    let stored = written(keyed(&["encode", "--now", "1700000000"]), session);
    let decoded = codec().decode(stored.trim_end()).unwrap();
    assert_eq!(decoded.signed_at, Some(NOW));
    assert_eq!(
        decoded.data.to_json().unwrap(),
        r#"{"cart":["tea","Gr\u00fc\u00dfe"],"n":1.50,"big":123456789012345678901234567890,"nan":NaN}"#
    );
    for (arguments, format, serializer) in [
        (&["--format", "legacy"][..], Format::Legacy, Serializer::Json),
        (&["--format", "signed_sha1"], Format::SignedSha1, Serializer::Json),
        (&["--format", "antique", "--serializer", "pickle"], Format::Antique, Serializer::Pickle),
        (&["--serializer", "pickle", "--pickle-protocol", "2"], Format::Signed, Serializer::Pickle),
        (&["--compression", "small", "--now", "now"], Format::Signed, Serializer::Json),
    ] {
        let stored = written(keyed(&[&["encode"], arguments].concat()), r#"{"a":[1,"x"]}"#);
        let codec = codec().accept(Format::ALL).accept_serializers([serializer]);
        let decoded = codec.decode(stored.trim_end()).unwrap();
        assert_eq!((decoded.format, decoded.serializer), (format, serializer));
        assert_eq!(decoded.data.get::<(u8, String)>("a").unwrap().unwrap(), (1, "x".to_owned()));
    }
    // A document says how it was stored; options come first.
    let legacy = written(keyed(&["encode", "--format", "legacy"]), r#"{"a":1}"#);
    let document = written(keyed(&["decode", "--json"]), &legacy);
    assert_eq!(written(keyed(&["encode"]), &document), legacy);
    let signed = written(keyed(&["encode", "--format", "signed", "--now", "1700000000"]), document);
    assert_eq!(signed.trim_end(), STORED);
    // What JSON cannot say is no JSON session.
    let document = r#"{"django_session_document":1,"serializer":"pickle","data":
        {"when":{"__type__":"date","value":"2026-11-21"}}}"#;
    written(keyed(&["encode"]), document);
    let output = run(keyed(&["encode", "--serializer", "json"]), document);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("a date cannot be stored in a JSON session"));
}

#[test]
fn a_session_plays_no_tricks_on_the_terminal() {
    let wild = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\r\u{8}\u{202e}\u{2066}\u{200b}\u{feff}\u{7f}";
    let mut data = SessionData::new();
    data.insert(wild, &[wild]).unwrap();
    data.insert("nested", &std::collections::BTreeMap::from([(wild, wild)])).unwrap();
    let json = codec().encode(&data, NOW).unwrap();
    // The same in names of classes and zones, and in bytes.
    let text = |text: &str| {
        let mut out = vec![b'X'];
        out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        out.extend(text.as_bytes());
        out
    };
    let wild = text(wild);
    let pickle = [
        b"\x80\x04}(",
        &wild[..],
        &[&wild[..], &wild, b"\x93)\x81}", &wild, &wild, b"sb"].concat(),
        b"K\x01",
        b"\x8c\x08zoneinfo\x8c\x12ZoneInfo._unpickle\x93",
        &wild,
        b"K\x01\x86R",
        b"K\x02",
        b"\x8c\x07decimal\x8c\x07Decimal\x93",
        &wild,
        b"\x85R",
        b"K\x03C\x06\x1b[31m\x9bu.",
    ]
    .concat();
    let pickle = stored_pickle(&pickle);
    for stored in [&json, &pickle] {
        for color in ["always", "never"] {
            for option in ["--full", "--strict"] {
                let serializer = if stored == &json { "json" } else { "pickle" };
                let arguments = ["decode", "--color", color, option, "--serializer", serializer];
                let shown = written(keyed(&arguments), stored);
                assert_tame(&shown);
                assert!(shown.contains("\\x1b]0;title\\x07"), "{shown}");
                assert_eq!(shown.contains('\u{1b}'), color == "always");
            }
        }
        assert!(written(keyed(&["decode", "--json"]), stored).is_ascii());
    }
    let salt = ["decode", "--salt", "\u{1b}[31msalt"];
    let stored = SessionCodec::with_salt(&SecretKey::new(KEY).unwrap(), salt[2]);
    let shown = written(keyed(&salt), stored.encode(&data, NOW).unwrap());
    assert_tame(&shown);
}

#[test]
fn colours_are_for_terminals_and_those_who_ask() {
    let has_colours = |command| written(command, STORED).contains('\u{1b}');
    assert!(!has_colours(keyed(&["decode"])));
    assert!(!has_colours(keyed(&["decode", "--color", "never"])));
    assert!(has_colours(keyed(&["decode", "--color", "always"])));
    let mut forced = keyed(&["decode"]);
    forced.env("CLICOLOR_FORCE", "1");
    assert!(has_colours(forced));
    let mut refused = keyed(&["decode"]);
    refused.env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
    assert!(!has_colours(refused));
    assert!(!has_colours(keyed(&["--color", "always", "decode", "--json"])));
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let data = SessionData::from_json(&format!("{{\"a\":[{}0]}}", "\"tea\",".repeat(300_000)));
    let stored = codec().encode(&data.unwrap(), NOW).unwrap();
    for arguments in [&["decode", "--full"][..], &["decode", "--json"]] {
        let mut command = keyed(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = stored.clone();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn hostile_sessions_end_in_bounded_output() {
    const LONG: usize = 1 << 20;
    let json = |text: String| codec().encode_payload(text.as_bytes(), NOW);
    let laughs = {
        let mut pickle = b"\x80\x04}X\x01\0\0\0v]q\x000".to_vec();
        for level in 0..200 {
            // Each list holds the one before ten times.
            pickle.extend(b"](");
            (0..10).for_each(|_| pickle.extend([b'h', level]));
            pickle.extend([b'e', b'q', level + 1, b'0']);
        }
        pickle.extend(b"h\xc8s.");
        stored_pickle(&pickle)
    };
    let cycle = stored_pickle(b"\x80\x04}q\x00X\x01\0\0\0v](h\x00h\x00es.");
    let deep = {
        let mut pickle = b"\x80\x04}X\x01\0\0\0v".to_vec();
        pickle.extend(b"]".repeat(5000));
        pickle.extend(b"a".repeat(4999));
        pickle.extend(b"s.");
        stored_pickle(&pickle)
    };
    // One text of a megabyte, three thousand times.
    let repeated = {
        let mut pickle = b"\x80\x04}X\x01\0\0\0v](X".to_vec();
        pickle.extend(u32::try_from(LONG).unwrap().to_le_bytes());
        pickle.extend(b"x".repeat(LONG));
        pickle.extend(b"q\x00");
        (0..3000).for_each(|_| pickle.extend(b"h\x00"));
        pickle.extend(b"es.");
        stored_pickle(&pickle)
    };
    for (name, stored, shown) in [
        ("laughs", laughs, true),
        ("cycle", cycle, true),
        ("deep pickle", deep, true),
        ("repeated", repeated, true),
        ("deep JSON", json(format!("{{\"a\":{}{}}}", "[".repeat(9000), "]".repeat(9000))), true),
        (
            "too deep",
            json(format!("{{\"a\":{}{}}}", "[".repeat(11_000), "]".repeat(11_000))),
            false,
        ),
        ("many", json(format!("{{\"a\":[{}0]}}", "0,".repeat(LONG))), true),
        ("long", json(format!("{{\"a\":\"{}\"}}", "\\u001b".repeat(LONG))), true),
        ("marks", stored_pickle(&[&b"\x80\x04"[..], &b"(".repeat(LONG), b"."].concat()), false),
        ("bomb", json(" ".repeat(80 << 20)), false),
        ("colons", ":".repeat(LONG), false),
        ("brackets", "[".repeat(LONG), false),
        ("quotes", format!("\"{}\"", "%41".repeat(LONG)), false),
        ("base64", "A".repeat(LONG), false),
        ("noise", "\u{1b}[2J".repeat(LONG), false),
    ] {
        let output = run(keyed(&["decode"]), &stored);
        assert_eq!(output.status.code(), Some(if shown { 0 } else { 4 }), "{name}");
        let length = output.stdout.len() + output.stderr.len();
        assert!(length < 2 << 20, "{name}: {length}");
        assert_tame(&(stdout(&output) + &stderr(&output)));
    }
    let output = run(keyed(&["decode"]), vec![b'a'; 200 << 20]);
    assert_eq!(output.status.code(), Some(1), "more than any session");
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = written(command(&["completions", shell]), "");
        assert!(script.contains("django-session") && script.contains("decode"), "{shell}");
    }
}

#[test]
fn there_is_a_manual() {
    let page = written(command(&["man"]), "");
    assert!(page.contains(".TH django-session 1") && page.contains("clear\\-expired"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    written(command(&["man", folder.path().to_str().unwrap()]), "");
    let page = std::fs::read_to_string(folder.path().join("django-session-migrate.1")).unwrap();
    assert!(page.contains("on\\-conflict"), "{page}");
}

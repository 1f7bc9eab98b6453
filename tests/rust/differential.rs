//! Random sessions, from an installed Django to us and back.
//!
//! The interpreter is `TEST_PYTHON`, which `make test` sets; `tests/django_peer.py` is the other side.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use django_session::codec::Compression;
use django_session::{SecretKey, SessionCodec, SessionData};
use serde_json::Value;

const COUNT: usize = 20_000;
pub(crate) const SECRET_KEY: &str = "the secret of the differential test";

/// A session engine of an installed Django, in a process of its own.
pub(crate) struct Engine {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Engine {
    /// Starts Django with these settings; `None`, and not silently, if there is none.
    pub(crate) fn start(settings: &Value) -> Option<Self> {
        Self::run(&["engine", &settings.to_string()])
    }

    /// As [`Engine::start`], in another of the peer's roles.
    pub(crate) fn run(arguments: &[&str]) -> Option<Self> {
        let mut command = peer(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Some(Self { stdin: child.stdin.take(), stdout, child })
    }

    /// Has it do something, and takes its answer.
    pub(crate) fn ask(&mut self, command: &Value) -> Value {
        self.tell(command);
        self.answer()
    }

    pub(crate) fn tell(&mut self, command: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It ends with its input.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// Numbers that look random, and are the same again for the same seed: `SplitMix64`.
pub(crate) struct Random(u64);

impl Random {
    /// `DIFFERENTIAL_SEED` in the environment, or a seed of its own.
    pub(crate) fn new() -> Self {
        let seed = std::env::var("DIFFERENTIAL_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or(20_260_101))
    }

    /// A number below this.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap() % limit
    }
}

/// The interpreter beside which Django is installed; `None`, and not silently, if there is none.
pub(crate) fn python() -> Option<Command> {
    let Some(python) = std::env::var_os("TEST_PYTHON") else {
        let message = "NOT TESTED against an installed Django: TEST_PYTHON names no interpreter";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
        return None;
    };
    Some(Command::new(python))
}

pub(crate) fn peer(arguments: &[&str]) -> Option<Command> {
    let mut command = python()?;
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/django_peer.py")).args(arguments);
    Some(command)
}

/// What a caller changes, in words that both sides can check.
#[expect(clippy::cast_precision_loss, reason = "small indexes")]
fn touch(data: &mut SessionData, index: usize) {
    data.insert("touched", &(index, "é\u{7f}", 0.1_f64 * index as f64, u64::MAX)).unwrap();
}

#[test]
fn twenty_thousand_sessions_each_way() {
    let Some(mut write) = peer(&["write", &COUNT.to_string(), "20260101"]) else { return };
    let written = write.stderr(Stdio::inherit()).output().unwrap();
    assert!(written.status.success());

    let codec = SessionCodec::new(&SecretKey::new(SECRET_KEY).unwrap());
    let small = codec.clone().with_compression(Compression::Small);
    let mut back = Vec::new();
    let lines = written.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    for (index, line) in lines.enumerate() {
        let line: Value = serde_json::from_slice(line).unwrap();
        let (stored, json) = (line["stored"].as_str().unwrap(), line["json"].as_str().unwrap());
        let mut data = codec.decode(stored).unwrap().data;
        assert_eq!(data.to_json().unwrap(), json, "session {index}");

        touch(&mut data, index);
        let codec = if index % 2 == 0 { &codec } else { &small };
        let stored = codec.encode(&data, 1_700_000_000).unwrap();
        let line = serde_json::json!({"stored": stored, "json": data.to_json().unwrap()});
        writeln!(back, "{line}").unwrap();
    }

    let mut read = peer(&["read"]).unwrap();
    let mut read = read.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    read.stdin.take().unwrap().write_all(&back).unwrap();
    let answer = read.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer, serde_json::json!({"count": COUNT, "wrong": 0}));
}

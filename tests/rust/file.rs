//! Session files: the contract, Django's own, and what only a file system can show.
//!
//! The other side is an installed Django where `TEST_PYTHON` names an interpreter, and this program
//! once more where it takes several processes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64_simd::STANDARD;
use django_session::codec::{Format, Serializer};
use django_session::session::{Clock as _, SessionRecord};
use django_session::store::testing::{Terms, check_contract};
use django_session::store::{FileError, FileStore};
use django_session::{
    DateTime, Expiry, SecretKey, Session, SessionCodec, SessionData, SessionKey, SessionSettings,
    SessionStore, StoreError,
};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::differential::{self, Engine, Random};
use crate::lost_updates;
use crate::middleware;
use crate::session::{self, FixedClock};
use crate::vectors::{self, Tally, text, to_python_json};

const KEY: &str = "abcdefghijklmnopqrstuvwxyz012345";

fn settings() -> SessionSettings {
    SessionSettings::default()
        .with_secret_key(SecretKey::new("correct horse battery staple").unwrap())
}

fn naive_settings() -> SessionSettings {
    let mut settings = settings();
    settings.use_tz = false;
    settings.time_zone = TimeZone::get("America/New_York").unwrap();
    settings
}

fn now() -> DateTime {
    settings().datetime(Timestamp::now())
}

fn terms() -> Terms {
    Terms::from(now()).with_plain_keys()
}

/// A store and its directory.
struct Place {
    store: FileStore,
    directory: tempfile::TempDir,
}

impl Place {
    fn new(settings: &SessionSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: store_in(directory.path(), settings), directory }
    }

    fn path(&self, session_key: &SessionKey) -> PathBuf {
        self.directory.path().join(format!("sessionid{}", session_key.as_str()))
    }

    /// What is in the directory, by name.
    fn names(&self) -> Vec<String> {
        names(self.directory.path())
    }
}

impl Deref for Place {
    type Target = FileStore;

    fn deref(&self) -> &FileStore {
        &self.store
    }
}

fn store_in(directory: &Path, settings: &SessionSettings) -> FileStore {
    FileStore::new(directory, settings.codec().unwrap()).with_settings(settings)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn record(data: &str) -> SessionRecord {
    SessionRecord {
        session_key: SessionKey::generate(),
        data: Arc::new(SessionData::from_json(data).unwrap()),
        expire_date: now().checked_add(SignedDuration::from_hours(1)).unwrap(),
        revision: None,
    }
}

async fn empty() -> Place {
    Place::new(&settings())
}

mod contract {
    use super::*;

    django_session::store_contract!(empty, terms());
}

#[tokio::test]
async fn naive_times_keep_the_contract() {
    let naive_now = naive_settings().datetime(Timestamp::now());
    let make = async || Place::new(&naive_settings());
    check_contract(make, Terms::from(naive_now).with_plain_keys()).await;
}

#[tokio::test]
async fn a_store_that_waits_for_the_disk_keeps_the_contract() {
    let make = async || {
        let Place { store, directory } = Place::new(&settings());
        Place { store: store.with_sync(true), directory }
    };
    check_contract(make, terms()).await;
}

/// A store for a trace, in a directory of its own.
fn store_of(record: &Value, directory: &Path) -> FileStore {
    let mut settings = settings();
    settings.use_tz = !text(record, "id").ends_with("use_tz_False");
    settings.cookie_age = record["session_cookie_age"].as_i64().unwrap();
    let own = directory.join(SessionKey::generate().as_str());
    fs::create_dir(&own).unwrap();
    store_in(&own, &settings)
}

#[tokio::test]
async fn traces_of_django_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let new_store = async |record: &Value| {
        Arc::new(store_of(record, directory.path())) as Arc<dyn SessionStore>
    };
    session::replay(new_store, false).await;
}

#[tokio::test]
async fn traces_of_the_engine_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let mut tally = Tally::new("session_ops_engines");
    for record in vectors::read("session_ops_engines") {
        if record["backend"] != "file" {
            continue;
        }
        let case = vectors::case(&record);
        let old = vectors::release(&record);
        // Python's `bool()` of a session changed in 6.1, and dates as text came in 4.1.
        if (case.ends_with("bool_new") && old < (6, 1))
            || (case.ends_with("set_expiry_forms") && old < (4, 1))
        {
            continue;
        }
        let store = store_of(&record, directory.path());
        session::follow(&record, Arc::new(store), false).await;
        tally.passed(&record);
    }
    assert_eq!(tally.passed, 27 * 6 - 5 - 3);
}

/// What the client reads, whatever the key.
#[tokio::test]
async fn responses_are_those_of_django() {
    let mut passed = 0;
    for record in vectors::read("middleware_engines") {
        // What older releases answered otherwise has nothing to do with the engine.
        if record["backend"] == "file" && vectors::release(&record) >= (3, 1) {
            let place = empty().await;
            middleware::check_without_rows(&record, place.store.clone(), settings()).await;
            passed += 1;
        }
    }
    assert_eq!(passed, 20);
}

fn codec_of(record: &Value) -> SessionCodec {
    let key = SecretKey::new(vectors::secret(&record["secret_key"])).unwrap();
    let codec = match vectors::release(record) {
        (0..=2, _) | (3, 0) => SessionCodec::new(&key).with_format(Format::Legacy),
        (3, _) => SessionCodec::new(&key).accept([Format::Legacy, Format::SignedSha1]),
        _ => SessionCodec::new(&key),
    };
    match record["serializer"].as_str() {
        Some("pickle") => codec.with_serializer(Serializer::Pickle),
        _ => codec,
    }
}

fn bytes(stored: &Value) -> Vec<u8> {
    assert_eq!(text(stored, "encoding"), "base64");
    STANDARD.decode_to_vec(text(stored, "value")).unwrap()
}

fn set_modified(path: &Path, modified: Timestamp) {
    fs::File::open(path).unwrap().set_modified(modified.into()).unwrap();
}

/// Files as Django wrote them, at ages at which it read them.
#[tokio::test]
async fn files_of_django_are_read_and_written_alike() {
    let mut tally = Tally::new("file_backend");
    for record in vectors::read("file_backend") {
        let Some(checks) = record["load_checks"].as_array() else { continue };
        let (id, key) = (text(&record, "id"), SessionKey::parse(KEY).unwrap());
        assert_eq!(text(&record, "session_key"), KEY, "{id}");
        for check in checks {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(text(&record, "file_name"));
            let content = bytes(&record["stored"]);
            fs::write(&path, &content).unwrap();
            let modified = vectors::moment(&check["mtime"]);
            set_modified(&path, modified);
            let mut settings = SessionSettings::default();
            text(&record, "session_cookie_name").clone_into(&mut settings.cookie_name);
            let store =
                FileStore::new(directory.path(), codec_of(&record)).with_settings(&settings);
            let now = DateTime::Aware(vectors::moment(&check["now"]));
            let at = format!("{id} {}", text(check, "label"));

            let loaded = store.load(&key, now).await.unwrap();
            // Django loads a session with a number of seconds whatever its age; here it expires.
            let data = SessionData::from_json(&to_python_json(&check["expected"])).unwrap();
            let own = data.get::<i64>("_session_expiry").unwrap();
            let left = modified + SignedDuration::from_secs(own.unwrap_or(1_209_600));
            let lives = left > vectors::moment(&check["now"]);
            assert_eq!(loaded.is_some(), lives, "{at}");
            assert!(own.is_some() || lives == check["session_key_after_is_same"], "{at}");
            // What is expired is left for `clear_expired`.
            assert!(path.exists(), "{at}");
            let Some(loaded) = loaded else { continue };
            assert!(*loaded.data == data, "{at}");
            assert_eq!(loaded.expire_date, DateTime::Aware(left), "{at}");
            assert_eq!(loaded.revision.as_ref().unwrap().as_bytes(), content, "{at}");

            store.save(&loaded).await.unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(format!("{mode:04o}"), text(&record, "file_mode"), "{at}");
            assert_eq!(names(directory.path()), [text(&record, "file_name")], "{at}");
            let again = store.load(&key, now).await.unwrap().unwrap();
            assert!(again.data == loaded.data && again.expire_date == loaded.expire_date, "{at}");
            assert!(!fs::read(&path).unwrap().ends_with(b"\n"), "{at}");
        }
        tally.passed(&record);
    }
    assert_eq!(tally.passed, 80);
}

/// What Django made of odd files and keys. Other keys than those of `a-z0-9` raise an exception in its
/// `exists`, and text outside ASCII one in its `load`.
#[tokio::test]
async fn odd_files_get_the_answer_of_django() {
    let mut tally = Tally::new("file_backend");
    for record in vectors::read("file_backend") {
        let Some(cookie_key) = record["cookie_key"].as_str() else { continue };
        let id = text(&record, "id");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(format!("sessionid{cookie_key}"));
        if !record["content"].is_null() {
            fs::write(&path, bytes(&record["content"])).unwrap();
        }
        let store = FileStore::new(directory.path(), codec_of(&record));
        let Some(key) = SessionKey::parse(cookie_key) else {
            assert_eq!(record["session_key_after"], Value::Null, "{id}");
            tally.passed(&record);
            continue;
        };
        let exists = store.exists(&key).await.unwrap();
        assert_eq!(exists, record["exists"].as_bool().unwrap_or(false), "{id}");

        let settings = Arc::new(SessionSettings::default());
        let session = Session::new(Arc::new(store), settings, Some(key));
        let data = session.data().await.unwrap().to_json().unwrap();
        let expected = record.get("result").map_or("{}".to_owned(), to_python_json);
        assert_eq!(data, expected, "{id}");
        let key = session.session_key().await;
        if record.get("raises").is_none() {
            let after = record["session_key_after"].as_str();
            assert_eq!(key.as_ref().map(SessionKey::as_str), after, "{id}");
            assert_eq!(session.modified().await, record["modified"], "{id}");
        }
        if let Some(exists) = record["file_exists_after"].as_bool() {
            assert_eq!(path.exists(), exists, "{id}");
        }
        if key.is_some() {
            // What cannot be read is replaced by the next save, as there.
            session.clear().await;
            session.insert("a", &1).await.unwrap();
            session.save().await.unwrap();
            assert_eq!(session.data().await.unwrap().to_json().unwrap(), r#"{"a":1}"#, "{id}");
        }
        tally.passed(&record);
    }
    assert_eq!(tally.passed, 54);
}

#[tokio::test]
async fn keys_lead_nowhere_else() {
    let place = empty().await;
    let outside = tempfile::tempdir().unwrap();
    let real = record(r#"{"a":1}"#);
    store_in(outside.path(), &settings()).create(&real).await.unwrap();
    let target = outside.path().join(format!("sessionid{}", real.session_key.as_str()));
    let content = fs::read(&target).unwrap();

    let planted = |name: &str| place.directory.path().join(format!("sessionid{name}"));
    std::os::unix::fs::symlink(&target, planted("linktoafile")).unwrap();
    std::os::unix::fs::symlink(outside.path(), planted("linktoadirectory")).unwrap();
    std::os::unix::fs::symlink("nowhere", planted("danglinglink")).unwrap();
    std::os::unix::fs::symlink(planted("linktoitself"), planted("linktoitself")).unwrap();
    fs::create_dir(planted("adirectory")).unwrap();
    assert!(Command::new("mkfifo").arg(planted("apipethatblocks")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(planted("asocketfile")).unwrap();
    let before = place.names();

    let traversal = format!("/../../../../../../../..{}", target.display());
    let long = "x".repeat(300);
    let longest = "x".repeat(255 - "sessionid".len());
    for key in [
        "linktoafile",
        "linktoadirectory",
        "danglinglink",
        "linktoitself",
        "adirectory",
        "apipethatblocks",
        "asocketfile",
        "../../etc/passwd",
        "..\\..\\etc\\passwd",
        "adirectory/..",
        "nul\0nul\0nul",
        "newline\nnewline",
        "ABCDEFGHIJKL",
        "ａｂｃｄｅｆｇｈ",
        "abcdefg\u{301}",
        &traversal,
        &long,
        &longest,
    ] {
        let (session_key, at) = (SessionKey::parse(key).unwrap(), key.escape_debug());
        assert!(!place.exists(&session_key).await.unwrap(), "{at}");
        assert!(place.load(&session_key, now()).await.unwrap().is_none(), "{at}");
        let record = SessionRecord { session_key: session_key.clone(), ..real.clone() };
        assert!(place.save(&record).await.unwrap_err().is_update(), "{at}");
        assert!(place.touch(&record).await.unwrap_err().is_update(), "{at}");
        place.delete(&session_key).await.unwrap();
        let _ = place.create(&record).await.unwrap_err();
    }
    assert_eq!(place.names(), before);
    assert_eq!(fs::read(&target).unwrap(), content);
}

#[tokio::test]
async fn numbers_of_seconds_count_from_the_last_save() {
    let place = empty().await;
    let clock = FixedClock::at(1_700_000_000.123_456);
    let settings = Arc::new(settings());
    for (expiry, seconds) in [
        (Expiry::Default, 1_209_600.0),
        (Expiry::BrowserClose, 1_209_600.0),
        (Expiry::Age(300), 300.0),
        (Expiry::In(SignedDuration::from_secs(500)), 500.0),
    ] {
        let open = |key| {
            let store = Arc::new(place.store.clone());
            Session::with_clock(store, Arc::clone(&settings), key, Arc::new(clock.clone()))
        };
        let session = open(None);
        session.set_expiry(expiry).await.unwrap();
        session.save().await.unwrap();
        let key = session.session_key().await.unwrap();
        let modified = fs::metadata(place.path(&key)).unwrap().modified().unwrap();
        if !matches!(expiry, Expiry::In(_)) {
            assert_eq!(Timestamp::try_from(modified).unwrap(), clock.now(), "{expiry:?}");
        }
        let end = settings.datetime(clock.now());
        let end = end.checked_add(SignedDuration::from_secs_f64(seconds)).unwrap();
        assert_eq!(
            place.load(&key, DateTime::Aware(clock.now())).await.unwrap().unwrap().expire_date,
            end
        );
        assert!(place.load(&key, end).await.unwrap().is_none());
        place.delete(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_date_is_not_moved() {
    let place = empty().await;
    let session = Session::new(Arc::new(place.store.clone()), Arc::new(settings()), None);
    let date = now().checked_add(SignedDuration::from_hours(5)).unwrap();
    session.set_expiry(Expiry::Date(date)).await.unwrap();
    session.save().await.unwrap();
    let key = session.session_key().await.unwrap();
    let loaded = place.load(&key, now()).await.unwrap().unwrap();
    let later = date.checked_add(SignedDuration::from_hours(9)).unwrap();
    let touched = SessionRecord { expire_date: later, ..loaded };
    place.touch(&touched).await.unwrap();
    place.save(&touched).await.unwrap();
    assert_eq!(place.load(&key, now()).await.unwrap().unwrap().expire_date, date);
}

/// In Django such a session is a server error; here it can be repaired.
#[tokio::test]
async fn an_expiry_that_cannot_be_read_is_none() {
    for expiry in ["\"soon\"", "[1]", "1e300", "NaN", "\"\"", "null"] {
        let place = empty().await;
        let made = record(&format!(r#"{{"_session_expiry":{expiry}}}"#));
        place.create(&made).await.unwrap();
        let loaded = place.load(&made.session_key, now()).await.unwrap().unwrap();
        assert_eq!(loaded.expire_date, made.expire_date, "{expiry}");
        set_modified(&place.path(&made.session_key), "2020-01-01T00:00:00Z".parse().unwrap());
        assert!(place.load(&made.session_key, now()).await.unwrap().is_none(), "{expiry}");
        assert_eq!(place.clear_expired(now()).await.unwrap(), 1, "{expiry}");
    }
}

#[tokio::test]
async fn a_naive_date_is_the_site_s_clock() {
    let settings = {
        let mut settings = naive_settings();
        settings.use_tz = true;
        settings
    };
    let place = Place::new(&settings);
    let made = record(r#"{"_session_expiry":"2031-07-01T12:00:00"}"#);
    place.create(&made).await.unwrap();
    for (now, lives) in [("2031-07-01T15:59:59.999999Z", true), ("2031-07-01T16:00:00Z", false)] {
        let now = DateTime::Aware(now.parse().unwrap());
        assert_eq!(place.load(&made.session_key, now).await.unwrap().is_some(), lives);
    }
}

/// The longest time that ext4 holds is in 2446.
#[tokio::test]
async fn a_time_that_the_file_system_does_not_hold_is_an_error() {
    let place = empty().await;
    let expire_date = DateTime::Aware("9999-06-01T00:00:00Z".parse().unwrap());
    let made = SessionRecord { expire_date, ..record("{}") };
    match place.create(&made).await {
        Ok(_) => {
            let loaded = place.load(&made.session_key, now()).await.unwrap().unwrap();
            assert_eq!(loaded.expire_date, expire_date);
        }
        Err(error) => {
            assert!(matches!(error, StoreError::ExpireDate(_)), "{error:?}");
            assert_eq!(place.names(), [""; 0]);
        }
    }
}

#[tokio::test]
async fn clearing_leaves_what_is_none_of_its_business() {
    let place = empty().await;
    let live = record(r#"{"a":1}"#);
    place.create(&live).await.unwrap();
    let date = record(r#"{"_session_expiry":"2020-01-01T00:00:00+00:00"}"#);
    let corrupt = SessionKey::generate();
    let empty = SessionKey::generate();
    place.create(&date).await.unwrap();
    fs::write(place.path(&corrupt), "not signed").unwrap();
    fs::write(place.path(&empty), "").unwrap();
    let old = "2020-01-01T00:00:00Z".parse().unwrap();
    set_modified(&place.path(&corrupt), old);
    set_modified(&place.path(&empty), old);
    let foreign = [
        "sessionid",
        "sessionidUPPERCASE",
        "sessionidabc.backup",
        "another",
        "sessionidabcdefgh_out_short",
        "sessionidabcdefgh_out_ab12_cd3",
        "csrftokenabcdefgh",
    ];
    for name in foreign {
        let path = place.directory.path().join(name);
        fs::write(&path, "").unwrap();
        set_modified(&path, old);
    }
    fs::create_dir(place.directory.path().join("sessioniddirectory")).unwrap();

    assert_eq!(place.clear_expired(now()).await.unwrap(), 3);
    let mut left: Vec<_> = foreign.iter().map(|name| (*name).to_owned()).collect();
    left.push("sessioniddirectory".into());
    left.push(format!("sessionid{}", live.session_key.as_str()));
    left.sort();
    assert_eq!(place.names(), left);
}

/// A codec that cannot judge a session must not remove it.
#[tokio::test]
async fn clearing_leaves_what_another_serializer_wrote() {
    let place = empty().await;
    let codec = settings().codec().unwrap().with_serializer(Serializer::Pickle);
    let pickles = FileStore::new(place.directory.path(), codec);
    let made =
        SessionRecord { expire_date: DateTime::Aware(Timestamp::UNIX_EPOCH), ..record("{}") };
    pickles.create(&made).await.unwrap();
    assert_eq!(place.clear_expired(now()).await.unwrap(), 0);
    assert_eq!(pickles.clear_expired(now()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_lock_is_waited_for_and_not_for_ever() {
    let place = empty().await;
    let made = record(r#"{"a":1}"#);
    place.create(&made).await.unwrap();
    let held = fs::File::open(place.path(&made.session_key)).unwrap();
    held.lock().unwrap();
    let impatient = place.store.clone().with_lock_timeout(Duration::from_millis(20));
    for error in [
        impatient.save(&made).await.unwrap_err(),
        impatient.delete(&made.session_key).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::TimedOut(_)) && error.is_outage(), "{error:?}");
    }
    // Readers wait for nobody.
    assert!(impatient.load(&made.session_key, now()).await.unwrap().is_some());
    assert_eq!(place.names().len(), 1);

    let patient = place.store.clone().with_lock_timeout(Duration::from_mins(1));
    let saving = tokio::spawn(async move { patient.save(&made).await.map(drop) });
    tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    saving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_directory_that_is_missing_is_an_outage() {
    let place = empty().await;
    let made = record(r#"{"a":1}"#);
    let file = place.directory.path().join("file");
    fs::write(&file, "").unwrap();
    for directory in [place.directory.path().join("nowhere"), file] {
        let store = store_in(&directory, &settings());
        let key = &made.session_key;
        for error in [
            store.exists(key).await.map(drop).unwrap_err(),
            store.load(key, now()).await.map(drop).unwrap_err(),
            store.create(&made).await.map(drop).unwrap_err(),
            store.save(&made).await.map(drop).unwrap_err(),
            store.touch(&made).await.map(drop).unwrap_err(),
            store.delete(key).await.unwrap_err(),
            store.clear_expired(now()).await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
            assert!(!format!("{error:?}").contains(key.as_str()));
        }
        // The web layer answers 503: the session is neither lost nor found.
        let session = Session::new(Arc::new(store), Arc::new(settings()), Some(key.clone()));
        session.data().await.unwrap_err();
        assert!(session.session_key().await.as_ref() == Some(key));
    }
}

/// The same program once more, as another process.
struct Other;

impl Other {
    /// Runs a test of this module that is ignored otherwise, by a shell that may set limits first.
    fn command(name: &str, directory: &Path, key: &SessionKey, limits: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits}\nexec \"$0\" \"$@\""));
        command.arg(std::env::current_exe().unwrap());
        command.args([&format!("file::{name}"), "--exact", "--ignored", "--nocapture", "--quiet"]);
        command.env("FILE_DIRECTORY", directory).env("FILE_KEY", key.as_str());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// What the process was given.
    fn arguments() -> (FileStore, SessionKey) {
        let directory = std::env::var_os("FILE_DIRECTORY").expect("it is started by a test");
        let key = std::env::var("FILE_KEY").unwrap();
        (store_in(Path::new(&directory), &settings()), SessionKey::parse(&key).unwrap())
    }

    fn finish(child: Child) -> String {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }
}

const WORKERS: usize = 8;
const INCREMENTS: usize = 30;

/// Adds names of its own, one save each.
async fn increment(store: FileStore, key: SessionKey, worker: &str) {
    let (store, settings) = (Arc::new(store), Arc::new(settings()));
    for index in 0..INCREMENTS {
        let session = Session::new(store.clone(), settings.clone(), Some(key.clone()));
        session.insert(&format!("{worker}_{index}"), &index).await.unwrap();
        let total: usize = session.get(worker).await.unwrap().unwrap_or(0);
        session.insert(worker, &(total + 1)).await.unwrap();
        session.save().await.unwrap();
    }
}

async fn check_increments(place: &Place, key: &SessionKey, workers: usize) {
    let loaded = place.load(key, now()).await.unwrap().unwrap();
    for worker in 0..workers {
        let worker = format!("worker{worker}");
        assert_eq!(loaded.data.get::<usize>(&worker).unwrap(), Some(INCREMENTS));
    }
    assert_eq!(loaded.data.len(), workers * (INCREMENTS + 1));
    assert_eq!(place.names().len(), 1, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_lose_nothing_to_each_other() {
    let place = empty().await;
    lost_updates::check("files", Arc::new(place.store.clone()), &settings()).await;
    assert_eq!(place.names().len(), 2, "a session each, and nothing is left behind");
}

#[tokio::test]
async fn processes_lose_nothing_to_each_other() {
    let place = empty().await;
    let made = record("{}");
    place.create(&made).await.unwrap();
    let children: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let directory = place.directory.path();
            let mut command =
                Other::command("other_process_increments", directory, &made.session_key, "");
            command.env("FILE_WORKER", format!("worker{worker}")).spawn().unwrap()
        })
        .collect();
    for child in children {
        Other::finish(child);
    }
    check_increments(&place, &made.session_key, WORKERS).await;
}

#[tokio::test]
#[ignore = "it is a process of another test"]
async fn other_process_increments() {
    let (store, key) = Other::arguments();
    increment(store, key, &std::env::var("FILE_WORKER").unwrap()).await;
}

/// Saves until it is killed; all values of one save are one number.
#[tokio::test]
#[ignore = "it is a process of another test"]
async fn other_process_saves_until_killed() {
    let (store, key) = Other::arguments();
    for number in 0_u64.. {
        let mut data = SessionData::new();
        for name in 0..2000 {
            data.insert(&name.to_string(), &number).unwrap();
        }
        let saved =
            SessionRecord { session_key: key.clone(), data: Arc::new(data), ..record("{}") };
        store.save(&saved).await.unwrap();
    }
}

#[tokio::test]
async fn a_writer_that_is_killed_leaves_a_whole_session() {
    let place = empty().await;
    let made = record("{}");
    place.create(&made).await.unwrap();
    let (mut left_behind, mut saved) = (0, 0);
    for round in 0..60 {
        let name = "other_process_saves_until_killed";
        let command = Other::command(name, place.directory.path(), &made.session_key, "");
        let mut child = { command }.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(20_000 + round * 311));
        child.kill().unwrap();
        child.wait().unwrap();
        let loaded = place.load(&made.session_key, now()).await.unwrap().unwrap();
        let first = loaded.data.get::<u64>("0").unwrap();
        saved += u64::from(first.is_some_and(|number| number > 0));
        for name in loaded.data.keys() {
            assert_eq!(loaded.data.get(&name.to_str().unwrap()).unwrap(), first);
        }
        // Its lock died with it.
        place.save(&loaded).await.unwrap();
        for name in place.names() {
            if name.contains("_out_") {
                left_behind += 1;
                fs::remove_file(place.directory.path().join(name)).unwrap();
            }
        }
        assert_eq!(place.names().len(), 1);
    }
    eprintln!("killed 60 times, {saved} of them while saving; {left_behind} temporary files left");
    assert!(saved > 0, "it was killed before it could save");
}

/// Tries to save a session of a megabyte, and says what came of it.
#[tokio::test]
#[ignore = "it is a process of another test"]
async fn other_process_saves_much() {
    let (store, key) = Other::arguments();
    let mut data = SessionData::new();
    let noise: String = (0..30_000).map(|_| SessionKey::generate().as_str().to_owned()).collect();
    data.insert("noise", &noise).unwrap();
    let big = SessionRecord { session_key: key, data: Arc::new(data), ..record("{}") };
    for error in [
        store.save(&big).await.unwrap_err(),
        store
            .create(&SessionRecord { session_key: SessionKey::generate(), ..big })
            .await
            .unwrap_err(),
    ] {
        println!("{}", classify(&error));
    }
}

fn classify(error: &StoreError) -> String {
    let (class, source) = match error {
        StoreError::Backend(source) => ("backend", source),
        StoreError::Busy(source) => ("busy", source),
        StoreError::TimedOut(source) => ("timed out", source),
        StoreError::Unreachable(source) => ("unreachable", source),
        other => return format!("another: {other:?}"),
    };
    assert!(error.is_outage());
    let Some(FileError::Io { source, .. } | FileError::Directory(source)) =
        source.downcast_ref::<FileError>()
    else {
        return format!("{class}: {source:?}");
    };
    format!("{class}: {}", source.kind())
}

/// What the process says, one line each; the test runner says something too.
fn lines(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.contains(": ") && !line.contains("test result")).collect()
}

/// Runs a process that fails to write, and looks at what it leaves.
async fn check_failure(place: &Place, limits: &str, expected: &str) {
    let made = record(r#"{"a":1}"#);
    place.create(&made).await.unwrap();
    let before = place.names();
    let directory = place.directory.path();
    let mut command =
        Other::command("other_process_saves_much", directory, &made.session_key, limits);
    let said = Other::finish(command.spawn().unwrap());
    assert_eq!(lines(&said), [expected, expected]);
    assert_eq!(place.names(), before, "nothing is left behind");
    let loaded = place.load(&made.session_key, now()).await.unwrap().unwrap();
    assert_eq!(loaded.data.to_json().unwrap(), r#"{"a":1}"#);
    place.delete(&made.session_key).await.unwrap();
}

#[tokio::test]
async fn a_limit_on_files_leaves_the_old_session() {
    // Without the trap the signal would end the process.
    check_failure(&empty().await, "trap '' XFSZ; ulimit -f 8", "backend: file too large").await;
}

#[test]
fn addresses_are_read() {
    for (url, directory) in [
        ("file:///srv/site/sessions", "/srv/site/sessions"),
        ("FILE:/srv/site?sync=true&cookie_name=sid", "/srv/site"),
        ("file:sessions", "sessions"),
        ("file:///a%3Fb%20c", "/a?b c"),
    ] {
        let store = FileStore::connect(url, &settings()).unwrap();
        assert_eq!(store.directory(), Path::new(directory), "{url}");
    }
    let temporary = FileStore::connect("file:", &settings()).unwrap();
    assert_eq!(temporary.directory(), std::env::temp_dir());
    for (url, message) in [
        ("file://host/path", "the address must be a path"),
        ("file:///%ff", "the address must be a path"),
        ("file:///srv?sync=perhaps", "the option `sync` of the address must be `true` or `false`"),
        (
            "file:///srv?lock_timout=1",
            "an option of the address is unknown; did you mean `lock_timeout`?",
        ),
        ("sqlite:file", "the scheme of the address is unknown; did you mean `file`?"),
    ] {
        let error = FileStore::connect(url, &settings()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// Runs a command as root, if that takes no password.
fn as_root(command: &str, arguments: &[&OsStr]) -> bool {
    let run = |program: &str, first: &[&str]| {
        let status =
            Command::new(program).args(first).args(arguments).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    run(command, &[]) || run("sudo", &["-n", command])
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        assert!(as_root("umount", &[self.0.as_os_str()]));
    }
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_session() {
    let place = empty().await;
    let path = place.directory.path();
    let options = ["-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs"].map(OsStr::new);
    if !as_root("mount", &[&options[..], &[path.as_os_str()]].concat()) {
        let message = "NOT TESTED: a full disk; mounting a small one takes root";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
        return;
    }
    let _mounted = Mounted(path);
    check_failure(&place, "", "backend: no storage space").await;
}

/// Every operation with no file left to open.
#[tokio::test]
#[ignore = "it is a process of another test"]
async fn other_process_runs_out_of_files() {
    let (store, key) = Other::arguments();
    // The thread for blocking calls is there before nothing can be opened any more.
    assert!(store.load(&key, now()).await.unwrap().is_some());
    let mut hoard = Vec::new();
    let refused = loop {
        match fs::File::open("/dev/null") {
            Ok(file) => hoard.push(file),
            Err(error) => break error,
        }
    };
    assert!(refused.raw_os_error().is_some());
    let made = SessionRecord { session_key: key.clone(), ..record("{}") };
    let errors = [
        store.load(&key, now()).await.map(drop).unwrap_err(),
        store.save(&made).await.map(drop).unwrap_err(),
        store.touch(&made).await.map(drop).unwrap_err(),
        store.create(&record("{}")).await.map(drop).unwrap_err(),
        store.delete(&key).await.unwrap_err(),
        store.clear_expired(now()).await.map(drop).unwrap_err(),
    ];
    drop(hoard);
    for error in errors {
        assert!(error.is_retryable());
        println!("{}", classify(&error).split_once(": ").unwrap().0.to_owned() + ": again");
    }
    store.load(&key, now()).await.unwrap().unwrap();
}

#[tokio::test]
async fn too_many_open_files_is_no_end_of_a_session() {
    let place = empty().await;
    let made = record(r#"{"a":1}"#);
    place.create(&made).await.unwrap();
    let directory = place.directory.path();
    let name = "other_process_runs_out_of_files";
    let mut command = Other::command(name, directory, &made.session_key, "ulimit -n 40");
    let said = Other::finish(command.spawn().unwrap());
    assert_eq!(lines(&said), ["busy: again"; 6]);
    assert!(place.exists(&made.session_key).await.unwrap());
}

/// Every operation where nothing is allowed.
#[tokio::test]
#[ignore = "it is a process of another test"]
async fn other_process_has_no_rights() {
    let (store, key) = Other::arguments();
    let made = SessionRecord { session_key: key.clone(), ..record("{}") };
    for error in [
        store.load(&key, now()).await.map(drop).unwrap_err(),
        store.save(&made).await.map(drop).unwrap_err(),
        store.touch(&made).await.map(drop).unwrap_err(),
        store.create(&record("{}")).await.map(drop).unwrap_err(),
        store.delete(&key).await.unwrap_err(),
    ] {
        println!("{}", classify(&error));
    }
}

#[tokio::test]
async fn missing_rights_are_no_end_of_a_session() {
    let place = empty().await;
    let made = record(r#"{"a":1}"#);
    place.create(&made).await.unwrap();
    // Readable, so that the directory is found, but for its owner alone to write.
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(place.path(&made.session_key), fs::Permissions::from_mode(0o000)).unwrap();
    let name = "other_process_has_no_rights";
    let mut command = Other::command(name, place.directory.path(), &made.session_key, "");
    if is_root() {
        use std::os::unix::process::CommandExt as _;
        let exe = std::env::current_exe().unwrap();
        // Somebody else must be able to start this program.
        let copy = place.directory.path().join("program");
        fs::hard_link(&exe, &copy).or_else(|_| fs::copy(&exe, &copy).map(drop)).unwrap();
        command = Command::new(&copy);
        command
            .args([&format!("file::{name}"), "--exact", "--ignored", "--nocapture", "--quiet"])
            .env("FILE_DIRECTORY", place.directory.path())
            .env("FILE_KEY", made.session_key.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .uid(65534)
            .gid(65534);
    }
    let said = Other::finish(command.spawn().unwrap());
    assert_eq!(lines(&said), ["backend: permission denied"; 5]);
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.path(&made.session_key), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(place.load(&made.session_key, now()).await.unwrap().is_some());
}

fn is_root() -> bool {
    let user = Command::new("id").arg("-u").output().unwrap();
    user.stdout.trim_ascii() == b"0"
}

/// What is in the directory, as far as both sides agree on it.
#[derive(Clone, Debug)]
struct Expected {
    /// `None` for a file that is no session.
    data: Option<Value>,
    aged: bool,
}

impl Expected {
    /// Whether Django, or this store, takes it for expired.
    fn is_expired(&self, in_django: bool) -> bool {
        let expiry = self.data.as_ref().and_then(|data| data.get("_session_expiry"));
        match expiry {
            Some(Value::String(date)) => date.starts_with("2001"),
            // The bug that `docs/compatibility.md` names.
            Some(Value::Number(seconds)) if seconds.as_i64() != Some(0) => !in_django && self.aged,
            _ => self.aged,
        }
    }
}

/// Random steps, by a Django and by this store in turns, against a model of both.
struct Walk {
    random: Random,
    django: Engine,
    place: Place,
    settings: Arc<SessionSettings>,
    model: BTreeMap<String, Expected>,
    /// Keys that once were.
    past: Vec<String>,
    seen: BTreeMap<&'static str, usize>,
}

impl Walk {
    fn key(&mut self) -> String {
        let illegal = ["", "short", "UPPERCASE", "under_score", "../../etc/passwd", "nul\0nul\0"];
        match self.random.below(20) {
            0 => illegal[self.random.below(illegal.len())].to_owned(),
            1 => "neverthere".to_owned(),
            2 if !self.past.is_empty() => {
                let index = self.random.below(self.past.len());
                self.past[index].clone()
            }
            _ if self.model.is_empty() => "neverthere".to_owned(),
            _ => {
                let index = self.random.below(self.model.len());
                self.model.keys().nth(index).unwrap().clone()
            }
        }
    }

    fn data(&mut self) -> Value {
        let mut data = json!({ "n": self.random.below(1000), "é": ["\u{1F36A}", 1.5, null] });
        let expiry = match self.random.below(8) {
            0 => json!(300),
            1 => json!(0),
            2 => json!("2001-01-01T00:00:00+00:00"),
            3 => json!("2101-01-01T00:00:00.000001+00:00"),
            4 => json!(null),
            _ => return data,
        };
        data["_session_expiry"] = expiry;
        data
    }

    /// What either side finds under a key, and what becomes of it by loading.
    fn look(&mut self, key: &str, in_django: bool) -> Option<Value> {
        let expected = self.model.get(key)?;
        if !expected.is_expired(in_django) {
            return Some(expected.data.clone().unwrap_or(json!({})));
        }
        if in_django {
            // It also makes a new session; `take` finds that.
            self.model.remove(key);
            self.past.push(key.to_owned());
        }
        None
    }

    fn session(&self, key: Option<&str>) -> Session {
        let key = key.and_then(SessionKey::parse);
        Session::new(Arc::new(self.place.store.clone()), Arc::clone(&self.settings), key)
    }

    /// Notes a session that was saved under a key, which may be new.
    fn put(&mut self, key: Option<&str>, data: Value) {
        let key = key.unwrap().to_owned();
        self.model.insert(key, Expected { data: Some(data), aged: false });
    }

    async fn step(&mut self) {
        let ops = [
            "create",
            "create",
            "load",
            "load",
            "load",
            "load",
            "set",
            "set",
            "set",
            "set",
            "delete",
            "exists",
            "exists",
            "cycle_key",
            "flush",
            "clear_expired",
            "age",
            "age",
            "break",
            "touch",
            "expiry_date",
            "expiry_date",
            "save",
        ];
        let op = ops[self.random.below(ops.len())];
        *self.seen.entry(op).or_default() += 1;
        let (key, data) = (self.key(), self.data());
        match op {
            "age" => {
                if let Some(expected) = self.model.get_mut(&key) {
                    expected.aged = true;
                    let old = Timestamp::now() - SignedDuration::from_hours(15 * 24);
                    set_modified(&self.place.path(&SessionKey::parse(&key).unwrap()), old);
                }
            }
            "break" => {
                if let Some(expected) = self.model.get_mut(&key) {
                    *expected = Expected { data: None, aged: false };
                    let path = self.place.path(&SessionKey::parse(&key).unwrap());
                    fs::write(path, "no session").unwrap();
                }
            }
            "touch" => {
                if self.look(&key, false).is_some() {
                    let session = self.session(Some(&key));
                    // What cannot be read has nothing to be moved.
                    let moved = session.touch().await.unwrap();
                    let expected = self.model.get_mut(&key).unwrap();
                    expected.aged &= !moved;
                }
            }
            _ if self.random.below(2) == 0 => self.django(op, &key, data).await,
            _ => self.ours(op, &key, data).await,
        }
    }

    async fn django(&mut self, op: &str, key: &str, data: Value) {
        let sent = (op != "create").then_some(key);
        let said = self.django.ask(&json!({ "op": op, "key": sent, "data": data }));
        let after = said["key"].as_str();
        let is_illegal = SessionKey::parse(key).is_some_and(|_| {
            !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        if is_illegal && matches!(op, "exists" | "delete" | "flush") {
            assert_eq!(said["raised"], "InvalidSessionKey", "{key}");
            return;
        }
        if op == "save" && SessionKey::parse(key).is_some() && !self.model.contains_key(key) {
            assert_eq!(said["raised"], "UpdateError", "{key}");
            return;
        }
        assert_eq!(said.get("raised"), None, "{op} {key:?}");
        let found = match op {
            "create" | "exists" | "delete" | "clear_expired" | "flush" => None,
            _ => self.look(key, true),
        };
        let json = said["json"].as_str().map(|json| serde_json::from_str::<Value>(json).unwrap());
        match op {
            "load" => {
                assert_eq!(json, Some(found.clone().unwrap_or(json!({}))));
                if found.is_some() {
                    assert_eq!(after, Some(key));
                }
            }
            "create" | "set" => {
                let mut all = found.unwrap_or(json!({}));
                all.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
                assert_eq!(json, Some(all.clone()));
                if op == "create" {
                    assert_ne!(after, Some(key));
                }
                self.put(after, all);
            }
            "save" => self.put(after, found.unwrap_or(json!({}))),
            "cycle_key" => {
                if self.model.remove(key).is_some() {
                    self.past.push(key.to_owned());
                }
                self.put(after, found.unwrap_or(json!({})));
            }
            "flush" | "delete" => {
                if self.model.remove(key).is_some() {
                    self.past.push(key.to_owned());
                }
            }
            "exists" => assert_eq!(said["found"], self.model.contains_key(key), "{key}"),
            "clear_expired" => {
                let (gone, left) = std::mem::take(&mut self.model)
                    .into_iter()
                    .partition(|(_, expected)| expected.is_expired(true));
                self.model = left;
                self.past.extend(BTreeMap::into_keys(gone));
            }
            "expiry_date" => {
                let loaded = SessionKey::parse(key).map(|key| (self.place.path(&key), key));
                if found.is_some()
                    && let Some((path, key)) = loaded
                    && !fs::read(path).unwrap().starts_with(b"no")
                {
                    self.compare_dates(&key, &said["found"]).await;
                }
            }
            _ => panic!("{op}"),
        }
        // The empty session that Django makes of an expired one.
        if let Some(new) = after
            && op != "exists"
            && op != "delete"
            && !self.model.contains_key(new)
        {
            assert_ne!(new, key);
            self.put(Some(new), json!({}));
        }
    }

    async fn compare_dates(&self, key: &SessionKey, theirs: &Value) {
        let loaded = self.place.load(key, now()).await.unwrap();
        match theirs {
            // A number of seconds stays one there.
            Value::Number(_) => {}
            date => {
                let date = DateTime::fromisoformat(date.as_str().unwrap()).unwrap();
                assert_eq!(loaded.unwrap().expire_date, date);
            }
        }
    }

    async fn ours(&mut self, op: &str, key: &str, data: Value) {
        let session = self.session(Some(key));
        let found = match op {
            "create" | "exists" | "delete" | "clear_expired" | "flush" => None,
            _ => self.look(key, false),
        };
        let update = SessionData::from_json(&data.to_string()).unwrap();
        let legal = SessionKey::parse(key);
        match op {
            "load" | "expiry_date" => {
                let loaded: Value =
                    serde_json::from_str(&session.data().await.unwrap().to_json().unwrap())
                        .unwrap();
                assert_eq!(loaded, found.clone().unwrap_or(json!({})));
                let after = session.session_key().await;
                assert_eq!(after.is_some(), found.is_some());
            }
            "create" | "set" => {
                let session = if op == "create" { self.session(None) } else { session };
                session.update(&update).await.unwrap();
                session.save().await.unwrap();
                let mut all = found.unwrap_or(json!({}));
                all.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
                let after = session.session_key().await.unwrap();
                self.put(Some(after.as_str()), all);
            }
            "save" => {
                // An unknown key is found out while saving.
                match session.save().await {
                    Ok(()) => {
                        let after = session.session_key().await.unwrap();
                        self.put(Some(after.as_str()), found.unwrap_or(json!({})));
                    }
                    Err(error) => assert!(error.is_interrupted() && found.is_none()),
                }
            }
            "cycle_key" => {
                session.cycle_key().await.unwrap();
                let after = session.session_key().await.unwrap();
                if found.is_some() {
                    self.model.remove(key);
                    self.past.push(key.to_owned());
                }
                self.put(Some(after.as_str()), found.unwrap_or(json!({})));
            }
            "flush" | "delete" => {
                if op == "flush" {
                    session.flush().await.unwrap();
                } else {
                    session.delete().await.unwrap();
                }
                if self.model.remove(key).is_some() {
                    self.past.push(key.to_owned());
                }
            }
            "exists" => {
                if let Some(legal) = legal {
                    let exists = session.exists(&legal).await.unwrap();
                    assert_eq!(exists, self.model.contains_key(key));
                }
            }
            "clear_expired" => {
                let (gone, left): (BTreeMap<_, _>, _) = std::mem::take(&mut self.model)
                    .into_iter()
                    .partition(|(_, expected)| expected.is_expired(false));
                let cleared = session.clear_expired().await.unwrap();
                assert_eq!(cleared, gone.len() as u64);
                self.model = left;
                self.past.extend(gone.into_keys());
            }
            _ => panic!("{op}"),
        }
    }
}

fn engine(directory: &Path) -> Option<Engine> {
    Engine::start(&json!({
        "SESSION_ENGINE": "django.contrib.sessions.backends.file",
        "SESSION_FILE_PATH": directory,
    }))
}

/// Those of the Django at the other end.
fn shared_settings() -> SessionSettings {
    SessionSettings::default().with_secret_key(SecretKey::new(differential::SECRET_KEY).unwrap())
}

#[tokio::test]
async fn a_random_walk_beside_django_ends_where_the_model_does() {
    const STEPS: usize = 4000;
    let place = Place::new(&shared_settings());
    let Some(django) = engine(place.directory.path()) else { return };
    let mut walk = Walk {
        random: Random::new(),
        django,
        place,
        settings: Arc::new(shared_settings()),
        model: BTreeMap::new(),
        past: Vec::new(),
        seen: BTreeMap::new(),
    };
    for _ in 0..STEPS {
        walk.step().await;
    }
    let names: Vec<_> = walk.model.keys().map(|key| format!("sessionid{key}")).collect();
    assert_eq!(walk.place.names(), names);
    eprintln!("{STEPS} steps, {} sessions at the end: {:?}", names.len(), walk.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_django_beside_us_loses_changes() {
    let place = Place::new(&shared_settings());
    let (store, django) = (Arc::new(place.store.clone()), || engine(place.directory.path()));
    lost_updates::show_beside_django("files", store, &shared_settings(), django).await;
}

/// A Django saves and at last deletes a session, without a lock, while four tasks save it here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_django_has_deleted_stays_deleted() {
    const ROUNDS: usize = 60;
    const SAVES: usize = 12;
    let place = Place::new(&shared_settings());
    let Some(mut django) = engine(place.directory.path()) else { return };
    let settings = Arc::new(shared_settings());
    let (mut missing, mut saves) = (0, 0);
    for _ in 0..ROUNDS {
        django.tell(&json!({ "op": "churn", "saves": SAVES }));
        let key = SessionKey::parse(django.answer()["key"].as_str().unwrap()).unwrap();
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let (store, settings) = (Arc::new(place.store.clone()), Arc::clone(&settings));
                let key = key.clone();
                tokio::spawn(async move {
                    for index in 0_usize.. {
                        let session =
                            Session::new(store.clone(), settings.clone(), Some(key.clone()));
                        session.insert(&format!("task_{task}"), &index).await.unwrap();
                        if session.session_key().await.is_none() {
                            return index;
                        }
                        match session.save().await {
                            Ok(()) => {}
                            Err(error) if error.is_interrupted() => return index,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        missing += django.answer()["missing"].as_u64().unwrap();
        for task in tasks {
            saves += task.await.unwrap();
        }
        assert!(!place.exists(&key).await.unwrap(), "it stays deleted");
    }
    assert_eq!(place.names(), [""; 0]);
    eprintln!(
        "{saves} saves beside {} of Django: {missing} of its values were missing",
        ROUNDS * SAVES
    );
}

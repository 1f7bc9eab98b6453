//! The commands about whole stores: what they say when something comes in between.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use django_session::store::sqlx::{self, AssertSqlSafe, Connection as _, Row as _};
use django_session::{SecretKey, SessionCodec, SessionData};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{NOW, codec, files, keyed, path, run, stderr, stdout};

const TABLE: &str = "CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, \
    session_data text NOT NULL, expire_date datetime NOT NULL)";
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A database of SQLite.
struct Table(PathBuf);

impl Table {
    fn new(folder: &tempfile::TempDir, name: &str) -> Self {
        let table = Self(folder.path().join(name));
        table.execute(TABLE);
        table
    }

    fn url(&self) -> String {
        format!("sqlite:{}", path(&self.0))
    }

    #[tokio::main(flavor = "current_thread")]
    async fn execute(&self, sql: &str) -> Vec<(String, String, String)> {
        let url = format!("{}?mode=rwc", self.url());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        rows.into_iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    fn insert(&self, session_key: &str, data: &str, ends: Timestamp) {
        let text = stored(data, Timestamp::now());
        self.insert_text(session_key, &text, ends);
    }

    fn insert_text(&self, session_key: &str, text: &str, ends: Timestamp) {
        let ends = ends.strftime("%Y-%m-%d %H:%M:%S");
        self.execute(&format!(
            "INSERT INTO django_session VALUES ('{session_key}', '{text}', '{ends}')"
        ));
    }

    /// What the one session holds, and its end.
    fn only(&self) -> (String, String) {
        let rows = self.execute("SELECT * FROM django_session");
        let [(_, text, ends)] = &rows[..] else { panic!("there is one") };
        let data = codec().decode(text).unwrap().data;
        (data.to_json().unwrap(), ends[..19].to_owned())
    }
}

fn stored(data: &str, at: Timestamp) -> String {
    codec().encode(&SessionData::from_json(data).unwrap(), at.as_second()).unwrap()
}

fn key(number: usize) -> String {
    format!("{number:032}")
}

/// A directory with so many sessions.
fn directory(folder: &tempfile::TempDir, name: &str, sessions: usize) -> PathBuf {
    let directory = folder.path().join(name);
    fs::create_dir(&directory).unwrap();
    for number in 0..sessions {
        put(&directory, number, &stored("{\"a\":1}", Timestamp::now()));
    }
    directory
}

fn put(directory: &Path, number: usize, text: &str) {
    fs::write(directory.join(format!("sessionid{}", key(number))), text).unwrap();
}

fn count(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap().map(|it| it.unwrap().file_name());
    files.filter(|name| name.to_str().unwrap().starts_with("sessionid")).count()
}

fn url(directory: &Path) -> String {
    format!("file://{}", path(directory))
}

fn at(store: &str, arguments: &[&str]) -> Command {
    let mut command = keyed(arguments);
    command.env("SESSION_STORE_URL", store).arg("--quiet");
    command
}

fn migration(from: &str, to: &str, arguments: &[&str]) -> Command {
    let mut command = keyed(&["migrate", "--quiet", "--json"]);
    command.args(arguments).env("FROM_SESSION_STORE_URL", from).env("TO_SESSION_STORE_URL", to);
    command
}

fn started(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Tells a command to stop, once it listens to that.
fn terminate(child: &Child) {
    eventually(|| listens(child));
    signal(child);
}

fn signal(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
}

#[cfg(target_os = "linux")]
fn listens(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught & (1 << (15 - 1)) != 0
}

#[cfg(not(target_os = "linux"))]
fn listens(_: &Child) -> bool {
    std::thread::sleep(Duration::from_secs(1));
    true
}

fn eventually(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

#[test]
fn a_comparison_that_is_stopped_has_verified_nothing() {
    let folder = files();
    let (from, to) = (directory(&folder, "from", 100), directory(&folder, "to", 0));
    let checkpoint = folder.path().join("checkpoint");
    let arguments = ["--verify", "--rate", "20", "--checkpoint", path(&checkpoint)];
    let child = started(migration(&url(&from), &url(&to), &arguments));
    eventually(|| count(&to) == 100);
    std::thread::sleep(Duration::from_millis(300));
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 8, "{}", stderr(&output));
    let said = document(&output);
    assert_eq!((&said["complete"], &said["verified"]), (&false.into(), &Value::Null));
    assert!(checkpoint.exists());
    let output = run(
        migration(&url(&from), &url(&to), &["--verify", "--checkpoint", path(&checkpoint)]),
        "",
    );
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(document(&output)["verified"]["equal"], 100);
    assert!(!checkpoint.exists());
}

#[test]
fn a_search_that_is_stopped_does_not_say_that_there_is_none() {
    let folder = files();
    let store = url(&directory(&folder, "store", 100));
    let child = started(at(&store, &["show", "0000000000000000", "--rate", "20"]));
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 8, "{}", stderr(&output));
}

fn seconds(date: Timestamp) -> String {
    date.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[test]
fn of_two_ends_of_one_session_the_policy_takes_one() {
    let (sooner, later) = (Timestamp::now() + DAY, Timestamp::now() + DAY * 2);
    // What the source has, what the target has, the policy, what it has then, and what is counted.
    for (ours, theirs, policy, left, counted) in [
        (later, sooner, "keep", sooner, "kept"),
        (later, sooner, "replace", later, "replaced"),
        (sooner, later, "replace", sooner, "replaced"),
        (later, sooner, "newer", later, "replaced"),
        (sooner, later, "newer", later, "kept"),
        (later, sooner, "merge", later, "merged"),
        (sooner, later, "merge", later, "kept"),
        (later, later + SignedDuration::from_secs(1), "replace", later, "same"),
    ] {
        let folder = files();
        let (from, to) = (Table::new(&folder, "from"), Table::new(&folder, "to"));
        from.insert(&key(1), "{\"a\":1}", ours);
        to.insert(&key(1), "{\"a\":1}", theirs);
        let output = run(migration(&from.url(), &to.url(), &["--on-conflict", policy]), "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(document(&output)[counted], 1, "{policy}: {}", stdout(&output));
        let left = if counted == "same" { theirs } else { left };
        assert_eq!(to.only().1, seconds(left), "{policy}");
    }
}

#[test]
fn what_has_expired_in_the_target_keeps_nothing_out() {
    for (policy, text) in
        [("keep", None), ("newer", None), ("merge", None), ("keep", Some("no session"))]
    {
        let folder = files();
        let (from, to) = (Table::new(&folder, "from"), Table::new(&folder, "to"));
        let (ended, ends) = (Timestamp::now() - DAY, Timestamp::now() + DAY);
        from.insert_text(&key(1), &stored("{\"a\":1}", Timestamp::now() - DAY * 3), ends);
        to.insert_text(
            &key(1),
            text.unwrap_or(&stored("{\"b\":2}", Timestamp::now() - DAY)),
            ended,
        );
        let output = run(migration(&from.url(), &to.url(), &["--on-conflict", policy]), "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(to.only(), ("{\"a\":1}".to_owned(), seconds(ends)), "{policy}");
    }
}

#[test]
fn a_row_whose_copy_cannot_be_forgotten_stays_as_it_is() {
    let folder = files();
    let table = Table::new(&folder, "table");
    let old = SessionCodec::new(&SecretKey::new("an old key").unwrap());
    let text = old.encode(&SessionData::from_json("{\"a\":1}").unwrap(), NOW).unwrap();
    table.insert_text(&key(1), &text, Timestamp::now() + DAY);
    // Nobody listens there.
    let store = format!("{}?cache_url=memcached://127.0.0.1:1", table.url());
    let mut command = at(&store, &["rotate", "--without-users"]);
    command.env("SECRET_KEY_FALLBACKS", "[\"an old key\"]");
    let output = run(command, "");
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    let rows = table.execute("SELECT * FROM django_session");
    assert_eq!(rows[0].1, text);
}

#[test]
fn nobody_who_reads_the_summary_makes_it_no_success() {
    let folder = files();
    let from = directory(&folder, "from", 2);
    put(&from, 3, "no session");
    let to = directory(&folder, "to", 0);
    let mut command = migration(&url(&from), &url(&to), &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer);
    assert_eq!(command.status().unwrap().code(), Some(7));
    assert_eq!(count(&to), 2);
}

#[test]
fn sessions_that_may_be_meant_and_cannot_be_read_are_reported() {
    let folder = files();
    let directory = directory(&folder, "store", 0);
    put(&directory, 1, &stored("{\"_auth_user_id\":\"7\"}", Timestamp::now()));
    put(&directory, 2, "no session");
    put(&directory, 3, &stored("{\"_auth_user_id\":\"8\"}", Timestamp::now()));
    let store = url(&directory);
    for (arguments, revoked) in [(&["--dry-run"][..], 1), (&["--yes"], 1), (&["--yes"], 0)] {
        let mut command = at(&store, &["revoke", "--user", "7", "--json"]);
        command.args(arguments);
        let output = run(command, "");
        assert_eq!(code(&output), 7, "{}", stderr(&output));
        let said = document(&output);
        assert_eq!(said["revoked"], revoked);
        let reasons = said["unreadable"].as_object().unwrap();
        assert_eq!(reasons.values().collect::<Vec<_>>(), [&Value::from(1)]);
    }
    let output = run(at(&store, &["revoke", "--user", "7", "--yes"]), "");
    assert_eq!(code(&output), 7);
    assert!(stdout(&output).contains("1 sessions cannot be read: "), "{}", stdout(&output));
    assert_eq!(count(&directory), 2);
    // Where nothing in it matters it need not be read.
    assert_eq!(code(&run(at(&store, &["revoke", "--all", "--yes"]), "")), 0);
    assert_eq!(count(&directory), 0);
}

#[test]
fn sessions_that_keep_coming_are_not_all_revoked() {
    let folder = files();
    let directory = directory(&folder, "store", 10);
    let (store, text) = (url(&directory), stored("{}", Timestamp::now()));
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let writer = std::thread::spawn(move || {
        // However fast they go, there are some.
        for number in 100.. {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            put(&directory, number, &text);
            while count(&directory) > 20 && !ends.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let output = run(at(&store, &["revoke", "--all", "--yes", "--json", "--rate", "50"]), "");
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(code(&output), 7, "{}", stdout(&output));
    assert_eq!(document(&output)["passes"], 5);
}

#[test]
fn what_an_earlier_run_rejected_is_not_forgotten() {
    let folder = files();
    let (from, to) = (directory(&folder, "from", 60), directory(&folder, "to", 0));
    put(&from, 100, "no session");
    let checkpoint = folder.path().join("checkpoint");
    let arguments = ["--verify", "--checkpoint", path(&checkpoint)];
    let mut command = migration(&url(&from), &url(&to), &arguments);
    command.args(["--rate", "20"]);
    let child = started(command);
    // The comparison has begun.
    eventually(|| {
        let noted = fs::read_to_string(&checkpoint).ok();
        let noted: Option<Value> = noted.and_then(|text| serde_json::from_str(&text).ok());
        noted.is_some_and(|it| it["left"].as_array().is_some_and(Vec::is_empty))
    });
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 8, "{}", stderr(&output));
    let noted = fs::read_to_string(&checkpoint).unwrap();
    let output = run(migration(&url(&from), &url(&to), &arguments), "");
    assert_eq!(code(&output), 7, "{}", stdout(&output));
    let reasons = document(&output)["rejected"].as_object().unwrap().clone();
    assert_eq!(reasons.values().collect::<Vec<_>>(), [&Value::from(1)]);
    // A file of before has no such member.
    let mut before: Value = serde_json::from_str(&noted).unwrap();
    assert!(before.as_object_mut().unwrap().remove("rejected").is_some());
    fs::write(&checkpoint, before.to_string()).unwrap();
    let output = run(migration(&url(&from), &url(&to), &arguments), "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let folder = files();
    let (from, to) = (directory(&folder, "from", 100), directory(&folder, "to", 0));
    let arguments = ["--rate", "1", "--workers", "16"];
    let mut child = started(migration(&url(&from), &url(&to), &arguments));
    // The others are waiting for their turn then.
    eventually(|| count(&to) > 0);
    terminate(&child);
    while child.try_wait().unwrap().is_none() {
        // Two that come too fast are one.
        std::thread::sleep(Duration::from_millis(100));
        signal(&child);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", stderr(&output));
}

#[test]
fn an_archive_is_a_file_of_its_own_until_it_is_complete() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = files();
    let store = url(&directory(&folder, "store", 20));
    let (archive, other) = (folder.path().join("archive"), folder.path().join("other"));
    fs::write(&other, "of somebody else").unwrap();
    symlink(&other, folder.path().join("archive.part")).unwrap();
    // Two at a time do not write into one file either.
    let export =
        |rate| at(&store, &["export", path(&archive), "--include-secrets", "--rate", rate]);
    let slow = started(export("40"));
    let output = run(export("1000"), "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let output = slow.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
    assert_eq!(fs::symlink_metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let empty = directory(&folder, "empty", 0);
    assert_eq!(code(&run(at(&url(&empty), &["import", path(&archive)]), "")), 0);
    assert_eq!(count(&empty), 20);
    // Nothing is left of one that was stopped.
    let child = started(export("2"));
    terminate(&child);
    assert_eq!(code(&child.wait_with_output().unwrap()), 8);
    let names = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_str().unwrap().contains(".part")).count(), 1);
}

#[test]
fn a_cache_is_not_asked_what_only_signatures_tell() {
    let folder = files();
    let table = Table::new(&folder, "table");
    table.execute(
        "CREATE TABLE cached (cache_key varchar(255) NOT NULL PRIMARY KEY, value text NOT NULL, \
         expires datetime NOT NULL)",
    );
    let cache = format!("{}?cache_table=cached", table.url());
    for asked in [["--older-than", "0s"], ["--fallback", "any"]] {
        for command in [&["list"][..], &["revoke", "--yes"], &["revoke", "--dry-run"]] {
            let arguments = [command, &asked].concat();
            let output = run(at(&cache, &arguments), "");
            assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
            assert!(stderr(&output).contains(asked[0]), "{}", stderr(&output));
            assert_eq!(code(&run(at(&table.url(), &arguments), "")), 0);
        }
    }
}

#[test]
fn what_is_deleted_meanwhile_does_not_stay_over_what_had_expired() {
    let folder = files();
    let (from, to) = (Table::new(&folder, "from"), Table::new(&folder, "to"));
    let (ended, ends) = (Timestamp::now() - DAY, Timestamp::now() + DAY);
    for number in 1..=3 {
        from.insert(&key(number), "{\"a\":1}", ends);
    }
    to.insert(&key(2), "{\"b\":2}", ended);
    // One that the site has moved leaves the source too.
    from.insert(&key(4), "{\"a\":1}", ends);
    to.insert(&key(4), "{\"a\":1}", ends);
    let child = started(migration(&from.url(), &to.url(), &["--rate", "1", "--workers", "4"]));
    let keys = || to.execute("SELECT * FROM django_session").into_iter().map(|row| row.0);
    eventually(|| keys().any(|it| it == key(1)));
    // They have been read, and wait for their turn.
    from.execute(&format!("DELETE FROM django_session WHERE session_key <> '{}'", key(1)));
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(document(&output)["deleted_meanwhile"], 2, "{}", stdout(&output));
    assert_eq!(keys().collect::<BTreeSet<_>>(), BTreeSet::from([key(1), key(4)]));
}

#[test]
fn a_session_that_was_replaced_is_as_old_as_before() {
    let folder = files();
    let (from, to) = (Table::new(&folder, "from"), Table::new(&folder, "to"));
    let ends = Timestamp::now() + DAY;
    let ago = |seconds| Timestamp::now() - SignedDuration::from_secs(seconds);
    from.insert_text(&key(1), &stored("{\"a\":1}", ago(200)), ends);
    to.insert_text(&key(1), &stored("{\"a\":0}", ago(300)), ends);
    for (policy, saved, data, left) in [
        ("newer", None, "", "{\"a\":1}"),
        // Before the one above was written, and after it was saved.
        ("newer", Some(100), "{\"a\":2}", "{\"a\":2}"),
        ("merge", Some(90), "{\"b\":3}", "{\"a\":2,\"b\":3}"),
        ("merge", Some(80), "{\"a\":4}", "{\"a\":4,\"b\":3}"),
    ] {
        if let Some(saved) = saved {
            from.execute("DELETE FROM django_session");
            from.insert_text(&key(1), &stored(data, ago(saved)), ends);
        }
        let output = run(migration(&from.url(), &to.url(), &["--on-conflict", policy]), "");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(to.only().0, left, "{}", stdout(&output));
    }
}

#[test]
fn an_expire_date_that_is_none_stops_nothing() {
    let folder = files();
    let (from, to) = (Table::new(&folder, "from"), Table::new(&folder, "to"));
    from.insert(&key(1), "{\"a\":1}", Timestamp::now() + DAY);
    let text = stored("{\"a\":2}", Timestamp::now());
    from.execute(&format!("INSERT INTO django_session VALUES ('{}', '{text}', 'soon')", key(2)));
    let output = run(at(&from.url(), &["stats", "--json"]), "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = document(&output);
    assert_eq!(said["sessions"], 2);
    assert!(stdout(&output).contains("the expire date is none"), "{}", stdout(&output));
    // Nobody knows how long it would have to be kept.
    let output = run(migration(&from.url(), &to.url(), &[]), "");
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert_eq!(to.only().0, "{\"a\":1}");
    assert_eq!(code(&run(at(&from.url(), &["rotate", "--without-users"]), "")), 7);
    assert_eq!(code(&run(at(&from.url(), &["revoke", "--all", "--yes"]), "")), 0);
    assert_eq!(from.execute("SELECT * FROM django_session").len(), 0);
}

#[test]
fn a_session_of_several_lines_is_one_line_of_an_archive() {
    let folder = files();
    let store = directory(&folder, "store", 0);
    put(&store, 1, &stored("{\"a\":[1,\r\n2,\"\\n\"]}", Timestamp::now()));
    let archive = folder.path().join("archive");
    let export = at(&url(&store), &["export", path(&archive), "--include-secrets"]);
    assert_eq!(code(&run(export, "")), 0);
    let empty = directory(&folder, "empty", 0);
    let output = run(at(&url(&empty), &["import", path(&archive)]), "");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(count(&empty), 1);
    let text = fs::read_to_string(empty.join(format!("sessionid{}", key(1)))).unwrap();
    let data = codec().decode(&text).unwrap().data;
    assert_eq!(data.to_json().unwrap(), "{\"a\":[1,  2,\"\\n\"]}");
}

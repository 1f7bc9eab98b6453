//! What a caller of `SqlStore` sees when the database, or the way to it, fails.
//!
//! Whatever happens, a session that is there is never "not there", a change that was acknowledged is
//! there, one that was deleted stays deleted, and the store recovers by itself. The table that the tests
//! print is the one in `docs/compatibility.md`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::str::FromStr as _;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use django_session::session::{Saved, SessionRecord};
use django_session::store::sqlx::sqlite::SqliteConnectOptions;
use django_session::store::sqlx::{self, AssertSqlSafe};
use django_session::store::{SqlPool, SqlStore};
use django_session::{DateTime, Session, SessionError, SessionKey, SessionStore, StoreError};
use jiff::SignedDuration;

use crate::proxy::{Mode, Proxy};
use crate::servers::{Servers, Stopped, signal};
use crate::stores::{Kind, Place, now, record, settings, until};

const STEPS: [&str; 6] = ["load", "create", "save", "touch", "delete", "delete revision"];

/// What came of each step, for the table.
#[derive(Default)]
struct Seen(BTreeMap<&'static str, Vec<&'static str>>);

impl Seen {
    fn note(&mut self, step: &'static str, outcome: &'static str) {
        let outcomes = self.0.entry(step).or_default();
        if !outcomes.contains(&outcome) {
            outcomes.push(outcome);
        }
    }

    fn print(&self, store: &str, fault: &str) {
        let steps = STEPS.iter().map(|step| match self.0.get(step) {
            Some(outcomes) => format!("{step}: {}", outcomes.join(" or ")),
            None => format!("{step}: -"),
        });
        eprintln!("{store}, {fault}: {}", steps.collect::<Vec<_>>().join(", "));
    }
}

fn name_of(error: &StoreError) -> &'static str {
    assert!(error.is_outage(), "an outage, not {error:?}");
    match error {
        StoreError::Busy(_) => "busy",
        StoreError::TimedOut(_) => "timed out",
        StoreError::Unreachable(_) => "unreachable",
        _ => "refused",
    }
}

/// A record whose data says which one it is.
fn numbered(number: u32) -> SessionRecord {
    let mut record = record(now());
    Arc::make_mut(&mut record.data).insert("number", &number).unwrap();
    record
}

/// Takes a step while something is wrong, and checks by another way what it did.
async fn step(
    step: &'static str,
    store: &dyn SessionStore,
    direct: &dyn SessionStore,
    before: impl AsyncFnOnce(),
    after: impl AsyncFnOnce(),
) -> &'static str {
    let there = numbered(1);
    direct.create(&there).await.unwrap();
    let loaded = direct.load(&there.session_key, now()).await.unwrap().unwrap();
    let new = numbered(2);
    let changed = SessionRecord { data: Arc::clone(&numbered(3).data), ..loaded.clone() };
    before().await;
    let outcome = match step {
        "load" => store.load(&there.session_key, now()).await.map(|found| {
            assert!(found.is_some(), "a session that is there is not lost");
        }),
        "create" => store.create(&new).await.map(drop),
        "save" => store.save(&changed).await.map(drop),
        "touch" => store.touch(&changed).await.map(drop),
        "delete" => store.delete(&there.session_key).await,
        _ => store.delete_revision(&there.session_key, loaded.revision.as_ref().unwrap()).await,
    };
    after().await;
    let stored = direct.load(&there.session_key, now()).await.unwrap();
    let number = stored.map(|stored| stored.data.get::<u32>("number").unwrap().unwrap());
    match (step, &outcome) {
        ("save", Ok(())) => assert_eq!(number, Some(3), "what was acknowledged is there"),
        ("delete" | "delete revision", Ok(())) => {
            assert_eq!(number, None, "what was deleted is gone");
        }
        // Nobody knows whether it took effect, but it did so wholly or not at all.
        ("save", Err(_)) => assert!(matches!(number, Some(1 | 3))),
        ("delete" | "delete revision", Err(_)) => assert!(matches!(number, Some(1) | None)),
        _ => assert_eq!(number, Some(1), "{step} leaves it alone"),
    }
    if step == "create" && outcome.is_ok() {
        assert!(direct.load(&new.session_key, now()).await.unwrap().is_some());
    }
    outcome.as_ref().map_or_else(name_of, |()| "done")
}

/// The store comes back by itself.
async fn recovers(store: &dyn SessionStore) {
    for _ in 0..100 {
        // Another one each time: what was given up may be there all the same.
        let record = numbered(9);
        if store.create(&record).await.is_ok()
            && let Ok(found) = store.load(&record.session_key, now()).await
        {
            assert!(found.is_some(), "what was created is there");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it has not recovered");
}

fn through(url: &str, port: u16, options: &str) -> String {
    let (head, rest) = url.rsplit_once(':').unwrap();
    let database = rest.split_once('/').unwrap().1;
    format!("{head}:{port}/{database}?acquire_timeout=2&timeout=1{options}")
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn a_broken_way_to_the_database_loses_nothing() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let proxy = Proxy::before(port_of(&place.url)).await;
        let url = through(&place.url, proxy.port(), "");
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        let direct = place.store().await;
        for (fault, mode, expected) in [
            ("reset before the request", Mode::CutRequest, "done"),
            ("reset before the answer", Mode::CutAnswer(0), "done"),
            ("reset within the answer", Mode::CutAnswer(7), "done"),
            ("no answer", Mode::Swallow, "timed out"),
        ] {
            let mut seen = Seen::default();
            for what in STEPS {
                let before = async || proxy.set(mode);
                let after = async || proxy.set(Mode::Pass);
                let outcome = step(what, &store, &direct, before, after).await;
                seen.note(what, outcome);
                let also: &[_] = match (mode, what) {
                    // Connections that hang may be all there are, and new ones are not made.
                    (Mode::Swallow, _) => &["busy", "unreachable"],
                    // The first try has deleted it, or somebody else has meanwhile.
                    (_, "delete revision") => &["unreachable"],
                    _ => &[],
                };
                assert!(
                    outcome == expected || also.contains(&outcome),
                    "{kind:?} {fault} {what}: {outcome}"
                );
                recovers(&store).await;
            }
            seen.print(&format!("SqlStore, {kind:?}"), fault);
        }
    }
}

/// sqlx asks a connection that it gets back whether it is alive. If the answer is lost, so must not be the
/// connection's place.
#[tokio::test]
async fn a_small_pool_recovers_from_a_network_that_swallows() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let proxy = Proxy::before(port_of(&place.url)).await;
        let url = through(&place.url, proxy.port(), "&max_connections=2");
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        for mode in [Mode::SwallowPings, Mode::Swallow, Mode::SwallowPings, Mode::Swallow] {
            proxy.set(mode);
            for _ in 0..2 {
                let (one, other) = (numbered(1), numbered(2));
                let (one, other) = tokio::join!(store.create(&one), store.create(&other));
                for error in [one.err(), other.err()].into_iter().flatten() {
                    name_of(&error);
                }
            }
            proxy.set(Mode::Pass);
            recovers(&store).await;
            // Both of them.
            let (one, other) = (numbered(1), numbered(2));
            let (one, other) = tokio::join!(store.create(&one), store.create(&other));
            one.and(other).unwrap();
        }
    }
}

#[tokio::test]
async fn connections_that_a_firewall_has_forgotten_are_replaced() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let proxy = Proxy::before(port_of(&place.url)).await;
        let url = through(&place.url, proxy.port(), "&max_connections=2");
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        let (one, other) = (numbered(1), numbered(2));
        let (first, second) = tokio::join!(store.create(&one), store.create(&other));
        first.and(second).unwrap();
        // Long enough for them not to be trusted.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        proxy.forget();
        for record in [&one, &other] {
            let loaded = store.load(&record.session_key, now()).await.unwrap();
            assert!(loaded.is_some(), "{kind:?}");
        }
    }
}

/// What comes of a future that goes on so many times, and is dropped then.
async fn polled<F: Future>(mut times: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        times -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if times == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// As a client that disconnects: nobody reads what it was told, and nobody is told it in its place.
#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_next_one_its_own_answer() {
    for place in Place::all().await {
        for persistent in [true, false] {
            let url = format!("{}?max_connections=2", place.url);
            let store =
                SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
            let store = store.with_persistent_statements(persistent);
            let records: Vec<_> = (0..8).map(numbered).collect();
            for record in &records {
                store.create(record).await.unwrap();
            }
            let mut given_up = 0;
            for round in 0..160_u32 {
                let record = &records[round as usize % records.len()];
                let other = numbered(100 + round);
                // Reading, and writing what nobody else reads.
                let done = if round % 2 == 0 {
                    let load = store.load(&record.session_key, now());
                    polled(1 + round / 2 % 8, load).await.is_some()
                } else {
                    polled(1 + round / 2 % 8, store.create(&other)).await.is_some()
                };
                given_up += u32::from(!done);
                let (first, second) = (&records[round as usize % 7], &records[7]);
                let (found, also) = tokio::join!(
                    store.load(&first.session_key, now()),
                    store.load(&second.session_key, now()),
                );
                for (record, found) in [(first, found), (second, also)] {
                    let found = found.unwrap().expect("it is there");
                    assert_eq!(found.data, record.data, "{:?} round {round}", place.kind);
                }
            }
            let kept = if persistent { "kept" } else { "not kept" };
            eprintln!("{:?}, statements {kept}: {given_up} of 160 gave up", place.kind);
            assert!(given_up > 0, "{:?}", place.kind);
        }
    }
}

/// Logging in and logging out are answered once, for two statements each of which may be lost.
#[tokio::test]
async fn a_rotation_whose_answers_are_lost_loses_no_session() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let proxy = Proxy::before(port_of(&place.url)).await;
        let url = through(&place.url, proxy.port(), "&max_connections=1");
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        let direct = place.store().await;
        let name = format!("SqlStore, {kind:?}");
        let expected = ["done", "done"];
        rotate_without_answers(&name, store, direct, &proxy, Some(&place), &expected).await;
    }
}

/// What becomes of a rotation in two steps of which the load, the first or the second is not answered.
pub(crate) const TWO_STEPS: [&str; 3] = ["done", "done", "unreachable"];

/// Loses the answer to each request of a rotation, one after the other.
pub(crate) async fn rotate_without_answers(
    name: &str,
    store: impl SessionStore,
    direct: impl SessionStore,
    proxy: &Proxy,
    place: Option<&Place>,
    expected: &[&str],
) {
    let store: Arc<dyn SessionStore> = Arc::new(store);
    let rotate = async |lost: Option<usize>| {
        let mut old = numbered(1);
        Arc::make_mut(&mut old.data).insert("_auth_user_id", "7").unwrap();
        direct.create(&old).await.unwrap();
        let session =
            Session::new(Arc::clone(&store), Arc::new(settings()), Some(old.session_key.clone()));
        proxy.set(lost.map_or(Mode::Pass, Mode::CutLaterAnswer));
        let outcome = session.cycle_key().await;
        let was_cut = proxy.mode() == Mode::Pass;
        proxy.set(Mode::Pass);
        let new = session.session_key().await.expect("there is a key");
        let is_there = async |key: &SessionKey| direct.load(key, now()).await.unwrap().is_some();
        assert!(is_there(&new).await, "there is a session");
        let old_is_there = is_there(&old.session_key).await;
        match &outcome {
            Ok(()) => assert!(new != old.session_key && !old_is_there, "the old key is of no use"),
            Err(error) => {
                assert!(!error.is_interrupted(), "nobody has logged out");
                let SessionError::Store(error) = error else { panic!("{error:?}") };
                assert_eq!(name_of(error), "unreachable");
            }
        }
        if let Some(place) = place {
            let keys = place.select("SELECT session_key FROM {table}").await;
            assert_eq!(keys, [new.as_str()], "nothing is left behind");
            place.execute("DELETE FROM {table}").await;
        }
        (was_cut, outcome.is_ok())
    };
    // For the connection and its statements.
    rotate(None).await;
    let mut outcomes = Vec::new();
    for lost in 0.. {
        let (was_cut, done) = rotate(Some(lost)).await;
        if !was_cut {
            break;
        }
        outcomes.push(if done { "done" } else { "unreachable" });
        rotate(None).await;
    }
    eprintln!(
        "{name}, rotation of which one request after the other is not answered: {outcomes:?}"
    );
    assert_eq!(outcomes, expected);
}

/// A broken connection does not make another revision one that may be deleted, nor an unknown outcome.
#[tokio::test]
async fn another_revision_is_a_conflict_also_after_a_broken_connection() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let proxy = Proxy::before(port_of(&place.url)).await;
        let url = through(&place.url, proxy.port(), "");
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        let record = numbered(1);
        let Saved { revision, .. } = store.create(&record).await.unwrap();
        let other = SessionRecord { data: Arc::clone(&numbered(2).data), ..record.clone() };
        place.store().await.save(&other).await.unwrap();
        for mode in [Mode::CutRequest, Mode::CutAnswer(0), Mode::CutAnswer(7)] {
            let revision = revision.as_ref().unwrap();
            proxy.set(mode);
            let deleted = store.delete_revision(&record.session_key, revision).await;
            assert!(deleted.unwrap_err().is_conflict(), "{kind:?} {mode:?}");
            let record = SessionRecord { revision: Some(revision.clone()), ..record.clone() };
            proxy.set(mode);
            assert!(store.save(&record).await.unwrap_err().is_conflict(), "{kind:?} {mode:?}");
        }
    }
}

/// Killed in the middle of its work, and away for good.
#[tokio::test]
async fn a_database_that_was_killed_is_unreachable() {
    for (name, variable) in [("postgres", "TEST_POSTGRES_URL"), ("mariadb", "TEST_MYSQL_URL")] {
        let Some(servers) = Servers::start(name, variable) else { continue };
        let url = servers.url(variable);
        let patient = SqlStore::connect(url, &settings()).await.unwrap();
        let kind = if name == "postgres" { Kind::Postgres } else { Kind::MySql };
        for statement in crate::stores::ddl(kind) {
            crate::stores::execute(patient.pool(), &statement).await;
        }
        let record = numbered(1);
        let created = patient.create(&record).await.unwrap();
        let url = format!("{url}?acquire_timeout=1&timeout=1&max_connections=3");
        let store = SqlStore::connect(&url, &settings()).await.unwrap();
        let [(pid, _)] = servers.processes(variable)[..] else { panic!() };
        {
            let _stopped = Stopped::new(pid);
            // PostgreSQL answers from a process of the connection's own; MariaDB may stop a moment later.
            let mut hangs = name != "mariadb";
            while !hangs {
                if let Err(error) = store.load(&record.session_key, now()).await {
                    assert!(matches!(name_of(&error), "timed out" | "busy" | "unreachable"));
                    hangs = true;
                }
            }
        }
        recovers(&store).await;
        signal("KILL", pid);
        let take = async |what| match what {
            "load" => store.load(&record.session_key, now()).await.map(|found| {
                assert!(found.is_some(), "a session that is there is not lost");
            }),
            "create" => store.create(&numbered(2)).await.map(drop),
            "save" => store.save(&record).await.map(drop),
            "touch" => store.touch(&record).await.map(drop),
            "delete" => store.delete(&SessionKey::generate()).await,
            _ => {
                let revision = created.revision.as_ref().unwrap();
                store.delete_revision(&SessionKey::generate(), revision).await
            }
        };
        let mut seen = Seen::default();
        for what in STEPS {
            // Its processes end one after the other, and some answer until then.
            let mut outcome = "done";
            for _ in 0..100 {
                outcome = match take(what).await {
                    Ok(()) => "done",
                    Err(error) if error.is_outage() => name_of(&error),
                    Err(error) if what == "delete revision" && error.is_conflict() => "done",
                    Err(error) => panic!("{what}: {error:?}"),
                };
                if outcome == "unreachable" {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(outcome, "unreachable", "{what}");
            seen.note(what, outcome);
        }
        seen.print(&format!("SqlStore, {kind:?}"), "server killed");
    }
}

#[tokio::test]
async fn a_database_that_only_reads_refuses_to_write() {
    let Some(place) = Place::new(Kind::Postgres).await else { return };
    let url = through(
        &place.url,
        port_of(&place.url),
        "&options=-c%20default_transaction_read_only%3Don",
    );
    let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
    let direct = place.store().await;
    let mut seen = Seen::default();
    for what in STEPS {
        let outcome = step(what, &store, &direct, async || (), async || ()).await;
        assert_eq!(outcome, if what == "load" { "done" } else { "refused" }, "{what}");
        seen.note(what, outcome);
    }
    seen.print("SqlStore, Postgres", "read-only");
}

/// As after a failover: what was connected to only reads, and who connects again may write.
#[tokio::test]
async fn a_connection_that_only_reads_is_replaced() {
    let Some(place) = Place::new(Kind::Postgres).await else { return };
    let role = &place.table;
    place.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{role}'")).await;
    place.execute(&format!("GRANT ALL ON {role} TO {role}")).await;
    place.execute(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
    let (_, server) = place.url.split_once('@').unwrap();
    let url = format!("postgres://{role}:{role}@{server}");
    let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
    assert_eq!(name_of(&store.create(&numbered(1)).await.unwrap_err()), "refused");
    place.execute(&format!("ALTER ROLE {role} RESET default_transaction_read_only")).await;
    store.create(&numbered(1)).await.unwrap();
    drop(store);
    place.execute(&format!("DROP OWNED BY {role}")).await;
    place.execute(&format!("DROP ROLE {role}")).await;
}

/// MariaDB lets those with rights over the server write all the same, so it is another user.
#[tokio::test]
async fn a_mariadb_that_only_reads_refuses_to_write() {
    let Some(servers) = Servers::start("mariadb", "TEST_MYSQL_URL") else { return };
    let mut place = Place::without_table(Kind::MySql).unwrap();
    servers.url("TEST_MYSQL_URL").clone_into(&mut place.url);
    for statement in crate::stores::ddl(Kind::MySql) {
        place.execute(&statement.replace("django_session", &place.table)).await;
    }
    place.execute("CREATE USER site@'127.0.0.1' IDENTIFIED BY 'site'").await;
    place.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO site@'127.0.0.1'").await;
    let database = place.url.rsplit('/').next().unwrap();
    let url = format!("mysql://site:site@127.0.0.1:{}/{database}", port_of(&place.url));
    let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
    let direct = place.store().await;
    let mut seen = Seen::default();
    place.execute("SET GLOBAL read_only = 1").await;
    for what in STEPS {
        let outcome = step(what, &store, &direct, async || (), async || ()).await;
        assert_eq!(outcome, if what == "load" { "done" } else { "refused" }, "{what}");
        seen.note(what, outcome);
    }
    seen.print("SqlStore, MySql", "read-only");
    place.execute("SET GLOBAL read_only = 0").await;
    recovers(&store).await;
}

/// Fills what room there is for the table, and makes some again.
async fn fill(name: &str, store: &SqlStore, make_room: impl AsyncFnOnce()) {
    let there = numbered(1);
    let created = store.create(&there).await.unwrap();
    let large = || {
        let mut record = numbered(2);
        // Random, so that it cannot be made smaller.
        let text: String = (0..2_000).map(|_| SessionKey::generate().as_str().to_owned()).collect();
        Arc::make_mut(&mut record.data).insert("large", &text).unwrap();
        record
    };
    let mut fillers = Vec::new();
    let refused = loop {
        let filler = large();
        match store.create(&filler).await {
            Ok(_) => fillers.push(filler),
            Err(error) => break error,
        }
        assert!(fillers.len() < 1_000, "there is no end of room");
    };
    assert_eq!(name_of(&refused), "refused");
    let grown = SessionRecord {
        session_key: there.session_key.clone(),
        revision: created.revision,
        ..large()
    };
    let refused = store.save(&grown).await.unwrap_err();
    assert_eq!(name_of(&refused), "refused");
    let refused = std::error::Error::source(&refused).unwrap().to_string();
    let count = fillers.len();
    eprintln!("{name}, full after {count} sessions: create, save: refused: {refused}");
    let found = store.load(&there.session_key, now()).await.unwrap().unwrap();
    assert_eq!(found.data, there.data, "it is what it was");
    for filler in &fillers {
        let found = store.load(&filler.session_key, now()).await.unwrap().unwrap();
        assert_eq!(found.data, filler.data, "what was acknowledged is there");
    }
    make_room().await;
    for filler in &fillers {
        store.delete(&filler.session_key).await.unwrap();
    }
    recovers(store).await;
    store.save(&SessionRecord { revision: found.revision, ..grown }).await.unwrap();
}

#[tokio::test]
async fn a_full_sqlite_file_leaves_the_old_session() {
    let Some(place) = Place::new(Kind::Sqlite).await else { return };
    let options = SqliteConnectOptions::from_str(&place.url).unwrap();
    let pool = sqlx::SqlitePool::connect_with(options.pragma("max_page_count", "200"));
    let store = SqlStore::new(pool.await.unwrap(), settings().codec().unwrap());
    let store = store.with_table(&place.table);
    fill("SqlStore, Sqlite", &store, async || ()).await;
}

struct Mounted(tempfile::TempDir);

impl Mounted {
    /// A disk with this much room, which belongs to whom the process belongs; `None` if this takes root.
    fn new(size: &str, pid: u32) -> Option<Self> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

        let directory = tempfile::tempdir().unwrap();
        let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(directory.path());
        if !mount.stderr(std::process::Stdio::null()).status().is_ok_and(|done| done.success()) {
            eprintln!("NOT TESTED: a full disk; mounting a small one takes root");
            return None;
        }
        let mounted = Self(directory);
        chown(mounted.0.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
        let rights = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(mounted.0.path(), rights).unwrap();
        Some(mounted)
    }

    fn grow(&self, size: &str) {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(self.0.path());
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

/// MariaDB is not asked: 10.11 ends itself when its tables find no room.
#[tokio::test]
async fn a_full_disk_of_postgres_leaves_the_old_session() {
    let Some(servers) = Servers::start("postgres", "TEST_POSTGRES_URL") else { return };
    let [(pid, _)] = servers.processes("TEST_POSTGRES_URL")[..] else { panic!() };
    let Some(disk) = Mounted::new("2m", pid) else { return };
    let mut place = Place::without_table(Kind::Postgres).unwrap();
    servers.url("TEST_POSTGRES_URL").clone_into(&mut place.url);
    let path = disk.0.path().display();
    place.execute(&format!("CREATE TABLESPACE small LOCATION '{path}'")).await;
    for statement in crate::stores::ddl(Kind::Postgres) {
        let statement = statement.replace("django_session", &place.table);
        let is_table = statement.starts_with("CREATE TABLE");
        place.execute(&(statement + if is_table { " TABLESPACE small" } else { "" })).await;
    }
    fill("SqlStore, Postgres", &place.store().await, async || disk.grow("64m")).await;
    drop(servers);
}

/// Somebody else holds the row: the store waits, but not for ever.
#[tokio::test]
async fn a_row_that_is_held_is_waited_for_in_vain() {
    for (kind, options, expected) in [
        (Kind::Postgres, "", "timed out"),
        (Kind::Postgres, "&options=-c%20statement_timeout%3D200", "timed out"),
        (Kind::Postgres, "&options=-c%20lock_timeout%3D200", "busy"),
        (Kind::MySql, "", "timed out"),
    ] {
        let Some(place) = Place::new(kind).await else { continue };
        let url = through(&place.url, port_of(&place.url), options);
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        let direct = place.store().await;
        let record = numbered(1);
        direct.create(&record).await.unwrap();
        let holder = place.hold(&record.session_key).await;
        let error = store.save(&record).await.unwrap_err();
        assert_eq!(name_of(&error), expected, "{kind:?} {options}");
        assert!(error.is_retryable());
        drop(holder);
        recovers(&store).await;
    }
}

/// Somebody else has the second of two rows and wants the first one: MariaDB undoes who has changed
/// less, which is the store.
#[tokio::test]
async fn who_is_undone_by_a_deadlock_is_tried_again() {
    let Some(place) = Place::new(Kind::MySql).await else { return };
    let elsewhere = Place::new(Kind::MySql).await.unwrap();
    let (store, more) = (place.store().await, elsewhere.store().await);
    let deadlocks = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                     WHERE VARIABLE_NAME = 'INNODB_DEADLOCKS'";
    let deadlocks = async || place.select(deadlocks).await[0].parse::<u64>().unwrap();
    for round in 1..=3 {
        // In this order by either index.
        let mut keys = [SessionKey::generate(), SessionKey::generate()];
        keys.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        for (session_key, seconds) in keys.iter().zip([-20, -10]) {
            let session_key = session_key.clone();
            let record = SessionRecord { session_key, expire_date: at(seconds), ..numbered(round) };
            store.create(&record).await.unwrap();
        }
        for number in 0..20 {
            more.create(&numbered(number)).await.unwrap();
        }
        let before = deadlocks().await;
        let SqlPool::MySql(pool) = place.pool().await else { panic!() };
        let mut transaction = pool.begin().await.unwrap();
        let mut update = async |table: &str, session_key: &str| {
            let sql = format!(
                "UPDATE {table} SET session_data = 'other {round}' WHERE session_key LIKE '{session_key}'"
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.unwrap();
        };
        update(&elsewhere.table, "%").await;
        update(&place.table, keys[1].as_str()).await;
        let waiting = format!(
            "SELECT lock_table FROM information_schema.INNODB_LOCKS WHERE lock_table LIKE '%{}%'",
            place.table
        );
        let waits = async || !place.select(&waiting).await.is_empty();
        until("what is told of the round before is gone", async || !waits().await).await;
        let clearing = store.clone();
        let clearing = tokio::spawn(async move { clearing.clear_expired(now()).await });
        // It has the first one and waits for the second one.
        until("it waits for the row", waits).await;
        update(&place.table, keys[0].as_str()).await;
        let after = deadlocks().await;
        assert!(after > before, "there was none");
        assert!(!clearing.is_finished(), "it is tried again, and waits");
        transaction.commit().await.unwrap();
        assert_eq!(clearing.await.unwrap().unwrap(), 2);
        eprintln!("SqlStore, MySql, deadlock {round}: done, {} counted", after - before);
    }
}

/// A statement of the store has one row on PostgreSQL, or passes over those that others have, so that it is
/// in no deadlock. A stricter isolation undoes it nevertheless.
#[tokio::test]
async fn who_cannot_be_serialized_is_tried_again() {
    let Some(place) = Place::new(Kind::Postgres).await else { return };
    let strict = "&options=-c%20default_transaction_isolation%3Dserializable";
    let url = through(&place.url, port_of(&place.url), strict);
    let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
    let SqlPool::Postgres(pool) = store.pool().clone() else { panic!() };
    let SqlPool::Postgres(others) = place.pool().await else { panic!() };
    let update = |record: &SessionRecord| {
        let key = record.session_key.as_str();
        let sql = format!(
            "UPDATE {} SET session_data = session_data || '' WHERE session_key = '{key}'",
            place.table
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
    };
    for by_store in [false, true] {
        let record = numbered(1);
        store.create(&record).await.unwrap();
        let mut other = others.begin().await.unwrap();
        update(&record).execute(&mut *other).await.unwrap();
        let saving = {
            let (store, pool) = (store.clone(), pool.clone());
            let (record, sql) = (record.clone(), update(&record));
            tokio::spawn(async move {
                if by_store {
                    return store.save(&record).await.map(drop).map_err(|error| error.to_string());
                }
                let error = sql.execute(&pool).await.unwrap_err();
                Err(error.as_database_error().unwrap().code().unwrap().into_owned())
            })
        };
        let waiting = format!(
            "SELECT pid::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
             AND query LIKE '%{}%' AND pid <> pg_backend_pid()",
            place.table
        );
        until("it waits for the row", async || !place.select(&waiting).await.is_empty()).await;
        other.commit().await.unwrap();
        let outcome = saving.await.unwrap();
        // What happens to whoever does not try again.
        assert_eq!(outcome, if by_store { Ok(()) } else { Err("40001".to_owned()) });
    }
}

/// Those who clear expired sessions at once, beside those who save, get into each other's way on
/// MariaDB; the server then may undo one of them, which is tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_clear_and_save_at_once_all_succeed() {
    for place in Place::all().await {
        let store = place.store().await;
        let live: Vec<_> = (0..20).map(numbered).collect();
        for round in 0..3 {
            let expired = |index: u32| SessionRecord {
                expire_date: at(-i64::from(index % 50) - 1),
                ..numbered(index)
            };
            for index in 0..150 {
                store.create(&expired(index)).await.unwrap();
            }
            for record in live.iter().filter(|_| round == 0) {
                store.create(record).await.unwrap();
            }
            let clearing = (0..4).map(|_| {
                let store = store.clone().with_clear_batch(20.try_into().unwrap());
                tokio::spawn(async move { store.clear_expired(now()).await })
            });
            let clearing: Vec<_> = clearing.collect();
            let saving = live.iter().map(|record| {
                let (store, record) = (store.clone(), record.clone());
                tokio::spawn(async move { store.save(&record).await })
            });
            let saving: Vec<_> = saving.collect();
            let mut cleared = 0;
            for task in clearing {
                cleared += task.await.unwrap().unwrap();
            }
            for task in saving {
                task.await.unwrap().unwrap();
            }
            cleared += store.clear_expired(now()).await.unwrap();
            assert_eq!(cleared, 150, "{:?}", place.kind);
        }
    }
}

fn at(seconds: i64) -> DateTime {
    now().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

#[tokio::test]
async fn no_more_connections_are_made_than_are_used() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let proxy = Proxy::before(port_of(&place.url)).await;
        let url = through(&place.url, proxy.port(), "&max_connections=3");
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        let record = numbered(1);
        store.create(&record).await.unwrap();
        let loads = (0..24).map(|_| {
            let (store, session_key) = (store.clone(), record.session_key.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    let now = settings().datetime(jiff::Timestamp::now());
                    assert!(store.load(&session_key, now).await.unwrap().is_some());
                }
            })
        });
        for load in loads.collect::<Vec<_>>() {
            load.await.unwrap();
        }
        assert_eq!(proxy.connections(), 3, "{kind:?}");
        store.close().await;
    }
}

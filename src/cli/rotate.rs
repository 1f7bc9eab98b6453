//! `django-session rotate` and `convert`: every stored session as the site writes it today, under today's
//! key, while the site runs.
//!
//! A session is replaced only if it still is what was read; whoever saved it meanwhile wins, and it is looked
//! at again. There is no need to note how far it got: what is done is seen from the sessions themselves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::json;

use super::error::CliError;
use super::objects::{Dropped, Kinds, Objects};
use super::output::{Output, Table, grouped};
use super::progress::Progress;
use super::rejects::Rejects;
use super::replicas::ReplicaArguments;
use super::site::{SiteArguments, address};
use super::work::{Ended, Stop, Walk, WorkArguments};
use crate::auth::{AuthSettings, PrimaryKey};
use crate::codec::{KeyMatch, Serializer, SessionCodec, SessionData};
use crate::session::{
    HASH_KEY, USER_ID_KEY, session_auth_hash_with, verify_session_auth_hash_with,
};
use crate::store::bulk::{
    BulkStore, BulkUsers, Change, Coding, Filter, OpenError, Opened, StoredSession,
};

/// How often a session is tried that others save at the same time.
const TRIES: usize = 5;
/// How many passwords are remembered.
const USERS: usize = 100_000;

/// Sign every session with SECRET_KEY that one of SECRET_KEY_FALLBACKS signed, and renew its login
///
/// The steps of a rotation, with nobody logged out: put the new key into SECRET_KEY and the old one into
/// SECRET_KEY_FALLBACKS, and restart the site; run this command with the same settings; when it says that
/// nothing is left, remove the old key.
///
/// The site goes on meanwhile. The hash of the password in each session (_auth_user_hash) is made anew if it
/// was right under an old key. A session whose user has another password since stays as dead as it is.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    users: UserArguments,
    #[command(flatten)]
    work: WorkArguments,
    #[command(flatten)]
    replicas: ReplicaArguments,
    #[command(flatten)]
    report: ReportArguments,
}

/// Write every session in the form and by the serializer of the settings, whatever it was written in
///
/// From the forms before Django 3.1 to today's, and from pickle to JSON (SESSION_FORMAT, SESSION_SERIALIZER).
/// What JSON has no form for is left as it is, and reported, unless --objects says otherwise. Sessions are
/// signed with SECRET_KEY; logins are renewed as by `rotate`.
#[derive(Debug, clap::Args)]
pub(super) struct ConvertArguments {
    #[command(flatten)]
    arguments: Arguments,
    #[command(flatten)]
    objects: Objects,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Users")]
struct UserArguments {
    /// The address of the database with the users, if it is not that of the store; without a password
    ///
    /// One with a password goes into the environment variable USERS_DATABASE_URL or into a file.
    #[arg(long, value_name = "URL")]
    users: Option<String>,
    /// A file that holds the address of the database with the users
    #[arg(long, value_name = "FILE", conflicts_with = "users")]
    users_file: Option<std::path::PathBuf>,
    /// Sign anew, and leave the hashes of passwords as they are
    #[arg(long)]
    without_users: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Report")]
struct ReportArguments {
    /// Look what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write what could not be done into this file, a line of JSON each
    #[arg(long, value_name = "FILE")]
    rejects: Option<std::path::PathBuf>,
    /// Write the summary as one JSON document, for programs
    #[arg(long)]
    json: bool,
}

impl ConvertArguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        self.arguments.execute("convert", Some(&self.objects), output).await
    }
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        self.execute("rotate", None, output).await
    }

    async fn execute(
        &self,
        name: &'static str,
        convert: Option<&Objects>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let settings = self.site.settings()?;
        let auth = self.site.auth_settings(&settings)?;
        let store = self.site.connect(&settings).await?;
        let users = self.users(&auth).await?;
        let estimate = store.estimate().await?;
        let now = settings.datetime(Timestamp::now());
        let filter = Filter { expires_from: Some(now), ..Filter::default() };
        let replicas = self.replicas.watch(&self.site.url()?).await?;
        let walk = Walk {
            replicas: Arc::clone(&replicas),
            ..Walk::new(&store, filter, &self.work, &Stop::listen())
        };
        let rotation = Arc::new(Rotation {
            store: Arc::clone(&store),
            codec: settings.codec()?,
            auth,
            users,
            known: Mutex::default(),
            convert: convert.cloned(),
            dropped: Dropped::default(),
            dry_run: self.report.dry_run,
            counts: Counts::default(),
            rejects: Rejects::new(self.report.rejects.as_deref(), None)?,
        });
        // Whoever had loaded a session before it was rotated may save it afterwards, as it was.
        let mut passes = 0;
        let ended = loop {
            passes += 1;
            rotation.counts.begin();
            rotation.rejects.begin()?;
            let progress = Progress::new(name, estimate.sessions, self.work.quiet());
            let working = Arc::clone(&rotation);
            let work = move |sessions| {
                let rotation = Arc::clone(&working);
                async move { rotation.rotate(sessions).await }
            };
            let ended = walk.run(&progress, work).await?;
            let counts = &rotation.counts;
            let changed = counts.this_pass.load(Ordering::Relaxed);
            if ended == Ended::Stopped || self.report.dry_run || changed == 0 || passes == PASSES {
                break ended;
            }
        };
        let summary = rotation.summary(name, passes, ended);
        output.report(&if self.report.json { summary.to_json() } else { summary.to_text() })?;
        if let Some(users) = &rotation.users {
            users.close().await;
        }
        store.close().await;
        replicas.close().await;
        summary.result()
    }

    async fn users(&self, auth: &AuthSettings) -> Result<Option<BulkUsers>, CliError> {
        if self.users.without_users {
            return Ok(None);
        }
        let option = self.users.users.as_deref();
        let own = address(option, self.users.users_file.as_ref(), "users", "USERS_DATABASE_URL");
        let url = match own {
            Err(CliError::NoStore { .. }) => {
                let url = self.site.url()?;
                if !url.is_sql() {
                    return Err(CliError::NoUsers);
                }
                url
            }
            url => url?,
        };
        Ok(Some(BulkUsers::connect(&url, &auth.user_model).await?))
    }
}

/// How often all sessions are looked at, at most, until one time there is nothing to do.
const PASSES: u32 = 5;

struct Rotation {
    store: Arc<dyn BulkStore>,
    /// What the site writes with.
    codec: SessionCodec,
    auth: AuthSettings,
    users: Option<BulkUsers>,
    known: Mutex<Passwords>,
    /// None if forms stay as they are.
    convert: Option<Objects>,
    dropped: Dropped,
    dry_run: bool,
    counts: Counts,
    rejects: Rejects,
}

#[derive(Debug, Default)]
struct Counts {
    seen: AtomicU64,
    signed: AtomicU64,
    rehashed: AtomicU64,
    converted: AtomicU64,
    ended: AtomicU64,
    contended: AtomicU64,
    this_pass: AtomicU64,
}

impl Counts {
    fn begin(&self) {
        for counter in [&self.seen, &self.ended, &self.contended, &self.this_pass] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// The passwords of users, none where there is no such user.
type Passwords = HashMap<PrimaryKey, Option<Arc<str>>>;

/// What is to be done about a session.
struct Task {
    value: Vec<u8>,
    signed: bool,
    rehashed: bool,
    converted: bool,
    /// What was in entries that are left out.
    dropped: Kinds,
}

/// What its hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// There is nobody, or nothing is known of users.
    None,
    /// The hash is what the site would make today.
    Current,
    /// It is right under an old key.
    Old,
    /// The login has ended: another password, another user, or none.
    Ended,
}

impl Rotation {
    async fn rotate(&self, sessions: Vec<StoredSession>) -> Result<(), CliError> {
        add(&self.counts.seen, sessions.len());
        let mut sessions = sessions;
        for attempt in 1..=TRIES {
            let missed = self.attempt(&sessions).await?;
            if missed.is_empty() {
                return Ok(());
            }
            let keys: Vec<&str> =
                missed.iter().map(|&it| sessions[it].session_key.as_str()).collect();
            // Those that are gone are nobody's any more.
            let found = self.store.bulk_get(&keys).await?;
            if attempt == TRIES {
                add(&self.counts.contended, found.iter().flatten().count());
                // So that there is another pass.
                add(&self.counts.this_pass, 1);
            }
            sessions = found.into_iter().flatten().collect();
        }
        Ok(())
    }

    /// Does what there is to do; returns the places of those sessions that were changed meanwhile.
    async fn attempt(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, CliError> {
        let coding = self.store.coding();
        let mut opened = Vec::with_capacity(sessions.len());
        for session in sessions {
            match coding.open(session) {
                Ok(found) => opened.push(Some(found)),
                Err(error) => {
                    self.rejects.add(session, &error)?;
                    opened.push(None);
                }
            }
        }
        let known = self.learn(opened.iter().flatten()).await?;
        let mut tasks = Vec::new();
        for (index, found) in opened.into_iter().enumerate() {
            let Some(found) = found else { continue };
            match self.task(&sessions[index], found, coding, &known) {
                Ok(Some(task)) => tasks.push((index, task)),
                Ok(None) => {}
                Err(error) => self.rejects.add(&sessions[index], &error)?,
            }
        }
        let count = |tasks: &[(usize, Task)], missed: &HashSet<usize>| {
            for (place, (_, task)) in tasks.iter().enumerate() {
                if missed.contains(&place) {
                    continue;
                }
                add(&self.counts.this_pass, 1);
                add(&self.counts.signed, usize::from(task.signed));
                add(&self.counts.rehashed, usize::from(task.rehashed));
                add(&self.counts.converted, usize::from(task.converted));
                self.dropped.add(&task.dropped);
            }
        };
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        if self.dry_run {
            count(&tasks, &HashSet::new());
            return Ok(Vec::new());
        }
        let changes: Vec<Change<'_>> = tasks
            .iter_mut()
            .map(|(index, task)| Change {
                stored: &sessions[*index],
                value: std::mem::take(&mut task.value),
            })
            .collect();
        let missed = self.store.bulk_update(&changes).await?;
        drop(changes);
        count(&tasks, &missed.iter().copied().collect());
        Ok(missed.into_iter().map(|place| tasks[place].0).collect())
    }

    /// The value to replace it by, if there is anything to do.
    fn task(
        &self,
        session: &StoredSession,
        opened: Opened,
        coding: &Coding,
        known: &Passwords,
    ) -> Result<Option<Task>, OpenError> {
        let login = self.login(&opened.data, known);
        add(&self.counts.ended, usize::from(login == Login::Ended));
        let rehash = login == Login::Old;
        let is_old = matches!(opened.key, Some(KeyMatch::Fallback(_)));
        let is_other = self.convert.is_some()
            && coding.is_signed()
            && (opened.format != Some(self.codec.format())
                || opened.serializer != self.codec.serializer().name());
        if !(rehash || is_old || is_other) {
            return Ok(None);
        }
        let mut task = Task {
            value: Vec::new(),
            signed: is_old,
            rehashed: rehash,
            converted: is_other,
            dropped: Kinds::new(),
        };
        if !rehash
            && !is_other
            && let Ok(text) = std::str::from_utf8(&session.value)
            && let Some(text) = self.codec.resign(text)
        {
            // Only the signature is another one.
            task.value = text.into_bytes();
            return Ok(Some(task));
        }
        let Opened { mut data, signed_at, format, serializer, .. } = opened;
        if rehash && let Some(hash) = self.new_hash(&data, known) {
            data.insert(HASH_KEY, &hash)?;
        }
        task.value = match coding {
            Coding::Signed(codec) if self.convert.is_none() => {
                // As it was written, so that whoever reads it still can.
                let now = signed_at.unwrap_or_else(|| Timestamp::now().as_second());
                let format = format.unwrap_or_else(|| codec.format());
                let serializer = Serializer::from_name(serializer).unwrap_or_default();
                if (format, serializer) == (codec.format(), codec.serializer()) {
                    codec.encode(&data, now)?.into_bytes()
                } else {
                    let codec = codec.clone().with_format(format).with_serializer(serializer);
                    codec.encode(&data, now)?.into_bytes()
                }
            }
            coding => {
                if let Some(objects) = &self.convert
                    && coding.is_json()
                {
                    task.dropped = objects.settle(&mut data)?;
                }
                coding.seal(&data, signed_at)?
            }
        };
        Ok(Some(task))
    }

    fn user(&self, data: &SessionData) -> Option<PrimaryKey> {
        let id: serde_json::Value = data.get(USER_ID_KEY).ok()??;
        self.auth.user_model.primary_key_type.parse_value(&id).ok().flatten()
    }

    fn login(&self, data: &SessionData, known: &Passwords) -> Login {
        if self.users.is_none() || !data.contains_key(USER_ID_KEY) {
            return Login::None;
        }
        let Some(user) = self.user(data) else { return Login::Ended };
        let stored = data.get::<String>(HASH_KEY).ok().flatten().unwrap_or_default();
        if stored.is_empty() {
            return Login::None;
        }
        let Some(password) = known.get(&user).cloned().flatten() else {
            return Login::Ended;
        };
        let algorithms = self.auth.hash_algorithms.iter().copied();
        match verify_session_auth_hash_with(algorithms, &stored, &password, &self.auth.session) {
            None => Login::Ended,
            Some(found) if matches!(found.key, KeyMatch::Fallback(_)) => Login::Old,
            Some(_) => Login::Current,
        }
    }

    /// What the site would store at a login now.
    fn new_hash(&self, data: &SessionData, known: &Passwords) -> Option<String> {
        let password = known.get(&self.user(data)?).cloned().flatten()?;
        let algorithm = *self.auth.hash_algorithms.first()?;
        let key = self.auth.session.secret_key.as_ref()?;
        Some(session_auth_hash_with(algorithm, key, &password))
    }

    /// The passwords of the users of a batch; asks for those that are not known yet.
    async fn learn(&self, opened: impl Iterator<Item = &Opened>) -> Result<Passwords, CliError> {
        let Some(users) = &self.users else { return Ok(Passwords::new()) };
        let all: HashSet<PrimaryKey> = opened.filter_map(|it| self.user(&it.data)).collect();
        let mut known: Passwords = {
            let known = self.known();
            all.iter().filter_map(|user| Some((user.clone(), known.get(user)?.clone()))).collect()
        };
        let wanted: Vec<PrimaryKey> =
            all.into_iter().filter(|user| !known.contains_key(user)).collect();
        if wanted.is_empty() {
            return Ok(known);
        }
        let mut found = users.passwords(&wanted).await?;
        let with_password = |user: PrimaryKey| {
            let password = found.remove(&user).map(Arc::from);
            (user, password)
        };
        let more: Passwords = wanted.into_iter().map(with_password).collect();
        known.extend(more.clone());
        let mut all_known = self.known();
        if all_known.len() + more.len() > USERS {
            all_known.clear();
        }
        all_known.extend(more);
        Ok(known)
    }

    fn known(&self) -> MutexGuard<'_, Passwords> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summary(&self, name: &'static str, passes: u32, ended: Ended) -> Summary {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            name,
            dry_run: self.dry_run,
            complete: ended == Ended::Complete,
            passes,
            seen: get(&self.counts.seen),
            signed: get(&self.counts.signed),
            rehashed: get(&self.counts.rehashed),
            converted: get(&self.counts.converted),
            ended: get(&self.counts.ended),
            contended: get(&self.counts.contended),
            left: if self.dry_run { 0 } else { get(&self.counts.this_pass) },
            dropped: self.dropped.entries(),
            rejected: self.rejects.reasons(),
        }
    }
}

struct Summary {
    name: &'static str,
    dry_run: bool,
    complete: bool,
    passes: u32,
    seen: u64,
    signed: u64,
    rehashed: u64,
    converted: u64,
    ended: u64,
    contended: u64,
    left: u64,
    dropped: BTreeMap<&'static str, u64>,
    rejected: BTreeMap<String, u64>,
}

impl Summary {
    fn to_json(&self) -> String {
        let document = json!({
            "django_session_rotation": 1,
            "command": self.name,
            "dry_run": self.dry_run,
            "complete": self.complete,
            "passes": self.passes,
            "sessions": self.seen,
            "signed_anew": self.signed,
            "logins_renewed": self.rehashed,
            "converted": self.converted,
            "logins_ended": self.ended,
            "changed_meanwhile": self.contended,
            "entries_dropped": self.dropped,
            "rejected": self.rejected,
        });
        format!("{document}\n")
    }

    fn to_text(&self) -> String {
        let count = |number: u64| grouped(usize::try_from(number).unwrap_or(usize::MAX));
        let mut table = Table::new();
        let would = if self.dry_run { "would be " } else { "" };
        table.row("sessions seen", count(self.seen));
        table.row("signed anew", format!("{would}{}", count(self.signed)));
        table.row("logins renewed", format!("{would}{}", count(self.rehashed)));
        if self.name == "convert" {
            table.row("converted", format!("{would}{}", count(self.converted)));
        }
        table.row("logins that had ended", count(self.ended));
        table.row("passes", self.passes.to_string());
        for (kind, number) in &self.dropped {
            table.row("entries left out", format!("{}: {kind}", count(*number)));
        }
        for (reason, number) in &self.rejected {
            table.row("left as they are", format!("{}: {reason}", count(*number)));
        }
        let mut out = String::new();
        table.push_to(&mut out);
        out.push_str(if !self.complete {
            "Stopped on the way. Run it again to go on; what is done is not done again.\n"
        } else if self.dry_run {
            "Nothing was changed.\n"
        } else if self.left > 0 {
            "Others are still saving sessions under an old key: is the new one in use everywhere?\n"
        } else {
            "Nothing is left to do: the last pass found every session current.\n"
        });
        out
    }

    fn result(&self) -> Result<(), CliError> {
        if !self.complete {
            return Err(CliError::Stopped("run it again to go on"));
        }
        let rejected: u64 = self.rejected.values().sum();
        if rejected > 0 {
            return Err(CliError::Partial(format!("{rejected} sessions are left as they are")));
        }
        if self.left > 0 {
            return Err(CliError::Partial("some sessions are still saved under an old key".into()));
        }
        Ok(())
    }
}

//! `django-session doctor`: what is wrong with a site's sessions, or will be, and what to do about it.
//!
//! Facts are gathered first ([`facts`], [`sample`], [`gather_cookie`], `store::inspect`); what they mean is
//! decided by functions that do no I/O.

mod catalogue;
mod cookie;
mod cookie_settings;
mod engine;
mod facts;
mod finding;
mod gather_cookie;
mod keys;
mod report;
mod sample;
mod servers;
mod table;

use jiff::Timestamp;

use self::catalogue as kinds;
use self::cookie::Explanation;
use self::facts::{KeysFacts, SiteFacts};
use self::finding::{Finding, Severity};
use self::gather_cookie::{CookieArguments, Lookup};
use self::report::Report;
use super::error::CliError;
use super::output::{Output, grouped};
use super::site::SiteArguments;
use crate::auth::AuthSettings;
use crate::session::StoreError;
use crate::store::bulk::{self, BulkStore};
use crate::store::inspect::{self, DirectoryFacts, Inspected};
use crate::store::{ConnectError, StoreUrl};

/// Say what is wrong with the settings and the store, and how to put it right
///
/// Looks at the settings (the file of `manage.py export_session_settings`, or the environment), at the server
/// with the sessions, its table, its clock, and at some of the sessions. Each finding has a name that stays
/// the same, what was seen, why it matters, and what to do. Nothing is changed, and no key, password, cookie
/// or session is shown.
///
/// With --cookie-file a cookie is explained from its syntax to its user: would Django let this user in, and
/// if not, why?
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    cookie: CookieArguments,
    /// How many sessions are looked at; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1000)]
    sample: usize,
    /// Take this as the present, in Unix seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    now: Option<i64>,
    /// Write one JSON document, for programs
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  $ python manage.py export_session_settings --output settings.json
  $ django-session doctor --settings settings.json --store-file store.url
  $ django-session doctor --settings settings.json --json | jq -r '.findings[].id'
  $ django-session doctor --settings settings.json --cookie-file cookie.txt

Exit status:
  0  nothing is wrong; there may be notes
  1  there are warnings
  2  there are errors, or the arguments are wrong
  3  the file of settings or of a key cannot be used
  6  the store, or the database of the users, cannot be looked at; what could be
     is reported all the same";

/// What a look at the store gave.
struct Looked {
    findings: Vec<Finding>,
    looked_at: Vec<(&'static str, String)>,
    store: Option<Box<dyn BulkStore>>,
    /// Why it could not be looked at.
    failed: Option<CliError>,
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let given = self.cookie.read()?;
        let keys = self.site.keys();
        let mut site = SiteFacts::read(keys.settings_file().as_deref())?;
        keys.complete(&mut site.settings)?;
        let now = match self.now {
            None => Timestamp::now(),
            Some(seconds) => Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX),
        };
        let url = match self.site.url() {
            Ok(url) => Some(url),
            Err(CliError::NoStore { .. }) => None,
            Err(error) => return Err(error),
        };

        let mut findings = keys::settings(&site);
        findings.extend(keys::check(&KeysFacts::of(&site), &site));
        findings.extend(cookie_settings::check(&site));
        let directory = directory(&site, url.as_ref());
        let scheme = url.as_ref().map(StoreUrl::scheme);
        findings.extend(engine::check(&site, scheme, directory.as_ref()));

        let looked = if let Some(url) = &url {
            self.look(url, &site, now).await?
        } else {
            let mut looked = Looked::new("not given");
            if site.engine() != Some("signed_cookies") {
                let seen = "there is no address of a store";
                looked.findings.push(kinds::STORE_NOT_GIVEN.note(seen));
            }
            looked
        };
        let Looked { findings: more, looked_at, store, mut failed } = looked;
        findings.extend(more);

        let mut explained = None;
        if let Some(given) = given {
            let lookup = Lookup {
                site: &site,
                arguments: &self.cookie,
                url: url.as_ref().filter(|_| failed.is_none()),
                store: store.as_deref(),
                auth: self.auth_settings(&site),
                now,
            };
            let mut users_failed = None;
            match lookup.facts(&given, &mut users_failed).await {
                Ok(facts) => {
                    explained = Some(Explanation::of(&facts));
                    failed = failed.or(users_failed);
                }
                Err(error) if error.exit_code() == 6 => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let report = Report::new(looked_at, findings, explained);
        output.report(&if self.json { report.to_json() } else { report.to_text() })?;
        if let Some(store) = store {
            store.close().await;
        }
        match (failed, report.worst()) {
            (Some(error), _) => Err(error),
            (None, Some(Severity::Error)) => Err(CliError::Findings { errors: true }),
            (None, Some(Severity::Warning)) => Err(CliError::Findings { errors: false }),
            (None, Some(Severity::Note) | None) => Ok(()),
        }
    }

    fn auth_settings(&self, site: &SiteFacts) -> Result<AuthSettings, CliError> {
        self.site.auth_settings(&site.settings)
    }

    /// Looks at the store at an address; that it cannot be looked at is a finding too.
    async fn look(
        &self,
        url: &StoreUrl,
        site: &SiteFacts,
        now: Timestamp,
    ) -> Result<Looked, CliError> {
        let mut looked = Looked::new(url.scheme());
        let inspected = match inspect::inspect(url).await {
            Ok(inspected) => inspected,
            Err(error) => return looked.unreachable(error),
        };
        // As far as `--now` is from the present, so far is this machine's clock said to be off.
        let shift = self.now.map_or(0, |seconds| seconds - Timestamp::now().as_second());
        let is_there = judge(&inspected, site, false, shift, url, &mut looked.findings);
        match inspect::inspect_cache(url).await {
            Ok(Some(cache)) => {
                judge(&cache, site, true, shift, url, &mut looked.findings);
            }
            Ok(None) if site.engine() == Some("cached_db") && url.is_sql() => {
                let seen = "SESSION_ENGINE is cached_db, the address of the table has no cache_url";
                looked.findings.push(kinds::CACHE_NOT_GIVEN.note(seen));
            }
            Ok(None) => {}
            Err(error) => return looked.unreachable(error),
        }
        if !is_there || site.settings.secret_key.is_none() {
            return Ok(looked);
        }
        let store = match bulk::connect(url, &site.settings).await {
            Ok(store) => store,
            // Its sessions cannot be listed.
            Err(ConnectError::Connect(StoreError::Unsupported { .. })) => return Ok(looked),
            Err(error) => return looked.unreachable(error),
        };
        match sample::take(&*store, &site.settings, self.sample, now).await {
            Ok(found) => {
                let count = grouped(found.sessions);
                let all = if found.is_complete { "all" } else { "some" };
                looked.looked_at.push(("sessions", format!("{count}, which are {all} of them")));
                let is_signed = store.coding().is_signed();
                looked.findings.extend(sample::check(&found, site, is_signed));
            }
            // As in a cluster of Redis.
            Err(CliError::Store(StoreError::Unsupported { .. })) => {}
            Err(error) => looked.failed = Some(error),
        }
        looked.store = Some(store);
        Ok(looked)
    }
}

impl Looked {
    fn new(store: &str) -> Self {
        Self {
            findings: Vec::new(),
            looked_at: vec![("store", store.to_owned())],
            store: None,
            failed: None,
        }
    }

    fn unreachable(mut self, error: ConnectError) -> Result<Self, CliError> {
        let is_outage = matches!(error, ConnectError::Connect(_));
        let error = CliError::from(error);
        if !is_outage {
            return Err(error);
        }
        self.findings.push(kinds::STORE_UNREACHABLE.error(error.to_string()));
        self.failed = Some(error);
        Ok(self)
    }
}

/// The directory of the file engine: that of the address, or of the settings.
fn directory(site: &SiteFacts, url: Option<&StoreUrl>) -> Option<DirectoryFacts> {
    // That of the address is looked at with the store.
    if site.engine() != Some("file") || url.is_some_and(|url| url.scheme() == "file") {
        return None;
    }
    Some(DirectoryFacts::of(site.text("SESSION_FILE_PATH")))
}

/// What is to be said of a store, and whether its sessions can be read.
fn judge(
    inspected: &Inspected,
    site: &SiteFacts,
    is_copy: bool,
    shift: i64,
    url: &StoreUrl,
    findings: &mut Vec<Finding>,
) -> bool {
    let shifted = |clock: Option<inspect::Clock>| {
        clock.map(|clock| inspect::Clock { ahead: clock.ahead - shift * 1000, ..clock })
    };
    match inspected {
        Inspected::Database(facts) => {
            findings.extend(servers::check_clock(shifted(facts.clock), "the database"));
            let is_plain = !url.has("cache_table");
            findings.extend(table::check(facts, site.settings.use_tz, is_plain));
            let named = |name: &str| {
                let table = facts.table.as_ref();
                table.is_some_and(|table| table.columns.iter().any(|column| column.name == name))
            };
            return is_plain
                && ["session_key", "session_data", "expire_date"].into_iter().all(named);
        }
        Inspected::Directory(facts) => {
            findings.extend(engine::check_directory(facts));
            return facts.path.exists;
        }
        Inspected::Memcached(servers) => {
            for server in servers {
                findings.extend(servers::check_clock(shifted(server.clock), "memcached"));
                findings.extend(servers::check_memcached(server, is_copy));
            }
        }
        Inspected::Redis(servers) => {
            for server in servers {
                findings.extend(servers::check_clock(shifted(server.clock), "Redis"));
                findings.extend(servers::check_redis(server, is_copy));
            }
        }
        Inspected::Silent => {}
    }
    true
}

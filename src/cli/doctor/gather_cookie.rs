//! Looks up what becomes of a cookie: in the store, and among the users.

use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::cookie::{
    CookieFacts, HashFacts, Login, OpenedFacts, Stored, UserFacts, is_drawn, key_trouble, login,
    value_of,
};
use super::facts::SiteFacts;
use crate::auth::{AuthSettings, UserStore as _};
use crate::cli::error::CliError;
use crate::cli::input;
use crate::cli::site::address;
use crate::codec::{Format, Hints, KeyMatch, MaxAge, SIGNED_COOKIES_SALT, Serializer, SessionData};
use crate::session::{SessionKey, SessionSettings, verify_session_auth_hash_with};
use crate::store::bulk::{BulkStore, Coding, StoredSession};
use crate::store::{SqlUsers, StoreUrl};

/// Longer than any browser keeps.
const LIMIT: usize = 64 * 1024;

/// Where a cookie is, and where the users are. Neither the cookie nor a password is an argument.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A cookie")]
pub(super) struct CookieArguments {
    /// Explain the cookie in this file, "-" for standard input
    ///
    /// The value of the cookie, "name=value", or a whole Cookie header. It is looked up step by step, to the
    /// user and the hash of the password.
    #[arg(long, value_name = "FILE")]
    cookie_file: Option<PathBuf>,
    /// Explain the cookie on standard input; the only value is "-", since others see arguments
    #[arg(long, value_name = "-", conflicts_with = "cookie_file")]
    cookie: Option<String>,
    /// The address of the database with the users, if it is not that of the store; without a password
    ///
    /// One with a password goes into the environment variable USERS_DATABASE_URL or into a file.
    #[arg(long, value_name = "URL")]
    users: Option<String>,
    /// A file that holds the address of the database with the users
    #[arg(long, value_name = "FILE", conflicts_with = "users")]
    users_file: Option<PathBuf>,
}

impl CookieArguments {
    /// What was given, if anything.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<String>>, CliError> {
        let bytes = match (&self.cookie, &self.cookie_file) {
            (None, None) => return Ok(None),
            (Some(dash), _) if dash == "-" => input::read_stdin(LIMIT)?,
            // What stands there may be the cookie.
            (Some(_), _) => return Err(CliError::CookieArgument),
            (None, Some(path)) if path == Path::new("-") => input::read_stdin(LIMIT)?,
            (None, Some(path)) => {
                let what = "the file of --cookie-file";
                let file = File::open(path).map_err(|source| CliError::Input { what, source })?;
                input::read(file, what, LIMIT)?
            }
        };
        let text = String::from_utf8(bytes).unwrap_or_default();
        Ok(Some(Zeroizing::new(text)))
    }

    /// The users: where they are said to be, or beside the sessions.
    async fn users(
        &self,
        store: Option<&StoreUrl>,
        auth: &AuthSettings,
    ) -> Result<Option<SqlUsers>, CliError> {
        let own =
            address(self.users.as_deref(), self.users_file.as_ref(), "users", "USERS_DATABASE_URL");
        match own {
            Err(CliError::NoStore { .. }) => match store.filter(|url| url.is_sql()) {
                Some(url) => Ok(Some(SqlUsers::connect_to(url, auth).await?)),
                None => Ok(None),
            },
            url => Ok(Some(SqlUsers::connect_to(&url?, auth).await?)),
        }
    }
}

/// What a cookie is looked up with.
pub(super) struct Lookup<'a> {
    pub(super) site: &'a SiteFacts,
    pub(super) arguments: &'a CookieArguments,
    pub(super) url: Option<&'a StoreUrl>,
    pub(super) store: Option<&'a dyn BulkStore>,
    pub(super) auth: Result<AuthSettings, CliError>,
    pub(super) now: Timestamp,
}

impl Lookup<'_> {
    /// What is known of a cookie; of a database of users that is away it is said in `failed`.
    pub(super) async fn facts(
        &self,
        given: &str,
        failed: &mut Option<CliError>,
    ) -> Result<CookieFacts, CliError> {
        let settings = &self.site.settings;
        let mut facts = CookieFacts {
            is_session: self.site.engine() == Some("signed_cookies")
                || self.url.is_some_and(|url| url.scheme() == "signed_cookies"),
            ..CookieFacts::default()
        };
        let value = match value_of(given, &settings.cookie_name) {
            Ok(value) => value,
            Err(why) => {
                facts.malformed = Some(why);
                return Ok(facts);
            }
        };
        let data = if facts.is_session {
            self.open_cookie(value, settings, &mut facts)
        } else {
            facts.malformed = key_trouble(value);
            facts.is_drawn = is_drawn(value);
            match SessionKey::parse(value) {
                Some(key) => self.load(&key, &mut facts).await?,
                None => None,
            }
        };
        if let Some(data) = data {
            match self.look_at_user(&data, &mut facts).await {
                Err(error) if error.exit_code() == 6 => *failed = Some(error),
                done => done?,
            }
        }
        Ok(facts)
    }

    /// A cookie of the engine `signed_cookies`.
    fn open_cookie(
        &self,
        value: &str,
        settings: &SessionSettings,
        facts: &mut CookieFacts,
    ) -> Option<SessionData> {
        let mut settings = settings.clone();
        SIGNED_COOKIES_SALT.clone_into(&mut settings.salt);
        let codec = match settings.codec() {
            Ok(codec) => codec,
            Err(error) => {
                facts.opened = Some(Err(error.to_string()));
                return None;
            }
        };
        let max_age = SignedDuration::from_secs(settings.cookie_age);
        let limit = MaxAge { max_age, now: self.now };
        match codec.decode_with_max_age(value, limit) {
            Ok(decoded) => {
                facts.opened = Some(Ok(OpenedFacts {
                    key: Some(decoded.key),
                    form: Some(decoded.format.name()),
                    serializer: Some(decoded.serializer.name()),
                    refused: None,
                }));
                Some(decoded.data)
            }
            Err(error) => {
                let hints = Hints::new().with_max_age(limit);
                let diagnosis = codec.diagnose_with(value, &hints);
                let why = diagnosis.map_or_else(|| error.to_string(), |found| found.to_string());
                facts.opened = Some(Err(why));
                None
            }
        }
    }

    async fn load(
        &self,
        key: &SessionKey,
        facts: &mut CookieFacts,
    ) -> Result<Option<SessionData>, CliError> {
        let settings = &self.site.settings;
        if let Some(store) = self.store {
            let found = store.bulk_get(&[key.as_str()]).await?.into_iter().next().flatten();
            if let Some(stored) = found {
                return Ok(self.open(store, &stored, facts));
            }
            if self.url.is_none_or(|url| url.text("cache_url").is_none()) {
                facts.stored = Stored::Missing;
                return Ok(None);
            }
            // Django asks the cache first, and where that has a copy the row is missed by nobody.
        }
        // One that cannot be listed does not say whether it has expired.
        let Some(url) = self.url.filter(|_| settings.secret_key.is_some()) else { return Ok(None) };
        let store = crate::store::connect_to(url, settings).await?;
        match store.load(key, settings.datetime(self.now)).await {
            Ok(Some(record)) => {
                let end = record.expire_date.to_timestamp(&settings.time_zone);
                let left = end.map(|end| end.as_second().saturating_sub(self.now.as_second()));
                facts.stored = Stored::There { left };
                facts.opened = Some(Ok(OpenedFacts {
                    key: None,
                    form: None,
                    serializer: None,
                    refused: None,
                }));
                Ok(Some((*record.data).clone()))
            }
            Ok(None) => {
                facts.stored = Stored::Missing;
                Ok(None)
            }
            Err(error) if error.is_outage() => Err(error.into()),
            Err(error) => {
                facts.stored = Stored::There { left: None };
                facts.opened = Some(Err(error.to_string()));
                Ok(None)
            }
        }
    }

    /// What is in a session as the store has it.
    fn open(
        &self,
        store: &dyn BulkStore,
        stored: &StoredSession,
        facts: &mut CookieFacts,
    ) -> Option<SessionData> {
        let settings = &self.site.settings;
        let end = stored.end(settings);
        let left = end.map(|end| end.as_second().saturating_sub(self.now.as_second()));
        facts.stored = Stored::There { left };
        let opened = match store.coding().open(stored) {
            Ok(opened) => opened,
            Err(error) => {
                let diagnosis = match store.coding() {
                    Coding::Signed(codec) => codec.diagnose(&stored.value),
                    Coding::Cached(_) => None,
                };
                let why = diagnosis.map_or_else(|| error.to_string(), |it| it.to_string());
                facts.opened = Some(Err(why));
                return None;
            }
        };
        let refused = if store.coding().is_signed() {
            refused(settings, opened.format, opened.serializer)
        } else {
            None
        };
        facts.opened = Some(Ok(OpenedFacts {
            key: opened.key,
            form: opened.format.map(Format::name),
            serializer: Some(opened.serializer),
            refused,
        }));
        Some(opened.data)
    }

    async fn look_at_user(
        &self,
        data: &SessionData,
        facts: &mut CookieFacts,
    ) -> Result<(), CliError> {
        let fallback;
        let auth = if let Ok(auth) = &self.auth {
            auth
        } else {
            fallback = AuthSettings::new(self.site.settings.clone());
            &fallback
        };
        let (login, hash) = login(data, auth);
        let login = facts.login.insert(login);
        if let Login::User { pk, .. } = login {
            facts.user = UserFacts::NotLooked("the database of the users cannot be reached");
            facts.user = match &self.auth {
                Err(_) => UserFacts::NotLooked(
                    "the settings of users cannot be used here, so the user is not looked at",
                ),
                Ok(auth) => match self.arguments.users(self.url, auth).await? {
                    None => UserFacts::Unasked,
                    Some(users) => match users.get(pk).await? {
                        None => UserFacts::Missing,
                        Some(user) => UserFacts::There {
                            is_active: user.is_active,
                            hash: user.password.as_deref().map_or(HashFacts::None, |password| {
                                check_hash(&hash, password, auth)
                            }),
                        },
                    },
                },
            };
        }
        Ok(())
    }
}

fn check_hash(hash: &str, password: &str, auth: &AuthSettings) -> HashFacts {
    let algorithms = auth.hash_algorithms.iter().copied();
    match verify_session_auth_hash_with(algorithms, hash, password, &auth.session) {
        None => HashFacts::Wrong,
        Some(found) => match found.key {
            KeyMatch::Fallback(_) if !auth.accept_fallback_hashes => HashFacts::FitsTooEarly,
            key => HashFacts::Fits(key),
        },
    }
}

/// Why the site itself does not read a session that is read here.
fn refused(
    settings: &SessionSettings,
    format: Option<Format>,
    serializer: &str,
) -> Option<&'static str> {
    if let Some(format) = format
        && format != Format::Signed
        && format != settings.format
        && !settings.accept.contains(&format)
    {
        return Some("the site does not accept this form");
    }
    let is_pickle = serializer == Serializer::Pickle.name();
    (is_pickle != (settings.serializer == Serializer::Pickle))
        .then_some("SESSION_SERIALIZER is another one")
}

//! The keys and settings of a site: from files, from the environment, or asked for.

use std::env;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::error::CliError;
use crate::codec::SecretKey;
use crate::session::SessionSettings;

/// The environment variable that names a file of settings.
const SETTINGS: &str = "DJANGO_SESSION_SETTINGS";

/// Where the keys and the salt come from.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Key and salt")]
pub(super) struct KeyArguments {
    /// A file that holds SECRET_KEY and nothing else
    ///
    /// One line end after it is not part of the key. May be given more than once: the first is the
    /// primary key, the others are fallback keys.
    #[arg(long, value_name = "FILE")]
    secret_key_file: Vec<PathBuf>,
    /// A file that `manage.py export_session_settings` wrote
    ///
    /// It gives the salt, the serializer and the age of cookies, and with --include-secret the keys. The
    /// environment variable DJANGO_SESSION_SETTINGS names one, too.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The salt, if the site's store class is not called SessionStore
    ///
    /// It is "django.contrib.sessions." and the qualified name of the class, or its `key_salt`.
    #[arg(long, value_name = "SALT")]
    pub(super) salt: Option<String>,
    /// The salt of the form before Django 3.1, if the class has a `key_salt` of its own
    #[arg(long, value_name = "SALT")]
    pub(super) legacy_salt: Option<String>,
}

impl KeyArguments {
    /// The file that `--settings` names, or the environment.
    pub(super) fn settings_file(&self) -> Option<PathBuf> {
        self.settings.clone().or_else(|| env::var_os(SETTINGS).map(PathBuf::from))
    }

    /// The settings with a key in them.
    pub(super) fn settings(&self) -> Result<SessionSettings, CliError> {
        let mut settings = match self.settings_file() {
            None => SessionSettings::from_env()?,
            Some(path) => SessionSettings::from_file(path)?,
        };
        self.complete(&mut settings)?;
        if settings.secret_key.is_none() {
            settings.secret_key = Some(ask()?);
        }
        Ok(settings)
    }

    /// Adds the keys and the salt to settings of a file or the environment, without asking anybody.
    pub(super) fn complete(&self, settings: &mut SessionSettings) -> Result<(), CliError> {
        // What is named in an argument comes before what happens to be in the environment.
        if self.settings_file().is_some() && settings.secret_key.is_none() {
            let environment = SessionSettings::from_env()?;
            settings.secret_key = environment.secret_key;
            settings.secret_key_fallbacks = environment.secret_key_fallbacks;
        }
        let mut files = self.secret_key_file.iter();
        if let Some(path) = files.next() {
            settings.secret_key = Some(read(path)?);
            settings.secret_key_fallbacks = files.map(read).collect::<Result<_, _>>()?;
        }
        if let Some(salt) = &self.salt {
            settings.salt.clone_from(salt);
        }
        Ok(())
    }
}

fn read(path: &PathBuf) -> Result<SecretKey, CliError> {
    // The name is not repeated: who mistakes the option for the key gives a secret here.
    let what = "a file of --secret-key-file";
    let bytes = fs::read(path).map_err(|source| CliError::Input { what, source })?;
    let bytes = Zeroizing::new(bytes);
    let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    SecretKey::new(key).map_err(|_| CliError::Key("a file of --secret-key-file is empty"))
}

fn ask() -> Result<SecretKey, CliError> {
    const MISSING: CliError = CliError::Key(
        "there is no key: set the environment variable SECRET_KEY, or name a file by \
         --secret-key-file or --settings",
    );
    if !io::stderr().is_terminal() {
        return Err(MISSING);
    }
    let typed = rpassword::prompt_password("SECRET_KEY (it is not shown): ");
    let typed = Zeroizing::new(typed.map_err(|_| MISSING)?);
    SecretKey::new(typed.as_bytes()).map_err(|_| MISSING)
}

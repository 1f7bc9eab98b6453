//! The stores and settings that a command about many sessions works with.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::CliError;
use super::keys::KeyArguments;
use crate::auth::AuthSettings;
use crate::session::SessionSettings;
use crate::store::StoreUrl;
use crate::store::bulk::{self, BulkStore};

/// The environment variable with the address of the store.
const STORE_URL: &str = "SESSION_STORE_URL";

/// Where the sessions are, and the keys.
#[derive(Debug, clap::Args)]
pub(super) struct SiteArguments {
    #[command(flatten)]
    store: StoreArguments,
    #[command(flatten)]
    keys: KeyArguments,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Store")]
struct StoreArguments {
    /// The address of the store, without a password
    ///
    /// Such as sqlite:db.sqlite3, postgres://site@localhost/site, mysql://… or redis://localhost:6379/1. One
    /// with a password goes into the environment variable SESSION_STORE_URL or into a file.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// A file that holds the address of the store and nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    store_file: Option<PathBuf>,
}

impl SiteArguments {
    pub(super) fn keys(&self) -> &KeyArguments {
        &self.keys
    }

    pub(super) fn settings(&self) -> Result<SessionSettings, CliError> {
        self.keys.settings()
    }

    /// The settings of `django.contrib.auth`, of which the user model counts here.
    pub(super) fn auth_settings(
        &self,
        settings: &SessionSettings,
    ) -> Result<AuthSettings, CliError> {
        match self.keys.settings_file() {
            Some(path) => Ok(AuthSettings::from_file(path, settings.clone())?),
            None => Ok(AuthSettings::new(settings.clone())),
        }
    }

    pub(super) fn url(&self) -> Result<StoreUrl, CliError> {
        address(self.store.store.as_deref(), self.store.store_file.as_ref(), "store", STORE_URL)
    }

    /// Connects to the store.
    pub(super) async fn connect(
        &self,
        settings: &SessionSettings,
    ) -> Result<Arc<dyn BulkStore>, CliError> {
        Ok(bulk::connect(&self.url()?, settings).await?.into())
    }
}

/// An address out of an option, a file, or the environment, whichever is there first.
pub(super) fn address(
    option: Option<&str>,
    file: Option<&PathBuf>,
    name: &'static str,
    variable: &'static str,
) -> Result<StoreUrl, CliError> {
    if let Some(url) = option {
        if holds_password(url) {
            return Err(CliError::PasswordInArgument { name, variable });
        }
        return Ok(url.parse().map_err(crate::store::ConnectError::from)?);
    }
    let text = match file {
        Some(path) => {
            let what = "the file with the address of the store";
            fs::read_to_string(path).map_err(|source| CliError::Input { what, source })?
        }
        None => env::var(variable).map_err(|_| CliError::NoStore { name, variable })?,
    };
    Ok(text.trim().parse().map_err(crate::store::ConnectError::from)?)
}

/// Whether an address has a password where they stand, or an option that is one.
fn holds_password(url: &str) -> bool {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let authority = address.split_once("://").map_or("", |(_, rest)| rest);
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let is_password = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        // An address within the address may have one of its own.
        name.eq_ignore_ascii_case("password")
            || (name.ends_with("_url") && pair.contains("%40"))
            || (name.ends_with("_url") && pair.contains('@'))
    };
    user.contains(':') || query.split('&').any(is_password)
}

#[cfg(test)]
mod tests {
    use super::holds_password;

    #[test]
    fn a_password_in_an_address_is_noticed() {
        for url in [
            "postgres://u:p@h/n",
            "redis://:p@h:6379/0",
            "postgres://h/n?password=x",
            "postgres://u@h/n?cache_url=redis%3A%2F%2F%3Ap%40h",
        ] {
            assert!(holds_password(url), "{url}");
        }
        for url in ["postgres://u@h:5432/n", "sqlite:db.sqlite3", "redis://h:6379/0?prefix=a:b"] {
            assert!(!holds_password(url), "{url}");
        }
    }
}

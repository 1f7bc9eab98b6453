//! From an address to a store, of whatever kind.

use thiserror::Error;

use super::url::UrlError;
use crate::session::{SettingsError, StoreError};

/// No store could be made of an address. No part of it is repeated: it holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server does not answer, does not let us in, or is a file that does not exist.
    #[error("cannot connect to the session store")]
    Connect(#[source] StoreError),
    /// This program was built without the driver.
    #[error(
        "there is no driver for {scheme} addresses in this build; enable the feature `{feature}` of \
         the crate django-session"
    )]
    FeatureDisabled {
        /// The scheme of the address.
        scheme: &'static str,
        /// The feature that brings the driver.
        feature: &'static str,
    },
    /// No codec can be made of the settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address is none, or is one of another kind of store.
    #[error(transparent)]
    Url(#[from] UrlError),
}

impl ConnectError {
    /// For an address that no driver of this build understands.
    #[cfg_attr(
        not(feature = "_sql"),
        allow(dead_code, reason = "a store without a driver needs none")
    )]
    pub(super) fn no_driver(scheme: &'static str) -> Self {
        let feature = match scheme {
            "file" => "file",
            "mariadb" | "mysql" => "mysql",
            "memcached" => "memcached",
            "postgres" | "postgresql" => "postgres",
            "sqlite" => "sqlite",
            _ => "redis",
        };
        Self::FeatureDisabled { scheme, feature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_driver_names_the_feature_that_brings_it() {
        for (scheme, feature) in [
            ("mariadb", "mysql"),
            ("postgresql", "postgres"),
            ("rediss+sentinel", "redis"),
            ("sqlite", "sqlite"),
        ] {
            let message = ConnectError::no_driver(scheme).to_string();
            assert!(message.contains(&format!("`{feature}`")), "{message}");
        }
    }
}

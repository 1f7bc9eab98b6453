//! All settings of a site, from one file.

use std::path::Path;
use std::sync::Arc;

use super::CsrfSettings;
use crate::auth::AuthSettings;
use crate::session::{SessionSettings, SettingsError};

/// The settings of a site that sessions, users and CSRF protection depend on.
///
/// # Example
///
/// ```no_run
/// use django_session::web::SiteSettings;
///
/// // manage.py export_session_settings --output settings.json
/// let site = SiteSettings::from_file("settings.json")?;
/// println!("users are in {}", site.auth.user_model.table);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SiteSettings {
    /// Of sessions, and the keys.
    pub session: Arc<SessionSettings>,
    /// Of users and logins.
    pub auth: AuthSettings,
    /// Of CSRF protection.
    pub csrf: CsrfSettings,
}

impl SiteSettings {
    /// Reads the file that `manage.py export_session_settings` wrote, and over it the
    /// [environment](SessionSettings::with_env): a variable counts for more than what the file says.
    ///
    /// # Errors
    ///
    /// As [`SessionSettings::from_file`], [`AuthSettings::from_json`] and [`CsrfSettings::from_json`], and
    /// [`SettingsError::Contradiction`] if two cookies have the same name. A service should not start
    /// then.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(SettingsError::File)?;
        Self::new(&text, SessionSettings::from_json(&text)?.with_env()?)
    }

    /// Reads the content of such a file, and nothing else.
    ///
    /// # Errors
    ///
    /// As [`SiteSettings::from_file`].
    pub fn from_json(text: &str) -> Result<Self, SettingsError> {
        Self::new(text, SessionSettings::from_json(text)?)
    }

    fn new(text: &str, session: SessionSettings) -> Result<Self, SettingsError> {
        let session = Arc::new(session);
        let csrf = CsrfSettings::from_json(text)?;
        if !csrf.csrf_use_sessions && csrf.csrf_cookie_name == session.cookie_name {
            return Err(SettingsError::Contradiction {
                names: "CSRF_COOKIE_NAME and SESSION_COOKIE_NAME",
                why: "they are the same, so each cookie replaces the other; change one of them",
            });
        }
        let auth = AuthSettings::from_json(text, session.clone())?;
        Ok(Self { session, auth, csrf })
    }
}

//! Django's settings of CSRF protection, and those it depends on, with Django's defaults.

use std::path::Path;

use serde_json::{Map, Value};

use crate::session::{Exported, SameSite, SessionSettings, SettingsError};

/// The settings of `CsrfViewMiddleware`, of `HttpRequest.get_host` and of the reading of forms.
///
/// # Example
///
/// ```
/// use django_session::web::CsrfSettings;
///
/// let mut settings = CsrfSettings::default();
/// settings.allowed_hosts = vec!["example.com".to_owned()];
/// settings.csrf_trusted_origins = vec!["https://*.example.com".to_owned()];
/// settings.csrf_cookie_secure = true;
/// assert_eq!(settings.csrf_cookie_name, "csrftoken");
/// assert_eq!(settings.csrf_header_name, "HTTP_X_CSRFTOKEN");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "they are Django's")]
pub struct CsrfSettings {
    /// The name of the cookie.
    #[doc(alias = "CSRF_COOKIE_NAME")]
    pub csrf_cookie_name: String,
    /// The age of the cookie in seconds; with none it ends with the browser.
    #[doc(alias = "CSRF_COOKIE_AGE")]
    pub csrf_cookie_age: Option<i64>,
    /// The domain of the cookie; none for the host alone.
    #[doc(alias = "CSRF_COOKIE_DOMAIN")]
    pub csrf_cookie_domain: Option<String>,
    /// The path of the cookie.
    #[doc(alias = "CSRF_COOKIE_PATH")]
    pub csrf_cookie_path: String,
    /// Whether the cookie goes over HTTPS only.
    #[doc(alias = "CSRF_COOKIE_SECURE")]
    pub csrf_cookie_secure: bool,
    /// Whether scripts are kept from the cookie.
    #[doc(alias = "CSRF_COOKIE_HTTPONLY")]
    pub csrf_cookie_httponly: bool,
    /// `SameSite` of the cookie; no attribute for `None`, as for Django's `False` and `None`.
    #[doc(alias = "CSRF_COOKIE_SAMESITE")]
    pub csrf_cookie_samesite: Option<SameSite>,
    /// The header that may hold the token, as Django spells it: `HTTP_`, then the name in upper case
    /// with underscores.
    #[doc(alias = "CSRF_HEADER_NAME")]
    pub csrf_header_name: String,
    /// Origins besides our own from which unsafe requests may come: `https://example.com`, or
    /// `https://*.example.com` for a domain and what is below it.
    #[doc(alias = "CSRF_TRUSTED_ORIGINS")]
    pub csrf_trusted_origins: Vec<String>,
    /// Whether the secret is in the session in place of a cookie.
    #[doc(alias = "CSRF_USE_SESSIONS")]
    pub csrf_use_sessions: bool,
    /// The hosts that are ours; `.example.com` takes what is below in, `*` takes all.
    #[doc(alias = "ALLOWED_HOSTS")]
    pub allowed_hosts: Vec<String>,
    /// Whether `X-Forwarded-Host` counts for more than `Host`.
    #[doc(alias = "USE_X_FORWARDED_HOST")]
    pub use_x_forwarded_host: bool,
    /// Whether `X-Forwarded-Port` counts for more than the port of this server.
    #[doc(alias = "USE_X_FORWARDED_PORT")]
    pub use_x_forwarded_port: bool,
    /// A header, spelt as in [`csrf_header_name`](Self::csrf_header_name), and the value by which a
    /// proxy says that the client came over TLS.
    #[doc(alias = "SECURE_PROXY_SSL_HEADER")]
    pub secure_proxy_ssl_header: Option<(String, String)>,
    /// With this and no [`allowed_hosts`](Self::allowed_hosts), the names of this machine are ours.
    #[doc(alias = "DEBUG")]
    pub debug: bool,
    /// With [`csrf_use_sessions`](Self::csrf_use_sessions), the domain that a referer may have.
    #[doc(alias = "SESSION_COOKIE_DOMAIN")]
    pub session_cookie_domain: Option<String>,
    /// The longest form that is read, in bytes, and the most that is ever kept of a body unless
    /// [`multipart_prefix_size`](Self::multipart_prefix_size) says otherwise. Where Django has no limit
    /// (`None` there), this one stays.
    #[doc(alias = "DATA_UPLOAD_MAX_MEMORY_SIZE")]
    pub data_upload_max_memory_size: usize,
    /// How many fields a form may have.
    #[doc(alias = "DATA_UPLOAD_MAX_NUMBER_FIELDS")]
    pub data_upload_max_number_fields: Option<usize>,
    /// How many files a form may have.
    #[doc(alias = "DATA_UPLOAD_MAX_NUMBER_FILES")]
    pub data_upload_max_number_files: Option<usize>,
    /// How many bytes of `multipart/form-data` are kept while the token is looked for, files included;
    /// not a Django setting. Without, it is
    /// [`data_upload_max_memory_size`](Self::data_upload_max_memory_size).
    pub multipart_prefix_size: Option<usize>,
    /// Whether this server itself speaks TLS (`wsgi.url_scheme` is `https`), not a Django setting.
    /// Behind a proxy it is [`secure_proxy_ssl_header`](Self::secure_proxy_ssl_header) that tells.
    pub server_secure: bool,
    /// The name of this server (`SERVER_NAME`), for requests that name no host; not a Django setting.
    pub server_name: String,
    /// The port of this server (`SERVER_PORT`), not a Django setting. It matters for referers if the
    /// cookie has a domain. Without, it is the usual one of the scheme.
    pub server_port: Option<u16>,
}

impl Default for CsrfSettings {
    /// Django's defaults. No host is ours then, so requests are only let in if their origin is
    /// trusted, or without one over HTTP.
    fn default() -> Self {
        Self {
            csrf_cookie_name: "csrftoken".to_owned(),
            csrf_cookie_age: Some(60 * 60 * 24 * 7 * 52),
            csrf_cookie_domain: None,
            csrf_cookie_path: "/".to_owned(),
            csrf_cookie_secure: false,
            csrf_cookie_httponly: false,
            csrf_cookie_samesite: Some(SameSite::Lax),
            csrf_header_name: "HTTP_X_CSRFTOKEN".to_owned(),
            csrf_trusted_origins: Vec::new(),
            csrf_use_sessions: false,
            allowed_hosts: Vec::new(),
            use_x_forwarded_host: false,
            use_x_forwarded_port: false,
            secure_proxy_ssl_header: None,
            debug: false,
            session_cookie_domain: None,
            data_upload_max_memory_size: 2_621_440,
            data_upload_max_number_fields: Some(1000),
            data_upload_max_number_files: Some(100),
            multipart_prefix_size: None,
            server_secure: false,
            server_name: "unknown".to_owned(),
            server_port: None,
        }
    }
}

impl CsrfSettings {
    /// Reads the file that `manage.py export_session_settings` wrote.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] if it cannot be read or holds what Django would not take.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        Self::from_json(&std::fs::read_to_string(path).map_err(SettingsError::File)?)
    }

    /// Reads the content of such a file. What is not there keeps Django's default.
    ///
    /// # Errors
    ///
    /// As [`CsrfSettings::from_file`].
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::web::CsrfSettings;
    ///
    /// let settings = CsrfSettings::from_json(
    ///     r#"{"ALLOWED_HOSTS": ["example.com"], "CSRF_COOKIE_SECURE": true, "DEBUG": false}"#,
    /// )?;
    /// assert!(settings.csrf_cookie_secure);
    ///
    /// let error = CsrfSettings::from_json(r#"{"CSRF_TRUSTED_ORIGINS": ["example.com"]}"#);
    /// assert!(error.unwrap_err().to_string().starts_with("CSRF_TRUSTED_ORIGINS must be"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_json(text: &str) -> Result<Self, SettingsError> {
        let values: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| SettingsError::Format)?;
        let mut settings = Self::default();
        settings.overlay(&Exported::new(&values))?;
        // What cannot be used is found here, where the file is at hand.
        super::rules::Rules::new(settings.clone())?;
        Ok(settings)
    }

    fn overlay(&mut self, file: &Exported<'_>) -> Result<(), SettingsError> {
        file.text("CSRF_COOKIE_NAME", "the name of a cookie", &mut self.csrf_cookie_name)?;
        file.text("CSRF_COOKIE_PATH", "a path", &mut self.csrf_cookie_path)?;
        file.text("CSRF_HEADER_NAME", super::rules::HEADER, &mut self.csrf_header_name)?;
        file.domain("CSRF_COOKIE_DOMAIN", &mut self.csrf_cookie_domain)?;
        file.domain("SESSION_COOKIE_DOMAIN", &mut self.session_cookie_domain)?;
        file.texts("CSRF_TRUSTED_ORIGINS", &mut self.csrf_trusted_origins)?;
        file.texts("ALLOWED_HOSTS", &mut self.allowed_hosts)?;
        for (name, place) in [
            ("CSRF_COOKIE_SECURE", &mut self.csrf_cookie_secure),
            ("CSRF_COOKIE_HTTPONLY", &mut self.csrf_cookie_httponly),
            ("CSRF_USE_SESSIONS", &mut self.csrf_use_sessions),
            ("USE_X_FORWARDED_HOST", &mut self.use_x_forwarded_host),
            ("USE_X_FORWARDED_PORT", &mut self.use_x_forwarded_port),
            ("DEBUG", &mut self.debug),
        ] {
            file.boolean(name, place)?;
        }
        if let Some(value) = file.get("CSRF_COOKIE_AGE") {
            let expected = "a whole number of seconds, or None";
            let invalid = SettingsError::Invalid { name: "CSRF_COOKIE_AGE", expected };
            self.csrf_cookie_age = match value {
                Value::Null => None,
                value => Some(value.as_i64().ok_or(invalid)?),
            };
        }
        if let Some(value) = file.get("CSRF_COOKIE_SAMESITE") {
            self.csrf_cookie_samesite = SessionSettings::samesite("CSRF_COOKIE_SAMESITE", value)?;
        }
        if let Some(value) = file.get("SECURE_PROXY_SSL_HEADER") {
            self.secure_proxy_ssl_header = proxy_header(value)?;
        }
        let mut size = None;
        file.limit("DATA_UPLOAD_MAX_MEMORY_SIZE", &mut size)?;
        self.data_upload_max_memory_size = size.unwrap_or(self.data_upload_max_memory_size);
        let (fields, files) =
            (&mut self.data_upload_max_number_fields, &mut self.data_upload_max_number_files);
        file.limit("DATA_UPLOAD_MAX_NUMBER_FIELDS", fields)?;
        file.limit("DATA_UPLOAD_MAX_NUMBER_FILES", files)?;
        Ok(())
    }
}

fn proxy_header(value: &Value) -> Result<Option<(String, String)>, SettingsError> {
    match value {
        // Django asks whether there is anything in it.
        Value::Null => Ok(None),
        Value::Array(pair) if pair.is_empty() => Ok(None),
        Value::Array(pair) => match &pair[..] {
            [Value::String(header), Value::String(value)] => {
                Ok(Some((header.clone(), value.clone())))
            }
            _ => Err(super::rules::INVALID_PROXY_HEADER),
        },
        _ => Err(super::rules::INVALID_PROXY_HEADER),
    }
}

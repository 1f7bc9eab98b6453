//! The list of hashers, and what Django does with it.

use super::error::HasherError;
use super::hasher::{PasswordHasher, UNSALTED_MD5, UNSALTED_SHA1};
use super::limits::Limits;
use super::salt::random_string;
use super::{UNUSABLE_PASSWORD_PREFIX, UNUSABLE_PASSWORD_SUFFIX_LENGTH};

/// Whether an encoded password may match some password: `is_password_usable`.
///
/// It may be gibberish nevertheless.
///
/// # Example
///
/// ```
/// use django_session::auth::hashers::{PasswordHashers, is_password_usable};
///
/// let unusable = PasswordHashers::default().make_password(None)?;
/// assert!(!is_password_usable(&unusable));
/// assert!(is_password_usable("pbkdf2_sha256$1000000$salt$hash"));
/// assert!(is_password_usable(""));
/// # Ok::<(), django_session::auth::hashers::HasherError>(())
/// ```
pub fn is_password_usable(encoded: &str) -> bool {
    !encoded.starts_with(UNUSABLE_PASSWORD_PREFIX)
}

/// What [`PasswordHashers::check_password`] found. Only a match lets somebody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum PasswordCheck {
    /// The password is right.
    Match {
        /// Whether Django would now store what
        /// [`make_password`](PasswordHashers::make_password) makes of the password: another hasher is
        /// the first one, or its parameters are others.
        must_update: bool,
    },
    /// The password is wrong.
    NoMatch,
    /// None of the hashers has the algorithm of what is stored. Django says `False`.
    UnknownAlgorithm,
    /// The user has no password: `set_unusable_password`. Django says `False`.
    Unusable,
}

impl PasswordCheck {
    /// Whether the password is right: what Django's `check_password` returns.
    pub fn is_match(self) -> bool {
        matches!(self, Self::Match { .. })
    }

    /// Whether the password is right, and is to be stored anew.
    pub fn must_update(self) -> bool {
        matches!(self, Self::Match { must_update: true })
    }
}

/// The hashers of a site, in the order of `PASSWORD_HASHERS`.
///
/// The first makes passwords. Each checks those of its algorithm; those of any but the first are
/// renewed.
///
/// `default()` has those of Django 5.2, the newest release with long-term support;
/// [`PasswordHashers::of_django`] those of another one, [`PasswordHashers::from_json`] those of a site.
/// The three differ in iterations, so only the last of them is sure to leave alone what Django made.
///
/// # Example
///
/// ```
/// use django_session::auth::hashers::{PasswordCheck, PasswordHashers};
///
/// let hashers = PasswordHashers::default();
/// // Django 4.2 made this one, with few iterations.
/// let encoded = "pbkdf2_sha256$100$seasalt$YIOeIESlan/xfRGpqiCRdjjBEbxPJtEDn6VoZCfhLrA=";
/// let check = hashers.check_password("lètmein", encoded)?;
/// assert_eq!(check, PasswordCheck::Match { must_update: true });
/// assert_eq!(hashers.check_password("letmein", encoded)?, PasswordCheck::NoMatch);
/// assert_eq!(hashers.check_password("lètmein", "!8tOJ…")?, PasswordCheck::Unusable);
/// # Ok::<(), django_session::auth::hashers::HasherError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHashers {
    /// At least one.
    hashers: Vec<PasswordHasher>,
    limits: Limits,
}

impl Default for PasswordHashers {
    /// Those of Django 5.2.
    fn default() -> Self {
        Self::trusted(super::settings::newest_lts())
    }
}

impl PasswordHashers {
    /// Takes the hashers in their order.
    ///
    /// # Errors
    ///
    /// [`HasherError::NoHasher`] if there are none.
    pub fn new(hashers: impl IntoIterator<Item = PasswordHasher>) -> Result<Self, HasherError> {
        let hashers: Vec<_> = hashers.into_iter().collect();
        if hashers.is_empty() { Err(HasherError::NoHasher) } else { Ok(Self::trusted(hashers)) }
    }

    pub(super) fn trusted(hashers: Vec<PasswordHasher>) -> Self {
        Self { hashers, limits: Limits::default() }
    }

    /// Sets how much work a stored password may ask for.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How much work a stored password may ask for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The hashers in their order.
    pub fn hashers(&self) -> &[PasswordHasher] {
        &self.hashers
    }

    /// The hasher that checks an encoded password: `identify_hasher`.
    ///
    /// Where two have the same algorithm, the last one does, as in Django.
    ///
    /// # Errors
    ///
    /// * [`HasherError::UnknownAlgorithm`] if there is none.
    /// * [`HasherError::Unsupported`] if there is none, and a class whose algorithm is not known.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::auth::hashers::{HasherError, PasswordHasher, PasswordHashers};
    ///
    /// let hashers = PasswordHashers::default();
    /// let found = hashers.identify_hasher("bcrypt_sha256$$2b$12$…")?;
    /// assert!(matches!(found, PasswordHasher::BcryptSha256(_)));
    /// assert_eq!(hashers.identify_hasher("md5$salt$…"), Err(HasherError::UnknownAlgorithm));
    /// # Ok::<(), HasherError>(())
    /// ```
    pub fn identify_hasher(&self, encoded: &str) -> Result<&PasswordHasher, HasherError> {
        let length = encoded.chars().take(47).count();
        let algorithm = if length == 32 && !encoded.contains('$')
            || length == 37 && encoded.starts_with("md5$$")
        {
            UNSALTED_MD5
        } else if length == 46 && encoded.starts_with("sha1$$") {
            UNSALTED_SHA1
        } else {
            encoded.split_once('$').map_or(encoded, |(algorithm, _)| algorithm)
        };
        self.find(algorithm)
    }

    fn find(&self, algorithm: &str) -> Result<&PasswordHasher, HasherError> {
        let mut last_first = self.hashers.iter().rev();
        if let Some(hasher) = last_first.find(|hasher| hasher.algorithm() == Some(algorithm)) {
            return Ok(hasher);
        }
        for hasher in &self.hashers {
            if let PasswordHasher::Custom(hasher) = hasher
                && hasher.algorithm.is_none()
            {
                return Err(hasher.unsupported());
            }
        }
        Err(HasherError::UnknownAlgorithm)
    }

    /// Checks a password against what is stored: `check_password`.
    ///
    /// Blocks for as long as hashing takes; call it in `spawn_blocking`. Texts are compared in constant
    /// time, and no Unicode form is changed into another one. Where nothing can be compared, the
    /// first hasher runs once, and a password with fewer rounds than those of today takes as long as one
    /// of today ([`harden_runtime`]), so that the time does not tell of the user. Where there is no such
    /// user, call [`PasswordHashers::harden_unknown_user`].
    ///
    /// It stores nothing: if [`PasswordCheck::must_update`] says so, store what
    /// [`PasswordHashers::make_password`] makes.
    ///
    /// # Errors
    ///
    /// None of them may let anybody in.
    ///
    /// * [`HasherError::LimitExceeded`] if what is stored asks for too much work.
    /// * [`HasherError::Malformed`] if it names an algorithm and is none of its passwords, where Django
    ///   raises an exception.
    /// * [`HasherError::PasswordTooLong`] if the password is beyond the limits, or bcrypt's.
    /// * [`HasherError::Unsupported`] if only a class of the site's own can check it.
    ///
    /// [`harden_runtime`]: https://docs.djangoproject.com/en/stable/topics/auth/passwords/
    pub fn check_password(
        &self,
        password: &str,
        encoded: &str,
    ) -> Result<PasswordCheck, HasherError> {
        self.limits.check_password(password)?;
        if !is_password_usable(encoded) {
            self.run_once();
            return Ok(PasswordCheck::Unusable);
        }
        let checked = match self.verify_password(password, encoded) {
            Err(HasherError::UnknownAlgorithm) => Ok(PasswordCheck::UnknownAlgorithm),
            checked => checked,
        };
        if !matches!(checked, Ok(PasswordCheck::Match { .. } | PasswordCheck::NoMatch)) {
            self.run_once();
        }
        checked
    }

    fn verify_password(&self, password: &str, encoded: &str) -> Result<PasswordCheck, HasherError> {
        let hasher = self.identify_hasher(encoded)?;
        self.limits.check_encoded(encoded)?;
        let preferred = self.preferred();
        let is_changed = hasher.algorithm() != preferred.algorithm();
        let must_update = is_changed || preferred.must_update(encoded)?;
        if hasher.verify(password, encoded, &self.limits)? {
            return Ok(PasswordCheck::Match { must_update });
        }
        if !is_changed && must_update {
            hasher.harden_runtime(password, encoded)?;
        }
        Ok(PasswordCheck::NoMatch)
    }

    /// Whether a password of this form is to be renewed at the next login: what Django decides in
    /// `verify_password`, without a password.
    ///
    /// # Errors
    ///
    /// As [`PasswordHashers::identify_hasher`]; [`HasherError::Malformed`] and
    /// [`HasherError::LimitExceeded`] as [`PasswordHashers::check_password`].
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::auth::hashers::PasswordHashers;
    ///
    /// let hashers = PasswordHashers::default();
    /// let salt = "oBYJf8pXW1PkZEVMKDuJ9g";
    /// assert!(!hashers.must_update(&format!("pbkdf2_sha256$1000000${salt}$…"))?);
    /// assert!(hashers.must_update(&format!("pbkdf2_sha256$600000${salt}$…"))?);
    /// assert!(hashers.must_update("pbkdf2_sha256$1000000$short$…")?);
    /// assert!(hashers.must_update("scrypt$16384$salt$8$5$…")?);
    /// # Ok::<(), django_session::auth::hashers::HasherError>(())
    /// ```
    pub fn must_update(&self, encoded: &str) -> Result<bool, HasherError> {
        let hasher = self.identify_hasher(encoded)?;
        self.limits.check_encoded(encoded)?;
        let preferred = self.preferred();
        Ok(hasher.algorithm() != preferred.algorithm() || preferred.must_update(encoded)?)
    }

    /// Encodes a password by the first hasher, under a new salt: `make_password`.
    ///
    /// Without a password the text is one that never matches: `!` and 40 random characters, as of
    /// `set_unusable_password`. Blocks for as long as hashing takes.
    ///
    /// # Errors
    ///
    /// * [`HasherError::PasswordTooLong`] if it is beyond the limits, or bcrypt's.
    /// * [`HasherError::Malformed`] if the hasher has parameters with which it cannot run.
    /// * [`HasherError::LimitExceeded`] if scrypt's take more memory than its `maxmem`.
    /// * [`HasherError::ReadOnly`], [`HasherError::Unsupported`] if the first hasher makes none here.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::auth::hashers::{PasswordCheck, PasswordHashers};
    ///
    /// let hashers = PasswordHashers::default();
    /// let encoded = hashers.make_password("secret")?;
    /// assert!(encoded.starts_with("pbkdf2_sha256$1000000$"));
    /// let check = hashers.check_password("secret", &encoded)?;
    /// assert_eq!(check, PasswordCheck::Match { must_update: false });
    ///
    /// assert_eq!(hashers.make_password(None)?.len(), 41);
    /// # Ok::<(), django_session::auth::hashers::HasherError>(())
    /// ```
    pub fn make_password<'a>(
        &self,
        password: impl Into<Option<&'a str>>,
    ) -> Result<String, HasherError> {
        match password.into() {
            Some(password) => self.make(self.preferred(), password),
            None => Ok(UNUSABLE_PASSWORD_PREFIX.to_owned()
                + &random_string(UNUSABLE_PASSWORD_SUFFIX_LENGTH)),
        }
    }

    /// As [`PasswordHashers::make_password`], by the hasher with this algorithm:
    /// `make_password(password, hasher=…)`.
    ///
    /// # Errors
    ///
    /// As [`PasswordHashers::make_password`], and [`HasherError::UnknownAlgorithm`].
    pub fn make_password_with(
        &self,
        algorithm: &str,
        password: &str,
    ) -> Result<String, HasherError> {
        self.make(self.find(algorithm)?, password)
    }

    fn make(&self, hasher: &PasswordHasher, password: &str) -> Result<String, HasherError> {
        self.limits.check_password(password)?;
        hasher.make(password)
    }

    /// Takes the time of a check where there is no user to check a password of, as Django's
    /// `ModelBackend.authenticate` does: the time must not tell which names there are.
    ///
    /// # Errors
    ///
    /// [`HasherError::PasswordTooLong`], as for a user that is there.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::auth::hashers::{HasherError, PasswordCheck, PasswordHashers};
    ///
    /// fn is_let_in(
    ///     hashers: &PasswordHashers,
    ///     encoded: Option<&str>,
    ///     password: &str,
    /// ) -> Result<bool, HasherError> {
    ///     match encoded {
    ///         Some(encoded) => Ok(hashers.check_password(password, encoded)?.is_match()),
    ///         None => hashers.harden_unknown_user(password).map(|()| false),
    ///     }
    /// }
    /// # let hashers = PasswordHashers::default();
    /// # assert!(!is_let_in(&hashers, None, "secret")?);
    /// # Ok::<(), HasherError>(())
    /// ```
    pub fn harden_unknown_user(&self, password: &str) -> Result<(), HasherError> {
        self.limits.check_password(password)?;
        if self.make_password(password).is_err() {
            // A class of the site's own, or more than bcrypt takes: the first of those that run, as
            // where there is such a user.
            self.run_once();
        }
        Ok(())
    }

    fn preferred(&self) -> &PasswordHasher {
        // There is always one.
        &self.hashers[0]
    }

    /// Runs the first hasher that there is, so that an answer takes as long as any other.
    fn run_once(&self) {
        let password = random_string(UNUSABLE_PASSWORD_SUFFIX_LENGTH);
        self.hashers.iter().any(|hasher| std::hint::black_box(hasher.make(&password)).is_ok());
    }
}

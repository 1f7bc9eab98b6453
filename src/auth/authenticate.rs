//! Letting somebody in by a password: `django.contrib.auth.authenticate`.

use std::sync::LazyLock;

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::Auth;
use super::error::AuthError;
use super::hashers::{HasherError, PasswordCheck, PasswordHashers};
use super::interface::UserRecord;
use super::user::User;

/// How many passwords are hashed at a time: each takes a processor for as long as it lasts, and some
/// hashers much memory. Others wait for their turn without a thread.
static HASHING: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
});

impl Auth {
    /// The user whom the first of the backends lets in by this name and password; `None` if none does.
    ///
    /// A password whose hasher or parameters are no longer those of the site is stored anew, which ends
    /// the user's other sessions, in Django too. Hashing happens in Tokio's threads for blocking work, as
    /// many at a time as there are processors. A name that does not exist takes as long as a wrong
    /// password. Nothing is written into the session: that is [`Auth::login`].
    ///
    /// There is no limit on how often somebody may try, as there is none in Django.
    ///
    /// # Errors
    ///
    /// * [`AuthError::UnknownBackend`] if a backend of the site's own would have to be asked.
    /// * [`AuthError::Password`] if what is stored cannot be checked.
    /// * [`AuthError::Users`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::Session;
    /// use django_session::auth::{Auth, AuthError};
    ///
    /// async fn log_in(auth: &Auth, session: &Session, form: (&str, &str)) -> Result<bool, AuthError> {
    ///     match auth.authenticate(form.0, form.1).await? {
    ///         Some(user) => auth.login(session, &user).await.map(|()| true),
    ///         None => Ok(false),
    ///     }
    /// }
    /// ```
    pub async fn authenticate(
        &self,
        username: &str,
        password: &str,
    ) -> Result<Option<User>, AuthError> {
        for backend in &self.settings.backends {
            if backend.has_own_authenticate {
                return Err(AuthError::UnknownBackend);
            }
            if !backend.kind.checks_passwords() {
                continue;
            }
            let Some(record) = self.check_password_of(username, password).await? else { continue };
            if record.is_active || backend.kind.allows_all_users() {
                return Ok(Some(self.user(record, &backend.path)));
            }
        }
        Ok(None)
    }

    /// `User.check_password`, of the user with this name.
    async fn check_password_of(
        &self,
        username: &str,
        password: &str,
    ) -> Result<Option<UserRecord>, AuthError> {
        let mut before = None;
        loop {
            let found = self.users.get_by_natural_key(username).await.map_err(AuthError::Users)?;
            let Some((mut record, encoded)) =
                found.and_then(|record| record.password.clone().map(|encoded| (record, encoded)))
            else {
                self.hash(password, PasswordHashers::harden_unknown_user).await?;
                return Ok(None);
            };
            let stored = encoded.clone();
            let checked = self.hash(password, move |hashers, password| {
                let check = hashers.check_password(password, &stored)?;
                let renewed = match check {
                    PasswordCheck::Match { must_update: true } => {
                        Some(hashers.make_password(password)?)
                    }
                    _ => None,
                };
                Ok((check.is_match(), renewed))
            });
            match checked.await? {
                Some((true, None)) => return Ok(Some(record)),
                Some((true, Some(renewed))) => {
                    let stored = self.users.set_password(&record.pk, &encoded, &renewed);
                    if stored.await.map_err(AuthError::Users)? {
                        record.password = Some(renewed);
                        return Ok(Some(record));
                    }
                    // It cannot be changed, which is no reason to keep anybody out.
                    if before.as_ref() == Some(&encoded) {
                        return Ok(Some(record));
                    }
                    // Somebody has changed it since: what counts is what is there now.
                    before = Some(encoded);
                }
                Some((false, _)) | None => return Ok(None),
            }
        }
    }

    /// Runs a hasher in a thread; `None` for a password that is longer than any that can be hashed.
    async fn hash<T: Send + 'static>(
        &self,
        password: &str,
        step: impl FnOnce(&PasswordHashers, &str) -> Result<T, HasherError> + Send + 'static,
    ) -> Result<Option<T>, AuthError> {
        let settings = self.settings.clone();
        let password = Zeroizing::new(password.to_owned());
        // The semaphore is never closed.
        let turn = HASHING.acquire().await.ok();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            step(&settings.hashers, &password)
        });
        match done.await {
            Ok(Ok(done)) => Ok(Some(done)),
            Ok(Err(HasherError::PasswordTooLong { .. })) => Ok(None),
            Ok(Err(error)) => Err(AuthError::Password(error)),
            Err(panicked) => match panicked.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and with it whoever asked.
                Err(_) => Ok(None),
            },
        }
    }
}

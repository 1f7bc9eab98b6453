//! What a user may do: `PermissionsMixin.has_perm` over Django's own backends.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Auth;
use super::error::AuthError;
use super::settings::AuthBackendKind;
use super::user::User;

impl Auth {
    /// The permissions of a user, its own and those of its groups, as `app_label.codename`; none of an
    /// inactive one. Those of a superuser are not all there are: ask [`Auth::has_perm`].
    ///
    /// # Errors
    ///
    /// [`AuthError::Users`], [`AuthError::UnknownBackend`].
    #[doc(alias = "get_all_permissions")]
    pub async fn permissions(&self, user: &User) -> Result<Arc<BTreeSet<String>>, AuthError> {
        // Every backend that is listed may grant something, not only the one of the login.
        if self.settings.backends.iter().any(|it| it.kind == AuthBackendKind::Unknown) {
            return Err(AuthError::UnknownBackend);
        }
        if !user.is_active() || self.settings.backends.is_empty() {
            return Ok(Arc::default());
        }
        if let Some(found) = self.cache.as_ref().and_then(|cache| cache.permissions(user.pk())) {
            return Ok(found);
        }
        let found = Arc::new(self.users.permissions(user.pk()).await.map_err(AuthError::Users)?);
        if let Some(cache) = &self.cache {
            cache.insert_permissions(user.pk().clone(), found.clone());
        }
        Ok(found)
    }

    /// Whether a user may do this, `app_label.codename`: an active superuser may do everything, an
    /// inactive user nothing.
    ///
    /// # Errors
    ///
    /// As [`Auth::permissions`].
    pub async fn has_perm(&self, user: &User, perm: &str) -> Result<bool, AuthError> {
        if user.is_active() && user.is_superuser() {
            return Ok(true);
        }
        Ok(self.permissions(user).await?.contains(perm))
    }

    /// Whether a user may do anything at all in an app.
    ///
    /// # Errors
    ///
    /// As [`Auth::permissions`].
    pub async fn has_module_perms(&self, user: &User, app_label: &str) -> Result<bool, AuthError> {
        if user.is_active() && user.is_superuser() {
            return Ok(true);
        }
        let permissions = self.permissions(user).await?;
        let of_app =
            |perm: &String| perm.split_once('.').is_some_and(|(label, _)| label == app_label);
        Ok(permissions.iter().any(of_app))
    }
}

//! Users that were let in a moment ago, so that the next request asks nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::Auth;
use super::primary_key::PrimaryKey;
use super::user::User;
use crate::session::SessionKey;

/// Longer than any store takes to answer.
const LOOKING_UP: Duration = Duration::from_mins(1);

/// Bounded in number and in time.
#[derive(Clone)]
pub(super) struct UserCache {
    users: Cache<SessionKey, User>,
    /// Sessions that were ended or changed here, so that whoever was just looking one of them up does not
    /// bring it back.
    ended: Cache<SessionKey, ()>,
    permissions: Cache<PrimaryKey, Arc<BTreeSet<String>>>,
}

impl UserCache {
    fn new(capacity: u64, staleness: Duration) -> Self {
        Self {
            ended: Cache::builder()
                .max_capacity(capacity)
                .time_to_live(staleness.saturating_add(LOOKING_UP))
                .build(),
            users: Cache::builder().max_capacity(capacity).time_to_live(staleness).build(),
            permissions: Cache::builder().max_capacity(capacity).time_to_live(staleness).build(),
        }
    }

    pub(super) fn user(&self, session_key: &SessionKey) -> Option<User> {
        self.users.get(session_key)
    }

    pub(super) fn insert_user(&self, session_key: &SessionKey, user: User) {
        if self.ended.contains_key(session_key) {
            return;
        }
        self.users.insert(session_key.clone(), user);
        // It may have been ended between the two.
        if self.ended.contains_key(session_key) {
            self.users.invalidate(session_key);
        }
    }

    pub(super) fn forget(&self, session_key: &SessionKey) {
        self.ended.insert(session_key.clone(), ());
        self.users.invalidate(session_key);
    }

    pub(super) fn permissions(&self, pk: &PrimaryKey) -> Option<Arc<BTreeSet<String>>> {
        self.permissions.get(pk)
    }

    pub(super) fn insert_permissions(&self, pk: PrimaryKey, found: Arc<BTreeSet<String>>) {
        self.permissions.insert(pk, found);
    }
}

impl fmt::Debug for UserCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserCache").finish_non_exhaustive()
    }
}

impl Auth {
    /// Remembers whom a session has let in, for as long as `staleness` and for at most `capacity`
    /// sessions, and the permissions of as many users. Off unless asked for.
    ///
    /// A request whose session nobody else looks at then asks neither store nor users. The price: what
    /// ends a login elsewhere (a logout, another password, an inactive or deleted user, a permission
    /// that was taken, the session's expiry) counts here up to `staleness` later. A login or a
    /// logout through this [`Auth`] or its clones counts at once; another password ends the other
    /// sessions of its user up to `staleness` later, too.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use django_session::auth::Auth;
    ///
    /// fn with_cache(auth: Auth) -> Auth {
    ///     auth.with_user_cache(100_000, Duration::from_secs(5))
    /// }
    /// ```
    #[must_use]
    pub fn with_user_cache(mut self, capacity: u64, staleness: Duration) -> Self {
        self.cache = Some(UserCache::new(capacity, staleness));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::interface::UserRecord;
    use super::super::primary_key::PrimaryKeyType;
    use super::*;

    #[test]
    fn a_session_that_has_ended_is_not_brought_back_by_a_slow_look() {
        let cache = UserCache::new(10, Duration::from_hours(1));
        let pk = PrimaryKeyType::INTEGER.parse("7").unwrap().unwrap();
        let record = UserRecord::new(pk, "ann", None);
        let ann = User { record: record.into(), backend: "backend".into() };
        let key = SessionKey::generate();
        cache.insert_user(&key, ann.clone());
        assert!(cache.user(&key).is_some());
        cache.forget(&key);
        assert!(cache.user(&key).is_none());
        // Looked up before the logout, and answered after it.
        cache.insert_user(&key, ann);
        assert!(cache.user(&key).is_none());
    }
}

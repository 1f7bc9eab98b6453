//! Errors of databases, made fit to be shown and logged.

use std::error::Error as StdError;
use std::{fmt, io};

use sqlx::error::DatabaseError;

use crate::session::StoreError;
use crate::store::retry::Failure;

/// What is inside a [`StoreError`] of [`SqlStore`](super::SqlStore) where the database failed.
///
/// A database may repeat what it was given: `Key (session_key)=(…) already exists`. So the message
/// is shown only where it is known to name no more than tables, users and limits; otherwise there is
/// the code alone. The error in full is [`SqlError::as_sqlx`].
///
/// # Example
///
/// ```
/// use django_session::StoreError;
/// use django_session::store::SqlError;
///
/// fn sqlstate(error: &StoreError) -> Option<String> {
///     let StoreError::Backend(source) = error else { return None };
///     let error = source.downcast_ref::<SqlError>()?.as_sqlx()?.as_database_error()?;
///     Some(error.code()?.into_owned())
/// }
/// # assert!(sqlstate(&StoreError::Update).is_none());
/// ```
pub struct SqlError(Kind);

enum Kind {
    Sqlx(sqlx::Error),
    Column(&'static str),
    /// Not one connection could be opened in time.
    NotConnected(sqlx::Error),
    /// The database took longer than the store waits.
    TimedOut,
    /// A write was sent twice, and what came of the first is not known.
    Unknown,
}

impl SqlError {
    pub(in crate::store) fn unreadable(column: &'static str) -> Self {
        Self(Kind::Column(column))
    }

    pub(in crate::store) fn timed_out() -> Self {
        Self(Kind::TimedOut)
    }

    pub(in crate::store) fn unknown() -> Self {
        Self(Kind::Unknown)
    }

    /// The same of a write that a connection was lost with before, so that it cannot be said that
    /// nothing was changed.
    pub(in crate::store) fn after_broken(self) -> Self {
        match self.class() {
            Class::Busy | Class::RolledBack => Self::unknown(),
            Class::Gone | Class::Refused | Class::TimedOut => self,
        }
    }

    /// What came of waiting for a connection; `full` if there are as many as there may be.
    pub(in crate::store) fn not_acquired(error: sqlx::Error, full: bool) -> Self {
        match error {
            sqlx::Error::PoolTimedOut if !full => Self(Kind::NotConnected(error)),
            error => Self(Kind::Sqlx(error)),
        }
    }

    /// What it means for another try.
    pub(in crate::store) fn failure(&self) -> Failure {
        match &self.0 {
            Kind::Sqlx(sqlx::Error::Io(error)) if error.kind() != io::ErrorKind::TimedOut => {
                Failure::Broken
            }
            Kind::Sqlx(sqlx::Error::Database(error)) => match class_of(&**error) {
                Class::Gone => Failure::Broken,
                Class::RolledBack => Failure::RolledBack,
                _ => Failure::Final,
            },
            _ => Failure::Final,
        }
    }

    /// Whether the server, or the connection to it, only reads: after a failover that is the old one.
    pub(in crate::store) fn is_of_reader(&self) -> bool {
        let Kind::Sqlx(sqlx::Error::Database(error)) = &self.0 else { return false };
        #[cfg(feature = "mysql")]
        if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
            // The option `read_only`, a transaction, the server as a whole.
            return matches!(error.number(), 1290 | 1792 | 1836);
        }
        error.code().is_some_and(|code| code == "25006")
    }

    /// What sqlx reported. It may contain session keys and session data: look at its kind and its
    /// codes, but do not log it.
    pub fn as_sqlx(&self) -> Option<&sqlx::Error> {
        match &self.0 {
            Kind::NotConnected(error) | Kind::Sqlx(error) => Some(error),
            Kind::Column(_) | Kind::TimedOut | Kind::Unknown => None,
        }
    }

    /// Whether it may be about one value, and another row could be written all the same.
    #[cfg(feature = "cli")]
    pub(in crate::store) fn is_of_a_value(&self) -> bool {
        let Kind::Sqlx(sqlx::Error::Database(error)) = &self.0 else {
            return matches!(self.0, Kind::Column(_));
        };
        #[cfg(feature = "mysql")]
        if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
            // Wrong text, for its column or at all; too long for what is sent at a time.
            return matches!(error.number(), 1153 | 1366 | 1406 | 3988 | 4025)
                || error.code().is_some_and(is_of_a_value);
        }
        let code = error.code().unwrap_or_default();
        #[cfg(feature = "sqlite")]
        if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH.
            return code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 18..=20));
        }
        is_of_a_value(&code)
    }

    fn class(&self) -> Class {
        match &self.0 {
            Kind::NotConnected(_) | Kind::Unknown => Class::Gone,
            Kind::TimedOut => Class::TimedOut,
            Kind::Sqlx(sqlx::Error::PoolTimedOut) => Class::Busy,
            Kind::Sqlx(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Class::TimedOut
            }
            Kind::Sqlx(sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed) => {
                Class::Gone
            }
            Kind::Sqlx(sqlx::Error::Database(error)) => class_of(&**error),
            Kind::Column(_) | Kind::Sqlx(_) => Class::Refused,
        }
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        Self(Kind::Sqlx(error))
    }
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        let class = error.class();
        let error = Box::new(error);
        match class {
            Class::Busy | Class::RolledBack => Self::Busy(error),
            Class::Gone => Self::Unreachable(error),
            Class::Refused => Self::Backend(error),
            Class::TimedOut => Self::TimedOut(error),
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Column(column) => write!(f, "a row has an unreadable {column}"),
            Kind::NotConnected(_) => f.write_str("the database cannot be connected to"),
            Kind::TimedOut => f.write_str("the database took too long"),
            Kind::Unknown => {
                f.write_str("the connection failed, and the write may have been done or not")
            }
            Kind::Sqlx(sqlx::Error::Database(error)) => {
                f.write_str("the database reports ")?;
                match (error.code(), harmless_message(&**error)) {
                    (Some(code), Some(message)) => write!(f, "{code}: {message}"),
                    (None, Some(message)) => f.write_str(message),
                    (Some(code), None) => {
                        write!(f, "{code} ({:?}); its message may hold values", error.kind())
                    }
                    (None, None) => f.write_str("an error; its message may hold values"),
                }
            }
            Kind::Sqlx(sqlx::Error::Io(error)) => write!(f, "the connection failed: {error}"),
            Kind::Sqlx(sqlx::Error::Tls(error)) => write!(f, "no secure connection: {error}"),
            Kind::Sqlx(
                error @ (sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed),
            ) => write!(f, "{error}"),
            Kind::Sqlx(sqlx::Error::Configuration(_)) => {
                f.write_str("the address of the database is malformed")
            }
            Kind::Sqlx(
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnIndexOutOfBounds { .. },
            ) => f.write_str("a row has an unreadable column"),
            Kind::Sqlx(_) => f.write_str("the database driver failed"),
        }
    }
}

impl fmt::Debug for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqlError").field(&format_args!("{self}")).finish()
    }
}

/// The source would be the very error that must not be shown, so there is none; see
/// [`SqlError::as_sqlx`].
impl StdError for SqlError {}

/// What kind of trouble a database is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It may have time later.
    Busy,
    /// It is going, or it has ended the connection.
    Gone,
    /// It says no.
    Refused,
    /// It undid everything for the sake of somebody else's transaction.
    RolledBack,
    TimedOut,
}

fn class_of(error: &dyn DatabaseError) -> Class {
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return match error.number() {
            // Deadlock. Waiting for a lock in vain, 1205, has taken long enough.
            1213 => Class::RolledBack,
            // Connections: too many, of one user, of one user in an hour.
            1040 | 1203 | 1205 | 1226 => Class::Busy,
            // Going down; killed.
            1053 | 1927 => Class::Gone,
            // Interrupted; longer than the limit, to MariaDB and to MySQL.
            1317 | 1969 | 3024 => Class::TimedOut,
            _ => Class::Refused,
        };
    }
    let code = error.code().unwrap_or_default();
    #[cfg(feature = "sqlite")]
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        let code = code.parse::<i32>().unwrap_or_default();
        return match (code, code & 0xff) {
            // SQLITE_BUSY_SNAPSHOT, which no waiting helps.
            (517, _) => Class::RolledBack,
            // SQLITE_BUSY, after having waited; SQLITE_LOCKED.
            (_, 5 | 6) => Class::Busy,
            // SQLITE_CANTOPEN.
            (_, 14) => Class::Gone,
            _ => Class::Refused,
        };
    }
    match &*code {
        "40001" | "40P01" => Class::RolledBack,
        // Lock not available, too many connections, cannot connect now.
        "55P03" | "53300" | "57P03" => Class::Busy,
        // Shutdown by the administrator or a crash, database dropped, idle connections ended.
        "57P01" | "57P02" | "57P04" | "57P05" | "25P03" => Class::Gone,
        // Canceled, above all by statement_timeout.
        "57014" => Class::TimedOut,
        code if code.starts_with("08") => Class::Gone,
        _ => Class::Refused,
    }
}

/// Classes of SQLSTATE: data, constraints.
#[cfg(feature = "cli")]
fn is_of_a_value(sqlstate: &str) -> bool {
    sqlstate.starts_with("22") || sqlstate.starts_with("23")
}

/// The message of an error whose kind excludes that it repeats a value. The statements are known and
/// hold none.
fn harmless_message(error: &dyn DatabaseError) -> Option<&str> {
    let code = error.code().unwrap_or_default();
    let harmless = {
        #[cfg(feature = "mysql")]
        if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
            return is_harmless_mysql(error.number()).then(|| error.message());
        }
        #[cfg(feature = "sqlite")]
        if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            // All but constraints, 19, which a trigger may phrase as it likes.
            let primary = code.parse::<i32>().map(|code| code & 0xff);
            return (primary.is_ok_and(|primary| primary != 19)).then(|| error.message());
        }
        is_harmless_sqlstate(&code)
    };
    harmless.then(|| error.message())
}

/// Classes of PostgreSQL: connection, transaction state, authorization, deadlock, unknown names and
/// rights, resources, locks, operators at work, the system.
fn is_harmless_sqlstate(code: &str) -> bool {
    const CLASSES: [&str; 12] =
        ["08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "0A"];
    CLASSES.iter().any(|class| code.starts_with(class))
}

/// Connections, rights, unknown names, locks, read-only servers, limits, columns too short.
#[cfg(feature = "mysql")]
fn is_harmless_mysql(number: u16) -> bool {
    matches!(
        number,
        1040..=1042
            | 1044..=1046
            | 1049
            | 1053
            | 1054
            | 1114
            | 1129
            | 1130
            | 1142
            | 1146
            | 1203
            | 1205
            | 1213
            | 1226
            | 1290
            | 1317
            | 1406
            | 1792
            | 1836
            | 1927
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_that_repeat_values_are_not_shown() {
        for hidden in ["22001", "22007", "22P02", "23502", "23505", "23514", "P0001", "XX000", ""] {
            assert!(!is_harmless_sqlstate(hidden), "{hidden}");
        }
        for shown in ["42P01", "57P01", "28P01", "53300"] {
            assert!(is_harmless_sqlstate(shown), "{shown}");
        }
    }

    #[test]
    fn an_address_is_never_repeated() {
        let source = sqlx::Error::Configuration("unknown value \"hunter2\"".into());
        let error = StoreError::from(SqlError::from(source));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!format!("{error} {error:?} {source}").contains("hunter2"));
    }
}

//! What the three databases have in common.

use std::collections::HashSet;
use std::fmt::Write as _;

use sqlx::{Database, Encode, QueryBuilder, Type};

use super::{Filter, Place, StoredSession};
use crate::session::{DateTime, StoreError};
use crate::store::sql::{Dialect, SqlError, Zone, decode_text};

/// The conditions of a filter and their parameters, each after `AND` as literals that the dialect quotes.
pub(super) fn conditions(
    dialect: Dialect,
    zone: &Zone,
    filter: Filter,
) -> Result<String, StoreError> {
    let mut sql = String::new();
    for (operator, date) in [(">=", filter.expires_from), ("<", filter.expires_before)] {
        if let Some(date) = date {
            let text = dialect.encode_time(zone, date).map_err(StoreError::ExpireDate)?;
            // Digits and punctuation of a date.
            let literal = dialect.time(&format!("'{text}'"));
            let _ = write!(sql, " AND expire_date {operator} {literal}");
        }
    }
    if let Some(keys) = filter.keys {
        let column = match dialect {
            Dialect::Postgres => "session_key COLLATE \"C\"",
            Dialect::MySql | Dialect::Sqlite => "session_key",
        };
        let (from, to) = keys.bounds();
        for (operator, bound) in [(">=", from), ("<", to)] {
            if let Some(bound) = bound {
                // Two letters or digits.
                let _ = write!(sql, " AND {column} {operator} '{bound}'");
            }
        }
    }
    Ok(sql)
}

pub(super) fn failed(error: sqlx::Error) -> StoreError {
    SqlError::from(error).into()
}

/// A row, whose expire date is text: in SQLite anything, and in MySQL perhaps a day of zeros.
pub(super) fn stored_session(
    zone: &Zone,
    key: &[u8],
    value: &[u8],
    expire_date: &str,
    place: Place,
) -> StoredSession {
    let expire_date = decode_text(zone, expire_date);
    let last = || DateTime::now(DateTime::MAX_INSTANT, zone.use_tz, &zone.time_zone);
    StoredSession {
        session_key: String::from_utf8_lossy(key).into_owned(),
        value: value.to_vec(),
        expire_date: expire_date.unwrap_or_else(last),
        is_dated: expire_date.is_some(),
        place,
    }
}

/// A statement, and after it `WHERE` with these keys.
pub(super) fn of_keys<'k, D>(
    statement: &str,
    keys: impl IntoIterator<Item = &'k str>,
) -> QueryBuilder<D>
where
    D: Database,
    &'k str: Encode<'k, D> + Type<D>,
{
    let mut query = QueryBuilder::new(format!("{statement} WHERE session_key IN ("));
    let mut list = query.separated(", ");
    for key in keys {
        list.push_bind(key);
    }
    query.push(")");
    query
}

/// The places in a list of those sessions whose keys are not in a set.
pub(super) fn not_in(keys: &HashSet<String>, sessions: &[StoredSession]) -> Vec<usize> {
    let indices = sessions.iter().enumerate();
    indices.filter(|(_, it)| !keys.contains(&it.session_key)).map(|(index, _)| index).collect()
}

/// Which of the keys are among those that were found.
pub(super) fn which(keys: &[&str], found: Vec<String>) -> Vec<bool> {
    let found: HashSet<String> = found.into_iter().collect();
    keys.iter().map(|key| found.contains(*key)).collect()
}

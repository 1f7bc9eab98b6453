//! What a table has beside Django's three columns: those of django-user-sessions and django-qsessions, which find
//! the sessions of a user by them, and end these when the user is deleted.

use std::net::IpAddr;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Row as _};

use super::sql::failed;
use super::{Coding, StoredSession, user};
use crate::codec::SessionData;
use crate::session::{DateTime, StoreError};
use crate::store::sql::{Dialect, SqlError, SqlPool, Zone};

/// The columns of a table that are filled from what is in the session.
#[derive(Debug)]
pub(super) struct MoreColumns {
    pool: SqlPool,
    /// Quoted.
    table: String,
    zone: Zone,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    /// Quoted.
    name: String,
    /// As the database has it.
    of_type: String,
    meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The primary key of whoever is logged in.
    User,
    /// When the session was saved last.
    Time,
    UserAgent,
    Ip,
}

impl Meaning {
    fn of(column: &str) -> Option<Self> {
        Some(match column {
            "user_id" => Self::User,
            "last_activity" | "created_at" | "updated_at" => Self::Time,
            "user_agent" => Self::UserAgent,
            "ip" => Self::Ip,
            _ => return None,
        })
    }
}

impl MoreColumns {
    /// Asks the database which columns the table has.
    ///
    /// # Errors
    ///
    /// `Unsupported` if it has some that need a value nobody here knows of.
    pub(super) async fn of(pool: SqlPool, table: &str, zone: &Zone) -> Result<Self, StoreError> {
        let dialect = pool.dialect();
        let mut columns = Vec::new();
        for (name, of_type, is_required) in described(&pool, table).await? {
            if matches!(&*name, "session_key" | "session_data" | "expire_date") {
                continue;
            }
            match Meaning::of(&name) {
                Some(meaning) => {
                    columns.push(Column { name: dialect.quoted(&name), of_type, meaning });
                }
                None if is_required => {
                    let operation =
                        "adding to a table with columns of its own that must have a value";
                    return Err(StoreError::Unsupported { operation });
                }
                None => {}
            }
        }
        Ok(Self { pool, table: dialect.quoted(table), zone: zone.clone(), columns })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Their names, each after a comma.
    pub(super) fn names(&self) -> String {
        self.columns.iter().flat_map(|it| [", ", &it.name]).collect()
    }

    /// Their types, in the same order.
    pub(super) fn types(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|it| &*it.of_type)
    }

    /// Their values, in the same order, as text or NULL.
    pub(super) fn values(
        &self,
        stored: &StoredSession,
        coding: &Coding,
    ) -> Result<Vec<Option<String>>, StoreError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let opened = coding.open(stored).map_err(|_| SqlError::unreadable("session_data"))?;
        let saved = opened.signed_at.and_then(|it| Timestamp::from_second(it).ok());
        let saved = saved.unwrap_or_else(Timestamp::now);
        let saved = DateTime::now(saved, self.zone.use_tz, &self.zone.time_zone);
        let saved = self.pool.dialect().encode_time(&self.zone, saved);
        let saved = saved.map_err(StoreError::ExpireDate)?;
        let of = |column: &Column| match column.meaning {
            Meaning::User => column.user(&opened.data),
            Meaning::Time => Some(saved.clone()),
            Meaning::UserAgent => column.user_agent(&opened.data),
            Meaning::Ip => ip(&opened.data),
        };
        Ok(self.columns.iter().map(of).collect())
    }

    /// Notes whose a session is by now.
    pub(super) async fn note_user(
        &self,
        session_key: &str,
        data: &SessionData,
    ) -> Result<(), StoreError> {
        let Some(column) = self.columns.iter().find(|it| it.meaning == Meaning::User) else {
            return Ok(());
        };
        let (table, name, of_type) = (&self.table, &column.name, &column.of_type);
        let [user, key] = match self.pool.dialect() {
            Dialect::Postgres => [format!("$1::text::{of_type}"), "$2".to_owned()],
            Dialect::MySql | Dialect::Sqlite => ["?".to_owned(), "?".to_owned()],
        };
        let sql =
            AssertSqlSafe(format!("UPDATE {table} SET {name} = {user} WHERE session_key = {key}"));
        let user = column.user(data);
        let done = match &self.pool {
            SqlPool::MySql(pool) => {
                sqlx::query(sql).bind(user).bind(session_key).execute(pool).await.map(drop)
            }
            SqlPool::Postgres(pool) => {
                sqlx::query(sql).bind(user).bind(session_key).execute(pool).await.map(drop)
            }
            SqlPool::Sqlite(pool) => {
                sqlx::query(sql).bind(user).bind(session_key).execute(pool).await.map(drop)
            }
        };
        done.map_err(failed)
    }
}

impl Column {
    fn user(&self, data: &SessionData) -> Option<String> {
        let user = user(data)?;
        // A UUID is stored without hyphens where there is no type for it.
        let is_bare = self.of_type == "char(32)" && user.len() == 36;
        Some(if is_bare { user.replace('-', "") } else { user })
    }

    /// As django-qsessions notes it in the session.
    fn user_agent(&self, data: &SessionData) -> Option<String> {
        let text: String = data.get("_qsessions_user_agent").ok()??;
        let most = self.of_type.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        let most = most.and_then(|(number, _)| number.parse().ok()).unwrap_or(usize::MAX);
        Some(text.chars().take(most).collect())
    }
}

fn ip(data: &SessionData) -> Option<String> {
    let text: String = data.get("_qsessions_ip").ok()??;
    Some(text.parse::<IpAddr>().ok()?.to_string())
}

/// The name and the type of each column, and whether it must be given.
async fn described(pool: &SqlPool, table: &str) -> Result<Vec<(String, String, bool)>, StoreError> {
    macro_rules! rows {
        ($pool:expr, $table:expr, $sql:expr) => {{
            let rows = sqlx::query($sql).bind($table).fetch_all($pool).await.map_err(failed)?;
            let read = rows.iter().map(|row| {
                let name: &[u8] = row.try_get_unchecked(0)?;
                let of_type: &[u8] = row.try_get_unchecked(1)?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                Ok((text(name), text(of_type).to_lowercase(), row.try_get_unchecked(2)?))
            });
            read.collect::<Result<Vec<_>, sqlx::Error>>().map_err(failed)
        }};
    }
    match pool {
        SqlPool::MySql(pool) => rows!(
            pool,
            table,
            "SELECT column_name, column_type, \
             is_nullable = 'NO' AND column_default IS NULL AND extra = '' \
             FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position"
        ),
        SqlPool::Postgres(pool) => rows!(
            pool,
            Dialect::Postgres.quoted(table),
            "SELECT attname::text, format_type(atttypid, atttypmod), \
             attnotnull AND NOT atthasdef AND attidentity = '' FROM pg_attribute \
             WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        ),
        SqlPool::Sqlite(pool) => rows!(
            pool,
            table,
            "SELECT name, type, \"notnull\" AND dflt_value IS NULL FROM pragma_table_info(?) ORDER BY cid"
        ),
    }
}

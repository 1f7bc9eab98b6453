//! Users in the tables of `django.contrib.auth`, or of a user model of the site's own.
//!
//! Each question is one statement, over the connections of a session store if there is one.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use sqlx::{AssertSqlSafe, Row};

use super::ConnectError;
#[cfg(feature = "cli")]
use super::StoreUrl;
use super::retry::{Failure, Tries};
use super::sql::{
    Dialect, Lease, Outcome, Spare, SqlError, SqlPool, SqlStore, TIMEOUT, Writer, Zone,
    no_such_key, run,
};
use crate::auth::{AuthSettings, PrimaryKey, PrimaryKeyType, UserModel, UserRecord, UserStore};
use crate::session::{DateTime, StoreError};

/// The users of a site, in SQLite, PostgreSQL, MySQL or MariaDB.
///
/// Clones share the connections. The tables stay Django's; what is written is `last_login`, and a
/// password that was hashed anew.
///
/// # Example
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use django_session::auth::{Auth, AuthSettings};
/// use django_session::store::SqlUsers;
/// use django_session::{SessionSettings, SqlStore};
///
/// let settings = SessionSettings::from_file("settings.json")?;
/// let sessions = SqlStore::connect("postgres://user:password@localhost/site", &settings).await?;
/// let settings = AuthSettings::new(settings);
/// let auth = Auth::new(SqlUsers::beside(&sessions, &settings.user_model), settings);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqlUsers {
    pool: SqlPool,
    primary_key_type: PrimaryKeyType,
    statements: Arc<Statements>,
    zone: Zone,
    persistent: bool,
    timeout: Duration,
    writer: Writer,
    spare: Spare,
}

impl SqlUsers {
    /// Connects to the database that has the users. It is for sessions that are elsewhere; users beside
    /// sessions share their connections ([`SqlUsers::beside`]).
    ///
    /// # Errors
    ///
    /// As [`SqlStore::connect`].
    pub async fn connect(url: &str, settings: &AuthSettings) -> Result<Self, ConnectError> {
        let store = SqlStore::connect(url, &settings.session).await?;
        Ok(Self::beside(&store, &settings.user_model))
    }

    /// As [`SqlUsers::connect`], of an address that has been read.
    #[cfg(feature = "cli")]
    pub(crate) async fn connect_to(
        url: &StoreUrl,
        settings: &AuthSettings,
    ) -> Result<Self, ConnectError> {
        let store = SqlStore::connect_to(url, &settings.session).await?;
        Ok(Self::beside(&store, &settings.user_model))
    }

    /// Users behind connections of yours. It assumes `USE_TZ=True`.
    pub fn new(pool: impl Into<SqlPool>, model: &UserModel) -> Self {
        let pool = pool.into();
        Self {
            primary_key_type: model.primary_key_type,
            statements: Arc::new(Statements::new(pool.dialect(), model)),
            zone: Zone { use_tz: true, time_zone: TimeZone::UTC },
            persistent: true,
            timeout: TIMEOUT,
            writer: Writer::new(pool.dialect()),
            spare: Spare::default(),
            pool,
        }
    }

    /// Users in the database of a session store, over its connections.
    pub fn beside(store: &SqlStore, model: &UserModel) -> Self {
        let way = store.way();
        Self {
            primary_key_type: model.primary_key_type,
            statements: Arc::new(Statements::new(way.pool.dialect(), model)),
            zone: way.zone,
            persistent: way.persistent,
            timeout: way.timeout,
            writer: way.writer,
            spare: way.spare,
            pool: way.pool,
        }
    }

    /// The text to bind for a primary key.
    fn bound(&self, pk: &PrimaryKey) -> String {
        match (self.primary_key_type, self.pool.dialect()) {
            (PrimaryKeyType::Uuid, Dialect::MySql | Dialect::Sqlite) => {
                pk.as_str().replace('-', "")
            }
            _ => pk.as_str().to_owned(),
        }
    }

    fn read<R: TextRow>(&self, row: &R) -> Result<UserRecord, SqlError> {
        let pk = row.text(0)?.and_then(|text| self.primary_key_type.parse(text).ok().flatten());
        let pk = pk.ok_or(SqlError::unreadable("the primary key of the user"))?;
        let username = row.text(1)?.unwrap_or_default();
        let mut password = row.text(2)?.map(str::to_owned);
        if password.is_none() && !self.statements.set_password.is_empty() {
            // None is a password like any other to whoever makes a hash of it in Django, and it ends
            // the sessions that were begun with one.
            password = Some("None".to_owned());
        }
        let mut record = UserRecord::new(pk, username, password);
        let truth = |index| Ok::<_, SqlError>(row.text(index)? == Some("t"));
        (record.is_active, record.is_staff, record.is_superuser) =
            (truth(3)?, truth(4)?, truth(5)?);
        Ok(record)
    }
}

impl fmt::Debug for SqlUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlUsers").field("dialect", &self.pool.dialect()).finish_non_exhaustive()
    }
}

#[async_trait]
impl UserStore for SqlUsers {
    async fn get(&self, pk: &PrimaryKey) -> Result<Option<UserRecord>, StoreError> {
        if self.pool.cannot_have(pk.as_str()) {
            return Ok(None);
        }
        let bound = self.bound(pk);
        let found = run!(self, get[&*bound] fetch_optional, |row| match row {
            Some(row) => self.read(&row).map(Some),
            None => Ok(None),
        });
        found.or_else(|error| no_such_key(error, pk.as_str()))
    }

    async fn get_by_natural_key(&self, username: &str) -> Result<Option<UserRecord>, StoreError> {
        if self.pool.cannot_have(username) {
            return Ok(None);
        }
        let found = run!(self, get_by_natural_key[username] fetch_optional, |row| match row {
            Some(row) => self.read(&row).map(Some),
            None => Ok(None),
        });
        found.or_else(|error| no_such_key(error, username))
    }

    async fn permissions(&self, pk: &PrimaryKey) -> Result<BTreeSet<String>, StoreError> {
        if self.statements.permissions.is_empty() {
            return Ok(BTreeSet::new());
        }
        let bound = self.bound(pk);
        let found = run!(self, permissions[&*bound, &*bound] fetch_all, |rows| {
            rows.iter().map(permission).collect::<Result<BTreeSet<_>, _>>()
        });
        Ok(found?)
    }

    async fn set_last_login(&self, pk: &PrimaryKey, now: DateTime) -> Result<(), StoreError> {
        if self.statements.set_last_login.is_empty() {
            return Ok(());
        }
        let now = self.pool.dialect().encode_time(&self.zone, now);
        let now = now.map_err(StoreError::ExpireDate)?;
        let bound = self.bound(pk);
        run!(self, set_last_login[&*now, &*bound] execute)?;
        Ok(())
    }

    async fn set_password(
        &self,
        pk: &PrimaryKey,
        before: &str,
        password: &str,
    ) -> Result<bool, StoreError> {
        if self.statements.set_password.is_empty() {
            return Ok(false);
        }
        let bound = self.bound(pk);
        let Outcome { rows, repeated } =
            run!(self, set_password[password, &*bound, before] execute)?;
        // One whose answer was lost may have been carried out, and is asked for.
        Ok(rows > 0
            || repeated
                && self.get(pk).await?.is_some_and(|it| it.password.as_deref() == Some(password)))
    }
}

/// The statements for a user model; an empty one for what the model does not have.
struct Statements {
    get: Arc<str>,
    get_by_natural_key: Arc<str>,
    permissions: Arc<str>,
    set_last_login: Arc<str>,
    set_password: Arc<str>,
}

impl Statements {
    fn new(dialect: Dialect, model: &UserModel) -> Self {
        let quoted = |name: &str| dialect.quoted(name);
        let [first, second, third, ..] = dialect.parameters();
        let text = |column: &str| match dialect {
            Dialect::MySql => format!("CAST({column} AS CHAR)"),
            Dialect::Postgres | Dialect::Sqlite => format!("CAST({column} AS text)"),
        };
        let truth = |column: &Option<String>, without: &str| match column {
            Some(column) => format!("CASE WHEN {} THEN 't' ELSE 'f' END", quoted(column)),
            None => format!("'{without}'"),
        };
        let key = |parameter: &str| match (model.primary_key_type, dialect) {
            (PrimaryKeyType::Integer { .. }, Dialect::MySql) => {
                format!("CAST({parameter} AS SIGNED)")
            }
            (PrimaryKeyType::Integer { .. }, Dialect::Postgres) => {
                format!("{parameter}::text::bigint")
            }
            (PrimaryKeyType::Integer { .. }, Dialect::Sqlite) => {
                format!("CAST({parameter} AS INTEGER)")
            }
            (PrimaryKeyType::Uuid, Dialect::Postgres) => format!("{parameter}::text::uuid"),
            (PrimaryKeyType::Text | PrimaryKeyType::Uuid, _) => parameter.to_owned(),
        };
        let table = quoted(&model.table);
        let (primary_key, username) = (quoted(&model.primary_key), quoted(&model.username));
        let columns = [
            text(&primary_key),
            text(&username),
            model.password.as_ref().map_or_else(|| text("NULL"), |column| text(&quoted(column))),
            truth(&model.is_active, "t"),
            truth(&model.is_staff, "f"),
            truth(&model.is_superuser, "f"),
        ]
        .join(", ");
        let set = |column: &Option<String>, value: &str, condition: &dyn Fn(&str) -> String| {
            let Some(column) = column else { return String::new() };
            let column = quoted(column);
            let condition = condition(&column);
            format!(
                "UPDATE {table} SET {column} = {value} WHERE {primary_key} = {}{condition}",
                key(second),
            )
        };
        let is_same = |column: &str| format!(" AND {}", dialect.is_same_text(column, third));
        let permissions = model.permissions.as_ref().map(|tables| {
            format!(
                "SELECT {}, {} FROM auth_permission permission \
                 JOIN django_content_type content_type ON content_type.id = permission.content_type_id \
                 WHERE permission.id IN (SELECT permission_id FROM {} WHERE {} = {}) \
                 OR permission.id IN (SELECT granted.permission_id FROM auth_group_permissions granted \
                 JOIN {} member ON member.group_id = granted.group_id WHERE member.{} = {})",
                text("content_type.app_label"),
                text("permission.codename"),
                quoted(&tables.user_permissions),
                quoted(&tables.user_permissions_user),
                key(first),
                quoted(&tables.user_groups),
                quoted(&tables.user_groups_user),
                key(second),
            )
        });
        Self {
            get: format!("SELECT {columns} FROM {table} WHERE {primary_key} = {}", key(first))
                .into(),
            get_by_natural_key: format!("SELECT {columns} FROM {table} WHERE {username} = {first}")
                .into(),
            permissions: permissions.unwrap_or_default().into(),
            set_last_login: set(&model.last_login, &dialect.time(first), &|_| String::new()).into(),
            set_password: set(&model.password, first, &is_same).into(),
        }
    }
}

/// A row of texts.
trait TextRow {
    /// Some servers give text columns out as bytes; the type that is declared says little.
    fn text(&self, index: usize) -> Result<Option<&str>, SqlError>;
}

macro_rules! text_row {
    ($feature:literal, $row:ty) => {
        #[cfg(feature = $feature)]
        impl TextRow for $row {
            fn text(&self, index: usize) -> Result<Option<&str>, SqlError> {
                Ok(self.try_get_unchecked(index)?)
            }
        }
    };
}

text_row!("mysql", sqlx::mysql::MySqlRow);
text_row!("postgres", sqlx::postgres::PgRow);
text_row!("sqlite", sqlx::sqlite::SqliteRow);

/// `app_label.codename` of a row.
fn permission<R: TextRow>(row: &R) -> Result<String, SqlError> {
    let (app_label, codename) = (row.text(0)?, row.text(1)?);
    Ok(format!("{}.{}", app_label.unwrap_or_default(), codename.unwrap_or_default()))
}

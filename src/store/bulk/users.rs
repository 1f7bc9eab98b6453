//! The passwords of many users at a time: what the session auth hash is made of.

use std::collections::HashMap;

use sqlx::{Database, QueryBuilder, Row as _};

use super::sql::failed;
use crate::auth::{PrimaryKey, PrimaryKeyType, UserModel};
use crate::session::StoreError;
use crate::store::connect::ConnectError;
use crate::store::sql::{Dialect, SqlPool};
use crate::store::url::StoreUrl;

/// The table of users.
pub(crate) struct BulkUsers {
    pool: SqlPool,
    primary_key_type: PrimaryKeyType,
    /// Up to the list of primary keys; none if users have no passwords here.
    select: Option<String>,
}

impl BulkUsers {
    /// Connects to the database that has the users.
    pub(crate) async fn connect(url: &StoreUrl, model: &UserModel) -> Result<Self, ConnectError> {
        let (pool, _) = SqlPool::connect_to(url).await?;
        let dialect = pool.dialect();
        let select = model.password.as_ref().map(|password| {
            let (table, pk) = (dialect.quoted(&model.table), dialect.quoted(&model.primary_key));
            let password = dialect.quoted(password);
            let text = match dialect {
                Dialect::MySql => "CHAR",
                Dialect::Postgres | Dialect::Sqlite => "text",
            };
            format!(
                "SELECT CAST({pk} AS {text}), CAST({password} AS {text}) FROM {table} WHERE {pk} IN ("
            )
        });
        Ok(Self { pool, primary_key_type: model.primary_key_type, select })
    }

    /// The password fields of those users that there are.
    pub(crate) async fn passwords(
        &self,
        users: &[PrimaryKey],
    ) -> Result<HashMap<PrimaryKey, String>, StoreError> {
        let Some(select) = self.select.as_ref().filter(|_| !users.is_empty()) else {
            return Ok(HashMap::new());
        };
        let dialect = self.pool.dialect();
        let cast = match (self.primary_key_type, dialect) {
            (PrimaryKeyType::Integer { .. }, Dialect::MySql) => ("CAST(", " AS SIGNED)"),
            (PrimaryKeyType::Integer { .. }, Dialect::Postgres) => ("", "::text::bigint"),
            (PrimaryKeyType::Integer { .. }, Dialect::Sqlite) => ("CAST(", " AS INTEGER)"),
            (PrimaryKeyType::Uuid, Dialect::Postgres) => ("", "::text::uuid"),
            (PrimaryKeyType::Text | PrimaryKeyType::Uuid, _) => ("", ""),
        };
        let bound = users.iter().map(|user| match (self.primary_key_type, dialect) {
            (PrimaryKeyType::Uuid, Dialect::MySql | Dialect::Sqlite) => {
                user.as_str().replace('-', "")
            }
            _ => user.as_str().to_owned(),
        });
        macro_rules! rows {
            ($database:ty, $pool:ident) => {{
                let mut query = statement::<$database, _>(select, cast, bound);
                let rows = query.build().fetch_all($pool).await.map_err(failed)?;
                let read = |row: &<$database as Database>::Row| {
                    let user: Option<&str> = row.try_get_unchecked(0).map_err(failed)?;
                    let password: Option<&str> = row.try_get_unchecked(1).map_err(failed)?;
                    let user = user.and_then(|it| self.primary_key_type.parse(it).ok().flatten());
                    Ok(user.zip(password.map(str::to_owned)))
                };
                rows.iter().filter_map(|row| read(row).transpose()).collect()
            }};
        }
        match &self.pool {
            SqlPool::MySql(pool) => rows!(sqlx::MySql, pool),
            SqlPool::Postgres(pool) => rows!(sqlx::Postgres, pool),
            SqlPool::Sqlite(pool) => rows!(sqlx::Sqlite, pool),
        }
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

fn statement<DB, I>(select: &str, (before, after): (&str, &str), users: I) -> QueryBuilder<DB>
where
    DB: Database,
    I: Iterator<Item = String>,
    String: sqlx::Encode<'static, DB> + sqlx::Type<DB>,
{
    let mut query = QueryBuilder::new(select);
    let mut list = query.separated(", ");
    for user in users {
        list.push(before).push_bind_unseparated(user).push_unseparated(after);
    }
    query.push(")");
    query
}

//! PostgreSQL, from its catalogue and its statistics.

use super::Asked;
use super::database::{
    Cells, Column, Connections, DatabaseFacts, Kind, ReplicaFacts, TableFacts, literal, row, rows,
};
use crate::session::StoreError;
use crate::store::sql::{Dialect, SqlPool};
use crate::store::url::StoreUrl;

const PORT: u16 = 5432;

pub(super) async fn inspect(
    pool: &SqlPool,
    table: &str,
    url: &StoreUrl,
    wanted: i64,
) -> Result<DatabaseFacts, StoreError> {
    let asked = Asked::now();
    let time = rows(pool, "SELECT extract(epoch from clock_timestamp())::text").await?;
    let clock = time.first().and_then(|row| row.millis(0)).map(|server| asked.answered(server));
    let server = row(
        pool,
        "SELECT current_setting('max_connections'), \
         current_setting('superuser_reserved_connections'), current_setting('autovacuum'), \
         pg_is_in_recovery()::text, current_setting('default_transaction_read_only'), \
         inet_server_port()::text",
    )
    .await;
    let clients = row(
        pool,
        "SELECT count(*)::text, \
         floor(extract(epoch from max(now() - xact_start) FILTER (WHERE pid <> pg_backend_pid())))::text \
         FROM pg_stat_activity WHERE backend_type = 'client backend'",
    )
    .await;
    let connections = || {
        let reserved: i64 = server.number(1)?;
        let max: i64 = server.number(0)?;
        // The one that asks is not one of the site's.
        let used: i64 = clients.number::<i64>(0)? - 1;
        Some(Connections { allowed: max - reserved, used, wanted })
    };
    Ok(DatabaseFacts {
        kind: Kind::Postgres,
        clock,
        table: inspect_table(pool, table).await?,
        read_only: server.truth(3).zip(server.truth(4)).map(|(follows, set)| follows || set),
        connections: connections(),
        pooled: server.number::<u16>(5).zip(port(url)).map(|(is, asked)| is != asked),
        autovacuum: server.truth(2),
        longest_transaction: clients.number(1),
        ..DatabaseFacts::default()
    })
}

async fn inspect_table(pool: &SqlPool, table: &str) -> Result<Option<TableFacts>, StoreError> {
    let table = format!("to_regclass({})", literal(&Dialect::Postgres.quoted(table)));
    let columns = rows(
        pool,
        &format!(
            "SELECT a.attname::text, format_type(a.atttypid, NULL), \
             CASE WHEN a.atttypmod > 4 AND a.atttypid IN (1042, 1043) THEN (a.atttypmod - 4)::text END, \
             (NOT a.attnotnull)::text, c.collname::text \
             FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation \
             WHERE a.attrelid = {table} AND a.attnum > 0 AND NOT a.attisdropped"
        ),
    )
    .await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let indexes = rows(
        pool,
        &format!(
            "SELECT a.attname::text, (i.indisunique AND i.indnatts = 1)::text FROM pg_index i \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = {table} AND i.indisvalid AND i.indpred IS NULL"
        ),
    )
    .await?;
    let class = row(
        pool,
        &format!(
            "SELECT CASE WHEN relfrozenxid <> '0' THEN age(relfrozenxid) END::text, \
             (coalesce(reloptions::text, '') !~ 'autovacuum_enabled=(off|false|no|0)')::text \
             FROM pg_class WHERE oid = {table}"
        ),
    )
    .await;
    let counts = row(
        pool,
        &format!(
            "SELECT n_live_tup::text, n_dead_tup::text FROM pg_stat_user_tables WHERE relid = {table}"
        ),
    )
    .await;
    let unique = indexes.iter().filter(|index| index.truth(1) == Some(true));
    Ok(Some(TableFacts {
        columns: columns.iter().map(column).collect(),
        primary_key: unique.filter_map(|index| index.text(0)).collect(),
        indexed: indexes.iter().filter_map(|index| index.text(0)).collect(),
        engine: None,
        live_rows: counts.number(0),
        dead_rows: counts.number(1),
        autovacuum: class.truth(1),
        frozen_age: class.number(0),
    }))
}

fn column(row: &Cells) -> Column {
    Column {
        name: row.text(0).unwrap_or_default(),
        data_type: row.text(1).unwrap_or_default(),
        length: row.number(2),
        nullable: row.truth(3).unwrap_or_default(),
        collation: row.text(4),
        charset: None,
    }
}

/// How far a replica is behind.
pub(super) async fn inspect_replica(
    primary: &SqlPool,
    replica: &SqlPool,
    settle: f64,
) -> Result<ReplicaFacts, StoreError> {
    let follows = rows(replica, "SELECT pg_is_in_recovery()::text").await?;
    let follows = follows.first().and_then(|row| row.truth(0));
    if follows != Some(true) {
        return Ok(ReplicaFacts { follows, settle, ..ReplicaFacts::default() });
    }
    let position = row(primary, "SELECT pg_current_wal_lsn()::text").await.text(0);
    let behind = match position {
        None => Cells::default(),
        Some(position) => {
            let sql = format!(
                "SELECT greatest(0, pg_wal_lsn_diff({}, pg_last_wal_replay_lsn()))::bigint::text, \
                 extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::text",
                literal(&position)
            );
            row(replica, &sql).await
        }
    };
    Ok(ReplicaFacts {
        follows,
        bytes_behind: behind.number(0),
        seconds_behind: behind.number(1),
        settle,
    })
}

/// The port that an address names; none for a socket.
fn port(url: &StoreUrl) -> Option<u16> {
    if let Some(port) = url.text("port") {
        return port.parse().ok();
    }
    let (_, rest) = url.address().split_once("://")?;
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((_, port)) if !host.ends_with(']') => port.parse().ok(),
        _ => Some(PORT),
    }
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn the_port_of_an_address_is_found() {
        for (url, expected) in [
            ("postgres://u:p@h:5433/n", Some(5433)),
            ("postgres://h/n", Some(5432)),
            ("postgres://[::1]/n", Some(5432)),
            ("postgres://[::1]:6432/n", Some(6432)),
            ("postgres://h:1/n?port=2", Some(2)),
        ] {
            assert_eq!(port(&url.parse().unwrap()), expected, "{url}");
        }
    }
}

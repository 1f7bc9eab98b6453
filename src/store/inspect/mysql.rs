//! MySQL and MariaDB, from `information_schema`.

use super::Asked;
use super::database::{
    Cells, Column, Connections, DatabaseFacts, Kind, TableFacts, literal, row, rows,
};
use crate::session::StoreError;
use crate::store::sql::SqlPool;

pub(super) async fn inspect(
    pool: &SqlPool,
    table: &str,
    wanted: i64,
) -> Result<DatabaseFacts, StoreError> {
    let asked = Asked::now();
    let time = rows(pool, "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) AS CHAR)").await?;
    let clock = time.first().and_then(|row| row.millis(0)).map(|server| asked.answered(server));
    // That of the connection is the driver's.
    let server = row(
        pool,
        "SELECT CAST(@@global.max_connections AS CHAR), CAST(@@global.read_only AS CHAR), \
         CAST(@@global.sql_mode AS CHAR)",
    )
    .await;
    let used = row(pool, "SHOW GLOBAL STATUS LIKE 'Threads_connected'").await;
    let longest = row(
        pool,
        // What a transaction has begun at is by the server's own clock on the wall.
        "SELECT CAST(MAX(TIMESTAMPDIFF(SECOND, trx_started, \
         CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM'))) AS CHAR) \
         FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> CONNECTION_ID()",
    )
    .await;
    let connections = server.number(0).zip(used.number::<i64>(1));
    Ok(DatabaseFacts {
        kind: Kind::MySql,
        clock,
        table: inspect_table(pool, table).await?,
        read_only: server.truth(1),
        connections: connections.map(|(allowed, used)| Connections {
            allowed,
            used: used - 1,
            wanted,
        }),
        longest_transaction: longest.number(0),
        strict: server
            .text(2)
            .map(|mode| mode.contains("STRICT_TRANS_TABLES") || mode.contains("STRICT_ALL_TABLES")),
        ..DatabaseFacts::default()
    })
}

async fn inspect_table(pool: &SqlPool, table: &str) -> Result<Option<TableFacts>, StoreError> {
    let here = format!("table_schema = DATABASE() AND table_name = {}", literal(table));
    let columns = rows(
        pool,
        &format!(
            "SELECT CAST(column_name AS CHAR), CAST(data_type AS CHAR), \
             CAST(character_maximum_length AS CHAR), CAST(is_nullable AS CHAR), \
             CAST(collation_name AS CHAR), CAST(character_set_name AS CHAR) \
             FROM information_schema.columns WHERE {here}"
        ),
    )
    .await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let indexes = rows(
        pool,
        &format!(
            "SELECT CAST(column_name AS CHAR), CAST(index_name AS CHAR) \
             FROM information_schema.statistics WHERE {here} AND seq_in_index = 1"
        ),
    )
    .await?;
    let status = row(
        pool,
        &format!(
            "SELECT CAST(engine AS CHAR), CAST(table_rows AS CHAR) \
             FROM information_schema.tables WHERE {here}"
        ),
    )
    .await;
    let primary = indexes.iter().filter(|index| index.text(1).as_deref() == Some("PRIMARY"));
    Ok(Some(TableFacts {
        columns: columns.iter().map(column).collect(),
        primary_key: primary.filter_map(|index| index.text(0)).collect(),
        indexed: indexes.iter().filter_map(|index| index.text(0)).collect(),
        engine: status.text(0),
        live_rows: status.number(1),
        ..TableFacts::default()
    }))
}

fn column(row: &Cells) -> Column {
    Column {
        name: row.text(0).unwrap_or_default(),
        data_type: row.text(1).unwrap_or_default().to_ascii_lowercase(),
        length: row.number(2),
        nullable: row.truth(3).unwrap_or_default(),
        collation: row.text(4),
        charset: row.text(5),
    }
}

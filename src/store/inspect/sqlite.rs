//! SQLite, from its pragmas and from the file system.

use std::path::Path;

use super::database::{Cells, Column, DatabaseFacts, Kind, TableFacts, literal, row, rows};
use super::directory::PathFacts;
use crate::session::StoreError;
use crate::store::sql::SqlPool;

pub(super) async fn inspect(pool: &SqlPool, table: &str) -> Result<DatabaseFacts, StoreError> {
    let file = row(pool, "SELECT file FROM pragma_database_list WHERE name = 'main'").await;
    let file = file.text(0).filter(|file| !file.is_empty());
    let file = file.map(|file| PathFacts::of(Path::new(&file)));
    Ok(DatabaseFacts {
        kind: Kind::Sqlite,
        table: inspect_table(pool, table).await?,
        read_only: file.as_ref().map(|file| !file.is_writable),
        journal_mode: row(pool, "PRAGMA journal_mode").await.text(0),
        file,
        ..DatabaseFacts::default()
    })
}

async fn inspect_table(pool: &SqlPool, table: &str) -> Result<Option<TableFacts>, StoreError> {
    let table = literal(table);
    let sql = format!(
        "SELECT name, type, CAST(\"notnull\" AS TEXT), CAST(pk AS TEXT) FROM pragma_table_info({table})"
    );
    let columns = rows(pool, &sql).await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let sql = format!(
        "SELECT i.name FROM pragma_index_list({table}) AS l, pragma_index_info(l.name) AS i \
         WHERE i.seqno = 0 AND l.partial = 0"
    );
    let indexes = rows(pool, &sql).await?;
    let key = columns.iter().filter(|column| column.number::<i64>(3).is_some_and(|pk| pk > 0));
    Ok(Some(TableFacts {
        columns: columns.iter().map(column).collect(),
        primary_key: key.filter_map(|column| column.text(0)).collect(),
        indexed: indexes.iter().filter_map(|index| index.text(0)).collect(),
        ..TableFacts::default()
    }))
}

fn column(row: &Cells) -> Column {
    let declared = row.text(1).unwrap_or_default().to_ascii_lowercase();
    let (data_type, length) = declared.split_once('(').unwrap_or((&declared, ""));
    Column {
        name: row.text(0).unwrap_or_default(),
        data_type: data_type.trim().to_owned(),
        length: length.trim_end_matches(')').parse().ok(),
        nullable: row.truth(2) == Some(false),
        collation: None,
        charset: None,
    }
}

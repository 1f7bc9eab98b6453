//! What is wrong with a database and with the table of the sessions.

use super::catalogue as kinds;
use super::finding::Finding;
use crate::cli::output::{duration, grouped};
use crate::store::inspect::{Column, Connections, DatabaseFacts, Kind, ReplicaFacts, TableFacts};

/// What Django's own keys have, and what its column has.
const KEY_LENGTH: u64 = 32;
const COLUMN_LENGTH: u64 = 40;
/// What `longtext` holds; `text` ends at 65,535 bytes.
const LONG_TEXT: u64 = 1 << 24;
/// Fewer dead rows than that hurt nobody.
const DEAD_ROWS: i64 = 1000;
const OLD_TRANSACTION: i64 = 3600;
/// Autovacuum begins at 200 million; the server ends at 2.1 thousand million.
const FROZEN_WARNING: i64 = 1_000_000_000;
const FROZEN_ERROR: i64 = 1_600_000_000;
/// So much lies between a primary and its replica when nothing is wrong.
const BYTES_BEHIND: i64 = 16 << 20;

/// `use_tz` is that of the site; `plain` whether the table is that of `django_session`, not of a cache.
pub(super) fn check(facts: &DatabaseFacts, use_tz: bool, plain: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    match &facts.table {
        None => found.push(kinds::TABLE_MISSING.error("there is no such table")),
        Some(table) if plain => found.extend(check_table(facts.kind, table, use_tz)),
        Some(_) => {}
    }
    if facts.read_only == Some(true) {
        found.push(kinds::READ_ONLY.error("it takes no writes"));
    }
    if facts.strict == Some(false) {
        let seen = "sql_mode of the server has no STRICT_TRANS_TABLES";
        found.push(kinds::NOT_STRICT.warning(seen));
    }
    found.extend(facts.connections.and_then(check_connections));
    if facts.pooled == Some(true) && facts.prepares {
        let seen = "the port that answers is not the one in the address; statements are prepared";
        found.push(kinds::POOLED.note(seen));
    }
    let table_off = facts.table.as_ref().and_then(|table| table.autovacuum) == Some(false);
    if facts.autovacuum == Some(false) || table_off {
        let whose = if table_off { "the table" } else { "the server" };
        found.push(kinds::AUTOVACUUM_OFF.warning(format!("autovacuum is off for {whose}")));
    }
    if let Some(age) = facts.longest_transaction.filter(|age| *age > OLD_TRANSACTION) {
        let seen = format!("a transaction has been open for {}", duration(age));
        found.push(kinds::LONG_TRANSACTION.warning(seen));
    }
    found.extend(facts.replica.and_then(check_replica));
    found.extend(check_sqlite(facts));
    found
}

fn check_table(kind: Kind, table: &TableFacts, use_tz: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let column = |name: &str| table.columns.iter().find(|column| column.name == name);
    for name in ["session_key", "session_data", "expire_date"] {
        match column(name) {
            None => found.push(kinds::COLUMN_MISSING.error(format!("there is no column {name}"))),
            Some(column) => found.extend(check_column(kind, column, use_tz)),
        }
    }
    let has = |columns: &[String], name: &str| columns.iter().any(|column| column == name);
    if column("session_key").is_some() && table.primary_key != ["session_key"] {
        let is_unique = kind == Kind::Postgres && has(&table.primary_key, "session_key");
        if !is_unique {
            let seen = "no primary key or unique index is on session_key alone";
            found.push(kinds::PRIMARY_KEY_MISSING.error(seen));
        }
    }
    if column("expire_date").is_some() && !has(&table.indexed, "expire_date") {
        found.push(kinds::EXPIRY_INDEX_MISSING.warning("no index begins with expire_date"));
    }
    if let Some(engine) = table.engine.as_deref().filter(|engine| *engine != "InnoDB") {
        found.push(kinds::TABLE_ENGINE.warning(format!("the engine of the table is {engine}")));
    }
    if let Some((live, dead)) = table.live_rows.zip(table.dead_rows)
        && dead >= DEAD_ROWS
        && dead > live / 2
    {
        let number = |count: i64| grouped(usize::try_from(count).unwrap_or_default());
        let seen = format!("{} dead rows beside {} live ones", number(dead), number(live));
        found.push(kinds::DEAD_ROWS.warning(seen));
    }
    if let Some(age) = table.frozen_age.filter(|age| *age > FROZEN_WARNING) {
        let seen = format!("the oldest row is {} million transactions old", age / 1_000_000);
        let kind = kinds::FROZEN_AGE;
        found.push(if age > FROZEN_ERROR { kind.error(seen) } else { kind.warning(seen) });
    }
    found
}

fn check_column(kind: Kind, column: &Column, use_tz: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let data_type = &*column.data_type;
    let name = &*column.name;
    match name {
        "session_key" => {
            let is_text = ["char", "text"].iter().any(|kind| data_type.contains(kind));
            if !is_text {
                found.push(kinds::COLUMN_TYPE.error(format!("{name} is {data_type}")));
            }
            // SQLite keeps whatever is longer.
            if let Some(length) = column.length.filter(|_| kind != Kind::Sqlite) {
                let seen = format!("{name} has room for {length} characters");
                if length < KEY_LENGTH {
                    found.push(kinds::COLUMN_TYPE.error(seen));
                } else if length < COLUMN_LENGTH {
                    found.push(kinds::COLUMN_TYPE.warning(seen));
                }
            }
            found.extend(check_collation(kind, column));
        }
        "session_data" => {
            let is_limited = column.length.is_some_and(|length| length < LONG_TEXT)
                && (kind == Kind::MySql || data_type.contains("char"))
                && kind != Kind::Sqlite;
            if is_limited {
                let length = column.length.unwrap_or_default();
                let seen = format!("{name} is {data_type}, with room for {length} characters");
                found.push(kinds::COLUMN_TYPE.error(seen));
            } else if !["char", "clob", "text"].iter().any(|kind| data_type.contains(kind)) {
                found.push(kinds::COLUMN_TYPE.error(format!("{name} is {data_type}")));
            }
        }
        _ => {
            let expected = match kind {
                Kind::MySql => data_type == "datetime",
                // Without USE_TZ older versions of Django had the other one.
                Kind::Postgres => data_type == "timestamp with time zone",
                Kind::Sqlite => matches!(data_type, "datetime" | "timestamp" | "text"),
            };
            let is_local = data_type == "timestamp without time zone" && !use_tz;
            if is_local {
                found.push(kinds::COLUMN_TYPE.note(format!("{name} is {data_type}")));
            } else if !expected {
                let seen = format!("{name} is {data_type}");
                let is_time = data_type.contains("time");
                let kind = kinds::COLUMN_TYPE;
                found.push(if is_time { kind.warning(seen) } else { kind.error(seen) });
            }
        }
    }
    if column.nullable && !(kind == Kind::Sqlite && name == "session_key") {
        found.push(kinds::COLUMN_TYPE.warning(format!("{name} may be NULL")));
    }
    found
}

fn check_collation(kind: Kind, column: &Column) -> Vec<Finding> {
    let mut found = Vec::new();
    if kind != Kind::MySql {
        return found;
    }
    if let Some(collation) = column.collation.as_deref().filter(|name| name.ends_with("_ci")) {
        found.push(kinds::COLLATION.note(format!("the collation of session_key is {collation}")));
    }
    if let Some(charset) = column.charset.as_deref().filter(|name| *name != "utf8mb4") {
        found.push(kinds::CHARSET.note(format!("the character set of session_key is {charset}")));
    }
    found
}

fn check_connections(connections: Connections) -> Option<Finding> {
    let Connections { allowed, used, wanted } = connections;
    let seen = format!(
        "the pool may have {wanted} connections; the server has {allowed}, {used} of which are taken"
    );
    if wanted > allowed {
        return Some(kinds::CONNECTIONS.error(seen));
    }
    (wanted > allowed - used).then(|| kinds::CONNECTIONS.warning(seen))
}

fn check_replica(replica: ReplicaFacts) -> Option<Finding> {
    if replica.follows == Some(false) {
        let seen = "the server at replica_url is not in recovery";
        return Some(kinds::REPLICA_NONE.warning(seen));
    }
    // One that has all is not late, however long ago the last transaction was.
    let bytes = replica.bytes_behind.filter(|&bytes| bytes > 0)?;
    let seconds = replica.seconds_behind.unwrap_or_default();
    if seconds <= replica.settle && bytes <= BYTES_BEHIND {
        return None;
    }
    let seen = format!(
        "the replica is {} bytes behind, its last transaction is {seconds:.1} seconds old; \
         replica_settle is {}",
        grouped(usize::try_from(bytes).unwrap_or_default()),
        replica.settle,
    );
    Some(kinds::REPLICA_LAG.warning(seen))
}

fn check_sqlite(facts: &DatabaseFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    if facts.kind != Kind::Sqlite {
        return found;
    }
    let mode = facts.journal_mode.as_deref();
    if let Some(mode) = mode.filter(|mode| !matches!(*mode, "wal" | "memory")) {
        found.push(kinds::JOURNAL_MODE.warning(format!("journal_mode is {mode}")));
    }
    let Some(file) = &facts.file else { return found };
    if file.others_read || file.others_write {
        let what = if file.others_write { "write" } else { "read" };
        let seen = format!("others than the owner may {what} the file of the database");
        found.push(kinds::SQLITE_READABLE.warning(seen));
    }
    if let Some(network) = file.network {
        found.push(kinds::SQLITE_NETWORK.error(format!("the file is on {network}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: &str, length: Option<u64>) -> Column {
        Column {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
            length,
            ..Column::default()
        }
    }

    fn postgres() -> DatabaseFacts {
        let time = "timestamp with time zone";
        DatabaseFacts {
            kind: Kind::Postgres,
            table: Some(TableFacts {
                columns: vec![
                    column("session_key", "character varying", Some(40)),
                    column("session_data", "text", None),
                    column("expire_date", time, None),
                ],
                primary_key: vec!["session_key".to_owned()],
                indexed: vec!["session_key".to_owned(), "expire_date".to_owned()],
                ..TableFacts::default()
            }),
            ..DatabaseFacts::default()
        }
    }

    fn ids(facts: &DatabaseFacts) -> Vec<(&'static str, &'static str)> {
        let found = check(facts, true, true);
        found.iter().map(|found| (found.kind.id, found.severity.name())).collect()
    }

    #[test]
    fn what_cannot_be_made_in_a_test_is_judged_too() {
        assert_eq!(ids(&postgres()), []);
        let change = |change: fn(&mut DatabaseFacts, &mut TableFacts)| {
            let mut facts = postgres();
            let mut table = facts.table.take().unwrap();
            change(&mut facts, &mut table);
            facts.table = Some(table);
            ids(&facts)
        };
        assert_eq!(
            change(|_, table| table.frozen_age = Some(1_200_000_000)),
            [("transaction-wraparound", "warning")]
        );
        assert_eq!(
            change(|_, table| table.frozen_age = Some(1_900_000_000)),
            [("transaction-wraparound", "error")]
        );
        assert_eq!(
            change(|facts, _| facts.longest_transaction = Some(7200)),
            [("long-transaction", "warning")]
        );
        assert_eq!(change(|facts, _| facts.longest_transaction = Some(60)), []);
        assert_eq!(
            change(|_, table| (table.live_rows, table.dead_rows) = (Some(10_000), Some(2_000))),
            []
        );
        assert_eq!(
            change(|facts, _| facts.autovacuum = Some(false)),
            [("autovacuum-off", "warning")]
        );
        assert_eq!(
            change(|facts, _| {
                facts.connections = Some(Connections { allowed: 97, used: 90, wanted: 10 });
            }),
            [("connections-scarce", "warning")]
        );
        let sqlite = DatabaseFacts {
            kind: Kind::Sqlite,
            table: Some(TableFacts {
                columns: vec![
                    column("session_key", "varchar", Some(40)),
                    column("session_data", "text", None),
                    column("expire_date", "datetime", None),
                ],
                ..postgres().table.unwrap()
            }),
            journal_mode: Some("wal".to_owned()),
            file: Some(crate::store::inspect::PathFacts {
                network: Some("NFS"),
                ..Default::default()
            }),
            ..DatabaseFacts::default()
        };
        assert_eq!(ids(&sqlite), [("sqlite-on-network", "error")]);
    }

    #[test]
    fn a_replica_that_has_all_is_not_late() {
        let replica = |bytes, seconds| {
            check_replica(ReplicaFacts {
                follows: Some(true),
                bytes_behind: Some(bytes),
                seconds_behind: Some(seconds),
                settle: 1.0,
            })
        };
        assert!(replica(0, 3600.0).is_none());
        assert!(replica(100, 0.5).is_none());
        assert_eq!(replica(100, 5.0).unwrap().kind.id, "replica-lag");
        assert_eq!(replica(1 << 30, 0.5).unwrap().kind.id, "replica-lag");
    }

    #[test]
    fn a_text_of_mysql_ends_early() {
        let short = column("session_data", "text", Some(65_535));
        assert_eq!(check_column(Kind::MySql, &short, true)[0].kind.id, "column-type");
        let long = column("session_data", "longtext", Some(4_294_967_295));
        assert!(check_column(Kind::MySql, &long, true).is_empty());
    }
}

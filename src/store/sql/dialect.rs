//! The few differences between SQLite, PostgreSQL and MySQL: how names are quoted, how statements are
//! written, and what the column `expire_date` holds.
//!
//! Times travel as text and are compared by the database. What is written is what
//! `DatabaseOperations.adapt_datetimefield_value` of Django's three backends writes; the fixture
//! `db_rows` has it literally. Conversions are pure functions of the time, `USE_TZ` and `TIME_ZONE`.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

use crate::session::{DateTime, ExpiryError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "a build for one database has no use for the others")
)]
pub(in crate::store) enum Dialect {
    MySql,
    Postgres,
    Sqlite,
}

/// `USE_TZ` and `TIME_ZONE`.
#[derive(Clone, Debug)]
pub(in crate::store) struct Zone {
    pub(in crate::store) use_tz: bool,
    pub(in crate::store) time_zone: TimeZone,
}

impl Dialect {
    /// The statements for a table, each with its parameters in the order of their numbers.
    pub(super) fn statements(self, table: &str) -> Statements {
        let table = self.quoted(table);
        let [first, second, third, fourth, fifth, _] = self.parameters();
        let time = |parameter: &str| self.time(parameter);
        let expire_date = self.read_time("expire_date");
        let is_data = |parameter: &str| self.is_same_text("session_data", parameter);
        // Not an error, so that a server's log does not fill with keys that were drawn twice.
        let or_nothing = match self {
            Self::MySql => "",
            Self::Postgres | Self::Sqlite => " ON CONFLICT (session_key) DO NOTHING",
        };
        let expired = format!("expire_date < {} ORDER BY expire_date LIMIT {second}", time(first));
        let clear_expired = match self {
            Self::MySql => format!("DELETE FROM {table} WHERE {expired}"),
            // Locked before they are counted: a session that is saved meanwhile is neither deleted
            // nor waited for, and two that clear at once share the work. An array is computed once; a
            // plain subquery may be run again for every row, with other results.
            Self::Postgres => format!(
                "DELETE FROM {table} WHERE session_key = ANY(ARRAY(SELECT session_key FROM {table} \
                 WHERE {expired} FOR UPDATE SKIP LOCKED))"
            ),
            Self::Sqlite => format!(
                "DELETE FROM {table} WHERE session_key IN \
                 (SELECT session_key FROM {table} WHERE {expired})"
            ),
        };
        Statements {
            exists: format!("SELECT 1 FROM {table} WHERE session_key = {first}").into(),
            holds: format!(
                "SELECT 1 FROM {table} WHERE session_key = {first} AND {}",
                is_data(second),
            )
            .into(),
            create: format!(
                "INSERT INTO {table} (session_key, session_data, expire_date) \
                 VALUES ({first}, {second}, {}){or_nothing}",
                time(third),
            )
            .into(),
            load: format!(
                "SELECT session_data, {expire_date} FROM {table} \
                 WHERE session_key = {first} AND expire_date > {}",
                time(second),
            )
            .into(),
            #[cfg(feature = "cache")]
            load_held: format!(
                "SELECT session_data, {expire_date}, session_key FROM {table} \
                 WHERE session_key = {first} AND expire_date > {}{}",
                time(second),
                // Whoever writes the row is not waited for. MySQL and MariaDB have no words for that which
                // the other one and older ones know. SQLite locks the whole database beforehand.
                match self {
                    Self::MySql => " LOCK IN SHARE MODE",
                    Self::Postgres => " FOR SHARE SKIP LOCKED",
                    Self::Sqlite => "",
                },
            )
            .into(),
            save: format!(
                "UPDATE {table} SET session_data = {first}, expire_date = {} \
                 WHERE session_key = {third}",
                time(second),
            )
            .into(),
            save_revision: format!(
                "UPDATE {table} SET session_data = {first}, expire_date = {} \
                 WHERE session_key = {third} AND {}",
                time(second),
                is_data(fourth),
            )
            .into(),
            cycle_key: format!(
                "UPDATE {table} SET session_key = {first}, session_data = {second}, expire_date = {} \
                 WHERE session_key = {fourth}",
                time(third),
            )
            .into(),
            cycle_key_revision: format!(
                "UPDATE {table} SET session_key = {first}, session_data = {second}, expire_date = {} \
                 WHERE session_key = {fourth} AND {}",
                time(third),
                is_data(fifth),
            )
            .into(),
            touch: format!(
                "UPDATE {table} SET expire_date = {} WHERE session_key = {second}",
                time(first),
            )
            .into(),
            delete: format!("DELETE FROM {table} WHERE session_key = {first}").into(),
            delete_revision: format!(
                "DELETE FROM {table} WHERE session_key = {first} AND {}",
                is_data(second),
            )
            .into(),
            clear_expired: clear_expired.into(),
        }
    }

    /// What stands for parameters, in the order of their numbers.
    pub(in crate::store) fn parameters(self) -> [&'static str; 6] {
        match self {
            Self::MySql => ["?"; 6],
            Self::Postgres => ["$1", "$2", "$3", "$4", "$5", "$6"],
            Self::Sqlite => ["?1", "?2", "?3", "?4", "?5", "?6"],
        }
    }

    /// A parameter that is a time. sqlx declares a bound text as such, so that only an explicit cast gives a
    /// time. MySQL would convert by itself, but not always before it chooses an index.
    pub(in crate::store) fn time(self, parameter: &str) -> String {
        match self {
            Self::MySql => format!("CAST({parameter} AS DATETIME(6))"),
            Self::Postgres => format!("{parameter}::text::timestamptz"),
            Self::Sqlite => parameter.to_owned(),
        }
    }

    /// A column with a time, as it is read.
    pub(in crate::store) fn read_time(self, column: &str) -> String {
        match self {
            Self::MySql => format!("CAST({column} AS CHAR)"),
            Self::Postgres => column.to_owned(),
            Self::Sqlite => format!("CAST({column} AS TEXT)"),
        }
    }

    /// Whether a column holds this text, byte by byte: to the collations of MySQL, and of columns that
    /// somebody changed, texts are equal that differ in case.
    pub(in crate::store) fn is_same_text(self, column: &str, parameter: &str) -> String {
        match self {
            Self::MySql => format!("CAST({column} AS BINARY) = CAST({parameter} AS BINARY)"),
            Self::Postgres => format!("{column} COLLATE \"C\" = {parameter}"),
            Self::Sqlite => format!("{column} COLLATE BINARY = {parameter}"),
        }
    }

    /// A name between quotes.
    pub(in crate::store) fn quoted(self, name: &str) -> String {
        let quote = if self == Self::MySql { "`" } else { "\"" };
        format!("{quote}{}{quote}", name.replace(quote, &quote.repeat(2)))
    }

    /// The text to bind for a time.
    pub(in crate::store) fn encode_time(
        self,
        zone: &Zone,
        time: DateTime,
    ) -> Result<String, ExpiryError> {
        let instant = match (self, zone.use_tz, time) {
            (_, true, _) => time.to_timestamp(&zone.time_zone),
            (Self::Postgres, false, DateTime::Aware(instant)) => Some(instant),
            (Self::Postgres, false, DateTime::Naive(civil)) => {
                postgres_instant(civil, &zone.time_zone)
            }
            (_, false, DateTime::Naive(civil)) => return text(civil),
            (_, false, DateTime::Aware(_)) => return Err(ExpiryError::MixedTimeZones),
        };
        let instant = instant.ok_or(ExpiryError::OutOfRange)?;
        let mut text = text(TimeZone::UTC.to_datetime(instant))?;
        if self == Self::Postgres {
            text.push_str("+00");
        }
        Ok(text)
    }
}

/// SQL, made once per store so that the driver finds it in its cache of prepared statements.
#[derive(Clone)]
pub(super) struct Statements {
    /// Key.
    pub(super) exists: Arc<str>,
    /// Key, data.
    pub(super) holds: Arc<str>,
    /// Key, data, expire date.
    pub(super) create: Arc<str>,
    /// Key, now.
    pub(super) load: Arc<str>,
    /// Key, now; nobody changes or deletes the row before the transaction ends.
    #[cfg(feature = "cache")]
    pub(super) load_held: Arc<str>,
    /// Data, expire date, key.
    pub(super) save: Arc<str>,
    /// Data, expire date, key, data that is to be replaced.
    pub(super) save_revision: Arc<str>,
    /// New key, data, expire date, key.
    pub(super) cycle_key: Arc<str>,
    /// New key, data, expire date, key, data that is to be replaced.
    pub(super) cycle_key_revision: Arc<str>,
    /// Expire date, key.
    pub(super) touch: Arc<str>,
    /// Key.
    pub(super) delete: Arc<str>,
    /// Key, data.
    pub(super) delete_revision: Arc<str>,
    /// Now, how many at most.
    pub(super) clear_expired: Arc<str>,
}

/// What the text of a column means: UTC, or with `USE_TZ=False` a clock on the wall.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
pub(in crate::store) fn decode_text(zone: &Zone, text: &str) -> Option<DateTime> {
    match DateTime::fromisoformat(text)? {
        DateTime::Naive(civil) if zone.use_tz => {
            DateTime::Naive(civil).to_timestamp(&TimeZone::UTC).map(DateTime::Aware)
        }
        time => Some(time),
    }
}

/// What a `timestamptz` means that counts microseconds since the year 2000. Those beyond the year
/// 9999, `infinity` among them, become the last instant before.
#[cfg(feature = "postgres")]
pub(in crate::store) fn decode_micros(zone: &Zone, micros: i64) -> DateTime {
    const YEAR_2000: i64 = 946_684_800_000_000;
    let instant = Timestamp::from_microsecond(micros.saturating_add(YEAR_2000))
        .unwrap_or(if micros < 0 { Timestamp::MIN } else { DateTime::MAX_INSTANT });
    if zone.use_tz {
        DateTime::Aware(instant)
    } else {
        DateTime::Naive(zone.time_zone.to_datetime(instant))
    }
}

/// The instant PostgreSQL takes a `timestamp` for in a session whose zone is `time_zone`, which is
/// what Django leaves to it with `USE_TZ=False`: of two instants that show the same time the later
/// (Python takes the earlier), and a time that the clock skips is moved forward.
fn postgres_instant(civil: civil::DateTime, time_zone: &TimeZone) -> Option<Timestamp> {
    let instant = time_zone.to_ambiguous_timestamp(civil).later().ok();
    // As what is read: west of Greenwich these are in the next year, which PostgreSQL does not mind.
    instant.or_else(|| (civil.year() == 9999).then_some(DateTime::MAX_INSTANT))
}

/// `str()` of Python's `datetime`: microseconds only if there are any, always six digits.
fn text(civil: civil::DateTime) -> Result<String, ExpiryError> {
    if civil.year() < 1 {
        return Err(ExpiryError::OutOfRange);
    }
    let mut text = String::with_capacity("2031-05-06 07:08:09.123456+00".len());
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second(),
    );
    let micros = civil.subsec_nanosecond() / 1000;
    if micros != 0 {
        let _ = write!(text, ".{micros:06}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dialect; 3] = [Dialect::MySql, Dialect::Postgres, Dialect::Sqlite];

    fn new_york(use_tz: bool) -> Zone {
        Zone { use_tz, time_zone: TimeZone::get("America/New_York").unwrap() }
    }

    fn aware(text: &str) -> DateTime {
        DateTime::Aware(text.parse().unwrap())
    }

    fn naive(text: &str) -> DateTime {
        DateTime::Naive(text.parse().unwrap())
    }

    #[test]
    fn an_instant_is_written_in_utc() {
        let time = aware("2023-11-28T17:13:20.12-05:00");
        for dialect in ALL {
            let offset = if dialect == Dialect::Postgres { "+00" } else { "" };
            let text = dialect.encode_time(&new_york(true), time).unwrap();
            assert_eq!(text, format!("2023-11-28 22:13:20.120000{offset}"));
        }
        let whole = Dialect::Sqlite.encode_time(&new_york(true), aware("0001-01-01T00:00:00Z"));
        assert_eq!(whole.unwrap(), "0001-01-01 00:00:00");
    }

    #[test]
    fn a_wall_clock_is_written_as_it_is() {
        for dialect in [Dialect::MySql, Dialect::Sqlite] {
            for shown in
                ["2023-11-05 01:30:00", "2023-03-12 02:30:00", "2023-01-01 00:00:00.000005"]
            {
                assert_eq!(dialect.encode_time(&new_york(false), naive(shown)).unwrap(), shown);
            }
            let mixed = dialect.encode_time(&new_york(false), aware("2023-01-01T00:00:00Z"));
            assert_eq!(mixed, Err(ExpiryError::MixedTimeZones));
        }
    }

    #[test]
    fn a_naive_time_among_instants_is_read_as_python_reads_it() {
        // The clock goes back at 06:00 UTC on 5 November and forward at 07:00 UTC on 12 March.
        for (shown, utc) in [
            ("2023-11-05 01:30:00", "2023-11-05 05:30:00"),
            ("2023-03-12 02:30:00", "2023-03-12 07:30:00"),
            ("2023-07-01 00:00:00", "2023-07-01 04:00:00"),
        ] {
            assert_eq!(Dialect::Sqlite.encode_time(&new_york(true), naive(shown)).unwrap(), utc);
            let postgres = Dialect::Postgres.encode_time(&new_york(true), naive(shown)).unwrap();
            assert_eq!(postgres, format!("{utc}+00"));
        }
    }

    #[test]
    fn postgres_reads_a_wall_clock_by_its_own_rules() {
        for (shown, utc) in [
            ("2023-11-05 01:30:00", "2023-11-05 06:30:00+00"),
            ("2023-03-12 02:30:00", "2023-03-12 07:30:00+00"),
            ("2023-07-01 00:00:00.5", "2023-07-01 04:00:00.500000+00"),
        ] {
            assert_eq!(Dialect::Postgres.encode_time(&new_york(false), naive(shown)).unwrap(), utc);
        }
        let instant = aware("2023-07-01T00:00:00Z");
        assert_eq!(
            Dialect::Postgres.encode_time(&new_york(false), instant).unwrap(),
            "2023-07-01 00:00:00+00"
        );
    }

    #[test]
    fn years_that_python_does_not_have_are_refused() {
        let time = DateTime::Aware(Timestamp::MIN);
        for dialect in ALL {
            assert_eq!(
                dialect.encode_time(&new_york(true), time),
                Err(ExpiryError::OutOfRange),
                "{dialect:?}"
            );
        }
        // West of Greenwich the last hours of the year 9999 are in the next year of UTC.
        let last = naive("9999-12-31T23:59:59");
        assert_eq!(
            Dialect::Sqlite.encode_time(&new_york(true), last),
            Err(ExpiryError::OutOfRange)
        );
    }

    #[cfg(any(feature = "sqlite", feature = "mysql"))]
    #[test]
    fn text_is_read_in_every_shape_that_is_around() {
        for text in ["2023-11-28 22:13:20.5", "2023-11-28 22:13:20.500000", "2023-11-28T22:13:20.5"]
        {
            let read = decode_text(&new_york(true), text);
            assert_eq!(read, Some(aware("2023-11-28T22:13:20.5Z")), "{text}");
            let read = decode_text(&new_york(false), text);
            assert_eq!(read, Some(naive("2023-11-28T22:13:20.5")), "{text}");
        }
        assert_eq!(decode_text(&new_york(true), "0000-00-00 00:00:00.000000"), None);
        assert_eq!(decode_text(&new_york(true), "soon"), None);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn no_number_of_microseconds_panics() {
        let zone = new_york(true);
        assert_eq!(decode_micros(&zone, 1), aware("2000-01-01T00:00:00.000001Z"));
        assert_eq!(decode_micros(&zone, i64::MAX), DateTime::Aware(DateTime::MAX_INSTANT));
        assert_eq!(decode_micros(&zone, i64::MIN), DateTime::Aware(Timestamp::MIN));
        // Twice the same time on the wall, an hour apart.
        let hour = 3_600_000_000;
        let before = decode_micros(&new_york(false), 752_477_400_000_000);
        assert_eq!(before, naive("2023-11-05T01:30:00"));
        assert_eq!(decode_micros(&new_york(false), 752_477_400_000_000 + hour), before);
        decode_micros(&new_york(false), i64::MAX);
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(Dialect::Sqlite.quoted("a\"b`c"), "\"a\"\"b`c\"");
        assert_eq!(Dialect::Postgres.quoted("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(Dialect::MySql.quoted("a`b\"c"), "`a``b\"c`");
    }
}

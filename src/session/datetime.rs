//! Python's two kinds of `datetime`, and the ISO 8601 text in which a session holds one.
//!
//! With `USE_TZ=True` Django computes with instants, with `USE_TZ=False` with the wall clock of
//! `TIME_ZONE`. Around a change of the clocks the two differ, so the difference is kept in the type.

use jiff::civil::{self, Date, ISOWeekDate, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

/// A point in time as Django sees it: aware with `USE_TZ=True`, naive without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DateTime {
    /// An instant (a `datetime` with `tzinfo`).
    Aware(Timestamp),
    /// What a clock on the wall shows (a `datetime` without).
    Naive(civil::DateTime),
}

impl DateTime {
    /// The last instant there is here, in whole microseconds as all of Python's: 26 hours before those end.
    pub(crate) const MAX_INSTANT: Timestamp = Timestamp::constant(253_402_207_200, 999_999_000);

    /// `django.utils.timezone.now()`: whole microseconds, the fraction below is dropped.
    pub fn now(now: Timestamp, use_tz: bool, time_zone: &TimeZone) -> Self {
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        if use_tz { Self::Aware(now) } else { Self::Naive(time_zone.to_datetime(now)) }
    }

    /// This plus a duration; a wall clock moves without regard to daylight saving. `None` beyond the
    /// year 9999.
    pub fn checked_add(self, duration: SignedDuration) -> Option<Self> {
        match self {
            Self::Aware(instant) => {
                let sum = instant.checked_add(duration).ok().or_else(|| {
                    let sum = TimeZone::UTC.to_datetime(instant).checked_add(duration);
                    to_instant(Offset::UTC, sum.ok()?)
                });
                sum.map(Self::Aware)
            }
            Self::Naive(civil) => civil.checked_add(duration).ok().map(Self::Naive),
        }
        .filter(Self::is_in_python_s_range)
    }

    /// Years 1 to 9999.
    fn is_in_python_s_range(&self) -> bool {
        let year = match self {
            Self::Aware(instant) => TimeZone::UTC.to_datetime(*instant).year(),
            Self::Naive(civil) => civil.year(),
        };
        year >= 1
    }

    /// The time from `other` to this; `None` if one is aware and one naive, as in Python.
    pub fn since(self, other: Self) -> Option<SignedDuration> {
        match (self, other) {
            (Self::Aware(this), Self::Aware(other)) => Some(this.duration_since(other)),
            (Self::Naive(this), Self::Naive(other)) => Some(this.duration_since(other)),
            _ => None,
        }
    }

    /// The instant meant, reading a wall clock in `time_zone`. Of two instants that show the same
    /// time the first is taken; a time that the clock skips is moved forward.
    pub fn to_timestamp(self, time_zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Aware(instant) => Some(instant),
            Self::Naive(civil) => {
                let instant = time_zone.to_timestamp(civil).ok();
                instant.or_else(|| to_instant(time_zone.to_offset(Self::MAX_INSTANT), civil))
            }
        }
    }

    /// What the clock shows: in UTC for an instant, unchanged for a wall clock.
    pub fn to_civil(self) -> civil::DateTime {
        match self {
            Self::Aware(instant) => TimeZone::UTC.to_datetime(instant),
            Self::Naive(civil) => civil,
        }
    }

    /// Python's `isoformat()`: microseconds only if there are any, always six digits; an instant is
    /// written in UTC.
    pub fn isoformat(self) -> String {
        let text = self.to_civil().strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let micros = self.to_civil().subsec_nanosecond() / 1000;
        let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
        let offset = if matches!(self, Self::Aware(_)) { "+00:00" } else { "" };
        format!("{text}{fraction}{offset}")
    }

    /// Python's `datetime.fromisoformat` since 3.11: most of ISO 8601.
    pub fn fromisoformat(text: &str) -> Option<Self> {
        // Only the separator between date and time may be anything; it counts as one character.
        let (date, rest) = parse_date(text)?;
        let mut rest = rest.chars();
        let time_text = match rest.next() {
            None => return Some(Self::Naive(date.at(0, 0, 0, 0))),
            Some(_) => rest.as_str(),
        };
        let (time, offset) = match time_text.find(['+', '-', 'Z']) {
            None => (time_text, None),
            Some(at) => (&time_text[..at], Some(&time_text[at..])),
        };
        let (time, next_day) = parse_time(time)?;
        let date = if next_day { date.checked_add(1.day()).ok()? } else { date };
        let civil = date.to_datetime(time);
        match offset {
            None => Some(Self::Naive(civil)),
            Some(offset) => {
                let offset = parse_offset(offset)?;
                to_instant(offset, civil).map(Self::Aware)
            }
        }
    }
}

/// The instant at which a clock with this offset shows a time.
///
/// What is after [`DateTime::MAX_INSTANT`], `datetime.max` above all, becomes that one.
pub(crate) fn to_instant(offset: Offset, civil: civil::DateTime) -> Option<Timestamp> {
    offset.to_timestamp(civil).ok().or_else(|| {
        let seconds = SignedDuration::from_secs(offset.seconds().into());
        let in_utc = civil.checked_sub(seconds).ok()?;
        (in_utc.year() == 9999).then_some(DateTime::MAX_INSTANT)
    })
}

/// `YYYY-MM-DD`, `YYYYMMDD`, `YYYY-Www[-D]` or `YYYYWww[D]`, and what follows.
fn parse_date(text: &str) -> Option<(Date, &str)> {
    let bytes = text.as_bytes();
    let year = number(bytes.get(..4)?)?;
    let dash = *bytes.get(4)? == b'-';
    let at = 4 + usize::from(dash);
    if bytes.get(at) == Some(&b'W') {
        let week = number(bytes.get(at + 1..at + 3)?)?;
        let mut end = at + 3;
        let mut day = 1;
        if dash && bytes.get(end) == Some(&b'-') {
            day = number(bytes.get(end + 1..end + 2)?)?;
            end += 2;
        } else if !dash && bytes.get(end).is_some_and(u8::is_ascii_digit) {
            day = number(&bytes[end..=end])?;
            end += 1;
        }
        let weekday = civil::Weekday::from_monday_one_offset(i8::try_from(day).ok()?).ok()?;
        let week = ISOWeekDate::new(i16::try_from(year).ok()?, i8::try_from(week).ok()?, weekday);
        return Some((week.ok()?.date(), text.get(end..)?));
    }
    let month = number(bytes.get(at..at + 2)?)?;
    let at = at + 2 + usize::from(dash);
    if dash && bytes.get(at - 1) != Some(&b'-') {
        return None;
    }
    let day = number(bytes.get(at..at + 2)?)?;
    if year < 1 {
        return None;
    }
    let date =
        Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    Some((date.ok()?, text.get(at + 2..)?))
}

/// `HH[:MM[:SS]][.f+]` or without colons; a fraction is one of a second, wherever it stands, and cut
/// to microseconds. `24:00` is the next
/// day's midnight.
fn parse_time(text: &str) -> Option<(Time, bool)> {
    let [hour, minute, second, micros] = parse_clock(text)?;
    let next_day = hour == 24 && [minute, second, micros] == [0, 0, 0];
    let time = Time::new(
        if next_day { 0 } else { i8::try_from(hour).ok()? },
        i8::try_from(minute).ok()?,
        i8::try_from(second).ok().filter(|&second| second < 60)?,
        micros.checked_mul(1000)?,
    );
    Some((time.ok()?, next_day))
}

fn parse_offset(text: &str) -> Option<Offset> {
    if text == "Z" {
        return Some(Offset::UTC);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let [hours, minutes, seconds, micros] = parse_clock(text.get(1..)?)?;
    // Offsets of a fraction of a second exist in Python and nowhere else.
    if hours > 23 || minutes > 59 || seconds > 59 || micros != 0 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60 + seconds)).ok()
}

/// Hours, minutes, seconds and microseconds.
fn parse_clock(text: &str) -> Option<[i32; 4]> {
    let (clock, fraction) = match text.find(['.', ',']) {
        None => (text, None),
        Some(at) => (&text[..at], Some(&text[at + 1..])),
    };
    let mut parts = [0; 4];
    let bytes = clock.as_bytes();
    let colons = bytes.contains(&b':');
    let length = if colons { 3 } else { 2 };
    let expected = [2, 2 + length, 2 + 2 * length];
    let count = expected.iter().position(|&expected| expected == bytes.len())? + 1;
    for (index, part) in parts[..count].iter_mut().enumerate() {
        let at = index * length;
        if colons && index > 0 && bytes[at - 1] != b':' {
            return None;
        }
        *part = number(&bytes[at..at + 2])?;
    }
    if let Some(fraction) = fraction {
        let digits = fraction.as_bytes();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let padded: [u8; 6] = std::array::from_fn(|index| *digits.get(index).unwrap_or(&b'0'));
        parts[3] = number(&padded)?;
    }
    Some(parts)
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::DateTime;

    /// The right column is what Python 3.12 answers.
    #[test]
    fn iso_text_is_read_as_python_reads_it() {
        for (text, read) in [
            ("2031-05-06T07:08:09.5+00:00", "2031-05-06T07:08:09.500000+00:00"),
            ("2031-05-06T07:08:09+05:30", "2031-05-06T01:38:09+00:00"),
            ("2031-05-06T07:08:09-00:30:15", "2031-05-06T07:38:24+00:00"),
            ("2031-01-01T00:00:00.000005", "2031-01-01T00:00:00.000005"),
            ("2031-01-01T00:00:00Z", "2031-01-01T00:00:00+00:00"),
            ("2031-01-01", "2031-01-01T00:00:00"),
            ("20310101T000001", "2031-01-01T00:00:01"),
            ("2031-01-01 07:08", "2031-01-01T07:08:00"),
            ("2031-01-01é07", "2031-01-01T07:00:00"),
            ("2031-01-01T07:08:09,1234567", "2031-01-01T07:08:09.123456"),
            ("2031-W01-3", "2031-01-01T00:00:00"),
            ("2031W013T0102", "2031-01-01T01:02:00"),
            ("2031-W01", "2030-12-30T00:00:00"),
            ("20310101T010203+0530", "2030-12-31T19:32:03+00:00"),
            ("2031-01-01T07.5", "2031-01-01T07:00:00.500000"),
        ] {
            assert_eq!(
                DateTime::fromisoformat(text).map(DateTime::isoformat).as_deref(),
                Some(read),
                "{text}"
            );
        }
        assert_eq!(DateTime::MAX_INSTANT.as_microsecond(), super::Timestamp::MAX.as_microsecond());
        for never in ["9999-12-31T23:59:59.999999+00:00", "9999-12-31T20:00:00-03:59"] {
            let read = DateTime::fromisoformat(never).map(DateTime::isoformat);
            assert_eq!(read.as_deref(), Some("9999-12-30T22:00:00.999999+00:00"), "{never}");
            assert_eq!(DateTime::fromisoformat(never), DateTime::fromisoformat(&read.unwrap()));
        }
        for bad in [
            "9999-12-31T23:00:00-01:00",
            "",
            "300",
            "soon",
            "2031-13-01",
            "2031-02-30",
            "2031-01-01T",
            "2031-01-01T7",
            "2031-1-1",
            "2031-01-01T07:0809",
            "2031-01-01T25:00",
            "2031-01-01T07:08:60",
            "2031-01-01T07:08:09.",
            "2031-01-01T07:08:09+",
            "2031-01-01T07:08:09+24:00",
            "203101",
            "2031-0101",
            "0000-01-01",
        ] {
            assert_eq!(DateTime::fromisoformat(bad), None, "{bad}");
        }
    }
}

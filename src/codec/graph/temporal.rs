//! Dates and times of Python's `datetime`, out of the bytes in which it pickles them.

use std::fmt::Write as _;

use jiff::civil;
use jiff::tz;

use super::value::Value;

/// A `datetime.datetime`.
#[derive(Clone, Copy, Debug)]
pub struct DateTime<'a> {
    /// What the calendar and the clock showed.
    pub civil: civil::DateTime,
    /// 1 for the second of two equal times when clocks are set back (Python 3.6).
    pub fold: bool,
    /// None for a naive one.
    pub time_zone: Option<TimeZone<'a>>,
}

/// A `datetime.date`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(pub civil::Date);

/// A `datetime.time`.
#[derive(Clone, Copy, Debug)]
pub struct Time<'a> {
    /// What the clock showed.
    pub civil: civil::Time,
    /// As in [`DateTime`].
    pub fold: bool,
    /// None for a naive one.
    pub time_zone: Option<TimeZone<'a>>,
}

/// A `datetime.timedelta`, in Python's own parts: only the days may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeDelta {
    /// Whole days, rounded down.
    pub days: i32,
    /// From 0 to 86,399.
    pub seconds: u32,
    /// From 0 to 999,999.
    pub microseconds: u32,
}

/// What a date and time is relative to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum TimeZone<'a> {
    /// A fixed distance from UTC: `datetime.timezone`, Django's own `FixedOffset` and `UTC`, or a zone of
    /// `pytz`, which knows its offset.
    Offset(TimeDelta),
    /// A `zoneinfo.ZoneInfo` by its key.
    Named(&'a str),
    /// Another class.
    Other(Value<'a>),
}

const SECONDS_PER_DAY: i64 = 86_400;

impl TimeDelta {
    pub(super) fn from_seconds(seconds: i64) -> Option<Self> {
        Some(Self {
            days: i32::try_from(seconds.div_euclid(SECONDS_PER_DAY)).ok()?,
            seconds: u32::try_from(seconds.rem_euclid(SECONDS_PER_DAY)).ok()?,
            microseconds: 0,
        })
    }

    /// Python normalizes whatever it is given; pickles hold normalized parts.
    pub(super) fn new(days: i64, seconds: i64, microseconds: i64) -> Option<Self> {
        let days = i32::try_from(days).ok().filter(|days| days.unsigned_abs() <= 999_999_999)?;
        let seconds = u32::try_from(seconds).ok().filter(|&seconds| seconds < 86_400)?;
        let microseconds = u32::try_from(microseconds).ok().filter(|&us| us < 1_000_000)?;
        Some(Self { days, seconds, microseconds })
    }

    /// The whole of it in microseconds.
    pub fn total_microseconds(&self) -> i128 {
        let seconds =
            i128::from(self.days) * i128::from(SECONDS_PER_DAY) + i128::from(self.seconds);
        seconds * 1_000_000 + i128::from(self.microseconds)
    }

    /// ISO 8601 as `django.utils.duration.duration_iso_string` writes it, `P1DT02H03M04.000005S`.
    pub fn isoformat(&self) -> String {
        let total = self.total_microseconds();
        let sign = if total < 0 { "-" } else { "" };
        let microseconds = total.unsigned_abs();
        let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
        let (days, seconds) = (seconds / 86_400, seconds % 86_400);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut text = format!("{sign}P{days}DT{hours:02}H{minutes:02}M{seconds:02}");
        if fraction > 0 {
            let _ = write!(text, ".{fraction:06}");
        }
        text.push('S');
        text
    }
}

impl Date {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let &[high, low, month, day] = bytes else { return None };
        date(high, low, month, day).map(Self)
    }

    /// `2026-11-21`.
    pub fn isoformat(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

impl<'a> DateTime<'a> {
    pub(super) fn from_bytes(bytes: &[u8], time_zone: Option<TimeZone<'a>>) -> Option<Self> {
        let &[high, low, month, day, ref rest @ ..] = bytes else { return None };
        let fold = month & 0x80 != 0;
        let civil = date(high, low, month & 0x7f, day)?.to_datetime(time(rest.try_into().ok()?)?);
        Some(Self { civil, fold, time_zone })
    }

    /// The offset from UTC, if there is a zone and it is known.
    pub fn utcoffset(&self) -> Option<TimeDelta> {
        match self.time_zone? {
            TimeZone::Offset(offset) => Some(offset),
            TimeZone::Named(key) => {
                let zone = tz::TimeZone::get(key).ok()?.to_ambiguous_timestamp(self.civil);
                // What Python does for times that clocks skip or show twice (PEP 495).
                let offset = match zone.offset() {
                    tz::AmbiguousOffset::Unambiguous { offset } => offset,
                    tz::AmbiguousOffset::Gap { before, after }
                    | tz::AmbiguousOffset::Fold { before, after } => {
                        if self.fold {
                            after
                        } else {
                            before
                        }
                    }
                };
                TimeDelta::from_seconds(offset.seconds().into())
            }
            TimeZone::Other(_) => None,
        }
    }

    /// As Python's method: `2026-11-21T09:30:00+01:00`. Without the offset if the zone is of a class
    /// that is not known here.
    pub fn isoformat(&self) -> String {
        let mut text = Date(self.civil.date()).isoformat();
        text.push('T');
        push_time(&mut text, self.civil.time());
        if let Some(offset) = self.utcoffset() {
            push_offset(&mut text, offset);
        }
        text
    }
}

impl<'a> Time<'a> {
    pub(super) fn from_bytes(bytes: &[u8], time_zone: Option<TimeZone<'a>>) -> Option<Self> {
        let &[hour, ref rest @ ..] = bytes else { return None };
        let rest: [u8; 5] = rest.try_into().ok()?;
        let [minute, second, high, middle, low] = rest;
        let civil = time([hour & 0x7f, minute, second, high, middle, low])?;
        Some(Self { civil, fold: hour & 0x80 != 0, time_zone })
    }

    /// As Python's method: `09:30:00`, with the offset if it does not depend on the day.
    pub fn isoformat(&self) -> String {
        let mut text = String::new();
        push_time(&mut text, self.civil);
        if let Some(TimeZone::Offset(offset)) = self.time_zone {
            push_offset(&mut text, offset);
        }
        text
    }
}

fn date(high: u8, low: u8, month: u8, day: u8) -> Option<civil::Date> {
    let year = i16::try_from(u16::from_be_bytes([high, low])).ok().filter(|year| *year >= 1)?;
    civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn time(bytes: [u8; 6]) -> Option<civil::Time> {
    let [hour, minute, second, high, middle, low] = bytes;
    let microsecond = i32::from_be_bytes([0, high, middle, low]);
    let small = |number| i8::try_from(number).ok();
    // A leap second is nothing that Python's datetime holds.
    if second > 59 || microsecond > 999_999 {
        return None;
    }
    civil::Time::new(small(hour)?, small(minute)?, small(second)?, microsecond * 1000).ok()
}

fn push_time(text: &mut String, time: civil::Time) {
    let _ = write!(text, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    if time.subsec_nanosecond() != 0 {
        let _ = write!(text, ".{:06}", time.subsec_nanosecond() / 1000);
    }
}

fn push_offset(text: &mut String, offset: TimeDelta) {
    let total = offset.total_microseconds();
    text.push(if total < 0 { '-' } else { '+' });
    let microseconds = total.unsigned_abs();
    let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
    let _ = write!(text, "{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if !seconds.is_multiple_of(60) || fraction > 0 {
        let _ = write!(text, ":{:02}", seconds % 60);
    }
    if fraction > 0 {
        let _ = write!(text, ".{fraction:06}");
    }
}

//! When an entry goes: what each cache backend makes of the seconds that the engine passes.
//!
//! The engine passes `get_expiry_age()`: whole seconds as a rule, but a fraction or a negative number
//! is possible. `now` is Unix time in seconds.

/// What becomes of an entry in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisTimeout {
    /// It is deleted instead of set.
    ///
    /// On `add`, Django sets it if there is none and deletes it at once; django-redis does nothing
    /// and says whether there was none.
    Delete,
    /// `SET … PX`, as django-redis sends it.
    Milliseconds(u64),
    /// `SET … EX`, as Django's `RedisCache` sends it.
    Seconds(u64),
}

/// The timeout of Django's `RedisCache` (4.0+): whole seconds, the fraction cut.
pub fn redis_timeout(timeout: f64) -> RedisTimeout {
    match whole(timeout) {
        0 => RedisTimeout::Delete,
        seconds => RedisTimeout::Seconds(seconds),
    }
}

/// The timeout of django-redis: whole milliseconds, the fraction cut.
pub fn django_redis_timeout(timeout: f64) -> RedisTimeout {
    match whole(timeout * 1000.0) {
        0 => RedisTimeout::Delete,
        milliseconds => RedisTimeout::Milliseconds(milliseconds),
    }
}

/// `max(0, int(number))`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast cuts the fraction and stays at the ends of the range"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Seconds that memcached takes as such; a larger number is Unix time to it.
const MEMCACHED_MAX_RELATIVE: f64 = 2_592_000.0;

/// The `exptime` that Django's memcached backends send: absolute beyond 30 days, and -1, which is at
/// once, where the timeout is below a second, since 0 means never to memcached.
pub fn memcached_exptime(timeout: f64, now: f64) -> i64 {
    let timeout = if timeout.trunc() == 0.0 { -1.0 } else { timeout };
    let start = if timeout > MEMCACHED_MAX_RELATIVE { now.trunc() } else { 0.0 };
    int(timeout + start)
}

/// The absolute expiry that a `FileBasedCache` writes before the value, in Unix seconds with their
/// fraction: `now` plus the timeout; a timeout of 0 is taken as -1.
///
/// Expired is what is smaller than `now`.
pub fn file_expiry(timeout: f64, now: f64) -> f64 {
    now + if timeout == 0.0 { -1.0 } else { timeout }
}

/// The instant in the column `expires` of a `DatabaseCache`, in Unix seconds: as [`file_expiry`], and
/// then cut to the whole second.
///
/// Expired is what is smaller than `now`.
pub fn database_expires(timeout: f64, now: f64) -> i64 {
    let expiry = file_expiry(timeout, now);
    // `datetime.fromtimestamp` rounds to microseconds, so the last half of the last one goes up.
    let second = expiry.floor();
    let microseconds = ((expiry - second) * 1e6).round_ties_even();
    int(second) + i64::from(microseconds >= 1e6)
}

#[expect(clippy::cast_possible_truncation, reason = "as int() cuts the fraction")]
fn int(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_cuts_the_fraction_and_deletes_at_zero() {
        for (timeout, seconds, milliseconds) in [
            (600.0, 600, 600_000),
            (1.999_5, 1, 1_999),
            (0.5, 0, 500),
            (0.000_5, 0, 0),
            (0.0, 0, 0),
            (-3.0, 0, 0),
        ] {
            let expected = match seconds {
                0 => RedisTimeout::Delete,
                seconds => RedisTimeout::Seconds(seconds),
            };
            assert_eq!(redis_timeout(timeout), expected, "{timeout}");
            let expected = match milliseconds {
                0 => RedisTimeout::Delete,
                milliseconds => RedisTimeout::Milliseconds(milliseconds),
            };
            assert_eq!(django_redis_timeout(timeout), expected, "{timeout}");
        }
    }

    #[test]
    fn memcached_gets_absolute_time_beyond_thirty_days() {
        for (timeout, exptime) in [
            (600.0, 600),
            (600.9, 600),
            (2_592_000.0, 2_592_000),
            (2_592_000.5, 1_702_592_000),
            (2_592_001.0, 1_702_592_001),
            (0.0, -1),
            (0.9, -1),
            (-0.9, -1),
            (-5.0, -5),
        ] {
            assert_eq!(memcached_exptime(timeout, 1_700_000_000.75), exptime, "{timeout}");
        }
    }

    #[test]
    fn files_and_rows_carry_the_absolute_expiry() {
        for (timeout, now, file, row) in [
            (600.0, 1_700_000_000.5, 1_700_000_600.5, 1_700_000_600),
            (0.0, 1_700_000_000.0, 1_699_999_999.0, 1_699_999_999),
            (-0.5, 0.0, -0.5, -1),
            (1.0, 0.999_999_9, 1.0 + 0.999_999_9, 2),
        ] {
            assert_eq!(file_expiry(timeout, now).to_bits(), f64::to_bits(file));
            assert_eq!(database_expires(timeout, now), row);
        }
    }
}

//! What is wrong with the servers of a cache, and with clocks.

use super::catalogue as kinds;
use super::finding::Finding;
use crate::cli::output::duration;
use crate::cli::stats::bytes;
use crate::store::inspect::{Clock, MemcachedFacts, RedisFacts};

/// In milliseconds. Less is what the time of a day costs.
const SKEW_WARNING: i64 = 5_000;
const SKEW_ERROR: i64 = 300_000;
/// What memcached takes unless it is told otherwise, and Django's documentation warns of.
const ITEM_SIZE: u64 = 1 << 20;

/// How far a clock is off, `whose` it is.
pub(super) fn check_clock(clock: Option<Clock>, whose: &str) -> Option<Finding> {
    let clock = clock?;
    let off = clock.ahead.saturating_abs().saturating_sub(clock.uncertain);
    if off <= SKEW_WARNING {
        return None;
    }
    let direction = if clock.ahead > 0 { "ahead of" } else { "behind" };
    let seen = format!("the clock of {whose} is {} {direction} this one", duration(off / 1000));
    let kind = kinds::CLOCK_SKEW;
    Some(if off > SKEW_ERROR { kind.error(seen) } else { kind.warning(seen) })
}

/// `is_copy` where a table has the sessions as well.
pub(super) fn check_redis(server: &RedisFacts, is_copy: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let maxmemory = server.maxmemory.unwrap_or_default();
    if let Some(policy) = server.policy.as_deref().filter(|policy| *policy != "noeviction") {
        let seen = format!("maxmemory-policy is {policy}, maxmemory {}", limit(maxmemory));
        let kind = kinds::REDIS_EVICTS;
        found.push(match (is_copy, maxmemory) {
            // That is what a cache before a table is for.
            (true, _) => kind.note(seen),
            (false, 0) => kind.warning(seen),
            (false, _) => kind.error(seen),
        });
    }
    if let Some(evicted) = server.evicted.filter(|&evicted| evicted > 0 && !is_copy) {
        found.push(kinds::REDIS_EVICTED.warning(format!("it has evicted {evicted} entries")));
    }
    if server.is_replica == Some(true) {
        found.push(kinds::READ_ONLY.error("this Redis is a replica"));
    }
    if server.appends == Some(false) && server.saves == Some(false) && !is_copy {
        let seen = "appendonly is no, and save is empty";
        found.push(kinds::REDIS_VOLATILE.warning(seen));
    }
    if server.saving_fails == Some(true) {
        let seen = "the last attempt to write to its disk has failed";
        found.push(kinds::REDIS_SAVING.error(seen));
    }
    found.extend(check_memory(server.used_memory, server.maxmemory, is_copy));
    found
}

pub(super) fn check_memcached(server: &MemcachedFacts, is_copy: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(evictions) = server.evictions.filter(|&evictions| evictions > 0 && !is_copy) {
        let seen = format!("it has evicted {evictions} entries");
        found.push(kinds::MEMCACHED_EVICTIONS.warning(seen));
    }
    if let Some(size) = server.item_size_max.filter(|_| !is_copy) {
        let seen = format!("an item has at most {}", bytes(size));
        if size < ITEM_SIZE {
            found.push(kinds::MEMCACHED_ITEM_SIZE.warning(seen));
        }
    }
    if !is_copy {
        found.push(kinds::MEMCACHED_VOLATILE.note("sessions are in the memory of memcached alone"));
    }
    found.extend(check_memory(server.bytes, server.limit, is_copy));
    found
}

fn check_memory(used: Option<u64>, limit: Option<u64>, is_copy: bool) -> Option<Finding> {
    let (used, limit) = used.zip(limit.filter(|&limit| limit > 0))?;
    if is_copy || used < limit / 10 * 9 {
        return None;
    }
    let seen = format!("{} of {} are in use", bytes(used), bytes(limit));
    Some(kinds::MEMORY_FULL.warning(seen))
}

fn limit(maxmemory: u64) -> String {
    if maxmemory == 0 { "not set".to_owned() } else { bytes(maxmemory) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_question_takes_is_not_held_against_a_clock() {
        let check = |ahead, uncertain| check_clock(Some(Clock { ahead, uncertain }), "it");
        assert!(check(5_100, 200).is_none() && check(-5_100, 200).is_none());
        assert_eq!(check(-61_000, 10).unwrap().severity.name(), "warning");
        assert_eq!(check(3_700_000, 10).unwrap().severity.name(), "error");
        assert!(check_clock(None, "it").is_none());
    }

    #[test]
    fn a_cache_before_a_table_may_forget() {
        let server = RedisFacts {
            maxmemory: Some(100),
            used_memory: Some(99),
            policy: Some("allkeys-lru".to_owned()),
            evicted: Some(5),
            appends: Some(false),
            saves: Some(false),
            ..RedisFacts::default()
        };
        let ids = |is_copy| -> Vec<_> {
            let found = check_redis(&server, is_copy);
            found.iter().map(|found| (found.kind.id, found.severity.name())).collect()
        };
        assert_eq!(ids(true), [("redis-evicts", "note")]);
        assert_eq!(
            ids(false),
            [
                ("redis-evicts", "error"),
                ("redis-has-evicted", "warning"),
                ("redis-not-persistent", "warning"),
                ("memory-nearly-full", "warning"),
            ]
        );
    }
}

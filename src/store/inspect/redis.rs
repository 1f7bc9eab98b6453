//! Redis, from `INFO`, `CONFIG GET` and `TIME`.

use std::collections::HashMap;

use redis::{Cmd, Value};

use super::{Asked, Clock};
use crate::store::RedisCache;
use crate::store::connect::{ConnectError, redis_parts};
use crate::store::url::StoreUrl;

/// One server. Not everybody may ask for its configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct RedisFacts {
    pub(crate) clock: Option<Clock>,
    pub(crate) maxmemory: Option<u64>,
    pub(crate) used_memory: Option<u64>,
    pub(crate) policy: Option<String>,
    pub(crate) evicted: Option<u64>,
    pub(crate) is_replica: Option<bool>,
    /// Whether each write is noted.
    pub(crate) appends: Option<bool>,
    /// Whether it writes copies of everything from time to time.
    pub(crate) saves: Option<bool>,
    /// Whether the last of either went wrong.
    pub(crate) saving_fails: Option<bool>,
}

pub(super) async fn inspect(url: &StoreUrl) -> Result<Vec<RedisFacts>, ConnectError> {
    let cache = redis_parts(url).await?.cache;
    let asked = Asked::now();
    let clock = match ask(&cache, redis::cmd("TIME")).await {
        Some(Value::Array(parts)) => {
            let number = |at: usize| parts.get(at).and_then(text).and_then(|it| it.parse().ok());
            let seconds_and_micros: Option<(i64, i64)> = number(0).zip(number(1));
            seconds_and_micros
                .map(|(seconds, micros)| asked.answered(seconds * 1000 + micros / 1000))
        }
        _ => None,
    };
    let saves = {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("save");
        ask(&cache, command).await.and_then(|answer| saves(&answer))
    };
    let info = match ask(&cache, redis::cmd("INFO")).await {
        // Each server of a cluster.
        Some(Value::Map(nodes)) => nodes.iter().filter_map(|(_, node)| text(node)).collect(),
        Some(one) => text(&one).into_iter().collect(),
        None => Vec::new(),
    };
    Ok(info.iter().map(|info| RedisFacts { clock, saves, ..parse(info) }).collect())
}

async fn ask(cache: &RedisCache, command: Cmd) -> Option<Value> {
    let answers = cache.send_many(vec![(String::new(), command)]).await.ok()?;
    answers.into_iter().next()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether `save` says when to write a copy.
fn saves(answer: &Value) -> Option<bool> {
    let found = match answer {
        Value::Array(pair) => text(pair.get(1)?)?,
        Value::Map(pairs) => text(&pairs.first()?.1)?,
        _ => return None,
    };
    Some(!found.is_empty())
}

/// What the lines of `INFO` say.
fn parse(info: &str) -> RedisFacts {
    let pairs: HashMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let number = |name| pairs.get(name).and_then(|value| value.parse().ok());
    let failed = |name| pairs.get(name).map(|value| *value != "ok");
    RedisFacts {
        maxmemory: number("maxmemory"),
        used_memory: number("used_memory"),
        policy: pairs.get("maxmemory_policy").map(|&policy| policy.to_owned()),
        evicted: number("evicted_keys"),
        is_replica: pairs.get("role").map(|&role| role == "slave"),
        appends: pairs.get("aof_enabled").map(|&enabled| enabled == "1"),
        saving_fails: match (failed("rdb_last_bgsave_status"), failed("aof_last_write_status")) {
            (None, None) => None,
            (one, other) => Some(one == Some(true) || other == Some(true)),
        },
        ..RedisFacts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_lines_of_a_server_are_read() {
        let facts = parse(
            "# Memory\r\nused_memory:95\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n\
             # Persistence\r\naof_enabled:0\r\nrdb_last_bgsave_status:err\r\n\
             role:slave\r\nevicted_keys:7\r\n",
        );
        assert_eq!((facts.used_memory, facts.maxmemory), (Some(95), Some(100)));
        assert_eq!(facts.policy.as_deref(), Some("allkeys-lru"));
        assert_eq!((facts.appends, facts.saving_fails), (Some(false), Some(true)));
        assert_eq!((facts.is_replica, facts.evicted), (Some(true), Some(7)));
        assert_eq!(parse("").saving_fails, None);
    }
}

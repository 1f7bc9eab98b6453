//! Sessions in Redis: found by `SCAN`, read and written in pipelines.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use redis::{Cmd, Value};

use super::{
    BulkStore, Change, Cleared, Coding, Estimate, Filter, Part, Place, Scan, Sink, StoredSession,
    is_of_cached_db,
};
use crate::codec::cache::CacheKeys;
use crate::session::{DateTime, SessionSettings, SessionStore, StoreError};
use crate::store::RedisCache;
use crate::store::connect::RedisParts;

/// How many keys a server looks at for one answer.
const KEYS: u32 = 1000;
/// How often a server is read from the beginning again, because it is another one than before.
const MAX_RESTARTS: u32 = 8;

#[derive(Clone, Debug)]
pub(super) struct RedisBulk {
    cache: RedisCache,
    keys: CacheKeys,
    coding: Coding,
    use_tz: bool,
    time_zone: TimeZone,
    sessions: Arc<dyn SessionStore>,
}

impl RedisBulk {
    pub(super) fn new(
        RedisParts { cache, keys, codec }: RedisParts,
        settings: &SessionSettings,
        sessions: Arc<dyn SessionStore>,
    ) -> Self {
        Self {
            cache,
            keys,
            coding: Coding::Cached(Box::new(codec)),
            use_tz: settings.use_tz,
            time_zone: settings.time_zone.clone(),
            sessions,
        }
    }

    /// What all keys of sessions begin with here.
    fn prefix(&self) -> String {
        self.keys.server_key("")
    }

    fn command(&self, name: &str, session_key: &str) -> (String, Cmd) {
        let key = self.keys.server_key(session_key);
        let mut command = redis::cmd(name);
        command.arg(&key);
        (key, command)
    }

    fn expire_date(&self, millis: i64, now: Timestamp) -> DateTime {
        let left = (millis >= 0).then(|| SignedDuration::from_millis(millis));
        let end = left.and_then(|left| now.checked_add(left).ok()).unwrap_or(Timestamp::MAX);
        DateTime::now(end, self.use_tz, &self.time_zone)
    }

    /// When it ends in Unix milliseconds.
    fn end(&self, session: &StoredSession) -> i64 {
        let end = session.expire_date.to_timestamp(&self.time_zone).unwrap_or(Timestamp::MAX);
        end.as_millisecond()
    }

    async fn get(&self, keys: &[String]) -> Result<Vec<Option<(Vec<u8>, DateTime)>>, StoreError> {
        let mut commands = Vec::with_capacity(keys.len() * 2);
        for key in keys {
            for name in ["GET", "PTTL"] {
                let mut command = redis::cmd(name);
                command.arg(key);
                commands.push((key.clone(), command));
            }
        }
        let now = Timestamp::now();
        let answers = self.cache.send_many(commands).await?;
        let pairs = answers.chunks_exact(2).map(|pair| match pair {
            // It may end between the two.
            [Value::Nil, _] | [_, Value::Int(-2)] => Ok(None),
            [Value::BulkString(value), Value::Int(millis)] => {
                Ok(Some((value.clone(), self.expire_date(*millis, now))))
            }
            _ => Err(StoreError::backend("the server answers with something else")),
        });
        pairs.collect()
    }
}

#[async_trait]
impl BulkStore for RedisBulk {
    fn coding(&self) -> &Coding {
        &self.coding
    }

    fn name(&self) -> &'static str {
        "Redis"
    }

    fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    async fn estimate(&self) -> Result<Estimate, StoreError> {
        let mut sessions = 0;
        for slot in self.cache.servers().await? {
            match self.cache.ask(slot, [redis::cmd("DBSIZE")]).await? {
                [Value::Int(number)] => sessions += u64::try_from(number).unwrap_or_default(),
                _ => return Ok(Estimate::default()),
            }
        }
        Ok(Estimate { sessions: Some(sessions), bytes: None })
    }

    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError> {
        let slots = self.cache.servers().await?;
        Ok(Box::new(RedisScan { store: self.clone(), filter, slots }))
    }

    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError> {
        let now = Timestamp::now().as_millisecond();
        let mut commands = Vec::with_capacity(sessions.len());
        let mut sent = Vec::with_capacity(sessions.len());
        for (index, session) in sessions.iter().enumerate() {
            let left = self.end(session) - now;
            // It would be gone at once.
            if left > 0 {
                let (key, mut command) = self.command("SET", &session.session_key);
                command.arg(&session.value).arg("NX").arg("PX").arg(left);
                commands.push((key, command));
                sent.push(index);
            }
        }
        let answers = self.cache.send_many(commands).await?;
        let mut taken = Vec::new();
        for (index, answer) in sent.into_iter().zip(answers) {
            match answer {
                Value::Okay => {}
                Value::Nil => taken.push(index),
                _ => return Err(StoreError::backend("the server answers with something else")),
            }
        }
        Ok(taken)
    }

    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError> {
        let changes = changes.iter().map(|change| {
            let key = self.keys.server_key(&change.stored.session_key);
            (key, &*change.stored.value, &*change.value)
        });
        self.cache.replace_many(changes.collect()).await
    }

    async fn bulk_delete(
        &self,
        sessions: &[&StoredSession],
        unchanged: bool,
    ) -> Result<u64, StoreError> {
        if unchanged {
            let sessions =
                sessions.iter().map(|it| (self.keys.server_key(&it.session_key), &*it.value));
            return self.cache.delete_many(sessions.collect()).await;
        }
        let commands = sessions.iter().map(|it| self.command("DEL", &it.session_key)).collect();
        let answers = self.cache.send_many(commands).await?;
        Ok(answers.iter().filter(|answer| matches!(answer, Value::Int(1))).count() as u64)
    }

    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError> {
        let server_keys: Vec<String> = keys.iter().map(|key| self.keys.server_key(key)).collect();
        let found = self.get(&server_keys).await?;
        let found = keys.iter().zip(found).map(|(key, found)| {
            found.map(|(value, expire_date)| StoredSession {
                session_key: (*key).to_owned(),
                value,
                expire_date,
                is_dated: true,
                place: Place::Key,
            })
        });
        Ok(found.collect())
    }

    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError> {
        let commands = sessions.iter().map(|(key, _)| self.command("EXISTS", key)).collect();
        let answers = self.cache.send_many(commands).await?;
        Ok(answers.iter().map(|answer| matches!(answer, Value::Int(1))).collect())
    }

    async fn count_expired(&self, _now: DateTime) -> Result<Option<u64>, StoreError> {
        Ok(Some(0))
    }

    /// Redis does it by itself.
    async fn clear_expired(
        &self,
        _now: DateTime,
        _sessions: u32,
        _from: Option<DateTime>,
    ) -> Result<Cleared, StoreError> {
        Ok(Cleared::default())
    }

    async fn close(&self) {
        self.sessions.close().await;
    }
}

struct RedisScan {
    store: RedisBulk,
    filter: Filter,
    /// One of each server.
    slots: Vec<u16>,
}

#[async_trait]
impl Scan for RedisScan {
    fn parts(&self) -> Vec<Part> {
        let start = |&slot| Part::Cursor { slot, cursor: 0, run_id: String::new() };
        self.slots.iter().map(start).collect()
    }

    async fn read(&self, part: &Part, sink: &mut Sink) -> Result<(), StoreError> {
        let other = || StoreError::backend("the server answers with something else");
        let Part::Cursor { slot, mut cursor, ref run_id } = *part else { return Err(other()) };
        let (mut run_id, mut restarts) = (run_id.clone(), 0);
        if run_id.is_empty() {
            cursor = 0;
        }
        let prefix = self.store.prefix();
        let pattern = format!("{}*", escaped(&prefix));
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS);
            let mut info = redis::cmd("INFO");
            info.arg("server");
            let [answer, info] = self.store.cache.ask(slot, [command, info]).await?;
            // Another server, or the same one since it was started again: its cursors are others.
            let now = read_run_id(&info).unwrap_or_default();
            if cursor != 0 && now != run_id {
                restarts += 1;
                if restarts > MAX_RESTARTS {
                    return Err(StoreError::backend("the server is another one again and again"));
                }
                cursor = 0;
                continue;
            }
            run_id = now;
            let (next, names) = read_scan(answer).ok_or_else(other)?;
            let found = self.store.get(&names).await?;
            for (name, found) in names.iter().zip(found) {
                let Some((value, expire_date)) = found else { continue };
                let session_key = name.strip_prefix(&prefix).unwrap_or(name).to_owned();
                if !self.filter.takes(&session_key, expire_date, &self.store.time_zone) {
                    continue;
                }
                if is_of_cached_db(&prefix, &session_key) {
                    continue;
                }
                let session = StoredSession {
                    session_key,
                    value,
                    expire_date,
                    is_dated: true,
                    place: Place::Key,
                };
                if !sink.push(session).await {
                    return Ok(());
                }
            }
            cursor = next;
            if cursor == 0 {
                sink.flush(None).await;
                return Ok(());
            }
            if !sink.flush(Some(Part::Cursor { slot, cursor, run_id: run_id.clone() })).await {
                return Ok(());
            }
        }
    }
}

/// The cursor and the keys. One that is not text is none that a session has.
fn read_scan(answer: Value) -> Option<(u64, Vec<String>)> {
    let Value::Array(answer) = answer else { return None };
    let [Value::BulkString(cursor), Value::Array(keys)] = &answer[..] else { return None };
    let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    let keys = keys.iter().filter_map(|key| match key {
        Value::BulkString(key) => String::from_utf8(key.clone()).ok(),
        _ => None,
    });
    Some((cursor, keys.collect()))
}

/// What a server calls itself from one start to the next, if it says so.
fn read_run_id(info: &Value) -> Option<String> {
    let text = match info {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?,
        Value::VerbatimString { text, .. } => text,
        _ => return None,
    };
    text.lines().find_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim().to_owned())
}

/// A text as a pattern that only it matches.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

//! Errors of Redis, made fit to be shown and logged.

use std::error::Error as StdError;
use std::fmt;

use redis::{ErrorKind, ServerErrorKind};
use thiserror::Error;

use crate::session::StoreError;

/// What is inside a [`StoreError`] of [`RedisCache`](super::RedisCache) where the server failed.
///
/// A server may repeat what it was given: `unknown command 'GET', with args beginning with: …`. So the
/// message is shown only where it is known to name none of it; otherwise there is the code alone. The
/// error in full is [`RedisError::as_redis`].
///
/// # Example
///
/// ```
/// use django_session::StoreError;
/// use django_session::store::RedisError;
///
/// fn out_of_memory(error: &StoreError) -> bool {
///     let StoreError::Backend(source) = error else { return false };
///     let error = source.downcast_ref::<RedisError>().and_then(RedisError::as_redis);
///     error.is_some_and(|error| error.code() == Some("OOM"))
/// }
/// # assert!(!out_of_memory(&StoreError::Update));
/// ```
#[derive(Clone)]
pub struct RedisError(Kind);

#[derive(Clone)]
enum Kind {
    Driver(redis::RedisError),
    /// The nodes of a cluster do not agree on who is responsible.
    Moving(redis::RedisError),
    /// Too few replicas have it, or it is not known whether they do.
    NotReplicated,
    /// The server took longer than the cache waits.
    TimedOut,
    /// An answer that this command does not have.
    Unexpected,
    /// A write was sent twice, and what came of the first is not known.
    Unknown,
}

impl RedisError {
    /// An error of the driver of clusters, which follows where it is sent as often as makes sense.
    pub(super) fn of_cluster(error: redis::RedisError) -> Self {
        Self(match error.kind() {
            ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::Moved) => Kind::Moving(error),
            _ => Kind::Driver(error),
        })
    }

    pub(super) fn not_replicated() -> Self {
        Self(Kind::NotReplicated)
    }

    pub(super) fn timed_out() -> Self {
        Self(Kind::TimedOut)
    }

    pub(super) fn unexpected() -> Self {
        Self(Kind::Unexpected)
    }

    pub(super) fn unknown() -> Self {
        Self(Kind::Unknown)
    }

    /// What the driver reported. It may contain session keys and session data: look at its kind and
    /// its code, but do not log it.
    pub fn as_redis(&self) -> Option<&redis::RedisError> {
        match &self.0 {
            Kind::Driver(error) | Kind::Moving(error) => Some(error),
            Kind::NotReplicated | Kind::TimedOut | Kind::Unexpected | Kind::Unknown => None,
        }
    }

    /// Whether it is about the connection, or about what it leads to.
    pub(super) fn trouble(&self) -> Trouble {
        match class_of(self) {
            Class::Gone => Trouble::Broken,
            Class::TimedOut => Trouble::Silent,
            Class::Replica => Trouble::NotTheMaster,
            Class::Busy | Class::Refused => Trouble::None,
        }
    }
}

/// What an error says of the connection that it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is of no more use. What was sent may have been done or not.
    Broken,
    /// It works.
    None,
    /// It leads to a server that takes no writes, so nothing was done.
    NotTheMaster,
    /// Nothing has come back for too long.
    Silent,
}

impl From<redis::RedisError> for RedisError {
    fn from(error: redis::RedisError) -> Self {
        Self(Kind::Driver(error))
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        let class = class_of(&error);
        let error = Box::new(error);
        match class {
            Class::Busy | Class::Replica => Self::Busy(error),
            Class::Gone => Self::Unreachable(error),
            Class::Refused => Self::Backend(error),
            Class::TimedOut => Self::TimedOut(error),
        }
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Driver(error) => return show(error, f),
            Kind::Moving(_) => "the cluster is changing",
            Kind::NotReplicated => "not enough replicas have confirmed the write",
            Kind::TimedOut => "the server took too long",
            Kind::Unexpected => "the server's answer makes no sense",
            Kind::Unknown => "the connection failed, and the write may have been done or not",
        })
    }
}

fn show(error: &redis::RedisError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => {
            return match error.code().filter(is_code) {
                Some(code @ ("ASK" | "MOVED")) => {
                    write!(f, "the server reports {code}: it is a node of a cluster")
                }
                Some(code) => match error.detail().filter(|_| is_harmless(code)) {
                    Some(message) => write!(f, "the server reports {code}: {message}"),
                    None => write!(f, "the server reports {code}; its message may hold values"),
                },
                None => f.write_str("the server reports an error; its message may hold values"),
            };
        }
        // Details are messages of servers, put into the text.
        ErrorKind::Io if error.detail().is_none() => {
            return write!(f, "the connection failed: {error}");
        }
        ErrorKind::Io => "the connection failed",
        ErrorKind::AuthenticationFailed => "the server refused the login",
        ErrorKind::ClusterConnectionNotFound => "no node of the cluster can be reached",
        ErrorKind::MasterNameNotFoundBySentinel => {
            "the Sentinels know no master of this name that is up"
        }
        ErrorKind::Parse => "the server's answer is malformed",
        ErrorKind::EmptySentinelList | ErrorKind::InvalidClientConfig => {
            "the client of the server is set up wrongly"
        }
        _ => "the driver failed",
    })
}

impl fmt::Debug for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisError").field(&format_args!("{self}")).finish()
    }
}

/// The source would be the very error that must not be shown, so there is none; see
/// [`RedisError::as_redis`].
impl StdError for RedisError {}

/// What kind of trouble a server is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It may have time later.
    Busy,
    /// There is no way to it, or there is none any more.
    Gone,
    /// It says no.
    Refused,
    /// It follows another one, which is where to write.
    Replica,
    TimedOut,
}

fn class_of(error: &RedisError) -> Class {
    let error = match &error.0 {
        Kind::Driver(error) => error,
        Kind::Moving(_) => return Class::Busy,
        Kind::NotReplicated | Kind::TimedOut => return Class::TimedOut,
        Kind::Unexpected => return Class::Refused,
        Kind::Unknown => return Class::Gone,
    };
    if error.is_timeout() {
        return Class::TimedOut;
    }
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
            Class::Replica
        }
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain,
        ) => Class::Busy,
        ErrorKind::Server(_) | ErrorKind::Extension => match (error.code(), error.detail()) {
            (Some("BUSY" | "NOREPLICAS"), _) => Class::Busy,
            (Some("ERR"), Some(message)) if message.starts_with("max number of clients") => {
                Class::Busy
            }
            // The server has changed its role while the command waited.
            (Some("UNBLOCKED"), _) => Class::Gone,
            _ => Class::Refused,
        },
        ErrorKind::ClusterConnectionNotFound
        | ErrorKind::Io
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::Parse => Class::Gone,
        _ => Class::Refused,
    }
}

/// Whether this is a word such as `WRONGTYPE`, and not the beginning of some text.
fn is_code(code: &&str) -> bool {
    code.len() <= 24 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// Whether the messages with this code are known, and repeat nothing.
fn is_harmless(code: &str) -> bool {
    matches!(
        code,
        "BUSY"
            | "CLUSTERDOWN"
            | "LOADING"
            | "MASTERDOWN"
            | "MISCONF"
            | "NOAUTH"
            | "NOREPLICAS"
            | "OOM"
            | "READONLY"
            | "TRYAGAIN"
            | "UNBLOCKED"
            | "WRONGPASS"
            | "WRONGTYPE"
    )
}

/// [`RedisCache::connect`](super::RedisCache::connect) got no server. The address is never repeated: it
/// holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RedisConnectError {
    /// The address cannot be understood.
    #[error("the address of the Redis server is malformed: {problem}")]
    Address {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The server does not answer, or does not let us in.
    #[error("cannot connect to Redis")]
    Connect(#[source] StoreError),
}

impl RedisConnectError {
    pub(super) fn address(problem: &'static str) -> Self {
        Self::Address { problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(reply: &str) -> RedisError {
        let reply = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        RedisError::from(reply.extract_error().unwrap_err())
    }

    #[test]
    fn only_messages_that_repeat_nothing_are_shown() {
        for reply in [
            "ERR unknown command 'GET', with args beginning with: 'hunter2'",
            "ERR hunter2",
            "WRONG hunter2",
            "NOPERM hunter2",
            "hunter2",
            "hunter2 hunter2",
            "MOVED 1 hunter2:1",
        ] {
            let shown = format!("{0} {0:?} {0:#?}", server(reply));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let error = server("OOM command not allowed when used memory > 'maxmemory'.");
        assert!(error.to_string().contains("used memory > 'maxmemory'"));
        assert!(server("NOPERM hunter2").to_string().contains("NOPERM"));
    }

    #[test]
    fn codes_say_what_the_trouble_is() {
        for (reply, expected) in [
            ("BUSY Redis is busy running a script.", "Busy"),
            ("CLUSTERDOWN The cluster is down", "Busy"),
            ("ERR max number of clients reached", "Busy"),
            ("ERR syntax error", "Backend"),
            ("LOADING Redis is loading the dataset in memory", "Busy"),
            ("MASTERDOWN Link with MASTER is down", "Busy"),
            ("MISCONF Redis is configured to save RDB snapshots", "Backend"),
            ("MOVED 866 127.0.0.1:7001", "Backend"),
            ("NOAUTH Authentication required.", "Backend"),
            ("NOPERM this user has no permissions to run the 'get' command", "Backend"),
            ("NOREPLICAS Not enough good replicas to write.", "Busy"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "Backend"),
            ("READONLY You can't write against a read only replica.", "Busy"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "Busy"),
            ("UNBLOCKED force unblock from blocking operation", "Unreachable"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "Backend"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "Backend"),
        ] {
            let error = StoreError::from(server(reply));
            assert!(format!("{error:?}").starts_with(expected), "{reply}: {error:?}");
        }
    }
}

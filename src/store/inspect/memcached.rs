//! memcached, from `stats` and `stats settings`.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::connect::ConnectError;
use super::super::memcached::tcp_addresses;
use super::super::url::{StoreUrl, UrlError};
use super::{Asked, Clock};
use crate::session::StoreError;

const TIMEOUT: Duration = Duration::from_secs(5);
/// More than any server tells.
const LIMIT: usize = 1 << 20;

/// One server.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemcachedFacts {
    /// To the second.
    pub(crate) clock: Option<Clock>,
    pub(crate) item_size_max: Option<u64>,
    pub(crate) evictions: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) limit: Option<u64>,
}

/// Servers that are reached by a socket of the machine are not asked.
pub(super) async fn inspect(url: &StoreUrl) -> Result<Vec<MemcachedFacts>, ConnectError> {
    let expected = "one or more servers, such as `memcached://10.0.0.1:11211,10.0.0.2:11211`";
    let location = url.address().split_once("://").map(|(_, location)| location);
    let addresses = location.and_then(tcp_addresses);
    let mut found = Vec::new();
    for (host, port) in addresses.ok_or(UrlError::InvalidAddress { expected })? {
        let asked = tokio::time::timeout(TIMEOUT, ask(&host, port)).await;
        let facts = asked.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut));
        let facts = facts.and_then(|facts| facts);
        found
            .push(facts.map_err(|error| {
                ConnectError::Connect(StoreError::Unreachable(Box::new(error)))
            })?);
    }
    Ok(found)
}

async fn ask(host: &str, port: u16) -> std::io::Result<MemcachedFacts> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let asked = Asked::now();
    let general = stats(&mut stream, "stats\r\n").await?;
    let clock = general.get("time").and_then(|time| time.parse::<i64>().ok());
    // It counts whole seconds.
    let clock = clock.map(|seconds| {
        let clock = asked.answered(seconds * 1000 + 500);
        Clock { uncertain: clock.uncertain + 1000, ..clock }
    });
    let settings = stats(&mut stream, "stats settings\r\n").await?;
    let number = |from: &HashMap<String, String>, name| {
        from.get(name).and_then(|value: &String| value.parse().ok())
    };
    Ok(MemcachedFacts {
        clock,
        item_size_max: number(&settings, "item_size_max"),
        evictions: number(&general, "evictions"),
        bytes: number(&general, "bytes"),
        limit: number(&general, "limit_maxbytes"),
    })
}

async fn stats(stream: &mut TcpStream, command: &str) -> std::io::Result<HashMap<String, String>> {
    stream.write_all(command.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"END\r\n") && !answer.ends_with(b"ERROR\r\n") {
        if stream.read_buf(&mut answer).await? == 0 || answer.len() > LIMIT {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let pairs = text.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

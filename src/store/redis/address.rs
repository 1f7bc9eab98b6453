//! Where a Redis server is, or several are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use redis::cluster::ClusterClientBuilder;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, TlsCertificates, TlsMode,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::error::RedisConnectError;
use super::link::Source;

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// How often a connection at rest is asked for, so that nothing on the way forgets it.
const KEEPALIVE: Duration = Duration::from_mins(1);
/// How often the driver looks for the right node of a cluster: a short while, after which the caller
/// may as well be told.
const CLUSTER_TRIES: u32 = 6;
/// The longest it waits in between, in milliseconds.
const CLUSTER_WAIT: u64 = 200;

/// Where a Redis server is, or where a cluster or the Sentinels are, and how to log in.
///
/// It is parsed from
///
/// * `redis://user:password@host:port/database`: one server;
/// * `redis+cluster://user:password@host:port,host:port`: Redis Cluster; some of its nodes;
/// * `redis+sentinel://user:password@host:port,host:port/service/database`: the master of a service,
///   by way of its Sentinels. User and password are those of the servers;
/// * `unix://user:password@/path/of/the/socket`: one server on this machine.
///
/// With `rediss` in place of `redis` connections are encrypted, those to Sentinels too. Everything but
/// the hosts may be left out, and characters that mean something in an address are written as `%40`. It
/// has no options: what follows a `?` is not part of it.
///
/// # Example
///
/// ```
/// use django_session::store::{RedisAddress, RedisCache};
///
/// let address: RedisAddress = "rediss://sessions:p%40ssword@cache.internal/1".parse()?;
/// // Nothing is sent yet.
/// let cache = RedisCache::new(&address)?;
///
/// let error = "redis://cache.internal/sessions".parse::<RedisAddress>().unwrap_err();
/// assert!(error.to_string().ends_with("the database is not a number"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RedisAddress {
    topology: Topology,
    login: Login,
    sentinel_login: Login,
    database: u32,
    tls: bool,
    ca: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Topology {
    Cluster(Vec<Place>),
    Sentinel(Vec<Place>, String),
    Server(Place),
    Unix(PathBuf),
}

#[derive(Clone)]
struct Place {
    host: String,
    port: u16,
}

#[derive(Clone, Default)]
struct Login {
    user: Option<String>,
    password: Option<String>,
}

impl RedisAddress {
    /// Sets the certificate authorities that may vouch for the servers, as PEM, in place of those that
    /// browsers know.
    #[must_use]
    pub fn with_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Sets the number of the database.
    #[must_use]
    pub fn with_database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// Sets the user, or none for the default one, and the password for the Sentinels themselves, which
    /// need no login unless told.
    #[must_use]
    pub fn with_sentinel_login(mut self, user: Option<&str>, password: &str) -> Self {
        self.sentinel_login =
            Login { user: user.map(Into::into), password: Some(password.to_owned()) };
        self
    }

    /// The way there.
    pub(super) fn source(&self) -> Result<Source, RedisConnectError> {
        let tls = self.tls.then(|| self.certificates()).transpose()?;
        match &self.topology {
            Topology::Server(place) => {
                Ok(Source::Server(self.client(self.addr(place), tls.as_ref())?))
            }
            Topology::Unix(path) => {
                Ok(Source::Server(self.client(ConnectionAddr::Unix(path.clone()), None)?))
            }
            Topology::Cluster(places) => {
                let nodes = places.iter().map(|place| self.client(self.addr(place), tls.as_ref()));
                let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
                let infos = nodes.iter().map(|node| node.get_connection_info().clone());
                let mut builder = ClusterClientBuilder::new(infos)
                    .retries(CLUSTER_TRIES)
                    .min_retry_wait(10)
                    .max_retry_wait(CLUSTER_WAIT)
                    .tcp_settings(tcp_settings());
                if let Some(tls) = tls {
                    builder = builder.certs(tls);
                }
                Ok(Source::Cluster { client: builder.build().map_err(unusable)?, nodes })
            }
            Topology::Sentinel(places, service) => {
                let places = places.iter().map(|place| self.addr(place));
                let master = SentinelServerType::Master;
                let mut builder = SentinelClientBuilder::new(places, service, master)
                    .map_err(unusable)?
                    .set_client_to_redis_db(self.database.into())
                    .set_client_to_redis_tcp_settings(tcp_settings());
                if let Some(user) = &self.login.user {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = &self.login.password {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(user) = &self.sentinel_login.user {
                    builder = builder.set_client_to_sentinel_username(user);
                }
                if let Some(password) = &self.sentinel_login.password {
                    builder = builder.set_client_to_sentinel_password(password);
                }
                if let Some(tls) = tls {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(tls.clone())
                        .set_client_to_sentinel_certificates(tls);
                }
                Ok(Source::sentinel(builder.build().map_err(unusable)?))
            }
        }
    }

    fn addr(&self, place: &Place) -> ConnectionAddr {
        let Place { host, port } = place.clone();
        if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }

    fn client(
        &self,
        addr: ConnectionAddr,
        tls: Option<&TlsCertificates>,
    ) -> Result<Client, RedisConnectError> {
        let mut login =
            RedisConnectionInfo::default().set_db(self.database.into()).set_skip_set_lib_name();
        if let Some(user) = &self.login.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.login.password {
            login = login.set_password(password);
        }
        let info = addr.into_connection_info().map_err(unusable)?;
        let info = info.set_redis_settings(login).set_tcp_settings(tcp_settings());
        match tls {
            Some(tls) => Client::build_with_tls(info, tls.clone()),
            None => Client::open(info),
        }
        .map_err(unusable)
    }

    fn certificates(&self) -> Result<TlsCertificates, RedisConnectError> {
        // Without this it depends on what else is in the program whether there is one, and the first
        // encrypted connection would panic. It is the one that the SQL stores use.
        if CryptoProvider::get_default().is_none() {
            // Somebody else may have been faster, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let none = RedisConnectError::address("the certificates of the authorities are not PEM");
        match &self.ca {
            Some(pem) if !matches!(CertificateDer::pem_slice_iter(pem).next(), Some(Ok(_))) => {
                Err(none)
            }
            ca => Ok(TlsCertificates { client_tls: None, root_cert: ca.clone() }),
        }
    }
}

/// The text of the driver's error may repeat the address.
fn unusable(_: redis::RedisError) -> RedisConnectError {
    RedisConnectError::address("the driver does not accept it")
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE))
}

impl FromStr for RedisAddress {
    type Err = RedisConnectError;

    fn from_str(url: &str) -> Result<Self, RedisConnectError> {
        let malformed = RedisConnectError::address;
        let (scheme, rest) = url.split_once("://").ok_or(malformed("it has no scheme"))?;
        if rest.contains(['?', '#']) {
            return Err(malformed("it has options"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, places) = match authority.rsplit_once('@') {
            Some((login, places)) => (Login::parse(login)?, places),
            None => (Login::default(), authority),
        };
        let scheme = scheme.to_ascii_lowercase();
        let (topology, database) = match &*scheme {
            "redis" | "rediss" => {
                (Topology::Server(Place::parse(places, SERVER_PORT)?), parse_database(path)?)
            }
            "redis+cluster" | "rediss+cluster" => {
                (Topology::Cluster(Place::parse_all(places, SERVER_PORT)?), parse_database(path)?)
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (service, database) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(malformed("it does not name the service"));
                }
                let places = Place::parse_all(places, SENTINEL_PORT)?;
                (Topology::Sentinel(places, decode(service)?), parse_database(database)?)
            }
            "unix" | "redis+unix" => {
                if !places.is_empty() || path.is_empty() {
                    return Err(malformed("a socket is a path that begins with a slash"));
                }
                (Topology::Unix(PathBuf::from(format!("/{}", decode(path)?))), 0)
            }
            _ => {
                return Err(malformed(
                    "it must begin with redis://, redis+cluster://, redis+sentinel://, the same with \
                     rediss, or unix://",
                ));
            }
        };
        let sentinel_login = Login::default();
        let tls = scheme.starts_with("rediss");
        Ok(Self { topology, login, sentinel_login, database, tls, ca: None })
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, RedisConnectError> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() && password.is_empty() {
            return Ok(Self::default());
        }
        let user = (!user.is_empty()).then(|| decode(user)).transpose()?;
        // A user may have an empty password, as with redis-py.
        Ok(Self { user, password: Some(decode(password)?) })
    }
}

impl Place {
    fn parse_all(text: &str, port: u16) -> Result<Vec<Self>, RedisConnectError> {
        text.split(',').map(|place| Self::parse(place, port)).collect()
    }

    fn parse(text: &str, default: u16) -> Result<Self, RedisConnectError> {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => {
                let port = rest.strip_prefix(':');
                (host, Some(port.ok_or(RedisConnectError::address("the port is not a number"))?))
            }
            Some(None) => return Err(RedisConnectError::address("a bracket is not closed")),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(RedisConnectError::address("it does not name the host"));
        }
        let port = match port.map(number) {
            None => default,
            Some(Some(port)) if port != 0 => port,
            Some(_) => return Err(RedisConnectError::address("the port is not a number")),
        };
        Ok(Self { host: decode(host)?, port })
    }
}

fn parse_database(path: &str) -> Result<u32, RedisConnectError> {
    match path.strip_suffix('/').unwrap_or(path) {
        "" => Ok(0),
        text => number(text).ok_or(RedisConnectError::address("the database is not a number")),
    }
}

/// A number of digits alone.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Undoes percent-encoding, as Python does: a `%` that stands for nothing stays one.
fn decode(text: &str) -> Result<String, RedisConnectError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(RedisConnectError::address("a part of it is no text")),
    }
}

/// Without login, hosts and certificates.
impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.topology {
            Topology::Cluster(_) => "cluster",
            Topology::Sentinel(..) => "sentinel",
            Topology::Server(_) => "server",
            Topology::Unix(_) => "unix",
        };
        f.debug_struct("RedisAddress")
            .field("kind", &format_args!("{kind}"))
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> RedisAddress {
        url.parse().unwrap()
    }

    fn places(address: &RedisAddress) -> Vec<(&str, u16)> {
        let places = match &address.topology {
            Topology::Cluster(places) | Topology::Sentinel(places, _) => &places[..],
            Topology::Server(place) => std::slice::from_ref(place),
            Topology::Unix(_) => &[],
        };
        places.iter().map(|place| (&*place.host, place.port)).collect()
    }

    fn login(address: &RedisAddress) -> (Option<&str>, Option<&str>) {
        (address.login.user.as_deref(), address.login.password.as_deref())
    }

    #[test]
    fn every_part_of_an_address_is_understood() {
        let address = parse("redis://user:p%40ss:w%2Ford@cache.internal:7000/3");
        assert_eq!(places(&address), [("cache.internal", 7000)]);
        assert_eq!(login(&address), (Some("user"), Some("p@ss:w/ord")));
        assert_eq!((address.database, address.tls), (3, false));

        let address = parse("REDISS://:secret@[::1]/");
        assert_eq!(places(&address), [("::1", 6379)]);
        assert_eq!(login(&address), (None, Some("secret")));
        assert!(address.tls);

        let address = parse("redis+cluster://a,b:7001,[fe80::1]:7002");
        assert_eq!(places(&address), [("a", 6379), ("b", 7001), ("fe80::1", 7002)]);
        assert_eq!(login(&address), (None, None));

        let address = parse("rediss+sentinel://user@a,b:26380/the%20service/5");
        assert_eq!(places(&address), [("a", 26379), ("b", 26380)]);
        assert_eq!(login(&address), (Some("user"), Some("")));
        let Topology::Sentinel(_, service) = &address.topology else { panic!() };
        assert_eq!((&**service, address.database, address.tls), ("the service", 5, true));

        let address = parse("unix://user:secret@/run/redis%20one.sock").with_database(2);
        let Topology::Unix(path) = &address.topology else { panic!() };
        assert_eq!(path.to_str(), Some("/run/redis one.sock"));
        assert_eq!((login(&address), address.database), ((Some("user"), Some("secret")), 2));
    }

    #[test]
    fn every_address_makes_a_client() {
        for url in [
            "redis://h",
            "rediss://u:p@h:1/2",
            "redis+cluster://u:p@h,i",
            "rediss+cluster://u:p@h,i",
            "redis+sentinel://u:p@h,i/s/1",
            "rediss+sentinel://u:p@h,i/s",
            "unix:///run/redis.sock",
        ] {
            assert!(parse(url).with_sentinel_login(None, "p").source().is_ok(), "{url}");
        }
        assert!(parse("rediss://h").with_ca("no certificate").source().is_err());
    }

    #[test]
    fn what_is_malformed_is_refused_and_not_repeated() {
        for url in [
            "",
            "hunter2",
            "hunter2://h",
            "redis://",
            "redis://hunter2@",
            "redis://h:hunter2",
            "redis://h:0",
            "redis://h:+1",
            "redis://h:99999",
            "redis://h/hunter2",
            "redis://h/-1",
            "redis://h/+1",
            "redis://h/1/2",
            "redis://h?hunter2",
            "redis://h#insecure",
            "redis://hunter2%ff@h",
            "redis://[::1",
            "redis://[::1]hunter2",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+sentinel://a",
            "redis+sentinel://a//1",
            "redis+sentinel://a/s/hunter2",
            "unix://hunter2",
            "unix://hunter2/path",
            "unix://",
        ] {
            let error = url.parse::<RedisAddress>().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{url}: {shown}");
        }
    }

    #[test]
    fn a_shown_address_holds_no_secret() {
        let address = parse("redis://hunter2:hunter2@hunter2/1").with_ca("hunter2");
        let address = address.with_sentinel_login(Some("hunter2"), "hunter2");
        let shown = format!("{address:?} {address:#?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

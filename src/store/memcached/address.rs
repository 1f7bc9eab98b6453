//! Where a server is, in the spellings of Django's `LOCATION`.

/// The port of a server that names none.
const PORT: u16 = 11211;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { host: Box<str>, port: u16 },
    Unix { path: Box<str> },
}

impl Address {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(path) =
            text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text))
        {
            return (!path.is_empty()).then(|| Self::Unix { path: path.into() });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, PORT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // Without brackets a colon is that of a weight, or of an address of which a part looks like a port.
        let is_clear = bare.is_some() || !host.contains(':');
        let host = bare.unwrap_or(host);
        (is_clear && !host.is_empty()).then(|| Self::Tcp { host: host.into(), port })
    }

    /// What pymemcache calls it, which decides which keys it has.
    pub(super) fn node(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix { path } => path.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_spelled_as_in_django() {
        for (text, node) in [
            ("localhost", Some("localhost:11211")),
            ("10.0.0.1:11212", Some("10.0.0.1:11212")),
            ("[::1]", Some("::1:11211")),
            ("[::1]:11212", Some("::1:11212")),
            ("unix:/run/memcached.sock", Some("/run/memcached.sock")),
            ("/run/memcached.sock", Some("/run/memcached.sock")),
            ("", None),
            (":11211", None),
            ("unix:", None),
            ("localhost:", None),
            ("localhost:http", None),
            ("localhost:70000", None),
            ("localhost:11211:2", None),
            ("::1", None),
            ("[]:1", None),
        ] {
            assert_eq!(
                Address::parse(text).map(|address| address.node()).as_deref(),
                node,
                "{text}"
            );
        }
    }
}

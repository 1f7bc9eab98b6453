//! Which of several servers has a key: as Django's two clients choose, or sessions are not found.

/// How keys are spread over several servers. With one server it makes no difference.
///
/// # Example
///
/// ```
/// use django_session::store::{MemcachedCache, MemcachedDistribution};
///
/// // CACHES = {"default": {"BACKEND": "….PyLibMCCache", "LOCATION": ["10.0.0.1", "10.0.0.2"]}}
/// let cache = MemcachedCache::new(["10.0.0.1", "10.0.0.2"])?
///     .with_distribution(MemcachedDistribution::Modula);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemcachedDistribution {
    /// As libmemcached does by default, so `PyLibMCCache` without `OPTIONS`: the hash of the key modulo
    /// the number of servers. The order of the servers counts.
    Modula,
    /// As pymemcache does by default, so `PyMemcacheCache` without `OPTIONS`: the server whose name
    /// hashes highest together with the key. Their order does not count, but their spelling does.
    #[default]
    Rendezvous,
}

impl MemcachedDistribution {
    /// The index of the server of `key`.
    pub(super) fn server(self, nodes: &[impl AsRef<str>], key: &str) -> usize {
        if nodes.len() < 2 {
            return 0;
        }
        match self {
            Self::Modula => one_at_a_time(key.as_bytes()) as usize % nodes.len(),
            Self::Rendezvous => {
                let score = |node: &str| {
                    murmur3_32(node.chars().chain(['-']).chain(key.chars()).map(low_byte))
                };
                let scores = nodes.iter().map(AsRef::as_ref).map(|node| (score(node), node));
                // Of equal scores the greater name wins.
                scores.enumerate().max_by_key(|(_, score)| *score).map_or(0, |(index, _)| index)
            }
        }
    }
}

/// pymemcache hashes characters, of which it takes the low eight bits.
#[expect(clippy::cast_possible_truncation, reason = "that is what it does")]
fn low_byte(char: char) -> u8 {
    char as u32 as u8
}

/// `MurmurHash3_x86_32` with seed 0, by Austin Appleby, who placed it in the public domain.
fn murmur3_32(bytes: impl Iterator<Item = u8>) -> u32 {
    let (mut hash, mut block, mut length) = (0_u32, 0_u32, 0_u32);
    let scramble =
        |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    for byte in bytes {
        block |= u32::from(byte) << (length % 4 * 8);
        length = length.wrapping_add(1);
        if length.is_multiple_of(4) {
            hash = (hash ^ scramble(block)).rotate_left(13);
            hash = hash.wrapping_mul(5).wrapping_add(0xe654_6b64);
            block = 0;
        }
    }
    hash ^= scramble(block) ^ length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The hash of Bob Jenkins that libmemcached calls its default.
fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut hash = 0_u32;
    for &byte in bytes {
        // A `char` of C, which has a sign where libmemcached is mostly built.
        hash = hash.wrapping_add_signed(byte.cast_signed().into());
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_their_authors() {
        for (text, hash) in
            [("", 0), ("a", 0x3c25_69b2), ("abcd", 0x43ed_676a), ("hello, world", 0x149b_bb7f)]
        {
            assert_eq!(murmur3_32(text.bytes()), hash, "{text}");
        }
        for (text, hash) in [
            ("", 0),
            ("a", 0xca2e_9442),
            ("The quick brown fox jumps over the lazy dog", 0x519e_91f5),
        ] {
            assert_eq!(one_at_a_time(text.as_bytes()), hash, "{text}");
        }
    }

    /// As pymemcache 4.0 and pylibmc 1.6.3 chose.
    #[test]
    fn servers_are_those_that_the_clients_choose() {
        let nodes =
            ["10.0.0.1:11211", "10.0.0.2:11211", "cache:11212", "::1:11211", "/run/memcached.sock"];
        for (key, modula, rendezvous) in [
            ("0123456789abcdef", [1, 1, 3, 0], [1, 1, 1, 1]),
            ("a", [0, 0, 2, 2], [1, 1, 1, 1]),
            ("é", [0, 2, 2, 2], [0, 2, 2, 2]),
            ("ключ", [0, 0, 2, 1], [0, 0, 0, 4]),
            ("shop:2:x", [0, 1, 2, 0], [0, 2, 3, 4]),
            ("\u{1F600}!", [0, 1, 2, 4], [1, 1, 1, 1]),
            (
                ":1:django.contrib.sessions.cacheabcdefghijklmnopqrstuvwxyz012345",
                [0, 2, 0, 3],
                [0, 2, 2, 2],
            ),
        ] {
            for (index, count) in (2..=5).enumerate() {
                let found = MemcachedDistribution::Modula.server(&nodes[..count], key);
                assert_eq!(found, modula[index], "{key}, {count}");
                let found = MemcachedDistribution::Rendezvous.server(&nodes[..count], key);
                assert_eq!(found, rendezvous[index], "{key}, {count}");
            }
        }
    }

    #[test]
    fn one_server_has_every_key() {
        for distribution in [MemcachedDistribution::Modula, MemcachedDistribution::Rendezvous] {
            assert_eq!(distribution.server(&["one"], "key"), 0);
        }
    }
}

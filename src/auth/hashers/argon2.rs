//! `Argon2PasswordHasher`.

use argon2::{Algorithm, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::HasherError;
use super::limits::{Limits, within};
use super::number::int;
use super::salt;

pub(super) const ALGORITHM: &str = "argon2";
const MALFORMED: HasherError = HasherError::Malformed { algorithm: ALGORITHM };
/// The bytes of a new hash, and of those that are not renewed: `argon2.DEFAULT_HASH_LENGTH`.
const HASH_LENGTH: usize = 32;
const MIN_SALT_LENGTH: usize = 8;

/// The parameters of Argon2id: encoded as `argon2$argon2id$v=19$m=102400,t=2,p=8$salt$hash`.
///
/// Passwords of Argon2i and Argon2d, and of version 16, are checked too, and renewed. The lanes are
/// computed one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Argon2 {
    /// How often the memory is passed over: 2 in Django. Passwords with another number are renewed.
    pub time_cost: u32,
    /// The memory in KiB: 102,400 in Django. Passwords with another size are renewed.
    pub memory_cost: u32,
    /// The lanes: 8 in Django. Passwords with another number are renewed.
    pub parallelism: u32,
    /// The bits of entropy that a salt has to have: 128 in Django. Passwords with less are renewed.
    pub salt_entropy: u32,
}

impl Default for Argon2 {
    fn default() -> Self {
        Self {
            time_cost: 2,
            memory_cost: 102_400,
            parallelism: 8,
            salt_entropy: super::hasher::SALT_ENTROPY,
        }
    }
}

/// What the C library reads in a stored password.
struct Stored {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Stored {
    /// `None` for what Django takes for the wrong password.
    fn parse(algorithm: Algorithm, text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let mut next = parts.next()?;
        let version = if let Some(version) = next.strip_prefix("v=") {
            next = parts.next()?;
            // Of others the library has none, so that nothing was ever made with them.
            Version::try_from(decimal(version)?).ok()?
        } else {
            Version::V0x10
        };
        let mut costs = next.split(',');
        let [m, t, p] = ["m=", "t=", "p="]
            .map(|name| costs.next().and_then(|cost| decimal(cost.strip_prefix(name)?)));
        let salt = base64(parts.next()?)?;
        let hash = base64(parts.next()?)?;
        if costs.next().is_some() || parts.next().is_some() || salt.len() < MIN_SALT_LENGTH {
            return None;
        }
        let params = Params::new(m?, t?, p?, Some(hash.len())).ok()?;
        Some(Self { algorithm, version, params, salt, hash })
    }
}

/// A number without a sign and without zeros before it.
fn decimal(text: &str) -> Option<u32> {
    let is_minimal = text == "0" || !text.starts_with('0');
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_minimal && is_digits { text.parse().ok() } else { None }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    base64_simd::STANDARD_NO_PAD.decode_to_vec(text).ok()
}

impl Argon2 {
    pub(super) fn make(&self, password: &str) -> Result<String, HasherError> {
        let salt = salt::salt(self.salt_entropy);
        let Self { time_cost: t, memory_cost: m, parallelism: p, .. } = *self;
        let params = Params::new(m, t, p, Some(HASH_LENGTH)).map_err(|_| MALFORMED)?;
        let hash = hash(Algorithm::Argon2id, Version::V0x13, params, password, salt.as_bytes())?;
        let [salt, hash] = [salt.as_bytes(), &hash]
            .map(|bytes| base64_simd::STANDARD_NO_PAD.encode_to_string(bytes));
        Ok(format!("{ALGORITHM}$argon2id$v=19$m={m},t={t},p={p}${salt}${hash}"))
    }

    pub(super) fn verify(
        &self,
        password: &str,
        encoded: &str,
        limits: &Limits,
    ) -> Result<bool, HasherError> {
        let (_, rest) = encoded.split_once('$').ok_or(MALFORMED)?;
        if !rest.is_ascii() {
            return Err(MALFORMED);
        }
        // The package looks at as many characters as the longest name has.
        let (algorithm, text) = if let Some(text) = rest.strip_prefix("argon2id") {
            (Algorithm::Argon2id, text.strip_prefix('$'))
        } else if let Some(text) = rest.strip_prefix("argon2i$") {
            (Algorithm::Argon2i, Some(text))
        } else if let Some(text) = rest.strip_prefix("argon2d$") {
            (Algorithm::Argon2d, Some(text))
        } else {
            return Err(MALFORMED);
        };
        let stored = text.and_then(|text| Stored::parse(algorithm, text));
        let Some(Stored { algorithm, version, params, salt, hash: expected }) = stored else {
            return Ok(false);
        };
        let (limit, own) = (limits.argon2_memory_cost, self.memory_cost);
        within("memory cost", params.m_cost().into(), limit.into(), own.into())?;
        let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
        let own = u64::from(self.memory_cost) * u64::from(self.time_cost);
        within("work", work, limits.argon2_work, own)?;
        let again = hash(algorithm, version, params, password, &salt)?;
        Ok(again.as_slice().ct_eq(&expected).into())
    }

    pub(super) fn must_update(&self, encoded: &str) -> Result<bool, HasherError> {
        let mut parts: Vec<&str> = encoded.split('$').skip(1).collect();
        if parts.len() == 4 {
            // Before there was a version in it.
            parts.insert(1, "v=18");
        }
        let [variety, version, costs, salt, hash] = parts[..] else { return Err(MALFORMED) };
        if !matches!(variety, "argon2id" | "argon2i" | "argon2d") {
            return Err(MALFORMED);
        }
        let mut found = [None; 4];
        for pair in std::iter::once(version).chain(costs.split(',')) {
            let Some((name, value)) = pair.split_once('=') else { return Err(MALFORMED) };
            let place = ["m", "p", "t", "v"].iter().position(|&known| known == name);
            // The last one counts.
            found[place.ok_or(MALFORMED)?] = Some(int(value).ok_or(MALFORMED)?);
        }
        let [Some(m), Some(p), Some(t), Some(v)] = found else { return Err(MALFORMED) };
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        if !salt.bytes().all(is_base64) || salt.len() % 4 == 1 {
            return Err(MALFORMED);
        }
        let [own_m, own_p, own_t] =
            [self.memory_cost, self.parallelism, self.time_cost].map(i64::from);
        Ok(variety != "argon2id"
            || (m, p, t, v) != (own_m, own_p, own_t, 19)
            || decoded_length(hash.chars().count()) != HASH_LENGTH
            || salt::is_weak(decoded_length(salt.len()), self.salt_entropy))
    }
}

/// How many bytes so many characters of base64 are.
fn decoded_length(length: usize) -> usize {
    length / 4 * 3 + (length % 4).saturating_sub(1)
}

fn hash(
    algorithm: Algorithm,
    version: Version,
    params: Params,
    password: &str,
    salt: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HasherError> {
    let mut hash = Zeroizing::new(vec![0; params.output_len().unwrap_or(HASH_LENGTH)]);
    argon2::Argon2::new(algorithm, version, params)
        .hash_password_into(password.as_bytes(), salt, &mut hash)
        .map_err(|_| MALFORMED)?;
    Ok(hash)
}

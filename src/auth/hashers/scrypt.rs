//! `ScryptPasswordHasher`.

use scrypt::Params;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::HasherError;
use super::limits::{Limits, within};
use super::number::int;
use super::salt;

pub(super) const ALGORITHM: &str = "scrypt";
const MALFORMED: HasherError = HasherError::Malformed { algorithm: ALGORITHM };

/// What OpenSSL, and with it Python, allows where nothing else is said.
const DEFAULT_MAXMEM: u64 = 32 << 20;

/// The parameters of scrypt: encoded as `scrypt$work_factor$salt$block_size$parallelism$hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scrypt {
    /// The cost N, a power of two: 2¹⁴ in Django. Passwords with another one are renewed.
    pub work_factor: u32,
    /// The block size r: 8 in Django. Passwords with another one are renewed.
    pub block_size: u32,
    /// The parallelism p: 5 since Django 5.1, 1 before. Passwords with another one are renewed.
    pub parallelism: u32,
    /// The most bytes of memory; 0, as in Django, for OpenSSL's 32 MiB. A password that takes more is
    /// refused.
    pub maxmem: u64,
    /// The bits of entropy of a new salt: 128 in Django.
    pub salt_entropy: u32,
}

impl Scrypt {
    /// With this parallelism, and Django's other parameters.
    pub fn new(parallelism: u32) -> Self {
        Self {
            work_factor: 1 << 14,
            block_size: 8,
            parallelism,
            maxmem: 0,
            salt_entropy: super::hasher::SALT_ENTROPY,
        }
    }
}

#[derive(Clone, Copy)]
struct Cost {
    n: i64,
    r: i64,
    p: i64,
}

impl Cost {
    /// Each as Python takes it: a parameter of zero is the hasher's own.
    fn or(self, own: Self) -> Self {
        let or = |given, own| if given == 0 { own } else { given };
        Self { n: or(self.n, own.n), r: or(self.r, own.r), p: or(self.p, own.p) }
    }

    fn work(self) -> u64 {
        [self.n, self.r, self.p].map(i64::unsigned_abs).into_iter().fold(1, u64::saturating_mul)
    }

    /// The parameters if OpenSSL takes them.
    fn params(self, maxmem: u64) -> Result<Params, HasherError> {
        let Self { n, r, p } = self;
        let [Ok(n), Ok(r), Ok(p)] = [n, r, p].map(u64::try_from) else { return Err(MALFORMED) };
        if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
            return Err(MALFORMED);
        }
        let limit = if maxmem == 0 { DEFAULT_MAXMEM } else { maxmem };
        let blocks = n.saturating_add(2).saturating_add(p);
        within("memory", r.saturating_mul(128).saturating_mul(blocks), limit, 0)?;
        // The rule of RFC 7914, by which OpenSSL goes.
        if r < 4 && n >= 1 << (16 * r) {
            return Err(MALFORMED);
        }
        let log_n = u8::try_from(n.ilog2()).map_err(|_| MALFORMED)?;
        let [Ok(r), Ok(p)] = [r, p].map(u32::try_from) else { return Err(MALFORMED) };
        if u64::from(r) * u64::from(p) >= 1 << 30 {
            return Err(MALFORMED);
        }
        Params::new(log_n, r, p).map_err(|_| MALFORMED)
    }
}

fn decode(encoded: &str) -> Result<(Cost, &str), HasherError> {
    let parts: Vec<&str> = encoded.split('$').take(7).collect();
    let [_, n, salt, r, p, _] = parts[..] else { return Err(MALFORMED) };
    let [Some(n), Some(r), Some(p)] = [n, r, p].map(int) else { return Err(MALFORMED) };
    Ok((Cost { n, r, p }, salt))
}

impl Scrypt {
    fn cost(&self) -> Cost {
        let [n, r, p] = [self.work_factor, self.block_size, self.parallelism].map(i64::from);
        Cost { n, r, p }
    }

    pub(super) fn make(&self, password: &str) -> Result<String, HasherError> {
        let salt = salt::salt(self.salt_entropy);
        Ok(std::mem::take(&mut *self.encode(password, &salt, self.cost())?))
    }

    pub(super) fn verify(
        &self,
        password: &str,
        encoded: &str,
        limits: &Limits,
    ) -> Result<bool, HasherError> {
        let (cost, salt) = decode(encoded)?;
        if salt.is_empty() {
            return Err(MALFORMED);
        }
        let cost = cost.or(self.cost());
        within("work", cost.work(), limits.scrypt_work, self.cost().work())?;
        // The whole text, as in Django: a number that is written otherwise is no match.
        let again = self.encode(password, salt, cost)?;
        Ok(again.as_bytes().ct_eq(encoded.as_bytes()).into())
    }

    pub(super) fn must_update(&self, encoded: &str) -> Result<bool, HasherError> {
        let (Cost { n, r, p }, _) = decode(encoded)?;
        let own = self.cost();
        Ok((n, r, p) != (own.n, own.r, own.p))
    }

    fn encode(
        &self,
        password: &str,
        salt: &str,
        cost: Cost,
    ) -> Result<Zeroizing<String>, HasherError> {
        let params = cost.params(self.maxmem)?;
        let mut hash = Zeroizing::new([0; 64]);
        scrypt::scrypt(password.as_bytes(), salt.as_bytes(), &params, &mut *hash)
            .map_err(|_| MALFORMED)?;
        let hash = Zeroizing::new(base64_simd::STANDARD.encode_to_string(*hash));
        let Cost { n, r, p } = cost;
        Ok(Zeroizing::new(format!("{ALGORITHM}${n}${salt}${r}${p}${}", *hash)))
    }
}

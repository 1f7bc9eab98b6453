//! What can go wrong with a password, other than being the wrong one.

use thiserror::Error;

/// A password that could be neither checked nor made.
///
/// No message holds a password, or any part of an encoded one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HasherError {
    /// What is stored asks for more work than [`Limits`](super::Limits) allow. Django would begin it.
    #[error("checking the stored password is refused: its {parameter} is above {limit}")]
    LimitExceeded {
        /// What is too large.
        parameter: &'static str,
        /// The limit, in the unit of the parameter.
        limit: u64,
    },
    /// What is stored names an algorithm, but is no password of it. Django raises an exception, which
    /// is an answer with status 500.
    #[error("the stored password is no password of {algorithm}")]
    Malformed {
        /// The algorithm.
        algorithm: &'static str,
    },
    /// There is no hasher that could be used.
    #[error("PASSWORD_HASHERS is empty, or names only hashers that are not known here")]
    NoHasher,
    /// The password is longer than can be hashed.
    #[error("the password is longer than {limit} bytes")]
    PasswordTooLong {
        /// The limit in bytes of UTF-8.
        limit: usize,
    },
    /// Passwords of this algorithm are checked, but none are made any more.
    #[error("no new passwords are made by {algorithm}")]
    ReadOnly {
        /// The algorithm.
        algorithm: &'static str,
    },
    /// None of the hashers has this algorithm (`ValueError` in Django).
    #[error("no hasher in PASSWORD_HASHERS has the algorithm of the password")]
    UnknownAlgorithm,
    /// The hasher for it is a class of the site's own.
    #[error("{hasher} in PASSWORD_HASHERS is a class of the site's own, which cannot run here")]
    Unsupported {
        /// The dotted path of the class.
        hasher: String,
    },
}

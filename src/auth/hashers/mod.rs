//! Passwords: `django.contrib.auth.hashers`, checked and made as Django does it.
//!
//! The column `password` of a user holds an encoded password such as
//! `pbkdf2_sha256$1000000$salt$hash`. [`PasswordHashers`] is the setting `PASSWORD_HASHERS`: the first
//! hasher makes new passwords, each of them checks those of its algorithm.
//!
//! Hashing is slow by intent: a tenth of a second and more, with 100 MiB of memory for Argon2. All of
//! this blocks, so call it in `tokio::task::spawn_blocking` or on a thread of your own.
//!
//! What a row of the table asks for is bounded by [`Limits`], which Django has no word for.
//! `tests/fixtures/hashers.jsonl.zst` holds what Django 4.2, 5.2 and 6.1 answered.

mod argon2;
mod bcrypt;
mod check;
mod digest;
mod error;
mod hasher;
mod limits;
mod number;
mod pbkdf2;
mod salt;
mod scrypt;
mod settings;

pub use argon2::Argon2;
pub use bcrypt::Bcrypt;
pub use check::{PasswordCheck, PasswordHashers, is_password_usable};
pub use digest::Salted;
pub use error::HasherError;
pub use hasher::{CustomHasher, PasswordHasher};
pub use limits::Limits;
pub use pbkdf2::Pbkdf2;
pub use scrypt::Scrypt;

/// What an encoded password that can never match begins with: `UNUSABLE_PASSWORD_PREFIX`.
pub const UNUSABLE_PASSWORD_PREFIX: &str = "!";

/// How many random characters follow it: `UNUSABLE_PASSWORD_SUFFIX_LENGTH`.
pub const UNUSABLE_PASSWORD_SUFFIX_LENGTH: usize = 40;

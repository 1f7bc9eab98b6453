//! Everything that is tested through the public API, in one binary.

mod codec;
mod session;
mod vectors;

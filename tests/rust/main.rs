//! Everything that is tested through the public API, in one binary.

mod codec;
mod layers;
mod properties;
mod session;
mod vectors;

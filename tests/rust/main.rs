//! Everything that is tested through the public API, in one binary.

#![allow(clippy::unwrap_used, reason = "in a test it says enough")]

mod codec;
mod layers;
mod middleware;
mod properties;
mod session;
mod vectors;
mod web;

//! Everything that is tested through the public API, in one binary.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod api;
mod cache;
mod cache_engines;
mod cached_db;
mod codec;
mod conflicts;
mod connect;
mod database_cache;
mod diagnose;
mod differential;
mod faults;
mod file;
mod formats;
mod fuzz;
mod layers;
mod lost_updates;
mod memcached;
mod middleware;
mod peer;
mod pickle;
mod pickle_oracle;
mod properties;
mod proxy;
mod redis;
mod replicated;
mod round_trips;
mod servers;
mod session;
mod sides;
mod signed_cookies;
mod signing;
mod stores;
mod tagged;
mod vectors;
mod web;

//! Backends: each file is one, all of the same shape, all kept to one contract.
//!
//! | store | feature | where sessions are kept |
//! |---|---|---|
//! | [`MemoryStore`] | | the memory of this process |

mod memory;

pub use memory::MemoryStore;

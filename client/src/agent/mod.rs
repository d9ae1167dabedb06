//! Connections that stay: a process of this user keeps authenticated sessions open, and lends each to one client at a time.
//!
//! A lent session belongs to its client alone until that client says goodbye with every channel closed. Whole frames pass
//! through unchanged, so flow control, totals and signals stay between client and host, no client can hold up another,
//! and a client that vanishes takes its session, and with it its commands, along.

use std::fs;
use std::os::unix::fs::MetadataExt;

mod client;
mod kept;
mod place;
mod relay;
mod serve;
mod wire;

pub use client::{Keeper, Lender};
pub use place::{Place, PlaceError};
pub use serve::serve;
pub use wire::Kept;

pub(crate) use client::{Borrowed, borrow};

/// The number of the network namespace that this process is in; none where proc(5) does not tell.
fn own_network() -> Option<u64> {
    fs::metadata("/proc/self/ns/net").ok().map(|about| about.ino())
}

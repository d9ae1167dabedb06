//! Connections that stay: a process of this user keeps authenticated sessions open, and lends each
//! to one client at a time.
//!
//! A lent session belongs to its client alone until that client has gone. Whole frames pass through
//! unchanged, so flow control, totals and signals stay between client and host, and no client can
//! hold up another. What a client leaves open, because it was killed or did not wait, is closed
//! behind it: its commands lose their client as with a connection.

use std::fs;
use std::os::unix::fs::MetadataExt;

mod client;
mod pool;
mod relay;
mod serve;
mod socket_path;
mod wire;

pub use client::{Keeper, Lender};
pub use serve::serve;
pub use socket_path::{Place, PlaceError, in_a_service};
pub use wire::Kept;

pub(crate) use client::{Borrowed, borrow};

/// The number of the network namespace that this process is in; none where proc(5) does not tell.
fn own_network() -> Option<u64> {
    fs::metadata("/proc/self/ns/net").ok().map(|about| about.ino())
}

//! The agent: a process of the user that keeps authenticated sessions open and lends each to one
//! client at a time.
//!
//! A client has a lent session to itself until it disconnects. Whole frames pass through unchanged,
//! so flow control, totals and signals stay between client and host, and no client can delay
//! another. If a client is killed or does not wait for its commands, the agent closes the channels
//! that it left open, and the host ends the commands as if their connection were lost.

use std::fs;
use std::os::unix::fs::MetadataExt;

mod client;
mod options;
mod pool;
mod relay;
mod serve;
mod socket_path;
mod wire;

pub use client::AgentClient;
pub use options::AgentOptions;
pub use serve::serve;
pub use socket_path::{SocketError, SocketPath, in_a_service};
pub use wire::PooledSession;

pub(crate) use client::{Borrowed, LentSession, borrow};

/// Returns the number of this process's network namespace, if proc(5) shows it.
fn network_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/net").ok().map(|metadata| metadata.ino())
}

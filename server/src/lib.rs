//! labshd as a library: the service, its configuration and its keys.
//!
//! The path of a command: `listener` accepts a connection, `authenticate` checks the client's proof
//! and the rules of its key, `session` passes frames to commands, `job` has the [`spawner`] start
//! one, and `pump` copies its streams.

pub mod account;
pub mod check;
pub mod config;
pub mod copying;
pub mod daemon;
pub mod embedded;
pub mod keys_command;
pub mod logs;
pub mod memory;
pub mod reload;
pub mod spawner;

mod accounts;
mod admission;
mod authenticate;
mod connection_log;
mod decoy_identity;
mod diagnostics;
mod entry;
mod environment;
mod explain;
mod foreign;
mod job;
mod key_share;
mod key_table;
mod keyring;
mod listen_address;
mod listen_check;
mod listener;
mod private_file;
mod pump;
mod refusal;
mod request;
mod server;
mod session;
mod shared;
mod start;
mod start_deadline;
mod streams;
mod terminal;
mod termination;
mod toml_fields;
mod user_cache;
mod users;
mod wake_order;

//! Everything that labshd does, as a library.
//!
//! A command's walk: [`listener`](self) accepts, `authenticate` lets in, `session` joins frames and
//! jobs, `job` asks the [`spawner`] and carries the streams by its `pump`s.

pub mod check;
pub mod config;
pub mod copying;
pub mod daemon;
pub mod diagnostics;
pub mod embedded;
pub mod entry;
pub mod environment;
pub mod keyring;
pub mod keys_command;
pub mod listen_address;
pub mod logs;
pub mod reload;
pub mod server;
pub mod spawner;
pub mod users;

mod admission;
mod authenticate;
mod decoy_identity;
mod explain;
mod job;
mod listener;
mod private_file;
mod pump;
mod request;
mod session;
mod shared;
mod streams;
mod terminal;
mod toml_fields;
mod user_cache;

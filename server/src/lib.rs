//! The labsh server.

pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod entry;
pub mod environment;
pub mod keyring;
pub mod keys_command;
pub mod listen_address;
pub mod logs;
pub mod mistakes;
pub mod source;

mod dummy;
mod fields;
mod private_file;

//! The labsh server.

pub mod config;
pub mod environment;
pub mod listen_address;
pub mod mistakes;

mod fields;
mod private_file;

//! The labsh client.

pub mod choices;
pub mod cli;
pub mod config;
pub mod config_file;
pub mod key_file;
pub mod key_store;
pub mod target;
pub mod terminal_text;

//! Hosts and groups of hosts, as files tell of them: what was said, and in which line of which file.
//!
//! This crate reads; it decides nothing. Which of two files wins, and what a flag overrides, is its caller's business.

pub mod hosts_toml;
mod source;

pub use source::{Group, Mistake, Origin, Room, Settings, Source};

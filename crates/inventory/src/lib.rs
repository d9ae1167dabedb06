//! Hosts and groups of hosts, as files tell of them: what was said, and in which line of which
//! file.
//!
//! This crate reads; it decides nothing. Which of two files wins, and what a flag overrides, is its
//! caller's business.

mod ansible;
pub mod ansible_ini;
mod ansible_pattern;
mod ansible_vars;
pub mod ansible_yaml;
pub mod clustershell;
pub mod hosts_toml;
mod names;
pub mod others;
mod qualified;
mod source;
pub mod ssh_config;
mod text;
mod words;
mod yaml;

pub use source::{Group, Room, Setting, Settings, Source};

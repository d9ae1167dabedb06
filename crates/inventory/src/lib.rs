//! Hosts and groups of hosts, as files tell of them: what was said, and in which line of which
//! file.
//!
//! This crate reads; it decides nothing. Which of two files wins, and what a flag overrides, is its
//! caller's business.

mod ansible;
pub mod clustershell;
pub mod external;
pub mod hosts_toml;
mod input_file;
mod names;
mod qualified;
mod shlex;
mod source;
pub mod ssh_config;
mod yaml;

pub use ansible::{ini as ansible_ini, yaml as ansible_yaml};
pub use source::{Group, Room, Setting, Settings, Source};

//! Reads hosts, groups and settings from `hosts.toml` and other tools' inventories, each value with
//! the file and line that it comes from.
//!
//! The caller decides which of two files takes precedence, and what a flag overrides.

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
pub use source::{Group, HostTable, Setting, Settings, Source};

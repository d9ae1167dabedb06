//! The user's keys: the store, and the files in it.

pub mod key_file;
pub mod key_store;

//! The user's keys: what a key file must be, and where keys are kept.

pub mod key_file;
pub mod key_store;

//! `labsh lesson`.

pub mod options;

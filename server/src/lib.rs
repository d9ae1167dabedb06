//! The labsh server.

pub mod spawner;
pub mod users;

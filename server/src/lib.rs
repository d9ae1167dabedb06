//! The labsh server.

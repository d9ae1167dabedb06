//! The labsh transport.

//! The labsh client.

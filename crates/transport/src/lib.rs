//! Sends and receives labsh's frames: sockets, TLS, and the loops between them and the protocol
//! crate, for client and server.
//!
//! A connection is a [`carrier::Carrier`]; [`framing`] reads and writes its frames;
//! [`multiplexer::Multiplexer`] lets many tasks use its channels.

pub mod carrier;
pub mod framing;
pub mod multiplexer;
pub mod random;
pub mod recycle;
pub mod runtime;
pub mod socket;
pub mod tls;

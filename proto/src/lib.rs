//! The labsh protocol without I/O: bytes, nonces and decisions go in, messages and events come out.
//!
//! The crate opens no socket, reads no file or clock, and neither starts threads nor awaits; as it
//! is `no_std`, the compiler checks that. `docs/PROTOCOL.md` is the normative text.
//!
//! A module imports only from its own layer and from lower ones:
//!
//! | layer | modules |
//! | --- | --- |
//! | 0 | [`limits`], [`environment`], [`signal_name`]; `kind`: what a header can name |
//! | 1 | [`error`]; `wire`, the only file that names bincode |
//! | 2 | [`frame`], [`message`], [`explanation`], [`key`], [`key_text`], [`auth`] |
//! | 3 | [`handshake`], [`flow`], `outgoing`, [`channel`] |
#![no_std]

extern crate alloc;

pub mod auth;
pub mod channel;
pub mod environment;
pub mod error;
pub mod explanation;
pub mod flow;
pub mod frame;
pub mod handshake;
pub mod key;
pub mod key_text;
mod kind;
pub mod limits;
pub mod message;
mod outgoing;
pub mod signal_name;
mod wire;

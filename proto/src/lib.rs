//! The labsh protocol, pure: bytes, nonces and time go in, messages and actions come out.
//!
//! Nothing here opens a socket, reads a file, looks at a clock, starts a thread or awaits: the
//! crate is `no_std`, so the compiler keeps it that way. `docs/PROTOCOL.md` is the normative text.
//!
//! | floor | modules |
//! | --- | --- |
//! | 0 | [`limits`], [`error`] (which only names types of floor 2) |
//! | 1 | `wire`, the only file that names bincode |
//! | 2 | [`frame`], [`message`], [`explanation`], [`key`], [`auth`] |
//! | 3 | [`handshake`], [`flow`], `outgoing`, [`channel`] |
#![no_std]

extern crate alloc;

pub mod auth;
pub mod channel;
pub mod error;
pub mod explanation;
pub mod flow;
pub mod frame;
pub mod handshake;
pub mod key;
pub mod key_text;
pub mod limits;
pub mod message;
mod outgoing;
mod wire;

//! End-to-end tests against the real programs, a file for each topic, named for what users notice.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod peer;
mod support;

mod crowds;
mod exit_status;
mod floods;
mod handshake;
mod hostile_peer;
mod hostile_server;
mod limits;
mod wrong_port;

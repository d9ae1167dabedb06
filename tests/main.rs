//! End-to-end tests against the real programs, a file for each topic, named for what users notice.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod as_root;
mod cli;
mod crowds;
mod documents;
mod exit_status;
mod floods;
mod handshake;
mod hostile_peer;
mod hostile_server;
mod inherited;
mod large_output;
mod limits;
mod many_at_once;
mod other_client;
mod peer;
mod reload;
mod shutdown;
mod signals;
mod stdin;
mod streams;
mod support;
mod wireshark;
mod wrong_port;

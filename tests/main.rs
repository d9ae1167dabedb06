//! End-to-end tests against the real programs, a file for each topic, named for what users notice.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;

mod as_root;
mod cli;
mod exit_status;
mod inherited;
mod large_output;
mod many_at_once;
mod reload;
mod shutdown;
mod signals;
mod stdin;
mod streams;

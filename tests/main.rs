//! End-to-end tests against the real programs, a file for each topic, named for what users notice.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;

mod documents;
mod exit_status;

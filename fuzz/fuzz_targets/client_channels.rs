//! Channels of a client with a hostile server.
#![no_main]

use labsh_proto::channel::Role;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| labsh_fuzz::converse(Role::Client, data));

//! Channels of a server with a hostile client.
#![no_main]

use labsh_proto::channel::Role;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| labsh_fuzz::converse(Role::Server, data));

//! Lines of key files from any text: each parsed key is written and parsed to the same key.
#![no_main]

use labsh_proto::key::{HostKey, Key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(line) = str::from_utf8(data) else { return };
    match Key::from_line(line) {
        Ok(key) => assert_eq!(Key::from_line(&key.to_line()), Ok(key)),
        Err(error) => drop(error.to_string()),
    }
    match HostKey::from_line(line) {
        Ok(key) => assert_eq!(HostKey::from_line(&key.to_line()), Ok(key)),
        Err(error) => drop(error.to_string()),
    }
});

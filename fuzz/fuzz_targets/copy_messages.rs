//! Messages of a file transfer from any bytes: each decoded message encodes to one that decodes to
//! the same.
#![no_main]

use labsh_copy::stream::Reader;
use labsh_copy::wire::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::new(data);
    loop {
        match reader.read() {
            Ok(Some(message)) => {
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                let again = Message::decode(bytes[4], &bytes[5..]);
                assert!(again.is_ok_and(|again| again == message));
            }
            Ok(None) => return,
            Err(error) => return drop(error.to_string()),
        }
    }
});

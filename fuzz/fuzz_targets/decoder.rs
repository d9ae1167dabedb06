//! Frames from any bytes: the same frames or the same error in pieces of any size.
#![no_main]

use labsh_proto::error::ProtocolError;
use labsh_proto::frame::{Decoder, Frame};
use labsh_proto::limits::MAX_BODY;
use libfuzzer_sys::fuzz_target;

/// Decodes the bytes in pieces of these sizes, repeatedly, up to the first error.
fn decode(bytes: &[u8], sizes: &[u8]) -> (Vec<Frame>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(usize::MAX, |size| usize::from(*size) + 1);
        let (piece, after) = rest.split_at(rest.len().min(size));
        rest = after;
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_frame(MAX_BODY) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

// The first byte is the number of sizes that follow; then come the bytes.
fuzz_target!(|data: &[u8]| {
    let Some((count, rest)) = data.split_first() else { return };
    let (sizes, bytes) = rest.split_at(rest.len().min(usize::from(*count)));
    let (frames, outcome) = decode(bytes, sizes);
    assert_eq!((&frames, &outcome), (&decode(bytes, &[]).0, &decode(bytes, &[]).1));
    if outcome.is_ok() {
        let again: Vec<u8> = frames
            .iter()
            .flat_map(|frame| [&frame.header().encode(), &frame.body[..]].concat())
            .collect();
        assert_eq!(again, bytes);
    }
});

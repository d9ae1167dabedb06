//! Decodes any bytes as every body: a value with exactly this encoding, or an error.
#![no_main]

use std::fmt::Debug;

use labsh_proto::explanation::Explained;
use labsh_proto::frame::{ChannelId, Frame, Kind};
use labsh_proto::message::{
    Body, Challenge, Credit, Ended, Eof, Exit, Goodbye, Open, Ping, Pong, Refuse, Resize, Response,
    Signal, Started, Stop, Welcome,
};
use libfuzzer_sys::fuzz_target;

fn check<B: Body + Debug>(frame: &Frame) {
    if let Ok(body) = B::from_frame(frame) {
        assert_eq!(body.frame(frame.channel).body, frame.body, "{body:?}");
    }
}

// The first byte selects the kind.
fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(*choice) % Kind::ALL.len()];
    let frame = Frame::new(kind, ChannelId::CONNECTION, body.to_vec());
    match kind {
        Kind::Challenge => check::<Challenge>(&frame),
        Kind::Response => check::<Response>(&frame),
        Kind::Welcome => check::<Welcome>(&frame),
        Kind::Refuse => check::<Refuse>(&frame),
        Kind::Ping => check::<Ping>(&frame),
        Kind::Pong => check::<Pong>(&frame),
        Kind::Goodbye => check::<Goodbye>(&frame),
        Kind::Open => {
            if let Ok(open) = Open::decode(body)
                && let Ok(again) = open.encode()
            {
                assert_eq!(again, body);
            }
        }
        Kind::Started => check::<Started>(&frame),
        Kind::Eof => check::<Eof>(&frame),
        Kind::Stop => check::<Stop>(&frame),
        Kind::Credit => check::<Credit>(&frame),
        Kind::Signal => check::<Signal>(&frame),
        Kind::Resize => check::<Resize>(&frame),
        Kind::Ended => check::<Ended>(&frame),
        Kind::Exit => check::<Exit>(&frame),
        Kind::Explained => check::<Explained>(&frame),
        Kind::Stdin | Kind::Stdout | Kind::Stderr | Kind::Close => {}
    }
});

//! A session that uses every operation of channels, for the fuzz targets of both roles.

use bytes::Bytes;
use labsh_proto::channel::{Channels, Event, Read, Role};
use labsh_proto::explanation::Explained;
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::{ChannelId, Decoder};
use labsh_proto::limits::MAX_BODY;
use labsh_proto::message::{
    CommandId, Open, Program, Refuse, RefuseCode, Resize, Signal, Status, Stream, Usage,
};

const STREAMS: [Stream; 3] = [Stream::Stdin, Stream::Stdout, Stream::Stderr];

/// Passes frames from `data` to one end, and takes an action before each, which a control byte
/// selects.
///
/// One control byte precedes each frame, so that a mutation of an action leaves the frames intact.
/// A frame that violates the protocol ends the run, as it ends the connection.
pub fn converse(role: Role, data: &[u8]) {
    let mut channels = Channels::new(role, 3, ConnectionBudget::new(Budget::new(1 << 22)));
    let mut decoder = Decoder::default();
    let mut rest = data;
    while let Some((action, after)) = rest.split_first() {
        act(&mut channels, role, *action);
        decoder.buffer().clear();
        decoder.buffer().extend_from_slice(after);
        let Ok(Some(frame)) = decoder.next_frame(MAX_BODY) else { return };
        rest = &after[after.len() - decoder.buffer().len()..];
        match channels.receive(frame) {
            Ok(Event::Opened(id, open)) => match open.decode() {
                Ok(open) if open.check().is_ok() => channels.started(id, 1),
                Ok(_) => channels.refuse(id, &Refuse::new(RefuseCode::BAD_COMMAND, "bad", "")),
                Err(_) => return,
            },
            Ok(Event::ExplainRequested(id, _)) => channels.explained(id, &Explained::default()),
            Ok(_) => {}
            Err(error) => {
                // Its message must not panic.
                let _ = error.to_string();
                return;
            }
        }
        let promised = channels.has_frame();
        assert_eq!(channels.next_frame().is_some(), promised);
    }
}

/// Takes an action: the low three bits select it, the next two a channel, the next two a stream.
fn act(channels: &mut Channels, role: Role, action: u8) {
    let id = ChannelId(u32::from(action >> 3 & 3) + 1);
    let stream = STREAMS[usize::from(action >> 5) % 3];
    match (action & 7, role) {
        (0, _) => {
            if let Read::Bytes(bytes) = channels.read(id, stream) {
                channels.consume(id, stream, bytes.len());
            }
        }
        (1, _) => {
            if let Ok(capacity) = channels.write_capacity(id, stream) {
                assert!(channels.write(id, stream, Bytes::from(vec![0; capacity])).is_ok());
            }
        }
        (2, _) => channels.finish(id, stream),
        (3, _) => channels.stop(id, stream),
        (4, Role::Client) => {
            let _ = if action & 8 == 0 {
                channels.open(&command())
            } else {
                channels.request_explanation(&command())
            };
        }
        (4, Role::Server) => channels.ended(id, Status::Exited(0)),
        (5, Role::Client) => channels.close(id),
        (5, Role::Server) => channels.exit(id, Status::Exited(0), false, Usage::default()),
        (6, Role::Client) => channels.signal(id, Signal { number: 15 }),
        (7, Role::Client) => {
            channels.resize(id, Resize { columns: 80, rows: 24, width: 0, height: 0 })
        }
        (_, _) => while channels.next_frame().is_some() {},
    }
}

fn command() -> Open {
    Open::new(CommandId([0; 16]), Program::Argv(vec![b"true".to_vec()]))
}

//! Both ends of a connection over a pipe of eight bytes: every read and every write is partial.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use labsh_proto::channel::{Channels, Completeness, Event, Role};
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::ChannelId;
use labsh_proto::limits;
use labsh_proto::message::{CommandId, Open, Program, Status, Stream, Until, Usage};
use labsh_transport::framing::FrameReader;
use labsh_transport::multiplexer::{Multiplexer, Room};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

const PIPE: usize = 8;

/// One end: its channels, and the events that its reading loop meets.
fn end(role: Role, link: DuplexStream) -> (Arc<Multiplexer>, mpsc::UnboundedReceiver<Event>) {
    let growth = ConnectionBudget::new(Budget::new(1 << 20));
    let multiplexer = Arc::new(Multiplexer::new(Channels::new(role, 4, growth)));
    let (mut reader, mut writer) = FrameReader::new(link).split();
    let writing = multiplexer.clone();
    tokio::spawn(async move { writing.write_frames(None, &mut writer).await });
    let (sender, events) = mpsc::unbounded_channel();
    let reading = multiplexer.clone();
    tokio::spawn(async move {
        while let Some(frame) = reader.next(limits::MAX_BODY).await.unwrap() {
            // Nobody listens any more once a test has seen what it wanted.
            let _ = sender.send(reading.receive(frame).unwrap());
            reading.wake();
        }
        reading.lose();
    });
    (multiplexer, events)
}

async fn next(
    events: &mut mpsc::UnboundedReceiver<Event>,
    wanted: impl Fn(&Event) -> bool,
) -> Event {
    loop {
        let event = events.recv().await.unwrap();
        if wanted(&event) {
            return event;
        }
    }
}

fn cat() -> Open {
    Open {
        command: CommandId([7; 16]),
        linger: 0,
        timeout: 0,
        until: Until::StreamsEnd,
        program: Program::Argv(vec![b"cat".to_vec()]),
        environment: Vec::new(),
        directory: None,
        user: None,
        terminal: None,
    }
}

async fn send(multiplexer: &Multiplexer, id: ChannelId, stream: Stream, mut bytes: Bytes) {
    while !bytes.is_empty() {
        let Ok(Room::Bytes(room)) = multiplexer.room(id, stream).await else { panic!("a reader") };
        let piece = bytes.split_to(bytes.len().min(room));
        multiplexer.with(|channels| channels.write(id, stream, piece)).unwrap();
    }
    multiplexer.with(|channels| channels.finish(id, stream));
}

/// What a server does for `cat`.
async fn echo(multiplexer: Arc<Multiplexer>, id: ChannelId) {
    multiplexer.with(|channels| channels.started(id, 1));
    while let Some(bytes) = multiplexer.read(id, Stream::Stdin).await.unwrap() {
        let Ok(Room::Bytes(room)) = multiplexer.room(id, Stream::Stdout).await else {
            panic!("a reader")
        };
        assert!(
            room >= bytes.len(),
            "credit and backlog are far above what an eight-byte pipe delivers at once"
        );
        multiplexer.with(|channels| {
            channels.consume(id, Stream::Stdin, bytes.len());
            channels.write(id, Stream::Stdout, bytes).unwrap();
        });
    }
    multiplexer.with(|channels| {
        channels.finish(id, Stream::Stdout);
        channels.finish(id, Stream::Stderr);
        channels.ended(id, Status::Exited(0));
        channels.exit(id, Status::Exited(0), false, Usage::default());
    });
}

#[tokio::test]
async fn every_byte_comes_back() {
    let (near, far) = tokio::io::duplex(PIPE);
    let (client, mut client_events) = end(Role::Client, near);
    let (server, mut server_events) = end(Role::Server, far);
    tokio::spawn(async move {
        let Event::Opened(id, open) =
            next(&mut server_events, |event| matches!(event, Event::Opened(..))).await
        else {
            unreachable!()
        };
        assert_eq!(open, cat());
        echo(server, id).await;
        // Its reading loop goes on until the client has gone.
        while server_events.recv().await.is_some() {}
    });

    let id = client.with(|channels| channels.open(&cat())).unwrap();
    let input: Bytes = (0..400_000_u32).flat_map(u32::to_be_bytes).collect();
    let sending = tokio::spawn({
        let (client, input) = (client.clone(), input.clone());
        async move { send(&client, id, Stream::Stdin, input).await }
    });
    let mut output = Vec::new();
    while let Some(bytes) = client.read(id, Stream::Stdout).await.unwrap() {
        output.extend_from_slice(&bytes);
        client.with(|channels| channels.consume(id, Stream::Stdout, bytes.len()));
    }
    sending.await.unwrap();
    assert!(output == input, "{} of {} bytes", output.len(), input.len());
    let exited = next(&mut client_events, |event| matches!(event, Event::Exited(..))).await;
    assert!(matches!(exited, Event::Exited(_, exit,
            Completeness::Complete) if exit.stdout == input.len() as u64));
}

#[tokio::test]
async fn a_lost_connection_wakes_everyone_who_waits() {
    let (near, far) = tokio::io::duplex(PIPE);
    let (client, _events) = end(Role::Client, near);
    let id = client.with(|channels| channels.open(&cat())).unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.read(id, Stream::Stdout).await }
    });
    drop(far);
    assert!(waiting.await.unwrap().is_err());
    assert!(client.ping().await.is_err());
}

//! Both ends of a connection over a pipe of eight bytes: every read and every write is partial.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use labsh_proto::channel::{Channels, Completeness, Event, Role};
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::ChannelId;
use labsh_proto::limits;
use labsh_proto::message::{CommandId, Open, Program, Status, Stream, Usage};
use labsh_transport::framing::FrameReader;
use labsh_transport::multiplexer::{Multiplexer, WriteCapacity};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

const PIPE: usize = 8;

/// Starts one end; returns its channels and the events of its reading loop.
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
            // An error means that the test expects no more events.
            let _ = sender.send(reading.receive(frame).unwrap());
            reading.wake();
        }
        reading.mark_lost();
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
    Open::new(CommandId([7; 16]), Program::Argv(vec![b"cat".to_vec()]))
}

async fn send(multiplexer: &Multiplexer, id: ChannelId, stream: Stream, mut bytes: Bytes) {
    while !bytes.is_empty() {
        let Ok(WriteCapacity::Bytes(capacity)) = multiplexer.write_capacity(id, stream).await
        else {
            panic!("a reader")
        };
        let piece = bytes.split_to(bytes.len().min(capacity));
        multiplexer.with(|channels| channels.write(id, stream, piece)).unwrap();
    }
    multiplexer.with(|channels| channels.finish(id, stream));
}

/// Runs the server's side of `cat`.
async fn echo(multiplexer: Arc<Multiplexer>, id: ChannelId) {
    multiplexer.with(|channels| channels.started(id, 1));
    while let Some(bytes) = multiplexer.read(id, Stream::Stdin).await.unwrap() {
        let Ok(WriteCapacity::Bytes(capacity)) =
            multiplexer.write_capacity(id, Stream::Stdout).await
        else {
            panic!("a reader")
        };
        assert!(
            capacity >= bytes.len(),
            "window and backlog are far larger than what an eight-byte pipe delivers at once"
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
    let (client_link, server_link) = tokio::io::duplex(PIPE);
    let (client, mut client_events) = end(Role::Client, client_link);
    let (server, mut server_events) = end(Role::Server, server_link);
    tokio::spawn(async move {
        let Event::Opened(id, open) =
            next(&mut server_events, |event| matches!(event, Event::Opened(..))).await
        else {
            unreachable!()
        };
        assert_eq!(open.decode(), Ok(cat()));
        echo(server, id).await;
        // Keep receiving events until the client has closed the connection.
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
async fn a_lost_connection_wakes_every_waiting_task() {
    let (client_link, server_link) = tokio::io::duplex(PIPE);
    let (client, _events) = end(Role::Client, client_link);
    let id = client.with(|channels| channels.open(&cat())).unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.read(id, Stream::Stdout).await }
    });
    drop(server_link);
    assert!(waiting.await.unwrap().is_err());
    assert!(client.ping().await.is_err());
}

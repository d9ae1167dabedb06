//! A relay in the middle: it forwards a log-in, and changes what comes after it.

use std::io;

use super::connection::Connection;
use super::mac::{Block, is_valid, respond};
use super::text;
use crate::random::random;
use crate::stage::{LessonResult, Stage};

pub(super) fn run(stage: &mut Stage, key: &Block) -> LessonResult {
    stage.scene(text::IN_THE_MIDDLE)?;
    stage.say(text::LURED)?;
    let Relayed { mut client, mut server, admitted } = relay(key, false)?;
    stage.fact(admitted, text::RELAY_ADMITTED)?;
    stage.say(text::COMMAND_CHANGED)?;
    client.client_sends(("cat notes", "cat notes"), b"cat notes")?;
    let sent: [u8; 9] = client.server_receives()?;
    server.client_sends(("rm  notes", "rm  notes"), b"rm  notes")?; // The relay's own command.
    let arrived: [u8; 9] = server.server_receives()?;
    stage.draw(&client.to_server)?;
    stage.draw(&server.to_server)?;
    stage.fact(&sent == b"cat notes" && &arrived == b"rm  notes", text::LOG_IN_PROTECTS_NOTHING)?;
    stage.fact(!relay(key, true)?.admitted, text::CHANNEL_BINDING)?;
    stage.say(text::ADDRESSES_ARE_AN_EXAMPLE)
}

struct Relayed {
    /// The connection of the client to the relay.
    client: Connection,
    /// The connection of the relay to the server.
    server: Connection,
    /// Whether the server has admitted the relay.
    admitted: bool,
}

/// Relays a log-in; with `bind`, the response depends on the addresses of the connection.
fn relay(key: &Block, bind: bool) -> io::Result<Relayed> {
    let mut client = Connection::new(text::CLIENT, text::RELAY)?;
    let mut server = Connection::new(text::RELAY, text::SERVER)?;
    let binding = |client, server| if bind { format!("{client} {server}") } else { String::new() };

    let challenge: Block = random()?;
    server.server_sends(text::CHALLENGE, &challenge)?;
    let relayed: Block = server.client_receives()?;
    client.server_sends(text::CHALLENGE, &relayed)?;
    let received: Block = client.client_receives()?;
    // The addresses as the client sees them.
    let seen = binding(client.client.local_addr()?, client.client.peer_addr()?);
    client.client_sends(text::RESPONSE, &respond(key, &[&received, seen.as_bytes()])?)?;
    let relayed: Block = client.server_receives()?;
    server.client_sends(text::RESPONSE, &relayed)?;
    // The addresses as the server sees them.
    let seen = binding(server.server.peer_addr()?, server.server.local_addr()?);
    let admitted = is_valid(key, &[&challenge, seen.as_bytes()], &server.server_receives()?)?;
    Ok(Relayed { client, server, admitted })
}

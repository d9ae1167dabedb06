//! Reflection: an attacker makes the server answer its own challenge.

use std::io;

use super::connection::Connection;
use super::mac::{Block, is_valid, respond};
use super::text;
use crate::random::random;
use crate::stage::{LessonResult, Stage};

pub(super) fn run(stage: &mut Stage, key: &Block) -> LessonResult {
    stage.scene(text::REFLECTION)?;
    stage.say(text::MUTUAL)?;
    let Reflected { first, second, admitted } = reflect(key, b"", b"")?;
    stage.say(text::FIRST_CONNECTION)?;
    stage.draw(&first.to_client)?;
    stage.say(text::SECOND_CONNECTION)?;
    stage.draw(&second.to_server)?;
    stage.say(text::SERVER_RESPONDS)?;
    stage.draw(&second.to_client)?;
    stage.say(text::RESPONSE_CARRIED_OVER)?;
    stage.draw(&first.to_server)?;
    let (to_server, to_client) = (first.to_server.record(), second.to_client.record());
    let sent = to_server.steps.last().map(|step| &step.bytes);
    let computed = to_client.steps.first().map(|step| &step.bytes);
    stage.fact(admitted && sent == computed, text::ADMITTED_BY_OWN_RESPONSE)?;
    stage.fact(!reflect(key, b"client", b"server")?.admitted, text::ROLES_IN_THE_MAC)
}

struct Reflected {
    first: Connection,
    second: Connection,
    /// Whether the server has admitted the attacker.
    admitted: bool,
}

/// Reflects a challenge, between ends that put these roles into their responses.
fn reflect(key: &Block, client: &[u8], server: &[u8]) -> io::Result<Reflected> {
    let mut first = Connection::new(text::ATTACKER, text::FIRST_SERVER)?;
    first.client_sends(text::CHALLENGE, &random::<32>()?)?;
    let challenge = serve(&mut first, key, server)?;
    let _response: Block = first.client_receives()?;
    let received: Block = first.client_receives()?;

    let mut second = Connection::new(text::ATTACKER, text::SECOND_SERVER)?;
    second.client_sends(text::FIRST_CHALLENGE, &received)?;
    serve(&mut second, key, server)?;
    let reflected: Block = second.client_receives()?;

    first.client_sends(text::REFLECTED_RESPONSE, &reflected)?;
    let admitted = is_valid(key, &[client, &challenge], &first.server_receives()?)?;
    Ok(Reflected { first, second, admitted })
}

/// The server on each connection: it responds to the client's challenge, and sends its own.
fn serve(connection: &mut Connection, key: &Block, role: &[u8]) -> io::Result<Block> {
    let received: Block = connection.server_receives()?;
    connection.server_sends(text::RESPONSE, &respond(key, &[role, &received])?)?;
    let challenge: Block = random()?;
    connection.server_sends(text::CHALLENGE, &challenge)?;
    Ok(challenge)
}

//! HMAC challenge and response: how a server recognises a client, four attacks on protocols that
//! are almost right, and what stops each of them.

mod comparison;
mod connection;
mod mac;
mod middle;
mod reflection;
mod text;

use std::io;

use crate::flow::Flow;
use crate::random::random;
use crate::stage::{LessonError, LessonResult, Stage};
use connection::Connection;
use mac::{Block, is_valid, respond};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let key = random()?; // Both ends have it beforehand; it is never sent.
    let recorded = challenge_and_response(stage, &key)?;
    replay(stage, &key, &recorded)?;
    reflection::run(stage, &key)?;
    middle::run(stage, &key)?;
    comparison::run(stage, &key)
}

/// One log-in: the server's challenge, the client's response, and whether it is valid.
fn log_in(connection: &mut Connection, server_key: &Block, client_key: &Block) -> io::Result<bool> {
    let challenge: Block = random()?; // Different each time, and unpredictable.
    connection.server_sends(text::CHALLENGE, &challenge)?;
    let received: Block = connection.client_receives()?;
    connection.client_sends(text::RESPONSE, &respond(client_key, &[&received])?)?;
    is_valid(server_key, &[&challenge], &connection.server_receives()?)
}

/// Returns the response as an eavesdropper has recorded it.
fn challenge_and_response(stage: &mut Stage, key: &Block) -> Result<Block, LessonError> {
    stage.scene(text::CHALLENGE_AND_RESPONSE)?;
    stage.say(text::HMAC)?;
    let mut connection = Connection::new(text::CLIENT, text::SERVER)?;
    let admitted = log_in(&mut connection, key, key)?;
    stage.draw(&connection.to_client)?;
    stage.draw(&connection.to_server)?;
    let sent = |flow: &Flow| flow.record().steps[0].bytes.clone();
    let (challenge, response) = (sent(&connection.to_client), sent(&connection.to_server));
    stage.list(text::EAVESDROPPED, text::eavesdropped(&hex(&challenge), &hex(&response)))?;
    stage.fact(admitted, text::CLIENT_ADMITTED)?;
    let seen = [&challenge[..], &response].concat();
    stage.fact(!seen.windows(key.len()).any(|bytes| bytes == key), text::KEY_NOT_SENT)?;
    let wrong = random()?;
    let admitted = log_in(&mut Connection::new(text::CLIENT, text::SERVER)?, key, &wrong)?;
    stage.fact(!admitted, text::WRONG_KEY_REFUSED)?;
    response[..].try_into().map_err(|_| io::Error::other("a response has 32 bytes").into())
}

fn replay(stage: &mut Stage, key: &Block, recorded: &Block) -> LessonResult {
    stage.scene(text::REPLAY)?;
    stage.say(text::RECORDING)?;
    let constant = [7; 32];
    let response = respond(key, &[&constant])?; // Of a legitimate client, recorded on the way.
    stage.fact(log_in_with_recording(key, &constant, &response)?, text::CONSTANT_CHALLENGE)?;
    stage.fact(!log_in_with_recording(key, &random()?, recorded)?, text::FRESH_CHALLENGE)
}

/// An attacker without the key sends a recorded response; returns whether the server admits it.
fn log_in_with_recording(key: &Block, challenge: &Block, recorded: &Block) -> io::Result<bool> {
    let mut connection = Connection::new(text::ATTACKER, text::SERVER)?;
    connection.server_sends(text::CHALLENGE, challenge)?;
    let _: Block = connection.client_receives()?;
    connection.client_sends(text::RECORDED_RESPONSE, recorded)?;
    is_valid(key, &[challenge], &connection.server_receives()?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The same work on every server, timed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::clients::{Client, with_server};
use super::tasks::{blocking_tasks, tasks};
use super::trial::Trial;
use super::{Server, sequential, text, threads};
use crate::language::Text;
use crate::sockets::joined;
use crate::stage::{LessonResult, Stage};

/// How many clients come at once.
const CLIENTS: usize = 8;

/// How long the server waits for each of them, as for a disk, a database or a command.
const WORK_TIME: Duration = Duration::from_millis(50);

pub(super) fn run(stage: &mut Stage) -> LessonResult {
    stage.scene(text::TIMED)?;
    stage.say(text::work(CLIENTS, WORK_TIME.as_millis()))?;
    let servers: [Server; 4] = [sequential, threads, tasks, blocking_tasks];
    let mut measured = Vec::new();
    for server in servers {
        let trial = Trial::new(CLIENTS, WORK_TIME);
        let began = Instant::now();
        with_server(server, &trial, |address| all_at_once(address, &trial))?;
        measured.push((began.elapsed(), trial.max_busy()));
    }
    let lines = text::SERVERS.iter().zip(&measured);
    let lines = lines.map(|(name, (time, at_once))| text::time(*name, time.as_millis(), *at_once));
    stage.list(text::MEASURED, Text::lines(lines))?;
    let one_at_a_time =
        |(time, at_once): (Duration, usize)| at_once == 1 && time >= WORK_TIME * CLIENTS as u32;
    stage.fact(one_at_a_time(measured[0]), text::one_at_a_time(CLIENTS, WORK_TIME.as_millis()))?;
    stage.fact(one_at_a_time(measured[3]), text::BLOCKING_TASKS)?;
    stage.notice(text::WAITING_NOT_COMPUTING)
}

/// All clients at once, each with one question.
fn all_at_once(server: SocketAddr, trial: &Arc<Trial>) -> LessonResult {
    thread::scope(|scope| {
        let ask = |number| {
            scope.spawn(move || {
                let mut client = Client::connect(server, trial, number)?;
                client.ask("work")?;
                client.receive()
            })
        };
        let clients: Vec<_> = trial.clients().map(ask).collect();
        clients.into_iter().try_for_each(|client| Ok(joined(client.join())??))
    })
}

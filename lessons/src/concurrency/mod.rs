//! Many clients at once: a sequential server, a thread for each client, an async task for each
//! client; and the same work, timed.

mod clients;
mod tasks;
mod text;
mod timing;
mod trial;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, ThreadId};

use crate::sockets::{joined, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};
use clients::two_clients;
use trial::{Event, Trial};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    one_after_another(stage)?;
    thread_per_client(stage)?;
    task_per_client(stage)?;
    timing::run(stage)
}

/// A server that serves as many clients as the trial has.
type Server = fn(&TcpListener, &Arc<Trial>) -> io::Result<()>;

/// Serves one client after another.
fn sequential(listener: &TcpListener, trial: &Arc<Trial>) -> io::Result<()> {
    for number in trial.clients() {
        let (socket, _) = listener.accept()?;
        talk(socket, trial, number)?; // No accept() until this client leaves.
    }
    Ok(())
}

/// Serves each client in a thread of its own.
fn threads(listener: &TcpListener, trial: &Arc<Trial>) -> io::Result<()> {
    thread::scope(|scope| {
        let mut serving = Vec::new();
        for number in trial.clients() {
            let (socket, _) = listener.accept()?;
            serving.push(scope.spawn(move || talk(socket, trial, number)));
        }
        serving.into_iter().try_for_each(|thread| joined(thread.join())?)
    })
}

/// Sends every line back until the client leaves.
fn talk(socket: TcpStream, trial: &Trial, number: usize) -> io::Result<()> {
    trial.note(Event::Accepts(number));
    let socket = with_timeouts(socket)?;
    for line in BufReader::new(trial.flow(number).reader(&socket)).lines() {
        let line = line?;
        trial.begin_work();
        thread::sleep(trial.work_time); // Meanwhile this thread can do nothing else.
        (&socket).write_all(&trial.end_work(number, &line))?;
    }
    Ok(())
}

fn one_after_another(stage: &mut Stage) -> LessonResult {
    stage.scene(text::SEQUENTIAL)?;
    stage.say(text::SILENT_CLIENT)?;
    let trial = two_clients(sequential, false)?;
    trial.clients().try_for_each(|number| stage.draw(trial.flow(number)))?;
    let journal = show_journal(stage, &trial)?;
    stage.notice(text::NOT_ACCEPTED)?;
    stage.fact(
        is_before(&journal, Event::Asks(2), Event::Leaves(1))
            && is_before(&journal, Event::Leaves(1), Event::Accepts(2)),
        text::BLOCKED,
    )
}

fn thread_per_client(stage: &mut Stage) -> LessonResult {
    stage.scene(text::THREADS)?;
    let trial = two_clients(threads, true)?;
    let journal = show_journal(stage, &trial)?;
    stage.fact(second_is_answered_first(&journal), text::ANSWERED_MEANWHILE)?;
    let (first, second) = (thread_of(&journal, 1), thread_of(&journal, 2));
    stage.fact(first.is_some() && first != second, text::OWN_THREADS)
}

fn task_per_client(stage: &mut Stage) -> LessonResult {
    stage.scene(text::TASKS)?;
    let trial = two_clients(tasks::tasks, true)?;
    let journal = show_journal(stage, &trial)?;
    stage.fact(second_is_answered_first(&journal), text::ANSWERED_MEANWHILE)?;
    let (first, second) = (thread_of(&journal, 1), thread_of(&journal, 2));
    stage.fact(first.is_some() && first == second, text::ONE_THREAD)
}

fn show_journal(stage: &mut Stage, trial: &Trial) -> Result<Vec<Event>, LessonError> {
    let journal = trial.journal();
    stage.list(text::JOURNAL, text::events(&journal))?;
    Ok(journal)
}

/// Returns the thread that answered a client.
fn thread_of(journal: &[Event], number: usize) -> Option<ThreadId> {
    journal.iter().find_map(|event| match event {
        Event::Answers(client, thread) if *client == number => Some(*thread),
        _ => None,
    })
}

fn is_before(journal: &[Event], one: Event, other: Event) -> bool {
    let position = |event| journal.iter().position(|noted| *noted == event);
    matches!((position(one), position(other)), (Some(one), Some(other)) if one < other)
}

/// Whether the second client had its answer before the first one left.
fn second_is_answered_first(journal: &[Event]) -> bool {
    thread_of(journal, 2)
        .is_some_and(|thread| is_before(journal, Event::Answers(2, thread), Event::Leaves(1)))
}

//! Checking whether hosts answer: connects to all of them, and runs no command on any.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::host::connect_end;
use super::{End, Host};
use crate::session::Session;

/// The answer of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The time from the first packet until both ends were authenticated.
    pub authenticated: Duration,
    /// The round-trip time of a ping after that.
    pub round_trip: Duration,
    /// The server's name and version, if it sends them ([`Session::server_version`]).
    pub version: Option<String>,
}

/// Connects to all hosts, at most `connecting` at a time (see [`super::Limits::connecting`]). Sends
/// for each host its index in the list with its answer, or the reason why there is none.
pub async fn check(
    hosts: Vec<Host>,
    connecting: usize,
    answers: mpsc::Sender<(usize, Result<Answer, End>)>,
) {
    let slots = Arc::new(Semaphore::new(connecting.max(1)));
    let mut tasks = JoinSet::new();
    for (index, host) in hosts.into_iter().enumerate() {
        let (slots, answers) = (slots.clone(), answers.clone());
        tasks.spawn(async move {
            let (answer, session) = ask(&slots, &host).await;
            let _ = answers.send((index, answer)).await;
            // Closing comes last: a host that has stopped reading makes it slow.
            if let Some(session) = session {
                session.close().await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn ask(slots: &Semaphore, host: &Host) -> (Result<Answer, End>, Option<Session>) {
    let attempt = async {
        let start = Instant::now();
        (Session::connect(&host.connection).await, start.elapsed())
    };
    let (connected, authenticated) = super::connect_in_slot(slots, attempt, || {}).await;
    let session = match connected {
        Ok(session) => session,
        Err(error) => return (Err(connect_end(error)), None),
    };
    let version = match session.server_version().await {
        Ok(version) => version,
        Err(error) => return (Err(connect_end(error)), None),
    };
    let answer = match session.ping_in_time(&host.connection).await {
        Ok(round_trip) => Ok(Answer { authenticated, round_trip, version }),
        Err(error) => Err(connect_end(error)),
    };
    (answer, Some(session))
}

//! Whether hosts answer: connections to all of them, and no command on any.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::host::no_session;
use super::{End, Host};
use crate::session::Session;

/// Who answered, and how fast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// From the first packet until both ends had proven themselves.
    pub authenticated: Duration,
    /// One question and its answer after that.
    pub round_trip: Duration,
    /// Which version answered, if it says so ([`Session::server_version`]).
    pub version: Option<String>,
}

/// Connects to all hosts, at most `connecting` at once; one that takes long stops counting, so that
/// a dead host delays nobody. Each host's place in the list comes once, with its answer or what
/// stood in the way.
pub async fn check(
    hosts: Vec<Host>,
    connecting: usize,
    answers: mpsc::Sender<(usize, Result<Answer, End>)>,
) {
    let places = Arc::new(Semaphore::new(connecting.max(1)));
    let mut tasks = JoinSet::new();
    for (index, host) in hosts.into_iter().enumerate() {
        let (places, answers) = (places.clone(), answers.clone());
        tasks.spawn(async move {
            let (answer, session) = ask(&places, &host).await;
            let _ = answers.send((index, answer)).await;
            // Only now: saying goodbye to a host that has stopped reading takes a while.
            if let Some(session) = session {
                session.close().await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn ask(places: &Semaphore, host: &Host) -> (Result<Answer, End>, Option<Session>) {
    let attempt = async {
        let start = Instant::now();
        (Session::connect(&host.connection).await, start.elapsed())
    };
    let (connected, authenticated) = super::open(places, attempt, || {}).await;
    let session = match connected {
        Ok(session) => session,
        Err(error) => return (Err(no_session(error)), None),
    };
    let version = match session.server_version().await {
        Ok(version) => version,
        Err(error) => return (Err(no_session(error)), None),
    };
    let answer = match session.ping().await {
        Ok(round_trip) => Ok(Answer { authenticated, round_trip, version }),
        Err(error) => Err(End::Lost(error)),
    };
    (answer, Some(session))
}

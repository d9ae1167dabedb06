//! One host of a fan-out: connecting, retrying, running the command.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::{Driver, End, Event, FanoutState, Host, StopLevel};
use crate::command::CommandOptions;
use crate::error::{CommandError, ConnectError};
use crate::session::Session;

/// The delay before the first new attempt to connect. It doubles with each attempt.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(250);

/// How long a host that is starting its command is waited for once the run is being stopped.
const STOPPED_START_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a session may take to close once the run is being stopped.
const STOPPED_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The permit to run, if the host holds one now.
type RunSlot = Option<OwnedSemaphorePermit>;

/// Runs the command on one host, and reports the outcome.
pub(super) async fn run<D: Driver>(
    state: &FanoutState<D>,
    index: usize,
    host: Host,
    mut slot: RunSlot,
) {
    let begun = Instant::now();
    let (end, session) = match state.is_stopping() {
        true => (End::NotBegun, None),
        false => connect_and_run(state, index, &host, &mut slot).await,
    };
    if !end.success() {
        state.failed.send_replace(true);
    }
    let _ = state.events.send(Event::Over(index, end, begun.elapsed())).await;
    drop(slot);
    // Closing comes last: a host that has stopped reading makes it slow.
    let Some(session) = session else { return };
    let abandoned = async {
        stopped(state, StopLevel::Interrupt).await;
        sleep(STOPPED_CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        () = session.close() => {}
        () = abandoned => {}
    }
}

async fn connect_and_run<D: Driver>(
    state: &FanoutState<D>,
    index: usize,
    host: &Host,
    slot: &mut RunSlot,
) -> (End, Option<Session>) {
    let _ = state.events.send(Event::Begun(index)).await;
    let work = async {
        let connected = tokio::select! {
            biased;
            // Nothing was sent yet that could start the command.
            () = stopped(state, StopLevel::Interrupt) => return (End::NotBegun, None),
            connected = connect(state, host, slot) => connected,
        };
        let session = match connected {
            Ok(session) => session,
            Err(error) => return (connect_end(error), None),
        };
        if slot.is_none() {
            tokio::select! {
                biased;
                () = stopped(state, StopLevel::Interrupt) => {
                    return (End::NotBegun, Some(session));
                }
                acquired = state.run_slot() => *slot = acquired,
            }
        }
        (run_command(state, index, host, &session).await, Some(session))
    };
    tokio::select! {
        // A driver that knows the outcome by now returns it.
        biased;
        ended = work => ended,
        () = stopped(state, StopLevel::Disconnect) => {
            let reason = "labsh left before the command had ended";
            (End::Lost(CommandError::Lost(reason.into())), None)
        }
    }
}

/// Connects, with as many retries as are allowed. Retrying is safe: connecting starts no command.
async fn connect<D>(
    state: &FanoutState<D>,
    host: &Host,
    slot: &mut RunSlot,
) -> Result<Session, ConnectError> {
    let mut retries_left = state.limits.retries;
    let mut delay = FIRST_RETRY_DELAY;
    loop {
        let connected = super::connect_in_slot(
            &state.connecting,
            Session::connect_early(&host.connection),
            || {
                // If a failure stops the run, the next host begins only when this one has ended.
                if !state.limits.stop_at_failure {
                    *slot = None;
                }
            },
        );
        match connected.await {
            Err(
                ConnectError::Unreachable { .. }
                | ConnectError::TooManyFiles { .. }
                | ConnectError::Timeout { .. }
                | ConnectError::Broken { .. },
            ) if retries_left > 0 && !state.is_stopping() => {}
            connected => return connected,
        }
        sleep(delay).await;
        retries_left -= 1;
        delay *= 2;
    }
}

async fn run_command<D: Driver>(
    state: &FanoutState<D>,
    index: usize,
    host: &Host,
    session: &Session,
) -> End {
    let user = host.user.as_ref().map(Into::into);
    let options = CommandOptions { user, ..state.options.clone() };
    let mut command = session.program(state.program.clone());
    let command = command.options(options).stdin(state.stdin);
    let abandoned = async {
        stopped(state, StopLevel::Interrupt).await;
        sleep(STOPPED_START_TIMEOUT).await;
    };
    let started = tokio::select! {
        started = command.spawn() => started,
        () = abandoned => {
            let reason = "labsh left before the host had reported that the command started";
            return End::Lost(CommandError::Lost(reason.into()));
        }
    };
    let child = match started {
        Ok(child) => child,
        Err(error) => return End::of(error),
    };
    let _ = state.events.send(Event::Started(index)).await;
    match state.driver.drive(index, child).await {
        Ok(status) => End::Ended(status),
        Err(error) => End::of(error),
    }
}

/// Resolves once the run is to be stopped at this level or a higher one.
async fn stopped<D>(state: &FanoutState<D>, at: StopLevel) {
    if state.stop.clone().wait_for(|level| *level >= at).await.is_err() {
        std::future::pending().await
    }
}

/// Returns the end of a host that could not be connected to. No command was started, so a
/// connection that broke is not a doubt about its outcome.
pub(super) fn connect_end(error: ConnectError) -> End {
    match error {
        ConnectError::Broken { .. } => End::Unreachable(CommandError::Connect(error)),
        _ => End::of(CommandError::Connect(error)),
    }
}

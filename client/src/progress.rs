//! The state of every command on a connection, as the server reports it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use labsh_proto::channel::Completeness;
use labsh_proto::explanation::Explained;
use labsh_proto::frame::ChannelId;
use labsh_proto::message::{Exit, Refuse, Status};
use tokio::sync::watch;

use crate::error::CommandError;

/// The state of one command.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// The request is sent, and the server has not answered yet.
    Opening,
    /// The command runs.
    Started { pid: u32 },
    /// The command has exited; its output may still arrive.
    Ended { pid: u32, status: Status },
    /// The server refused the request.
    Refused(Refuse),
    /// The answer to a request to explain.
    Explained(Box<Explained>),
    /// The command has exited and its output is complete or known to be incomplete.
    Exited { pid: u32, exit: Exit, completeness: Completeness },
}

/// The open commands of a connection, and the reason why the connection ended.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    progress: Mutex<HashMap<ChannelId, watch::Sender<Progress>>>,
    loss: OnceLock<CommandError>,
}

impl Commands {
    /// Locks the map from each open channel to the state of its command.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, watch::Sender<Progress>>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the new state of a command, if its channel is still open.
    pub(crate) fn advance(&self, id: ChannelId, progress: Progress) {
        if let Some(sender) = self.lock().get(&id) {
            sender.send_replace(progress);
        }
    }

    /// Returns the process id that the server reported for a command, or 0.
    pub(crate) fn pid(&self, id: ChannelId) -> u32 {
        match self.lock().get(&id).map(|sender| sender.borrow().clone()) {
            Some(Progress::Started { pid } | Progress::Ended { pid, .. }) => pid,
            _ => 0,
        }
    }

    /// Sets the reason why the connection ended, unless one is set already.
    pub(crate) fn set_loss(&self, reason: CommandError) {
        let _ = self.loss.set(reason);
    }

    /// Returns the reason why the connection ended.
    pub(crate) fn loss(&self) -> CommandError {
        let unknown = || CommandError::Lost("the connection was closed".into());
        self.loss.get().cloned().unwrap_or_else(unknown)
    }
}

//! Limits the commands of one key that have been forked and have not executed their program, also
//! those whose client has gone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit on the commands of one key that have not executed their program; others of the key wait. A
/// child that hangs on a file server before exec cannot be killed, and counts until it ends.
const MAX_STARTING_PER_KEY: usize = 64;

/// The commands of one key that have not executed their program; clones share it.
#[derive(Debug, Clone)]
pub struct StartLimit(Arc<Semaphore>);

/// A command's share of the limit, until it is dropped.
pub type StartPermit = OwnedSemaphorePermit;

impl StartLimit {
    /// Waits until another command of the key may be started. Cancel safe.
    pub async fn acquire(&self) -> Option<StartPermit> {
        // The semaphore is never closed.
        self.0.clone().acquire_owned().await.ok()
    }
}

impl Default for StartLimit {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STARTING_PER_KEY)))
    }
}

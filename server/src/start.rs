//! Starts the command of an `open`, or its dry run: prepares the request, and waits for its turn.

use std::mem;
use std::pin::pin;
use std::sync::Arc;

use labsh_proto::message::{Open, Program, Refuse, RefuseCode};
use tokio::time::timeout;

use crate::accounts;
use crate::config::Config;
use crate::job::Job;
use crate::key_share::MAX_START_TIME;
use crate::refusal;
use crate::request::Origin;
use crate::session::SessionEnd;
use crate::shared;
use crate::spawner::{SpawnRequest, Spawned};
use crate::start_deadline::StartDeadline;

/// Builds the request for an `open`, and what its caller needs of it.
pub(crate) type Prepare<T> = fn(&Open, &Origin, &Config) -> Result<(SpawnRequest, T), Refuse>;

impl Job {
    /// Starts the command. `None` if the client goes meanwhile; the spawner then ends the command.
    pub(crate) async fn spawn<T: Send + 'static>(
        &mut self,
        prepare: Prepare<T>,
    ) -> Result<Option<(Spawned, T)>, Refuse> {
        if self.shared.draining.is_cancelled() {
            return Err(shared::stopping());
        }
        let start_timeout = self.shared.config().start_timeout;
        let deadline = StartDeadline::new(self.requested, self.open.timeout, start_timeout);
        let (client_gone, stopping) = (self.client_gone.clone(), self.shared.stopping.clone());
        tokio::select! {
            spawned = self.spawn_in_turn(prepare) => spawned.map(Some),
            () = client_gone.cancelled() => Ok(None),
            // A child can block before exec, on a directory whose file server does not respond.
            () = stopping.cancelled() => Err(shared::stopping()),
            refuse = deadline.passed() => Err(refuse),
        }
    }

    async fn spawn_in_turn<T: Send + 'static>(
        &mut self,
        prepare: Prepare<T>,
    ) -> Result<(Spawned, T), Refuse> {
        let shared = self.shared.clone();
        let start = self.origin.share.start().await;
        let user = accounts::user_of(&shared, &self.origin.entry).await?;
        // After everything that may have taken long.
        if !shared.has_key(&self.origin.entry) {
            let reason = SessionEnd::KeyRemoved.to_string();
            let remedy = "ask that host's administrator";
            return Err(Refuse::new(RefuseCode::NOT_PERMITTED, reason, remedy));
        }
        self.origin = Arc::new(Origin { user, ..Origin::clone(&self.origin) });
        let origin = self.origin.clone();
        let rest = Open::new(self.open.command, Program::LoginShell);
        let open = mem::replace(&mut self.open, rest);
        let encode = {
            let (shared, origin) = (shared.clone(), origin.clone());
            move || {
                let mut open = open;
                let encoded =
                    prepare(&open, &origin, &shared.config()).and_then(|(request, extra)| {
                        let encoded = shared.spawner.encode(request);
                        Ok((encoded.map_err(|error| refusal::of(error, &origin.user))?, extra))
                    });
                // Freed, as the command may run for days: a megabyte of short words occupies
                // several megabytes once decoded.
                (open.program, open.environment) = (Program::LoginShell, Vec::new());
                (open, encoded)
            }
        };
        let (open, encoded) = shared.shares.prepare(&origin.share, self.length, encode).await;
        self.open = open;
        let (request, extra) = encoded?;
        // First, as a key with too many children must not hold turns.
        let start_permit = origin.share.children.acquire().await;
        let turn = shared.spawner.turn(&origin.share.spawns).await;
        self.long = None;
        let mut spawned = pin!(shared.spawner.spawn_encoded(request, turn, start_permit));
        let spawned = match timeout(MAX_START_TIME, &mut spawned).await {
            Ok(spawned) => spawned,
            Err(_) => {
                drop(start);
                spawned.await
            }
        };
        spawned.map(|spawned| (spawned, extra)).map_err(|error| refusal::of(error, &origin.user))
    }
}

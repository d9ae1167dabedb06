//! What would become of a command: everything that comes before it is gone through, and it is not
//! executed.

use std::os::fd::AsFd;
use std::time::UNIX_EPOCH;

use labsh_proto::explanation::Explained;
use labsh_proto::message::{Refuse, RefuseCode};
use nix::errno::Errno;
use nix::unistd;

use crate::job::{self, Job};
use crate::logs::Escaped;
use crate::request;
use crate::shared;
use crate::spawner::{DryRunResult, SpawnRequest, Streams};

/// The most that a rehearsal tells, in bytes: two paths (`PATH_MAX`), each with its end.
const FOUND: usize = 2 * 4096 + 2;

/// Answers the client. No command is started: a child takes on its user, enters its directory,
/// looks for its program, and tells what it found.
pub(crate) async fn run(job: Job) {
    let key = job.origin.entry.key.key_id();
    let what = Escaped(&job::describe(&job.open.program)).to_string();
    match explain(&job).await {
        Ok(Some(explained)) => {
            tracing::info!(%key, user = %job.origin.user.name, command = %job.open.command, %what,
                "explained");
            job.multiplexer.with(|channels| channels.explained(job.id, &explained));
        }
        Ok(None) => {}
        Err(refuse) => {
            let reason = Escaped(&refuse.reason).to_string();
            tracing::info!(%key, command = %job.open.command, %what, %reason, "explained: would \
                be refused");
            job.multiplexer.with(|channels| channels.refuse(job.id, &refuse));
        }
    }
}

/// `None` when the client has gone meanwhile.
async fn explain(job: &Job) -> Result<Option<Explained>, Refuse> {
    let (origin, config) = (&job.origin, job.shared.config());
    if !origin.explains {
        return Err(Refuse::new(
            RefuseCode::UNSUPPORTED,
            "the client asks for an explanation without having announced that it understands one",
            "use a client of this version",
        ));
    }
    if job.shared.draining.is_cancelled() {
        return Err(shared::stopping());
    }
    // A terminal changes nothing of what is asked.
    let request = SpawnRequest {
        terminal: None,
        dry_run: true,
        ..request::prepare(&job.open, origin, &config)?
    };
    let (words, environment) = (request.argv.clone(), request.env.clone());
    let found = tokio::select! {
        found = rehearse(job, request) => found?,
        // The rehearsal ends with its future.
        () = job.client_gone.cancelled() => return Ok(None),
        () = job.shared.stopping.cancelled() => return Err(shared::stopping()),
    };
    let (entry, user) = (&origin.entry, &origin.user);
    let expires = entry.expires.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    let explained = Explained {
        entry: entry.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        from: entry.from.iter().map(ToString::to_string).collect(),
        expires: expires.map_or(0, |since| since.as_secs()),
        channels: config.max_channels,
        user: user.name.clone(),
        uid: user.uid,
        gid: user.gid,
        home: user.home.clone().into_os_string().into_encoded_bytes(),
        directory: found.directory,
        program: found.program,
        words,
        environment,
        accepted: config.accept_env.iter().map(ToString::to_string).collect(),
        left_off: 0,
    };
    Ok(Some(explained.truncate()))
}

async fn rehearse(job: &Job, request: SpawnRequest) -> Result<DryRunResult, Refuse> {
    let mut spawned = job
        .shared
        .spawner
        .spawn(request)
        .await
        .map_err(|error| job::refusal(error, &job.origin.user))?;
    let found = match (spawned.process.ended().await, &spawned.streams) {
        (Ok(_), Streams::Pipes { stdout, .. }) => read(stdout),
        _ => None,
    };
    found.ok_or_else(|| {
        let reason = "the rehearsal of the command ended without saying what it found";
        Refuse::new(RefuseCode::INTERNAL, reason, "labshd's log on that machine says more")
    })
}

/// Everything that is in the pipe: its writer has ended.
fn read(pipe: impl AsFd) -> Option<DryRunResult> {
    let mut found = vec![0; FOUND];
    let mut length = 0;
    loop {
        match unistd::read(&pipe, &mut found[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    DryRunResult::decode(&found[..length])
}

//! Explains how a command would run: performs all steps of starting it, except executing its
//! program.

use std::os::fd::AsFd;
use std::time::UNIX_EPOCH;

use labsh_proto::explanation::Explained;
use labsh_proto::message::{Refuse, RefuseCode};
use nix::errno::Errno;
use nix::unistd;

use crate::job::{self, Job};
use crate::logs::Escaped;
use crate::refusal;
use crate::request;
use crate::shared;
use crate::spawner::{DryRunResult, SpawnRequest, Streams};

/// Limit on the output of a dry run, in bytes: two paths (`PATH_MAX`), each with its NUL.
const MAX_DRY_RUN_OUTPUT: usize = 2 * 4096 + 2;

/// Sends the client an explanation, or the refusal that the command would get. A child changes to
/// the user, enters the directory and searches for the program, but does not execute it.
pub(crate) async fn run(job: Job) {
    let key = job.origin.entry.key.key_id();
    let description = Escaped(&job::describe(&job.open.program)).to_string();
    match explain(&job).await {
        Ok(Some(explained)) => {
            tracing::info!(
                %key,
                user = %job.origin.user.name,
                command = %job.open.command,
                what = %description,
                "explained"
            );
            job.multiplexer.with(|channels| channels.explained(job.id, &explained));
        }
        Ok(None) => {}
        Err(refuse) => {
            tracing::info!(
                %key,
                command = %job.open.command,
                what = %description,
                reason = %Escaped(&refuse.reason),
                "explained: would be refused"
            );
            job.multiplexer.with(|channels| channels.refuse(job.id, &refuse));
        }
    }
}

/// Builds the explanation; `None` if the client goes meanwhile.
async fn explain(job: &Job) -> Result<Option<Explained>, Refuse> {
    let (origin, config) = (&job.origin, job.shared.config());
    if !origin.explains {
        return Err(Refuse::new(
            RefuseCode::UNSUPPORTED,
            "the client requests an explanation without having announced that feature",
            "use a client of this version",
        ));
    }
    if job.shared.draining.is_cancelled() {
        return Err(shared::stopping());
    }
    // The explanation does not depend on a terminal.
    let request = SpawnRequest {
        terminal: None,
        dry_run: true,
        ..request::prepare(&job.open, origin, &config)?
    };
    let (words, environment) = (request.argv.clone(), request.env.clone());
    let result = tokio::select! {
        result = dry_run(job, request) => result?,
        // Dropping the future ends the dry run.
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
        directory: result.directory,
        program: result.program,
        words,
        environment,
        accepted: config.accept_env.iter().map(ToString::to_string).collect(),
        left_off: 0,
    };
    Ok(Some(explained.truncate()))
}

async fn dry_run(job: &Job, request: SpawnRequest) -> Result<DryRunResult, Refuse> {
    let mut spawned = job
        .shared
        .spawner
        .spawn(request)
        .await
        .map_err(|error| refusal::of(error, &job.origin.user))?;
    let result = match (spawned.process.ended().await, &spawned.streams) {
        (Ok(_), Streams::Pipes { stdout, .. }) => read_result(stdout),
        _ => None,
    };
    result.ok_or_else(|| {
        let reason = "the dry run of the command ended without a result";
        Refuse::new(RefuseCode::INTERNAL, reason, "see labshd's log on that host")
    })
}

/// Reads the result from the pipe, whose writer has exited.
fn read_result(pipe: impl AsFd) -> Option<DryRunResult> {
    let mut output = vec![0; MAX_DRY_RUN_OUTPUT];
    let mut length = 0;
    loop {
        match unistd::read(&pipe, &mut output[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    DryRunResult::decode(&output[..length])
}

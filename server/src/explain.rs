//! Explains how a command would run: performs all steps of starting it, except executing its
//! program.

use std::os::fd::AsFd;
use std::time::UNIX_EPOCH;

use labsh_proto::explanation::Explained;
use labsh_proto::message::{Open, Refuse, RefuseCode, Variable};
use nix::errno::Errno;
use nix::unistd;

use crate::config::Config;
use crate::job::{self, Job};
use crate::logs::Escaped;
use crate::request::{self, Origin};
use crate::shared;
use crate::spawner::{DryRunResult, SpawnRequest, Spawned, Streams};

/// Limit on the output of a dry run, in bytes: two paths (`PATH_MAX`), each with its NUL.
const MAX_DRY_RUN_OUTPUT: usize = 2 * 4096 + 2;

/// Sends the client an explanation, or the refusal that the command would get. A child changes to
/// the user, enters the directory and searches for the program, but does not execute it.
pub(crate) async fn run(mut job: Job) {
    let origin = job.origin.clone();
    let key = origin.entry.key.key_id();
    let description = Escaped(&job::describe(&job.open.program)).to_string();
    match explain(&mut job).await {
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
async fn explain(job: &mut Job) -> Result<Option<Explained>, Refuse> {
    let config = job.shared.config();
    if !job.origin.explains {
        return Err(Refuse::new(
            RefuseCode::UNSUPPORTED,
            "the client requests an explanation without having announced that feature",
            "use a client of this version",
        ));
    }
    let Some((spawned, (words, environment))) = job.spawn(prepare_dry_run).await? else {
        return Ok(None);
    };
    let client_gone = job.client_gone.clone();
    let result = tokio::select! {
        result = dry_run(spawned) => result?,
        // Dropping the future ends the dry run.
        () = client_gone.cancelled() => return Ok(None),
        () = job.shared.stopping.cancelled() => return Err(shared::stopping()),
    };
    let origin = job.origin.clone();
    let explained = move || explained(&origin, &config, result, words, environment);
    Ok(Some(job.shared.shares.prepare(&job.origin.share, job.length, explained).await))
}

/// The words of a command, and the variables in its environment.
type Lists = (Vec<Vec<u8>>, Vec<Variable>);

fn prepare_dry_run(
    open: &Open,
    origin: &Origin,
    config: &Config,
) -> Result<(SpawnRequest, Lists), Refuse> {
    // The explanation does not depend on a terminal.
    let request =
        SpawnRequest { terminal: None, dry_run: true, ..request::prepare(open, origin, config)? };
    let lists = (request.argv.clone(), request.env.clone());
    Ok((request, lists))
}

fn explained(
    origin: &Origin,
    config: &Config,
    result: DryRunResult,
    words: Vec<Vec<u8>>,
    environment: Vec<Variable>,
) -> Explained {
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
    explained.truncate()
}

async fn dry_run(mut spawned: Spawned) -> Result<DryRunResult, Refuse> {
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

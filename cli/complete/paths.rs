//! Candidates for paths, on this machine and on a host.

use std::fs;
use std::time::Duration;

use labsh_client::config::Config;
use labsh_client::config::target::Target;
use labsh_client::fanout::Host;
use labsh_client::{Session, Stdio};
use labsh_proto::message::Program;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::Candidate;
use crate::flags::ConnectionFlags;
use crate::fleet::hosts::evaluate;
use crate::remote::connection;
use crate::remote::words::Targets;

/// How long a host may take to list a directory, from the start of the connection.
const LISTING_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum length of a listing, in bytes.
const MAX_LISTING: u64 = 256 << 10;

/// A script for sh(1) that prints the names in the directory `$1` that begin with `$2`, each with a
/// NUL at its end; those of directories end in a slash.
const LIST: &str = r#"cd -- "$1" || exit
for name in "$2"*; do
    if [ -d "$name" ]; then printf '%s/\0' "$name"
    elif [ -e "$name" ] || [ -L "$name" ]; then printf '%s\0' "$name"
    fi
done"#;

/// Returns the paths that begin with `current`, or only directories.
pub(super) fn local(current: &str, only_directories: bool) -> Vec<Candidate> {
    let (directory, base) = split(current);
    let listed = match directory.strip_prefix("~/") {
        Some(below) => std::env::home_dir().unwrap_or_default().join(below),
        None if directory.is_empty() => ".".into(),
        None => directory.into(),
    };
    let Ok(entries) = fs::read_dir(listed) else { return Vec::new() };
    let candidate = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let is_hidden = name.starts_with('.') && !base.starts_with('.');
        if !name.starts_with(base) || is_hidden || (directory.is_empty() && name == "~") {
            return None;
        }
        match fs::metadata(entry.path()).is_ok_and(|about| about.is_dir()) {
            true => Some(Candidate::open(format!("{directory}{name}/"))),
            false if only_directories => None,
            false => Some(Candidate::new(format!("{directory}{name}"))),
        }
    };
    entries.filter_map(Result::ok).filter_map(candidate).collect()
}

/// Returns the paths on the host that begin with `path`; of a set, the first host is asked. None
/// if it does not answer in time.
pub(super) fn remote(target: &str, path: &[u8], flags: &ConnectionFlags) -> Vec<Candidate> {
    let Ok(path) = str::from_utf8(path) else { return Vec::new() };
    let (directory, base) = split(path);
    let listing = host(target, flags).and_then(|host| list(&host, directory, base));
    let names = listing.unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter_map(|name| str::from_utf8(name).ok());
    names
        .filter(|name| !name.is_empty())
        .map(|name| match name.ends_with('/') {
            true => Candidate::open(format!("{directory}{name}")),
            false => Candidate::new(format!("{directory}{name}")),
        })
        .collect()
}

/// Splits a path after its last slash.
fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |at| at + 1))
}

fn host(target: &str, flags: &ConnectionFlags) -> Option<Host> {
    let target: Target = match target.parse::<Targets>().ok()? {
        Targets::One(target) => target,
        Targets::Set(set) => {
            let config = Config::load().ok()?;
            evaluate(&set, config.inventory()).ok()?.iter().next()?.parse().ok()?
        }
    };
    let mut host = connection::host(&target, flags, None).ok()?;
    if let Some(agent) = &mut host.connection.agent {
        // A key press leaves no process.
        agent.start = false;
    }
    Some(host)
}

fn list(host: &Host, directory: &str, base: &str) -> Option<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let listing =
        runtime.block_on(async { timeout(LISTING_TIMEOUT, ask(host, directory, base)).await });
    // A thread may wait for the resolver for long.
    runtime.shutdown_background();
    listing.ok().flatten()
}

async fn ask(host: &Host, directory: &str, base: &str) -> Option<Vec<u8>> {
    let session = Session::connect(&host.connection).await.ok()?;
    let directory = if directory.is_empty() { "." } else { directory };
    let words = ["sh", "-c", LIST, "sh", directory, base];
    let program = Program::Argv(words.map(|word| word.as_bytes().to_vec()).into());
    let mut command = session.program(program);
    command.stdin(Stdio::Null).stderr(Stdio::Null).timeout(LISTING_TIMEOUT);
    if let Some(user) = &host.user {
        command.user(user);
    }
    let mut child = command.spawn().await.ok()?;
    let mut listing = Vec::new();
    child.stdout.take()?.take(MAX_LISTING).read_to_end(&mut listing).await.ok()?;
    // A name that does not end is not complete.
    listing.truncate(listing.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1));
    drop(child);
    session.close().await;
    Some(listing)
}

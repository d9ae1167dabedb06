//! `labshd key`: parses its arguments, and prints what the server's library has done.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use labsh_diagnostics::Diagnostics;
use labsh_proto::key::{HostId, KeyId};
use labsh_server::account::{RunsAs, user_exists};
use labsh_server::keys_command::{self, Expiry, ListedEntry, Outcome};

use super::{complain, print, report};
use crate::json::{self, Event};

/// The subcommands of `labshd key`.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Permit a key: reads its enrolment line, as `labsh key enroll` prints it, from standard input
    ///
    /// The line is a secret, so it is never taken from the command line, which other users can see.
    Add(Add),
    /// List the permitted keys
    List(ListOptions),
    /// Remove a key, for every host name that it was enrolled for on this machine
    Remove(Remove),
}

/// The arguments of `labshd key add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Run this key's commands as this user; required if labshd runs as root
    #[arg(long)]
    user: Option<String>,
    /// Accept the key only from this address or network; may be given several times
    #[arg(long, value_name = "NETWORK", value_parser = keys_command::network)]
    from: Vec<IpNet>,
    /// Accept the key until the end of this day (UTC), or until this time: 2031-12-31T18:00:00Z
    #[arg(long, value_name = "DATE",
          value_parser = |text: &str| Expiry::parse(text, SystemTime::now()))]
    expires: Option<Expiry>,
    /// Store this note in the entry
    #[arg(long)]
    comment: Option<String>,
    /// Name the entry's file in keys.d, without .toml; by default the name is made from the names
    /// of the key and the host
    #[arg(long, value_parser = keys_command::file_name)]
    name: Option<KeyId>,
    /// Replace an existing entry
    #[arg(long)]
    replace: bool,
}

/// The arguments of `labshd key list`.
#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// Print a line of JSON for each key
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of `labshd key remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The key's name, as `labshd key list` shows it
    #[arg(value_parser = |text: &str| KeyId::new(text).map_err(|error| error.to_string()))]
    key: KeyId,
    /// Remove only the entry for this host name
    #[arg(long, value_parser = |text: &str| HostId::new(text).map_err(|error| error.to_string()))]
    host: Option<HostId>,
}

/// Carries out a subcommand on the entries in `dir`.
pub(super) fn execute(command: KeyCommand, dir: &Path) -> anyhow::Result<ExitCode> {
    let runs_as = RunsAs::current();
    let Outcome { report: text, diagnostics } = match command {
        KeyCommand::Add(request) => add(request, dir, &runs_as)?,
        KeyCommand::List(ListOptions { json: true }) => return list_json(dir, &runs_as),
        KeyCommand::List(_) => keys_command::list(dir, &runs_as),
        KeyCommand::Remove(Remove { key, host }) => {
            keys_command::remove(&keys_command::Remove { key, host }, dir, &runs_as)?
        }
    };
    let code = print(&text)?;
    if diagnostics.is_empty() {
        return Ok(code);
    }
    complain("labshd will not take up any change to its keys before this is corrected:");
    Ok(report(Diagnostics(diagnostics)))
}

/// Prints a line for each entry, and the errors in others on stderr.
fn list_json(dir: &Path, runs_as: &RunsAs) -> anyhow::Result<ExitCode> {
    let (entries, diagnostics) = keys_command::entries(dir, runs_as);
    let now = SystemTime::now();
    let line = |entry: &ListedEntry| {
        Event::new("key")
            .with("key", entry.key.as_str())
            .with("host_id", entry.host_id.as_str())
            .with("user", entry.user.as_deref())
            .with("from", entry.from.iter().map(IpNet::to_string).collect::<Vec<_>>())
            .with("expires", entry.expires.map(json::time))
            .with("expired", entry.expires.is_some_and(|end| now > end))
            .with("file", entry.file.to_string_lossy())
            .line()
    };
    let lines: String = entries.iter().map(line).collect();
    match io::stdout().write_all(lines.as_bytes()) {
        // The reader has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    match diagnostics.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(report(Diagnostics(diagnostics))),
    }
}

fn add(request: Add, dir: &Path, runs_as: &RunsAs) -> anyhow::Result<Outcome> {
    let Add { user, from, expires, comment, name, replace } = request;
    let stdin = io::stdin();
    if stdin.is_terminal() {
        complain("Paste the enrolment line that `labsh key enroll` printed, and press Enter:");
    }
    let line = keys_command::read_line(stdin.lock(), stdin.is_terminal())?;
    let request = keys_command::Add { user, from, expires, comment, name, replace };
    keys_command::add(&request, &line, dir, runs_as, &user_exists)
}

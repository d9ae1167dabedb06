//! `labsh run`: one command on one host; many hosts are the business of `many`.

mod files;
mod gather;
pub(crate) mod json;
mod lines;
pub(crate) mod many;
pub mod options;

use std::io::{self, IsTerminal};
use std::path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use labsh_proto::auth::Mode;
use labsh_proto::message::Program;

use crate::agent::{self, Keeper, Place};
use crate::cli::console::note;
use crate::cli::flags::{CommandOptions, ConnectionFlags, TerminalFlags};
use crate::cli::remote::outcome::{self, Outcome};
use crate::cli::remote::pipes;
use crate::cli::remote::terminal::{self, Interaction};
use crate::cli::remote::words::Targets;
use crate::cli::run::options::RunOptions;
use crate::config::overrides::ConnectionOverrides;
use crate::config::target::Target;
use crate::config::{Config, DEFAULT_KEEP, Resolved};
use crate::connect::ConnectOptions;
use crate::error::CommandError;
use crate::keys::key_file;
use crate::session::Session;

/// Runs it and returns the exit status that `labsh run --help` documents.
pub fn execute(mut options: RunOptions) -> anyhow::Result<ExitCode> {
    let program = options.program();
    outcome::check_status_fd(&options.command)?;
    let terminal = options.terminal;
    let wants_terminal = options.tty > 0 || terminal.force_tty;
    let target = match &options.remote.target {
        Targets::One(target) if !options.many.concern_one() => target,
        Targets::One(_) if wants_terminal => anyhow::bail!(
            "a terminal shows one host as it is; leave -t out, or the options for many hosts \
             (labsh run --help lists them)"
        ),
        Targets::Set(_) if wants_terminal => {
            anyhow::bail!("a terminal is for one host at a time; name one, or leave -t out")
        }
        targets => {
            return many::execute(
                targets,
                &options.connection,
                program,
                &options.command,
                &options.many,
            );
        }
    };
    let interaction =
        wants_terminal.then(|| interaction(target, terminal, options.tty > 1)).transpose()?;
    let (connection, user) =
        connection(target, &options.connection, options.command.user.as_deref())?;
    options.command.user = user;
    drive(&connection, &program, &options.command, interaction.as_ref())
}

/// [`run`], on a runtime of its own.
pub(crate) fn drive(
    connection: &ConnectOptions,
    program: &Program,
    options: &CommandOptions,
    interaction: Option<&Interaction>,
) -> anyhow::Result<ExitCode> {
    // One thread drives everything that waits; the streams have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(run(connection, program, options, interaction));
    // A thread may sit in a read of our stdin for ever.
    runtime.shutdown_background();
    Ok(code)
}

/// How a terminal on this target is joined to ours; it cannot be where stdin is none, unless that
/// is what they want.
pub(crate) fn interaction(
    target: &Target,
    flags: TerminalFlags,
    forced: bool,
) -> anyhow::Result<Interaction> {
    if !flags.force_tty && !forced && !io::stdin().is_terminal() {
        anyhow::bail!(
            "stdin is not a terminal; use `labsh run` without -t, or have a terminal over there \
             all the same: --force-tty"
        );
    }
    Ok(Interaction { escape: flags.escape.unwrap_or_default(), host: Some(target.to_string()) })
}

/// Connects, runs one command, in a terminal of its own where there is an interaction, and tells
/// how it ended.
pub(crate) async fn run(
    connection: &ConnectOptions,
    program: &Program,
    options: &CommandOptions,
    interaction: Option<&Interaction>,
) -> ExitCode {
    let session = match Session::connect_early(connection).await {
        Ok(session) => session,
        Err(error) => {
            return Outcome::Failed(CommandError::Connect(error)).report(options, program, false);
        }
    };
    if options.verbose {
        let key = &connection.key;
        note(&format!(
            "connected to {}, key {}, host id {}",
            connection.address,
            key.key_id(),
            key.host_id()
        ));
    }
    let end = match interaction {
        Some(interaction) => terminal::carry(&session, program, options, interaction).await,
        None => pipes::carry(&session, program, options, 2).await,
    };
    let code = end.outcome.report(options, program, end.stdout_closed);
    session.close().await;
    code
}

/// What flags, environment and files say about a target, with its key, and the user as whom
/// commands are expected to run.
pub(crate) fn connection(
    target: &Target,
    flags: &ConnectionFlags,
    user: Option<&str>,
) -> anyhow::Result<(ConnectOptions, Option<String>)> {
    let overrides = ConnectionOverrides { user: user.map(str::to_owned), ..flags.overrides() };
    let resolved = Config::load()?.resolve(target, &overrides)?;
    let user = resolved.route.user.clone();
    Ok((connect_options(resolved)?, user))
}

/// With the key that was resolved, which is read here.
pub(crate) fn connect_options(resolved: Resolved) -> anyhow::Result<ConnectOptions> {
    let Resolved { route, key } = resolved;
    // The agent has a directory of its own.
    let file = path::absolute(&key).context("cannot tell the current directory")?;
    let keeper = match route.keep {
        Some(Duration::ZERO) => None,
        Some(keep) => Some(Keeper { place: Place::of_user(), key: file, keep, starts: true }),
        // Unasked only where a login session says how long processes of the user's may stay.
        None => Place::of_login().map(|place| {
            let starts = !agent::in_a_service();
            Keeper { place, key: file, keep: DEFAULT_KEEP, starts }
        }),
    };
    Ok(ConnectOptions {
        keeper,
        intake: None,
        address: route.address,
        key: key_file::load(&key)?.for_host(&route.host_id),
        mode: if route.plain { Mode::Plain } else { Mode::Tls },
        timeout: route.connect_timeout,
        family: route.family,
    })
}

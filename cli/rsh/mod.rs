//! `labsh rsh`, and the program `labsh-rsh`: labsh with ssh's command line, for tools that run ssh.

mod destination;
pub(crate) mod help;
pub(crate) mod keywords;
pub(crate) mod options;
mod parse;
mod print_settings;
mod settings;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use anyhow::{Context, bail};
use labsh_client::ConnectOptions;
use labsh_client::config::Config;
use labsh_client::config::target::Target;
use labsh_proto::message::Program;

use crate::console::{self, Level, note, remark};
use crate::flags::CommandFlags;
use crate::remote;
use crate::remote::connection::connect_options;
use crate::remote::outcome::Outcome;
use crate::remote::pipes;
use crate::remote::terminal::{self, Interaction};
use crate::rsh::settings::{Instead, RequestTty, Settings};
use crate::signals::{EndSignal, EndSignals};

/// The exit status of every failure, refusals included, as with ssh.
const FAILED: u8 = 255;

/// Carries out a command line; `words` are those after the program's name.
pub(crate) fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    execute(words).unwrap_or_else(|error| {
        note(&format!("{error:#}"));
        ExitCode::from(FAILED)
    })
}

fn execute(words: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let mut settings = Settings::read(parse::parse(words)?)?;
    console::set(settings.level.unwrap_or(Level::Errors), settings.log_file.as_deref())?;
    match settings.instead {
        Some(Instead::Help) => return help::print().map(|()| ExitCode::SUCCESS),
        Some(Instead::Version) => {
            // On stderr, like ssh. A closed stderr cannot be reported anywhere.
            let _ = writeln!(
                io::stderr(),
                "labsh_{}, for tools that run ssh",
                env!("CARGO_PKG_VERSION")
            );
            return Ok(ExitCode::SUCCESS);
        }
        Some(Instead::PrintSettings) | None => {}
    }
    for passed in &settings.passed_over {
        remark(&format!("{passed} is passed over"));
    }
    if settings.instead.is_none() {
        settings.missed.iter().for_each(|missed| note(missed));
    }
    let target = settings.target.take().context(
        "there is no host; write labsh rsh [OPTIONS] [USER@]HOST [COMMAND…], or see `labsh rsh \
         --help`",
    )?;
    let config = match &settings.configuration {
        Some(file) => {
            Config::load_only(file).context("-F names a configuration of labsh, not ssh's")?
        }
        None => Config::load()?,
    };
    if settings.instead == Some(Instead::PrintSettings) {
        return print_settings::print(&target, &settings, &config).map(|()| ExitCode::SUCCESS);
    }
    let program = program(&settings)?;
    let mut options = command_options(&settings);
    if options.no_stdin {
        let null = File::open("/dev/null").context("cannot open /dev/null")?;
        nix::unistd::dup2_stdin(null).context("cannot replace standard input")?;
    }
    let interaction = wants_terminal(&settings)
        .then(|| Interaction { escape: settings.escape.unwrap_or_default(), host: None });
    let resolved = config.resolve(&target, &settings.overrides)?;
    options.user.clone_from(&resolved.route.user);
    let connection = connect_options(resolved)?;
    // One thread suffices: blocking reads and writes have threads of their own.
    let runtime = labsh_transport::runtime::current_thread()?;
    let status = runtime.block_on(run_command(
        &connection,
        &target,
        &program,
        &options,
        interaction.as_ref(),
    ));
    // A thread may block in a read of stdin until the process ends.
    runtime.shutdown_background();
    Ok(ExitCode::from(status))
}

/// Connects, runs the command, reports errors, and returns the exit status.
async fn run_command(
    connection: &ConnectOptions,
    target: &Target,
    program: &Program,
    options: &CommandFlags,
    interaction: Option<&Interaction>,
) -> u8 {
    let mut signals = match EndSignals::new() {
        Ok(signals) => signals,
        Err(error) => return report(Outcome::no_signals(&error), program, false),
    };
    let session = match remote::connect(connection, &mut signals).await {
        Ok(session) => session,
        Err(outcome) => return report(outcome, program, false),
    };
    let ConnectOptions { address, key, .. } = connection;
    remark(&format!(
        "connected to {target} at {address}, key {}, host id {}",
        key.key_id(),
        key.host_id()
    ));
    let end = match interaction {
        Some(interaction) => {
            terminal::run(&session, program, options, &mut signals, interaction).await
        }
        // Tools send one SIGTERM to give ssh up, and wait for it to exit.
        None => pipes::run(&session, program, options, &mut signals, 1).await,
    };
    let left = end.outcome.is_left();
    let status = report(end.outcome, program, end.stdout_closed);
    remote::close(session, left, &mut signals).await;
    status
}

fn report(outcome: Outcome, program: &Program, stdout_closed: bool) -> u8 {
    let text = outcome.text(program, stdout_closed);
    match &outcome {
        // ssh does not report a signal either, and exits with 255. But tools take 255 for a host
        // that cannot be reached, and try again; this host was reached.
        Outcome::Ended(_) => {
            text.as_deref().map(remark);
            outcome.exit_status()
        }
        // The tool that runs labsh-rsh ends it so when it has no more use for it.
        Outcome::Left { signal: EndSignal::Terminate, .. } => {
            text.as_deref().map(remark);
            FAILED
        }
        _ => {
            text.as_deref().map(note);
            FAILED
        }
    }
}

/// Returns the words of the command, joined with blanks. An empty line, as of one empty word, is no
/// command, as with ssh.
fn command_line(settings: &Settings) -> Vec<u8> {
    let words: Vec<&[u8]> = settings.command.iter().map(|word| word.as_bytes()).collect();
    words.join(&b' ')
}

/// Returns the program: a line for the shell on the host, a subsystem, or a login shell.
fn program(settings: &Settings) -> anyhow::Result<Program> {
    let line = command_line(settings);
    let remote_command = settings.remote_command.clone().flatten();
    match (settings.subsystem == Some(true), remote_command) {
        (true, _) if line.is_empty() => {
            bail!("-s needs the name of a subsystem behind the host: labsh rsh -s HOST sftp")
        }
        (true, None) => Ok(Program::Subsystem(line)),
        (true, Some(_)) => bail!("a subsystem and RemoteCommand cannot both be run; leave one out"),
        (false, Some(_)) if !line.is_empty() => {
            bail!("the command behind the host and RemoteCommand cannot both be run; leave one out")
        }
        (false, Some(command)) => Ok(Program::Shell(command.into_bytes())),
        (false, None) if line.is_empty() => Ok(Program::LoginShell),
        (false, None) => Ok(Program::Shell(line)),
    }
}

fn command_options(settings: &Settings) -> CommandFlags {
    CommandFlags {
        no_stdin: settings.stdin_null == Some(true),
        no_wait_eof: settings.no_wait_eof,
        env: settings.set_env.clone(),
        env_where_allowed: settings.sent(std::env::vars_os()),
        ..CommandFlags::default()
    }
}

/// Whether the command gets a terminal; called when stdin is what the command will read.
fn wants_terminal(settings: &Settings) -> bool {
    let is_login =
        command_line(settings).is_empty() && settings.remote_command.clone().flatten().is_none();
    let stdin = io::stdin().is_terminal();
    match settings.request_tty.unwrap_or(RequestTty::Auto) {
        RequestTty::No => false,
        RequestTty::Auto => is_login && stdin,
        RequestTty::Force => true,
        RequestTty::Yes => {
            if !stdin {
                note(
                    "no terminal on the host, because local stdin is not a terminal; -tt forces \
                     one",
                );
            }
            stdin
        }
    }
}

//! `labsh run` on a set of hosts: from the set to an exit status.

use std::io::{self, IsTerminal};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use labsh_client::Address;
use labsh_client::config::Config;
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::fanout::{self, Broadcast, FanoutCommand, Host, Limits, StopLevel};
use labsh_client::terminal_text::escape;
use labsh_nodeset::NodeSet;
use labsh_proto::auth::Mode;
use labsh_proto::message::Program;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::console::print;
use crate::flags::{CommandFlags, ConnectionFlags};
use crate::fleet::hosts::{allow_descriptors, names, resolve, warn_of_shared_addresses};
use crate::fleet::report::HostReport;
use crate::fleet::screen::Screen;
use crate::remote::words::Targets;
use crate::run::display::{NOT_WRITTEN, OutputForm, RunDisplay, ScreenControl, raise, typed};
use crate::run::options::ManyOptions;
use crate::signals::{EndSignal, EndSignals};

/// The maximum number of events that wait for the screen; each may hold 64 KiB of output.
const MAX_PENDING_EVENTS: usize = 64;

/// How long the reader of the output may take nothing once the user has ended the run.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the command on all hosts and returns the exit status that `labsh run --help` documents.
pub(crate) fn execute(
    targets: &Targets,
    connection: &ConnectionFlags,
    program: Program,
    command: &CommandFlags,
    options: &ManyOptions,
) -> anyhow::Result<ExitCode> {
    // Loaded once: an inventory of a thousand hosts takes time to read.
    let config = Config::load()?;
    let names = names(targets, config.inventory(), &options.exclude, options.pick)?;
    let overrides = ConnectionOverrides { user: command.user.clone(), ..connection.overrides() };
    let hosts = resolve(&names, &config, &overrides)?;
    warn_of_shared_addresses(&hosts, "runs the command once for each");
    if options.dry_run {
        return dry_run(&names, &hosts, &program);
    }
    let texts: Vec<String> = names.iter().map(str::to_owned).collect();
    let reports = hosts.iter().map(HostReport::waiting).collect();
    let form = OutputForm::new(&texts, command, options)?;
    allow_descriptors();
    // Keys typed at a terminal are not meant for every host.
    let reads = !command.no_stdin && !io::stdin().is_terminal();
    let stdin = reads.then(|| Broadcast::new(io::stdin())).transpose();
    let fanout_command = FanoutCommand {
        program,
        options: command.remote(),
        stdin: stdin.context(
            "cannot keep standard input in a temporary file (TMPDIR says where); -n gives the \
             commands none",
        )?,
    };
    let limits = Limits {
        connecting: options.connecting as usize,
        running: options.rolling.unwrap_or(options.parallel) as usize,
        retries: options.retries,
        stop_at_failure: options.fail_fast || options.rolling.is_some(),
    };
    let runtime = labsh_transport::runtime::current_thread()?;
    let display = RunDisplay {
        screen: Screen::new(!options.quiet || io::stderr().is_terminal()),
        form,
        hosts: reports,
        program: fanout_command.program.clone(),
        json: command.json.is_some(),
        keep: matches!(targets, Targets::Set(_)),
        began: Instant::now(),
        reported_leftovers: false,
        max_status: options.max_status,
        unwritten: None,
    };
    let (display, ended_by) =
        runtime.block_on(drive(hosts, fanout_command, limits, display, command.status_fd))?;
    runtime.shutdown_background();
    Ok(ExitCode::from(display.exit_status(ended_by.map(EndSignal::exit_status))))
}

fn dry_run(names: &NodeSet, hosts: &[Host], program: &Program) -> anyhow::Result<ExitCode> {
    let mut text = format!("{names} ({})\n", names.len());
    for Host { name, connection, user } in hosts {
        let key = &connection.key;
        let mut line = format!(
            "{name}: {}, key {}, host id {}",
            connection.address,
            key.key_id(),
            key.host_id()
        );
        line += &user.as_ref().map_or_else(String::new, |user| format!(", user {user}"));
        if let (Address::Tcp { .. }, Mode::Plain) = (&connection.address, connection.mode) {
            line += ", no TLS";
        }
        text += &format!("{}\n", escape(&line));
    }
    let how =
        if let Program::Argv(_) = program { "runs exactly" } else { "runs in the shell there" };
    text += &format!("{how}: {}\n", typed(program));
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the command on the hosts, and shows what they do on a thread of its own: a slow screen must
/// not delay the answers to pings.
///
/// Returns with the display the signal by which the user ended the run, if one did.
async fn drive(
    hosts: Vec<Host>,
    command: FanoutCommand,
    limits: Limits,
    display: RunDisplay,
    status_fd: Option<RawFd>,
) -> anyhow::Result<(RunDisplay, Option<EndSignal>)> {
    let (events, incoming) = mpsc::channel(MAX_PENDING_EVENTS);
    let (stop_sender, stop) = watch::channel(StopLevel::None);
    let mut signals = EndSignals::new()?;
    let control = Arc::new(ScreenControl::default());
    let screen = std::thread::Builder::new().name("screen".into()).spawn({
        let (runtime, control, stop) = (Handle::current(), control.clone(), stop_sender.clone());
        move || {
            let mut display = display.follow(&runtime, incoming, &control, &stop);
            display.finish(status_fd, &control);
            display
        }
    })?;
    let all = async {
        fanout::run(hosts, command, limits, events, stop).await;
        tokio::task::spawn_blocking(move || screen.join()).await
    };
    let mut all = std::pin::pin!(all);
    let mut ended_by = None;
    let mut listed = false;
    loop {
        let signal = tokio::select! {
            joined = &mut all => match joined {
                Ok(Ok(display)) => return Ok((display, ended_by)),
                _ => anyhow::bail!("the thread that writes the output has gone"),
            },
            signal = signals.recv() => signal,
            () = control.blocked(BLOCKED_TIMEOUT), if ended_by.is_some() => leave(ended_by),
        };
        if signal == EndSignal::Interrupt && !listed {
            listed = true;
            control.asked.store(true, Ordering::Relaxed);
            continue;
        }
        let level = *stop_sender.borrow();
        let exit_status = ended_by.get_or_insert(signal).exit_status();
        control.ended_by.store(exit_status, Ordering::Relaxed);
        match (level, signal) {
            (StopLevel::None, EndSignal::Interrupt) => raise(&stop_sender, StopLevel::Interrupt),
            (StopLevel::None | StopLevel::Interrupt, EndSignal::Terminate) => {
                raise(&stop_sender, StopLevel::Terminate);
            }
            // Only a blocked write to stdout can still hold labsh.
            (StopLevel::Disconnect, _) => leave(ended_by),
            _ => raise(&stop_sender, StopLevel::Disconnect),
        }
    }
}

/// Ends labsh without waiting for the thread that writes the output.
fn leave(ended_by: Option<EndSignal>) -> ! {
    std::process::exit(ended_by.map_or(NOT_WRITTEN, EndSignal::exit_status).into())
}

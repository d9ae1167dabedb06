//! `labsh cp`: copies files and directories to hosts, or from them.

mod display;
pub(crate) mod operands;
pub(super) mod options;
mod pipes;
mod summary;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use labsh_client::config::Config;
use labsh_client::fanout::{self, Driver, Event, Host, Limits, StopLevel};
use labsh_client::{Child, ChildStderr, CommandError, ExitStatus};
use labsh_copy::{
    CopyReport, Counts, Destination, Error, Observer, Options, Progress, ReceiveOptions, SUBSYSTEM,
    SendOptions, Side,
};
use labsh_proto::message::Program;
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::console::{self, print};
use crate::cp::display::Display;
use crate::cp::operands::{Direction, Job};
use crate::cp::options::CopyOptions;
use crate::cp::pipes::{FromCommand, Hold, ToCommand};
use crate::cp::summary::Ended;
use crate::flags::JsonForm;
use crate::fleet::hosts as fleet_hosts;
use crate::fleet::report::{self, HostReport, State};
use crate::fleet::screen::PROGRESS_INTERVAL;
use crate::fleet::summary as fleet_summary;
use crate::json;
use crate::remote::connection;
use crate::remote::words::Targets;
use crate::signals::{EndSignal, EndSignals};

/// How long the threads may take to remove incomplete files after they were stopped.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The most likely cause when the remote side ends at once.
const NO_COPY: &str = "; what runs there does not speak labsh's copy protocol: restart labshd if \
    its program was replaced, and \
                       check subsystems.labsh-copy in its configuration";

/// The maximum length of the remote side's stderr that is shown, in bytes; it writes there only
/// when it fails.
const MAX_REMOTE_STDERR: u64 = 1024;

/// Copies, and returns the exit status that `labsh cp --help` documents.
pub(crate) fn execute(options: CopyOptions) -> anyhow::Result<ExitCode> {
    let job = Job::new(&options.words)?;
    let hosts = hosts(&job.targets, &options)?;
    let many = matches!(job.targets, Targets::Set(_));
    let run = CopyRun::new(job, &options, &hosts)?;
    fleet_hosts::allow_descriptors();
    let runtime = labsh_transport::runtime::multi_thread(None)?;
    let (began, run) = (Instant::now(), Arc::new(run));
    let (reports, ended_by) = runtime.block_on(drive(hosts, run.clone(), &options))?;
    runtime.shutdown_background();
    run.display.clear();
    let took = began.elapsed();
    let exit_status = match ended_by {
        Some(signal) => signal.exit_status(),
        None => report::exit_status(&reports),
    };
    let left = ended_by.is_some();
    Ended { run: &run, reports: &reports, many, left, exit_status, took }.report(&options)?;
    Ok(ExitCode::from(exit_status))
}

fn hosts(targets: &Targets, options: &CopyOptions) -> anyhow::Result<Vec<Host>> {
    if let Targets::One(target) = targets {
        if !options.many.exclude.is_empty() {
            bail!("--exclude is for sets of hosts, and this is one host");
        }
        // A single host may use a connection that the agent keeps.
        return Ok(vec![connection::host(target, &options.connection, None)?]);
    }
    let (config, overrides) = (Config::load()?, options.connection.overrides());
    let names = fleet_hosts::names(targets, config.inventory(), &options.many.exclude, None)?;
    let hosts = fleet_hosts::resolve(&names, &config, &overrides)?;
    fleet_hosts::warn_of_shared_addresses(&hosts, "copies once for each");
    Ok(hosts)
}

/// The state that the copying threads share.
struct CopyRun {
    job: Job,
    options: Options,
    /// By the index of the host.
    names: Vec<String>,
    progress: Vec<Progress>,
    /// The directory for each host's files, when files are copied from several hosts.
    folders: Option<PathBuf>,
    display: Display,
}

impl std::fmt::Debug for CopyRun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CopyRun").field("job", &self.job).finish_non_exhaustive()
    }
}

impl CopyRun {
    fn new(job: Job, options: &CopyOptions, hosts: &[Host]) -> anyhow::Result<Self> {
        let folders = match (&job.direction, &job.targets) {
            (Direction::Get { to, .. }, Targets::Set(_)) => Some(to.clone()),
            _ => None,
        };
        // Checked before connecting, so that a destination that cannot be written fails early.
        if let Some(folder) = &folders {
            if !folder.is_dir() {
                fs::create_dir(folder)
                    .with_context(|| format!("cannot make the directory {}", folder.display()))?;
            }
            if let Some(host) =
                hosts.iter().find(|host| labsh_copy::Name::new(host.name.as_bytes()).is_err())
            {
                bail!("{:?} cannot be the name of a directory for that host's files", host.name);
            }
        }
        Ok(Self {
            options: Options {
                send: SendOptions { checksum: options.checksum },
                receive: ReceiveOptions {
                    no_times: options.no_times,
                    no_permissions: options.no_perms,
                },
            },
            names: hosts.iter().map(|host| host.name.clone()).collect(),
            progress: hosts.iter().map(|_| Progress::default()).collect(),
            folders,
            display: Display::new(options.quiet),
            job,
        })
    }

    /// Writes a message about one host; its name is left out if it is the only one.
    fn note(&self, host: usize, text: &str) {
        match &self.names[..] {
            names if console::uses_json() => self
                .display
                .write(&json::Event::of_host("note", &names[host]).with("text", text).line()),
            [_] => self.display.note(text),
            names => self.display.note(&format!("{}: {text}", names[host])),
        }
    }

    /// Prints a failure or remark about one file.
    fn report(&self, host: usize, report: &CopyReport) {
        // A failure that follows from an earlier one has no text.
        if report.text.is_empty() {
            return;
        }
        let one = self.names.len() == 1 && report.side == Side::Source;
        let there = if one { self.job.there(&report.path) } else { None };
        let path = match (&self.job.direction, &report.path[..]) {
            // The destination itself.
            (Direction::Get { to, .. }, b"") => to.as_os_str().as_bytes(),
            (_, path) => path,
        };
        let shown = there.unwrap_or_else(|| String::from_utf8_lossy(path).into_owned());
        self.note(host, &format!("{shown}: {}", report.text));
    }

    /// Reports why the copy to a host could not begin. The remote side names its path without the
    /// host.
    fn refused(&self, host: usize, text: &str) {
        match &self.job.direction {
            Direction::Put { to, .. }
                if self.names.len() == 1
                    && text
                        .strip_prefix(&*String::from_utf8_lossy(to))
                        .is_some_and(|rest| rest.starts_with(": ")) =>
            {
                self.note(host, &format!("{}:{text}", self.job.target));
            }
            _ => self.note(host, text),
        }
    }

    /// Copies the files of one host; runs on a thread of its own.
    fn copy(&self, host: usize, from: FromCommand, to: ToCommand) -> Result<(), Error> {
        let on_report = |report: CopyReport| self.report(host, &report);
        let observer = Observer { progress: &self.progress[host], on_report: &on_report };
        let names = self.job.names.clone();
        match &self.job.direction {
            Direction::Put { sources, to: path } => {
                labsh_copy::put(from, to, path, names, sources, self.options, observer)
            }
            Direction::Get { from: paths, to: path } => {
                let path = match &self.folders {
                    Some(folder) => with_slash(&folder.join(&self.names[host])),
                    None => path.as_os_str().as_bytes().to_vec(),
                };
                let destination = Destination::resolve(&path, names)?;
                labsh_copy::get(from, to, paths.clone(), destination, self.options, observer)
            }
        }
    }

    fn counts(&self) -> Counts {
        let mut sum = Counts { listed: true, ..Counts::default() };
        for counts in self.progress.iter().map(Progress::counts) {
            // The sizes come from the other side, so the sum must not overflow.
            sum.announced_bytes = sum.announced_bytes.saturating_add(counts.announced_bytes);
            sum.processed_bytes = sum.processed_bytes.saturating_add(counts.processed_bytes);
            sum.transferred_bytes += counts.transferred_bytes;
            sum.listed &= counts.listed;
            sum.copied += counts.copied;
            sum.unchanged += counts.unchanged;
            sum.failed += counts.failed;
        }
        sum
    }
}

/// Appends a slash, so that the path can only be a directory.
fn with_slash(path: &Path) -> Vec<u8> {
    [OsStr::as_bytes(path.as_os_str()), b"/"].concat()
}

/// Runs the copy protocol with each host.
#[derive(Debug)]
struct Copying {
    run: Arc<CopyRun>,
    runtime: Handle,
    /// Each thread holds a sender, so that the receiver resolves when all threads have ended.
    alive: mpsc::Sender<()>,
}

impl Driver for Copying {
    async fn drive(&self, host: usize, mut child: Child) -> Result<ExitStatus, CommandError> {
        let lost = |reason: String| CommandError::Lost(reason);
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(lost("its streams are missing".into()));
        };
        let (_hold, held) = Hold::new();
        let from = FromCommand { runtime: self.runtime.clone(), stdout, held: held.clone() };
        let to = ToCommand { runtime: self.runtime.clone(), stdin, held };
        let (done, outcome) = oneshot::channel();
        let (run, alive) = (self.run.clone(), self.alive.clone());
        let thread = thread::Builder::new().name("copy".into()).spawn(move || {
            let outcome = run.copy(host, from, to);
            // Dropped before the outcome is sent: a task that waits for the threads must not miss
            // their clean-up.
            drop(alive);
            let _ = done.send(outcome);
        });
        thread.map_err(|error| lost(format!("no thread can be started: {error}")))?;
        let (mut outcome, mut stderr_text) = (outcome, std::pin::pin!(text_of(stderr)));
        let mut message = None;
        let outcome = loop {
            tokio::select! {
                outcome = &mut outcome => break outcome,
                text = &mut stderr_text, if message.is_none() => message = Some(text),
            }
        };
        // After a protocol error the remote side is not waited for.
        if let Ok(Err(error @ Error::Protocol(_))) = outcome {
            return Err(lost(error.to_string()));
        }
        let message = match message {
            Some(text) => text,
            None => stderr_text.await,
        };
        let status = child.exited().await;
        // A local failure must not end as the success of the remote side.
        let failure =
            |status: ExitStatus| if status.success() { status.with_code(1) } else { status };
        match outcome {
            Ok(Ok(())) if self.run.progress[host].counts().failed > 0 => status.map(failure),
            Ok(Ok(())) => status,
            Ok(Err(Error::Protocol(text))) => Err(lost(text.into())),
            Ok(Err(Error::Refused(text))) => {
                self.run.refused(host, &text);
                status.map(failure)
            }
            Ok(Err(Error::Disconnected(error))) => match status {
                // The remote side knows best why it ended.
                Ok(status) if !status.success() && !message.is_empty() => {
                    self.run.note(host, &message);
                    Ok(status)
                }
                Ok(status) => {
                    let mut text = format!("the remote side has ended without a message ({error})");
                    if status.signal().is_none() {
                        text += NO_COPY;
                    }
                    self.run.note(host, &text);
                    Ok(failure(status))
                }
                Err(error) => Err(error),
            },
            Err(_) => Err(lost("the thread that copies has gone".into())),
        }
    }
}

/// Returns the stderr of a command as one line.
async fn text_of(mut stderr: ChildStderr) -> String {
    let mut text = Vec::new();
    let _ = (&mut stderr).take(MAX_REMOTE_STDERR).read_to_end(&mut text).await;
    // The rest is read and dropped, so that the command is not blocked.
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).trim_end().replace('\n', "; ")
}

fn limits(options: &CopyOptions) -> Limits {
    Limits {
        connecting: options.many.connecting as usize,
        running: options.many.parallel as usize,
        retries: options.many.retries,
        stop_at_failure: false,
    }
}

/// Copies on all hosts. Returns the reports, and the signal by which the user ended the run.
async fn drive(
    hosts: Vec<Host>,
    run: Arc<CopyRun>,
    options: &CopyOptions,
) -> anyhow::Result<(Vec<HostReport>, Option<EndSignal>)> {
    let mut reports: Vec<HostReport> = hosts.iter().map(HostReport::waiting).collect();
    let (alive, mut all_gone) = mpsc::channel(1);
    let driver = Copying { run: run.clone(), runtime: Handle::current(), alive };
    let program = Program::Subsystem(SUBSYSTEM.into());
    let limits = limits(options);
    let mut signals = EndSignals::new()?;
    let (events, mut incoming) = mpsc::channel(64);
    let (stop_sender, stop) = watch::channel(StopLevel::None);
    let hosts_done =
        tokio::spawn(fanout::run_with_driver(hosts, program, driver, limits, events, stop));
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended_by = None;
    let mut unwritten = None;
    let mut write = |event: json::Event| {
        if options.json == Some(JsonForm::Events)
            && let Err(error) = print(event.line().as_bytes())
        {
            unwritten.get_or_insert(error);
            stop_sender.send_replace(StopLevel::Disconnect);
        }
    };
    loop {
        let signal = tokio::select! {
            event = incoming.recv() => match event {
                None => break,
                Some(Event::Begun(host)) => {
                    reports[host].state = State::Connecting(Instant::now());
                    continue;
                }
                Some(Event::Started(host)) => {
                    write(fleet_summary::started(&reports[host]));
                    continue;
                }
                Some(Event::Over(host, end, took)) => {
                    write(summary::over(&reports[host], &end, &run.progress[host], took));
                    reports[host].state = State::Over(end, took);
                    continue;
                }
                Some(Event::Leftovers(_) | Event::Output(..)) => continue,
            },
            _ = tick.tick() => {
                let done = reports.iter().filter(|host| matches!(host.state,
                    State::Over(..))).count();
                run.display.draw(run.counts(), done, reports.len());
                continue;
            }
            signal = signals.recv() => signal,
        };
        if ended_by.is_some() {
            std::process::exit(signal.exit_status().into());
        }
        ended_by = Some(signal);
        stop_sender.send_replace(StopLevel::Disconnect);
    }
    let closing = async {
        hosts_done.await.context("the copying has failed")?;
        // All threads have been stopped by now, but may still be removing incomplete files.
        let _ = tokio::time::timeout(CLEANUP_TIMEOUT, all_gone.recv()).await;
        anyhow::Ok(())
    };
    tokio::select! {
        closed = closing => closed?,
        signal = signals.recv() => std::process::exit(signal.exit_status().into()),
    }
    unwritten.map_or(Ok((reports, ended_by)), Err)
}

//! What a run on many hosts shows: the output in the form that was asked for, the progress, the
//! summary.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use labsh_client::fanout::{self, End, StopLevel};
use labsh_client::terminal_text::shell_word;
use labsh_proto::message::Program;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::console::{STDOUT, note};
use crate::flags::{CommandFlags, JsonForm};
use crate::fleet::last_run::keep_as_last;
use crate::fleet::report::{self, HostReport, State};
use crate::fleet::screen::{self, PROGRESS_INTERVAL, Screen};
use crate::fleet::summary::summary;
use crate::json::Event;
use crate::remote::{outcome, record};
use crate::run::files::Files;
use crate::run::gather::Gather;
use crate::run::json;
use crate::run::lines::Lines;
use crate::run::options::ManyOptions;

/// What happens to the output of the hosts.
pub(super) enum OutputForm {
    Lines(Lines),
    Gather(Gather),
    Difference(Gather),
    Files(Files),
    Events(json::Events),
    Quiet,
}

impl OutputForm {
    pub(super) fn new(
        names: &[String],
        command: &CommandFlags,
        options: &ManyOptions,
    ) -> anyhow::Result<Self> {
        if command.json.is_some() && (options.gather || options.diff) {
            anyhow::bail!(
                "--gather and --diff are for people, --json is for programs; leave one of them out"
            );
        }
        if command.json == Some(JsonForm::Events) && options.quiet {
            anyhow::bail!(
                "--json prints the output, and -q shows none; --json=summary goes with -q"
            );
        }
        if command.json == Some(JsonForm::Events) && options.out.is_some() {
            anyhow::bail!(
                "--json prints the output, and --out writes it to files; --json=summary goes with \
                 --out"
            );
        }
        Ok(match (command.json, &options.out) {
            (Some(JsonForm::Events), _) => OutputForm::Events(json::Events::new(names.len())),
            (Some(JsonForm::Summary), None) => OutputForm::Quiet,
            (_, Some(directory)) => OutputForm::Files(Files::new(directory, names)?),
            _ if options.gather => OutputForm::Gather(Gather::new(names.len())),
            _ if options.diff => OutputForm::Difference(Gather::new(names.len())),
            _ if options.quiet => OutputForm::Quiet,
            _ => OutputForm::Lines(Lines::new(names, screen::colours())),
        })
    }
}

/// The exit status when output could not be written.
pub(super) const NOT_WRITTEN: u8 = 255;

/// Why a host whose command has ended is still waited for.
const HELD_OPEN: &str = "but a process that it left behind holds its output open";

/// What the task that receives signals shares with the thread that writes the output.
#[derive(Debug, Default)]
pub(super) struct ScreenControl {
    /// Whether the user asks which hosts still run.
    pub(super) asked: AtomicBool,
    /// Counts what the thread has handled.
    turns: AtomicUsize,
    /// Whether the thread waits for an event, and not for the reader of the output.
    waits: AtomicBool,
    /// The exit status if the user ended the run, otherwise 0.
    pub(super) ended_by: AtomicU8,
}

impl ScreenControl {
    /// Resolves once the output has been blocked for this long.
    pub(super) async fn blocked(&self, time: Duration) {
        loop {
            let before = self.turns.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            let waits = self.waits.load(Ordering::Relaxed);
            if !waits && self.turns.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// The state of a run, and where it is shown.
pub(super) struct RunDisplay {
    pub(super) screen: Screen,
    pub(super) form: OutputForm,
    pub(super) hosts: Vec<HostReport>,
    pub(super) program: Program,
    /// Whether the summary is JSON.
    pub(super) json: bool,
    pub(super) began: Instant,
    /// Whether it is recorded as the last run.
    pub(super) keep: bool,
    /// Whether the user knows that the run waits for processes that the commands left behind.
    pub(super) reported_leftovers: bool,
    /// Whether the exit status is the highest of any host.
    pub(super) max_status: bool,
    /// Why the output is incomplete, if it is.
    pub(super) unwritten: Option<anyhow::Error>,
}

impl RunDisplay {
    /// Handles events until the run ends. An error in writing stops the run.
    pub(super) fn follow(
        mut self,
        runtime: &Handle,
        mut events: mpsc::Receiver<fanout::Event>,
        control: &ScreenControl,
        stop: &watch::Sender<StopLevel>,
    ) -> Self {
        loop {
            control.turns.fetch_add(1, Ordering::Relaxed);
            let mut next = events.try_recv().ok();
            if next.is_none() || self.screen.due() {
                let settled = self.screen.settle(&self.hosts).context(STDOUT);
                self.note_unwritten(settled, stop);
            }
            if next.is_none() {
                control.waits.store(true, Ordering::Relaxed);
                let received = runtime.block_on(async {
                    tokio::time::timeout(PROGRESS_INTERVAL, events.recv()).await
                });
                control.waits.store(false, Ordering::Relaxed);
                match received {
                    Ok(None) => return self,
                    Ok(event) => next = event,
                    Err(_) => {}
                }
            }
            if control.asked.swap(false, Ordering::Relaxed) {
                let said = self.tell_who_runs().context(STDOUT);
                self.note_unwritten(said, stop);
            }
            if let Some(event) = next {
                let taken = self.take(event);
                self.note_unwritten(taken, stop);
            }
        }
    }

    /// Notes an error in writing and stops the run: incomplete output must not look complete.
    fn note_unwritten(&mut self, written: anyhow::Result<()>, stop: &watch::Sender<StopLevel>) {
        if let Err(error) = written {
            self.unwritten.get_or_insert(error);
            raise(stop, StopLevel::Disconnect);
        }
    }

    fn take(&mut self, event: fanout::Event) -> anyhow::Result<()> {
        match event {
            fanout::Event::Begun(host) => {
                self.hosts[host].state = State::Connecting(Instant::now());
            }
            fanout::Event::Leftovers(host) => {
                self.hosts[host].state = State::Leftovers(Instant::now());
                self.report_leftovers()?;
            }
            fanout::Event::Started(host) => {
                if let State::Connecting(since) = self.hosts[host].state {
                    self.hosts[host].state = State::Running(since);
                }
                if let (OutputForm::Events(_), None) = (&self.form, &self.unwritten) {
                    json::started(&mut self.screen, &self.hosts[host]).context(STDOUT)?;
                }
            }
            fanout::Event::Output(..) if self.unwritten.is_some() => {}
            fanout::Event::Output(host, stream, bytes) => match &mut self.form {
                OutputForm::Lines(lines) => {
                    lines.output(&mut self.screen, host, stream, &bytes).context(STDOUT)?;
                }
                OutputForm::Gather(gather) | OutputForm::Difference(gather) => {
                    gather.output(host, stream, &bytes)?
                }
                OutputForm::Files(files) => files.output(host, stream, &bytes)?,
                OutputForm::Events(events) => {
                    let named = (host, &*self.hosts[host].name);
                    events.output(&mut self.screen, named, stream, &bytes).context(STDOUT)?;
                }
                OutputForm::Quiet => {}
            },
            fanout::Event::Over(host, end, took) => {
                let shown = match &mut self.form {
                    _ if self.unwritten.is_some() => Ok(()),
                    OutputForm::Lines(lines) => lines.over(&mut self.screen, host),
                    OutputForm::Events(events) => {
                        let named = (host, &self.hosts[host]);
                        events.over(&mut self.screen, named, &end, &self.program, took)
                    }
                    _ => Ok(()),
                };
                self.hosts[host].state = State::Over(end, took);
                shown.context(STDOUT)?;
                self.report_leftovers()?;
            }
        }
        Ok(())
    }

    fn tell_who_runs(&mut self) -> io::Result<()> {
        let ended = screen::with_leftovers(&self.hosts);
        let busy: Vec<String> = [
            ("running on", screen::still_running(&self.hosts)),
            ("connecting to", screen::still_connecting(&self.hosts)),
        ]
        .into_iter()
        .filter(|(_, set)| !set.is_empty())
        .map(|(what, set)| format!("{what} {set} ({})", set.len()))
        .collect();
        let mut text = Vec::new();
        if !busy.is_empty() {
            text.push(format!("still {}", busy.join(", ")));
        }
        if !ended.is_empty() {
            text.push(format!("ended on {ended} ({}), {HELD_OPEN}", ended.len()));
        }
        let next = match (busy.is_empty(), ended.is_empty()) {
            (true, true) => return self.screen.note("every host has ended; Ctrl-C twice leaves"),
            (true, false) => "Ctrl-C again leaves",
            (false, _) => "Ctrl-C again interrupts it everywhere, once more leaves",
        };
        self.screen.note(&format!("{}; {next}", text.join("; ")))
    }

    /// Reports once what the run still waits for, when no command runs any more.
    fn report_leftovers(&mut self) -> anyhow::Result<()> {
        let any = |state: fn(&State) -> bool| self.hosts.iter().any(|host| state(&host.state));
        let is_due = any(|state| matches!(state, State::Leftovers(_)))
            && !any(|state| matches!(state, State::Connecting(_) | State::Running(_)));
        if self.reported_leftovers || !is_due {
            return Ok(());
        }
        self.reported_leftovers = true;
        let ended = screen::with_leftovers(&self.hosts);
        let text = format!(
            "the command has ended on {ended} ({}), {HELD_OPEN}; waiting for that (--no-wait-eof \
             leaves at once)",
            ended.len()
        );
        self.screen.note(&text).context(STDOUT)
    }

    /// Returns the exit status of the run; `ended_by` is that of a run that the user ended.
    pub(super) fn exit_status(&self, ended_by: Option<u8>) -> u8 {
        match ended_by {
            Some(status) => status,
            None if self.unwritten.is_some() => NOT_WRITTEN,
            None if self.max_status => report::highest_status(&self.hosts),
            None => report::exit_status(&self.hosts),
        }
    }

    /// Shows the output that waits for the last host, and the summary.
    pub(super) fn finish(&mut self, status_fd: Option<RawFd>, control: &ScreenControl) {
        let ended_by = Some(control.ended_by.load(Ordering::Relaxed)).filter(|status| *status > 0);
        let took = self.began.elapsed();
        let outcome = |end: &End| record::of_command(end, &self.program);
        let mut summary = summary(&self.hosts, outcome, took, self.exit_status(ended_by));
        if self.unwritten.is_none() {
            self.unwritten = self.show_at_the_end(&summary).context(STDOUT).err();
            summary = summary.with("exit_status", self.exit_status(ended_by));
        }
        if let Some(descriptor) = status_fd {
            outcome::write_status(descriptor, &summary.clone().line());
        }
        let lines = report::summary(&self.hosts, &self.program, took);
        if let Some(error) = &self.unwritten {
            note(&format!("{error:#}; the output is not complete"));
        }
        if self.unwritten.is_some() || !self.json {
            for line in &lines {
                note(line);
            }
        }
        if self.keep {
            keep_as_last(&typed(&self.program), &summary, &lines);
        }
    }

    fn show_at_the_end(&mut self, summary: &Event) -> io::Result<()> {
        self.screen.finish()?;
        match &self.form {
            OutputForm::Gather(gather) => gather.show(&mut self.screen, &self.hosts)?,
            OutputForm::Difference(gather) => {
                gather.show_differences(&mut self.screen, &self.hosts)?
            }
            OutputForm::Lines(_)
            | OutputForm::Files(_)
            | OutputForm::Events(_)
            | OutputForm::Quiet => {}
        }
        if self.json {
            json::line(&mut self.screen, summary.clone())?;
        }
        self.screen.finish()
    }
}

/// Returns the command in shell syntax.
pub(super) fn typed(program: &Program) -> String {
    let word = |word: &Vec<u8>| shell_word(&String::from_utf8_lossy(word)).into_owned();
    match program {
        Program::Argv(words) => words.iter().map(word).collect::<Vec<_>>().join(" "),
        Program::Shell(line) | Program::Subsystem(line) => {
            String::from_utf8_lossy(line).into_owned()
        }
        Program::LoginShell => String::new(),
    }
}

/// Raises the level at which the run stops; it never falls.
pub(super) fn raise(stop: &watch::Sender<StopLevel>, level: StopLevel) {
    stop.send_if_modified(|current| {
        let is_higher = level > *current;
        *current = level.max(*current);
        is_higher
    });
}

//! `labsh run` on many hosts: one command everywhere, and no doubt about what became of it on each.

mod files;
mod gather;
mod json;
mod lines;
pub mod options;
mod report;
mod screen;

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use labsh_nodeset::NodeSet;
use labsh_proto::message::{Program, Until};
use labsh_transport::random;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::cli::options::{CommandOptions, ConnectionFlags};
use crate::cli::{note, print, run};
use crate::connect::ConnectOptions;
use crate::fanout::{self, Broadcast, Event, Host, Limits, Wish, Work};
use crate::inventory::Inventory;
use crate::target::Target;
use crate::terminal_text::shell_word;
use files::Files;
use gather::Gather;
use lines::Lines;
use options::{JsonForm, ManyOptions};
use report::{HostReport, State};
use screen::Screen;

/// Events on their way to the screen; each may hold 64 KiB of output.
const EVENTS: usize = 64;

/// How often the progress line is looked after when nothing happens.
const TICK: Duration = Duration::from_millis(200);

const INTERRUPTED: u8 = 130;

/// Runs it everywhere and returns the exit status that `labsh run --help` documents.
pub(crate) fn execute(
    expression: &str,
    connection: &ConnectionFlags,
    program: Program,
    command: &CommandOptions,
    options: &ManyOptions,
) -> anyhow::Result<ExitCode> {
    let names = targets(expression, options)?;
    let hosts = names
        .iter()
        .map(|name| host(name, connection, command.user.as_deref()))
        .collect::<anyhow::Result<Vec<Host>>>()?;
    warn_of_doubles(&hosts);
    if options.dry_run {
        return dry_run(&names, &hosts, &program);
    }
    let texts: Vec<String> = names.iter().map(str::to_owned).collect();
    let shape = Shape::new(&texts, command, options)?;
    allow_descriptors();
    // A terminal is for people: what they type is not meant for two hundred machines.
    let reads = !command.no_stdin && !io::stdin().is_terminal();
    let stdin = reads.then(|| Broadcast::new(io::stdin())).transpose();
    let work = Work {
        program,
        environment: command.env.clone(),
        directory: command.cwd.clone().map(std::ffi::OsString::into_encoded_bytes),
        timeout: command.timeout,
        user: command.user.clone(),
        until: if command.no_wait_eof { Until::CommandEnds } else { Until::StreamsEnd },
        stdin: stdin.context("cannot keep standard input in a temporary file; -n gives the commands none")?,
    };
    let limits = Limits {
        connecting: options.connecting as usize,
        running: options.rolling.unwrap_or(options.parallel) as usize,
        retries: options.retries,
        stop_at_failure: options.fail_fast || options.rolling.is_some(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let show = Show {
        screen: Screen::new(!options.quiet || io::stderr().is_terminal()),
        shape,
        hosts: texts.into_iter().map(|name| HostReport { name, state: State::Waiting }).collect(),
        program: work.program.clone(),
        began: Instant::now(),
    };
    let (mut show, wish) = runtime.block_on(drive(hosts, work, limits, show))?;
    runtime.shutdown_background();
    show.finish()?;
    Ok(ExitCode::from(match wish {
        Wish::Finish if options.max_status => report::highest_status(&show.hosts),
        Wish::Finish => report::exit_status(&show.hosts),
        Wish::Interrupt | Wish::Leave => INTERRUPTED,
    }))
}

/// The hosts that are meant, after exclusions and choice.
fn targets(expression: &str, options: &ManyOptions) -> anyhow::Result<NodeSet> {
    let inventory = Inventory::load()?;
    let mut set = NodeSet::parse(expression, &inventory)?;
    for excluded in &options.exclude {
        set = set.difference(&NodeSet::parse(excluded, &inventory).context("--exclude")?);
    }
    if let Some(count) = options.pick {
        let mut shuffled: Vec<([u8; 8], &str)> = set.iter().map(|name| (random::bytes(), name)).collect();
        shuffled.sort_unstable();
        set = shuffled.into_iter().take(count as usize).map(|(_, name)| name).collect();
    }
    if set.is_empty() {
        anyhow::bail!("{expression:?} is no host at all; nothing was started");
    }
    Ok(set)
}

fn host(name: &str, flags: &ConnectionFlags, user: Option<&str>) -> anyhow::Result<Host> {
    let target: Target = name.parse().with_context(|| format!("{name:?}"))?;
    // Thousands of hosts are more than an agent keeps.
    let connection = ConnectOptions { keeper: None, ..run::connection(&target, flags, user)? };
    Ok(Host { name: name.to_owned(), connection })
}

/// Two names of one machine are rarely meant: the command would run there twice.
fn warn_of_doubles(hosts: &[Host]) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for host in hosts {
        if let Some(first) = seen.insert(host.connection.address.to_string(), &host.name) {
            note(&format!(
                "{first} and {} are both {}: the command runs there twice",
                host.name, host.connection.address
            ));
        }
    }
}

fn dry_run(names: &NodeSet, hosts: &[Host], program: &Program) -> anyhow::Result<ExitCode> {
    let mut text = format!("{names} ({})\n", names.len());
    for Host { name, connection } in hosts {
        let key = &connection.key;
        text += &format!("{name}: {}, key {}, host id {}\n", connection.address, key.key_id(), key.host_id());
    }
    let word = |word: &Vec<u8>| shell_word(&String::from_utf8_lossy(word)).into_owned();
    text += &match program {
        Program::Argv(words) => {
            format!("runs exactly: {}\n", words.iter().map(word).collect::<Vec<_>>().join(" "))
        }
        Program::Shell(line) => format!("runs in the shell there: {}\n", String::from_utf8_lossy(line)),
        Program::LoginShell | Program::Subsystem(_) => String::new(),
    };
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A connection is a descriptor; a thousand hosts are more than the usual soft limit.
fn allow_descriptors() {
    // Where that is refused, the connections that do not fit say so themselves.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Runs the hosts here and shows what they do on a thread of its own: a slow screen must not stop the answers to pings.
async fn drive(hosts: Vec<Host>, work: Work, limits: Limits, show: Show) -> anyhow::Result<(Show, Wish)> {
    let (events, incoming) = mpsc::channel(EVENTS);
    let (wish, wished) = watch::channel(Wish::Finish);
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let asked = Arc::new(AtomicBool::new(false));
    let screen = std::thread::Builder::new().name("screen".into()).spawn({
        let (runtime, asked, wish) = (Handle::current(), asked.clone(), wish.clone());
        move || show.follow(&runtime, incoming, &asked, &wish)
    })?;
    let mut hosts = std::pin::pin!(fanout::run(hosts, work, limits, events, wished));
    let mut count = 0;
    loop {
        tokio::select! {
            () = &mut hosts => break,
            _ = interrupts.recv() => {
                count += 1;
                match count {
                    1 => asked.store(true, Ordering::Relaxed),
                    2 => wish_at_least(&wish, Wish::Interrupt),
                    _ => wish_at_least(&wish, Wish::Leave),
                }
            }
            _ = terminations.recv() => {
                let next = if *wish.borrow() == Wish::Finish { Wish::Interrupt } else { Wish::Leave };
                wish_at_least(&wish, next);
            }
        }
    }
    let last = *wish.borrow();
    match tokio::task::spawn_blocking(move || screen.join()).await {
        Ok(Ok(shown)) => Ok((shown?, last)),
        _ => anyhow::bail!("the thread that writes the output has gone"),
    }
}

fn wish_at_least(wish: &watch::Sender<Wish>, next: Wish) {
    wish.send_if_modified(|now| {
        let firmer = next > *now;
        *now = (*now).max(next);
        firmer
    });
}

/// What is done with what the hosts write.
enum Shape {
    Lines(Lines),
    Gather(Gather),
    Difference(Gather),
    Files(Files),
    Events,
    Summary,
    Quiet,
}

impl Shape {
    fn new(names: &[String], command: &CommandOptions, options: &ManyOptions) -> anyhow::Result<Self> {
        let lines = || Lines::new(names, Screen::colours());
        Ok(match (command.json, &options.out) {
            (Some(JsonForm::Events), _) => Shape::Events,
            (Some(JsonForm::Summary), None) => Shape::Summary,
            (_, Some(directory)) => Shape::Files(Files::new(directory, names)?),
            _ if options.gather => Shape::Gather(Gather::new(names.len())),
            _ if options.diff => Shape::Difference(Gather::new(names.len())),
            _ if options.quiet => Shape::Quiet,
            _ => Shape::Lines(lines()),
        })
    }
}

/// What the run has come to, and where it is shown.
struct Show {
    screen: Screen,
    shape: Shape,
    hosts: Vec<HostReport>,
    program: Program,
    began: Instant,
}

impl Show {
    /// Takes events until there are no more. What cannot be written ends the run.
    fn follow(
        mut self,
        runtime: &Handle,
        mut events: mpsc::Receiver<Event>,
        asked: &AtomicBool,
        wish: &watch::Sender<Wish>,
    ) -> anyhow::Result<Self> {
        let mut outcome = Ok(());
        loop {
            let event = match events.try_recv() {
                Ok(event) => Some(event),
                Err(_) => {
                    if outcome.is_ok() {
                        outcome = self.screen.settle(&self.hosts).context("cannot write to standard output");
                    }
                    match runtime.block_on(async { tokio::time::timeout(TICK, events.recv()).await }) {
                        Ok(None) => return outcome.map(|()| self),
                        Ok(event) => event,
                        Err(_) => None,
                    }
                }
            };
            if asked.swap(false, Ordering::Relaxed) {
                self.tell_who_runs()?;
            }
            if let (Some(event), Ok(())) = (event, &outcome) {
                outcome = self.take(event);
            }
            if outcome.is_err() {
                wish_at_least(wish, Wish::Leave);
            }
        }
    }

    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        let written = "cannot write to standard output";
        match event {
            Event::Begun(host) => self.hosts[host].state = State::Running(Instant::now()),
            Event::Started(host) => {
                if let Shape::Events = self.shape {
                    json::started(&mut self.screen, &self.hosts[host].name).context(written)?;
                }
            }
            Event::Output(host, stream, bytes) => match &mut self.shape {
                Shape::Lines(lines) => {
                    lines.output(&mut self.screen, host, stream, &bytes).context(written)?;
                }
                Shape::Gather(gather) | Shape::Difference(gather) => gather.output(host, stream, &bytes),
                Shape::Files(files) => files.output(host, stream, &bytes)?,
                Shape::Events => {
                    json::output(&mut self.screen, &self.hosts[host].name, stream, &bytes)
                        .context(written)?;
                }
                Shape::Summary | Shape::Quiet => {}
            },
            Event::Over(host, end, took) => {
                match &mut self.shape {
                    Shape::Lines(lines) => lines.over(&mut self.screen, host).context(written)?,
                    Shape::Events => {
                        json::over(&mut self.screen, &self.hosts[host].name, &end, &self.program, took)
                            .context(written)?;
                    }
                    _ => {}
                }
                self.hosts[host].state = State::Over(end, took);
            }
        }
        Ok(())
    }

    fn tell_who_runs(&mut self) -> io::Result<()> {
        let running = screen::still_running(&self.hosts);
        self.screen.note(&format!(
            "still running on {running} ({}); Ctrl-C again interrupts it everywhere, once more leaves",
            running.len()
        ))
    }

    /// Shows what had to wait for the last host, and the summary.
    fn finish(&mut self) -> anyhow::Result<()> {
        let took = self.began.elapsed();
        self.screen.finish()?;
        match &self.shape {
            Shape::Gather(gather) => gather.show(&mut self.screen, &self.hosts)?,
            Shape::Difference(gather) => gather.show_differences(&mut self.screen, &self.hosts)?,
            Shape::Events | Shape::Summary => {
                json::line(&mut self.screen, &json::summary(&self.hosts, &self.program, took))?;
                return self.screen.finish().context("cannot write to standard output");
            }
            Shape::Lines(_) | Shape::Files(_) | Shape::Quiet => {}
        }
        self.screen.finish().context("cannot write to standard output")?;
        for line in report::summary(&self.hosts, &self.program, took) {
            self.screen.note(&line)?;
        }
        Ok(())
    }
}

//! `labsh run` on many hosts: one command everywhere, and no doubt about what became of it on each.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use labsh_nodeset::NodeSet;
use labsh_proto::auth::Mode;
use labsh_proto::message::{Program, Until};
use labsh_transport::random;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::cli::console::{note, print, survive_file_size_limit};
use crate::cli::flags::JsonForm;
use crate::cli::flags::{CommandOptions, ConnectionFlags};
use crate::cli::fleet::last_run::{Last, Outcome};
use crate::cli::fleet::report::{self, HostReport, State};
use crate::cli::fleet::screen::{self, Screen};
use crate::cli::remote::outcome;
use crate::cli::remote::words::Targets;
use crate::cli::run::files::Files;
use crate::cli::run::gather::Gather;
use crate::cli::run::options::ManyOptions;
use crate::cli::run::{json, lines::Lines};
use crate::cli::{hosts, run};
use crate::config::Config;
use crate::config::inventory::Inventory;
use crate::config::overrides::ConnectionOverrides;
use crate::config::target::Target;
use crate::connect::{Address, ConnectOptions};
use crate::fanout::{self, Broadcast, Event, Host, Limits, Wish, Work};
use crate::terminal_text::{escape, escape_json, shell_word};

/// Events on their way to the screen; each may hold 64 KiB of output.
const EVENTS: usize = 64;

/// How often the progress line is looked after when nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// Addresses with several names that are told one by one.
const DOUBLES: usize = 3;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// What went wrong where our stdout cannot be written.
const STDOUT: &str = "cannot write to standard output";

/// The exit status where the output could not be written.
const NOT_WRITTEN: u8 = 255;

/// Runs it everywhere and returns the exit status that `labsh run --help` documents.
pub(crate) fn execute(
    targets: &Targets,
    connection: &ConnectionFlags,
    program: Program,
    command: &CommandOptions,
    options: &ManyOptions,
) -> anyhow::Result<ExitCode> {
    // Read once: a file that names a thousand hosts takes a while.
    let config = Config::load()?;
    let names = hosts_of(targets, config.inventory(), options)?;
    let overrides = ConnectionOverrides { user: command.user.clone(), ..connection.overrides() };
    let hosts = names
        .iter()
        .map(|name| host(name, &config, &overrides))
        .collect::<anyhow::Result<Vec<Host>>>()?;
    warn_of_doubles(&hosts, "runs the command once for each");
    if options.dry_run {
        return dry_run(&names, &hosts, &program);
    }
    let texts: Vec<String> = names.iter().map(str::to_owned).collect();
    let report = |Host { name, connection, .. }: &Host| HostReport {
        name: name.clone(),
        address: connection.address.to_string(),
        state: State::Waiting,
    };
    let reports = hosts.iter().map(report).collect();
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
        until: if command.no_wait_eof { Until::CommandEnds } else { Until::StreamsEnd },
        stdin: stdin.context(
            "cannot keep standard input in a temporary file (TMPDIR says where); -n gives the \
             commands none",
        )?,
        companion: None,
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
        hosts: reports,
        program: work.program.clone(),
        json: command.json.is_some(),
        keep: matches!(targets, Targets::Set(_)),
        began: Instant::now(),
        unwritten: None,
    };
    let (mut show, ended_by) = runtime.block_on(drive(hosts, work, limits, show))?;
    runtime.shutdown_background();
    show.finish(command.status_fd)?;
    Ok(ExitCode::from(match ended_by {
        Some(signal) => 128 + signal as u8,
        None if show.unwritten.is_some() => NOT_WRITTEN,
        None if options.max_status => report::highest_status(&show.hosts),
        None => report::exit_status(&show.hosts),
    }))
}

/// The hosts that are meant, after exclusions and choice.
pub(crate) fn hosts_of(
    targets: &Targets,
    inventory: &Inventory,
    options: &ManyOptions,
) -> anyhow::Result<NodeSet> {
    let mut set = match targets {
        // Whatever its characters mean elsewhere, it is one host.
        Targets::One(target) => {
            let name = target.to_string();
            hosts::without(NodeSet::of([&*name]), &name, &options.exclude, inventory)?
        }
        Targets::Set(expression) => hosts::select(expression, &options.exclude, inventory)?,
    };
    if let Some(count) = options.pick {
        let mut shuffled: Vec<([u8; 8], &str)> =
            set.iter().map(|name| (random::bytes(), name)).collect();
        shuffled.sort_unstable();
        set = shuffled.into_iter().take(count as usize).map(|(_, name)| name).collect();
    }
    Ok(set)
}

pub(crate) fn host(
    name: &str,
    config: &Config,
    overrides: &ConnectionOverrides,
) -> anyhow::Result<Host> {
    let target: Target = name.parse().with_context(|| format!("{name:?}"))?;
    let resolved = config.resolve(&target, overrides)?;
    let user = resolved.route.user.clone();
    // Thousands of hosts are more than an agent keeps.
    let connection = ConnectOptions { keeper: None, ..run::connect_options(resolved)? };
    Ok(Host { name: name.to_owned(), connection, user })
}

/// Two names of one machine are rarely meant: the command would run there twice.
pub(crate) fn warn_of_doubles(hosts: &[Host], so: &str) {
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for host in hosts {
        names.entry(host.connection.address.to_string()).or_default().push(&host.name);
    }
    names.retain(|_, names| names.len() > 1);
    let shared = names.len();
    for (address, names) in names.into_iter().take(DOUBLES) {
        let all: NodeSet = names.into_iter().collect();
        note(&format!("{all} have one address, {address}, which {so}"));
    }
    if shared > DOUBLES {
        note(&format!("the same is true of {} more addresses", shared - DOUBLES));
    }
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

/// The command as a person would type it.
fn typed(program: &Program) -> String {
    let word = |word: &Vec<u8>| shell_word(&String::from_utf8_lossy(word)).into_owned();
    match program {
        Program::Argv(words) => words.iter().map(word).collect::<Vec<_>>().join(" "),
        Program::Shell(line) | Program::Subsystem(line) => {
            String::from_utf8_lossy(line).into_owned()
        }
        Program::LoginShell => String::new(),
    }
}

/// A connection is a descriptor; a thousand hosts are more than the usual soft limit.
pub(crate) fn allow_descriptors() {
    // Where that is refused, the connections that do not fit say so themselves.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Runs the hosts here and shows what they do on a thread of its own: a slow screen must not stop
/// the answers to pings.
///
/// Returns with it the signal by which the user ended the run, if one did.
async fn drive(
    hosts: Vec<Host>,
    work: Work,
    limits: Limits,
    show: Show,
) -> anyhow::Result<(Show, Option<i32>)> {
    let (events, incoming) = mpsc::channel(EVENTS);
    let (wish, wished) = watch::channel(Wish::Finish);
    survive_file_size_limit()?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let asked = Arc::new(AtomicBool::new(false));
    let screen = std::thread::Builder::new().name("screen".into()).spawn({
        let (runtime, asked, wish) = (Handle::current(), asked.clone(), wish.clone());
        move || show.follow(&runtime, incoming, &asked, &wish)
    })?;
    let all = async {
        fanout::run(hosts, work, limits, events, wished).await;
        tokio::task::spawn_blocking(move || screen.join()).await
    };
    let mut all = std::pin::pin!(all);
    let mut ended_by = None;
    let mut told = false;
    loop {
        let signal = tokio::select! {
            joined = &mut all => match joined {
                Ok(Ok(shown)) => return Ok((shown, ended_by)),
                _ => anyhow::bail!("the thread that writes the output has gone"),
            },
            _ = interrupts.recv() => SIGINT,
            _ = terminations.recv() => SIGTERM,
        };
        if signal == SIGINT && !told {
            told = true;
            asked.store(true, Ordering::Relaxed);
            continue;
        }
        let now = *wish.borrow();
        ended_by.get_or_insert(signal);
        match (now, signal) {
            (Wish::Finish, SIGINT) => wish_at_least(&wish, Wish::Interrupt),
            (Wish::Finish | Wish::Interrupt, SIGTERM) => wish_at_least(&wish, Wish::Terminate),
            // Only a stdout that takes nothing can hold us then.
            (Wish::Leave, _) => std::process::exit(128 + signal),
            _ => wish_at_least(&wish, Wish::Leave),
        }
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
    Events(json::Events),
    Quiet,
}

impl Shape {
    fn new(
        names: &[String],
        command: &CommandOptions,
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
            (Some(JsonForm::Events), _) => Shape::Events(json::Events::new(names.len())),
            (Some(JsonForm::Summary), None) => Shape::Quiet,
            (_, Some(directory)) => Shape::Files(Files::new(directory, names)?),
            _ if options.gather => Shape::Gather(Gather::new(names.len())),
            _ if options.diff => Shape::Difference(Gather::new(names.len())),
            _ if options.quiet => Shape::Quiet,
            _ => Shape::Lines(Lines::new(names, screen::colours())),
        })
    }
}

/// What the run has come to, and where it is shown.
struct Show {
    screen: Screen,
    shape: Shape,
    hosts: Vec<HostReport>,
    program: Program,
    /// Whether the summary is for programs.
    json: bool,
    began: Instant,
    /// Whether it becomes the last run.
    keep: bool,
    /// Why the output is not complete, if it is not.
    unwritten: Option<anyhow::Error>,
}

impl Show {
    /// Takes events until there are no more. What cannot be written ends the run.
    fn follow(
        mut self,
        runtime: &Handle,
        mut events: mpsc::Receiver<Event>,
        asked: &AtomicBool,
        wish: &watch::Sender<Wish>,
    ) -> Self {
        loop {
            let mut next = events.try_recv().ok();
            if next.is_none() || self.screen.due() {
                let settled = self.screen.settle(&self.hosts).context(STDOUT);
                self.note_unwritten(settled, wish);
            }
            if next.is_none() {
                match runtime.block_on(async { tokio::time::timeout(TICK, events.recv()).await }) {
                    Ok(None) => return self,
                    Ok(event) => next = event,
                    Err(_) => {}
                }
            }
            if asked.swap(false, Ordering::Relaxed) {
                let said = self.tell_who_runs().context(STDOUT);
                self.note_unwritten(said, wish);
            }
            if let Some(event) = next {
                let taken = self.take(event);
                self.note_unwritten(taken, wish);
            }
        }
    }

    /// Output that is not complete must not go on as if it were: the run is left.
    fn note_unwritten(&mut self, written: anyhow::Result<()>, wish: &watch::Sender<Wish>) {
        if let Err(error) = written {
            self.unwritten.get_or_insert(error);
            wish_at_least(wish, Wish::Leave);
        }
    }

    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Begun(host) => self.hosts[host].state = State::Running(Instant::now()),
            Event::Started(host) => {
                if let (Shape::Events(_), None) = (&self.shape, &self.unwritten) {
                    json::started(&mut self.screen, &self.hosts[host].name).context(STDOUT)?;
                }
            }
            Event::Output(..) if self.unwritten.is_some() => {}
            Event::Output(host, stream, bytes) => match &mut self.shape {
                Shape::Lines(lines) => {
                    lines.output(&mut self.screen, host, stream, &bytes).context(STDOUT)?;
                }
                Shape::Gather(gather) | Shape::Difference(gather) => {
                    gather.output(host, stream, &bytes)?
                }
                Shape::Files(files) => files.output(host, stream, &bytes)?,
                Shape::Events(events) => {
                    let named = (host, &*self.hosts[host].name);
                    events.output(&mut self.screen, named, stream, &bytes).context(STDOUT)?;
                }
                Shape::Quiet => {}
            },
            Event::Over(host, end, took) => {
                let shown = match &mut self.shape {
                    _ if self.unwritten.is_some() => Ok(()),
                    Shape::Lines(lines) => lines.over(&mut self.screen, host),
                    Shape::Events(events) => {
                        let named = (host, &*self.hosts[host].name);
                        events.over(&mut self.screen, named, &end, &self.program, took)
                    }
                    _ => Ok(()),
                };
                self.hosts[host].state = State::Over(end, took);
                shown.context(STDOUT)?;
            }
        }
        Ok(())
    }

    fn tell_who_runs(&mut self) -> io::Result<()> {
        let running = screen::still_running(&self.hosts);
        self.screen.note(&format!(
            "still running on {running} ({}); Ctrl-C again interrupts it everywhere, once more \
             leaves",
            running.len()
        ))
    }

    /// Shows what had to wait for the last host, and the summary.
    fn finish(&mut self, status_fd: Option<RawFd>) -> anyhow::Result<()> {
        let took = self.began.elapsed();
        let summary = json::summary(&self.hosts, &self.program, took);
        if self.unwritten.is_none() {
            self.unwritten = self.show_at_the_end(&summary).context(STDOUT).err();
        }
        if let Some(descriptor) = status_fd {
            outcome::write_status(descriptor, &(escape_json(&summary.to_string()) + "\n"));
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
            keep_as_last(&self.hosts, &self.program, typed(&self.program), lines);
        }
        Ok(())
    }

    fn show_at_the_end(&mut self, summary: &Value) -> io::Result<()> {
        self.screen.finish()?;
        match &self.shape {
            Shape::Gather(gather) => gather.show(&mut self.screen, &self.hosts)?,
            Shape::Difference(gather) => gather.show_differences(&mut self.screen, &self.hosts)?,
            Shape::Lines(_) | Shape::Files(_) | Shape::Events(_) | Shape::Quiet => {}
        }
        if self.json {
            json::line(&mut self.screen, summary)?;
        }
        self.screen.finish()
    }
}

/// Keeps this run for the next one, which may have its hosts for a target.
pub(crate) fn keep_as_last(
    hosts: &[HostReport],
    program: &Program,
    command: String,
    summary: Vec<String>,
) {
    let outcome = |host: &HostReport| match &host.state {
        State::Over(end, took) => {
            let mut more = json::of_end(end, program, *took);
            more.remove("outcome");
            let outcome = report::Kind::of(end).word().to_owned();
            Some((host.name.clone(), Outcome { outcome, more }))
        }
        State::Waiting | State::Running(_) => None,
    };
    let last = Last {
        when: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command,
        summary,
        hosts: hosts.iter().filter_map(outcome).collect(),
    };
    if let Err(error) = last.save() {
        note(&format!("@last is not this run: {error:#}"));
    }
}

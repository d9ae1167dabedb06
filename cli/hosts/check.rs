//! `labsh hosts check`: which hosts answer, how fast, which version, and why the others do not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use labsh_client::config::Config;
use labsh_client::fanout::{Answer, End, Host, check};
use labsh_nodeset::NodeSet;
use labsh_proto::message::{Program, Stream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::console::STDOUT;
use crate::flags::ConnectionFlags;
use crate::fleet::hosts::{allow_descriptors, resolve, warn_of_shared_addresses};
use crate::fleet::report::{self, Failures, Kind};
use crate::fleet::screen::{PROGRESS_INTERVAL, Screen};
use crate::hosts::{Which, shown};
use crate::json::{self, Event};
use crate::remote::record;

/// The maximum number of answers that wait to be printed.
const MAX_PENDING_ANSWERS: usize = 64;

/// The options of `labsh hosts check`.
#[derive(Debug, Clone, Args)]
#[command(mut_arg("keep", |arg| arg.hide(true)))]
pub(crate) struct CheckOptions {
    /// At most this many connections being opened at once
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..))]
    connecting: u32,
    /// Print a line of JSON for each host, and no summary
    #[arg(long)]
    json: bool,
    /// How to reach the hosts.
    #[command(flatten)]
    connection: ConnectionFlags,
    /// Which hosts.
    #[command(flatten)]
    which: Which,
}

/// Connects to all hosts and reports how each answered.
pub(crate) fn execute(options: CheckOptions) -> anyhow::Result<ExitCode> {
    let config = Config::load()?;
    let names = options.which.select(config.inventory())?;
    let flags = options.connection.overrides();
    let hosts = resolve(&names, &config, &flags)?;
    warn_of_shared_addresses(&hosts, "is asked once for each");
    allow_descriptors();
    // One thread: it measures how long hosts take to answer, and threads would contend for the
    // processor.
    let runtime = labsh_transport::runtime::current_thread()?;
    let status = runtime.block_on(ask(&hosts, &options))?;
    runtime.shutdown_background();
    Ok(ExitCode::from(status))
}

async fn ask(hosts: &[Host], options: &CheckOptions) -> anyhow::Result<u8> {
    let (sender, mut answers) = mpsc::channel(MAX_PENDING_ANSWERS);
    let asking = tokio::spawn(check(hosts.to_vec(), options.connecting as usize, sender));
    let mut report = Report::new(hosts, options.json);
    loop {
        if report.screen.due() {
            report.settle().context(STDOUT)?;
        }
        match timeout(PROGRESS_INTERVAL, answers.recv()).await {
            Ok(Some((index, answer))) => report.add(index, answer).context(STDOUT)?,
            Ok(None) => break,
            Err(_) => {}
        }
    }
    asking.await?;
    report.close().context(STDOUT)
}

/// The answers so far, and where they are shown.
struct Report<'a> {
    hosts: &'a [Host],
    json: bool,
    screen: Screen,
    began: Instant,
    /// The width of the widest name and the widest address, in characters.
    widths: (usize, usize),
    /// The hosts that have not answered, by index.
    silent: BTreeSet<usize>,
    times: Vec<(Duration, &'a str)>,
    /// The hosts by the version that they reported.
    versions: BTreeMap<Option<String>, Vec<&'a str>>,
    failures: Failures<'a>,
    failed: usize,
    status: u8,
}

impl<'a> Report<'a> {
    fn new(hosts: &'a [Host], json: bool) -> Self {
        let width =
            |text: fn(&Host) -> String| hosts.iter().map(|host| text(host).chars().count()).max();
        let names = width(|host| shown(&host.name)).unwrap_or(0);
        let addresses = width(|host| shown(&host.connection.address.to_string())).unwrap_or(0);
        Self {
            hosts,
            json,
            screen: Screen::new(!json),
            began: Instant::now(),
            widths: (names, addresses),
            silent: (0..hosts.len()).collect(),
            times: Vec::new(),
            versions: BTreeMap::new(),
            failures: Failures::default(),
            failed: 0,
            status: 0,
        }
    }

    /// Prints a host's line, and adds it to the summary.
    fn add(&mut self, index: usize, answer: Result<Answer, End>) -> io::Result<()> {
        let host = &self.hosts[index];
        let address = host.connection.address.to_string();
        let line = if self.json {
            json_line(host, &answer).line()
        } else {
            let (names, addresses) = self.widths;
            format!(
                "{:names$}  {:addresses$}  {}\n",
                shown(&host.name),
                shown(&address),
                outcome_text(&answer)
            )
        };
        self.screen.write(Stream::Stdout, |out, _| {
            out.write_all(line.as_bytes()).and_then(|()| out.flush())
        })?;
        self.silent.remove(&index);
        match answer {
            Ok(answer) => {
                self.times.push((answer.authenticated, &host.name));
                self.versions.entry(answer.version).or_default().push(&host.name);
            }
            Err(end) => {
                self.failed += 1;
                self.status = self.status.max(Kind::of(&end).exit_status());
                self.failures.add(&host.name, &address, &end, &Program::LoginShell);
            }
        }
        Ok(())
    }

    /// Draws the progress line.
    fn settle(&mut self) -> io::Result<()> {
        let Self { hosts, screen, began, silent, times, failed, .. } = self;
        screen.settle_on(|| {
            let took = report::seconds(began.elapsed());
            let mut text = format!("{} of {} answered in {took}", times.len(), hosts.len());
            if *failed > 0 {
                text += &format!(", {failed} failed");
            }
            if !silent.is_empty() {
                let silent: NodeSet =
                    silent.iter().map(|index| hosts[*index].name.as_str()).collect();
                text += &format!(", waiting for {}", shown(&silent.to_string()));
            }
            text
        })
    }

    /// Prints the summary; returns the exit status.
    fn close(mut self) -> io::Result<u8> {
        self.screen.finish()?;
        if self.json {
            return Ok(self.status);
        }
        let (answered, took) = (self.times.len(), report::seconds(self.began.elapsed()));
        let spread = report::spread(&mut self.times);
        self.screen
            .note(&format!("{answered} of {} answered in {took}{spread}", self.hosts.len()))?;
        for line in versions(&self.versions).into_iter().chain(self.failures.lines(Kind::text)) {
            self.screen.note(&line)?;
        }
        Ok(self.status)
    }
}

/// Returns the outcome of a host in a few words.
fn outcome_text(answer: &Result<Answer, End>) -> String {
    match answer {
        Ok(Answer { authenticated, round_trip, version }) => {
            let version = version
                .as_ref()
                .map_or_else(String::new, |version| format!(", {}", shown(version)));
            let (authenticated, round_trip) =
                (milliseconds(*authenticated), milliseconds(*round_trip));
            format!("authenticated in {authenticated}, round trip {round_trip}{version}")
        }
        Err(end) => Kind::of(end).text(),
    }
}

/// Returns a line for each version with its hosts, the most frequent first; none if all hosts have
/// one version.
fn versions(versions: &BTreeMap<Option<String>, Vec<&str>>) -> Vec<String> {
    if versions.len() < 2 {
        return Vec::new();
    }
    let mut by_count: Vec<_> = versions.iter().collect();
    by_count.sort_by_key(|(_, hosts)| Reverse(hosts.len()));
    let line = |(version, hosts): (&Option<String>, &Vec<&str>)| {
        let set: NodeSet = hosts.iter().copied().collect();
        format!("{} ({}): {set}", version.as_deref().unwrap_or("version not said"), hosts.len())
    };
    by_count.into_iter().map(line).collect()
}

fn json_line(host: &Host, answer: &Result<Answer, End>) -> Event {
    let event =
        Event::of_host("over", &host.name).with_all(json::location(&host.connection.address));
    match answer {
        Ok(Answer { authenticated, round_trip, version }) => event
            .with("outcome", "ok")
            .with("exit_status", 0)
            .with("authenticated_ms", json::milliseconds(*authenticated))
            .with("round_trip_ms", json::milliseconds(*round_trip))
            .with("version", version.as_deref()),
        Err(end) => {
            let status = Kind::of(end).exit_status();
            event.with_all(record::of_host(end, &Program::LoginShell, status))
        }
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

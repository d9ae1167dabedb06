//! `labsh hosts check`: which hosts answer, how fast, and why the others do not.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use labsh_proto::message::Program;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cli::hosts::{Which, shown};
use crate::cli::many::report::{self, Failures, Kind};
use crate::cli::many::{allow_descriptors, host, warn_of_doubles};
use crate::cli::options::ConnectionFlags;
use crate::cli::{note, print};
use crate::config::Config;
use crate::fanout::{Answer, End, Host, check};
use crate::terminal_text::escape_json;

/// Answers on their way to stdout.
const ANSWERS: usize = 64;

/// `labsh hosts check`: its options.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckOptions {
    /// At most so many connections being opened at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connecting: u32,
    /// Print a line of JSON for each host, and no summary
    #[arg(long)]
    json: bool,
    /// How to get there.
    #[command(flatten)]
    connection: ConnectionFlags,
    /// Which.
    #[command(flatten)]
    which: Which,
}

/// Connects to all of them and tells what became of it.
pub(crate) fn execute(options: CheckOptions) -> anyhow::Result<ExitCode> {
    let config = Config::load()?;
    let names = options.which.select(config.inventory())?;
    let flags = options.connection.choices();
    let hosts =
        names.iter().map(|name| host(name, &config, &flags)).collect::<anyhow::Result<Vec<Host>>>()?;
    warn_of_doubles(&hosts, "is asked once for each");
    allow_descriptors();
    // One thread: what is measured is how long hosts take, and threads would only contend.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(ask(&hosts, &options))?;
    runtime.shutdown_background();
    Ok(ExitCode::from(status))
}

async fn ask(hosts: &[Host], options: &CheckOptions) -> anyhow::Result<u8> {
    let width = |text: fn(&Host) -> String| hosts.iter().map(|host| text(host).chars().count()).max();
    let names = width(|host| shown(&host.name)).unwrap_or(0);
    let addresses = width(|host| shown(&host.connection.address.to_string())).unwrap_or(0);
    let (sender, mut answers) = mpsc::channel(ANSWERS);
    let start = Instant::now();
    let asking = tokio::spawn(check(hosts.to_vec(), options.connecting as usize, sender));
    let (mut times, mut failures, mut status) = (Vec::new(), Failures::default(), 0);
    while let Some((index, answer)) = answers.recv().await {
        let host = &hosts[index];
        let address = host.connection.address.to_string();
        let line = if options.json {
            escape_json(&json_line(host, &answer).to_string())
        } else {
            let told = match &answer {
                Ok(Answer { authenticated, round_trip }) => format!(
                    "authenticated in {}, round trip {}",
                    milliseconds(*authenticated),
                    milliseconds(*round_trip)
                ),
                Err(end) => Kind::of(end).text(),
            };
            format!("{:names$}  {:addresses$}  {told}", shown(&host.name), shown(&address))
        };
        print(format!("{line}\n").as_bytes())?;
        match answer {
            Ok(answer) => times.push((answer.authenticated, host.name.as_str())),
            Err(end) => {
                status = status.max(Kind::of(&end).exit_status());
                failures.add(&host.name, &address, &end, &Program::LoginShell);
            }
        }
    }
    asking.await?;
    if !options.json {
        let answered = times.len();
        let spread = report::spread(&mut times);
        note(&format!(
            "{answered} of {} answered in {}{spread}",
            hosts.len(),
            report::seconds(start.elapsed())
        ));
        failures.lines(Kind::text).iter().for_each(|line| note(line));
    }
    Ok(status)
}

fn json_line(host: &Host, answer: &Result<Answer, End>) -> Value {
    let address = host.connection.address.to_string();
    match answer {
        Ok(Answer { authenticated, round_trip }) => json!({
            "host": host.name,
            "address": address,
            "outcome": "ok",
            "authenticated_ms": rounded(*authenticated),
            "round_trip_ms": rounded(*round_trip),
        }),
        Err(end) => json!({
            "host": host.name,
            "address": address,
            "outcome": Kind::of(end).word(),
            "reason": report::reason(end, &Program::LoginShell),
        }),
    }
}

/// Milliseconds, to a microsecond.
fn rounded(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

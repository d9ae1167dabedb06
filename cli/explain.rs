//! `labsh explain`: asks hosts whether they would run a command, and why not. Hosts with the same
//! answer are shown together.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser};
use labsh_client::config::Config;
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::fanout::{self, End, Host};
use labsh_client::terminal_text::{escape, shell_word};
use labsh_client::{CommandError, CommandOptions, ConnectError, Session};
use labsh_nodeset::NodeSet;
use labsh_proto::explanation::Explained;
use labsh_proto::message::{Program, Variable};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::console::{CONNECTION_FAILED, REFUSED, print};
use crate::flags::{ConnectionFlags, FormFlags, form, variable};
use crate::fleet::hosts as fleet_hosts;
use crate::fleet::report::anonymous;
use crate::json::{self, Event};
use crate::remote::words::RemoteQuestion;
use crate::remote::{outcome, record};

/// The maximum number of connections being opened at once.
const MAX_CONCURRENT_CONNECTS: usize = 64;

/// The closing part of `labsh explain --help`.
pub(crate) const AFTER_HELP: &str = "\
The host goes all the way up to the command: it looks up the user, takes on
their identity, enters the directory and looks for the program. Then it tells
what it found. Hosts with the same answer are shown together.

Exit status:
  0    it would run on every host
  125  a host would refuse it, or refuses the key
  255  a host cannot be asked";

/// Ask a host whether it would run a command, and why not; nothing is started
#[derive(Debug, Clone, Args)]
#[command(mut_arg("keep", |arg| arg.hide(true)))]
pub(crate) struct ExplainOptions {
    /// How to reach the hosts.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// The form of the command's words.
    #[command(flatten)]
    pub form: FormFlags,
    /// A variable that it is to have, or with NAME alone this machine's own (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = "Command")]
    #[arg(value_parser = OsStringValueParser::new().try_map(variable))]
    pub env: Vec<Variable>,
    /// The directory in which it is to start
    #[arg(long, value_name = "DIR", help_heading = "Command")]
    pub cwd: Option<OsString>,
    /// As whom it is expected to run
    #[arg(long, value_name = "USER", help_heading = "Command",
        value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
    /// Print one line of JSON for each host
    #[arg(long, help_heading = "Command")]
    pub json: bool,
    /// The hosts, and the command.
    #[command(flatten)]
    pub remote: RemoteQuestion,
}

/// The answer of a host.
type Answer = Result<Explained, CommandError>;

/// Asks all hosts at once. The exit status is 0 if the command would run on all of them, 125 if a
/// host would refuse it, 255 if a host cannot be asked.
pub(crate) fn execute(options: &ExplainOptions) -> anyhow::Result<ExitCode> {
    let config = Config::load()?;
    let RemoteQuestion(remote) = &options.remote;
    let names = fleet_hosts::names(&remote.target, config.inventory(), &[], None)?;
    let overrides =
        ConnectionOverrides { user: options.user.clone(), ..options.connection.overrides() };
    let hosts = fleet_hosts::resolve(&names, &config, &overrides)?;
    fleet_hosts::allow_descriptors();
    let program = form(&remote.words, options.form);
    let runtime = labsh_transport::runtime::current_thread()?;
    let answers = runtime.block_on(ask_all(hosts, &program, options));
    runtime.shutdown_background();
    let text =
        if options.json { in_json(&answers, &program) } else { for_people(&answers, &program) };
    print(text.as_bytes())?;
    Ok(ExitCode::from(answers.iter().map(|(_, answer)| status(answer)).max().unwrap_or(0)))
}

/// Returns the answers in the order of the hosts.
async fn ask_all(
    hosts: Vec<Host>,
    program: &Program,
    options: &ExplainOptions,
) -> Vec<(Host, Answer)> {
    let places = Arc::new(Semaphore::new(MAX_CONCURRENT_CONNECTS));
    let mut asking = JoinSet::new();
    for (index, host) in hosts.into_iter().enumerate() {
        let (places, program, options) = (places.clone(), program.clone(), options.clone());
        asking.spawn(async move {
            let answer = ask(&places, &host, program, &options).await;
            (index, host, answer)
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(index, ..)| *index);
    answers.into_iter().map(|(_, host, answer)| (host, answer)).collect()
}

async fn ask(
    places: &Semaphore,
    host: &Host,
    program: Program,
    options: &ExplainOptions,
) -> Answer {
    let connect = Session::connect(&host.connection);
    let session = fanout::connect_in_slot(places, connect, || {}).await?;
    let options = CommandOptions {
        environment: options.env.clone(),
        directory: options.cwd.clone(),
        user: host.user.as_ref().map(Into::into),
        ..CommandOptions::default()
    };
    let answer = session.program(program).options(options).explain().await;
    session.close().await;
    let address = host.connection.address.to_string();
    answer.map_err(|error| match error {
        // No command was sent that the host would end.
        CommandError::Lost(reason) => ConnectError::Lost { address, reason }.into(),
        error => error,
    })
}

fn status(answer: &Answer) -> u8 {
    match answer {
        Ok(_) => 0,
        Err(error) => match End::of(error.clone()) {
            End::Refused(_) => REFUSED,
            _ => CONNECTION_FAILED,
        },
    }
}

fn in_json(answers: &[(Host, Answer)], program: &Program) -> String {
    let line = |(host, answer): &(Host, Answer)| {
        let connection = &host.connection;
        let event = Event::of_host("over", &host.name)
            .with_all(json::location(&connection.address))
            .with("key", connection.key.key_id().as_str())
            .with("host_id", connection.key.host_id().as_str())
            .with("exit_status", status(answer));
        let event = match answer {
            Ok(explained) => event
                .with("outcome", "ok")
                .with("would_run", true)
                .with("explained", fields(explained)),
            Err(error) => event
                .with_all(record::of_host(&End::of(error.clone()), program, status(answer)))
                .with("would_run", (status(answer) == REFUSED).then_some(false)),
        };
        event.line()
    };
    answers.iter().map(line).collect()
}

fn fields(explained: &Explained) -> Value {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let environment: serde_json::Map<String, Value> = explained
        .environment
        .iter()
        .map(|(name, value)| (text(name), text(value).into()))
        .collect();
    let end = Some(explained.expires)
        .filter(|end| *end > 0)
        .and_then(|end| UNIX_EPOCH.checked_add(Duration::from_secs(end)));
    json!({
        "user": explained.user, "uid": explained.uid, "gid": explained.gid,
        "home": text(&explained.home),
        "directory": text(&explained.directory), "program": text(&explained.program),
        "words": explained.words.iter().map(text).collect::<Vec<_>>(), "environment": environment,
        "accept_env": explained.accepted, "entry": explained.entry, "from": explained.from,
        "expires": end.map(json::time), "channels": explained.channels,
        "left_off": explained.left_off,
    })
}

/// Formats the end of a key's validity for people (RFC 3339); none if it has no end.
fn expires(explained: &Explained) -> Option<String> {
    // A server may send any number; one outside the calendar is shown as it is.
    let end = explained.expires;
    (end > 0).then(|| match end {
        ..253_402_300_800 => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(end)).to_string()
        }
        _ => format!("{end} seconds after 1970"),
    })
}

fn for_people(answers: &[(Host, Answer)], program: &Program) -> String {
    let mut groups: BTreeMap<String, Vec<&Host>> = BTreeMap::new();
    let host_id = |host: &Host| host.connection.key.host_id().as_str().to_owned();
    let one_id =
        answers.iter().map(|(host, _)| host_id(host)).collect::<BTreeSet<String>>().len() == 1;
    for (host, answer) in answers {
        let said = match answer {
            Ok(explained) => would_run(host, explained, program),
            Err(error) => {
                let reason = escape(&outcome::explain(error, program)).to_string();
                let what =
                    if status(answer) == REFUSED { "would be refused" } else { "cannot be asked" };
                format!("{what}: {reason}\n")
            }
        };
        // Only names and addresses differ between hosts with the same answer.
        let said = match answers.len() {
            1 => said,
            _ => {
                let said = anonymous(&said, &host.connection.address.to_string());
                let said = anonymous(&said, &host.name);
                if one_id { said } else { anonymous(&said, &host_id(host)) }
            }
        };
        groups.entry(said).or_default().push(host);
    }
    let mut groups: Vec<(String, Vec<&Host>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, hosts)| std::cmp::Reverse(hosts.len()));
    let mut text = String::new();
    for (said, hosts) in groups {
        if answers.len() > 1 {
            let set: NodeSet = hosts.iter().map(|host| host.name.as_str()).collect();
            let noun = if set.len() == 1 { "host" } else { "hosts" };
            text += &format!("---- {set} ({} {noun}) ----\n", set.len());
        }
        text += &said;
    }
    text
}

fn would_run(host: &Host, explained: &Explained, program: &Program) -> String {
    let shown = |bytes: &[u8]| escape(&shell_word(&String::from_utf8_lossy(bytes))).to_string();
    let Explained { user, uid, gid, .. } = explained;
    let user = escape(user);
    let mut text =
        format!("would run as {user} (uid {uid}, gid {gid}) in {}", shown(&explained.directory));
    if explained.directory != explained.home {
        text += &format!("; home is {}", shown(&explained.home));
    }
    let how = match program {
        Program::Argv(_) => "exactly these words, no shell",
        Program::Shell(_) => "a line for the user's shell",
        Program::LoginShell => "a login shell",
        Program::Subsystem(_) => "a subsystem",
    };
    text += &format!("\n  program    {} ({how})\n", shown(&explained.program));
    let words: Vec<String> = explained.words.iter().map(|word| shown(word)).collect();
    text += &format!("  words      {}\n", words.join(" "));
    let key = &host.connection.key;
    text += &format!("  key        {} for host {}, ", key.key_id(), escape(key.host_id().as_str()));
    text += &format!("granted by {} in keys.d there\n", escape(&explained.entry));
    let from =
        if explained.from.is_empty() { "anywhere".to_owned() } else { explained.from.join(", ") };
    let until =
        expires(explained).map_or_else(|| "without end".to_owned(), |end| format!("until {end}"));
    text += &format!("  usable     from {}, {until}\n", escape(&from));
    // Variables that labshd sets for each connection tell nothing about the host.
    let of_connection = |name: &[u8]| {
        name.starts_with(b"LABSH_") || [&b"SSH_CONNECTION"[..], b"SSH_CLIENT"].contains(&name)
    };
    let variables = explained.environment.iter().filter(|(name, _)| !of_connection(name));
    let variables: Vec<String> =
        variables.map(|(name, value)| shown(name) + "=" + &shown(value)).collect();
    text += &format!("  variables  {}\n", variables.join(" "));
    let accepted = if explained.accepted.is_empty() {
        "none".to_owned()
    } else {
        explained.accepted.join(" ")
    };
    text += &format!("  may set    {}\n", escape(&accepted));
    text += &format!("  at once    {} commands on a connection\n", explained.channels);
    if explained.left_off > 0 {
        text += &format!(
            "  left off   {} words and variables, which did not fit\n",
            explained.left_off
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_calendar_may_say_anything() {
        let at = |expires| self::expires(&Explained { expires, ..Explained::default() });
        assert_eq!(at(0), None);
        assert_eq!(at(1_956_527_999).unwrap(), "2031-12-31T23:59:59Z");
        assert_eq!(at(253_402_300_799).unwrap(), "9999-12-31T23:59:59Z");
        assert!(at(u64::MAX).unwrap().ends_with("after 1970"));
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        let hostile = || "\x1b[2J\n".to_owned();
        let explained = Explained {
            entry: hostile(),
            user: hostile(),
            from: vec![hostile()],
            accepted: vec![hostile()],
            program: hostile().into_bytes(),
            directory: hostile().into_bytes(),
            words: vec![hostile().into_bytes()],
            environment: vec![(hostile().into_bytes(), hostile().into_bytes())],
            ..Explained::default()
        };
        let key = labsh_proto::key::Key::from_line(
            "labsh-key-1 alice 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f \
             334f2b32",
        );
        let key = key.unwrap().for_host(&labsh_proto::key::HostId::new("lab07").unwrap());
        let address = labsh_client::Address::Tcp { host: "lab07".into(), port: 5274 };
        let connection = labsh_client::ConnectOptions::new(address, key);
        let text = would_run(
            &Host { name: "lab07".into(), connection, user: None },
            &explained,
            &Program::LoginShell,
        );
        assert_eq!(text.lines().count(), 8, "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }
}

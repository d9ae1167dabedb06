//! `labsh key`: makes and shows keys, enrols them for hosts, and revokes them.

mod enrolment_files;

use std::fmt::Write;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use labsh_client::config::Config;
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::config::target::{Host, Target};
use labsh_client::keys::key_store::{KeyName, KeyStore, StoredKey};
use labsh_client::terminal_text::{escape, shell_word};
use labsh_nodeset::NodeSet;
use labsh_proto::key::{HostId, KeyId};
use labsh_proto::limits;
use nix::unistd::{Uid, User, gethostname};
use zeroize::Zeroizing;

use crate::console::{note, print};
use crate::fleet::hosts;
use crate::json::{self, Event};
use crate::remote::words::Targets;

/// In seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

/// The subcommands of `labsh key`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum KeyAction {
    /// Make a key
    New {
        /// Its name (default: your user name @ this machine)
        #[arg(value_parser = KeyId::new)]
        id: Option<KeyId>,
    },
    /// List the keys, with the hosts that lines were made for
    List {
        /// Print a line of JSON for each key
        #[arg(long)]
        json: bool,
    },
    /// Show what is known about a key; never the key itself
    Show {
        /// The key [default: the only one]
        #[arg(value_parser = KeyId::new)]
        id: Option<KeyId>,
    },
    /// Print the line that makes a key known to one host: a secret, for that host alone
    ///
    /// The host adds it with `labshd key add`, which reads it from standard input:
    /// labsh key enroll alice --host lab07 | ssh lab07 labshd key add
    ///
    /// For a set of hosts, --out writes a file for each.
    Enroll(EnrollOptions),
    /// Print what to run on each host so that it forgets a key
    Revoke(RevokeOptions),
}

/// The options of `labsh key enroll`.
#[derive(Debug, Clone, Args)]
pub(super) struct EnrollOptions {
    /// The key [default: the only one]
    #[arg(value_parser = KeyId::new)]
    pub id: Option<KeyId>,
    /// The host, as it will be named as a target; with --out a set of them: lab[01-40], @group
    #[arg(long, value_name = "HOST")]
    pub host: Targets,
    /// The name to enrol it under, if it is not HOST's; `labsh run` will need it too [env:
    /// LABSH_HOST_ID]
    #[arg(long, value_name = "NAME", value_parser = HostId::new)]
    pub host_id: Option<HostId>,
    /// Write DIR/HOST.enroll for each host, for its eyes only, and print none
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// The options of `labsh key revoke`.
#[derive(Debug, Clone, Args)]
pub(super) struct RevokeOptions {
    /// The key [default: the only one]
    #[arg(value_parser = KeyId::new)]
    pub id: Option<KeyId>,
    /// Only this host
    #[arg(long, value_name = "HOST")]
    pub host: Option<Target>,
    /// Delete the key here as well: it cannot be had back
    #[arg(long, conflicts_with = "host")]
    pub delete: bool,
    /// Do not ask before deleting
    #[arg(long, requires = "delete")]
    pub yes: bool,
}

/// Carries out a subcommand of `labsh key`.
pub(super) fn execute(action: KeyAction) -> anyhow::Result<ExitCode> {
    match action {
        KeyAction::New { id } => new(&KeyStore::open()?, id)?,
        KeyAction::List { json } => {
            let keys = KeyStore::open()?.list()?;
            if keys.is_empty() {
                note("there is no key yet; make one with `labsh key new`");
            }
            print(if json { list_json(&keys) } else { list(&keys) }.as_bytes())?;
        }
        KeyAction::Show { id } => print(show(&KeyStore::open()?, id)?.as_bytes())?,
        KeyAction::Enroll(options) => enroll(&Config::load()?, options)?,
        KeyAction::Revoke(options) => revoke(&Config::load()?, options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn new(store: &KeyStore, id: Option<KeyId>) -> anyhow::Result<()> {
    let id = id.map_or_else(default_id, Ok)?;
    let path = store.create(&id)?;
    print(format!("{}\n", path.display()).as_bytes())?;
    note(&format!(
        "made the key {id}; next, for each host: labsh key enroll {id} --host HOST | ssh HOST \
         sudo labshd key add \
         --user USER (where labshd runs without root: without sudo and --user)"
    ));
    Ok(())
}

/// Returns `user@machine`, like the comment of a key by ssh-keygen: it tells where a key came from.
fn default_id() -> anyhow::Result<KeyId> {
    let user = User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name);
    let machine = gethostname().ok().map(|name| name.to_string_lossy().into_owned());
    let parts: Vec<String> = [user, machine].into_iter().flatten().collect();
    sanitised(&parts.join("@"))
        .context("neither your user name nor this machine's makes a name; give the key one")
}

fn sanitised(text: &str) -> Option<KeyId> {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "._@-".contains(*c);
    let allowed_text: String = text
        .chars()
        .filter(allowed)
        .skip_while(|c| ".-@".contains(*c))
        .take(limits::MAX_KEY_ID)
        .collect();
    KeyId::new(&allowed_text).ok()
}

/// Returns a line for each key; for an unusable file, a line with the reason.
fn list(keys: &[StoredKey]) -> String {
    let rows: Vec<[String; 3]> = keys
        .iter()
        .map(|key| {
            let rest = match &key.problem {
                Some(problem) => format!("cannot be used: {}", escape(&problem.to_string())),
                None if key.hosts.is_empty() => "no line made yet".to_owned(),
                None => format!("lines made for {}", joined(&key.hosts, " ")),
            };
            [escape(&key.name).to_string(), escape(&key.path.to_string_lossy()).to_string(), rest]
        })
        .collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name_width, path_width) = (width(0), width(1));
    let line = |[name, path, rest]: &[String; 3]| {
        format!("{name:name_width$}  {path:path_width$}  {rest}\n")
    };
    rows.iter().map(line).collect()
}

fn list_json(keys: &[StoredKey]) -> String {
    let line = |key: &StoredKey| {
        let hosts: Vec<&str> = key.hosts.iter().map(HostId::as_str).collect();
        let event = Event::new("key")
            .with("key", key.name.as_str())
            .with("file", key.path.to_string_lossy())
            .with("host_ids", hosts);
        let problem = key.problem.as_ref().map(|problem| problem.to_string());
        let event = match problem {
            Some(problem) => event.with("error", json::error_of_text("key", &problem)),
            None => event,
        };
        event.line()
    };
    keys.iter().map(line).collect()
}

fn joined(hosts: &[HostId], between: &str) -> String {
    hosts.iter().map(|host| escape(host.as_str()).to_string()).collect::<Vec<_>>().join(between)
}

fn show(store: &KeyStore, id: Option<KeyId>) -> anyhow::Result<String> {
    let id = id.map_or_else(|| store.only(), Ok)?;
    store.load(&id)?;
    let path = store.path(&id);
    let about = fs::metadata(&path)?;
    // Not every file system records when a file was created; a key file is written once.
    let created = about.created().or_else(|_| about.modified())?;
    let hosts = store.hosts(&id)?;
    let mut text = String::new();
    writeln!(text, "id       {id}")?;
    writeln!(text, "file     {}", escape(&path.to_string_lossy()))?;
    writeln!(text, "created  {}", rfc3339(created))?;
    match hosts.as_slice() {
        [] => writeln!(text, "lines    none made yet")?,
        hosts => writeln!(text, "lines    {}", joined(hosts, "\n         "))?,
    }
    Ok(text)
}

/// Formats a time (RFC 3339). A file's time may be outside the calendar's four digits.
fn rfc3339(time: SystemTime) -> String {
    let since_1970 =
        time.duration_since(UNIX_EPOCH).ok().filter(|since| since.as_secs() < YEAR_10000);
    match since_1970 {
        Some(_) => humantime::format_rfc3339_seconds(time).to_string(),
        None => "at a time that the file does not tell".to_owned(),
    }
}

fn enroll(config: &Config, options: EnrollOptions) -> anyhow::Result<()> {
    let EnrollOptions { id, host, host_id, out, force } = options;
    if host_id.is_some() && matches!(host, Targets::Set(_)) {
        bail!(
            "--host-id is the name of one host; for a set, write host_id into hosts.toml, where \
             {{host}} stands for each"
        );
    }
    let flags = ConnectionOverrides { host_id, ..ConnectionOverrides::default() };
    let target = match (host, out) {
        (Targets::One(target), None) => target,
        (Targets::One(target), Some(out)) => {
            let one = NodeSet::of([target.to_string()]);
            return enrolment_files::write(config, id, &one, &flags, &out, force);
        }
        (Targets::Set(set), Some(out)) => {
            let set = hosts::select(&set, &[], config.inventory())?;
            return enrolment_files::write(config, id, &set, &flags, &out, force);
        }
        (Targets::Set(set), None) => {
            let set = hosts::select(&set, &[], config.inventory())?;
            let mut names = set.iter();
            match (names.next(), names.next()) {
                (Some(only), None) => only.parse().with_context(|| format!("{only:?}"))?,
                _ => bail!(
                    "{set} are {} hosts, and each has a secret line of its own; write them to \
                     files with --out DIR",
                    set.len()
                ),
            }
        }
    };
    let (id, line) = enrolment(config, id, &target, &flags)?;
    if io::stdout().is_terminal() {
        let host = target.host.to_string();
        let host = shell_word(&host);
        let there = match target.host {
            Host::Name(_) => format!("ssh {host} sudo labshd key add --user USER"),
            Host::Unix(_) => "labshd key add".to_owned(),
        };
        note(&format!(
            "the next line is a secret, for this host alone; hand it over without showing it: \
             labsh key enroll \
             {id} --host {host} | {there}"
        ));
    }
    print(line.as_bytes())
}

fn enrolment(
    config: &Config,
    id: Option<KeyId>,
    target: &Target,
    flags: &ConnectionOverrides,
) -> anyhow::Result<(KeyId, Zeroizing<String>)> {
    let store = config.store();
    let id = id.map_or_else(|| store.only(), Ok)?;
    let key = store.load(&id)?;
    let host_key = key.for_host(&config.host_id(target, flags)?);
    // Before the line leaves: a recorded host that has no key does less harm than an enrolled host
    // that `revoke` does not list.
    store.remember_hosts(&id, [host_key.host_id()])?;
    Ok((id, Zeroizing::new(host_key.to_line() + "\n")))
}

fn revoke(config: &Config, options: RevokeOptions) -> anyhow::Result<()> {
    let store = config.store();
    let id = options.id.map_or_else(|| store.only(), Ok)?;
    if options.delete && !options.yes && !io::stdin().is_terminal() {
        bail!("there is no terminal to ask whether to delete the key {id}; say --yes");
    }
    let hosts = match options.host {
        Some(host) => vec![config.host_id(&host, &ConnectionOverrides::default())?],
        None => store.hosts(&id)?,
    };
    if hosts.is_empty() {
        store.resolve(Some(&KeyName::Id(id.clone())))?;
        note(&format!("no line of the key {id} was made for a host here; name one with --host"));
    } else {
        print(removal(&id, &hosts).as_bytes())?;
        note(
            "run these lines, or on each host what they run (without sudo where labshd runs \
             without root); the reload ends \
             the key's sessions there",
        );
    }
    if options.delete && (options.yes || confirmed(&id)?) {
        store.delete(&id)?;
        note(&format!("the key {id} is deleted"));
    }
    Ok(())
}

/// Returns a line of shell for each host.
fn removal(id: &KeyId, hosts: &[HostId]) -> String {
    let line = |host: &HostId| {
        let host = shell_word(host.as_str());
        let command =
            format!("sudo labshd key remove {id} --host {host} && sudo systemctl reload labshd");
        format!("ssh {host} {}\n", shell_word(&command))
    };
    hosts.iter().map(line).collect()
}

fn confirmed(id: &KeyId) -> anyhow::Result<bool> {
    note(&format!(
        "delete the key {id} here as well? It cannot be had back. Type yes to delete it:"
    ));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use labsh_proto::key_text::BadLine;
    use tempfile::TempDir;

    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId::new(text).unwrap()
    }

    fn config(directory: &Path, file: &str) -> Config {
        fs::write(directory.join("config.toml"), file).unwrap();
        let store = KeyStore::at(directory.join("keys"));
        Config::from_sources(|_| None, &[&directory.join("config.toml")], store).unwrap()
    }

    fn enrolled(config: &Config, host: &str, host_id: Option<&str>) -> (KeyId, Zeroizing<String>) {
        let host_id = host_id.map(|id| HostId::new(id).unwrap());
        let flags = ConnectionOverrides { host_id, ..ConnectionOverrides::default() };
        enrolment(config, None, &host.parse().unwrap(), &flags).unwrap()
    }

    #[test]
    fn the_enrolment_line_is_for_the_host_that_run_will_ask_for() {
        let directory = TempDir::new().unwrap();
        let config = config(directory.path(), "[hosts.lab08]\nhost_id = \"shared\"\n");
        config.store().create(&id("alice")).unwrap();
        let key = config.store().load(&id("alice")).unwrap();
        for (host, host_id, expected) in [
            ("Lab07:5300", None, "lab07"),
            ("lab08", None, "shared"),
            ("lab08", Some("own"), "own"),
            ("unix:/run/s", None, "localhost"),
        ] {
            let (used, line) = enrolled(&config, host, host_id);
            assert_eq!(used, id("alice"));
            let host_key = key.for_host(&HostId::new(expected).unwrap());
            assert_eq!(*line, host_key.to_line() + "\n", "{host}");
            let resolved =
                config.resolve(&host.parse().unwrap(), &ConnectionOverrides::default()).unwrap();
            assert!(host_id.is_some() || resolved.route.host_id.as_str() == expected);
        }
        assert_eq!(
            joined(&config.store().hosts(&id("alice")).unwrap(), " "),
            "lab07 localhost own shared"
        );
    }

    #[test]
    fn a_file_of_any_time_is_shown() {
        assert_eq!(rfc3339(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        for strange in
            [UNIX_EPOCH - Duration::from_secs(1), UNIX_EPOCH + Duration::from_secs(YEAR_10000)]
        {
            assert!(rfc3339(strange).starts_with("at a time"), "{strange:?}");
        }
    }

    #[test]
    fn nothing_but_enroll_shows_a_secret() {
        let directory = TempDir::new().unwrap();
        let config = config(directory.path(), "");
        let path = config.store().create(&id("alice")).unwrap();
        let line = fs::read_to_string(path).unwrap();
        let secret = line.split(' ').nth(2).unwrap();
        enrolled(&config, "lab07", None);
        let text = show(config.store(), None).unwrap();
        for part in ["id       alice\n", "/keys/alice.key\n", "created  20", "lines    lab07\n"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains(secret));
        let listed = list(&config.store().list().unwrap());
        assert!(
            listed.starts_with("alice  ") && listed.ends_with("  lines made for lab07\n"),
            "{listed}"
        );
        assert!(!listed.contains(secret));
    }

    #[test]
    fn a_broken_file_is_a_line_of_the_list_and_not_its_end() {
        let directory = TempDir::new().unwrap();
        let store = KeyStore::at(directory.path().join("keys"));
        assert_eq!(list(&store.list().unwrap()), "");
        let path = store.create(&id("alice")).unwrap();
        store.create(&id("bob")).unwrap();
        fs::write(&path, "").unwrap();
        fs::write(path.with_file_name("\x1b[2J.key"), "").unwrap();
        let listed = list(&store.list().unwrap());
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 3, "{listed}");
        assert!(lines[0].starts_with(r"\u{1b}[2J") && !listed.contains('\x1b'), "{listed}");
        assert!(lines[1].contains(&format!("not a key file: {}", BadLine::Empty)), "{listed}");
        assert!(lines[2].starts_with("bob") && lines[2].ends_with("no line made yet"), "{listed}");
    }

    #[test]
    fn revoking_says_what_to_run_on_each_host() {
        let hosts = ["lab07", "a'b;c"].map(|host| HostId::new(host).unwrap());
        assert_eq!(
            removal(&id("alice"), &hosts).lines().collect::<Vec<_>>(),
            [
                "ssh lab07 'sudo labshd key remove alice --host lab07 && sudo systemctl reload \
                 labshd'",
                concat!(
                    r"ssh 'a'\''b;c' 'sudo labshd key remove alice --host ",
                    r"'\''a'\''\'\'''\''b;c'\'' && sudo systemctl reload labshd'"
                ),
            ]
        );
    }

    #[test]
    fn deleting_takes_a_yes_and_only_then_is_the_key_gone() {
        let directory = TempDir::new().unwrap();
        let config = config(directory.path(), "");
        let path = config.store().create(&id("alice")).unwrap();
        let options = |delete, yes| RevokeOptions { id: None, host: None, delete, yes };
        revoke(&config, options(false, false)).unwrap();
        assert!(path.exists());
        if !io::stdin().is_terminal() {
            assert!(
                revoke(&config, options(true, false)).unwrap_err().to_string().contains("--yes")
            );
        }
        assert!(path.exists());
        revoke(&config, options(true, true)).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_key_gets_a_name_even_on_an_oddly_named_machine() {
        assert_eq!(sanitised("alice@lab07"), Some(id("alice@lab07")));
        assert_eq!(sanitised(".ä-b c@x/y"), Some(id("bc@xy")));
        assert_eq!(sanitised(&"x".repeat(100)), Some(id(&"x".repeat(64))));
        assert_eq!(sanitised("ä"), None);
        assert!(default_id().is_ok());
    }
}

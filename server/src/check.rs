//! `labshd check`: reports what labshd would do with its files, or every error in them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use labsh_diagnostics::{Diagnostic, Diagnostics, Origin};
use labsh_proto::auth::Mode;

use crate::account::{RunsAs, UserExists};
use crate::config::{Config, LogFormat};
use crate::key_table;
use crate::keyring::{self, DirectoryEntries};
use crate::listen_address::ListenAddress;
use crate::listen_check;
use crate::logs::Escaped;
use crate::reload::SettingsSource;

/// Returns a report of what labshd would do. Changes no file.
///
/// # Errors
///
/// All errors in all files.
pub fn run(
    source: &SettingsSource,
    runs_as: &RunsAs,
    user_exists: UserExists<'_>,
) -> Result<String, Diagnostics> {
    let (config, mut diagnostics) = source.read_config();
    let mut found = keyring::read_directory(&config.keys_dir, runs_as, user_exists);
    diagnostics.append(&mut found.diagnostics);
    if diagnostics.is_empty() {
        let origin = Origin { path: source.config_path.as_path().into(), line: None };
        let problems = listen_check::problems(&config).into_iter();
        diagnostics.extend(problems.map(|reason| Diagnostic { origin: origin.clone(), reason }));
    }
    if !diagnostics.is_empty() {
        return Err(Diagnostics(diagnostics));
    }
    Ok(report(source, runs_as, &config, &found))
}

fn report(
    source: &SettingsSource,
    runs_as: &RunsAs,
    config: &Config,
    found: &DirectoryEntries,
) -> String {
    let lines = [
        ("configuration", vec![configuration(source)]),
        ("runs as", vec![account(runs_as)]),
        ("listens on", listens_on(config)),
        ("keys in", vec![config.keys_dir.display().to_string()]),
        ("limits", limits(config)),
        ("times", times(config)),
        ("environment", environment(config)),
        ("path", path(runs_as, config)),
        ("subsystems", subsystems(config)),
        ("log", vec![log(config)]),
    ];
    let mut text = String::new();
    for (title, values) in lines {
        for (index, value) in values.iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{title:13}  {}", Escaped(value));
        }
    }
    text.push('\n');
    text.push_str(&match found.entries.is_empty() {
        true => "no keys, so no client can connect; `labshd key add` adds one".to_owned(),
        false => key_table::table(&found.entries, SystemTime::now()),
    });
    text
}

fn configuration(source: &SettingsSource) -> String {
    let file = source.config_path.display();
    match source.config_path.exists() {
        true => file.to_string(),
        false => format!("{file} does not exist: the defaults apply"),
    }
}

fn account(runs_as: &RunsAs) -> String {
    match runs_as {
        RunsAs::Root => "root: commands run as the user that the key's entry names".to_owned(),
        RunsAs::User(name) => format!("{}: all commands run as the same user", Escaped(name)),
    }
}

fn limits(config: &Config) -> Vec<String> {
    vec![
        format!(
            "{} authenticated connections, and {} unauthenticated ones",
            config.max_connections, config.max_unauthenticated
        ),
        format!("{} authenticated connections of each key", config.max_connections_per_key),
        format!("{} commands at once on each connection", config.max_channels),
        format!("{} connections waiting to be accepted on each address", config.backlog),
    ]
}

fn environment(config: &Config) -> Vec<String> {
    if config.accept_env.is_empty() {
        return vec!["clients may set no variables".to_owned()];
    }
    let patterns: Vec<_> = config.accept_env.iter().map(ToString::to_string).collect();
    vec![
        format!("clients may set {}", patterns.join(", ")),
        "except those that labshd sets itself (HOME, LABSH_*, …), and those that take effect \
         before the command (LD_*, …)"
            .to_owned(),
    ]
}

fn path(runs_as: &RunsAs, config: &Config) -> Vec<String> {
    match (&config.path, runs_as) {
        (None, RunsAs::Root) => vec![
            format!("{} for root", config.command_path(true)),
            format!("{} for others", config.command_path(false)),
        ],
        _ => vec![Escaped(config.command_path(false)).to_string()],
    }
}

fn subsystems(config: &Config) -> Vec<String> {
    if config.subsystems.is_empty() {
        return vec!["none".to_owned()];
    }
    let line = |(name, words): (&String, &Vec<String>)| {
        let exists = words.first().is_some_and(|program| Path::new(program).exists());
        let note = if exists { "" } else { "  (this program does not exist)" };
        format!("{}: {}{note}", Escaped(name), Escaped(words.join(" ")))
    };
    config.subsystems.iter().map(line).collect()
}

fn log(config: &Config) -> String {
    let format = match config.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "JSON",
    };
    format!("{format}, from level {} up", config.log_level)
}

fn listens_on(config: &Config) -> Vec<String> {
    let mut lines: Vec<String> = config.listen.iter().map(listen_line).collect();
    if lines.is_empty() {
        lines.push("only the sockets that the service manager passes".to_owned());
    }
    lines
}

fn listen_line(address: &ListenAddress) -> String {
    let how = match (address.mode(), address.is_local()) {
        (Mode::Tls, _) => "TLS",
        (Mode::Plain, true) => "plain: without TLS, for this machine only",
        (Mode::Plain, false) => {
            "plain: anyone on the network path can read and change commands and output"
        }
    };
    format!("{}  ({how})", Escaped(address))
}

fn times(config: &Config) -> Vec<String> {
    let show = |time: Duration| humantime::format_duration(time).to_string();
    vec![
        format!("{} to authenticate", show(config.authentication_deadline)),
        format!(
            "{} before a failed authentication is answered",
            show(config.failed_authentication_delay)
        ),
        format!(
            "{} without a response until a client counts as gone",
            show(config.dead_peer_after)
        ),
        format!("{} for a command to start", show(config.start_timeout)),
        format!("{} between SIGHUP, SIGTERM and SIGKILL", show(config.termination_grace)),
        format!("{} for running commands when labshd stops", show(config.drain_timeout)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::line;
    use crate::private_file;

    struct Files {
        dir: tempfile::TempDir,
        source: SettingsSource,
    }

    fn files(config: &str, entries: &[(&str, &str)]) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let config_path = dir.path().join("labshd.toml");
        private_file::create(&config_path, config).unwrap();
        private_file::create_directory(&dir.path().join("keys.d")).unwrap();
        for (name, text) in entries {
            private_file::create(&dir.path().join("keys.d").join(name), text).unwrap();
        }
        Files { dir, source: SettingsSource { config_path, explicit: true } }
    }

    fn check(files: &Files) -> Result<String, Diagnostics> {
        run(&files.source, &RunsAs::Root, &|name| match name {
            "bob" => Ok(()),
            name => Err(format!("there is no user {name:?}")),
        })
    }

    #[test]
    fn the_report_lists_addresses_and_keys_with_their_users() {
        let entry = format!("key = \"{}\"\nuser = 'bob'\nexpires = 2020-01-01", line("alice"));
        let files = files("listen = ['[::]', 'plain://127.0.0.1:6275']", &[("a.toml", &entry)]);
        let report = check(&files).unwrap();
        assert!(report.contains("[::]:5274  (TLS)"), "{report}");
        assert!(report.contains("plain://127.0.0.1:6275  (plain"), "{report}");
        let row = report.lines().last().unwrap();
        assert!(
            row.contains("alice") && row.contains("bob") && row.contains("expired 2020-01-01"),
            "{row}"
        );
        assert!(!files.dir.path().join("keys.d/.dummy").exists(), "a check changes no file");
    }

    #[test]
    fn the_report_says_that_there_are_no_keys() {
        assert!(check(&files("", &[])).unwrap().contains("no client can connect"));
    }

    #[test]
    fn errors_in_all_files_are_reported_at_once() {
        let unknown = format!("key = \"{}\"\nuser = 'carol'", line("alice"));
        let files = files("backlog = 0\nport = 1", &[("a.toml", &unknown), ("b.toml", "key = ''")]);
        let text = check(&files).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 5, "{text}");
        for part in [
            "labshd.toml:1:",
            "labshd.toml:2:",
            "a.toml:2: user: there is no user",
            "b.toml:1: key:",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

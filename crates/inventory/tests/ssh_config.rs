//! Compares hosts from OpenSSH's configuration with what `ssh -G` prints.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the end-to-end tests do where a tool is not installed.
#[path = "../../../tests/support/tools.rs"]
#[allow(dead_code, unreachable_pub)]
mod tools;

mod support;

use labsh_inventory::{Source, ssh_config};
use proptest::prelude::*;
use support::{contents, values};

fn tool() -> Option<PathBuf> {
    tools::need("ssh", "apt-get install openssh-client")
}

/// Returns the `HostName` and `User` that ssh uses for a host.
fn oracle(tool: &Path, config: &Path, host: &str) -> (String, String) {
    let output = tools::program(tool).arg("-TGF").arg(config).arg(host).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    (value("hostname "), value("user "))
}

/// Returns our addresses and users; the defaults are the host's name and `default_user`.
fn ours(source: &Source, default_user: &str) -> BTreeMap<String, (String, String)> {
    let hosts = contents(source).hosts.into_iter();
    hosts
        .map(|(host, mut values)| {
            let address = values.remove("address").unwrap_or_else(|| host.clone());
            let user = values.remove("user").unwrap_or_else(|| default_user.to_owned());
            assert_eq!(values, BTreeMap::new());
            (host, (address, user))
        })
        .collect()
}

fn compare_with_ssh(tool: &Path, config: &Path) -> BTreeMap<String, (String, String)> {
    let empty = config.with_file_name("empty");
    fs::write(&empty, "").unwrap();
    let (_, default_user) = oracle(tool, &empty, "any");
    let source = ssh_config::read(config).unwrap_or_else(|diagnostic| panic!("{diagnostic}"));
    let ours = ours(&source, &default_user);
    for (host, values) in &ours {
        assert_eq!(
            *values,
            oracle(tool, config, host),
            "{host} in {}",
            fs::read_to_string(config).unwrap()
        );
    }
    ours
}

#[test]
fn edge_cases_are_read_as_ssh_reads_them() {
    let Some(tool) = tool() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let root = directory.path().display();
    let text = format!(
        r#"# for everyone
Host="lab1" lab02 'lab 3' # lab04
 HostName %h.example # x
	user = "a b"
HOST !other gate
HostName=192.0.2.1
Host taken !taken
    HostName never
Host l* !lab02 *5
  User star
  Port 2222
Match host other
  User matched
  HostName matched.example
Host lab05
  Include "{root}/more/*.conf" "{root}/none"
  User late
Host * !gate
  User everybody
  ProxyJump gate
"#
    );
    fs::write(path("config"), text).unwrap();
    fs::create_dir(path("more")).unwrap();
    let first = "HostName five.example\nHost lab06\nUser six\nHost lab05\nUser \"fi ve\"\n";
    fs::write(path("more/1.conf"), first).unwrap();
    fs::write(path("more/2.conf"), "User too-late\n").unwrap();
    fs::write(path("more/.hidden.conf"), "Host hidden\n").unwrap();
    fs::write(path("more/3.txt"), "Host other\n").unwrap();
    for included in ["more/1.conf", "more/2.conf"] {
        // ssh does not include a file that other users can write.
        fs::set_permissions(path(included), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let known = compare_with_ssh(&tool, &path("config"));
    assert_eq!(known.keys().collect::<Vec<_>>(), ["gate", "lab02", "lab05", "lab1"]);
}

fn pattern() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "lab1",
        "lab2",
        "lab10",
        "gate",
        "lab*",
        "*1*",
        "lab?",
        "!lab2",
        "!*0",
        "*",
        "n1.example",
        "*.example",
        "!gate",
        "web",
    ])
}

fn line() -> impl Strategy<Value = String> {
    let more = prop::collection::vec(pattern(), 1..4);
    prop_oneof![
        3 => more.prop_map(|patterns| format!("Host {}", patterns.join("  "))),
        1 => Just("Match host lab1 user no-such-user".to_owned()),
        3 => prop::sample::select(vec!["a", "\"b c\"", "d # e", "'f'#", "g\\ h", "%h.i",
            "10.0.0.1"])
            .prop_map(|value| format!("  HostName={value}")),
        3 => prop::sample::select(vec!["root", "\"two words\"", "st#udent", "x\\\\y"])
            .prop_map(|value| format!("\tUSER {value}")),
        1 => Just("Port 22".to_owned()),
        1 => Just("# a comment".to_owned()),
    ]
}

#[test]
fn generated_configurations_are_read_as_ssh_reads_them() {
    let Some(tool) = tool() else { return };
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    let mut hosts = 0;
    for lines in values(100, prop::collection::vec(line(), 2..14)) {
        fs::write(&config, lines.join("\n") + "\n").unwrap();
        hosts += compare_with_ssh(&tool, &config).len();
    }
    assert!(hosts > 100, "{hosts}");
}

#[test]
fn relative_paths_start_at_the_directory_of_ssh() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".ssh/config.d");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("room"), "Host lab1\n  User student\n").unwrap();
    fs::write(home.path().join("other"), "Host lab2\n").unwrap();
    let config = home.path().join("config");
    fs::write(&config, "Include config.d/* ~/other\nHost *\n  HostName %h.lab\n").unwrap();
    let source = ssh_config::read_with_home(&config, Some(home.path())).unwrap();
    let student = source.tables.iter().find(|table| table.settings.user.is_some()).unwrap();
    assert_eq!(student.hosts.to_string(), "lab1");
    assert_eq!(student.origin.to_string(), format!("{}:2", directory.join("room").display()));
    let address = source.tables.iter().find(|table| table.settings.address.is_some()).unwrap();
    assert_eq!((address.hosts.to_string(), address.origin.line), ("lab[1-2]".to_owned(), Some(3)));
    assert_eq!(address.settings.address.as_deref(), Some("{host}.lab"));
    let diagnostic = ssh_config::read_with_home(&config, None).unwrap_err();
    assert!(diagnostic.reason.contains("no home directory"), "{diagnostic}");
}

#[test]
fn errors_have_their_line() {
    for (text, line, part) in [
        ("Host\n", 1, "a pattern is missing"),
        ("Host lab1\n\nHost \"lab2\n", 3, "a quote has no end"),
        ("Host lab1\nHostName\n", 2, "one value belongs here"),
        ("Host lab1\nHostName a b\n", 2, "one value belongs here"),
        ("Host lab1\nUser=\n", 2, "one value belongs here"),
    ] {
        let diagnostic = ssh_config::parse(text, Path::new("config")).unwrap_err();
        assert_eq!(diagnostic.origin.line, Some(line), "{text:?}: {diagnostic}");
        assert!(diagnostic.reason.contains(part), "{text:?}: {diagnostic}");
    }
}

#[test]
fn files_that_include_themselves_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    for (times, part) in [(1, "more than 16 deep"), (3, "Include")] {
        fs::write(&config, format!("Include \"{}\"\n", config.display()).repeat(times)).unwrap();
        let diagnostic = ssh_config::read(&config).unwrap_err();
        assert!(diagnostic.reason.contains(part), "{diagnostic}");
    }
    let mut text = String::new();
    for file in 0..9 {
        let next = directory.path().join(format!("{}", file + 1)).display().to_string();
        let _ = write!(text, "{}", format!("Include \"{next}\"\n").repeat(3));
        fs::write(directory.path().join(format!("{file}")), std::mem::take(&mut text)).unwrap();
    }
    fs::write(directory.path().join("9"), "Host lab1\n").unwrap();
    let diagnostic = ssh_config::read(&directory.path().join("0")).unwrap_err();
    assert!(diagnostic.reason.contains("more than 1000 files"), "{diagnostic}");
}

#[test]
fn the_number_of_comparisons_is_bounded() {
    let mut hosts = String::new();
    for host in 0..20_000 {
        let _ = writeln!(hosts, "Host lab{host} *{host}* !a*b*c*d{host}");
    }
    let diagnostic = ssh_config::parse(&hosts, Path::new("config")).unwrap_err();
    assert!(diagnostic.reason.contains("too many patterns"), "{diagnostic}");
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in "([a-c*?!%= #\"'\\\\\t]|\\PC|\n|\nHost |\nHostName |\nUser \
        |\nMatch |\nInclude ){0,60}") {
        let _ = ssh_config::parse(&text, Path::new("config"));
    }

    #[test]
    fn patterns_match_as_in_a_simple_implementation(name in "[ab]{0,8}", pattern in "[ab*?]{0,6}") {
        // Slow, but obviously correct.
        fn slowly(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern, name) {
                ([], name) => name.is_empty(),
                ([b'*', rest @ ..], name) => (0..=name.len()).any(|at| slowly(rest, &name[at..])),
                ([b'?', rest @ ..], [_, after @ ..]) => slowly(rest, after),
                ([byte, rest @ ..], [first, after @ ..]) => byte == first && slowly(rest, after),
                (_, []) => false,
            }
        }
        let text = format!("Host h{name}\nHost h{pattern}*\nUser found\n");
        let source = ssh_config::parse(&text, Path::new("config")).unwrap();
        let found = source.tables.iter().any(|table| table.settings.user.is_some()
            && table.hosts.contains(&format!("h{name}")));
        prop_assert_eq!(found, slowly(format!("h{pattern}*").as_bytes(),
            format!("h{name}").as_bytes()));
    }
}

//! The manual pages in packaging/man document every option, subcommand, status and key.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{LABSHD, labsh_in, program, temp_dir, text, tools};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The text of a manual page: requests are left out of its lines, font changes and escapes undone.
fn page(name: &str) -> String {
    let mut page = read(&format!("packaging/man/{name}"));
    for (escape, character) in [
        (r"\fB", ""),
        (r"\fI", ""),
        (r"\fR", ""),
        (r"\fP", ""),
        (r"\-", "-"),
        (r"\(dq", "\""),
        (r"\(ti", "~"),
        (r"\(ha", "^"),
        (r"\e", "\\"),
    ] {
        page = page.replace(escape, character);
    }
    let without_request = |line: &str| match line.strip_prefix('.') {
        Some(request) => request.split_once(' ').map_or("", |(_, text)| text).to_owned(),
        None => line.to_owned(),
    };
    page.lines().map(|line| without_request(line) + "\n").collect()
}

/// The section of a page with this heading, up to the next section.
fn section(page: &str, heading: &str) -> String {
    let roff = read(&format!("packaging/man/{page}"));
    let after = roff.split(&format!(".SH {heading}\n")).nth(1).unwrap_or_else(|| {
        panic!("{page} has no section {heading}");
    });
    after.split("\n.SH ").next().unwrap().to_owned()
}

/// The example files and commands of a page.
fn examples(page: &str) -> Vec<String> {
    let examples = section(page, "EXAMPLES");
    let end = |example: &str| example.split(".EE").next().unwrap().replace(r"\-", "-");
    examples.split(".EX\n").skip(1).map(end).collect()
}

fn help(words: &[&str]) -> String {
    text(&program(LABSHD).args(words).arg("--help").output().unwrap().stdout)
}

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let Some(list) = help.split("\nCommands:\n").nth(1) else { return Vec::new() };
    let entry = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names = list.lines().take_while(|line| !line.is_empty()).filter(entry);
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// The options that a help text lists.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ',']).take(3).map(str::to_owned));
    words.filter(|word| word.starts_with("--")).collect()
}

/// What `labsh hosts` prints with this file in its configuration.
fn labsh_hosts(file: &str, content: &str, words: &[&str]) -> (bool, String) {
    let dir = temp_dir();
    write(&dir.path().join("config/labsh").join(file), content);
    outcome(labsh_in(dir.path()).arg("hosts").args(words))
}

/// The keys that labsh names in its message about an unknown key in a table.
fn known_keys(file: &str, table: &str) -> Vec<String> {
    let (_, message) = labsh_hosts(file, &format!("{table}\nnonsense = 1\n"), &[]);
    let known = message.split("expected").nth(1).unwrap_or_else(|| panic!("{message}"));
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What `labshd check` prints about a configuration, and about an entry in keys.d if there is one.
fn labshd_check(configuration: &str, entry: Option<&str>) -> (bool, String) {
    let dir = temp_dir();
    let file = dir.path().join("labshd.toml");
    // An ordinary user cannot create a socket in /run.
    let sockets = format!("unix:{}/", dir.path().display());
    write(&file, &configuration.replace("unix:/run/", &sockets));
    if let Some(entry) = entry {
        write(&dir.path().join("keys.d/entry.toml"), entry);
    }
    outcome(program(LABSHD).arg("check").arg("--config").arg(file))
}

/// The keys that labshd names in its message about an unknown key.
fn keys_known_to_labshd(message: &str) -> Vec<&str> {
    let known = message.split("what is understood here: ").nth(1).unwrap();
    known.split(')').next().unwrap().split(", ").collect()
}

/// Writes a file that only its owner can change, whatever the umask, and its directory likewise.
fn write(file: &Path, content: &str) {
    let directory = file.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
    fs::write(file, content).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

/// Whether a command succeeded, and everything that it printed.
fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn every_key_of_labshd_toml_is_documented_with_its_default() {
    let (_, message) = labshd_check("nonsense = 1", None);
    let known = keys_known_to_labshd(&message);
    assert!(known.len() > 15, "{message}");
    let (packaged, page) = (read("packaging/labshd.toml"), page("labshd.toml.5"));
    for key in known {
        let sets =
            |line: &&str| line.starts_with(&format!("{key} = ")) || *line == format!("[{key}]");
        let line = packaged.lines().map(|line| line.trim_start_matches('#')).find(sets).unwrap();
        assert!(page.lines().any(|documented| documented == line), "{line} is missing");
    }
}

#[test]
fn every_key_of_an_entry_is_documented() {
    let (_, message) = labshd_check("", Some("nonsense = 1"));
    let known = keys_known_to_labshd(&message);
    assert!(known.len() > 3, "{message}");
    let entries = section("labshd.toml.5", "\"ENTRIES IN KEYS.D\"");
    for key in known {
        assert!(entries.contains(&format!("\\fB{key}\\fR = ")), "{key} is missing");
    }
}

#[test]
fn every_key_of_the_clients_files_is_documented() {
    for (file, page_name, tables) in [
        ("hosts.toml", "hosts.toml.5", &["[hosts.lab07]", "[sources]"][..]),
        ("config.toml", "labsh-config.5", &["[defaults]", "[hosts.lab07]"]),
    ] {
        let page = page(page_name);
        for table in known_keys(file, "") {
            assert!(page.contains(&format!("[{table}")), "{file}: [{table}] is missing");
        }
        for table in tables {
            let known = known_keys(file, table);
            assert!(known.len() > 2, "{file} {table}: {known:?}");
            for key in known {
                let documented = |line: &str| line.starts_with(&format!("{key} = "));
                assert!(page.lines().any(documented), "{file} {table}: {key} is missing");
            }
        }
    }
}

#[test]
fn every_subcommand_and_option_of_labshd_is_documented() {
    let page = page("labshd.8");
    let heading = |text: &str| page.lines().any(|line| line == text);
    let check = |help: &str| {
        for option in options(help) {
            let documented = page
                .lines()
                .any(|line| line.starts_with(&option) || line.contains(&format!("\" {option}")));
            assert!(documented, "{option} is missing");
        }
    };
    let top = help(&[]);
    let names = subcommands(&top);
    assert!(names.len() > 3, "{top}");
    check(&top);
    for name in names.iter().filter(|name| *name != "help") {
        let help_text = help(&[name]);
        check(&help_text);
        let inner = subcommands(&help_text);
        assert!(!inner.is_empty() || heading(name), "{name} is missing");
        for inner in inner.iter().filter(|inner| *inner != "help") {
            assert!(heading(&format!("{name} {inner}")), "{name} {inner} is missing");
            check(&help(&[name, inner]));
        }
    }
}

#[test]
fn the_exit_statuses_of_labshd_are_documented() {
    let help = help(&[]);
    let documented = section("labshd.8", "\"EXIT STATUS\"");
    let statuses = help.split("Exit status:").nth(1).unwrap();
    let mut count = 0;
    for line in statuses.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let status = line.split_whitespace().next().unwrap();
        assert!(documented.contains(&format!(".TP\n.B {status}\n")), "{status} is missing");
        count += 1;
    }
    assert_eq!(count, 3, "{statuses}");
}

#[test]
fn the_examples_of_the_configuration_pages_are_accepted() {
    let labshd = examples("labshd.toml.5");
    assert_eq!(labshd.len(), 2);
    for example in labshd {
        let (accepted, message) = labshd_check(&example, None);
        assert!(accepted, "{message}\n{example}");
    }
    for (page, file) in [("hosts.toml.5", "hosts.toml"), ("labsh-config.5", "config.toml")] {
        let example = &examples(page)[0];
        let (accepted, message) = labsh_hosts(file, example, &["--origin", "lab07"]);
        assert!(accepted, "{message}\n{example}");
    }
}

#[test]
fn the_pages_name_this_version_and_are_well_formed() {
    let groff = tools::need("groff", "apt-get install groff-base");
    let mut count = 0;
    for entry in fs::read_dir(path("packaging/man")).unwrap() {
        let page = entry.unwrap().path();
        let version = format!("\"labsh {}\"", env!("CARGO_PKG_VERSION"));
        assert!(fs::read_to_string(&page).unwrap().contains(&version), "{}", page.display());
        count += 1;
        let Some(groff) = &groff else { continue };
        let checked = program(groff).args(["-man", "-ww", "-z"]).arg(&page).output().unwrap();
        assert!(checked.stderr.is_empty() && checked.status.success(), "{}", text(&checked.stderr));
    }
    assert_eq!(count, 4);
}

//! What the documents say about the programs is what the programs do.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{LABSH, LABSHD, text};

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn help(program: &str, subcommand: &[&str]) -> String {
    let output = Command::new(program).args(subcommand).arg("--help").output().unwrap();
    text(&output.stdout)
}

fn check(file: &Path) -> Output {
    Command::new(LABSHD).arg("check").arg("--config").arg(file).output().unwrap()
}

/// What `labshd check` says about settings, without the lines that name files.
fn settings(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    let names_files =
        |line: &&str| line.starts_with("configuration") || line.starts_with("keys in");
    told.lines().filter(|line| !names_files(line)).map(str::to_owned).collect()
}

#[test]
fn the_packaged_configuration_says_every_default() {
    // Copied, so that its mode is what an installation gives it, whatever the checkout has.
    let dir = tempfile::tempdir().unwrap();
    let (packaged, empty) = (dir.path().join("packaged.toml"), dir.path().join("empty.toml"));
    fs::write(&packaged, read("packaging/labshd.toml")).unwrap();
    fs::write(&empty, "").unwrap();
    assert_eq!(settings(&check(&packaged)), settings(&check(&empty)));

    // A key that does not exist makes labshd list those that do.
    fs::write(&empty, "nonsense = 1").unwrap();
    let told = text(&check(&empty).stderr);
    let known = told.split("what is understood here: ").nth(1).unwrap();
    for key in known.trim().trim_end_matches(')').split(", ") {
        let line = |line: &str| {
            let line = line.trim_start_matches('#');
            line.starts_with(&format!("{key} = ")) || line == format!("[{key}]")
        };
        assert!(
            read("packaging/labshd.toml").lines().any(line),
            "{key} is missing in packaging/labshd.toml"
        );
    }
}

#[test]
fn the_packaged_client_configuration_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("labsh")).unwrap();
    let packaged = read("packaging/config.toml");
    // The example as it is, and with everything in it switched on.
    let keys =
        |line: &&str| line.starts_with('#') && (line.contains(" = ") || line.starts_with("#["));
    let on: String = packaged
        .lines()
        .map(|line| if keys(&line) { line.trim_start_matches('#') } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    for config in [&packaged, &on] {
        fs::write(dir.path().join("labsh/config.toml"), config).unwrap();
        let mut labsh = Command::new(LABSH);
        labsh.env("XDG_CONFIG_HOME", dir.path()).args(["run", "lab07", "true"]);
        let told = text(&labsh.output().unwrap().stderr);
        assert!(told.contains("there is no key"), "{told}\n{config}");
    }
}

#[test]
fn options_in_the_readme_exist() {
    let mut known = String::new();
    for subcommand in [
        &["run"][..],
        &["shell"],
        &["cp"],
        &["try"],
        &["ping"],
        &["lesson"],
        &["key", "enroll"],
        &["key", "revoke"],
        &["hosts"],
    ] {
        known += &help(LABSH, subcommand);
    }
    known += &help(LABSHD, &["key", "add"]);
    // Those of other programs, in commands that the README tells people to run.
    known += "--release --bin --example --workspace --path --locked --now --list";
    for readme in READMES {
        let readme = read(readme);
        let words = readme.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let options: Vec<&str> =
            words.filter(|word| word.starts_with("--") && !word.ends_with('-')).collect();
        println!("{} options", options.len());
        for option in options {
            let stands = |word: &str| {
                word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-') == option
            };
            assert!(known.split_whitespace().any(stands), "{option} is in no --help");
        }
    }
}

#[test]
fn the_readmes_exit_statuses_are_those_of_the_help() {
    let help = help(LABSH, &["run"]);
    let documented = help.split("Exit status:").nth(1).unwrap();
    let rows: Vec<(&str, &str)> = documented
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|line| line.split_once("  "))
        .map(|(status, meaning)| (status.trim(), meaning.trim()))
        .collect();
    assert_eq!(rows.len(), 6, "{documented}");
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    println!("{} exit statuses in two languages", rows.len());
    for (status, meaning) in rows {
        assert!(english.contains(&format!("\n| {status} | {meaning} |\n")), "{status}: {meaning}");
        assert!(chinese.contains(&format!("\n| {status} | ")), "{status}");
    }
}

#[test]
fn the_lesson_plans_commands_succeed() {
    let count = |document: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = format!(
            "{}:{}",
            Path::new(LABSH).parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let document = read(document);
        let commands: Vec<&str> =
            document.lines().filter(|line| line.starts_with("labsh lesson")).collect();
        for command in &commands {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]).current_dir(dir.path()).env("PATH", &path);
            let output = shell.output().unwrap();
            assert!(
                output.status.success(),
                "{command}\n{}{}",
                text(&output.stdout),
                text(&output.stderr)
            );
        }
        assert!(dir.path().join("pages/index.html").exists());
        println!("{} commands", commands.len());
        commands.len()
    };
    let english = count("docs/guide/teaching.md");
    assert!(english > 12, "{english}");
    assert_eq!(count("docs/guide.zh-CN/teaching.md"), english);
}

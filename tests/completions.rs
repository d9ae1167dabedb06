//! Completions: the candidates for each kind of word, and real shells that insert them.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::many_hosts::Lab;
use crate::support::screen::Screen;
use crate::support::{LABSH, LABSH_RSH, LABSHD, labsh_in, own_files, program, temp_dir};
use crate::support::{run, text, tools};

/// The candidates for a line whose last word is at the cursor; an open one ends in `…`.
fn candidates(directory: &Path, path: &str, words: &[&str]) -> Vec<String> {
    let mut command = program(path);
    own_files(&mut command, directory);
    let command = command.env("LABSH_COMPLETE", "zsh").args(words).current_dir(directory);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    let candidate = |line: &str| match line.split('\t').collect::<Vec<_>>()[..] {
        ["final", value, _] => value.to_owned(),
        ["open", value, _] => format!("{value}…"),
        _ => panic!("{words:?}: {line:?}"),
    };
    text(&output.stdout).lines().map(candidate).collect()
}

fn labsh(lab: &Lab, words: &[&str]) -> Vec<String> {
    candidates(lab.labshd.path(), LABSH, words)
}

/// Hosts h01 to h12 in a group, in a directory with files.
fn lab() -> Lab {
    let lab = Lab::new();
    let inventory = "[groups]\nroom = 'h[01-03]'\n";
    fs::write(lab.labshd.file("config/labsh/hosts.toml"), inventory).unwrap();
    fs::create_dir_all(lab.labshd.file("there/sub dir")).unwrap();
    for name in ["a'b\"c", "a b", ".hidden", "line\nbreak", "esc\u{1b}[2J"] {
        fs::write(lab.labshd.file(&format!("there/{name}")), "").unwrap();
    }
    lab
}

#[test]
fn hosts_groups_and_outcomes_are_candidates_for_targets() {
    let lab = lab();
    assert_eq!(labsh(&lab, &["run", "h0"]).len(), 9);
    assert_eq!(labsh(&lab, &["run", "de"]), ["dead"]);
    assert_eq!(labsh(&lab, &["run", "@ro"]), ["@room"]);
    let last = labsh(&lab, &["run", "@last:"]);
    assert!(last.contains(&"@last:failed".to_owned()) && last.len() == 9, "{last:?}");
    assert_eq!(labsh(&lab, &["run", "@room!st"]), ["@room!stranger"]);
    assert_eq!(labsh(&lab, &["run", "h[01-03],dea"]), ["h[01-03],dead"]);
    for words in [
        &["explain", "de"][..],
        &["shell", "de"],
        &["ping", "-c", "3", "de"],
        &["hosts", "de"],
        &["hosts", "check", "--json", "de"],
        &["run", "-x", "de"],
        &["cp", "--exclude", "de"],
        &["rsh", "-v", "de"],
        &["key", "enroll", "--host", "de"],
        &["run", "--timeout", "3s", "--", "de"],
    ] {
        assert_eq!(labsh(&lab, words), ["dead"], "{words:?}");
    }
    assert_eq!(labsh(&lab, &["run", "--exclude=de"]), ["--exclude=dead"]);
    assert_eq!(labsh(&lab, &["run", "-xde"]), ["-xdead"]);
    assert_eq!(labsh(&lab, &["shell", "@"]), [""; 0], "a terminal is on one host");
    // The words of a command are not labsh's.
    for words in [&["run", "h01", "de"][..], &["run", "h01", "-"], &["run", "h01", "x", "--js"]] {
        assert_eq!(labsh(&lab, words), [""; 0], "{words:?}");
    }
}

#[test]
fn options_keys_lessons_and_values_are_candidates() {
    let lab = lab();
    assert_eq!(labsh(&lab, &["run", "--no-w"]), ["--no-wait-eof"]);
    assert!(labsh(&lab, &["ru"]) == ["run"] && labsh(&lab, &["hosts", "ch"]) == ["check"]);
    assert_eq!(labsh(&lab, &["run", "--key", "te"]), ["test"]);
    assert_eq!(labsh(&lab, &["key", "show", ""]), ["test"]);
    assert_eq!(labsh(&lab, &["key", "new", ""]), [""; 0]);
    assert_eq!(labsh(&lab, &["lesson", "sti"]), ["sticky"]);
    assert_eq!(labsh(&lab, &["lesson", "--lang", ""]), ["en", "zh"]);
    assert_eq!(labsh(&lab, &["run", "--json=s"]), ["--json=summary"]);
    assert_eq!(labsh(&lab, &["completions", "b"]), ["bash"]);
    assert_eq!(labsh(&lab, &["run", "--env", "XDG_CON"]), ["XDG_CONFIG_HOME"]);
    assert_eq!(labsh(&lab, &["run", "--out", "the"]), ["there/…"]);
    assert_eq!(labsh(&lab, &["lesson", "--html", "there/.h"]), ["there/.hidden"]);

    let rsh = |words: &[&str]| candidates(lab.labshd.path(), LABSH_RSH, words);
    assert_eq!(rsh(&["-p", "22", "alice@de"]), ["alice@dead"]);
    assert_eq!(rsh(&["-s", "h01", "sf"]), ["sftp"]);
    assert_eq!(rsh(&["h01", "sf"]), [""; 0]);
    assert_eq!(rsh(&["-o", "Connect"]), ["Connecttimeout=…"], "its case does not count");
    assert!(rsh(&["h01", "-"]).contains(&"-p".to_owned()), "options may follow the host");

    let labshd = |words: &[&str]| candidates(lab.labshd.path(), LABSHD, words);
    assert_eq!(labshd(&["key", "re"]), ["remove"]);
    let file = lab.labshd.file("labshd.toml");
    assert_eq!(labshd(&["--config", &file, "key", "remove", "te"]), ["test"]);
    assert_eq!(labshd(&["--config", &file, "key", "remove", "--host", "loc"]), ["localhost"]);
    assert_eq!(labshd(&["key", "add", "--user", "roo"]), ["root"]);
    assert_eq!(labshd(&["--config", "labshd.t"]), ["labshd.toml"]);
}

#[test]
fn paths_on_a_host_are_candidates_for_a_copy() {
    let lab = lab();
    let there = lab.labshd.file("there");
    let names = |current: &str| labsh(&lab, &["cp", current]);
    let prefix = format!("h01:{there}/");
    // Names with control characters are not shown.
    let expected = ["a b", "a'b\"c", "sub dir/…"].map(|name| format!("{prefix}{name}"));
    assert_eq!(names(&prefix), expected);
    assert_eq!(names(&format!("{prefix}.h")), [format!("{prefix}.hidden")]);
    assert_eq!(names(&format!("h01:{there}/su")), [format!("{prefix}sub dir/…")]);
    let set = format!("h[01-02]:{there}/su");
    assert_eq!(names(&set), [format!("h[01-02]:{there}/sub dir/…")], "the first of a set is asked");
    // The options before it count.
    let by_port = ["cp", "-p", &lab.labshd.tls.port().to_string(), "--key", "test"];
    let target = format!("127.0.0.1:{there}/su");
    let listed = labsh(&lab, &[&by_port[..], &[&target]].concat());
    assert_eq!(listed, [format!("127.0.0.1:{there}/sub dir/…")]);
    // Hosts and local files as well.
    assert_eq!(names("dea"), ["dead:…"]);
    assert_eq!(names("the"), ["there/…"]);
    assert_eq!(names("@roo"), ["@room:…"]);
    assert_eq!(names("no-such-directory/x"), [""; 0]);
}

#[test]
fn a_host_that_does_not_answer_delays_no_prompt() {
    let lab = lab();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, file) = (mute.local_addr().unwrap().port(), "config/labsh/config.toml");
    let hosts = fs::read_to_string(lab.labshd.file(file)).unwrap();
    let silent = format!("[hosts.silent]\naddress = \"127.0.0.1:{port}\"\n");
    fs::write(lab.labshd.file(file), hosts + &silent).unwrap();
    for host in ["silent", "dead", "stranger", "h99", "@nosuch", "h[", "-x"] {
        assert_eq!(labsh(&lab, &["cp", &format!("{host}:/et")]), [""; 0], "{host}");
    }
    // It is asked for a second, by labsh's own clock.
    let began = Instant::now();
    labsh(&lab, &["cp", "silent:/et"]);
    assert!(began.elapsed() >= Duration::from_millis(900));
}

#[test]
fn a_broken_configuration_is_no_text_in_the_prompt() {
    let lab = lab();
    for file in ["config/labsh/hosts.toml", "config/labsh/config.toml"] {
        fs::write(lab.labshd.file(file), "nonsense = [").unwrap();
        assert_eq!(labsh(&lab, &["run", "h0"]), [""; 0]);
        assert_eq!(labsh(&lab, &["cp", "h01:/et"]), [""; 0]);
        assert_eq!(labsh(&lab, &["run", "loc"]), ["localhost"], "a key was enrolled for it");
        assert_eq!(labsh(&lab, &["run", "--key", "te"]), ["test"]);
    }
    fs::write(lab.labshd.file("labshd.toml"), "nonsense = [").unwrap();
    let file = lab.labshd.file("labshd.toml");
    candidates(lab.labshd.path(), LABSHD, &["--config", &file, "key", "remove", ""]);
    let empty = temp_dir();
    for words in [&["labsh run ", ""][..], &["labsh cp x", "x"], &[], &["labsh"]] {
        let mut nowhere = program(LABSH);
        nowhere.env("LABSH_COMPLETE", "bash").env_remove("HOME").current_dir(empty.path());
        let output = nowhere.args(words).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn elvish_and_powershell_have_static_completions() {
    let dir = temp_dir();
    for shell in ["elvish", "powershell"] {
        let script = text(&run(labsh_in(dir.path()).args(["completions", shell])).stdout);
        assert!(script.contains("no-wait-eof"), "{shell}");
    }
}

/// What bash would insert for a line, by its own function, without a terminal.
fn bash(lab: &Lab, line: &str, replaced: &str) -> Vec<String> {
    let mut shell = program("bash");
    own_files(&mut shell, lab.labshd.path());
    shell.env("PATH", tools::search_path_after(&[Path::new(LABSH).parent().unwrap()]));
    let script = ". <(labsh completions bash); COMP_LINE=$1 COMP_POINT=${#1}; \
                  _labsh labsh \"$2\" ''; printf '%s\\n' \"${COMPREPLY[@]}\"";
    shell.args(["--noprofile", "--norc", "-c", script, "bash", line, replaced]);
    let output = shell.current_dir(lab.labshd.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let lines = text(&output.stdout);
    lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_gets_what_it_replaces_in_its_own_quoting() {
    let lab = lab();
    for (line, replaced, inserted) in [
        ("labsh run dea", "dea", "dead "),
        ("labsh run @roo", "@roo", "@room "),
        ("labsh run @last:faile", "faile", "failed "),
        ("labsh run --exclude=dea", "dea", "dead "),
        ("labsh run \"dea", "dea", "dead"),
        ("labsh cp h01:there/su", "there/su", "there/sub\\ dir/"),
        ("labsh cp there/a\\'", "there/a\\'", "there/a\\'b\\\"c "),
        ("labsh cp 'there/a ", "there/a ", "there/a b"),
        ("labsh cp \"there/a'", "there/a'", "there/a'b\\\"c"),
        ("labsh run 'h01' --nothing", "--nothing", ""),
    ] {
        let home = line.contains(':') && line.contains("there");
        // A path on a host begins in the home directory there.
        let absolute = lab.labshd.file("there");
        let (line, replaced, inserted) = match home {
            true => [line, replaced, inserted].map(|text| text.replace("there", &absolute)).into(),
            false => (line.to_owned(), replaced.to_owned(), inserted.to_owned()),
        };
        let expected: Vec<String> = Some(inserted).into_iter().filter(|t| !t.is_empty()).collect();
        assert_eq!(bash(&lab, &line, &replaced), expected, "{line}");
    }
}

/// Functions by which the programs print their words in brackets. Completions run the programs
/// nevertheless.
const PRINT_WORDS: &str = "labsh() { printf '[%s]' \"$@\"; echo; }; \
    labshd() { labsh \"$@\"; }; labsh-rsh() { labsh \"$@\"; }\n";

/// Types lines into an interactive shell, presses Tab after each and then Enter.
fn completes(shell: &str, start: impl FnOnce(&Lab, &Path) -> String, prompt: &str) {
    let Some(path) = tools::need(shell, &format!("apt-get install {shell}")) else { return };
    let lab = lab();
    let Some(screen) = Screen::start(&lab.labshd, "") else { return };
    // No line is to be broken.
    screen.resize(200, 24);
    screen.line(&start(&lab, &path));
    screen.wait_for_prompt(prompt);
    let there = lab.labshd.file("there");
    for (typed, words) in [
        ("labsh run de", "[run][dead]".to_owned()),
        ("labsh run @roo", "[run][@room]".to_owned()),
        ("labsh run --no-w", "[run][--no-wait-eof]".to_owned()),
        (&format!("labsh cp h01:{there}/su"), format!("[cp][h01:{there}/sub dir/]")),
        (&format!("labsh cp h01:{there}/a\\'"), format!("[cp][h01:{there}/a'b\"c]")),
        ("labsh cp there/s", "[cp][there/sub dir/]".to_owned()),
        ("labsh-rsh alice@dea", "[alice@dead]".to_owned()),
        ("labshd key rem", "[key][remove]".to_owned()),
    ] {
        screen.keys(typed);
        screen.press("Tab");
        screen.wait_until("a completed line", |shown| {
            shown.contains(typed) && !shown.trim_end().ends_with(typed)
        });
        screen.press("Enter");
        screen.wait_for_line(&words);
        screen.wait_for_prompt(prompt);
    }
}

#[test]
fn bash_completes_what_is_typed() {
    let start = |lab: &Lab, _: &Path| {
        let file = lab.labshd.file("start.bash");
        fs::write(&file, format!(". <(labsh completions bash)\n{PRINT_WORDS}PS1='bash> '\n"))
            .unwrap();
        format!(". {file}")
    };
    completes("bash", start, "bash>");
}

#[test]
fn zsh_completes_what_is_typed() {
    let start = |lab: &Lab, zsh: &Path| {
        let rc = "PS1='zsh> '; autoload -U compinit; compinit -u -D\n. <(labsh completions zsh)\n";
        fs::write(lab.labshd.file(".zshrc"), format!("{rc}{PRINT_WORDS}")).unwrap();
        format!("ZDOTDIR=$PWD exec {} -d -i", zsh.display())
    };
    completes("zsh", start, "zsh>");
}

#[test]
fn fish_completes_what_is_typed() {
    let start = |lab: &Lab, fish: &Path| {
        let rc = "function fish_prompt; echo -n 'fish> '; end\nset -g fish_greeting\n\
                  set -g fish_autosuggestion_enabled 0\nlabsh completions fish | source\n\
                  function labsh; printf '[%s]' $argv; echo; end\n\
                  function labshd; labsh $argv; end\nfunction labsh-rsh; labsh $argv; end\n";
        fs::write(lab.labshd.file("start.fish"), rc).unwrap();
        let fish = fish.display();
        format!(
            "HOME=$PWD XDG_DATA_HOME=$PWD/data exec {fish} --no-config -i -C 'source start.fish'"
        )
    };
    completes("fish", start, "fish>");
}

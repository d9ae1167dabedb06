//! Sets of hosts on the command line: the notation, and lists from files, pipes and standard input.

use std::fs::{self, File};
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::many_hosts::Lab;
use crate::support::fleet::sorted_lines;
use crate::support::{in_shell, labsh_in, pipe_through, run, temp_dir, text};

/// A home directory with a key.
fn home() -> TempDir {
    let home = temp_dir();
    run(labsh_in(home.path()).args(["key", "new", "k"]));
    home
}

/// What `labsh run --dry-run` does with a set, and this on standard input.
fn dry_run(home: &Path, words: &[&str], stdin: &str) -> Output {
    let mut command = labsh_in(home);
    pipe_through(command.args(["run", "--dry-run"]).args(words).arg("true"), stdin.as_bytes())
}

/// The set of hosts that a command line gives, as labsh prints it.
fn folded(home: &Path, words: &[&str], stdin: &str) -> String {
    let output = dry_run(home, words, stdin);
    assert!(output.status.success(), "{words:?}: {output:?}");
    let shown = text(&output.stdout);
    shown.lines().next().unwrap().rsplit_once(" (").unwrap().0.to_owned()
}

#[test]
fn every_set_that_labsh_prints_can_be_typed() {
    let home = home();
    for (set, printed) in [
        ("01node,02node", "[01-02]node"),
        ("1 2 3", "[1-3]"),
        ("[::1]:5274,[fe80::1%eth0]", "[::1]:5274,[fe80::1%eth0]"),
        (
            "n99999999999999999998,n99999999999999999999",
            "n[99999999999999999998,99999999999999999999]",
        ),
    ] {
        assert_eq!(folded(home.path(), &[set], ""), printed, "{set}");
        assert_eq!(folded(home.path(), &[printed], ""), printed, "{set}");
    }
    assert_eq!(folded(home.path(), &["[::1]:5274"], ""), "[::1]:5274");
    // Also where an option or another subcommand takes it.
    assert_eq!(folded(home.path(), &["-x", "[02-03]node", "[01-02]node"], ""), "01node");
    let listed = run(labsh_in(home.path()).args(["hosts", "--json", "[01-02]node"]));
    assert_eq!(text(&listed.stdout).lines().count(), 2);
    let copied = labsh_in(home.path()).args(["cp", "/etc/hostname", "[2-1]n:x"]).output().unwrap();
    assert!(text(&copied.stderr).contains("[2-1]: it counts backwards"), "{copied:?}");
    let shell = labsh_in(home.path()).args(["shell", "[01-02]node"]).output().unwrap();
    assert!(text(&shell.stderr).contains("this is a set of hosts; name one host"), "{shell:?}");
}

#[test]
fn blanks_in_a_set_have_no_meaning() {
    let home = home();
    for (set, printed) in [
        ("lab[1-3] ^ lab2", "lab[1,3]"),
        ("lab[1-3] ^lab2", "lab[1,3]"),
        (" lab[ 1 - 3 , 5 ] ! lab3 ", "lab[1-2,5]"),
        ("lab[1 - 9 / 4]  &\tlab[1-5]", "lab[1,5]"),
        ("lab1 lab2\t", "lab[1-2]"),
    ] {
        assert_eq!(folded(home.path(), &[set], ""), printed, "{set:?}");
    }
    let colon = dry_run(home.path(), &["lab[01:40]"], "");
    assert!(text(&colon.stderr).contains("a range has a dash between its numbers"), "{colon:?}");
}

#[test]
fn a_list_of_hosts_may_be_standard_input_or_a_pipe() {
    let home = home();
    let list = "\u{feff}lab01 # the first\r\nlab[02-03]\r\n";
    for name in ["^-", "^/dev/stdin", "^/dev/fd/0"] {
        assert_eq!(folded(home.path(), &[name], list), "lab[01-03]", "{name}");
    }
    assert_eq!(folded(home.path(), &["^-!lab02,gate"], list), "gate,lab[01,03]");
    // Both sets name it, and it can be read only once.
    assert_eq!(folded(home.path(), &["-x", "^-", "lab[01-05]"], list), "lab[04-05]");
    assert_eq!(folded(home.path(), &["-x", "^-", "^-,lab04"], list), "lab04");
    let mut command = labsh_in(home.path());
    command.args(["run", "--dry-run"]);
    let script = "\"$@\" ^<(echo lab07; echo lab08) -- true; \"$@\" 'lab09 '^<(echo lab07) true";
    let output = in_shell(script, &command).output().unwrap();
    let shown = text(&output.stdout);
    assert!(shown.starts_with("lab[07-08] (2)\n") && shown.contains("lab[07,09] (2)\n"), "{shown}");
}

#[test]
fn a_list_on_standard_input_is_not_the_input_of_the_commands() {
    let lab = Lab::of(2);
    let list = lab.labshd.file("list");
    fs::write(&list, "h01\nh02\n").unwrap();
    for name in ["^-", "^/dev/stdin"] {
        // A file would begin anew if it were opened again.
        let mut command = lab.command(&[name, "cat; echo over"]);
        let output = command.stdin(File::open(&list).unwrap()).output().unwrap();
        assert_eq!(sorted_lines(&output.stdout), ["h01: over", "h02: over"], "{output:?}");
    }
}

#[test]
fn an_error_in_a_list_has_its_line() {
    let home = home();
    let file = home.path().join("list");
    let named = format!("^{}", file.display());
    for (list, error) in [
        ("lab01\nlab[02-\n", "2: \"lab[02-\": the bracket at position 4 is unmatched"),
        ("lab01\n\nroot@lab02\n", "3: \"root@lab02\" is not a host: the client cannot choose"),
        ("lab01:99999", "1: \"lab01:99999\" is not a host: \"99999\" is not a port"),
        ("lab01\n@nowhere\n", "2: there is no group \"nowhere\""),
        ("lab01\n^/nowhere/list\n", "2: cannot read the hosts in /nowhere/list: "),
        ("lab01\n[1-999999]x\n", "2: \"[1-999999]x\" is more than 100000 hosts"),
    ] {
        fs::write(&file, list).unwrap();
        for (name, set, stdin) in
            [(file.to_str().unwrap(), named.as_str(), ""), ("standard input", "^-", list)]
        {
            let output = dry_run(home.path(), &[set], stdin);
            assert_eq!(output.status.code(), Some(125), "{output:?}");
            let errors = text(&output.stderr);
            assert!(errors.starts_with(&format!("labsh: {name}:{error}")), "{errors}");
        }
    }
    fs::write(&file, b"lab01\n\xfflab02\n").unwrap();
    let output = dry_run(home.path(), &[&named], "");
    let expected = format!("labsh: {}:2: that is not UTF-8; save the file", file.display());
    assert!(text(&output.stderr).starts_with(&expected), "{output:?}");
    assert!(
        text(&dry_run(home.path(), &["^-"], "").stderr).contains("\"^-\" is no host at all"),
        "an empty list"
    );
}

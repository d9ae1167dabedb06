//! pdsh over labsh-rsh, with its `exec` module, on eight hosts at once.

use std::path::PathBuf;

use crate::recipes::recipe;
use crate::support::fleet::{Fleet, sorted_lines};
use crate::support::{feed, run, text, tools};

fn pdsh() -> Option<PathBuf> {
    tools::need("pdsh", "apt-get install pdsh")
}

#[test]
fn pdsh_runs_the_recipe() {
    let Some(pdsh) = pdsh() else { return };
    let output = run(&mut Fleet::start().shell(&pdsh, &recipe("pdsh")));
    let stdout = text(&output.stdout);
    // dshbak prints equal answers once.
    assert!(stdout.contains("----------------\nlab[01-08]\n----------------\nLinux\n"), "{stdout}");
}

#[test]
fn pdsh_gets_each_hosts_output_and_exit_status() {
    let Some(pdsh) = pdsh() else { return };
    let fleet = Fleet::start();
    let script = "pdsh -S -R exec -w lab[01-08] labsh-rsh %h 'echo out $LABSH_HOST_ID; \
                  echo err $LABSH_HOST_ID >&2; test $LABSH_HOST_ID != lab05 || exit 3'";
    let output = fleet.output(&pdsh, script);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let lines = |word: &str| {
        (1..=8).map(|host| format!("lab{host:02}: {word} lab{host:02}")).collect::<Vec<_>>()
    };
    assert_eq!(sorted_lines(&output.stdout), lines("out"));
    let errors: Vec<String> =
        sorted_lines(&output.stderr).into_iter().filter(|line| line.contains(": err ")).collect();
    assert_eq!(errors, lines("err"));
}

#[test]
fn pdsh_reports_a_dead_host_and_runs_on_the_others() {
    let Some(pdsh) = pdsh() else { return };
    let output =
        Fleet::start().output(&pdsh, "pdsh -S -R exec -w lab[08-09] labsh-rsh %h echo here");
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "lab08: here\n");
    assert!(text(&output.stderr).contains("lab09: labsh-rsh: "), "{}", text(&output.stderr));
}

#[test]
fn pdsh_gets_large_output_complete() {
    let Some(pdsh) = pdsh() else { return };
    let fleet = Fleet::start();
    let script = "pdsh -S -N -R exec -w lab[01-08] labsh-rsh %h seq 100000 | sort -n | uniq -c | \
        awk '$1 == 8' | wc -l";
    let output = feed(&mut fleet.shell(&pdsh, script), b"");
    assert_eq!(text(&output.stdout), "100000\n");
}

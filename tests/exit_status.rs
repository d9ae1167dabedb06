//! The exit status is the command's own, or says what else happened.

use crate::support::{Labshd, text};

#[test]
fn the_status_is_the_commands_own() {
    let labshd = Labshd::start();
    for code in [0, 1, 7, 99, 255] {
        assert_eq!(labshd.output(&[&format!("exit {code}")]).status.code(), Some(code));
    }
}

#[test]
fn a_signal_is_128_and_its_number_and_is_named() {
    let labshd = Labshd::start();
    let output = labshd.output(&["kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137));
    assert!(text(&output.stderr).contains("SIGKILL"), "{}", text(&output.stderr));
}

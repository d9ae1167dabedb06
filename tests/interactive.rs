//! Terminals on a host as a user sees them: keys are typed into a terminal and its screen is read
//! back.

use std::fs;
use std::process::Stdio;

use crate::support::screen::Screen;
use crate::support::{
    Labshd, OWN_SHELL, Running, children, in_shell, kill, own_account, pipe_through, sh, text,
    tools,
};

/// A remote shell with a prompt of its own, whatever the user's login shell is. It reads none of
/// the user's configuration, and neither do the programs that it starts.
const REMOTE_SHELL: &str = "env HOME=/dev/null PS1='remote> ' bash --norc --noprofile";
const REMOTE_PROMPT: &str = "remote>";

/// A terminal with `labsh shell` in it, at the prompt of the remote shell.
fn remote_shell(labshd: &Labshd) -> Option<Screen> {
    let screen = Screen::start(labshd, "")?;
    screen.line(&format!("checked labsh shell $T {REMOTE_SHELL}"));
    screen.wait_for_prompt(REMOTE_PROMPT);
    Some(screen)
}

/// The process id of labsh, so many levels below the shell of the screen.
fn labsh_on(screen: &Screen, depth: usize) -> i32 {
    (0..depth).fold(screen.shell(), |pid, _| children(pid)[0])
}

/// Waits until labsh has ended with this status and has restored the terminal; returns the screen.
fn wait_for_end(screen: &Screen, status: u8) -> String {
    screen.wait_for_line(&format!("status {status}"));
    screen.wait_for_line("the terminal is as before")
}

#[test]
fn labsh_shell_runs_a_login_shell_and_ends_with_its_status() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line("checked labsh shell $T");
    // What is typed before the prompt appears is read by the shell.
    // On a line of its own: a prompt may come between.
    screen.line(&format!("echo; {OWN_SHELL}"));
    let name = own_account(6).rsplit('/').next().unwrap().to_owned();
    screen.wait_for_line(&format!("[-{name}]"));
    screen.line("echo \"[$TERM] [$(stty size)] [$(tty | cut -c1-9)]\"");
    screen.wait_for_line("[screen-256color] [24 80] [/dev/pts/]");
    screen.line("exit 7");
    let shown = wait_for_end(&screen, 7);
    assert!(
        shown.contains(&format!("labsh: the session on {} is over", labshd.target())),
        "{shown}"
    );
}

#[test]
fn keys_reach_the_remote_foreground_process() {
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    // Printed by the foreground process itself: a key that comes earlier could reach the shell.
    screen.line("sh -c 'echo run\"\"ning; exec sleep 300'");
    screen.wait_for_line("running");
    screen.press("C-c");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("echo \"[$?]\"");
    screen.wait_for_line("[130]");
    screen.line("sh -c 'echo a\"\"gain; exec sleep 300'");
    screen.wait_for_line("again");
    screen.press("C-\\");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("echo \"[$?]\"");
    screen.wait_for_line("[131]");
    // Job control is the remote shell's.
    screen.line("echo read''ing; cat");
    screen.wait_for_line("reading");
    screen.keys("typed to cat\n");
    screen.wait_until("cat's answer", |shown| shown.matches("typed to cat").count() == 2);
    screen.press("C-z");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("fg");
    screen.wait_for_line("cat");
    screen.keys("typed again\n");
    screen.wait_until("cat's answer", |shown| shown.matches("typed again").count() == 2);
    screen.press("C-d");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("exit 3");
    wait_for_end(&screen, 3);
}

#[test]
fn an_editor_edits_and_saves() {
    if tools::need("vi", "apt-get install vim-tiny").is_none() {
        return;
    }
    let labshd = Labshd::start();
    let file = labshd.file("notes");
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line(&format!("checked labsh shell $T vi -u NONE -N {file}"));
    // vi shows an empty file as a column of tildes.
    screen.wait_until("an empty file", |shown| {
        shown.lines().filter(|line| *line == "~").count() > 10
    });
    screen.keys("ifirst line\nsecond 粘包 line");
    screen.press("Escape");
    screen.wait_for_line("second 粘包 line");
    screen.keys("k0cwFIRST");
    screen.press("Escape");
    screen.wait_for_line("FIRST line");
    screen.line(":wq");
    wait_for_end(&screen, 0);
    assert_eq!(fs::read_to_string(file).unwrap(), "FIRST line\nsecond 粘包 line\n");
}

#[test]
fn full_screen_programs_work() {
    for (program, package) in [("top", "procps"), ("less", "less")] {
        if tools::need(program, &format!("apt-get install {package}")).is_none() {
            return;
        }
    }
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    screen.line("top");
    screen.wait_until("top", |shown| shown.contains("PID") && shown.contains("%CPU"));
    screen.keys("q");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("clear; seq 1000 | less");
    screen.wait_for_line("20");
    screen.keys("G");
    screen.wait_for_line("1000");
    screen.keys("q");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("exit");
    wait_for_end(&screen, 0);
}

#[test]
fn tmux_works_on_the_host() {
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    let inner = labshd.file("inner-tmux");
    screen.line(&format!(
        "tmux -f /dev/null -S {inner} new-session env PS1='deeper> ' bash --norc --noprofile"
    ));
    screen.wait_for_line("deeper>");
    screen.line("echo deep''est; stty size");
    screen.wait_for_line("deepest");
    // tmux's status line takes one row.
    screen.wait_for_line("23 80");
    screen.line("exit");
    screen.wait_for("[exited]");
    screen.line("exit");
    wait_for_end(&screen, 0);
}

#[test]
fn a_new_size_reaches_the_host() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    let script = "trap \"stty size\" WINCH; echo ready; while :; do sleep 0.05; done";
    screen.line(&format!("labsh shell $T sh -c '{script}'"));
    screen.wait_for_line("ready");
    for (columns, rows) in [(100, 30), (40, 10), (132, 43)] {
        screen.resize(columns, rows);
        screen.wait_for_line(&format!("{rows} {columns}"));
    }
}

#[test]
fn escapes_work_at_the_start_of_a_line() {
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    screen.keys("~?");
    let help = screen.wait_for("type ~ itself");
    assert!(
        help.contains(
            "
 ~.   leave"
        ) && help.contains(
            "
 ~^Z  suspend"
        ),
        "{help}"
    );
    screen.press("Enter");
    screen.line("~~?");
    screen.wait_for("remote> ~?");
    screen.line("echo a~. b~?");
    screen.wait_for_line("a~. b~?");
    screen.keys("~.");
    let shown = wait_for_end(&screen, 255);
    assert!(shown.contains("labsh: left; the host ends the command"), "{shown}");
    labshd.log().wait_for("command ended");
}

#[test]
fn labsh_is_suspended_and_comes_back_with_the_new_size() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    let before = "stty -a | tr -d '\\n' | sed 's/.*; line/line/' | md5sum";
    screen.line(&format!("{before} >before; labsh shell $T {REMOTE_SHELL}"));
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("variable=kept; echo s''et");
    screen.wait_for_line("set");
    screen.keys("~");
    screen.press("C-z");
    screen.wait_for("Stopped");
    screen.resize(90, 20);
    screen.line(&format!("{before} | cmp - before && echo mod''es; stty size"));
    screen.wait_for_line("modes");
    screen.wait_for_line("20 90");
    screen.line("clear; fg");
    screen.wait_for_line(&format!("labsh shell $T {REMOTE_SHELL}"));
    screen.line("echo \"$variable [$(stty size)]\"");
    screen.wait_for_line("kept [20 90]");
    // The terminal is raw again: the key goes to the remote command.
    screen.line("clear; sh -c 'echo run\"\"ning; exec sleep 300'");
    screen.wait_for_line("running");
    screen.press("C-c");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("exit 9");
    screen.wait_for("the session on");
    screen.line("echo \"status $?\"");
    screen.wait_for_line("status 9");
}

#[test]
fn a_stopped_client_continues() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line(&format!("labsh shell $T {REMOTE_SHELL}"));
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("variable=kept; echo s''et");
    screen.wait_for_line("set");
    kill(labsh_on(&screen, 1), 19);
    screen.wait_for("Stopped");
    screen.line("clear; echo ba''ck; fg");
    screen.wait_for_line("back");
    screen.line("echo \"$variable\"; cat");
    screen.wait_for_line("kept");
    screen.press("C-c");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("echo \"[$?]\"");
    screen.wait_for_line("[130]");
    screen.line("exit 4");
    screen.wait_for("the session on");
    screen.line("echo \"status $?\"");
    screen.wait_for_line("status 4");
}

#[test]
fn a_signal_to_labsh_restores_the_terminal() {
    let labshd = Labshd::start();
    for (signal, status) in [(1, 129), (2, 130), (3, 131), (15, 143)] {
        let Some(screen) = remote_shell(&labshd) else { return };
        kill(labsh_on(&screen, 2), signal);
        let shown = wait_for_end(&screen, status);
        assert!(shown.contains("\nlabsh: left; the host ends the command"), "{shown}");
    }
}

#[test]
fn a_file_size_limit_restores_the_terminal_and_is_reported() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    // 16 KiB and no more (in bash's units of 1 KiB).
    let big = labshd.file("big");
    screen.line(&format!("checked bash -c \"ulimit -f 16; labsh run -t $T seq 100000 >{big}\""));
    let shown = wait_for_end(&screen, 255);
    assert!(shown.contains("File too large"), "{shown}");
}

#[test]
fn a_server_that_dies_restores_the_terminal() {
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    screen.line("stty raw; echo ra''w");
    screen.wait_for("raw");
    labshd.signal(9);
    let shown = wait_for_end(&screen, 255);
    assert!(shown.contains("\nlabsh: the connection was lost: "), "{shown}");
}

#[test]
fn the_escape_leaves_a_server_that_no_longer_answers() {
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    labshd.signal(19);
    screen.keys("not echoed\n~.");
    wait_for_end(&screen, 255);
}

#[test]
fn text_of_any_script_can_be_typed_shown_and_erased() {
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    screen.line("printf '[%s]\\n' 粘包 שלום ä𝄞 | tr -d '\\n'; echo");
    screen.wait_for_line("[粘包][שלום][ä𝄞]");
    screen.line("read -rp 'word? ' word; echo \"<$word>\"");
    screen.wait_for_prompt("word?");
    screen.keys("语言x");
    screen.wait_for("语言x");
    screen.press("BSpace");
    screen.press("BSpace");
    screen.press("Enter");
    screen.wait_for_line("<语>");
}

#[test]
fn a_flood_does_not_delay_an_interrupt() {
    let labshd = Labshd::start();
    let Some(screen) = remote_shell(&labshd) else { return };
    screen.line("yes 'a flood of output'");
    screen.wait_until("a flood", |shown| shown.matches("a flood of output").count() > 20);
    screen.press("C-c");
    screen.wait_for_prompt(REMOTE_PROMPT);
    screen.line("echo do''ne");
    screen.wait_for_line("done");
    screen.line("yes 'another flood'");
    screen.wait_until("a flood", |shown| shown.matches("another flood").count() > 20);
    screen.keys("\n~.");
    wait_for_end(&screen, 255);
}

#[test]
fn a_locale_that_the_host_does_not_accept_is_not_sent() {
    let labshd = Labshd::with("accept_env = ['LC_TIME']");
    let Some(screen) = Screen::start(&labshd, "export LANG=C LC_ALL=C.UTF-8") else { return };
    screen.line("checked labsh shell $T 'echo \"[$LC_ALL]\"'");
    screen.wait_for_line("[]");
    wait_for_end(&screen, 0);
    screen.line("clear; checked labsh shell --env NAME=value $T true");
    screen.wait_for("NAME may not be set");
    wait_for_end(&screen, 125);
    labshd.configure("accept_env = ['LANG', 'LC_*']");
    labshd.reload();
    screen.line("clear; checked labsh shell $T 'echo \"[$LC_ALL]\"'");
    screen.wait_for_line("[C.UTF-8]");
    wait_for_end(&screen, 0);
}

#[test]
fn a_command_is_given_a_terminal_on_request() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line("checked labsh run $T 'tty; exit 5'");
    screen.wait_for_line("not a tty");
    wait_for_end(&screen, 5);
    screen.line("clear; checked labsh run -t $T 'tty | cut -c1-9; exit 6'");
    screen.wait_for_line("/dev/pts/");
    wait_for_end(&screen, 6);
    // The local stdout need not be a terminal.
    screen.line(
        "clear; checked labsh run -t $T sh -c 'test -t 0 && test -t 1 && echo bo\"\"th' | cat",
    );
    screen.wait_for_line("both");
    screen.wait_for_line("status 0");
}

#[test]
fn without_a_local_terminal_there_is_no_remote_one_unless_forced() {
    let labshd = Labshd::start();
    let mut shell = labshd.labsh();
    let output = shell.arg("shell").arg(labshd.target()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("stdin is not a terminal") && stderr.contains("--force-tty"),
        "{stderr}"
    );
    let output = labshd.output_with(&["-t"], &["tty"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(125), stderr));

    let mut shell = labshd.labsh();
    shell.args(["shell", "--force-tty"]).arg(labshd.target()).args(["--", "sh"]);
    shell.env("COLUMNS", "99").env("LINES", "33").env("TERM", "vt100");
    let output = pipe_through(&mut shell, b"stty size; echo $TERM; exit 3\n");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("33 99\r\n") && shown.contains("vt100\r\n"), "{shown:?}");

    // Without a terminal and variables, 24 by 80 and `dumb` are assumed.
    let mut command = labshd.run_with(&["-tt"], &sh("stty size; echo $TERM"));
    command.env_remove("TERM");
    let mut session_of_its_own = in_shell("exec setsid -w \"$@\" 2>errors", &command);
    session_of_its_own.current_dir(labshd.path());
    let output = session_of_its_own.stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&output.stdout), "24 80\r\ndumb\r\n");
}

#[test]
fn every_byte_passes_a_raw_terminal_from_a_pipe() {
    let labshd = Labshd::start();
    let script = "stty raw -echo; echo ready; head -c 512 | od -An -v -tu1 -w512";
    let mut command = labshd.run_with(&["-tt"], &sh(script));
    let mut client = Running::adopt(command.stdin(Stdio::piped()));
    assert_eq!(client.line(), "ready");
    // Escapes work on terminals only: all bytes of a pipe go to the command.
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(b"\r~.\r~?".repeat(64).iter().take(256));
    std::io::Write::write_all(client.child.stdin.as_mut().unwrap(), &bytes).unwrap();
    let numbers: Vec<u8> =
        client.line().split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers, bytes);
    assert_eq!(client.finish().status.code(), Some(0));
}

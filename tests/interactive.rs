//! Terminals on a host: everything that a person at one notices, typed into a terminal and read
//! back from its screen.

use std::fs;
use std::process::Stdio;

use crate::support::screen::Screen;
use crate::support::{
    Labshd, OWN_SHELL, Running, children, in_shell, kill, own_account, pipe_through, sh, text,
    tools,
};

/// A shell over there that asks with something of its own, whatever the user's shell is.
const OVER_THERE: &str = "env PS1='there> ' bash --norc --noprofile";
const THERE: &str = "there>";

/// Goes over there, and waits for the prompt.
fn there(labshd: &Labshd) -> Option<Screen> {
    let screen = Screen::start(labshd, "")?;
    screen.line(&format!("checked labsh shell $T {OVER_THERE}"));
    screen.wait_for_prompt(THERE);
    Some(screen)
}

/// The labsh under a shell under the screen.
fn labsh_on(screen: &Screen, depth: usize) -> i32 {
    (0..depth).fold(screen.shell(), |pid, _| children(pid)[0])
}

/// What must be on the screen after labsh has gone, however it went.
fn is_over(screen: &Screen, status: u8) -> String {
    screen.wait_for_line(&format!("status {status}"));
    screen.wait_for_line("the terminal is as before")
}

#[test]
fn a_login_shell_answers_in_a_terminal_and_its_status_is_ours() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line("checked labsh shell $T");
    // What is typed before its prompt is there waits for it.
    screen.line(OWN_SHELL);
    let name = own_account(6).rsplit('/').next().unwrap().to_owned();
    screen.wait_for_line(&format!("[-{name}]"));
    screen.line("echo \"[$TERM] [$(stty size)] [$(tty | cut -c1-9)]\"");
    screen.wait_for_line("[screen-256color] [24 80] [/dev/pts/]");
    screen.line("exit 7");
    let shown = is_over(&screen, 7);
    assert!(
        shown.contains(&format!("labsh: the session on {} is over", labshd.target())),
        "{shown}"
    );
}

#[test]
fn keys_reach_what_is_in_the_foreground_over_there() {
    let labshd = Labshd::start();
    let Some(screen) = there(&labshd) else { return };
    // By a process that is in the foreground already, or the key could reach the shell on its way
    // there.
    screen.line("sh -c 'echo run\"\"ning; exec sleep 300'");
    screen.wait_for_line("running");
    screen.press("C-c");
    screen.wait_for_prompt(THERE);
    screen.line("echo \"[$?]\"");
    screen.wait_for_line("[130]");
    screen.line("sh -c 'echo a\"\"gain; exec sleep 300'");
    screen.wait_for_line("again");
    screen.press("C-\\");
    screen.wait_for_prompt(THERE);
    screen.line("echo \"[$?]\"");
    screen.wait_for_line("[131]");
    // Job control is the shell's over there.
    screen.line("echo read''ing; cat");
    screen.wait_for_line("reading");
    screen.keys("typed to cat\n");
    screen.wait_until("cat's answer", |shown| shown.matches("typed to cat").count() == 2);
    screen.press("C-z");
    screen.wait_for_prompt(THERE);
    screen.line("fg");
    screen.wait_for_line("cat");
    screen.keys("typed again\n");
    screen.wait_until("cat's answer", |shown| shown.matches("typed again").count() == 2);
    screen.press("C-d");
    screen.wait_for_prompt(THERE);
    screen.line("exit 3");
    is_over(&screen, 3);
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
    // An empty file as vi shows it: a column of tildes.
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
    is_over(&screen, 0);
    assert_eq!(fs::read_to_string(file).unwrap(), "FIRST line\nsecond 粘包 line\n");
}

#[test]
fn full_screen_programs_draw_and_go() {
    for (program, package) in [("top", "procps"), ("less", "less")] {
        if tools::need(program, &format!("apt-get install {package}")).is_none() {
            return;
        }
    }
    let labshd = Labshd::start();
    let Some(screen) = there(&labshd) else { return };
    screen.line("top");
    screen.wait_until("top", |shown| shown.contains("PID") && shown.contains("%CPU"));
    screen.keys("q");
    screen.wait_for_prompt(THERE);
    screen.line("clear; seq 1000 | less");
    screen.wait_for_line("20");
    screen.keys("G");
    screen.wait_for_line("1000");
    screen.keys("q");
    screen.wait_for_prompt(THERE);
    screen.line("exit");
    is_over(&screen, 0);
}

#[test]
fn a_tmux_over_there_is_one_more_terminal() {
    let labshd = Labshd::start();
    let Some(screen) = there(&labshd) else { return };
    let inner = labshd.file("inner-tmux");
    screen.line(&format!(
        "tmux -f /dev/null -S {inner} new-session env PS1='deeper> ' bash --norc --noprofile"
    ));
    screen.wait_for_line("deeper>");
    screen.line("echo deep''est; stty size");
    screen.wait_for_line("deepest");
    // Its status line takes one.
    screen.wait_for_line("23 80");
    screen.line("exit");
    screen.wait_for("[exited]");
    screen.line("exit");
    is_over(&screen, 0);
}

#[test]
fn a_new_size_is_seen_over_there() {
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
    let Some(screen) = there(&labshd) else { return };
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
    screen.wait_for("there> ~?");
    screen.line("echo a~. b~?");
    screen.wait_for_line("a~. b~?");
    screen.keys("~.");
    let shown = is_over(&screen, 255);
    assert!(shown.contains("labsh: left; the host ends the command"), "{shown}");
    labshd.log().wait_for("command ended");
}

#[test]
fn labsh_is_suspended_and_comes_back_with_the_new_size() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    let before = "stty -a | tr -d '\\n' | sed 's/.*; line/line/' | md5sum";
    screen.line(&format!("{before} >before; labsh shell $T {OVER_THERE}"));
    screen.wait_for_prompt(THERE);
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
    screen.wait_for_line(&format!("labsh shell $T {OVER_THERE}"));
    screen.line("echo \"$variable [$(stty size)]\"");
    screen.wait_for_line("kept [20 90]");
    // Raw again: the key is for the command over there.
    screen.line("clear; sh -c 'echo run\"\"ning; exec sleep 300'");
    screen.wait_for_line("running");
    screen.press("C-c");
    screen.wait_for_prompt(THERE);
    screen.line("exit 9");
    screen.wait_for("the session on");
    screen.line("echo \"status $?\"");
    screen.wait_for_line("status 9");
}

#[test]
fn a_client_that_is_stopped_and_continued_goes_on() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line(&format!("labsh shell $T {OVER_THERE}"));
    screen.wait_for_prompt(THERE);
    screen.line("variable=kept; echo s''et");
    screen.wait_for_line("set");
    kill(labsh_on(&screen, 1), 19);
    screen.wait_for("Stopped");
    screen.line("clear; echo ba''ck; fg");
    screen.wait_for_line("back");
    screen.line("echo \"$variable\"; cat");
    screen.wait_for_line("kept");
    screen.press("C-c");
    screen.wait_for_prompt(THERE);
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
        let Some(screen) = there(&labshd) else { return };
        kill(labsh_on(&screen, 2), signal);
        let shown = is_over(&screen, status);
        assert!(shown.contains("\nlabsh: left; the host ends the command"), "{shown}");
    }
}

#[test]
fn a_limit_for_files_restores_the_terminal_and_is_told() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    // 16 KiB and no more (in bash's units of 1 KiB).
    let big = labshd.file("big");
    screen.line(&format!("checked bash -c \"ulimit -f 16; labsh run -t $T seq 100000 >{big}\""));
    let shown = is_over(&screen, 255);
    assert!(shown.contains("File too large"), "{shown}");
}

#[test]
fn a_server_that_dies_restores_the_terminal() {
    let labshd = Labshd::start();
    let Some(screen) = there(&labshd) else { return };
    screen.line("stty raw; echo ra''w");
    screen.wait_for("raw");
    labshd.signal(9);
    let shown = is_over(&screen, 255);
    assert!(shown.contains("\nlabsh: the connection was lost: "), "{shown}");
}

#[test]
fn one_can_leave_a_server_that_no_longer_answers() {
    let labshd = Labshd::start();
    let Some(screen) = there(&labshd) else { return };
    labshd.signal(19);
    screen.keys("not echoed\n~.");
    is_over(&screen, 255);
}

#[test]
fn text_of_any_script_is_typed_shown_and_erased() {
    let labshd = Labshd::start();
    let Some(screen) = there(&labshd) else { return };
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
    let Some(screen) = there(&labshd) else { return };
    screen.line("yes 'a flood of output'");
    screen.wait_until("a flood", |shown| shown.matches("a flood of output").count() > 20);
    screen.press("C-c");
    screen.wait_for_prompt(THERE);
    screen.line("echo do''ne");
    screen.wait_for_line("done");
    screen.line("yes 'another flood'");
    screen.wait_until("a flood", |shown| shown.matches("another flood").count() > 20);
    screen.keys("\n~.");
    is_over(&screen, 255);
}

#[test]
fn a_locale_that_the_host_does_not_let_in_is_left_behind() {
    let labshd = Labshd::with("accept_env = ['LC_TIME']");
    let Some(screen) = Screen::start(&labshd, "export LANG=C LC_ALL=C.UTF-8") else { return };
    screen.line("checked labsh shell $T 'echo \"[$LC_ALL]\"'");
    screen.wait_for_line("[]");
    is_over(&screen, 0);
    screen.line("clear; checked labsh shell --env NAME=value $T true");
    screen.wait_for("NAME may not be set");
    is_over(&screen, 125);
    labshd.configure("accept_env = ['LANG', 'LC_*']");
    labshd.reload();
    screen.line("clear; checked labsh shell $T 'echo \"[$LC_ALL]\"'");
    screen.wait_for_line("[C.UTF-8]");
    is_over(&screen, 0);
}

#[test]
fn a_command_is_given_a_terminal_on_request() {
    let labshd = Labshd::start();
    let Some(screen) = Screen::start(&labshd, "") else { return };
    screen.line("checked labsh run $T 'tty; exit 5'");
    screen.wait_for_line("not a tty");
    is_over(&screen, 5);
    screen.line("clear; checked labsh run -t $T 'tty | cut -c1-9; exit 6'");
    screen.wait_for_line("/dev/pts/");
    is_over(&screen, 6);
    // Our stdout may be anything.
    screen.line(
        "clear; checked labsh run -t $T sh -c 'test -t 0 && test -t 1 && echo bo\"\"th' | cat",
    );
    screen.wait_for_line("both");
    screen.wait_for_line("status 0");
}

#[test]
fn without_a_terminal_here_there_is_none_over_there_unless_forced() {
    let labshd = Labshd::start();
    let mut shell = labshd.labsh();
    let output = shell.arg("shell").arg(labshd.target()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let told = text(&output.stderr);
    assert!(told.contains("stdin is not a terminal") && told.contains("--force-tty"), "{told}");
    let output = labshd.output_with(&["-t"], &["tty"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(125), told));

    let mut shell = labshd.labsh();
    shell.args(["shell", "--force-tty"]).arg(labshd.target()).args(["--", "sh"]);
    shell.env("COLUMNS", "99").env("LINES", "33").env("TERM", "vt100");
    let output = pipe_through(&mut shell, b"stty size; echo $TERM; exit 3\n");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("33 99\r\n") && shown.contains("vt100\r\n"), "{shown:?}");

    // Who has neither is given what is safe to assume.
    let mut command = labshd.run_with(&["-tt"], &sh("stty size; echo $TERM"));
    command.env_remove("TERM");
    let mut session_of_its_own = in_shell("exec setsid -w \"$@\" 2>errors", &command);
    session_of_its_own.current_dir(labshd.path());
    let output = session_of_its_own.stdin(Stdio::null()).output().unwrap();
    assert_eq!(text(&output.stdout), "24 80\r\ndumb\r\n");
}

#[test]
fn every_byte_passes_through_a_terminal_that_changes_none() {
    let labshd = Labshd::start();
    let script = "stty raw -echo; echo ready; head -c 512 | od -An -v -tu1 -w512";
    let mut command = labshd.run_with(&["-tt"], &sh(script));
    let mut client = Running::adopt(command.stdin(Stdio::piped()));
    assert_eq!(client.line(), "ready");
    // Escapes are for terminals: what a pipe carries is all the command's.
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(b"\r~.\r~?".repeat(64).iter().take(256));
    std::io::Write::write_all(client.child.stdin.as_mut().unwrap(), &bytes).unwrap();
    let numbers: Vec<u8> =
        client.line().split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers, bytes);
    assert_eq!(client.finish().status.code(), Some(0));
}

//! Commands with a terminal, through the library: its size and modes, typed input, job control, and
//! how the session ends.

use std::time::Duration;

use bytes::Bytes;
use labsh_client::proto::message::{
    CommandId, Features, Open, Program, RefuseCode, Resize, Status, Terminal,
};
use labsh_client::{Child, Command, CommandError, Session, Stdio};
use tokio::time::timeout;

use crate::peer::{self, Peer};
use crate::support::{
    Background, INTERRUPTIBLE, Labshd, OWN_SHELL, TEST_TIMEOUT, eventually, is_alive, sh_on, text,
};

const IMPATIENT: &str = "termination_grace = '100ms'";

fn size(columns: u16, rows: u16) -> Resize {
    Resize { columns, rows, width: 0, height: 0 }
}

fn xterm(size: Resize) -> Terminal {
    Terminal { name: "xterm-256color".into(), size }
}

/// A command on a terminal, and its output that no test has read yet.
struct Screen {
    child: Child,
    unread: String,
}

impl Screen {
    async fn of(command: &mut Command) -> Self {
        let command = command.terminal(xterm(size(80, 24))).stdin(Stdio::Piped);
        Self {
            child: timeout(TEST_TIMEOUT, command.spawn()).await.unwrap().unwrap(),
            unread: String::new(),
        }
    }

    /// Bash without configuration, prompts, line editing and echo.
    async fn bash(session: &Session) -> Self {
        let mut bash = session.command("bash");
        bash.args(["--norc", "--noprofile", "--noediting", "-i"]).env("PS1", "").env("PS2", "");
        let mut screen = Self::of(&mut bash).await;
        screen.type_in("stty -echo; echo re''ady\n").await;
        screen.until("ready").await;
        screen
    }

    async fn type_in(&mut self, typed: &str) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .send(Bytes::copy_from_slice(typed.as_bytes()))
            .await
            .unwrap();
    }

    /// Reads until this text, and returns what precedes it; none if the output ends before.
    async fn find(&mut self, text: &str) -> Option<String> {
        loop {
            if let Some((before, behind)) = self.unread.split_once(text) {
                let before = before.to_owned();
                self.unread = behind.to_owned();
                return Some(before);
            }
            let stdout = self.child.stdout.as_mut().unwrap();
            let next = timeout(TEST_TIMEOUT, stdout.next()).await;
            let bytes =
                next.unwrap_or_else(|_| panic!("no {text:?} behind {:?}", self.unread)).unwrap()?;
            self.unread += std::str::from_utf8(&bytes).unwrap();
            self.child.stdout.as_mut().unwrap().consumed(bytes.len());
        }
    }

    async fn until(&mut self, text: &str) -> String {
        self.find(text)
            .await
            .unwrap_or_else(|| panic!("the end and no {text:?} behind {:?}", self.unread))
    }

    /// The next line, without its end.
    async fn line(&mut self) -> String {
        self.until("\r\n").await
    }

    /// The rest of the output, then the command's status.
    async fn finish(mut self) -> (String, labsh_client::ExitStatus) {
        assert!(self.find("\0").await.is_none());
        let status = timeout(TEST_TIMEOUT, self.child.exited()).await.unwrap().unwrap();
        assert_eq!(status.totals().1, 0, "a terminal has one output");
        (self.unread, status)
    }
}

#[tokio::test]
async fn a_command_finds_a_terminal_of_the_size_and_name_asked_for() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let script = "tty; echo $LABSH_TTY; echo $TERM; stty size; stty -a | grep -ow iutf8; \
                  cut -d ' ' -f 5,6,8 /proc/$$/stat; test -t 0 -a -t 1 -a -t 2 && echo all; exit 7";
    let mut screen = Screen::of(sh_on(&session, script).env("TERM", "not-this-one")).await;
    let pid = timeout(TEST_TIMEOUT, screen.child.started()).await.unwrap().unwrap();
    let path = screen.line().await;
    assert!(path.starts_with("/dev/pts/"), "{path}");
    assert_eq!(screen.line().await, path);
    assert_eq!(screen.line().await, "xterm-256color");
    assert_eq!(screen.line().await, "24 80");
    assert_eq!(screen.line().await, "iutf8");
    let ids = screen.line().await;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(
        ids,
        vec![pid.to_string(); 3],
        "it leads its session, and its group is in the foreground"
    );
    let (rest, status) = screen.finish().await;
    assert_eq!((rest.as_str(), status.code()), ("all\r\n", Some(7)));
}

#[tokio::test]
async fn every_size_reaches_the_terminal() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let script = "trap 'changed=yes' WINCH; stty -echo; echo ready; until [ \"$changed\" ]; do \
        sleep 0.05; done; \
                  echo changed; while read -r line; do stty size; done";
    let mut bash = session.command("bash");
    let mut screen = Screen::of(bash.args(["-c", script])).await;
    screen.until("ready\r\n").await;
    // SIGWINCH arrives without any key being typed.
    screen.child.resize(size(100, 30));
    screen.until("changed\r\n").await;
    for (columns, rows) in [(132, 43), (0, 0), (u16::MAX, u16::MAX), (1, 1), (80, 24)] {
        screen.child.resize(Resize { columns, rows, width: columns, height: rows });
        // Sizes and typed bytes are not ordered: the first answer may still be the old size.
        let answers = async {
            let expected = format!("{rows} {columns}");
            loop {
                screen.type_in("\n").await;
                if screen.line().await == expected {
                    return;
                }
            }
        };
        timeout(TEST_TIMEOUT, answers).await.unwrap();
    }
    for (columns, rows) in [(0, 0), (u16::MAX, u16::MAX)] {
        let mut stty = session.command("stty");
        stty.arg("size").terminal(xterm(size(columns, rows)));
        let output = timeout(TEST_TIMEOUT, stty.output()).await.unwrap().unwrap();
        assert_eq!(text(&output.stdout), format!("{rows} {columns}\r\n"));
    }
}

#[tokio::test]
async fn a_typed_interrupt_ends_the_foreground_process() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut screen = Screen::of(&mut sh_on(&session, INTERRUPTIBLE)).await;
    screen.until("ready").await;
    screen.type_in("\x03").await;
    let (rest, status) = screen.finish().await;
    assert_eq!((rest.trim(), status.signal()), ("^C", Some(2)));
}

#[tokio::test]
async fn jobs_are_stopped_and_continued() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut screen = Screen::bash(&session).await;
    screen.type_in("bash -c 'echo job $$; read -r line; echo got $line'\n").await;
    screen.until("job ").await;
    let job: i32 = screen.line().await.parse().unwrap();
    screen.type_in("\x1a").await;
    screen.until("Stopped").await;
    assert!(is_alive(job));
    screen.type_in("echo st''ill here; fg\n").await;
    screen.until("still here").await;
    // The job has the terminal again only once bash has printed what it continues.
    screen.until("bash -c").await;
    screen.type_in("something\n").await;
    screen.until("got something").await;
    // A signal message, like a key, goes to the foreground process and not to the shell.
    screen.type_in("bash -c 'echo fore''ground; exec sleep 1000'\n").await;
    screen.until("foreground").await;
    screen.child.signal(2).unwrap();
    screen.type_in("exit 5\n").await;
    assert_eq!(screen.finish().await.1.code(), Some(5));
}

#[tokio::test]
async fn the_end_of_stdin_is_an_eof_character_in_canonical_mode() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    // After nothing, a complete line, and a line without its end.
    for (typed, written) in
        [("", ""), ("line\n", "line\n"), ("half", "half"), ("a\nhalf", "a\nhalf")]
    {
        let mut screen =
            Screen::of(&mut sh_on(&session, "stty -echo; echo ready; cat | od -An -c; exit 3"))
                .await;
        screen.until("ready\r\n").await;
        screen.type_in(typed).await;
        drop(screen.child.stdin.take());
        let (rest, status) = screen.finish().await;
        let shown = rest.split_whitespace().collect::<String>().replace("\\n", "\n");
        assert_eq!((shown.as_str(), status.code()), (written, Some(3)));
    }
}

#[tokio::test]
async fn stdin_that_ends_at_once_ends_its_reader() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut cat = session.command("cat");
    let output =
        timeout(TEST_TIMEOUT, cat.terminal(xterm(size(80, 24))).output()).await.unwrap().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}

#[tokio::test]
async fn every_byte_passes_a_raw_terminal() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let script = "stty raw -echo; echo ready; head -c 256 | od -An -v -t x1 | tr -d ' \n'; echo; \
        echo ae \u{e4}";
    let mut screen = Screen::of(&mut sh_on(&session, script)).await;
    screen.until("ready\n").await;
    let all: Vec<u8> = (0..=255).collect();
    screen.child.stdin.as_mut().unwrap().send(Bytes::from(all.clone())).await.unwrap();
    let shown: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
    let (rest, _) = screen.finish().await;
    assert_eq!(rest, format!("{shown}\nae \u{e4}\n"));
}

#[tokio::test]
async fn a_flood_does_not_delay_an_interrupt() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut screen = Screen::of(&mut sh_on(&session, "yes; echo not reached")).await;
    screen.until("y\r\ny\r\n").await;
    // The test does not read for now, so all buffers are full.
    screen.type_in("\x03").await;
    timeout(TEST_TIMEOUT, screen.child.ended()).await.unwrap().unwrap();
    let (rest, status) = screen.finish().await;
    assert_eq!(status.signal(), Some(2));
    assert!(rest.len() < 256 << 10, "{} bytes were ahead of it", rest.len());
}

#[tokio::test]
async fn large_output_arrives_whole() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut seq = session.command("seq");
    let output =
        timeout(TEST_TIMEOUT, seq.arg("200000").terminal(xterm(size(80, 24))).output()).await;
    let expected: String = (1..=200_000).map(|number| format!("{number}\r\n")).collect();
    assert!(text(&output.unwrap().unwrap().stdout) == expected);
}

#[tokio::test]
async fn the_shells_exit_ends_the_command_even_if_the_terminal_is_open() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut screen = Screen::bash(&session).await;
    screen.type_in("sleep 1000 &\n echo left $!; exit 6\n").await;
    screen.until("left ").await;
    let left = Background(screen.line().await.parse().unwrap());
    let (_, status) = screen.finish().await;
    assert_eq!(status.code(), Some(6));
    assert!(is_alive(left.0), "it was put in the background on purpose");

    // A background process that writes does not delay the end either.
    let mut screen = Screen::bash(&session).await;
    screen.type_in("yes &\n").await;
    screen.type_in("exit 0\n").await;
    assert_eq!(screen.finish().await.1.code(), Some(0));
}

/// A shell with three jobs: one in the background, one there that ignores SIGHUP, and one in the
/// foreground that ignores it too.
async fn with_jobs(session: &Session) -> (Screen, Vec<i32>, Background) {
    let mut screen = Screen::bash(session).await;
    let mut pids =
        vec![timeout(TEST_TIMEOUT, screen.child.started()).await.unwrap().unwrap() as i32];
    let mut job = async |line: &str| {
        screen.type_in(line).await;
        screen.until("pid ").await;
        screen.line().await.parse::<i32>().unwrap()
    };
    pids.push(job("bash -c 'echo pid $$; exec sleep 1000' &\n").await);
    let left = Background(
        job("nohup bash -c 'echo pid $$ >/dev/tty; exec sleep 1000' >/dev/null 2>&1 &\n").await,
    );
    pids.push(job("bash -c 'trap \"\" HUP TERM; echo pid $$; sleep 1000; sleep 1000'\n").await);
    assert!(pids.iter().all(|pid| is_alive(*pid)) && is_alive(left.0));
    (screen, pids, left)
}

async fn all_gone_but(pids: Vec<i32>, left: &Background) {
    let gone = move || !pids.iter().any(|pid| is_alive(*pid));
    tokio::task::spawn_blocking(|| eventually("the session is gone", gone)).await.unwrap();
    assert!(is_alive(left.0), "a background job that ignores SIGHUP stays");
}

#[tokio::test]
async fn a_client_that_leaves_ends_every_job_of_its_session() {
    let labshd = Labshd::with(IMPATIENT);
    let session = labshd.session().await;
    let (screen, pids, left) = with_jobs(&session).await;
    drop(screen);
    all_gone_but(pids, &left).await;
    labshd.log().wait_for("cause=\"client gone\"");
}

#[tokio::test]
async fn killing_labshd_ends_the_sessions() {
    let mut labshd = Labshd::start();
    let session = labshd.session().await;
    let (_screen, pids, left) = with_jobs(&session).await;
    labshd.signal(9);
    labshd.wait();
    all_gone_but(pids, &left).await;
}

#[tokio::test]
async fn stopping_labshd_ends_the_sessions() {
    let mut labshd = Labshd::with("termination_grace = '100ms'\ndrain_timeout = '0s'");
    let session = labshd.session().await;
    let (screen, pids, left) = with_jobs(&session).await;
    labshd.signal(15);
    assert_eq!(screen.finish().await.1.signal(), Some(1));
    labshd.wait();
    all_gone_but(pids, &left).await;
}

#[tokio::test]
async fn a_timeout_ends_an_interactive_shell() {
    let labshd = Labshd::with(IMPATIENT);
    let session = labshd.session().await;
    let mut shell = session.command("bash");
    // It ignores SIGTERM, as interactive shells do.
    let shell = shell.args(["--norc", "--noprofile", "-i"]).timeout(Duration::from_millis(300));
    let (_, status) = Screen::of(shell).await.finish().await;
    assert!(status.timed_out());
    assert_eq!(status.signal(), Some(1));
}

#[tokio::test]
async fn a_closed_stdout_ends_the_command() {
    let labshd = Labshd::with(IMPATIENT);
    let session = labshd.session().await;
    let mut screen = Screen::of(&mut sh_on(&session, "trap '' HUP; yes")).await;
    screen.until("y\r\n").await;
    drop(screen.child.stdout.take());
    let status = timeout(TEST_TIMEOUT, screen.child.exited()).await.unwrap().unwrap();
    assert!(status.signal().is_some());
    labshd.log().wait_for("cause=\"reader gone\"");
}

#[tokio::test]
async fn what_a_command_leaves_stays_though_its_output_is_no_longer_read() {
    // As with mosh-server: the leader ignores the hang-up and then exits.
    let labshd = Labshd::with("termination_grace = '1m'");
    let session = labshd.session().await;
    let script = "sleep 300 & hung_up=$!; trap '' HUP; sleep 300 </dev/null >/dev/null 2>&1 & \
        echo pid $!; wait $hung_up; exit 0";
    let mut screen = Screen::of(&mut sh_on(&session, script)).await;
    let leader = timeout(TEST_TIMEOUT, screen.child.started()).await.unwrap().unwrap();
    screen.until("pid ").await;
    let left = Background(screen.line().await.parse().unwrap());
    drop(screen.child.stdout.take());
    let status = timeout(TEST_TIMEOUT, screen.child.exited()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    labshd.log().wait_for("cause=\"reader gone\"");
    // No signal follows the leader's release, which would otherwise take two minutes.
    let is_reaped = move || !std::fs::exists(format!("/proc/{leader}")).unwrap();
    tokio::task::spawn_blocking(move || eventually("it is reaped", is_reaped)).await.unwrap();
    assert!(is_alive(left.0), "the command has ended by itself");
}

#[tokio::test]
async fn a_time_limit_spares_no_job_of_a_terminal() {
    let labshd = Labshd::with(IMPATIENT);
    let session = labshd.session().await;
    let script = "set -m; (trap '' HUP TERM; echo pid $BASHPID; exec sleep 300) & wait";
    let mut bash = session.command("bash");
    let bash = bash.args(["-c", script]).timeout(Duration::from_millis(500));
    let mut screen = Screen::of(bash).await;
    screen.until("pid ").await;
    let pid: i32 = screen.line().await.parse().unwrap();
    assert!(screen.finish().await.1.timed_out());
    let gone = move || !is_alive(pid);
    tokio::task::spawn_blocking(move || eventually("the job is gone", gone)).await.unwrap();
}

#[tokio::test]
async fn a_login_shell_reads_commands_from_its_terminal() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut screen = Screen::of(&mut session.login_shell()).await;
    screen.type_in(&format!("{OWN_SHELL}; exit 4\n")).await;
    let (rest, status) = screen.finish().await;
    assert_eq!(status.code(), Some(4), "{rest}");
    assert!(rest.contains("[-"), "{rest}");
}

#[tokio::test]
async fn invalid_terminal_names_are_refused_with_a_remedy() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let long = "x".repeat(65);
    for name in ["", "a b", "../../etc/passwd", ".x", "x/y", "x\u{1b}[0m", "\u{e4}", "x\n", &long] {
        let terminal = Terminal { name: name.into(), size: size(80, 24) };
        let refused = session.command("true").terminal(terminal).output().await;
        let Err(CommandError::Refused(refuse)) = refused else { panic!("{name:?}: {refused:?}") };
        assert_eq!(refuse.code, RefuseCode::BAD_COMMAND, "{name:?}");
        assert!(refuse.remedy.contains("TERM") && !refuse.reason.contains('\u{1b}'), "{refuse:?}");
    }
    // A valid name that terminfo does not know is accepted.
    let terminal = Terminal { name: "no-such-terminal".into(), size: size(80, 24) };
    let output = session.shell("echo $TERM").terminal(terminal).output().await.unwrap();
    assert_eq!(text(&output.stdout), "no-such-terminal\r\n");
}

#[test]
fn terminals_are_refused_to_clients_that_did_not_announce_them() {
    let labshd = Labshd::start();
    let mut peer = Peer::connect(labshd.plain);
    peer.authenticate_with(&labshd, Features(0));
    let open = Open {
        terminal: Some(xterm(size(80, 24))),
        ..Open::new(CommandId([7; 16]), Program::Argv(vec![b"tty".to_vec()]))
    };
    peer.send(&peer::open_frames(1, &open.encode().unwrap()));
    assert_eq!(peer.refused(1).code, RefuseCode::UNSUPPORTED);
    peer.send(&peer::close(1));
    // A size for a command without a terminal is ignored.
    peer.send(&peer::open(2, &["cat"]));
    peer.send(&peer::message(&size(1, 1), 2));
    peer.send(&peer::eof(2));
    assert_eq!(peer.finish(2).exit.status, Status::Exited(0));
    peer.check(3);
}

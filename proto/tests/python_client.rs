//! Runs the Python client, which was written from docs/PROTOCOL.md alone, against a small server
//! made of this crate.
//!
//! The server runs no processes: the first word of the command selects its behaviour.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{fs, process, thread};

/// Finds Python, like the tests of the programs.
#[path = "../../tests/support/tools.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
mod tools;

use bytes::Bytes;
use labsh_proto::auth::{ChannelBinding, Mode, ServerParameters};
use labsh_proto::channel::{Channels, Event, Read, Role};
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::{ChannelId, Decoder, Frame};
use labsh_proto::handshake::Server;
use labsh_proto::key::{HostId, HostKey, Key, KeyId, Secret};
use labsh_proto::limits::{MAX_BODY, MAX_BODY_BEFORE_AUTHENTICATION};
use labsh_proto::message::{
    Body, Exit, Features, InstanceId, Nonce, Open, Program, Refuse, RefuseCode, Status, Stream,
    Until, Usage,
};

fn key(byte: u8) -> Key {
    Key::new(KeyId::new("alice").expect("a key id"), Secret::new([byte; 32]))
}

struct Link {
    socket: UnixStream,
    decoder: Decoder,
}

impl Link {
    fn send(&mut self, frame: &Frame) {
        // The next read detects a client that has closed the connection.
        let _ = self.socket.write_all(&[&frame.header().encode(), &frame.body[..]].concat());
    }

    /// Reads what has arrived; returns false when the connection has ended.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.decoder.buffer().extend_from_slice(&buffer[..length]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    fn first_frame(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next_frame(MAX_BODY_BEFORE_AUTHENTICATION).expect("a good frame") {
                Some(frame) => return Some(frame),
                None if !self.fill() => return None,
                None => {}
            }
        }
    }
}

/// Serves one connection from its challenge to its end.
fn serve(socket: UnixStream) {
    socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
    let mut link = Link { socket, decoder: Decoder::default() };
    let server = Server::new(Mode::Plain, Nonce([5; 32]));
    link.send(&server.challenge());
    let Some(frame) = link.first_frame() else { return };
    let response = server.read(&frame).expect("a response");
    let host_key = key(1).for_host(&HostId::new("lab07").expect("a host id"));
    let known = (response.name == host_key.name()).then_some(&host_key);
    let dummy = HostKey::dummy(Secret::new([0; 32]));
    let Ok(authenticated) = server.verify(&response, known, &dummy, None, ChannelBinding::PLAIN)
    else {
        link.send(&Refuse::new(RefuseCode::AUTHENTICATION, "no", "").frame(ChannelId::CONNECTION));
        return;
    };
    let version = Some("a small server 1.0".into());
    let parameters = ServerParameters {
        instance: InstanceId([6; 16]),
        features: Features::SUPPORTED,
        channels: 2,
        version,
    };
    link.send(&authenticated.welcome(parameters));
    run(&mut link);
}

fn run(link: &mut Link) {
    let mut channels = Channels::new(Role::Server, 2, ConnectionBudget::new(Budget::new(0)));
    let mut command = None;
    while link.fill() {
        while let Some(frame) = link.decoder.next_frame(MAX_BODY).expect("a good frame") {
            match channels.receive(frame).expect("a client that keeps the rules") {
                Event::Opened(id, open) => {
                    let open = open.decode().expect("a client that keeps the rules");
                    command = start(&mut channels, id, &open);
                }
                Event::Goodbye(_) => return,
                _ => {}
            }
        }
        if let Some(running) = &mut command
            && running.advance(&mut channels, link)
        {
            command = None;
        }
        while let Some(frame) = channels.next_frame() {
            link.send(&frame);
        }
    }
}

/// A command that copies stdin to stdout and then writes zeros on both outputs.
struct Running {
    id: ChannelId,
    stdin_over: bool,
    waiting: Bytes,
    left: [usize; 2],
    status: Status,
    timed_out: bool,
    lies: bool,
}

fn start(channels: &mut Channels, id: ChannelId, open: &Open) -> Option<Running> {
    let Program::Argv(words) = &open.program else {
        channels
            .refuse(id, &Refuse::new(RefuseCode::NOT_EXECUTABLE, "no shell \u{1b}[31m here", ""));
        return None;
    };
    let mut running = Running {
        id,
        stdin_over: true,
        waiting: Bytes::new(),
        left: [0; 2],
        status: Status::Exited(0),
        timed_out: open.timeout == 77 && open.until == Until::CommandEnds,
        lies: false,
    };
    match &words[0][..] {
        b"cat" => running.stdin_over = false,
        b"flood" => (running.left, running.status) = ([5_000_000, 2_000_000], Status::Exited(3)),
        b"yes" => running.left = [usize::MAX, 0],
        b"killed" => running.status = Status::Signaled { signal: 9, core_dumped: false },
        b"long" => running.left = [words.iter().map(Vec::len).sum(), 0],
        b"liar" => running.lies = true,
        _ => {
            channels
                .refuse(id, &Refuse::new(RefuseCode::NOT_FOUND, "no such program", "look again"));
            return None;
        }
    }
    channels.started(id, process::id());
    if running.stdin_over {
        channels.stop(id, Stream::Stdin);
    }
    Some(running)
}

impl Running {
    /// Copies what is possible now; returns true when the command is over.
    fn advance(&mut self, channels: &mut Channels, link: &mut Link) -> bool {
        let id = self.id;
        while !self.stdin_over && self.waiting.is_empty() {
            match channels.read(id, Stream::Stdin) {
                Read::Bytes(bytes) => self.waiting = bytes,
                Read::End | Read::Closed => self.stdin_over = true,
                Read::Pending => return false,
            }
        }
        if !self.waiting.is_empty() {
            let capacity =
                channels.write_capacity(id, Stream::Stdout).expect("a client that reads");
            let bytes = self.waiting.split_to(capacity.min(self.waiting.len()));
            channels.consume(id, Stream::Stdin, bytes.len());
            channels.write(id, Stream::Stdout, bytes).expect("the stream has a reader");
            return false;
        }
        for (stream, left) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&mut self.left) {
            match channels.write_capacity(id, stream) {
                Ok(capacity) => {
                    let length = capacity.min(*left);
                    channels
                        .write(id, stream, Bytes::from(vec![0; length]))
                        .expect("the stream has a reader");
                    *left -= length;
                }
                Err(_) => *left = 0,
            }
        }
        if self.left != [0, 0] {
            return false;
        }
        if self.lies {
            let usage = Usage::default();
            let exit = Exit { status: self.status, timed_out: false, stdout: 1, stderr: 0, usage };
            while let Some(frame) = channels.next_frame() {
                link.send(&frame);
            }
            link.send(&exit.frame(id));
            return true;
        }
        channels.finish(id, Stream::Stdout);
        channels.ended(id, self.status);
        channels.exit(id, self.status, self.timed_out, Usage::default());
        true
    }
}

/// A listening server in a temporary directory, which is removed with it.
struct Listening(PathBuf);

impl Listening {
    fn new(name: &str) -> Self {
        let directory = tools::temp_root().join(format!("labsh-{name}-{}", process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let listener = UnixListener::bind(directory.join("socket")).expect("a socket");
        thread::spawn(move || listener.incoming().flatten().for_each(serve));
        Self(directory)
    }

    fn client(&self, key: &Key, arguments: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/labsh_client.py");
        let mut command =
            tools::program(tools::python().expect("tests without Python return early"));
        command
            .arg("-B")
            .arg(program)
            .args(["--host-id", "LAB07", "--unix"])
            .arg(self.0.join("socket"));
        command.args(arguments).env("LABSH_KEY_LINE", key.to_line());
        command
    }

    fn run(&self, key: &Key, arguments: &[&str]) -> Output {
        self.client(key, arguments).stdin(Stdio::null()).output().expect("python3")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ends_with(output: &Output, status: i32, message: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
}

#[test]
fn large_input_is_echoed_unchanged() {
    if tools::python().is_none() {
        return;
    }
    let server = Listening::new("cat");
    let input: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = server
        .client(&key(1), &["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let copy = input.clone();
    let writer = thread::spawn(move || stdin.write_all(&copy));
    let output = client.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    ends_with(&output, 0, "");
    assert!(output.stdout == input);
}

#[test]
fn both_outputs_and_the_status_arrive() {
    if tools::python().is_none() {
        return;
    }
    let output = Listening::new("flood").run(&key(1), &["--", "flood"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((output.stdout.len(), output.stderr.len()), (5_000_000, 2_000_000));
}

#[test]
fn a_reader_that_stops_ends_the_command() {
    if tools::python().is_none() {
        return;
    }
    let server = Listening::new("yes");
    let mut client = server
        .client(&key(1), &["--", "yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 100_000];
    client.stdout.take().unwrap().read_exact(&mut first).unwrap();
    ends_with(&client.wait_with_output().unwrap(), 0, "");
}

#[test]
fn long_commands_arrive_in_several_frames() {
    if tools::python().is_none() {
        return;
    }
    let server = Listening::new("long");
    let word = "w".repeat(100_000);
    let output = server.run(&key(1), &["--", "long", &word, &word]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 200_004));
}

#[test]
fn only_a_client_with_the_feature_receives_the_version() {
    if tools::python().is_none() {
        return;
    }
    let server = Listening::new("version");
    let answered_by = |features: &str| {
        let words = ["--say-version", "--features", features, "--", "killed"];
        let output = server.run(&key(1), &words);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(
        answered_by("16"),
        (Some(137), "labsh_client: answered by a small server 1.0\n".into())
    );
    assert_eq!(
        answered_by("0"),
        (Some(137), "labsh_client: answered by an unknown version\n".into())
    );
}

#[test]
fn every_other_end_has_an_exit_status() {
    if tools::python().is_none() {
        return;
    }
    let server = Listening::new("ends");
    ends_with(&server.run(&key(1), &["--", "killed"]), 137, "");
    ends_with(
        &server.run(&key(1), &["--timeout", "77", "--until-command-ends", "--", "killed"]),
        124,
        "",
    );
    ends_with(&server.run(&key(1), &["--", "nonsense"]), 127, "no such program; look again");
    ends_with(
        &server.run(&key(1), &["--shell", "--", "true | true"]),
        126,
        "no shell \\x1b[31m here",
    );
    ends_with(&server.run(&key(2), &["--", "cat"]), 125, "refused (code 1): no");
    ends_with(&server.run(&key(1), &["--", "liar"]), 255, "0 bytes of output arrived, 1 were sent");
    ends_with(&server.run(&key(1), &[]), 125, "no command");
}

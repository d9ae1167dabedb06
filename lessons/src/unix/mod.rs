//! AF_UNIX: sockets between two processes on one machine. The address is a file, its permissions
//! decide who may connect, and the kernel says who the peer is.

mod credentials;
mod permissions;
mod text;

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::flow::{Carrier, Flow};
use crate::sockets::{IO_TIMEOUT, queued, socket_directory, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};
use credentials::{is_process, prepare, receive, shell};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let directory = socket_directory()?;
    // Every user may reach the socket: only its own permissions count in this lesson.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let path = directory.path().join("server.sock");
    address_is_a_file(stage, &path)?;
    let _listener = file_remains(stage, &path)?;
    permissions::run(stage, &path)?;
    datagrams(stage, &directory.path().join("inbox.sock"))?;
    stream_and_datagrams(stage)
}

fn address_is_a_file(stage: &mut Stage, path: &Path) -> LessonResult {
    stage.scene(text::ADDRESS_IS_A_FILE)?;
    let listener = UnixListener::bind(path)?;
    stage.show(text::LS, &Command::new("ls").arg("-l").arg(path).output()?.stdout)?;
    stage.fact(fs::symlink_metadata(path)?.file_type().is_socket(), text::TYPE_SOCKET)?;

    stage.scene(text::TWO_PROCESSES)?;
    let client = UnixStream::connect(path)?;
    let (mut server, _) = listener.accept()?;
    prepare(&server)?;
    // A shell gets the client's end as its stdin and stdout; it knows nothing of sockets.
    let script = "echo \"I am process $$\"; read line; echo \"process $$ has read: $line\"";
    let mut process = shell(script, OwnedFd::from(client.try_clone()?), OwnedFd::from(client))?;
    let (greeting, writer) = receive(&server)?;
    server.write_all(b"good morning\n")?;
    let (answer, _) = receive(&server)?;
    stage.show(text::FROM_SHELL, &[&greeting[..], &answer].concat())?;
    stage.fact(
        answer.ends_with(b"has read: good morning\n") && process.0.wait()?.success(),
        text::BOTH_WAYS,
    )?;
    credentials::show(stage, &server, writer, process.0.id())
}

/// Returns the socket that listens on the path again.
fn file_remains(stage: &mut Stage, path: &Path) -> Result<UnixListener, LessonError> {
    stage.scene(text::FILE_REMAINS)?;
    let connect_fails = |kind| UnixStream::connect(path).is_err_and(|error| error.kind() == kind);
    wait_until(text::SERVER_CLOSED, || Ok(connect_fails(ErrorKind::ConnectionRefused)))?;
    stage.fact(path.exists() && connect_fails(ErrorKind::ConnectionRefused), text::REFUSED)?;
    let again = UnixListener::bind(path);
    stage.fact(again.is_err_and(|error| error.kind() == ErrorKind::AddrInUse), text::BIND_FAILS)?;
    fs::remove_file(path)?;
    stage.fact(connect_fails(ErrorKind::NotFound), text::NO_ADDRESS)?;
    let listener = UnixListener::bind(path)?;
    stage.fact(listener.local_addr()?.as_pathname() == Some(path), text::BIND_SUCCEEDS)?;
    Ok(listener)
}

fn datagrams(stage: &mut Stage, path: &Path) -> LessonResult {
    stage.scene(text::DATAGRAMS)?;
    let inbox = UnixDatagram::bind(path)?;
    prepare(&inbox)?;
    let client = UnixDatagram::unbound()?;
    client.connect(path)?;
    // Each printf is one write, and each write on a datagram socket is one message.
    let mut process = shell("printf one; printf two", Stdio::null(), OwnedFd::from(client))?;
    let (first, first_writer) = receive(&inbox)?;
    let (second, second_writer) = receive(&inbox)?;
    let (succeeded, id) = (process.0.wait()?.success(), process.0.id());
    stage.show(text::TWO_PRINTFS, &[&first[..], b"\n", &second].concat())?;
    let written = is_process(first_writer, id) && is_process(second_writer, id);
    stage.fact(succeeded && first == b"one" && second == b"two" && written, text::two_messages(id))
}

fn stream_and_datagrams(stage: &mut Stage) -> LessonResult {
    stage.scene(text::COMPARED)?;
    let messages = ["ls", "ps aux", "exit"];
    let (mut sender, mut receiver) = UnixStream::pair()?;
    let stream = Flow::new("SOCK_STREAM");
    for message in messages {
        stream.message(message);
        stream.writer(&mut sender).write_all(message.as_bytes())?;
    }
    let total = messages.concat().len();
    wait_until(text::ALL_ARRIVED, || Ok(queued(&receiver)? == total))?;
    let glued = stream.reader(&mut receiver).read(&mut [0; 1024])?;

    let (sender, receiver) = UnixDatagram::pair()?;
    receiver.set_read_timeout(Some(IO_TIMEOUT))?;
    let datagrams = Flow::over(Carrier::Pair, "SOCK_DGRAM");
    for message in messages {
        datagrams.message(message);
        sender.send(message.as_bytes())?;
        datagrams.wrote(message.as_bytes());
    }
    let mut sizes = Vec::new();
    for _ in messages {
        let mut buffer = [0; 1024];
        let count = receiver.recv(&mut buffer)?;
        datagrams.read(&buffer[..count]);
        sizes.push(count);
    }
    stage.draw(&stream)?;
    stage.draw(&datagrams)?;
    stage.fact(glued == total, text::stream_glues(glued))?;
    stage.fact(messages.map(str::len) == sizes[..], text::DATAGRAMS_STAY_APART)
}

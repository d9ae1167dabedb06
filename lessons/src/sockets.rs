//! What several lessons need beyond std: connected pairs, time limits, the kernel's queues, waiting
//! for a fact, and the end of a thread.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::SocketAddr as UnixAddress;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use tempfile::TempDir;

use crate::flow::uninterrupted;
use crate::language::{ConstText, Text};
use crate::stage::{LessonError, LessonResult};

/// The time limit of a read, of a write and of the wait for a fact, so that a lesson that goes
/// wrong fails instead of hanging.
pub(crate) const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a lesson repeats what the kernel's timing on a busy machine can spoil.
pub(crate) const MAX_ATTEMPTS: usize = 50;

/// The label of a flow of requests.
pub(crate) const TO_SERVER: ConstText = ("client → server", "客户端 → 服务器");

/// The label of a flow of answers.
pub(crate) const TO_CLIENT: ConstText = ("server → client", "服务器 → 客户端");

/// Creates a temporary directory for sockets: in TMPDIR, unless that makes their paths too long.
pub(crate) fn socket_directory() -> io::Result<TempDir> {
    let directory = tempfile::tempdir()?;
    match UnixAddress::from_pathname(directory.path().join("server.sock")) {
        Ok(_) => Ok(directory),
        Err(_) => tempfile::tempdir_in("/tmp"),
    }
}

/// Returns the two ends of a TCP connection on loopback, the one that connected first.
///
/// Reads and writes on either fail after [`IO_TIMEOUT`].
pub(crate) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    // Another program may have connected to this port first: its connection is dropped.
    loop {
        let (server, from) = listener.accept()?;
        if from == client.local_addr()? {
            return Ok((with_timeouts(client)?, with_timeouts(server)?));
        }
    }
}

/// Limits the time of every read and every write on a socket to [`IO_TIMEOUT`].
pub(crate) fn with_timeouts(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_read_timeout(Some(IO_TIMEOUT))?;
    socket.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(socket)
}

/// recv(2): waits for data and returns how many bytes it read, at most as many as fit; 0 means that
/// the peer has closed its end.
pub(crate) fn recv(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| socket.read(buffer))
}

/// Returns a UDP socket on loopback with a port of its own, whose reads fail after [`IO_TIMEOUT`].
pub(crate) fn udp_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(IO_TIMEOUT))?;
    Ok(socket)
}

/// Returns how many bytes have arrived and wait to be read (SIOCINQ, tcp(7)); on a datagram socket,
/// the size of the next datagram (udp(7)).
pub(crate) fn queued(socket: &impl AsFd) -> io::Result<usize> {
    size_from_ioctl(socket, libc::FIONREAD)
}

/// Returns how many written bytes the peer's kernel has not acknowledged yet (SIOCOUTQ, tcp(7)).
pub(crate) fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    size_from_ioctl(socket, libc::TIOCOUTQ)
}

/// Returns how many written bytes have not left this kernel yet (SIOCOUTQNSD, linux/sockios.h).
pub(crate) fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    size_from_ioctl(socket, SIOCOUTQNSD)
}

#[allow(unsafe_code)]
fn size_from_ioctl(socket: &impl AsFd, request: libc::Ioctl) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and each request used here
    // writes one int.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &mut bytes) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Waits until a fact holds, for at most [`IO_TIMEOUT`]; the lessons never rely on how long it
/// takes.
///
/// # Errors
/// [`LessonError::NotShown`] with the text of the fact.
pub(crate) fn wait_until(
    fact: ConstText,
    mut holds: impl FnMut() -> io::Result<bool>,
) -> LessonResult {
    let deadline = Instant::now() + IO_TIMEOUT;
    while !holds()? {
        if Instant::now() > deadline {
            let ((english, chinese), seconds) = (fact, IO_TIMEOUT.as_secs());
            return Err(LessonError::NotShown(Text::new(
                format!("{english} (waited {seconds} s)"),
                format!("{chinese}（等了 {seconds} 秒）"),
            )));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Returns the result of a thread that was joined; a panic becomes an error.
pub(crate) fn joined<T>(result: thread::Result<T>) -> io::Result<T> {
    result.map_err(|_| io::Error::other("a thread of the lesson panicked"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn queued_and_unacknowledged_bytes_are_counted() {
        let (mut client, mut server) = pair().unwrap();
        assert_eq!(queued(&server).unwrap(), 0);
        client.write_all(b"abc").unwrap();
        wait_until(("three bytes have arrived", "三个字节到了"), || Ok(queued(&server)? == 3))
            .unwrap();
        wait_until(("they are acknowledged", "对方已确认"), || {
            Ok(unacknowledged(&client)? == 0)
        })
        .unwrap();
        assert_eq!(unsent(&client).unwrap(), 0);
        assert_eq!(server.read(&mut [0; 10]).unwrap(), 3);
        assert_eq!(queued(&server).unwrap(), 0);
    }

    #[test]
    fn on_a_datagram_socket_queued_is_the_size_of_the_next_datagram() {
        let (sender, receiver) = (udp_socket().unwrap(), udp_socket().unwrap());
        for text in ["abc", "de"] {
            sender.send_to(text.as_bytes(), receiver.local_addr().unwrap()).unwrap();
        }
        wait_until(("the first has arrived", "第一个到了"), || Ok(queued(&receiver)? == 3))
            .unwrap();
    }

    #[test]
    fn an_error_ends_the_wait() {
        let failed = wait_until(("never", "永不"), || Err(io::Error::other("no")));
        assert!(matches!(failed, Err(LessonError::Io(_))));
    }
}

//! What several lessons need of sockets beyond std: a connected pair, what waits in the kernel's
//! buffers, waiting for a fact.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use crate::flow::uninterrupted;
use crate::language::Text;
use crate::stage::{LessonError, LessonResult};

/// How long anything on loopback may take: a lesson that has gone wrong ends with an error instead
/// of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a client says.
pub(crate) const UP: (&str, &str) = ("client → server", "客户端 → 服务器");

/// What a server says.
pub(crate) const DOWN: (&str, &str) = ("server → client", "服务器 → 客户端");

/// Two ends of one TCP connection on loopback: the one that connected, and the one that was
/// accepted.
///
/// Reading and writing give up after [`PATIENCE`].
pub(crate) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    // Somebody else on this machine may have connected to the same port in between.
    loop {
        let (server, from) = listener.accept()?;
        if from == client.local_addr()? {
            return Ok((patient(client)?, patient(server)?));
        }
    }
}

/// The same socket, whose reads and writes give up after [`PATIENCE`].
pub(crate) fn patient(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// recv(): whatever has arrived, at least one byte, at most what fits; 0 is the end of the
/// connection.
pub(crate) fn recv(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| socket.read(buffer))
}

/// A UDP socket on loopback with a port of its own; reading gives up after [`PATIENCE`].
pub(crate) fn datagrams() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Bytes that have arrived and wait to be read (SIOCINQ, tcp(7)); of a datagram socket the size of
/// the next one (udp(7)).
pub(crate) fn queued(socket: &impl AsFd) -> io::Result<usize> {
    ask(socket, libc::FIONREAD)
}

/// Bytes that were written and that the other end's kernel has not acknowledged yet (SIOCOUTQ,
/// tcp(7)).
pub(crate) fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    ask(socket, libc::TIOCOUTQ)
}

/// Bytes that were written and have not even left this kernel (SIOCOUTQNSD, linux/sockios.h).
pub(crate) fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    ask(socket, SIOCOUTQNSD)
}

#[allow(unsafe_code)]
fn ask(socket: &impl AsFd, request: libc::Ioctl) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and each request used here
    // writes one int.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &mut bytes) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Looks again and again until a fact holds. Nothing depends on how long that takes, up to
/// [`PATIENCE`].
///
/// # Errors
/// [`LessonError::NotShown`] with what was waited for, in both languages.
pub(crate) fn wait_until(
    fact: (&str, &str),
    mut holds: impl FnMut() -> io::Result<bool>,
) -> LessonResult {
    let (english, chinese) = fact;
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            let words = Text::new(
                format!("waited {} s in vain until {english}", PATIENCE.as_secs()),
                format!("等了 {} 秒，仍未等到：{chinese}", PATIENCE.as_secs()),
            );
            return Err(LessonError::NotShown(words));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_written_is_counted_until_it_is_read() {
        let (mut client, mut server) = pair().unwrap();
        assert_eq!(queued(&server).unwrap(), 0);
        client.write_all(b"abc").unwrap();
        wait_until(("three bytes are there", "三个字节到了"), || Ok(queued(&server)? == 3))
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
    fn of_datagrams_the_next_one_is_counted() {
        let (sender, receiver) = (datagrams().unwrap(), datagrams().unwrap());
        for text in ["abc", "de"] {
            sender.send_to(text.as_bytes(), receiver.local_addr().unwrap()).unwrap();
        }
        wait_until(("the first is there", "第一个到了"), || Ok(queued(&receiver)? == 3)).unwrap();
    }

    #[test]
    fn an_error_ends_the_waiting() {
        let failed = wait_until(("never", "永不"), || Err(io::Error::other("no")));
        assert!(matches!(failed, Err(LessonError::Io(_))));
    }
}

//! Sockets as labsh wants them: TCP and unix alike, with the options that its design relies on.

use std::fmt;
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::libc;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// Unsent data that the kernel takes before it says "full": little, so that what waits can still be
/// re-ordered.
const NOT_SENT_LOW_WATER: u32 = 128 << 10;

/// The first bytes from a peer are remembered, to tell what it speaks when it is not labsh.
const REMEMBERED: usize = 16;

/// So long an address is waited for alone before the next is tried as well (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Which of a host's addresses are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// All of them.
    #[default]
    Any,
    /// Those of IPv4.
    Inet,
    /// Those of IPv6.
    Inet6,
}

impl AddressFamily {
    fn holds(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Inet => address.is_ipv4(),
            Self::Inet6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Any => "IP",
            Self::Inet => "IPv4",
            Self::Inet6 => "IPv6",
        })
    }
}

/// A connected stream socket.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    peer: Option<SocketAddr>,
    first_bytes: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Takes a TCP connection with this peer over and sets its options: no delay, little unsent
    /// data, keepalive such that an idle peer that has vanished is noticed within
    /// `dead_peer_after`.
    pub fn tcp(stream: TcpStream, peer: SocketAddr, dead_peer_after: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)?;
        // The kernel counts whole seconds, and takes no 0.
        let [time, interval] =
            [3, 6].map(|part| (dead_peer_after / part).max(Duration::from_secs(1)));
        let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(4);
        socket.set_tcp_keepalive(&keepalive)?;
        Ok(Self {
            stream: Stream::Tcp(stream),
            peer: Some(canonical(peer)),
            first_bytes: Vec::new(),
        })
    }

    /// Takes a unix connection over.
    pub fn unix(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), peer: None, first_bytes: Vec::new() }
    }

    /// Connects to a host by name or address. Its addresses of that family are tried in their
    /// order, each a moment behind the one before it: one that swallows everything (often IPv6)
    /// must not keep the others from answering in time.
    pub async fn connect_tcp(
        host: &str,
        port: u16,
        family: AddressFamily,
        dead_peer_after: Duration,
    ) -> io::Result<Self> {
        let found = tokio::net::lookup_host((host, port)).await?;
        let fitting: Vec<SocketAddr> = found.filter(|address| family.holds(address)).collect();
        if fitting.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("it has no {family} address"),
            ));
        }
        let stream = first_of(fitting).await?;
        let peer = stream.peer_addr()?;
        Self::tcp(stream, peer, dead_peer_after)
    }

    /// Connects to a unix socket.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Self::unix(UnixStream::connect(path).await?))
    }

    /// The peer's address, also once it has gone; none for a unix socket.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// This end's address; none for a unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok().map(canonical),
            Stream::Unix(_) => None,
        }
    }

    /// The first bytes that came from the peer, as far as they were read.
    pub fn first_bytes(&self) -> &[u8] {
        &self.first_bytes
    }

    /// Waits for the first byte without taking it; `None` when the peer closed without one.
    pub async fn peek(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let count = match &self.stream {
            Stream::Tcp(stream) => stream.peek(&mut byte).await?,
            Stream::Unix(_) => return Ok(None),
        };
        Ok((count == 1).then_some(byte[0]))
    }

    /// A handle that can ask for the peer's silence while the socket is in use elsewhere; none for
    /// a unix socket.
    pub fn watch(&self) -> io::Result<Option<Watch>> {
        match &self.stream {
            Stream::Tcp(stream) => Ok(Some(Watch(stream.as_fd().try_clone_to_owned()?))),
            Stream::Unix(_) => Ok(None),
        }
    }
}

/// The connection to the first of these addresses that takes one; the error of the last that
/// refused where none does.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => refused = error,
                // Not before the runtime ends.
                Some(Err(_)) => {}
                None => return Err(refused),
            },
            () = tokio::time::sleep(HEAD_START), if addresses.len() > 0 => {}
        }
    }
}

/// An IPv4 peer of an IPv6 socket is an IPv4 peer.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Watches a TCP connection for a vanished peer.
#[derive(Debug)]
pub struct Watch(std::os::fd::OwnedFd);

impl Watch {
    /// For how long the peer has acknowledged nothing, where it owes an answer: a sign that it has
    /// vanished. A peer that is only stopped still acknowledges. (TCP_USER_TIMEOUT would end that
    /// one too: it counts a full receive window as silence, tcp(7).)
    pub fn silence(&self) -> Option<Duration> {
        information(&self.0).and_then(|information| silence(&information))
    }
}

/// An answer is owed once data was sent again, or two probes in a row were for nothing: those are
/// sent where the peer's window is full, or where the kernel finds no way to it.
fn silence(information: &libc::tcp_info) -> Option<Duration> {
    let owes = information.tcpi_retransmits > 0 || information.tcpi_probes > 1;
    // What was sent last is no measure: the kernel counts what it sends again, at longer and longer
    // intervals.
    owes.then(|| Duration::from_millis(information.tcpi_last_ack_recv.into()))
}

#[allow(unsafe_code)]
fn information(socket: &impl AsRawFd) -> Option<libc::tcp_info> {
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: tcp_info is plain integers, for which all zeros is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are to a tcp_info and its length, both live for the call; the kernel
    // writes at most `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(info)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        })?;
        let missing = REMEMBERED - self.first_bytes.len();
        if missing > 0 {
            let new = &buffer.filled()[before..];
            self.first_bytes.extend_from_slice(&new[..new.len().min(missing)]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// As the kernel tells it (Linux 6.18) half a minute after data could last arrive.
    #[allow(unsafe_code)]
    fn told(retransmits: u8, probes: u8, unacked: u32, last_data_sent: u32) -> libc::tcp_info {
        // SAFETY: tcp_info is plain integers, for which all zeros is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        (info.tcpi_retransmits, info.tcpi_probes, info.tcpi_unacked) =
            (retransmits, probes, unacked);
        (info.tcpi_last_data_sent, info.tcpi_last_ack_recv) = (last_data_sent, 30_600);
        info
    }

    #[test]
    fn a_peer_that_has_vanished_is_silent_however_often_data_is_sent_again() {
        let half_a_minute = Some(Duration::from_millis(30_600));
        assert_eq!(silence(&told(13, 0, 1, 836)), half_a_minute, "its link is down");
        assert_eq!(silence(&told(0, 7, 0, 104)), half_a_minute, "our link is down");
    }

    #[test]
    fn a_peer_that_owes_nothing_is_not_silent() {
        assert_eq!(silence(&told(0, 0, 0, 30_600)), None, "nothing was sent");
        assert_eq!(silence(&told(0, 0, 1, 1)), None, "something was sent just now");
        assert_eq!(
            silence(&told(0, 1, 0, 30_600)),
            None,
            "its window is full, and it is being asked"
        );
    }

    #[tokio::test]
    async fn a_peer_that_acknowledges_is_not_silent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(
            Socket::connect_tcp(
                "127.0.0.1",
                address.port(),
                AddressFamily::Any,
                Duration::from_secs(45)
            ),
            listener.accept()
        );
        let (mut client, (mut peer, _)) = (client.unwrap(), accepted.unwrap());
        peer.write_all(b"SSH-2.0-something").await.unwrap();
        let mut buffer = [0; 17];
        tokio::io::AsyncReadExt::read_exact(&mut client, &mut buffer).await.unwrap();
        assert_eq!(client.first_bytes(), b"SSH-2.0-somethin");
        assert_eq!(client.watch().unwrap().unwrap().silence(), None);
    }

    #[tokio::test]
    async fn every_patience_that_can_be_configured_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for seconds in [0, 1, 5, 6, 45, 3600] {
            let patience = Duration::from_secs(seconds);
            Socket::connect_tcp("127.0.0.1", port, AddressFamily::Any, patience).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_hide_one_that_answers() {
        // Where as many wait as it lets wait, a listener takes no notice of anybody else.
        let deaf =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        deaf.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        deaf.listen(0).unwrap();
        let silent = deaf.local_addr().unwrap().as_socket().unwrap();
        let _waiting = TcpStream::connect(silent).await.unwrap();

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = listener.local_addr().unwrap();
        let gone =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let stream = first_of(vec![gone, silent, answers]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
        let error = first_of(vec![gone]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

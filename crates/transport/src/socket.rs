//! TCP and unix sockets with the options that labsh relies on.

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

/// The amount of unsent data from which the kernel accepts no more (TCP_NOTSENT_LOWAT, tcp(7)), in
/// bytes. It is small, as data in the kernel's buffer can no longer be overtaken by urgent frames.
const NOT_SENT_LOW_WATER: u32 = 128 << 10;

/// How many of a peer's first bytes are kept, to name the protocol of a peer that is not labsh.
const MAX_FIRST_BYTES: usize = 16;

/// The time between the starts of connection attempts to the addresses of a host (RFC 8305,
/// section 5).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The addresses of a host that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// All addresses.
    #[default]
    Any,
    /// IPv4 addresses.
    Inet,
    /// IPv6 addresses.
    Inet6,
}

impl AddressFamily {
    fn includes(self, address: &SocketAddr) -> bool {
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
    /// Wraps a TCP connection and sets its options: no delay, little unsent data, and keepalive
    /// that detects an idle peer that has vanished within `dead_peer_after`.
    pub fn tcp(stream: TcpStream, peer: SocketAddr, dead_peer_after: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)?;
        // The kernel counts whole seconds and rejects 0.
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

    /// Wraps a connection over a unix socket.
    pub fn unix(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), peer: None, first_bytes: Vec::new() }
    }

    /// Connects to a host by name or address. Tries its addresses of that family in their order,
    /// and starts the next attempt after 250 ms (RFC 8305, "Happy Eyeballs"), so that an address
    /// that never answers, often an IPv6 one, does not use up the time of the others.
    pub async fn connect_tcp(
        host: &str,
        port: u16,
        family: AddressFamily,
        dead_peer_after: Duration,
    ) -> io::Result<Self> {
        let resolved = tokio::net::lookup_host((host, port)).await?;
        let addresses: Vec<SocketAddr> =
            resolved.filter(|address| family.includes(address)).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("it has no {family} address"),
            ));
        }
        let stream = connect_first(addresses).await?;
        let peer = stream.peer_addr()?;
        Self::tcp(stream, peer, dead_peer_after)
    }

    /// Connects to a unix socket.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Self::unix(UnixStream::connect(path).await?))
    }

    /// Returns the peer's address, even after the peer has closed; `None` for a unix socket.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Returns this end's address; `None` for a unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok().map(canonical),
            Stream::Unix(_) => None,
        }
    }

    /// Returns the first 16 bytes received from the peer, or fewer until they were read.
    pub fn first_bytes(&self) -> &[u8] {
        &self.first_bytes
    }

    /// Waits for the first bytes and returns those that have arrived, at most 16, without consuming
    /// them; none if the peer closes first, and for a unix socket.
    pub async fn peek(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; MAX_FIRST_BYTES];
        let count = match &self.stream {
            Stream::Tcp(stream) => stream.peek(&mut bytes).await?,
            Stream::Unix(_) => 0,
        };
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Returns a handle that measures the peer's silence while the socket is in use by another
    /// task; `None` for a unix socket.
    pub fn watch(&self) -> io::Result<Option<Watch>> {
        match &self.stream {
            Stream::Tcp(stream) => Ok(Some(Watch(stream.as_fd().try_clone_to_owned()?))),
            Stream::Unix(_) => Ok(None),
        }
    }
}

/// Returns the first connection that one of the addresses accepts, or the error of the last attempt
/// if none does.
async fn connect_first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last_error = error,
                // The runtime is shutting down.
                Some(Err(_)) => {}
                None => return Err(last_error),
            },
            () = tokio::time::sleep(CONNECTION_ATTEMPT_DELAY), if addresses.len() > 0 => {}
        }
    }
}

/// Converts the IPv4-mapped address of a peer of an IPv6 socket to its IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Measures the silence of the peer of a TCP connection, to detect one that has vanished.
#[derive(Debug)]
pub struct Watch(std::os::fd::OwnedFd);

impl Watch {
    /// Returns the time since the peer's last acknowledgement if one is overdue: a sign that the
    /// peer has vanished. The kernel of a stopped process still acknowledges. (TCP_USER_TIMEOUT
    /// would also end the connection of a stopped process: it counts a full receive window as
    /// silence, tcp(7).)
    pub fn silence(&self) -> Option<Duration> {
        tcp_info(&self.0).and_then(|info| silence(&info))
    }
}

/// Returns the time since the last acknowledgement if one is overdue: after a retransmission, or
/// after two unanswered probes in a row. The kernel sends probes when the peer's window is full or
/// when it has no route.
fn silence(info: &libc::tcp_info) -> Option<Duration> {
    let overdue = info.tcpi_retransmits > 0 || info.tcpi_probes > 1;
    // tcpi_last_data_sent would not do: it also counts retransmissions.
    overdue.then(|| Duration::from_millis(info.tcpi_last_ack_recv.into()))
}

#[allow(unsafe_code)]
fn tcp_info(socket: &impl AsRawFd) -> Option<libc::tcp_info> {
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
        let missing = MAX_FIRST_BYTES - self.first_bytes.len();
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

    /// Values of Linux 6.18 half a minute after data could last arrive.
    #[allow(unsafe_code)]
    fn info_of(retransmits: u8, probes: u8, unacked: u32, last_data_sent: u32) -> libc::tcp_info {
        // SAFETY: tcp_info is plain integers, for which all zeros is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        (info.tcpi_retransmits, info.tcpi_probes, info.tcpi_unacked) =
            (retransmits, probes, unacked);
        (info.tcpi_last_data_sent, info.tcpi_last_ack_recv) = (last_data_sent, 30_600);
        info
    }

    #[test]
    fn a_vanished_peer_is_silent_despite_retransmissions() {
        let half_a_minute = Some(Duration::from_millis(30_600));
        assert_eq!(silence(&info_of(13, 0, 1, 836)), half_a_minute, "its link is down");
        assert_eq!(silence(&info_of(0, 7, 0, 104)), half_a_minute, "our link is down");
    }

    #[test]
    fn a_peer_without_an_overdue_acknowledgement_is_not_silent() {
        assert_eq!(silence(&info_of(0, 0, 0, 30_600)), None, "nothing was sent");
        assert_eq!(silence(&info_of(0, 0, 1, 1)), None, "something was sent just now");
        assert_eq!(
            silence(&info_of(0, 1, 0, 30_600)),
            None,
            "its window is full, and one probe was sent"
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
    async fn every_dead_peer_timeout_that_can_be_configured_is_accepted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for seconds in [0, 1, 5, 6, 45, 3600] {
            let timeout = Duration::from_secs(seconds);
            Socket::connect_tcp("127.0.0.1", port, AddressFamily::Any, timeout).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_address_that_never_answers_does_not_delay_one_that_does() {
        // A listener whose backlog is full drops further connection attempts.
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let _waiting = TcpStream::connect(silent).await.unwrap();

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = listener.local_addr().unwrap();
        let gone =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let stream = connect_first(vec![gone, silent, answers]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
        let error = connect_first(vec![gone]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

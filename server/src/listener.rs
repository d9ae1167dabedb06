//! Binds addresses and accepts connections, also when descriptors run out.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::auth::Mode;
use labsh_transport::socket::Socket;
use nix::libc;
use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

use crate::admission::PendingSlot;
use crate::authenticate::{Failure, authenticate, refuse_full};
use crate::config::Config;
use crate::connection_log::Outcome;
use crate::listen_address::ListenAddress;
use crate::logs::Escaped;
use crate::session;
use crate::shared::Shared;

/// Delay after a failed accept(2) that is not the peer's fault. It keeps the loop from spinning,
/// and is too short to be noticed.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Delay for an evicted connection to close its socket.
const EVICTION_DELAY: Duration = Duration::from_millis(1);

/// A bound address.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: ListeningSocket,
    mode: Mode,
    address: String,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    /// The socket file comes first, so that it is removed before the listener closes: another
    /// labshd may replace a file that no process listens on. A socket of the service manager has no
    /// file here.
    Unix(#[expect(dead_code, reason = "dropped to remove it")] Option<UnixFile>, UnixListener),
}

/// The file of a unix socket, removed when it is dropped.
#[derive(Debug)]
struct UnixFile {
    path: PathBuf,
    /// Device and inode, to recognize a file that has replaced it.
    identity: (u64, u64),
}

impl UnixFile {
    /// Opens the file of a socket that was just bound and permits every user to connect: the key
    /// controls access, as on a TCP port.
    fn new(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.file_type().is_socket() {
            return Err(io::Error::other("another file has replaced it"));
        }
        // Through the descriptor, as a symbolic link may have replaced the file at its path.
        let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(opened, Permissions::from_mode(0o666))?;
        Ok(Self { path: path.to_owned(), identity: identity(&metadata) })
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        if self.path.symlink_metadata().is_ok_and(|metadata| identity(&metadata) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.mode == Mode::Plain { " (plain)" } else { "" };
        write!(formatter, "{}{mode}", self.address)
    }
}

/// Binds an address. A host name may resolve to several.
pub(crate) async fn bind(
    address: &ListenAddress,
    config: &Config,
) -> anyhow::Result<Vec<Listener>> {
    let backlog = config.backlog;
    let explain = |error| explain(address, error);
    match address {
        ListenAddress::Unix { path } => {
            bind_unix(path, backlog).map(|listener| vec![listener]).map_err(explain)
        }
        ListenAddress::Tcp { host, port, mode } => {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), *port)).await.map_err(explain)?.collect();
            check_exposure(address, &addresses, config)?;
            addresses
                .into_iter()
                .map(|address| bind_tcp(address, *mode, backlog).map_err(explain))
                .collect()
        }
    }
}

/// Returns why an address cannot be bound, and what to do about it.
pub(crate) fn explain(address: &ListenAddress, error: io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse if matches!(address, ListenAddress::Unix { .. }) => {
            "another program listens there, or the file is not a socket; stop the program, remove \
             the file or choose another path"
        }
        io::ErrorKind::AddrInUse => {
            "another program listens there, or another address in `listen` includes this one; stop \
             it or choose another port"
        }
        io::ErrorKind::NotFound => "create the directory, or choose another path",
        io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 on, or a directory that you can write to"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
        // The resolver's errors have no number.
        _ if error.raw_os_error().is_none() => {
            "check the name, and whether this machine resolves it, or write an IP address"
        }
        _ => "see `listen` in labshd.toml",
    };
    anyhow::anyhow!("cannot listen on {address}: {error}; {remedy}")
}

/// Checks that other machines cannot reach what is listened on without TLS, unless that is
/// permitted: a name is resolved only now.
pub(crate) fn check_exposure(
    address: &ListenAddress,
    resolved: &[SocketAddr],
    config: &Config,
) -> anyhow::Result<()> {
    let exposed = resolved.iter().find(|address| !address.ip().to_canonical().is_loopback());
    if let (Mode::Plain, false, Some(exposed)) =
        (address.mode(), config.allow_plain_on_network, exposed)
    {
        anyhow::bail!(
            "{address} is {}, which other machines can reach; leave out plain://, or set \
             allow_plain_on_network = true",
            exposed.ip()
        );
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr, mode: Mode, backlog: u32) -> io::Result<Listener> {
    let socket = match tcp_socket(address) {
        // Without IPv6 in the kernel, "every address" means every IPv4 address.
        Err(error)
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT)
                && address.ip().is_unspecified() =>
        {
            let any_v4 = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, address.port()));
            return bind_tcp(any_v4, mode, backlog);
        }
        socket => socket?,
    };
    // Lets a restarted labshd bind while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.try_into().unwrap_or(i32::MAX))?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?.to_string();
    Ok(Listener { socket: ListeningSocket::Tcp(listener), mode, address })
}

fn tcp_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

fn bind_unix(path: &Path, backlog: u32) -> io::Result<Listener> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let file = UnixFile::new(path)?;
    socket.listen(backlog.try_into().unwrap_or(i32::MAX))?;
    let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
    let address = format!("unix:{}", path.display());
    Ok(Listener { socket: ListeningSocket::Unix(Some(file), listener), mode: Mode::Plain, address })
}

/// Removes a socket file that no process listens on, as a crash leaves it. Other files stay.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A blocking connect would wait for a listener with a full backlog.
    probe.set_nonblocking(true)?;
    match probe.connect(&socket2::SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Takes the sockets that the service manager passes (sd_listen_fds(3)). Unix sockets and those
/// named `plain` use plain mode.
pub(crate) fn from_service_manager(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = listenfd::ListenFd::from_env();
    let names: Vec<&str> = names.split(':').collect();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let Some(descriptor) = passed.take_raw_fd(index)? else { continue };
        let socket = adopt(descriptor);
        socket.set_nonblocking(true)?;
        let named_plain = names.get(index).is_some_and(|name| *name == "plain");
        let unix = socket.local_addr()?.is_unix();
        let mode = if unix || named_plain { Mode::Plain } else { Mode::Tls };
        let (socket, address) = if unix {
            let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
            (
                ListeningSocket::Unix(None, listener),
                "unix socket from the service manager".to_owned(),
            )
        } else {
            let listener = TcpListener::from_std(socket.into())?;
            let address = listener.local_addr()?;
            let loopback = address.ip().to_canonical().is_loopback();
            anyhow::ensure!(
                mode == Mode::Tls || loopback || config.allow_plain_on_network,
                "the socket named plain is on {address}, which other machines can reach; give it \
                 another name, or set allow_plain_on_network = true"
            );
            (ListeningSocket::Tcp(listener), address.to_string())
        };
        listeners.push(Listener { socket, mode, address });
    }
    Ok(listeners)
}

#[allow(unsafe_code)]
fn adopt(descriptor: libc::c_int) -> socket2::Socket {
    // SAFETY: the service manager passed this descriptor to this process, and listenfd returns each
    // one once, so it has no other owner.
    socket2::Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A descriptor in reserve. Closing it when no other is free lets labshd accept one connection and
/// close it, instead of leaving it in the backlog, where it would wake the loop for ever.
struct ReserveDescriptor {
    file: Option<File>,
    /// Whether the log has an entry that it could not be opened again.
    loss_logged: bool,
}

impl ReserveDescriptor {
    fn new() -> Self {
        Self { file: File::open("/dev/null").ok(), loss_logged: false }
    }

    fn close(&mut self) {
        self.file = None;
    }

    fn reopen(&mut self) {
        if self.file.is_none()
            && let Ok(file) = File::open("/dev/null")
        {
            *self = Self { file: Some(file), loss_logged: false };
        }
    }
}

impl Listener {
    /// Returns the bound TCP address; its port is the one that the system chose for port 0.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListeningSocket::Tcp(listener) => listener.local_addr().ok(),
            ListeningSocket::Unix(..) => None,
        }
    }

    async fn accept(&self, dead_peer_after: Duration) -> io::Result<Socket> {
        match &self.socket {
            ListeningSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Setting socket options fails if the connection has closed, which needs no delay.
                Socket::tcp(stream, peer, dead_peer_after)
                    .map_err(|_| io::ErrorKind::ConnectionAborted.into())
            }
            ListeningSocket::Unix(_, listener) => Ok(Socket::unix(listener.accept().await?.0)),
        }
    }

    /// Accepts a connection with the reserve descriptor, when no other is free. It keeps the
    /// connection if an unauthenticated one can be evicted for it, and refuses it otherwise.
    async fn accept_with_reserve(
        &self,
        reserve: &mut ReserveDescriptor,
        shared: &Shared,
        error: &io::Error,
    ) -> io::Result<Option<Socket>> {
        let dead_peer_after = shared.config().dead_peer_after;
        reserve.close();
        let accepted = timeout(ACCEPT_RETRY_DELAY, self.accept(dead_peer_after)).await;
        let accepted = match accepted {
            // The backlog is empty: accept(2) fails for want of a descriptor before it checks.
            Err(_) => Ok(None),
            Ok(Ok(socket)) if shared.admission.evict_one() => {
                tokio::time::sleep(EVICTION_DELAY).await;
                Ok(Some(socket))
            }
            Ok(Ok(socket)) => {
                if shared.connection_log.permits(Outcome::TurnedAway) {
                    tracing::warn!(
                        address = %self, %error,
                        "no descriptors left: one connection turned away"
                    );
                }
                refuse_full(shared, socket, self.mode).await;
                Ok(None)
            }
            // Another thread has taken the descriptor, so accepting waits until one is free.
            Ok(Err(error)) if out_of_descriptors(&error) => {
                if !std::mem::replace(&mut reserve.loss_logged, true) {
                    tracing::warn!(
                        address = %self, %error,
                        "no descriptors left: connections wait"
                    );
                }
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                Ok(None)
            }
            Ok(Err(error)) => Err(error),
        };
        reserve.reopen();
        accepted
    }

    /// Accepts connections until the server drains.
    pub(crate) async fn serve(self, shared: Arc<Shared>) {
        let mut reserve = ReserveDescriptor::new();
        loop {
            let dead_peer_after = shared.config().dead_peer_after;
            let accepted = tokio::select! {
                biased;
                () = shared.draining.cancelled() => return,
                accepted = self.accept(dead_peer_after) => accepted,
            };
            let accepted = match accepted {
                Err(error) if out_of_descriptors(&error) => {
                    self.accept_with_reserve(&mut reserve, &shared, &error).await
                }
                accepted => {
                    reserve.reopen();
                    accepted.map(Some)
                }
            };
            match accepted {
                Ok(None) => {}
                Ok(Some(socket)) => {
                    // Counted before the task starts, so that the limit holds at any rate of
                    // accepts.
                    let slot = shared.admission.enter(socket.peer_address().map(|peer| peer.ip()));
                    let task = connection(shared.clone(), socket, self.mode, slot);
                    tokio::spawn(shared.connections.track_future(task));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(address = %self, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Serves one connection: authentication, then its session.
async fn connection(shared: Arc<Shared>, socket: Socket, mode: Mode, slot: PendingSlot) {
    let peer = socket.peer_address();
    let from = peer.map_or("unix socket".to_owned(), |peer| peer.to_string());
    let outcome = tokio::select! {
        outcome = Box::pin(authenticate(&shared, socket, mode, &slot)) => outcome,
        () = slot.evicted() => {
            if shared.connection_log.permits(Outcome::Evicted) {
                tracing::warn!(%from, "unauthenticated connection evicted to make room");
            }
            return;
        }
        () = shared.draining.cancelled() => return,
    };
    drop(slot);
    match outcome {
        Ok(client) => {
            let (key, host) =
                (client.entry.key.key_id().clone(), client.entry.key.host_id().clone());
            tracing::info!(%from, %key, %host, user = %client.user.name, "authenticated");
            let end = Box::pin(session::run(shared, client)).await;
            tracing::info!(%from, %key, reason = %Escaped(&end), "session ended");
        }
        Err(failure) => {
            // The holder of a key is known, and is not limited.
            let proven = matches!(failure, Failure::Refused { .. });
            if proven || shared.connection_log.permits(Outcome::NotAuthenticated) {
                tracing::warn!(%from, reason = %Escaped(&failure), "not authenticated");
            }
        }
    }
}

//! Where connections come in: binding, accepting, and what happens when descriptors run out.

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

use crate::admission::{Admission, Place};
use crate::authenticate::authenticate;
use crate::config::Config;
use crate::listen_address::ListenAddress;
use crate::logs::Escaped;
use crate::session;
use crate::shared::Shared;

/// After a failed accept that is not the peer's fault: long enough not to spin, short enough not to
/// be felt.
const BREATH: Duration = Duration::from_millis(20);

/// For one that was put out to close its socket.
const MOMENT: Duration = Duration::from_millis(1);

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
    /// With the file to remove, if it is ours: first, as whoever finds nobody listening on it may
    /// take its place.
    Unix(#[expect(dead_code, reason = "kept for its drop")] Option<UnixFile>, UnixListener),
}

/// The file of a unix socket; removed with its listener.
#[derive(Debug)]
struct UnixFile {
    path: PathBuf,
    /// Device and inode, by which it is told from what somebody else may have put in its place.
    identity: (u64, u64),
}

impl UnixFile {
    /// The file of a socket that was just bound, opened to everyone: the key decides who gets in,
    /// as on a TCP port.
    fn new(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.file_type().is_socket() {
            return Err(io::Error::other("somebody has put something else in its place"));
        }
        // Not by its path, where there may be a link by now.
        let held = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(held, Permissions::from_mode(0o666))?;
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

/// Binds an address; a name may stand for several.
pub(crate) async fn bind(
    address: &ListenAddress,
    config: &Config,
) -> anyhow::Result<Vec<Listener>> {
    let backlog = config.backlog;
    let explain = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse if matches!(address, ListenAddress::Unix { .. }) => {
                "another program listens there, or that file is no socket; stop it, remove it or \
                 choose another path"
            }
            io::ErrorKind::AddrInUse => {
                "another program listens there; stop it or choose another port"
            }
            io::ErrorKind::NotFound => "make the directory, or choose another path",
            io::ErrorKind::PermissionDenied => {
                "choose a port from 1024 on, or a directory that you may write to"
            }
            io::ErrorKind::AddrNotAvailable => "that address is not this machine's",
            _ => "see `listen` in labshd.toml",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}; {remedy}")
    };
    match address {
        ListenAddress::Unix { path } => {
            bind_unix(path, backlog).map(|listener| vec![listener]).map_err(explain)
        }
        ListenAddress::Tcp { host, port, mode } => {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), *port)).await.map_err(explain)?.collect();
            // What a name resolves to is known only now.
            let exposed =
                addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
            if let (Mode::Plain, false, Some(exposed)) =
                (mode, config.allow_plain_on_network, exposed)
            {
                anyhow::bail!(
                    "{address} is {}, which other machines can reach; leave out plain://, or set \
                     allow_plain_on_network = true",
                    exposed.ip()
                );
            }
            addresses
                .into_iter()
                .map(|address| bind_tcp(address, *mode, backlog).map_err(explain))
                .collect()
        }
    }
}

fn bind_tcp(address: SocketAddr, mode: Mode, backlog: u32) -> io::Result<Listener> {
    let socket = match tcp_socket(address) {
        // A kernel without IPv6 still has an "every address".
        Err(error)
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT)
                && address.ip().is_unspecified() =>
        {
            let every = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, address.port()));
            return bind_tcp(every, mode, backlog);
        }
        socket => socket?,
    };
    // A restart must not wait for the old connections' TIME_WAIT.
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

/// A socket file that nobody listens on is left over from a crash; anything else is not ours to
/// remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener with a full queue would keep us waiting.
    probe.set_nonblocking(true)?;
    match probe.connect(&socket2::SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Sockets that the service manager has opened (sd_listen_fds(3)). Those named `plain` are plain
/// mode, as all unix sockets are.
pub(crate) fn from_service_manager(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = listenfd::ListenFd::from_env();
    let names: Vec<&str> = names.split(':').collect();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        let Some(descriptor) = handed.take_raw_fd(index)? else { continue };
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
            let local = address.ip().to_canonical().is_loopback();
            anyhow::ensure!(
                mode == Mode::Tls || local || config.allow_plain_on_network,
                "the socket named plain is on {address}, which other machines can reach; give it \
                 another name, or set \
                 allow_plain_on_network = true"
            );
            (ListeningSocket::Tcp(listener), address.to_string())
        };
        listeners.push(Listener { socket, mode, address });
    }
    Ok(listeners)
}

#[allow(unsafe_code)]
fn adopt(descriptor: libc::c_int) -> socket2::Socket {
    // SAFETY: the service manager handed this descriptor over and listenfd gives each out once, so
    // nobody else owns it.
    socket2::Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A descriptor held back, to be given up when there are none left: then one waiting connection can
/// be taken and closed, instead of staying in the queue and waking the loop for ever.
struct Reserve {
    file: Option<File>,
    /// Whether the log has its loss.
    told: bool,
}

impl Reserve {
    fn new() -> Self {
        Self { file: File::open("/dev/null").ok(), told: false }
    }

    fn give_up(&mut self) {
        self.file = None;
    }

    fn take_back(&mut self) {
        if self.file.is_none()
            && let Ok(file) = File::open("/dev/null")
        {
            *self = Self { file: Some(file), told: false };
        }
    }
}

impl Listener {
    /// The address that was bound, for a port that the system chose.
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
                // A connection that takes no options is gone already; that is no reason to pause.
                Socket::tcp(stream, peer, dead_peer_after)
                    .map_err(|_| io::ErrorKind::ConnectionAborted.into())
            }
            ListeningSocket::Unix(_, listener) => Ok(Socket::unix(listener.accept().await?.0)),
        }
    }

    /// When there are no descriptors left: takes who waits with the one held back, if one who has
    /// proven nothing can be put out for it; otherwise turns it away.
    async fn accept_in_need(
        &self,
        reserve: &mut Reserve,
        admission: &Admission,
        dead_peer_after: Duration,
        error: &io::Error,
    ) -> io::Result<Option<Socket>> {
        reserve.give_up();
        let accepted = match tokio::time::timeout(BREATH, self.accept(dead_peer_after)).await {
            // Nobody waits, so nobody need go: accept(2) wants a descriptor before it looks.
            Err(_) => Ok(None),
            Ok(Ok(socket)) if admission.make_room() => {
                tokio::time::sleep(MOMENT).await;
                Ok(Some(socket))
            }
            Ok(Ok(_)) => {
                tracing::warn!(address = %self, %error, "no descriptors left: one connection \
                    turned away");
                Ok(None)
            }
            // Somebody else was quicker to take what was given up, and has it until one is free
            // again.
            Ok(Err(error)) if out_of_descriptors(&error) => {
                if !std::mem::replace(&mut reserve.told, true) {
                    tracing::warn!(address = %self, %error, "no descriptors left: connections \
                        wait");
                }
                tokio::time::sleep(BREATH).await;
                Ok(None)
            }
            Ok(Err(error)) => Err(error),
        };
        reserve.take_back();
        accepted
    }

    /// Accepts until the server drains.
    pub(crate) async fn serve(self, shared: Arc<Shared>) {
        let mut reserve = Reserve::new();
        loop {
            let dead_peer_after = shared.config().dead_peer_after;
            let accepted = tokio::select! {
                biased;
                () = shared.draining.cancelled() => return,
                accepted = self.accept(dead_peer_after) => accepted,
            };
            let accepted = match accepted {
                Err(error) if out_of_descriptors(&error) => {
                    self.accept_in_need(&mut reserve, &shared.admission, dead_peer_after, &error)
                        .await
                }
                accepted => {
                    reserve.take_back();
                    accepted.map(Some)
                }
            };
            match accepted {
                Ok(None) => {}
                Ok(Some(socket)) => {
                    // Counted here, so that accepting cannot run ahead of putting out.
                    let place = shared.admission.enter(socket.peer_address().map(|peer| peer.ip()));
                    let task = connection(shared.clone(), socket, self.mode, place);
                    tokio::spawn(shared.connections.track_future(task));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(address = %self, %error, "accept failed");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// One connection from its first byte to its last.
async fn connection(shared: Arc<Shared>, socket: Socket, mode: Mode, place: Place) {
    let peer = socket.peer_address();
    let from = peer.map_or("unix socket".to_owned(), |peer| peer.to_string());
    let outcome = tokio::select! {
        outcome = Box::pin(authenticate(&shared, socket, mode)) => outcome,
        () = place.evicted() => {
            return tracing::warn!(%from, "unauthenticated connection put out to make room");
        }
        () = shared.draining.cancelled() => return,
    };
    drop(place);
    match outcome {
        Ok(client) => {
            let (key, host) =
                (client.entry.key.key_id().clone(), client.entry.key.host_id().clone());
            tracing::info!(%from, %key, %host, user = %client.user.name, "authenticated");
            let end = Box::pin(session::run(shared, client)).await;
            tracing::info!(%from, %key, reason = %Escaped(&end), "session ended");
        }
        Err(failure) => tracing::warn!(%from, reason = %Escaped(&failure), "not authenticated"),
    }
}

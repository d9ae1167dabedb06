//! The client's side: asking for a session, asking to keep one, starting the agent.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use labsh_proto::auth::Mode;
use labsh_proto::frame::ChannelId;
use labsh_proto::message::Features;
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::FrameReader;
use labsh_transport::socket::{AddressFamily, Socket};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::agent::socket_path::{self, Place, PlaceError};
use crate::agent::wire::{self, Answer, Ask, Kept, Route, Wish};
use crate::connect::{Address, ConnectOptions, Server};

/// An agent that has not answered by then is not worth waiting for; nothing is lost by connecting
/// without it.
const ANSWER: Duration = Duration::from_secs(1);

/// That sessions are to be kept.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Where the agent is met.
    pub place: Place,
    /// The file that the key came from, from `/`.
    pub key: PathBuf,
    /// How long a session is kept without use.
    pub keep: Duration,
    /// Whether an agent is started where none is there.
    pub starts: bool,
}

/// What came of asking.
pub(crate) enum Borrowed {
    /// A session that is authenticated already.
    Session { reader: FrameReader<Carrier>, highest: ChannelId, channels: u32, server: Server },
    /// None; once a connection of our own is there, the agent can be told.
    None(Waiting),
}

/// Knows how to have a session kept from now on.
#[derive(Debug)]
pub(crate) struct Waiting {
    wish: Wish,
    agent: Option<UnixStream>,
    starts: bool,
}

/// Asks the agent for a session; `None` where these options cannot or must not use one.
pub(crate) async fn borrow(options: &ConnectOptions) -> Option<Borrowed> {
    let keeper = options.keeper.as_ref()?;
    let Address::Tcp { host, port } = &options.address else { return None };
    if options.family != AddressFamily::Any {
        return None;
    }
    let route = Route {
        host: host.clone(),
        port: *port,
        plain: options.mode == Mode::Plain,
        name: options.key.name().0,
        network: super::own_network()?,
        features: Features::SUPPORTED.0,
    };
    let ask = Ask::Lend { route: route.clone(), keep: keeper.keep };
    let asked = async {
        let mut stream = keeper.place.connect().await.ok()?;
        wire::write(&mut stream, &ask).await.ok()?;
        let answer: Answer = wire::read(&mut stream).await.ok()?;
        Some((stream, answer))
    };
    let (agent, lent) = match timeout(ANSWER, asked).await {
        Ok(Some((stream, Answer::Lent { highest, channels, features, version }))) => {
            let server = Server { features: Features(features), version };
            (None, Some((stream, highest, channels, server)))
        }
        Ok(Some((stream, Answer::Nothing))) => (Some(stream), None),
        _ => (None, None),
    };
    if let Some((stream, highest, channels, server)) = lent {
        let reader = FrameReader::new(Carrier::Plain(Socket::unix(stream)));
        return Some(Borrowed::Session { reader, highest: ChannelId(highest), channels, server });
    }
    let host_id = options.key.host_id().to_string();
    let (key, connect_timeout, keep) = (keeper.key.clone(), options.timeout, keeper.keep);
    let wish = Wish { route, host_id, key, connect_timeout, keep };
    Some(Borrowed::None(Waiting { wish, agent, starts: keeper.starts }))
}

impl Waiting {
    /// Has a session kept: the host has let this key in. Whatever fails here costs the next command
    /// a connection.
    pub(crate) async fn keep(self) {
        let ask = Ask::Keep(self.wish);
        match self.agent {
            Some(mut stream) => {
                let _ = timeout(ANSWER, wire::write(&mut stream, &ask)).await;
            }
            None if self.starts => {
                let (started, told) = oneshot::channel();
                // A thread of its own: the command does not wait for it.
                tokio::task::spawn_blocking(move || start(&ask, started));
                let _ = told.await;
            }
            None => {}
        }
    }
}

/// Starts an agent, whose stdin holds its first wish; `told` is dropped once it has it, or cannot
/// have it.
fn start(first: &Ask, told: oneshot::Sender<()>) {
    let spawned = || {
        // Whichever of our programs this is, labsh is beside it.
        let mut command = Command::new(std::env::current_exe()?.with_file_name("labsh"));
        command
            .args(["agent", "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It outlives what our environment was made for.
        command
            .env_clear()
            .envs(std::env::var_os(socket_path::RUNTIME).map(|path| (socket_path::RUNTIME, path)));
        let mut child = command.spawn()?;
        // Far less than a pipe takes at once.
        let written = wire::encode(first).and_then(|wish| match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(&wish),
            None => Ok(()),
        });
        written.map(|()| child)
    };
    let child: std::io::Result<Child> = spawned();
    drop(told);
    if let Ok(mut child) = child {
        // What was spawned parts from us at once; what is left of it is ours to bury.
        let _ = child.wait();
    }
}

/// Questions about the agent itself.
#[derive(Debug)]
pub struct Lender(UnixStream);

impl Lender {
    /// Meets the agent, if one runs.
    pub async fn meet(place: &Place) -> Result<Self, PlaceError> {
        place.connect().await.map(Self)
    }

    /// Its process id, and the sessions that it has.
    pub async fn list(&mut self) -> std::io::Result<(u32, Vec<Kept>)> {
        match self.ask(&Ask::List).await? {
            Answer::List { pid, sessions } => Ok((pid, sessions)),
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }

    /// Has it close what is not lent, lend nothing more, and end with the last command; resolves
    /// once it is out of reach.
    pub async fn stop(mut self) -> std::io::Result<()> {
        self.ask(&Ask::Stop).await.map(drop)
    }

    async fn ask(&mut self, ask: &Ask) -> std::io::Result<Answer> {
        wire::write(&mut self.0, ask).await?;
        match timeout(10 * ANSWER, wire::read(&mut self.0)).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

//! A proxy in virtual time, which counts the flights of a command: how often its two ends had to
//! wait for each other.
//!
//! What an end sends is held until the link is quiet; then everything that is held, in both
//! directions, arrives at once, and the clock goes on by one flight, half a round trip. Where
//! nothing is held there is nothing to wait for but an end that still computes, and the clock
//! stands. So the count does not depend on how fast the machine is.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long nothing may come from anywhere before what is held arrives. An end that takes a longer
/// rest in the middle of what it says is counted a flight too many, never one too few.
const QUIET: Duration = Duration::from_millis(250);

/// A command that gets nowhere for so long is given up.
const STUCK: Duration = Duration::from_secs(60);

/// TCP's own handshake: our kernel answers it at once, on a real link it would take a round trip.
const HANDSHAKE: u32 = 2;

/// What one command took; flights are halves of a round trip.
#[derive(Debug, Default)]
struct Cost {
    /// Flights until the command's first output had come.
    first_output: Option<u32>,
    /// Flights until that arrived at which the client's process ended.
    end: Option<u32>,
    /// Bytes from the clients, TCP's and IP's headers left out.
    sent: usize,
    /// Bytes from the server, likewise.
    received: usize,
}

enum Event {
    Accepted(TcpStream),
    /// From a connection's client or its server; `None` is the end of what it sends.
    Bytes(usize, From, Option<Vec<u8>>),
    Output,
    Exited(std::io::Result<std::process::ExitStatus>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Server,
}

/// What one end has sent and the other does not have yet.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    ended: bool,
}

struct Connection {
    to_client: OwnedWriteHalf,
    /// None until the client's first flight has arrived: only then does a server know of a
    /// connection.
    to_server: Option<OwnedWriteHalf>,
    from_client: Held,
    from_server: Held,
}

struct Link {
    target: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    connections: Vec<Connection>,
}

/// Runs these words so many times, one after the other, through one proxy to `target`, and prints
/// what each took. `{port}` in a word becomes the proxy's port.
pub(crate) async fn run(target: SocketAddr, times: usize, words: &[&str]) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port().to_string();
    let words: Vec<String> = words.iter().map(|word| word.replace("{port}", &port)).collect();
    let mut link = Link::new(listener, target);
    for time in 1..=times {
        let cost = link.run(&words).await?;
        let trips = |flights: Option<u32>| {
            flights.map_or("none".into(), |count| (f64::from(count) / 2.0).to_string())
        };
        println!("{time}_first_output {}", trips(cost.first_output));
        println!("{time}_end {}", trips(cost.end));
        println!("{time}_bytes {}", cost.sent + cost.received);
    }
    Ok(())
}

impl Link {
    fn new(listener: TcpListener, target: SocketAddr) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let accepted = sender.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if accepted.send(Event::Accepted(socket)).is_err() {
                    return;
                }
            }
        });
        Self { target, events, sender, connections: Vec::new() }
    }

    /// Runs one command to its end, and then until the link has nothing more to carry.
    async fn run(&mut self, words: &[String]) -> anyhow::Result<Cost> {
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        let mut stdout = child.stdout.take().context("stdout is piped")?;
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 4096];
            if matches!(stdout.read(&mut bytes).await, Ok(count) if count > 0) {
                let _ = sender.send(Event::Output);
            }
            while matches!(stdout.read(&mut bytes).await, Ok(count) if count > 0) {}
        });
        let sender = self.sender.clone();
        let waiting = tokio::spawn(async move {
            let _ = sender.send(Event::Exited(child.wait().await));
        });
        let cost = timeout(STUCK, self.carry()).await;
        // Ends the command, if it has not ended.
        waiting.abort();
        cost.with_context(|| format!("{program} did not end within {STUCK:?}"))?
    }

    async fn carry(&mut self) -> anyhow::Result<Cost> {
        let (mut clock, mut arrived, mut cost) = (0, 0, Cost::default());
        loop {
            match timeout(QUIET, self.events.recv()).await {
                Ok(event) => match event.context("the link is gone")? {
                    Event::Accepted(socket) => {
                        clock += HANDSHAKE;
                        arrived = clock;
                        self.accepted(socket);
                    }
                    Event::Bytes(number, from, bytes) => {
                        let count = bytes.as_ref().map_or(0, Vec::len);
                        let connection = &mut self.connections[number];
                        let (held, total) = match from {
                            From::Client => (&mut connection.from_client, &mut cost.sent),
                            From::Server => (&mut connection.from_server, &mut cost.received),
                        };
                        *total += count;
                        match bytes {
                            Some(bytes) => held.bytes.extend(bytes),
                            None => held.ended = true,
                        }
                    }
                    Event::Output => cost.first_output = Some(clock),
                    Event::Exited(status) => {
                        let status = status?;
                        ensure!(status.success(), "the command failed: {status}");
                        cost.end = Some(arrived);
                    }
                },
                Err(_) => match self.deliver().await {
                    None if cost.end.is_some() => return Ok(cost),
                    None => {}
                    Some(for_client) => {
                        clock += 1;
                        // What a client says while it ends is not waited for.
                        arrived = if for_client { clock } else { arrived };
                    }
                },
            }
        }
    }

    fn accepted(&mut self, socket: TcpStream) {
        let _ = socket.set_nodelay(true);
        let (from, to_client) = socket.into_split();
        self.listen(self.connections.len(), From::Client, from);
        let (from_client, from_server) = (Held::default(), Held::default());
        self.connections.push(Connection { to_client, to_server: None, from_client, from_server });
    }

    fn listen(&self, number: usize, from: From, mut half: OwnedReadHalf) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            loop {
                let mut bytes = Vec::with_capacity(64 << 10);
                let ended = !matches!(half.read_buf(&mut bytes).await, Ok(count) if count > 0);
                let bytes = (!ended).then_some(bytes);
                if sender.send(Event::Bytes(number, from, bytes)).is_err() || ended {
                    return;
                }
            }
        });
    }

    /// Lets everything that is held arrive. None if there was nothing, otherwise whether some of it
    /// was for a client.
    async fn deliver(&mut self) -> Option<bool> {
        let (mut something, mut for_client) = (false, false);
        for number in 0..self.connections.len() {
            if self.connections[number].to_server.is_none()
                && let Ok(socket) = TcpStream::connect(self.target).await
            {
                something = true;
                let _ = socket.set_nodelay(true);
                let (from, to_server) = socket.into_split();
                self.listen(number, From::Server, from);
                self.connections[number].to_server = Some(to_server);
            }
            let connection = &mut self.connections[number];
            for_client |= connection.from_server.arrive(&mut connection.to_client).await;
            if let Some(to_server) = &mut connection.to_server {
                something |= connection.from_client.arrive(to_server).await;
            }
        }
        (something || for_client).then_some(for_client)
    }
}

impl Held {
    /// Whether anything was held. An end that has gone misses what was for it.
    async fn arrive(&mut self, to: &mut OwnedWriteHalf) -> bool {
        let held = std::mem::take(self);
        let _ = to.write_all(&held.bytes).await;
        if held.ended {
            let _ = to.shutdown().await;
        }
        held.ended || !held.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every byte with one.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut byte = [0];
                    while socket.read_exact(&mut byte).await.is_ok()
                        && socket.write_all(&byte).await.is_ok()
                    {}
                });
            }
        });
        address
    }

    /// Says a byte and waits for the answer, so many times; says something before it ends.
    const ASKING: &str = r#"exec 3<>/dev/tcp/127.0.0.1/$1
        for ((i = 0; i < $2; i++)); do
            printf x >&3; read -r -n 1 -u 3 _ || exit 1
        done
        echo done"#;

    #[tokio::test]
    async fn a_question_and_its_answer_are_a_round_trip_each_and_so_is_connecting() {
        let target = echo().await;
        for questions in [1, 3] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let words =
                ["bash", "-c", ASKING, "asking", &port, &questions.to_string()].map(String::from);
            let mut link = Link::new(listener, target);
            let cost = link.run(&words).await.unwrap();
            assert_eq!(cost.first_output, Some(2 + 2 * questions));
            assert!(cost.end >= cost.first_output);
            assert_eq!((cost.sent, cost.received), (questions as usize, questions as usize));
        }
    }
}

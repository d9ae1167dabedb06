//! The clients of a trial, and the server that runs as long as they do.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::trial::{Event, Trial};
use super::{Server, text};
use crate::sockets::{IO_TIMEOUT, joined, unacknowledged, wait_until, with_timeouts};
use crate::stage::{LessonError, LessonResult};

pub(super) struct Client {
    number: usize,
    trial: Arc<Trial>,
    socket: BufReader<TcpStream>,
}

impl Client {
    pub(super) fn connect(
        server: SocketAddr,
        trial: &Arc<Trial>,
        number: usize,
    ) -> io::Result<Self> {
        let socket = BufReader::new(with_timeouts(TcpStream::connect(server)?)?);
        Ok(Self { number, trial: Arc::clone(trial), socket })
    }

    pub(super) fn ask(&self, line: &str) -> io::Result<()> {
        self.trial.note(Event::Asks(self.number));
        let flow = self.trial.flow(self.number);
        flow.message(line);
        flow.writer(self.socket.get_ref()).write_all(format!("{line}\n").as_bytes())
    }

    pub(super) fn receive(&mut self) -> io::Result<()> {
        if self.socket.read_line(&mut String::new())? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn leave(self) {
        self.trial.note(Event::Leaves(self.number));
    }
}

/// Starts a server, runs the clients, and waits until both have ended.
pub(super) fn with_server(
    server: Server,
    trial: &Arc<Trial>,
    clients: impl FnOnce(SocketAddr) -> LessonResult,
) -> LessonResult {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Also for accept(): if a client fails, the server ends too.
    SockRef::from(&listener).set_read_timeout(Some(IO_TIMEOUT))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let serving = scope.spawn(|| server(&listener, trial));
        clients(address)?;
        Ok(joined(serving.join())??)
    })
}

/// The first client is answered and then stays silent; meanwhile a second one asks. The first
/// leaves either after or before the second has its answer.
pub(super) fn two_clients(
    server: Server,
    second_is_answered_first: bool,
) -> Result<Arc<Trial>, LessonError> {
    let trial = Trial::new(2, Duration::ZERO);
    with_server(server, &trial, |address| {
        let mut first = Client::connect(address, &trial, 1)?;
        first.ask("hello")?;
        first.receive()?; // From now on the server talks with this client.
        let mut second = Client::connect(address, &trial, 2)?;
        second.ask("me too")?;
        wait_until(text::QUESTION_ARRIVED, || Ok(unacknowledged(second.socket.get_ref())? == 0))?;
        if second_is_answered_first {
            second.receive()?;
            first.leave();
        } else {
            first.leave();
            second.receive()?;
        }
        Ok(())
    })?;
    Ok(trial)
}

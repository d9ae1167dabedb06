//! One client, one server, one exchange: the calls of a TCP conversation, compared with a phone
//! call.

mod text;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::flow::Flow;
use crate::sockets::{TO_CLIENT, TO_SERVER, joined, recv, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};

const QUESTION: &[u8] = b"Who are you?";
const ANSWER: &[u8] = b"I am labsh.";

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let listener = listen(stage)?;
    let (client, server) = call(stage, listener)?;
    two_sockets(stage, client, &server)
}

fn listen(stage: &mut Stage) -> Result<Socket, LessonError> {
    stage.scene(text::SERVER)?;
    // socket(): a telephone. SOCK_STREAM over IPv4 is TCP.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // bind(): its number. Port 0 lets the kernel choose a free one.
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    // listen(): it may ring from now on; up to 5 callers can wait.
    listener.listen(5)?;
    stage.say(text::listening(local_address(&listener)?))?;
    Ok(listener)
}

/// Returns the addresses of the client's socket, and what the server found out.
fn call(stage: &mut Stage, listener: Socket) -> Result<(Ends, Server), LessonError> {
    stage.scene(text::CLIENT)?;
    let number = local_address(&listener)?;
    let (to_server, to_client) = (Flow::new(TO_SERVER), Flow::new(TO_CLIENT));
    let flows = (to_server.clone(), to_client.clone());
    let serving = thread::spawn(move || serve(&listener, &flows.0, &flows.1));

    // connect(): dial, and wait for the connection.
    let client = with_timeouts(TcpStream::connect(number)?)?;
    let ends = Ends::of(&client)?;
    to_server.message(text::QUESTION);
    to_server.writer(&client).write_all(QUESTION)?; // send(): speak.
    let mut buffer = [0; 1024];
    let count = to_client.reader(&client).read(&mut buffer)?; // recv(): wait, and listen.
    drop(client); // close(): hang up.

    let server = joined(serving.join())??;
    stage.say(text::called(ends.peer, ends.local))?;
    stage.show(text::CLIENT_RECEIVED, &buffer[..count])?;
    stage.draw(&to_server)?;
    stage.draw(&to_client)?;
    stage.fact(&buffer[..count] == ANSWER, text::ANSWER_ARRIVED)?;
    Ok((ends, server))
}

/// The two addresses of a connected socket.
struct Ends {
    local: SocketAddr,
    peer: SocketAddr,
}

impl Ends {
    fn of(socket: &TcpStream) -> io::Result<Self> {
        Ok(Self { local: socket.local_addr()?, peer: socket.peer_addr()? })
    }
}

/// What the server found out about its two sockets.
struct Server {
    listening: SocketAddr,
    listener_has_peer: bool,
    connected: Ends,
    /// What recv() returned after the client had closed its socket.
    recv_after_close: usize,
}

/// Answers one call.
fn serve(listener: &Socket, to_server: &Flow, to_client: &Flow) -> io::Result<Server> {
    // accept(): pick up. The new socket is for this conversation only.
    let socket = with_timeouts(listener.accept()?.0.into())?;
    let mut buffer = [0; 1024];
    let count = to_server.reader(&socket).read(&mut buffer)?;
    to_client.message(text::ANSWER);
    let answer = if &buffer[..count] == QUESTION { ANSWER } else { b"What?" };
    to_client.writer(&socket).write_all(answer)?;
    Ok(Server {
        listening: local_address(listener)?,
        listener_has_peer: listener.peer_addr().is_ok(),
        connected: Ends::of(&socket)?,
        recv_after_close: recv(&socket, &mut buffer)?,
    })
}

fn two_sockets(stage: &mut Stage, client: Ends, server: &Server) -> LessonResult {
    stage.scene(text::TWO_SOCKETS)?;
    let Server { listening, connected, .. } = server;
    stage.say(text::names(*listening, connected.local, connected.peer))?;
    stage.notice(text::LISTENING_AND_CONNECTED)?;
    stage.fact(
        connected.local == *listening
            && connected.peer == client.local
            && client.peer == connected.local,
        text::PEERS_MATCH,
    )?;
    stage.fact(!server.listener_has_peer, text::LISTENER_HAS_NO_PEER)?;
    stage.fact(server.recv_after_close == 0, text::RECV_RETURNS_0)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| ErrorKind::Unsupported.into())
}

//! Why a port is in use without a server: TIME_WAIT and SO_REUSEADDR; and how many clients can
//! wait: the backlog.

mod backlog;
mod connections;
mod text;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::random::random;
use crate::sockets::{IO_TIMEOUT, wait_until, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};
use connections::{is_in_time_wait, is_listening};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    // All of 127.0.0.0/8 is loopback. On a random address no other program takes the ports.
    let [a, b, c] = random::<3>()?;
    let any_port = SocketAddr::from((Ipv4Addr::new(127, a, b, c.clamp(1, 254)), 0));
    let blocked = server_closes_first(stage, any_port)?;
    client_closes_first(stage, any_port)?;
    reuse_address(stage, any_port, blocked)?;
    backlog::fill(stage, any_port)
}

/// A server's calls up to listen(). SO_REUSEADDR must be set before bind(), which may fail.
fn listen(address: SocketAddr, reuse: bool, backlog: i32) -> io::Result<Socket> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_address(reuse)?;
    listener.set_read_timeout(Some(IO_TIMEOUT))?; // Also for accept().
    listener.bind(&address.into())?;
    listener.listen(backlog)?;
    Ok(listener)
}

fn address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(ErrorKind::Unsupported))
}

/// One client, one question, one answer. Returns the client's socket and the server's, both open.
fn exchange(listener: &Socket) -> io::Result<(TcpStream, TcpStream)> {
    let mut client = with_timeouts(TcpStream::connect(address(listener)?)?)?;
    let mut server = with_timeouts(listener.accept()?.0.into())?;
    client.write_all(b"hello")?;
    server.read_exact(&mut [0; 5])?;
    server.write_all(b"bye")?;
    client.read_exact(&mut [0; 3])?;
    Ok((client, server))
}

/// Closes one end; then the other, which has seen the end of the stream; then the listening socket.
/// Returns when the first end is in TIME_WAIT and the others are gone.
fn close(first: TcpStream, mut second: TcpStream, listener: Socket) -> LessonResult {
    let (one, other, server) = (first.local_addr()?, second.local_addr()?, address(&listener)?);
    drop(first);
    second.read_to_end(&mut Vec::new())?;
    drop(second);
    drop(listener);
    wait_until(text::FIRST_IN_TIME_WAIT, || {
        let second_is_gone = connections::find(other, one)?.is_none();
        Ok(is_in_time_wait(one, other)? && second_is_gone && !is_listening(server)?)
    })
}

/// Returns the address that the server can no longer bind.
fn server_closes_first(stage: &mut Stage, any: SocketAddr) -> Result<SocketAddr, LessonError> {
    stage.scene(text::SERVER_CLOSES_FIRST)?;
    let listener = listen(any, false, 5)?;
    let server = address(&listener)?;
    let (client_socket, server_socket) = exchange(&listener)?;
    let client = client_socket.local_addr()?;
    close(server_socket, client_socket, listener)?;
    stage.say(text::server_closed(server))?;
    connections::show(stage, server, client)?;
    stage.say(text::WHY_TIME_WAIT)?;
    stage.fact(failed(TcpStream::connect(server), ErrorKind::ConnectionRefused), text::REFUSED)?;
    let again = listen(server, false, 5);
    if let Err(error) = &again {
        stage.list(text::SERVER_RESTARTS, format!("bind({server}): {error}"))?;
    }
    stage.fact(failed(again, ErrorKind::AddrInUse), text::ADDRESS_IN_USE)?;
    Ok(server)
}

fn client_closes_first(stage: &mut Stage, any: SocketAddr) -> LessonResult {
    stage.scene(text::CLIENT_CLOSES_FIRST)?;
    let listener = listen(any, false, 5)?;
    let server = address(&listener)?;
    let (client_socket, server_socket) = exchange(&listener)?;
    let client = client_socket.local_addr()?;
    close(client_socket, server_socket, listener)?;
    stage.say(text::client_closed(client))?;
    stage.fact(listen(server, false, 5).is_ok(), text::PORT_IS_FREE)
}

fn reuse_address(stage: &mut Stage, any: SocketAddr, blocked: SocketAddr) -> LessonResult {
    stage.scene(text::REUSE_ADDRESS)?;
    let listener = listen(any, true, 5)?;
    let server = address(&listener)?;
    let (client_socket, server_socket) = exchange(&listener)?;
    let client = client_socket.local_addr()?;
    close(server_socket, client_socket, listener)?;
    stage.say(text::SERVER_WITH_OPTION)?;
    let again = listen(server, true, 5);
    stage.fact(again.is_ok() && is_in_time_wait(server, client)?, text::BIND_SUCCEEDS)?;
    let second = listen(server, true, 5);
    stage.fact(failed(second, ErrorKind::AddrInUse), text::NO_SECOND_LISTENER)?;
    let late = listen(blocked, true, 5);
    stage.fact(failed(late, ErrorKind::AddrInUse), text::BOTH_MUST_SET_IT)?;
    drop(again);
    wait_until(text::NO_LISTENER, || Ok(!is_listening(server)?))?;
    stage.fact(TcpListener::bind(server).is_ok(), text::RUST_SETS_IT)
}

fn failed<T>(result: io::Result<T>, kind: ErrorKind) -> bool {
    result.is_err_and(|error| error.kind() == kind)
}

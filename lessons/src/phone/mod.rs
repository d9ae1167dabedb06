//! One client, one server, one exchange: every call of a TCP conversation, compared with a phone
//! call.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::flow::Flow;
use crate::sockets::{TO_CLIENT, TO_SERVER, recv, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};

const QUESTION: &[u8] = b"Who are you?";
const ANSWER: &[u8] = b"I am labsh.";

/// What the server's side found out, told once it is over.
struct Served {
    accepted: (SocketAddr, SocketAddr),
    listening: SocketAddr,
    listener_has_no_peer: bool,
    after_close: usize,
}

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    stage.scene((
        "The server gets a phone, a number, and a line",
        "服务器：买电话、办号码、等来电",
    ))?;
    // socket(): a telephone. SOCK_STREAM over IPv4 is TCP.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // bind(): its number. Port 0 lets the kernel choose a free one.
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    // listen(): from now on it may ring; up to 5 callers wait until they are answered.
    listener.listen(5)?;
    let number = address(listener.local_addr()?)?;
    stage.say(
        (format!(
            "`socket()`, `bind()`, `listen()`: the server listens on {number}. The kernel chose \
             the \
            port, as `bind()` asked for port 0."
        ),
        format!(
            "`socket()`、`bind()`、`listen()`：服务器在 {number} 上监听（listen）。`bind()` 时写的端\
            口是 0，所以端口由内核挑选。"
        )),
    )?;

    stage.scene(("The client calls", "客户端拨号"))?;
    let (up, down) = (Flow::new(TO_SERVER), Flow::new(TO_CLIENT));
    let (server_up, server_down) = (up.clone(), down.clone());
    let server = thread::spawn(move || serve(listener, &server_up, &server_down));

    // connect(): dial, and wait until somebody picks up
    let client = with_timeouts(TcpStream::connect(number)?)?;
    up.message(("question", "问题"));
    up.writer(&client).write_all(QUESTION)?; // send(): speak
    let mut buffer = [0; 1024];
    // recv(): listen to what is said; blocks until something is
    let count = down.reader(&client).read(&mut buffer)?;
    let mine = client.local_addr()?;
    let theirs = client.peer_addr()?;
    drop(client); // close(): hang up
    let served = server.join().map_err(|_| io::Error::other("the server's thread panicked"))??;

    stage.say(
        (format!(
            "`connect()` dialled {theirs}, and the server's `accept()` picked up. Each side \
             called `send()` and \
            `recv()` once, then the client hung up: `close()`. The client's own socket was \
            {mine}: nobody bound it, \
            the kernel gave it a port as well."
        ),
        format!(
            "`connect()` 拨通 {theirs}，服务器用 `accept()` 接听。双方各 `send()`、`recv()` 一次，然后客户端挂\
            断：`close()`。客户端自己的套接字是 {mine}：没人给它 bind，端口也是内核分配的。"
        )),
    )?;
    stage.show(("the client received", "客户端收到"), &buffer[..count])?;
    stage.draw(&up)?;
    stage.draw(&down)?;
    stage.fact(
        &buffer[..count] == ANSWER,
        ("the answer arrived as it was sent", "回答原样送到了"),
    )?;

    stage.scene(("The two sockets of a server", "服务器的两个套接字"))?;
    let (local, peer) = served.accepted;
    stage.say(
        (format!(
            "The listening socket: getsockname() = {}, getpeername() = none (ENOTCONN).\nThe \
            connected socket, from accept(): getsockname() = {local}, getpeername() = \
            {peer}.",
            served.listening
        ),
        format!(
            "监听套接字（listening socket）：getsockname() = {}，getpeername() = 无（ENOTCONN）。\
            \n已连接套接字（connected socket，由 accept() 返回）：getsockname() = {local}，getpeername() = \
            {peer}。",
            served.listening
        )),
    )?;
    stage.notice(
        ("Both have the same local port, but only the second has somebody at the other end. One \
         listens \
        for calls, the other talks; a busy server has one of the first and many of the second.",
        "两个套接字的本地端口相同，但只有后者有对端。前者只管接电话，后者负责通话；繁忙的服务器有一个前\
        者、许多个后者。"),
    )?;
    stage.fact(
        local == served.listening && peer == mine && theirs == local,
        (
            "the connected socket's peer is the client's own address, and the other way round",
            "已连接套接字的对端正是客户端的地址，反过来也一样",
        ),
    )?;
    stage.fact(
        served.listener_has_no_peer,
        ("the listening socket is connected to nobody", "监听套接字没有和任何人相连"),
    )?;
    stage.fact(
        served.after_close == 0,
        (
            "after the client's close(), the server's recv() returned 0: the end",
            "客户端 close() 之后，服务器的 recv() 返回 0：对方挂断了",
        ),
    )
}

/// The server's side of the call.
fn serve(listener: Socket, up: &Flow, down: &Flow) -> Result<Served, LessonError> {
    // accept(): pick up; a new socket for this one conversation
    let (connected, _) = listener.accept()?;
    let connected = with_timeouts(connected.into())?;
    let mut buffer = [0; 1024];
    let count = up.reader(&connected).read(&mut buffer)?;
    down.message(("answer", "回答"));
    let answer: &[u8] = if &buffer[..count] == QUESTION { ANSWER } else { b"StepKind?" };
    down.writer(&connected).write_all(answer)?;
    let accepted = (connected.local_addr()?, connected.peer_addr()?);
    let after_close = recv(&connected, &mut buffer)?; // the client has hung up
    Ok(Served {
        accepted,
        listening: address(listener.local_addr()?)?,
        listener_has_no_peer: listener.peer_addr().is_err(),
        after_close,
    })
}

fn address(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::other("this is no Internet address"))
}

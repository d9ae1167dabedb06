//! The texts of the lesson `phone`.

use std::net::SocketAddr;

use crate::language::{ConstText, Text, text};

pub(super) const SERVER: ConstText =
    ("The server gets a phone, a number and a line", "服务器：买电话、办号码、等来电");

pub(super) fn listening(address: SocketAddr) -> Text {
    text!(
        "`socket()`, `bind()`, `listen()`: the server listens on {address}. `bind()` asked for \
         port 0, so the kernel chose the port.",
        "`socket()`、`bind()`、`listen()`：服务器在 {address} 上监听（listen）。`bind()` 时写的端\
         口是 0，所以端口由内核挑选。"
    )
}

pub(super) const CLIENT: ConstText = ("The client calls", "客户端拨号");

pub(super) const QUESTION: ConstText = ("question", "问题");

pub(super) const ANSWER: ConstText = ("answer", "回答");

pub(super) fn called(server: SocketAddr, client: SocketAddr) -> Text {
    text!(
        "`connect()` dialled {server}, and the server's `accept()` picked up. Each side called \
         `send()` and `recv()` once, then the client hung up: `close()`. The client's own socket \
         was {client}: the client did not call `bind()`, so the kernel gave it a port as well.",
        "`connect()` 拨通 {server}，服务器用 `accept()` 接听。双方各 `send()`、`recv()` 一次，然后\
         客户端挂断：`close()`。客户端自己的套接字是 {client}：客户端没有调用 `bind()`，这个端口也\
         是内核分配的。"
    )
}

pub(super) const CLIENT_RECEIVED: ConstText = ("the client received", "客户端收到");

pub(super) const ANSWER_ARRIVED: ConstText = ("the answer arrived unchanged", "回答原样送到了");

pub(super) const TWO_SOCKETS: ConstText = ("The two sockets of a server", "服务器的两个套接字");

pub(super) fn names(listening: SocketAddr, connected: SocketAddr, peer: SocketAddr) -> Text {
    text!(
        "The listening socket: getsockname() = {listening}, getpeername() = none (ENOTCONN).\nThe \
         connected socket, from accept(): getsockname() = {connected}, getpeername() = {peer}.",
        "监听套接字（listening socket）：getsockname() = {listening}，getpeername() = 无\
         （ENOTCONN）。\n已连接套接字（connected socket，由 accept() 返回）：getsockname() = \
         {connected}，getpeername() = {peer}。"
    )
}

pub(super) const LISTENING_AND_CONNECTED: ConstText = (
    "Both have the same local port, but only the second has a peer. One listens for calls, the \
     other talks; a busy server has one of the first kind and many of the second.",
    "两个套接字的本地端口相同，但只有后者有对端（peer）。前者只管接电话，后者负责通话；繁忙的服务\
     器有一个前者、许多个后者。",
);

pub(super) const PEERS_MATCH: ConstText = (
    "the connected socket's peer is the client's own address, and the other way round",
    "已连接套接字的对端正是客户端的地址，反过来也一样",
);

pub(super) const LISTENER_HAS_NO_PEER: ConstText =
    ("the listening socket has no peer", "监听套接字没有对端");

pub(super) const RECV_RETURNS_0: ConstText = (
    "after the client's close(), the server's recv() returned 0: the end",
    "客户端 close() 之后，服务器的 recv() 返回 0：对方挂断了",
);

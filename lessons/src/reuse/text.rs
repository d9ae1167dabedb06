//! The texts of the lesson `reuse`.

use std::net::SocketAddr;

use crate::language::{ConstText, Text, text};

pub(super) const FIRST_IN_TIME_WAIT: ConstText =
    ("the end that closed first is in TIME_WAIT", "先关闭的一端进入 TIME_WAIT");

pub(super) const SERVER_CLOSES_FIRST: ConstText =
    ("The server closes first, and cannot come back", "服务器先关闭，就回不来了");

pub(super) fn server_closed(server: SocketAddr) -> Text {
    text!(
        "A server on {server} has answered a client, closed the connection first, closed its \
         listening socket, and ended.",
        "服务器 {server} 答复了一个客户端，先关闭了连接，又关闭了监听套接字（listening socket），\
         然后退出。"
    )
}

pub(super) const KERNEL_LISTS: ConstText =
    ("What the kernel still lists (/proc/net/tcp)", "内核仍然列着这个连接（/proc/net/tcp）");

pub(super) fn time_wait(seconds: f64) -> Text {
    text!(
        "Addresses and ports are in hexadecimal; state (st) 06 is TIME_WAIT. No process owns this \
         connection any more; the kernel keeps it for another {seconds:.0} seconds.",
        "地址和端口是十六进制；状态（st）06 就是 TIME_WAIT。这个连接已不属于任何进程，内核还要再保\
         留它 {seconds:.0} 秒。"
    )
}

pub(super) const ONE_END_WAITS: ConstText = (
    "the end that closed first is in TIME_WAIT; nothing is left of the other end",
    "先关闭的一端处于 TIME_WAIT；另一端什么也没留下",
);

pub(super) const WHY_TIME_WAIT: ConstText = (
    "It waits for two reasons. The last acknowledgement may be lost: then the other end repeats \
     its FIN and needs a reply. And old segments that are still on the way must not be taken for \
     those of a new connection with the same two addresses and two ports.",
    "它等待有两个原因。其一，最后一个确认（ACK）可能丢失：对方会重发 FIN，这一端必须还能回应。其\
     二，仍在网络中迟到的旧报文段，不能被误认作一个新连接的数据——新旧连接的四元组（两个地址、两个\
     端口）可能完全相同。",
);

pub(super) const REFUSED: ConstText = (
    "no server is listening there: a client is refused",
    "那里已经没有服务器监听：客户端的连接被拒绝",
);

pub(super) const SERVER_RESTARTS: ConstText =
    ("And yet, when the server starts again", "然而服务器重新启动时");

pub(super) const ADDRESS_IN_USE: ConstText = (
    "bind fails with EADDRINUSE, although no server is running",
    "并没有服务器在运行，bind 却以 EADDRINUSE（地址已被占用）失败",
);

pub(super) const CLIENT_CLOSES_FIRST: ConstText = ("The client closes first", "客户端先关闭");

pub(super) fn client_closed(client: SocketAddr) -> Text {
    text!(
        "The same exchange, but the client closes first: now {client} waits, a port that no server \
         asks for.",
        "同样的一问一答，但由客户端先关闭：现在等待的是 {client}，一个不会有服务器去绑定的临时端\
         口。"
    )
}

pub(super) const PORT_IS_FREE: ConstText = (
    "the server's port can be bound again at once: TIME_WAIT is at the end that closed first",
    "服务器的端口立刻就能重新绑定：TIME_WAIT 留在先关闭的那一端",
);

pub(super) const REUSE_ADDRESS: ConstText = ("SO_REUSEADDR", "SO_REUSEADDR（地址重用）");

pub(super) const SERVER_WITH_OPTION: ConstText = (
    "A server that sets SO_REUSEADDR before bind does the same again: it closes first and leaves a \
     TIME_WAIT.",
    "另一个服务器在 bind 之前设置了 SO_REUSEADDR，然后同样的过程再来一遍：它先关闭，留下 \
     TIME_WAIT。",
);

pub(super) const BIND_SUCCEEDS: ConstText = (
    "with SO_REUSEADDR bind succeeds, while the TIME_WAIT is still there",
    "有了 SO_REUSEADDR，TIME_WAIT 还在，bind 照样成功",
);

pub(super) const NO_SECOND_LISTENER: ConstText = (
    "it does not let two servers listen on one port: the second one still gets EADDRINUSE",
    "它并不允许两个服务器监听同一端口：第二个仍然得到 EADDRINUSE",
);

pub(super) const BOTH_MUST_SET_IT: ConstText = (
    "it does not help after a server that had not set it: Linux requires it of the old socket and \
     the new one",
    "如果上一个服务器没有设置它，现在再设也没用：Linux 要求新旧两个套接字都设置过",
);

pub(super) const NO_LISTENER: ConstText =
    ("the port has no listening socket any more", "端口上不再有监听套接字");

pub(super) const RUST_SETS_IT: ConstText = (
    "Rust's TcpListener::bind sets it for you; in C and Python every server must set it itself",
    "Rust 的 TcpListener::bind 会替你设置；用 C 和 Python 时，每个服务器都要自己写上",
);

pub(super) const BACKLOG: ConstText = ("Filling the backlog", "把 backlog（已完成连接队列）填满");

pub(super) const NO_ACCEPT: ConstText = (
    "A server calls listen(1) and never accept. Clients connect one after another.",
    "服务器调用 listen(1)，却从不调用 accept。客户端一个接一个地来连接。",
);

pub(super) const TAKEN_OR_DROPPED: ConstText = (
    "the kernel has queued the connection or dropped its SYN",
    "内核接纳了这个连接，或丢弃了它的 SYN",
);

pub(super) const CLIENT_STATES: ConstText =
    ("How the clients' kernels see it (TCP_INFO)", "客户端看到的状态（TCP_INFO）");

pub(super) fn client_state(number: usize, state: &str) -> Text {
    text!("client {number}: {state}", "客户端 {number}：{state}")
}

pub(super) fn queue_full(waiting: usize, requested: u32) -> Text {
    text!(
        "{waiting} connections are established and wait in the queue; listen asked for {requested} \
         (Linux grants one more). The queue is full: the next SYN was dropped, and that client \
         gets no reply at all.",
        "有 {waiting} 个连接已经建立，在队列里等待；listen 要求的是 {requested}（Linux 会多给一\
         个）。队列已满：下一个 SYN 被丢弃，那个客户端什么回音也没有。"
    )
}

pub(super) const KERNEL_CONNECTS: ConstText = (
    "for the clients in the queue connect and send succeed without any accept: the kernel does it, \
     not the server",
    "队列里的客户端 connect 和 send 都成功了，尽管从未有过 accept：完成这些的是内核，不是服务器程\
     序",
);

pub(super) const SYN_DROPPED: ConstText = (
    "the client outside the queue stays in SYN_SENT: its SYN was dropped because the backlog is \
     full",
    "队列外的客户端停在 SYN_SENT：backlog 已满，它的 SYN 被丢弃",
);

pub(super) const REJECTED_CONNECTED: ConstText =
    ("the client outside the queue is connected", "队列外的客户端连上了");

pub(super) fn syn_repeated(repeats: u32, seconds_late: f64) -> Text {
    text!(
        "one accept makes room; the client's kernel repeats the SYN ({repeats}×), and it is \
         connected, {seconds_late:.1} s late",
        "一次 accept 腾出一个位置；客户端的内核重发 SYN（{repeats} 次），终于连上，晚了 \
         {seconds_late:.1} 秒"
    )
}

pub(super) const BACKLOG_IS_A_QUEUE: ConstText = (
    "So the backlog does not limit the number of clients: it limits how many may wait between two \
     calls of accept. A server that accepts quickly needs only a short one.",
    "所以 backlog 不是客户端总数的上限，而是两次 accept 之间最多有多少连接可以排队。accept 得勤快\
     的服务器，并不需要很大的 backlog。",
);

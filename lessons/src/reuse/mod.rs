//! The port after the server and before it: TIME_WAIT, "address already in use", SO_REUSEADDR; the
//! backlog, filled.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use nix::libc;
use socket2::{Domain, Socket, Type};

use crate::kernel::{dropped, state, tcp_info};
use crate::random::random;
use crate::sockets::{IO_TIMEOUT, wait_until, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    // All of 127.0.0.0/8 is loopback. An address of our own keeps other programs from taking our
    // ports in between.
    let [a, b, c] = random::<3>()?;
    let free = SocketAddr::from((Ipv4Addr::new(127, a, b, c.clamp(1, 254)), 0));
    let forsaken = the_server_closes_first(stage, free)?;
    the_client_closes_first(stage, free)?;
    reuse_address(stage, free, forsaken)?;
    backlog(stage, free)
}

/// A server's calls up to listen. The option must be set before bind, for it is bind that may
/// refuse.
fn listen(address: SocketAddr, reuse: bool, backlog: i32) -> io::Result<Socket> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_address(reuse)?;
    listener.set_read_timeout(Some(IO_TIMEOUT))?; // For accept, too.
    listener.bind(&address.into())?;
    listener.listen(backlog)?;
    Ok(listener)
}

fn address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(ErrorKind::Unsupported))
}

/// One client, one question, one answer: the client's end and the server's, both still open.
fn exchange(listener: &Socket) -> io::Result<(TcpStream, TcpStream)> {
    let mut client = with_timeouts(TcpStream::connect(address(listener)?)?)?;
    let mut served = with_timeouts(listener.accept()?.0.into())?;
    client.write_all(b"hello")?;
    served.read_exact(&mut [0; 5])?;
    served.write_all(b"bye")?;
    client.read_exact(&mut [0; 3])?;
    Ok((client, served))
}

/// One end closes; the other reads the end of the stream and closes as well. Then the server stops
/// listening.
///
/// Comes back when the first one's end is in TIME_WAIT, the second one's is gone, and nobody
/// listens any more.
fn close(first: TcpStream, mut second: TcpStream, listener: Socket) -> LessonResult {
    let (one, other, server) = (first.local_addr()?, second.local_addr()?, address(&listener)?);
    drop(first);
    second.read_to_end(&mut Vec::new())?; // Comes back at the end of the stream.
    drop(second);
    drop(listener);
    wait_until(
        ("the end that closed first is in TIME_WAIT", "先关闭的一端进入 TIME_WAIT"),
        || {
            let waits = connection(one, other)?.is_some_and(|row| row.state == state::TIME_WAIT);
            let listens = connection(server, NOBODY)?.is_some();
            Ok(waits && !listens && connection(other, one)?.is_none())
        },
    )
}

fn the_server_closes_first(stage: &mut Stage, free: SocketAddr) -> Result<SocketAddr, LessonError> {
    stage.scene(("The server closes first, and cannot come back", "服务器先关闭，就回不来了"))?;
    let listener = listen(free, false, 5)?;
    let server = address(&listener)?;
    let (client, served) = exchange(&listener)?;
    let other = client.local_addr()?;
    close(served, client, listener)?;
    stage.say(
        (format!(
            "A server on {server} has answered a client, closed the connection first, closed its \
            listening socket, and is gone."
        ),
        format!(
            "服务器 {server} 答复了一个客户端，先关闭了连接，又关闭了监听套接字（listening socket），然\
            后退出。"
        )),
    )?;
    let row = connection(server, other)?;
    if let Some(row) = &row {
        stage.list(
            (
                "What the kernel still lists (/proc/net/tcp)",
                "内核仍然列着这个连接（/proc/net/tcp）",
            ),
            row.line.as_str(),
        )?;
    }
    let seconds = row.as_ref().map_or(0.0, |row| row.seconds);
    stage.notice(
        (format!(
            "Addresses and ports are in hexadecimal; state (st) 06 is TIME_WAIT. No process owns \
             this \
            connection any more; the kernel keeps it for another {seconds:.0} seconds."
        ),
        format!(
            "地址和端口是十六进制；状态（st）06 就是 TIME_WAIT。这个连接已不属于任何进程，内核还要再保\
            留它 {seconds:.0} 秒。"
        )),
    )?;
    stage.fact(
        row.is_some_and(|row| row.state == state::TIME_WAIT)
            && connection(other, server)?.is_none(),
        (
            "the end that closed first is in TIME_WAIT; of the other end nothing is left",
            "先关闭的一端处于 TIME_WAIT；另一端什么也没留下",
        ),
    )?;
    stage.say(
        ("It waits for two reasons. The last acknowledgement may have been lost: then the other \
         end repeats \
            its FIN, and somebody must answer. And old segments that are still on their way must \
            not be \
            taken for those of a new connection with the same four numbers: two addresses, two \
            ports.",
        "它等待有两个原因。其一，最后一个确认（ACK）可能丢失：对方会重发 FIN，总得有人回应。其二，仍在网络\
            中迟到的旧报文段，不能被误认作一个新连接的数据——新旧连接的四元组（两个地址、两个端口）可能完全\
            相同。"),
    )?;
    let nobody = TcpStream::connect(server);
    stage.fact(
        nobody.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
        ("nobody listens there: a client is refused", "那里已经没有人监听：客户端的连接被拒绝"),
    )?;
    let again = listen(server, false, 5);
    if let Err(error) = &again {
        let told = format!("bind({server}): {error}");
        stage.list(("And yet, when the server starts again", "然而服务器重新启动时"), told)?;
    }
    stage.fact(
        again.is_err_and(|error| error.kind() == ErrorKind::AddrInUse),
        (
            "bind fails with EADDRINUSE, although no server is running",
            "并没有服务器在运行，bind 却以 EADDRINUSE（地址已被占用）失败",
        ),
    )?;
    Ok(server)
}

fn the_client_closes_first(stage: &mut Stage, free: SocketAddr) -> LessonResult {
    stage.scene(("The client closes first", "客户端先关闭"))?;
    let listener = listen(free, false, 5)?;
    let server = address(&listener)?;
    let (client, served) = exchange(&listener)?;
    let other = client.local_addr()?;
    close(client, served, listener)?;
    stage.say(
        (format!(
            "The same exchange, but the client closes first: now {other} waits, a port that no \
             server \
            will ever ask for."
        ),
        format!("同样的一问一答，但由客户端先关闭：现在等待的是 {other}，一个不会有服务器去绑定的临时端口。")),
    )?;
    stage.fact(
        listen(server, false, 5).is_ok(),
        ("the server's port can be bound again at once: TIME_WAIT is at the end that closed first",
        "服务器的端口立刻就能重新绑定：TIME_WAIT 留在先关闭的那一端"),
    )
}

fn reuse_address(stage: &mut Stage, free: SocketAddr, forsaken: SocketAddr) -> LessonResult {
    stage.scene(("SO_REUSEADDR", "SO_REUSEADDR（地址重用）"))?;
    let listener = listen(free, true, 5)?;
    let server = address(&listener)?;
    let (client, served) = exchange(&listener)?;
    let other = client.local_addr()?;
    close(served, client, listener)?;
    stage.say(
        ("A server that sets SO_REUSEADDR before bind goes through the same again: it closes first \
         and \
            leaves a TIME_WAIT.",
        "另一个服务器在 bind 之前设置了 SO_REUSEADDR，然后同样的过程再来一遍：它先关闭，留下 TIME_WAIT。"),
    )?;
    let again = listen(server, true, 5);
    stage.fact(
        again.is_ok()
            && connection(server, other)?.is_some_and(|row| row.state == state::TIME_WAIT),
        (
            "with SO_REUSEADDR bind succeeds, while the TIME_WAIT is still there",
            "有了 SO_REUSEADDR，TIME_WAIT 还在，bind 照样成功",
        ),
    )?;
    stage.fact(
        listen(server, true, 5).is_err_and(|error| error.kind() == ErrorKind::AddrInUse),
        (
            "it does not let two servers listen on one port: the second one still gets EADDRINUSE",
            "它并不允许两个服务器监听同一端口：第二个仍然得到 EADDRINUSE",
        ),
    )?;
    stage.fact(
        listen(forsaken, true, 5).is_err_and(|error| error.kind() == ErrorKind::AddrInUse),
        (
            "it does not help behind a server that had not set it: Linux asks both, the old socket \
         and the new \
            one",
            "如果上一个服务器没有设置它，现在再设也没用：Linux 要求新旧两个套接字都同意",
        ),
    )?;
    drop(again);
    wait_until(("nobody listens any more", "不再有人监听"), || {
        Ok(connection(server, NOBODY)?.is_none())
    })?;
    stage.fact(
        TcpListener::bind(server).is_ok(),
        (
            "Rust's TcpListener::bind sets it for you; in C and Python you write it yourself, in \
         every server",
            "Rust 的 TcpListener::bind 会替你设置；用 C 和 Python 时，每个服务器都要自己写上",
        ),
    )
}

fn backlog(stage: &mut Stage, free: SocketAddr) -> LessonResult {
    stage.scene(("The backlog, filled", "把 backlog（已完成连接队列）填满"))?;
    let listener = listen(free, true, 1)?;
    let server = address(&listener)?;
    stage.say((
        "A server calls listen(1) and never accept. Clients connect one after the other.",
        "服务器调用 listen(1)，却从不调用 accept。客户端一个接一个地来连接。",
    ))?;
    let mut inside: Vec<Socket> = Vec::new();
    let outside = loop {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        // A non-blocking connect sends its SYN and returns at once: EINPROGRESS.
        match client.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(error.into());
            }
            _ => {}
        }
        // What becomes of it is a fact of the listening socket: its queue has grown, or it
        // threw the SYN away.
        wait_until(
            ("the kernel has taken or dropped the connection", "内核接纳或丢弃了这个连接"),
            || Ok(queue(&listener)? > inside.len() || dropped(&listener)? > 0),
        )?;
        if queue(&listener)? == inside.len() {
            break client;
        }
        inside.push(client);
    };
    let began = Instant::now();
    let states: Vec<(String, String)> = inside
        .iter()
        .chain([&outside])
        .enumerate()
        .map(|(number, client)| {
            let state = tcp_info(client)?.tcpi_state;
            let name = if state == state::ESTABLISHED {
                "ESTABLISHED"
            } else if state == state::SYN_SENT {
                "SYN_SENT"
            } else {
                "?"
            };
            let number = number + 1;
            Ok((format!("client {number}: {name}"), format!("客户端 {number}：{name}")))
        })
        .collect::<io::Result<_>>()?;
    let (english, chinese): (Vec<_>, Vec<_>) = states.into_iter().unzip();
    stage.list(
        ("How the clients' kernels see it (TCP_INFO)", "客户端看到的状态（TCP_INFO）"),
        (english.join("\n"), chinese.join("\n")),
    )?;
    let (waiting, asked) = (queue(&listener)?, tcp_info(&listener)?.tcpi_sacked);
    stage.notice(
        (format!(
            "{waiting} connections are complete and wait in the queue; asked for was {asked} \
             (Linux \
            grants one more). The queue is full: the next SYN was thrown away, and that client \
            hears \
            nothing at all."
        ),
        format!(
            "有 {waiting} 个连接已经建立，在队列里等待；listen 要求的是 {asked}（Linux 会多给一个）。队\
            列已满：下一个 SYN 被丢弃，那个客户端什么回音也没有。"
        )),
    )?;
    let sent = inside[0].send(b"hello")?;
    stage.fact(
        sent == 5 && tcp_info(&inside[0])?.tcpi_state == state::ESTABLISHED,
        ("for those inside connect and send succeed, though no accept has happened: the kernel \
         does it, not \
            the server",
        "队列里的客户端 connect 和 send 都成功了，尽管从未有过 accept：完成这些的是内核，不是服务器程序"),
    )?;
    stage.fact(
        tcp_info(&outside)?.tcpi_state == state::SYN_SENT && dropped(&listener)? > 0,
        (
            "the one outside stays in SYN_SENT: its SYN was dropped because the backlog is full",
            "队列外的客户端停在 SYN_SENT：backlog 已满，它的 SYN 被丢弃",
        ),
    )?;
    listener.accept()?;
    wait_until(("the client outside is connected", "队列外的客户端连上了"), || {
        Ok(tcp_info(&outside)?.tcpi_state == state::ESTABLISHED)
    })?;
    let (repeated, late) = (tcp_info(&outside)?.tcpi_total_retrans, began.elapsed().as_secs_f64());
    stage.fact(
        repeated > 0,
        (format!(
            "one accept makes room; its kernel repeats the SYN ({repeated}×), and it is in, \
             {late:.1} s late"
        ),
        format!(
            "一次 accept 腾出一个位置；客户端的内核重发 SYN（{repeated} 次），终于连上，晚了 {late:.1} 秒"
        )),
    )?;
    stage.say(
        ("So the backlog is no limit of clients: it is how many may wait between two calls of \
         accept. A \
            server that accepts quickly needs little of it.",
        "所以 backlog 不是客户端总数的上限，而是两次 accept 之间最多有多少连接可以排队。accept 得勤快的服务\
            器，并不需要很大的 backlog。"),
    )?;
    Ok(())
}

/// How many connections wait to be accepted.
fn queue(listener: &Socket) -> io::Result<usize> {
    Ok(tcp_info(listener)?.tcpi_unacked as usize)
}

/// At the other end of a socket that listens.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One end of a connection, as the kernel lists it (proc_net_tcp, in the kernel's documentation).
struct Row {
    /// What it says there, under the names of its columns.
    line: String,
    state: u8,
    /// Until its timer fires.
    seconds: f64,
}

fn connection(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Row>> {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ: the same on every Linux.
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or_default();
    let end = |text: &str| {
        // Both in hexadecimal: the address as the processor holds its four bytes, and the port.
        let (address, port) = text.split_once(':')?;
        let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
        Some(SocketAddr::from((address, u16::from_str_radix(port, 16).ok()?)))
    };
    for line in fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, from, to, state, _, timer, ..] = fields[..] else { continue };
        if end(from) == Some(local) && end(to) == Some(remote) {
            let ticks = timer.split_once(':').map_or(0, |(_, ticks)| number(ticks));
            let (state, seconds) = (number(state) as u8, ticks as f64 / TICKS_PER_SECOND);
            let line = format!(
                "local_address rem_address   st tr:tm->when\n{from} {} {} {timer}",
                fields[2], fields[3]
            );
            return Ok(Some(Row { line, state, seconds }));
        }
    }
    Ok(None)
}

//! UDP: datagrams keep their boundaries; one that is too long for the buffer is cut; loss and order
//! are now your problem.

use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, SockaddrIn, recv, recvfrom};
use socket2::SockRef;

use crate::flow::{Carrier, Flow};
use crate::kernel::dropped;
use crate::language::Text;
use crate::sockets::{pair, queued, udp_socket, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};

/// How many datagrams are sent into a small receive buffer.
const COUNT: usize = 10;

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    boundaries(stage)?;
    cut(stage)?;
    recv_and_recvfrom(stage)?;
    loss(stage)?;
    order(stage)
}

/// One recvfrom, noted in the flow as what it was: one of these messages, which `fits` knows.
fn receive(
    socket: &UdpSocket,
    flow: &Flow,
    size: usize,
    fits: impl Fn(&[u8]) -> Option<usize>,
) -> Result<Vec<u8>, LessonError> {
    let mut buffer = vec![0; size];
    let (read, _from) = socket.recv_from(&mut buffer)?;
    buffer.truncate(read);
    let Some(message) = fits(&buffer) else {
        let told =
            Text::new("a datagram arrived that nobody sent", "收到了一个没有人发送过的数据报");
        return Err(LessonError::NotShown(told));
    };
    flow.received(message, &buffer);
    Ok(buffer)
}

fn send(
    socket: &UdpSocket,
    to: &UdpSocket,
    flow: &Flow,
    label: impl Into<Text>,
    bytes: &[u8],
) -> LessonResult {
    flow.message(label);
    socket.send_to(bytes, to.local_addr()?)?;
    flow.wrote(bytes);
    Ok(())
}

fn boundaries(stage: &mut Stage) -> LessonResult {
    stage.scene(("One send, one datagram, one recvfrom", "一次发送，一个数据报，一次 recvfrom"))?;
    stage.say((
        "Three messages: first three times sendto, and only then three times recvfrom(1024).",
        "三条消息：先是三次 sendto，然后才是三次 recvfrom(1024)。",
    ))?;
    let messages: [&[u8]; 3] = [b"PING", b"a longer message", b"BYE"];
    let (sender, receiver) = (udp_socket()?, udp_socket()?);
    let flow = Flow::over(Carrier::Udp, "UDP");
    for message in messages {
        send(&sender, &receiver, &flow, String::from_utf8_lossy(message).into_owned(), message)?;
    }
    let mut received = Vec::new();
    for _ in messages {
        let which = |bytes: &[u8]| messages.iter().position(|message| *message == bytes);
        received.push(receive(&receiver, &flow, 1024, which)?);
    }
    stage.draw(&flow)?;
    stage.notice((
        "Each call returned one datagram and no byte of another, though its buffer had room for \
         all.",
        "每次调用返回一个数据报，绝不带上别的数据报的字节，尽管缓冲区装得下全部。",
    ))?;
    stage.fact(
        received.len() == 3
            && messages.iter().all(|message| received.iter().any(|one| one == message)),
        (
            "UDP keeps the boundaries of messages: nothing sticks together",
            "UDP 保留消息边界：没有粘包",
        ),
    )?;

    stage.say((
        "Now the same three over TCP, all of them sent before the first recv(1024).",
        "现在让同样三条消息走 TCP，也是全部发完之后才第一次 recv(1024)。",
    ))?;
    let (mut client, mut server) = pair()?;
    let flow = Flow::new("TCP");
    for message in messages {
        flow.message(String::from_utf8_lossy(message).into_owned());
        flow.writer(&mut client).write_all(message)?;
    }
    let total: usize = messages.iter().map(|message| message.len()).sum();
    wait_until(("all three messages have arrived", "三条消息都已到达"), || {
        Ok(queued(&server)? == total)
    })?;
    let read = flow.reader(&mut server).read(&mut [0; 1024])?;
    stage.draw(&flow)?;
    stage.fact(
        read == total,
        (
            format!(
                "one recv(1024) returned all {total} bytes: TCP is a stream of bytes and knows no \
            messages"
            ),
            format!("一次 recv(1024) 就返回全部 {total} 字节：TCP 是字节流，不知道什么是消息"),
        ),
    )?;

    send(&sender, &receiver, &Flow::new("UDP"), "", b"")?;
    let (size, _) = receiver.recv_from(&mut [0; 1024])?;
    stage.fact(
        size == 0,
        (
            "even an empty datagram arrives: here 0 bytes are a message, not the end as with TCP",
            "连空数据报也会到达：这里的 0 字节是一条消息，不像 TCP 那样表示结束",
        ),
    )
}

fn cut(stage: &mut Stage) -> LessonResult {
    stage.scene(("A buffer that is too small", "缓冲区太小"))?;
    stage.say((
        "A datagram of 26 bytes and a short one behind it; the receiver offers a buffer of 10 \
         bytes each \
            time.",
        "先是一个 26 字节的数据报，后面跟一个短的；接收方每次只给出 10 字节的缓冲区。",
    ))?;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let (sender, receiver) = (udp_socket()?, udp_socket()?);
    let flow = Flow::over(Carrier::Udp, "UDP, recvfrom(10)");
    let which = |bytes: &[u8]| match bytes {
        b"next" => Some(1),
        _ => alphabet.starts_with(bytes).then_some(0),
    };
    send(&sender, &receiver, &flow, ("alphabet", "字母表"), alphabet)?;
    wait_until(("the first datagram has arrived", "第一个数据报到了"), || {
        Ok(queued(&receiver)? == alphabet.len())
    })?;
    send(&sender, &receiver, &flow, "next", b"next")?;
    let first = receive(&receiver, &flow, 10, which)?;
    let second = receive(&receiver, &flow, 10, which)?;
    stage.draw(&flow)?;
    stage.show(("First recvfrom(10)", "第一次 recvfrom(10)"), &first)?;
    stage.show(("Second recvfrom(10)", "第二次 recvfrom(10)"), &second)?;
    stage.notice((
        "The second call does not go on with K: with TCP it would. What did not fit is gone, and \
         no error \
            says so.",
        "第二次调用并没有从 K 接着读——换成 TCP 才会。装不下的部分没有了，也没有报错。",
    ))?;
    stage.fact(
        first == alphabet[..10] && second == b"next",
        (
            "a buffer of 10 bytes cut a datagram of 26; the next recvfrom got the next datagram",
            "10 字节的缓冲区截断了 26 字节的数据报；下一次 recvfrom 得到的是下一个数据报",
        ),
    )?;

    sender.send_to(alphabet, receiver.local_addr()?)?;
    let descriptor = receiver.as_raw_fd();
    // With MSG_PEEK it stays in the queue; with MSG_TRUNC what is returned is its real size, not
    // the part that fitted.
    wait_until(("the datagram has arrived", "数据报到了"), || {
        Ok(queued(&receiver)? == alphabet.len())
    })?;
    let size = recv(descriptor, &mut [0; 10], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
    let mut large_enough = vec![0; size];
    receiver.recv_from(&mut large_enough)?;
    stage.fact(
        size == alphabet.len() && large_enough == alphabet,
        (format!(
            "MSG_TRUNC tells the real size, {size}; with MSG_PEEK one may ask first and then read \
             with \
            a buffer that fits"
        ),
        format!(
            "MSG_TRUNC 会告诉真实长度 {size}；加上 MSG_PEEK，就可以先问长度，再用足够大的缓冲区读取"
        )),
    )
}

fn recv_and_recvfrom(stage: &mut Stage) -> LessonResult {
    stage.scene(("recv and recvfrom", "recv 与 recvfrom"))?;
    stage.say((
        "A server on a UDP socket has no accept: datagrams from everybody arrive at one socket.",
        "UDP 服务器没有 accept：所有人的数据报都到达同一个套接字。",
    ))?;
    let (server, friend, stranger) = (udp_socket()?, udp_socket()?, udp_socket()?);
    let mut buffer = [0; 1024];
    friend.send_to(b"hello", server.local_addr()?)?;
    let (_, from) = server.recv_from(&mut buffer)?;
    stage.fact(
        from == friend.local_addr()?,
        (format!(
            "recvfrom also says who sent it, here {from}: without that a server could not answer"
        ),
        format!("recvfrom 还会告诉数据报是谁发来的，这里是 {from}：不知道这一点，服务器就无法回答")),
    )?;

    // connect on a UDP socket sends nothing. The kernel only notes the partner and from now on
    // admits no one else.
    server.connect(from)?;
    stranger.connect(server.local_addr()?)?;
    stranger.send(b"let me in")?;
    let refused = stranger.recv(&mut buffer);
    stage.fact(
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
        ("a connected UDP socket hears its partner only: for a stranger the port is closed (ICMP \
         port \
            unreachable, told as ECONNREFUSED)",
        "已连接（connect 过）的 UDP 套接字只听对方的：对陌生人来说，这个端口是关闭的（ICMP 端口不可达，以 \
            ECONNREFUSED 报告）"),
    )?;
    stage.notice(
        ("The stranger's send succeeded; the error came with the next call. And it came only \
         because the \
            stranger had connected as well: an unconnected socket is not told.",
        "陌生人的 send 是成功的，错误到下一次调用才报告。而且只因为陌生人自己也 connect 过，才会得知；未连\
            接的套接字什么都不知道。"),
    )?;
    friend.send_to(b"it is me", server.local_addr()?)?;
    let read = server.recv(&mut buffer)?;
    let word = buffer[..read].to_vec();
    server.send(b"welcome")?;
    let answered = friend.recv(&mut buffer)?;
    stage.fact(
        word == b"it is me" && &buffer[..answered] == b"welcome",
        (
            "on a connected socket send and recv suffice: both ends are known",
            "在已连接的套接字上，send 和 recv 就够了：两端都是已知的",
        ),
    )?;

    let (mut client, accepted) = pair()?;
    client.write_all(b"hello")?;
    let (_, from) = recvfrom::<SockaddrIn>(accepted.as_raw_fd(), &mut buffer)?;
    stage.fact(
        from.is_none(),
        ("on TCP recvfrom works, but gives no address: one asked accept or getpeername for it once",
        "对 TCP 套接字也可以用 recvfrom，但它不给出地址：对方是谁，accept 或 getpeername 早已说明"),
    )
}

fn loss(stage: &mut Stage) -> LessonResult {
    stage.scene(("Loss", "丢失"))?;
    stage.say(
        ("A sender that is faster than the receiver: numbered datagrams of 1,000 bytes, into a \
         receive \
            buffer of a few kilobytes that nobody empties.",
        "发送方比接收方快：一个个编了号、每个 1000 字节的数据报，送进一个只有几千字节、又没有人取走数据的接\
            收缓冲区。"),
    )?;
    let (sender, receiver) = (udp_socket()?, udp_socket()?);
    // Room for a few, whatever this machine's default is.
    SockRef::from(&receiver).set_recv_buffer_size(4096)?;
    let flow = Flow::over(Carrier::Udp, ("UDP into a small receive buffer", "UDP，接收缓冲区很小"));
    for number in 1..=COUNT {
        let datagram = format!("{number:.<1000}"); // 1,000 bytes: the number, and dots behind it.
        send(&sender, &receiver, &flow, number.to_string(), datagram.as_bytes())?;
    }
    receiver.set_nonblocking(true)?;
    let mut arrived = Vec::new();
    let mut lost = 0;
    let number = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.trim_end_matches('.')
            .parse::<usize>()
            .ok()
            .filter(|number| (1..=COUNT).contains(number))
    };
    wait_until(
        ("every datagram has arrived or was dropped", "每个数据报不是到达就是被丢弃"),
        || {
            loop {
                match receive(&receiver, &flow, 1024, |bytes| Some(number(bytes)? - 1)) {
                    Ok(datagram) => arrived.extend(number(&datagram)),
                    Err(LessonError::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(trouble) => return Err(std::io::Error::other(trouble)),
                }
            }
            lost = dropped(&receiver)? as usize;
            Ok(arrived.len() + lost == COUNT)
        },
    )?;
    stage.draw(&flow)?;
    let numbers: Vec<String> = arrived.iter().map(usize::to_string).collect();
    stage.list(("The datagrams that arrived", "到达的数据报"), numbers.join(" "))?;
    stage.say(
        (format!(
            "{COUNT} sends, and every one of them succeeded. Nobody was reading, the receive \
             buffer \
            was full after {}, and the kernel threw the others away: it counts {lost} \
            (SO_MEMINFO).",
            arrived.len()
        ),
        format!(
            "{COUNT} 次发送，每一次都成功了。没有人在读，收到 {} 个后接收缓冲区就满了，其余的被内核丢\
            弃：它记下了 {lost} 个（SO_MEMINFO）。",
            arrived.len()
        )),
    )?;
    stage.fact(
        lost > 0 && arrived.len() + lost == COUNT,
        ("of all that the sender was told nothing: with UDP, noticing a loss and sending again is \
         the \
            program's work",
        "发送方毫不知情：用 UDP 时，发现丢失、重新发送，都是程序自己的事"),
    )
}

fn order(stage: &mut Stage) -> LessonResult {
    stage.scene(("Order", "次序"))?;
    stage.say(
        ("On a network two datagrams may take two paths, and the later one overtakes. Loopback has \
         only one \
            path, so here a small relay of our own stands between: it receives both and passes on \
            the \
            later one first.",
        "在网络上，两个数据报可能走不同的路径，后发的先到。环回接口（loopback）只有一条路，所以这里由我们自\
            己写的一个小中继（relay）站在中间：它收下两个，先转发后一个。"),
    )?;
    let (sender, relay, receiver) = (udp_socket()?, udp_socket()?, udp_socket()?);
    let messages = ["1 rm -r build", "2 mkdir build"];
    let flow = Flow::over(Carrier::Udp, ("through a relay that swaps", "经过一个调换次序的中继"));
    let which = |bytes: &[u8]| messages.iter().position(|message| message.as_bytes() == bytes);
    for message in messages {
        send(&sender, &relay, &flow, message, message.as_bytes())?;
    }
    let mut held = Vec::new();
    let mut buffer = [0; 1024];
    for _ in messages {
        let read = relay.recv(&mut buffer)?;
        held.push(buffer[..read].to_vec());
    }
    held.sort_by(|one, other| other.cmp(one)); // The later one first.
    let mut received = Vec::new();
    for datagram in &held {
        relay.send_to(datagram, receiver.local_addr()?)?;
        received.push(receive(&receiver, &flow, 1024, which)?);
    }
    stage.draw(&flow)?;
    let told: Vec<_> = received.iter().map(|one| String::from_utf8_lossy(one)).collect();
    stage.show(("In the order of arrival", "按到达的次序"), told.join("\n").as_bytes())?;
    stage.fact(
        received[0] == messages[1].as_bytes() && received[1] == messages[0].as_bytes(),
        (
            "2 came before 1, and both recvfrom found nothing wrong with it",
            "2 先于 1 到达，而两次 recvfrom 都不觉得有什么不对",
        ),
    )?;
    received.sort();
    stage.fact(
        received.concat() == messages.concat().as_bytes(),
        ("a number in front of each message lets the receiver restore the order and see \
            gaps; TCP's \
            sequence numbers do just that",
        "在每条消息前加上序号，接收方就能恢复次序、发现缺口；TCP 的序号（sequence number）做的正是这件事"),
    )
}

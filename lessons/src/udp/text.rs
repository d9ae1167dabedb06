//! The texts of the lesson `udp`.

use std::net::SocketAddr;

use crate::language::{ConstText, Text, text};

pub(super) const ONLY_SENT: ConstText =
    ("only datagrams of the sender arrive", "收到的都是发送方发出的数据报");

pub(super) const BOUNDARIES: ConstText =
    ("One send, one datagram, one recvfrom", "一次发送，一个数据报，一次 recvfrom");

pub(super) const THREE_MESSAGES: ConstText = (
    "Three messages: first sendto three times, and only then recvfrom(1024) three times.",
    "三条消息：先是三次 sendto，然后才是三次 recvfrom(1024)。",
);

pub(super) const ONE_DATAGRAM_PER_CALL: ConstText = (
    "Each call returned one datagram and no byte of another, though its buffer had room for all.",
    "每次调用返回一个数据报，绝不带上别的数据报的字节，尽管缓冲区装得下全部。",
);

pub(super) const UDP_HAS_BOUNDARIES: ConstText =
    ("UDP keeps the boundaries of messages: nothing sticks together", "UDP 保留消息边界：没有粘包");

pub(super) const SAME_OVER_TCP: ConstText = (
    "Now the same three messages over TCP, all of them sent before the first recv(1024).",
    "现在让同样三条消息走 TCP，也是全部发完之后才第一次 recv(1024)。",
);

pub(super) const ALL_ARRIVED: ConstText = ("all three messages have arrived", "三条消息都已到达");

pub(super) fn tcp_is_a_stream(bytes: usize) -> Text {
    text!(
        "one recv(1024) returned all {bytes} bytes: TCP is a stream of bytes and knows no messages",
        "一次 recv(1024) 就返回全部 {bytes} 字节：TCP 是字节流，不知道什么是消息"
    )
}

pub(super) const EMPTY_DATAGRAM: ConstText = (
    "even an empty datagram arrives: here 0 bytes are a message, not the end as with TCP",
    "连空数据报也会到达：这里的 0 字节是一条消息，不像 TCP 那样表示结束",
);

pub(super) const SMALL_BUFFER: ConstText = ("A buffer that is too small", "缓冲区太小");

pub(super) const TWO_DATAGRAMS: ConstText = (
    "A datagram of 26 bytes, then a short one; the receiver offers a buffer of 10 bytes each time.",
    "先是一个 26 字节的数据报，后面跟一个短的；接收方每次只给出 10 字节的缓冲区。",
);

pub(super) const ALPHABET: ConstText = ("alphabet", "字母表");

pub(super) const FIRST_ARRIVED: ConstText = ("the first datagram has arrived", "第一个数据报到了");

pub(super) const FIRST_CALL: ConstText = ("First recvfrom(10)", "第一次 recvfrom(10)");

pub(super) const SECOND_CALL: ConstText = ("Second recvfrom(10)", "第二次 recvfrom(10)");

pub(super) const REST_IS_LOST: ConstText = (
    "The second call does not continue with K, as it would with TCP. What did not fit is lost, \
     without any error.",
    "第二次调用并没有从 K 接着读——换成 TCP 才会。装不下的部分没有了，也没有报错。",
);

pub(super) const TRUNCATED: ConstText = (
    "a buffer of 10 bytes truncated a datagram of 26; the next recvfrom got the next datagram",
    "10 字节的缓冲区截断了 26 字节的数据报；下一次 recvfrom 得到的是下一个数据报",
);

pub(super) const ARRIVED: ConstText = ("the datagram has arrived", "数据报到了");

pub(super) fn real_size(size: usize) -> Text {
    text!(
        "MSG_TRUNC returns the real size, {size}; with MSG_PEEK a program can ask first and then \
         read with a buffer that fits",
        "MSG_TRUNC 会返回真实长度 {size}；加上 MSG_PEEK，就可以先问长度，再用足够大的缓冲区读取"
    )
}

pub(super) const RECV_AND_RECVFROM: ConstText = ("recv and recvfrom", "recv 与 recvfrom");

pub(super) const ONE_SOCKET: ConstText = (
    "A UDP server has no accept: the datagrams of all clients arrive at one socket.",
    "UDP 服务器没有 accept：所有客户端的数据报都到达同一个套接字。",
);

pub(super) fn recvfrom_names_sender(sender: SocketAddr) -> Text {
    text!(
        "recvfrom also returns the sender's address, here {sender}: without it a server could not \
         answer",
        "recvfrom 还会返回发送方的地址，这里是 {sender}：不知道这一点，服务器就无法回答"
    )
}

pub(super) const STRANGER_REFUSED: ConstText = (
    "a connected UDP socket receives only from its peer: for a stranger the port is closed (ICMP \
     port unreachable, reported as ECONNREFUSED)",
    "已连接（connect 过）的 UDP 套接字只接收对端的数据报：对陌生人来说，这个端口是关闭的（ICMP 端\
     口不可达，以 ECONNREFUSED 报告）",
);

pub(super) const ERROR_COMES_LATER: ConstText = (
    "The stranger's send succeeded; the next call reported the error. It did so only because the \
     stranger had called connect as well: an unconnected socket gets no such report.",
    "陌生人的 send 是成功的，错误到下一次调用才报告。而且只因为陌生人自己也 connect 过，才会得知；\
     未连接的套接字什么都不知道。",
);

pub(super) const SEND_AND_RECV_SUFFICE: ConstText = (
    "on a connected socket send and recv suffice: both ends are known",
    "在已连接的套接字上，send 和 recv 就够了：两端都是已知的",
);

pub(super) const RECVFROM_ON_TCP: ConstText = (
    "on TCP recvfrom works, but returns no address: accept and getpeername have given it already",
    "对 TCP 套接字也可以用 recvfrom，但它不给出地址：对方是谁，accept 或 getpeername 早已说明",
);

pub(super) const LOSS: ConstText = ("Loss", "丢失");

pub(super) const FASTER_SENDER: ConstText = (
    "A sender that is faster than the receiver: numbered datagrams of 1,000 bytes fill a receive \
     buffer of a few kilobytes, and the receiver does not read.",
    "发送方比接收方快：一个个编了号、每个 1000 字节的数据报，送进一个只有几千字节的接收缓冲区，而\
     接收方一直没有读。",
);

pub(super) const SMALL_RECEIVE_BUFFER: ConstText =
    ("UDP into a small receive buffer", "UDP，接收缓冲区很小");

pub(super) const ARRIVED_OR_DROPPED: ConstText =
    ("every datagram has arrived or was dropped", "每个数据报不是到达就是被丢弃");

pub(super) const NUMBERS_ARRIVED: ConstText = ("The datagrams that arrived", "到达的数据报");

pub(super) fn full_after(sent: usize, arrived: usize, lost: usize) -> Text {
    text!(
        "All {sent} sends succeeded. The receiver did not read, its buffer was full after \
         {arrived} datagrams, and the kernel dropped the others: it counts {lost} (SO_MEMINFO).",
        "{sent} 次发送，每一次都成功了。接收方没有读，收到 {arrived} 个后接收缓冲区就满了，其余的\
         被内核丢弃：它记下了 {lost} 个（SO_MEMINFO）。"
    )
}

pub(super) const SENDER_DOES_NOT_KNOW: ConstText = (
    "the sender knows nothing of it: with UDP the program itself must notice losses and send again",
    "发送方毫不知情：用 UDP 时，发现丢失、重新发送，都是程序自己的事",
);

pub(super) const ORDER: ConstText = ("Order", "次序");

pub(super) const RELAY: ConstText = (
    "On a network two datagrams may take two paths, and the later one may arrive first. Loopback \
     has only one path, so this lesson puts a small relay in between: it receives both and \
     forwards the later one first.",
    "在网络上，两个数据报可能走不同的路径，后发的先到。环回接口（loopback）只有一条路，所以这里在\
     中间放一个我们自己写的小中继（relay）：它收下两个，先转发后一个。",
);

pub(super) const RELAY_FLOW: ConstText = ("through a relay that swaps", "经过一个调换次序的中继");

pub(super) const ORDER_OF_ARRIVAL: ConstText = ("In the order of arrival", "按到达的次序");

pub(super) const REORDERED: ConstText = (
    "2 arrived before 1, and recvfrom reported no error",
    "2 先于 1 到达，而 recvfrom 没有报任何错",
);

pub(super) const NUMBERS_RESTORE_ORDER: ConstText = (
    "with a number before each message the receiver can restore the order and see gaps; TCP's \
     sequence numbers do just that",
    "在每条消息前加上序号，接收方就能恢复次序、发现缺口；TCP 的序号（sequence number）做的正是这件\
     事",
);

//! The texts of the lesson `sticky`.

use crate::language::{ConstText, Text, counted, text};

pub(super) const GLUED_BY_THE_RECEIVER: ConstText =
    ("Small messages stick together in the receive buffer", "小消息在接收缓冲区里粘在一起");

pub(super) const ALL_WAITING: ConstText =
    ("all messages are in the receive buffer", "所有消息都进了接收缓冲区");

pub(super) fn waiting(messages: usize, bytes: usize) -> Text {
    text!(
        "The client called send() {messages} times. Before the server called recv(), {bytes} bytes \
         were waiting in its receive buffer (according to SIOCINQ).",
        "客户端调用了 {messages} 次 send()。等服务器去 recv() 时，它的接收缓冲区（receive buffer）\
         里已经有 {bytes} 字节（由 SIOCINQ 查得）。"
    )
}

pub(super) const ONE_RECV: ConstText = ("one recv() returned", "一次 recv() 返回");

pub(super) const NO_BORDERS: ConstText = (
    "At the top: one block for each send(). At the bottom: a single block. The borders between the \
     messages are gone; nothing in the bytes says where they were.",
    "最上面一行：每次 send() 一块。最下面一行：只有一块。消息之间的边界消失了，字节里没有任何东西\
     能说明边界在哪里。",
);

pub(super) fn stuck_together(messages: usize) -> Text {
    text!(
        "{messages} messages, 1 recv(): 粘包, stuck together",
        "{messages} 条消息，1 次 recv()：这就是粘包（sticky packets）"
    )
}

pub(super) const GLUED_BY_THE_SENDER: ConstText = (
    "The sender's kernel glues messages together as well: Nagle and TCP_CORK",
    "发送方的内核也会粘：Nagle 算法与 TCP_CORK",
);

pub(super) const ALL_ARRIVED: ConstText = ("all messages have arrived", "所有消息都已到达");

pub(super) const SENDER_HOLDS_BYTES: ConstText =
    ("the sender's kernel holds small writes back", "发送方的内核攒住小数据");

pub(super) const NAGLE_AND_CORK: ConstText = (
    "Nagle's algorithm holds small writes back while earlier bytes are not acknowledged, to send \
     them in one segment. On loopback acknowledgements come at once, so this lesson holds the \
     bytes back with TCP_CORK; the effect is the same.",
    "只要之前的字节还没有被确认（ACK），Nagle 算法就会攒着后面的小数据，合成一个报文段（segment）\
     再发。环回（loopback）上确认来得太快，看不出来，所以我们用 TCP_CORK 把数据攒住；效果是一样\
     的。",
);

pub(super) fn corked(messages: usize, held: usize, arrived: usize, segments: usize) -> Text {
    let total = held + arrived;
    let english = counted(segments, "segment");
    text!(
        "After {messages} calls of send() the sender's kernel held {held} bytes back, and \
         {arrived} had arrived. Without the cork, the {total} bytes left in {english} (according \
         to TCP_INFO).",
        "{messages} 次 send() 之后，发送方内核里攒着 {held} 字节，对方收到 {arrived} 字节。拔掉“塞\
         子”，{total} 字节装在 {segments} 个报文段里发出（由 TCP_INFO 查得）。"
    )
}

pub(super) fn fewer_segments(messages: usize, segments: usize) -> Text {
    let english = counted(segments, "segment");
    text!(
        "{messages} writes, {english}: TCP_NODELAY prevents this, but not what happens in the \
         receive buffer",
        "{messages} 次写，{segments} 个报文段：TCP_NODELAY 能避免这一处粘合，却管不了接收缓冲区那\
         一处"
    )
}

pub(super) const SPLIT_ANSWER: ConstText = (
    "A large answer is split, and its rest answers the next command",
    "大消息被拆开（半包），剩下的部分冒充下一条命令的结果",
);

pub(super) const ANSWER_ARRIVED: ConstText = ("the answer has arrived", "回答已到达");

pub(super) fn naive_client(recv_size: usize) -> Text {
    text!(
        "A server runs every command that it receives. A client asks three times: send(command), \
         recv({recv_size}). It takes one recv() for one answer, as if it were a message.",
        "服务器执行收到的每条命令。客户端问三次：send(命令)、recv({recv_size})。它把一次 recv() 当\
         成一条完整的回答。"
    )
}

pub(super) fn asked(command: &str) -> Text {
    text!("asked `{command}`, received", "问 `{command}`，收到")
}

pub(super) fn left_over(command: &str, size: u64, taken: usize) -> Text {
    let left = size - taken as u64;
    text!(
        "The answer to `{command}` has {size} bytes; the first recv() took {taken}. The other \
         {left} stayed in the socket, before everything that follows: they answered `ps`.",
        "`{command}` 的结果有 {size} 字节，第一次 recv() 只取走了 {taken} 字节。剩下的 {left} 字节\
         留在套接字里，排在后面所有数据的前面：`ps` 得到的回答就是它们。"
    )
}

pub(super) const LEFTOVERS_ANSWERED: ConstText = (
    "the second command was answered with the first one's leftovers",
    "第二条命令得到的，是第一条命令剩下的结果",
);

pub(super) const LARGER_RECV: ConstText = (
    "A larger recv() only postpones the problem: how large would be large enough? And from now on \
     each recv() begins with what the one before left.",
    "把 recv() 的参数改大，只是推迟问题：多大才算够？而且从此每一次 recv() 都从上一次剩下的地方读\
     起。",
);

pub(super) const CONCLUSION: ConstText = (
    "TCP has done nothing wrong: it promised a stream of bytes in order, and delivered it. The \
     error is the application's, which took one recv() for one message. It must say itself where a \
     message ends: see the lessons length-first and fixed-header.",
    "TCP 没有做错任何事：它承诺的是有序的字节流（byte stream），也做到了。错在应用程序：把一次 \
     recv() 当成一条消息。消息到哪里结束，必须由应用程序自己说明：见 length-first 与 fixed-header \
     两课。",
);

pub(super) fn bad_sizes(max_bytes: usize) -> Text {
    text!(
        "--sizes needs at least two messages, of at most {max_bytes} bytes in total",
        "--sizes 至少要写两条消息，加起来不超过 {max_bytes} 字节"
    )
}

pub(super) fn answer_too_small(command: &str, size: usize, recv_size: usize) -> Text {
    let english = counted(size, "byte");
    text!(
        "'{command}' prints {english}, and one recv({recv_size}) takes them all; choose a command \
         that prints more, or a smaller --recv",
        "'{command}' 只输出 {size} 字节，一次 recv({recv_size}) 就全部取走；请换一条输出更多的命\
         令，或把 --recv 改小"
    )
}

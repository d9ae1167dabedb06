//! The texts of the lesson `partial`.

use std::io;

use crate::language::{ConstText, Text, text};

pub(super) const NAIVE_PROGRAM: ConstText =
    ("A program that ignores what send returns", "一个不看 send 返回值的程序");

pub(super) const NAIVE_FLOW: ConstText = ("naive sender → receiver", "粗心的发送方 → 接收方");

pub(super) const LINES: ConstText = ("lines", "数字行");

pub(super) fn one_send(total: usize, taken: usize) -> Text {
    text!(
        "The socket is non-blocking. One send was given {total} bytes and returned {taken}: the \
         send buffer had room for no more.",
        "套接字是非阻塞（non-blocking）的。一次 send 交给它 {total} 字节，返回 {taken}：发送缓冲区\
         （send buffer）只装得下这么多。"
    )
}

pub(super) const ONLY_A_PART: ConstText = ("send took only a part", "send 只收下了一部分");

pub(super) const BUFFER_EMPTY: ConstText = ("the send buffer is empty", "发送缓冲区已空");

pub(super) const LAST_BYTES: ConstText = ("The last bytes that arrived", "最后到达的字节");

pub(super) const NO_ERROR: ConstText = (
    "The lines stop in the middle, END follows directly, and no call reported an error.",
    "数字行在中途断掉，后面紧跟着 END，而且没有任何一次调用报错。",
);

pub(super) fn never_sent(lost: usize, total: usize) -> Text {
    text!(
        "{lost} of {total} bytes were never sent, and neither side noticed",
        "{total} 字节中有 {lost} 字节根本没有发出，而收发双方都没有察觉"
    )
}

pub(super) const FULL_BUFFER: ConstText = ("A full buffer: EAGAIN", "缓冲区满了：EAGAIN");

pub(super) const SEND_RETURNED: ConstText = (
    "What send returned, call after call, while the receiver did not read",
    "接收方不读时，send 各次的返回值",
);

pub(super) fn calls(taken: &[usize], error: &io::Error) -> Text {
    text!("{taken:?}, then: {error}", "{taken:?}，然后：{error}")
}

pub(super) const NOT_NOW: ConstText = (
    "a full buffer is not an error of the connection: EAGAIN means 'not now'",
    "缓冲区满并不是连接出错：EAGAIN 的意思是“现在不行”",
);

pub(super) const BUFFERS_HOLD_ALL: ConstText =
    ("the two buffers together hold every byte", "两个缓冲区合起来正好是这些字节");

pub(super) fn where_bytes_are(total: usize, sent: usize, arrived: usize) -> Text {
    text!(
        "Where the {total} bytes are: {arrived} in the receive buffer (SIOCINQ), {sent} in the \
         send buffer (SIOCOUTQ). Both are full.",
        "这 {total} 字节在哪里：接收缓冲区（receive buffer）里 {arrived}（SIOCINQ），发送缓冲区里 \
         {sent}（SIOCOUTQ）。两个都满了。"
    )
}

pub(super) fn room_again(taken: usize) -> Text {
    text!(
        "the receiver has read, poll reports room, and send takes {taken} more",
        "接收方读走了数据，poll 报告有了空间，send 又收下 {taken} 字节"
    )
}

pub(super) const SEND_TIMEOUT: ConstText =
    ("A blocking socket with a timeout", "带超时的阻塞套接字");

pub(super) const BLOCKING_SEND: ConstText = (
    "A blocking send waits until everything is in the buffer, so it usually takes all of it and \
     the bug stays hidden. A timeout or a signal ends the wait early.",
    "阻塞的 send 会一直等到数据全部放进缓冲区，所以平时它总是全部收下，问题就被掩盖了。超时或信号\
     会让等待提前结束。",
);

pub(super) fn timed_out(taken: usize, total: usize) -> Text {
    text!(
        "the receiver does not read, the time is up: a blocking send also returns {taken} of \
         {total}",
        "接收方不读，时间到了：阻塞的 send 同样只返回 {taken}（共 {total}）"
    )
}

pub(super) const SENDALL_FAILS: ConstText = (
    "sendall fails as well, and does not say how much it has sent: the connection can only be \
     closed",
    "sendall 也会失败，而且不说已经发出多少：这样的连接只能关闭",
);

pub(super) const SEND_ALL: ConstText =
    ("The fix: send the rest until there is none", "解决办法：把剩下的接着发，直到发完");

pub(super) const CAREFUL_FLOW: ConstText = ("careful sender → receiver", "细心的发送方 → 接收方");

pub(super) fn sends_and_waits(calls: usize, waits: usize) -> Text {
    text!(
        "{calls} calls of send took data, and poll waited {waits} times for room. Each time the \
         loop continued after the last byte taken.",
        "{calls} 次 send 收下了数据，其间用 poll 等了 {waits} 次空间。每一次都从上次收下的最后一个\
         字节之后接着发。"
    )
}

pub(super) fn all_arrived(total: usize) -> Text {
    text!(
        "all {total} bytes arrived, in order, none twice",
        "{total} 字节全部到达，次序不变，没有重复"
    )
}

pub(super) const WRITE_ALL: ConstText = (
    "write_all on a blocking socket does the same in one line (Python: sendall); use that one",
    "对阻塞套接字调用 write_all，一行代码就做到了（Python 里叫 sendall）；平时就该用它",
);

//! The texts of the lesson `loop`.

use std::io::ErrorKind;

use crate::language::{ConstText, Text, text};

pub(super) const TWO_LOOPS: ConstText = ("A loop on both sides", "两边各一个循环");

pub(super) fn echoes(echoes: &[String]) -> Text {
    Text::new(
        format!(
            "Each side sends, then receives, again and again on the same connection. The echoes: \
             {}.",
            echoes.join(", ")
        ),
        format!("双方在同一条连接上反复地发、收。回声依次是：{}。", echoes.join("、")),
    )
}

pub(super) const THREE_ECHOES: ConstText = (
    "three messages, three echoes: while each side waits for the answer, nothing sticks together",
    "三条消息，三个回声：只要每次都等到回答再发，就不会粘在一起",
);

pub(super) const EMPTY_MESSAGE: ConstText =
    ("Only Enter was pressed: the empty message", "只按了回车：空消息");

pub(super) fn nothing_sent(written: usize, segments: u32, sent: usize, arrived: usize) -> Text {
    text!(
        "`send(b\"\")` returned {written}. Segments with data sent: {segments}. Bytes on the way: \
         {sent}. Bytes in the server's receive buffer: {arrived}.",
        "`send(b\"\")` 返回 {written}。发出的数据段：{segments} 个；在途字节：{sent}；服务器接收缓\
         冲区（receive buffer）里：{arrived} 字节。"
    )
}

pub(super) const NOTHING_ON_THE_WIRE: ConstText =
    ("an empty message puts nothing on the wire", "空消息不会在线路上产生任何东西");

pub(super) const BOTH_HANG: ConstText = (
    "The server waits in recv() for a message that was never sent; the client waits in recv() for \
     the answer to it. Both wait forever: the program hangs.",
    "服务器在 recv() 里等一条从未发出的消息；客户端在 recv() 里等它的回答。双方永远等下去：程序就\
     这样卡死（hang）了。",
);

pub(super) fn timed_out(milliseconds: u128) -> Text {
    text!(
        "only a time limit of {milliseconds} ms ended the two recv() calls: neither had received a \
         byte",
        "两个 recv() 都靠 {milliseconds} 毫秒的超时（timeout）才结束，一个字节也没收到"
    )
}

pub(super) const SEND_A_HEADER: ConstText = (
    "A beginner's fix: do not send empty messages. The real fix: put a header before every \
     message. A message of length 0 then still has a header of 4 or 12 bytes, and that arrives.",
    "初学者的办法：不发空消息。真正的办法：每条消息前加消息头（header）。长度为 0 的消息也有 4 或 \
     12 字节的头，能够送达。",
);

pub(super) const END_OF_STREAM: ConstText = (
    "The client is gone: recv() returns 0, again and again",
    "客户端走了：recv() 一次又一次返回 0",
);

pub(super) const NAIVE_LOOP: ConstText = (
    "The client said bye and closed its socket. The naive server's loop goes on: recv(), recv(), \
     recv() …",
    "客户端说完 bye 就关闭了连接。不做判断的服务器还在循环：recv()、recv()、recv()……",
);

pub(super) fn spinning(empty_reads: usize) -> Text {
    text!(
        "None of these {empty_reads} calls waited: at the end of a stream recv() returns 0 bytes \
         at once. A naive server spins and keeps a processor busy for nothing.",
        "这 {empty_reads} 次调用没有一次在等待：流（stream）到了尽头，recv() 立刻返回 0 字节。不做\
         判断的服务器会空转（busy loop），白白占满一个 CPU 核。"
    )
}

pub(super) fn spun(empty_reads: usize, micros: u128) -> Text {
    text!(
        "{empty_reads} reads of 0 bytes, in {micros} µs",
        "{empty_reads} 次读到 0 字节，共用 {micros} 微秒"
    )
}

pub(super) const ECHO_UNREAD: ConstText =
    ("the echo has arrived and is unread", "回声已到，还没有读");

pub(super) const RESET: ConstText =
    ("The client has crashed: connection reset", "客户端崩溃了：连接被重置");

pub(super) fn reset(kind: ErrorKind) -> Text {
    text!(
        "The client ended before it had read the echo: its receive buffer still held bytes, so its \
         kernel sent RST instead of FIN. The naive server's recv() failed: {kind} (ECONNRESET). \
         The server did not catch the error, so its loop ended and its listening socket was \
         closed.",
        "客户端没读回声就退出了：缓冲区里还有没读的字节，所以它的内核发出的不是 FIN，而是 RST。不\
         做处理的服务器，recv() 报错：{kind}（ECONNRESET，连接被重置）。服务器没有捕获这个错误，循\
         环结束，监听套接字也随之关闭。"
    )
}

pub(super) const SERVER_ENDED: ConstText = (
    "one client's crash ended the server: the next client was refused (ECONNREFUSED)",
    "一个客户端崩溃，整个服务器跟着退出：下一个客户端被拒绝连接（ECONNREFUSED）",
);

pub(super) const NEXT_CLIENT: ConstText =
    ("The server goes on to the next client", "服务器继续为下一个客户端服务");

pub(super) fn ends(ends: &[Option<ErrorKind>]) -> Text {
    let end = |end: &Option<ErrorKind>| match end {
        None => ("end of file".to_owned(), "正常结束（end of file）".to_owned()),
        Some(kind) => (kind.to_string(), format!("出错（{kind}）")),
    };
    let (english, chinese): (Vec<_>, Vec<_>) = ends.iter().map(end).unzip();
    let (english, chinese) = (english.join("; "), chinese.join("；"));
    text!(
        "The first two conversations ended with: {english}. The third client was answered.",
        "前两次会话的结局：{chinese}。第三个客户端照样得到了回答。"
    )
}

pub(super) const TWO_LINES: ConstText = (
    "Two lines make the difference: `if count == 0` ends the inner loop, and an error of one \
     client ends only that client's loop, never the outer one.",
    "差别只在两行：`if count == 0` 结束内层循环；某个客户端出错，只结束它自己的内层循环，绝不波及\
     外层循环。",
);

pub(super) const ONLY_CONVERSATIONS_END: ConstText = (
    "end of file and reset both ended one conversation, and neither ended the server",
    "无论是正常结束还是被重置，都只结束一次会话，不会结束服务器",
);

//! The texts of the lesson `concurrency`.

use super::trial::Event;
use crate::language::{ConstText, Text, text};

pub(super) fn flow(client: usize) -> Text {
    text!("client {client} → server", "客户端 {client} → 服务器")
}

pub(super) const QUESTION_ARRIVED: ConstText = (
    "the second client's question is in the server's receive buffer",
    "第二个客户端的问题进了服务器的接收缓冲区",
);

pub(super) const JOURNAL: ConstText = ("What happened, in this order", "按先后次序发生的事");

pub(super) fn events(journal: &[Event]) -> Text {
    Text::lines(journal.iter().map(|event| match event {
        Event::Asks(client) => text!("client {client} asks", "客户端 {client} 提问"),
        Event::Leaves(client) => text!("client {client} leaves", "客户端 {client} 离开"),
        Event::Accepts(client) => {
            text!("server accepts client {client}", "服务器 accept 客户端 {client}")
        }
        Event::Answers(client, thread) => text!(
            "server answers client {client} in {thread:?}",
            "服务器在线程 {thread:?} 里答复客户端 {client}"
        ),
    }))
}

pub(super) const SEQUENTIAL: ConstText = ("A sequential server", "顺序服务器（sequential server）");

pub(super) const SILENT_CLIENT: ConstText = (
    "accept, serve until the client leaves, accept the next. Client 1 gets its answer, stays and \
     is silent. Client 2 connects and asks.",
    "accept，服务到客户端离开，再 accept 下一个。客户端 1 得到答复后不走，也不再说话。这时客户端 2 \
     连接进来提问。",
);

pub(super) const NOT_ACCEPTED: ConstText = (
    "Client 2 could connect and send: its question was in the server's receive buffer. It was not \
     accepted, let alone answered, before client 1 left.",
    "客户端 2 能连接、能发送：它的问题已经在服务器的接收缓冲区里。但在客户端 1 离开之前，它没有被 \
     accept，更谈不上答复。",
);

pub(super) const BLOCKED: ConstText =
    ("one silent client blocked the other", "一个沉默的客户端阻塞（block）了另一个");

pub(super) const THREADS: ConstText = ("A thread for each client", "每个客户端一个线程（thread）");

pub(super) const ANSWERED_MEANWHILE: ConstText = (
    "client 2 has its answer while client 1 is still there",
    "客户端 1 还在，客户端 2 就已得到答复",
);

pub(super) const OWN_THREADS: ConstText = (
    "each was answered in a thread of its own; that of client 1 sleeps in recv and does not delay \
     client 2",
    "两者各在自己的线程里得到答复；服务客户端 1 的线程睡在 recv 里，不妨碍客户端 2",
);

pub(super) const TASKS: ConstText =
    ("An async task for each client", "每个客户端一个异步任务（async task）");

pub(super) const ONE_THREAD: ConstText = (
    "one thread answered both: when a task would have to wait, the thread runs another one (epoll \
     reports which can go on)",
    "两者由同一个线程答复：一个任务需要等待时，线程就去运行另一个任务（由 epoll 告知轮到谁）",
);

pub(super) const TIMED: ConstText = ("The same work, timed", "同样的工作，各用多少时间");

pub(super) fn work(clients: usize, milliseconds: u128) -> Text {
    text!(
        "{clients} clients come at once. For each the server waits {milliseconds} ms, as for a \
         disk or a command, and then answers.",
        "{clients} 个客户端同时到来。服务器为每个客户端等待 {milliseconds} 毫秒（好比等磁盘、等命\
         令），然后答复。"
    )
}

/// The names of the servers, each as wide as the others.
pub(super) const SERVERS: [ConstText; 4] = [
    ("sequential:     ", "顺序：          "),
    ("threads:        ", "线程：          "),
    ("async tasks:    ", "异步任务：      "),
    ("async, blocking:", "阻塞的异步任务："),
];

pub(super) const MEASURED: ConstText = ("Measured just now", "刚才实测的结果");

pub(super) fn time(server: ConstText, milliseconds: u128, at_once: usize) -> Text {
    let (english, chinese) = server;
    text!(
        "{english}{milliseconds:>6} ms, served at most {at_once} at once",
        "{chinese}{milliseconds:>6} 毫秒，同时服务最多 {at_once} 个"
    )
}

pub(super) fn one_at_a_time(clients: usize, milliseconds: u128) -> Text {
    text!(
        "the sequential server did one thing at a time, and so needed at least {clients} × \
         {milliseconds} ms",
        "顺序服务器一次只做一件事，因此至少要 {clients} × {milliseconds} 毫秒"
    )
}

pub(super) const BLOCKING_TASKS: ConstText = (
    "so did the async server whose tasks block the thread: async helps only if tasks await",
    "任务阻塞了线程的异步服务器也一样：只有 await，异步才有用",
);

pub(super) const WAITING_NOT_COMPUTING: ConstText = (
    "Threads and tasks wait for all clients at the same time. If the work were computing instead \
     of waiting, at most one client per processor would make progress at a time.",
    "线程和任务可以同时等待所有客户端。如果工作不是等待而是计算，那么同一时刻能推进的，最多也只有\
     处理器核数那么多。",
);

//! 粘包, seen and solved: a lesson for each topic of a first course about sockets, on real sockets
//! and real commands.
//!
//! A lesson is a function that does something with sockets and tells its [`Stage`] what really
//! happened. It shows what it received, never what it expected, and it fails if the phenomenon or
//! the cure did not show.

mod flow;
mod kernel;
mod language;
mod layout;
mod options;
mod page;
mod picture;
mod print;
mod random;
mod real_session;
mod runner;
mod segments;
mod shell;
mod sockets;
mod stage;
mod wrap;

mod auth;
mod concurrency;
mod echo_loop;
mod fixed_header;
mod length_first;
mod partial;
mod phone;
mod reuse;
mod sticky;
mod udp;
mod unix;
mod wire;

pub use flow::{Carrier, Flow, KEPT, Message, Record, Step, Watched, What};
pub use language::{Language, Text};
pub use options::Options;
pub use page::{PageError, PageTarget, index, page};
pub use print::{ColorChoice, OutputFormat, list_lessons};
pub use real_session::{CommandOutput, RealSession, RunLine};
pub use runner::{LessonReport, UnknownLesson, run_lessons, select_lessons};
pub use stage::{Item, LessonError, LessonResult, Stage};

/// One lesson.
#[derive(Debug, Clone, Copy)]
pub struct Lesson {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows, in one line.
    pub title: (&'static str, &'static str),
    teach: fn(&mut Stage) -> LessonResult,
}

impl Lesson {
    /// Whether it needs [`Options::real_session`].
    pub fn needs_real_session(&self) -> bool {
        self.name == "wire"
    }
}

/// All lessons, in the order in which they build on each other.
pub const LESSONS: &[Lesson] = &[
    Lesson {
        name: "phone",
        title: ("one client, one server, one exchange", "打电话：一个客户端、一个服务器、一问一答"),
        teach: phone::teach,
    },
    Lesson {
        name: "loop",
        title: (
            "many messages, the empty one, and how a conversation ends",
            "通信循环：多条消息、空消息、连接的结束",
        ),
        teach: echo_loop::teach,
    },
    Lesson {
        name: "reuse",
        title: (
            "why a port is still taken: TIME_WAIT; the backlog, filled",
            "端口为什么还被占用：TIME_WAIT；把 backlog 填满",
        ),
        teach: reuse::teach,
    },
    Lesson {
        name: "partial",
        title: (
            "send against sendall: a full send buffer takes only part",
            "send 与 sendall：发送缓冲区满了就只收下一部分",
        ),
        teach: partial::teach,
    },
    Lesson {
        name: "sticky",
        title: (
            "粘包: messages that stick together and come apart",
            "粘包：粘在一起、又被拆开的消息",
        ),
        teach: sticky::teach,
    },
    Lesson {
        name: "length-first",
        title: (
            "the early cure: length, acknowledgement, data",
            "先发长度：早期的办法，长度、确认、数据",
        ),
        teach: length_first::teach,
    },
    Lesson {
        name: "fixed-header",
        title: (
            "the cure: a header of fixed size in front of every message",
            "定长消息头：粘包的根治办法",
        ),
        teach: fixed_header::teach,
    },
    Lesson {
        name: "udp",
        title: (
            "datagrams: whole, cut, lost or swapped; recv and recvfrom",
            "数据报：完整、截断、丢失、乱序；recv 与 recvfrom",
        ),
        teach: udp::teach,
    },
    Lesson {
        name: "unix",
        title: (
            "two processes on one machine; the address is a file",
            "同一台机器上的两个进程；地址是一个文件",
        ),
        teach: unix::teach,
    },
    Lesson {
        name: "auth",
        title: (
            "HMAC challenge and response: attacks, and what stops each",
            "HMAC 挑战与应答：几种攻击，以及各自的对策",
        ),
        teach: auth::teach,
    },
    Lesson {
        name: "concurrency",
        title: (
            "many clients: one after the other, threads, async tasks",
            "许多客户端：顺序、线程、异步任务",
        ),
        teach: concurrency::teach,
    },
    Lesson {
        name: "wire",
        title: (
            "a real session of labsh, message by message, chopped and glued",
            "真实的 labsh 会话：逐条消息，切碎、粘连都不怕",
        ),
        teach: wire::teach,
    },
];

//! `labsh lesson`: lessons about sockets, for a first course, that run on real sockets and real
//! commands.
//!
//! A lesson is a folder: `mod.rs` has the socket calls, `text.rs` the English and Chinese texts.
//! Its function `run` does something with sockets and shows the results on a `Stage`. A lesson
//! shows what was received, not what was expected, and fails if a fact that it states does not
//! hold.
//!
//! Lessons use `sockets` (pairs, queues, waiting), `kernel` (TCP_INFO), `flow` (records calls),
//! `segments` (the bytes of a segment) and `language` (texts).

mod flow;
mod format;
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

pub use flow::{Carrier, Message, Record, Step, StepKind};
pub use format::{ColorChoice, OutputFormat};
pub use language::{Language, Text};
pub use options::Options;
pub use page::{PageError, PageTarget};
pub use print::list_lessons;
pub use real_session::{CommandOutput, RealSession, RunLine};
pub use runner::{LessonReport, UnknownLesson, run_lessons, select_lessons};
pub use stage::{Item, LessonError, LessonResult};

/// One lesson.
#[derive(Debug, Clone, Copy)]
pub struct Lesson {
    /// Its name on the command line.
    pub name: &'static str,
    title: language::ConstText,
    run: fn(&mut stage::Stage) -> LessonResult,
}

impl Lesson {
    /// What the lesson shows, in one line.
    pub fn title(&self, language: Language) -> &'static str {
        match language {
            Language::English => self.title.0,
            Language::Chinese => self.title.1,
        }
    }

    /// Whether the lesson needs [`Options::real_session`].
    pub fn needs_real_session(&self) -> bool {
        self.name == "wire"
    }
}

/// All lessons, each after those that it builds on.
pub const LESSONS: &[Lesson] = &[
    Lesson {
        name: "phone",
        title: ("one client, one server, one exchange", "打电话：一个客户端、一个服务器、一问一答"),
        run: phone::run,
    },
    Lesson {
        name: "loop",
        title: (
            "many messages, an empty one, and how a connection ends",
            "通信循环：多条消息、空消息、连接的结束",
        ),
        run: echo_loop::run,
    },
    Lesson {
        name: "reuse",
        title: (
            "why a port is still in use: TIME_WAIT; filling the backlog",
            "端口为什么还被占用：TIME_WAIT；把 backlog 填满",
        ),
        run: reuse::run,
    },
    Lesson {
        name: "partial",
        title: (
            "send and sendall: a full send buffer takes only a part",
            "send 与 sendall：发送缓冲区满了就只收下一部分",
        ),
        run: partial::run,
    },
    Lesson {
        name: "sticky",
        title: (
            "粘包: messages that stick together and come apart",
            "粘包：粘在一起、又被拆开的消息",
        ),
        run: sticky::run,
    },
    Lesson {
        name: "length-first",
        title: (
            "an early fix: length, acknowledgement, data",
            "先发长度：早期的办法，长度、确认、数据",
        ),
        run: length_first::run,
    },
    Lesson {
        name: "fixed-header",
        title: (
            "the fix: a header of fixed size before every message",
            "定长消息头：粘包的根治办法",
        ),
        run: fixed_header::run,
    },
    Lesson {
        name: "udp",
        title: (
            "datagrams: whole, truncated, lost or reordered; recv and recvfrom",
            "数据报：完整、截断、丢失、乱序；recv 与 recvfrom",
        ),
        run: udp::run,
    },
    Lesson {
        name: "unix",
        title: (
            "two processes on one machine; the address is a file",
            "同一台机器上的两个进程；地址是一个文件",
        ),
        run: unix::run,
    },
    Lesson {
        name: "auth",
        title: (
            "HMAC challenge and response: attacks, and what stops each",
            "HMAC 挑战与应答：几种攻击，以及各自的对策",
        ),
        run: auth::run,
    },
    Lesson {
        name: "concurrency",
        title: (
            "many clients: one after another, in threads, in async tasks",
            "许多客户端：顺序、线程、异步任务",
        ),
        run: concurrency::run,
    },
    Lesson {
        name: "wire",
        title: (
            "a real labsh session, message by message, chopped up and glued",
            "真实的 labsh 会话：逐条消息，切碎、粘连都不怕",
        ),
        run: wire::run,
    },
];

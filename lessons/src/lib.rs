//! 粘包, seen and solved: a lesson for each topic of a first course about sockets, on real sockets and real commands.
//!
//! A lesson is a function that does something with sockets and tells its [`Stage`] what really happened. It shows what
//! it received, never what it expected, and it fails if the phenomenon or the cure did not show.

mod class;
mod flow;
mod layout;
mod options;
mod picture;
mod print;
#[allow(dead_code)] // Each lesson takes what it needs.
mod sockets;
mod stage;
mod words;
mod wrap;

mod sticky;

pub use class::{Given, Unknown, chosen, give};
pub use flow::{Flow, KEPT, Message, Record, Step, Watched, What};
pub use options::Options;
pub use print::{Look, list};
pub use stage::{Item, Stage, Taught, Trouble};
pub use words::{Language, Words};

/// One lesson.
#[derive(Debug, Clone, Copy)]
pub struct Lesson {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows, in one line.
    pub title: (&'static str, &'static str),
    teach: fn(&mut Stage) -> Taught,
}

/// All lessons, in the order in which they build on each other.
pub const LESSONS: &[Lesson] = &[Lesson {
    name: "sticky",
    title: ("粘包: messages that stick together and come apart", "粘包：粘在一起、又被拆开的消息"),
    teach: sticky::teach,
}];

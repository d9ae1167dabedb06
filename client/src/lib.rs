//! A client for labshd: runs commands on hosts, with an API like `tokio::process::Command`.
//!
//! ```no_run
//! use labsh_client::{Address, ConnectOptions, Session};
//! # use labsh_proto::key::{HostId, Key};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let key = Key::from_line(&std::fs::read_to_string("alice.key")?)?;
//! let address = Address::Tcp { host: "lab07".into(), port: 5274 };
//! let options = ConnectOptions::new(address, key.for_host(&HostId::new("lab07")?));
//! let session = Session::connect(&options).await?;
//!
//! let mut command = session.command("grep");
//! let output = command.arg("-c").arg("processor").arg("/proc/cpuinfo").output().await?;
//! println!("{} processors", String::from_utf8_lossy(&output.stdout).trim());
//! # Ok(())
//! # }
//! ```
//!
//! Any number of commands run on one session at the same time. A [`Child`] that is dropped before
//! its command ends makes the host end the command.

pub mod agent;
pub mod config;
pub mod fanout;
pub mod keys;
pub mod terminal_text;

mod child;
mod command;
mod connect;
mod connection;
mod error;
mod exit_status;
mod liveness;
mod progress;
mod read_loop;
mod session;

pub use child::{Child, ChildStderr, ChildStdin, ChildStdout, SIGINT, SIGTERM, Stdio};
pub use command::{Command, CommandOptions};
pub use config::{inventory, overrides, target};
pub use connect::{Address, ConnectOptions, ReadLimiter};
pub use error::{BadSignal, CommandError, ConnectError};
pub use exit_status::{ExitStatus, Output};
pub use keys::{key_file, key_store};
pub use labsh_proto as proto;
pub use labsh_transport::socket::AddressFamily;
pub use session::Session;

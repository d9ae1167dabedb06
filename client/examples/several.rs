//! Runs several commands at once on one session of the library:
//!
//! ```sh
//! cargo run -p labsh-client --example several -- lab07
//! ```
//!
//! The key, the port and all other settings are those of `labsh run`.

use labsh_client::config::Config;
use labsh_client::overrides::ConnectionOverrides;
use labsh_client::target::Target;
use labsh_client::{ConnectOptions, Session, Stdio, key_file};
use tokio::io::AsyncWriteExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target: Target = std::env::args().nth(1).ok_or("usage: several TARGET")?.parse()?;
    let resolved = Config::load()?.resolve(&target, &ConnectionOverrides::default())?;
    let key = key_file::load(&resolved.key)?.for_host(&resolved.route.host_id);
    let session = Session::connect(&ConnectOptions::new(resolved.route.address, key)).await?;

    // Two commands at the same time on one connection, each with its whole output.
    let (load, mut disks) = (session.shell("cat /proc/loadavg"), session.command("df"));
    let (load, disks) = tokio::join!(load.output(), disks.arg("-h").arg("/").output());
    print!("{}", String::from_utf8_lossy(&load?.stdout));
    print!("{}", String::from_utf8_lossy(&disks?.stdout));

    // A command that is sent its input while it runs.
    let mut sort = session.command("sort").stdin(Stdio::Piped).spawn().await?;
    if let Some(mut stdin) = sort.stdin.take() {
        stdin.write_all(b"pear\napple\n").await?;
    }
    let sorted = sort.wait_with_output().await?;
    print!("{}", String::from_utf8_lossy(&sorted.stdout));

    // An exit code other than 0 is not an error, but a lost byte is one.
    let status = session.command("false").status().await?;
    println!("false exits with {:?}", status.code());
    Ok(())
}

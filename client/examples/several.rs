//! Several commands at once on one session, from the library:
//!
//! ```sh
//! cargo run -p labsh-client --example several -- lab07
//! ```
//!
//! The key, the port and everything else come from where `labsh run` takes them.

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

    // Whole outputs, side by side on one connection.
    let (load, mut disks) = (session.shell("cat /proc/loadavg"), session.command("df"));
    let (load, disks) = tokio::join!(load.output(), disks.arg("-h").arg("/").output());
    print!("{}", String::from_utf8_lossy(&load?.stdout));
    print!("{}", String::from_utf8_lossy(&disks?.stdout));

    // A command that is spoken to while it runs.
    let mut sort = session.command("sort").stdin(Stdio::Piped).spawn().await?;
    if let Some(mut stdin) = sort.stdin.take() {
        stdin.write_all(b"pear\napple\n").await?;
    }
    let sorted = sort.wait_with_output().await?;
    print!("{}", String::from_utf8_lossy(&sorted.stdout));

    // Its status says what happened; a false exit code is no error, a lost byte is.
    let status = session.command("false").status().await?;
    println!("false exits with {:?}", status.code());
    Ok(())
}

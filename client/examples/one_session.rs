//! The program of docs/guide/library.md: a command and a shell on one session.

use labsh_client::proto::key::{HostId, Key};
use labsh_client::{Address, ConnectOptions, Session, Stdio};
use tokio::io::AsyncWriteExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = Key::from_line(&std::fs::read_to_string("alice.key")?)?;
    let key = key.for_host(&HostId::new("lab07")?);
    let address = Address::Tcp { host: "lab07".into(), port: 5274 };
    let session = Session::connect(&ConnectOptions::new(address, key)).await?;

    // Exact words. Many commands may run on one session at once.
    let words = ["-c", "processor", "/proc/cpuinfo"];
    let output = session.command("grep").args(words).output().await?;
    println!("{} processors", String::from_utf8_lossy(&output.stdout).trim());

    // A line for the shell, and bytes for its standard input.
    let mut child = session.shell("tr a-z A-Z | rev").stdin(Stdio::Piped).spawn().await?;
    let mut stdin = child.stdin.take().ok_or("stdin is not piped")?;
    stdin.write_all(b"hello\n").await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    println!("{}", String::from_utf8_lossy(&output.stdout).trim());
    println!("exit code {:?}", output.status.code());
    Ok(())
}

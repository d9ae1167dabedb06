//! `labsh try`: one command through a labshd inside this very process, over TLS on loopback, with a
//! key made just now.

use std::process::ExitCode;

use labsh_proto::key::{HostId, Key, KeyId, Secret};
use labsh_transport::random;

use crate::cli::options::TryOptions;
use crate::cli::{Embedded, outcome, run};
use crate::connect::{Address, ConnectOptions};

/// Runs it and returns the exit status that `labsh try --help` documents.
pub fn execute(options: TryOptions, embedded: &Embedded) -> anyhow::Result<ExitCode> {
    let program = options.program();
    outcome::check_status_fd(&options.command)?;
    let key = Key::new(KeyId::new("try")?, Secret::new(random::bytes()))
        .for_host(&HostId::new("localhost")?);
    let start = (embedded.server)(key.clone())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let code = runtime.block_on(async {
        let address = start.await?;
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        Ok::<_, anyhow::Error>(
            run::run(&ConnectOptions::new(address, key), &program, &options.command, None).await,
        )
    });
    runtime.shutdown_background();
    code
}

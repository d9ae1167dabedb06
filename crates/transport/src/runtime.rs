//! Builds the runtimes of the programs. If too few files may be open, the result is an error, where
//! the runtime itself would panic.

use std::io::{self, stdin};
use std::os::fd::AsFd;

use tokio::runtime::{Builder, Runtime};

/// How many descriptors a runtime opens, at most.
const RUNTIME_DESCRIPTORS: usize = 8;

/// Builds a runtime that runs everything in the thread that calls it.
pub fn current_thread() -> io::Result<Runtime> {
    build(&mut Builder::new_current_thread())
}

/// Builds a runtime with a thread for each processor, or with so many threads.
pub fn multi_thread(workers: Option<usize>) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    build(&mut builder)
}

fn build(builder: &mut Builder) -> io::Result<Runtime> {
    let open = |_| stdin().as_fd().try_clone_to_owned();
    (0..RUNTIME_DESCRIPTORS).map(open).collect::<io::Result<Vec<_>>>().map_err(|error| {
        let text = format!(
            "{error}: this process needs {RUNTIME_DESCRIPTORS} more open files; raise their limit \
             (ulimit -n)"
        );
        io::Error::new(error.kind(), text)
    })?;
    builder.enable_all().build()
}

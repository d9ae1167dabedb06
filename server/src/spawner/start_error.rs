//! Translates failures to start a command into errors for labshd.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;

use super::messages::{Failure, Stage};
use super::wire::EncodeError;
use super::{SpawnError, SpawnRequest};

pub(super) fn encode_error(error: EncodeError) -> SpawnError {
    match error {
        EncodeError::TooLarge => SpawnError::TooLarge,
        EncodeError::Invalid(reason) => SpawnError::Other {
            stage: "reading the request",
            source: io::Error::new(io::ErrorKind::InvalidInput, reason),
        },
    }
}

/// The parts of a request that error messages name.
#[derive(Debug)]
pub(super) struct FailureContext {
    program: Vec<u8>,
    directory: Vec<u8>,
}

impl FailureContext {
    pub(super) fn of(request: SpawnRequest) -> Self {
        let first = request.argv.into_iter().next();
        Self { program: request.program.or(first).unwrap_or_default(), directory: request.cwd }
    }
}

pub(super) fn spawn_error(failure: Failure, context: FailureContext) -> SpawnError {
    let source = io::Error::from(failure.errno);
    let program = || String::from_utf8_lossy(&context.program).into_owned();
    match (failure.stage, failure.errno) {
        (_, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
            SpawnError::Resources { source }
        }
        // The limit on terminals is reached (pty(7), kernel.pty.max).
        (Stage::Terminal, Errno::ENOSPC) => SpawnError::Resources { source },
        (Stage::Terminal, _) => SpawnError::Other { stage: "making a terminal", source },
        (Stage::Identity, _) => SpawnError::Identity { source },
        (Stage::Directory, _) => {
            SpawnError::Directory { path: OsString::from_vec(context.directory).into(), source }
        }
        (Stage::Interpreter, _) => {
            let source = io::Error::new(
                io::ErrorKind::NotFound,
                "the file exists, but the interpreter that it names does not",
            );
            SpawnError::NotExecutable { program: program(), source }
        }
        (Stage::Execute, Errno::E2BIG) => SpawnError::TooLarge,
        (Stage::Execute, Errno::ENOENT | Errno::ENOTDIR) => {
            SpawnError::NotFound { program: program() }
        }
        (Stage::Execute, Errno::EIO | Errno::EFAULT) => {
            SpawnError::Other { stage: "executing", source }
        }
        (Stage::Execute, _) => SpawnError::NotExecutable { program: program(), source },
        (Stage::Pipes, _) => SpawnError::Other { stage: "making pipes", source },
        (Stage::Fork, _) => SpawnError::Other { stage: "forking", source },
        (Stage::Watch, _) => SpawnError::Other { stage: "watching the process", source },
        (Stage::Session, _) => SpawnError::Other { stage: "making a session", source },
        (Stage::Descriptors, _) => SpawnError::Other { stage: "connecting the pipes", source },
        (Stage::Signals, _) => SpawnError::Other { stage: "resetting signals", source },
        (Stage::Limits, _) => SpawnError::Other { stage: "restoring limits", source },
    }
}

//! A directory on a file server that does not respond: a FUSE file system that answers the first
//! request (fuse(4)), and none after it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use super::{Labshd, am_root, in_shell, program, temp_dir, tools, under};

/// Limit on the data of one write request, and the size of a buffer for a whole request: the kernel
/// sends none to a reader with a smaller one.
const MAX_WRITE: u32 = 64 << 10;
const READ_SIZE: usize = 128 << 10;

/// The numbers of requests: the first one, and those that need no answer.
const INIT: u32 = 26;
const WITHOUT_ANSWER: [u32; 3] = [2, 36, 42];

/// Such a directory, in the mount namespace of a labshd. Once it is dropped, the processes that
/// wait for it get an error.
pub struct DeadMount {
    directory: TempDir,
    closing: Arc<AtomicBool>,
    unanswered: Arc<AtomicUsize>,
    server: Option<JoinHandle<()>>,
}

impl DeadMount {
    /// Starts a labshd with more lines in its configuration, and mounts the directory in its
    /// namespace; `None` without root or FUSE.
    pub fn start(more: &str) -> Option<(Self, Labshd)> {
        if !am_root() {
            tools::skip("only root can mount a file system");
            return None;
        }
        if !tools::usable("/dev/fuse", "the kernel or the container has no FUSE") {
            return None;
        }
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let directory = temp_dir();
        let labshd = Labshd::launch(more, |labshd| mount(labshd, &device, directory.path()));
        let (closing, unanswered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let server = thread::spawn({
            let (closing, unanswered) = (closing.clone(), unanswered.clone());
            move || serve(device, &closing, &unanswered)
        });
        Some((Self { directory, closing, unanswered, server: Some(server) }, labshd))
    }

    /// How many requests wait for an answer. A process that waits for one cannot be killed.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub fn text(&self) -> String {
        self.directory.path().display().to_string()
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let _ = self.server.take().map(JoinHandle::join);
    }
}

/// Has labshd start in a mount namespace of its own, with the file system mounted.
fn mount(labshd: &mut Command, device: &File, directory: &Path) {
    let script = "exec 3<&0 </dev/null; mount -i -t fuse \
                  -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other labsh-test \"$MOUNT\" && \
                  exec \"$@\" 3<&-";
    let mut unshare = program("unshare");
    unshare.arg("-m");
    let mut command = under(unshare, &in_shell(script, labshd));
    command.env("MOUNT", directory);
    command.stdin(device.try_clone().unwrap()).stdout(Stdio::null()).stderr(Stdio::piped());
    *labshd = command;
}

/// Answers the first request, and reads the others, so that the kernel waits for their answers.
fn serve(mut device: File, closing: &AtomicBool, unanswered: &AtomicUsize) {
    let mut request = vec![0; READ_SIZE];
    while !closing.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, PollTimeout::from(20_u8));
        if !ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
            // The device reports an error while nothing is mounted.
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        // Fails once the file system is unmounted.
        let Ok(length) = device.read(&mut request) else { return };
        if length < 16 {
            continue;
        }
        let number = u32::from_ne_bytes(request[4..8].try_into().unwrap());
        if number == INIT {
            // Version 7.31, read-ahead, flags, and sizes that the kernel accepts.
            let fields = [7_u32, 31, 65_536, 0, 0x000c_0010, MAX_WRITE, 1].map(u32::to_ne_bytes);
            let body = [fields.as_flattened(), &[0; 36]].concat();
            let header = [&(16 + body.len() as u32).to_ne_bytes()[..], &[0; 4], &request[8..16]];
            device.write_all(&[header.concat(), body].concat()).unwrap();
        } else if !WITHOUT_ANSWER.contains(&number) {
            unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

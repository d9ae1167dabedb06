//! Runs both sides of a transfer, joined by a pair of sockets, and reads what was copied.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use labsh_copy::{
    CopyReport, Counts, Destination, Error, Name, Observer, Options, Placement, Progress, Source,
    get, put, serve,
};

/// The result of a transfer.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) outcome: Result<(), Error>,
    pub(crate) counts: Counts,
    pub(crate) reports: Vec<CopyReport>,
    /// The result of the serving side.
    pub(crate) served: Result<bool, Error>,
}

impl Transfer {
    /// Asserts that both sides succeeded, and returns the counts.
    pub(crate) fn succeeded(self) -> Counts {
        assert!(
            self.outcome.is_ok() && self.reports.is_empty() && matches!(self.served, Ok(true)),
            "{self:?}"
        );
        self.counts
    }
}

/// Runs a client against [`serve`].
pub(crate) fn against_server(
    client: impl FnOnce(UnixStream, UnixStream, Observer<'_>) -> Result<(), Error>,
) -> Transfer {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let end = theirs.try_clone().unwrap();
        let served = serve(theirs.try_clone().unwrap(), theirs);
        let _ = end.shutdown(std::net::Shutdown::Write);
        served
    });
    let (progress, reports) = (Progress::default(), Mutex::new(Vec::new()));
    let on_report = |report| reports.lock().unwrap().push(report);
    let end = ours.try_clone().unwrap();
    let outcome = client(
        ours.try_clone().unwrap(),
        ours,
        Observer { progress: &progress, on_report: &on_report },
    );
    end.shutdown(std::net::Shutdown::Write).unwrap();
    let served = server.join().unwrap();
    Transfer { outcome, counts: progress.counts(), reports: reports.into_inner().unwrap(), served }
}

pub(crate) fn name(path: &Path) -> Placement {
    Name::new(path.file_name().unwrap().as_bytes()).unwrap().into()
}

pub(crate) fn push_with(paths: &[&Path], to: &Path, options: Options) -> Transfer {
    let names = paths.iter().map(|path| name(path)).collect();
    let source = |path: &&Path| Source {
        path: path.to_path_buf(),
        display_name: path.as_os_str().as_bytes().to_vec(),
    };
    let sources: Vec<Source> = paths.iter().map(source).collect();
    against_server(|from, into, observer| {
        put(from, into, to.as_os_str().as_bytes(), names, &sources, options, observer)
    })
}

pub(crate) fn push(paths: &[&Path], to: &Path) -> Transfer {
    push_with(paths, to, Options::default())
}

pub(crate) fn pull(paths: &[&Path], to: &Path) -> Transfer {
    pull_with(paths, to, Options::default())
}

pub(crate) fn pull_with(paths: &[&Path], to: &Path, options: Options) -> Transfer {
    let names = paths.iter().map(|path| name(path)).collect();
    let requested = paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    let destination = Destination::resolve(to.as_os_str().as_bytes(), names).unwrap();
    against_server(|from, into, observer| {
        get(from, into, requested, destination, options, observer)
    })
}

/// Returns every file below a directory: mode, time and contents.
pub(crate) fn tree(top: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_path_buf()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let contents = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let below = path.strip_prefix(top).unwrap().to_path_buf();
        found.insert(below, (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), contents));
    }
    found
}

pub(crate) fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    File::open(path).unwrap().set_modified(time).unwrap();
}

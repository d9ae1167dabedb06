//! Writes the output of each host to two files, byte for byte.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use labsh_proto::message::Stream;

pub(super) struct Files {
    directory: PathBuf,
    names: Vec<String>,
}

impl Files {
    /// Creates the directory and an empty stdout file for each host, so that a host without output
    /// has a file as well.
    pub(super) fn new(directory: &Path, names: &[String]) -> anyhow::Result<Self> {
        let shown = directory.display();
        fs::create_dir_all(directory).with_context(|| {
            format!("--out: cannot make the directory {shown}; name one that you may write to")
        })?;
        let mut taken = HashMap::new();
        for name in names {
            if let Some(other) = taken.insert(file_name(name), name) {
                anyhow::bail!(
                    "--out: {other} and {name} would share a file; run them one after the other"
                );
            }
        }
        let names: Vec<String> = names.iter().map(|name| file_name(name)).collect();
        let files = Self { directory: directory.to_owned(), names };
        for host in 0..files.names.len() {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let path = files.path(host, stream);
                let made = if stream == Stream::Stdout {
                    File::create(&path).map(drop)
                } else {
                    remove(&path)
                };
                made.with_context(|| format!("--out: cannot write {}", path.display()))?;
            }
        }
        Ok(files)
    }

    pub(super) fn output(&self, host: usize, stream: Stream, bytes: &Bytes) -> anyhow::Result<()> {
        let path = self.path(host, stream);
        // Opened for each piece: a thousand hosts have more files than a process may hold open.
        File::options()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .with_context(|| {
                format!("--out: cannot write {}; what it holds is not complete", path.display())
            })
    }

    fn path(&self, host: usize, stream: Stream) -> PathBuf {
        self.directory.join(format!("{}.{stream}", self.names[host]))
    }
}

/// Removes the file of an earlier run.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns a host's name as the name of a file: without slashes and leading dots.
fn file_name(name: &str) -> String {
    let name: String =
        name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None => name,
    }
}

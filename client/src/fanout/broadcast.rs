//! One input for many readers, each at its own pace: it is copied to a temporary file, so no reader
//! waits for a slower one and memory holds none of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use tokio::sync::watch;

/// The most that is read at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// The input is copied at most this many bytes ahead of the fastest reader. An endless input must
/// not fill the disk while every reader is busy with its beginning.
const MAX_READ_AHEAD_BYTES: u64 = 64 << 20;

/// The position of the fastest reader.
#[derive(Debug, Default)]
struct FastestReader {
    position: Mutex<u64>,
    advanced: Condvar,
}

impl FastestReader {
    fn advance(&self, position: u64) {
        let mut fastest = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        if position > *fastest {
            *fastest = position;
            self.advanced.notify_one();
        }
    }

    /// Waits until a reader is less than [`MAX_READ_AHEAD_BYTES`] behind the `length` that is
    /// copied.
    fn wait(&self, length: u64) {
        let fastest = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let is_far_behind =
            |fastest: &mut u64| length.saturating_sub(*fastest) >= MAX_READ_AHEAD_BYTES;
        drop(self.advanced.wait_while(fastest, is_far_behind));
    }
}

/// Shared by all readers. When the last is dropped, the copying thread stops waiting.
#[derive(Debug)]
struct Readers(Arc<FastestReader>);

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.advance(u64::MAX);
    }
}

/// How far the input is copied.
#[derive(Debug, Clone)]
enum Copied {
    /// This many bytes can be read, and more may follow.
    Growing(u64),
    /// The input has this many bytes.
    Complete(u64),
    /// The input cannot be read to its end.
    Failed(Arc<io::Error>),
}

/// A reader of an input that is copied to an unnamed temporary file; clones read the same input.
#[derive(Debug, Clone)]
pub struct Broadcast {
    file: Arc<File>,
    copied: watch::Receiver<Copied>,
    readers: Arc<Readers>,
}

impl Broadcast {
    /// Copies `input` to a temporary file as it arrives, on a thread of its own.
    ///
    /// # Errors
    ///
    /// The file cannot be created. If the input or the disk fails later, reading fails.
    pub fn new(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let file = Arc::new(tempfile::tempfile()?);
        let (sender, copied) = watch::channel(Copied::Growing(0));
        let (copy, fastest) = (file.clone(), Arc::new(FastestReader::default()));
        let readers = Arc::new(Readers(fastest.clone()));
        thread::Builder::new().name("broadcast".into()).spawn(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let mut length = 0;
            loop {
                fastest.wait(length);
                let read = match input.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(read) => {
                        (&*copy).write_all(&chunk[..read]).map(|()| read).map_err(cannot_write)
                    }
                    Err(error) => Err(error),
                };
                let (state, is_last) = match read {
                    Ok(0) => (Copied::Complete(length), true),
                    Ok(read) => {
                        length += read as u64;
                        (Copied::Growing(length), false)
                    }
                    Err(error) => (Copied::Failed(Arc::new(error)), true),
                };
                // Sending fails once the last reader is dropped.
                if sender.send(state).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(Self { file, copied, readers })
    }

    /// Returns the bytes from `position` on, as many as are copied, or `None` at the end.
    pub(crate) async fn read(&mut self, position: u64) -> io::Result<Option<Bytes>> {
        let copied = self
            .copied
            .wait_for(|copied| !matches!(copied, Copied::Growing(length) if *length <= position))
            .await
            .map(|copied| copied.clone());
        let length = match copied {
            Ok(Copied::Growing(length) | Copied::Complete(length)) => length,
            Ok(Copied::Failed(error)) => return Err(io::Error::new(error.kind(), error)),
            Err(_) => return Err(io::Error::other("the thread that reads the input has ended")),
        };
        if position >= length {
            return Ok(None);
        }
        let mut chunk = vec![0; CHUNK_BYTES.min((length - position) as usize)];
        // Reading a file blocks, but this was written just now and is in the page cache.
        self.file.read_exact_at(&mut chunk, position)?;
        self.readers.0.advance(position + chunk.len() as u64);
        Ok(Some(chunk.into()))
    }
}

/// Says that the copy failed, and not the input.
fn cannot_write(error: io::Error) -> io::Error {
    let reason = format!(
        "the temporary file that holds it cannot be written (TMPDIR names its directory): {error}"
    );
    io::Error::new(error.kind(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endless input that reports every read.
    struct Endless(std::sync::mpsc::Sender<()>);

    impl Read for Endless {
        fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
            self.0.send(()).map_err(io::Error::other)?;
            Ok(chunk.len())
        }
    }

    #[tokio::test]
    async fn an_endless_input_is_not_read_far_ahead() {
        let (sender, reads) = std::sync::mpsc::channel();
        let mut broadcast = Broadcast::new(Endless(sender)).unwrap();
        for _ in 0..MAX_READ_AHEAD_BYTES / CHUNK_BYTES as u64 {
            reads.recv().unwrap();
        }
        let is_full = |copied: &Copied| matches!(copied, Copied::Growing(MAX_READ_AHEAD_BYTES));
        broadcast.copied.wait_for(is_full).await.unwrap();
        assert!(reads.try_recv().is_err());
        broadcast.read(0).await.unwrap();
        reads.recv().unwrap();
        // Without a reader it is not read at all.
        drop(broadcast);
        while reads.recv().is_ok() {}
    }

    #[tokio::test]
    async fn every_reader_gets_everything() {
        let (mut writer, reader) = io::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
        let broadcast = Broadcast::new(reader).unwrap();
        writer.write_all(b"one ").unwrap();
        let mut early = broadcast.clone();
        assert_eq!(early.read(0).await.unwrap().unwrap(), "one ");
        writer.write_all(&[b'x'; 200_000]).unwrap();
        drop(writer);
        for mut reader in [early, broadcast] {
            let mut all = Vec::new();
            while let Some(bytes) = reader.read(all.len() as u64).await.unwrap() {
                all.extend_from_slice(&bytes);
            }
            assert_eq!((all.len(), &all[..5]), (200_004, &b"one x"[..]));
        }
    }
}

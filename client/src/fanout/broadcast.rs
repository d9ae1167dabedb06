//! One input for many readers, each at its own pace: nobody waits for the slowest, and memory holds
//! none of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use tokio::sync::watch;

/// The most that is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// So far is read ahead of the reader that is furthest, in bytes: an input without end must not
/// fill the disk while all of them are busy with its beginning.
const AHEAD: u64 = 64 << 20;

/// How far the reader has come that is furthest.
#[derive(Debug, Default)]
struct Furthest(Mutex<u64>, Condvar);

impl Furthest {
    fn reached(&self, position: u64) {
        let mut furthest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if position > *furthest {
            *furthest = position;
            self.1.notify_one();
        }
    }

    /// Waits until somebody is near.
    fn wait(&self, length: u64) {
        let furthest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.1.wait_while(furthest, |furthest| length.saturating_sub(*furthest) >= AHEAD));
    }
}

/// All who read. When the last has gone, nobody waits any more.
#[derive(Debug)]
struct Readers(Arc<Furthest>);

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.reached(u64::MAX);
    }
}

/// What is known of the input's end.
#[derive(Debug, Clone)]
enum Known {
    /// So many bytes can be read, and more may come.
    Growing(u64),
    /// So many bytes are all.
    Whole(u64),
    /// It could not be read to its end.
    Broken(Arc<io::Error>),
}

/// An input that is kept in a file without a name.
#[derive(Debug, Clone)]
pub struct Broadcast {
    file: Arc<File>,
    known: watch::Receiver<Known>,
    readers: Arc<Readers>,
}

impl Broadcast {
    /// Copies `input` to a temporary file as it comes, on a thread of its own.
    ///
    /// # Errors
    ///
    /// Where there is no place for the file. That the input or the disk fails later is told to the
    /// readers.
    pub fn new(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let file = Arc::new(tempfile::tempfile()?);
        let (tell, known) = watch::channel(Known::Growing(0));
        let (spool, furthest) = (file.clone(), Arc::new(Furthest::default()));
        let reached = furthest.clone();
        thread::Builder::new().name("broadcast".into()).spawn(move || {
            let mut chunk = vec![0; CHUNK];
            let mut length = 0;
            loop {
                reached.wait(length);
                let copied = match input.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(read) => {
                        (&*spool).write_all(&chunk[..read]).map(|()| read).map_err(unwritten)
                    }
                    Err(error) => Err(error),
                };
                let (now, over) = match copied {
                    Ok(0) => (Known::Whole(length), true),
                    Ok(read) => {
                        length += read as u64;
                        (Known::Growing(length), false)
                    }
                    Err(error) => (Known::Broken(Arc::new(error)), true),
                };
                // Nobody left to read is a reason to stop reading.
                if tell.send(now).is_err() || over {
                    return;
                }
            }
        })?;
        Ok(Self { file, known, readers: Arc::new(Readers(furthest)) })
    }

    /// What follows from `position` on; `None` at the end.
    pub(crate) async fn read(&mut self, position: u64) -> io::Result<Option<Bytes>> {
        let known = self
            .known
            .wait_for(|known| !matches!(known, Known::Growing(length) if *length <= position))
            .await
            .map(|known| known.clone());
        let length = match known {
            Ok(Known::Growing(length) | Known::Whole(length)) => length,
            Ok(Known::Broken(error)) => return Err(io::Error::new(error.kind(), error)),
            Err(_) => return Err(io::Error::other("the thread that reads the input has gone")),
        };
        if position >= length {
            return Ok(None);
        }
        let mut chunk = vec![0; CHUNK.min((length - position) as usize)];
        // The page cache has it: it was written a moment ago.
        self.file.read_exact_at(&mut chunk, position)?;
        self.readers.0.reached(position + chunk.len() as u64);
        Ok(Some(chunk.into()))
    }
}

/// Otherwise it would look as if the input had failed.
fn unwritten(error: io::Error) -> io::Error {
    let reason = format!(
        "the temporary file that keeps it cannot be written (TMPDIR says where it is): {error}"
    );
    io::Error::new(error.kind(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input without end, which tells how much was read of it.
    struct Endless(std::sync::mpsc::Sender<()>);

    impl Read for Endless {
        fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
            self.0.send(()).map_err(io::Error::other)?;
            Ok(chunk.len())
        }
    }

    #[tokio::test]
    async fn an_input_without_end_is_not_read_far_ahead() {
        let (tell, reads) = std::sync::mpsc::channel();
        let mut broadcast = Broadcast::new(Endless(tell)).unwrap();
        let pieces = AHEAD / CHUNK as u64;
        for _ in 0..pieces {
            reads.recv().unwrap();
        }
        broadcast.known.wait_for(|known| matches!(known, Known::Growing(AHEAD))).await.unwrap();
        assert!(reads.try_recv().is_err());
        broadcast.read(0).await.unwrap();
        reads.recv().unwrap();
        // Nor is it for nobody.
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

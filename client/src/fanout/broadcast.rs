//! One input for many readers, each at its own pace: nobody waits for the slowest, and memory holds none of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use tokio::sync::watch;

/// The most that is read at once, in bytes.
const CHUNK: usize = 64 << 10;

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
}

impl Broadcast {
    /// Copies `input` to a temporary file as it comes, on a thread of its own.
    ///
    /// # Errors
    ///
    /// Where there is no place for the file. That the input or the disk fails later is told to the readers.
    pub fn new(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let file = Arc::new(tempfile::tempfile()?);
        let (tell, known) = watch::channel(Known::Growing(0));
        let spool = file.clone();
        thread::Builder::new().name("broadcast".into()).spawn(move || {
            let mut chunk = vec![0; CHUNK];
            let mut length = 0;
            loop {
                let copied = match input.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(read) => (&*spool).write_all(&chunk[..read]).map(|()| read),
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
        Ok(Self { file, known })
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
        Ok(Some(chunk.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

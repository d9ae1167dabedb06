//! Starts a transfer: the client requests it, the other side serves the request.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::destination::Destination;
use crate::name::Placement;
use crate::receive::receive;
use crate::send::{SendOptions, Source, send};
use crate::stream::{Reader, Writer};
use crate::wire::{Message, UNKNOWN_KIND, VERSION};
use crate::{Error, Observer, Options, Progress};

/// Sends files as the client, to `destination` on the other side, under these names.
///
/// # Errors
///
/// See [`Error`].
pub fn put<R: Read + Send + 'static, W: Write>(
    from: R,
    to: W,
    destination: &[u8],
    names: Vec<Placement>,
    sources: &[Source],
    options: Options,
    observer: Observer<'_>,
) -> Result<(), Error> {
    let (mut from, mut to) = (Reader::new(from), Writer::new(to));
    let put = Message::Put { destination: destination.to_vec(), names, options: options.receive };
    request(&mut to, &put)?;
    read_hello(&mut from)?;
    match send(from, to, sources, options.send, observer) {
        // The refusal of a server that knows only the first form of this message.
        Err(Error::Refused(text)) if text.ends_with(UNKNOWN_KIND) => Err(Error::Refused(
            "labsh on that host is older, and knows neither --no-times, --no-perms nor the \
             contents of a directory (DIR/.); install the same labsh on both, or copy without them"
                .into(),
        )),
        outcome => outcome,
    }
}

/// Receives `paths` of the other side as the client, into a destination that has a name for each.
///
/// # Errors
///
/// See [`Error`].
pub fn get<R: Read, W: Write>(
    from: R,
    to: W,
    paths: Vec<Vec<u8>>,
    destination: Destination,
    options: Options,
    observer: Observer<'_>,
) -> Result<(), Error> {
    let (mut from, mut to) = (Reader::new(from), Writer::new(to));
    request(&mut to, &Message::Get { checksum: options.send.checksum, paths })?;
    read_hello(&mut from)?;
    receive(&mut from, to, destination, options.receive, observer)
}

/// Sends hello and the request.
fn request(to: &mut Writer<impl Write>, request: &Message) -> Result<(), Error> {
    if !request.fits() {
        return Err(Error::Refused(
            "the names are larger than one request can be (1 MiB); copy the directory that holds \
             them, or fewer at a time"
                .into(),
        ));
    }
    to.put(&Message::Hello { version: VERSION })?;
    to.put(request)?;
    Ok(to.flush()?)
}

/// Serves a client's request. Returns whether every file was copied.
///
/// # Errors
///
/// See [`Error`]. The reason is sent to the client first, if that is possible.
pub fn serve<R: Read + Send + 'static, W: Write>(from: R, to: W) -> Result<bool, Error> {
    let (mut from, mut to) = (Reader::new(from), Writer::new(to));
    to.put(&Message::Hello { version: VERSION })?;
    to.flush()?;
    let request = match read_hello(&mut from).and_then(|()| from.read()) {
        Ok(Some(request)) => request,
        Ok(None) => return Err(Error::Disconnected(std::io::ErrorKind::UnexpectedEof.into())),
        Err(error) => return refuse(&mut to, error),
    };
    let progress = Progress::default();
    // The client reports failures to its user.
    let observer = Observer { progress: &progress, on_report: &|_| {} };
    match request {
        Message::Put { destination, names, options } => {
            match Destination::resolve(&destination, names) {
                Ok(destination) => receive(&mut from, to, destination, options, observer)?,
                Err(error) => return refuse(&mut to, error),
            }
        }
        Message::Get { checksum, paths } => {
            let source = |path: Vec<u8>| Source {
                display_name: path.clone(),
                path: PathBuf::from(OsString::from_vec(path)),
            };
            let sources: Vec<Source> = paths.into_iter().map(source).collect();
            send(from, to, &sources, SendOptions { checksum }, observer)?;
        }
        _ => return refuse(&mut to, Error::Protocol("the request is neither put nor get")),
    }
    Ok(progress.counts().failed == 0)
}

/// Sends the reason why this side cannot begin.
fn refuse<T>(to: &mut Writer<impl Write>, error: Error) -> Result<T, Error> {
    to.put(&Message::Refused { text: error.to_string() })?;
    to.flush()?;
    Err(error)
}

/// Reads the hello of the other side.
fn read_hello(from: &mut Reader<impl Read>) -> Result<(), Error> {
    match from.read()? {
        Some(Message::Hello { version: VERSION }) => Ok(()),
        Some(Message::Hello { version }) => Err(Error::Refused(format!(
            "the two sides use versions {version} and {VERSION} of the copy protocol; install the \
             same labsh on both"
        ))),
        Some(Message::Refused { text }) => Err(Error::Refused(text)),
        Some(_) => Err(Error::Protocol("it does not begin with hello")),
        None => Err(Error::Disconnected(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

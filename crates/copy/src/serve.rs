//! How a transfer begins: the client says what it wants, the other side does its part of it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::name::Name;
use crate::receive::{Destination, receive};
use crate::send::{SendOptions, Source, send};
use crate::stream::{Reader, Writer};
use crate::wire::{Message, VERSION};
use crate::{Error, Progress, Watch};

/// The client's part of sending: to `destination` over there, under these names.
///
/// # Errors
///
/// See [`Error`].
pub fn put<R: Read + Send + 'static, W: Write>(
    from: R,
    to: W,
    destination: &[u8],
    names: Vec<Name>,
    sources: &[Source],
    options: SendOptions,
    watch: Watch<'_>,
) -> Result<(), Error> {
    let (mut from, mut to) = (Reader::new(from), Writer::new(to));
    ask(&mut to, &Message::Put { destination: destination.to_vec(), names })?;
    hear_hello(&mut from)?;
    send(from, to, sources, options, watch)
}

/// The client's part of receiving: these paths from over there, to a destination here that has a
/// name for each.
///
/// # Errors
///
/// See [`Error`].
pub fn get<R: Read, W: Write>(
    from: R,
    to: W,
    paths: Vec<Vec<u8>>,
    destination: Destination,
    options: SendOptions,
    watch: Watch<'_>,
) -> Result<(), Error> {
    let (mut from, mut to) = (Reader::new(from), Writer::new(to));
    ask(&mut to, &Message::Get { checksum: options.checksum, paths })?;
    hear_hello(&mut from)?;
    receive(&mut from, to, destination, watch)
}

/// Greets, and says what is wanted.
fn ask(to: &mut Writer<impl Write>, wanted: &Message) -> Result<(), Error> {
    if !wanted.fits() {
        return Err(Error::Refused(
            "so many names are more than one request holds (1 MiB); copy the directory that they \
             are in, or some of \
             them at a time"
                .into(),
        ));
    }
    to.put(&Message::Hello { version: VERSION })?;
    to.put(wanted)?;
    Ok(to.flush()?)
}

/// The other side's part, whatever it is. Tells whether every file is as it should be.
///
/// # Errors
///
/// See [`Error`]; the client has been told by then, where it could be.
pub fn serve<R: Read + Send + 'static, W: Write>(from: R, to: W) -> Result<bool, Error> {
    let (mut from, mut to) = (Reader::new(from), Writer::new(to));
    to.put(&Message::Hello { version: VERSION })?;
    to.flush()?;
    let request = match hear_hello(&mut from).and_then(|()| from.read()) {
        Ok(Some(request)) => request,
        Ok(None) => return Err(Error::Link(std::io::ErrorKind::UnexpectedEof.into())),
        Err(error) => return refuse(&mut to, error),
    };
    let progress = Progress::default();
    // All that is worth telling travels to the client.
    let watch = Watch { progress: &progress, tell: &|_| {} };
    match request {
        Message::Put { destination, names } => match Destination::resolve(&destination, names) {
            Ok(destination) => receive(&mut from, to, destination, watch)?,
            Err(error) => return refuse(&mut to, error),
        },
        Message::Get { checksum, paths } => {
            let source = |path: Vec<u8>| Source {
                shown: path.clone(),
                path: PathBuf::from(OsString::from_vec(path)),
            };
            let sources: Vec<Source> = paths.into_iter().map(source).collect();
            send(from, to, &sources, SendOptions { checksum }, watch)?;
        }
        _ => return refuse(&mut to, Error::Protocol("it asks for nothing")),
    }
    Ok(progress.counts().failed == 0)
}

fn refuse<T>(to: &mut Writer<impl Write>, error: Error) -> Result<T, Error> {
    to.put(&Message::Refused { text: error.to_string() })?;
    to.flush()?;
    Err(error)
}

fn hear_hello(from: &mut Reader<impl Read>) -> Result<(), Error> {
    match from.read()? {
        Some(Message::Hello { version: VERSION }) => Ok(()),
        Some(Message::Hello { version }) => Err(Error::Refused(format!(
            "one side copies by version {version} of the protocol, the other by version \
             {VERSION}; install the same labsh \
             on both"
        ))),
        Some(Message::Refused { text }) => Err(Error::Refused(text)),
        Some(_) => Err(Error::Protocol("it does not begin with a greeting")),
        None => Err(Error::Link(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

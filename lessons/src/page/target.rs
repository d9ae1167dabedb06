//! Pages on disk: whether there is a place for them is known before the lessons begin, and no page
//! is ever half written.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use super::{index, page};
use crate::language::Language;
use crate::runner::LessonReport;

/// Why pages cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// One page was to replace a directory.
    #[error("{} is a directory; one lesson is one page: give a file, such as {}", .0.display(),
        .0.join("lesson.html").display())]
    IsDirectory(PathBuf),
    /// Several pages were to go into something that is no directory.
    #[error("{} is no directory; several lessons are several pages: give a directory",
        .0.display())]
    NoDirectory(PathBuf),
    /// A page was to replace a device, a socket or the like.
    #[error("{} is no regular file; give the name of a file that may be replaced", .0.display())]
    NoFile(PathBuf),
    /// The directory in which the page would be is not there.
    #[error("cannot write {}: there is no directory {}; make it first", .0.display(), .1.display())]
    NoParent(PathBuf, PathBuf),
    /// The directory is there, but takes no new files, as /proc.
    #[error("cannot write {}: no file can be made in {}; give a place where you may write",
        .0.display(), .1.display())]
    NoNewFiles(PathBuf, PathBuf),
    /// The system said no.
    #[error("cannot write {}: {}; give a place where you may write", .0.display(), .1)]
    System(PathBuf, io::Error),
}

/// Where pages will be.
#[derive(Debug)]
pub enum PageTarget {
    /// One page, and the unfinished file beside it.
    File(PathBuf, NamedTempFile),
    /// One page for each lesson, `NAME.html`, and `index.html`.
    Directory(PathBuf),
}

impl PageTarget {
    /// Looks whether one page can be at this path, or several (`set`) in it.
    ///
    /// # Errors
    /// Everything that can be known before there is a page.
    pub fn prepare(path: &Path, set: bool) -> Result<Self, PageError> {
        let there = fs::metadata(path).ok();
        let parent = parent(path);
        if there.is_none() && !parent.is_dir() {
            return Err(PageError::NoParent(path.to_owned(), parent.to_owned()));
        }
        if !set {
            match there {
                Some(there) if there.is_dir() => {
                    return Err(PageError::IsDirectory(path.to_owned()));
                }
                Some(there) if !there.is_file() => return Err(PageError::NoFile(path.to_owned())),
                // A link stays a link: what it leads to is replaced.
                Some(_) => {
                    let path = fs::canonicalize(path).map_err(|error| system(path, error))?;
                    return unfinished(&path).map(|file| Self::File(path, file));
                }
                None => return unfinished(path).map(|file| Self::File(path.to_owned(), file)),
            }
        }
        match there {
            Some(there) if !there.is_dir() => return Err(PageError::NoDirectory(path.to_owned())),
            Some(_) => {}
            None => fs::create_dir(path).map_err(|error| system(path, error))?,
        }
        // Dropped again at once: it says whether one may write there.
        unfinished(&path.join("index.html"))?;
        Ok(Self::Directory(path.to_owned()))
    }

    /// Writes the pages of these lessons; each replaces the one before it in one step.
    pub fn write(self, given: &[LessonReport], language: Language) -> Result<(), PageError> {
        match self {
            Self::File(path, file) => match given {
                [given] => finish(file, &path, &page(given, language, None)),
                _ => Ok(()),
            },
            Self::Directory(directory) => {
                let put = |name: &str, text: &str| {
                    let path = directory.join(name);
                    unfinished(&path).and_then(|file| finish(file, &path, text))
                };
                for one in given {
                    put(&format!("{}.html", one.lesson.name), &page(one, language, Some(given)))?;
                }
                put("index.html", &index(given, language))
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn system(path: &Path, error: io::Error) -> PageError {
    PageError::System(path.to_owned(), error)
}

/// A file beside the page, with the mode that a new file has here; it goes away unless it is
/// finished.
fn unfinished(path: &Path) -> Result<NamedTempFile, PageError> {
    let mut builder = Builder::new();
    builder.prefix(".labsh-lesson-").permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(parent(path)).map_err(|error| {
        match error.kind() {
            io::ErrorKind::NotFound => {
                PageError::NoNewFiles(path.to_owned(), parent(path).to_owned())
            }
            // Its message names the unfinished file, which nobody asked for.
            kind => system(path, kind.into()),
        }
    })
}

fn finish(mut file: NamedTempFile, path: &Path, text: &str) -> Result<(), PageError> {
    file.write_all(text.as_bytes()).map_err(|error| system(path, error))?;
    file.persist(path).map_err(|error| system(path, error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_is_known_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(matches!(PageTarget::prepare(dir.path(), false), Err(PageError::IsDirectory(_))));
        assert!(matches!(
            PageTarget::prepare(&at("none/a.html"), false),
            Err(PageError::NoParent(..))
        ));
        assert!(matches!(PageTarget::prepare(&at("none/set"), true), Err(PageError::NoParent(..))));
        assert!(matches!(
            PageTarget::prepare(Path::new("/proc/x.html"), false),
            Err(PageError::NoNewFiles(..))
        ));
        assert!(matches!(
            PageTarget::prepare(Path::new("/dev/null"), false),
            Err(PageError::NoFile(_))
        ));
        fs::write(at("file"), "old").unwrap();
        assert!(matches!(PageTarget::prepare(&at("file"), true), Err(PageError::NoDirectory(_))));
        // Until the page is there, the old one stays, and nothing unfinished is left behind.
        drop(PageTarget::prepare(&at("file"), false).unwrap());
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

//! Writes pages to disk: checks before the lessons begin that it will be possible, and replaces
//! every file in one step.

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
    /// The path of a single page is a directory.
    #[error("{} is a directory; one lesson is one page: give a file, such as {}", .0.display(),
        .0.join("lesson.html").display())]
    IsDirectory(PathBuf),
    /// The path of several pages is not a directory.
    #[error("{} is not a directory; several lessons are several pages: give a directory",
        .0.display())]
    NotDirectory(PathBuf),
    /// The path of a page is a device, a socket or the like.
    #[error("{} is not a regular file; give the name of a file that may be replaced", .0.display())]
    NotFile(PathBuf),
    /// The parent directory does not exist.
    #[error("cannot write {}: there is no directory {}; make it first", .0.display(), .1.display())]
    NoParent(PathBuf, PathBuf),
    /// The parent directory takes no new files, as /proc.
    #[error("cannot write {}: no file can be made in {}; give a path where you may write",
        .0.display(), .1.display())]
    NoNewFiles(PathBuf, PathBuf),
    /// A system call failed.
    #[error("cannot write {}: {}; give a path where you may write", .0.display(), .1)]
    System(PathBuf, io::Error),
}

/// The file or the directory that pages will be written to.
#[derive(Debug)]
pub enum PageTarget {
    /// A single page, and the unfinished file beside it.
    File(PathBuf, NamedTempFile),
    /// A directory with a page for each lesson, `NAME.html`, and `index.html`.
    Directory(PathBuf),
}

impl PageTarget {
    /// Checks that a page can be written to this path, or several pages (`set`) into it.
    ///
    /// # Errors
    /// Every error that can be found before there is a page.
    pub fn prepare(path: &Path, set: bool) -> Result<Self, PageError> {
        let metadata = fs::metadata(path).ok();
        let parent = parent(path);
        if metadata.is_none() && !parent.is_dir() {
            return Err(PageError::NoParent(path.to_owned(), parent.to_owned()));
        }
        if set {
            match metadata {
                Some(metadata) if !metadata.is_dir() => {
                    return Err(PageError::NotDirectory(path.to_owned()));
                }
                Some(_) => {}
                None => fs::create_dir(path).map_err(|error| system(path, error))?,
            }
            // This file is dropped at once: creating it shows that the directory is writable.
            unfinished(&path.join("index.html"))?;
            return Ok(Self::Directory(path.to_owned()));
        }
        match metadata {
            Some(metadata) if metadata.is_dir() => Err(PageError::IsDirectory(path.to_owned())),
            Some(metadata) if !metadata.is_file() => Err(PageError::NotFile(path.to_owned())),
            // A symbolic link stays: its target is replaced.
            Some(_) => {
                let path = fs::canonicalize(path).map_err(|error| system(path, error))?;
                unfinished(&path).map(|file| Self::File(path, file))
            }
            None => unfinished(path).map(|file| Self::File(path.to_owned(), file)),
        }
    }

    /// Writes the pages of these lessons; each replaces an older file in one step.
    pub fn write(self, reports: &[LessonReport], language: Language) -> Result<(), PageError> {
        match self {
            Self::File(path, file) => match reports {
                [report] => finish(file, &path, &page(report, language, None)),
                _ => Ok(()),
            },
            Self::Directory(directory) => {
                let write = |name: &str, text: &str| {
                    let path = directory.join(name);
                    unfinished(&path).and_then(|file| finish(file, &path, text))
                };
                for report in reports {
                    let name = format!("{}.html", report.lesson.name);
                    write(&name, &page(report, language, Some(reports)))?;
                }
                write("index.html", &index(reports, language))
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

/// Creates a file beside the page, with the mode of a new file; it is removed unless it is
/// finished.
fn unfinished(path: &Path) -> Result<NamedTempFile, PageError> {
    let mut builder = Builder::new();
    builder.prefix(".labsh-lesson-").permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(parent(path)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PageError::NoNewFiles(path.to_owned(), parent(path).to_owned()),
        // The error's own message names the unfinished file, which the user does not know.
        kind => system(path, kind.into()),
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
    fn an_unusable_path_is_refused_beforehand() {
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
            Err(PageError::NotFile(_))
        ));
        fs::write(at("file"), "old").unwrap();
        assert!(matches!(PageTarget::prepare(&at("file"), true), Err(PageError::NotDirectory(_))));
        // Without a write the old file stays, and no unfinished one is left.
        drop(PageTarget::prepare(&at("file"), false).unwrap());
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

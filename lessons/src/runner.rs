//! A class: lessons chosen by name and given one after the other.

use std::io::{self, Write};

use crate::language::Language;
use crate::options::Options;
use crate::print::{OutputFormat, Printer};
use crate::stage::{Item, LessonError, LessonResult, Stage};
use crate::{LESSONS, Lesson};

/// A name that is no lesson's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no lesson {name}; {}", match .nearest {
    Some(nearest) => format!("did you mean {nearest}?"),
    None => format!("there are: {}", names()),
})]
pub struct UnknownLesson {
    /// As it was written.
    pub name: String,
    /// The lesson that is called almost so.
    pub nearest: Option<&'static str>,
}

fn names() -> String {
    LESSONS.iter().map(|lesson| lesson.name).collect::<Vec<_>>().join(", ")
}

/// How alike a name and a lesson's must be for the one to be taken for the other mistyped
/// (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// How much of a name must be written for the lesson to be recognised, in bytes.
const SHORTEST_PART: usize = 3;

/// The lessons with these names, in this order; `all` is all of them.
pub fn select_lessons(names: &[String]) -> Result<Vec<Lesson>, UnknownLesson> {
    let mut lessons = Vec::new();
    for name in names {
        if name == "all" {
            lessons.extend_from_slice(LESSONS);
        } else if let Some(lesson) = LESSONS.iter().find(|lesson| lesson.name == name) {
            lessons.push(*lesson);
        } else {
            return Err(UnknownLesson {
                name: name.clone(),
                nearest: nearest(&name.to_lowercase()),
            });
        }
    }
    Ok(lessons)
}

/// The lesson whose name is almost this one, or that this is a part of.
fn nearest(name: &str) -> Option<&'static str> {
    let part =
        LESSONS.iter().find(|lesson| name.len() >= SHORTEST_PART && lesson.name.contains(name));
    let alike = |lesson: &&Lesson| strsim::jaro_winkler(lesson.name, name);
    let similar = || LESSONS.iter().max_by(|one, other| alike(one).total_cmp(&alike(other)));
    part.or_else(|| similar().filter(|lesson| alike(lesson) >= ALIKE)).map(|lesson| lesson.name)
}

/// A lesson that has been given.
#[derive(Debug)]
pub struct LessonReport {
    /// Which.
    pub lesson: Lesson,
    /// Everything that was told and shown, up to where it failed if it did.
    pub items: Vec<Item>,
    /// How it ended.
    pub outcome: LessonResult,
}

/// Gives lessons and prints them while they happen. One that fails says so and does not stop those
/// behind it.
///
/// # Errors
/// Only those of `out`; how each lesson ended is in what is returned.
pub fn run_lessons(
    lessons: &[Lesson],
    options: &Options,
    language: Language,
    look: OutputFormat,
    out: &mut dyn Write,
) -> io::Result<Vec<LessonReport>> {
    let mut printer = Printer::new(language, look, out);
    let mut all = Vec::new();
    for lesson in lessons {
        printer.title(lesson)?;
        // The lesson ends where nothing can be printed any more; that is not its own failure.
        let mut unprintable = None;
        let mut tell = |item: &Item| {
            printer.item(item).map_err(|error| {
                let kind = error.kind();
                unprintable = Some(error);
                io::Error::from(kind)
            })
        };
        let mut stage = Stage::new(options, &mut tell);
        let outcome = (lesson.teach)(&mut stage);
        let items = stage.told().to_vec();
        if let Some(error) = unprintable {
            return Err(error);
        }
        // Where there is only one, a wish that cannot be met is wrong use: the caller's to refuse.
        if lessons.len() > 1 || !matches!(outcome, Err(LessonError::BadOption(_))) {
            printer.outcome(&outcome)?;
        }
        all.push(LessonReport { lesson: *lesson, items, outcome });
    }
    printer.end(&all)?;
    Ok(all)
}

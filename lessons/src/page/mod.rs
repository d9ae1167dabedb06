//! A lesson as one self-contained page: what was told, and every flow as a figure that can be
//! stepped through.
//!
//! A page loads nothing and allows nothing to be loaded: its content security policy names the one
//! script and the one style that stand in it, by their hashes. What a lesson received is only ever
//! text in it.

mod figure;
mod html;
mod target;

use std::fmt::Write;

pub use target::{PageError, PageTarget};

use crate::Lesson;
use crate::language::Language;
use crate::print;
use crate::runner::LessonReport;
use crate::stage::Item;
use html::{escape_html, hash_source, received};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of a lesson that was given; with `set`, it leads to the others of its set.
pub fn page(given: &LessonReport, language: Language, set: Option<&[LessonReport]>) -> String {
    let title = title(&given.lesson, language);
    let mut body = format!(
        "<header>{}<p class=\"name\">labsh lesson {}</p><h1>{}</h1></header>\n<main>\n",
        set.map_or(String::new(), |set| around(given, set, language)),
        given.lesson.name,
        escape_html(title)
    );
    body += &sections(given, language);
    if let Err(trouble) = &given.outcome {
        let words = print::trouble(trouble);
        let _ = writeln!(body, "<p class=\"failed\">✗ {}</p>", escape_html(words.get(language)));
    }
    body += "</main>\n";
    document(title, &body, language)
}

/// The page that leads to those of a set.
pub fn index(set: &[LessonReport], language: Language) -> String {
    let title = match language {
        Language::English => "Lessons about sockets",
        Language::Chinese => "套接字课程",
    };
    let mut body = format!(
        "<header><p class=\"name\">labsh lesson</p><h1>{title}</h1></header>\n<main><ol \
         class=\"index\">\n"
    );
    for given in set {
        let mark = if given.outcome.is_ok() { "✓" } else { "✗" };
        let name = given.lesson.name;
        let about = escape_html(self::title(&given.lesson, language));
        let _ = writeln!(
            body,
            "<li><a href=\"{name}.html\"><b>{name}</b> {about}</a> <span>{mark}</span></li>"
        );
    }
    body += "</ol></main>\n";
    document(title, &body, language)
}

fn title(lesson: &Lesson, language: Language) -> &'static str {
    match language {
        Language::English => lesson.title.0,
        Language::Chinese => lesson.title.1,
    }
}

fn document(title: &str, body: &str, language: Language) -> String {
    let lang = match language {
        Language::English => "en",
        Language::Chinese => "zh-CN",
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"{lang}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src \
         {}; style-src {}; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{}{body}\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        hash_source(SCRIPT),
        hash_source(STYLE),
        escape_html(title),
        patterns(),
    )
}

/// Fills of the messages in the drawings: a colour and a pattern each, so that neither has to be
/// told apart alone.
fn patterns() -> String {
    const MARKS: [&str; figure::PAINTS] = [
        "",
        "<path d=\"M-3 3L3 -3M0 12L12 0M9 15L15 9\"/>",
        "<circle cx=\"3\" cy=\"3\" r=\"1.6\"/><circle cx=\"9\" cy=\"9\" r=\"1.6\"/>",
        "<path d=\"M0 6H12\"/>",
        "<path d=\"M6 0V12\"/>",
        "<path d=\"M-3 9L3 15M0 0L12 12M9 -3L15 3\"/>",
        "<path d=\"M0 6H12M6 0V12\"/>",
        "<path d=\"M0 0L12 12M12 0L0 12\"/>",
    ];
    let mut html =
        "<svg class=\"patterns\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs>".to_owned();
    for (index, mark) in MARKS.iter().enumerate() {
        let _ = write!(
            html,
            "<pattern id=\"pattern-{index}\" width=\"12\" height=\"12\" \
             patternUnits=\"userSpaceOnUse\">\
             <rect class=\"ground{index}\" width=\"12\" height=\"12\"/><g \
             class=\"mark\">{mark}</g></pattern>"
        );
    }
    html + "</defs></svg>\n"
}

/// Links to the index and to the lessons before and behind.
fn around(given: &LessonReport, set: &[LessonReport], language: Language) -> String {
    let at = set.iter().position(|other| other.lesson.name == given.lesson.name).unwrap_or(0);
    let link = |other: &LessonReport, before: &str, behind: &str| {
        let name = other.lesson.name;
        format!("<a href=\"{name}.html\">{before}{name}{behind}</a>")
    };
    let all = match language {
        Language::English => "All lessons",
        Language::Chinese => "全部课程",
    };
    let before = at.checked_sub(1).and_then(|at| set.get(at)).map(|other| link(other, "← ", ""));
    let behind = set.get(at + 1).map(|other| link(other, "", " →"));
    format!(
        "<nav>{}<a href=\"index.html\">{all}</a>{}</nav>",
        before.unwrap_or_default(),
        behind.unwrap_or_default()
    )
}

/// A part of a scene: an explanation, and beside it what it is about.
#[derive(Default)]
struct Row {
    texts: String,
    shown: String,
}

impl Row {
    fn html(self) -> String {
        let Row { texts, shown } = self;
        match (texts.is_empty(), shown.is_empty()) {
            (true, true) => String::new(),
            (false, true) => {
                format!("<div class=\"row\"><div class=\"texts\">{texts}</div></div>\n")
            }
            _ => format!(
                "<div class=\"row both\"><div class=\"texts\">{texts}</div><div \
                 class=\"shown\">{shown}</div></div>\n"
            ),
        }
    }
}

fn sections(given: &LessonReport, language: Language) -> String {
    let mut html = String::new();
    let mut row = Row::default();
    let mut figures = 0;
    let mut open = false;
    for item in &given.items {
        match item {
            Item::Scene(words) => {
                html += &std::mem::take(&mut row).html();
                if open {
                    html += "</section>\n";
                }
                let _ = writeln!(html, "<section><h2>{}</h2>", escape_html(words.get(language)));
                open = true;
            }
            Item::Say(words) => {
                // What is explained behind a figure is about the next one.
                if !row.shown.is_empty() {
                    html += &std::mem::take(&mut row).html();
                }
                let _ = write!(row.texts, "<p>{}</p>", escape_html(words.get(language)));
            }
            Item::Notice(words) => {
                let _ = write!(
                    row.texts,
                    "<p class=\"notice\">{}</p>",
                    escape_html(words.get(language))
                );
            }
            Item::Fact(words) => {
                let _ = write!(
                    row.texts,
                    "<p class=\"fact\">✓ {}</p>",
                    escape_html(words.get(language))
                );
            }
            Item::Shown { what, bytes } => {
                let size = match language {
                    Language::English => print::counted(bytes.len(), "byte"),
                    Language::Chinese => format!("{} 字节", bytes.len()),
                };
                let caption = format!("{} <small>{size}</small>", escape_html(what.get(language)));
                row.shown += &lines(&caption, bytes, language);
            }
            Item::Listed { what, lines: noted } => {
                let caption = escape_html(what.get(language));
                row.shown += &lines(&caption, noted.get(language).as_bytes(), language);
            }
            Item::Picture(record) => {
                figures += 1;
                row.shown += &figure::figure(record, language, figures);
            }
        }
    }
    html += &row.html();
    if open {
        html += "</section>\n";
    }
    html
}

/// What was received or noted, line by line.
fn lines(caption: &str, bytes: &[u8], language: Language) -> String {
    let (text, left_out) = received(bytes);
    let mut html = format!(
        "<figure class=\"received\"><figcaption>{caption}</figcaption><pre \
         tabindex=\"0\">{text}</pre>"
    );
    if left_out > 0 {
        let note = match language {
            Language::English => format!("… {left_out} more bytes are not shown."),
            Language::Chinese => format!("…… 另有 {left_out} 字节没有显示。"),
        };
        let _ = write!(html, "<p class=\"note\">{note}</p>");
    }
    html + "</figure>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flow, LESSONS, Text};

    /// A page of what a hostile command would have printed.
    fn hostile(language: Language) -> String {
        let evil = "</script></pre><script>alert(1)</script>\u{1}";
        let flow = Flow::new(evil);
        flow.message(evil);
        (0..2000).for_each(|_| flow.wrote(evil.as_bytes()));
        let words = || Text::new(evil, evil);
        let items = vec![
            Item::Scene(words()),
            Item::Say(words()),
            Item::Shown { what: words(), bytes: evil.as_bytes().repeat(100_000) },
            Item::Picture(flow.record()),
            Item::Notice(words()),
            Item::Fact(words()),
        ];
        let given = LessonReport {
            lesson: LESSONS[0],
            items,
            outcome: Err(crate::LessonError::BadOption(words())),
        };
        page(&given, language, None)
    }

    #[test]
    fn what_was_received_is_never_markup_and_never_without_bounds() {
        for language in [Language::English, Language::Chinese] {
            let page = hostile(language);
            // The figure's data and the page's own script.
            assert_eq!(
                (page.matches("<script").count(), page.matches("</script>").count()),
                (2, 2)
            );
            assert!(!page.contains("<script>alert"));
            assert!(page.len() < 1_000_000, "{}", page.len());
        }
        let page = hostile(Language::English);
        assert!(page.contains("The slider goes through the first 400 of 2000 calls."));
        assert!(page.contains("more bytes are not shown."));
    }

    #[test]
    fn the_policy_allows_this_script_and_this_style_and_nothing_else() {
        let page = hostile(Language::Chinese);
        let between = |from: &str, to: &str| {
            let start = page.rfind(from).unwrap() + from.len();
            page[start..start + page[start..].find(to).unwrap()].to_owned()
        };
        let (script, style) = (
            hash_source(&between("<script>", "</script>")),
            hash_source(&between("<style>", "</style>")),
        );
        assert!(
            page.contains(&format!("default-src 'none'; script-src {script}; style-src {style};"))
        );
        // The policy forbids these as well, and a browser would complain.
        assert!(!page.contains(" style=") && !page.contains(" onclick="));
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"zh-CN\">"));
    }
}

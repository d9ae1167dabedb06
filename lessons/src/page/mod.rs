//! Renders a lesson as one self-contained page: texts, received bytes, and every flow as a figure
//! that can be stepped through.
//!
//! A page loads nothing: its content security policy allows only its own script and its own style,
//! by their hashes. Bytes that a lesson received appear in it only as text.

mod figure;
mod html;
mod target;

use std::fmt::Write;

pub use target::{PageError, PageTarget};

use crate::Lesson;
use crate::language::{Language, counted};
use crate::print;
use crate::runner::LessonReport;
use crate::stage::Item;
use html::{escape_html, hash_source, received};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Returns the page of a lesson; in a `set` it links to the others.
fn page(report: &LessonReport, language: Language, set: Option<&[LessonReport]>) -> String {
    let title = report.lesson.title(language);
    let mut body = format!(
        "<header>{}<p class=\"name\">labsh lesson {}</p><h1>{}</h1></header>\n<main>\n",
        set.map_or(String::new(), |set| navigation(&report.lesson, set, language)),
        report.lesson.name,
        escape_html(title)
    );
    body += &sections(report, language);
    if let Err(error) = &report.outcome {
        let text = print::failure(error);
        let _ = writeln!(body, "<p class=\"failed\">✗ {}</p>", escape_html(text.get(language)));
    }
    body += "</main>\n";
    document(title, &body, language)
}

/// Returns the page that links to the pages of a set.
fn index(set: &[LessonReport], language: Language) -> String {
    let title = match language {
        Language::English => "Lessons about sockets",
        Language::Chinese => "套接字课程",
    };
    let mut body = format!(
        "<header><p class=\"name\">labsh lesson</p><h1>{title}</h1></header>\n<main><ol \
         class=\"index\">\n"
    );
    for report in set {
        let mark = if report.outcome.is_ok() { "✓" } else { "✗" };
        let name = report.lesson.name;
        let title = escape_html(report.lesson.title(language));
        let _ = writeln!(
            body,
            "<li><a href=\"{name}.html\"><b>{name}</b> {title}</a> <span>{mark}</span></li>"
        );
    }
    body += "</ol></main>\n";
    document(title, &body, language)
}

fn document(title: &str, body: &str, language: Language) -> String {
    let lang = match language {
        Language::English => "en",
        Language::Chinese => "zh-CN",
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"{lang}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src {}; \
         style-src {}; base-uri 'none'; form-action 'none'\">\n\
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

/// Returns the fills of the messages in the drawings: each has a colour and a pattern, so that it
/// is recognisable by either.
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

/// Returns links to the index and to the neighbours of a lesson.
fn navigation(lesson: &Lesson, set: &[LessonReport], language: Language) -> String {
    let at = set.iter().position(|other| other.lesson.name == lesson.name).unwrap_or(0);
    let link = |other: &LessonReport, before: &str, after: &str| {
        let name = other.lesson.name;
        format!("<a href=\"{name}.html\">{before}{name}{after}</a>")
    };
    let all = match language {
        Language::English => "All lessons",
        Language::Chinese => "全部课程",
    };
    let previous = at.checked_sub(1).and_then(|at| set.get(at)).map(|other| link(other, "← ", ""));
    let next = set.get(at + 1).map(|other| link(other, "", " →"));
    format!(
        "<nav>{}<a href=\"index.html\">{all}</a>{}</nav>",
        previous.unwrap_or_default(),
        next.unwrap_or_default()
    )
}

/// A part of a scene: texts, and beside them the figures that they are about.
#[derive(Default)]
struct Row {
    texts: String,
    figures: String,
}

impl Row {
    /// Returns the row's HTML and leaves it empty.
    fn take_html(&mut self) -> String {
        let Row { texts, figures } = std::mem::take(self);
        match (texts.is_empty(), figures.is_empty()) {
            (true, true) => String::new(),
            (false, true) => {
                format!("<div class=\"row\"><div class=\"texts\">{texts}</div></div>\n")
            }
            _ => format!(
                "<div class=\"row both\"><div class=\"texts\">{texts}</div><div \
                 class=\"shown\">{figures}</div></div>\n"
            ),
        }
    }
}

/// Returns the scenes of a lesson.
fn sections(report: &LessonReport, language: Language) -> String {
    let mut html = String::new();
    let mut row = Row::default();
    let mut flows = 0;
    let mut open = false;
    for item in &report.items {
        match item {
            Item::Scene(text) => {
                html += &row.take_html();
                if open {
                    html += "</section>\n";
                }
                let _ = writeln!(html, "<section><h2>{}</h2>", escape_html(text.get(language)));
                open = true;
            }
            Item::Explanation(text) => {
                // An explanation after a figure is about the next one.
                if !row.figures.is_empty() {
                    html += &row.take_html();
                }
                let _ = write!(row.texts, "<p>{}</p>", escape_html(text.get(language)));
            }
            Item::Notice(text) => {
                let text = escape_html(text.get(language));
                let _ = write!(row.texts, "<p class=\"notice\">{text}</p>");
            }
            Item::Fact(text) => {
                let text = escape_html(text.get(language));
                let _ = write!(row.texts, "<p class=\"fact\">✓ {text}</p>");
            }
            Item::Bytes { caption, bytes } => {
                let size = match language {
                    Language::English => counted(bytes.len(), "byte"),
                    Language::Chinese => format!("{} 字节", bytes.len()),
                };
                let caption =
                    format!("{} <small>{size}</small>", escape_html(caption.get(language)));
                row.figures += &lines(&caption, bytes, language);
            }
            Item::Lines { caption, lines: text } => {
                let caption = escape_html(caption.get(language));
                row.figures += &lines(&caption, text.get(language).as_bytes(), language);
            }
            Item::Picture(record) => {
                flows += 1;
                row.figures += &figure::figure(record, language, flows);
            }
        }
    }
    html += &row.take_html();
    if open {
        html += "</section>\n";
    }
    html
}

/// Returns bytes as a figure, line by line.
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
    use crate::LESSONS;
    use crate::flow::Flow;
    use crate::language::Text;
    use crate::stage::LessonError;

    /// Returns a page of everything that a hostile command could have printed.
    fn hostile(language: Language) -> String {
        let evil = "</script></pre><script>alert(1)</script>\u{1}";
        let flow = Flow::new(evil);
        flow.message(evil);
        (0..2000).for_each(|_| flow.wrote(evil.as_bytes()));
        let text = || Text::from(evil);
        let items = vec![
            Item::Scene(text()),
            Item::Explanation(text()),
            Item::Bytes { caption: text(), bytes: evil.as_bytes().repeat(100_000) },
            Item::Picture(flow.record()),
            Item::Notice(text()),
            Item::Fact(text()),
        ];
        let report = LessonReport {
            lesson: LESSONS[0],
            items,
            outcome: Err(LessonError::BadOption(text())),
        };
        page(&report, language, None)
    }

    #[test]
    fn received_bytes_are_never_markup_and_always_bounded() {
        for language in [Language::English, Language::Chinese] {
            let page = hostile(language);
            // The figure's data and the page's script.
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
    fn the_policy_allows_only_this_script_and_this_style() {
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
        // The policy forbids inline attributes too: a browser would complain.
        assert!(!page.contains(" style=") && !page.contains(" onclick="));
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"zh-CN\">"));
    }
}

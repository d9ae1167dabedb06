//! Runs lessons in both languages and counts what they show.

#![allow(clippy::unwrap_used)]

use labsh_lessons::{Item, Language, Options, OutputFormat, run_lessons, select_lessons};

/// Runs a lesson in both languages; it must succeed with at least so many facts and pictures, and
/// every text must exist in both languages.
fn assert_lesson(name: &str, facts: usize, pictures: usize) {
    let lessons = select_lessons(&[name.to_owned()]).unwrap();
    for language in [Language::English, Language::Chinese] {
        let mut printed = Vec::new();
        let format = OutputFormat { width: 80, color: false };
        let reports =
            run_lessons(&lessons, &Options::default(), language, format, &mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(reports[0].outcome.is_ok(), "{printed}");
        let items = &reports[0].items;
        let count = |is: fn(&Item) -> bool| items.iter().filter(|item| is(item)).count();
        assert!(count(|item| matches!(item, Item::Fact(_))) >= facts, "{printed}");
        assert!(count(|item| matches!(item, Item::Picture(_))) >= pictures, "{printed}");
        for item in items {
            let (Item::Scene(text)
            | Item::Explanation(text)
            | Item::Notice(text)
            | Item::Fact(text)) = item
            else {
                continue;
            };
            let (english, chinese) = (text.get(Language::English), text.get(Language::Chinese));
            let is_chinese =
                |text: &str| text.chars().any(|one| ('\u{4e00}'..='\u{9fff}').contains(&one));
            assert!(!english.is_empty() && !is_chinese(english), "{english}");
            assert!(is_chinese(chinese) || chinese == english, "{chinese}");
        }
    }
}

#[test]
fn reuse() {
    assert_lesson("reuse", 11, 0);
}

#[test]
fn partial() {
    assert_lesson("partial", 8, 1);
}

#[test]
fn udp() {
    assert_lesson("udp", 12, 5);
}

#[test]
fn unix() {
    // Two more facts are about permissions: root needs another user to show them.
    assert_lesson("unix", 11, 2);
}

#[test]
fn auth() {
    assert_lesson("auth", 12, 8);
}

#[test]
fn concurrency() {
    assert_lesson("concurrency", 7, 2);
}

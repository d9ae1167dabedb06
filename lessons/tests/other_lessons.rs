//! The lessons beside 粘包 itself show what they promise, in both languages, and never by luck.

#![allow(clippy::unwrap_used)]

use labsh_lessons::{Item, Language, Options, OutputFormat, run_lessons, select_lessons};

/// Gives one lesson in both languages; it holds with at least so many facts and pictures, and lacks
/// no text.
fn holds(name: &str, facts: usize, pictures: usize) {
    let lessons = select_lessons(&[name.to_owned()]).unwrap();
    for language in [Language::English, Language::Chinese] {
        let mut printed = Vec::new();
        let look = OutputFormat { width: 80, color: false };
        let given =
            run_lessons(&lessons, &Options::default(), language, look, &mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(given[0].outcome.is_ok(), "{printed}");
        let items = &given[0].items;
        let count = |fits: fn(&Item) -> bool| items.iter().filter(|item| fits(item)).count();
        assert!(count(|item| matches!(item, Item::Fact(_))) >= facts, "{printed}");
        assert!(count(|item| matches!(item, Item::Picture(_))) >= pictures, "{printed}");
        for item in items {
            let (Item::Scene(words) | Item::Say(words) | Item::Notice(words) | Item::Fact(words)) =
                item
            else {
                continue;
            };
            let (english, chinese) = (words.get(Language::English), words.get(Language::Chinese));
            let is_chinese =
                |text: &str| text.chars().any(|one| ('\u{4e00}'..='\u{9fff}').contains(&one));
            assert!(!english.is_empty() && !is_chinese(english), "{english}");
            assert!(is_chinese(chinese) || chinese == english, "{chinese}");
        }
    }
}

#[test]
fn reuse() {
    holds("reuse", 11, 0);
}

#[test]
fn partial() {
    holds("partial", 8, 1);
}

#[test]
fn udp() {
    holds("udp", 12, 5);
}

#[test]
fn unix() {
    // Two more show what permissions do, except to a root that has no other user to try it with.
    holds("unix", 11, 2);
}

#[test]
fn auth() {
    holds("auth", 12, 8);
}

#[test]
fn concurrency() {
    holds("concurrency", 7, 2);
}

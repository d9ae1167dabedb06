//! English and Chinese: the language of a lesson, and texts that exist in both.

use std::str::FromStr;

/// The language in which a lesson is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// 中文.
    Chinese,
}

impl Language {
    /// The language of the locale: the first of `LC_ALL`, `LC_MESSAGES` and `LANG` that is set and
    /// not empty (locale(7)).
    pub fn of_locale() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let locale =
            ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(variable).unwrap_or_default();
        if locale.starts_with("zh") { Self::Chinese } else { Self::English }
    }
}

impl FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "en" => Ok(Self::English),
            "zh" => Ok(Self::Chinese),
            _ => Err("write en or zh".to_owned()),
        }
    }
}

/// A constant text: English, Chinese.
pub(crate) type ConstText = (&'static str, &'static str);

/// A text in both languages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    english: String,
    chinese: String,
}

impl Text {
    /// Takes both at once, so that neither can be forgotten.
    pub fn new(english: impl Into<String>, chinese: impl Into<String>) -> Self {
        Self { english: english.into(), chinese: chinese.into() }
    }

    /// Joins texts with line breaks.
    pub(crate) fn lines(texts: impl IntoIterator<Item = Text>) -> Self {
        let (english, chinese): (Vec<_>, Vec<_>) =
            texts.into_iter().map(|text| (text.english, text.chinese)).unzip();
        Self::new(english.join("\n"), chinese.join("\n"))
    }

    /// Returns the text in one language.
    pub fn get(&self, language: Language) -> &str {
        match language {
            Language::English => &self.english,
            Language::Chinese => &self.chinese,
        }
    }
}

/// A text that is the same in both languages: a name, an address.
impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text, text)
    }
}

/// A text that is the same in both languages: a name, an address.
impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(text.clone(), text)
    }
}

/// English, Chinese.
impl<English: Into<String>, Chinese: Into<String>> From<(English, Chinese)> for Text {
    fn from((english, chinese): (English, Chinese)) -> Self {
        Self::new(english, chinese)
    }
}

/// Formats a text in both languages: `text!("{n} bytes", "{n} 字节")`.
macro_rules! text {
    ($english:literal, $chinese:literal $(,)?) => {
        $crate::language::Text::new(format!($english), format!($chinese))
    };
}
pub(crate) use text;

/// Returns a number with its noun: `1 byte`, `2 bytes`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

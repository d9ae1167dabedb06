//! Every text twice: whoever writes one for students writes it in English and in Chinese.

use std::str::FromStr;

/// The language in which a lesson is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// 中文.
    Chinese,
}

impl Language {
    /// As the locale says (`LC_ALL`, `LC_MESSAGES`, `LANG`, the first that is set and not empty:
    /// locale(7)).
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

/// A text in both languages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    english: String,
    chinese: String,
}

impl Text {
    /// Both at once: there is no way to leave one out.
    pub fn new(english: impl Into<String>, chinese: impl Into<String>) -> Self {
        Self { english: english.into(), chinese: chinese.into() }
    }

    /// The text in one of them.
    pub fn get(&self, language: Language) -> &str {
        match language {
            Language::English => &self.english,
            Language::Chinese => &self.chinese,
        }
    }
}

/// What is the same in both: names, addresses.
impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text, text)
    }
}

/// What is the same in both: names, addresses.
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

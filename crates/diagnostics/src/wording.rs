//! Says what is wrong with a value in words for people, instead of the parser's names of types.

/// Rewords an error of a serde deserializer: `invalid type: sequence, expected a string` becomes
/// `a list instead of a text in quotes`. Other errors are unchanged, on one line.
pub fn reword(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let problem =
        ["invalid type: ", "invalid value: "].iter().find_map(|start| message.strip_prefix(start));
    match problem.and_then(|problem| problem.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            format!("{} instead of {}", found_value(found), wanted(expected))
        }
        None => message,
    }
}

/// Names a value as it is written in TOML (serde's `Unexpected`).
fn found_value(found: &str) -> String {
    for kind in ["integer", "floating point", "boolean", "character"] {
        let quoted = found.strip_prefix(kind).and_then(|rest| rest.trim().strip_prefix('`'));
        if let Some(value) = quoted.and_then(|value| value.strip_suffix('`')) {
            return value.to_owned();
        }
    }
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        found => match found.strip_prefix("string ") {
            Some(text) => format!("the text {text}"),
            None => found.to_owned(),
        },
    }
}

/// Names the values that are accepted (serde's `Expected`).
fn wanted(expected: &str) -> String {
    let number = |least: &str, most: u64| format!("a whole number from {least} to {most}");
    match expected {
        "a string" | "a borrowed string" => "a text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list: [\"…\", \"…\"]".to_owned(),
        "a map" => "a table".to_owned(),
        "a nonzero u16" => number("1", u16::MAX.into()),
        "u8" => number("0", u8::MAX.into()),
        "u16" => number("0", u16::MAX.into()),
        "u32" => number("0", u32::MAX.into()),
        "i8" | "i16" | "i32" | "i64" | "u64" | "usize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a Datetime" | "a TOML datetime" => "a date without quotes".to_owned(),
        expected if expected.starts_with("struct ") || expected.starts_with("internally") => {
            "a table".to_owned()
        }
        expected => expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_in_words_for_people() {
        for (message, expected) in [
            ("invalid type: sequence, expected a string", "a list instead of a text in quotes"),
            (
                "invalid value: integer `0`, expected a nonzero u16",
                "0 instead of a whole number from 1 to 65535",
            ),
            (
                "invalid type: string \"22\", expected u16",
                "the text \"22\" instead of a whole number from 0 to 65535",
            ),
            (
                "invalid type: string \"a, expected b\", expected a boolean",
                "the text \"a, expected b\" instead of true or false",
            ),
            (
                "invalid type: boolean `true`, expected a sequence",
                "true instead of a list: [\"…\", \"…\"]",
            ),
            ("invalid type: map, expected i64", "a table instead of a whole number"),
            ("invalid type: floating point `1.5`, expected struct Table", "1.5 instead of a table"),
            ("unknown field `a`, expected `b`", "unknown field `a`, expected `b`"),
        ] {
            assert_eq!(reword(message), expected);
        }
    }
}

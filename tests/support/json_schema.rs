//! Validates JSON against the schemas in docs/schema, with the keywords of JSON Schema (2020-12)
//! that they use.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// The schemas, by the names of their files.
pub struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    pub fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let schema: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, schema)
        };
        Self(fs::read_dir(folder).unwrap().map(read).collect())
    }

    pub fn files(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Every line of a text is JSON that is valid for the schema in this file; returns the lines.
    pub fn lines(&self, file: &str, text: &str) -> Vec<Value> {
        let parse = |line: &str| {
            let value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{file}: {error}: {line:?} of {text}"));
            let errors = self.errors(file, &self.0[file], &value, "");
            assert!(errors.is_empty(), "{file}: {}: {line}", errors.join("; "));
            value
        };
        text.lines().map(parse).collect()
    }

    /// What is wrong with a value; nothing if it is valid. `at` is its place in the line.
    fn errors(&self, file: &str, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let Value::Object(schema) = schema else {
            return match schema {
                Value::Bool(false) => vec![format!("{at} is not in the schema")],
                _ => Vec::new(),
            };
        };
        let mut errors = Vec::new();
        for (keyword, operand) in schema {
            let valid = match keyword.as_str() {
                "type" => has_type(operand, value),
                "const" => operand == value,
                "enum" => operand.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|n| n >= operand.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|n| n <= operand.as_f64().unwrap()),
                "format" => value.as_str().is_none_or(|text| has_format(operand, text)),
                "required" => operand.as_array().unwrap().iter().all(|name| {
                    value
                        .as_object()
                        .is_none_or(|object| object.contains_key(name.as_str().unwrap()))
                }),
                "oneOf" | "anyOf" => {
                    let schemas = operand.as_array().unwrap().iter();
                    let fits = |schema: &&Value| self.errors(file, schema, value, at).is_empty();
                    let count = schemas.filter(fits).count();
                    if keyword == "oneOf" { count == 1 } else { count > 0 }
                }
                "$ref" => {
                    let (file, schema) = self.target(file, operand.as_str().unwrap());
                    errors.extend(self.errors(file, schema, value, at));
                    true
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        errors.extend(self.errors(file, operand, item, &format!("{at}/{index}")));
                    }
                    true
                }
                "properties" | "additionalProperties" => true,
                "$schema" | "$id" | "$defs" | "title" | "description" => true,
                _ => panic!("{file}: the tests do not know the keyword {keyword}"),
            };
            if !valid {
                errors.push(format!("{at} is not as {keyword} {operand} asks"));
            }
        }
        if let Value::Object(object) = value {
            errors.extend(self.errors_of_properties(file, schema, object, at));
        }
        errors
    }

    fn errors_of_properties(
        &self,
        file: &str,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        at: &str,
    ) -> Vec<String> {
        let (named, others) = (schema.get("properties"), schema.get("additionalProperties"));
        let errors = |(name, value): (&String, &Value)| {
            let schema = named.and_then(|named| named.get(name)).or(others);
            schema.map_or_else(Vec::new, |schema| {
                self.errors(file, schema, value, &format!("{at}/{name}"))
            })
        };
        object.iter().flat_map(errors).collect()
    }

    /// The schema that a reference names, `FILE#/$defs/NAME` or `#/$defs/NAME`, with its file.
    fn target<'a>(&'a self, file: &'a str, reference: &'a str) -> (&'a str, &'a Value) {
        let (other, pointer) = reference.split_once('#').unwrap();
        let file = if other.is_empty() { file } else { other };
        let schema = self.0[file].pointer(pointer);
        (file, schema.unwrap_or_else(|| panic!("{file} has no {pointer}")))
    }

    /// The names of all properties of a schema, and those of the schemas that it refers to.
    pub fn properties(&self, file: &str) -> std::collections::BTreeSet<String> {
        let mut names = std::collections::BTreeSet::new();
        let mut pending = vec![(file, &self.0[file])];
        while let Some((file, schema)) = pending.pop() {
            match schema {
                Value::Object(fields) => {
                    for (keyword, operand) in fields {
                        match (keyword.as_str(), operand) {
                            ("properties", Value::Object(properties)) => {
                                names.extend(properties.keys().cloned());
                                pending.extend(properties.values().map(|schema| (file, schema)));
                            }
                            ("$ref", Value::String(reference)) => {
                                pending.push(self.target(file, reference));
                            }
                            _ => pending.push((file, operand)),
                        }
                    }
                }
                Value::Array(schemas) => {
                    pending.extend(schemas.iter().map(|schema| (file, schema)));
                }
                _ => {}
            }
        }
        names
    }
}

fn has_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("no value has the type {other}"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}

fn has_format(format: &Value, text: &str) -> bool {
    assert_eq!(format, "date-time", "the tests know no other format");
    text.ends_with('Z') && humantime::parse_rfc3339(text).is_ok()
}

//! Encodes and decodes the bodies of control messages. The only file that names bincode.
//!
//! Integers are big-endian and of fixed width, without padding; trailing bytes are an error
//! (PROTOCOL.md, "Bodies").

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bincode::error::DecodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;

fn format() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_big_endian()
        .with_fixed_int_encoding()
        .with_limit::<{ limits::MAX_COMMAND }>()
}

/// Encodes a body. Fails only if the result would be longer than [`limits::MAX_COMMAND`].
pub(crate) fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, String> {
    let bytes = bincode::serde::encode_to_vec(body, format()).map_err(|error| error.to_string())?;
    if bytes.len() > limits::MAX_COMMAND {
        return Err("longer than 1 MiB".to_string());
    }
    Ok(bytes)
}

/// Decodes a whole body; trailing bytes are an error.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (body, used) =
        bincode::serde::decode_from_slice(bytes, format()).map_err(|error| describe(&error))?;
    if used != bytes.len() {
        return Err(alloc::format!("trailing bytes: {}", bytes.len() - used));
    }
    Ok(body)
}

/// Describes the error in the protocol's terms; bincode's messages name its own types.
fn describe(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { .. } => "it ends early".to_string(),
        DecodeError::LimitExceeded => "its lengths exceed 1 MiB".to_string(),
        DecodeError::Utf8 { .. } => "a text is not UTF-8".to_string(),
        DecodeError::InvalidBooleanValue(found) => alloc::format!("{found} instead of 0 or 1"),
        DecodeError::UnexpectedVariant { found, .. } => {
            alloc::format!("{found} instead of 0 or 1")
        }
        DecodeError::OtherString(text) => text.clone(),
        other => other.to_string(),
    }
}

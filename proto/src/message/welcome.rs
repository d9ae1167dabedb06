//! `welcome`, whose last field is present only if its features say so.

use alloc::string::String;
use core::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Body, Features, InstanceId, Proof};
use crate::frame::Kind;
use crate::limits::MAX_VERSION;

/// `welcome`: the client is authenticated, and this proves that the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The id of this server process.
    pub instance: InstanceId,
    /// The features of the server.
    pub features: Features,
    /// The number of channels that the client may hold at the same time.
    pub channels: u32,
    /// The server's proof.
    pub proof: Proof,
    /// Program and version, such as `labshd 0.1.0`: present if and only if `features` contains
    /// [`Features::VERSION`].
    pub version: Option<String>,
}

impl Serialize for Welcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let always = (self.instance, self.features, self.channels, self.proof);
        match &self.version {
            Some(version) => (always, version).serialize(serializer),
            None => always.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Welcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(WelcomeFields::COUNT, WelcomeFields)
    }
}

/// Decodes a [`Welcome`], whose last field is present only if its features say so.
struct WelcomeFields;

impl WelcomeFields {
    const COUNT: usize = 5;
}

impl<'de> Visitor<'de> for WelcomeFields {
    type Value = Welcome;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the fields of a welcome")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Welcome, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
            fields: &mut A,
        ) -> Result<T, A::Error> {
            fields.next_element()?.ok_or_else(|| A::Error::custom("a field is missing"))
        }
        let (instance, features): (_, Features) = (next(&mut fields)?, next(&mut fields)?);
        let (channels, proof) = (next(&mut fields)?, next(&mut fields)?);
        let version =
            features.contains(Features::VERSION).then(|| next(&mut fields)).transpose()?;
        Ok(Welcome { instance, features, channels, proof, version })
    }
}

impl Body for Welcome {
    const KIND: Kind = Kind::Welcome;

    fn check_values(&self) -> Result<(), &'static str> {
        let printable = |text: &String| {
            (1..=MAX_VERSION).contains(&text.len())
                && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        match &self.version {
            _ if self.channels == 0 => Err("the number of channels is 0"),
            Some(version) if !printable(version) => {
                Err("the version is not 1 to 64 printable ASCII characters")
            }
            _ => Ok(()),
        }
    }
}

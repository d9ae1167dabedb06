//! One command on one host: its words, its streams or its terminal, our signals, its outcome.

pub(crate) mod follow;
pub(crate) mod local_streams;
pub(crate) mod optional_env;
pub(crate) mod outcome;
pub(crate) mod own_terminal;
pub(crate) mod pipes;
pub(crate) mod terminal;
pub(crate) mod words;

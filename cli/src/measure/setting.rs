//! What was asked for, in words: a report without it says nothing.

use serde::{Deserialize, Serialize};

/// One thing that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// One setting.
pub(crate) fn setting(name: &str, value: impl ToString) -> Setting {
    Setting { name: name.to_owned(), value: value.to_string() }
}

//! The command line as meant: what the global options come to.

use std::path::PathBuf;

use crate::arguments::Global;
use crate::output::Format;

/// What every command knows.
#[derive(Debug)]
pub(crate) struct Context {
    /// The connection string, if one was given.
    pub(crate) servers: Option<String>,
    /// Where a `varve dev` keeps its data.
    pub(crate) data_dir: PathBuf,
    /// How results are printed.
    pub(crate) output: Format,
    /// What was said about logging, for child processes to inherit.
    pub(crate) log: Option<String>,
}

impl From<Global> for Context {
    fn from(global: Global) -> Self {
        // An empty variable means the same as none.
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            servers: said(global.servers),
            data_dir: global.data_dir,
            output: global.output,
            log: said(global.log),
        }
    }
}

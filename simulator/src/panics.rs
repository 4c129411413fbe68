//! A panic of the code under test is a finding, not the end of the run.
//!
//! An assertion that fails inside a node says that an invariant is broken. While a thread runs code under test, a hook
//! keeps what a panic says, with its place, for the report, and prints nothing.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::oracle::Violation;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// While it lives, panics of this thread are kept silently.
#[derive(Debug)]
pub struct Keeping(());

impl Keeping {
    /// Begins to keep.
    #[must_use]
    pub fn begin() -> Self {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if DEPTH.get() == 0 {
                    return before(info);
                }
                let text = info.to_string().replace('\n', " ");
                FIRST.with(|first| {
                    first.borrow_mut().get_or_insert(text);
                });
            }));
        });
        DEPTH.set(DEPTH.get() + 1);
        Self(())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// The first panic of this thread that was kept since the last call.
#[must_use]
pub fn take() -> Option<String> {
    FIRST.with(|first| first.borrow_mut().take())
}

/// Runs code that may panic.
///
/// # Errors
/// When it does, in its own words.
pub fn guard<T>(who: impl std::fmt::Display, act: impl FnOnce() -> T) -> Result<T, Violation> {
    let keeping = Keeping::begin();
    let result = catch_unwind(AssertUnwindSafe(act));
    drop(keeping);
    result.map_err(|_| {
        let text = take().unwrap_or_else(|| "a panic without words".to_owned());
        Violation::new("a node stopped", format!("{who}: {text}"))
    })
}

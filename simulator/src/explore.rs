//! Small scope, all of it.

mod catalog;
mod disk;
mod election;
mod finding;
mod law;
mod local;
mod plan;
mod plant;
mod search;
mod state;
mod story;
mod visited;
mod way;

pub use finding::{Ending, Finding, Progress};
pub use plan::{Bound, Plan};
pub use plant::Plant;
pub use search::search;
pub use story::Story;

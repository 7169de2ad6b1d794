//! Studies: grids of training runs over methods, settings and seeds, and the comparison of what they reach.
//!
//! In the order things happen: a [`Recipe`] is read and multiplied out into cells, a [`Study`] trains each cell with
//! each seed as a process of its own and measures the models, [`Results`] compares the cells and is written as a table.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod error;
mod grid;
mod inputs;
mod recipe;
mod results;
mod run;
mod start;
mod study;
mod table;

pub use error::StudyError;
pub use recipe::{Cell, Group, Recipe};
pub use results::Results;
pub use study::{Event, Failure, Options, Outcome, Stop, Study};

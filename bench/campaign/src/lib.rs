//! Disturbs the program at every system call that changes a file, and checks what is left.
//!
//! A [`Scenario`] is a command of the program on small synthetic inputs. It is run once undisturbed, its calls
//! counted (`shim.c`, preloaded). A [`Trial`] then runs it again in a folder of its own with a [`Deed`] done at one of
//! these calls, looks for anything half-written under a final name, runs the command once more undisturbed, and holds
//! what is there in the end against what the undisturbed run left, bit by bit.

mod fixture;
mod lab;
mod program;
mod scenario;
mod tree;
mod trial;

pub use lab::{Lab, Tally};
pub use scenario::{SCENARIOS, Scenario};
pub use trial::{Deed, Trial};

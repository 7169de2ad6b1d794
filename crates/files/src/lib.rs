#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! Promised in a crash at any instant, and where the disk is full: what stands under a final name is complete, old or
//! new. What is not complete has a name of its own, [`leftover`]`(NAME)` in the same folder; the next write of the
//! same name takes it away, and so does [`sweep`]. Everything gets the permissions that the umask says; a file that
//! is replaced keeps those it had.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod error;
mod folder;
mod foreign;
mod hash;
mod json;
mod lock;
mod place;
mod write;

pub use error::{Error, Result};
pub use folder::{check_writable, copy_folder, create_folder, remove_folder, sweep, write_folder};
pub use foreign::{FOREIGN_HEAD_BYTES, Format, foreign_content, refuse_foreign};
pub use hash::{ContentHash, ContentHasher, hash_file};
pub use json::{parse_json, read_if_there, read_json, read_json_if_there, write_json};
pub use lock::FolderLock;
pub use place::leftover;
pub use write::{is_stdout, write};

//! Writes the seeds of every target as the corpora that `cargo fuzz` begins with:
//!
//! ```sh
//! cargo run -p contaccum-fuzz-targets --example corpora -- fuzz/corpus
//! ```

use std::fs;
use std::path::PathBuf;

use contaccum_fuzz_targets::TARGETS;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: corpora FOLDER")?);
    for target in &TARGETS {
        let folder = out.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

//! Token ids of texts, a line each: what `bench/peers/check_tokens.py` holds against transformers.
//!
//! ```sh
//! cargo run --release -p contaccum-encoder --example tokens -- MODEL [SAVE_TO] < texts.jsonl
//! ```
//!
//! A line holds a text, or a title and a text, and the maximum length: `["What is asked?", null, 64]`. Printed are the
//! ids and the number of the first token of type 1. With SAVE_TO the tokenizer is written there first.

use std::io::{BufRead, Write};
use std::path::Path;

use contaccum_encoder::{PassageFormat, TextTokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, save_to) = match &arguments[..] {
        [model] => (model, None),
        [model, save_to] => (model, Some(save_to)),
        _ => return Err("usage: tokens MODEL [SAVE_TO] < texts.jsonl".into()),
    };
    let tokenizer = TextTokenizer::from_folder(Path::new(model))?;
    if let Some(folder) = save_to {
        std::fs::create_dir_all(folder)?;
        tokenizer.save(Path::new(folder), 512)?;
    }
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let (first, second, max_length): (String, Option<String>, usize) = serde_json::from_str(&line?)?;
        let sequence = match second {
            None => tokenizer.query(&first, max_length)?,
            Some(second) => tokenizer.passage(&first, &second, PassageFormat::Pair, max_length)?,
        };
        writeln!(out, "{}", serde_json::to_string(&(sequence.ids, sequence.second_segment))?)?;
    }
    Ok(())
}

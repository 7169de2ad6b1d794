//! What a long text costs that is cut: alone in its process, whose memory is measured.

use contaccum_encoder::{PassageFormat, TextTokenizer};

/// The most memory this process has had, in KiB.
#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_text_of_four_megabytes_costs_what_its_first_tokens_cost() {
    let words = ["red", "##er", "river", ",", "中"].map(String::from).to_vec();
    let tokenizer = TextTokenizer::from_vocabulary(words).unwrap();
    let texts = ["red river ", "red,river,", "中", "river", " ", "\n\n", "a-", "\u{0}b "]
        .map(|part| part.repeat((4 << 20) / part.len()));
    let before = peak_kib();
    for text in &texts {
        tokenizer.query(text, 40).unwrap();
        tokenizer.passage("red river", text, PassageFormat::Pair, 40).unwrap();
        tokenizer.passage(text, "red river", PassageFormat::Pair, 40).unwrap();
    }
    // A text whole takes a hundred times its size.
    assert!(peak_kib() - before < 24 << 10, "{} KiB more", peak_kib() - before);
}

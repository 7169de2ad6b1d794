//! Files that are not text, called by their name.

/// What a file is instead of text, and what to do about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    pub name: &'static str,
    pub remedy: &'static str,
}

const UNPACK: &str = "unpack it, or compress the text with gzip or zstd";
const CONVERT: &str =
    "convert it to JSONL, for example with pandas: df.to_json(path, orient='records', lines=True)";
const UTF_16: &str = "convert it with iconv -f utf-16 -t utf-8";
const DOWNLOAD: &str = "download the file itself, not the page about it";

/// First bytes, and what begins with them.
const MAGIC: [(&[u8], &str, &str); 22] = [
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file it stands for with git lfs pull"),
    (b"PAR1", "a Parquet file", CONVERT),
    (b"ARROW1", "an Arrow file", CONVERT),
    (b"FEA1", "a Feather file", CONVERT),
    (b"\xff\xff\xff\xff", "an Arrow stream", CONVERT),
    (b"Obj\x01", "an Avro file", CONVERT),
    (b"\x89HDF", "an HDF5 file", CONVERT),
    (b"SQLite format 3", "an SQLite database", "export its table as JSONL or TSV"),
    (b"\x93NUMPY", "a NumPy array", "give the texts it was made of"),
    (b"GGUF", "a GGUF model", "give the file of texts"),
    (b"%PDF", "a PDF document", "give its text"),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", UNPACK),
    (b"BZh", "compressed with bzip2", UNPACK),
    (b"\x04\x22\x4d\x18", "compressed with lz4", UNPACK),
    (b"\x80\x02", "a Python pickle", CONVERT),
    (b"\x80\x04\x95", "a Python pickle", CONVERT),
    (b"\x80\x05\x95", "a Python pickle", CONVERT),
    (b"\xff\xfe", "UTF-16 text", UTF_16),
    (b"\xfe\xff", "UTF-16 text", UTF_16),
];

/// Where a tar archive says so.
const TAR_MAGIC_AT: usize = 257;

/// What the bytes at the start of a file show it to be, if it is nothing that is read as text.
pub(crate) fn recognise(head: &[u8]) -> Option<Foreign> {
    let found = |name, remedy| Some(Foreign { name, remedy });
    // An id may be spelled like a magic number of letters, but no text goes on like those files.
    let is_foreign = |magic: &[u8]| head.starts_with(magic) && (is_binary(head) || magic.len() > 8);
    if let Some((_, name, remedy)) = MAGIC.iter().find(|(magic, ..)| is_foreign(magic)) {
        return found(name, remedy);
    }
    if head.get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return found("a tar archive", UNPACK);
    }
    let text = head.trim_ascii_start();
    let begins =
        |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    if begins("<!doctype html") || begins("<html") {
        return found("an HTML page", DOWNLOAD);
    }
    if begins("<?xml") {
        return found("an XML document", "convert it to JSONL or TSV");
    }
    // Every other byte of ASCII in UTF-16 is 0.
    match head.get(..4).map(|start| start.iter().map(|byte| *byte == 0).collect::<Vec<_>>()).as_deref() {
        Some([false, true, false, true] | [true, false, true, false]) => found("UTF-16 text", UTF_16),
        Some(_) | None => None,
    }
}

/// Whether a control character that no text has, or a byte that no UTF-8 has, is among the first bytes.
fn is_binary(head: &[u8]) -> bool {
    let is_odd = |byte: &u8| matches!(byte, 0..=8 | 14..=31 | 0xc0 | 0xc1 | 0xf5..=0xff);
    let start = &head[..head.len().min(64)];
    let cut_in_a_character = |error: std::str::Utf8Error| error.error_len().is_none();
    start.iter().any(is_odd) || !str::from_utf8(start).map_or_else(cut_in_a_character, |_| true)
}

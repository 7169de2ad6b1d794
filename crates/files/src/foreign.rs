//! What a file is that is not what its name says: told by its first bytes, with what to do about it.

use std::path::Path;

use crate::{Error, Result};

/// As many first bytes as [`foreign_content`] looks at.
pub const FOREIGN_HEAD_BYTES: usize = 512;

/// What a file is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON or plain text.
    Text,
    /// Weights.
    Safetensors,
}

/// Signatures of other formats, their place in the file, and what to say. More telling ones come first.
const SIGNATURES: [(usize, &[u8], &str); 25] = [
    (0, b"version https://git-lfs.github.com/spec/", LFS_POINTER),
    (0, b"version https://hawser.github.com/spec/", LFS_POINTER),
    (0, b"# xet version", "is a Git Xet pointer, not the file itself; run `git xet install` and pull again"),
    (0, b"GGUF", "is a GGUF file (llama.cpp); fetch the model's safetensors version"),
    (0, b"PAR1", "is a Parquet file; fetch the file that belongs here"),
    (0, b"ARROW1", "is an Arrow file; fetch the file that belongs here"),
    (0, b"\x80\x02", PICKLE),
    (0, b"\x80\x03", PICKLE),
    (0, b"\x80\x04", PICKLE),
    (0, b"\x80\x05", PICKLE),
    (0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras); fetch the model's safetensors version"),
    (0, b"\x93NUMPY", "is a NumPy file; fetch the file that belongs here"),
    (0, b"PK\x03\x04", "is a zip archive; unpack it here"),
    (0, b"PK\x05\x06", "is an empty zip archive; fetch it again"),
    (0, b"\x1f\x8b", "is compressed with gzip; decompress it"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed with zstd; decompress it"),
    (0, b"\xfd7zXZ\0", "is compressed with xz; decompress it"),
    (0, b"BZh", "is compressed with bzip2; decompress it"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it here"),
    (257, b"ustar", "is a tar archive; unpack it here"),
    (0, b"SQLite format 3\0", "is an SQLite data base; fetch the file that belongs here"),
    (0, b"%PDF-", "is a PDF file; fetch the file that belongs here"),
    (0, b"\x7fELF", "is a program; fetch the file that belongs here"),
    (0, b"\xff\xfe", UTF_16),
    (0, b"\xfe\xff", UTF_16),
];

const LFS_POINTER: &str = "is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder";
const PICKLE: &str = "is a Python pickle (an old PyTorch file), which runs code when opened; fetch the model's \
                      safetensors version or convert it in Python with save_pretrained";
const TORCH_ZIP: &str = "is a PyTorch file (a zip of pickles), which runs code when opened; fetch the model's \
                         safetensors version or convert it in Python with save_pretrained";
const UTF_16: &str = "is text in UTF-16; save it as UTF-8";
const WEB_PAGE: &str = "is a web page, not the file itself (an error or a sign-in page?); fetch it again";
const HUB_MESSAGE: &str =
    "holds an error message of the hub, not the file itself; check its address and fetch it again";
const SAFETENSORS: &str = "is a safetensors file under another name; fetch the file that belongs here";

/// What a file with these first bytes is, as a clause with a remedy (`is empty; fetch it again`), if it is a format or
/// an accident that can be told. What was expected, and bytes that tell nothing, give `None`.
pub fn foreign_content(head: &[u8], expected: Format) -> Option<&'static str> {
    if head.is_empty() {
        return Some("is empty; fetch it again");
    }
    if head.starts_with(b"PK\x03\x04") && contains(head, b"data.pkl") {
        return Some(TORCH_ZIP);
    }
    let signed = |(at, signature, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(signature))
    };
    // A safetensors file opens with the length of its header, which may look like anything.
    if is_safetensors(head) {
        return (expected != Format::Safetensors).then_some(SAFETENSORS);
    }
    if let Some((_, _, what)) = SIGNATURES.iter().find(signed) {
        return Some(what);
    }
    if head.iter().all(|byte| *byte == 0) {
        return Some("holds nothing but zeros (an interrupted download?); fetch it again");
    }
    text_that_is_no_file(head)
}

/// Refuses a file whose first bytes tell that it is something else, by name.
///
/// # Errors
/// [`Error::Foreign`] then.
pub fn refuse_foreign(path: &Path, bytes: &[u8], expected: Format) -> Result<()> {
    match foreign_content(&bytes[..bytes.len().min(FOREIGN_HEAD_BYTES)], expected) {
        Some(what) => Err(Error::Foreign { path: path.into(), what }),
        None => Ok(()),
    }
}

fn is_safetensors(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= 100_000_000 && rest.starts_with(b"{\"")
}

/// Pages and messages that a download can leave in a file's place.
fn text_that_is_no_file(head: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(head);
    let start = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let any = |starts: &[&str]| starts.iter().any(|known| start.starts_with(known));
    if any(&["<!doctype html", "<html", "<head", "<!--", "<?xml"]) {
        return Some(WEB_PAGE);
    }
    let messages =
        ["entry not found", "repository not found", "invalid username or password", "access to model "];
    let error_object = start.starts_with("{\"error\":");
    (any(&messages) || error_object).then_some(HUB_MESSAGE)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_download_leaves_in_a_files_place_is_told_by_name() {
        let cases: [(&[u8], &str); 16] = [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", "git lfs pull"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"PAR1\x15\x04", "Parquet"),
            (b"PK\x03\x04\0\0\0\0archive/data.pkl", "PyTorch"),
            (b"PK\x03\x04\0\0\0\0word/document.xml", "zip archive"),
            (b"\x80\x02}q\0", "pickle"),
            (b"\x89HDF\r\n\x1a\n\0", "HDF5"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"\x93NUMPY\x01\0", "NumPy"),
            (b"\n  <!DOCTYPE html><html>", "web page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "web page"),
            (b"Entry not found", "message of the hub"),
            (b"{\"error\":\"Repository not found\"}", "message of the hub"),
            (&[0; 64], "zeros"),
        ];
        for (head, expected) in cases {
            let what = foreign_content(head, Format::Text).unwrap_or_default();
            assert!(what.contains(expected) && what.contains(';'), "{head:?}: {what}");
            assert_eq!(foreign_content(head, Format::Safetensors), Some(what), "{head:?}");
        }
        let tar = [vec![b'a'; 257], b"ustar".to_vec()].concat();
        assert!(foreign_content(&tar, Format::Safetensors).is_some_and(|what| what.contains("tar archive")));
    }

    #[test]
    fn what_belongs_in_a_model_folder_is_not_told_to_be_something_else() {
        for head in
            [b"{}".as_slice(), b"[]", b"\xef\xbb\xbf{\"hidden_size\": 8}", b"[PAD]\n[UNK]\n", b"8", b"{\"a\""]
        {
            assert_eq!(foreign_content(head, Format::Text), None, "{head:?}");
        }
        // The length of a header may begin like a signature: here 0x8b1f, gzip's.
        for length in [8u64, 0x8b1f] {
            let weights = [&length.to_le_bytes()[..], b"{\"a\":"].concat();
            assert_eq!(foreign_content(&weights, Format::Safetensors), None);
            assert!(foreign_content(&weights, Format::Text).is_some_and(|what| what.contains("safetensors")));
        }
    }
}

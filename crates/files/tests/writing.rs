//! Files are written whole or not at all, and what is not a file is written to.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use contaccum_files::{leftover, write};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn text(path: &Path, text: &str) -> contaccum_files::Result<()> {
    write(path, |file| file.write_all(text.as_bytes()))
}

#[test]
fn the_new_content_replaces_the_old_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    fs::write(&path, "old").unwrap();
    text(&path, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["weights.bin"]);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_unfinished_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    fs::write(&path, "old").unwrap();
    let full = write(&path, |file| {
        file.write_all(b"half")?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    });
    let message = full.unwrap_err().to_string();
    assert!(message.contains("weights.bin") && message.contains("free space"), "{message}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["weights.bin"]);
}

#[test]
fn a_panic_while_writing_leaves_the_old_file_and_no_unfinished_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    fs::write(&path, "old").unwrap();
    let panicked = std::panic::catch_unwind(|| {
        write(&path, |file| {
            file.write_all(b"half")?;
            panic!("in the middle")
        })
    });
    assert!(panicked.is_err());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["weights.bin"]);
}

#[test]
fn what_a_killed_process_left_is_taken_away_by_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    fs::write(leftover(&path), "half of something long").unwrap();
    text(&path, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["weights.bin"]);
}

#[test]
fn a_second_writer_of_one_file_is_refused_and_the_first_one_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trec");
    write(&path, |file| {
        let message = text(&path, "second").unwrap_err().to_string();
        assert!(message.contains("in use by another process"), "{message}");
        file.write_all(b"first")
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
}

#[test]
fn a_missing_folder_and_a_folder_in_the_way_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = text(&folder.path().join("none/x.bin"), "").unwrap_err().to_string();
    assert!(message.contains("none/x.bin") && message.contains("folder exists"), "{message}");
    let message = text(folder.path(), "").unwrap_err().to_string();
    assert!(message.contains("give the name of a file"), "{message}");
    assert!(text(Path::new(""), "").is_err());
}

#[test]
fn a_name_of_255_bytes_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x".repeat(255));
    text(&path, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_has_the_permissions_of_any_other_and_a_replaced_one_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        text(&ours, "x").unwrap();
        fs::write(&plain, "x").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o640)).unwrap();
        text(&ours, "y").unwrap();
        assert_eq!(mode(&ours), 0o640);
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o440)).unwrap();
        let message = text(&ours, "z").unwrap_err().to_string();
        assert!(message.contains("read-only") && message.contains("permissions"), "{message}");
        assert_eq!(fs::read(&ours).unwrap(), b"y");
    }

    #[test]
    fn links_are_followed_to_their_end_whether_a_file_is_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let there = |name: &str| folder.path().join(name);
        fs::create_dir(there("sub")).unwrap();
        fs::write(there("real.txt"), "old").unwrap();
        symlink("real.txt", there("link")).unwrap();
        symlink("../link", there("sub/second")).unwrap();
        symlink("sub/new.txt", there("dangling")).unwrap();
        text(&there("sub/second"), "through two").unwrap();
        text(&there("dangling"), "made").unwrap();
        assert_eq!(fs::read(there("real.txt")).unwrap(), b"through two");
        assert_eq!(fs::read(there("sub/new.txt")).unwrap(), b"made");
        for link in ["link", "sub/second", "dangling"] {
            assert!(fs::symlink_metadata(there(link)).unwrap().is_symlink(), "{link}");
        }
        symlink("circle", there("circle")).unwrap();
        assert!(text(&there("circle"), "x").is_err());
    }

    #[test]
    fn a_fifo_gets_the_content_and_stays_a_fifo() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let reader = {
            let fifo = fifo.clone();
            std::thread::spawn(move || io::read_to_string(File::open(fifo).unwrap()).unwrap())
        };
        text(&fifo, "through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
        assert_eq!(names(folder.path()), ["fifo"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_stays_a_device_and_a_full_one_is_told() {
        text(Path::new("/dev/null"), "gone").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let message = text(Path::new("/dev/full"), "lost").unwrap_err().to_string();
        assert!(message.contains("/dev/full") && message.contains("free space"), "{message}");
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    }
}

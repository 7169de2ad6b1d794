//! Folders are replaced and removed whole, and belong to one process at a time.

use std::fs;
use std::io::Write;
use std::path::Path;

use contaccum_files::{
    Error, FolderLock, check_writable, copy_folder, leftover, remove_folder, sweep, write, write_folder,
};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fill(name: &str) -> impl FnOnce(&Path) -> Result<(), Error> {
    move |folder| write(&folder.join(name), |file| file.write_all(b"x"))
}

#[test]
fn a_folder_is_replaced_whole_and_nothing_of_the_old_one_is_left() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("new/model");
    write_folder(&path, fill("first")).unwrap();
    write_folder(&path, fill("second")).unwrap();
    assert_eq!(names(&path), ["second"]);
    assert_eq!(names(path.parent().unwrap()), ["model"]);
}

#[test]
fn a_folder_that_cannot_be_filled_leaves_the_old_one() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model");
    write_folder(&path, fill("first")).unwrap();
    let failed = write_folder(&path, |folder| {
        fill("half")(folder)?;
        fill("none/x")(folder)
    });
    assert!(failed.is_err());
    assert_eq!((names(&path), names(place.path())), (vec!["first".into()], vec!["model".into()]));
}

#[test]
fn a_second_writer_of_one_folder_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model");
    write_folder(&path, |folder| {
        let message = write_folder(&path, fill("second")).unwrap_err().to_string();
        assert!(message.contains("in use by another process"), "{message}");
        sweep(place.path())?;
        fill("first")(folder)
    })
    .unwrap();
    assert_eq!(names(&path), ["first"]);
}

#[test]
fn what_killed_processes_left_is_swept_and_a_half_replaced_folder_put_back() {
    let place = tempfile::tempdir().unwrap();
    let there = |name: &str| place.path().join(name);
    fs::write(leftover(&there("run.trec")), "half").unwrap();
    fs::create_dir(leftover(&there("model"))).unwrap();
    fs::write(leftover(&there("model")).join("half"), "").unwrap();
    fs::create_dir(there(".index.contaccum-previous")).unwrap();
    fs::create_dir(there(".other.contaccum-previous")).unwrap();
    fs::create_dir(there("other")).unwrap();
    fs::write(there(".hidden"), "the user's own").unwrap();
    sweep(place.path()).unwrap();
    assert_eq!(names(place.path()), [".hidden", "index", "other"]);
    sweep(&there("none")).unwrap();
}

#[test]
fn a_removed_folder_and_what_an_interrupted_removal_left_are_gone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("checkpoint");
    write_folder(&path, fill("x")).unwrap();
    fs::create_dir(leftover(&path)).unwrap();
    remove_folder(&path).unwrap();
    assert!(names(place.path()).is_empty());
}

#[test]
fn a_locked_folder_is_refused_with_the_process_that_holds_it_until_it_lets_go() {
    let place = tempfile::tempdir().unwrap();
    let lock = FolderLock::acquire(place.path()).unwrap();
    let holder = format!("in use by process {}", std::process::id());
    for refused in [FolderLock::check(place.path()), FolderLock::acquire(place.path()).map(drop)] {
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(&holder), "{message}");
    }
    let shared = lock.share().unwrap();
    drop(lock);
    assert!(FolderLock::check(place.path()).is_err());
    drop(shared);
    FolderLock::check(place.path()).unwrap();
    FolderLock::acquire(place.path()).unwrap();
    FolderLock::check(&place.path().join("none")).unwrap();
}

#[test]
fn whether_a_folder_could_be_written_is_known_without_writing() {
    let place = tempfile::tempdir().unwrap();
    check_writable(&place.path().join("a/b")).unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let message = check_writable(&place.path().join("file/b")).unwrap_err().to_string();
    assert!(message.contains("file/b"), "{message}");
    assert_eq!(names(place.path()), ["file"]);
}

#[cfg(unix)]
#[test]
fn a_copy_has_the_permissions_of_new_files_and_the_contents_behind_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/secret"), "x").unwrap();
    fs::set_permissions(from.join("sub/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("sub/secret", from.join("link")).unwrap();
    copy_folder(&from, &to).unwrap();
    fs::write(place.path().join("plain"), "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&to.join("sub/secret")), mode(&place.path().join("plain")));
    assert!(fs::symlink_metadata(to.join("link")).unwrap().is_file());
}

#[cfg(unix)]
#[test]
fn a_folder_behind_a_link_is_replaced_there() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("disk/model")).unwrap();
    std::os::unix::fs::symlink("disk/model", place.path().join("link")).unwrap();
    write_folder(&place.path().join("link"), fill("x")).unwrap();
    assert!(fs::symlink_metadata(place.path().join("link")).unwrap().is_symlink());
    assert_eq!(names(&place.path().join("disk/model")), ["x"]);
}

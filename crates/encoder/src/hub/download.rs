//! Files of the hub into the cache, in the layout that `huggingface_hub` shares.
//!
//! What a server says becomes the name of a file only after it was checked as a name, and contents become a file of the
//! cache only when they have the hash they were announced with: an interrupted or damaged download leaves a temporary
//! file at most, and names nothing.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::{Agent, Body, Error, http::Response};

use super::{cache_folder, is_plain_name};
use crate::error::one_line;

const OFFICIAL: &str = "https://huggingface.co";
const USER_AGENT: &str = concat!("contaccum/", env!("CARGO_PKG_VERSION"));
/// A file is asked for this often before the download fails.
const TRIES: u32 = 4;
/// Redirects within the hub, such as those of a renamed model.
const MOST_REDIRECTS: usize = 8;

/// A hub that answers.
pub(super) struct Remote {
    endpoint: String,
    token: Option<String>,
    /// Tells redirects instead of following them: the hub's own answer has the hash, the storage's has the content.
    hub: Agent,
    storage: Agent,
}

/// What the hub says of a model's main branch.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Remote {
    pub(super) fn new(endpoint: Option<&str>, token: Option<String>) -> Self {
        let config = || {
            Agent::config_builder()
                .user_agent(USER_AGENT)
                .timeout_connect(Some(Duration::from_secs(10)))
                .timeout_recv_response(Some(Duration::from_secs(60)))
        };
        Self {
            endpoint: endpoint.unwrap_or(OFFICIAL).trim_end_matches('/').to_owned(),
            token,
            hub: config().max_redirects(0).max_redirects_will_error(false).build().into(),
            storage: config().build().into(),
        }
    }

    /// The commit of the main branch and its files.
    pub(super) fn listing(&self, name: &str) -> Result<Listing, String> {
        let url = format!("{}/api/models/{name}/revision/main", self.endpoint);
        let mut answer = self.ask(&url).map_err(Failure::reason)?;
        let info: Info = answer.body_mut().read_json().map_err(|reason| one_line(&reason.to_string()))?;
        if !is_plain_name(&info.sha) {
            return Err(format!("the hub gave {:?} for a commit, which is not the name of one", info.sha));
        }
        Ok(Listing {
            commit: info.sha,
            files: info.siblings.into_iter().map(|file| file.rfilename).collect(),
        })
    }

    /// Brings a file of a commit into the cache, where it is not there yet.
    pub(super) fn fetch(
        &self,
        cache: &Path,
        name: &str,
        commit: &str,
        file: &str,
    ) -> Result<PathBuf, String> {
        let folder = cache_folder(cache, name);
        let pointer = folder.join("snapshots").join(commit).join(file);
        if pointer.exists() {
            return Ok(pointer);
        }
        let url = format!("{}/{name}/resolve/{commit}/{file}", self.endpoint);
        let mut tries = 1;
        let blob = loop {
            match self.fetch_blob(&url, commit, &folder.join("blobs")) {
                Ok(blob) => break blob,
                Err(Failure::Final(reason)) => return Err(format!("{file}: {reason}")),
                Err(Failure::Passing(reason)) if tries == TRIES => return Err(format!("{file}: {reason}")),
                Err(Failure::Passing(_)) => thread::sleep(Duration::from_millis(100 << tries)),
            }
            tries += 1;
        };
        point(&pointer, &blob).map_err(|reason| format!("{}: {reason}", pointer.display()))?;
        Ok(pointer)
    }

    fn fetch_blob(&self, url: &str, commit: &str, blobs: &Path) -> Result<PathBuf, Failure> {
        let answer = self.ask(url)?;
        let header = |name: &str| header(&answer, name);
        if let Some(other) = header("x-repo-commit").filter(|other| other != commit) {
            return Err(Failure::Final(format!("the hub gave commit {other:?} instead of {commit}")));
        }
        let etag = header("x-linked-etag").or_else(|| header("etag")).ok_or_else(|| {
            Failure::Final(format!("the hub gave no ETag for {url}, so its content cannot be checked"))
        })?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        if !is_plain_name(&etag) {
            return Err(Failure::Final(format!(
                "the hub gave the ETag {etag:?}, which is not the name of a file"
            )));
        }
        let blob = blobs.join(&etag);
        if blob.exists() && matches(&blob, &etag).unwrap_or(false) {
            return Ok(blob);
        }
        let answer = match header("location") {
            Some(location) => self.call(&self.storage, &location, None)?,
            None => answer,
        };
        write_blob(answer, &blob, &etag)?;
        Ok(blob)
    }

    /// Asks the hub, following redirects within it; a redirect to another host is the answer.
    fn ask(&self, url: &str) -> Result<Response<Body>, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let answer = self.call(&self.hub, &url, self.token.as_deref())?;
            match header(&answer, "location").filter(|_| answer.status().is_redirection()) {
                Some(within) if within.starts_with('/') && !within.starts_with("//") => {
                    url = format!("{}{within}", origin(&self.endpoint));
                }
                _ => return Ok(answer),
            }
        }
        Err(Failure::Final(format!("{url} leads in a circle")))
    }

    fn call(&self, agent: &Agent, url: &str, token: Option<&str>) -> Result<Response<Body>, Failure> {
        // Content as it is stored: its length is announced, and its hash is of these bytes.
        let mut request = agent.get(url).header("Accept-Encoding", "identity");
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|reason| match reason {
            Error::StatusCode(status @ 400..=499) => Failure::Final(format!("http status {status}")),
            other => Failure::Passing(one_line(&other.to_string())),
        })
    }
}

/// Why a file was not fetched, and whether asking again may help.
enum Failure {
    Passing(String),
    Final(String),
}

impl Failure {
    fn reason(self) -> String {
        match self {
            Self::Passing(reason) | Self::Final(reason) => reason,
        }
    }
}

fn header(answer: &Response<Body>, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Scheme and host of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

/// Writes the answer's content under the blob's name, if it has the hash that its name says.
fn write_blob(answer: Response<Body>, blob: &Path, etag: &str) -> Result<(), Failure> {
    let blobs = blob.parent().expect("a blob lies in a folder");
    let local = |reason: io::Error| Failure::Final(format!("{}: {reason}", blobs.display()));
    fs::create_dir_all(blobs).map_err(local)?;
    let mut named = tempfile::Builder::new();
    let mut partial = named.prefix(".contaccum-").suffix(".incomplete").tempfile_in(blobs).map_err(local)?;
    let announced = answer.body().content_length();
    copy(&mut answer.into_body().into_reader(), partial.as_file_mut()).map_err(|failure| match failure {
        Copy::Read(reason) => {
            Failure::Passing(format!("the download broke off: {}", one_line(&reason.to_string())))
        }
        Copy::Write(reason) => local(reason),
    })?;
    let length = partial.as_file().metadata().map_err(local)?.len();
    if announced.is_some_and(|announced| announced != length) {
        return Err(Failure::Passing(format!("the download broke off after {length} bytes")));
    }
    if !matches(partial.path(), etag).map_err(local)? {
        return Err(Failure::Passing(format!("what came has not the hash {etag} that the hub announced")));
    }
    partial.as_file().sync_all().map_err(local)?;
    let kept = partial.persist(blob).map_err(|failure| local(failure.error))?;
    share(&kept).map_err(local)
}

/// A temporary file is its owner's alone; files of a cache are not.
#[cfg(unix)]
fn share(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_: &File) -> io::Result<()> {
    Ok(())
}

/// Which side of a copy failed.
enum Copy {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut impl Read, to: &mut File) -> Result<(), Copy> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(Copy::Write)?,
            Err(reason) if reason.kind() == io::ErrorKind::Interrupted => {}
            Err(reason) => return Err(Copy::Read(reason)),
        }
    }
}

/// Whether a file has the hash that its ETag says: SHA-256 of what lies in large storage, git's SHA-1 of a blob of the
/// others. Other ETags say nothing about the content.
fn matches(path: &Path, etag: &str) -> io::Result<bool> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let hex = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let found = match etag.len() {
        64 if hex => digest(Sha256::new(), file)?,
        40 if hex => digest(Sha1::new_with_prefix(format!("blob {length}\0")), file)?,
        _ => return Ok(true),
    };
    Ok(found.eq_ignore_ascii_case(etag))
}

fn digest(mut hash: impl Digest, file: File) -> io::Result<String> {
    let mut file = BufReader::new(file);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes `pointer` name the blob: by a relative link, as the cache's other users do, or by a copy where links are not.
fn point(pointer: &Path, blob: &Path) -> io::Result<()> {
    let folder = pointer.parent().expect("a file of a snapshot lies in a folder");
    fs::create_dir_all(folder)?;
    // models--a--b/snapshots/COMMIT[/1_Pooling]/FILE to models--a--b/blobs/ETAG.
    let snapshots = blob.parent().and_then(Path::parent).expect("blobs lie in a model's folder");
    let depth = folder.strip_prefix(snapshots).map_or(2, |inner| inner.components().count());
    let name = blob.file_name().expect("a blob has a name");
    let target: PathBuf = (0..depth).map(|_| "..").collect::<PathBuf>().join("blobs").join(name);
    // A link that was left without its blob is in the way of the new one.
    let _ = fs::remove_file(pointer);
    link(&target, pointer).or_else(|_| fs::copy(blob, pointer).map(|_| ()))
}

#[cfg(unix)]
fn link(target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

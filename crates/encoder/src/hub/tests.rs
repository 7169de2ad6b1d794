//! The cache and a hub on this machine.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::ModelFolder;

const NAME: &str = "someone/some-model";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn hub(cache: &Path, offline: bool, endpoint: &str) -> Hub {
    Hub { cache: cache.into(), offline, endpoint: Some(endpoint.into()), token: Some("secret".into()) }
}

/// A cache that holds these files of the model, as `huggingface_hub` lays them out.
fn cache_with(files: &[&str]) -> (TempDir, PathBuf) {
    let cache = tempdir().unwrap();
    let model = cache.path().join("models--someone--some-model");
    let snapshot = model.join("snapshots/0123abcd");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), "0123abcd").unwrap();
    for file in files {
        fs::write(snapshot.join(file), "[]").unwrap();
    }
    (cache, snapshot)
}

/// A hub with one model.
#[derive(Clone)]
struct Server {
    files: Vec<(&'static str, &'static str)>,
    commit: String,
    /// Headers of a file's answer by its name, in place of an ETag that is its hash.
    headers: HashMap<&'static str, String>,
    /// Files of which this much is left out, though announced.
    cut: HashMap<&'static str, usize>,
    /// The lines of every request.
    requests: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Server {
    fn new(files: &[(&'static str, &'static str)]) -> Self {
        Self {
            files: files.to_vec(),
            commit: COMMIT.into(),
            headers: HashMap::new(),
            cut: HashMap::new(),
            requests: Arc::default(),
        }
    }

    /// Starts to answer; gives its address.
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = self.clone();
        thread::spawn(move || listener.incoming().for_each(|stream| server.answer(&mut stream.unwrap())));
        address
    }

    fn answer(&self, stream: &mut TcpStream) {
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = request[0].split(' ').nth(1).unwrap().to_owned();
        self.requests.lock().unwrap().push(request);
        let find = |prefix: String| {
            let name = path.strip_prefix(&prefix)?;
            self.files.iter().find(|(known, _)| *known == name)
        };
        let (status, headers, body, cut) = if path == format!("/api/models/{NAME}/revision/main") {
            let siblings: Vec<_> =
                self.files.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
            let info = serde_json::json!({ "sha": self.commit, "siblings": siblings });
            ("200 OK", String::new(), info.to_string(), 0)
        } else if let Some((name, body)) = find(format!("/{NAME}/resolve/{}/", self.commit)) {
            let headers = self
                .headers
                .get(name)
                .cloned()
                .unwrap_or_else(|| format!("ETag: \"{}\"\r\n", git_hash(body)));
            let status = if headers.contains("Location:") { "302 Found" } else { "200 OK" };
            (status, headers, (*body).to_owned(), self.cut.get(name).copied().unwrap_or_default())
        } else if let Some((_, body)) = find("/storage/".into()) {
            ("200 OK", String::new(), (*body).to_owned(), 0)
        } else {
            ("404 Not Found", String::new(), String::new(), 0)
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        );
        let _ = write!(stream, "{head}{}", &body[..body.len() - cut]);
    }

    /// Serves a file from another host, as the hub does with what lies in large storage.
    fn store_elsewhere(&mut self, name: &'static str, storage: &str) {
        let body = self.files.iter().find(|(known, _)| *known == name).unwrap().1;
        let headers = format!(
            "Location: {storage}/storage/{name}\r\nX-Linked-ETag: \"{}\"\r\nETag: \"no-hash\"\r\n",
            sha256(body)
        );
        self.headers.insert(name, headers);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(content: &str) -> String {
    hex(&Sha256::digest(content))
}

fn git_hash(content: &str) -> String {
    hex(&Sha1::digest(format!("blob {}\0{content}", content.len())))
}

const WHOLE: [(&str, &str); 4] =
    [("config.json", "{}"), ("model.safetensors", "weights"), ("vocab.txt", "[PAD]"), ("modules.json", "[]")];

/// All files below a folder, links not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn a_cached_sentence_transformers_folder_is_used_without_asking_the_hub() {
    let files = ["config.json", "model.safetensors", "tokenizer.json", "modules.json"];
    let (cache, snapshot) = cache_with(&files);
    let nobody = hub(cache.path(), false, "http://127.0.0.1:1");
    assert_eq!(nobody.fetch(NAME).unwrap(), snapshot);
}

#[test]
fn a_cached_plain_model_is_used_offline_and_when_the_hub_does_not_answer() {
    let (cache, snapshot) = cache_with(&["config.json", "model.safetensors", "vocab.txt"]);
    for offline in [true, false] {
        let hub = hub(cache.path(), offline, "http://127.0.0.1:1");
        let folder = ModelFolder::locate_with(NAME, &hub).unwrap();
        assert_eq!(folder.path(), snapshot);
    }
}

#[test]
fn a_folder_that_is_missing_where_its_parent_is_there_is_told_as_such() {
    let (cache, _) = cache_with(&[]);
    for offline in [true, false] {
        let hub = hub(cache.path(), offline, "http://127.0.0.1:1");
        let error = ModelFolder::locate_with("src/no-such-model", &hub).unwrap_err();
        assert!(matches!(error, EncoderError::FolderMissing { .. }), "{error}");
        let error = ModelFolder::locate_with("no-such-owner/no-such-model", &hub).unwrap_err();
        assert!(!matches!(error, EncoderError::FolderMissing { .. }), "{error}");
    }
}

#[test]
fn a_model_not_wholly_in_the_cache_is_an_error_offline() {
    let (cache, snapshot) = cache_with(&["config.json", "tokenizer.json"]);
    let fetch = || hub(cache.path(), true, "http://127.0.0.1:1").fetch(NAME);
    let error = fetch().unwrap_err();
    assert!(matches!(error, EncoderError::HubOffline { .. }));
    assert!(error.to_string().contains("HF_HUB_OFFLINE") && error.to_string().contains(NAME), "{error}");

    let index = serde_json::json!({ "weight_map": { "a": "model-00001-of-00001.safetensors" } });
    fs::write(snapshot.join(SHARD_INDEX), index.to_string()).unwrap();
    assert!(fetch().is_err(), "the only part of the weights is missing");
    fs::write(snapshot.join("model-00001-of-00001.safetensors"), "").unwrap();
    assert_eq!(fetch().unwrap(), snapshot);
}

#[test]
fn a_model_that_the_hub_does_not_know_is_an_error_of_one_line() {
    let cache = tempdir().unwrap();
    let error = hub(cache.path(), false, &Server::new(&[]).start()).fetch("someone/else").unwrap_err();
    assert!(matches!(error, EncoderError::HubFailed { .. }));
    assert!(error.to_string().contains("404") && !error.to_string().contains('\n'), "{error}");
}

#[test]
fn a_download_brings_the_model_files_alone_and_is_found_in_the_cache_afterwards() {
    let server = Server::new(&[
        ("config.json", "{\"model_type\": \"bert\"}"),
        ("model.safetensors", "weights"),
        ("model-00001-of-00002.safetensors", "not wanted beside the whole"),
        ("pytorch_model.bin", "not wanted"),
        ("onnx/config.json", "not wanted"),
        ("vocab.txt", "[PAD]"),
        ("modules.json", "[]"),
        ("1_Pooling/config.json", "{\"a\": 1}"),
    ]);
    let address = server.start();
    let cache = tempdir().unwrap();
    let folder = hub(cache.path(), false, &address).fetch(NAME).unwrap();
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    assert_eq!(read("model.safetensors").as_deref(), Some("weights"));
    assert_eq!(read("1_Pooling/config.json").as_deref(), Some("{\"a\": 1}"));
    for unwanted in ["pytorch_model.bin", "onnx/config.json", "model-00001-of-00002.safetensors"] {
        assert_eq!(read(unwanted), None);
    }
    assert_eq!(hub(cache.path(), true, &address).fetch(NAME).unwrap(), folder);
    assert!(folder.ends_with(format!("models--someone--some-model/snapshots/{COMMIT}")));
    let blob = fs::canonicalize(folder.join("1_Pooling/config.json")).unwrap();
    assert!(blob.ends_with(format!("blobs/{}", git_hash("{\"a\": 1}"))), "{blob:?}");
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
    assert!(!below(cache.path()).iter().any(hidden), "no temporary file is left");
}

#[test]
fn a_model_located_without_its_weights_has_its_dense_modules_and_is_fetched_wholly_when_it_is_used() {
    let modules = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
                      {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
                      {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]"#;
    let server = Server::new(&[
        ("config.json", r#"{"hidden_size": 24}"#),
        ("model.safetensors.index.json", "{}"),
        ("model-00001-of-00001.safetensors", "weights"),
        ("vocab.txt", "[PAD]"),
        ("modules.json", modules),
        ("1_Pooling/config.json", "{}"),
        ("2_Dense/config.json", r#"{"in_features": 24, "out_features": 4}"#),
        ("2_Dense/model.safetensors", "weights"),
    ]);
    let cache = tempdir().unwrap();
    let (online, offline) = [false, true].map(|offline| hub(cache.path(), offline, &server.start())).into();
    let folder = ModelFolder::locate_without_weights_with(NAME, &online).unwrap();
    assert_eq!(folder.config().unwrap().dim(), 4);
    let weights =
        || below(folder.path()).into_iter().filter(|path| path.to_string_lossy().contains("safetensors"));
    assert_eq!(weights().count(), 0);
    assert!(folder.path().join("vocab.txt").exists());

    let again = ModelFolder::locate_without_weights_with(NAME, &offline).unwrap();
    assert_eq!(again.config().unwrap().dim(), 4);
    assert!(matches!(offline.fetch(NAME), Err(EncoderError::HubOffline { .. })));
    assert_eq!(online.fetch(NAME).unwrap(), folder.path());
    assert_eq!(weights().count(), 3);
}

#[test]
fn a_config_alone_serves_without_its_weights_where_the_hub_does_not_answer() {
    let (cache, snapshot) = cache_with(&["config.json"]);
    for offline in [true, false] {
        let hub = hub(cache.path(), offline, "http://127.0.0.1:1");
        assert_eq!(ModelFolder::locate_without_weights_with(NAME, &hub).unwrap().path(), snapshot);
        assert!(hub.fetch(NAME).is_err());
    }
}

#[test]
fn what_transformers_left_out_of_the_cache_is_fetched() {
    let (cache, _) = cache_with(&["config.json", "model.safetensors", "tokenizer.json"]);
    let files =
        ["config.json", "model.safetensors", "tokenizer.json", "modules.json"].map(|name| (name, "new"));
    let folder = hub(cache.path(), false, &Server::new(&files).start()).fetch(NAME).unwrap();
    assert_eq!(fs::read_to_string(folder.join("modules.json")).unwrap(), "new");
}

#[test]
fn large_storage_gives_the_content_and_never_sees_the_token() {
    let storage = Server::new(&WHOLE);
    let mut server = Server::new(&WHOLE);
    server.store_elsewhere("model.safetensors", &storage.start());
    let cache = tempdir().unwrap();
    let folder = hub(cache.path(), false, &server.start()).fetch(NAME).unwrap();
    assert_eq!(fs::read_to_string(folder.join("model.safetensors")).unwrap(), "weights");
    assert!(fs::canonicalize(folder.join("model.safetensors")).unwrap().ends_with(sha256("weights")));
    let with_token = |server: &Server| -> Vec<bool> {
        let requests = server.requests.lock().unwrap();
        requests.iter().map(|lines| lines.iter().any(|line| line.contains("Bearer secret"))).collect()
    };
    assert!(with_token(&server).iter().all(|with| *with));
    assert_eq!(with_token(&storage), [false]);
}

#[test]
fn a_name_from_the_hub_that_leads_out_of_the_cache_is_refused() {
    for name in ["../../..", "..", "/etc/passwd", "a/b", ".hidden", "", "a\\b", "a b", &"a".repeat(200)] {
        let mut by_etag = Server::new(&WHOLE);
        by_etag.headers.insert("model.safetensors", format!("ETag: \"{name}\"\r\n"));
        let mut by_linked_etag = Server::new(&WHOLE);
        by_linked_etag
            .headers
            .insert("model.safetensors", format!("X-Linked-ETag: \"{name}\"\r\nETag: \"a\"\r\n"));
        let by_commit = Server { commit: name.into(), ..Server::new(&WHOLE) };
        let mut by_other_commit = Server::new(&WHOLE);
        by_other_commit.headers.insert("config.json", format!("ETag: \"a\"\r\nX-Repo-Commit: {name}-\r\n"));
        for server in [by_etag, by_linked_etag, by_commit, by_other_commit] {
            let outer = tempdir().unwrap();
            let cache = outer.path().join("deep/cache");
            let error = hub(&cache, false, &server.start()).fetch(NAME).unwrap_err().to_string();
            assert!(error.contains("the hub gave") && !error.contains('\n'), "{name}: {error}");
            let model = cache.join("models--someone--some-model");
            assert!(below(outer.path()).iter().all(|path| path.starts_with(&model)));
            assert!(!model.join("refs/main").exists(), "a broken download is not named");
        }
    }
}

#[test]
fn content_that_has_not_its_hash_never_becomes_a_file_of_the_cache() {
    for etag in [sha256("other weights"), git_hash("other weights")] {
        let mut server = Server::new(&WHOLE);
        server.headers.insert("model.safetensors", format!("ETag: \"{etag}\"\r\n"));
        let cache = tempdir().unwrap();
        let error = hub(cache.path(), false, &server.start()).fetch(NAME).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: what came has not the hash"), "{error}");
        let kept = below(cache.path());
        assert!(
            !kept.iter().any(|path| path.ends_with(&etag) || path.ends_with("model.safetensors")),
            "{kept:?}"
        );
        assert!(hub(cache.path(), true, "").fetch(NAME).is_err());
    }
}

#[test]
fn a_download_that_breaks_off_leaves_nothing_and_is_made_good_the_next_time() {
    let mut server = Server::new(&WHOLE);
    server.cut.insert("model.safetensors", 3);
    let cache = tempdir().unwrap();
    let error = hub(cache.path(), false, &server.start()).fetch(NAME).unwrap_err().to_string();
    assert!(error.contains("model.safetensors: the download broke off"), "{error}");
    let kept = below(cache.path());
    assert_eq!(kept.len(), 2, "config.json and its blob: {kept:?}");

    // A blob that another program left damaged is fetched again.
    let blob = cache.path().join("models--someone--some-model/blobs").join(git_hash("weights"));
    fs::write(&blob, "we").unwrap();
    let folder = hub(cache.path(), false, &Server::new(&WHOLE).start()).fetch(NAME).unwrap();
    assert_eq!(fs::read_to_string(folder.join("model.safetensors")).unwrap(), "weights");
}

fn with(set: &'static [(&str, &str)]) -> Hub {
    let find = move |name: &str| set.iter().find(|(known, _)| *known == name);
    Hub::from_variables(move |name| find(name).map(|(_, value)| (*value).to_owned()))
}

#[test]
fn variables_mean_what_they_mean_in_python() {
    assert_eq!(with(&[("HF_HOME", "/h")]).cache, Path::new("/h/hub"));
    assert_eq!(with(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    assert_eq!(with(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]).cache, Path::new("/old"));
    assert_eq!(with(&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old")]).cache, Path::new("/c"));
    assert_eq!(with(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
    assert_eq!(with(&[("HOME", "/me")]).cache, Path::new("/me/.cache/huggingface/hub"));
    assert!(with(&[]).cache.ends_with(".cache/huggingface/hub"));
    for yes in [&[("HF_HUB_OFFLINE", "true")], &[("HF_HUB_OFFLINE", "1")], &[("TRANSFORMERS_OFFLINE", "1")]] {
        assert!(with(yes).offline, "{yes:?}");
    }
    assert!(!with(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    assert!(!with(&[("HF_HUB_OFFLINE", "0")]).offline && !with(&[]).offline);
}

#[test]
fn tilde_and_variables_in_paths_are_written_out() {
    let home = ("HOME", "/me");
    let cache = |set: &[(&str, &str)]| {
        let set: Vec<(String, String)> =
            set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let find =
            move |name: &str| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Hub::from_variables(find).cache
    };
    assert_eq!(cache(&[home, ("HF_HOME", "~/.cache/huggingface")]), Path::new("/me/.cache/huggingface/hub"));
    assert_eq!(cache(&[home, ("HF_HOME", "~")]), Path::new("/me/hub"));
    assert_eq!(cache(&[home, ("HF_HUB_CACHE", "$HOME/c")]), Path::new("/me/c"));
    assert_eq!(
        cache(&[home, ("HF_HUB_CACHE", "/x/${HOME}/c${NONE}$NO_NE")]),
        Path::new("/x//me/c${NONE}$NO_NE")
    );
    assert_eq!(cache(&[home, ("HUGGINGFACE_HUB_CACHE", "~/c"), ("HF_HOME", "/h")]), Path::new("/me/c"));
    assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "$HOME/x")]), Path::new("/me/x/huggingface/hub"));
    assert_eq!(cache(&[home, ("HF_HUB_CACHE", "/a~/b$")]), Path::new("/a~/b$"));
    assert_eq!(cache(&[home, ("HF_HUB_CACHE", "/a/${HOME")]), Path::new("/a/${HOME"));
}

#[test]
fn a_token_comes_from_its_variable_or_from_its_file() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("token"), "stored\n").unwrap();
    fs::write(folder.path().join("other"), " elsewhere ").unwrap();
    let of = |set: &[(&str, String)]| {
        let set: Vec<(String, String)> =
            set.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let find =
            move |name: &str| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Hub::from_variables(find).token
    };
    let home = ("HF_HOME", folder.path().display().to_string());
    let other = ("HF_TOKEN_PATH", folder.path().join("other").display().to_string());
    assert_eq!(of(std::slice::from_ref(&home)).as_deref(), Some("stored"));
    assert_eq!(of(&[home.clone(), other.clone()]).as_deref(), Some("elsewhere"));
    assert_eq!(of(&[home.clone(), other, ("HF_TOKEN", "own".into())]).as_deref(), Some("own"));
    assert_eq!(of(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1".into())]), None);
}

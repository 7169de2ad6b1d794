//! Models by hub name: the Hugging Face cache first, the hub itself where files are not there.

use std::{
    env,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError},
};

use crate::{EncoderError, error::one_line};

/// Files of a model folder, at its top or in a module's folder such as `1_Pooling`.
const WANTED: [&str; 9] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// Where models are cached and how the hub is reached.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    /// Folder of `models--owner--name` folders.
    cache: PathBuf,
    offline: bool,
    endpoint: Option<String>,
    token: Option<String>,
}

impl Hub {
    pub(crate) fn from_environment() -> Self {
        Self::from_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// `huggingface_hub`'s variables, with its order of precedence.
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let caches = || {
            let user = variable("XDG_CACHE_HOME").map(PathBuf::from);
            user.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache"))
        };
        let home = variable("HF_HOME").map_or_else(|| caches().join("huggingface"), PathBuf::from);
        let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        Self {
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: variable("HF_HUB_OFFLINE").is_some_and(yes),
            endpoint: variable("HF_ENDPOINT"),
            token: variable("HF_TOKEN").or_else(|| Cache::new(home.join("hub")).token()),
        }
    }

    /// The folder of a model, fetched where needed.
    ///
    /// A cached folder without `modules.json` may be a plain model or one that transformers fetched only in part, so
    /// the hub is asked for what is missing; where it cannot be reached, the cached folder serves.
    pub(crate) fn fetch(&self, name: &str) -> Result<PathBuf, EncoderError> {
        let cached = self.cached(name);
        if let Some(folder) = &cached
            && (self.offline || folder.join("modules.json").exists())
        {
            return Ok(folder.clone());
        }
        let (name, cache) = (name.to_owned(), self.cache.clone());
        if self.offline {
            return Err(EncoderError::HubOffline { name, cache });
        }
        match (self.download(&name), cached) {
            (Ok(folder), _) | (Err(_), Some(folder)) => Ok(folder),
            (Err(reason), None) => {
                Err(EncoderError::HubFailed { name, cache, reason: one_line(&reason.to_string()) })
            }
        }
    }

    /// A model's `config.json` alone, from the cache or fetched.
    pub(crate) fn fetch_config(&self, name: &str) -> Result<PathBuf, EncoderError> {
        let (file, cache) = ("config.json", Cache::new(self.cache.clone()));
        if let Some(path) = cache.model(name.to_owned()).get(file) {
            return Ok(path);
        }
        let (name, cache) = (name.to_owned(), self.cache.clone());
        if self.offline {
            return Err(EncoderError::HubOffline { name, cache });
        }
        let fetched = self.api().and_then(|api| api.model(name.clone()).get(file));
        fetched.map_err(|reason| EncoderError::HubFailed {
            name,
            cache,
            reason: one_line(&reason.to_string()),
        })
    }

    fn api(&self) -> Result<Api, ApiError> {
        let mut builder =
            ApiBuilder::from_cache(Cache::new(self.cache.clone())).with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        builder.with_retries(3).build()
    }

    /// The cached folder of a model's `main` branch, if configuration, weights and tokenizer are in it.
    fn cached(&self, name: &str) -> Option<PathBuf> {
        let repo = Cache::new(self.cache.clone()).model(name.to_owned());
        let folder = repo.get("config.json").or_else(|| repo.get("modules.json"))?.parent()?.to_owned();
        let has = |names: &[&str]| names.iter().any(|file| find(&folder, file));
        let complete =
            has(&["config.json"]) && has(&["model.safetensors"]) && has(&["tokenizer.json", "vocab.txt"]);
        complete.then_some(folder)
    }

    fn download(&self, name: &str) -> Result<PathBuf, ApiError> {
        let cache = Cache::new(self.cache.clone());
        let api = self.api()?;
        let info = api.model(name.to_owned()).info()?;
        // By commit, so that a push in between cannot mix two versions.
        let repo = Repo::with_revision(name.to_owned(), RepoType::Model, info.sha.clone());
        let commit = cache.repo(repo.clone());
        commit.create_ref(&info.sha)?;
        let files = api.repo(repo);
        for file in info.siblings.iter().filter(|file| is_wanted(&file.rfilename)) {
            files.get(&file.rfilename)?;
        }
        cache.model(name.to_owned()).create_ref(&info.sha)?;
        Ok(commit.pointer_path(&info.sha))
    }
}

/// Whether a repository's file belongs to the model: of the folders, only modules' (`1_Pooling`) do.
fn is_wanted(file: &str) -> bool {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let module = folder.starts_with(|c: char| c.is_ascii_digit()) && !folder.contains('/');
    (folder.is_empty() || module) && WANTED.contains(&name)
}

/// Whether a file lies in the folder, or in the transformer's own folder of the oldest schema.
fn find(folder: &Path, file: &str) -> bool {
    folder.join(file).exists() || folder.join("0_Transformer").join(file).exists()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead, BufReader, Write},
        net::{TcpListener, TcpStream},
        thread,
    };

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::ModelFolder;

    const NAME: &str = "someone/some-model";

    fn hub(cache: &Path, offline: bool, endpoint: &str) -> Hub {
        Hub { cache: cache.into(), offline, endpoint: Some(endpoint.into()), token: None }
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

    /// A hub with one model of these files, and its address.
    fn serve(files: &'static [(&'static str, &'static str)]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || listener.incoming().for_each(|stream| answer(&mut stream.unwrap(), files)));
        address
    }

    fn answer(stream: &mut TcpStream, files: &[(&str, &str)]) {
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = request[0].split(' ').nth(1).unwrap().to_owned();
        let (status, range, body) = if path == format!("/api/models/{NAME}/revision/main") {
            let siblings: Vec<_> =
                files.iter().map(|(name, _)| serde_json::json!({ "rfilename": name })).collect();
            ("200 OK", String::new(), serde_json::json!({ "sha": "feed", "siblings": siblings }).to_string())
        } else if let Some((_, body)) =
            files.iter().find(|(name, _)| path == format!("/{NAME}/resolve/feed/{name}"))
        {
            let one_byte = request.iter().any(|line| line.to_lowercase() == "range: bytes=0-0");
            let part = if one_byte { &body[..1] } else { body };
            let range = format!("Content-Range: bytes 0-{}/{}\r\n", part.len() - 1, body.len());
            ("206 Partial Content", range, part.to_owned())
        } else {
            ("404 Not Found", String::new(), String::new())
        };
        let etag = path.replace('/', "-");
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{range}");
        write!(stream, "{head}ETag: \"{etag}\"\r\nx-repo-commit: feed\r\n\r\n{body}").unwrap();
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
    fn a_model_not_wholly_in_the_cache_is_an_error_offline() {
        let (cache, _) = cache_with(&["config.json", "tokenizer.json"]);
        let error = hub(cache.path(), true, "http://127.0.0.1:1").fetch(NAME).unwrap_err();
        assert!(matches!(error, EncoderError::HubOffline { .. }));
        assert!(error.to_string().contains("HF_HUB_OFFLINE") && error.to_string().contains(NAME), "{error}");
    }

    #[test]
    fn a_model_that_the_hub_does_not_know_is_an_error_of_one_line() {
        let cache = tempdir().unwrap();
        let error = hub(cache.path(), false, &serve(&[])).fetch("someone/else").unwrap_err();
        assert!(matches!(error, EncoderError::HubFailed { .. }));
        assert!(error.to_string().contains("404") && !error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn a_download_brings_the_model_files_alone_and_is_found_in_the_cache_afterwards() {
        let address = serve(&[
            ("config.json", "{\"model_type\": \"bert\"}"),
            ("model.safetensors", "weights"),
            ("pytorch_model.bin", "not wanted"),
            ("onnx/config.json", "not wanted"),
            ("vocab.txt", "[PAD]"),
            ("modules.json", "[]"),
            ("1_Pooling/config.json", "{}"),
        ]);
        let cache = tempdir().unwrap();
        let folder = hub(cache.path(), false, &address).fetch(NAME).unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        assert_eq!(read("model.safetensors").as_deref(), Some("weights"));
        assert_eq!(read("1_Pooling/config.json").as_deref(), Some("{}"));
        assert_eq!((read("pytorch_model.bin"), read("onnx/config.json")), (None, None));
        assert_eq!(hub(cache.path(), true, &address).fetch(NAME).unwrap(), folder);
    }

    #[test]
    fn what_transformers_left_out_of_the_cache_is_fetched() {
        let (cache, _) = cache_with(&["config.json", "model.safetensors", "tokenizer.json"]);
        let address = serve(&[
            ("config.json", "new"),
            ("model.safetensors", "new"),
            ("tokenizer.json", "new"),
            ("modules.json", "new"),
        ]);
        let folder = hub(cache.path(), false, &address).fetch(NAME).unwrap();
        assert_eq!(fs::read_to_string(folder.join("modules.json")).unwrap(), "new");
    }

    #[test]
    fn variables_mean_what_they_mean_in_python() {
        let with = |set: &'static [(&str, &str)]| {
            let find = move |name: &str| set.iter().find(|(known, _)| *known == name);
            Hub::from_variables(move |name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(with(&[("HF_HOME", "/h")]).cache, Path::new("/h/hub"));
        assert_eq!(with(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert!(with(&[]).cache.ends_with(".cache/huggingface/hub"));
        assert!(with(&[("HF_HUB_OFFLINE", "true")]).offline && with(&[("HF_HUB_OFFLINE", "1")]).offline);
        assert!(!with(&[("HF_HUB_OFFLINE", "0")]).offline && !with(&[]).offline);
    }
}

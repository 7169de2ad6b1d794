//! Models by hub name: the Hugging Face cache first, the hub itself where files are not there.

use std::{
    env,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiError},
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
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.with_retries(3).build()?;
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

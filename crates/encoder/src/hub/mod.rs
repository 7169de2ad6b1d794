//! Models by hub name: the Hugging Face cache first, the hub itself where files are not there.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{EncoderError, folder::SHARD_INDEX};
use download::{Listing, Remote};

#[cfg_attr(not(feature = "hub"), path = "without.rs")]
mod download;

/// Files of a model folder, at its top or in a module's folder such as `1_Pooling`.
const WANTED: [&str; 13] = [
    "config.json",
    "model.safetensors",
    SHARD_INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
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
        let path = |name: &str| variable(name).map(|value| PathBuf::from(expand(&value, &variable)));
        let user = || variable("HOME").map(PathBuf::from).or_else(env::home_dir).unwrap_or_default();
        let caches = || path("XDG_CACHE_HOME").unwrap_or_else(|| user().join(".cache"));
        let home = path("HF_HOME").unwrap_or_else(|| caches().join("huggingface"));
        let yes = |value: String| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let offline = variable("HF_HUB_OFFLINE").or_else(|| variable("TRANSFORMERS_OFFLINE"));
        let stored = || fs::read_to_string(path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok();
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(stored);
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Self {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            offline: offline.is_some_and(yes),
            endpoint: variable("HF_ENDPOINT"),
            token: token.filter(|_| !variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(yes)),
        }
    }

    /// The folder of a model, fetched where needed.
    ///
    /// A cached folder without `modules.json` may be a plain model or one that transformers fetched only in part, so
    /// the hub is asked for what is missing; where it cannot be reached, the cached folder serves.
    pub(crate) fn fetch(&self, name: &str) -> Result<PathBuf, EncoderError> {
        self.fetch_those(name, self.cached(name), is_wanted)
    }

    /// As [`Hub::fetch`], but nothing is asked of the weights, which are not fetched.
    pub(crate) fn fetch_without_weights(&self, name: &str) -> Result<PathBuf, EncoderError> {
        let cached = self.snapshot(name).filter(|folder| find(folder, "config.json").is_some());
        self.fetch_those(name, cached, |file| is_wanted(file) && !is_of_weights(file))
    }

    fn fetch_those(
        &self,
        name: &str,
        cached: Option<PathBuf>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<PathBuf, EncoderError> {
        if let Some(folder) = &cached
            && (self.offline || folder.join("modules.json").exists())
        {
            return Ok(folder.clone());
        }
        let (name, cache) = (name.to_owned(), self.cache.clone());
        if self.offline {
            return Err(EncoderError::HubOffline { name, cache });
        }
        match (self.download(&name, wanted), cached) {
            (Ok(folder), _) | (Err(_), Some(folder)) => Ok(folder),
            (Err(reason), None) => Err(EncoderError::HubFailed { name, cache, reason }),
        }
    }

    fn remote(&self) -> Remote {
        Remote::new(self.endpoint.as_deref(), self.token.clone())
    }

    /// The cached folder of a model's `main` branch.
    fn snapshot(&self, name: &str) -> Option<PathBuf> {
        let folder = cache_folder(&self.cache, name);
        let commit = fs::read_to_string(folder.join("refs/main")).ok()?;
        let commit = commit.trim();
        is_plain_name(commit).then(|| folder.join("snapshots").join(commit))
    }

    /// The cached folder of a model's `main` branch, if configuration, weights and tokenizer are in it.
    fn cached(&self, name: &str) -> Option<PathBuf> {
        let folder = self.snapshot(name)?;
        let has = |names: &[&str]| names.iter().any(|file| find(&folder, file).is_some());
        let weights =
            has(&["model.safetensors"]) || find(&folder, SHARD_INDEX).is_some_and(|index| has_shards(&index));
        (has(&["config.json"]) && weights && has(&["tokenizer.json", "vocab.txt", "vocab.json"]))
            .then_some(folder)
    }

    fn download(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
        let remote = self.remote();
        // By commit, so that a push in between cannot mix two versions.
        let Listing { commit, files } = remote.listing(name)?;
        let whole = files.iter().any(|file| file == "model.safetensors");
        let beside_whole = |file: &str| whole && is_shard(file);
        for file in files.iter().filter(|file| wanted(file) && !beside_whole(file)) {
            remote.fetch(&self.cache, name, &commit, file)?;
        }
        self.write_ref(name, &commit)?;
        Ok(cache_folder(&self.cache, name).join("snapshots").join(commit))
    }

    /// Names the commit of the main branch: last, when its files are there.
    fn write_ref(&self, name: &str, commit: &str) -> Result<(), String> {
        let path = cache_folder(&self.cache, name).join("refs/main");
        let written = || {
            let folder = path.parent().expect("a ref lies in a folder");
            fs::create_dir_all(folder)?;
            let partial = folder.join(".main.contaccum");
            fs::write(&partial, commit)?;
            fs::rename(&partial, &path)
        };
        written().map_err(|reason| format!("{}: {reason}", path.display()))
    }
}

/// `~`, `$NAME` and `${NAME}` in a path, as Python's `expanduser` and `expandvars` write them out; what is not set stays.
fn expand(value: &str, variable: &impl Fn(&str) -> Option<String>) -> String {
    let home = || variable("HOME").or_else(|| Some(env::home_dir()?.to_string_lossy().into_owned()));
    let user = match value.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => home().map(|home| home + rest),
        _ => None,
    };
    let value = user.unwrap_or_else(|| value.to_owned());
    let mut out = String::new();
    let mut rest = value.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (name, length) = match rest[1..].strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, _)) => (name, name.len() + 3),
            None => {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = rest[1..].find(|c| !word(c)).map_or(rest.len(), |end| end + 1);
                (&rest[1..end], end)
            }
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(found) => out.push_str(&found),
            None => out.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    out + rest
}

/// The cache's folder of a model.
fn cache_folder(cache: &Path, name: &str) -> PathBuf {
    cache.join(format!("models--{}", name.replace('/', "--")))
}

/// Whether a server's word can be the name of a file: short, of letters, digits, `-`, `_` and `.`, and not hidden.
fn is_plain_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

/// Whether a repository's file belongs to the model: of the folders, only modules' (`1_Pooling`) do.
fn is_wanted(file: &str) -> bool {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let module = folder.starts_with(|c: char| c.is_ascii_digit()) && is_plain_name(folder);
    (folder.is_empty() || module) && (WANTED.contains(&name) || is_shard(name))
}

/// Whether a file that belongs to a model holds weights, or lists the files that do.
fn is_of_weights(file: &str) -> bool {
    file.contains(".safetensors")
}

/// Whether a file is a part of weights in several files: `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|name| name.strip_suffix(".safetensors"));
    numbers.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(part, parts)| {
        [part, parts]
            .iter()
            .all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Where a file lies: in the folder, or in the transformer's own folder of the oldest schema.
fn find(folder: &Path, file: &str) -> Option<PathBuf> {
    [folder.join(file), folder.join("0_Transformer").join(file)].into_iter().find(|path| path.exists())
}

/// Whether all files that an index lists lie beside it.
fn has_shards(index: &Path) -> bool {
    let read = || serde_json::from_slice::<Map<String, Value>>(&fs::read(index).ok()?).ok();
    let fields = read().unwrap_or_default();
    let files = fields.get("weight_map").and_then(Value::as_object).into_iter().flat_map(Map::values);
    files.filter_map(Value::as_str).all(|file| index.with_file_name(file).exists())
}

#[cfg(all(test, feature = "hub"))]
mod tests;

//! A model folder of Hugging Face or sentence-transformers, found by path or by hub name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Encoder, EncoderError, Layout, ModelConfig, ModelRecord, ModelSettings, TextTokenizer,
    hub::Hub,
    modules::Modules,
    notice::warn_once,
    settings::Usage,
    weights::{load_weights, read_weights},
};

/// Tokens of a text beyond which a model is one for long texts.
const LONG: usize = 512;

/// A folder that holds a model: its configuration, settings, tokenizer and weights.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    modules: Modules,
}

impl ModelFolder {
    /// Finds a model: a folder of that name, else the Hugging Face cache, else the hub.
    ///
    /// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `HF_ENDPOINT`,
    /// `HF_TOKEN` and `HF_TOKEN_PATH` mean what they mean to `huggingface_hub` in Python, `~` and variables in them
    /// included.
    ///
    /// # Errors
    /// When there is no such folder and neither cache nor hub give one.
    pub fn locate(name_or_path: &str) -> Result<Self, EncoderError> {
        Self::locate_with(name_or_path, &Hub::from_environment())
    }

    pub(crate) fn locate_with(name_or_path: &str, hub: &Hub) -> Result<Self, EncoderError> {
        Self::locate_by(name_or_path, |name| hub.fetch(name))
    }

    /// As [`ModelFolder::locate`], of a model whose weights will not be read: they are not fetched from the hub, and where
    /// it cannot be reached a `config.json` in the cache serves alone.
    ///
    /// # Errors
    /// As [`ModelFolder::locate`].
    pub fn locate_without_weights(name_or_path: &str) -> Result<Self, EncoderError> {
        Self::locate_without_weights_with(name_or_path, &Hub::from_environment())
    }

    pub(crate) fn locate_without_weights_with(name_or_path: &str, hub: &Hub) -> Result<Self, EncoderError> {
        Self::locate_by(name_or_path, |name| hub.fetch_without_weights(name))
    }

    fn locate_by(
        name_or_path: &str,
        fetch: impl Fn(&str) -> Result<PathBuf, EncoderError>,
    ) -> Result<Self, EncoderError> {
        let path = PathBuf::from(name_or_path);
        let path = if path.is_dir() {
            path
        } else if path.exists() {
            return Err(EncoderError::NotAFolder { path });
        } else if is_hub_name(name_or_path) {
            fetch(name_or_path).map_err(|error| no_folder_rather(name_or_path, error))?
        } else {
            return Err(EncoderError::FolderMissing { path });
        };
        let modules = Modules::read(&path)?;
        Ok(Self { path, modules })
    }

    /// Where the folder lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and validates `config.json`, and what the `Dense` modules say.
    ///
    /// # Errors
    /// As [`ModelConfig::read`], and of a `Dense` module that this program does not do.
    pub fn config(&self) -> Result<ModelConfig, EncoderError> {
        let config = ModelConfig::read(&self.transformer().join("config.json"))?;
        let dense = self.modules.dense_shapes(&self.path, config.architecture().width)?;
        Ok(config.with_dense(dense))
    }

    /// Reads how texts become vectors: what the folder's sentence-transformers files record, or
    /// [`ModelSettings::plain`] where there are none.
    ///
    /// # Errors
    /// When a file is broken, or asks for a module, pooling or similarity that this program does not do.
    pub fn settings(&self) -> Result<ModelSettings, EncoderError> {
        ModelSettings::read(&self.path, &self.modules, &self.config()?)
    }

    /// Warns, once, that the folder does not say how texts become vectors, and what is taken for it.
    pub fn warn_if_plain(&self) {
        if self.modules.pooling.is_none() {
            warn_once(&format!(
                "{}: no modules.json says how texts become vectors: the first token is taken (CLS, as in DPR), not \
                 normalised; sentence-transformers takes the mean; if the folder was fetched in part, fetch the rest, \
                 else choose with train --pooling",
                self.path.display()
            ));
        }
    }

    /// Says, once, that a model for long texts is trained on shorter ones, where `longest` tokens of a text are taken of
    /// the `recorded` that the folder allows: nobody asked for sequences of thousands of tokens, which cost memory in
    /// proportion to their square.
    pub fn tell_shorter(&self, recorded: usize, longest: usize) {
        if recorded > LONG && longest <= LONG {
            warn_once(&format!(
                "{}: the model takes texts of {recorded} tokens; {longest} are trained on, and are what the exported \
                 folder says (--passage-max-length and --query-max-length give more)",
                self.path.display()
            ));
        }
    }

    /// Reads what the folder records beside them in `contaccum.json`, which training writes.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn record(&self) -> Result<ModelRecord, EncoderError> {
        ModelRecord::read(&self.path)
    }

    /// What to tell whoever uses the model, a line each: prompts in the folder that its texts do not get.
    ///
    /// # Errors
    /// As [`ModelFolder::settings`].
    pub fn notes(&self) -> Result<Vec<String>, EncoderError> {
        if self.modules.pooling.is_none() {
            return Ok(Vec::new());
        }
        let note = |name: String| {
            format!(
                "{}: its prompt {name:?} is put before no text, as in sentence-transformers, where queries get the \
                 prompt \"query\" and passages \"document\" (--query-prompt and --passage-prompt give others)",
                self.path.display()
            )
        };
        Ok(Usage::read(&self.path)?.unused.into_iter().map(note).collect())
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// As [`TextTokenizer::from_folder`], and when the tokenizer gives ids beyond the embedding table.
    pub fn tokenizer(&self) -> Result<TextTokenizer, EncoderError> {
        let tokenizer = TextTokenizer::from_folder(&self.transformer())?;
        let config = self.config()?;
        let (vocabulary, rows) = (tokenizer.vocabulary_size(), config.architecture().vocabulary);
        if vocabulary > rows {
            return Err(EncoderError::VocabularyTooLarge { path: self.transformer(), vocabulary, rows });
        }
        Ok(tokenizer.with_token_types(config.architecture().token_types.max(1)))
    }

    /// Reads the encoder, which makes vectors of texts as `settings` say: [`ModelFolder::settings`], or others.
    ///
    /// # Errors
    /// As [`ModelFolder::config`] and [`ModelFolder::weights`].
    pub fn encoder(&self, settings: ModelSettings) -> Result<Encoder, EncoderError> {
        let config = self.config()?;
        let weights = self.weights(&Layout::new(&config))?;
        Ok(Encoder::new(config, settings, weights))
    }

    /// Reads the weights into the order of `layout`.
    ///
    /// # Errors
    /// As [`load_weights`]; where only another format of weights is there, says how to convert it.
    pub fn weights(&self, layout: &Layout) -> Result<Vec<f32>, EncoderError> {
        load_weights(&self.weights_file()?, &self.dense_files()?, layout)
    }

    /// As [`ModelFolder::weights`], into a buffer that is already there; after an error its content is of no use.
    ///
    /// # Errors
    /// As [`ModelFolder::weights`].
    pub fn read_weights(&self, layout: &Layout, weights: &mut [f32]) -> Result<(), EncoderError> {
        read_weights(&self.weights_file()?, &self.dense_files()?, layout, weights)
    }

    /// `model.safetensors`, or the index of a model in several files.
    fn weights_file(&self) -> Result<PathBuf, EncoderError> {
        let folder = self.transformer();
        let whole = folder.join("model.safetensors");
        if let Some(path) = [whole.clone(), folder.join(SHARD_INDEX)].into_iter().find(|path| path.exists()) {
            return Ok(path);
        }
        let convert = "with transformers in Python: \
                       AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)";
        Err(weights_missing(&folder, convert))
    }

    /// The weights of the `Dense` modules.
    fn dense_files(&self) -> Result<Vec<PathBuf>, EncoderError> {
        let file = |module: &PathBuf| {
            let folder = self.path.join(module);
            let path = folder.join("model.safetensors");
            let convert = "with sentence-transformers in Python: \
                           SentenceTransformer(FOLDER).save(NEW_FOLDER)";
            if path.exists() { Ok(path) } else { Err(weights_missing(&folder, convert)) }
        };
        self.modules.dense.iter().map(file).collect()
    }

    /// The folder of config, weights and tokenizer: the model folder itself but for the oldest schema.
    fn transformer(&self) -> PathBuf {
        self.path.join(&self.modules.transformer)
    }
}

/// What to tell of a name that the hub did not give: where the folder is there that it would lie in, it was meant as a
/// path.
fn no_folder_rather(name_or_path: &str, error: EncoderError) -> EncoderError {
    let path = Path::new(name_or_path);
    let meant = path.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && parent.is_dir());
    if meant { EncoderError::FolderMissing { path: path.into() } } else { error }
}

fn weights_missing(folder: &Path, convert: &str) -> EncoderError {
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        is_other_weights(&name).then_some(name)
    });
    let weights = match found.min() {
        Some(file) => format!("only weights as {file} are"),
        None => "no weights are".into(),
    };
    let remedy = format!("{weights} there; fetch model.safetensors or convert them {convert}");
    EncoderError::FileMissing { path: folder.join("model.safetensors"), remedy }
}

/// Which files a model saved in several parts consists of.
pub(crate) const SHARD_INDEX: &str = "model.safetensors.index.json";

/// Whether a file holds weights that cannot be read here: of PyTorch, TensorFlow, Flax, ONNX, llama.cpp, or a part of a
/// model whose index is missing.
fn is_other_weights(name: &str) -> bool {
    let formats = [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf"];
    formats.iter().any(|format| name.ends_with(format)) || name.ends_with(".bin.index.json")
}

/// Whether a name can be a repository on the hub: `name` or `owner/name` of letters, digits, `-`, `_` and `.`.
pub(crate) fn is_hub_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
    let (owner, model) = name.split_once('/').unwrap_or(("owner", name));
    part(owner) && part(model)
}

#[cfg(test)]
mod tests {
    use super::is_hub_name;

    #[test]
    fn a_path_is_not_taken_for_a_hub_name() {
        for name in ["bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"] {
            assert!(is_hub_name(name), "{name}");
        }
        for path in ["", "/models/bert", "./bert", "../bert", "a/b/c", "models/", "C:\\bert", "my model"] {
            assert!(!is_hub_name(path), "{path}");
        }
    }
}

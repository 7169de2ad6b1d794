//! A trained encoder as a sentence-transformers folder, in the schema before 5.4 that every reader accepts.

use std::{
    fmt::Write as _,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use contaccum_files::{create_folder, read_json_if_there, write, write_folder, write_json};
use serde_json::{Map, Value, json};

use crate::{
    EncoderError, Layout, ModelConfig, ModelRecord, ModelSettings, Pair, PassageFormat, Pooling, Similarity,
    TextTokenizer, error::one_line, folder::is_hub_name, layout::FIRST_DENSE, settings::pooling_flag,
    weights::save_weights,
};

/// What a reader of the exported folder is told beside the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// Heading.
    pub title: String,
    /// The model training started from; named as base model where it is a name on the hub.
    pub base_model: Option<String>,
    /// The other half, of two encoders that were trained together; recorded in the folder.
    pub pair: Option<Pair>,
    /// Training settings by name, in the order of the table.
    pub training: Vec<(String, String)>,
}

/// Writes a sentence-transformers folder, whole or not at all, in place of an earlier export.
///
/// # Errors
/// As [`check_export_target`], and when a file cannot be written.
pub fn export_folder(
    path: &Path,
    config: &ModelConfig,
    layout: &Layout,
    weights: &[f32],
    tokenizer: &TextTokenizer,
    settings: &ModelSettings,
    card: &ModelCard,
) -> Result<(), EncoderError> {
    check_export_target(path)?;
    write_folder(path, |folder| {
        config.write(&folder.join("config.json"))?;
        let dense = write_settings(folder, config, settings)?;
        save_weights(&folder.join("model.safetensors"), &dense, layout, weights)?;
        tokenizer.save(folder, settings.max_seq_length)?;
        ModelRecord::of(settings, card.pair.clone()).write(folder)?;
        let text = card.render(config, settings);
        Ok(write(&folder.join("README.md"), |file| file.write_all(text.as_bytes()))?)
    })
}

/// Checks that an export may go there, so that it can be known before hours of training: nothing, an empty folder or
/// an earlier export.
///
/// # Errors
/// When something else is there.
pub fn check_export_target(path: &Path) -> Result<(), EncoderError> {
    let refuse = || EncoderError::TargetExists { path: path.into() };
    match fs::read_dir(path) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(reason) if reason.kind() == io::ErrorKind::NotADirectory => return Err(refuse()),
        Err(reason) => return Err(EncoderError::Read { path: path.into(), reason }),
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(());
            }
        }
    }
    let fields = read_json_if_there::<Map<String, Value>>(&path.join("config_sentence_transformers.json"));
    let versions = fields.ok().flatten().and_then(|fields| fields.get("__version__").cloned());
    let ours = versions.is_some_and(|versions| versions.get("contaccum").is_some());
    if ours { Ok(()) } else { Err(refuse()) }
}

/// The files beside model and tokenizer that say how a text becomes a vector; where the weights of the `Dense` modules
/// belong.
fn write_settings(
    folder: &Path,
    config: &ModelConfig,
    settings: &ModelSettings,
) -> Result<Vec<PathBuf>, EncoderError> {
    let dense = config.dense().iter().map(|_| "Dense");
    let kinds =
        ["Transformer", "Pooling"].into_iter().chain(dense).chain(settings.normalize.then_some("Normalize"));
    let path = |(i, kind)| if i == 0 { String::new() } else { format!("{i}_{kind}") };
    let modules: Vec<(String, &str)> = kinds.enumerate().map(|(i, kind)| (path((i, kind)), kind)).collect();
    for (path, _) in &modules[1..] {
        let module = folder.join(path);
        create_folder(&module)?;
    }
    let mut inputs = config.architecture().width;
    let mut dense_files = Vec::new();
    for (shape, (path, _)) in config.dense().iter().zip(&modules[FIRST_DENSE..]) {
        let fields = json!({
            "in_features": std::mem::replace(&mut inputs, shape.outputs),
            "out_features": shape.outputs,
            "bias": shape.bias,
            "activation_function": shape.activation.class(),
        });
        write_json(&folder.join(path).join("config.json"), &fields)?;
        dense_files.push(folder.join(path).join("model.safetensors"));
    }
    let modules: Vec<Value> = modules
        .iter()
        .enumerate()
        .map(|(i, (path, kind))| {
            json!({ "idx": i, "name": i.to_string(), "path": path,
                    "type": format!("sentence_transformers.models.{kind}") })
        })
        .collect();
    write_json(&folder.join("modules.json"), &modules)?;
    let mut pooling = Map::from_iter([
        ("word_embedding_dimension".to_owned(), json!(config.architecture().width)),
        ("include_prompt".to_owned(), json!(true)),
    ]);
    pooling.extend(Pooling::ALL.map(|one| (pooling_flag(one).to_owned(), json!(one == settings.pooling))));
    write_json(&folder.join("1_Pooling/config.json"), &pooling)?;
    // The tokenizer lower-cases by itself where it does.
    let wrapper = json!({ "max_seq_length": settings.max_seq_length, "do_lower_case": false });
    write_json(&folder.join("sentence_bert_config.json"), &wrapper)?;
    let usage = json!({
        "__version__": { "contaccum": env!("CARGO_PKG_VERSION") },
        "prompts": { "query": settings.query_prompt, "document": settings.passage_prompt },
        "default_prompt_name": null,
        "similarity_fn_name": settings.similarity,
    });
    write_json(&folder.join("config_sentence_transformers.json"), &usage)?;
    Ok(dense_files)
}

impl ModelCard {
    /// The `README.md`: front matter for the hub, how to load the model, what it is, how it was trained.
    fn render(&self, config: &ModelConfig, settings: &ModelSettings) -> String {
        let base = self.base_model.as_deref().filter(|name| is_hub_name(name));
        let base_line = base.map(|name| format!("base_model: {name}\n")).unwrap_or_default();
        let passages = match settings.passage_format {
            PassageFormat::Pair => "[\"A title\", \"The text of a passage.\"]",
            PassageFormat::Joined => "\"A title The text of a passage.\"",
        };
        let passage_format = match settings.passage_format {
            PassageFormat::Pair => "title and text as a segment pair",
            PassageFormat::Joined => "title, a space, text",
        };
        let pooling = match settings.pooling {
            Pooling::Cls => "first token",
            Pooling::Mean => "mean over tokens",
            Pooling::Max => "largest values over tokens",
            Pooling::LastToken => "last token",
            Pooling::MeanSqrtLenTokens => "sum over tokens by the square root of their number",
            Pooling::WeightedMean => "mean over tokens, later ones weighed more",
        };
        let similarity = match settings.similarity {
            Similarity::Dot => "dot product",
            Similarity::Cosine => "cosine",
        };
        let mut facts = vec![
            ("Dimensions".to_owned(), config.dim().to_string()),
            ("Layers".to_owned(), config.architecture().layers.len().to_string()),
            ("Pooling".to_owned(), pooling.to_owned()),
            ("Normalised".to_owned(), if settings.normalize { "yes" } else { "no" }.to_owned()),
            ("Similarity".to_owned(), similarity.to_owned()),
            ("Passages".to_owned(), passage_format.to_owned()),
            (
                "Maximum length".to_owned(),
                format!(
                    "queries {}, passages {} tokens",
                    settings.query_max_length, settings.passage_max_length
                ),
            ),
        ];
        for (name, prompt) in
            [("Query prompt", &settings.query_prompt), ("Passage prompt", &settings.passage_prompt)]
        {
            if !prompt.is_empty() {
                facts.push((name.to_owned(), format!("{prompt:?}")));
            }
        }
        let title = one_line(&self.title);
        let (facts, training) = (table(&facts), table(&self.training));
        format!(
            "---\n\
             library_name: sentence-transformers\n\
             pipeline_tag: sentence-similarity\n\
             tags:\n\
             - sentence-transformers\n\
             - sentence-similarity\n\
             - feature-extraction\n\
             - dense-retrieval\n\
             - contaccum\n\
             {base_line}\
             ---\n\n\
             # {title}\n\n\
             A dense retrieval encoder trained with contaccum.\n\n\
             ```python\n\
             from sentence_transformers import SentenceTransformer\n\n\
             model = SentenceTransformer(\"path/to/this/folder\")\n\
             vectors = model.encode([\"What is asked?\"], prompt_name=\"query\")\n\
             vectors = model.encode([{passages}], prompt_name=\"document\")\n\
             ```\n\n\
             ## Model\n\n{facts}\n\
             ## Training\n\n{training}"
        )
    }
}

/// A Markdown table of names and values.
fn table(rows: &[(String, String)]) -> String {
    let mut text = String::from("| setting | value |\n|---|---|\n");
    for (name, value) in rows {
        let cell = |text: &str| one_line(text).replace('|', "\\|");
        writeln!(text, "| {} | {} |", cell(name), cell(value)).expect("a string takes every line");
    }
    text
}

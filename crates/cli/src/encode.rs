//! `contaccum encode`.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::path::Path;

use contaccum_data::{Corpus, PassageIndex};
use contaccum_retrieval::{EmbeddingStore, Passage, StoreDescription, encode};
use contaccum_study::Stop;

use twox_hash::XxHash3_64;

use crate::args::EncodeArgs;
use crate::model::{Role, TextEncoder, word};
use crate::notes;
use crate::output::{self, quoted};
use crate::progress::Progress;
use crate::signals::Signals;
use crate::texts::ChosenQueries;

/// Encodes a corpus or queries into a folder.
pub fn run(args: &EncodeArgs) -> anyhow::Result<()> {
    crate::use_threads(args.threads)?;
    let store = match (&args.input.corpus, &args.input.queries) {
        (Some(corpus), _) => encode_corpus(args, corpus)?,
        (None, Some(queries)) => encode_queries(args, queries)?,
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let description = store.description();
    let (folder, rows, dim) = (args.output.display(), description.rows, description.dim);
    output::line(format_args!("{folder}\t{rows} vectors of {dim} dimensions"))?;
    let folder = quoted(&args.output);
    match &args.input.corpus {
        Some(corpus) => {
            let (model, corpus) = (quoted(Path::new(&args.model)), quoted(corpus));
            let query = "--query \"What do you look for?\"";
            output::next(format_args!("search --model {model} --index {folder} --corpus {corpus} {query}"));
        }
        None => {
            output::next(format_args!("search --index INDEX --query-embeddings {folder} --output run.trec"));
        }
    }
    Ok(())
}

fn encode_corpus(args: &EncodeArgs, path: &Path) -> anyhow::Result<EmbeddingStore> {
    let corpus = Corpus::open_with(path, args.strict.into())?;
    notes::tell(corpus.notes());
    let model = TextEncoder::load(&args.model, Role::Passage, args.texts.max_length)?;
    let format = args.texts.passage_format;
    let mut description = describe(args, &model, corpus.path(), corpus.len())?;
    let prompt = &model.encoder.settings().passage_prompt;
    description
        .settings
        .extend([("prompt".into(), prompt.clone()), ("passage_format".into(), word(&format))]);
    let passage = |row: usize| {
        let index = PassageIndex(row as u32);
        let tokens = model.passage(&corpus.get(index)?, format)?;
        anyhow::Ok(Passage { id: corpus.id(index).to_owned(), tokens })
    };
    encode_with_progress(args, &model, &description, passage)
}

fn encode_queries(args: &EncodeArgs, path: &Path) -> anyhow::Result<EmbeddingStore> {
    let ChosenQueries { queries, chosen } =
        ChosenQueries::open(path, args.split.split.as_deref(), args.strict)?;
    let model = TextEncoder::load(&args.model, Role::Query, args.texts.max_length)?;
    let mut description = describe(args, &model, queries.path(), chosen.len())?;
    description.settings.insert("prompt".into(), model.encoder.settings().query_prompt.clone());
    if let Some(split) = &args.split.split {
        description.settings.insert("split".into(), split.clone());
    }
    let query = |row: usize| {
        let index = chosen[row];
        let tokens = model.query(&queries.text(index)?)?;
        anyhow::Ok(Passage { id: queries.id(index).to_owned(), tokens })
    };
    encode_with_progress(args, &model, &description, query)
}

fn encode_with_progress(
    args: &EncodeArgs,
    model: &TextEncoder,
    description: &StoreDescription,
    text: impl Fn(usize) -> anyhow::Result<Passage> + Sync,
) -> anyhow::Result<EmbeddingStore> {
    let progress = Progress::new("Encoding", description.rows, "texts");
    let (mut started, mut stopping, mut rows) = (false, false, 0);
    let embed = model.embed_in(args.dtype, args.batch.into())?;
    let signals = Signals::catch()?;
    // A signal ends it between shards: no text that follows is read, and what was is encoded and written.
    let text = |row: usize| {
        anyhow::ensure!(!signals.requested(), "stopped");
        text(row)
    };
    let store = encode(&args.output, description, text, embed, |done| {
        // Rows of an earlier call must not enter the rate.
        if !std::mem::replace(&mut started, true) {
            progress.start_at(done.rows);
        }
        progress.set(done.rows);
        rows = done.rows;
        if signals.requested() && !std::mem::replace(&mut stopping, true) {
            progress
                .pause(|| tracing::info!("stopping after the shards begun; a second signal ends it at once"));
        }
    });
    drop(progress);
    if store.is_err() && signals.requested() {
        let total = description.rows;
        signals.interrupted(format!("stopped after {rows} of {total} texts; the same command goes on"))?;
    }
    Ok(store?)
}

/// What decides the vectors, so that only an encoding of the same is resumed.
fn describe(
    args: &EncodeArgs,
    model: &TextEncoder,
    texts: &Path,
    rows: usize,
) -> anyhow::Result<StoreDescription> {
    let settings = model.encoder.settings();
    let bytes = std::fs::metadata(texts).map(|file| file.len())?;
    Ok(StoreDescription {
        model: format!("{} (weights {:016x})", model.name, fingerprint(model.encoder.weights())),
        corpus: format!("{} ({bytes} bytes)", texts.display()),
        rows,
        dim: model.encoder.dim(),
        shard_rows: args.shard_rows,
        batch: args.batch.into(),
        settings: BTreeMap::from([
            ("pooling".into(), word(&settings.pooling)),
            ("normalize".into(), settings.normalize.to_string()),
            ("dtype".into(), word(&args.dtype)),
            ("max_length".into(), model.max_length.to_string()),
        ]),
    })
}

fn fingerprint(weights: &[f32]) -> u64 {
    let mut hasher = XxHash3_64::new();
    for weight in weights {
        hasher.write(&weight.to_le_bytes());
    }
    hasher.finish()
}

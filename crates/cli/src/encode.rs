//! `contaccum encode`.

use std::path::Path;

use contaccum_data::{Corpus, PassageIndex};
use contaccum_encoder::Fingerprint;
use contaccum_files::ContentHash;
use contaccum_retrieval::{EmbeddingStore, Passage, StoreDescription, StoreWriter, encode};
use contaccum_study::Stop;
use contaccum_training::word;

use crate::args::EncodeArgs;
use crate::model::{Role, TextEncoder, TextOverrides};
use crate::notes;
use crate::output::{self, quoted};
use crate::progress::Progress;
use crate::signals::Signals;
use crate::texts::ChosenQueries;

/// Encodes a corpus or queries into a folder.
pub fn run(args: &EncodeArgs) -> anyhow::Result<()> {
    crate::use_threads(args.threads.threads)?;
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
    let model = load(args, Role::Passage)?;
    let texts = corpus.fingerprint();
    let mut description = describe(args, &model, Role::Passage, texts);
    (description.corpus, description.rows) = (corpus.path().display().to_string(), corpus.len());
    let format = word(&model.encoder.settings().passage_format);
    description.settings = description.settings.with("passage_format", format);
    let passage = |row: usize| {
        let index = PassageIndex(row as u32);
        let tokens = model.passage(&corpus.get(index)?)?;
        anyhow::Ok(Passage { id: corpus.id(index).to_owned(), tokens })
    };
    encode_with_progress(args, &model, &description, passage)
}

fn encode_queries(args: &EncodeArgs, path: &Path) -> anyhow::Result<EmbeddingStore> {
    let ChosenQueries { queries, chosen } =
        ChosenQueries::open(path, args.split.split.as_deref(), args.strict)?;
    let model = load(args, Role::Query)?;
    let texts = queries.fingerprint_of(&chosen)?;
    let mut description = describe(args, &model, Role::Query, texts);
    (description.corpus, description.rows) = (queries.path().display().to_string(), chosen.len());
    let query = |row: usize| {
        let index = chosen[row];
        let tokens = model.query(&queries.text(index)?)?;
        anyhow::Ok(Passage { id: queries.id(index).to_owned(), tokens })
    };
    encode_with_progress(args, &model, &description, query)
}

fn load(args: &EncodeArgs, role: Role) -> anyhow::Result<TextEncoder> {
    let overrides = TextOverrides {
        max_length: args.texts.max_length,
        prompt: args.texts.prompt.as_deref(),
        passage_format: args.texts.passage_format,
    };
    TextEncoder::load(&args.model, role, overrides)
}

fn encode_with_progress(
    args: &EncodeArgs,
    model: &TextEncoder,
    description: &StoreDescription,
    text: impl Fn(usize) -> anyhow::Result<Passage> + Sync,
) -> anyhow::Result<EmbeddingStore> {
    let embed = model.embed_in(args.dtype, args.batch.into())?;
    let store = StoreWriter::begin(&args.output, description, args.overwrite)?;
    store.notes().iter().for_each(|note| tracing::warn!("{note}"));
    if store.is_complete() {
        tracing::info!("{} holds this encoding already", args.output.display());
    }
    let progress = Progress::new("Encoding", description.rows, "texts");
    let (mut started, mut stopping, mut rows) = (false, false, 0);
    let signals = Signals::catch()?;
    // A signal ends it between shards: no text that follows is read, and what was is encoded and written.
    let text = |row: usize| {
        anyhow::ensure!(!signals.requested(), "stopped");
        text(row)
    };
    let store = encode(store, text, embed, |done| {
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

/// What decides the vectors, so that only an encoding of the same is gone on with; names and rows are the caller's.
fn describe(args: &EncodeArgs, model: &TextEncoder, role: Role, texts: ContentHash) -> StoreDescription {
    StoreDescription {
        model: model.name.clone(),
        corpus: String::new(),
        rows: 0,
        dim: model.encoder.dim(),
        shard_rows: args.shard_rows,
        batch: args.batch.into(),
        encoder: model.fingerprint.clone(),
        other_encoder: model.pair.as_ref().map(|pair| pair.other.clone()),
        settings: Fingerprint::new()
            .with("encodes", role.plural())
            .with("prompt", model.prompt())
            .with("max_length", model.max_length())
            .with("similarity", word(&model.encoder.settings().similarity))
            .with("dtype", word(&args.dtype))
            .with_content("texts", texts),
    }
}

//! `contaccum search`.

use std::path::Path;

use contaccum_data::{Corpus, Passage};
use contaccum_encoder::{Fingerprint, tell_differences};
use contaccum_retrieval::{EmbeddingStore, Run, check_names, encode_in_memory, search_store};
use serde::Serialize;

use crate::args::SearchArgs;
use crate::model::{Role, TextEncoder, TextOverrides};
use crate::output::{self, quoted};
use crate::progress::Progress;
use crate::texts::ChosenQueries;

/// Characters of a passage shown in a table.
const SNIPPET_CHARS: usize = 80;

/// Searches for many queries into a run file, or for one onto stdout.
pub fn run(args: &SearchArgs) -> anyhow::Result<()> {
    crate::use_threads(args.threads.threads)?;
    let index = open(&args.index, Role::Passage)?;
    let passages = index.ids()?;
    let corpus = args.corpus.as_deref().map(|path| corpus_of(args, &index, path)).transpose()?;
    // Told before the model is read or anything encoded: a run file cannot hold every id.
    if args.output.is_some() {
        check_names(&args.tag, names(&[]), names(&passages))?;
    }
    let queries = Queries::open(args, &index)?;
    if args.output.is_some() {
        check_names(&args.tag, names(&queries.ids), names(&[]))?;
    }
    let (dim, vectors) = queries.vectors(args)?;
    // One more than asked for may have to go.
    let depth = args.top_k.saturating_add(usize::from(args.ignore_identical_ids && args.top_k > 0));
    let found = {
        let _progress = Progress::waiting("Searching", format!("{} passages", passages.len()));
        search_store(&vectors, dim, &index, &passages, depth)?
    };
    let mut run = Run::from_hits(&queries.ids, &passages, &found)?;
    if args.ignore_identical_ids {
        let left_out = run.leave_out_identical_ids();
        run.truncate(args.top_k);
        tracing::info!("left out {left_out} passages with the id of their query");
    } else if args.input.query.is_none() {
        tell_of_themselves(&run);
    }
    match &args.output {
        Some(path) => {
            run.write(path, &args.tag)?;
            let (queries, top_k, passages) = (run.len(), args.top_k, passages.len());
            let shown = path.display();
            let what = format!("{shown}\t{queries} queries, top {top_k} of {passages} passages");
            output::written(path, what)?;
            let qrels = match (&args.input.queries, &args.split.split) {
                (Some(folder), Some(split)) => quoted(&folder.join("qrels").join(format!("{split}.tsv"))),
                _ => "QRELS".to_owned(),
            };
            output::next(format_args!("evaluate --run {} --qrels {qrels}", quoted(path)));
            Ok(())
        }
        None => show(args, &run, corpus.as_ref()),
    }
}

fn names(ids: &[String]) -> impl Iterator<Item = &str> {
    ids.iter().map(String::as_str)
}

/// Opens a folder of vectors of that side.
fn open(folder: &Path, role: Role) -> anyhow::Result<EmbeddingStore> {
    let store = EmbeddingStore::open(folder)?;
    let encodes = store.description().settings.get("encodes");
    if encodes.is_some_and(|encodes| encodes != role.plural()) {
        let (folder, other, wanted) = (folder.display(), role.other().plural(), role.plural());
        anyhow::bail!("{folder}: holds vectors of {other} (give a folder of {wanted})");
    }
    Ok(store)
}

/// The corpus to show passages from, which must be the one that was encoded.
fn corpus_of(args: &SearchArgs, index: &EmbeddingStore, path: &Path) -> anyhow::Result<Corpus> {
    let corpus = Corpus::open_with(path, args.strict.into())?;
    if !index.description().settings.has_content("texts", corpus.fingerprint()) {
        anyhow::bail!(
            "{}: its texts are not those of {} (give the corpus that was encoded, {}, or encode this one)",
            corpus.path().display(),
            args.index.display(),
            index.description().corpus,
        );
    }
    Ok(corpus)
}

/// Refuses queries of an encoder that the index was not made for, unless they are wanted.
fn check_encoder(
    args: &SearchArgs,
    index: &EmbeddingStore,
    name: &str,
    encoder: &Fingerprint,
) -> anyhow::Result<()> {
    let description = index.description();
    let Err(differences) = description.check_counterpart(encoder) else { return Ok(()) };
    let half = if description.other_encoder.is_some() { "trained together with " } else { "" };
    let told = format!(
        "{}: its queries belong to the model {half}{}, and {name} is another: {}",
        args.index.display(),
        description.model,
        tell_differences(&differences),
    );
    if !args.allow_other_model {
        anyhow::bail!("{told} (search with the same model, or give --allow-other-model)");
    }
    tracing::warn!("{told}");
    Ok(())
}

/// The queries to search for.
struct Queries {
    ids: Vec<String>,
    source: QuerySource,
}

/// Queries as vectors, or what makes vectors of them.
enum QuerySource {
    Stored(EmbeddingStore),
    Texts(Box<TextEncoder>, Vec<String>),
}

impl Queries {
    /// Opens the queries, and what encodes them, for an index.
    fn open(args: &SearchArgs, index: &EmbeddingStore) -> anyhow::Result<Self> {
        let (ids, texts) = match (&args.input.query_embeddings, &args.input.queries, &args.input.query) {
            (Some(folder), _, _) => {
                let store = open(folder, Role::Query)?;
                let description = store.description();
                check_encoder(args, index, &description.model, &description.encoder)?;
                return Ok(Self { ids: store.ids()?, source: QuerySource::Stored(store) });
            }
            (None, Some(path), _) => {
                let texts = ChosenQueries::open(path, args.split.split.as_deref(), args.strict)?;
                let read = texts.chosen.iter().map(|&query| Ok(texts.queries.text(query)?));
                (texts.ids(), read.collect::<anyhow::Result<Vec<_>>>()?)
            }
            (None, None, Some(text)) => (vec!["query".to_owned()], vec![text.clone()]),
            (None, None, None) => unreachable!("clap asks for one of them"),
        };
        let name = args.model.as_deref().expect("clap asks for a model beside texts");
        let overrides = TextOverrides {
            max_length: args.max_length,
            prompt: args.prompt.as_deref(),
            ..TextOverrides::default()
        };
        let model = TextEncoder::load(name, Role::Query, overrides)?;
        check_encoder(args, index, &model.name, &model.fingerprint)?;
        Ok(Self { ids, source: QuerySource::Texts(Box::new(model), texts) })
    }

    /// The width of a vector, and the vectors `[ids.len(), dim]`.
    fn vectors(&self, args: &SearchArgs) -> anyhow::Result<(usize, Vec<f32>)> {
        match &self.source {
            QuerySource::Stored(store) => {
                let (mut vectors, mut shard_vectors) = (Vec::new(), Vec::new());
                for shard in 0..store.shards() {
                    store.read_shard(shard, &mut shard_vectors)?;
                    vectors.extend_from_slice(&shard_vectors);
                }
                Ok((store.description().dim, vectors))
            }
            QuerySource::Texts(model, texts) => {
                let tokens =
                    texts.iter().map(|text| model.query(text)).collect::<anyhow::Result<Vec<_>>>()?;
                let progress = Progress::new("Encoding", texts.len(), "queries");
                let mut embed = model.embed(args.batch.into());
                let mut done = 0;
                let dim = model.encoder.dim();
                let vectors = encode_in_memory(&tokens, dim, args.batch.into(), |batch, out| {
                    embed(batch, out);
                    done += batch.sequences();
                    progress.set(done);
                })?;
                Ok((dim, vectors))
            }
        }
    }
}

/// Warns where most queries find the passage of their own id first: it is likely to be the query itself.
pub fn tell_of_themselves(run: &Run) {
    let (themselves, queries) = (run.queries_that_find_themselves(), run.len());
    if themselves > queries / 2 {
        tracing::warn!(
            "{themselves} of {queries} queries find the passage with their own id first; if it is the query itself, as in \
             ArguAna and Quora, leave it out with --ignore-identical-ids"
        );
    }
}

/// One passage found for a single query.
#[derive(Serialize)]
struct Shown {
    rank: usize,
    score: f32,
    id: String,
    #[serde(flatten)]
    passage: Option<ShownPassage>,
}

#[derive(Serialize)]
struct ShownPassage {
    title: String,
    text: String,
}

impl ShownPassage {
    /// As much as fits beside rank, score and id on a line; JSON has all of it.
    fn snippet(&self) -> String {
        let whole = [self.title.as_str(), self.text.as_str()].join(" ");
        let whole = whole.trim_start();
        let mut snippet: String = whole.chars().take(SNIPPET_CHARS).collect();
        if snippet.len() < whole.len() {
            snippet.push('…');
        }
        snippet
    }
}

fn show(args: &SearchArgs, run: &Run, corpus: Option<&Corpus>) -> anyhow::Result<()> {
    let documents = run.iter().flat_map(|(_, documents)| documents);
    let mut shown = Vec::new();
    for (rank, document) in (1..).zip(documents) {
        let passage = corpus.map(|corpus| passage_of(corpus, &document.id)).transpose()?;
        let passage = passage.map(|Passage { title, text }| ShownPassage { title, text });
        shown.push(Shown { rank, score: document.score, id: document.id.clone(), passage });
    }
    let rows: Vec<[String; 4]> = shown
        .iter()
        .map(|hit| {
            let text = hit.passage.as_ref().map_or(String::new(), ShownPassage::snippet);
            [hit.rank.to_string(), format!("{:.4}", hit.score), hit.id.clone(), text]
        })
        .collect();
    output::write(args.format, ["rank", "score", "id", "passage"], &rows, &shown)
}

fn passage_of(corpus: &Corpus, id: &str) -> anyhow::Result<Passage> {
    let index = corpus.index_of(id).ok_or_else(|| {
        let path = corpus.path().display();
        anyhow::anyhow!("passage {id:?} is not in {path} (give the corpus that was encoded)")
    })?;
    Ok(corpus.get(index)?)
}

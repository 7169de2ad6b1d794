//! `contaccum search`.

use std::path::Path;

use contaccum_data::{Corpus, Passage};
use contaccum_retrieval::{EmbeddingStore, Run, check_names, encode_in_memory, search_store};
use serde::Serialize;

use crate::args::SearchArgs;
use crate::model::{Role, TextEncoder};
use crate::output::{self, quoted};
use crate::progress::Progress;
use crate::texts::ChosenQueries;

/// Characters of a passage shown in a table.
const SNIPPET_CHARS: usize = 80;

/// Searches for many queries into a run file, or for one onto stdout.
pub fn run(args: &SearchArgs) -> anyhow::Result<()> {
    crate::use_threads(args.threads)?;
    let index = EmbeddingStore::open(&args.index)?;
    let passages = index.ids()?;
    if args.output.is_some() {
        // Told before anything is encoded: a run file cannot hold every id.
        check_names(&args.tag, [], passages.iter().map(String::as_str))?;
    }
    let queries = QueryVectors::of(args)?;
    // One more than asked for may have to go.
    let depth = args.top_k.saturating_add(usize::from(args.ignore_identical_ids && args.top_k > 0));
    let found = {
        let _progress = Progress::waiting("Searching", format!("{} passages", passages.len()));
        search_store(&queries.vectors, queries.dim, &index, &passages, depth)?
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
            let qrels = match (&args.input.queries, &args.split) {
                (Some(folder), Some(split)) => quoted(&folder.join("qrels").join(format!("{split}.tsv"))),
                _ => "QRELS".to_owned(),
            };
            output::next(format_args!("evaluate --run {} --qrels {qrels}", quoted(path)));
            Ok(())
        }
        None => show(args, &run),
    }
}

/// The queries to search for, as vectors `[ids.len(), dim]`.
struct QueryVectors {
    ids: Vec<String>,
    dim: usize,
    vectors: Vec<f32>,
}

impl QueryVectors {
    fn of(args: &SearchArgs) -> anyhow::Result<Self> {
        match (&args.input.query_embeddings, &args.input.queries, &args.input.query) {
            (Some(folder), _, _) => Self::stored(folder),
            (None, Some(path), _) => {
                let texts = ChosenQueries::open(path, args.split.as_deref(), args.strict)?;
                if args.output.is_some() {
                    check_names(&args.tag, texts.ids().iter().map(String::as_str), [])?;
                }
                let read = texts.chosen.iter().map(|&query| Ok(texts.queries.text(query)?));
                Self::encoded(args, texts.ids(), &read.collect::<anyhow::Result<Vec<_>>>()?)
            }
            (None, None, Some(text)) => {
                Self::encoded(args, vec!["query".to_owned()], std::slice::from_ref(text))
            }
            (None, None, None) => unreachable!("clap asks for one of them"),
        }
    }

    fn stored(folder: &Path) -> anyhow::Result<Self> {
        let store = EmbeddingStore::open(folder)?;
        let (mut vectors, mut shard_vectors) = (Vec::new(), Vec::new());
        for shard in 0..store.shards() {
            store.read_shard(shard, &mut shard_vectors)?;
            vectors.extend_from_slice(&shard_vectors);
        }
        Ok(Self { ids: store.ids()?, dim: store.description().dim, vectors })
    }

    fn encoded(args: &SearchArgs, ids: Vec<String>, texts: &[String]) -> anyhow::Result<Self> {
        let name = args.model.as_deref().expect("clap asks for a model beside texts");
        let model = TextEncoder::load(name, Role::Query, args.max_length)?;
        let tokens = texts.iter().map(|text| model.query(text)).collect::<anyhow::Result<Vec<_>>>()?;
        let progress = Progress::new("Encoding", texts.len(), "queries");
        let mut embed = model.embed(args.batch.into());
        let mut done = 0;
        let dim = model.encoder.dim();
        let vectors = encode_in_memory(&tokens, dim, args.batch.into(), |batch, out| {
            embed(batch, out);
            done += batch.sequences();
            progress.set(done);
        })?;
        Ok(Self { ids, dim, vectors })
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

fn show(args: &SearchArgs, run: &Run) -> anyhow::Result<()> {
    let corpus =
        args.corpus.as_deref().map(|path| Corpus::open_with(path, args.strict.into())).transpose()?;
    let documents = run.iter().flat_map(|(_, documents)| documents);
    let mut shown = Vec::new();
    for (rank, document) in (1..).zip(documents) {
        let passage = corpus.as_ref().map(|corpus| passage_of(corpus, &document.id)).transpose()?;
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

//! Time of exact search alone, as `bench/peers/search.py` times faiss: workload W5.
//!
//! ```sh
//! cargo run --release -p contaccum-retrieval --example search -- INDEX QUESTIONS
//! ```
//!
//! Both are folders of `contaccum encode`. Prints one line of JSON.

use std::path::Path;
use std::time::Instant;

use contaccum_retrieval::{EmbeddingStore, search};
use cpu_time::ProcessTime;

const TOP: usize = 100;
const REPEATS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [passages, queries] = &arguments[..] else {
        return Err("usage: search INDEX QUESTIONS".into());
    };
    let (dim, passages) = vectors(passages)?;
    let (_, queries) = vectors(queries)?;
    let (mut seconds, mut cpu_seconds) = (Vec::new(), Vec::new());
    let mut best = 0.0;
    for _ in 0..REPEATS {
        let (start, cpu_start) = (Instant::now(), ProcessTime::now());
        let found = search(&queries, dim, &passages, TOP)?;
        seconds.push(start.elapsed().as_secs_f64());
        cpu_seconds.push(cpu_start.elapsed().as_secs_f64());
        best = found.iter().map(|hits| f64::from(hits[0].score)).sum::<f64>() / found.len() as f64;
    }
    [&mut seconds, &mut cpu_seconds].into_iter().for_each(|times| times.sort_by(f64::total_cmp));
    println!(
        r#"{{"passages": {}, "queries": {}, "top": {TOP}, "search_seconds": {}, "cpu_search_seconds": {}, "mean_best_score": {best}}}"#,
        passages.len() / dim,
        queries.len() / dim,
        seconds[REPEATS / 2],
        cpu_seconds[REPEATS / 2],
    );
    Ok(())
}

fn vectors(folder: &str) -> Result<(usize, Vec<f32>), Box<dyn std::error::Error>> {
    let store = EmbeddingStore::open(Path::new(folder))?;
    let (mut all, mut shard_vectors) = (Vec::new(), Vec::new());
    for shard in 0..store.shards() {
        store.read_shard(shard, &mut shard_vectors)?;
        all.extend_from_slice(&shard_vectors);
    }
    Ok((store.description().dim, all))
}

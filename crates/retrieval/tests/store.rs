//! Encoding to disk: what the files are, and that interruption leaves no trace in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use contaccum_encoder::{PackedTokens, TokenSequence};
use contaccum_retrieval::{
    BatchLimits, EmbeddingStore, EncodeProgress, Passage, StoreDescription, encode, encode_in_memory,
    search_named, search_store,
};
use proptest::prelude::*;

const DIM: usize = 3;

fn description(rows: usize, shard_rows: usize) -> StoreDescription {
    StoreDescription {
        model: "toy".into(),
        corpus: "counting".into(),
        rows,
        dim: DIM,
        shard_rows,
        batch: BatchLimits { max_tokens: 16, max_sequences: 3 },
        settings: BTreeMap::from([("pooling".into(), "mean".into())]),
    }
}

/// Sequences of 1 to 7 tokens, the first of which is the row.
fn tokens(row: usize) -> TokenSequence {
    let ids: Vec<u32> = (0..1 + row * 5 % 7).map(|token| (row + token) as u32).collect();
    TokenSequence { second_segment: ids.len(), ids }
}

fn passage(row: usize) -> Result<Passage, String> {
    Ok(Passage { id: format!("p{row}"), tokens: tokens(row) })
}

/// A vector that tells the row, the length and the sum of the tokens.
fn vector(ids: &[u32]) -> [f32; DIM] {
    [ids[0] as f32, ids.len() as f32, ids.iter().sum::<u32>() as f32]
}

fn embed(batch: &PackedTokens, vectors: &mut [f32]) {
    assert_eq!(vectors.len(), batch.sequences() * DIM);
    for (bounds, out) in batch.offsets().windows(2).zip(vectors.chunks_exact_mut(DIM)) {
        out.copy_from_slice(&vector(&batch.ids()[bounds[0] as usize..bounds[1] as usize]));
    }
}

fn expected(rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|row| vector(&tokens(row).ids)).collect()
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect()
}

fn all_vectors(store: &EmbeddingStore) -> Vec<f32> {
    let (mut all, mut shard) = (Vec::new(), Vec::new());
    for index in 0..store.shards() {
        store.read_shard(index, &mut shard).unwrap();
        all.extend_from_slice(&shard);
    }
    all
}

/// The one-line failure of encoding into `folder`.
fn failure(folder: &Path, description: &StoreDescription) -> String {
    let message = encode(folder, description, passage, embed, |_| {}).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn vectors_and_ids_come_back_in_corpus_order(rows in 1usize..40, shard_rows in 1usize..15) {
        let folder = tempfile::tempdir().unwrap();
        let mut last = None;
        let store =
            encode(folder.path(), &description(rows, shard_rows), passage, embed, |done| last = Some(done)).unwrap();
        prop_assert_eq!(all_vectors(&store), expected(rows));
        prop_assert_eq!(store.ids().unwrap(), (0..rows).map(|row| format!("p{row}")).collect::<Vec<_>>());
        let tokens = (0..rows).map(|row| tokens(row).ids.len()).sum();
        prop_assert_eq!(last, Some(EncodeProgress { rows, total_rows: rows, tokens }));
        let reopened = EmbeddingStore::open(folder.path()).unwrap();
        prop_assert_eq!(reopened.description(), &description(rows, shard_rows));

        let queries = [1.0, -1.0, 0.5, -3.0, 2.0, 0.0];
        let ids = reopened.ids().unwrap();
        let in_memory = search_named(&queries, DIM, &expected(rows), &ids, 4).unwrap();
        prop_assert_eq!(search_store(&queries, DIM, &reopened, &ids, 4).unwrap(), in_memory);
    }
}

#[test]
fn an_interrupted_encoding_resumes_at_the_first_missing_shard_with_the_same_bytes() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let description = description(25, 10);
    encode(whole.path(), &description, passage, embed, |_| {}).unwrap();

    let fails_at_14 = |row: usize| if row >= 14 { Err("disk lost") } else { Ok(passage(row).unwrap()) };
    let message = encode(broken.path(), &description, fails_at_14, embed, |_| {}).unwrap_err().to_string();
    assert_eq!(message, "passage 14: disk lost");
    assert!(!contents(broken.path()).contains_key("embeddings-00001.npy"));
    let unfinished = EmbeddingStore::open(broken.path()).unwrap_err().to_string();
    assert!(unfinished.contains("not finished; run the same encode command again"), "{unfinished}");

    let mut first = None;
    let only_the_rest = |row: usize| if row < 10 { Err("encoded again") } else { Ok(passage(row).unwrap()) };
    encode(broken.path(), &description, only_the_rest, embed, |done| {
        first.get_or_insert(done.rows);
    })
    .unwrap();
    assert_eq!(contents(broken.path()), contents(whole.path()));
    assert!(first.unwrap() > 10, "rows found complete count as done");

    fs::remove_file(broken.path().join("embeddings-00001.npy")).unwrap();
    encode(broken.path(), &description, only_the_rest, embed, |_| {}).unwrap();
    assert_eq!(contents(broken.path()), contents(whole.path()));
}

#[test]
fn a_finished_encoding_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    encode(folder.path(), &description(5, 2), passage, embed, |_| {}).unwrap();
    let nothing = |_| Err::<Passage, _>("read again");
    encode(folder.path(), &description(5, 2), nothing, embed, |_| panic!("encoded again")).unwrap();
}

#[test]
fn resuming_something_else_is_refused_with_both_values() {
    let folder = tempfile::tempdir().unwrap();
    encode(folder.path(), &description(5, 2), passage, embed, |_| {}).unwrap();
    let refused = |change: fn(&mut StoreDescription), what: &str| {
        let mut other = description(5, 2);
        change(&mut other);
        let message = failure(folder.path(), &other);
        assert!(message.contains(what) && message.ends_with("or delete this one"), "{message}");
    };
    refused(|d| d.model = "other".into(), r#"begun with model "toy", now "other";"#);
    refused(|d| d.corpus = "other".into(), r#"begun with corpus "counting", now "other";"#);
    refused(|d| d.rows = 6, r#"begun with rows "5", now "6";"#);
    refused(|d| d.shard_rows = 3, "shard_rows");
    refused(|d| d.batch.max_tokens = 17, "batch.max_tokens");
    let pooling = r#"begun with setting pooling "mean", now "cls";"#;
    refused(|d| d.settings.insert("pooling".into(), "cls".into()).map_or((), drop), pooling);
    let prompt = r#"begun with setting prompt unset, now "query: ";"#;
    refused(|d| d.settings.insert("prompt".into(), "query: ".into()).map_or((), drop), prompt);
}

#[test]
fn arrays_are_written_for_numpy_and_read_from_it() {
    let folder = tempfile::tempdir().unwrap();
    encode(folder.path(), &description(2, 2), passage, embed, |_| {}).unwrap();
    // np.save of a float32 array [2, 3], numpy 2.4.6: magic, version 1.0, 118 bytes of header up to byte 128.
    let mut numpy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    numpy.extend_from_slice(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
    numpy.resize(127, b' ');
    numpy.push(b'\n');
    numpy.extend(expected(2).iter().flat_map(|x| x.to_le_bytes()));
    let path = folder.path().join("embeddings-00000.npy");
    let ours = fs::read(&path).unwrap();
    let header = 10 + usize::from(ours[8]) + 256 * usize::from(ours[9]);
    assert_eq!((&ours[..8], header % 64), (&b"\x93NUMPY\x01\x00"[..], 0));
    let dictionary = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, ), }";
    assert!(ours[10..header].starts_with(dictionary));
    assert_eq!(ours[header..], numpy[128..]);

    fs::write(&path, numpy).unwrap();
    let mut vectors = Vec::new();
    EmbeddingStore::open(folder.path()).unwrap().read_shard(0, &mut vectors).unwrap();
    assert_eq!(vectors, expected(2));
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = encode(folder.path(), &description(4, 4), passage, embed, |_| {}).unwrap();
    let path = folder.path().join("embeddings-00000.npy");
    let bytes = fs::read(&path).unwrap();
    let mut vectors = Vec::new();
    let mut damaged = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let message = store.read_shard(0, &mut vectors).unwrap_err().to_string();
        let named = message.contains("embeddings-00000.npy: ") && message.contains(what);
        assert!(named && !message.contains('\n'), "{message}");
    };
    damaged(&bytes[..bytes.len() - 1], "encode the corpus again");
    damaged(b"not an array", "is not a .npy file");
    let shape = bytes.windows(5).position(|window| window == b"(4, 3").unwrap();
    let mut other = bytes.clone();
    other[shape + 1] = b'3';
    damaged(&other, "where the manifest promises '<f4' [4, 3]");

    fs::write(folder.path().join("ids-00000.txt"), "p0\np1\n").unwrap();
    let message = store.shard_ids(0).unwrap_err().to_string();
    assert!(message.contains("ids-00000.txt: has 2 ids for 4 vectors"), "{message}");

    fs::write(folder.path().join("manifest.json"), "{}").unwrap();
    let message = EmbeddingStore::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("manifest.json: missing field"), "{message}");
    fs::remove_file(folder.path().join("manifest.json")).unwrap();
    let message = EmbeddingStore::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("holds no manifest.json"), "{message}");
    assert!(failure(folder.path(), &description(4, 4)).contains("holds shards without a manifest.json"));
}

#[test]
fn what_cannot_be_encoded_is_refused_in_one_line() {
    let fresh = || tempfile::tempdir().unwrap();
    let d = description(10, 10);
    assert!(failure(fresh().path(), &description(0, 10)).contains("has no passages to encode"));
    assert_eq!(failure(fresh().path(), &description(5, 0)), "rows per shard is 0; it must be at least 1");

    let small = StoreDescription { batch: BatchLimits { max_tokens: 6, max_sequences: 3 }, ..d.clone() };
    let message = failure(fresh().path(), &small);
    assert!(message.starts_with("text 4 has 7 tokens, more than a batch of 6;"), "{message}");

    let newline = |row: usize| Ok::<_, String>(Passage { id: "two\nlines".into(), ..passage(row).unwrap() });
    let message = encode(fresh().path(), &d, newline, embed, |_| {}).unwrap_err().to_string();
    assert_eq!(
        message,
        r#"passage 0: id "two\nlines" is empty or has a line break; give it another id in the corpus"#
    );

    let unsound = |batch: &PackedTokens, vectors: &mut [f32]| {
        embed(batch, vectors);
        vectors[0] = f32::NAN;
    };
    let message = encode(fresh().path(), &d, passage, unsound, |_| {}).unwrap_err().to_string();
    assert!(message.contains("got a vector with NaN or infinity in it"), "{message}");

    let folder = fresh();
    let store = encode(folder.path(), &d, passage, embed, |_| {}).unwrap();
    assert_eq!(
        search_store(&[1.0, 2.0], 2, &store, &store.ids().unwrap(), 1).unwrap_err().to_string(),
        "queries have 2 dimensions, passages 3; encode both with the same model"
    );
}

#[test]
fn batches_hold_sequences_of_similar_length_within_their_limits() {
    let sequences: Vec<TokenSequence> = (0..50).map(tokens).collect();
    let mut lengths = Vec::new();
    let limits = BatchLimits { max_tokens: 16, max_sequences: 3 };
    let vectors = encode_in_memory(&sequences, DIM, limits, |batch, vectors| {
        assert!((1..=3).contains(&batch.sequences()) && batch.tokens() <= 16);
        lengths.extend(batch.offsets().windows(2).map(|bounds| bounds[1] - bounds[0]));
        embed(batch, vectors);
    })
    .unwrap();
    assert_eq!(vectors, expected(50));
    assert!(lengths.is_sorted_by(|a, b| a >= b));
    assert!(encode_in_memory(&[], DIM, limits, embed).unwrap().is_empty());
}

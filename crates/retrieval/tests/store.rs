//! Encoding to disk: what the files are, and that interruption leaves no trace in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use contaccum_encoder::{Fingerprint, PackedTokens, TokenSequence};
use contaccum_retrieval::{
    BatchLimits, EmbeddingStore, EncodeError, EncodeProgress, Passage, StoreDescription, StoreWriter,
    encode_in_memory, search_named, search_store,
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
        encoder: Fingerprint::new().with("weights", "xxh3:1").with("pooling", "mean"),
        other_encoder: None,
        settings: Fingerprint::new().with("texts", "xxh3:2").with("max_length", 8),
    }
}

/// Encodes into `folder`, going on with what is there.
fn encode<E: Into<Box<dyn std::error::Error + Send + Sync>> + Send>(
    folder: &Path,
    description: &StoreDescription,
    passage: impl Fn(usize) -> Result<Passage, E> + Sync,
    embed: impl FnMut(&PackedTokens, &mut [f32]),
    progress: impl FnMut(EncodeProgress),
) -> Result<EmbeddingStore, EncodeError> {
    let store = StoreWriter::begin(folder, description, false)?;
    contaccum_retrieval::encode(store, passage, embed, progress)
}

/// What is told of a store in `folder` before going on with it.
fn notes(folder: &Path, description: &StoreDescription) -> Vec<String> {
    StoreWriter::begin(folder, description, false).unwrap().notes().to_vec()
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
fn an_encoding_of_something_else_is_refused_with_both_values_and_replaced_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    encode(folder.path(), &description(5, 2), passage, embed, |_| {}).unwrap();
    let before = contents(folder.path());
    let refused = |change: fn(&mut StoreDescription), what: &str| {
        let mut other = description(5, 2);
        change(&mut other);
        let message = failure(folder.path(), &other);
        assert!(message.contains(what) && message.contains("--overwrite"), "{message}");
    };
    refused(|d| d.shard_rows = 3, r#"shard_rows was "2", is "3""#);
    refused(|d| d.batch.max_tokens = 17, "batch.max_tokens");
    refused(|d| d.settings = d.settings.clone().with("max_length", 9), r#"max_length was "8", is "9""#);
    refused(
        |d| d.settings = d.settings.clone().with("prompt", "query: "),
        r#"prompt was unset, is "query: ""#,
    );
    let other_model = |d: &mut StoreDescription| {
        d.model = "other".into();
        d.encoder = d.encoder.clone().with("weights", "xxh3:9");
    };
    refused(other_model, r#"model was "toy", is "other"; weights differ"#);
    assert_eq!(contents(folder.path()), before);

    let mut other = description(3, 2);
    other_model(&mut other);
    let store = StoreWriter::begin(folder.path(), &other, true).unwrap();
    let store = contaccum_retrieval::encode(store, passage, embed, |_| {}).unwrap();
    assert_eq!(all_vectors(&store), expected(3));
    assert!(!contents(folder.path()).contains_key("embeddings-00002.npy"), "a shard of before is left");
}

#[test]
fn a_store_under_another_name_is_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    encode(folder.path(), &description(5, 2), passage, embed, |_| {}).unwrap();
    let moved = StoreDescription { model: "./toy".into(), corpus: "elsewhere".into(), ..description(5, 2) };
    assert!(StoreWriter::begin(folder.path(), &moved, false).unwrap().is_complete());
}

#[test]
fn other_contents_under_the_same_names_are_encoded_again_and_never_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let fails_at_4 = |row: usize| if row >= 4 { Err("disk lost") } else { Ok(passage(row).unwrap()) };
    encode(folder.path(), &description(5, 2), fails_at_4, embed, |_| {}).unwrap_err();
    assert!(contents(folder.path()).contains_key("embeddings-00001.npy"));

    for (other, what) in [
        (description(5, 2).settings.with("texts", "xxh3:3"), "texts differ"),
        (description(5, 2).settings.with("texts", "xxh3:4"), "texts differ"),
    ] {
        let changed = StoreDescription { settings: other, ..description(5, 2) };
        let told = notes(folder.path(), &changed);
        assert!(
            told.len() == 1 && told[0].starts_with("encoding again") && told[0].contains(what),
            "{told:?}"
        );
        let shifted = |row: usize| passage(row + 100);
        let store = encode(folder.path(), &changed, shifted, embed, |_| {}).unwrap();
        assert_eq!(all_vectors(&store), expected(105)[100 * DIM..]);
        assert_eq!(store.ids().unwrap()[0], "p100");
        assert!(notes(folder.path(), &changed).is_empty());
    }
}

#[test]
fn vectors_of_a_model_that_compares_by_cosine_are_ranked_by_cosine() {
    let (plain, cosine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let by_cosine = |d: StoreDescription, normalize: bool| StoreDescription {
        settings: d.settings.with("similarity", "cosine"),
        encoder: d.encoder.with("normalize", normalize),
        ..d
    };
    let dot = encode(plain.path(), &description(9, 4), passage, embed, |_| {}).unwrap();
    let cos = by_cosine(description(9, 4), false);
    let cos = encode(cosine.path(), &cos, passage, embed, |_| {}).unwrap();
    assert_eq!(all_vectors(&dot), all_vectors(&cos));
    let query = [1.0, 0.0, 0.0];
    let rank = |store: &EmbeddingStore| {
        search_store(&query, DIM, store, &store.ids().unwrap(), 9).unwrap()[0].clone()
    };
    assert_eq!(rank(&dot)[0].passage, 8, "the longest vector");
    let length =
        |row: usize| expected(9)[row * DIM..(row + 1) * DIM].iter().map(|x| x * x).sum::<f32>().sqrt();
    for hit in rank(&cos) {
        let row = hit.passage as usize;
        assert!((hit.score - expected(9)[row * DIM] / length(row)).abs() < 1e-6, "{hit:?}");
    }
}

#[test]
fn a_damaged_shard_is_named_by_the_search_and_encoded_again_by_the_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = encode(folder, &description(6, 2), passage, embed, |_| {}).unwrap();
    let before = contents(folder);
    let path = folder.join("embeddings-00001.npy");
    let bytes = fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let ids = folder.join("ids-00001.txt");
    for (file, damaged) in [
        (&path, flipped),
        (&path, bytes[..bytes.len() - 4].to_vec()),
        (&path, Vec::new()),
        (&ids, b"p3\np2\n".to_vec()),
        (&ids, Vec::new()),
    ] {
        fs::write(file, damaged).unwrap();
        let read = whole.read_shard(1, &mut Vec::new()).and_then(|()| whole.shard_ids(1));
        let message = read.unwrap_err().to_string();
        assert!(message.starts_with(&file.display().to_string()), "{message}");
        let store = StoreWriter::begin(folder, &description(6, 2), false).unwrap();
        assert!(store.notes()[0].contains(&file.display().to_string()), "{:?}", store.notes());
        assert!(EmbeddingStore::open(folder).is_err(), "a store under repair counts as finished");
        let only_the_shard = |row| if (2..4).contains(&row) { passage(row) } else { Err("again".into()) };
        contaccum_retrieval::encode(store, only_the_shard, embed, |_| {}).unwrap();
        assert_eq!(contents(folder), before);
    }
}

#[test]
fn numbers_of_a_manifest_are_held_against_the_files_before_memory_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    encode(folder, &description(4, 4), passage, embed, |_| {}).unwrap();
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let huge = usize::MAX.to_string();
    for (old, new) in [
        ("\"rows\": 4", format!("\"rows\": {huge}")),
        ("\"rows\": 4", "\"rows\": 4000000000".to_owned()),
        ("\"dim\": 3", format!("\"dim\": {huge}")),
        ("\"dim\": 3", "\"dim\": 1048576".to_owned()),
        ("\"shard_rows\": 4", format!("\"shard_rows\": {huge}")),
        ("\"shard_rows\": 4", "\"shard_rows\": 0".to_owned()),
        ("embeddings-00000.npy", "../../x.npy".to_owned()),
    ] {
        assert!(text.contains(old), "{text}");
        fs::write(&path, text.replace(old, &new)).unwrap();
        match EmbeddingStore::open(folder) {
            Ok(store) => assert_eq!(all_vectors(&store), expected(4), "{old} -> {new}"),
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
    let hostile = format!(
        r#"{{"format":"contaccum-embeddings-1","model":"m","corpus":"c","rows":{huge},"dim":32,"shard_rows":{huge},
        "shards":[{{"embeddings":"e","ids":"i","rows":{huge}}}],"done":true}}"#
    );
    fs::write(&path, hostile).unwrap();
    let message = EmbeddingStore::open(folder).unwrap_err().to_string();
    assert!(message.contains("contaccum-embeddings-1") && message.contains("--overwrite"), "{message}");
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
fn files_that_are_not_of_a_store_stay() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("ids-7.txt");
    fs::write(&foreign, "mine").unwrap();
    encode(folder.path(), &description(4, 4), passage, embed, |_| {}).unwrap();
    assert_eq!(fs::read(&foreign).unwrap(), b"mine");
    fs::remove_file(folder.path().join("manifest.json")).unwrap();
    fs::rename(folder.path().join("embeddings-00000.npy"), folder.path().join("embeddings-00003.npy"))
        .unwrap();
    fs::remove_file(folder.path().join("ids-00000.txt")).unwrap();
    assert!(failure(folder.path(), &description(4, 4)).contains("holds shards without a manifest.json"));
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
    let place = bytes.windows(5).position(|window| window == b"False").unwrap();
    let mut other = bytes.clone();
    other[place..place + 5].copy_from_slice(b"True ");
    damaged(&other, "Fortran order");

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

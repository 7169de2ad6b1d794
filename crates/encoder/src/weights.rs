//! Weights in and out: safetensors files under transformers' names, and fresh ones.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Component, Path, PathBuf},
};

use contaccum_files::{FOREIGN_HEAD_BYTES, Format, read_json_if_there, refuse_foreign};
use half::{bf16, f16};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use serde_json::{Map, Value};

use crate::families::FAMILIES;
use crate::layout::Kind;
use crate::{EncoderError, Layout, ModelConfig, Tensor};

/// The largest header of a file: safetensors' own bound.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;

/// Bytes converted at a time: what reading and writing cost in memory beside the weights themselves.
const CHUNK_BYTES: usize = 1 << 20;

/// Reads the tensors of `layout` into one buffer of `layout.parameters()` numbers: from a safetensors file, or from the
/// files that a `model.safetensors.index.json` lists; those of `Dense` modules from `dense`, a file each.
///
/// Names may carry the prefix of a family (`bert.`), as in every model with a head, and LayerNorm's old `gamma` and `beta`; what the layout does not name (pooler,
/// position ids, heads) is left out; f16, bf16 and f64 are converted.
///
/// # Errors
/// When a file is missing, cut short, broken or something else than safetensors, or a tensor is missing, of another
/// shape, of a type without conversion, or not finite.
pub fn load_weights(path: &Path, dense: &[PathBuf], layout: &Layout) -> Result<Vec<f32>, EncoderError> {
    let mut weights = Vec::new();
    read_files(path, dense, layout, |length| {
        weights = vec![0.0; length];
        &mut weights
    })?;
    Ok(weights)
}

/// As [`load_weights`], into a buffer of `layout.parameters()` numbers.
///
/// # Panics
/// When the buffer has another length.
pub(crate) fn read_weights(
    path: &Path,
    dense: &[PathBuf],
    layout: &Layout,
    weights: &mut [f32],
) -> Result<(), EncoderError> {
    assert_eq!(weights.len(), layout.parameters(), "weights must fill the layout");
    read_files(path, dense, layout, |_| weights)
}

/// `buffer` gives the buffer to fill.
fn read_files<'w>(
    path: &Path,
    dense: &[PathBuf],
    layout: &Layout,
    buffer: impl FnOnce(usize) -> &'w mut [f32],
) -> Result<(), EncoderError> {
    let shards = shard_paths(path)?.into_iter().map(Shard::open).collect::<Result<Vec<_>, _>>()?;
    let first = &layout.tensors()[0].name;
    let prefix = std::iter::once("")
        .chain(FAMILIES.map(|family| family.prefix))
        .find(|prefix| shards.iter().any(|shard| shard.metadata.info(&format!("{prefix}{first}")).is_some()))
        .unwrap_or_default();
    // Every tensor is found and checked before the buffer is made, so that a wrong config.json costs no memory.
    let dense_shards = dense.iter().cloned().map(Shard::open).collect::<Result<Vec<_>, _>>()?;
    let of_dense = layout.dense_tensors().zip(&dense_shards).flat_map(|(tensors, shard)| {
        tensors.iter().map(move |tensor| {
            let tensor = Tensor { name: own_name(&tensor.name).into(), ..tensor.clone() };
            find_tensor(&shard.path, std::slice::from_ref(shard), "", &tensor)
        })
    });
    let found = layout
        .transformer_tensors()
        .iter()
        .map(|tensor| find_tensor(path, &shards, prefix, tensor))
        .chain(of_dense)
        .collect::<Result<Vec<_>, _>>()?;
    assert_eq!(found.len(), layout.tensors().len(), "a file for every Dense module");
    let weights = buffer(layout.parameters());
    for (tensor, Found { shard, name, info }) in layout.tensors().iter().zip(found) {
        let values = &mut weights[tensor.range.clone()];
        let path = || shard.path.clone();
        read_tensor(&shard.file, shard.data_start, info, values)
            .map_err(|reason| EncoderError::Read { path: path(), reason })?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(EncoderError::TensorNotFinite { path: path(), tensor: name });
        }
    }
    Ok(())
}

/// The safetensors files of a model: the file itself, or those its index lists.
fn shard_paths(path: &Path) -> Result<Vec<PathBuf>, EncoderError> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return Ok(vec![path.into()]);
    }
    let refuse = |what: String| EncoderError::Unsupported { place: path.display().to_string(), what };
    let index: Map<String, Value> = read_json_if_there(path)?.unwrap_or_default();
    let Some(Value::Object(weight_map)) = index.get("weight_map") else {
        return Err(refuse("holds no weight_map of tensors to files; fetch it again".into()));
    };
    // An index comes from a download: it may not point out of its folder.
    let plain = |name: &&str| {
        let mut parts = Path::new(name).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
    };
    let file = |name: &Value| name.as_str().filter(plain).map(String::from).ok_or_else(|| name.to_string());
    let files: BTreeSet<String> =
        weight_map.values().map(file).collect::<Result<_, _>>().map_err(|name| {
            refuse(format!("lists {name}, which is not a file of this folder; fetch it again"))
        })?;
    Ok(files.into_iter().map(|file| path.with_file_name(file)).collect())
}

/// Writes every tensor of `layout` as f32 to a safetensors file that transformers reads, whole or not at all; those of
/// each `Dense` module to its own in `dense`, as sentence-transformers reads it.
///
/// # Errors
/// When a file cannot be written.
///
/// # Panics
/// When `weights` is not of the layout's length.
pub fn save_weights(
    path: &Path,
    dense: &[PathBuf],
    layout: &Layout,
    weights: &[f32],
) -> Result<(), EncoderError> {
    assert_eq!(weights.len(), layout.parameters(), "weights must fill the layout");
    assert_eq!(dense.len(), layout.dense.len(), "a file for every Dense module");
    save_tensors(path, layout.transformer_tensors(), |name| name, weights)?;
    dense
        .iter()
        .zip(layout.dense_tensors())
        .try_for_each(|(path, tensors)| save_tensors(path, tensors, own_name, weights))
}

/// The name of a `Dense` module's tensor in its own file.
fn own_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, own)| own)
}

/// Writes tensors that lie back to back in `weights`.
fn save_tensors(
    path: &Path,
    tensors: &[Tensor],
    name: impl Fn(&str) -> &str,
    weights: &[f32],
) -> Result<(), EncoderError> {
    let (Some(first), Some(last)) = (tensors.first(), tensors.last()) else { return Ok(()) };
    let (start, weights) = (first.range.start, &weights[first.range.start..last.range.end]);
    let infos = tensors.iter().map(|tensor| {
        let data_offsets = (4 * (tensor.range.start - start), 4 * (tensor.range.end - start));
        let info = TensorInfo { dtype: Dtype::F32, shape: tensor.shape.clone(), data_offsets };
        (name(&tensor.name).to_owned(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos.collect()).expect("a layout's tensors lie back to back");
    let written = contaccum_files::write(path, |file| {
        let mut header = serde_json::to_vec(&metadata)?;
        // Blanks up to a multiple of eight, so that the numbers are aligned in a mapped file.
        header.resize(header.len().next_multiple_of(8), b' ');
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        for values in weights.chunks(CHUNK_BYTES / 4) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            file.write_all(&bytes)?;
        }
        Ok(())
    });
    Ok(written?)
}

/// Fresh weights as BERT starts from: matrices from N(0, `initializer_range`²), LayerNorm one and zero, biases zero,
/// the padding token's row zero. The same seed gives the same bits on every machine.
pub fn random_weights(config: &ModelConfig, layout: &Layout, seed: u64) -> Vec<f32> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let architecture = config.architecture();
    let deviation = architecture.initializer_range as f32;
    let mut weights = vec![0.0; layout.parameters()];
    for tensor in layout.tensors() {
        let values = &mut weights[tensor.range.clone()];
        match tensor.kind {
            Kind::Bias => {}
            Kind::Scale => values.fill(1.0),
            Kind::Matrix | Kind::RelativeBias => values.fill_with(|| {
                let unit: f32 = StandardNormal.sample(&mut generator);
                deviation * unit
            }),
        }
    }
    let padding = layout.embedding.words.start + architecture.padding as usize * architecture.width;
    weights[padding..padding + architecture.width].fill(0.0);
    weights
}

/// An open safetensors file.
struct Shard {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

impl Shard {
    /// Reads the header; the file must be as long as the header says.
    fn open(path: PathBuf) -> Result<Self, EncoderError> {
        let read_error = |reason: io::Error| match reason.kind() {
            io::ErrorKind::NotFound => EncoderError::FileMissing {
                path: path.clone(),
                remedy: "a model folder holds config.json, tokenizer.json and all files of its weights"
                    .into(),
            },
            _ => EncoderError::Read { path: path.clone(), reason },
        };
        let mut file = File::open(&path).map_err(read_error)?;
        let mut head = Vec::with_capacity(FOREIGN_HEAD_BYTES);
        (&file).take(FOREIGN_HEAD_BYTES as u64).read_to_end(&mut head).map_err(read_error)?;
        refuse_foreign(&path, &head, Format::Safetensors)?;
        let broken = |reason: String| EncoderError::WeightsBroken { path: path.clone(), reason };
        let length = file.metadata().map_err(read_error)?.len();
        let Some(header_length) = head.first_chunk::<8>().map(|prefix| u64::from_le_bytes(*prefix)) else {
            return Err(broken(format!("it holds {length} bytes")));
        };
        if header_length > LARGEST_HEADER_BYTES || header_length > length.saturating_sub(8) {
            return Err(broken("its header is cut short".into()));
        }
        let mut header = vec![0; header_length as usize];
        file.seek(SeekFrom::Start(8)).and_then(|_| file.read_exact(&mut header)).map_err(read_error)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|reason| broken(format!("its header is broken: {reason}")))?;
        let data_start = 8 + header_length;
        let expected = u128::from(data_start) + metadata.data_len() as u128;
        if u128::from(length) != expected {
            return Err(broken(format!("it holds {length} bytes, its header says {expected}")));
        }
        Ok(Self { path, file, data_start, metadata })
    }
}

/// A tensor of the layout in its file, its shape and type checked.
struct Found<'s> {
    shard: &'s Shard,
    name: String,
    info: &'s TensorInfo,
}

fn find_tensor<'s>(
    path: &Path,
    shards: &'s [Shard],
    prefix: &str,
    tensor: &Tensor,
) -> Result<Found<'s>, EncoderError> {
    let old_name = tensor
        .name
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta");
    let (shard, name, info) = [tensor.name.as_str(), old_name.as_str()]
        .into_iter()
        .map(|name| format!("{prefix}{name}"))
        .flat_map(|name| shards.iter().map(move |shard| (shard, name.clone())))
        .find_map(|(shard, name)| shard.metadata.info(&name).map(|info| (shard, name, info)))
        .ok_or_else(|| EncoderError::TensorMissing { path: path.into(), tensor: tensor.name.clone() })?;
    let path = shard.path.as_path();
    if info.shape != tensor.shape {
        let (found, expected) = (info.shape.clone(), tensor.shape.clone());
        return Err(EncoderError::TensorShape { path: path.into(), tensor: name, found, expected });
    }
    if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) {
        let dtype = format!("{:?}", info.dtype);
        return Err(EncoderError::TensorDtype { path: path.into(), tensor: name, dtype });
    }
    Ok(Found { shard, name, info })
}

fn read_tensor(file: &File, data_start: u64, info: &TensorInfo, values: &mut [f32]) -> io::Result<()> {
    match info.dtype {
        Dtype::F32 => read_numbers(file, data_start, info, values, f32::from_le_bytes),
        Dtype::F16 => read_numbers(file, data_start, info, values, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => read_numbers(file, data_start, info, values, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => read_numbers(file, data_start, info, values, |b| f64::from_le_bytes(b) as f32),
        other => unreachable!("{other:?} was refused when the tensor was found"),
    }
}

fn read_numbers<const BYTES: usize>(
    mut file: &File,
    data_start: u64,
    info: &TensorInfo,
    values: &mut [f32],
    convert: impl Fn([u8; BYTES]) -> f32,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(data_start + info.data_offsets.0 as u64))?;
    let mut bytes = vec![0; CHUNK_BYTES.min(values.len() * BYTES)];
    for part in values.chunks_mut(CHUNK_BYTES / BYTES) {
        let bytes = &mut bytes[..part.len() * BYTES];
        file.read_exact(bytes)?;
        let (numbers, _) = bytes.as_chunks();
        for (value, number) in part.iter_mut().zip(numbers) {
            *value = convert(*number);
        }
    }
    Ok(())
}

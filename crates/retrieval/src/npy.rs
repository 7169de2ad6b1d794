//! `.npy` arrays of little-endian float32 `[rows, dim]`, as numpy writes and maps them.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use contaccum_encoder::hash_numbers;
use contaccum_files::ContentHash;
use npyz::WriterBuilder;

use crate::embeddings::{StoreError, corrupt, io_error};

/// Writes a C-order array.
pub(crate) fn write_npy(out: impl Write, shape: [u64; 2], vectors: &[f32]) -> io::Result<()> {
    let float32 = npyz::DType::Plain("<f4".parse().expect("a type numpy knows"));
    let mut array = npyz::WriteOptions::<f32>::new().dtype(float32).shape(&shape).writer(out).begin_nd()?;
    array.extend(vectors.iter().copied())?;
    array.finish()
}

/// Opens an array and holds its header, and the file's length, against the shape promised.
pub(crate) fn open_npy(path: &Path, rows: usize, dim: usize) -> Result<BufReader<File>, StoreError> {
    let file = File::open(path).map_err(io_error(path))?;
    let bytes = file.metadata().map_err(io_error(path))?.len();
    let mut file = BufReader::new(file);
    let header = npyz::NpyHeader::from_reader(&mut file)
        .map_err(|error| corrupt(path, format!("is not a .npy file: {error}; encode the corpus again")))?;
    let found = (header.dtype().descr(), header.shape());
    if found != ("'<f4'".to_owned(), &[rows as u64, dim as u64]) {
        let problem = format!(
            "holds {} {:?} where the manifest promises '<f4' [{rows}, {dim}]; encode the corpus again",
            found.0, found.1
        );
        return Err(corrupt(path, problem));
    }
    if header.order() == npyz::Order::Fortran {
        let problem = "holds its numbers in Fortran order (column by column) where C order (row by row) is needed; \
                       save it as numpy.ascontiguousarray(...), or encode the corpus again";
        return Err(corrupt(path, problem.to_owned()));
    }
    let first = file.stream_position().map_err(io_error(path))?;
    let expected = (rows as u64).saturating_mul(dim as u64).saturating_mul(4).saturating_add(first);
    if bytes != expected {
        let problem = format!("has {bytes} bytes, not {expected}; encode the corpus again");
        return Err(corrupt(path, problem));
    }
    Ok(file)
}

/// Reads an array of that shape and content into a buffer that is made to fit. The content is of the numbers alone,
/// whoever wrote the header.
pub(crate) fn read_npy(
    path: &Path,
    (rows, dim): (usize, usize),
    content: ContentHash,
    vectors: &mut Vec<f32>,
) -> Result<(), StoreError> {
    let mut file = open_npy(path, rows, dim)?;
    vectors.resize(rows * dim, 0.0);
    read_floats(&mut file, vectors).map_err(io_error(path))?;
    if hash_numbers(vectors) != content {
        let problem = "holds other numbers than were encoded; encode the corpus again";
        return Err(corrupt(path, problem.to_owned()));
    }
    Ok(())
}

/// Fills a slice with little-endian float32, piece by piece.
fn read_floats(input: &mut impl Read, values: &mut [f32]) -> io::Result<()> {
    let mut bytes = vec![0u8; 1 << 16];
    for piece in values.chunks_mut(bytes.len() / 4) {
        let bytes = &mut bytes[..piece.len() * 4];
        input.read_exact(bytes)?;
        for (value, bytes) in piece.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}

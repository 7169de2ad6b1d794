//! Tensors of a checkpoint: a safetensors file of one-dimensional values, written without a copy and read one at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytemuck::{NoUninit, Pod};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::TrainError;
use crate::checkpoint::broken;

/// One-dimensional values as a tensor to be written, without a copy on the way.
pub(crate) struct Values<'a> {
    dtype: Dtype,
    length: usize,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    pub fn new<T: NoUninit>(dtype: Dtype, values: &'a [T]) -> Self {
        Self { dtype, length: values.len(), bytes: bytemuck::cast_slice(values) }
    }
}

/// Writes a safetensors file, the widest types first, so that all values are aligned in a mapped file.
pub(crate) fn write_tensors(path: &Path, mut tensors: Vec<(String, Values)>) -> Result<(), TrainError> {
    tensors.sort_by(|(a, x), (b, y)| y.dtype.bitsize().cmp(&x.dtype.bitsize()).then(a.cmp(b)));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, Values { dtype, length, bytes })| {
        let data_offsets = (end, end + bytes.len());
        end = data_offsets.1;
        (name.clone(), TensorInfo { dtype: *dtype, shape: vec![*length], data_offsets })
    });
    let metadata = Metadata::new(None, infos.collect()).expect("tensors lie back to back");
    contaccum_files::write(path, |file| {
        let mut header = serde_json::to_vec(&metadata)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, values)| file.write_all(values.bytes))
    })?;
    Ok(())
}

/// An open file.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: HashMap<String, TensorInfo>,
}

impl TensorFile {
    /// Reads the header. What it declares is held against the file's length, so that no size asks for more memory than
    /// there are bytes.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let failed = contaccum_files::Error::io("reading", path);
        let mut file = File::open(path).map_err(&failed)?;
        let file_bytes = file.metadata().map_err(&failed)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(&failed)?;
        let data_start = u64::from_le_bytes(length).saturating_add(8);
        let mut header = Vec::new();
        (&file).take(data_start - 8).read_to_end(&mut header).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| broken(path, e))?;
        let declared = data_start.saturating_add(metadata.data_len() as u64);
        if declared != file_bytes {
            return Err(broken(path, format!("it holds {file_bytes} bytes, its header says {declared}")));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.into(), file, data_start, tensors })
    }

    /// Fills `values` with the tensor `name`.
    pub fn read_into<T: Pod>(&mut self, name: &str, values: &mut [T]) -> Result<(), TrainError> {
        let info = self.tensors.get(name).ok_or_else(|| broken(&self.path, format!("no tensor {name}")))?;
        let (start, end) = info.data_offsets;
        if end - start != size_of_val(values) {
            let reason = format!("{name} has {} bytes where {} belong", end - start, size_of_val(values));
            return Err(broken(&self.path, reason));
        }
        let read = self.file.seek(SeekFrom::Start(self.data_start + start as u64));
        read.and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(values)))
            .map_err(|error| contaccum_files::Error::io("reading", &self.path)(error).into())
    }

    /// The tensor `name`.
    pub fn read<T: Pod>(&mut self, name: &str) -> Result<Vec<T>, TrainError> {
        let bytes = self.tensors.get(name).map_or(0, |info| info.data_offsets.1 - info.data_offsets.0);
        let mut values = vec![T::zeroed(); bytes / size_of::<T>()];
        self.read_into(name, &mut values)?;
        Ok(values)
    }
}

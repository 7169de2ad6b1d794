//! What a run holds in memory, known before its first update.

use contaccum_encoder::ModelConfig;
use contaccum_objective::{BankDtype, Objective, ObjectiveConfig};

use crate::{MachineMemory, TrainError, machine_memory, resident_memory};

/// Program, tokenizer, threads and heap where nothing has been measured yet; without the index of the data.
pub const PROGRAM_BYTES: usize = 48 << 20;

/// What the heap may grow by in a run: small vectors of each update, records, a checkpoint's buffers.
pub const HEAP_BYTES: usize = 8 << 20;

/// Bytes a run holds, by what they hold. All of it is resident from before the first update to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Parameters of all encoders.
    pub weights_bytes: usize,
    /// Gradients of the trained parameters.
    pub gradients_bytes: usize,
    /// Both AdamW moments of the trained parameters.
    pub optimizer_bytes: usize,
    /// Activations kept for backward passes, and those that layers take turns in.
    pub activations_bytes: usize,
    /// Buffers that passes use one after the other, and what matrix products pack.
    pub workspace_bytes: usize,
    /// Vectors of a micro-batch and their gradients.
    pub representations_bytes: usize,
    /// Banks, the loss's scratch, and the copy of the banks that a checkpoint writes.
    pub banks_bytes: usize,
    /// Tokenised batches, prepared ahead.
    pub batches_bytes: usize,
    /// What an evaluation takes while it lasts; its texts, read before, are part of `program_bytes`.
    pub evaluation_bytes: usize,
    /// All else: program, tokenizer, index of the data. [`PROGRAM_BYTES`], or measured by a run that has loaded them.
    pub program_bytes: usize,
}

impl MemoryPlan {
    /// The parts, by the name they are told under.
    pub fn parts(&self) -> [(&'static str, usize); 10] {
        [
            ("weights", self.weights_bytes),
            ("gradients", self.gradients_bytes),
            ("optimizer state", self.optimizer_bytes),
            ("activations", self.activations_bytes),
            ("workspace", self.workspace_bytes),
            ("representations", self.representations_bytes),
            ("banks, loss", self.banks_bytes),
            ("batches ahead", self.batches_bytes),
            ("evaluation", self.evaluation_bytes),
            ("program, data index", self.program_bytes),
        ]
    }

    /// Holds the plan against the memory that the machine, or the control group of this process, has left. Where the
    /// system does not tell, anything passes.
    ///
    /// # Errors
    /// When there is less.
    pub fn check_machine(&self) -> Result<(), TrainError> {
        let (Some(machine), Some(held_bytes)) = (machine_memory(), resident_memory().current_bytes) else {
            return Ok(());
        };
        self.check_memory(machine, held_bytes)
    }

    fn check_memory(&self, machine: MachineMemory, held_bytes: u64) -> Result<(), TrainError> {
        let MachineMemory { total_bytes, available_bytes } = machine;
        let more_bytes = (self.total_bytes() as u64).saturating_sub(held_bytes);
        match more_bytes <= available_bytes {
            true => Ok(()),
            false => {
                Err(TrainError::NotEnoughMemory { more_bytes, held_bytes, available_bytes, total_bytes })
            }
        }
    }

    /// Everything together: the most that is resident.
    pub fn total_bytes(&self) -> usize {
        self.parts().iter().fold(0, |total, (_, bytes)| total.saturating_add(*bytes))
    }
}

/// Bytes of the objective, and of the copy of its banks in `f32` while a checkpoint is written.
pub(crate) fn banks_bytes(config: &ObjectiveConfig) -> usize {
    let held = Objective::memory_bytes(config);
    match config.bank_samples {
        0 => held,
        _ => {
            held + Objective::memory_bytes(&ObjectiveConfig { bank_dtype: BankDtype::F32, ..config.clone() })
        }
    }
}

/// Bytes that the matrix products of `threads` threads pack: each a panel of the widest weight, 512 deep, and blocks of
/// the other operand as large as the second-level cache.
pub(crate) fn products_bytes(shape: &ModelConfig, threads: usize) -> usize {
    const DEPTH: usize = 512;
    const CACHE_BYTES: usize = 1 << 20;
    let widest = shape.architecture().widest();
    threads * (DEPTH * widest * size_of::<f32>() + 2 * CACHE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_beyond_the_memory_left_is_refused_with_the_numbers() {
        let shape = contaccum_encoder::BertConfig::default().try_into().unwrap();
        let plan = crate::Trainer::memory_plan(&crate::TrainConfig::default(), &shape, 2).unwrap();
        let held_bytes = plan.program_bytes as u64;
        let needed = plan.total_bytes() as u64 - held_bytes;
        let machine = |available_bytes| MachineMemory { total_bytes: 8 << 30, available_bytes };
        assert!(plan.check_memory(machine(needed), held_bytes).is_ok());
        let message = plan.check_memory(machine(needed - 1), held_bytes).unwrap_err().to_string();
        for part in ["not enough memory", "48.0 MiB", "of 8.0 GiB", "--memory-budget"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains('\n'));
    }
}

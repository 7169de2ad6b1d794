//! Settings for a memory budget: the largest local batch and the policy that fit.

use std::collections::BTreeSet;

use bytesize::ByteSize;
use contaccum_encoder::{BertConfig, Recompute};

use crate::{ConfigError, MemoryPlan, Method, TrainConfig, TrainError, Trainer};

/// A bound on what a run of one kind of model may hold.
#[derive(Clone, Copy)]
pub struct MemoryBudget<'a> {
    /// Shape of the encoders.
    pub shape: &'a BertConfig,
    /// Threads of the pool.
    pub threads: usize,
    /// What is resident beside the run's own buffers, see [`MemoryPlan::program_bytes`].
    pub program_bytes: usize,
    /// What an evaluation takes, see [`MemoryPlan::evaluation_bytes`].
    pub evaluation_bytes: usize,
    /// The bound.
    pub budget_bytes: usize,
}

/// The largest local batch that fits, of rows at their longest and in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Largest {
    /// Rows.
    pub rows: usize,
    /// Tokens, queries and passages together.
    pub tokens: usize,
}

impl MemoryBudget<'_> {
    /// What a run of these settings holds.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn plan(&self, config: &TrainConfig) -> Result<MemoryPlan, TrainError> {
        let plan = Trainer::memory_plan(config, self.shape, self.threads)?;
        let evaluation_bytes = plan.evaluation_bytes + self.evaluation_bytes;
        Ok(MemoryPlan { program_bytes: self.program_bytes, evaluation_bytes, ..plan })
    }

    /// Chooses `local_batch_size`, `gradient_accumulation_steps` and `recompute`, for the same total batch.
    ///
    /// Where negatives come from the local batch it is as large as fits, then the policy as fast as fits; where they
    /// do not, the other way round. `recompute` is at least the given one.
    ///
    /// # Errors
    /// When nothing fits, with the numbers.
    pub fn fit(&self, config: &TrainConfig) -> Result<TrainConfig, TrainError> {
        let total = config.total_batch_size();
        let small = (1..=total.isqrt()).filter(|local| total.is_multiple_of(*local));
        let locals: BTreeSet<usize> = small.flat_map(|local| [local, total / local]).collect();
        let locals: Vec<usize> = locals.into_iter().rev().collect();
        let policies: Vec<Recompute> =
            Recompute::ALL.into_iter().skip_while(|policy| *policy != config.recompute).collect();
        let pairs: Vec<(usize, Recompute)> = match config.method.negatives_are_local() {
            true => locals.iter().flat_map(|local| policies.iter().map(|p| (*local, *p))).collect(),
            false => policies.iter().flat_map(|p| locals.iter().map(|local| (*local, *p))).collect(),
        };
        let candidates = pairs.into_iter().map(|(local, policy)| with_local_batch(config, local, policy));
        let mut least = None;
        for candidate in candidates.filter(|candidate| candidate.resolve().is_ok()) {
            let plan = self.plan(&candidate)?;
            if plan.total_bytes() <= self.budget_bytes {
                return Ok(candidate);
            }
            let smaller = |(_, least): &(_, MemoryPlan)| plan.total_bytes() < least.total_bytes();
            if least.as_ref().is_none_or(smaller) {
                least = Some((candidate, plan));
            }
        }
        let (candidate, plan) = least.expect("the asked settings are a candidate");
        Err(self.too_small(&candidate, &plan).into())
    }

    fn too_small(&self, least: &TrainConfig, plan: &MemoryPlan) -> ConfigError {
        let size = |bytes: usize| ByteSize(bytes as u64);
        let parts: Vec<String> =
            plan.parts().iter().map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
        let reason = format!(
            "{} is too little: the least is {}, with local_batch_size {} and recompute \"{}\" ({}; raise it, shorten \
             passage_max_length, or set tied or freeze_embeddings)",
            size(self.budget_bytes),
            size(plan.total_bytes()),
            least.local_batch_size,
            least.recompute.name(),
            parts.join(", "),
        );
        ConfigError::Setting { key: "memory_budget", reason }
    }

    /// The largest local batch under a policy; `None` where not even one row fits.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn largest(&self, config: &TrainConfig, policy: Recompute) -> Result<Option<Largest>, TrainError> {
        // The banks stay what they are for the total batch asked for.
        let memory_bank_size = Some(config.resolve()?.bank_samples).filter(|&samples| samples > 0);
        let with_rows = |rows: usize| TrainConfig {
            local_batch_size: rows,
            gradient_accumulation_steps: config
                .total_batch_size()
                .div_ceil(rows)
                .max(config.gradient_accumulation_steps),
            max_tokens: None,
            recompute: policy,
            memory_bank_size,
            ..config.clone()
        };
        let plan = |rows: usize| self.plan(&with_rows(rows));
        // What is too large to be counted fits in no budget: the search ends under any.
        let fits = |rows: usize| {
            let countable = with_rows(rows).check_bounds().is_ok();
            Ok::<_, TrainError>(countable && plan(rows)?.total_bytes() <= self.budget_bytes)
        };
        if !fits(1)? {
            return Ok(None);
        }
        let (mut rows, mut beyond) = (1, 2);
        while fits(beyond)? {
            (rows, beyond) = (beyond, 2 * beyond);
        }
        while beyond - rows > 1 {
            let middle = rows.midpoint(beyond);
            if fits(middle)? { rows = middle } else { beyond = middle }
        }
        let (at, next) = (plan(rows)?, plan(rows + 1)?);
        let of_tokens = |plan: &MemoryPlan| plan.activations_bytes + plan.workspace_bytes;
        let row_tokens = config.row_tokens();
        let token_bytes = (of_tokens(&next) - of_tokens(&at)).div_ceil(row_tokens).max(1);
        let more = (self.budget_bytes - at.total_bytes()) / token_bytes;
        Ok(Some(Largest { rows, tokens: rows * row_tokens + more.min(row_tokens - 1) }))
    }
}

fn with_local_batch(config: &TrainConfig, local: usize, recompute: Recompute) -> TrainConfig {
    TrainConfig {
        local_batch_size: local,
        gradient_accumulation_steps: config.total_batch_size() / local,
        recompute,
        memory_budget: None,
        ..config.clone()
    }
}

impl TrainConfig {
    /// The settings under which `grad-cache` gives a query as many negatives as these, in the same local batches.
    ///
    /// # Errors
    /// As [`TrainConfig::resolve`].
    pub fn as_grad_cache(&self) -> Result<Self, ConfigError> {
        let rows = (self.negatives_per_query()? + 1).div_ceil(self.passages_per_row());
        Ok(Self {
            model: self.model.clone(),
            tied: self.tied,
            freeze_embeddings: self.freeze_embeddings,
            query_max_length: self.query_max_length,
            passage_max_length: self.passage_max_length,
            hard_negatives: self.hard_negatives,
            method: Method::GradCache,
            local_batch_size: self.local_batch_size,
            gradient_accumulation_steps: rows.div_ceil(self.local_batch_size),
            max_tokens: self.max_tokens,
            recompute: self.recompute,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(method: Method) -> TrainConfig {
        TrainConfig { method, tied: false, ..TrainConfig::default() }
    }

    fn budget(shape: &BertConfig, mebibytes: usize) -> MemoryBudget<'_> {
        let (program_bytes, budget_bytes) = (48 << 20, mebibytes << 20);
        MemoryBudget { shape, threads: 2, program_bytes, evaluation_bytes: 0, budget_bytes }
    }

    #[test]
    fn what_is_chosen_fits_and_keeps_the_total_batch() {
        let shape = BertConfig::default();
        for method in Method::ALL {
            for mebibytes in [4_000, 5_000, 8_000, 30_000] {
                let budget = budget(&shape, mebibytes);
                let chosen = budget.fit(&config(method)).unwrap();
                assert_eq!(chosen.total_batch_size(), 128, "{method:?}");
                assert!(budget.plan(&chosen).unwrap().total_bytes() <= mebibytes << 20, "{method:?}");
                assert_eq!(chosen.memory_budget, None);
            }
        }
    }

    #[test]
    fn more_memory_never_gives_a_smaller_local_batch_and_negatives_come_before_speed() {
        let shape = BertConfig::default();
        let local = |mebibytes| budget(&shape, mebibytes).fit(&config(Method::GradAccum)).unwrap();
        let sizes: Vec<usize> = (4..40).map(|gib| local(gib * 1000).local_batch_size).collect();
        assert!(sizes.is_sorted() && sizes[0] < 128 && sizes[35] == 128, "{sizes:?}");
        // 8 rows fit without recomputation; more rows with it give more negatives, but no more to gradient caching.
        assert_eq!(local(4_700).recompute, Recompute::Layer);
        let cached = budget(&shape, 4_700).fit(&config(Method::GradCache)).unwrap();
        assert_eq!(cached.recompute, Recompute::None);
    }

    #[test]
    fn a_budget_that_nothing_fits_in_is_refused_with_the_numbers() {
        let shape = BertConfig::default();
        let message = budget(&shape, 2_000).fit(&config(Method::Contaccum)).unwrap_err().to_string();
        for part in
            ["memory_budget", "2.0 GiB", "the least is 3.", "local_batch_size 1", "optimizer state 1.6 GiB"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains('\n'));
    }

    #[test]
    fn the_largest_local_batch_fits_and_one_more_row_does_not() {
        let shape = BertConfig::default();
        let budget = budget(&shape, 6_000);
        let mut before = 0;
        for policy in Recompute::ALL {
            let largest = budget.largest(&config(Method::Contaccum), policy).unwrap().unwrap();
            let rows = |local_batch_size| {
                // The banks of the total batch asked for.
                let memory_bank_size = Some(512);
                let config = TrainConfig {
                    local_batch_size,
                    recompute: policy,
                    memory_bank_size,
                    ..config(Method::Contaccum)
                };
                budget.plan(&config).unwrap().total_bytes()
            };
            assert!(
                rows(largest.rows) <= budget.budget_bytes && rows(largest.rows + 1) > budget.budget_bytes
            );
            assert_eq!(largest.tokens / config(Method::Contaccum).row_tokens(), largest.rows);
            assert!(largest.rows > before, "{policy:?}");
            before = largest.rows;
        }
        let nothing = MemoryBudget { budget_bytes: 1 << 30, ..budget };
        assert_eq!(nothing.largest(&config(Method::Contaccum), Recompute::Layer).unwrap(), None);
    }

    #[test]
    fn any_budget_has_an_answer() {
        let shape = BertConfig::default();
        for budget_bytes in [0, 1, 1 << 62, 15 << 60, usize::MAX] {
            let budget = MemoryBudget { budget_bytes, ..budget(&shape, 0) };
            for method in Method::ALL {
                for policy in Recompute::ALL {
                    let largest = budget.largest(&config(method), policy).unwrap();
                    assert_eq!(largest.is_some(), budget_bytes > 1, "{method:?}");
                }
                assert_eq!(budget.fit(&config(method)).is_ok(), budget_bytes > 1, "{method:?}");
            }
        }
    }

    #[test]
    fn frozen_embeddings_have_neither_gradient_nor_optimizer_state() {
        let shape = BertConfig::default();
        let plan = |freeze_embeddings| {
            let config = TrainConfig { freeze_embeddings, ..config(Method::Contaccum) };
            Trainer::memory_plan(&config, &shape, 2).unwrap()
        };
        let (trained, frozen) = (plan(false), plan(true));
        // Word, position and type rows and the LayerNorm of two encoders.
        let embeddings = 2 * 4 * 768 * (30_522 + 512 + 2 + 2);
        assert_eq!(frozen.weights_bytes, trained.weights_bytes);
        assert_eq!(trained.gradients_bytes - frozen.gradients_bytes, embeddings);
        assert_eq!(trained.optimizer_bytes - frozen.optimizer_bytes, 2 * embeddings);
    }

    #[test]
    fn grad_cache_for_the_same_negatives_encodes_a_batch_of_that_many_passages() {
        let config = TrainConfig { hard_negatives: 1, ..config(Method::Contaccum) };
        let cached = config.as_grad_cache().unwrap();
        assert_eq!(config.negatives_per_query().unwrap(), 1039);
        assert_eq!(cached.total_batch_size(), 520);
        assert_eq!(cached.negatives_per_query().unwrap(), 1039);
    }
}

//! Settings for a memory budget: the largest local batch and the policy that fit.

use std::collections::BTreeSet;

use bytesize::ByteSize;
use contaccum_encoder::{ModelConfig, Recompute};

use crate::{ConfigError, MemoryPlan, Method, SETTINGS, Setting, TrainConfig, TrainError, Trainer};

/// A bound on what a run of one kind of model may hold.
#[derive(Clone, Copy)]
pub struct MemoryBudget<'a> {
    /// Shape of the encoders.
    pub shape: &'a ModelConfig,
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

    /// Settings that fit: the given ones where they do, else with others for those of `local_batch_size`,
    /// `gradient_accumulation_steps` and `recompute` that [`TrainConfig::given`] does not name, for the same total batch
    /// and with at least the given recomputation.
    ///
    /// Where negatives come from the local batch it stays as large as fits, then the policy as fast as fits; where they
    /// do not, the other way round. A budget that is met changes nothing.
    ///
    /// # Errors
    /// When nothing fits, with the numbers and with what was kept.
    pub fn fit(&self, config: &TrainConfig) -> Result<TrainConfig, TrainError> {
        let asked = TrainConfig { memory_budget: None, ..config.clone() };
        let plan = self.plan(&asked)?;
        if plan.total_bytes() <= self.budget_bytes {
            return Ok(asked);
        }
        let mut least = (asked.clone(), plan);
        for candidate in candidates(&asked).filter(|candidate| candidate.resolve().is_ok()) {
            let plan = self.plan(&candidate)?;
            if plan.total_bytes() <= self.budget_bytes {
                return Ok(candidate);
            }
            if plan.total_bytes() < least.1.total_bytes() {
                least = (candidate, plan);
            }
        }
        Err(self.too_small(&least.0, &least.1).into())
    }

    fn too_small(&self, least: &TrainConfig, plan: &MemoryPlan) -> ConfigError {
        let size = |bytes: usize| ByteSize(bytes as u64);
        let parts: Vec<String> =
            plan.parts().iter().map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
        let told: Vec<String> =
            budgeted().filter_map(|one| Some(format!("{} {}", one.key, one.told(least)?))).collect();
        let reason = format!(
            "{} is too little: the least is {}, with {}{} ({}; raise it, {}shorten passage_max_length, or set tied or \
             freeze_embeddings)",
            size(self.budget_bytes),
            size(plan.total_bytes()),
            told.join(", "),
            if least.given.is_empty() {
                String::new()
            } else {
                format!("; given, so kept: {}", least.given.join(", "))
            },
            parts.join(", "),
            if least.given.is_empty() { "" } else { "leave out what is kept, " },
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

/// The settings that a memory budget may choose.
fn budgeted() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.facts.budgeted)
}

/// The numbers that divide `total`.
fn divisors(total: usize) -> BTreeSet<usize> {
    let small = (1..=total.isqrt()).filter(|part| total.is_multiple_of(*part));
    small.flat_map(|part| [part, total / part]).collect()
}

/// Settings that take less memory than `asked`, the best first.
fn candidates(asked: &TrainConfig) -> impl Iterator<Item = TrainConfig> {
    let given = |key: &str| asked.given.contains(&key);
    let policies: Vec<Recompute> = match given("recompute") {
        true => vec![asked.recompute],
        false => Recompute::ALL.into_iter().skip_while(|policy| *policy != asked.recompute).collect(),
    };
    let batch_stays = given("local_batch_size")
        || given("gradient_accumulation_steps")
        || asked.method == Method::FullBatch;
    let total = asked.total_batch_size();
    let locals: Vec<usize> = match batch_stays {
        true => vec![asked.local_batch_size],
        false => divisors(total).into_iter().rev().filter(|local| *local <= asked.local_batch_size).collect(),
    };
    let pairs: Vec<(usize, Recompute)> = match asked.method.negatives_are_local() {
        true => locals.iter().flat_map(|local| policies.iter().map(|p| (*local, *p))).collect(),
        false => policies.iter().flat_map(|p| locals.iter().map(|local| (*local, *p))).collect(),
    };
    let whole = pairs.into_iter().map(|(local, recompute)| TrainConfig {
        local_batch_size: local,
        gradient_accumulation_steps: total / local,
        recompute,
        ..asked.clone()
    });
    let teaches = |candidate: &TrainConfig| candidate.check_negatives(asked.hard_negatives as f64).is_ok();
    whole.filter(teaches).collect::<Vec<_>>().into_iter()
}

impl TrainConfig {
    /// What a memory budget has replaced in the settings `asked`: `local_batch_size 8 -> 4`; empty for nothing.
    pub fn replaced(&self, asked: &Self) -> Vec<String> {
        let told = |one: &Setting| Some((one.key, one.told(asked)?, one.told(self)?));
        let changed = budgeted().filter_map(told).filter(|(_, asked, chosen)| asked != chosen);
        changed.map(|(key, asked, chosen)| format!("{key} {asked} -> {chosen}")).collect()
    }

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
    use contaccum_encoder::BertConfig;

    use super::*;

    fn bert_base() -> ModelConfig {
        BertConfig::default().try_into().unwrap()
    }

    fn config(method: Method) -> TrainConfig {
        TrainConfig { method, tied: false, ..TrainConfig::default() }
    }

    fn budget(shape: &ModelConfig, mebibytes: usize) -> MemoryBudget<'_> {
        let (program_bytes, budget_bytes) = (48 << 20, mebibytes << 20);
        MemoryBudget { shape, threads: 2, program_bytes, evaluation_bytes: 0, budget_bytes }
    }

    #[test]
    fn what_is_chosen_fits_and_keeps_the_total_batch() {
        let shape = bert_base();
        for method in Method::ALL {
            for mebibytes in [4_000, 5_000, 8_000, 30_000] {
                let budget = budget(&shape, mebibytes);
                let Ok(chosen) = budget.fit(&config(method)) else {
                    // All of a full batch is in memory at once.
                    assert!(method == Method::FullBatch && mebibytes < 30_000, "{method:?} {mebibytes}");
                    continue;
                };
                assert_eq!(chosen.total_batch_size(), 128, "{method:?}");
                assert!(budget.plan(&chosen).unwrap().total_bytes() <= mebibytes << 20, "{method:?}");
                assert_eq!(chosen.memory_budget, None);
            }
        }
    }

    #[test]
    fn more_memory_never_gives_a_smaller_local_batch_and_negatives_come_before_speed() {
        let shape = bert_base();
        let asked =
            |method| TrainConfig { local_batch_size: 128, gradient_accumulation_steps: 1, ..config(method) };
        let local = |mebibytes| budget(&shape, mebibytes).fit(&asked(Method::GradAccum)).unwrap();
        let sizes: Vec<usize> = (4..40).map(|gib| local(gib * 1000).local_batch_size).collect();
        assert!(sizes.is_sorted() && sizes[0] < 128 && sizes[35] == 128, "{sizes:?}");
        // 8 rows fit without recomputation; more rows with it give more negatives, but no more to gradient caching.
        assert_eq!(local(4_700).recompute, Recompute::Layer);
        let cached = budget(&shape, 4_700).fit(&asked(Method::GradCache)).unwrap();
        assert_eq!(cached.recompute, Recompute::None);
    }

    #[test]
    fn a_budget_that_is_met_changes_nothing() {
        let shape = bert_base();
        for method in Method::ALL {
            let asked = config(method);
            assert_eq!(budget(&shape, 100_000).fit(&asked).unwrap(), asked, "{method:?}");
            let exactly = MemoryBudget {
                budget_bytes: budget(&shape, 0).plan(&asked).unwrap().total_bytes(),
                ..budget(&shape, 0)
            };
            assert_eq!(exactly.fit(&asked).unwrap(), asked, "{method:?}");
        }
    }

    #[test]
    fn what_was_given_is_kept_and_what_was_not_is_told_when_replaced() {
        let shape = bert_base();
        let subsets = (0..8).map(|bits| {
            let given = budgeted().enumerate().filter(move |(i, _)| bits >> i & 1 == 1);
            given.map(|(_, setting)| setting.key).collect::<Vec<_>>()
        });
        let mut fitted = 0;
        for given in subsets {
            for method in Method::ALL {
                for mebibytes in [3_400, 4_000, 4_700, 8_000] {
                    let asked =
                        TrainConfig { max_tokens: Some(4 * 320), given: given.clone(), ..config(method) };
                    let budget = budget(&shape, mebibytes);
                    let Ok(chosen) = budget.fit(&asked) else { continue };
                    fitted += 1;
                    assert!(budget.plan(&chosen).unwrap().total_bytes() <= budget.budget_bytes);
                    assert_eq!(chosen.total_batch_size(), asked.total_batch_size());
                    let replaced = chosen.replaced(&asked);
                    let kept = |key: &str| replaced.iter().all(|change| !change.starts_with(key));
                    assert!(given.iter().all(|key| kept(key)), "{given:?}: {replaced:?}");
                    assert_eq!(replaced.is_empty(), chosen == asked);
                }
            }
        }
        assert!(fitted > 30, "{fitted}");
    }

    #[test]
    fn a_refusal_names_the_bytes_and_what_was_kept() {
        let shape = bert_base();
        let asked = TrainConfig { given: vec!["local_batch_size", "recompute"], ..config(Method::Contaccum) };
        let message = budget(&shape, 4_000).fit(&asked).unwrap_err().to_string();
        for part in
            ["memory_budget", "3.9 GiB", "the least is", "kept: local_batch_size, recompute", "weights"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains('\n'));
        let free = TrainConfig { given: vec!["local_batch_size"], ..asked };
        let chosen = budget(&shape, 4_000).fit(&free).unwrap();
        assert_eq!(chosen.local_batch_size, 8);
        assert_eq!(chosen.replaced(&free), [format!("recompute none -> {}", chosen.recompute.name())]);
    }

    #[test]
    fn a_budget_that_nothing_fits_in_is_refused_with_the_numbers() {
        let shape = bert_base();
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
        let shape = bert_base();
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
        let shape = bert_base();
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
        let shape = bert_base();
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

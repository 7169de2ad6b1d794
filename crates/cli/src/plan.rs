//! `contaccum plan`.

use std::collections::BTreeMap;

use contaccum_encoder::{EncoderError, ModelConfig, ModelFolder, Recompute};
use contaccum_training::{Largest, MemoryBudget, MemoryPlan, PROGRAM_BYTES, TrainConfig, run_settings};
use indicatif::HumanBytes;
use serde::Serialize;

use crate::args::PlanArgs;
use crate::output;

/// What is written, bytes as numbers.
#[derive(Serialize)]
struct Report {
    method: &'static str,
    local_batch_size: usize,
    gradient_accumulation_steps: usize,
    max_tokens: usize,
    recompute: Recompute,
    negatives_per_query: usize,
    memory_bytes: usize,
    parts_bytes: BTreeMap<&'static str, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_budget_bytes: Option<usize>,
    /// What the budget replaced in the settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<String>,
    /// The largest local batch by policy, under the budget.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    largest_local_batch: BTreeMap<&'static str, Option<Largest>>,
    grad_cache_total_batch_size: usize,
    grad_cache_memory_bytes: usize,
    #[serde(skip)]
    parts: MemoryPlan,
}

/// Plans the settings, or those that fit the budget.
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let asked = TrainConfig::load_for_plan(args.recipe.as_deref(), args.settings.given())?;
    crate::use_threads(asked.threads)?;
    let folder = ModelFolder::locate_without_weights(&asked.model)?;
    let shape = folder.config()?;
    check_lengths(&asked, &folder, &shape)?;
    let budget_bytes = asked.memory_budget.map(|budget| budget.as_u64() as usize);
    let budget = MemoryBudget {
        shape: &shape,
        threads: rayon::current_num_threads(),
        program_bytes: PROGRAM_BYTES,
        evaluation_bytes: 0,
        budget_bytes: budget_bytes.unwrap_or(usize::MAX),
    };
    let config = if budget_bytes.is_some() { budget.fit(&asked)? } else { asked.clone() };
    let policies = if budget_bytes.is_some() { &Recompute::ALL[..] } else { &[] };
    let largest = policies.iter().map(|policy| Ok((policy.name(), budget.largest(&asked, *policy)?)));
    let parts = budget.plan(&config)?;
    // It may be asked on another machine than the one that will train.
    parts.check_machine().unwrap_or_else(|missing| tracing::warn!("{missing}"));
    let grad_cache = config.as_grad_cache()?;
    let longest = config.resolve()?.chunk_size * config.row_tokens();
    let report = Report {
        method: config.method.name(),
        local_batch_size: config.local_batch_size,
        gradient_accumulation_steps: config.gradient_accumulation_steps,
        max_tokens: config.max_tokens.map_or(longest, |most| most.min(longest)),
        recompute: config.recompute,
        negatives_per_query: config.negatives_per_query()?,
        memory_bytes: parts.total_bytes(),
        parts_bytes: parts.parts().into_iter().collect(),
        memory_budget_bytes: budget_bytes,
        replaced: config.replaced(&asked),
        largest_local_batch: largest.collect::<anyhow::Result<_>>()?,
        grad_cache_total_batch_size: grad_cache.total_batch_size(),
        grad_cache_memory_bytes: budget.plan(&grad_cache)?.total_bytes(),
        parts,
    };
    output::write(args.format, ["setting", "value"], &report.rows(), &report)
}

/// Refuses the lengths that training would refuse; without a tokenizer at hand, only those beyond its
/// positions.
fn check_lengths(asked: &TrainConfig, folder: &ModelFolder, shape: &ModelConfig) -> anyhow::Result<()> {
    asked.check_lengths(shape)?;
    match folder.tokenizer() {
        Err(EncoderError::FileMissing { .. }) => Ok(()),
        read => Ok(asked.check_frame(&read?, run_settings(asked, folder.settings()?).passage_format)?),
    }
}

impl Report {
    fn rows(&self) -> Vec<[String; 2]> {
        let bytes = |bytes: usize| HumanBytes(bytes as u64).to_string();
        let row = |name: &str, value: String| [name.to_owned(), value];
        let mut rows = vec![
            row("method", self.method.to_owned()),
            row("local batch", format!("{} rows, {} a total batch", self.local_batch_size, self.total())),
            row("max tokens", self.max_tokens.to_string()),
            row("recompute", self.recompute.name().to_owned()),
            row("negatives per query", format!("{} at most", self.negatives_per_query)),
            row("memory", bytes(self.memory_bytes)),
        ];
        rows.extend(self.parts.parts().map(|(name, part)| row(&format!("- {name}"), bytes(part))));
        if let Some(budget) = self.memory_budget_bytes {
            let left = bytes(budget - self.memory_bytes);
            let chosen = crate::train::chosen(budget as u64, &self.replaced);
            rows.push(row("memory budget", format!("{chosen}; {left} left")));
        }
        for (policy, largest) in &self.largest_local_batch {
            let largest = largest.map_or("nothing fits".to_owned(), |largest| {
                format!("{} rows, or {} tokens", largest.rows, largest.tokens)
            });
            rows.push(row(&format!("largest local batch, recompute {policy}"), largest));
        }
        let (batch, memory) = (self.grad_cache_total_batch_size, bytes(self.grad_cache_memory_bytes));
        let grad_cache = format!("{memory}, each of {batch} rows an update encoded twice");
        rows.push(row("grad-cache for as many negatives", grad_cache));
        rows
    }

    fn total(&self) -> usize {
        self.local_batch_size * self.gradient_accumulation_steps
    }
}

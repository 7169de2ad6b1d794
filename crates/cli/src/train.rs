//! `contaccum train`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contaccum_data::{Positives, TrainingSet};
use contaccum_encoder::{ModelFolder, ModelSettings, TextTokenizer};
use contaccum_retrieval::{BatchLimits, DevSet, DevSource, QueryMeasures, Side};
use contaccum_study::Stop;
use contaccum_training::{
    BankWarmup, Begin, Enqueue, EvaluationNeeds, LongestTexts, METRICS_FILE, MemoryPlan, MethodPoint,
    Negatives, Observer, Outcome, Run, RunSummary, RunWarning, SETTINGS, StartModel, TrainConfig, TrainError,
    Trainer, UpdateRecord, check_output, word,
};
use indicatif::{HumanBytes, HumanCount};

use crate::args::TrainArgs;
use crate::failure::BadUsage;
use crate::notes;
use crate::output::{self, quoted};
use crate::progress::Progress;
use crate::signals::Signals;

/// Trains, resumes, or says what would be trained.
pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let asked = configuration(&args)?;
    let begin = match (args.resume, args.overwrite) {
        (true, _) => Begin::Resume,
        (false, true) => Begin::Over,
        (false, false) => Begin::Anew,
    };
    if !asked.output_dir.as_os_str().is_empty() {
        // Before the data is read, which may take long.
        check_output(&asked.output_dir, begin)?;
    }
    crate::use_threads(asked.threads)?;
    let (run, dev) = open(asked.clone())?;
    notes::tell(run.notes());
    let config = run.config().clone();
    if config.passage_prompt.is_none() {
        let notes = ModelFolder::locate(&config.model)?.notes()?;
        notes.iter().for_each(|note| tracing::warn!("{note}"));
    }
    let summary = run.summary()?;
    let enough_memory = summary.memory.check_machine();
    let mut plan = plan(&config, &summary);
    let budget = asked.memory_budget;
    plan.extend(
        budget.map(|budget| ["memory budget".to_owned(), chosen(budget.as_u64(), &config.replaced(&asked))]),
    );
    if args.dry_run {
        summary.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        // It may be asked on another machine than the one that will train.
        enough_memory.unwrap_or_else(|missing| tracing::warn!("{missing}"));
        let by_name: BTreeMap<&str, &str> =
            plan.iter().map(|[name, value]| (name.as_str(), value.as_str())).collect();
        return output::write(args.format, ["setting", "value"], &plan, &by_name);
    }
    for [name, value] in &plan {
        tracing::info!("{name}: {value}");
    }
    match (enough_memory, args.ignore_memory_limit) {
        (Ok(()), _) => {}
        (Err(missing), true) => tracing::warn!("{missing}"),
        (Err(missing), false) => return Err(missing.into()),
    }
    let signals = Signals::catch()?;
    let mut reporter = Reporter::new("Training", &config, summary.updates, dev, &signals);
    match run.train(begin, &mut reporter)? {
        Outcome::Finished { model, .. } => conclude(&config, &model),
        Outcome::Stopped { update, checkpoint } => {
            drop(reporter);
            let (updates, folder) = (summary.updates, quoted(&config.output_dir));
            signals.interrupted(format!(
                "stopped after update {update}/{updates}, saved {}; go on: contaccum train --resume --output-dir {folder}",
                checkpoint.display()
            ))
        }
    }
}

/// Reads model, judged queries and training data, and plans the run: an evaluation is a part of its memory.
fn open(asked: TrainConfig) -> anyhow::Result<(Run, Option<DevSet>)> {
    asked.validate_for_dry_run()?;
    let start = StartModel::open(&asked)?;
    let settings = start.encoder.settings();
    let dev = |folder: &PathBuf| dev_set(&asked, folder, settings, &start.tokenizer);
    let dev = asked.eval_data.as_ref().map(dev).transpose()?;
    let needs = dev.as_ref().map(|dev| evaluation_needs(dev, start.encoder.dim())).unwrap_or_default();
    let set = TrainingSet::open_with(&asked.source()?, asked.strict.into()).map_err(TrainError::from)?;
    Ok((Run::of(asked, start, set, needs)?, dev))
}

/// What measuring encoders of `dim` values on `dev` adds to a run.
pub fn evaluation_needs(dev: &DevSet, dim: usize) -> EvaluationNeeds {
    let [query, passage] = dev.longest();
    let bytes = dev.measure_bytes(dim, rayon::current_num_threads());
    EvaluationNeeds { bytes, longest: LongestTexts { query, passage } }
}

/// The settings of the run: flags over the recipe, or over what the resumed run stored.
fn configuration(args: &TrainArgs) -> anyhow::Result<TrainConfig> {
    let flags = args.settings.given();
    if args.dry_run {
        return Ok(TrainConfig::load_for_dry_run(args.recipe.as_deref(), flags)?);
    }
    if !args.resume {
        return Ok(TrainConfig::load(args.recipe.as_deref(), flags)?);
    }
    let Some(folder) = flags.get("output_dir").and_then(toml::Value::as_str) else {
        return Err(
            BadUsage("--resume needs --output-dir, the folder of the run to go on with".into()).into()
        );
    };
    let stored = Path::new(folder).join(contaccum_training::CONFIG_FILE);
    Ok(TrainConfig::load(Some(&stored), flags)?)
}

/// What a run is going to do, in words: nothing that decides a vector or the loss is left unsaid.
fn plan(config: &TrainConfig, summary: &RunSummary) -> Vec<[String; 2]> {
    let settings = &summary.settings;
    let encoders = if config.tied { "one, for queries and passages" } else { "two, from the same weights" };
    let frozen = if config.freeze_embeddings { ", embeddings frozen" } else { "" };
    let lengths =
        format!("queries {}, passages {} tokens", config.query_max_length, config.passage_max_length);
    let named = |name: &str, value: String| [name.to_owned(), value];
    let mut plan = vec![
        named("model", config.model.clone()),
        named("encoders", format!("{encoders}{frozen}")),
        named("parameters", count(summary.parameters)),
        named("pooling", word(&settings.pooling)),
        named(
            "similarity",
            format!("{}, vectors normalised: {}", word(&settings.similarity), settings.normalize),
        ),
        named(
            "prompts",
            format!("queries {:?}, passages {:?}", settings.query_prompt, settings.passage_prompt),
        ),
        named("truncation", lengths),
        named("longest texts", longest(summary)),
        named("passage format", word(&settings.passage_format)),
        named("recompute", config.recompute.name().to_owned()),
        named("method", format!("{}: {}", config.method.name(), batches(&summary.point))),
        named("banks", banks(config, &summary.point)),
        named("negatives per query", negatives(&summary.negatives)),
        named("temperature", config.temperature.to_string()),
        named("rows", rows(config, summary)),
        named("updates", updates(summary)),
        named("learning rate", format!("{}, {}", config.learning_rate, word(&config.scheduler))),
        named("not by default", changed(config)),
    ];
    plan.extend(memory(&summary.memory));
    plan
}

/// Settings that decide numbers and are not at their defaults, as in a recipe.
fn changed(config: &TrainConfig) -> String {
    let defaults = TrainConfig::default();
    let changed = SETTINGS.iter().filter(|setting| setting.is_changed(config, &defaults));
    let told = changed.map(|one| format!("{} {}", one.key, one.told(config).unwrap_or_default()));
    let told: Vec<String> = told.collect();
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}

fn longest(summary: &RunSummary) -> String {
    let LongestTexts { query, passage } = summary.longest;
    format!("queries {query}, passages {passage} tokens, read in {:.1} s", summary.longest_seconds)
}

fn batches(point: &MethodPoint) -> String {
    let MethodPoint { micro_steps, micro_batch_size, chunk_size, .. } = point;
    let chunks = if point.chunked { format!(" in chunks of {chunk_size}") } else { String::new() };
    let rows = word(&point.rows);
    format!("{micro_steps} x {micro_batch_size} rows{chunks}, rows of the loss: {rows}")
}

fn banks(config: &TrainConfig, point: &MethodPoint) -> String {
    let kinds = [
        (point.bank_queries, "queries"),
        (point.bank_passages, "passages"),
        (point.bank_hard_negatives, "hard negatives"),
    ];
    let on: Vec<&str> = kinds.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect();
    if on.is_empty() {
        return "none".to_owned();
    }
    let kept = if point.keep_past { "kept across updates" } else { "cleared at each update" };
    let dtype = word(&config.memory_bank_dtype);
    let enter = match config.memory_bank_enqueue {
        Enqueue::MicroBatch => "after each micro-batch",
        Enqueue::Update => "after each update",
    };
    let moved = if point.moves_banks() { ", moved with the encoder" } else { "" };
    let used = match config.memory_bank_warmup {
        BankWarmup::Auto => ", used once the encoder has learned enough".to_owned(),
        BankWarmup::Updates(0) => String::new(),
        BankWarmup::Updates(warmup) => format!(", used after update {}", count(warmup)),
    };
    format!(
        "{} of {} samples in {dtype}, filled {enter}, {kept}{moved}{used}",
        on.join(", "),
        count(point.bank_samples)
    )
}

fn negatives(negatives: &Negatives) -> String {
    let Negatives { per_query, bank_samples, bank_capacity } = *negatives;
    let per_query = count(per_query);
    match bank_samples == bank_capacity {
        _ if bank_capacity == 0 => per_query,
        true => format!("{per_query}, banks full"),
        false => format!(
            "{per_query} at the end, banks of {} samples holding {}",
            count(bank_capacity),
            count(bank_samples)
        ),
    }
}

fn rows(config: &TrainConfig, summary: &RunSummary) -> String {
    let several = match (summary.rows_with_several_positives, summary.positives) {
        (0, _) => String::new(),
        (rows, Positives::First) => format!(", {} of several positives, of which the first", count(rows)),
        (rows, Positives::Random) => format!(", {} of several positives, of which a random one", count(rows)),
    };
    let all = count(summary.rows) + &several;
    match (config.hard_negatives, summary.rows_without_negatives) {
        (0, _) => format!("{all}, no hard negatives used"),
        (wanted, without) if without == summary.rows => {
            format!("{all}, none of them with a hard negative ({wanted} each asked for)")
        }
        (wanted, 0) => format!("{all}, up to {wanted} hard negatives each"),
        (wanted, without) => {
            format!("{all}, up to {wanted} hard negatives each, none for {}", count(without))
        }
    }
}

fn updates(summary: &RunSummary) -> String {
    let (all, warmup, epoch) = (summary.updates, summary.warmup_updates, summary.updates_per_epoch);
    let rest = match (summary.rows_left_out, summary.last_batch_rows) {
        (0, last) if last == summary.point.micro_batch_size * summary.point.micro_steps => String::new(),
        (0, last) => format!(", the last of {} rows", count(last)),
        (left_out, _) => format!(", which leaves {} rows out", count(left_out)),
    };
    format!("{}, {} of them warm-up, {} an epoch{rest}", count(all), count(warmup), count(epoch))
}

/// What is resident before the first update, and what for.
fn memory(plan: &MemoryPlan) -> Vec<[String; 2]> {
    let row = |name: String, bytes: usize| [name, HumanBytes(bytes as u64).to_string()];
    let mut rows = vec![row("memory".to_owned(), plan.total_bytes())];
    rows.extend(plan.parts().map(|(name, bytes)| row(format!("- {name}"), bytes)));
    rows
}

/// What a memory budget replaced.
pub fn chosen(budget_bytes: u64, replaced: &[String]) -> String {
    let budget = HumanBytes(budget_bytes);
    match replaced {
        [] => format!("{budget}: met, nothing replaced"),
        replaced => format!("{budget}: {}", replaced.join(", ")),
    }
}

fn count(number: usize) -> String {
    HumanCount(number as u64).to_string()
}

/// Shows the run on stderr while it goes, measures it where asked, and stops it when a signal asks.
pub struct Reporter<'a> {
    progress: Progress,
    started: bool,
    logging_steps: usize,
    dev: Option<DevSet>,
    /// Where the last measures go, query by query.
    measures: PathBuf,
    signals: &'a Signals,
}

impl<'a> Reporter<'a> {
    /// Reports under the heading `verb`, and measures on `dev` when the run asks.
    pub fn new(
        verb: &str,
        config: &TrainConfig,
        updates: usize,
        dev: Option<DevSet>,
        signals: &'a Signals,
    ) -> Self {
        let progress = Progress::new(verb, updates, "updates");
        let name = dev.as_ref().map_or(String::new(), DevSet::name);
        let measures = QueryMeasures::path(&config.output_dir, &name);
        Self { progress, started: false, logging_steps: config.logging_steps, dev, measures, signals }
    }
}

/// The judged queries of `folder` that a run is measured on; tells what was odd about them.
pub fn dev_set(
    config: &TrainConfig,
    folder: &Path,
    settings: &ModelSettings,
    tokenizer: &TextTokenizer,
) -> anyhow::Result<DevSet> {
    let source = DevSource {
        folder: folder.to_owned(),
        split: config.eval_split.clone(),
        max_queries: config.max_eval_queries,
        query_max_length: config.query_max_length,
        passage_max_length: config.passage_max_length,
        passage_format: settings.passage_format,
        ignore_identical_ids: config.ignore_identical_ids,
        strictness: config.strict.into(),
    };
    let dev = DevSet::open(source, settings, tokenizer)?;
    notes::tell(dev.notes());
    if dev.missing_queries() > 0 {
        let missing = dev.missing_queries();
        tracing::warn!("{}: {missing} judged queries are not in the queries and count 0", dev.name());
    }
    Ok(dev)
}

impl Observer for Reporter<'_> {
    fn updated(&mut self, record: &UpdateRecord, updates: usize) {
        if !std::mem::replace(&mut self.started, true) {
            // Updates of before a resumption must not enter the rate.
            self.progress.start_at(record.update - 1);
        }
        self.progress.set(record.update);
        self.progress.say(format_args!("loss {:.4}{}", record.loss, resident(record)));
        if record.update.is_multiple_of(self.logging_steps) || record.update == updates {
            self.progress.pause(|| tracing::info!("{}", log_line(record, updates)));
        }
    }

    fn warned(&mut self, warning: &RunWarning) {
        self.progress.pause(|| tracing::warn!("{warning}"));
    }

    fn told(&mut self, warning: &str) {
        self.progress.pause(|| tracing::warn!("{warning}"));
    }

    fn saved(&mut self, checkpoint: &Path) {
        self.progress.pause(|| tracing::info!("saved {}", checkpoint.display()));
    }

    fn failed_for_now(&mut self, error: &TrainError) {
        self.progress.pause(|| tracing::warn!("{error}; the run goes on and tries again"));
    }

    fn records_lost(&mut self, records: usize) {
        self.progress.pause(|| {
            tracing::warn!("{records} records of earlier updates are damaged or missing in {METRICS_FILE}");
        });
    }

    fn stop_requested(&mut self) -> bool {
        self.signals.requested()
    }

    fn evaluate(&mut self, trainer: &mut Trainer, last: bool) -> Result<BTreeMap<String, f64>, String> {
        self.progress.say("evaluating");
        let Some(dev) = &self.dev else { return Ok(BTreeMap::new()) };
        let most = trainer.evaluation_limits().expect("a run with judged queries has eval_data");
        let limits = BatchLimits { max_tokens: most.tokens, max_sequences: most.sequences };
        let measured =
            dev.measure_by(trainer.query_encoder().dim(), limits, |side, tokens, out| match side {
                Side::Query => trainer.embed_queries(tokens, out),
                Side::Passage => trainer.embed_passages(tokens, out),
            });
        let measured = measured.map_err(|error| error.to_string())?;
        if last {
            measured.write(&self.measures).map_err(|error| error.to_string())?;
        }
        Ok(measured.means())
    }

    fn measured(&self) -> bool {
        let stored = QueryMeasures::read(&self.measures);
        self.dev.as_ref().is_none_or(|dev| stored.is_ok_and(|stored| stored.is_some_and(|m| dev.answers(&m))))
    }

    fn evaluated(&mut self, update: usize, metrics: &BTreeMap<String, f64>) {
        let metrics: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        self.progress.pause(|| tracing::info!("evaluated after update {update}: {}", metrics.join(", ")));
    }
}

fn resident(record: &UpdateRecord) -> String {
    record.resident_bytes.map_or(String::new(), |bytes| format!(", {}", HumanBytes(bytes)))
}

fn log_line(record: &UpdateRecord, updates: usize) -> String {
    format!(
        "update {}/{updates}: loss {:.4}, current rows {:.4}, gradient norm {:.3} (passage/query {}), \
         {:.0} negatives, {:.0} tokens/s{}",
        record.update,
        record.loss,
        record.current_rows_loss,
        record.grad_norm,
        record.grad_norm_ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        record.negatives_per_query,
        record.tokens_per_second,
        resident(record),
    )
}

/// Says where the model is and what to type next.
fn conclude(config: &TrainConfig, model: &Path) -> anyhow::Result<()> {
    output::line(model.display())?;
    let data = if config.train.is_dir() { config.train.as_path() } else { Path::new("CORPUS") };
    let [model, data, index] = [model, data, &config.output_dir.join("index")].map(quoted);
    output::next(format_args!("encode --model {model} --corpus {data} --output {index}"));
    Ok(())
}

//! A whole run: from a configuration to a trained model folder, with checkpoints on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use contaccum_data::{BatchPlan, Notes, Positives, TrainingSet};
use contaccum_encoder::{
    Encoder, Layout, ModelCard, ModelConfig, ModelFolder, ModelSettings, Rounding, Similarity, TextTokenizer,
    hash_numbers,
};
use contaccum_objective::KnownPositives;

use crate::bank_watch::BankWarning;
use crate::checkpoint;
use crate::identity::{RunIdentity, data_fingerprint, record_fingerprint, run_fingerprint};
use crate::loader::{Loader, RowTokenizer};
use crate::output::{Begin, OutputFolder, write_settings};
use crate::run_watch::RunWatch;
use crate::session::{Saves, Session};
use crate::{
    ConfigError, HEAP_BYTES, LongestTexts, MemoryBudget, MemoryPlan, MethodPoint, Negatives, PROGRAM_BYTES,
    RunRecorder, RunWarning, Setting, TrainConfig, TrainError, Trainer, UpdateRecord, UpdateReport,
    resident_memory,
};

/// The model a run starts from.
pub struct StartModel {
    /// Encoder with the run's settings, before training.
    pub encoder: Encoder,
    /// Its tokenizer.
    pub tokenizer: Arc<TextTokenizer>,
}

impl StartModel {
    /// Opens the folder or hub name that the configuration gives, and lays its settings over the folder's.
    ///
    /// # Errors
    /// A model that cannot be read, or lengths that it does not take.
    pub fn open(config: &TrainConfig) -> Result<Self, TrainError> {
        let folder = ModelFolder::locate(&config.model)?;
        let shape = run_shape(config, folder.config()?);
        config.check_lengths(&shape)?;
        let recorded = folder.settings()?;
        folder.tell_shorter(recorded.max_seq_length, config.query_max_length.max(config.passage_max_length));
        let settings = run_settings(config, recorded);
        if config.pooling.is_none() {
            folder.warn_if_plain();
        }
        let tokenizer = folder.tokenizer()?;
        config.check_frame(&tokenizer, settings.passage_format)?;
        let weights = folder.weights(&Layout::new(&shape))?;
        Ok(Self { encoder: Encoder::new(shape, settings, weights), tokenizer: Arc::new(tokenizer) })
    }

    fn duplicate(&self) -> Encoder {
        let e = &self.encoder;
        Encoder::new(e.config().clone(), e.settings().clone(), e.weights().to_vec())
    }
}

/// The model's configuration with the dropout of the run.
pub fn run_shape(config: &TrainConfig, shape: ModelConfig) -> ModelConfig {
    match config.dropout {
        Some(rate) => shape.with_dropout(rate),
        None => shape,
    }
}

/// The model's settings with those of the run laid over them.
pub fn run_settings(config: &TrainConfig, recorded: ModelSettings) -> ModelSettings {
    let cosine = config.similarity == Similarity::Cosine;
    ModelSettings {
        pooling: config.pooling.unwrap_or(recorded.pooling),
        normalize: cosine || config.normalize.unwrap_or(recorded.normalize),
        similarity: config.similarity,
        query_prompt: config.query_prompt.clone().unwrap_or(recorded.query_prompt),
        passage_prompt: config.passage_prompt.clone().unwrap_or(recorded.passage_prompt),
        passage_format: config.passage_format.unwrap_or(recorded.passage_format),
        query_max_length: config.query_max_length,
        passage_max_length: config.passage_max_length,
        max_seq_length: config.query_max_length.max(config.passage_max_length),
    }
}

/// A run with its data and model read and checked, before anything is computed or written.
pub struct Run {
    config: TrainConfig,
    set: Arc<TrainingSet>,
    known_positives: KnownPositives,
    plan: BatchPlan,
    start: StartModel,
    updates: usize,
    longest: LongestTexts,
    longest_seconds: f64,
    evaluation: EvaluationNeeds,
    /// Resident before any buffer of the training is made, but for the model's weights.
    program_bytes: usize,
}

/// What the evaluations of a run hold and encode.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvaluationNeeds {
    /// Bytes while one lasts, beside the trainer's buffers and its texts.
    pub bytes: usize,
    /// Its longest texts.
    pub longest: LongestTexts,
}

/// What a run is going to do.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Trainable parameters over all encoders.
    pub parameters: usize,
    /// Training rows.
    pub rows: usize,
    /// Rows that bring no hard negative.
    pub rows_without_negatives: usize,
    /// Updates in all.
    pub updates: usize,
    /// Updates of warm-up among them.
    pub warmup_updates: usize,
    /// Updates that one pass over the rows takes.
    pub updates_per_epoch: usize,
    /// Rows that each pass leaves out because they fill no total batch.
    pub rows_left_out: usize,
    /// Rows of the last batch of a pass.
    pub last_batch_rows: usize,
    /// Rows that have more than one positive.
    pub rows_with_several_positives: usize,
    /// Which positive of such a row is trained on.
    pub positives: Positives,
    /// Point of the space of methods.
    pub point: MethodPoint,
    /// Negatives of a query at the end of the run.
    pub negatives: Negatives,
    /// How texts become vectors.
    pub settings: ModelSettings,
    /// Bytes allocated before the first update.
    pub memory: MemoryPlan,
    /// The longest texts, those that are evaluated on among them.
    pub longest: LongestTexts,
    /// Seconds it took to find them.
    pub longest_seconds: f64,
    /// What is known beforehand to surprise; a run tells it again.
    pub warnings: Vec<RunWarning>,
}

/// What a run tells its caller while it goes, and asks.
pub trait Observer {
    /// After every update.
    fn updated(&mut self, record: &UpdateRecord, updates: usize);

    /// Something that may surprise; each kind is told once.
    fn warned(&mut self, warning: &RunWarning);

    /// Anything else that may surprise, in a line.
    fn told(&mut self, warning: &str);

    /// A checkpoint is complete.
    fn saved(&mut self, checkpoint: &Path);

    /// A record, checkpoint or evaluation failed; the run goes on and tries again.
    fn failed_for_now(&mut self, error: &TrainError);

    /// Records of updates before the checkpoint that is gone on from are damaged or missing, so many.
    fn records_lost(&mut self, records: usize);

    /// Whether the run is to end after this update, with a checkpoint.
    fn stop_requested(&mut self) -> bool;

    /// Metrics of the encoders on development data, by name; texts are embedded by the trainer, in its buffers. Those
    /// after the `last` update are the run's own, to be stored.
    ///
    /// # Errors
    /// One line.
    fn evaluate(&mut self, trainer: &mut Trainer, last: bool) -> Result<BTreeMap<String, f64>, String>;

    /// Whether the metrics after the last update are stored already.
    fn measured(&self) -> bool;

    /// An evaluation after so many updates is made and recorded.
    fn evaluated(&mut self, update: usize, metrics: &BTreeMap<String, f64>);
}

/// How a run ended that did not fail.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All updates are done.
    Finished {
        /// The trained model: a sentence-transformers folder, or `query_encoder/` and `passage_encoder/` in it.
        model: PathBuf,
        /// The record of the last update; `None` when there was nothing left to do.
        last: Option<Box<UpdateRecord>>,
    },
    /// The observer asked to stop.
    Stopped {
        /// Updates done.
        update: usize,
        /// The checkpoint to go on from.
        checkpoint: PathBuf,
    },
}

impl Run {
    /// Reads the model and the data of a configuration.
    ///
    /// # Errors
    /// Anything missing, broken or contradictory, before any work is done.
    pub fn open(config: TrainConfig) -> Result<Self, TrainError> {
        config.validate_for_dry_run()?;
        let start = StartModel::open(&config)?;
        let set = TrainingSet::open_with(&config.source()?, config.strict.into())?;
        Self::of(config, start, set, EvaluationNeeds::default())
    }

    /// A run of parts that are already there. A memory budget is met here, see [`Run::config`].
    ///
    /// # Errors
    /// Fewer rows than a total batch, a run of no updates or one that would never use its banks, or a memory budget
    /// that nothing fits in.
    pub fn of(
        config: TrainConfig,
        start: StartModel,
        set: TrainingSet,
        evaluation: EvaluationNeeds,
    ) -> Result<Self, TrainError> {
        let (rows, total) = (set.len(), config.total_batch_size());
        if rows < total && config.drop_last {
            let reason = format!(
                "a total batch of {total} rows, but the data has {rows} (lower it, add data, or set drop_last = false)"
            );
            return Err(ConfigError::Setting { key: "local_batch_size", reason }.into());
        }
        let plan = BatchPlan::new(Arc::clone(set.rows()), config.batches(set.default_positives()))?;
        let updates = config.updates(plan.updates_per_epoch() as usize);
        if updates == 0 {
            let reason = format!("no update in the run ({rows} rows, {total} a total batch; raise it)");
            return Err(ConfigError::Setting { key: "epochs", reason }.into());
        }
        config.check_updates(updates)?;
        config.check_negatives(hard_per_row(&set, &config))?;
        config.check_bank_warmup(updates)?;
        // Made before the program is measured: the table is a part of the data's index.
        let pairs = set.known_positives().map(|(query, passage)| (query.0, passage.0));
        let known_positives = KnownPositives::new(pairs);
        let (started, set) = (Instant::now(), Arc::new(set));
        let rows = row_tokenizer(&set, &start);
        let longest = LongestTexts::of_rows(&rows, &config)?.union(evaluation.longest);
        let longest_seconds = started.elapsed().as_secs_f64();
        let program_bytes = program_bytes(&start.encoder);
        let config = match config.memory_budget {
            None => config,
            Some(budget) => {
                let (shape, threads) = (start.encoder.config(), contaccum_kernels::threads());
                let budget_bytes = budget.as_u64() as usize;
                let evaluation_bytes = evaluation.bytes;
                let budget = MemoryBudget { shape, threads, program_bytes, evaluation_bytes, budget_bytes };
                let TrainConfig { query_max_length, passage_max_length, .. } = config;
                TrainConfig { query_max_length, passage_max_length, ..budget.fit(&config.within(longest))? }
            }
        };
        Ok(Self {
            config,
            set,
            known_positives,
            plan,
            start,
            updates,
            longest,
            longest_seconds,
            evaluation,
            program_bytes,
        })
    }

    /// The settings of the run: those given, with what a memory budget chose in its place.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// What was odd in the training data.
    pub fn notes(&self) -> &Notes {
        self.set.notes()
    }

    /// What the run is going to do.
    ///
    /// # Errors
    /// A configuration that contradicts itself.
    pub fn summary(&self) -> Result<RunSummary, TrainError> {
        let encoders = if self.config.tied { 1 } else { 2 };
        let shape = self.start.encoder.config();
        let data = self.set.summary();
        let point = self.config.resolve()?;
        Ok(RunSummary {
            parameters: self.start.encoder.layout().parameters() * encoders,
            rows: self.set.len(),
            rows_without_negatives: data.rows_without_negatives,
            updates: self.updates,
            warmup_updates: self.config.warmup_updates(self.updates),
            updates_per_epoch: self.plan.updates_per_epoch() as usize,
            rows_left_out: self.plan.rows_left_out(),
            last_batch_rows: self.plan.last_batch_rows(),
            rows_with_several_positives: data.rows_with_several_positives,
            positives: self.config.batches(self.set.default_positives()).positives,
            point,
            negatives: self.config.negatives_after(self.updates, hard_per_row(&self.set, &self.config))?,
            settings: self.start.encoder.settings().clone(),
            memory: self.memory_plan(shape)?,
            longest: self.longest,
            longest_seconds: self.longest_seconds,
            warnings: self.warnings(&point),
        })
    }

    fn memory_plan(&self, shape: &ModelConfig) -> Result<MemoryPlan, TrainError> {
        let budget = MemoryBudget {
            shape,
            threads: contaccum_kernels::threads(),
            program_bytes: self.program_bytes,
            evaluation_bytes: self.evaluation.bytes,
            budget_bytes: usize::MAX,
        };
        budget.plan(&self.config.within(self.longest))
    }

    /// What is known beforehand to surprise.
    fn warnings(&self, point: &MethodPoint) -> Vec<RunWarning> {
        let (rows, config) = (self.set.len(), &self.config);
        let entering = self.updates.saturating_mul(config.total_batch_size());
        let bank = BankWarning::beforehand(point.bank_samples, entering, rows).map(RunWarning::Bank);
        let without = config.hard_negatives > 0 && self.set.summary().rows_without_negatives == rows;
        let warmup = config.warmup_updates(self.updates);
        let mut passages = self.set.known_positives().map(|(_, passage)| passage);
        let first = passages.next();
        let one_positive = rows > 1 && passages.all(|passage| Some(passage) == first);
        let found = [
            bank,
            without.then_some(RunWarning::NoHardNegatives { wanted: config.hard_negatives, rows }),
            (warmup >= self.updates)
                .then_some(RunWarning::WarmupLongerThanRun { warmup, updates: self.updates }),
            (config.learning_rate == 0.0).then_some(RunWarning::NoLearningRate),
            one_positive.then_some(RunWarning::OnePositive { rows, masked: config.mask_false_negatives }),
        ];
        found.into_iter().flatten().collect()
    }

    fn identity(&self) -> RunIdentity {
        let StartModel { encoder, tokenizer } = &self.start;
        let start = hash_numbers(encoder.weights());
        let data = data_fingerprint(&self.set);
        let fingerprint =
            run_fingerprint(encoder.config(), encoder.settings(), tokenizer.fingerprint(), start, data);
        RunIdentity { config: self.config.clone(), fingerprint, updates: self.updates }
    }

    fn card(&self) -> ModelCard {
        let table: toml::Table = self.config.to_toml().parse().expect("the configuration's own TOML");
        ModelCard {
            title: format!("Dense retriever trained with {}", self.config.method.name()),
            base_model: Some(self.config.model.clone()),
            pair: None,
            training: table
                .into_iter()
                .filter(|(key, _)| Setting::of(key).is_some_and(|one| !one.facts.role.may_change_on_resume()))
                .map(|(key, value)| (key, value.to_string()))
                .collect(),
        }
    }

    /// Trains to the end, or until the observer asks to stop.
    ///
    /// # Errors
    /// See [`TrainError`]; what was written before stays whole.
    pub fn train(self, begin: Begin, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        self.config.check_output_dir()?;
        let summary = self.summary()?;
        let identity = self.identity();
        let card = self.card();
        let rows = row_tokenizer(&self.set, &self.start);
        let updates_per_epoch = self.plan.updates_per_epoch() as f64;
        check_memory(summary.memory.total_bytes() - summary.memory.program_bytes)?;
        let (output, resumed) = OutputFolder::open(&self.config.output_dir, begin)?;
        let passage = (!self.config.tied).then(|| self.start.duplicate());
        let Self {
            config,
            plan,
            start: StartModel { encoder, tokenizer },
            updates,
            longest,
            known_positives,
            ..
        } = self;
        let trainer = Trainer::for_texts(config.clone(), longest, encoder, passage, updates)?;
        let mut trainer = trainer.with_known_positives(known_positives);
        if let Some(checkpoint) = &resumed
            && let Some(before) = checkpoint::restore(checkpoint, &identity, &mut trainer)?
        {
            observer.told(&format!(
                "the run was trained with {before}, and goes on with {}: its last bits will be others",
                Rounding::here()
            ));
        }
        write_settings(&output.path, &config)?;
        if resumed.is_none() {
            record_fingerprint(&output.path, &identity.fingerprint)?;
        }
        let recorder = RunRecorder::open(&output.path, trainer.updates_done())?;
        summary.warnings.iter().for_each(|warning| observer.warned(warning));
        match recorder.lost() {
            0 => {}
            lost => observer.records_lost(lost),
        }
        let batches = Loader::start(rows, plan, trainer.updates_done()..updates);
        let session = Session {
            config: &config,
            identity: &identity,
            files: checkpoint::ModelFiles { tokenizer: &tokenizer, card: &card },
            watch: RunWatch::new(summary.point.bank_samples, config.mask_false_negatives),
            saves: Saves::new(&config),
            failed_records: 0,
            updates_per_epoch,
            planned_bytes: summary.memory.total_bytes(),
            output,
            trainer,
            recorder,
            observer,
        };
        session.run(batches)
    }
}

fn row_tokenizer(set: &Arc<TrainingSet>, start: &StartModel) -> RowTokenizer {
    let settings = start.encoder.settings().clone();
    RowTokenizer::new(Arc::clone(set), Arc::clone(&start.tokenizer), settings)
}

/// Asks for so much memory at once and gives it back: where it is not to be had, the run ends before it begins.
fn check_memory(bytes: usize) -> Result<(), TrainError> {
    let mut probe = Vec::<u8>::new();
    // A smaller block, once freed, makes glibc keep later ones of its size instead of giving them back.
    let had = probe.try_reserve_exact(bytes.max(64 << 20));
    std::hint::black_box(&probe);
    had.map_err(|_| TrainError::OutOfMemory { bytes })
}

/// Hard negatives that a row brings on average: as many as asked for, or none where it has none.
fn hard_per_row(set: &TrainingSet, config: &TrainConfig) -> f64 {
    let with = set.len() - set.summary().rows_without_negatives;
    config.hard_negatives as f64 * with as f64 / set.len() as f64
}

/// What is resident now beside the weights of `encoder`, and what the heap may still grow by.
fn program_bytes(encoder: &Encoder) -> usize {
    let measured = resident_memory().current_bytes.map(|bytes| {
        let weights = size_of_val(encoder.weights());
        (bytes as usize).saturating_sub(weights) + HEAP_BYTES
    });
    measured.unwrap_or(PROGRAM_BYTES)
}

/// What `report` says of an update; what the run knows beside it is left at its default.
pub(crate) fn update_record(update: usize, report: &UpdateReport, started: Instant) -> UpdateRecord {
    let seconds = started.elapsed().as_secs_f64();
    let memory = resident_memory();
    let norms = report.gradient_norms;
    UpdateRecord {
        update,
        loss: report.loss(),
        current_rows_loss: report.current_rows_loss,
        grad_norm: norms.global,
        grad_norm_query: norms.query,
        grad_norm_passage: norms.passage,
        grad_norm_ratio: (norms.query > 0.0).then(|| norms.passage / norms.query),
        learning_rate: report.learning_rate,
        negatives_per_query: report.negatives_per_query,
        bank_samples: report.bank_samples,
        bank_mass: report.bank_mass(),
        bank_mass_by_age: report.bank_mass_by_age,
        bank_drift: report.bank_movement.map(|movement| movement.drift),
        bank_path: report.bank_movement.map(|movement| movement.path),
        bank_evicted: report.bank_movement.map(|movement| movement.evicted),
        own_positives_in_bank: report.own_positives_in_bank,
        masked_rows: report.masked_rows,
        tokens: report.tokens as u64,
        tokens_per_second: report.tokens as f64 / seconds,
        seconds,
        resident_bytes: memory.current_bytes,
        peak_resident_bytes: memory.peak_bytes,
        ..UpdateRecord::default()
    }
}

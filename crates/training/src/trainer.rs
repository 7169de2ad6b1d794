//! One update of training: micro-steps over a total batch, then the optimizer.
//!
//! All methods run through the same code: a total batch is cut into micro-batches, each of which is one loss;
//! a micro-batch is cut into chunks, whose activations are in memory at once. With one chunk per micro-batch
//! that is gradient accumulation (or the full batch); with several it is gradient caching (Gao et al., arXiv
//! 2101.06983): all chunks are represented first, the loss is taken over all of them, and each chunk is
//! represented again for its backward pass, under the same dropout masks. A micro-batch of more than
//! `max_tokens` tokens is cut the same way, for the same gradient, whatever the method: how much memory is
//! used does not depend on the lengths drawn.

use std::time::Instant;

use contaccum_encoder::{
    DropoutStream, Encoder, Keep, Layout, PackedTokens, Pass, PassLimits, Similarity, Workspace,
};
use contaccum_kernels::{AdamW, resident_zeros};
use contaccum_objective::{
    BankMovement, Batch, Compensation, GradientsMut, KnownPositives, LossReport, Objective, ObjectiveConfig,
};
use rayon::prelude::*;

use crate::loader::Loader;
use crate::memory::{MemoryPlan, PROGRAM_BYTES, banks_bytes, products_bytes};
use crate::probe::ProbeRows;
use crate::sample::{Role, sequence_key};
use crate::tower::{GradientNorms, Towers};
use crate::warmup::WarmupGate;
use crate::{
    BankDrift, BankWarmup, Enqueue, LongestTexts, MethodPoint, TokenizedSample, TrainConfig, TrainError,
};

/// What one update did.
#[derive(Clone, Debug)]
pub struct UpdateReport {
    /// Loss of each micro-step, the mean over its rows.
    pub micro_losses: Vec<f64>,
    /// Rows of each micro-step; fewer in the last one of a total batch that is not full.
    pub micro_rows: Vec<usize>,
    /// Mean over the micro-steps, weighted by their rows as all means here, of the loss over current rows
    /// alone.
    pub current_rows_loss: f64,
    /// Gradient norms before clipping.
    pub gradient_norms: GradientNorms,
    /// Learning rate used.
    pub learning_rate: f64,
    /// Mean negatives of a current query at the last micro-step.
    pub negatives_per_query: f64,
    /// How far the micro-steps' losses over current rows are from ln N, the loss of guessing among N passages; relative
    /// to it, at most.
    pub distance_from_uniform: f64,
    /// Softmax mass of current queries on bank columns by age, in eighths of the capacity, oldest first; a mean
    /// over the micro-steps. `None` where no passage is banked or the banks are left out.
    pub bank_mass_by_age: Option<[f64; 8]>,
    /// Softmax mass of current queries on the other passages of their micro-batch; a mean over the
    /// micro-steps.
    pub in_batch_mass: f64,
    /// Bank columns that took part at the last micro-step.
    pub bank_columns: usize,
    /// Pairs of a current query and a bank column that holds its own positive or another passage known to be
    /// relevant, over the micro-steps.
    pub own_positives_in_bank: u64,
    /// Share of the rows that the false-negative mask left passages out of, besides their own positive.
    pub masked_rows: f64,
    /// Rows that no negative was left to.
    pub rows_without_negatives: usize,
    /// Samples in the banks afterwards.
    pub bank_samples: usize,
    /// How far the update moved the encoder, and the banks with it; `None` where banks are not moved.
    pub bank_movement: Option<BankMovement>,
    /// Rows of the total batch.
    pub rows: usize,
    /// Tokens encoded (once each, recomputation not counted).
    pub tokens: usize,
    /// Seconds spent on losses and banks, with the probe that moves them: all that is not the encoders' passes for the
    /// gradient and the optimizer's.
    pub objective_seconds: f64,
}

impl UpdateReport {
    /// Mean loss of the micro-steps, each weighted by its rows.
    pub fn loss(&self) -> f64 {
        mean_over_rows(self.micro_losses.iter().copied(), &self.micro_rows)
    }

    /// Softmax mass of current queries on bank columns.
    pub fn bank_mass(&self) -> f64 {
        self.bank_mass_by_age.map_or(0.0, |mass| mass.iter().sum())
    }
}

/// The mean of one value a micro-step, each weighted by the rows of its micro-batch.
fn mean_over_rows(values: impl Iterator<Item = f64>, rows: &[usize]) -> f64 {
    let sum: f64 = values.zip(rows).map(|(value, rows)| value * *rows as f64).sum();
    sum / rows.iter().sum::<usize>() as f64
}

/// Weights as large as this are no result of training: the squares of a row of them are beyond `f32`.
const LARGEST_WEIGHT: f32 = 1e15;

/// Most sequences that an evaluation encodes at once.
const MOST_EVALUATED: usize = 64;

/// Sizes of every buffer of a trainer.
struct Sizes {
    query_limits: PassLimits,
    passage_limits: PassLimits,
    keep: Keep,
    /// Samples whose representations are held at once.
    represented: usize,
    micro_batch: usize,
    objective: ObjectiveConfig,
}

impl Sizes {
    /// `unit_length`: whether vectors have length one.
    fn new(config: &TrainConfig, point: &MethodPoint, dim: usize, unit_length: bool) -> Self {
        let rows_tokens = point.chunk_size * config.row_tokens();
        let tokens = config.max_tokens.map_or(rows_tokens, |most| most.min(rows_tokens));
        let limits = |sequences: usize, longest: usize| PassLimits {
            tokens: tokens.min(sequences * longest),
            sequences,
            longest,
        };
        Self {
            query_limits: limits(point.chunk_size, config.query_max_length),
            passage_limits: limits(point.chunk_size * config.passages_per_row(), config.passage_max_length),
            keep: Keep::ForBackward { tokens, recompute: config.recompute },
            represented: match config.memory_bank_enqueue {
                Enqueue::MicroBatch => point.micro_batch_size,
                Enqueue::Update => config.total_batch_size(),
            },
            micro_batch: point.micro_batch_size,
            objective: ObjectiveConfig {
                dim,
                temperature: config.temperature,
                rows: point.rows,
                mask_false_negatives: config.mask_false_negatives,
                bank_samples: point.bank_samples,
                bank_queries: point.bank_queries,
                bank_passages: point.bank_passages,
                bank_hard_negatives: point.bank_hard_negatives,
                bank_drift: match point.bank_drift {
                    BankDrift::None => contaccum_objective::BankDrift::None,
                    BankDrift::Compensate => contaccum_objective::BankDrift::Compensate(Compensation {
                        probe_samples: ProbeRows::rows(config.total_batch_size()),
                        one_encoder: config.tied,
                        unit_length,
                    }),
                },
                row_scale: point.row_scale,
                max_batch_samples: point.micro_batch_size,
                max_hard_negatives_per_sample: config.hard_negatives,
                bank_dtype: config.memory_bank_dtype,
                tile_logits: ObjectiveConfig::TILE_LOGITS,
            },
        }
    }

    /// The largest pack of either kind: the workspace serves both.
    fn both(&self) -> PassLimits {
        self.query_limits.union(self.passage_limits)
    }

    /// Packs of an evaluation: as many tokens, of as many sequences as are short enough.
    fn evaluation_limits(&self) -> PassLimits {
        let both = self.both();
        PassLimits { sequences: MOST_EVALUATED.min(both.tokens), ..both }
    }
}

/// What the banks do in an update.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Banks {
    /// Nothing.
    Idle,
    /// They take in vectors, and are neither rows nor columns.
    Filling,
    /// They take in vectors, and are rows and columns.
    Used,
}

/// Passage ids and counts of a micro-batch, as the objective wants them.
struct Ids {
    queries: Vec<u32>,
    positives: Vec<u32>,
    hard_negatives: Vec<u32>,
    hard_negatives_per_sample: Vec<u32>,
}

impl Ids {
    fn new(micro_batch: &[TokenizedSample]) -> Self {
        Self {
            queries: micro_batch.iter().map(|s| s.query_id).collect(),
            positives: micro_batch.iter().map(|s| s.positive_id).collect(),
            hard_negatives: micro_batch.iter().flat_map(|s| s.hard_negative_ids.iter().copied()).collect(),
            hard_negatives_per_sample: micro_batch.iter().map(|s| s.hard_negatives.len() as u32).collect(),
        }
    }
}

/// Representations of samples, or their gradients.
struct Representations {
    queries: Vec<f32>,
    positives: Vec<f32>,
    hard_negatives: Vec<f32>,
}

impl Representations {
    fn new(samples: usize, hard_negatives_per_sample: usize, dim: usize) -> Self {
        Self {
            queries: resident_zeros(samples * dim),
            positives: resident_zeros(samples * dim),
            hard_negatives: resident_zeros(samples * hard_negatives_per_sample * dim),
        }
    }

    /// A micro-batch whose samples begin at `sample` and whose hard negatives begin at `hard_negative`.
    fn batch<'a>(&'a self, (sample, hard_negative): (usize, usize), ids: &'a Ids, dim: usize) -> Batch<'a> {
        let (n, m) = (ids.positives.len(), ids.hard_negatives.len());
        Batch {
            queries: &self.queries[sample * dim..(sample + n) * dim],
            positives: &self.positives[sample * dim..(sample + n) * dim],
            hard_negatives: &self.hard_negatives[hard_negative * dim..(hard_negative + m) * dim],
            query_ids: &ids.queries,
            positive_ids: &ids.positives,
            hard_negative_ids: &ids.hard_negatives,
            hard_negatives_per_sample: &ids.hard_negatives_per_sample,
        }
    }
}

/// A pass of each kind, the workspace both use, and the vectors of one chunk.
struct Chunk {
    query_pass: Pass,
    passage_pass: Pass,
    workspace: Workspace,
    vectors: Vec<f32>,
}

/// The passages of samples.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passages {
    /// Positives, then hard negatives.
    All,
    Positives,
}

impl Chunk {
    /// Represents samples, the first of which is row `row` of its total batch: queries into `queries`, passages into
    /// the chunk's own vectors. Their activations stay in the passes.
    fn represent(
        &mut self,
        towers: &mut Towers,
        samples: &[TokenizedSample],
        row: usize,
        passages: Passages,
        stream: DropoutStream,
        queries: &mut [f32],
    ) {
        let Self { query_pass, passage_pass, workspace, vectors } = self;
        query_pass.clear();
        passage_pass.clear();
        for (i, sample) in samples.iter().enumerate() {
            query_pass.push(&sample.query, sequence_key(row + i, Role::Query));
            passage_pass.push(&sample.positive, sequence_key(row + i, Role::Positive));
        }
        let with_negatives = if passages == Passages::All { samples } else { &[] };
        for (i, sample) in with_negatives.iter().enumerate() {
            for (j, hard) in sample.hard_negatives.iter().enumerate() {
                passage_pass.push(hard, sequence_key(row + i, Role::HardNegative(j)));
            }
        }
        passage_pass.follow(query_pass);
        towers.query.encoder.represent(query_pass, workspace, Some(stream), queries);
        towers.of_passages().encoder.represent(passage_pass, workspace, Some(stream), vectors);
    }
}

/// Samples `first..end` of a micro-batch, whose hard negatives are `hard.0..hard.1` of it.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    end: usize,
    hard: (usize, usize),
}

/// Trains one or two encoders, one update at a time.
pub struct Trainer {
    pub(crate) config: TrainConfig,
    pub(crate) point: MethodPoint,
    pub(crate) towers: Towers,
    pub(crate) objective: Objective,
    pub(crate) updates_done: usize,
    pub(crate) warmup: WarmupGate,
    total_updates: usize,
    warmup_updates: usize,
    chunk: Chunk,
    representations: Representations,
    gradients: Representations,
    /// Where banks are moved.
    probe: Option<ProbeRows>,
    /// Texts that are measured on, one pack at a time, in the workspace of the updates.
    evaluation: Option<Pass>,
    objective_seconds: f64,
}

impl Trainer {
    /// A trainer of `query` and, when untied, `passage`, for a run of `total_updates` updates. All its memory
    /// is allocated here.
    ///
    /// # Errors
    /// A configuration that contradicts itself.
    pub fn new(
        config: TrainConfig,
        query: Encoder,
        passage: Option<Encoder>,
        total_updates: usize,
    ) -> Result<Self, TrainError> {
        let longest = LongestTexts::allowed(&config);
        Self::for_texts(config, longest, query, passage, total_updates)
    }

    /// As [`Trainer::new`], for texts no longer than `longest`: the buffers are made for those, and the numbers are the
    /// same.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn for_texts(
        config: TrainConfig,
        longest: LongestTexts,
        query: Encoder,
        passage: Option<Encoder>,
        total_updates: usize,
    ) -> Result<Self, TrainError> {
        let point = config.resolve()?;
        let shape = query.config().clone();
        let dim = query.dim();
        let sizes = Sizes::new(&config.within(longest), &point, dim, query.settings().normalize);
        let both = sizes.both();
        let longest_vectors = both.sequences * dim;
        Ok(Self {
            point,
            towers: Towers::new(query, passage, config.freeze_embeddings),
            objective: Objective::new(sizes.objective.clone())?,
            updates_done: 0,
            warmup: WarmupGate::new(total_updates),
            total_updates,
            warmup_updates: config.warmup_updates(total_updates),
            chunk: Chunk {
                query_pass: Pass::new(&shape, sizes.query_limits),
                passage_pass: Pass::new(&shape, sizes.passage_limits),
                workspace: Workspace::new(&shape, both, sizes.keep),
                vectors: resident_zeros(longest_vectors),
            },
            evaluation: config.eval_data.is_some().then(|| Pass::new(&shape, sizes.evaluation_limits())),
            representations: Representations::new(sizes.represented, config.hard_negatives, dim),
            gradients: Representations::new(sizes.micro_batch, config.hard_negatives, dim),
            probe: point.moves_banks().then(|| ProbeRows::new(config.total_batch_size(), dim)),
            objective_seconds: 0.0,
            config,
        })
    }

    /// The same trainer with what is known to be relevant besides each row's own positive, by
    /// [`TokenizedSample::query_id`]: the false-negative mask leaves it out. For a trainer that has done no update.
    #[must_use]
    pub fn with_known_positives(self, known_positives: KnownPositives) -> Self {
        Self { objective: self.objective.with_known_positives(known_positives), ..self }
    }

    /// Bytes a run holds in a pool of `threads`, for encoders of this shape: what [`Trainer::new`] allocates, and what
    /// is beside it ([`MemoryPlan`]).
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn memory_plan(
        config: &TrainConfig,
        shape: &contaccum_encoder::ModelConfig,
        threads: usize,
    ) -> Result<MemoryPlan, TrainError> {
        let point = config.resolve()?;
        let dim = shape.dim();
        let sizes = Sizes::new(config, &point, dim, config.similarity == Similarity::Cosine);
        let vectors_per_sample = 1 + config.passages_per_row();
        let probed = if point.moves_banks() { ProbeRows::vectors(config.total_batch_size()) } else { 0 };
        let vectors =
            sizes.both().sequences + vectors_per_sample * (sizes.represented + sizes.micro_batch) + probed;
        let encoders = if config.tied { 1 } else { 2 };
        let (weights, trained) =
            Towers::memory_bytes(&Layout::new(shape), config.freeze_embeddings, encoders);
        Ok(MemoryPlan {
            weights_bytes: weights,
            gradients_bytes: trained,
            optimizer_bytes: 2 * trained,
            activations_bytes: Workspace::activations_bytes(shape, sizes.both(), sizes.keep),
            workspace_bytes: Pass::memory_bytes(shape, sizes.query_limits)
                + Pass::memory_bytes(shape, sizes.passage_limits)
                + Workspace::scratch_bytes(shape, sizes.both(), sizes.keep, threads)
                + products_bytes(shape, threads),
            representations_bytes: vectors * dim * size_of::<f32>(),
            banks_bytes: banks_bytes(&sizes.objective),
            batches_bytes: Loader::memory_bytes(config),
            evaluation_bytes: match config.eval_data {
                Some(_) => Pass::memory_bytes(shape, sizes.evaluation_limits()),
                None => 0,
            },
            program_bytes: PROGRAM_BYTES,
        })
    }

    /// Number of updates done so far.
    pub fn updates_done(&self) -> usize {
        self.updates_done
    }

    /// The loss with its banks, to look at what they hold or to put other contents in.
    pub fn objective_mut(&mut self) -> &mut Objective {
        &mut self.objective
    }

    /// The encoder of queries.
    pub fn query_encoder(&self) -> &Encoder {
        &self.towers.query.encoder
    }

    /// The encoder of passages: the same one when tied.
    pub fn passage_encoder(&self) -> &Encoder {
        self.towers.passage.as_ref().map_or(&self.towers.query.encoder, |t| &t.encoder)
    }

    /// The largest pack that [`Trainer::embed_queries`] and [`Trainer::embed_passages`] take; `None` in a run that is
    /// not evaluated.
    pub fn evaluation_limits(&self) -> Option<PassLimits> {
        self.evaluation.as_ref().map(Pass::limits)
    }

    /// The vectors of queries without dropout, `[sequences, dim]` into `out`, in the buffers of the updates.
    ///
    /// # Panics
    /// When `tokens` exceed [`Trainer::evaluation_limits`], or the run is not evaluated.
    pub fn embed_queries(&mut self, tokens: &PackedTokens, out: &mut [f32]) {
        let pass = self.evaluation.as_mut().expect("a run with eval_data");
        self.towers.query.encoder.embed(pass, &mut self.chunk.workspace, tokens, out);
    }

    /// As [`Trainer::embed_queries`], of passages.
    ///
    /// # Panics
    /// As there.
    pub fn embed_passages(&mut self, tokens: &PackedTokens, out: &mut [f32]) {
        let pass = self.evaluation.as_mut().expect("a run with eval_data");
        self.towers.of_passages().encoder.embed(pass, &mut self.chunk.workspace, tokens, out);
    }

    /// Whether every weight is a number that can be computed with: what is to be saved is worth it.
    ///
    /// # Errors
    /// When one is NaN, infinite, or so large that what it is multiplied with will be.
    pub fn check_weights(&self) -> Result<(), TrainError> {
        let encoders = [self.query_encoder(), self.passage_encoder()];
        let finite =
            |encoder: &Encoder| encoder.weights().par_iter().all(|weight| weight.abs() < LARGEST_WEIGHT);
        match encoders.into_iter().all(finite) {
            true => Ok(()),
            false => Err(TrainError::WeightsNotFinite { update: self.updates_done }),
        }
    }

    /// One update on a total batch, or on fewer rows: the loss is the mean over those there are.
    ///
    /// # Errors
    /// A loss or gradient that is not a number; the weights are then those before the update.
    pub fn update(&mut self, batch: &[TokenizedSample]) -> Result<UpdateReport, TrainError> {
        let banks = self.banks();
        self.objective_seconds = 0.0;
        if let Some(probe) = &mut self.probe {
            probe.begin(batch.len());
        }
        let mut micro_losses = Vec::with_capacity(self.point.micro_steps);
        let mut reports = Vec::with_capacity(self.point.micro_steps);
        let micro_rows: Vec<usize> = batch.chunks(self.point.micro_batch_size).map(<[_]>::len).collect();
        for (step, micro_batch) in batch.chunks(self.point.micro_batch_size).enumerate() {
            let share = micro_batch.len() as f32 / batch.len() as f32;
            let report = self.micro_step(step * self.point.micro_batch_size, micro_batch, share, banks);
            if !report.loss.is_finite() {
                return Err(TrainError::LossNotFinite {
                    update: self.updates_done + 1,
                    micro_step: step + 1,
                });
            }
            micro_losses.push(report.loss);
            reports.push(report);
        }
        let last = *reports.last().expect("a total batch has at least one micro-batch");
        let gradient_norms = self.towers.gradient_norms();
        if !gradient_norms.global.is_finite() {
            return Err(TrainError::GradientNotFinite { update: self.updates_done + 1 });
        }
        let learning_rate = self.optimize(gradient_norms.global);
        if banks != Banks::Idle && self.config.memory_bank_enqueue == Enqueue::Update {
            let started = Instant::now();
            self.enqueue_all(batch);
            self.objective_seconds += started.elapsed().as_secs_f64();
        }
        let bank_movement = if banks == Banks::Idle { None } else { self.move_banks(batch) };
        if !self.point.keep_past {
            self.objective.clear();
        }
        let mean = |of: &dyn Fn(&LossReport) -> f64| mean_over_rows(reports.iter().map(of), &micro_rows);
        let columns = self.point.bank_passages || self.point.bank_hard_negatives;
        let current_rows_loss = mean(&|report| report.current_rows_loss);
        if banks == Banks::Filling {
            let negatives = mean(&|report| report.negatives_per_query);
            self.warmup.see(current_rows_loss, negatives, self.updates_done, self.total_updates);
        }
        Ok(UpdateReport {
            micro_losses,
            micro_rows: micro_rows.clone(),
            current_rows_loss,
            gradient_norms,
            learning_rate,
            negatives_per_query: last.negatives_per_query,
            distance_from_uniform: reports.iter().map(distance_from_uniform).fold(0.0, f64::max),
            bank_mass_by_age: (columns && banks == Banks::Used)
                .then(|| std::array::from_fn(|age| mean(&|report| report.bank_mass_by_age[age]))),
            in_batch_mass: mean(&|report| report.in_batch_mass),
            bank_columns: last.bank_columns,
            masked_rows: mean(&|report| report.masked_rows),
            rows_without_negatives: reports.iter().map(|report| report.rows_without_negatives).sum(),
            own_positives_in_bank: reports.iter().map(|report| report.own_positives_in_bank).sum(),
            bank_samples: self.objective.bank_len(),
            bank_movement,
            rows: batch.len(),
            tokens: batch.iter().map(TokenizedSample::tokens).sum(),
            objective_seconds: self.objective_seconds,
        })
    }

    /// What the banks do in the next update. In a warm-up of known length they are idle, then filled just before its
    /// end; in one that may end after any update they are filled all along.
    fn banks(&self) -> Banks {
        if self.point.bank_samples == 0 {
            return Banks::Idle;
        }
        let left = match self.config.memory_bank_warmup {
            BankWarmup::Auto if self.warmup.is_open() => return Banks::Used,
            BankWarmup::Auto => return Banks::Filling,
            BankWarmup::Updates(updates) => updates.saturating_sub(self.updates_done),
        };
        let to_fill = match self.point.keep_past {
            true => self.point.bank_samples.div_ceil(self.config.total_batch_size()),
            false => 0,
        };
        match left {
            0 => Banks::Used,
            left if left <= to_fill => Banks::Filling,
            _ => Banks::Idle,
        }
    }

    /// Where the representations of the micro-batch that begins at `first_row` lie: its first sample and its
    /// first hard negative.
    fn place(&self, first_row: usize) -> (usize, usize) {
        match self.config.memory_bank_enqueue {
            Enqueue::MicroBatch => (0, 0),
            Enqueue::Update => (first_row, first_row * self.config.hard_negatives),
        }
    }

    /// Takes the representations of a whole total batch into the banks.
    fn enqueue_all(&mut self, batch: &[TokenizedSample]) {
        let dim = self.towers.query.encoder.dim();
        for (step, micro_batch) in batch.chunks(self.point.micro_batch_size).enumerate() {
            let place = self.place(step * self.point.micro_batch_size);
            self.objective.enqueue(self.representations.batch(place, &Ids::new(micro_batch), dim));
        }
    }

    /// Encodes the probed rows of the total batch again, under the dropout masks of their update, and moves the banks.
    fn move_banks(&mut self, batch: &[TokenizedSample]) -> Option<BankMovement> {
        let probe = self.probe.as_mut()?;
        let started = Instant::now();
        let stream = DropoutStream { seed: self.config.seed, update: self.updates_done as u64 - 1 };
        let (first, dim) = (probe.first_row(), self.towers.query.encoder.dim());
        let rows = &batch[first..];
        for span in spans(rows, self.point.chunk_size, self.config.max_tokens.unwrap_or(usize::MAX)) {
            let samples = &rows[span.first..span.end];
            let at = span.first * dim..span.end * dim;
            let queries = &mut probe.queries.after[at.clone()];
            let row = first + span.first;
            self.chunk.represent(&mut self.towers, samples, row, Passages::Positives, stream, queries);
            probe.positives.after[at.clone()].copy_from_slice(&self.chunk.vectors[..at.len()]);
        }
        let movement = self.objective.move_banks(probe.seen());
        self.objective_seconds += started.elapsed().as_secs_f64();
        movement
    }

    /// Clips, updates both encoders and returns the learning rate used.
    fn optimize(&mut self, global_norm: f64) -> f64 {
        let c = &self.config;
        let learning_rate = c.learning_rate_at(self.updates_done, self.total_updates, self.warmup_updates);
        // The 1e-6 is that of torch.nn.utils.clip_grad_norm_.
        let clip =
            if c.max_grad_norm > 0.0 { (c.max_grad_norm / (global_norm + 1e-6)).min(1.0) } else { 1.0 };
        self.updates_done += 1;
        self.towers.update(AdamW {
            learning_rate,
            beta1: c.adam_beta1,
            beta2: c.adam_beta2,
            epsilon: c.adam_epsilon,
            weight_decay: c.weight_decay,
            step: self.updates_done as u64,
            gradient_scale: clip,
        });
        learning_rate
    }

    /// Loss of one micro-batch, whose first row is row `first_row` of the total batch and which is `share` of
    /// it; its gradients are added up, and it enters the banks unless the whole update does.
    fn micro_step(
        &mut self,
        first_row: usize,
        micro_batch: &[TokenizedSample],
        share: f32,
        banks: Banks,
    ) -> LossReport {
        let spans = spans(micro_batch, self.point.chunk_size, self.config.max_tokens.unwrap_or(usize::MAX));
        let stream = DropoutStream { seed: self.config.seed, update: self.updates_done as u64 };
        for span in &spans {
            self.represent(first_row, micro_batch, *span, stream);
        }
        let dim = self.towers.query.encoder.dim();
        let ids = Ids::new(micro_batch);
        let batch = self.representations.batch(self.place(first_row), &ids, dim);
        if let Some(probe) = &mut self.probe {
            probe.remember(first_row, batch.queries, batch.positives);
        }
        let gradients = GradientsMut {
            queries: &mut self.gradients.queries[..batch.queries.len()],
            positives: &mut self.gradients.positives[..batch.positives.len()],
            hard_negatives: &mut self.gradients.hard_negatives[..batch.hard_negatives.len()],
        };
        let started = Instant::now();
        let enters = banks != Banks::Idle && self.config.memory_bank_enqueue == Enqueue::MicroBatch;
        let report = match banks {
            Banks::Used if enters => self.objective.step_and_enqueue(batch, share, gradients),
            Banks::Used => self.objective.step(batch, share, gradients),
            Banks::Idle | Banks::Filling => self.objective.step_without_banks(batch, share, gradients),
        };
        if enters && banks == Banks::Filling && report.loss.is_finite() {
            self.objective.enqueue(batch);
        }
        self.objective_seconds += started.elapsed().as_secs_f64();
        if report.loss.is_finite() {
            for span in &spans {
                if spans.len() > 1 {
                    self.represent(first_row, micro_batch, *span, stream);
                }
                self.backpropagate(*span, stream);
            }
        }
        report
    }

    /// Represents the samples of one chunk, leaving its activations in the passes.
    fn represent(
        &mut self,
        first_row: usize,
        micro_batch: &[TokenizedSample],
        span: Span,
        stream: DropoutStream,
    ) {
        let samples = &micro_batch[span.first..span.end];
        let (first_sample, first_hard) = self.place(first_row);
        let dim = self.towers.query.encoder.dim();
        let at = (first_sample + span.first) * dim..(first_sample + span.end) * dim;
        let queries = &mut self.representations.queries[at.clone()];
        let row = first_row + span.first;
        self.chunk.represent(&mut self.towers, samples, row, Passages::All, stream, queries);
        let (positives, hard) = self.chunk.vectors.split_at(samples.len() * dim);
        self.representations.positives[at].copy_from_slice(positives);
        let hard_at = (first_hard + span.hard.0) * dim..(first_hard + span.hard.1) * dim;
        let hard = &hard[..hard_at.len()];
        self.representations.hard_negatives[hard_at].copy_from_slice(hard);
    }

    /// Adds the gradients of the chunk whose activations are in the passes.
    fn backpropagate(&mut self, span: Span, stream: DropoutStream) {
        let Chunk { query_pass, passage_pass, workspace, vectors } = &mut self.chunk;
        let dim = self.towers.query.encoder.dim();
        let at = span.first * dim..span.end * dim;
        let tower = &mut self.towers.query;
        let queries = &mut self.gradients.queries[at.clone()];
        tower.encoder.backpropagate(query_pass, workspace, Some(stream), queries, &mut tower.gradient);
        let (positives, hard) = vectors.split_at_mut(at.len());
        let hard_at = span.hard.0 * dim..span.hard.1 * dim;
        positives.copy_from_slice(&self.gradients.positives[at]);
        hard[..hard_at.len()].copy_from_slice(&self.gradients.hard_negatives[hard_at]);
        let tower = self.towers.of_passages();
        tower.encoder.backpropagate(passage_pass, workspace, Some(stream), vectors, &mut tower.gradient);
    }
}

/// How far the loss of a micro-step is from that of equal scores, relatively.
fn distance_from_uniform(report: &LossReport) -> f64 {
    let uniform = (1.0 + report.negatives_per_query).ln();
    (report.current_rows_loss - uniform).abs() / uniform.max(f64::MIN_POSITIVE)
}

/// Cuts a micro-batch into chunks of at most `chunk_size` samples and `max_tokens` tokens.
fn spans(micro_batch: &[TokenizedSample], chunk_size: usize, max_tokens: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let (mut tokens, mut hard) = (0, 0);
    for (index, sample) in micro_batch.iter().enumerate() {
        let first_hard = hard;
        hard += sample.hard_negatives.len();
        tokens += sample.tokens();
        match spans.last_mut() {
            Some(span) if span.end - span.first < chunk_size && tokens <= max_tokens => {
                (span.end, span.hard.1) = (index + 1, hard);
            }
            _ => {
                tokens = sample.tokens();
                spans.push(Span { first: index, end: index + 1, hard: (first_hard, hard) });
            }
        }
    }
    spans
}

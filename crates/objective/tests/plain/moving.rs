//! Banks that move with the encoder, in plain `f64`: displacements, paths, and which logits are those of which moment.

use std::collections::{HashMap, VecDeque};

use contaccum_objective::{BankDrift, BankMovement, Compensation, Objective, ObjectiveConfig, Probe};

use super::{Plain, Sample};

/// Vectors of the samples probed, before and after an update.
pub struct Probed {
    pub queries: [Vec<f32>; 2],
    pub positives: [Vec<f32>; 2],
}

impl Probed {
    pub fn view(&self) -> Probe<'_> {
        Probe {
            queries_before: &self.queries[0],
            queries_after: &self.queries[1],
            positives_before: &self.positives[0],
            positives_after: &self.positives[1],
        }
    }
}

/// What is remembered of banked samples, oldest first.
pub struct Moving {
    how: Compensation,
    dim: usize,
    temperature: f64,
    /// Both stored: own scores can be made again.
    queries_and_positives: bool,
    /// Samples of a block and of an entry: logits are taken again where one that is partly gone is cut.
    grid: [usize; 2],
    cut: [usize; 2],
    /// The number of the oldest sample since the sums were last made from nothing.
    oldest: usize,
    /// A name for life, how far it has been moved, and whether it has.
    samples: VecDeque<Remembered>,
    /// Logits of a sample's query against another's columns, its positive first.
    taken: HashMap<[usize; 2], Vec<f64>>,
    names: usize,
}

struct Remembered {
    name: usize,
    path: f64,
    moved: bool,
    own_score: f64,
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

impl Moving {
    pub fn new(config: &ObjectiveConfig) -> Option<Self> {
        let BankDrift::Compensate(how) = config.bank_drift else { return None };
        let settings = Objective::new(config.clone()).unwrap().state().settings;
        let [.., block, entry, _] = settings[..] else { panic!("no grid in {settings:?}") };
        Some(Self {
            how,
            dim: config.dim,
            temperature: f64::from(config.temperature),
            queries_and_positives: config.banks_rows() && config.bank_passages,
            grid: [block.max(1) as usize, entry.max(1) as usize],
            cut: [0; 2],
            oldest: 0,
            samples: VecDeque::new(),
            taken: HashMap::new(),
            names: 0,
        })
    }

    /// The logit of two banked samples, oldest 0, as it was taken.
    pub fn logit(&self, row: usize, column: usize, place: usize) -> f64 {
        if row == column && place == 0 {
            return self.samples[row].own_score;
        }
        self.taken[&[self.samples[row].name, self.samples[column].name]][place]
    }

    fn take(
        &mut self,
        bank: &VecDeque<Sample>,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
    ) {
        for row in rows {
            for column in columns.clone() {
                let (query, sample) = (&bank[row].query, &bank[column]);
                let hard = sample.hard_negatives.iter().map(|(_, values)| values);
                let logits = std::iter::once(&sample.positive).chain(hard);
                let logits = logits.map(|values| dot(query, values) / self.temperature).collect();
                self.taken.insert([self.samples[row].name, self.samples[column].name], logits);
            }
        }
    }

    pub fn entered(&mut self, bank: &VecDeque<Sample>, left: usize, entered: usize) {
        self.samples.drain(..left);
        self.oldest += left;
        let old = self.samples.len();
        for sample in bank.range(old..) {
            let own_score = dot(&sample.query, &sample.positive) / self.temperature;
            self.samples.push_back(Remembered { name: self.names, path: 0.0, moved: false, own_score });
            self.names += 1;
        }
        assert_eq!(self.samples.len(), old + entered);
        self.take(bank, 0..old, old..bank.len());
        self.take(bank, old..bank.len(), 0..bank.len());
        if left > 0 {
            self.cut(bank, old);
        }
    }

    /// Takes again the logits of the `rows` oldest samples against the columns of a piece that is cut.
    fn cut(&mut self, bank: &VecDeque<Sample>, rows: usize) {
        let [block, entry] = self.grid.map(|length| self.oldest.next_multiple_of(length));
        if self.oldest < block && self.cut[0] != block {
            self.cut[0] = block;
            self.take(bank, 0..rows, entry - self.oldest..block - self.oldest);
        }
        if self.oldest < entry && self.cut[1] != entry {
            self.cut[1] = entry;
            self.take(bank, 0..rows, 0..entry - self.oldest);
        }
    }

    fn lengthen_paths(&mut self, step: f64) -> usize {
        self.samples.iter_mut().for_each(|sample| sample.path += step);
        let too_far = |sample: &&Remembered| sample.path > if sample.moved { 0.35 } else { 0.7 };
        let leaving = self.samples.iter().take_while(too_far).count();
        self.samples.iter_mut().for_each(|sample| sample.moved = true);
        leaving
    }

    fn leave(&mut self, bank: &VecDeque<Sample>, leaving: usize) {
        self.samples.drain(..leaving);
        self.oldest += leaving;
        let first_cut = self.oldest.next_multiple_of(self.grid[0]);
        let nothing_kept = first_cut > self.oldest + bank.len();
        if !self.how.one_encoder {
            for (remembered, sample) in self.samples.iter_mut().zip(bank) {
                if self.queries_and_positives {
                    remembered.own_score = dot(&sample.query, &sample.positive) / self.temperature;
                }
            }
        }
        if !self.how.one_encoder || leaving > 0 && nothing_kept {
            (self.oldest, self.cut) = (0, [0; 2]);
            self.take(bank, 0..bank.len(), 0..bank.len());
        } else if leaving > 0 {
            self.cut(bank, bank.len());
        }
    }
}

impl Plain {
    /// Moves the banks; `None` where they stay.
    pub fn move_banks(&mut self, probed: &Probed) -> Option<BankMovement> {
        let moving = self.moving.as_mut()?;
        let (dim, how) = (moving.dim, moving.how);
        let pairs = |[before, after]: &[Vec<f32>; 2]| -> Vec<(Vec<f32>, Vec<f64>)> {
            let vectors = before.chunks(dim).zip(after.chunks(dim));
            let displacement = |(old, new): (&[f32], &[f32])| {
                (old.to_vec(), new.iter().zip(old).map(|(&x, &y)| f64::from(x) - f64::from(y)).collect())
            };
            vectors.map(displacement).collect()
        };
        let (queries, positives) = (pairs(&probed.queries), pairs(&probed.positives));
        let all: Vec<_> = queries.iter().chain(&positives).cloned().collect();
        let moved: f64 = all.iter().flat_map(|(_, displacement)| displacement).map(|x| x * x).sum();
        let length: f64 = all.iter().map(|(vector, _)| dot(vector, vector)).sum();
        let drift = if moved == 0.0 { 0.0 } else { moved / (2.0 * length) };
        let (of_queries, of_passages) =
            if how.one_encoder { (all.clone(), all) } else { (queries, positives) };
        for sample in &mut self.bank {
            carry(&mut sample.query, &of_queries, how.unit_length);
            carry(&mut sample.positive, &of_passages, how.unit_length);
            for (_, values) in &mut sample.hard_negatives {
                carry(values, &of_passages, how.unit_length);
            }
        }
        let evicted = moving.lengthen_paths((2.0 * drift).sqrt());
        self.bank.drain(..evicted);
        moving.leave(&self.bank, evicted);
        let path = moving.samples.front().map_or(0.0, |oldest| oldest.path);
        Some(BankMovement { drift, path, evicted })
    }
}

fn carry(vector: &mut [f32], displacements: &[(Vec<f32>, Vec<f64>)], unit_length: bool) {
    let norm = |v: &[f32]| dot(v, v).sqrt();
    let cosine = |x: &[f32]| if norm(x) == 0.0 { 0.0 } else { dot(vector, x) / (norm(vector) * norm(x)) };
    let weights: Vec<f64> = displacements.iter().map(|(x, _)| (cosine(x) / 0.1).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut moved: Vec<f64> = vector.iter().map(|&x| f64::from(x)).collect();
    for (weight, (_, displacement)) in weights.iter().zip(displacements) {
        moved.iter_mut().zip(displacement).for_each(|(x, d)| *x += weight / sum * d);
    }
    let length = if unit_length { moved.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 1.0 };
    vector.iter_mut().zip(moved).for_each(|(x, moved)| *x = (moved / length) as f32);
}

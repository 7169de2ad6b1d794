//! A transformer encoder in plain float64, one sequence at a time, straight from its [`Architecture`].

use contaccum_encoder::{Architecture, Layout, NormPlace, TokenSequence};
use contaccum_kernels::{Activation, Dropout, Site};

use super::STREAM;

type Rows = Vec<Vec<f64>>;

/// The model, its weights read in the order of the layout.
pub struct Plain<'a> {
    pub architecture: &'a Architecture,
    pub layout: &'a Layout,
    pub weights: &'a [f64],
    /// Whether anything is dropped.
    pub dropout: bool,
}

/// Tensors of the layout, one after the other.
struct Tensors<'a> {
    model: &'a Plain<'a>,
    next: usize,
}

struct Norm<'a> {
    weight: &'a [f64],
    bias: Option<&'a [f64]>,
}

struct Linear<'a> {
    weight: &'a [f64],
    bias: Option<&'a [f64]>,
}

impl<'a> Tensors<'a> {
    fn take(&mut self, name_ends: &str) -> &'a [f64] {
        let tensor = &self.model.layout.tensors()[self.next];
        assert!(tensor.name.ends_with(name_ends), "{} where {name_ends} was expected", tensor.name);
        self.next += 1;
        &self.model.weights[tensor.range.clone()]
    }

    fn norm(&mut self) -> Norm<'a> {
        let weight = self.take("orm.weight");
        Norm { weight, bias: self.model.architecture.norm.bias.then(|| self.take("orm.bias")) }
    }

    /// Of modules whose parameters lie side by side.
    fn linear(&mut self, modules: usize, bias: bool) -> Linear<'a> {
        let mut side_by_side = |end: &str| {
            let first = self.model.layout.tensors()[self.next].range.start;
            let last = (0..modules).map(|_| self.take(end).len()).sum::<usize>();
            &self.model.weights[first..first + last]
        };
        Linear { weight: side_by_side(".weight"), bias: bias.then(|| side_by_side(".bias")) }
    }
}

fn linear(x: &Rows, Linear { weight, bias }: &Linear) -> Rows {
    let (inputs, outputs) = (x[0].len(), weight.len() / x[0].len());
    let output = |row: &[f64], o: usize| {
        bias.map_or(0.0, |b| b[o]) + (0..inputs).map(|i| row[i] * weight[o * inputs + i]).sum::<f64>()
    };
    x.iter().map(|row| (0..outputs).map(|o| output(row, o)).collect()).collect()
}

fn sum(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x + y).collect()).collect()
}

fn activation(kind: Activation, x: f64) -> f64 {
    let cubic = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    match kind {
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => 0.5 * x * (1.0 + cubic.tanh()),
        Activation::Relu => x.max(0.0),
    }
}

/// transformers' `relative_position_bucket` of 32 buckets, distances being below where its logarithm is at an edge.
fn bucket(distance: isize) -> usize {
    let away = distance.unsigned_abs();
    let large = 8 + ((away as f64 / 8.0).ln() / 16f64.ln() * 8.0) as usize;
    (if distance > 0 { 16 } else { 0 }) + if away < 8 { away } else { large.min(15) }
}

impl Plain<'_> {
    fn drop(&self, x: &mut Rows, rate: f64, site: Site, key: u32) {
        let Some(dropout) = self.at(rate) else { return };
        for (r, row) in x.iter_mut().enumerate() {
            for (c, v) in row.iter_mut().enumerate() {
                *v *= f64::from(dropout.multiplier(site, key, r as u32, c));
            }
        }
    }

    fn at(&self, rate: f64) -> Option<Dropout> {
        self.dropout.then(|| Dropout::new(rate, STREAM.seed, STREAM.update)).flatten()
    }

    fn norm(&self, x: &Rows, Norm { weight, bias }: &Norm) -> Rows {
        let one = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let deviation = (variance + self.architecture.norm.epsilon).sqrt();
            let shift = |i: usize| bias.map_or(0.0, |bias| bias[i]);
            (0..row.len()).map(|i| (row[i] - mean) / deviation * weight[i] + shift(i)).collect()
        };
        x.iter().map(one).collect()
    }

    fn attention(&self, x: &Rows, qkv: &Linear, layer: usize, relative: Option<&[f64]>, key: u32) -> Rows {
        let a = self.architecture;
        let (width, dh, shape) = (a.width, a.width / a.heads, a.layers[layer]);
        let mut qkv = linear(x, qkv);
        if let Some(base) = shape.rotary.map(|index| a.rotary_bases[index]) {
            for (position, row) in qkv.iter_mut().enumerate() {
                for head in row[..2 * width].chunks_exact_mut(dh) {
                    let before = head.to_vec();
                    for i in 0..dh / 2 {
                        let (sin, cos) = (position as f64 * base.powf(-2.0 * i as f64 / dh as f64)).sin_cos();
                        head[i] = before[i] * cos - before[dh / 2 + i] * sin;
                        head[dh / 2 + i] = before[dh / 2 + i] * cos + before[i] * sin;
                    }
                }
            }
        }
        let mut out = vec![vec![0.0; width]; x.len()];
        for head in 0..a.heads {
            let columns = head * dh..(head + 1) * dh;
            for i in 0..x.len() {
                let score = |j: usize| -> f64 {
                    let product: f64 = columns.clone().map(|c| qkv[i][c] * qkv[j][width + c]).sum();
                    let bias = relative.map_or(0.0, |t| t[bucket(j as isize - i as isize) * a.heads + head]);
                    let within = shape.window.is_none_or(|window| i.abs_diff(j) <= window);
                    if within { (product / (dh as f64).sqrt() + bias).exp() } else { 0.0 }
                };
                let scores: Vec<f64> = (0..x.len()).map(score).collect();
                let total: f64 = scores.iter().sum();
                for c in columns.clone() {
                    out[i][c] = (0..x.len())
                        .map(|j| {
                            let dropped = self.at(a.dropout.attention).map_or(1.0, |dropout| {
                                f64::from(dropout.attention_multiplier(layer, head, key, i as u32, j))
                            });
                            scores[j] / total * dropped * qkv[j][2 * width + c]
                        })
                        .sum();
                }
            }
        }
        out
    }

    fn feed_forward(&self, x: &Rows, input: &Linear, layer: usize, key: u32) -> Rows {
        let shape = self.architecture.feed_forward;
        let mut wide = linear(x, input);
        for row in &mut wide {
            let gates = row.split_off(shape.width);
            row.iter_mut().for_each(|v| *v = activation(shape.activation, *v));
            row.iter_mut().zip(gates).for_each(|(v, gate)| *v *= gate);
        }
        self.drop(
            &mut wide,
            self.architecture.dropout.feed_forward_inner,
            Site::feed_forward_inner(layer),
            key,
        );
        wide
    }

    /// Hidden states of the last layer.
    pub fn hidden(&self, sequence: &TokenSequence, key: u32) -> Rows {
        let a = self.architecture;
        let mut tensors = Tensors { model: self, next: 0 };
        let words = tensors.take("embeddings.weight");
        let positions = a.positions.map(|table| (table, tensors.take("position_embeddings.weight")));
        let types = (a.token_types > 0).then(|| tensors.take("token_type_embeddings.weight"));
        let mut x: Rows = (0..sequence.ids.len())
            .map(|t| {
                let at = |table: &[f64], row: usize, c: usize| table[row * a.width + c];
                let kind = (t >= sequence.second_segment) as usize;
                let one = |c: usize| {
                    at(words, sequence.ids[t] as usize, c)
                        + positions.map_or(0.0, |(table, rows)| at(rows, table.first() as usize + t, c))
                        + types.map_or(0.0, |types| at(types, kind, c))
                };
                (0..a.width).map(one).collect()
            })
            .collect();
        x = self.norm(&x, &tensors.norm());
        self.drop(&mut x, a.dropout.embeddings, Site::EMBEDDINGS, key);
        let relative = a.relative_bias.map(|_| tensors.take("relative_attention_bias.weight"));
        let before = a.norm.place == NormPlace::Before;
        for (layer, shape) in a.layers.iter().enumerate() {
            let modules = if before { 1 } else { 3 };
            let (qkv, output) =
                (tensors.linear(modules, a.attention_bias), tensors.linear(1, a.attention_bias));
            let norm = shape.attention_norm.then(|| tensors.norm());
            let input = norm.as_ref().filter(|_| before).map_or(x.clone(), |norm| self.norm(&x, norm));
            let mut branch = linear(&self.attention(&input, &qkv, layer, relative, key), &output);
            self.drop(&mut branch, a.dropout.attention_output, Site::attention_output(layer), key);
            x = sum(&branch, &x);
            x = norm.as_ref().filter(|_| !before).map_or(x.clone(), |norm| self.norm(&x, norm));

            let bias = a.feed_forward.bias;
            let (wide, output, norm) = (tensors.linear(1, bias), tensors.linear(1, bias), tensors.norm());
            let input = if before { self.norm(&x, &norm) } else { x.clone() };
            let mut branch = linear(&self.feed_forward(&input, &wide, layer, key), &output);
            self.drop(&mut branch, a.dropout.feed_forward_output, Site::feed_forward_output(layer), key);
            x = sum(&branch, &x);
            x = if before { x } else { self.norm(&x, &norm) };
        }
        let x = if before { self.norm(&x, &tensors.norm()) } else { x };
        assert_eq!(tensors.next, self.layout.tensors().len(), "tensors that nothing is computed with");
        x
    }
}

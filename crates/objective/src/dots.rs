//! Dot products of two sets of representations, scaled to logits.

use contaccum_kernels::{Mat, MatMut};

/// A matrix product: `out = alpha · lhs · rhs`, or `+=`.
type Product = fn(MatMut, Mat, Mat, f32, bool);

/// Dot products and the room they need.
///
/// Two things differ from a bare product. Sums run over at most [`Dots::TERMS`] terms before they are added up, which
/// takes the rounding of large logits down with the length of the sums. And the fewer of rows and columns run along
/// the lines of the output, since the product repacks what does: with 8 rows over a bank that would be the bank.
pub(crate) struct Dots {
    product: Product,
    dim: usize,
    scale: f32,
    transposed: Vec<f32>,
}

impl Dots {
    const TERMS: usize = 128;

    /// For representations of `dim` values and outputs of at most `room` logits.
    pub(crate) fn new(product: Product, dim: usize, scale: f32, room: usize) -> Self {
        Self { product, dim, scale, transposed: vec![0.0; room] }
    }

    /// Bytes that [`Dots::new`] allocates.
    pub(crate) fn bytes(room: usize) -> usize {
        room * size_of::<f32>()
    }

    /// Writes the logits of `rows` against `columns` (both `… × dim`) to `out`, whose lines start `stride` apart.
    pub(crate) fn write(&mut self, rows: &[f32], columns: &[f32], out: &mut [f32], stride: usize) {
        let (height, width) = (rows.len() / self.dim, columns.len() / self.dim);
        if height >= width {
            self.sum(rows, columns, out, stride);
            return;
        }
        let mut transposed = std::mem::take(&mut self.transposed);
        self.sum(columns, rows, &mut transposed, height);
        for (row, line) in out.chunks_mut(stride).take(height).enumerate() {
            for (column, logit) in line[..width].iter_mut().enumerate() {
                *logit = transposed[column * height + row];
            }
        }
        self.transposed = transposed;
    }

    fn sum(&self, rows: &[f32], columns: &[f32], out: &mut [f32], stride: usize) {
        let (dim, height, width) = (self.dim, rows.len() / self.dim, columns.len() / self.dim);
        for start in (0..dim).step_by(Self::TERMS) {
            let terms = Self::TERMS.min(dim - start);
            let rows = Mat::strided(&rows[start..], height, terms, dim);
            let columns = Mat::strided(&columns[start..], width, terms, dim);
            (self.product)(
                MatMut::strided(out, height, width, stride),
                rows,
                columns.t(),
                self.scale,
                start > 0,
            );
        }
    }
}

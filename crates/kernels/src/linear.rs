//! Biases of products: rows to add a product to, and gradients, which are sums over rows.

use rayon::prelude::*;

use crate::parallel::{Partials, add_rows, rows_per_part};

/// Every row of `matrix` becomes `row`, for a product to be added to.
pub fn set_rows(matrix: &mut [f32], row: &[f32]) {
    let rows = matrix.len() / row.len();
    matrix.par_chunks_mut(rows_per_part(rows) * row.len()).for_each(|block| {
        block.chunks_exact_mut(row.len()).for_each(|to| to.copy_from_slice(row));
    });
}

/// `sums[c] += Σ_r matrix[r, c]` for a dense matrix of `sums.len()` columns.
pub fn add_column_sums(matrix: &[f32], sums: &mut [f32], partials: &mut Partials) {
    let cols = sums.len();
    let rows = matrix.len() / cols;
    let per_part = partials.rows_per_part(rows);
    (partials.zeroed(rows, cols).par_chunks_mut(cols), matrix.par_chunks(per_part * cols))
        .into_par_iter()
        .for_each(|(partial, block)| add_rows(partial, block));
    partials.add_to(rows, cols, 0, sums);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_sums_are_added_to_what_is_there() {
        for rows in [1usize, 3, 50] {
            let matrix: Vec<f32> = (0..rows * 3).map(|i| i as f32).collect();
            let mut sums = vec![1.0, 2.0, 3.0];
            add_column_sums(&matrix, &mut sums, &mut Partials::new(3));
            for (c, s) in sums.iter().enumerate() {
                let expected = (0..rows).map(|r| (r * 3 + c) as f32).sum::<f32>() + c as f32 + 1.0;
                assert_eq!(*s, expected);
            }
        }
    }
}

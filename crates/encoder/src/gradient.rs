//! The parameters' gradient, with or without a place for that of the embeddings.

use std::ops::{Index, IndexMut, Range};

use crate::Layout;

/// A buffer in the layout of the weights, or of the weights behind the embeddings. Indexed by the layout's ranges.
pub(crate) struct Gradient<'a> {
    values: &'a mut [f32],
    first: usize,
}

impl<'a> Gradient<'a> {
    /// # Panics
    /// When the buffer is neither as long as all weights nor as long as those behind the embeddings.
    pub fn new(layout: &Layout, values: &'a mut [f32]) -> Self {
        let first = layout.parameters() - values.len();
        assert!(first == 0 || first == layout.embeddings().len(), "gradient of another layout");
        Self { values, first }
    }

    pub fn has_embeddings(&self) -> bool {
        self.first == 0
    }

    fn at(&self, range: &Range<usize>) -> Range<usize> {
        range.start - self.first..range.end - self.first
    }

    /// Several tensors at once.
    pub fn disjoint<const N: usize>(&mut self, ranges: [&Range<usize>; N]) -> [&mut [f32]; N] {
        let ranges = ranges.map(|range| self.at(range));
        self.values.get_disjoint_mut(ranges).expect("tensors of a layout are disjoint")
    }

    /// Several tensors at once, of which some are not there: those are empty.
    pub fn disjoint_of<const N: usize>(&mut self, ranges: [Option<&Range<usize>>; N]) -> [&mut [f32]; N] {
        let ranges = ranges.map(|range| range.map_or(0..0, |range| self.at(range)));
        self.values.get_disjoint_mut(ranges).expect("tensors of a layout are disjoint")
    }
}

impl Index<Range<usize>> for Gradient<'_> {
    type Output = [f32];

    fn index(&self, range: Range<usize>) -> &[f32] {
        &self.values[self.at(&range)]
    }
}

impl IndexMut<Range<usize>> for Gradient<'_> {
    fn index_mut(&mut self, range: Range<usize>) -> &mut [f32] {
        let range = self.at(&range);
        &mut self.values[range]
    }
}

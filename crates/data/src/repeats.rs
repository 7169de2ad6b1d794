use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Which records of a file repeat the content of an earlier one under another id.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// Pairs of a record and the first one of equal content, by record.
    pairs: Vec<(u32, u32)>,
}

impl Repeats {
    /// Of records whose contents have these 128-bit hashes.
    pub fn new(contents: &[u128]) -> Repeats {
        let mut firsts: HashTable<u32> = HashTable::with_capacity(contents.len());
        let mut pairs = Vec::new();
        for (number, content) in (0u32..).zip(contents) {
            let equal = |&first: &u32| contents[first as usize] == *content;
            let half = |&first: &u32| contents[first as usize] as u64;
            match firsts.entry(*content as u64, equal, half) {
                Entry::Occupied(first) => pairs.push((number, *first.get())),
                Entry::Vacant(vacant) => {
                    vacant.insert(number);
                }
            }
        }
        Repeats { pairs }
    }

    /// The first record of the same content: `number` itself where there is none before it.
    pub fn first(&self, number: u32) -> u32 {
        let found = self.pairs.binary_search_by_key(&number, |&(record, _)| record);
        found.map_or(number, |pair| self.pairs[pair].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_knows_the_first_of_its_content() {
        // Equal low halves are not equal contents.
        let contents = [7, 1 << 64 | 7, 7, 9, 1 << 64 | 7, 7];
        let repeats = Repeats::new(&contents);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|number| repeats.first(number)), [0, 1, 0, 3, 1, 0]);
        assert_eq!(Repeats::new(&[]).first(4), 4);
    }
}

//! Buffers whose memory belongs to the process from the start.

/// Values per page of the smallest page size in use.
const PAGE_VALUES: usize = 4096 / size_of::<f32>();

/// `len` zeros, every page of them resident: the system gives a page at its first write, so a buffer that is only
/// allocated costs its memory later, in the middle of the work, when it may no longer be there.
pub fn resident_zeros(len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    // Hidden from the optimiser, which knows that the values are zero already.
    let seen = std::hint::black_box(values.as_mut_slice());
    seen.iter_mut().step_by(PAGE_VALUES).for_each(|value| *value = 0.0);
    if let Some(last) = seen.last_mut() {
        *last = 0.0;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_buffer_is_resident_before_it_is_used() {
        let resident_pages = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
        };
        let before = resident_pages();
        let values = resident_zeros(32 << 20);
        let pages = resident_pages() - before;
        assert!(pages * 4096 >= 120 << 20, "{pages} pages of {}", values.len() / PAGE_VALUES);
    }
}

//! One parser, named by `PARSER`, with coverage: `PARSER=qrels cargo fuzz run parser`.

#![no_main]

use std::cell::LazyCell;

use contaccum_fuzz_targets::{Scratch, Target};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SCRATCH: LazyCell<Scratch> = LazyCell::new(Scratch::new);
    static TARGET: LazyCell<&'static Target> = LazyCell::new(|| {
        let name = std::env::var("PARSER").expect("PARSER names the target");
        Target::named(&name).expect("PARSER is one of contaccum_fuzz_targets::TARGETS")
    });
}

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.with(|scratch| TARGET.with(|target| target.run(scratch, bytes)));
});

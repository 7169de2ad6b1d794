//! A panic inside the tokenizer library as an error of one line.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

use crate::error::one_line;

thread_local! {
    /// Whether this thread is inside [`guarded`], whose panics are told as errors and not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls into the tokenizer library; a panic there comes back as a message and prints nothing.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                previous(panic);
            }
        }));
    });
    let outer = QUIET.replace(true);
    // What a panic leaves half done is the library's caches, which it rebuilds; the tokenizer is then given up.
    let result = catch_unwind(AssertUnwindSafe(call));
    QUIET.set(outer);
    result.unwrap_or_else(|payload| Err(format!("the tokenizer library failed: {}", message(&*payload))))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    one_line(
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_message_of_one_line() {
        let broken = guarded(|| -> Result<(), String> { panic!("bad\nsplit") });
        assert_eq!(broken.unwrap_err(), "the tokenizer library failed: bad split");
        assert_eq!(guarded(|| Ok(3)), Ok(3));
        assert!(!QUIET.get());
    }
}

//! The operations that are measured, each by itself: by `counts` in instructions and by the bench `times` in time. Nothing here knows a clock, draws a
//! number or starts a thread, so the same program runs the same instructions each time.

mod bytes_of;
mod machine;

pub use machine::{sessions, strings};

/// Steps that a prepared operation can take: what they need is made before the first.
pub const STEPS: usize = 1_024;

/// The log's time when an operation begins.
const BEGIN: u64 = 1_700_000_000_000;

/// Bytes of a value.
const VALUE: usize = 128;

/// One step of a prepared operation. Its argument counts the steps, from 0 to [`STEPS`].
pub type Step = Box<dyn FnMut(usize)>;

/// One kind of work.
pub struct Operation {
    /// What it is, as it stands in tables.
    pub name: &'static str,
    /// Operations in one step: its figure is for one of them.
    pub in_a_step: usize,
    prepare: fn() -> Step,
}

impl Operation {
    /// Everything that its steps need. Costs nothing of what is measured.
    pub fn prepare(&self) -> Step {
        (self.prepare)()
    }
}

/// All of them, in the order of the table.
pub fn operations() -> Vec<Operation> {
    [machine::OPERATIONS, bytes_of::OPERATIONS]
        .into_iter()
        .flatten()
        .map(|(name, in_a_step, prepare)| Operation {
            name,
            in_a_step: *in_a_step,
            prepare: *prepare,
        })
        .collect()
}

/// A name, how many operations are in a step, and what prepares it.
type Row = (&'static str, usize, fn() -> Step);

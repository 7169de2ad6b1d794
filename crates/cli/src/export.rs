//! `contaccum export`.

use contaccum_training::export_checkpoint;

use crate::args::ExportArgs;
use crate::output::{self, quoted};

/// Writes the model of a checkpoint as a sentence-transformers folder.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    export_checkpoint(&args.checkpoint, &args.output)?;
    output::line(args.output.display())?;
    output::next(format_args!("encode --model {} --corpus CORPUS --output index", quoted(&args.output)));
    Ok(())
}

//! `contaccum report`.

use crate::args::ReportArgs;
use crate::output;

/// Writes the page and its path.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    contaccum_report::write_page(&args.runs, &args.output)?;
    output::written(&args.output, args.output.display())
}

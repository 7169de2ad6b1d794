//! Results on stdout: a table on a terminal, tab-separated lines in a pipe, JSON when asked.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::args::OutputArgs;

/// Writes rows under their headers, or `json` where JSON is asked for. Columns after the first are numbers.
pub fn write<const N: usize>(
    format: OutputArgs,
    headers: [&str; N],
    rows: &[[String; N]],
    json: &impl Serialize,
) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    if format.json {
        serde_json::to_writer_pretty(&mut stdout, json)?;
        writeln!(stdout)?;
    } else if format.table || stdout.is_terminal() {
        writeln!(stdout, "{}", table(headers, rows))?;
    } else {
        writeln!(stdout, "{}", headers.join("\t"))?;
        for row in rows {
            writeln!(stdout, "{}", row.each_ref().map(|cell| cell.replace(['\t', '\n'], " ")).join("\t"))?;
        }
    }
    Ok(())
}

/// A table in Markdown, to be read as it is and to be pasted.
fn table<const N: usize>(headers: [&str; N], rows: &[[String; N]]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(headers);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

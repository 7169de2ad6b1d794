//! Results on stdout: a table on a terminal, tab-separated lines in a pipe, JSON when asked.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::args::OutputArgs;

/// Writes rows under their headers, or `json` where JSON is asked for.
pub fn write<const N: usize>(
    format: OutputArgs,
    headers: [&str; N],
    rows: &[[String; N]],
    json: &impl Serialize,
) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    if format.json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(json)?)?;
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

/// Writes one line.
pub fn line(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// A table in Markdown, to be read as it is and to be pasted; columns of numbers are flush right.
fn table<const N: usize>(headers: [&str; N], rows: &[[String; N]]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(headers);
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if rows.iter().all(|row| row[index].parse::<f64>().is_ok()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

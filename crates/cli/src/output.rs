//! Results on stdout: a table on a terminal, tab-separated lines in a pipe, JSON when asked.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use comfy_table::Width::Fixed;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;
use terminal_size::Width;

use crate::args::OutputArgs;

/// Writes rows under their headers, or `json` where JSON is asked for.
pub fn write<const N: usize>(
    format: OutputArgs,
    headers: [&str; N],
    rows: &[[String; N]],
    json: &impl Serialize,
) -> anyhow::Result<()> {
    if format.json {
        line(serde_json::to_string_pretty(json)?)
    } else if format.table || io::stdout().is_terminal() {
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(Width(columns), _)| columns);
        line(within(width, headers, rows))
    } else {
        let rows =
            rows.iter().map(|row| row.each_ref().map(|cell| cell.replace(['\t', '\n'], " ")).join("\t"));
        let lines: Vec<String> = std::iter::once(headers.join("\t")).chain(rows).collect();
        line(lines.join("\n"))
    }
}

/// Writes one line, or several.
pub fn line(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(lost)
}

/// Says on stdout what was written to `path`, unless that is stdout itself.
pub fn written(path: &Path, what: impl Display) -> anyhow::Result<()> {
    match contaccum_files::is_stdout(path) {
        true => tracing::info!("{what}"),
        false => line(what)?,
    }
    Ok(())
}

/// A result that did not arrive.
pub fn lost(reason: io::Error) -> anyhow::Error {
    match reason.kind() {
        io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::anyhow!("the result could not be written to stdout: {reason} (give it another place)"),
    }
}

/// Whoever read stdout has seen enough, as `head` has after ten lines.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads stdout any more")]
pub struct ReaderGone;

/// A path as it can be pasted into a shell.
pub fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=~".contains(c);
    match path.chars().all(plain) && !path.starts_with(['~', '-']) && !path.is_empty() {
        true => path,
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

/// Says on stderr which command comes next.
pub fn next(command: impl Display) {
    tracing::info!("next: contaccum {command}");
}

/// A table, its texts broken to fit `width`; where words would have to be broken too, one line a value instead.
fn within<const N: usize>(width: Option<u16>, headers: [&str; N], rows: &[[String; N]]) -> String {
    let mut table = table(headers, rows);
    let Some(width) = width else { return table.to_string() };
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let longest_word = |text: &str| text.split_whitespace().map(str::len).max().unwrap_or(0);
    let mut least = 1;
    for (index, column) in table.column_iter_mut().enumerate() {
        let cells = rows.iter().map(|row| longest_word(&row[index]));
        let word = cells.chain([longest_word(headers[index])]).max().unwrap_or(0) + 2;
        least += word + 1;
        column.set_constraint(ColumnConstraint::LowerBoundary(Fixed(word as u16)));
    }
    if least <= usize::from(width) {
        return table.to_string();
    }
    let line = |(header, cell): (&&str, &String)| format!("{header}: {cell}");
    let record = |row: &[String; N]| headers.iter().zip(row).map(line).collect::<Vec<_>>().join("\n");
    rows.iter().map(record).collect::<Vec<_>>().join("\n\n")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_breaks_texts_to_fit_and_becomes_lines_before_it_breaks_words() {
        let rows = [["1".to_owned(), "a passage of some words".to_owned()]];
        let table = |width| within(width, ["rank", "passage"], &rows);
        let whole = "| rank | passage                 |\n|------|-------------------------|\n\
                     |    1 | a passage of some words |";
        assert_eq!(table(None), whole);
        assert_eq!(table(Some(80)), whole);
        assert!(table(Some(24)).lines().all(|line| line.len() <= 24), "{}", table(Some(24)));
        assert!(table(Some(24)).contains("passage") && table(Some(24)).contains("words"));
        assert_eq!(table(Some(12)), "rank: 1\npassage: a passage of some words");
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        let quoted = |path: &str| quoted(Path::new(path));
        assert_eq!(quoted("runs/squad-1_a.trec"), "runs/squad-1_a.trec");
        assert_eq!(quoted("my runs"), "'my runs'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("~/x"), "'~/x'");
        assert_eq!(quoted("a;b"), "'a;b'");
    }
}

//! Plain tables: columns without lines, as other programs can cut them.

use comfy_table::{ColumnConstraint, Width, presets};

/// A table that may be written in parts; later parts keep at least the widths of the earlier ones.
#[derive(Debug)]
pub(crate) struct Table {
    /// Taken by the first part.
    header: Option<&'static [&'static str]>,
    rows: Vec<Vec<String>>,
    widths: Vec<u16>,
}

impl Table {
    pub(crate) const fn new(header: &'static [&'static str]) -> Self {
        Self { header: Some(header), rows: Vec::new(), widths: Vec::new() }
    }

    /// One without a header, for names and their values.
    pub(crate) const fn plain() -> Self {
        Self { header: None, rows: Vec::new(), widths: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// The rows since the last call, with a newline at the end of each.
    pub(crate) fn take(&mut self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        if let Some(header) = self.header.take() {
            table.set_header(header.iter().copied());
        }
        table.add_rows(self.rows.drain(..));
        if table.is_empty() && table.header().is_none() {
            return String::new();
        }
        let content = table.column_max_content_widths();
        self.widths.resize(content.len().max(self.widths.len()), 0);
        for (width, content) in self.widths.iter_mut().zip(content) {
            *width = (*width).max(content);
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            // Two spaces between columns, none before the first.
            column.set_padding((0, 2));
            let width = self.widths.get(index).map_or(0, |width| width.saturating_add(2));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        table.trim_fmt() + "\n"
    }
}

/// `text` without control characters: what hosts say must neither break a line nor command a terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(table: &mut Table, cells: [&str; 2]) {
        table.row(cells.map(str::to_owned));
    }

    #[test]
    fn parts_are_aligned() {
        let mut table = Table::new(&["NAME", "STATE"]);
        row(&mut table, ["web-1", "online"]);
        assert_eq!(table.take(), "NAME   STATE\nweb-1  online\n");
        row(&mut table, ["a", "off\u{1b}[2Jline\n"]);
        assert_eq!(table.take(), "a      off [2Jline\n");
        assert_eq!(table.take(), "");
    }

    #[test]
    fn a_table_without_header() {
        let mut table = Table::plain();
        row(&mut table, ["Name", "web-1"]);
        row(&mut table, ["Certificate", ""]);
        assert_eq!(table.take(), "Name         web-1\nCertificate\n");
    }
}

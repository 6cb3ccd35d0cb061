//! What a command found, shown as a table, as JSON or as YAML.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde_json::Value;

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    Json,
    Yaml,
}

/// Rows under named columns. A row has a value for each column.
pub struct Report {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
    /// Whether a cell of this column deserves attention.
    alarm: fn(&str, &Value) -> bool,
}

impl Report {
    /// Columns are named in `snake_case`; tables show them in capitals.
    #[must_use]
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: vec![], alarm: |_, _| false }
    }

    /// Which cells a terminal shows in red.
    #[must_use]
    pub fn with_alarm(mut self, alarm: fn(&str, &Value) -> bool) -> Self {
        self.alarm = alarm;
        self
    }

    pub fn push(&mut self, row: Vec<Value>) {
        assert_eq!(row.len(), self.columns.len(), "a row has a value for each column");
        self.rows.push(row);
    }

    #[must_use]
    pub fn show(&self, format: Format, colours: bool) -> String {
        match format {
            Format::Table => self.table(colours),
            Format::Json => self.json(),
            Format::Yaml => self.yaml(),
        }
    }

    fn table(&self, colours: bool) -> String {
        let titles: Vec<String> = self.columns.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
        let cells: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let width = |column: usize| {
            let longest = cells.iter().map(|row| row[column].chars().count()).max();
            titles[column].chars().count().max(longest.unwrap_or(0))
        };
        let widths: Vec<usize> = (0..titles.len()).map(width).collect();
        // Numbers stand under each other by their last digit.
        let is_number = |column: usize| {
            !self.rows.is_empty() && self.rows.iter().all(|row| row[column].is_number() || row[column].is_null())
        };
        let numeric: Vec<bool> = (0..titles.len()).map(is_number).collect();
        let mut text = String::new();
        let bold = Style::new().bold();
        let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
        let lay = |row: &[String], style: &dyn Fn(usize) -> Option<Style>| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = " ".repeat(widths[column] - cell.chars().count());
                let shown = match style(column).filter(|_| colours) {
                    Some(style) => format!("{style}{cell}{style:#}"),
                    None => cell.clone(),
                };
                let separator = if column > 0 { "  " } else { "" };
                let _ = match numeric[column] {
                    true => write!(line, "{separator}{gap}{shown}"),
                    false => write!(line, "{separator}{shown}{gap}"),
                };
            }
            line.trim_end().to_owned() + "\n"
        };
        text.push_str(&lay(&titles, &|_| Some(bold)));
        for (row, cells) in self.rows.iter().zip(&cells) {
            text.push_str(&lay(cells, &|column| (self.alarm)(self.columns[column], &row[column]).then_some(red)));
        }
        text
    }

    fn json(&self) -> String {
        let fields = |row: &Vec<Value>| {
            let pairs = self.columns.iter().zip(row).map(|(name, value)| format!("\"{name}\": {value}"));
            format!("  {{{}}}", pairs.collect::<Vec<_>>().join(", "))
        };
        match self.rows.is_empty() {
            true => "[]\n".to_owned(),
            false => format!("[\n{}\n]\n", self.rows.iter().map(fields).collect::<Vec<_>>().join(",\n")),
        }
    }

    /// Scalars and lists are written as JSON, which YAML contains.
    fn yaml(&self) -> String {
        if self.rows.is_empty() {
            return "[]\n".to_owned();
        }
        let mut text = String::new();
        for row in &self.rows {
            for (index, (name, value)) in self.columns.iter().zip(row).enumerate() {
                let lead = if index == 0 { "- " } else { "  " };
                let _ = writeln!(text, "{lead}{name}: {value}");
            }
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{Format, Report};

    fn report() -> Report {
        let mut report =
            Report::new(&["topic", "leader", "isr"]).with_alarm(|name, value| name == "leader" && value.is_null());
        report.push(vec![json!("long-name"), json!(12), json!([1, 2])]);
        report.push(vec![json!("t"), json!(null), json!([])]);
        report
    }

    #[test]
    fn a_table_lines_up() {
        expect![[r#"
            TOPIC      LEADER  ISR
            long-name      12  1,2
            t               -  -
        "#]]
        .assert_eq(&report().show(Format::Table, false));
        assert!(report().show(Format::Table, true).contains("\u{1b}[31m-\u{1b}[0m"));
    }

    #[test]
    fn machines_read_names_and_values() {
        expect![[r#"
            [
              {"topic": "long-name", "leader": 12, "isr": [1,2]},
              {"topic": "t", "leader": null, "isr": []}
            ]
        "#]]
        .assert_eq(&report().show(Format::Json, true));
        expect![[r#"
            - topic: "long-name"
              leader: 12
              isr: [1,2]
            - topic: "t"
              leader: null
              isr: []
        "#]]
        .assert_eq(&report().show(Format::Yaml, true));
        assert_eq!(Report::new(&["a"]).show(Format::Yaml, false), "[]\n");
    }
}

//! An ASCII sequence diagram: time runs down, one column per who takes part, an arrow drawn where a message arrives.
//!
//! ```text
//!    n1        n2        n3
//!     ●         │         │        n1 starts its life 1
//!     ├─────────▶         │        prepare op1
//!     ├─────────────╳     │        prepare op1, lost
//! ```

const COLUMN_WIDTH: usize = 10;
const MARGIN: usize = 5;

#[derive(Debug)]
enum Row {
    At { column: usize, what: String },
    Arrow { from: usize, to: usize, what: String, arrives: bool },
    Across { what: String },
}

/// A diagram that grows at its end. Columns are numbered from 0.
#[derive(Debug)]
pub struct Diagram {
    heads: Vec<String>,
    rows: Vec<Row>,
}

impl Diagram {
    /// An empty diagram with these columns, of which there is at least one.
    #[must_use]
    pub fn new(heads: Vec<String>) -> Self {
        assert!(!heads.is_empty(), "a diagram has a column");
        Self { heads, rows: Vec::new() }
    }

    /// Something happens in one column.
    pub fn at(&mut self, column: usize, what: String) {
        self.rows.push(Row::At { column, what });
    }

    /// A message gets from one column to another.
    pub fn arrow(&mut self, (from, to): (usize, usize), what: String) {
        self.rows.push(Row::Arrow { from, to, what, arrives: true });
    }

    /// A message is lost on its way from one column to another.
    pub fn lost(&mut self, (from, to): (usize, usize), what: String) {
        self.rows.push(Row::Arrow { from, to, what, arrives: false });
    }

    /// Something happens to everybody.
    pub fn across(&mut self, what: String) {
        self.rows.push(Row::Across { what });
    }

    /// The lines, each ended.
    #[must_use]
    pub fn render(&self) -> String {
        let head = |(index, head): (usize, &String)| {
            let width = if index == 0 { MARGIN + 1 } else { COLUMN_WIDTH };
            format!("{head:>width$}")
        };
        let head: String = self.heads.iter().enumerate().map(head).collect();
        std::iter::once(format!("{head}\n")).chain(self.rows.iter().map(|row| self.render_row(row))).collect()
    }

    fn render_row(&self, row: &Row) -> String {
        let place = |column: usize| MARGIN + column * COLUMN_WIDTH;
        let mut line = vec![' '; place(self.heads.len() - 1) + 1];
        for column in 0..self.heads.len() {
            line[place(column)] = '│';
        }
        let what = match row {
            Row::At { column, what } => {
                line[place(*column)] = '●';
                what
            }
            Row::Across { what } => {
                line[MARGIN..].fill('═');
                what
            }
            Row::Arrow { from, to, what, arrives } => {
                let (start, end) = (place(*from), place(*to));
                let tip = if *arrives { end } else { usize::midpoint(start, end) };
                line[start.min(tip)..=start.max(tip)].fill('─');
                line[start] = if end > start { '├' } else { '┤' };
                line[tip] = match (arrives, end > start) {
                    (false, _) => '╳',
                    (true, true) => '▶',
                    (true, false) => '◀',
                };
                what
            }
        };
        let line: String = line.into_iter().collect();
        format!("{line}        {what}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagram_has_a_line_for_each_row() {
        let mut diagram = Diagram::new(["a", "b", "c"].map(str::to_owned).to_vec());
        diagram.at(1, "starts".to_owned());
        diagram.arrow((0, 2), "there".to_owned());
        diagram.arrow((2, 1), "and back".to_owned());
        diagram.lost((0, 1), "nowhere".to_owned());
        diagram.across("night".to_owned());
        let expected = "     a         b         c\n     \
                        │         ●         │        starts\n     \
                        ├───────────────────▶        there\n     \
                        │         ◀─────────┤        and back\n     \
                        ├────╳    │         │        nowhere\n     \
                        ═════════════════════        night\n";
        assert_eq!(diagram.render(), expected);
    }
}

//! Plain tables for people: columns as wide as their content, numbers to the right.

/// Lays out rows under a header; a cell that begins with a digit stands at the right of its column.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let head: Vec<String> = header.iter().map(|&h| h.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| pad(cell, width)).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A text from anywhere on one line: no control character of it steers a terminal or starts a line of its own.
pub(crate) fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

fn pad(cell: &str, width: usize) -> String {
    let cell = plain(cell);
    let is_number = cell.parse::<f64>().is_ok();
    if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
}

/// A number of things, for people.
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A size in bytes, for people.
pub(crate) fn bytes(size: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{size} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A duration in seconds, for people.
pub(crate) fn duration(secs: f64) -> String {
    match secs {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.1} s"),
        s => format!("{} min {:02.0} s", (s / 60.0) as u64, s % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_right() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "1000".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows), "name  n\na        1\nlong  1000\n");
        let hostile = vec![vec!["a\x1b[2J\nb".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["name", "n"], &hostile), "name     n\na [2J b  1\n");
    }

    #[test]
    fn sizes_and_times() {
        let sizes = [(0, "0 B"), (1536, "1.5 KiB"), (600_000_000, "572.2 MiB")];
        assert!(sizes.iter().all(|&(size, expected)| bytes(size) == expected));
        let times = [(0.5, "0.50 s"), (65.04, "65.0 s"), (125.0, "2 min 05 s")];
        assert_eq!([0, 1, 2].map(|n| count(n, "shard")), ["0 shards", "1 shard", "2 shards"]);
        assert!(times.iter().all(|&(secs, expected)| duration(secs) == expected));
    }
}

//! Tables and words for people: as wide as the terminal, coloured where colour helps and never by colour alone,
//! plain and unwrapped when piped.

use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;

use crate::api::views::{ReleaseView, Time};
use crate::clock::Clock;
use crate::core::time::human;

/// Narrower terminals are treated like this one: below it every word would stand alone.
const COLUMNS_MIN: u16 = 60;

/// From here on the decision matrix fits with all its columns.
const WIDE_COLUMNS: u16 = 115;

/// What terminals are that do not say how wide they are.
const COLUMNS_UNKNOWN: u16 = 80;

/// Where the text is shown.
#[derive(Debug, Clone)]
pub(super) struct Screen {
    /// Columns to wrap at; none when nobody reads it directly.
    pub(super) columns: Option<u16>,
    /// The reader's time zone.
    pub(super) zone: TimeZone,
    /// The time now, for "3m ago".
    pub(super) now: Time,
}

impl Screen {
    /// What standard output is.
    pub(super) fn detect() -> Self {
        let columns = std::io::stdout().is_terminal().then(|| {
            let size = terminal_size::terminal_size();
            size.map_or(COLUMNS_UNKNOWN, |(terminal_size::Width(columns), _)| columns.max(COLUMNS_MIN))
        });
        Self { columns, zone: TimeZone::system(), now: crate::api::time(Clock::start().now()) }
    }

    /// A table with a heading, without lines: what is between the columns is space. Only the columns in `fluid` are
    /// wrapped: a name broken in two cannot be searched for, nor copied.
    pub(super) fn table<const N: usize>(
        &self,
        header: [&str; N],
        fluid: &[usize],
        rows: Vec<[String; N]>,
    ) -> String {
        let mut lines = self.laid_out(header, fluid, rows).into_iter();
        let head = lines.next().map_or_else(String::new, |line| bold(&line) + "\n");
        lines.fold(head, |text, line| text + &self.painted(&line) + "\n")
    }

    /// A table of one line a row, each followed by a note of its own. In a pipe the note is the last column.
    pub(super) fn noted<const N: usize>(
        &self,
        header: [&str; N],
        rows: Vec<([String; N], String)>,
    ) -> String {
        let (rows, notes): (Vec<[String; N]>, Vec<String>) = rows.into_iter().unzip();
        let mut lines = self.laid_out(header, &[], rows).into_iter();
        let mut text = lines.next().map_or_else(String::new, |line| bold(&line) + "\n");
        for (line, note) in lines.zip(notes) {
            if self.columns.is_some() {
                text.push_str(&format!("{}\n", self.painted(&line)));
                if !note.is_empty() {
                    text.push_str(&self.wrapped(&note, "    ", "    "));
                }
            } else {
                text.push_str(&format!("{line}  {}\n", one_line(&note)));
            }
        }
        text
    }

    fn laid_out<const N: usize>(
        &self,
        header: [&str; N],
        fluid: &[usize],
        rows: Vec<[String; N]>,
    ) -> Vec<String> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        if let Some(columns) = self.columns {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
        }
        for row in rows {
            table.add_row(row.map(|cell| one_line(&cell)));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if !fluid.contains(&index) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Whether there is room for tables with many columns.
    pub(super) fn is_wide(&self) -> bool {
        self.columns.is_none_or(|columns| columns >= WIDE_COLUMNS)
    }

    /// Text wrapped at the screen's width, every line indented.
    pub(super) fn wrapped(&self, text: &str, first: &str, indent: &str) -> String {
        let Some(columns) = self.columns.map(usize::from) else {
            return format!("{first}{text}\n");
        };
        let mut lines = String::new();
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in text.split_whitespace() {
            if !is_empty && width(&line) + 1 + width(word) > columns {
                lines.push_str(line.trim_end());
                lines.push('\n');
                line = indent.to_owned();
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
        lines
    }

    /// A state, answer or outcome as a cell: in a terminal with a mark that carries the colour.
    pub(super) fn mark(&self, word: &str) -> String {
        let word = word.replace('_', " ");
        if self.columns.is_some() { format!("● {word}") } else { word }
    }

    /// Puts the colours in once the table is laid out: the layout must not count them as characters.
    pub(super) fn painted(&self, line: &str) -> String {
        MARKS.iter().fold(line.to_owned(), |line, (color, words)| {
            words.iter().fold(line, |line, word| {
                let marked = format!("● {word}");
                if line.contains(&marked) {
                    line.replace(&marked, &format!("\x1b[{color}m{marked}\x1b[0m"))
                } else {
                    line
                }
            })
        })
    }

    /// A moment in the reader's time zone: the clock time today, else the day too.
    pub(super) fn moment(&self, at: Time) -> String {
        let at = at.to_zoned(self.zone.clone());
        let today = self.now.to_zoned(self.zone.clone()).date();
        let format = if at.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
        at.strftime(format).to_string()
    }

    /// How long ago: `3m 20s ago`.
    pub(super) fn ago(&self, at: Time) -> String {
        let seconds = self.now.as_second().saturating_sub(at.as_second());
        format!("{} ago", human(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
    }
}

/// Colours of marked words. Longer words first where one begins with another.
const MARKS: &[(&str, &[&str])] = &[
    ("32", &["steady", "known good", "ok", "allow", "verified"]),
    ("36", &["trial", "cooling down", "verifying", "executing"]),
    (
        "33",
        &["suspect", "rolling back", "blind", "paused", "pending", "cannot measure", "superseded", "void"],
    ),
    ("31", &["stuck", "breached", "deny", "quarantined", "not verified", "unwound", "unhealthy"]),
];

/// A heading.
pub(super) fn bold(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

/// A span given in seconds, as people write it.
pub(super) fn span(seconds: f64) -> String {
    let span = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    human(span).to_string()
}

/// A release as people and commands name it.
pub(super) fn release(release: &ReleaseView) -> String {
    format!("{} [{}]", release.reference, release.id)
}

/// A release that may not be there.
pub(super) fn release_or(found: Option<&ReleaseView>, otherwise: &str) -> String {
    found.map_or_else(|| otherwise.to_owned(), release)
}

/// A line break in a cell would end the row for whoever reads the lines by program.
fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

/// Characters, as an approximation of columns: names and sentences here are mostly ASCII.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(columns: Option<u16>) -> Screen {
        Screen { columns, zone: TimeZone::UTC, now: "2026-11-20T21:00:00Z".parse().unwrap() }
    }

    #[test]
    fn a_table_fits_the_screen_and_a_pipe_gets_one_line_a_row() {
        let long = "word ".repeat(40);
        let rows = || vec![["a".to_owned(), long.trim().to_owned()]];
        let wrapped = screen(Some(60)).table(["A", "B"], &[1], rows());
        assert!(
            wrapped
                .lines()
                .all(|line| line.replace("\x1b[1m", "").replace("\x1b[0m", "").chars().count() <= 60),
            "{wrapped}"
        );
        assert!(wrapped.lines().count() > 3);
        assert_eq!(screen(None).table(["A", "B"], &[1], rows()).lines().count(), 2);
    }

    #[test]
    fn names_are_never_broken() {
        let rows =
            || vec![["health_prolonged".to_owned(), "word ".repeat(40), "● cannot measure".to_owned()]];
        let text = screen(Some(60)).table(["ROW", "NOW", "ANSWER"], &[1], rows());
        assert!(text.contains("health_prolonged  word") && text.contains("● cannot measure"), "{text}");
    }

    #[test]
    fn notes_follow_their_row_or_end_it() {
        let rows =
            || vec![(["a".to_owned()], "first\nnote".to_owned()), (["b".to_owned()], "second".to_owned())];
        let text = screen(Some(60)).noted(["A"], rows());
        assert_eq!(text, "\x1b[1mA\x1b[0m\na\n    first note\nb\n    second\n");
        assert_eq!(screen(None).noted(["A"], rows()).lines().nth(1), Some("a  first; note"));
    }

    #[test]
    fn marks_are_words_first_and_colours_second() {
        assert_eq!(screen(None).mark("rolling_back"), "rolling back");
        let marked = screen(Some(80)).mark("rolling_back");
        assert_eq!(marked, "● rolling back");
        assert_eq!(screen(Some(80)).painted(&marked), "\x1b[33m● rolling back\x1b[0m");
    }

    #[test]
    fn moments_are_short_today_and_whole_before() {
        let screen = screen(None);
        assert_eq!(screen.moment("2026-11-20T20:59:01Z".parse().unwrap()), "20:59:01");
        assert_eq!(screen.moment("2026-11-19T20:59:01Z".parse().unwrap()), "2026-11-19 20:59");
        assert_eq!(screen.ago("2026-11-20T20:56:40Z".parse().unwrap()), "3m 20s ago");
        assert_eq!(screen.ago("2026-11-20T21:56:40Z".parse().unwrap()), "0s ago", "a clock that is ahead");
    }

    #[test]
    fn text_is_wrapped_with_its_indent() {
        let text = screen(Some(60)).wrapped(&"word ".repeat(20), "  - ", "    ");
        assert!(text.starts_with("  - word"));
        assert!(text.lines().skip(1).all(|line| line.starts_with("    word")));
        assert!(text.lines().all(|line| line.len() <= 60));
    }
}

//! A report as Markdown, to be pasted into a ticket. Text of others cannot become markup in it.

use std::fmt::Write;

use super::{Incident, moment};

/// Bars for a line of a signal, from least to most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// As many bars as fit beside a number.
const BARS_MAX: usize = 40;

/// How much of the longest parts a shortened report has: lines of the log, and of the timeline.
const SHORTER: [(usize, usize); 5] = [(100, 200), (50, 100), (20, 50), (5, 20), (0, 10)];

/// Writes it.
pub fn write(incident: &Incident) -> String {
    let mut text = String::new();
    head(&mut text, incident);
    evidence(&mut text, incident);
    checklist(&mut text, incident);
    text
}

/// Writes it for a ticket, in at most `max` characters: what is to be done comes before the evidence, and where there is
/// no room for all of it, that is said.
pub fn ticket(incident: &Incident, max: usize) -> String {
    let whole = for_ticket(incident);
    if whole.chars().count() <= max {
        return whole;
    }
    let missing = format!(
        "\nThis is not the whole report: a ticket has no room for it. `backstop incident {}` writes it.\n",
        incident.id
    );
    let room = max.saturating_sub(missing.chars().count());
    let mut shorter = incident.clone();
    for (lines, events) in SHORTER {
        shorter.log.drain(..shorter.log.len().saturating_sub(lines));
        shorter.timeline.truncate(events);
        let text = for_ticket(&shorter);
        if text.chars().count() <= room {
            return text + &missing;
        }
    }
    // Nothing of it is fenced any more, so it may end after any line.
    let text: String = for_ticket(&shorter).chars().take(room).collect();
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    format!("{}{missing}", &text[..end])
}

fn for_ticket(incident: &Incident) -> String {
    let mut text = String::new();
    head(&mut text, incident);
    checklist(&mut text, incident);
    let _ = writeln!(
        text,
        "\nBackstop does not see what is ticked here; `backstop incident tick {} ITEM` is what it sees.\n",
        incident.id
    );
    evidence(&mut text, incident);
    text
}

fn evidence(text: &mut String, incident: &Incident) {
    signals(text, incident);
    matrix(text, incident);
    timeline(text, incident);
    releases(text, incident);
    log(text, incident);
    told(text, incident);
}

fn head(text: &mut String, i: &Incident) {
    let _ = writeln!(text, "# Incident: {} rolled back\n", safe(&i.service));
    let _ = writeln!(
        text,
        "**{}** ({}). {}\n",
        safe(&i.outcome.replace('_', " ")),
        safe(&i.severity),
        safe(&i.detail)
    );
    let _ = writeln!(text, "Why: {}\n", safe(&i.reason));
    let rows = [
        ("Environment", i.environment.clone()),
        ("From", i.from.clone()),
        ("To", i.to.clone()),
        ("Decided", format!("{} by {}", moment(i.decided), i.decided_by)),
        ("Rollback", i.id.clone()),
    ];
    text.push_str("| | |\n| --- | --- |\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {} |", safe(&value));
    }
    for said in &i.asked {
        let _ = writeln!(text, "| Approval | {} |", safe(said));
    }
    for (what, span) in &i.durations {
        let _ = writeln!(text, "| {} | {} |", safe(what), safe(span));
    }
    if let Some(ticket) = &i.ticket {
        let _ = writeln!(text, "| Ticket | {} |", address(ticket));
    }
    text.push('\n');
    for missing in &i.missing {
        let _ = writeln!(text, "> Missing: {}", safe(missing));
    }
    if !i.missing.is_empty() {
        text.push('\n');
    }
}

fn signals(text: &mut String, i: &Incident) {
    let Some(frame) = i.frame.filter(|_| !i.plots.is_empty()) else { return };
    text.push_str("## Signals\n\n| signal | before | worst with the bad release | since the rollback | line | |\n| --- | --- | --- | --- | --- | --- |\n");
    for plot in &i.plots {
        let say = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| plot.unit.say(value));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            plot.title,
            say(plot.before(frame.deployed)),
            say(plot.with_the_bad_one(frame.deployed, frame.back)),
            say(plot.since(frame.back)),
            say(plot.threshold),
            bars(&plot.points)
        );
    }
    text.push('\n');
}

/// A signal as a row of bars.
fn bars(points: &[(f64, f64)]) -> String {
    let highest = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let each = points.len().div_ceil(BARS_MAX).max(1);
    let bar = |piece: &[(f64, f64)]| {
        let value = piece.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let share = if highest > 0.0 { value / highest } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7")]
        let place = (share * 7.0).round() as usize;
        BARS[place.min(7)]
    };
    points.chunks(each).map(bar).collect()
}

fn matrix(text: &mut String, i: &Incident) {
    if !i.matrix.is_empty() {
        text.push_str("## The matrix at the decision\n\n| row | answer | value | line | before |\n| --- | --- | --- | --- | --- |\n");
        for row in &i.matrix {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                safe(&row.rule),
                safe(&row.answer),
                safe(&row.value),
                safe(&row.threshold),
                safe(row.baseline.as_deref().unwrap_or("-"))
            );
        }
        text.push('\n');
    }
    if !i.gates.is_empty() {
        text.push_str("Gates:\n\n");
        for (gate, allow, why) in &i.gates {
            let _ = writeln!(text, "- {} {}: {}", if *allow { "✓" } else { "✗" }, safe(gate), safe(why));
        }
        text.push('\n');
    }
}

fn timeline(text: &mut String, i: &Incident) {
    text.push_str("## Timeline\n\n| time | after the decision | what |\n| --- | --- | --- |\n");
    for event in &i.timeline {
        let bold = if event.turning_point { "**" } else { "" };
        let _ =
            writeln!(text, "| {} | {} | {bold}{}{bold} |", moment(event.at), event.after, safe(&event.what));
    }
    text.push('\n');
}

fn releases(text: &mut String, i: &Incident) {
    let Some(releases) = &i.releases else { return };
    text.push_str("## What differs between the two releases\n\n");
    for (which, origin) in [("bad", &releases.bad), ("good", &releases.good)] {
        let labels: Vec<String> =
            origin.labels.iter().map(|(name, value)| format!("{} {}", safe(name), safe(value))).collect();
        if !labels.is_empty() {
            let _ = writeln!(text, "The {which} one: {}.\n", labels.join(", "));
        }
    }
    if releases.changes.is_empty() {
        text.push_str(if releases.compared {
            "Nothing of their configuration.\n\n"
        } else {
            "Their configuration could not be compared.\n\n"
        });
        return;
    }
    text.push_str("| what | good | bad |\n| --- | --- | --- |\n");
    for change in &releases.changes {
        let _ = writeln!(text, "| {} | {} | {} |", safe(&change.what), safe(&change.good), safe(&change.bad));
    }
    if releases.more > 0 {
        let _ = writeln!(text, "\nAnd {} more.", releases.more);
    }
    text.push('\n');
}

fn log(text: &mut String, i: &Incident) {
    if i.log.is_empty() {
        return;
    }
    text.push_str("## Last log lines of the bad release\n\nSecrets were taken out as far as they could be told; read it before you pass it on.\n\n");
    // A fence that no line has in it.
    let longest = i.log.iter().map(|line| longest_run(line, '`')).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(text, "{fence}text\n{}\n{fence}\n", i.log.join("\n"));
}

fn longest_run(line: &str, of: char) -> usize {
    line.split(|c| c != of).map(str::len).max().unwrap_or(0)
}

fn told(text: &mut String, i: &Incident) {
    text.push_str("## Who was told\n\n");
    if i.told.is_empty() {
        text.push_str(
            "Nobody: no way to announce is configured, or it was decided before there was one.\n\n",
        );
        return;
    }
    text.push_str("| said | message | delivered |\n| --- | --- | --- |\n");
    for told in &i.told {
        let delivered = safe(&told.reached());
        let _ = writeln!(text, "| {} | {} | {delivered} |", moment(told.at), safe(&told.title));
    }
    text.push('\n');
}

fn checklist(text: &mut String, i: &Incident) {
    text.push_str("## Checklist\n\n");
    for item in &i.checklist {
        let _ = write!(text, "- [{}] ", if item.done { 'x' } else { ' ' });
        if item.is_for_people() {
            let _ = write!(text, "`{}` ", item.id);
        }
        text.push_str(&safe(&item.what));
        if item.done {
            let _ = write!(text, ": {}", address(&item.proof));
        }
        if let Some(owner) = &item.owner {
            let _ = write!(text, " ({})", safe(owner));
        }
        match (item.from, item.until) {
            (Some(from), Some(until)) => {
                let _ = write!(text, ", between {} and {}", moment(from), moment(until));
            }
            (None, Some(until)) => {
                let _ = write!(text, ", by {}", moment(until));
            }
            (_, None) => {}
        }
        text.push('\n');
    }
}

/// A web address as a link, if it is one and nothing else; everything else as plain words.
fn address(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '|' | '\\' | '`');
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    if is_web && text.chars().all(is_plain) { format!("<{text}>") } else { safe(text) }
}

/// Text of others as plain words: nothing in it is markup, a link, a row or a mention.
fn safe(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' => {
                plain.push('\\');
                plain.push(c);
            }
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '&' => plain.push_str("&amp;"),
            // A mention would call people who have nothing to do with it.
            '@' => plain.push_str("&#64;"),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_no_markup() {
        assert_eq!(safe("a|b `c` <script> @all\n# x"), "a\\|b \\`c\\` &lt;script&gt; &#64;all \\# x");
        assert_eq!(longest_run("a ``` b `", '`'), 3);
    }

    #[test]
    fn only_an_address_is_a_link() {
        let url = "https://github.com/shop_team/shop/issues/7";
        assert_eq!(address(url), format!("<{url}>"));
        assert_eq!(address("https://x/> @all"), "https://x/&gt; &#64;all");
        assert_eq!(address("see_this"), "see\\_this");
    }

    #[test]
    fn a_signal_is_a_row_of_bars() {
        assert_eq!(bars(&[(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)]), "▁▅█");
        assert_eq!(bars(&[(0.0, 0.0)]), "▁");
        assert!(bars(&vec![(0.0, 1.0); 500]).chars().count() <= BARS_MAX);
    }
}

//! Plots as SVG that needs nothing from outside: lines and words, coloured by the page's own style.

use std::fmt::Write;

use super::strip::SLOT;

/// The size of a plot, in its own units; it is scaled to the width of the page.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 190.0;
/// Room for labels at each side.
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 28.0;
/// Two numbered marks closer than this would cover each other.
const APART: f64 = 19.0;
/// A gap longer than this many slots is shown as one.
const GAP: f64 = 3.0;
/// What a point stands for began so many seconds before it, and ended as many after it.
const HALF: f64 = SLOT as f64 / 2000.0;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A share, as percent.
    Percent,
    /// Seconds, as milliseconds below one.
    Seconds,
    /// A bare number.
    Count,
}

/// One plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Its heading.
    pub title: String,
    /// How values are written.
    pub unit: Unit,
    /// Times in seconds and values, oldest first.
    pub points: Vec<(f64, f64)>,
    /// How far apart points are when none is missing, in seconds.
    pub step: f64,
    /// The line that must not be crossed.
    pub threshold: Option<f64>,
    /// What was usual before the deployment.
    pub baseline: Option<f64>,
}

/// The time that is shown, in seconds as the points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Where plots begin.
    pub from: f64,
    /// Where they end.
    pub to: f64,
    /// When the bad release appeared.
    pub deployed: f64,
    /// When the good one ran again.
    pub back: f64,
    /// The time in which users suffered, as far as it is known.
    pub pain: Option<(f64, f64)>,
}

/// A moment that is marked in every plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// In seconds, as the points.
    pub at: f64,
    /// The number shown in the plots; what it stands for is said beside them.
    pub number: usize,
    /// What happened then.
    pub what: String,
}

impl Unit {
    /// A value in words.
    pub fn say(self, value: f64) -> String {
        match self {
            Self::Percent if value > 0.0 && value < 0.0995 => format!("{:.1} %", value * 100.0),
            Self::Percent => format!("{:.0} %", value * 100.0),
            Self::Seconds if value < 1.0 => format!("{:.0} ms", value * 1000.0),
            Self::Seconds => format!("{value:.2} s"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

impl Plot {
    /// The median of what was measured before the deployment; none if nothing was.
    pub fn before(&self, deployed: f64) -> Option<f64> {
        self.median(|begin_end| begin_end.1 <= deployed)
    }

    /// The highest value in whose time the bad release ran, be it for a part of it; none if there is none.
    pub fn with_the_bad_one(&self, deployed: f64, back: f64) -> Option<f64> {
        let ran = |at: f64| at + HALF > deployed && at - HALF < back;
        let within = self.points.iter().filter(|(at, _)| ran(*at));
        within.map(|(_, value)| *value).max_by(f64::total_cmp)
    }

    /// The median of what was measured when the good one had been back for all of the time; none if nothing was.
    pub fn since(&self, back: f64) -> Option<f64> {
        self.median(|begin_end| begin_end.0 >= back)
    }

    fn median(&self, of: impl Fn((f64, f64)) -> bool) -> Option<f64> {
        let whole = self.points.iter().filter(|(at, _)| of((at - HALF, at + HALF)));
        let mut values: Vec<f64> = whole.map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// What the plot shows, in a sentence, for whoever does not see it.
    pub fn describe(&self, deployed: f64, back: f64) -> String {
        let say = |value: Option<f64>| value.map_or_else(|| "not measured".to_owned(), |v| self.unit.say(v));
        let mut text = format!(
            "{}: before the deployment {} (median), with the bad release up to {}, since the rollback {} (median).",
            self.title,
            say(self.before(deployed)),
            say(self.with_the_bad_one(deployed, back)),
            say(self.since(back)),
        );
        if let Some(threshold) = self.threshold {
            let _ = write!(text, " The line is at {}.", self.unit.say(threshold));
        }
        text
    }

    /// Draws it for a time; `id` tells it from the other plots of the page.
    pub fn svg(&self, id: usize, frame: &Frame, marks: &[Mark]) -> String {
        let Frame { from, to, deployed, back, pain } = *frame;
        let top = self.top();
        let x = |at: f64| LEFT + (at - from) / (to - from).max(1.0) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - (value / top).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"plot{id}t plot{id}d\" \
             preserveAspectRatio=\"xMidYMid meet\"><title id=\"plot{id}t\">{}</title><desc id=\"plot{id}d\">{}</desc>",
            escape(&self.title),
            escape(&self.describe(deployed, back)),
        );
        if let Some((begin, end)) = pain {
            let (a, b) = (x(begin.max(from)), x(end.min(to)));
            let _ = write!(
                svg,
                "<rect class=\"pain\" x=\"{a:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (b - a).max(1.0),
                HEIGHT - TOP - BOTTOM
            );
        }
        self.grid(&mut svg, top, (from, to), &x, &y);
        for (class, value) in [("baseline", self.baseline), ("threshold", self.threshold)] {
            if let Some(value) = value.filter(|value| *value <= top) {
                let at = y(value);
                let _ = write!(
                    svg,
                    "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                    WIDTH - RIGHT
                );
            }
        }
        self.line(&mut svg, &x, &y);
        draw_marks(&mut svg, marks, &x, (from, to));
        svg.push_str("</svg>");
        svg
    }

    /// The upper end of the scale: a round number above everything that is shown.
    fn top(&self) -> f64 {
        let highest = self.points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let wanted = highest.max(self.threshold.unwrap_or(0.0)).max(self.baseline.unwrap_or(0.0)) * 1.12;
        if self.unit == Unit::Percent && wanted > 0.5 {
            return 1.0;
        }
        let wanted = wanted.max(match self.unit {
            Unit::Percent => 0.02,
            Unit::Seconds => 0.010,
            Unit::Count => 4.0,
        });
        let magnitude = 10_f64.powf(wanted.log10().floor());
        let round = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().map(|step| step * magnitude);
        round.into_iter().find(|round| *round >= wanted).unwrap_or(wanted)
    }

    fn grid(
        &self,
        svg: &mut String,
        top: f64,
        (from, to): (f64, f64),
        x: &impl Fn(f64) -> f64,
        y: &impl Fn(f64) -> f64,
    ) {
        for part in 0..=4 {
            let value = top * f64::from(part) / 4.0;
            let at = y(value);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                escape(&self.unit.say(value))
            );
        }
        let step = [60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0]
            .into_iter()
            .find(|step| (to - from) / step <= 6.0)
            .unwrap_or(7200.0);
        let mut at = (from / step).ceil() * step;
        while at < to {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(at),
                HEIGHT - 8.0,
                clock(at)
            );
            at += step;
        }
    }

    fn line(&self, svg: &mut String, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) {
        let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut last = None;
        for (at, value) in &self.points {
            let gap = last.is_none_or(|last| at - last > GAP * self.step);
            last = Some(*at);
            if gap {
                pieces.push(Vec::new());
            }
            if let Some(piece) = pieces.last_mut() {
                piece.push((x(*at), y(*value)));
            }
        }
        for piece in pieces {
            let (Some(first), Some(end)) = (piece.first(), piece.last()) else { continue };
            let points: Vec<String> = piece.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            let path = points.join(" L");
            let base = HEIGHT - BOTTOM;
            let _ = write!(
                svg,
                "<path class=\"area\" d=\"M{:.1} {base:.1} L{path} L{:.1} {base:.1} Z\"/><path class=\"line\" d=\"M{path}\"/>",
                first.0, end.0
            );
            if piece.len() == 1 {
                let _ = write!(
                    svg,
                    "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                    first.0, first.1
                );
            }
        }
    }
}

fn draw_marks(svg: &mut String, marks: &[Mark], x: &impl Fn(f64) -> f64, (from, to): (f64, f64)) {
    let mut last = f64::MIN;
    for mark in marks.iter().filter(|mark| mark.at >= from && mark.at <= to) {
        let at = x(mark.at);
        let badge = at.max(last + APART).min(WIDTH - RIGHT);
        last = badge;
        let _ = write!(
            svg,
            "<path class=\"mark\" d=\"M{badge:.1} {:.1} L{at:.1} {TOP} L{at:.1} {:.1}\"/><circle class=\"pin\" \
             cx=\"{badge:.1}\" cy=\"14\" r=\"8.5\"/><text class=\"number\" x=\"{badge:.1}\" y=\"18\" \
             text-anchor=\"middle\">{}</text>",
            23.0,
            HEIGHT - BOTTOM,
            mark.number
        );
    }
}

/// The time of day in UTC.
fn clock(at: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since the epoch")]
    let minutes = (at.max(0.0) / 60.0).round() as u64 % (24 * 60);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// Text as it may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        Plot {
            title: "Failed <requests>".into(),
            unit: Unit::Percent,
            points,
            step: 15.0,
            threshold: Some(0.05),
            baseline: Some(0.01),
        }
    }

    const fn frame(to: f64) -> Frame {
        Frame { from: 0.0, to, deployed: 150.0, back: 250.0, pain: Some((150.0, 250.0)) }
    }

    #[test]
    fn a_plot_has_its_lines_marks_and_words() {
        let points = (0..20).map(|i| (f64::from(i) * 15.0, if i < 10 { 0.01 } else { 0.30 })).collect();
        let marks = [Mark { at: 150.0, number: 1, what: "deployed".into() }];
        let svg = plot(points).svg(3, &frame(300.0), &marks);
        for part in ["class=\"threshold\"", "class=\"baseline\"", "class=\"pain\"", "class=\"pin\"", "plot3t"]
        {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert!(svg.contains("Failed &lt;requests&gt;") && !svg.contains("<requests>"));
        assert!(!svg.contains("NaN") && !svg.contains("style="), "{svg}");
    }

    #[test]
    fn what_was_not_measured_is_a_gap_and_nothing_at_all_is_no_trouble() {
        let svg = plot(vec![(0.0, 0.01), (15.0, 0.01), (200.0, 0.01)]).svg(0, &frame(300.0), &[]);
        assert_eq!(svg.matches("class=\"line\"").count(), 2);
        assert!(svg.contains("class=\"dot\""), "a single point is seen too");
        let empty = plot(Vec::new()).svg(0, &frame(0.0), &[]);
        assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
    }

    #[test]
    fn marks_that_fall_together_are_drawn_apart() {
        let mark = |at, number| Mark { at, number, what: String::new() };
        let svg = plot(vec![(0.0, 0.1)]).svg(0, &frame(3000.0), &[mark(100.0, 1), mark(101.0, 2)]);
        let places: Vec<f64> =
            svg.split("cx=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
        assert!(places.windows(2).any(|pair| (pair[1] - pair[0]).abs() >= APART), "{places:?}");
    }

    /// A release that ran for five seconds of a quarter of a minute.
    #[test]
    fn what_was_measured_while_both_ran_is_the_bad_ones() {
        let plot = plot(vec![(7.5, 0.0), (22.5, 0.3), (37.5, 0.0)]);
        assert_eq!(plot.before(17.0), Some(0.0));
        assert_eq!(plot.with_the_bad_one(17.0, 22.0), Some(0.3));
        assert_eq!((plot.since(22.0), plot.since(31.0)), (Some(0.0), None));
    }

    #[test]
    fn the_description_says_what_is_seen() {
        let points =
            (0..30).map(|i| (f64::from(i) * 10.0, if (10..20).contains(&i) { 0.4 } else { 0.01 })).collect();
        let said = plot(points).describe(100.0, 200.0);
        assert_eq!(
            said,
            "Failed <requests>: before the deployment 1.0 % (median), with the bad release up to 40 %, since the \
             rollback 1.0 % (median). The line is at 5.0 %."
        );
    }
}

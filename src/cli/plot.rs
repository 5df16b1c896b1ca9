//! Plots as SVG: bars, ranges on a logarithmic scale, and lines over time. They bring their own ground with them, light or dark as the reader has chosen, so
//! that they can be read on any page. `benches/peers` draws with this file too.

#![allow(dead_code, reason = "each program draws a part of what there is")]

use std::fmt::Write as _;

/// Bars that are compared with each other.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// The value, as it is written beside the bar.
    pub(crate) text: String,
    pub(crate) ours: bool,
    pub(crate) faint: bool,
}

/// Three values of one: the usual, the late, the last.
pub(crate) struct Range {
    pub(crate) label: String,
    pub(crate) values: [f64; 3],
    pub(crate) ours: bool,
}

/// Values over time, in order.
pub(crate) struct Line {
    pub(crate) label: String,
    /// Seconds, value.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
/// Where the area begins and ends; labels stand before it, values after a bar.
const LEFT: f64 = 200.0;
const RIGHT: f64 = 660.0;
const ROW: f64 = 22.0;
const MARGIN: f64 = 20.0;
/// How high the area of lines is, and in how many parts it is ruled.
const HEIGHT: f64 = 200.0;
const RULES: u32 = 4;
/// Where the area of lines begins: before it stand only numbers.
const LINES_LEFT: f64 = 80.0;

const STYLE: &str = "\
svg{font:13px system-ui,-apple-system,'Segoe UI',sans-serif}\
.ground{fill:#fff;stroke:#d1d9e0}.text{fill:#1f2328}.quiet{fill:#59636e}.line{stroke:#d1d9e0}.ours{fill:#0969da}.other{fill:#8c959f}\
.ours-line{stroke:#0969da}.other-line{stroke:#8c959f}.second-line{stroke:#1a7f37}.third-line{stroke:#bc4c00}.title{font-weight:600;font-size:15px}.faint{opacity:.5}\
@media(prefers-color-scheme:dark){.ground{fill:#0d1117;stroke:#3d444d}.text{fill:#f0f6fc}.quiet{fill:#9198a1}.line{stroke:#3d444d}\
.ours{fill:#4493f8}.ours-line{stroke:#4493f8}.other{fill:#767e89}.other-line{stroke:#767e89}.second-line{stroke:#3fb950}.third-line{stroke:#db6d28}}";

/// A picture that grows downward.
struct Drawing {
    body: String,
    y: f64,
}

impl Drawing {
    fn new(title: &str, note: &str) -> Self {
        let mut drawing = Self {
            body: String::new(),
            y: MARGIN + 16.0,
        };
        drawing.text(MARGIN, "text title", "start", title);
        if !note.is_empty() {
            drawing.y += 18.0;
            drawing.text(MARGIN, "quiet", "start", note);
        }
        drawing.y += 12.0;
        drawing
    }

    /// On the line at `y`.
    fn text(&mut self, x: f64, class: &str, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let y = self.y;
        self.push(format_args!(
            "<text x='{x:.1}' y='{y:.1}' class='{class}' text-anchor='{anchor}'>{text}</text>"
        ));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    fn finish(self, title: &str) -> String {
        let height = self.y + MARGIN;
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0}' width='{WIDTH}' height='{height:.0}' role='img'>\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<rect class='ground' x='.5' y='.5' width='{:.0}' height='{:.0}' rx='8'/>\n{}</svg>\n",
            WIDTH - 1.0,
            height - 1.0,
            self.body
        )
    }
}

/// Panels one below the other, each with a scale of its own.
pub(crate) fn bars(title: &str, note: &str, panels: &[Panel]) -> String {
    let mut drawing = Drawing::new(title, note);
    for panel in panels.iter().filter(|panel| !panel.bars.is_empty()) {
        drawing.y += ROW;
        drawing.text(MARGIN, "quiet", "start", &panel.title);
        drawing.y += 6.0;
        let most = panel
            .bars
            .iter()
            .map(|bar| bar.value)
            .fold(f64::MIN_POSITIVE, f64::max);
        for bar in &panel.bars {
            let top = drawing.y + 4.0;
            drawing.y += ROW;
            let length = (bar.value / most * (RIGHT - LEFT)).max(1.0);
            let (class, faint) = (
                if bar.ours { "ours" } else { "other" },
                if bar.faint { " faint" } else { "" },
            );
            drawing.push(format_args!(
                "<rect class='{class}{faint}' x='{LEFT}' y='{top:.1}' width='{length:.1}' height='{:.1}' rx='2'/>",
                ROW - 6.0
            ));
            drawing.y -= 5.5;
            drawing.text(LEFT - 8.0, "text", "end", &bar.label);
            drawing.text(LEFT + length + 6.0, "text", "start", &bar.text);
            drawing.y += 5.5;
        }
    }
    drawing.finish(title)
}

/// A line for each, from its first value to its last, on a logarithmic scale.
pub(crate) fn ranges(title: &str, note: &str, rows: &[Range]) -> String {
    let mut drawing = Drawing::new(title, note);
    let values = || {
        rows.iter()
            .flat_map(|row| row.values)
            .filter(|value| *value > 0.0)
    };
    let least = values().fold(f64::INFINITY, f64::min).log10().floor();
    let most = values().fold(10.0_f64, f64::max).log10().ceil();
    let x = |value: f64| LEFT + (value.max(1e-9).log10() - least) / (most - least).max(1.0) * (RIGHT - LEFT);
    if rows.is_empty() {
        return drawing.finish(title);
    }
    let (top, bottom) = (drawing.y + ROW, drawing.y + ROW * (rows.len() as f64 + 1.5));
    drawing.y += ROW - 6.0;
    let mut power = least;
    while power <= most {
        let at = x(10_f64.powf(power));
        drawing.push(format_args!(
            "<line class='line' x1='{at:.1}' x2='{at:.1}' y1='{top:.1}' y2='{bottom:.1}'/>"
        ));
        drawing.text(at, "quiet", "middle", &format!("{:.0}", 10_f64.powf(power)));
        power += 1.0;
    }
    drawing.y += 6.0;
    for row in rows {
        drawing.y += ROW;
        let [from, late, last] = row.values.map(x);
        let (class, middle) = (if row.ours { "ours" } else { "other" }, drawing.y - 4.0);
        drawing.push(format_args!(
            "<line class='{class}-line' stroke-width='3' x1='{from:.1}' x2='{last:.1}' y1='{middle:.1}' y2='{middle:.1}'/>"
        ));
        for (at, radius) in [(from, 5.0), (late, 4.0), (last, 3.0)] {
            drawing.push(format_args!(
                "<circle class='{class}' cx='{at:.1}' cy='{middle:.1}' r='{radius}'/>"
            ));
        }
        drawing.text(LEFT - 8.0, "text", "end", &row.label);
    }
    drawing.y = bottom;
    drawing.finish(title)
}

/// What lines are drawn with, in their order; the fourth begins anew.
const LINE_CLASSES: [&str; 3] = ["ours", "second", "third"];

/// Lines over time from zero up, with a mark at the foot of each of these moments.
pub(crate) fn lines(title: &str, note: &str, lines: &[Line], marks: &[f64]) -> String {
    let mut drawing = Drawing::new(title, note);
    let points = || lines.iter().flat_map(|line| &line.points);
    let last = points().map(|(at, _)| *at).fold(1.0, f64::max);
    let most = points()
        .map(|(_, value)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    let x = |at: f64| LINES_LEFT + at / last * (WIDTH - MARGIN - LINES_LEFT);
    drawing.y += 8.0;
    for (which, line) in lines.iter().enumerate() {
        let from = LINES_LEFT + 200.0 * which as f64;
        let (class, middle) = (LINE_CLASSES[which % LINE_CLASSES.len()], drawing.y - 4.0);
        drawing.push(format_args!(
            "<line class='{class}-line' stroke-width='3' x1='{from:.1}' x2='{:.1}' y1='{middle:.1}' y2='{middle:.1}'/>",
            from + 16.0
        ));
        drawing.text(from + 22.0, "text", "start", &line.label);
    }
    let top = drawing.y + ROW;
    let y = |value: f64| top + HEIGHT * (1.0 - value / most);
    for rule in 0..=RULES {
        let value = most * f64::from(rule) / f64::from(RULES);
        drawing.push(format_args!(
            "<line class='line' x1='{LINES_LEFT}' x2='{:.1}' y1='{at:.1}' y2='{at:.1}'/>",
            WIDTH - MARGIN,
            at = y(value)
        ));
        drawing.y = y(value) + 4.0;
        drawing.text(LINES_LEFT - 8.0, "quiet", "end", &number(value));
    }
    for mark in marks.iter().filter(|mark| **mark <= last) {
        drawing.push(format_args!(
            "<line class='other-line' x1='{at:.1}' x2='{at:.1}' y1='{:.1}' y2='{:.1}'/>",
            top + HEIGHT,
            top + HEIGHT + 6.0,
            at = x(*mark)
        ));
    }
    for (which, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (at, value) in &line.points {
            // Writing to a `String` cannot fail.
            let _ = write!(path, "{:.1},{:.1} ", x(*at), y(*value));
        }
        let class = LINE_CLASSES[which % LINE_CLASSES.len()];
        drawing.push(format_args!(
            "<polyline class='{class}-line' fill='none' stroke-width='1.5' points='{}'/>",
            path.trim_end()
        ));
    }
    drawing.y = top + HEIGHT + ROW;
    drawing.text(LINES_LEFT, "quiet", "start", "0");
    drawing.text(WIDTH - MARGIN, "quiet", "end", &format!("{last:.0} s"));
    drawing.finish(title)
}

/// A number of a scale, with three digits that count.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

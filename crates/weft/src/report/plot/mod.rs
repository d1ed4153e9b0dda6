//! Plots as inline SVG: axes, lines, clouds, markers, error bars and labels.
//!
//! A [`Chart`] maps figures to pixels through two [`Scale`]s and writes SVG as series are added. Colors come from
//! the page's style sheet through classes (`k-runs`, `k-refined`, …), so that they follow the light or dark scheme.
//! A figure that is not finite or lies outside its axis is left out; a line breaks there.

mod labels;
mod scale;

use super::data::Estimate;
use super::html::escape;
pub(crate) use labels::Label;
use labels::{Rect, arrange, spread};
pub(crate) use scale::{Format, Scale};
use std::fmt::Write;

/// Size and margins of a chart, in its own units; the page scales it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    /// Names the variant in ids: a chart may be on the page twice, for wide and for narrow screens.
    suffix: &'static str,
}

impl Frame {
    /// For the whole width of a wide screen.
    pub(crate) const WIDE: Self = Self { width: 880.0, height: 470.0, left: 56.0, right: 16.0, suffix: "-w" };
    /// The same chart on a narrow screen.
    pub(crate) const NARROW: Self = Self { width: 360.0, height: 380.0, left: 52.0, right: 10.0, suffix: "-n" };
    /// Half the width of a wide screen, or the whole of a narrow one.
    pub(crate) const HALF: Self = Self { width: 400.0, height: 290.0, left: 60.0, right: 22.0, suffix: "" };

    /// Whether there is room for names beside markers.
    pub(crate) fn is_wide(&self) -> bool {
        self.width > 600.0
    }
}

const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// The shape of a marker: a second way, beside color, to tell kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A filled circle.
    Disc,
    /// An open circle.
    Ring,
    /// A filled diamond.
    Diamond,
    /// An open square.
    Square,
    /// A diagonal cross.
    Cross,
}

/// An axis: its scale and what it measures.
pub(crate) struct Axis<'a> {
    /// The scale.
    pub(crate) scale: Scale,
    /// What is measured, with its unit.
    pub(crate) label: &'a str,
}

/// A chart under construction.
pub(crate) struct Chart {
    frame: Frame,
    x: Scale,
    y: Scale,
    body: String,
    /// What labels must not cover, beside the markers.
    taken: Vec<Rect>,
    starts: Vec<(f64, f64, String, String)>,
}

impl Chart {
    /// An empty chart with its axes drawn.
    pub(crate) fn new(frame: Frame, x: Axis, y: Axis) -> Self {
        let mut chart = Self { frame, x: x.scale, y: y.scale, body: String::new(), taken: Vec::new(), starts: Vec::new() };
        chart.draw_axes(x.label, y.label);
        chart
    }

    fn right(&self) -> f64 {
        self.frame.width - self.frame.right
    }

    fn bottom(&self) -> f64 {
        self.frame.height - BOTTOM
    }

    fn px_x(&self, at: f64) -> f64 {
        self.frame.left + at * (self.right() - self.frame.left)
    }

    fn px_y(&self, at: f64) -> f64 {
        self.bottom() - at * (self.bottom() - TOP)
    }

    /// The pixel of a figure, if both coordinates lie within the axes.
    fn pixel(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.px_x(self.x.place(x)?), self.px_y(self.y.place(y)?)))
    }

    fn put(&mut self, element: std::fmt::Arguments) {
        self.body.write_fmt(element).expect("writing to a string cannot fail");
    }

    fn draw_axes(&mut self, x_label: &str, y_label: &str) {
        let (left, right, top, bottom) = (self.frame.left, self.right(), TOP, self.bottom());
        for tick in self.y.ticks.clone() {
            let y = self.px_y(tick.at);
            self.put(format_args!("<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>"));
            self.put(format_args!("<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">", left - 7.0, y + 3.6));
            self.put(format_args!("{}</text>", escape(&tick.label)));
        }
        for tick in self.x.ticks.clone() {
            let x = self.px_x(tick.at);
            self.put(format_args!("<path class=\"axis\" d=\"M{x:.1} {bottom:.1}v4\"/>"));
            self.put(format_args!("<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">", bottom + 17.0));
            self.put(format_args!("{}</text>", escape(&tick.label)));
        }
        self.put(format_args!("<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/>"));
        let (middle_x, middle_y) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
        self.put(format_args!(
            "<text class=\"name\" x=\"{middle_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 36.0,
            escape(x_label)
        ));
        self.put(format_args!(
            "<text class=\"name\" x=\"11\" y=\"{middle_y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 11 {middle_y:.1})\">{}</text>",
            escape(y_label)
        ));
    }

    /// A line through the figures; it breaks where one cannot be shown.
    pub(crate) fn line(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        let mut is_drawing = false;
        for pixel in points.iter().map(|&p| self.pixel(p)) {
            if let Some((x, y)) = pixel {
                write!(path, "{}{x:.1} {y:.1}", if is_drawing { "L" } else { "M" }).expect("writing to a string cannot fail");
            }
            is_drawing = pixel.is_some();
        }
        if !path.is_empty() {
            self.put(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
        }
    }

    /// The area between `low` and `high` at each position.
    pub(crate) fn band(&mut self, class: &str, points: &[(f64, f64, f64)]) {
        let edge = |x: f64, y: f64| Some((self.px_x(self.x.place(x)?), self.px_y(self.y.place_clamped(y)?)));
        let pairs: Vec<_> = points.iter().filter_map(|&(x, low, high)| Some((edge(x, low)?, edge(x, high)?))).collect();
        if pairs.len() < 2 {
            return;
        }
        let outline = pairs.iter().map(|p| p.0).chain(pairs.iter().rev().map(|p| p.1));
        let path: Vec<String> = outline.map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        self.put(format_args!("<path class=\"band {class}\" d=\"M{}Z\"/>", path.join("L")));
    }

    /// A dot a figure, all in one path.
    pub(crate) fn cloud(&mut self, class: &str, points: &[(f64, f64)]) {
        let dots: Vec<String> = points.iter().filter_map(|&p| self.pixel(p)).map(|(x, y)| format!("M{x:.1} {y:.1}h0")).collect();
        if !dots.is_empty() {
            self.put(format_args!("<path class=\"cloud {class}\" d=\"{}\"/>", dots.concat()));
        }
    }

    /// A marker with a tooltip.
    pub(crate) fn marker(&mut self, class: &str, shape: Shape, at: (f64, f64), tooltip: &str) {
        let Some((x, y)) = self.pixel(at) else { return };
        let path = match shape {
            Shape::Disc | Shape::Ring => format!("M{:.1} {y:.1}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z", x - 4.5),
            Shape::Diamond => format!("M{x:.1} {:.1}l6.5 6.5l-6.5 6.5l-6.5 -6.5Z", y - 6.5),
            Shape::Square => format!("M{:.1} {:.1}h8v8h-8Z", x - 4.0, y - 4.0),
            Shape::Cross => format!("M{:.1} {:.1}l7 7m0 -7l-7 7", x - 3.5, y - 3.5),
        };
        let fill = match shape {
            Shape::Disc | Shape::Diamond => "solid",
            Shape::Ring | Shape::Square | Shape::Cross => "open",
        };
        self.put(format_args!("<path class=\"mark {fill} {class}\" d=\"{path}\"><title>{}</title></path>", escape(tooltip)));
    }

    /// Vertical error bars of one standard error.
    pub(crate) fn error_bars(&mut self, class: &str, points: &[(f64, Estimate)]) {
        for &(x, e) in points {
            let ends = (self.y.place_clamped(e.mean - e.se), self.y.place_clamped(e.mean + e.se));
            let (Some(at), (Some(low), Some(high))) = (self.pixel((x, e.mean)), ends) else { continue };
            let (x, low, high) = (at.0, self.px_y(low), self.px_y(high));
            if low - high >= 1.0 {
                let left = x - 3.0;
                self.put(format_args!(
                    "<path class=\"error {class}\" d=\"M{x:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}h6M{left:.1} {high:.1}h6\"/>"
                ));
            }
        }
    }

    /// A horizontal line across the plot, named at its right end.
    pub(crate) fn rule_y(&mut self, y: f64, name: &str) {
        let Some(at) = self.y.place(y) else { return };
        let (left, right, y) = (self.frame.left, self.right(), self.px_y(at));
        self.put(format_args!("<path class=\"rule\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>"));
        self.note((right - 4.0, if at > 0.9 { y + 14.0 } else { y - 5.0 }), "end", name);
    }

    /// A vertical line across the plot, named at its lower end.
    pub(crate) fn rule_x(&mut self, x: f64, name: &str) {
        let Some(at) = self.x.place(x) else { return };
        let (bottom, x) = (self.bottom(), self.px_x(at));
        let (dx, anchor) = if at > 0.7 { (-5.0, "end") } else { (5.0, "start") };
        self.put(format_args!("<path class=\"rule\" d=\"M{x:.1} {TOP}V{bottom:.1}\"/>"));
        self.note((x + dx, bottom - 8.0), anchor, name);
    }

    fn note(&mut self, (x, y): (f64, f64), anchor: &str, text: &str) {
        let width = labels::width(text);
        let left = if anchor == "end" { x - width } else { x };
        self.taken.push(Rect { x: left, y: y - 11.0, width, height: 14.0 });
        self.put(format_args!("<text class=\"note\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text)));
    }

    /// Labels beside markers, in decreasing importance; they avoid each other and the markers.
    pub(crate) fn labels(&mut self, labels: &[Label]) {
        let bounds = Rect { x: self.frame.left + 2.0, y: 2.0, width: self.right() - self.frame.left, height: self.bottom() - 4.0 };
        let pixels: Vec<_> = labels.iter().map(|l| self.pixel(l.at)).collect();
        for (label, placed) in labels.iter().zip(arrange(labels, &pixels, bounds, &self.taken)) {
            let Some(placed) = placed else { continue };
            if let Some(((x1, y1), (x2, y2))) = placed.leader {
                self.put(format_args!("<path class=\"leader\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>"));
            }
            self.put(format_args!(
                "<text class=\"label {}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text>",
                label.class,
                placed.x,
                placed.y,
                placed.anchor,
                escape(&placed.text)
            ));
        }
    }

    /// Asks for a short label at the left end of a series.
    pub(crate) fn start_label(&mut self, class: &str, at: (f64, f64), text: &str) {
        if let Some((x, y)) = self.pixel(at) {
            self.starts.push((x - 10.0, y, text.to_owned(), class.to_owned()));
        }
    }

    /// The finished SVG; `title` names it for readers who cannot see it and `description` says what it shows.
    pub(crate) fn finish(mut self, id: &str, title: &str, description: &str) -> String {
        let starts = std::mem::take(&mut self.starts);
        let heights: Vec<f64> = starts.iter().map(|s| s.1).collect();
        for ((x, _, text, class), y) in starts.iter().zip(spread(&heights, 12.0, (TOP, self.bottom() - 4.0))) {
            let y = y + 3.8;
            self.put(format_args!(
                "<text class=\"label {class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
                escape(text)
            ));
        }
        let Frame { width, height, suffix, .. } = self.frame;
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}{suffix}-t {id}{suffix}-d\">\
             <title id=\"{id}{suffix}-t\">{}</title><desc id=\"{id}{suffix}-d\">{}</desc>{}</svg>",
            escape(title),
            escape(description),
            self.body
        )
    }
}

/// A figure: charts and legend over a caption. Every argument but the class is HTML.
pub(crate) fn figure(class: &str, charts: &str, legend: &str, caption: &str) -> String {
    let legend = if legend.is_empty() { String::new() } else { format!("<ul class=\"legend\">{legend}</ul>") };
    format!("<figure class=\"{class}\">{legend}<div class=\"charts\">{charts}</div><figcaption>{caption}</figcaption></figure>\n")
}

/// A chart drawn twice, for wide and for narrow screens, so that its text stays legible on both.
pub(crate) fn responsive(draw: impl Fn(Frame) -> String) -> String {
    format!("<div class=\"on-wide\">{}</div><div class=\"on-narrow\">{}</div>", draw(Frame::WIDE), draw(Frame::NARROW))
}

/// A sample of a marker, or of a line where there is no shape.
pub(crate) fn swatch(class: &str, shape: Option<Shape>) -> String {
    let sample = match shape {
        Some(Shape::Disc) => "<circle class=\"mark solid\" cx=\"9\" cy=\"6\" r=\"4.5\"/>",
        Some(Shape::Ring) => "<circle class=\"mark open\" cx=\"9\" cy=\"6\" r=\"4.5\"/>",
        Some(Shape::Diamond) => "<path class=\"mark solid\" d=\"M9 0l6 6l-6 6l-6 -6Z\"/>",
        Some(Shape::Square) => "<path class=\"mark open\" d=\"M5 2h8v8h-8Z\"/>",
        Some(Shape::Cross) => "<path class=\"mark open\" d=\"M6 3l6 6m0 -6l-6 6\"/>",
        None => "<path class=\"line\" d=\"M0 6H18\"/>",
    };
    format!("<svg class=\"swatch {class}\" viewBox=\"0 0 18 12\" aria-hidden=\"true\">{sample}</svg>")
}

/// An entry of a legend.
pub(crate) fn legend_entry(class: &str, shape: Option<Shape>, name: &str) -> String {
    format!("<li>{}{}</li>", swatch(class, shape), escape(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart {
        let axis = || Axis { scale: Scale::linear(values.iter().copied(), Format::Number), label: "a < b" };
        Chart::new(Frame::HALF, axis(), axis())
    }

    #[test]
    fn a_line_breaks_at_figures_that_cannot_be_shown() {
        let mut chart = chart(&[0.0, 1.0]);
        chart.line("k", &[(0.0, 0.0), (0.5, 0.5), (0.6, f64::NAN), (0.7, 9.0), (0.8, 0.8), (1.0, 1.0)]);
        let svg = chart.finish("id", "t", "d");
        let line = svg.split("class=\"line k\" d=\"").nth(1).and_then(|s| s.split('"').next());
        assert_eq!(line.map(|d| (d.matches('M').count(), d.matches('L').count())), Some((2, 2)));
    }

    #[test]
    fn hostile_figures_leave_no_trace() {
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308];
        let mut chart = chart(&bad);
        for v in bad {
            chart.line("k", &[(v, v), (0.5, v)]);
            chart.cloud("k", &[(v, v)]);
            chart.marker("k", Shape::Disc, (v, 0.5), "x");
            chart.band("k", &[(0.1, v, v), (0.2, 0.1, v), (0.3, v, 0.2)]);
            chart.error_bars("k", &[(0.5, Estimate { mean: v, se: v }), (0.5, Estimate { mean: 0.5, se: v })]);
            chart.rule_x(v, "x");
            chart.rule_y(v, "y");
            chart.start_label("k", (v, v), "end");
            chart.labels(&[Label { at: (v, 0.2), texts: vec!["x".into()], class: "k" }]);
        }
        let svg = chart.finish("id", "<t>", "d");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("&lt;t&gt;") && svg.contains("a &lt; b"));
    }
}

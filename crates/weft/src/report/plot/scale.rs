//! Scales: from figures to positions in `[0, 1]`, with ticks at round numbers.

use crate::report::html;

/// Values of larger magnitude are left out of plots, and spans below its inverse count as zero.
const LARGEST: f64 = 1e12;

/// How ticks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// As numbers.
    Number,
    /// Fractions as percentages.
    Percent,
}

/// A tick: its position in `[0, 1]` and its text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// The position.
    pub(crate) at: f64,
    /// The text.
    pub(crate) label: String,
}

/// A scale that maps a closed range of figures onto `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    lo: f64,
    hi: f64,
    is_log: bool,
    /// The ticks, in increasing position.
    pub(crate) ticks: Vec<Tick>,
}

impl Scale {
    /// A linear scale over the finite values, widened to round numbers.
    pub(crate) fn linear(values: impl IntoIterator<Item = f64>, format: Format) -> Self {
        let (lo, hi) = widened(extent(values, |v| v.abs() <= LARGEST).unwrap_or((0.0, 1.0)));
        let step = nice_step((hi - lo) / 5.0);
        let first = (lo / step + 1e-9).floor() as i64;
        let last = (hi / step - 1e-9).ceil() as i64;
        let (lo, hi) = (first as f64 * step, last as f64 * step);
        let ticks = (first..=last)
            .map(|i| Tick { at: (i - first) as f64 / (last - first) as f64, label: tick_label(i as f64 * step, step, format) })
            .collect();
        Self { lo, hi, is_log: false, ticks }
    }

    /// A linear scale over exactly `lo..=hi`, two finite numbers in that order; ticks are the round numbers within.
    pub(crate) fn window(lo: f64, hi: f64, format: Format) -> Self {
        let (lo, hi) = widened((lo, hi));
        let step = nice_step((hi - lo) / 5.0);
        let ticks = ((lo / step - 1e-9).ceil() as i64..=(hi / step + 1e-9).floor() as i64)
            .map(|i| i as f64 * step)
            .map(|v| Tick { at: (v - lo) / (hi - lo), label: tick_label(v, step, format) })
            .collect();
        Self { lo, hi, is_log: false, ticks }
    }

    /// A logarithmic scale over the positive finite values; it reaches down at most ten decades.
    pub(crate) fn log(values: impl IntoIterator<Item = f64>) -> Self {
        let (lo, hi) = extent(values, |v| v > 1.0 / LARGEST && v <= LARGEST).unwrap_or((1.0, 10.0));
        let (lo, hi) = if hi / lo < 1.5 { (lo / 2.0, hi * 2.0) } else { (lo.max(hi * 1e-10), hi) };
        let ticks = log_ticks(lo, hi);
        Self { lo, hi, is_log: true, ticks }
    }

    /// A scale whose ticks are the given figures, such as thresholds, beginning at zero.
    pub(crate) fn at(marks: &[f64], label: impl Fn(f64) -> String) -> Self {
        let (_, hi) = widened((0.0, extent(marks.iter().copied(), |v| (0.0..=LARGEST).contains(&v)).map_or(1.0, |e| e.1)));
        let hi = hi * 1.04;
        let ticks = marks.iter().filter(|m| (0.0..=hi).contains(*m)).map(|&m| Tick { at: m / hi, label: label(m) }).collect();
        Self { lo: 0.0, hi, is_log: false, ticks }
    }

    /// The position of a figure; none if it is not finite or lies outside.
    pub(crate) fn place(&self, v: f64) -> Option<f64> {
        let at = if self.is_log { (v / self.lo).ln() / (self.hi / self.lo).ln() } else { (v - self.lo) / (self.hi - self.lo) };
        (v.is_finite() && (-1e-6..=1.0 + 1e-6).contains(&at)).then(|| at.clamp(0.0, 1.0))
    }

    /// The position of a figure, pushed to the nearer end if it lies outside; none if it is not a number.
    pub(crate) fn place_clamped(&self, v: f64) -> Option<f64> {
        let v = if self.is_log { v.max(self.lo) } else { v };
        if v.is_nan() { None } else { self.place(v.clamp(self.lo, self.hi)) }
    }
}

/// Smallest and largest of the values that count.
fn extent(values: impl IntoIterator<Item = f64>, counts: impl Fn(f64) -> bool) -> Option<(f64, f64)> {
    values.into_iter().filter(|v| v.is_finite() && counts(*v)).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((lo, hi)) => Some((v.min(lo), v.max(hi))),
    })
}

/// A range of no width gets some.
fn widened((lo, hi): (f64, f64)) -> (f64, f64) {
    let magnitude = lo.abs().max(hi.abs());
    if hi - lo > (magnitude * 1e-9).max(1.0 / LARGEST) {
        return (lo, hi);
    }
    let pad = if magnitude > 1e-9 { magnitude * 0.1 } else { 0.5 };
    (lo - pad, hi + pad)
}

/// The smallest of `1, 2, 5 × 10ᵏ` that is not below a positive step.
fn nice_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    let nice = [1.0, 2.0, 5.0].into_iter().find(|m| step <= m * decade * (1.0 + 1e-9)).unwrap_or(10.0);
    nice * decade
}

fn tick_label(v: f64, step: f64, format: Format) -> String {
    let scale = if format == Format::Percent { 100.0 } else { 1.0 };
    let (v, step) = (v * scale, step * scale);
    let decimals = (-(step * (1.0 + 1e-9)).log10().floor()).max(0.0) as usize;
    let text = if v != 0.0 && (decimals > 4 || v.abs() >= 1e5) {
        html::scientific(v, 1)
    } else {
        format!("{v:.decimals$}").replace('-', "−")
    };
    if format == Format::Percent { format!("{text}%") } else { text }
}

/// Ticks at `1, 2, 5 × 10ᵏ` where that gives few, else at (some) decades.
fn log_ticks(lo: f64, hi: f64) -> Vec<Tick> {
    const MOST: usize = 7;
    let decades = lo.log10().floor() as i32..=hi.log10().ceil() as i32;
    let within = |v: f64| v >= lo * (1.0 - 1e-9) && v <= hi * (1.0 + 1e-9);
    let tick = |v: f64| Tick { at: (v / lo).ln() / (hi / lo).ln(), label: log_label(v) };
    let fine: Vec<f64> = decades.clone().flat_map(|k| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(k))).filter(|&v| within(v)).collect();
    let coarse: Vec<f64> = decades.map(|k| 10f64.powi(k)).filter(|&v| within(v)).collect();
    let every = coarse.len().div_ceil(MOST).max(1);
    let chosen = if fine.len() <= MOST { fine } else { coarse.into_iter().step_by(every).collect() };
    chosen.into_iter().map(tick).collect()
}

fn log_label(v: f64) -> String {
    let exponent = v.log10();
    if (1e-3..1e5).contains(&v) {
        format!("{v:.*}", (-exponent - 1e-9).ceil().max(0.0) as usize)
    } else if (exponent - exponent.round()).abs() < 1e-6 {
        format!("10{}", html::superscript(&format!("{:.0}", exponent.round())))
    } else {
        html::scientific(v, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|t| t.label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        assert_eq!(labels(&Scale::linear([0.0, 0.97], Format::Number)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Scale::linear([0.91, 0.953], Format::Percent)), ["91%", "92%", "93%", "94%", "95%", "96%"]);
        assert_eq!(labels(&Scale::linear([-1.2, 0.4], Format::Number)), ["−1.5", "−1.0", "−0.5", "0.0", "0.5"]);
        assert_eq!(labels(&Scale::log([2.0, 4.0, 64.0])), ["2", "5", "10", "20", "50"]);
        assert_eq!(labels(&Scale::log([1e-6, 1.0])), ["10⁻⁶", "10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(&Scale::at(&[0.5, 1.0, f64::NAN], html::threshold)), ["½", "1"]);
        assert_eq!(labels(&Scale::window(0.87, 0.94, Format::Percent)), ["88%", "90%", "92%", "94%"]);
    }

    #[test]
    fn hostile_ranges_give_finite_scales() {
        let cases: [&[f64]; 9] = [
            &[],
            &[f64::NAN],
            &[f64::INFINITY, f64::NEG_INFINITY],
            &[0.0, 0.0],
            &[3.0],
            &[1e300, -1e300],
            &[5e-324, 1e-310],
            &[1e11, 1e11 + 1e-5],
            &[-1.0, -2.0],
        ];
        for values in cases {
            for scale in [
                Scale::linear(values.iter().copied(), Format::Number),
                Scale::log(values.iter().copied()),
                Scale::at(values, html::compact),
            ] {
                assert!(scale.lo.is_finite() && scale.hi > scale.lo, "{values:?}: {scale:?}");
                assert!(scale.ticks.len() < 20, "{values:?}: {scale:?}");
                assert!(scale.ticks.iter().all(|t| (-1e-6..=1.000_001).contains(&t.at)), "{values:?}: {scale:?}");
                assert!(values.iter().filter_map(|&v| scale.place(v)).all(|p| (0.0..=1.0).contains(&p)));
            }
        }
    }

    #[test]
    fn positions_follow_the_order_of_values() {
        for scale in [Scale::linear([0.0, 8.0], Format::Number), Scale::log([0.1, 8.0])] {
            let at: Vec<f64> = [0.1, 1.0, 3.0, 8.0].into_iter().filter_map(|v| scale.place(v)).collect();
            assert!(at.len() == 4 && at.is_sorted(), "{at:?}");
        }
        assert_eq!(Scale::linear([0.0, 1.0], Format::Number).place(2.0), None);
        assert_eq!(Scale::linear([0.0, 1.0], Format::Number).place_clamped(2.0), Some(1.0));
        assert_eq!(Scale::log([1.0, 10.0]).place(0.0), None);
        assert_eq!(Scale::log([1.0, 10.0]).place_clamped(0.0), Some(0.0));
    }
}

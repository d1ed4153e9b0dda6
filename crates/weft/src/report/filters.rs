//! Sampled networks' first-layer weights beside those of their nearest training networks.
//!
//! Each network is one strip of small images, its units' incoming weights, and the two strips of a pair lie one above the
//! other, so that matched units can be compared. Color says the sign and opacity the magnitude: zero is the page's own
//! background in the light and in the dark scheme.

use super::data::{FilterPair, Report};
use super::html::{self, each, escape, section};
use super::png::{self, Rgba};

/// Units shown of each network.
const MOST_UNITS: usize = 16;

/// The section, or nothing where no pair can be shown.
pub(crate) fn filters(report: &Report) -> String {
    let pairs: Vec<&FilterPair> = report.filters.iter().filter(|pair| is_shown(pair)).collect();
    if pairs.is_empty() {
        return String::new();
    }
    let content = format!(
        "<p>Each small square holds the incoming weights of one hidden unit of the first layer, \
         <span class=\"positive\">positive</span> or <span class=\"negative\">negative</span>, stronger where they are \
         larger. Above a sampled network, below the training network nearest to it, its units in the matched order and on the \
         same scale. A copy would look the same twice.</p>\n<div class=\"pairs\">{}</div>",
        each(pairs, pair)
    );
    section("filters", "First-layer weights", &content)
}

/// Whether both networks have whole images of the size they claim.
fn is_shown(pair: &FilterPair) -> bool {
    let is_whole =
        |units: &[Vec<f32>]| !units.is_empty() && units.iter().all(|u| Some(u.len()) == pair.side.checked_mul(pair.side));
    (1..=256).contains(&pair.side) && is_whole(&pair.sampled) && is_whole(&pair.nearest)
}

fn pair(pair: &FilterPair) -> String {
    let scale = magnitude(pair);
    let image = |units: &[Vec<f32>], what: &str, accuracy: f64| {
        let (width, height, indexes) = layout(&units[..units.len().min(MOST_UNITS)], pair.side, scale);
        format!(
            "<p>{what}, {}</p><img src=\"{}\" width=\"{width}\" height=\"{height}\" alt=\"First-layer weights of the {what} network\">",
            html::percent(accuracy),
            png::data_uri(&png::encode(width, &indexes, &palette()))
        )
    };
    format!(
        "<figure class=\"pair\"><figcaption><strong>{}</strong> distance {}\u{202f}d₁</figcaption><div class=\"strips\" style=\"max-width:{}rem\">{}{}</div></figure>",
        escape(&pair.name),
        html::fixed(pair.distance, 2),
        pair.sampled.len().max(pair.nearest.len()).min(MOST_UNITS) * 4,
        image(&pair.sampled, "sampled", pair.accuracy),
        image(&pair.nearest, "nearest training", pair.nearest_accuracy)
    )
}

/// The 99th percentile of the pair's magnitudes: a few extreme weights should not fade the others.
fn magnitude(pair: &FilterPair) -> f32 {
    let mut all: Vec<f32> = pair.sampled.iter().chain(&pair.nearest).flatten().map(|w| w.abs()).filter(|w| w.is_finite()).collect();
    all.sort_by(f32::total_cmp);
    let largest = all.get(all.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0.0);
    if largest > 0.0 { largest } else { 1.0 }
}

/// Units side by side with a gap of one pixel, as palette indexes: 128 is zero, 1 and 255 the ends, 0 the gap.
fn layout(units: &[Vec<f32>], side: usize, scale: f32) -> (usize, usize, Vec<u8>) {
    let width = (units.len() * (side + 1)).saturating_sub(1);
    let mut indexes = vec![0u8; width * side];
    for (unit, weights) in units.iter().enumerate() {
        for (pixel, weight) in weights.iter().enumerate() {
            let level = if weight.is_nan() { 0.0 } else { (weight / scale).clamp(-1.0, 1.0) };
            indexes[pixel / side * width + unit * (side + 1) + pixel % side] = (128.0 + level * 127.0).round() as u8;
        }
    }
    (width, side, indexes)
}

/// Blue for negative, orange for positive, opaque at the ends; index 0 is the gap.
fn palette() -> [Rgba; 256] {
    std::array::from_fn(|i| {
        let level = if i == 0 { 0.0 } else { (i as f64 - 128.0) / 127.0 };
        let [r, g, b] = if level < 0.0 { [38, 104, 196] } else { [214, 106, 20] };
        [r, g, b, (level.abs().powf(0.8) * 255.0).round() as u8]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_lie_side_by_side_with_gaps() {
        let units = vec![vec![1.0, -1.0, 0.0, f32::NAN]; 3];
        let (width, height, indexes) = layout(&units, 2, 1.0);
        assert_eq!((width, height), (8, 2));
        assert_eq!(indexes, [255, 1, 0, 255, 1, 0, 255, 1, 128, 128, 0, 128, 128, 0, 128, 128]);
    }

    #[test]
    fn pairs_of_the_wrong_size_are_left_out() {
        let whole = FilterPair { side: 2, sampled: vec![vec![0.0; 4]], nearest: vec![vec![0.0; 4]], ..FilterPair::default() };
        assert!(is_shown(&whole));
        for broken in [
            FilterPair { side: 0, ..whole.clone() },
            FilterPair { side: usize::MAX, ..whole.clone() },
            FilterPair { nearest: vec![vec![0.0; 3]], ..whole.clone() },
            FilterPair { sampled: Vec::new(), ..whole.clone() },
        ] {
            assert!(!is_shown(&broken), "{broken:?}");
        }
    }
}

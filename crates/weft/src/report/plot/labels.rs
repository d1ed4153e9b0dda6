//! Where labels go, so that they cover neither each other nor the markers.

/// A label of a marker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Label<'a> {
    /// The marker's figure.
    pub(crate) at: (f64, f64),
    /// What may be written, best first; a later text is used where an earlier one finds no room.
    pub(crate) texts: Vec<String>,
    /// Its class.
    pub(crate) class: &'a str,
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    /// Left edge.
    pub(crate) x: f64,
    /// Top edge.
    pub(crate) y: f64,
    /// Width.
    pub(crate) width: f64,
    /// Height.
    pub(crate) height: f64,
}

impl Rect {
    fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }

    fn is_within(&self, other: &Self) -> bool {
        self.x >= other.x
            && self.y >= other.y
            && self.x + self.width <= other.x + other.width
            && self.y + self.height <= other.y + other.height
    }
}

/// A line between two pixels.
pub(crate) type Segment = ((f64, f64), (f64, f64));

/// A label with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    /// Baseline of the text.
    pub(crate) y: f64,
    /// Where it is anchored.
    pub(crate) x: f64,
    /// SVG `text-anchor`.
    pub(crate) anchor: &'static str,
    /// What is written.
    pub(crate) text: String,
    /// A line from the marker, where the label is not next to it.
    pub(crate) leader: Option<Segment>,
}

const HEIGHT: f64 = 13.0;
const DISTANCES: [f64; 5] = [9.0, 18.0, 30.0, 44.0, 60.0];
const DIRECTIONS: [(f64, f64); 10] = [
    (1.0, 0.0),
    (-1.0, 0.0),
    (0.8, -0.6),
    (0.8, 0.6),
    (-0.8, -0.6),
    (-0.8, 0.6),
    (0.0, -1.0),
    (0.0, 1.0),
    (0.45, -0.9),
    (0.45, 0.9),
];

/// Finds a place for each label within `bounds` that covers no marker and nothing of `taken`, greedily in their order:
/// nearest first, then shorter texts.
///
/// A label whose marker is not shown, or for which there is no room at all, has none.
pub(crate) fn arrange(labels: &[Label], markers: &[Option<(f64, f64)>], bounds: Rect, taken: &[Rect]) -> Vec<Option<Placed>> {
    let square = |&(x, y): &(f64, f64)| Rect { x: x - 6.0, y: y - 6.0, width: 12.0, height: 12.0 };
    let mut taken: Vec<Rect> = markers.iter().flatten().map(square).chain(taken.iter().copied()).collect();
    let mut place = |label: &Label, marker: (f64, f64)| {
        label.texts.iter().find_map(|text| {
            let (rect, placed) = candidates(text, marker)
                .find(|(rect, _)| rect.is_within(&bounds) && !taken.iter().any(|other| rect.overlaps(other)))?;
            taken.push(rect);
            Some(placed)
        })
    };
    labels.iter().zip(markers).map(|(label, marker)| place(label, (*marker)?)).collect()
}

/// About how wide a text is in the page's small type; generous, since fonts differ.
pub(crate) fn width(text: &str) -> f64 {
    text.chars().map(|c| if c.is_ascii() { 6.4 } else { 8.5 }).sum()
}

fn candidates(text: &str, (x, y): (f64, f64)) -> impl Iterator<Item = (Rect, Placed)> {
    let width = width(text);
    DISTANCES.into_iter().flat_map(move |d| DIRECTIONS.into_iter().map(move |(dx, dy)| (d, dx, dy))).map(move |(d, dx, dy)| {
        let (at_x, at_y) = (x + dx * d, y + dy * d);
        let (anchor, left) = match dx {
            dx if dx > 0.1 => ("start", at_x),
            dx if dx < -0.1 => ("end", at_x - width),
            _ => ("middle", at_x - width / 2.0),
        };
        let rect = Rect { x: left, y: at_y - HEIGHT / 2.0, width, height: HEIGHT };
        let leader = (d > 10.0).then_some(((x + dx * 6.0, y + dy * 6.0), (at_x - dx * 2.0, at_y - dy * 6.0)));
        (rect, Placed { x: at_x, y: at_y + 4.0, anchor, text: text.to_owned(), leader })
    })
}

/// Moves heights apart until neighbours differ by `gap`, keeping their order, and as far as possible within `bounds`.
pub(crate) fn spread(heights: &[f64], gap: f64, bounds: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|&a, &b| heights[a].total_cmp(&heights[b]));
    let mut out = heights.to_vec();
    let mut floor = bounds.0;
    for &i in &order {
        out[i] = out[i].max(floor);
        floor = out[i] + gap;
    }
    let mut ceiling = bounds.1;
    for &i in order.iter().rev() {
        out[i] = out[i].min(ceiling);
        ceiling = out[i] - gap;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_one_spot_do_not_overlap_and_fall_back_to_short_texts() {
        let bounds = Rect { x: 0.0, y: 0.0, width: 300.0, height: 200.0 };
        let labels: Vec<Label> =
            (0..30).map(|i| Label { at: (0.0, 0.0), texts: vec![format!("a long name {i}"), i.to_string()], class: "" }).collect();
        let markers = vec![Some((150.0, 100.0)); 30];
        let placed = arrange(&labels, &markers, bounds, &[]);
        let rects: Vec<Rect> = placed
            .iter()
            .flatten()
            .filter_map(|p| candidates(&p.text, (150.0, 100.0)).find(|(_, other)| other == p))
            .map(|(rect, _)| rect)
            .collect();
        assert!(rects.len() > 8, "{}", rects.len());
        for (i, a) in rects.iter().enumerate() {
            assert!(a.is_within(&bounds));
            assert!(rects[i + 1..].iter().all(|b| !a.overlaps(b)), "{a:?}");
        }
        let narrow = Rect { x: 120.0, y: 70.0, width: 60.0, height: 60.0 };
        assert_eq!(arrange(&labels[..1], &markers[..1], narrow, &[])[0].as_ref().map(|p| p.text.as_str()), Some("0"));
        assert_eq!(arrange(&labels[..1], &[None], bounds, &[]), [None]);
    }

    #[test]
    fn heights_are_spread_in_order() {
        let spread_out = spread(&[50.0, 50.0, 49.0, 99.0], 10.0, (0.0, 100.0));
        assert_eq!(spread_out, [59.0, 69.0, 49.0, 99.0]);
        assert_eq!(spread(&[100.0, 100.0], 10.0, (0.0, 100.0)), [90.0, 100.0]);
    }
}

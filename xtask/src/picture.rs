//! A report's scatter plot as a picture of its own, with the page's colors for light and dark.

/// Room around the plot, in the plot's own units.
const MARGIN: f64 = 16.0;

/// The plot of accuracy against distance; `None` if the page has none.
pub(crate) fn of_report(page: &str) -> Option<String> {
    let style = between(page, "<style>", "</style>")?;
    let place = page.find("aria-labelledby=\"scatter-w-t")?;
    let plot = between(&page[page[..place].rfind("<svg")?..], "<svg", "</svg>")?;
    let (attributes, content) = plot.split_once('>')?;
    let view = between(attributes, "viewBox=\"", "\"")?;
    let size: Vec<f64> = view.split(' ').map_while(|number| number.parse().ok()).collect();
    let &[_, _, width, height] = &size[..] else { return None };
    let (width, height) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-{MARGIN} -{MARGIN} {width} {height}\" width=\"{width}\" height=\"{height}\">\
         <style>{style}</style>\
         <rect x=\"-{MARGIN}\" y=\"-{MARGIN}\" width=\"{width}\" height=\"{height}\" style=\"fill: var(--paper)\"/>{content}</svg>\n"
    ))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plot_takes_the_page_s_style_along() {
        let page = "<style>a{}</style><svg class=\"swatch\"><path/></svg>\
                    <svg viewBox=\"0 0 880 470\" aria-labelledby=\"scatter-w-t scatter-w-d\"><circle/></svg><svg></svg>";
        let svg = of_report(page).expect("a plot");
        assert!(svg.contains("viewBox=\"-16 -16 912 502\"") && svg.contains("<style>a{}</style>"), "{svg}");
        assert!(svg.ends_with("<circle/></svg>\n") && !svg.contains("<path/>"), "{svg}");
        assert_eq!(of_report("<style></style>"), None);
    }
}

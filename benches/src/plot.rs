//! Bars as SVG: the median, with a whisker from the least to the most.

use std::fmt::Write;

use crate::report::Bar;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 240.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 46.0;
const ROW: f64 = 26.0;

/// A plot of bars. Weir's have a colour of their own.
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value.max).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let place = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
    let height = TOP + ROW * f64::from(u32::try_from(bars.len()).unwrap_or(u32::MAX)) + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">{}: {}</text>\n",
        escaped(title),
        escaped(unit)
    );
    let mut top = TOP;
    for bar in bars {
        let (value, middle) = (bar.value, top + ROW / 2.0);
        let colour = if bar.name.starts_with("weir") { "#1f6fb2" } else { "#b8bec6" };
        // Writing into a string cannot fail.
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>\n\
             <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>\n",
            LEFT - 8.0,
            middle + 4.5,
            escaped(&bar.name),
            middle - 8.0,
            place(value.median) - LEFT,
            place(value.min),
            place(value.max),
            place(value.max) + 6.0,
            middle + 4.5,
            value.median
        );
        top += ROW;
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
